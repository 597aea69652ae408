//! Which values are images that lie pixel after pixel.
//!
//! Convolutions and pools read and write pixels whose channels lie side by side; in planes they would be turned around
//! first. So values lie like that wherever nothing wants planes: what is fed or returned, and what ops read or write
//! that care for their axes. Values that meet in an op, or are added to each other, lie alike.

use crate::device::host::operand::Order;
use crate::device::host::planner::{Draft, Planner};
use crate::ir::form::{Form, Move};
use crate::ir::graph::NodeId;
use crate::ir::types::TensorType;
use aneforge_tensor::{DType, Shape};

/// Whether an array is the same in both orders.
fn is_either(shape: Shape) -> bool {
    if shape.rank() > 4 {
        return false;
    }
    let mut image = [1; 4];
    image[4 - shape.rank()..].copy_from_slice(shape.dims());
    let [_, channels, height, width] = image;
    channels == 1 || height * width == 1
}

/// What a step does with images.
pub(super) enum Treatment {
    /// Reads and writes them, in any order: a convolution with a constant weight.
    Convolves,
    /// Reads and writes them in one order, with or without zeros around them.
    Pools,
    /// Treats all axes alike: operands and result lie in one order, without zeros around them.
    Along(Form),
    /// Wants rows.
    Rows,
}

/// A set of values that lie alike; one per draft, joined.
struct Sets {
    parent: Vec<usize>,
    of: Vec<Set>,
}

/// What is known of values that lie alike.
#[derive(Clone, Copy, Default)]
struct Set {
    /// Something wants planes.
    rows: bool,
    /// A convolution or a pool reads or writes them.
    images: bool,
    /// Something reads or writes them that takes no zeros around them.
    bare: bool,
    halo: [usize; 4],
    ahead: usize,
}

impl Sets {
    fn find(&mut self, mut at: usize) -> usize {
        while self.parent[at] != at {
            self.parent[at] = self.parent[self.parent[at]];
            at = self.parent[at];
        }
        at
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        if a == b {
            return;
        }
        let (one, other) = (self.of[a], self.of[b]);
        self.parent[b] = a;
        self.of[a] = Set {
            rows: one.rows || other.rows,
            images: one.images || other.images,
            bare: one.bare || other.bare,
            halo: std::array::from_fn(|side| one.halo[side].max(other.halo[side])),
            ahead: one.ahead.max(other.ahead),
        };
    }

    fn set(&mut self, at: usize) -> &mut Set {
        let root = self.find(at);
        &mut self.of[root]
    }
}

/// How the result of each draft lies.
pub(super) fn orders(planner: &Planner<'_>, drafts: &[Draft]) -> Vec<Order> {
    let mut layout = Layout {
        planner,
        writer: vec![None; planner.graph.len()],
        sets: Sets { parent: (0..drafts.len()).collect(), of: vec![Set::default(); drafts.len()] },
    };
    for (number, draft) in drafts.iter().enumerate() {
        layout.writer[draft.last.index()] = Some(number);
    }
    drafts.iter().enumerate().for_each(|(number, draft)| layout.visit(number, draft));
    for &output in planner.graph.outputs() {
        layout.wants_rows(output);
    }
    let order = |(number, draft): (usize, &Draft)| {
        let Set { rows, images, bare, halo, ahead } = *layout.sets.set(number);
        if rows || !images || is_either(planner.ty(draft.last).shape) {
            return Order::RowMajor;
        }
        Order::Pixels { halo: if bare { [0; 4] } else { halo }, ahead }
    };
    drafts.iter().enumerate().map(order).collect()
}

struct Layout<'a, 'g> {
    planner: &'a Planner<'g>,
    /// The draft that writes a node's value.
    writer: Vec<Option<usize>>,
    sets: Sets,
}

impl Layout<'_, '_> {
    /// The draft whose result an operand is, if it is not the same in both orders; an error if it is one that lies in rows
    /// for sure.
    fn operand(&self, id: NodeId) -> Result<Option<usize>, ()> {
        let TensorType { shape, .. } = self.planner.ty(id);
        if is_either(shape) {
            return Ok(None);
        }
        match self.writer[id.index()] {
            Some(writer) if shape.rank() == 4 => Ok(Some(writer)),
            _ => Err(()),
        }
    }

