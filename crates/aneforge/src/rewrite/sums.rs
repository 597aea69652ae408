//! Sums as products, which every engine is known to accumulate in single precision.

use crate::ir::op::{Mil, Op};
use crate::ir::ops::reduce::ReduceSum;
use crate::ir::var::Var;
use crate::target::layers::stand_in;
use aneforge_tensor::Shape;
use std::collections::HashMap;

/// `y` with sums over one axis written as products with a column of ones: all of them, or the one whose
/// place in the order of [`Graph::freeze`](crate::Graph::freeze) is `only`, counted with composed ops
/// [written out](crate::target::layers::written_out). Sums over several axes stay.
///
/// Reports about the engine's own `reduce_sum` disagree on whether it accumulates in half precision; a
/// product does not. Values that no such sum is part of are returned as they are.
///
/// ```
/// use aneforge::{Shape, Var, rewrite::reduce_sum_to_matmul};
/// let x = Var::input(Shape::new(&[2, 300])?);
/// let y = reduce_sum_to_matmul(&x.sum(&[1]).relu(), None);
/// assert_eq!(y.inputs()[0].op().name(), "matmul");
/// assert_eq!(y.check()?.shape.dims(), [2, 1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn reduce_sum_to_matmul(y: &Var, only: Option<usize>) -> Var {
    let mut done: HashMap<u64, Var> = HashMap::new();
    let mut place = 0;
    let mut stack = vec![(y.clone(), 0)];
    while let Some((var, next)) = stack.pop() {
        if done.contains_key(&var.id()) {
            continue;
        }
        let composed = matches!(var.op().mil(), Mil::Composed(_));
        if next == 0
            && let Some(written) = stand_in(var.op(), var.inputs())
        {
            stack.push((var.clone(), var.inputs().len()));
            stack.push((written, 0));
            continue;
        }
        if let Some(input) = var.inputs().get(next).cloned() {
            stack.push((var, next + 1));
            stack.push((input, 0));
            continue;
        }
        let inputs: Vec<Var> = var.inputs().iter().map(|v| done[&v.id()].clone()).collect();
        let wanted = only.is_none_or(|only| only == place);
        let new = match var.op() {
            Op::ReduceSum(ReduceSum { axes }) if wanted && axes.len() == 1 => {
                var.caller().scope(|| as_product(&inputs[0], axes[0]))
            }
            _ if inputs.iter().zip(var.inputs()).all(|(a, b)| a.id() == b.id()) => var.clone(),
            op => var.caller().scope(|| Var::apply(op.clone(), &inputs.iter().collect::<Vec<_>>())),
        };
        done.insert(var.id(), new);
        place += usize::from(!composed);
    }
    done.remove(&y.id()).expect("invariant: the walk ends with the value it began with")
}

/// The sum over `axis`, which stays with size one.
fn as_product(x: &Var, axis: i64) -> Var {
    let rank = x.shape().rank();
    let Ok(axis) = x.shape().axis(axis) else { return x.sum(&[axis]) };
    let ones = Var::full(Shape::new(&[1, x.shape()[axis]]).expect("invariant: part of a shape"), 1.0);
    if axis == rank - 1 {
        return x.linear(&ones, None);
    }
    let mut perm: Vec<i64> = (0..rank as i64).collect();
    perm.swap(axis, rank - 1);
    x.transpose(&perm).linear(&ones, None).transpose(&perm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Graph;
    use crate::ir::precision::{Array, Precision};

    fn input(dims: &[usize]) -> Var {
        Var::input(Shape::new(dims).unwrap())
    }

    fn names(y: &Var) -> Vec<&'static str> {
        let graph = Graph::freeze(std::slice::from_ref(y)).unwrap();
        let names: Vec<_> = graph.nodes().map(|(_, n)| n.op.name()).collect();
        names
    }

    #[test]
    fn sums_over_any_one_axis_become_products_of_the_same_value() {
        let x = input(&[2, 3, 4]);
        for axis in [0, 1, 2] {
            let y = x.sum(&[axis]);
            let z = reduce_sum_to_matmul(&y, None);
            assert!(names(&z).contains(&"matmul") && !names(&z).contains(&"reduce_sum"));
            let feed = Array::from_fn(x.shape(), |i| i as f64);
            let value = |v: &Var| {
                let graph = Graph::freeze(std::slice::from_ref(v)).unwrap();
                graph.eval(std::slice::from_ref(&feed), Precision::F64)[graph.outputs()[0].index()].clone()
            };
            assert_eq!(value(&z), value(&y));
        }
    }

    #[test]
    fn one_sum_can_be_chosen_and_the_rest_stays() {
        let x = input(&[2, 3]);
        let y = x.sum(&[0]) + x.sum(&[1]);
        assert_eq!(names(&y), ["input", "reduce_sum", "reduce_sum", "add"]);
        let second = reduce_sum_to_matmul(&y, Some(2));
        assert_eq!(names(&second), ["input", "reduce_sum", "const_array", "matmul", "add"]);
        assert_eq!(second.inputs()[0].id(), y.inputs()[0].id());
        let both = x.sum(&[0, 1]).relu();
        assert_eq!(reduce_sum_to_matmul(&both, None).id(), both.id());
    }
}
