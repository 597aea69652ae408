//! Values as steps read and write them: by themselves, or as a part of what their place holds.

use crate::device::host::lying::regrouped;
use crate::device::host::plan::Place;
use crate::ir::ops::conv::four;
use crate::ir::types::TensorType;
use aneforge_kernels::Layout;
use aneforge_kernels::conv::{Images, Nhwc};
use aneforge_kernels::gemm::Rows;
use aneforge_tensor::{MAX_RANK, Shape, f16};
use smallvec::SmallVec;
use std::fmt;
use std::ops::Range;

/// How the elements of a value lie in its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// In row-major order.
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

    /// Where the elements of a value are that lies so, by the axes of its type.
    pub(super) fn window(self, ty: TensorType) -> Window {
        let strides = match self {
            Order::RowMajor => return Window::row_major(ty.shape),
            Order::Pixels { halo, .. } => pixels(ty.shape, halo),
        };
        let (mut image, rank) = ([1; 4], ty.shape.rank());
        image[4 - rank..].copy_from_slice(ty.shape.dims());
        let Nhwc { start, image: batch, row, pixel, .. } = strides;
        let axes = image.into_iter().zip([batch, 1, row, pixel]).skip(4 - rank).collect();
        Window { start, axes }
    }

    /// The same without zeros around images.
    pub(super) fn bare(self) -> Order {
        match self {
            Order::RowMajor => Order::RowMajor,
            Order::Pixels { ahead, .. } => Order::Pixels { halo: [0; 4], ahead },
        }
    }
}

/// Where the images of an array of up to four axes lie, one after the other with so much around each.
fn pixels(shape: Shape, halo: [usize; 4]) -> Nhwc {
    let mut image = [1; 4];
    image[4 - shape.rank()..].copy_from_slice(shape.dims());
    let [_, channels, height, width] = image;
    Nhwc::padded([height, width], channels, halo)
}

/// Where the elements of a value are, by the axes of its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// The first.
    pub(super) start: usize,
    /// Extents and strides.
    pub(super) axes: Vec<(usize, usize)>,
}

impl Window {
    pub(super) fn row_major(shape: Shape) -> Window {
        Window { start: 0, axes: shape.dims().iter().copied().zip(shape.strides()).collect() }
    }

    /// The window in it that begins at these places and has these extents.
    pub(super) fn part(mut self, begin: &[usize], extents: &[usize]) -> Window {
        for ((axis, begin), &extent) in self.axes.iter_mut().zip(begin).zip(extents) {
            self.start += begin * axis.1;
            axis.0 = extent;
        }
        self
    }

    /// Whether these are the same elements, in one order.
    pub(super) fn is(&self, other: &Window) -> bool {
        let long =
            |window: &Window| window.axes.iter().filter(|axis| axis.0 > 1).copied().collect::<Vec<_>>();
        self.start == other.start && long(self) == long(other)
    }

    /// The same elements as an array of these extents, if strides say where they are.
    pub(super) fn view(self, extents: &[usize]) -> Option<Window> {
        Some(Window { axes: regrouped(&self.axes, extents)?, ..self })
    }
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
    /// Which elements of its place they are, as they lie.
    pub layout: Layout,
    /// Bytes of its place that hold it, and what it is a part of.
    room: usize,
}

impl Operand {
    /// A value by itself.
    pub(super) fn new(place: Place, ty: TensorType, order: Order) -> Operand {
        Operand::part(place, ty, order, &order.window(ty), order.room(ty))
    }

    /// A part of what the first `room` bytes of a place hold.
    pub(super) fn part(place: Place, ty: TensorType, order: Order, window: &Window, room: usize) -> Operand {
        let lying = match order {
            Order::RowMajor => ty.shape,
            Order::Pixels { .. } => pixel_extents(ty.shape),
        };
        let axes = match order {
            Order::RowMajor => window.axes.clone(),
            Order::Pixels { .. } => by_pixels(&window.axes).to_vec(),
        };
        let strides: Vec<usize> = axes.iter().map(|&(_, stride)| stride).collect();
        let layout = Layout::new(window.start, lying.dims(), &strides);
        Operand { place, ty, order, lying, layout, room }
    }

    /// Takes it as pixels, which it is already, or is as well.
    pub(super) fn by_pixels(&mut self) {
        if self.order == Order::RowMajor {
            let window = Window { start: self.layout.start(), axes: self.axes().to_vec() };
            *self = Operand::part(self.place, self.ty, Order::PIXELS, &window, self.room);
        }
    }

