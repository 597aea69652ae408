//! Double precision: ops by their definitions, products and convolutions in blocks and on several threads, as those are what
//! networks are made of.

use crate::ir::form::{Form, Product};
use crate::ir::graph::{Graph, NodeId};
use crate::ir::precision::{Array, Precision};
use aneforge_kernels::conv::ConvParams;
use std::num::NonZeroUsize;

/// Operations from which on blocks and threads are worth their while.
const MANY: f64 = 1e6;
/// Numbers of a block of the right matrix: half a megabyte, which stays near.
const BLOCK: usize = 1 << 16;
/// Rows of the left matrix that are computed together.
const ROWS: usize = 4;

/// The value of a node in double precision.
pub(super) fn eval(graph: &Graph, id: NodeId, inputs: &[&Array], threads: usize) -> Array {
    let node = graph.node(id);
    let (out, threads) = (node.ty.shape, NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN));
    let data = match (graph.form(id), inputs) {
        (_, _) if graph.facts(id).flops < MANY => None,
        (Form::Product(Product::Linear), [x, weight, bias @ ..]) => {
            Some(biased(linear(x, weight, threads), bias, weight.shape[0], 1))
        }
        (Form::Product(Product::Batched), [x, y]) => batched(x, y, threads),
        (Form::Conv(params, 1), [image, kernels, bias @ ..]) => {
            let data = conv(image, kernels, params, out.dims(), threads);
            Some(biased(data, bias, out[1], out[2] * out[3]))
        }
        _ => None,
    };
    match data {
        Some(data) => Array { shape: out, data },
        None => node.op.eval(inputs, &node.ty, Precision::F64),
    }
}

/// Values of channels, each of `run` elements, with what is added to each.
fn biased(mut data: Vec<f64>, bias: &[&Array], channels: usize, run: usize) -> Vec<f64> {
    if let [bias] = bias {
        let runs = data.chunks_exact_mut(run.max(1)).enumerate();
        runs.for_each(|(at, run)| run.iter_mut().for_each(|v| *v += bias.data[at % channels]));
    }
    data
}

/// `[.., K]` by the transpose of `[N, K]`: the rows of the weight are the left matrix, those of `x` the columns of the right one.
fn linear(x: &Array, weight: &Array, threads: NonZeroUsize) -> Vec<f64> {
    let (n, k) = (weight.shape[0], weight.shape[1]);
    let m = x.data.len() / k.max(1);
    let fill = |columns: std::ops::Range<usize>, block: &mut [f64]| {
        for (to, at) in columns.clone().enumerate() {
            for (row, value) in x.data[at * k..(at + 1) * k].iter().enumerate() {
                block[row * columns.len() + to] = *value;
            }
        }
    };
    let product = product(&weight.data, [n, k, m], fill, threads);
    // Of `[N, M]`, the transpose.
    let mut out = vec![0.0; m * n];
    for (row, values) in product.chunks_exact(m).enumerate() {
        values.iter().enumerate().for_each(|(column, value)| out[column * n + row] = *value);
    }
    out
}

/// `[.., M, K]` by `[.., K, N]`, where both have the same leading axes.
fn batched(x: &Array, y: &Array, threads: NonZeroUsize) -> Option<Vec<f64>> {
    let (a, b) = (x.shape.dims(), y.shape.dims());
    let ([lead @ .., m, k], [other @ .., _, n]) = (a, b) else { return None };
    if lead != other {
        return None;
    }
    let mut out = Vec::with_capacity(lead.iter().product::<usize>() * m * n);
    for at in 0..lead.iter().product() {
        let right = &y.data[at * k * n..(at + 1) * k * n];
        let fill = |columns: std::ops::Range<usize>, block: &mut [f64]| {
            for (row, to) in block.chunks_exact_mut(columns.len()).enumerate() {
                to.copy_from_slice(&right[row * n + columns.start..row * n + columns.end]);
            }
        };
        out.extend(product(&x.data[at * m * k..(at + 1) * m * k], [*m, *k, *n], fill, threads));
    }
    Some(out)
}

