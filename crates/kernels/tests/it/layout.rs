//! Copies between layouts.

use aneforge_kernels::{Layout, View, layout};
use proptest::prelude::*;

use super::support::{Random, cases, contexts};

fn coordinates(shape: &[usize], mut index: usize) -> Vec<usize> {
    let mut coordinates = vec![0; shape.len()];
    for axis in (0..shape.len()).rev() {
        coordinates[axis] = index % shape[axis];
        index /= shape[axis];
    }
    coordinates
}

fn index(shape: &[usize], coordinates: &[usize]) -> usize {
    shape.iter().zip(coordinates).fold(0, |index, (size, coordinate)| index * size + coordinate)
}

/// The output of shape `shape` whose element at some coordinates is that of `x` at `source(coordinates)`.
fn want(shape: &[usize], x: &[u16], x_shape: &[usize], source: impl Fn(&[usize]) -> Vec<usize>) -> Vec<u16> {
    (0..shape.iter().product()).map(|at| x[index(x_shape, &source(&coordinates(shape, at)))]).collect()
}

fn input() -> impl Strategy<Value = (Vec<usize>, Vec<u16>, u64)> {
    let size = prop_oneof![1..5_usize, Just(18), Just(33)];
    (prop::collection::vec(size, 1..5), any::<u64>()).prop_map(|(shape, seed)| {
        let mut random = Random(seed);
        let x = (0..shape.iter().product()).map(|_| random.next() as u16).collect();
        (shape, x, seed)
    })
}

fn check(want: &[u16], body: impl Fn(&aneforge_kernels::Kernels, &mut [u16])) {
    for kernels in contexts() {
        let mut out = vec![0xdead; want.len()];
        body(kernels, &mut out);
        assert!(out == want, "{kernels:?}");
    }
}

