//! The ways to compile a graph, what the cost model says of each, and which may not be taken unmeasured.

use super::{Search, routed};
use crate::compile::CompileError;
use crate::ir::form::{Form, Product};
use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::op::Mil;
use crate::passes::{self, CompileOptions, Compression, PassError, Routes, SCALARS, Scalars};
use crate::risk::bounds::Bounds;
use crate::target::INT8_ACTIVATIONS;
use crate::target::cost::package;
use crate::target::layers::written_out;
use std::fmt;

/// A way to compile a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Considered {
    /// What it is called.
    pub name: &'static str,
    /// What compiles it so.
    pub options: CompileOptions,
    /// Whether it computes something else, though not much.
    pub lossy: bool,
    /// Microseconds by ANEForge's formula for an M5 Pro, [`package::estimate`].
    pub estimate: f64,
    /// Why it is not taken without measuring its results, if it is not.
    pub refused: Option<String>,
}

impl fmt::Display for Considered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: estimated {:.1} us", self.name, self.estimate)?;
        self.refused.iter().try_for_each(|why| write!(f, ", left alone: {why}"))
    }
}

/// The ways to compile `graph`: native layers kept (`native`) and written out (`fused`), the cheaper first; then, on top of the
/// first, weights of products in bytes (`int8`) and chains of scalars as one (`scalarfold`), where there are any.
pub fn consider(graph: &Graph, options: &CompileOptions) -> Result<Vec<Considered>, CompileError> {
    let graph = &written_out(graph);
    let written = routed(graph, Routes::WrittenOut)?;
    let way = |name, options, graph: &Graph| Considered {
        name,
        options,
        lossy: false,
        estimate: package::estimate(graph, false),
        refused: None,
    };
    let mut ways = vec![way("fused", options.routes(Routes::WrittenOut), &written)];
    if layers(graph) != layers(&written) {
        ways.insert(0, way("native", options.routes(Routes::Native), graph));
    }
    ways.sort_by(|a, b| a.estimate.total_cmp(&b.estimate));
    let base = ways[0].clone();
    let routed = if base.name == "native" { graph } else { &written };
    let lossy = |way: Considered, unsafe_: Option<String>| {
        let slow = way.estimate * Search::default().min_lossy_speedup > base.estimate;
        let slow = slow.then(|| "it loses precision, and is not estimated to be a tenth faster".to_owned());
        Considered { lossy: true, refused: unsafe_.or(slow), ..way }
    };
    if options.compression.is_none() && routed.nodes().any(|(id, node)| has_weight(routed, id, node)) {
        let options = base.options.compression(Compression::new(passes::Form::Int8));
        let int8 = Considered { estimate: package::estimate(routed, true), ..way("int8", options, routed) };
        ways.push(lossy(int8, too_large_for_bytes(routed)));
    }
    let mut events = Vec::new();
    let folded = crate::rewrite::run(routed, SCALARS, &mut events).map_err(PassError::from)?;
    if options.scalars == Scalars::AsWritten && events.iter().any(|event| event.refused.is_none()) {
        ways.push(lossy(way("scalarfold", base.options.scalars(Scalars::Folded), &folded), None));
    }
    Ok(ways)
}

/// The cheapest way by the cost model that need not be measured.
///
/// ```
/// use aneforge::tune::choose;
/// use aneforge::{CompileOptions, Graph, Routes, Shape, Var};
/// let y = Var::input(Shape::new(&[1, 2, 4, 8])?).minmax_norm("Width", 1e-4);
/// let options = choose(&Graph::freeze(&[y])?, &CompileOptions::default())?;
/// assert_eq!(options.routes, Routes::WrittenOut);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn choose(graph: &Graph, options: &CompileOptions) -> Result<CompileOptions, CompileError> {
    let ways = consider(graph, options)?;
    let safe = ways.iter().filter(|way| way.refused.is_none());
    let best = safe.min_by(|a, b| a.estimate.total_cmp(&b.estimate)).expect("invariant: the first is safe");
    Ok(best.options)
}