    /// A value that is read in rows, whatever it is a view of.
    fn wants_rows(&mut self, id: NodeId) {
        let root = self.planner.root(id);
        if let Some(writer) = self.writer[root.index()] {
            self.sets.set(writer).rows = true;
        }
    }

    fn visit(&mut self, number: usize, draft: &Draft) {
        let result = self.planner.ty(draft.last);
        let either = is_either(result.shape);
        match self.planner.treatment(draft) {
            Treatment::Convolves => {
                self.sets.set(number).images = true;
                let Form::Conv(params, _) = self.planner.form(draft.node) else { return };
                if let Ok(Some(read)) = self.operand(draft.inputs[0]) {
                    let set = self.sets.set(read);
                    set.images = true;
                    set.halo = std::array::from_fn(|side| set.halo[side].max(params.pad[side]));
                    set.ahead = set.ahead.max(if result.shape[3] > 1 { params.stride[1] } else { 1 });
                } else {
                    self.wants_rows(draft.inputs[0]);
                }
                self.lie_alike(number, either, draft.residual.as_slice());
            }
            Treatment::Pools => {
                self.sets.set(number).images = true;
                self.lie_alike(number, either, &draft.inputs[..1]);
            }
            Treatment::Along(_) => {
                let bare = !self.planner.copies(draft);
                self.sets.set(number).bare |= bare;
                for &input in &draft.inputs {
                    if let Ok(Some(read)) = self.operand(input) {
                        self.sets.set(read).bare |= bare;
                    }
                }
                self.lie_alike(number, either, &draft.inputs);
            }
            Treatment::Rows => {
                self.sets.set(number).rows = true;
                let read = draft.inputs.iter().chain(&draft.residual);
                read.for_each(|&input| self.wants_rows(input));
            }
        }
    }

    /// A step's result, unless it is the same in both orders, and operands lie alike; in rows if one of them does for sure.
    fn lie_alike(&mut self, number: usize, either: bool, inputs: &[NodeId]) {
        let mut first = (!either).then_some(number);
        let mut rows = false;
        for &input in inputs {
            match self.operand(input) {
                Ok(Some(read)) => match first {
                    Some(first) => self.sets.join(first, read),
                    None => first = Some(read),
                },
                Ok(None) => {}
                Err(()) => {
                    rows = true;
                    self.wants_rows(input);
                }
            }
        }
        if let (true, Some(first)) = (rows, first) {
            self.sets.set(first).rows = true;
        }
    }
}

impl Planner<'_> {
    /// Whether a draft copies elements as they are, from and to wherever they lie.
    pub(super) fn copies(&self, draft: &Draft) -> bool {
        let moves = matches!(self.form(draft.node), Form::Move(Move::Concat(_) | Move::Slice { .. }));
        moves && self.finish(draft.node, draft.last).is_idle()
    }

    /// Whether a draft's operands and result lie in one order.
    pub(super) fn goes_along(&self, draft: &Draft) -> bool {
        matches!(self.treatment(draft), Treatment::Along(_) | Treatment::Pools)
    }

    /// What a draft does with images.
    pub(super) fn treatment(&self, draft: &Draft) -> Treatment {
        let images = |id: NodeId| self.ty(id).shape.rank() == 4;
        match self.form(draft.node) {
            _ if draft.fused.whole.is_some() => Treatment::Rows,
            Form::Conv(..) if self.graph.constant(draft.inputs[1]).is_some() => Treatment::Convolves,
            Form::Pool(..) => Treatment::Pools,
            // What gets an axis more has none of those of images yet.
            Form::Move(Move::Concat(_)) if !draft.inputs.iter().all(|&input| images(input)) => {
                Treatment::Rows
            }
            form if images(draft.last) && self.ty(draft.last).dtype != DType::U8 => {
                match form.reordered(&Order::PIXEL_AXES) {
                    Some(form) => Treatment::Along(form),
                    None => Treatment::Rows,
                }
            }
            _ => Treatment::Rows,
        }
    }
}
