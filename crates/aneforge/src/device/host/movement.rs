//! Elements brought to other places, and mixed with their neighbours on the way.

use crate::device::host::routine::{Call, Routine, Setup, halves};
use crate::ir::form::{Form, Move, Sampling, Warp};
use aneforge_kernels::{Scratch, View, gather, layout, warp};
use aneforge_tensor::{MAX_RANK, Shape, f16};

enum Movement {
    Transpose {
        /// What the operand's axes are split into, or its own extents.
        extents: Vec<usize>,
        perm: Vec<usize>,
    },
    /// Places per axis.
    Gather(Vec<Vec<usize>>),
    /// From this first element.
    Slice(Vec<usize>),
    /// Along this axis.
    Concat(usize),
    /// A set of axes.
    Reverse(u32),
    /// Where the rows and the columns of the result read.
    Bilinear([Vec<gather::Tap>; 2]),
    /// Through maps of the coordinates of rows and columns.
    Affine([warp::Axis; 2]),
}

pub(super) fn recognise(setup: &Setup<'_>) -> Option<Box<dyn Routine>> {
    Some(Box::new(match &setup.step.form {
        Form::Move(places) => tables(places, setup.shape(0)),
        Form::Sample(sampling) => Movement::Bilinear([0, 1].map(|axis| taps(sampling, axis))),
        Form::Warp(warp) => Movement::Affine([0, 1].map(|axis| coordinates(warp, axis))),
        _ => return None,
    }))
}

fn tables(places: &Move, x: Shape) -> Movement {
    match places {
        Move::Transpose { extents, perm } => {
            Movement::Transpose { extents: extents.clone(), perm: perm.clone() }
        }
        Move::Repeat(times) => {
            let repeated = |(axis, &n): (usize, &usize)| (0..x[axis] * n).map(|i| i % x[axis]).collect();
            Movement::Gather(times.iter().enumerate().map(repeated).collect())
        }
        Move::Nearest(sampling) => Movement::Gather(vec![
            (0..x[0]).collect(),
            (0..x[1]).collect(),
            sampling.before(0),
            sampling.before(1),
        ]),
        Move::Slice { begin, .. } => Movement::Slice(begin.clone()),
        Move::Concat(axis) => Movement::Concat(*axis),
        Move::Reverse(axes) => Movement::Reverse(*axes),
    }
}

fn taps(sampling: &Sampling, axis: usize) -> Vec<gather::Tap> {
    let tap = |(low, high, share)| gather::Tap { low, high, weight: share as f32 };
    sampling.between(axis).into_iter().map(tap).collect()
}

fn coordinates(warp: &Warp, axis: usize) -> warp::Axis {
    let [slope, offset] = warp.pixels(axis);
    let coordinates = (0..warp.to[axis]).map(|i| warp.coordinate(axis, i)).collect();
    warp::Axis { size: warp.from[axis], coordinates, slope, offset }
}

impl Routine for Movement {
    fn run(&self, call: &Call<'_, '_>, _: &mut Scratch, out: &mut [u8]) {
        let (k, out) = (call.kernels, halves(out));
        match self {
            Movement::Transpose { extents, perm } => {
                layout::transpose(k, View::new(call.half(0), extents), perm, out);
            }
            Movement::Gather(places) => gather::gather(k, call.view(0), places, out),
            Movement::Slice(begin) => {
                let steps = &[1; MAX_RANK][..begin.len()];
                layout::slice(k, call.view(0), begin, call.result(), steps, out);
            }
            Movement::Concat(axis) => concat(call, *axis, out),
            Movement::Reverse(axes) => layout::reverse(k, call.view(0), *axes, out),
            Movement::Bilinear([rows, columns]) => {
                let [_, _, h, w] = call.four(0);
                gather::bilinear(k, call.half(0), [h, w], rows, columns, out);
            }
            Movement::Affine(axes) => warp::affine(k, call.half(0), call.four(0)[1], call.half(1), axes, out),
        }
        call.finish(out);
    }
}

fn concat(call: &Call<'_, '_>, axis: usize, out: &mut [f16]) {
    let inner: usize = call.result()[axis..].iter().product();
    let mut start = 0;
    for index in 0..call.step.inputs.len() {
        let run: usize = call.extents(index)[axis..].iter().product();
        for (to, from) in out.chunks_exact_mut(inner).zip(call.half(index).chunks_exact(run)) {
            to[start..start + run].copy_from_slice(from);
        }
        start += run;
    }
}
