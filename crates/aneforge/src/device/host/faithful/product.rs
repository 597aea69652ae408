//! Products and convolutions: summed by the fast kernels' order, rounded by the engine's rules.

use crate::device::Buffer;
use crate::ir::form::{Form, Product as Matrices};
use crate::ir::graph::{Graph, NodeId};
use crate::ir::numerics::Arithmetic;
use crate::ir::ops::binary::source;
use crate::ir::ops::conv::FEW_CHANNELS;
use crate::ir::ops::matmul::lead;
use crate::ir::precision::{BLOCK, Engine};
use aneforge_kernels::Kernels;
use aneforge_kernels::conv::ConvParams;
use aneforge_kernels::sums::{Columns, sums};
use aneforge_tensor::{Encoding, Shape, f16};
use std::sync::atomic::{AtomicU64, Ordering};

/// An operand: its elements, as products take them.
pub(super) type Values = Vec<f32>;

/// A product whose operands are rows and columns of terms, in the order in which they are summed.
pub(super) struct Product {
    rules: &'static Arithmetic,
    kind: Kind,
    types: [Shape; 2],
    out: Shape,
    /// Where the lanes of the hardware are among the terms, behind or between which there are zeros.
    lanes: Vec<usize>,
    terms: usize,
    /// The second operand and the bias, where they are constant.
    weight: Option<Values>,
    bias: Option<Values>,
    /// The columns of a constant second operand, packed.
    packed: Option<Packed>,
    /// Whether the second operand is stored in eight bits.
    bytes: bool,
}

enum Kind {
    Linear,
    Batched,
    Conv(ConvParams, usize),
}

/// Columns, and how long each is.
struct Packed {
    columns: Columns,
    lengths: Vec<AtomicU64>,
}

/// Operands of one run.
#[derive(Clone, Copy)]
struct Operands<'a> {
    rows: &'a [f32],
    columns: &'a [f32],
    bias: Option<&'a [f32]>,
}

/// The length that says that sums must be looked at one by one: of a row or column of ones, or of what is not finite.
const LOOK: f64 = f64::INFINITY;

/// About how many bytes a node needs beside its values, if it is a product: its operands in single precision, packed, and what is
/// stored of a constant one.
pub(super) fn working(graph: &Graph, id: NodeId) -> usize {
    if !matches!(graph.form(id), Form::Product(_) | Form::Conv(..)) {
        return 0;
    }
    let node = graph.node(id);
    let count = |id: NodeId| graph.node(id).ty.shape.count();
    let terms = match graph.form(id) {
        Form::Conv(..) => taps(graph.node(node.inputs[1]).ty.shape).1,
        _ => 0,
    };
    let patches =
        if terms > 0 { node.ty.shape[2].saturating_mul(node.ty.shape[3]).saturating_mul(terms) } else { 0 };
    let operands = node.inputs.iter().map(|&input| 2 * count(input)).fold(count(id), usize::saturating_add);
    size_of::<f32>().saturating_mul(operands.saturating_add(patches))
}

impl Product {
    /// The product that a node is, if it is one.
    pub(super) fn new(
        graph: &Graph,
        id: NodeId,
        rules: &'static Arithmetic,
        kernels: &Kernels,
    ) -> Option<Product> {
        let node = graph.node(id);
        let kind = match graph.form(id) {
            Form::Product(Matrices::Linear) => Kind::Linear,
            Form::Product(Matrices::Batched) => Kind::Batched,
            Form::Conv(params, groups) => Kind::Conv(params, groups),
            _ => return None,
        };
        let types = [0, 1].map(|at| graph.node(node.inputs[at]).ty.shape);
        let (lanes, terms) = match kind {
            Kind::Conv(..) => taps(types[1]),
            _ => ((0..types[0][types[0].rank() - 1]).collect(), types[0][types[0].rank() - 1]),
        };
        let constant = |at: usize| -> Option<Values> {
            let weight = graph.constant(*node.inputs.get(at)?)?;
            Some(weight.to_f16().into_iter().map(f16::to_f32).collect())
        };
        let encoding = graph.constant(node.inputs[1]).map(|weight| weight.encoding());
        let bytes = matches!((&kind, encoding), (Kind::Linear | Kind::Batched, Some(Encoding::Int8)));
        let (weight, bias, out) = (constant(1), constant(2), node.ty.shape);
        let mut product =
            Product { rules, kind, types, out, lanes, terms, weight: None, bias, packed: None, bytes };
        product.weight = weight.map(|weight| product.prepared(1, weight));
        if let (Kind::Linear, Some(weight)) = (&product.kind, &product.weight) {
            product.packed = Some(product.columns(kernels, 0, weight));
        }
        Some(product)
    }

    /// Whether it reads this operand anew in every run.
    pub(super) fn reads(&self, at: usize) -> bool {
        match at {
            1 => self.weight.is_none(),
            2 => self.bias.is_none(),
            _ => true,
        }
    }