/// The correlation of images with kernels: per image, the kernels by the pixels that each of them meets.
fn conv(
    images: &Array,
    kernels: &Array,
    params: ConvParams,
    out: &[usize],
    threads: NonZeroUsize,
) -> Vec<f64> {
    let (cin, height, width) = (images.shape[1], images.shape[2], images.shape[3]);
    let (cout, kh, kw) = (kernels.shape[0], kernels.shape[2], kernels.shape[3]);
    let (ho, wo) = (out[2], out[3]);
    let ConvParams { stride, pad, dilation } = params;
    let mut all = Vec::with_capacity(out.iter().product());
    for image in images.data.chunks_exact((cin * height * width).max(1)) {
        let pixel = |channel: usize, y: usize, x: usize| {
            let (y, x) = (y.checked_sub(pad[0]), x.checked_sub(pad[2]));
            match (y.filter(|&y| y < height), x.filter(|&x| x < width)) {
                (Some(y), Some(x)) => image[(channel * height + y) * width + x],
                _ => 0.0,
            }
        };
        let fill = |columns: std::ops::Range<usize>, block: &mut [f64]| {
            for (row, to) in block.chunks_exact_mut(columns.len()).enumerate() {
                let (channel, i, j) = (row / (kh * kw), row / kw % kh, row % kw);
                for (to, at) in to.iter_mut().zip(columns.clone()) {
                    let (y, x) =
                        (at / wo * stride[0] + i * dilation[0], at % wo * stride[1] + j * dilation[1]);
                    *to = pixel(channel, y, x);
                }
            }
        };
        all.extend(product(&kernels.data, [cout, cin * kh * kw, ho * wo], fill, threads));
    }
    all
}

/// A matrix `[M, K]` by one `[K, N]`, of which `fill` makes blocks of columns: `[M, N]`.
fn product(
    left: &[f64],
    [m, k, n]: [usize; 3],
    fill: impl Fn(std::ops::Range<usize>, &mut [f64]) + Sync,
    threads: NonZeroUsize,
) -> Vec<f64> {
    let columns = (BLOCK / k.max(1)).clamp(8, 512).min(n.div_ceil(threads.get()).max(1));
    let starts: Vec<usize> = (0..n).step_by(columns).collect();
    let mut out = vec![0.0; m * n];
    let parts: Vec<Vec<(usize, Vec<f64>)>> = std::thread::scope(|scope| {
        let work = |thread: usize| {
            let (starts, fill) = (&starts, &fill);
            scope.spawn(move || {
                let mine = starts.iter().skip(thread).step_by(threads.get());
                let block = |&start: &usize| {
                    let range = start..(start + columns).min(n);
                    let mut block = vec![0.0; k * range.len()];
                    fill(range.clone(), &mut block);
                    (start, times(left, k, &block, range.len()))
                };
                mine.map(block).collect()
            })
        };
        let started: Vec<_> = (0..threads.get()).map(work).collect();
        started.into_iter().map(|part| part.join().expect("arithmetic does not panic")).collect()
    });
    for (start, part) in parts.into_iter().flatten() {
        let width = part.len() / m.max(1);
        for (row, values) in part.chunks_exact(width.max(1)).enumerate() {
            out[row * n + start..row * n + start + width].copy_from_slice(values);
        }
    }
    out
}

