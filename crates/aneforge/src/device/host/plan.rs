//! What the host runs, as data: steps over slots.

use crate::device::StepTime;
use crate::ir::form::Form;
use crate::ir::graph::NodeId;
use crate::ir::op::Op;
use crate::ir::types::{TensorType, counted};
use crate::plan::Slots;
use aneforge_kernels::map::Unary;
use aneforge_tensor::f16;
use std::fmt;
use std::time::Duration;

/// Where a value lies while the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The buffer of an input.
    Feed(usize),
    /// The buffer of an output.
    Output(usize),
    /// A constant of the graph's table.
    Constant(u64),
    /// A slot.
    Slot(usize),
}

impl Place {
    /// Whether it is the same in every call.
    pub fn is_constant(self) -> bool {
        matches!(self, Place::Constant(_))
    }
}

/// One call of a kernel.
#[derive(Clone, Debug)]
pub struct Step {
    /// The node it starts with.
    pub first: NodeId,
    /// The node whose value it stores.
    pub node: NodeId,
    /// The op it starts with.
    pub op: Op,
    /// What that op does.
    pub form: Form,
    /// Operands, and their types as the op sees them.
    pub inputs: Vec<(Place, TensorType)>,
    /// What the kernel does beside the op.
    pub fused: Fused,
    /// The slot or output it writes.
    pub output: Place,
    /// The type it stores.
    pub ty: TensorType,
    /// What the engine does to the stored values.
    pub finish: Finish,
    /// Multiplications and additions of the op.
    pub flops: f64,
}

impl Step {
    /// Its ops, joined by `+`.
    pub fn name(&self) -> String {
        let names = std::iter::once(self.op.name()).chain(self.fused.nodes.iter().map(|(_, name)| *name));
        names.collect::<Vec<_>>().join("+")
    }

    /// It, as it is measured, before it has taken any time.
    pub(super) fn timed(&self) -> StepTime {
        let operands: usize = self.inputs.iter().map(|(_, ty)| ty.bytes()).sum();
        let (ty, bytes) = (self.ty, operands + self.ty.bytes());
        StepTime { name: self.name(), ty, flops: self.flops, bytes, time: Duration::ZERO }
    }
}

/// Nodes that are part of another node's step.
#[derive(Clone, Debug, Default)]
pub struct Fused {
    /// The bias added to a product or a convolution, and how many nodes the step covers.
    pub bias: Option<Place>,
    /// The activation applied last.
    pub activation: Option<Unary>,
    /// The second operand of `bmm` is stored with its last two axes exchanged.
    pub transposed: bool,
    /// Nodes of the step after the first, with their ops.
    pub nodes: Vec<(NodeId, &'static str)>,
}

/// Departures from IEEE 754 that apply when a value is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Finish {
    /// Magnitudes above this become infinite.
    pub limit: Option<f16>,
    /// NaN becomes zero.
    pub flush_nan: bool,
    /// Infinities and NaN may come of finite operands, and are looked out for.
    pub watched: bool,
}

impl fmt::Display for Finish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(limit) = self.limit {
            write!(f, ", limit {limit}")?;
        }
        f.write_str(if self.flush_nan { ", NaN to 0" } else { "" })?;
        f.write_str(if self.watched { ", watched" } else { "" })
    }
}

/// The steps of a segment and the memory they use.
#[derive(Clone, Debug)]
pub struct HostPlan {
    /// In the order they run.
    pub steps: Vec<Step>,
    /// Where the value of each output lies: in its own buffer, or elsewhere if it is a leaf or returned twice.
    pub outputs: Vec<(Place, TensorType)>,
    /// Types of the ports, in feed order.
    pub feeds: Vec<TensorType>,
    /// Sizes of the slots.
    pub slots: Slots,
    /// The steps between which the value of each step lives, for the printer.
    pub spans: Vec<crate::plan::Span>,
    /// Whether NaN is stored as zero, also in what is fed.
    pub flush_nan: bool,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Feed(i) => write!(f, "input{i}"),
            Place::Output(i) => write!(f, "output{i}"),
            Place::Constant(i) => write!(f, "@{i}"),
            Place::Slot(i) => write!(f, "s{i}"),
        }
    }
}

impl fmt::Display for HostPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: usize = self.slots.bytes.iter().sum();
        let (steps, slots) = (counted(self.steps.len(), "step"), counted(self.slots.bytes.len(), "slot"));
        writeln!(f, "{steps}, {slots}, {total} bytes")?;
        for (i, (step, span)) in self.steps.iter().zip(&self.spans).enumerate() {
            let inputs = step.inputs.iter().map(|(p, _)| p).chain(&step.fused.bias);
            let inputs: Vec<String> = inputs.map(Place::to_string).collect();
            let name = step.name();
            let until =
                if span.last == usize::MAX { "the end".into() } else { format!("step {}", span.last) };
            writeln!(
                f,
                "{i:4}: {} = {name}({}) : {}{}, until {until}",
                step.output,
                inputs.join(", "),
                step.ty,
                step.finish
            )?;
        }
        for (i, bytes) in self.slots.bytes.iter().enumerate() {
            writeln!(f, "  s{i}: {bytes} bytes")?;
        }
        Ok(())
    }
}
