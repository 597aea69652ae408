//! Double precision, on several threads where much is to be computed.

use crate::ir::form::{Form, Product};
use crate::ir::graph::{Graph, NodeId};
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use aneforge_tensor::Shape;

/// Operations from which on threads are worth starting.
const MANY: f64 = 1e6;

/// The value of a node in double precision, by its definition. Products and convolutions are divided among threads by the rows
/// of their weights, each of which makes results of its own.
pub(super) fn eval(graph: &Graph, id: NodeId, inputs: &[&Array], threads: usize) -> Array {
    let node = graph.node(id);
    let whole = |inputs: &[&Array], ty: &TensorType| node.op.eval(inputs, ty, Precision::F64);
    let axis = match graph.form(id) {
        Form::Product(Product::Linear) if inputs.len() == 2 => node.ty.shape.rank() - 1,
        Form::Conv(_, 1) if inputs.len() == 2 => 1,
        _ => return whole(inputs, &node.ty),
    };
    let rows = inputs[1].shape[0];
    let threads = if graph.facts(id).flops < MANY { 1 } else { threads.min(rows) };
    if threads < 2 {
        return whole(inputs, &node.ty);
    }
    let share = rows.div_ceil(threads);
    let parts: Vec<Array> = std::thread::scope(|scope| {
        let part = |first: usize| {
            let weight = cut(inputs[1], first, share.min(rows - first));
            let ty = TensorType { shape: with(node.ty.shape, axis, weight.shape[0]), ..node.ty };
            let whole = &whole;
            scope.spawn(move || whole(&[inputs[0], &weight], &ty))
        };
        let started: Vec<_> = (0..rows).step_by(share).map(part).collect();
        started.into_iter().map(|part| part.join().expect("a definition does not panic")).collect()
    });
    joined(node.ty.shape, axis, &parts)
}

/// `count` rows of a weight.
fn cut(weight: &Array, first: usize, count: usize) -> Array {
    let row = weight.shape.count() / weight.shape[0];
    let data = weight.data[first * row..(first + count) * row].to_vec();
    Array { shape: with(weight.shape, 0, count), data }
}

fn with(shape: Shape, axis: usize, extent: usize) -> Shape {
    let mut dims = shape.dims().to_vec();
    dims[axis] = extent;
    Shape::new(&dims).expect("invariant: smaller than a shape that there is")
}

/// Parts one after the other along an axis.
fn joined(shape: Shape, axis: usize, parts: &[Array]) -> Array {
    let outer: usize = shape.dims()[..axis].iter().product();
    let mut data = Vec::with_capacity(shape.count());
    for at in 0..outer {
        for part in parts {
            let run = part.data.len() / outer;
            data.extend_from_slice(&part.data[at * run..(at + 1) * run]);
        }
    }
    Array { shape, data }
}
