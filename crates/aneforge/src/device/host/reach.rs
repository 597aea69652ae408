//! Which parts of other values kernels read and write where they lie.

use crate::device::host::operand::{Operand, Order};
use crate::device::host::planner::{Draft, Planner};
use crate::ir::form::{Form, Move, Product};
use aneforge_kernels::conv::Images;
use aneforge_tensor::DType;

/// The fewest elements of rows that chains write with gaps between them: to put shorter ones together afterwards costs less.
const THIN: usize = 8;

/// Why a kernel does not.
pub(super) type Refusal = &'static str;

impl Planner<'_> {
    /// Whether the kernel of a draft reads its operand number `at` where `operand` says; what is added to its result comes
    /// after its operands.
    pub(super) fn reads(&self, draft: &Draft, at: usize, operand: &Operand) -> Result<(), Refusal> {
        if operand.is_dense() {
            return Ok(());
        }
        let half = operand.ty.dtype == DType::F16;
        let found = match self.form(draft.node) {
            _ if draft.fused.whole.is_some() || at >= draft.inputs.len() => false,
            _ if !draft.links.is_empty() => half,
            Form::Product(Product::Linear) => {
                at == 0
                    && operand
                        .matrix(self.ty(draft.inputs[0]).shape.dims().last().copied().unwrap_or(1))
                        .is_some()
            }
            Form::Conv(..) if self.takes_more(draft) => at == 0 && lies_by_pixels(operand),
            Form::Pool(..) => lies_by_pixels(operand) && operand.order != Order::RowMajor,
            _ if self.copies(draft) => half,
            _ => false,
        };
        if found { Ok(()) } else { Err("who reads it wants neighbouring elements") }
    }

    /// Whether the kernel of a draft writes its result where `operand` says, and leaves what is between its elements.
    pub(super) fn writes(&self, draft: &Draft, operand: &Operand) -> Result<(), Refusal> {
        if operand.is_dense() {
            return Ok(());
        }
        if draft.residual.is_some() {
            return Err("what is added to it lies otherwise");
        }
        let half = operand.ty.dtype == DType::F16;
        let found = match *self.form(draft.node) {
            _ if draft.fused.whole.is_some() => false,
            Form::Move(Move::Concat(axis)) if self.row(draft, axis) < THIN => {
                return Err("short rows are put together without gaps");
            }
            _ if !draft.links.is_empty() => {
                half && operand.rows().is_some_and(|(columns, _)| columns >= THIN)
            }
            Form::Product(Product::Linear) => {
                operand.matrix(operand.ty.shape.dims().last().copied().unwrap_or(1)).is_some()
            }
            Form::Conv(..) if self.takes_more(draft) => lies_by_pixels(operand),
            // Others go over all that they have written.
            Form::Pool(..)
                if draft.fused.activation.is_none() && self.finish(draft.node, draft.last).is_idle() =>
            {
                lies_by_pixels(operand) && operand.order != Order::RowMajor
            }
            _ if self.copies(draft) => half,
            _ => false,
        };
        if found { Ok(()) } else { Err("its kernel writes neighbouring elements") }
    }

    /// Elements of a result from an axis on.
    fn row(&self, draft: &Draft, axis: usize) -> usize {
        self.ty(draft.last).shape.dims()[axis..].iter().product()
    }
}

fn lies_by_pixels(operand: &Operand) -> bool {
    matches!(operand.find_images(), Some(Images::Pixels(_)))
}
