//! What a step runs as: a kernel with its parameters and packed weights. Each family of them has a file, which says how a
//! step of it is recognised, what memory it wants, and how it runs.

use crate::device::DeviceError;
use crate::device::host::memory::Memory;
use crate::device::host::operand::{Operand, Order};
use crate::device::host::packs::Packs;
use crate::device::host::plan::{Finish, Place, Step};
use crate::device::host::{
    attention, conv, elementwise, layers, movement, normalise, pool, product, reduce, row_product,
};
use crate::ir::graph::Graph;
use crate::ir::ops::conv::four;
use aneforge_kernels::conv::Images;
use aneforge_kernels::{Bias, Epilogue, Kernels, Residual, Scratch, Stores, View, Watch, map};
use aneforge_tensor::{Shape, Weight, f16};
use std::ops::Range;

/// A kernel with its parameters and packed weights.
pub(super) trait Routine: Send {
    /// Working memory, in elements of single precision.
    fn scratch(&self, _: &Step, _: &Kernels) -> usize {
        0
    }
    /// How many operands it reads where they lie: the first ones. The others are packed.
    fn reads(&self, step: &Step) -> usize {
        step.inputs.len()
    }
    /// Computes the step's values and does to them what its [`Finish`] says.
    fn run(&self, call: &Call<'_, '_>, scratch: &mut Scratch, out: &mut [u8]);
    /// How many infinities and NaN each link of a chain has made of finite operands since this was last asked; `None` if
    /// that shows only when the step is computed again.
    fn made(&self) -> Option<Vec<usize>> {
        None
    }
}

/// A step whose routine is to be chosen.
#[derive(Clone, Copy)]
pub(super) struct Setup<'a> {
    pub(super) step: &'a Step,
    pub(super) graph: &'a Graph,
    pub(super) packs: &'a Packs,
}

type Recognise = fn(&Setup<'_>) -> Option<Box<dyn Routine>>;

/// Every family. No two take the same step.
const FAMILIES: [(&str, Recognise); 10] = [
    ("elementwise", elementwise::recognise),
    ("attention", attention::recognise),
    ("product", product::recognise),
    ("row product", row_product::recognise),
    ("conv", conv::recognise),
    ("pool", pool::recognise),
    ("reduce", reduce::recognise),
    ("normalise", normalise::recognise),
    ("movement", movement::recognise),
    ("layer", layers::recognise),
];

/// The routine of a step, and the name of its family; an error for what has no kernel, which no legal graph has.
pub(super) fn prepare(setup: &Setup<'_>) -> Result<(&'static str, Box<dyn Routine>), DeviceError> {
    let family = |&(name, recognise): &(&'static str, Recognise)| Some((name, recognise(setup)?));
    let why = || "the host has no kernel for it".into();
    let none = || DeviceError::Unsupported { op: setup.step.op.name(), why: why() };
    FAMILIES.iter().find_map(family).ok_or_else(none)
}

impl<'a> Setup<'a> {
    /// The extents of an operand, as they lie.
    pub(super) fn shape(&self, index: usize) -> Shape {
        self.step.inputs[index].lying
    }

    /// The second operand, where it is a constant, and no view of one.
    pub(super) fn constant(&self) -> Option<&'a Weight> {
        self.step.inputs.get(1).and_then(|operand| self.constant_of(operand))
    }

    fn constant_of(&self, operand: &Operand) -> Option<&'a Weight> {
        match *operand {
            Operand { place: Place::Constant(index), ty, .. } => {
                self.graph.constants().get(index as usize).filter(|weight| weight.shape() == ty.shape)
            }
            _ => None,
        }
    }

    /// All operands but the first, of an op whose weights are constant in every legal graph.
    pub(super) fn weights(&self) -> Vec<&'a Weight> {
        let constant =
            |operand| self.constant_of(operand).expect("invariant: a legal graph has constant weights here");
        self.step.inputs[1..].iter().map(constant).collect()
    }

    /// The second operand of an op whose weight is constant in every legal graph.
    pub(super) fn weight(&self) -> &'a Weight {
        self.constant().expect("invariant: a legal graph has constant weights here")
    }
}

/// One step with what it may read.
#[derive(Clone, Copy)]
pub(super) struct Call<'a, 'm> {
    pub(super) step: &'a Step,
    pub(super) memory: &'a Memory<'m>,
    pub(super) kernels: &'a Kernels,
    /// Told of infinities and NaN that the step stores.
    pub(super) watch: &'a Watch,
}

