//! Safe ways to write one slice from several threads: parts that cannot overlap, each visited once.

use std::marker::PhantomData;
use std::ops::Range;

use crate::Layout;
use crate::broadcast::MAX_RANK;
use crate::threads::Pool;

/// `0..total` cut into `parts` ranges of nearly equal size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cuts {
    total: usize,
    /// Borders are multiples of this.
    unit: usize,
    /// Borders are among those of a cut into so many parts.
    pieces: usize,
    pub(crate) parts: usize,
}

impl Cuts {
    /// Borders at multiples of `unit`.
    pub(crate) fn new(total: usize, unit: usize, parts: usize) -> Cuts {
        Cuts { total, unit, pieces: total.div_ceil(unit).max(1), parts: parts.max(1) }
    }

    /// Borders among those of `pieces`, the cut with `pieces.parts` parts.
    pub(crate) fn grouped(pieces: Cuts, parts: usize) -> Cuts {
        Cuts { pieces: pieces.parts, parts: parts.max(1), ..pieces }
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// The ranges that lie in `outer`, whose borders are among theirs.
    pub(crate) fn inside(self, outer: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let (start, end) = (outer.start, outer.end);
        // Not from the first on, which may be far before it.
        let mut part = start * self.parts / self.total.max(1);
        while part > 0 && self.border(part - 1) >= start {
            part -= 1;
        }
        while part < self.parts && self.border(part) < start {
            part += 1;
        }
        let mut from = self.border(part);
        std::iter::from_fn(move || {
            let more = part < self.parts && from < end;
            more.then(|| {
                part += 1;
                let range = from..self.border(part);
                from = range.end;
                range
            })
        })
    }

    pub(crate) fn range(&self, part: usize) -> Range<usize> {
        self.border(part)..self.border(part + 1)
    }

    fn border(&self, part: usize) -> usize {
        let units = self.total.div_ceil(self.unit);
        let piece = self.pieces * part / self.parts;
        (units * piece / self.pieces * self.unit).min(self.total)
    }
}

/// Where the rows of stacked matrices lie in a slice: rows stand in lines, lines in matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The first value of the first row.
    pub(crate) start: usize,
    /// Values from one matrix to the next.
    pub(crate) batch: usize,
    /// Values from one line to the next.
    pub(crate) line: usize,
    /// Rows of a line.
    pub(crate) rows: usize,
    /// Values from one row of a line to the next.
    pub(crate) row: usize,
}

impl Place {
    /// One row after the other.
    pub(crate) fn contiguous(rows: usize, columns: usize) -> Place {
        let size = rows * columns;
        Place { start: 0, batch: size, line: size, rows: rows.max(1), row: columns }
    }

    /// The rows of neighbouring values that an array is: how many matrices of how many rows of how many values, and where
    /// they lie. `None` if rows stand in more than lines and matrices.
    pub(crate) fn of(layout: &Layout) -> Option<([usize; 3], Place)> {
        let mut axes = [(1, 1); MAX_RANK];
        let mut count = 0;
        let long = layout.extents().iter().zip(layout.strides()).filter(|&(&extent, _)| extent != 1);
        for (&extent, &stride) in long {
            let joined = count > 0 && axes[count - 1].1 == extent * stride;
            if joined {
                axes[count - 1] = (axes[count - 1].0 * extent, stride);
            } else {
                (axes[count], count) = ((extent, stride), count + 1);
            }
        }
        let (columns, outer) = match &axes[..count] {
            [outer @ .., (columns, 1)] => (*columns, outer),
            outer => (1, outer),
        };
        let (batches, lines, rows) = match *outer {
            [] => ((1, 0), (1, columns), (1, columns)),
            [rows] => ((1, 0), (1, rows.0 * rows.1), rows),
            [lines, rows] => ((1, 0), lines, rows),
            [batches, lines, rows] => (batches, lines, rows),
            _ => return None,
        };
        let place = Place {
            start: layout.start(),
            batch: batches.1,
            line: lines.1,
            rows: rows.0.max(1),
            row: rows.1,
        };
        Some(([batches.0, lines.0 * rows.0, columns], place))
    }

