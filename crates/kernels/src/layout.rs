//! Copies between layouts; elements are moved bit for bit.

use bytemuck::Pod;

use crate::broadcast::{MAX_RANK, Walk, row_major};
use crate::simd::{Cuts, Grid, Lanes, Place, Task, chunks, tiles, turn};
use crate::{Kernels, Layout, View};

/// Elements that one thread copies at a time.
const GRAIN: usize = 1 << 15;
/// Rows and columns of the squares in which a transposition goes.
const SQUARE: usize = 16;
/// Rows of a transposition of 16-bit values that go together, and their columns: of two lines in the target.
const GROUP: usize = 128;
const LINE: usize = 64;
/// Elements of rows up to which [`concat()`] goes over all of them part by part, which is faster than row by row.
pub const SHORT: usize = 64;

/// `out[i_perm[0], i_perm[1], ...] = x[i_0, i_1, ...]`: axis `j` of the output is axis `perm[j]` of `x`.
///
/// # Panics
/// When `perm` is no permutation of the axes, the rank is above 8 or a length does not fit.
pub fn transpose<T: Pod + Send + Sync>(kernels: &Kernels, x: View<'_, T>, perm: &[usize], out: &mut [T]) {
    let rank = x.shape.len();
    assert_eq!(perm.len(), rank, "transpose: {perm:?} for {rank} axes");
    assert!((0..rank).all(|axis| perm.contains(&axis)), "transpose: {perm:?} is no permutation");
    let (mut shape, mut strides) = ([1; MAX_RANK], [0; MAX_RANK]);
    let own = row_major(x.shape);
    for (axis, &from) in perm.iter().enumerate() {
        (shape[axis], strides[axis]) = (x.shape[from], own[from]);
    }
    copy(kernels, x.data, (&shape[..rank], &strides[..rank], 0), out);
}

/// `out[i, j, ...] = x[begin[0] + i step[0], begin[1] + j step[1], ...]` with `out` of shape `size`. A negative
/// step walks backwards.
///
/// # Panics
/// When an index leaves `x`, the ranks differ or a length does not fit.
pub fn slice<T: Pod + Send + Sync>(
    kernels: &Kernels,
    x: View<'_, T>,
    begin: &[usize],
    size: &[usize],
    step: &[isize],
    out: &mut [T],
) {
    let rank = x.shape.len();
    assert!([begin.len(), size.len(), step.len()] == [rank; 3], "slice: {begin:?}, {size:?}, {step:?}");
    let own = row_major(x.shape);
    let (mut strides, mut start) = ([0; MAX_RANK], 0);
    for axis in 0..rank {
        let last = begin[axis] as isize + step[axis] * (size[axis].max(1) as isize - 1);
        let inside =
            size[axis] == 0 || begin[axis] < x.shape[axis] && (0..x.shape[axis] as isize).contains(&last);
        assert!(inside, "slice: {begin:?}, {size:?}, {step:?} leaves {:?}", x.shape);
        strides[axis] = own[axis] * step[axis];
        start += own[axis] * begin[axis] as isize;
    }
    copy(kernels, x.data, (size, &strides[..rank], start), out);
}

/// `x` with the axes whose bits are set in `axes` (bit 0 is the outermost) run backwards.
///
/// # Panics
/// When the lengths differ.
pub fn reverse<T: Pod + Send + Sync>(kernels: &Kernels, x: View<'_, T>, axes: u32, out: &mut [T]) {
    let rank = x.shape.len();
    let mut strides = row_major(x.shape);
    let mut start = 0;
    for axis in (0..rank).filter(|axis| axes >> axis & 1 == 1 && x.shape[*axis] > 0) {
        start += strides[axis] * (x.shape[axis] as isize - 1);
        strides[axis] = -strides[axis];
    }
    copy(kernels, x.data, (x.shape, &strides[..rank], start), out);
}

/// `x` broadcast to `shape` as NumPy does.
///
/// # Panics
/// When it does not broadcast, or a length does not fit.
pub fn broadcast<T: Pod + Send + Sync>(kernels: &Kernels, x: View<'_, T>, shape: &[usize], out: &mut [T]) {
    let strides = crate::broadcast::broadcast_strides(x.shape, shape);
    copy(kernels, x.data, (shape, &strides[..shape.len()], 0), out);
}

/// `x` repeated `repeats[axis]` times along every axis.
///
/// # Panics
/// When the ranks differ, or a length does not fit.
pub fn tile<T: Pod + Send + Sync>(kernels: &Kernels, x: View<'_, T>, repeats: &[usize], out: &mut [T]) {
    let rank = x.shape.len();
    assert_eq!(repeats.len(), rank, "tile: {repeats:?} for {rank} axes");
    let own = row_major(x.shape);
    let (mut shape, mut strides) = ([1; 2 * MAX_RANK], [0; 2 * MAX_RANK]);
    let mut used = 0;
    for axis in 0..rank {
        for (size, stride) in [(repeats[axis], 0), (x.shape[axis], own[axis])] {
            if size != 1 {
                (shape[used], strides[used], used) = (size, stride, used + 1);
            }
        }
    }
    assert!(used <= MAX_RANK, "tile: more than {MAX_RANK} axes to walk");
    copy(kernels, x.data, (&shape[..used], &strides[..used], 0), out);
}