impl<'a> Call<'a, '_> {
    /// The elements of an operand, which are neighbours.
    pub(super) fn half(&self, index: usize) -> &'a [f16] {
        bytemuck::cast_slice(self.bytes(index))
    }

    /// The same, as bytes.
    pub(super) fn bytes(&self, index: usize) -> &'a [u8] {
        let operand = &self.step.inputs[index];
        debug_assert!(operand.is_dense(), "invariant: an operand apart");
        &self.memory.whole(operand.place)[operand.span()]
    }

    /// All that is where an operand is. The place of a truth value may have room for half a value more.
    pub(super) fn around(&self, operand: &Operand) -> &'a [f16] {
        let bytes = self.memory.whole(operand.place);
        bytemuck::cast_slice(&bytes[..bytes.len() / size_of::<f16>() * size_of::<f16>()])
    }

    /// Images and how they lie, with all that their place has behind them.
    pub(super) fn images(&self, operand: &Operand) -> (&'a [f16], Images) {
        match operand.images() {
            Images::Planes => (&self.around(operand)[halves_of(operand.span())], Images::Planes),
            pixels => (self.around(operand), pixels),
        }
    }

    /// What is added to the result, which lies as that does.
    pub(super) fn added(&self) -> Option<&'a [f16]> {
        let slice = |added: &Operand| match self.step.output.is_dense() && added.is_dense() {
            true => &self.around(added)[halves_of(added.span())],
            false => self.around(added),
        };
        self.step.fused.residual.as_ref().map(slice)
    }

    /// The extents of an operand, as they lie.
    pub(super) fn extents(&self, index: usize) -> &'a [usize] {
        self.step.inputs[index].lying.dims()
    }

    /// The shape of an operand that is an image or a kernel.
    pub(super) fn four(&self, index: usize) -> [usize; 4] {
        four(self.step.inputs[index].ty.shape)
    }

    /// Neighbouring elements that are of one channel, of an operand with channels as its second axis.
    pub(super) fn of_one_channel(&self, index: usize) -> usize {
        match self.step.inputs[index].order {
            Order::RowMajor => self.extents(index)[2..].iter().product(),
            Order::Pixels { .. } => 1,
        }
    }

    pub(super) fn view(&self, index: usize) -> View<'a, f16> {
        View::new(self.half(index), self.extents(index))
    }

    /// What follows a sum. Departures from IEEE 754 are part of it, so that fusing changes no bit.
    pub(super) fn epilogue(&self, bias: impl FnOnce(&'a [f16]) -> Bias<'a>) -> Epilogue<'a> {
        Epilogue {
            bias: self.memory.bias(self.step).map_or(Bias::None, bias),
            residual: self.added().map_or(Residual::None, Residual::Before),
            activation: self.step.fused.activation,
            limit: self.step.finish.limit,
            flush_nan: self.step.finish.flush_nan,
            watch: Some(self.watch),
            ..Epilogue::default()
        }
    }

    /// Runs it, and puts zeros around images that want them.
    pub(super) fn run(&self, routine: &dyn Routine, scratch: &mut Scratch, out: &mut [u8]) {
        let output = &self.step.output;
        routine.run(self, scratch, &mut out[output.span()]);
        if let Some(images) = &self.step.halo {
            images.clear_halo(halves(out));
        }
    }

    /// All elements of an operand in half precision, as they lie.
    pub(super) fn elements(&self, operand: &Operand) -> impl Iterator<Item = f16> + use<'a> {
        let values = self.around(operand);
        let runs: Vec<_> = operand.layout.runs().collect();
        runs.into_iter().flat_map(move |(_, at, count)| values[at..at + count].iter().copied())
    }

    /// How an elementwise kernel stores.
    pub(super) fn stores(&self) -> Stores<'a> {
        let Finish { flush_nan, watched, .. } = self.step.finish;
        Stores { flush_nan, watch: watched.then_some(self.watch) }
    }

    /// Does what the step's [`Finish`] says to values that are stored already.
    pub(super) fn finish(&self, out: &mut [f16]) {
        if let Some(limit) = self.step.finish.limit {
            map::overflow_above(self.kernels, out, limit);
        }
        if self.step.finish.watched {
            map::store_again(self.kernels, self.stores(), out);
        }
    }
}

/// So many bytes as values in half precision.
fn halves_of(bytes: Range<usize>) -> Range<usize> {
    bytes.start / size_of::<f16>()..bytes.end / size_of::<f16>()
}

/// The values of a result in half precision.
pub(super) fn halves(out: &mut [u8]) -> &mut [f16] {
    bytemuck::cast_slice_mut(out)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::device::host::graph_of;
    use crate::device::host::planner::plan;
    use crate::ir::numerics::Numerics;
    use crate::ir::op::{Case, OPS};
    use crate::ir::var::Var;
    use aneforge_tensor::DType;
    use std::collections::BTreeSet;

    /// What the host runs for a worked example, but for what is cut at a layer.
    pub(in crate::device::host) fn built(case: &Case) -> Option<Graph> {
        let input = |(i, ty): (usize, &crate::TensorType)| match ty.dtype {
            DType::Bool => Var::input(ty.shape).greater(&Var::from(0.0)),
            DType::F16 if i >= case.constants_from => Var::full(ty.shape, 0.5),
            _ => Var::input_of(*ty),
        };
        let inputs: Vec<Var> = case.inputs.iter().enumerate().map(input).collect();
        let output = Var::apply(case.op.clone(), &inputs.iter().collect::<Vec<_>>());
        let output = match output.ty().dtype {
            DType::Bool => output.select(&Var::from(1.0), &Var::from(0.0)),
            _ => output,
        };
        let plan =
            crate::compile(&[output], &crate::CompileOptions::default()).expect("invariant: cases compile");
        plan.segments.first().map(|segment| graph_of(segment).unwrap().into_owned())
    }

    #[test]
    fn every_step_of_a_legal_graph_is_of_one_family() {
        let mut families = BTreeSet::new();
        let packs = Packs::default();
        for graph in OPS.iter().flat_map(|entry| (entry.cases)()).filter_map(|case| built(&case)) {
            for step in plan(&graph, Numerics::Ieee, true).steps {
                let setup = Setup { step: &step, graph: &graph, packs: &packs };
                let taken = FAMILIES.iter().filter(|(_, recognise)| recognise(&setup).is_some());
                assert_eq!(taken.count(), 1, "{}", step.op.name());
                families.insert(prepare(&setup).unwrap().0);
            }
        }
        assert_eq!(families, FAMILIES.iter().map(|&(name, _)| name).collect(), "families without a case");
    }
}
