//! Elements brought to other places, and mixed with their neighbours on the way.

use crate::device::host::operand::Operand;
use crate::device::host::plan::Step;
use crate::device::host::routine::{Call, Routine, Setup, halves};
use crate::ir::form::{Form, Move, Sampling, Warp};
use aneforge_kernels::{Layout, Scratch, View, gather, layout, warp};
use aneforge_tensor::{Shape, f16};

/// The most operands that are put together by one kernel.
const FEW: usize = 8;

enum Movement {
    Transpose {
        /// What the operand's axes are split into, or its own extents.
        extents: Vec<usize>,
        perm: Vec<usize>,
    },
    /// Places per axis.
    Gather(Vec<Vec<usize>>),
    /// Where the elements of each operand go.
    Copy(Vec<[Layout; 2]>),
    /// All operands without gaps, of these extents, side by side along an axis in short rows.
    Beside(usize, Vec<Vec<usize>>),
    /// A set of axes.
    Reverse(u32),
    /// Where the rows and the columns of the result read.
    Bilinear([Vec<gather::Tap>; 2]),
    /// Through maps of the coordinates of rows and columns.
    Affine([warp::Axis; 2]),
}

pub(super) fn recognise(setup: &Setup<'_>) -> Option<Box<dyn Routine>> {
    Some(Box::new(match &setup.step.form {
        Form::Move(Move::Slice { begin, .. }) => Movement::Copy(vec![slice(setup.step, begin)]),
        &Form::Move(Move::Concat(axis)) => {
            let parts = concat(setup.step, axis);
            match beside(setup.step, axis, &parts) {
                Some(extents) => Movement::Beside(axis, extents),
                None => Movement::Copy(parts),
            }
        }
        Form::Move(places) => tables(places, setup.shape(0))?,
        Form::Sample(sampling) => Movement::Bilinear([0, 1].map(|axis| taps(sampling, axis))),
        Form::Warp(warp) => Movement::Affine([0, 1].map(|axis| coordinates(warp, axis))),
        _ => return None,
    }))
}

fn tables(places: &Move, x: Shape) -> Option<Movement> {
    Some(match places {
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
        Move::Reverse(axes) => Movement::Reverse(*axes),
        Move::Slice { .. } | Move::Concat(_) => return None,
    })
}

/// The window of this array that begins at these places and has these extents.
fn window(of: &Layout, begin: &[usize], extents: &[usize]) -> Layout {
    let before: usize = begin.iter().zip(of.strides()).map(|(begin, stride)| begin * stride).sum();
    Layout::new(of.start() + before, extents, of.strides())
}

/// Where a slice reads and writes.
fn slice(step: &Step, begin: &[usize]) -> [Layout; 2] {
    let to = step.output.spanned().layout;
    [window(&step.inputs[0].layout, begin, to.extents()), to]
}

/// An array of these extents, which may lack the axis of one element along which it is put beside others.
fn of_extents(layout: &Layout, extents: &[usize], axis: usize) -> Layout {
    let mut strides = layout.strides().to_vec();
    if strides.len() < extents.len() {
        strides.insert(axis, 0);
    }
    Layout::new(layout.start(), extents, &strides)
}

/// Where the operands are that are put together along an axis, and where they go.
fn concat(step: &Step, axis: usize) -> Vec<[Layout; 2]> {
    let (whole, mut begin, mut at) = (step.output.spanned().layout, vec![0; step.output.lying.rank()], 0);
    let part = |(index, operand): (usize, &Operand)| {
        let mut extents = whole.extents().to_vec();
        extents[axis] = operand.lying.count() / (step.output.lying.count() / extents[axis]);
        begin[axis] = step.fused.begins.get(index).copied().unwrap_or(at);
        at += extents[axis];
        [of_extents(&operand.layout, &extents, axis), window(&whole, &begin, &extents)]
    };
    step.inputs.iter().enumerate().map(part).collect()
}

/// The extents of operands that are put together along an axis, where they and the result have no gaps and rows are short.
fn beside(step: &Step, axis: usize, parts: &[[Layout; 2]]) -> Option<Vec<Vec<usize>>> {
    let whole = step.output.spanned().layout;
    let row: usize = whole.extents()[axis..].iter().product();
    let count = |part: &[Layout; 2]| part[0].extents().iter().product::<usize>();
    let all = parts.iter().map(count).sum::<usize>() == whole.extents().iter().product::<usize>();
    let dense = step.output.is_dense() && step.inputs.iter().all(Operand::is_dense);
    let short = row <= layout::SHORT && parts.len() <= FEW;
    (short && all && dense).then(|| parts.iter().map(|part| part[0].extents().to_vec()).collect())
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
            Movement::Copy(parts) => {
                for (operand, [from, to]) in call.step.inputs.iter().zip(parts) {
                    layout::place(k, call.around(operand), from, out, to);
                }
                if call.step.output.is_dense() {
                    call.finish(out);
                }
                return;
            }
            Movement::Beside(axis, extents) => {
                let part = |at: usize| match extents.get(at) {
                    Some(extents) => View::new(call.half(at), extents),
                    None => View::new(&[], &[0]),
                };
                let parts: [View<'_, f16>; FEW] = std::array::from_fn(part);
                layout::concat(k, &parts[..extents.len()], *axis, out);
            }
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
