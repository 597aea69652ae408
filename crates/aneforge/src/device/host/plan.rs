//! What the host runs, as data: steps over slots.

use crate::device::StepTime;
use crate::device::host::operand::Operand;
use crate::device::host::whole::Whole;
use crate::ir::form::Form;
use crate::ir::graph::NodeId;
use crate::ir::op::Op;
use crate::ir::types::{Caller, TensorType, counted};
use crate::plan::Slots;
use aneforge_kernels::map::{self, Argument, Unary};
use aneforge_tensor::f16;
use std::fmt;
use std::sync::Arc;
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
    /// What that op does, to operands as they lie.
    pub form: Form,
    /// Operands.
    pub inputs: Vec<Operand>,
    /// What the kernel does beside the op.
    pub fused: Fused,
    /// What it writes.
    pub output: Operand,
    /// The value of which that is the first to be written, if zeros are wanted around its images.
    pub halo: Option<Operand>,
    /// The operand that lies in the place of the result.
    pub in_place: Option<usize>,
    /// Why functions of elements are not computed by a step before.
    pub apart: Option<Apart>,
    /// Why elements are copied that others could have read, or written, where they belong.
    pub copies: Vec<&'static str>,
    /// What the engine does to the stored values.
    pub finish: Finish,
    /// Multiplications and additions of its ops.
    pub flops: f64,
    /// Of its operands as they are stored, and of its result.
    pub bytes: usize,
}

impl Step {
    /// Its ops, joined by `+`.
    pub fn name(&self) -> String {
        let names = std::iter::once(self.op.name()).chain(self.fused.nodes.iter().map(|(_, name)| *name));
        names.collect::<Vec<_>>().join("+")
    }

    /// It, as it is measured, before it has taken any time.
    pub(super) fn timed(&self) -> StepTime {
        let Step { flops, bytes, .. } = *self;
        StepTime { name: self.name(), ty: self.output.ty, flops, bytes, time: Duration::ZERO }
    }
}

/// A step that computes what another one reads, and could compute that one's functions, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Apart {
    /// Its number.
    pub step: usize,
    /// Why it does not.
    pub why: &'static str,
}

/// Nodes that are part of another node's step.
#[derive(Clone, Debug, Default)]
pub struct Fused {
    /// The bias added to a product or a convolution, and how many nodes the step covers.
    pub bias: Option<Place>,
    /// A value of the result's shape that is added next.
    pub residual: Option<Operand>,
    /// The activation applied last.
    pub activation: Option<Unary>,
    /// The second operand of `bmm` is stored with its last two axes exchanged.
    pub transposed: bool,
    /// Nodes of the step after the first, with their ops.
    pub nodes: Vec<(NodeId, &'static str)>,
    /// All nodes of a step that is a chain of functions of elements.
    pub links: Vec<Link>,
    /// Of a product in the place of several, the lines that built each, and the sum that follows it.
    pub parts: Vec<[Caller; 2]>,
    /// All nodes of a step whose kernel computes them as a whole.
    pub whole: Option<Arc<Whole>>,
    /// Of operands put one after another, where each begins, if some are there already.
    pub begins: Vec<usize>,
}

/// A node of a chain.
#[derive(Clone, Debug)]
pub struct Link {
    /// The node.
    pub node: NodeId,
    /// Its op.
    pub op: &'static str,
    /// What it does to operands of the step and to links before it.
    pub does: map::Link,
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

impl Finish {
    /// Whether there is nothing to do.
    pub(super) fn is_idle(self) -> bool {
        self == Finish::default()
    }
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

impl Step {
    /// The links of a chain, a line for each.
    fn write_links(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Link { node, op, does } in &self.fused.links {
            let source = |source: &Argument| match *source {
                Argument::Operand(at) => self.inputs[at].to_string(),
                Argument::Link(at) => format!("%{}", self.fused.links[at].node.0),
            };
            let sources: Vec<String> = does.sources.iter().map(source).collect();
            let finish = Finish { limit: None, flush_nan: does.flush_nan, watched: does.watched };
            writeln!(f, "        %{} = {op}({}){finish}", node.0, sources.join(", "))?;
        }
        Ok(())
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
            let bias = step.fused.bias.iter().map(Place::to_string);
            let added = step.fused.residual.iter().map(Operand::to_string);
            let inputs: Vec<String> =
                step.inputs.iter().map(Operand::to_string).chain(bias).chain(added).collect();
            let name = step.name();
            let until =
                if span.last == usize::MAX { "the end".into() } else { format!("step {}", span.last) };
            writeln!(
                f,
                "{i:4}: {} = {name}({}) : {}{}{}, until {until}, {} bytes",
                step.output,
                inputs.join(", "),
                step.output.ty,
                step.output.order,
                step.finish,
                step.bytes
            )?;
            if let Some(Apart { step, why }) = step.apart {
                writeln!(f, "        apart from step {step}: {why}")?;
            }
            for why in &step.copies {
                writeln!(f, "        copies: {why}")?;
            }
            if step.fused.links.len() > 1 {
                step.write_links(f)?;
            }
        }
        for (i, bytes) in self.slots.bytes.iter().enumerate() {
            writeln!(f, "  s{i}: {bytes} bytes")?;
        }
        Ok(())
    }
}
