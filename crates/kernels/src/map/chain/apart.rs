//! Chains of values that lie apart: those are brought to registers, and results from registers to where they belong.

use half::f16;

use super::{Argument, Block, Chain, Data, Function, Link, REGISTER};
use crate::broadcast::{MAX_RANK, Walk};
use crate::simd::{Cuts, Grid, Place, Tile, tiles};
use crate::{Kernels, Layout, Scratch, Watch};

/// An operand that is brought to a register.
#[derive(Debug)]
pub(super) enum Loaded {
    /// From the result's place.
    InPlace,
    /// An operand by its number, from where it lies.
    Apart(usize, Box<Walk<1>>),
}

impl Chain {
    /// [`Chain::blocks`] of a result whose rows lie apart: blocks are computed in a register, and brought to their rows.
    pub(super) fn rows(
        &self,
        kernels: &Kernels,
        operands: &[Data<'_>],
        watch: &Watch,
        scratch: &mut Scratch,
        out: &mut [f16],
    ) {
        let (columns, to) = self.apart.expect("invariant: rows apart");
        let per_worker = self.registers * REGISTER / 2;
        let scratch = scratch.take(per_worker * kernels.pool.threads());
        let rows = self.count / columns.max(1);
        let cuts = Cuts::new(rows, 1, self.count.div_ceil(self.task).min(rows));
        let place = Place { start: to.start, batch: 0, line: 0, rows: usize::MAX, row: to.pitch };
        let grid = Grid { place, ..Grid::new(1, cuts, Cuts::new(columns, columns.max(1), 1)) };
        let result = self.links.last().and_then(|link| link.register);
        let result = result.expect("invariant: a register for the result") * REGISTER;
        tiles(&kernels.pool, out, grid, (scratch, per_worker), |tile, registers| {
            let registers = bytemuck::cast_slice_mut(registers);
            let (first, last) = (tile.rows().start * columns, tile.rows().end * columns);
            for start in (first..last).step_by(REGISTER) {
                let block = Block { simd: kernels.simd, operands, watch, start };
                let count = REGISTER.min(last - start);
                self.block(&block, registers, count, None);
                bring(&registers[result..result + count], (start, columns), tile);
            }
        });
    }
}

impl Block<'_> {
    /// Brings elements of an operand that lies apart to a register.
    pub(super) fn load(&self, operand: usize, walk: &Walk<1>, register: &mut [f16]) {
        let Data::Half(values) = self.operands[operand] else {
            panic!("chain: operand {operand} is to be values, not {:?}", self.operands[operand])
        };
        walk.bring(values, self.start, register);
    }
}

/// Whether an operand is brought to a register: one that lies apart and is read by a function of one value, which go through
/// blocks without gaps, and values in runs so short that a function of several would spend its time on finding them.
pub(super) fn is_loaded(links: &[Link], operand: usize, lies: &Layout, shape: &[usize]) -> bool {
    let reads = |link: &&Link| link.sources.contains(&Argument::Operand(operand));
    let as_truth = |link: &Link| match link.function {
        Function::Not => true,
        Function::Select => link.sources[0] == Argument::Operand(operand),
        _ => false,
    };
    let of_one = |link: &Link| matches!(link.function, Function::Unary(_));
    let mut readers = links.iter().filter(reads);
    if readers.clone().next().is_none() || readers.clone().any(as_truth) {
        return false;
    }
    !lies.is_row_major() && readers.any(of_one) || walk([*lies], shape).is_scattered()
}

/// How operands, wherever they lie, are read as arrays of shape `shape`.
pub(super) fn walk<const N: usize>(operands: [Layout; N], shape: &[usize]) -> Walk<N> {
    let strides = operands.map(|operand| {
        let mut strides = [0; MAX_RANK];
        let missing =
            shape.len().checked_sub(operand.extents().len()).expect("chain: an operand of more axes");
        for (axis, (&extent, &stride)) in operand.extents().iter().zip(operand.strides()).enumerate() {
            assert!(extent == 1 || extent == shape[missing + axis], "chain: an operand does not broadcast");
            strides[missing + axis] = if extent == 1 { 0 } else { stride as isize };
        }
        strides
    });
    let starts = operands.map(|operand| operand.start() as isize);
    Walk::strided(shape, std::array::from_fn(|operand| &strides[operand][..shape.len()]), starts)
}

/// Writes elements from `start` on of a matrix of so many columns.
fn bring(values: &[f16], (start, columns): (usize, usize), tile: &mut Tile<'_, f16>) {
    let (mut values, mut at) = (values, start);
    while !values.is_empty() {
        let (row, column) = (at / columns, at % columns);
        let (now, later) = values.split_at(values.len().min(columns - column));
        tile.row(row, column..column + now.len()).copy_from_slice(now);
        (values, at) = (later, at + now.len());
    }
}