    /// An operand as rows or columns are read of it: images pixel after pixel, kernels tap after tap, and flushed.
    fn prepared(&self, at: usize, mut values: Values) -> Values {
        if self.rules.flushes_subnormals {
            values.iter_mut().for_each(|v| *v = self.rules.flushed(f64::from(*v)) as f32);
        }
        let limit = self.rules.byte_operand_limit;
        if at == 0 && self.bytes {
            let beyond = values.iter_mut().filter(|v| f64::from(v.abs()) > limit);
            beyond.for_each(|v| *v = f32::INFINITY.copysign(*v));
        }
        if !matches!(self.kind, Kind::Conv(..)) {
            return values;
        }
        // Of `[N, C, ..]`, `[N, .., C]`.
        let (channels, places) = (self.types[at][1], self.types[at][2] * self.types[at][3]);
        let mut turned = vec![0.0; values.len()];
        for (from, to) in
            values.chunks((channels * places).max(1)).zip(turned.chunks_mut((channels * places).max(1)))
        {
            for (channel, values) in from.chunks(places.max(1)).enumerate() {
                let to = to[channel..].iter_mut().step_by(channels);
                to.zip(values).for_each(|(to, v)| *to = *v);
            }
        }
        turned
    }

    /// Batches, rows and columns.
    fn extents(&self) -> [usize; 3] {
        let [a, b] = self.types;
        match self.kind {
            Kind::Linear => [1, a.count() / a[a.rank() - 1].max(1), b[0]],
            Kind::Batched => [lead(self.out).count(), a[a.rank() - 2], b[b.rank() - 1]],
            Kind::Conv(_, groups) => [self.out[0] * groups, self.out[1] / groups, self.out[2] * self.out[3]],
        }
    }

    /// Runs on operands of which those that are constant are left out.
    pub(super) fn run(&self, kernels: &Kernels, mut operands: [Option<Values>; 3], out: &Buffer) {
        let [left, right] = [0, 1].map(|at| operands[at].take().map(|values| self.prepared(at, values)));
        let left = left.as_deref().expect("invariant: read in every run");
        let right = right.as_deref().or(self.weight.as_deref()).expect("invariant: constant or read");
        let bias = operands[2].as_deref().or(self.bias.as_deref());
        // The rows of a convolution are those of its kernels.
        let operands = match self.kind {
            Kind::Conv(..) => Operands { rows: right, columns: left, bias },
            _ => Operands { rows: left, columns: right, bias },
        };
        let [batches, rows, columns] = self.extents();
        let mut values = out.values_mut().expect("invariant: fresh buffers are plain");
        let mut summed = vec![0.0f32; rows * columns];
        for batch in (0..batches).take_while(|_| rows * columns > 0) {
            let lengths: Vec<AtomicU64> = (0..rows).map(|_| AtomicU64::new(0)).collect();
            let own;
            let packed = match &self.packed {
                Some(packed) => packed,
                None => {
                    own = self.columns(kernels, batch, operands.columns);
                    &own
                }
            };
            let fill = |row: usize, to: &mut [f32]| {
                self.row(batch, row, operands.rows, to);
                lengths[row].store(self.length(to).to_bits(), Ordering::Relaxed);
            };
            let finish = |row: usize, sums: &mut [f32]| {
                let length = read(&lengths[row]);
                for (column, sum) in sums.iter_mut().enumerate() {
                    // No sum of some of the terms is longer than the two lengths allow.
                    let safe = length * read(&packed.lengths[column]) < self.rules.partial_limit;
                    let special = (!safe).then(|| self.special(batch, [row, column], operands)).flatten();
                    let bias = operands.bias.map(|bias| bias[self.bias_at(batch, [row, column])]);
                    *sum = self.stored(special.unwrap_or_else(|| f64::from(*sum)), bias);
                }
            };
            sums(kernels, &packed.columns, fill, finish, &mut summed);
            let target = &mut values[batch * rows * columns..][..rows * columns];
            target.iter_mut().zip(&summed).for_each(|(to, v)| *to = f16::from_f32(*v));
        }
    }

    /// What is stored for a sum.
    fn stored(&self, sum: f64, bias: Option<f32>) -> f32 {
        // One term of a convolution is an elementwise product, which has the range of half precision.
        let limited = self.lanes.len() > 1 || !matches!(self.kind, Kind::Conv(..));
        let stored = if limited { self.rules.store_product(sum) } else { self.rules.store(sum) };
        bias.map_or(stored, |bias| self.rules.store(stored + f64::from(bias))) as f32
    }

    fn bias_at(&self, batch: usize, [row, column]: [usize; 2]) -> usize {
        match self.kind {
            Kind::Conv(_, groups) => batch % groups * (self.out[1] / groups) + row,
            _ => column,
        }
    }

    /// The columns of a batch.
    fn columns(&self, kernels: &Kernels, batch: usize, of: &[f32]) -> Packed {
        let count = self.extents()[2];
        let lengths: Vec<AtomicU64> = (0..count).map(|_| AtomicU64::new(0)).collect();
        let columns = Columns::new(kernels, [count, self.terms], |column, to| {
            self.column(batch, column, of, to);
            lengths[column].store(self.length(to).to_bits(), Ordering::Relaxed);
        });
        Packed { columns, lengths }
    }

