//! Walking several strided operands in the row-major order of one output.

use crate::layout::Matrix;

/// The highest rank that routines over shapes accept.
pub(crate) const MAX_RANK: usize = 8;

/// A slice with the shape of the row-major array that it holds.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    /// The elements, in row-major order.
    pub data: &'a [T],
    /// The size of each axis, outermost first; empty for a scalar.
    pub shape: &'a [usize],
}

impl<'a, T> View<'a, T> {
    /// A view of `data` as an array of shape `shape`.
    ///
    /// # Panics
    /// When the number of elements differs from the shape's, or the rank is above 8.
    #[must_use]
    pub fn new(data: &'a [T], shape: &'a [usize]) -> View<'a, T> {
        assert_eq!(
            data.len(),
            shape.iter().product::<usize>(),
            "view: {} elements for {shape:?}",
            data.len()
        );
        assert!(shape.len() <= MAX_RANK, "view: rank {} is above {MAX_RANK}", shape.len());
        View { data, shape }
    }
}

/// Row-major strides of `shape`, in elements.
pub(crate) fn row_major(shape: &[usize]) -> [isize; MAX_RANK] {
    let mut strides = [0; MAX_RANK];
    let mut step = 1;
    for axis in (0..shape.len()).rev() {
        strides[axis] = step;
        step *= shape[axis] as isize;
    }
    strides
}

/// A walk over an output shape that keeps the position in `N` strided operands, in as few runs as possible.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk<const N: usize> {
    pub(crate) rank: usize,
    pub(crate) sizes: [usize; MAX_RANK],
    strides: [[isize; N]; MAX_RANK],
    start: [isize; N],
}

impl<const N: usize> Walk<N> {
    /// Operands of the given element strides per axis of `shape`, from the given first elements.
    pub(crate) fn strided(shape: &[usize], strides: [&[isize]; N], start: [isize; N]) -> Walk<N> {
        let mut walk = Walk { rank: 0, sizes: [1; MAX_RANK], strides: [[0; N]; MAX_RANK], start };
        for (axis, &size) in shape.iter().enumerate() {
            let step: [isize; N] = std::array::from_fn(|operand| strides[operand][axis]);
            if size != 1 {
                walk.push(size, step);
            }
        }
        if walk.rank == 0 {
            walk.push(1, [0; N]);
        }
        walk
    }

    /// Operands of the given shapes, broadcast to `shape` as NumPy does.
    ///
    /// # Panics
    /// When a shape does not broadcast to `shape`.
    pub(crate) fn broadcast(shape: &[usize], operands: [&[usize]; N]) -> Walk<N> {
        let strides = operands.map(|operand| broadcast_strides(operand, shape));
        Walk::strided(shape, std::array::from_fn(|operand| &strides[operand][..]), [0; N])
    }

    fn push(&mut self, size: usize, step: [isize; N]) {
        if self.rank > 0 {
            let outer = self.strides[self.rank - 1];
            if (0..N).all(|operand| outer[operand] == step[operand] * size as isize) {
                self.sizes[self.rank - 1] *= size;
                self.strides[self.rank - 1] = step;
                return;
            }
        }
        self.sizes[self.rank] = size;
        self.strides[self.rank] = step;
        self.rank += 1;
    }

    /// The strides within a run.
    pub(crate) fn inner_strides(&self) -> [isize; N] {
        self.strides[self.rank - 1]
    }

    /// The two innermost axes, when the first operand's elements lie side by side along the outer of them.
    pub(crate) fn matrix(&self) -> Option<Matrix> {
        let (inner, outer) = (self.rank - 1, self.rank.checked_sub(2)?);
        let stride = usize::try_from(self.strides[inner][0]).ok().filter(|&stride| stride > 1)?;
        let contiguous = self.strides[outer][0] == 1;
        contiguous.then(|| Matrix { rows: self.sizes[outer], columns: self.sizes[inner], stride })
    }

    /// Whether one run covers everything.
    pub(crate) fn is_one_run(&self) -> bool {
        self.rank == 1
    }

    /// Calls `run(position, length, offsets)` for every item of [`Walk::runs`].
    #[inline(always)]
    pub(crate) fn run(&self, first: usize, count: usize, mut run: impl FnMut(usize, usize, [usize; N])) {
        for (position, length, offsets) in self.runs(first, count) {
            run(position, length, offsets);
        }
    }

    /// Consecutive runs of the outputs `first..first + count`, as `(position, length, offsets)`: `position` counts
    /// from `first`, and `offsets` are those of the run's first element.
    #[inline(always)]
    pub(crate) fn runs(&self, first: usize, count: usize) -> Runs<'_, N> {
        let mut index = [0_usize; MAX_RANK];
        let mut offsets = self.start;
        let mut rest = first;
        for axis in (0..self.rank).rev() {
            index[axis] = rest % self.sizes[axis].max(1);
            rest /= self.sizes[axis].max(1);
            advance(&mut offsets, &self.strides[axis], index[axis] as isize);
        }
        Runs { walk: self, index, offsets, done: 0, count }
    }
}

/// See [`Walk::runs`].
pub(crate) struct Runs<'a, const N: usize> {
    walk: &'a Walk<N>,
    index: [usize; MAX_RANK],
    offsets: [isize; N],
    done: usize,
    count: usize,
}

impl<const N: usize> Iterator for Runs<'_, N> {
    type Item = (usize, usize, [usize; N]);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.done >= self.count {
            return None;
        }
        let Walk { rank, sizes, strides, .. } = self.walk;
        let last = rank - 1;
        let length = (sizes[last] - self.index[last]).min(self.count - self.done);
        let item = (self.done, length, self.offsets.map(|offset| offset as usize));
        self.done += length;
        self.index[last] += length;
        advance(&mut self.offsets, &strides[last], length as isize);
        let mut axis = last;
        while axis > 0 && self.index[axis] == sizes[axis] {
            advance(&mut self.offsets, &strides[axis], -(sizes[axis] as isize));
            self.index[axis] = 0;
            axis -= 1;
            self.index[axis] += 1;
            advance(&mut self.offsets, &strides[axis], 1);
        }
        Some(item)
    }
}

#[inline(always)]
fn advance<const N: usize>(offsets: &mut [isize; N], strides: &[isize; N], steps: isize) {
    for (offset, stride) in offsets.iter_mut().zip(strides) {
        *offset += stride * steps;
    }
}

/// The strides that read an array of shape `operand` as one of shape `shape`.
pub(crate) fn broadcast_strides(operand: &[usize], shape: &[usize]) -> [isize; MAX_RANK] {
    assert!(operand.len() <= shape.len(), "broadcast: {operand:?} has more axes than {shape:?}");
    let own = row_major(operand);
    let missing = shape.len() - operand.len();
    let mut strides = [0; MAX_RANK];
    for (axis, &size) in operand.iter().enumerate() {
        let wanted = shape[missing + axis];
        assert!(size == wanted || size == 1, "broadcast: {operand:?} does not fit {shape:?}");
        strides[missing + axis] = if size == 1 { 0 } else { own[axis] };
    }
    strides
}