/// The `parts` one after the other along axis `axis`.
///
/// # Panics
/// When the shapes differ in another axis, there is no such axis, or a length does not fit.
pub fn concat<T: Pod + Send + Sync>(kernels: &Kernels, parts: &[View<'_, T>], axis: usize, out: &mut [T]) {
    let Some(first) = parts.first() else {
        assert!(out.is_empty(), "concat: nothing to fill the output with");
        return;
    };
    let outer: usize = first.shape[..axis].iter().product();
    for part in parts {
        let (shape, same) = (part.shape, first.shape.len() == part.shape.len());
        let same = same && (0..shape.len()).all(|other| other == axis || shape[other] == first.shape[other]);
        assert!(same, "concat: {:?} and {shape:?} along axis {axis}", first.shape);
    }
    assert_eq!(out.len(), parts.iter().map(|part| part.data.len()).sum::<usize>(), "concat: output length");
    if out.is_empty() {
        return;
    }
    let row = out.len() / outer;
    if row <= SHORT {
        // Whole rows, part by part.
        return chunks(&kernels.pool, out, (GRAIN / row).max(1) * row, |start, out| {
            let first = start / row;
            match parts {
                [a, b] if row == 2 => alternate(&a.data[first..], &b.data[first..], out),
                _ => spread(parts, (first, outer), row, out),
            }
        });
    }
    chunks(&kernels.pool, out, GRAIN, |start, mut out| {
        let (mut index, mut skip) = (start / row, start % row);
        while !out.is_empty() {
            for part in parts {
                let size = part.data.len() / outer;
                let source = &part.data[index * size..(index + 1) * size];
                let source = &source[skip.min(size)..];
                skip -= skip.min(size);
                let (target, rest) = out.split_at_mut(source.len().min(out.len()));
                target.copy_from_slice(&source[..target.len()]);
                out = rest;
            }
            index += 1;
        }
    });
}

/// Elements of `a` and of `b` in turns.
fn alternate<T: Pod>(a: &[T], b: &[T], out: &mut [T]) {
    for ((pair, a), b) in out.as_chunks_mut::<2>().0.iter_mut().zip(a).zip(b) {
        *pair = [*a, *b];
    }
}

/// Rows of `row` elements from row `first` of `outer` on, of so many elements of each part.
fn spread<T: Pod>(parts: &[View<'_, T>], (first, outer): (usize, usize), row: usize, out: &mut [T]) {
    let mut at = 0;
    for part in parts {
        let size = part.data.len() / outer;
        if size > 0 {
            let source = &part.data[first * size..];
            match size {
                1 => spread_part::<T, 1>(source, (row, at), out),
                2 => spread_part::<T, 2>(source, (row, at), out),
                4 => spread_part::<T, 4>(source, (row, at), out),
                8 => spread_part::<T, 8>(source, (row, at), out),
                _ => {
                    for (out, source) in out.chunks_exact_mut(row).zip(source.chunks_exact(size)) {
                        out[at..at + size].copy_from_slice(source);
                    }
                }
            }
        }
        at += size;
    }
}

fn spread_part<T: Pod, const N: usize>(source: &[T], (row, at): (usize, usize), out: &mut [T]) {
    for (out, source) in out.chunks_exact_mut(row).zip(source.as_chunks::<N>().0) {
        *out[at..].first_chunk_mut().expect("invariant: a row holds its parts") = *source;
    }
}

/// The elements of `x` that `from` says, one after the other.
///
/// # Panics
/// When one does not lie in `x`, or a length does not fit.
pub fn gather<T: Pod + Send + Sync>(kernels: &Kernels, x: &[T], from: &Layout, out: &mut [T]) {
    let strides = signed(from);
    copy(kernels, x, (from.extents(), &strides[..from.extents().len()], from.start() as isize), out);
}

/// The elements of `x` that `from` says, where `to` says, which is an array of the same extents whose innermost elements
/// are neighbours. What lies between them stays.
///
/// # Panics
/// When an element does not lie in its slice, the extents differ, or rows of `to` overlap.
pub fn place<T: Pod + Send + Sync>(kernels: &Kernels, x: &[T], from: &Layout, out: &mut [T], to: &Layout) {
    assert_eq!(from.extents(), to.extents(), "place: extents");
    let Some(([batches, rows, columns], place)) = Place::of(to) else {
        // Rows in more axes than that: part by part.
        let part = |of: &Layout, index: usize| {
            let (extents, strides) = (of.extents(), of.strides());
            Layout::new(of.start() + index * strides[0], &extents[1..], &strides[1..])
        };
        return (0..to.extents()[0])
            .for_each(|index| self::place(kernels, x, &part(from, index), out, &part(to, index)));
    };
    if batches * rows * columns == 0 {
        return;
    }
    if batches * rows == 1 {
        return gather(kernels, x, from, &mut out[place.start..][..columns]);
    }
    let strides = signed(from);
    let walk = Walk::strided(from.extents(), [&strides[..from.extents().len()]], [from.start() as isize]);
    let parts = (rows * columns).div_ceil(GRAIN).min(rows);
    let grid =
        Grid { place, ..Grid::new(batches, Cuts::new(rows, 1, parts), Cuts::new(columns, columns, 1)) };
    tiles(&kernels.pool, out, grid, (&mut [], 0), |tile, _| {
        let first = (tile.batch() * rows + tile.rows().start) * columns;
        walk.bring_to_rows(x, first, tile.walk(tile.rows(), tile.columns()));
    });
}

fn signed(layout: &Layout) -> [isize; MAX_RANK] {
    let mut strides = [0; MAX_RANK];
    strides.iter_mut().zip(layout.strides()).for_each(|(signed, &stride)| *signed = stride as isize);
    strides
}

/// `out[i, j, ...] = x[start + i strides[0] + j strides[1] + ...]` with `out` of shape `shape`.
fn copy<T: Pod + Send + Sync>(
    kernels: &Kernels,
    x: &[T],
    (shape, strides, start): (&[usize], &[isize], isize),
    out: &mut [T],
) {
    assert_eq!(out.len(), shape.iter().product::<usize>(), "layout: output is not {shape:?}");
    if out.is_empty() {
        return;
    }
    let walk = Walk::strided(shape, [strides], [start]);
    if let Some(matrix) = walk.matrix() {
        // Parts of whole lines of the source, where there are enough for all threads.
        let (rows, threads) = (out.len() / matrix.columns, kernels.pool.threads());
        let unit = if rows >= LINE * threads { LINE } else { SQUARE } * matrix.columns;
        chunks(&kernels.pool, out, (GRAIN / unit).max(1) * unit, |first, out| {
            match (bytemuck::try_cast_slice(x), bytemuck::try_cast_slice_mut(out)) {
                (Ok(x), Ok(out)) if size_of::<T>() == 2 => {
                    kernels.simd.run(Halves { x, walk: &walk, matrix, first, out });
                }
                _ => squares(x, &walk, matrix, first, out),
            }
        });
        return;
    }
    chunks(&kernels.pool, out, GRAIN, |first, out| walk.bring(x, first, out));
}

/// The two innermost axes of a walk, when the outer of them is contiguous in the source.
#[derive(Clone, Copy)]
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) stride: usize,
}