proptest! {
    #![proptest_config(cases(60))]

    /// A window of an array, brought to a window of another one, which stays around it.
    #[test]
    fn windows_are_placed_in_windows((shape, x, seed) in input()) {
        let mut random = Random(seed);
        let strides = |shape: &[usize]| -> Vec<usize> {
            (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect()
        };
        let size: Vec<usize> = shape.iter().map(|&extent| 1 + random.below(extent)).collect();
        let mut window = |of: &[usize]| -> Vec<usize> {
            of.iter().zip(&size).map(|(&extent, &size)| random.below(extent - size + 1)).collect()
        };
        let whole: Vec<usize> = shape.iter().map(|&extent| extent + seed as usize % 3).collect();
        let (from, to) = (window(&shape), window(&whole));
        let layout = |of: &[usize], begin: &[usize]| Layout::new(index(of, begin), &size, &strides(of));
        let (reads, writes) = (layout(&shape, &from), layout(&whole, &to));
        let mut wanted = vec![0xdead; whole.iter().product()];
        for at in 0..size.iter().product() {
            let place = |begin: &[usize]| -> Vec<usize> {
                coordinates(&size, at).iter().zip(begin).map(|(place, begin)| place + begin).collect()
            };
            wanted[index(&whole, &place(&to))] = x[index(&shape, &place(&from))];
        }
        check(&wanted, |kernels, out| layout::place(kernels, &x, &reads, out, &writes));
        let gathered = want(&size, &x, &shape, |at| at.iter().zip(&from).map(|(at, from)| at + from).collect());
        check(&gathered, |kernels, out| layout::gather(kernels, &x, &reads, out));
    }

    #[test]
    fn transpose((shape, x, seed) in input()) {
        let mut random = Random(seed);
        let mut perm: Vec<usize> = (0..shape.len()).collect();
        (0..perm.len()).rev().for_each(|last| perm.swap(last, random.below(last + 1)));
        let out_shape: Vec<usize> = perm.iter().map(|&axis| shape[axis]).collect();
        let want = want(&out_shape, &x, &shape, |at| {
            let mut source = vec![0; at.len()];
            perm.iter().zip(at).for_each(|(&axis, &coordinate)| source[axis] = coordinate);
            source
        });
        check(&want, |kernels, out| layout::transpose(kernels, View::new(&x, &shape), &perm, out));
    }

    #[test]
    fn slice((shape, x, seed) in input()) {
        let mut random = Random(seed);
        let (mut begin, mut size, mut step) = (vec![], vec![], vec![]);
        for &axis in &shape {
            let first = random.below(axis);
            let stride = 1 + random.below(3);
            let backwards = random.below(3) == 0;
            let room = if backwards { first } else { axis - 1 - first };
            begin.push(first);
            size.push(1 + random.below(room / stride + 1));
            step.push(if backwards { -(stride as isize) } else { stride as isize });
        }
        let want = want(&size, &x, &shape, |at| {
            let source = |axis: usize| (begin[axis] as isize + step[axis] * at[axis] as isize) as usize;
            (0..at.len()).map(source).collect()
        });
        check(&want, |kernels, out| {
            layout::slice(kernels, View::new(&x, &shape), &begin, &size, &step, out);
        });
    }

    #[test]
    fn reverse_and_tile((shape, x, seed) in input()) {
        let axes = seed as u32 & 0xf;
        let expected = want(&shape, &x, &shape, |at| {
            let turned = |axis: usize| if axes >> axis & 1 == 1 { shape[axis] - 1 - at[axis] } else { at[axis] };
            (0..at.len()).map(turned).collect()
        });
        check(&expected, |kernels, out| layout::reverse(kernels, View::new(&x, &shape), axes, out));
        let mut random = Random(seed);
        let repeats: Vec<usize> = shape.iter().map(|_| 1 + random.below(2)).collect();
        let tiled: Vec<usize> = shape.iter().zip(&repeats).map(|(size, repeat)| size * repeat).collect();
        let expected = want(&tiled, &x, &shape, |at| at.iter().zip(&shape).map(|(at, size)| at % size).collect());
        check(&expected, |kernels, out| layout::tile(kernels, View::new(&x, &shape), &repeats, out));
    }

    #[test]
    fn broadcast_and_concat((shape, x, seed) in input()) {
        let mut random = Random(seed);
        let own: Vec<usize> = shape.iter().map(|&size| if random.below(2) == 0 { 1 } else { size }).collect();
        let source = &x[..own.iter().product()];
        let expected = want(&shape, source, &own, |at| {
            at.iter().zip(&own).map(|(&at, &size)| if size == 1 { 0 } else { at }).collect()
        });
        check(&expected, |kernels, out| layout::broadcast(kernels, View::new(source, &own), &shape, out));
        let axis = random.below(shape.len());
        let mut second = shape.clone();
        second[axis] = 1 + random.below(4);
        let other: Vec<u16> = (0..second.iter().product()).map(|_| random.next() as u16).collect();
        let mut joined = shape.clone();
        joined[axis] += second[axis];
        let expected: Vec<u16> = (0..joined.iter().product())
            .map(|at| {
                let mut at = coordinates(&joined, at);
                match at[axis].checked_sub(shape[axis]) {
                    None => x[index(&shape, &at)],
                    Some(rest) => {
                        at[axis] = rest;
                        other[index(&second, &at)]
                    }
                }
            })
            .collect();
        let parts = [View::new(&x, &shape), View::new(&other, &second)];
        check(&expected, |kernels, out| layout::concat(kernels, &parts, axis, out));
    }
}

#[test]
fn large_arrays_are_shared_among_threads() {
    let shape = [8, 96, 128];
    let x: Vec<u16> = (0..8 * 96 * 128).map(|x| x as u16).collect();
    for perm in [[0, 2, 1], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
        let out_shape = perm.map(|axis| shape[axis]);
        let expected = want(&out_shape, &x, &shape, |at| {
            let mut source = vec![0; 3];
            perm.iter().zip(at).for_each(|(&axis, &coordinate)| source[axis] = coordinate);
            source
        });
        check(&expected, |kernels, out| layout::transpose(kernels, View::new(&x, &shape), &perm, out));
    }
}

#[test]
fn squares_lines_and_what_is_left_of_them() {
    for shape in [[3, 300, 41], [2, 41, 300], [1, 16, 4099], [2, 130, 64], [5, 7, 9]] {
        let x: Vec<u16> = (0..shape.iter().product::<usize>()).map(|x| x as u16).collect();
        let out_shape = [shape[0], shape[2], shape[1]];
        let expected = want(&out_shape, &x, &shape, |at| vec![at[0], at[2], at[1]]);
        check(&expected, |kernels, out| layout::transpose(kernels, View::new(&x, &shape), &[0, 2, 1], out));
    }
}

#[test]
fn large_parts_are_joined_by_all_threads() {
    let (first, second): (Vec<u16>, Vec<u16>) = ((0..50_000).collect(), (0..60_000).rev().collect());
    let parts = [View::new(&first, &[50_000]), View::new(&[], &[0]), View::new(&second, &[60_000])];
    check(&[&first[..], &second].concat(), |kernels, out| layout::concat(kernels, &parts, 0, out));
    let parts = [View::new(&first, &[2, 25_000]), View::new(&second, &[2, 30_000])];
    let rows = [&first[..25_000], &second[..30_000], &first[25_000..], &second[30_000..]];
    check(&rows.concat(), |kernels, out| layout::concat(kernels, &parts, 1, out));
}
