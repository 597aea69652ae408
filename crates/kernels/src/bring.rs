//! Elements of one strided operand, side by side.

use bytemuck::Pod;

use crate::broadcast::Walk;
use crate::simd::{RowsOf, expect_soon, lines_of};

/// Runs that are asked for before they are copied.
const AHEAD: usize = 8;
/// Bytes of a run that are asked for; the processor itself sees where it goes on.
const FIRST: usize = 2048;
/// Elements of runs that go one by one: shorter ones go in loops over rows, which cost less than finding each.
const LONG: usize = 64;

impl Walk<1> {
    /// Elements of a run.
    fn row(&self) -> usize {
        self.sizes[self.rank - 1]
    }

    /// Whether its runs are so short, or its elements so far apart, that functions of several operands had better find the
    /// elements side by side.
    pub(crate) fn is_scattered(&self) -> bool {
        let [step] = self.inner_strides();
        !matches!(step, 0 | 1) || self.rank > 1 && self.row() < LONG
    }

    /// The same walk over the first element of each run.
    fn over_rows(&self) -> Walk<1> {
        let mut rows = *self;
        rows.rank -= 1;
        rows.sizes[rows.rank] = 1;
        rows
    }

    /// Copies the elements from number `first` on to `out`.
    pub(crate) fn bring<T: Pod>(&self, x: &[T], first: usize, out: &mut [T]) {
        let ([step], length) = (self.inner_strides(), self.row());
        if self.rank == 1 || length >= LONG {
            return self.bring_runs(x, first, out);
        }
        let rows = self.over_rows();
        let (head, rest) = out.split_at_mut((first.next_multiple_of(length) - first).min(out.len()));
        self.bring_runs(x, first, head);
        let (whole, tail) = rest.split_at_mut(rest.len() / length * length);
        let next = first + head.len();
        rows.run(next / length, whole.len() / length, |position, count, [at]| {
            let out = &mut whole[position * length..][..count * length];
            let [pitch] = rows.inner_strides();
            bring_rows(x, (at as isize, pitch, step), length, out.chunks_exact_mut(length));
        });
        self.bring_runs(x, next + whole.len(), tail);
    }

    /// Copies the elements from number `first` on to rows.
    pub(crate) fn bring_to_rows<T: Pod>(&self, x: &[T], first: usize, mut to: RowsOf<'_, T>) {
        let ([step], columns) = (self.inner_strides(), to.columns());
        if self.rank > 1 && self.row() == columns && columns < LONG {
            let rows = self.over_rows();
            let [pitch] = rows.inner_strides();
            return rows.run(first / columns, to.len(), |_, count, [at]| {
                bring_rows(
                    x,
                    (at as isize, pitch, step),
                    columns,
                    to.by_ref().take(count).map(|(_, _, row)| row),
                );
            });
        }
        let mut runs = self.runs(first, to.len() * columns);
        let (mut at, mut left) = (0, 0);
        for (_, _, mut row) in to {
            while !row.is_empty() {
                if left == 0 {
                    let (_, length, [start]) =
                        runs.next().expect("invariant: as many elements as the rows hold");
                    (at, left) = (start as isize, length);
                }
                let (part, rest) = row.split_at_mut(left.min(row.len()));
                bring_row(x, at, step, part);
                (at, left, row) = (at + step * part.len() as isize, left - part.len(), rest);
            }
        }
    }

    fn bring_runs<T: Pod>(&self, x: &[T], first: usize, out: &mut [T]) {
        let [step] = self.inner_strides();
        let mut ahead = self.runs(first, out.len()).skip(AHEAD);
        self.run(first, out.len(), |position, length, [at]| {
            if let (1, Some((_, length, [at]))) = (step, ahead.next()) {
                expect_soon(lines_of(&x[at..at + length.min(FIRST / size_of::<T>().max(1))]));
            }
            bring_row(x, at as isize, step, &mut out[position..position + length]);
        });
    }
}

/// Copies rows of `length` elements that lie `step` elements apart; rows begin `pitch` elements apart, the first at `start`.
#[inline(always)]
fn bring_rows<'a, T: Pod>(
    x: &[T],
    (start, pitch, step): (isize, isize, isize),
    length: usize,
    out: impl Iterator<Item = &'a mut [T]>,
) {
    let rows = (0..).map(|row| start + pitch * row).zip(out);
    match (step, length) {
        (1, 1) => rows.for_each(|(at, out)| bring_all::<T, 1>(x, at, out)),
        (1, 2) => rows.for_each(|(at, out)| bring_all::<T, 2>(x, at, out)),
        (1, 4) => rows.for_each(|(at, out)| bring_all::<T, 4>(x, at, out)),
        (1, 8) => rows.for_each(|(at, out)| bring_all::<T, 8>(x, at, out)),
        (1, 16) => rows.for_each(|(at, out)| bring_all::<T, 16>(x, at, out)),
        (1, 32) => rows.for_each(|(at, out)| bring_all::<T, 32>(x, at, out)),
        _ => rows.for_each(|(at, out)| bring_row(x, at, step, out)),
    }
}

/// Copies `N` neighbours.
fn bring_all<T: Pod, const N: usize>(x: &[T], at: isize, out: &mut [T]) {
    let source: &[T; N] = x[at as usize..].first_chunk().expect("invariant: a row lies in its slice");
    out.copy_from_slice(source);
}

fn bring_row<T: Pod>(x: &[T], at: isize, step: isize, out: &mut [T]) {
    let from = at as usize;
    match step {
        0 => out.fill(x[from]),
        1 => out.copy_from_slice(&x[from..from + out.len()]),
        2 => out.iter_mut().zip(x[from..].chunks(2)).for_each(|(out, pair)| *out = pair[0]),
        _ => (0..).zip(out).for_each(|(index, out)| *out = x[(at + step * index) as usize]),
    }
}