    /// Extents and strides, as it lies.
    fn axes(&self) -> SmallVec<[(usize, usize); MAX_RANK]> {
        self.layout.extents().iter().copied().zip(self.layout.strides().iter().copied()).collect()
    }

    /// Whether its elements are neighbours, in their order.
    pub(super) fn is_dense(&self) -> bool {
        Layout::new(0, self.layout.extents(), self.layout.strides()).is_row_major()
    }

    /// The bytes of its place that it is, with what lies between its elements where they are apart.
    pub(super) fn span(&self) -> Range<usize> {
        let start = self.layout.start() * self.ty.dtype.size();
        if self.is_dense() { start..start + self.ty.bytes() } else { 0..self.room }
    }

    /// The same in its [`Operand::span`].
    pub(super) fn spanned(&self) -> Operand {
        let start = if self.is_dense() { 0 } else { self.layout.start() };
        Operand { layout: Layout::new(start, self.layout.extents(), self.layout.strides()), ..*self }
    }

    /// The rows that it consists of, as a matrix of so many columns.
    pub(super) fn matrix(&self, columns: usize) -> Option<Rows> {
        let rows = self.lying.count().checked_div(columns)?;
        let [(_, pitch), (_, step)] = regrouped(&self.axes(), &[rows, columns])?[..] else { return None };
        let pitch = if rows > 1 { pitch } else { columns };
        (step == 1 || columns == 1).then_some(Rows { start: self.layout.start(), pitch })
    }

    /// The rows of neighbouring elements that it consists of, as long as can be.
    pub(super) fn rows(&self) -> Option<(usize, Rows)> {
        let mut columns = 1;
        for (extent, stride) in self.axes().into_iter().rev().filter(|&(extent, _)| extent != 1) {
            if stride != columns {
                break;
            }
            columns *= extent;
        }
        Some((columns, self.matrix(columns)?))
    }

    /// How its images lie in their place, if that is as kernels read and write them.
    pub(super) fn find_images(&self) -> Option<Images> {
        match self.order {
            Order::RowMajor if self.is_dense() => Some(Images::Planes),
            Order::RowMajor => {
                let axes = by_pixels(&self.axes());
                let (extents, strides) = (axes.map(|axis| axis.0), axes.map(|axis| axis.1));
                let layout = Layout::new(self.layout.start(), &extents, &strides);
                Nhwc::of(&layout, [0; 4]).filter(|_| self.lying.rank() == 4).map(Images::Pixels)
            }
            Order::Pixels { halo, .. } => Nhwc::of(&self.layout, halo).map(Images::Pixels),
        }
    }

    /// How its images lie, if it is images.
    pub(super) fn images(&self) -> Images {
        self.find_images().expect("invariant: kernels of images find them")
    }

    /// The bytes that its place must have.
    pub(super) fn room(&self) -> usize {
        self.room
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

/// The axes of an image of up to four, as its pixels lie one after the other.
fn by_pixels(axes: &[(usize, usize)]) -> [(usize, usize); 4] {
    let mut image = [(1, 0); 4];
    image[4 - axes.len()..].copy_from_slice(axes);
    Order::PIXEL_AXES.map(|axis| image[axis])
}

/// The extents of an array of up to four axes whose pixels lie one after the other.
fn pixel_extents(shape: Shape) -> Shape {
    let mut image = [1; 4];
    image[4 - shape.rank()..].copy_from_slice(shape.dims());
    Shape::new(&Order::PIXEL_AXES.map(|axis| image[axis])).expect("invariant: as many elements as before")
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

/// Its place, and of a part where that begins, and how far its rows or pixels are apart.
impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = self.order.window(self.ty).start;
        let alone = self.room == self.order.room(self.ty) && self.layout.start() == own;
        let (place, start) = (self.place, self.layout.start());
        match (self.order, self.rows()) {
            _ if alone => write!(f, "{place}"),
            _ if self.is_dense() => write!(f, "{place}[{start}]"),
            (Order::Pixels { .. }, _) => write!(f, "{place}[{start} by {}]", self.layout.strides()[2]),
            (_, Some((_, Rows { pitch, .. }))) => write!(f, "{place}[{start} by {pitch}]"),
            _ => write!(f, "{place}[{start}..]"),
        }
    }
}