    /// The length of a row or a column, or [`LOOK`].
    fn length(&self, terms: &[f32]) -> f64 {
        if self.lanes.iter().all(|&lane| terms[lane] == 1.0) {
            return LOOK;
        }
        let (lanes, rest) = terms.as_chunks::<8>();
        let mut squares = [0.0f32; 8];
        for lane in lanes {
            squares.iter_mut().zip(lane).for_each(|(sum, v)| *sum += v * v);
        }
        let square = squares.iter().chain(rest.iter().map(|v| v * v).collect::<Vec<_>>().iter()).sum::<f32>();
        // A little longer than it may be, as these sums round, too.
        if square.is_finite() { f64::from(square).sqrt() * 1.001 + f64::MIN_POSITIVE } else { LOOK }
    }

    /// The sum of a row and a column, where the engine's is another than that of the products.
    fn special(&self, batch: usize, [row, column]: [usize; 2], operands: Operands<'_>) -> Option<f64> {
        let terms = self.terms.next_multiple_of(BLOCK);
        let (mut a, mut b) = (vec![0.0; terms], vec![0.0; terms]);
        self.row(batch, row, operands.rows, &mut a);
        self.column(batch, column, operands.columns, &mut b);
        let mut engine = Engine::new(self.rules)?;
        for &lane in &self.lanes {
            engine.push(f64::from(a[lane]), f64::from(b[lane]));
        }
        engine.total()
    }

    /// Writes the terms of a row.
    fn row(&self, batch: usize, row: usize, of: &[f32], to: &mut [f32]) {
        let [a, _] = self.types;
        match self.kind {
            Kind::Linear => to[..self.terms].copy_from_slice(&of[row * self.terms..][..self.terms]),
            Kind::Batched => {
                let matrix = source(lead(a), lead(self.out), batch);
                let from = (matrix * a[a.rank() - 2] + row) * self.terms;
                to[..self.terms].copy_from_slice(&of[from..][..self.terms]);
            }
            Kind::Conv(_, groups) => {
                let (channels, count) = (self.types[1][1], self.lanes.len());
                let kernel = batch % groups * (self.out[1] / groups) + row;
                let taps = of[kernel * count..][..count].chunks(channels.max(1));
                for (taps, lanes) in taps.zip(self.lanes.chunks(channels.max(1))) {
                    to[lanes[0]..][..channels].copy_from_slice(taps);
                }
            }
        }
    }

    /// Writes the terms of a column.
    fn column(&self, batch: usize, column: usize, of: &[f32], to: &mut [f32]) {
        let [_, b] = self.types;
        match self.kind {
            Kind::Linear => to[..self.terms].copy_from_slice(&of[column * self.terms..][..self.terms]),
            Kind::Batched => {
                let (k, n) = (b[b.rank() - 2], b[b.rank() - 1]);
                let matrix = source(lead(b), lead(self.out), batch);
                let values = of[(matrix * k * n + column).min(of.len())..].iter().step_by(n);
                to.iter_mut().zip(values.take(k)).for_each(|(to, v)| *to = *v);
            }
            Kind::Conv(params, groups) => self.patch(params, groups, (batch, column), of, to),
        }
    }

    /// Writes what the taps of a kernel meet at a pixel of the result.
    fn patch(
        &self,
        params: ConvParams,
        groups: usize,
        (batch, pixel): (usize, usize),
        of: &[f32],
        to: &mut [f32],
    ) {
        let [image, kernels] = self.types;
        let (channels, kw) = (kernels[1], kernels[3]);
        let (all, h, w) = (image[1], image[2], image[3]);
        let first = batch / groups * all * h * w + batch % groups * channels;
        let (oy, ox) = (pixel / self.out[3], pixel % self.out[3]);
        let ConvParams { stride, pad, dilation } = params;
        for (tap, lanes) in self.lanes.chunks(channels.max(1)).enumerate() {
            let y = (oy * stride[0] + tap / kw * dilation[0]).checked_sub(pad[0]).filter(|&y| y < h);
            let x = (ox * stride[1] + tap % kw * dilation[1]).checked_sub(pad[2]).filter(|&x| x < w);
            let Some((y, x)) = y.zip(x) else { continue };
            let from = first + (y * w + x) * all;
            to[lanes[0]..][..channels].copy_from_slice(&of[from..][..channels]);
        }
    }
}

fn read(length: &AtomicU64) -> f64 {
    f64::from_bits(length.load(Ordering::Relaxed))
}

/// Where the terms of a convolution lie, tap by tap and channel by channel, and how many places there are.
fn taps(kernels: Shape) -> (Vec<usize>, usize) {
    let [_, channels, kh, kw] = [0, 1, 2, 3].map(|axis| kernels[axis]);
    let (mut lanes, mut next) = (Vec::new(), 0);
    for _ in 0..kh {
        for _ in 0..kw {
            lanes.extend(next..next + channels);
            next += if channels <= FEW_CHANNELS { FEW_CHANNELS } else { channels.next_multiple_of(BLOCK) };
        }
        next = next.next_multiple_of(BLOCK);
    }
    (lanes, next)
}
