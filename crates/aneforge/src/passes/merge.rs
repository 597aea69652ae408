//! Common-subexpression elimination: equal ops of equal inputs are one node, equal constants one constant.

use crate::ir::graph::Graph;
use crate::ir::op::Op;
use crate::ir::var::{BuildError, Var};
use aneforge_tensor::Weight;
use std::collections::HashMap;

/// Different constants of one length with the same sampled bytes, each with the first node that holds it.
type Candidates = Vec<(Weight, Var)>;

/// Merges equal nodes. Leaves have identities and are never merged.
pub(super) fn merge(graph: &Graph) -> Result<Graph, BuildError> {
    let mut nodes: HashMap<(Op, Vec<u64>), Var> = HashMap::new();
    let mut constants: HashMap<(usize, Vec<u8>), Candidates> = HashMap::new();
    let vars = graph.to_vars(|id, vars| {
        let node = graph.node(id);
        if let Some(weight) = graph.constant(id) {
            let candidates = constants.entry(sample(weight)).or_default();
            if let Some((_, same)) = candidates.iter().find(|(known, _)| known == weight) {
                return Some(same.clone());
            }
            let var = Var::rebuilt_constant(weight.clone(), node.at);
            candidates.push((weight.clone(), var.clone()));
            return Some(var);
        }
        let inputs: Vec<Var> = node.inputs.iter().map(|i| vars[i.index()].clone()).collect();
        let key = (node.op.clone(), inputs.iter().map(Var::id).collect());
        let build = || Var::rebuilt(node.op.clone(), inputs, node.ty, node.at);
        Some(nodes.entry(key).or_insert_with(build).clone())
    });
    let outputs: Vec<Var> = graph.outputs().iter().map(|o| vars[o.index()].clone()).collect();
    Graph::freeze(&outputs)
}

/// A few bytes that tell most different constants apart, so that few are compared whole.
fn sample(weight: &Weight) -> (usize, Vec<u8>) {
    let bytes = weight.parts()[0].bytes();
    // Odd, so that it meets every byte of an element: the lowest is often zero.
    let step = (bytes.len() / 64) | 1;
    (bytes.len(), bytes.iter().step_by(step).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aneforge_tensor::{Shape, Tensor};

    /// `x` plus two vectors of ones, of which the second has another value at `place`.
    fn constants_after(place: Option<usize>) -> usize {
        let shape = Shape::new(&[1000]).unwrap();
        let mut values = vec![1.0f32; 1000];
        let ones = Var::constant(Tensor::from_slice(shape, &values).unwrap());
        place.into_iter().for_each(|place| values[place] = 2.0);
        let others = Var::constant(Tensor::from_slice(shape, &values).unwrap());
        let graph = Graph::freeze(&[Var::input(shape) + ones + others]).unwrap();
        merge(&graph).unwrap().constants().len()
    }

    #[test]
    fn samples_are_short_and_tell_weights_apart() {
        let of = |first: f32| {
            let values: Vec<f32> = (0..2048).map(|i| i as f32 + first).collect();
            sample(&Weight::from(Tensor::from_slice(Shape::new(&[2048]).unwrap(), &values).unwrap()))
        };
        assert_eq!((of(1.0).0, of(1.0).1.len()), (8192, 64));
        assert_ne!(of(1.0), of(2.0));
    }

    #[test]
    fn constants_are_compared_whole() {
        assert_eq!(constants_after(None), 1, "equal contents of two tensors");
        // Most of these places are in no sample.
        for place in (0..1000).step_by(37) {
            assert_eq!(constants_after(Some(place)), 2, "place {place}");
        }
    }
}
