//! Where the elements of an array lie in a slice.

use crate::broadcast::{MAX_RANK, row_major};

/// Where the elements of an array lie in a slice: element `[i, j, ...]` is number `start + i * strides[0] + j *
/// strides[1] + ...` of it. [`gemm::Rows`](crate::gemm::Rows), [`attention::Heads`](crate::attention::Heads) and
/// [`conv::Nhwc`](crate::conv::Nhwc) are layouts that routines can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    start: usize,
    rank: usize,
    extents: [usize; MAX_RANK],
    strides: [usize; MAX_RANK],
}

impl Layout {
    /// An array of these extents, outermost first.
    ///
    /// # Panics
    /// When there are not as many strides as extents, or more than 8.
    #[must_use]
    pub fn new(start: usize, extents: &[usize], strides: &[usize]) -> Layout {
        assert_eq!(extents.len(), strides.len(), "layout: one stride per axis");
        let mut layout =
            Layout { start, rank: extents.len(), extents: [1; MAX_RANK], strides: [0; MAX_RANK] };
        layout.extents[..extents.len()].copy_from_slice(extents);
        layout.strides[..strides.len()].copy_from_slice(strides);
        layout
    }

    /// An array without gaps, the last axis innermost.
    ///
    /// # Panics
    /// When there are more than 8 extents.
    #[must_use]
    pub fn row_major(extents: &[usize]) -> Layout {
        let strides = row_major(extents).map(isize::unsigned_abs);
        Layout::new(0, extents, &strides[..extents.len()])
    }

    /// The number of the first element.
    #[must_use]
    pub fn start(&self) -> usize {
        self.start
    }

    /// The size of each axis, outermost first.
    #[must_use]
    pub fn extents(&self) -> &[usize] {
        &self.extents[..self.rank]
    }

    /// From one element to the next along each axis.
    #[must_use]
    pub fn strides(&self) -> &[usize] {
        &self.strides[..self.rank]
    }

    /// Whether the elements are the first of the slice, in their order and without gaps.
    #[must_use]
    pub fn is_row_major(&self) -> bool {
        let mut step = 1;
        let dense = self.extents().iter().zip(self.strides()).rev().all(|(&extent, &stride)| {
            let fits = extent <= 1 || stride == step;
            step *= extent;
            fits
        });
        self.start == 0 && dense
    }

    /// The length of the shortest slice that holds all elements: 0 when there are none, `None` when it is beyond counting.
    #[must_use]
    pub fn end(&self) -> Option<usize> {
        if self.extents().contains(&0) {
            return Some(0);
        }
        let axes = self.extents().iter().zip(self.strides());
        let last = axes.map(|(&extent, &stride)| (extent - 1).checked_mul(stride));
        last.sum::<Option<usize>>().and_then(|last| last.checked_add(self.start)?.checked_add(1))
    }