    fn at(&self, batch: usize, row: usize) -> usize {
        self.start + batch * self.batch + row / self.rows * self.line + row % self.rows * self.row
    }

    /// One past the last value of `batches` matrices of `rows` rows of `columns` values.
    ///
    ///
    /// # Panics
    /// When rows overlap, or the end is beyond every slice.
    pub(crate) fn end(&self, batches: usize, rows: usize, columns: usize) -> usize {
        if batches == 0 || rows == 0 || columns == 0 {
            return self.start;
        }
        let last = |count: usize, pitch: usize, size: usize| {
            assert!(count < 2 || pitch >= size, "rows of the output overlap");
            let end = pitch.checked_mul(count - 1).and_then(|start| start.checked_add(size));
            end.expect("the output ends behind its slice")
        };
        let line = last(rows.min(self.rows), self.row, columns);
        let matrix = last(rows.div_ceil(self.rows), self.line, line);
        let all = last(batches, self.batch, matrix);
        self.start.checked_add(all).expect("the output ends behind its slice")
    }
}

/// A cut of `batches` stacked matrices of `rows.total` rows each into rectangles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub(crate) batches: usize,
    pub(crate) rows: Cuts,
    pub(crate) columns: Cuts,
    pub(crate) place: Place,
    /// In which order the rectangles are numbered: all of the first columns before those of the next ones, else all of the
    /// first rows.
    pub(crate) columns_first: bool,
}

impl Grid {
    /// Of matrices that lie one after the other.
    pub(crate) fn new(batches: usize, rows: Cuts, columns: Cuts) -> Grid {
        let place = Place::contiguous(rows.total(), columns.total());
        Grid { batches, rows, columns, place, columns_first: false }
    }
}

/// A pointer that may go to other threads; whoever uses it proves that the parts are disjoint.
struct Shared<T>(*mut T);

// SAFETY: the pointer is only used to hand each thread a part that no other thread has (`chunks`, `tiles`).
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// # Safety
    /// The range lies in the allocation, and no other live reference overlaps it.
    unsafe fn part<'a>(&self, range: Range<usize>) -> &'a mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(range.start), range.len()) }
    }
}

/// A rectangle of one matrix of a [`Grid`], the only access to its elements while it lives.
pub(crate) struct Tile<'a, T> {
    base: *mut T,
    place: Place,
    batch: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    /// Columns of the whole matrix.
    width: usize,
    marker: PhantomData<&'a mut [T]>,
}

impl<'a, T> Tile<'a, T> {
    /// A whole matrix of `rows` neighbouring rows.
    pub(crate) fn whole(values: &'a mut [T], rows: usize, columns: usize) -> Tile<'a, T> {
        assert_eq!(values.len(), rows * columns, "invariant: a tile of a whole matrix");
        let place = Place::contiguous(rows, columns);
        let base = values.as_mut_ptr();
        Tile {
            base,
            place,
            batch: 0,
            rows: 0..rows,
            columns: 0..columns,
            width: columns,
            marker: PhantomData,
        }
    }
}

impl<T> Tile<'_, T> {
    /// Which matrix of the stack this is part of.
    pub(crate) fn batch(&self) -> usize {
        self.batch
    }

    /// The rows of this tile, counted in the whole matrix.
    pub(crate) fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// The columns of this tile, counted in the whole matrix.
    pub(crate) fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// All rows of this tile, of a matrix that is not cut into columns and whose rows are neighbours.
    pub(crate) fn whole_rows(&mut self) -> &mut [T] {
        let Place { line, rows, row, .. } = self.place;
        assert!(self.columns == (0..self.width), "invariant: a tile of whole rows");
        assert!(row == self.width && line == rows * row, "invariant: neighbouring rows");
        let (first, count) = (self.index(self.rows.start, 0), self.rows.len() * self.width);
        // SAFETY: whole rows of this tile are one range of the matrix that overlaps no other tile; `&mut self`
        // keeps this the only slice of this tile.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(first), count) }
    }

