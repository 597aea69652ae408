use std::fmt;

/// The most axes a tensor may have. The engine takes fewer; what is between must be gone when a graph is legal.
pub const MAX_RANK: usize = 8;

/// The extents of a tensor, outermost axis first: at most [`MAX_RANK`], each at least one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape {
    dims: [usize; MAX_RANK],
    rank: u8,
}

/// Why extents are not a [`Shape`], or two shapes do not go together. The caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// More than [`MAX_RANK`] axes.
    #[error("rank {0} is above the limit of {MAX_RANK}; reshape to fewer axes")]
    Rank(usize),
    /// An extent of zero.
    #[error("axis {axis} of {dims:?} has size 0; every axis needs at least one element")]
    Empty {
        /// Which axis.
        axis: usize,
        /// All extents asked for.
        dims: Vec<usize>,
    },
    /// The element count does not fit the address space.
    #[error("shape {0:?} has more elements than this machine can address")]
    Huge(Vec<usize>),
    /// Two shapes do not broadcast.
    #[error("shapes {} and {} do not broadcast: axis sizes must be equal or 1, aligned from the right", .0[0], .0[1])]
    Broadcast(Box<[Shape; 2]>),
    /// An axis outside the rank.
    #[error("axis {axis} is out of range for rank {rank}; {}", valid_axes(*rank))]
    Axis {
        /// The axis asked for.
        axis: i64,
        /// The rank it was asked of.
        rank: usize,
    },
}

fn valid_axes(rank: usize) -> String {
    match rank {
        0 => "a value without axes has none".into(),
        _ => format!("valid axes are -{rank} to {}", rank - 1),
    }
}

impl Shape {
    /// The shape of a scalar: no axes, one element.
    pub const SCALAR: Shape = Shape { dims: [1; MAX_RANK], rank: 0 };

    /// A shape with these extents.
    ///
    /// ```
    /// use aneforge_tensor::Shape;
    /// assert_eq!(Shape::new(&[2, 3])?.count(), 6);
    /// assert!(Shape::new(&[1; 9]).is_err());
    /// # Ok::<(), aneforge_tensor::ShapeError>(())
    /// ```
    pub fn new(dims: &[usize]) -> Result<Shape, ShapeError> {
        if dims.len() > MAX_RANK {
            return Err(ShapeError::Rank(dims.len()));
        }
        if let Some(axis) = dims.iter().position(|&d| d == 0) {
            return Err(ShapeError::Empty { axis, dims: dims.to_vec() });
        }
        // Eight bytes is the widest element, so byte sizes of any element type fit as well.
        let bytes = dims.iter().try_fold(8usize, |n, &d| n.checked_mul(d));
        if bytes.is_none_or(|n| n > isize::MAX as usize) {
            return Err(ShapeError::Huge(dims.to_vec()));
        }
        let mut all = [1; MAX_RANK];
        all[..dims.len()].copy_from_slice(dims);
        Ok(Shape { dims: all, rank: dims.len() as u8 })
    }

    /// The extents.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank()]
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        usize::from(self.rank)
    }

    /// The number of elements; one for a scalar.
    pub fn count(&self) -> usize {
        self.dims().iter().product()
    }

    /// Elements between neighbours along each axis, for row-major storage.
    pub fn strides(&self) -> [usize; MAX_RANK] {
        let mut strides = [1; MAX_RANK];
        for axis in (1..self.rank()).rev() {
            strides[axis - 1] = strides[axis] * self.dims[axis];
        }
        strides
    }

    /// The axis meant by `axis`, where negative values count from the last.
    pub fn axis(&self, axis: i64) -> Result<usize, ShapeError> {
        let rank = self.rank() as i64;
        let at = if axis < 0 { axis + rank } else { axis };
        if (0..rank).contains(&at) {
            Ok(at as usize)
        } else {
            Err(ShapeError::Axis { axis, rank: self.rank() })
        }
    }

    /// This shape with `axis` resized.
    ///
    /// # Panics
    /// If `axis` is not below the rank or `size` is zero: callers have checked both.
    pub fn with(mut self, axis: usize, size: usize) -> Shape {
        assert!(axis < self.rank() && size > 0, "invariant: axis and size were checked");
        self.dims[axis] = size;
        self
    }

    /// The shape both broadcast to by NumPy's rule: aligned from the right, sizes equal or one.
    pub fn broadcast(self, other: Shape) -> Result<Shape, ShapeError> {
        let rank = self.rank().max(other.rank());
        let mut out = Shape { dims: [1; MAX_RANK], rank: rank as u8 };
        for back in 1..=rank {
            let size = |s: &Shape| if back <= s.rank() { s.dims[s.rank() - back] } else { 1 };
            let (a, b) = (size(&self), size(&other));
            if a != b && a != 1 && b != 1 {
                return Err(ShapeError::Broadcast(Box::new([self, other])));
            }
            out.dims[rank - back] = a.max(b);
        }
        Shape::new(out.dims())
    }
}

impl std::ops::Index<usize> for Shape {
    type Output = usize;
    fn index(&self, axis: usize) -> &usize {
        &self.dims()[axis]
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_follows_numpy() {
        let s = |d: &[usize]| Shape::new(d).unwrap();
        assert_eq!(s(&[2, 1, 4]).broadcast(s(&[3, 1])), Ok(s(&[2, 3, 4])));
        assert_eq!(s(&[]).broadcast(s(&[5])), Ok(s(&[5])));
        assert!(s(&[2]).broadcast(s(&[3])).is_err());
    }

    #[test]
    fn hostile_extents_are_errors() {
        assert_eq!(Shape::new(&[1; 9]), Err(ShapeError::Rank(9)));
        assert!(matches!(Shape::new(&[2, 0]), Err(ShapeError::Empty { axis: 1, .. })));
        assert!(matches!(Shape::new(&[usize::MAX, 2]), Err(ShapeError::Huge(_))));
        let message = Shape::new(&[2, 3]).unwrap().axis(2).unwrap_err().to_string();
        assert_eq!(message, "axis 2 is out of range for rank 2; valid axes are -2 to 1");
        let message = Shape::SCALAR.axis(0).unwrap_err().to_string();
        assert_eq!(message, "axis 0 is out of range for rank 0; a value without axes has none");
    }
}