fn layers(graph: &Graph) -> usize {
    graph.nodes().filter(|(_, n)| matches!(n.op.mil(), Mil::Native(_))).count()
}

/// Whether a node is a product or convolution whose weight may be stored in bytes.
fn has_weight(graph: &Graph, id: NodeId, node: &GraphNode) -> bool {
    let multiplies = matches!(graph.form(id), Form::Product(Product::Linear) | Form::Conv(..));
    multiplies && node.inputs.get(1).is_some_and(|&weight| graph.constant(weight).is_some())
}

/// Why products with bytes may overflow, if they may: their operands are not known to be small.
fn too_large_for_bytes(graph: &Graph) -> Option<String> {
    let bounds = Bounds::of(graph);
    let multiplies = |id| matches!(graph.form(id), Form::Product(_) | Form::Conv(..));
    let why = |(_, node): (NodeId, &GraphNode)| {
        let (op, at) = (node.op.name(), node.at);
        match bounds.get(node.inputs[0]) {
            Some(most) if most <= INT8_ACTIVATIONS => None,
            Some(most) => Some(format!(
                "the operand of {op} may reach {most}, and beyond {INT8_ACTIVATIONS} products with bytes overflow (at {at})"
            )),
            None => Some(format!(
                "nothing bounds the operand of {op}, and beyond {INT8_ACTIVATIONS} products with bytes overflow; declare \
                 max_abs of the inputs (at {at})"
            )),
        }
    };
    graph.nodes().filter(|(id, _)| multiplies(*id)).find_map(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::var::Var;
    use aneforge_tensor::Shape;

    fn product(x: &Var) -> Graph {
        let weight = Var::full(Shape::new(&[4096, 4096]).unwrap(), 0.5);
        Graph::freeze(&[x.linear(&weight, None)]).unwrap()
    }

    fn int8(graph: &Graph) -> Considered {
        let ways = consider(graph, &CompileOptions::default()).unwrap();
        ways.into_iter().find(|way| way.name == "int8").unwrap()
    }

    #[test]
    fn bytes_need_a_bound_of_what_they_multiply() {
        let x = Var::input(Shape::new(&[1, 4096]).unwrap());
        let unknown = product(&x);
        let why = int8(&unknown).refused.unwrap();
        assert!(
            why.starts_with("nothing bounds the operand of matmul, and beyond 4094 products with bytes"),
            "{why}"
        );
        assert!(why.contains("; declare max_abs of the inputs (at "), "{why}");
        assert_eq!(choose(&unknown, &CompileOptions::default()).unwrap().compression, None);
        let bounded = product(&x.clip(-4094.0, 4094.0));
        assert_eq!(int8(&bounded).refused, None);
        let chosen = choose(&bounded, &CompileOptions::default()).unwrap();
        assert_eq!(chosen.compression, Some(Compression::new(passes::Form::Int8)));
        let beyond = int8(&product(&x.clip(-4096.0, 4096.0))).refused.unwrap();
        assert!(beyond.starts_with("the operand of matmul may reach 4096, and beyond 4094"), "{beyond}");
    }

    #[test]
    fn a_loss_of_precision_is_for_speed() {
        let x = Var::input(Shape::new(&[1, 8]).unwrap()).clip(-1.0, 1.0);
        let small = Graph::freeze(&[x.linear(&Var::full(Shape::new(&[8, 8]).unwrap(), 0.5), None)]).unwrap();
        assert!(int8(&small).refused.unwrap().contains("not estimated to be a tenth faster"));
        assert_eq!(choose(&small, &CompileOptions::default()).unwrap(), CompileOptions::default());
        let chain = Graph::freeze(&[x.muls(0.3).muls(0.7)]).unwrap();
        let ways = consider(&chain, &CompileOptions::default()).unwrap();
        assert_eq!(ways.iter().map(|way| way.name).collect::<Vec<_>>(), ["fused", "scalarfold"]);
        assert!(ways[1].lossy && ways[1].refused.is_some());
    }
}