    /// This tile as a matrix of its own, whose rows lie as far apart.
    ///
    /// # Panics
    /// When rows of the whole matrix lie differently far apart.
    pub(crate) fn alone(&mut self) -> Tile<'_, T> {
        let Place { line, rows, row, .. } = self.place;
        assert!(line == rows * row, "invariant: rows that lie alike");
        let (count, width) = (self.rows.len(), self.columns.len());
        let first = self.index(self.rows.start, self.columns.start);
        // SAFETY: a tile that is not empty begins inside the slice, and an empty one at its end at most; `&mut self` keeps
        // the new tile the only access to this one's elements.
        let base = unsafe { self.base.add(first) };
        let place = Place { start: 0, batch: 0, line: count * row, rows: count.max(1), row };
        Tile { base, place, batch: 0, rows: 0..count, columns: 0..width, width, marker: PhantomData }
    }

    /// The element of the whole slice at `row` and `column` of this matrix.
    pub(crate) fn index(&self, row: usize, column: usize) -> usize {
        self.place.at(self.batch, row) + column
    }

    /// The columns `columns` of row `row`, both counted in the whole matrix.
    pub(crate) fn row(&mut self, row: usize, columns: Range<usize>) -> &mut [T] {
        self.row_at(row, columns).1
    }

    /// The columns `columns` of the rows `rows`, one after the other.
    pub(crate) fn walk(&mut self, rows: Range<usize>, columns: Range<usize>) -> Walk<'_, T> {
        let inside = |inner: &Range<usize>, outer: &Range<usize>| {
            outer.start <= inner.start && inner.start <= inner.end && inner.end <= outer.end
        };
        assert!(inside(&rows, &self.rows), "invariant: rows outside of the tile");
        assert!(inside(&columns, &self.columns), "invariant: columns outside of the tile");
        let (offset, within) = (self.index(rows.start, columns.start), rows.start % self.place.rows);
        Walk {
            base: self.base,
            place: self.place,
            rows,
            offset,
            within,
            columns: columns.len(),
            marker: PhantomData,
        }
    }

    /// [`Tile::row`], and the place of its first element in the whole slice.
    pub(crate) fn row_at(&mut self, row: usize, columns: Range<usize>) -> (usize, &mut [T]) {
        assert!(self.rows.contains(&row), "invariant: row outside of the tile");
        assert!(
            self.columns.start <= columns.start
                && columns.start <= columns.end
                && columns.end <= self.columns.end,
            "invariant: columns outside of the tile"
        );
        let offset = self.index(row, columns.start);
        // SAFETY: the asserts keep the range inside this tile, which lies in the slice and overlaps no other
        // tile; `&mut self` keeps this the only slice of this tile.
        (offset, unsafe { std::slice::from_raw_parts_mut(self.base.add(offset), columns.len()) })
    }
}

/// Rows of a [`Tile`]: the number of each, the place of its first element in the whole slice, and its elements.
pub(crate) struct Walk<'a, T> {
    base: *mut T,
    place: Place,
    /// Those that are left.
    rows: Range<usize>,
    /// Where the first of them lies, and which row of its line it is.
    offset: usize,
    within: usize,
    columns: usize,
    marker: PhantomData<&'a mut [T]>,
}

impl<T> Walk<'_, T> {
    /// Elements of a row.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }
}