/// `[M, K]` by a block `[K, width]`, a few rows at a time.
fn times(left: &[f64], k: usize, block: &[f64], width: usize) -> Vec<f64> {
    let mut out = vec![0.0; left.len() / k.max(1) * width];
    for (rows, out) in left.chunks(ROWS * k).zip(out.chunks_mut(ROWS * width)) {
        if rows.len() < ROWS * k {
            for (row, out) in rows.chunks_exact(k).zip(out.chunks_exact_mut(width)) {
                for (factor, values) in row.iter().zip(block.chunks_exact(width)) {
                    out.iter_mut().zip(values).for_each(|(out, value)| *out += factor * value);
                }
            }
            continue;
        }
        let (first, second) = out.split_at_mut(2 * width);
        let ((a, b), (c, d)) = (first.split_at_mut(width), second.split_at_mut(width));
        for (at, values) in block.chunks_exact(width).enumerate() {
            let factor = |row: usize| rows[row * k + at];
            let factors = [factor(0), factor(1), factor(2), factor(3)];
            let sums = a.iter_mut().zip(b.iter_mut()).zip(c.iter_mut().zip(d.iter_mut()));
            for (value, ((a, b), (c, d))) in values.iter().zip(sums) {
                *a += factors[0] * value;
                *b += factors[1] * value;
                *c += factors[2] * value;
                *d += factors[3] * value;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::ops::conv::Conv;
    use crate::ir::var::Var;
    use aneforge_tensor::{Shape, random};

    fn array(dims: &[usize], seed: u64) -> Array {
        Array::from_fn(Shape::new(dims).unwrap(), |i| f64::from(random::normal(seed, i as u64)))
    }

    /// Blocks and threads change nothing but the order of sums.
    #[test]
    fn large_products_are_those_of_the_definition() {
        let input = |dims: &[usize]| Var::input(Shape::new(dims).unwrap());
        let conv = |image: &[usize], kernels: &[usize], strides, pad, dilations| {
            let op = Conv { strides, pad, dilations, groups: 1 };
            (Var::apply(op, &[&input(image), &input(kernels)]), vec![array(image, 1), array(kernels, 2)])
        };
        let cases = [
            (
                input(&[3, 37, 65]).linear(&input(&[130, 65]), None),
                vec![array(&[3, 37, 65], 1), array(&[130, 65], 2)],
            ),
            (
                input(&[2, 3, 40, 65]).matmul_value(&input(&[2, 3, 65, 70])),
                vec![array(&[2, 3, 40, 65], 1), array(&[2, 3, 65, 70], 2)],
            ),
            (
                input(&[3, 90, 65]).matmul_value(&input(&[65, 70])),
                vec![array(&[3, 90, 65], 1), array(&[65, 70], 2)],
            ),
            conv(&[2, 5, 33, 29], &[7, 5, 3, 5], [1, 1], [1, 1, 2, 2], [1, 1]),
            (
                Var::apply(
                    Conv { strides: [1, 1], pad: [1; 4], dilations: [1, 1], groups: 1 },
                    &[&input(&[2, 9, 33, 29]), &input(&[17, 9, 3, 3]), &input(&[1, 17, 1, 1])],
                ),
                vec![array(&[2, 9, 33, 29], 1), array(&[17, 9, 3, 3], 2), array(&[1, 17, 1, 1], 3)],
            ),
            (
                input(&[77, 65]).linear(&input(&[130, 65]), Some(&input(&[130]))),
                vec![array(&[77, 65], 1), array(&[130, 65], 2), array(&[130], 3)],
            ),
            conv(&[1, 9, 64, 63], &[18, 9, 3, 3], [2, 3], [0, 2, 1, 0], [2, 1]),
        ];
        for (var, inputs) in cases {
            let graph = Graph::freeze(std::slice::from_ref(&var)).unwrap();
            let id = graph.outputs()[0];
            assert!(graph.facts(id).flops >= MANY, "{}", graph.facts(id).flops);
            let inputs: Vec<&Array> = inputs.iter().collect();
            let expected = var.op().eval(&inputs, &var.ty(), Precision::F64);
            for threads in [1, 3] {
                let got = eval(&graph, id, &inputs, threads);
                assert_eq!(got.shape, expected.shape);
                let apart = got.data.iter().zip(&expected.data).map(|(a, b)| (a - b).abs());
                assert!(apart.fold(0.0, f64::max) < 1e-11);
            }
        }
    }
}