    /// Elements that lie side by side, in the array's order: the number of the first one in the array, that in the slice,
    /// and how many there are.
    pub fn runs(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        let count: usize = self.extents().iter().product();
        let mut run = 1;
        let inner = self.extents().iter().zip(self.strides()).rev().take_while(|&(&extent, &stride)| {
            let side_by_side = extent <= 1 || stride == run;
            run *= if side_by_side { extent } else { 1 };
            side_by_side
        });
        let outer = self.rank - inner.count();
        let runs = if count == 0 { 0 } else { count / run };
        (0..runs).map(move |number| {
            let mut rest = number;
            let at = (0..outer).rev().fold(self.start, |at, axis| {
                let index = rest % self.extents[axis];
                rest /= self.extents[axis];
                at + index * self.strides[axis]
            });
            (number * run, at, run)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::Heads;
    use crate::conv::Nhwc;
    use crate::gemm::Rows;
    use half::f16;
    use proptest::prelude::*;

    #[test]
    fn arrays_beyond_counting_end_nowhere() {
        assert_eq!(Layout::new(1, &[2], &[usize::MAX]).end(), None);
        assert_eq!(Layout::new(usize::MAX, &[1], &[1]).end(), None);
        assert_eq!(
            Layout::new(0, &[3, 3], &[usize::MAX / 4, usize::MAX / 4]).end(),
            Some(usize::MAX / 4 * 4 + 1)
        );
        assert_eq!(Layout::new(7, &[0, 3], &[usize::MAX, 1]).end(), Some(0));
    }

    /// Each is found in its own layout, and in none whose values are apart or whose rank is another.
    #[test]
    fn rows_heads_and_images_are_views() {
        let rows = Rows { start: 3, pitch: 7 };
        assert_eq!(Rows::of(&rows.layout(4, 5)), Some(rows));
        assert_eq!(rows.layout(4, 5).end(), Some(3 + 3 * 7 + 5));
        let heads = Heads::side_by_side(3, 5);
        assert_eq!(Heads::of(&heads.layout(3, 4, 5)), Some(heads));
        let image = Nhwc::padded([6, 5], 4, [1, 2, 3, 0]);
        assert_eq!(Nhwc::of(&image.layout(2, [6, 5], 4), image.halo), Some(image));
        let apart = Layout::new(0, &[4, 5], &[20, 2]);
        assert_eq!((Rows::of(&apart), Heads::of(&apart)), (None, None));
        assert_eq!(Nhwc::of(&Layout::new(0, &[1, 2, 2, 3], &[24, 12, 6, 2]), [0; 4]), None);
        // One value is its own neighbour; heads begin with the first element.
        assert_eq!(Rows::of(&Layout::new(0, &[4, 1], &[9, 0])), Some(Rows { start: 0, pitch: 9 }));
        assert_eq!(Heads::of(&Layout::new(1, &[3, 4, 5], &[20, 5, 1])), None);
    }

    #[test]
    fn zeros_are_put_around_images_and_nowhere_else() {
        for halo in [[1, 2, 3, 1], [0, 0, 2, 0], [2, 0, 0, 0], [0; 4]] {
            let image = Nhwc::padded([3, 2], 5, halo);
            let mut values = vec![f16::ONE; image.len(2, 0)];
            let whole = 2 * image.image;
            image.clear_halo(2, [3, 2], 5, &mut values);
            for (_, at, count) in image.layout(2, [3, 2], 5).runs() {
                assert!(values[at..at + count].iter().all(|&v| v == f16::ONE));
                values[at..at + count].fill(f16::ZERO);
            }
            assert!(values[..whole].iter().all(|&v| v == f16::ZERO));
            assert!(values[whole..].iter().all(|&v| v == f16::ONE));
        }
    }

    proptest! {
        #[test]
        fn runs_are_all_elements_where_they_lie(
            axes in proptest::collection::vec((0_usize..4, 0_usize..9), 0..4),
            start in 0_usize..5,
        ) {
            let (extents, strides): (Vec<usize>, Vec<usize>) = axes.into_iter().unzip();
            let layout = Layout::new(start, &extents, &strides);
            let count: usize = extents.iter().product();
            let place = |number: usize| {
                let mut rest = number;
                (0..extents.len()).rev().fold(start, |at, axis| {
                    let index = rest % extents[axis];
                    rest /= extents[axis];
                    at + index * strides[axis]
                })
            };
            let mut seen = 0;
            for (number, at, run) in layout.runs() {
                prop_assert_eq!(number, seen);
                for i in 0..run {
                    prop_assert_eq!(at + i, place(number + i));
                }
                seen += run;
            }
            prop_assert_eq!(seen, count);
            let end = (0..count).map(|number| place(number) + 1).max();
            prop_assert_eq!(layout.end(), Some(end.unwrap_or(0)));
            let plain = (0..count).all(|number| place(number) == number);
            prop_assert_eq!(layout.is_row_major() && count > 0, plain && count > 0);
        }
    }
}