impl<'a, T> Iterator for Walk<'a, T> {
    type Item = (usize, usize, &'a mut [T]);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let (row, offset) = (self.rows.next()?, self.offset);
        self.within += 1;
        self.offset += self.place.row;
        if self.within == self.place.rows {
            self.within = 0;
            let line = self.place.rows * self.place.row;
            self.offset = self.offset.wrapping_add(self.place.line).wrapping_sub(line);
        }
        // SAFETY: the asserts of `Tile::walk` keep the range inside the tile, which is borrowed for `'a`; rows of a place do not
        // overlap (`Place::end`), and each is lent once.
        Some((row, offset, unsafe { std::slice::from_raw_parts_mut(self.base.add(offset), self.columns) }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rows.size_hint()
    }
}

impl<T> ExactSizeIterator for Walk<'_, T> {}

/// Calls `body(start, part)` for consecutive parts of `out` of `size` elements (the last may be shorter).
pub(crate) fn chunks<T: Send>(
    pool: &Pool,
    out: &mut [T],
    size: usize,
    body: impl Fn(usize, &mut [T]) + Sync,
) {
    let (total, size) = (out.len(), size.max(1));
    if total <= size || pool.threads() == 1 {
        if total > 0 {
            body(0, out);
        }
        return;
    }
    let shared = Shared(out.as_mut_ptr());
    let shared = &shared;
    pool.for_each(total.div_ceil(size), 1, &|chunk| {
        let range = chunk * size..total.min((chunk + 1) * size);
        // SAFETY: the range lies in `out`; ranges of different chunks are disjoint and `for_each` runs each
        // chunk once, so this is the only reference to it.
        let part = unsafe { shared.part(range.clone()) };
        body(range.start, part);
    });
}

/// Calls `body(tile, scratch)` for every rectangle of `grid` over `out`, which holds its matrices.
/// `scratch` is cut in one part of `per_worker` values per thread.
pub(crate) fn tiles<T: Send>(
    pool: &Pool,
    out: &mut [T],
    grid: Grid,
    (scratch, per_worker): (&mut [f32], usize),
    body: impl Fn(&mut Tile<'_, T>, &mut [f32]) + Sync,
) {
    let width = grid.columns.total();
    let end = grid.place.end(grid.batches, grid.rows.total(), width);
    assert!(end <= out.len(), "the output ends behind its slice");
    assert!(scratch.len() >= per_worker * pool.threads(), "invariant: scratch for every thread");
    let (shared, shared_scratch) = (Shared(out.as_mut_ptr()), Shared(scratch.as_mut_ptr()));
    let (shared, shared_scratch) = (&shared, &shared_scratch);
    let per_batch = grid.rows.parts * grid.columns.parts;
    pool.for_each_with_worker(grid.batches * per_batch, 1, &|worker, index| {
        let (batch, index) = (index / per_batch, index % per_batch);
        let (rows, columns) = match grid.columns_first {
            true => (index % grid.rows.parts, index / grid.rows.parts),
            false => (index / grid.columns.parts, index % grid.columns.parts),
        };
        let mut tile = Tile {
            base: shared.0,
            place: grid.place,
            batch,
            rows: grid.rows.range(rows),
            columns: grid.columns.range(columns),
            width,
            marker: PhantomData,
        };
        // SAFETY: the part lies in `scratch`, and at any time at most one thread runs as `worker`.
        let own = unsafe { shared_scratch.part(worker * per_worker..(worker + 1) * per_worker) };
        body(&mut tile, own);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_inside_are_those_of_all_that_lie_there() {
        let cuts = (0..40).flat_map(|total| (1..5).map(move |unit| (total, unit)));
        let cuts = cuts.flat_map(|(total, unit)| (1..12).map(move |parts| Cuts::new(total, unit, parts)));
        let grouped = cuts.clone().map(|cuts| Cuts::grouped(cuts, 3));
        for cuts in cuts.chain(grouped) {
            let all: Vec<Range<usize>> = (0..cuts.parts).map(|part| cuts.range(part)).collect();
            assert!(all.windows(2).all(|pair| pair[0].end == pair[1].start) && all[0].start == 0);
            for (first, last) in
                (0..all.len()).flat_map(|first| (first..all.len()).map(move |last| (first, last)))
            {
                let outer = all[first].start..all[last].end;
                let want = all.iter().filter(|range| range.start >= outer.start && range.start < outer.end);
                assert!(cuts.inside(&outer).eq(want.cloned()), "{cuts:?} inside {outer:?}");
            }
        }
    }
}
