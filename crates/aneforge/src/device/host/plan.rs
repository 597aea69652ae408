//! What the host runs, as data: steps over slots.

use crate::device::StepTime;
use crate::device::host::whole::Whole;
use crate::ir::form::Form;
use crate::ir::graph::NodeId;
use crate::ir::op::Op;
use crate::ir::ops::conv::four;
use crate::ir::types::{Caller, TensorType, counted};
use crate::plan::Slots;
use aneforge_kernels::conv::{Images, Nhwc};
use aneforge_kernels::map::{self, Argument, Unary};
use aneforge_tensor::{Shape, f16};
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

/// How the elements of a value lie in its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// In row-major order, without gaps.
    #[default]
    RowMajor,
    /// As images, pixel after pixel, the channels of each side by side.
    Pixels {
        /// Rows and columns of zeros around each image: top, bottom, left, right.
        halo: [usize; 4],
        /// The longest step along a row of the convolutions that read it, which may read beyond its end; 0 if there are
        /// none.
        ahead: usize,
    },
}

impl Order {
    /// Pixels with nothing around them.
    pub const PIXELS: Order = Order::Pixels { halo: [0; 4], ahead: 0 };
    /// Which axis of an image `[N, C, H, W]` each axis is where its pixels lie one after the other.
    pub const PIXEL_AXES: [usize; 4] = [0, 2, 3, 1];

    /// The bytes that a value must have that lies so.
    pub(super) fn room(self, ty: TensorType) -> usize {
        match self {
            Order::Pixels { halo, ahead: ahead @ 1.. } => {
                pixels(ty.shape, halo).len(ty.shape[0], ahead) * ty.dtype.size()
            }
            _ => ty.bytes(),
        }
    }
}

/// Where the images of an array `[N, C, H, W]` lie, one after the other with so much around each.
fn pixels(shape: Shape, halo: [usize; 4]) -> Nhwc {
    let [_, channels, height, width] = four(shape);
    Nhwc::padded([height, width], channels, halo)
}

/// A value as a step reads or writes it.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    /// Where it lies.
    pub place: Place,
    /// Its type, as the op sees it.
    pub ty: TensorType,
    /// How its elements lie.
    pub order: Order,
    /// Its extents, as they lie.
    pub lying: Shape,
}

impl Operand {
    pub(super) fn new(place: Place, ty: TensorType, order: Order) -> Operand {
        let lying = match order {
            Order::RowMajor => ty.shape,
            Order::Pixels { .. } => pixel_extents(ty.shape),
        };
        Operand { place, ty, order, lying }
    }

    /// Takes it as pixels, which it is already, or is as well.
    pub(super) fn by_pixels(&mut self) {
        if self.order == Order::RowMajor {
            *self = Operand::new(self.place, self.ty, Order::PIXELS);
        }
    }

    /// How its images lie, if it is images.
    pub(super) fn images(&self) -> Images {
        match self.order {
            Order::RowMajor => Images::Planes,
            Order::Pixels { halo, .. } => Images::Pixels(pixels(self.ty.shape, halo)),
        }
    }

    /// The bytes that its place must have.
    pub(super) fn room(&self) -> usize {
        self.order.room(self.ty)
    }

    /// The bytes from the first of its place to the last of its elements, and what is to be around them.
    pub(super) fn span(&self) -> usize {
        match self.order {
            Order::Pixels { halo, .. } if halo != [0; 4] => self.room(),
            _ => self.ty.bytes(),
        }
    }

    /// Puts zeros around its images in `out`, if it wants any.
    pub(super) fn clear_halo(&self, out: &mut [f16]) {
        match self.order {
            Order::Pixels { halo, .. } if halo != [0; 4] => {
                let [images, channels, height, width] = four(self.ty.shape);
                pixels(self.ty.shape, halo).clear_halo(images, [height, width], channels, out);
            }
            _ => {}
        }
    }
}

/// The extents of an array of up to four axes whose pixels lie one after the other.
fn pixel_extents(shape: Shape) -> Shape {
    let mut image = [1; 4];
    image[4 - shape.rank()..].copy_from_slice(shape.dims());
    Shape::new(&Order::PIXEL_AXES.map(|axis| image[axis])).expect("invariant: as many elements as before")
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
    /// The operand that lies in the place of the result.
    pub in_place: Option<usize>,
    /// Why functions of elements are not computed by a step before.
    pub apart: Option<Apart>,
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
                Argument::Operand(at) => self.inputs[at].place.to_string(),
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

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Order::RowMajor => Ok(()),
            Order::Pixels { halo: [0, 0, 0, 0], .. } => f.write_str(" by pixels"),
            Order::Pixels { halo, .. } => write!(f, " by pixels, halo {halo:?}"),
        }
    }
}

impl fmt::Display for HostPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: usize = self.slots.bytes.iter().sum();
        let (steps, slots) = (counted(self.steps.len(), "step"), counted(self.slots.bytes.len(), "slot"));
        writeln!(f, "{steps}, {slots}, {total} bytes")?;
        for (i, (step, span)) in self.steps.iter().zip(&self.spans).enumerate() {
            let added = step.fused.residual.iter().map(|o| o.place);
            let inputs = step.inputs.iter().map(|o| o.place).chain(step.fused.bias).chain(added);
            let inputs: Vec<String> = inputs.map(|place| place.to_string()).collect();
            let name = step.name();
            let until =
                if span.last == usize::MAX { "the end".into() } else { format!("step {}", span.last) };
            writeln!(
                f,
                "{i:4}: {} = {name}({}) : {}{}{}, until {until}, {} bytes",
                step.output.place,
                inputs.join(", "),
                step.output.ty,
                step.output.order,
                step.finish,
                step.bytes
            )?;
            if let Some(Apart { step, why }) = step.apart {
                writeln!(f, "        apart from step {step}: {why}")?;
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