/// Calls `body(at, rows)` for groups of up to `limit` whole rows of `out`, each of one matrix: `at` is where its first
/// row starts in the source.
fn groups<T>(
    walk: &Walk<1>,
    matrix: Matrix,
    limit: usize,
    first: usize,
    mut out: &mut [T],
    body: impl Fn(usize, &mut [T]),
) {
    let Matrix { rows, columns, .. } = matrix;
    let mut row = first / columns;
    while !out.is_empty() {
        let count = limit.min(rows - row % rows).min(out.len() / columns);
        let (group, rest) = out.split_at_mut(count * columns);
        let mut at = 0;
        walk.run(row * columns, 1, |_, _, [offset]| at = offset);
        body(at, group);
        row += count;
        out = rest;
    }
}

/// Copies whole rows of matrices whose rows lie one element and whose columns lie `stride` elements apart in `x`.
fn squares<T: Pod>(x: &[T], walk: &Walk<1>, matrix: Matrix, first: usize, out: &mut [T]) {
    let Matrix { columns, stride, .. } = matrix;
    groups(walk, matrix, SQUARE, first, out, |at, group| {
        for column in (0..columns).step_by(SQUARE) {
            let end = (column + SQUARE).min(columns);
            for (index, target) in group.chunks_exact_mut(columns).enumerate() {
                copy_strided(&x[at + index + column * stride..], stride, &mut target[column..end]);
            }
        }
    });
}

fn copy_strided<T: Pod>(source: &[T], stride: usize, target: &mut [T]) {
    target.iter_mut().zip(source.iter().step_by(stride)).for_each(|(target, source)| *target = *source);
}

/// [`squares`] for 16-bit values.
struct Halves<'a> {
    x: &'a [u16],
    walk: &'a Walk<1>,
    matrix: Matrix,
    first: usize,
    out: &'a mut [u16],
}

impl Task for Halves<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Halves { x, walk, matrix, first, out } = self;
        let Matrix { columns, stride, .. } = matrix;
        groups(walk, matrix, GROUP, first, out, |at, group| {
            let rows = group.len() / columns;
            for line in (0..columns).step_by(LINE) {
                let count = LINE.min(columns - line);
                let mut sources = [&x[..0]; LINE];
                for (column, source) in sources.iter_mut().enumerate().take(count) {
                    *source = &x[at + (line + column) * stride..];
                }
                turn::<L>(&sources[..count], rows, &mut group[line..], columns);
            }
        });
    }
}
