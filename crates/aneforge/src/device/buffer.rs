//! Memory of a device that ports are bound to.

mod locked;

pub(crate) use locked::{Bytes, BytesMut};

use crate::device::memory::Memory;
use crate::ir::types::TensorType;
use aneforge_kernels::Layout;
use aneforge_tensor::{AlignedBytes, DType, f16, round_f16};
use half::slice::HalfFloatSliceExt;
use std::any::Any;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Values for one input.
#[derive(Clone, Copy, Debug)]
pub enum Feed<'a> {
    /// Half precision, as it is.
    F16(&'a [f16]),
    /// Single precision, rounded.
    F32(&'a [f32]),
    /// Double precision, rounded once.
    F64(&'a [f64]),
    /// Bytes: as they are for an image port, converted for a half-precision one.
    U8(&'a [u8]),
}

impl Feed<'_> {
    /// How many values there are.
    pub fn len(&self) -> usize {
        match self {
            Feed::F16(v) => v.len(),
            Feed::F32(v) => v.len(),
            Feed::F64(v) => v.len(),
            Feed::U8(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their element type.
    pub fn dtype(&self) -> DType {
        match self {
            Feed::F16(_) => DType::F16,
            Feed::F32(_) => DType::F32,
            Feed::F64(_) => DType::F64,
            Feed::U8(_) => DType::U8,
        }
    }

    /// The values from `start` on, as half precision.
    fn halves(&self, start: usize, to: &mut [f16]) {
        fn each<T: Copy>(to: &mut [f16], from: &[T], f: impl Fn(T) -> f16) {
            to.iter_mut().zip(from).for_each(|(to, &from)| *to = f(from));
        }
        let range = start..start + to.len();
        match self {
            Feed::F16(values) => to.copy_from_slice(&values[range]),
            Feed::F32(values) => to.convert_from_f32_slice(&values[range]),
            Feed::F64(values) => each(to, &values[range], round_f16),
            Feed::U8(values) => each(to, &values[range], |v| f16::from_f32(f32::from(v))),
        }
    }

    /// The finite values from `start` on of which `halves` made infinities.
    fn beyond(&self, start: usize, halves: &[f16]) -> Option<Beyond> {
        let value = |at: usize| match self {
            Feed::F32(values) => f64::from(values[at]),
            Feed::F64(values) => values[at],
            Feed::F16(_) | Feed::U8(_) => f64::NAN,
        };
        // Without a branch, so that it vectorises: nearly always there is none.
        let infinite = |half: &f16| u16::from(half.to_bits() & 0x7fff == 0x7c00);
        if matches!(self, Feed::F16(_) | Feed::U8(_))
            || halves.iter().fold(0, |any, h| any | infinite(h)) == 0
        {
            return None;
        }
        let lost = halves.iter().enumerate().filter(|(_, half)| half.is_infinite());
        let lost = lost.map(|(at, _)| value(start + at)).filter(|value| value.is_finite());
        lost.map(|largest| Beyond { values: 1, largest }).reduce(Beyond::and)
    }
}

/// Values that are converted at once, and looked at while they are in a near cache.
const NEAR: usize = 4096;

/// Values between two questions whether to go on: at most some ten milliseconds.
const PIECE: usize = 1 << 18;

/// Finite values of a feed that half precision makes infinities of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beyond {
    /// How many.
    pub values: usize,
    /// The one of the greatest magnitude.
    pub largest: f64,
}

impl Beyond {
    /// What both know of.
    fn and(self, other: Beyond) -> Beyond {
        let largest = if other.largest.abs() > self.largest.abs() { other.largest } else { self.largest };
        Beyond { values: self.values + other.values, largest }
    }
}

/// Values that a buffer does not take. The caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// Too many, or too few.
    #[error("takes {want} values, got {got}")]
    Count {
        /// How many it takes.
        want: usize,
        /// How many came.
        got: usize,
    },
    /// Of another element type.
    #[error("holds {want}, got {got}")]
    DType {
        /// What it holds.
        want: DType,
        /// What came.
        got: DType,
    },
    /// The caller wanted no more of it to be written.
    #[error("was not written to the end")]
    Stopped,
}

/// What a device does to half-precision values that are written into its memory.
pub type Clean = Arc<dyn Fn(&mut [f16]) + Send + Sync>;

/// Memory of a device that holds one tensor. Clones are the same memory, which sessions, segments and ports may share.
///
/// Whoever runs a program holds the buffers of its ports meanwhile: writes wait until it is done. So do runs until nobody
/// holds [`Values`] or [`ValuesMut`]: a thread that holds them and runs a program on the buffer waits for itself.
#[derive(Clone)]
pub struct Buffer(Arc<Held>);

struct Held {
    number: u64,
    ty: TensorType,
    layout: Layout,
    clean: Option<Clean>,
    /// Whether somebody may write into it without being noticed.
    exposed: AtomicBool,
    /// Whether its memory is this library's own, so that another buffer may have it.
    own: bool,
    /// What the device that has made its memory knows that by.
    known: Option<Arc<dyn Any + Send + Sync>>,
    memory: RwLock<Box<dyn Memory>>,
}

static NEXT: AtomicU64 = AtomicU64::new(0);

impl Buffer {
    /// A buffer over `memory`, in which the elements lie as `layout` says. Half-precision values that are written into it
    /// are cleaned by `clean`.
    ///
    /// # Panics
    /// If the layout is of another shape than the type, an element does not lie in the memory, or the memory is not one of
    /// whole elements at an address that they can have.
    pub fn new(
        ty: TensorType,
        layout: Layout,
        memory: impl Memory + 'static,
        clean: Option<Clean>,
    ) -> Buffer {
        Buffer::over(ty, layout, Box::new(memory), clean, false)
    }

    /// A buffer without gaps over memory of this library's own, which moves from buffer to buffer where that saves a copy.
    pub(crate) fn own(ty: TensorType, memory: AlignedBytes, clean: Option<Clean>) -> Buffer {
        Buffer::over(ty, Layout::row_major(ty.shape.dims()), Box::new(memory), clean, true)
    }

    fn over(
        ty: TensorType,
        layout: Layout,
        memory: Box<dyn Memory>,
        clean: Option<Clean>,
        own: bool,
    ) -> Buffer {
        assert_eq!(layout.extents(), ty.shape.dims(), "buffer: the layout's shape");
        let end = layout.end().and_then(|end| end.checked_mul(ty.dtype.size()));
        assert!(end.is_some_and(|end| end <= memory.bytes().len()), "buffer: {layout:?} in its memory");
        let (address, size) = (memory.bytes().as_ptr().addr(), ty.dtype.size());
        let whole = memory.bytes().len().is_multiple_of(size) && address.is_multiple_of(size);
        assert!(whole, "buffer: memory for elements of {size} bytes");
        let (number, exposed) = (NEXT.fetch_add(1, Ordering::Relaxed), AtomicBool::new(false));
        let known = memory.known_as();
        let memory = RwLock::new(memory);
        Buffer(Arc::new(Held { number, ty, layout, clean, exposed, own, known, memory }))
    }

    /// Whether another buffer may have its memory, as long as it is locked.
    pub(crate) fn moves(&self) -> bool {
        self.0.own && !self.0.exposed.load(Ordering::Acquire)
    }

    /// Takes over what `other`, a buffer of as many bytes, holds, which then holds anything. How many bytes that copied: none where
    /// the two can exchange their memory.
    pub(crate) fn take_over(&self, other: &Buffer) -> usize {
        if self.number() == other.number() {
            return 0;
        }
        let (mut to, mut from);
        // In the order in which programs lock.
        if self.number() < other.number() {
            to = self.lock_mut();
            from = other.lock_mut();
        } else {
            from = other.lock_mut();
            to = self.lock_mut();
        }
        if self.moves() && other.moves() {
            std::mem::swap(&mut *to.0, &mut *from.0);
            return 0;
        }
        let bytes = self.0.ty.bytes();
        to[..bytes].copy_from_slice(&from[..bytes]);
        bytes
    }

    /// What it holds.
    pub fn ty(&self) -> TensorType {
        self.0.ty
    }

    /// Where its elements lie.
    pub fn layout(&self) -> &Layout {
        &self.0.layout
    }

    /// A number that no other buffer has.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// Whether all that it holds was cleaned as it was written.
    pub fn is_clean(&self) -> bool {
        self.0.clean.is_some() && !self.0.exposed.load(Ordering::Acquire)
    }

    /// Writes all its values, converted and rounded once, and says which finite ones became infinities.
    pub fn write(&self, values: Feed<'_>) -> Result<Option<Beyond>, FeedError> {
        self.write_while(values, &mut || true)
    }

    /// The same, as long as `go_on` says so, which is asked every few milliseconds: after that it holds values before and
    /// after.
    pub fn write_while(
        &self,
        values: Feed<'_>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Beyond>, FeedError> {
        let Held { ty, layout, clean, .. } = &*self.0;
        let (want, got) = (ty.shape.count(), values.len());
        if want != got {
            return Err(FeedError::Count { want, got });
        }
        let mut memory = self.lock_mut();
        let mut beyond: Option<Beyond> = None;
        let whole = match (ty.dtype, values) {
            (DType::U8, Feed::U8(values)) => pieces(layout, PIECE, go_on, &mut |at, start, count| {
                memory[start..start + count].copy_from_slice(&values[at..at + count]);
            }),
            (DType::F16, values) => {
                let memory: &mut [f16] = bytemuck::cast_slice_mut(&mut memory);
                pieces(layout, NEAR, go_on, &mut |at, start, count| {
                    let near = &mut memory[start..start + count];
                    values.halves(at, near);
                    if let Some(found) = values.beyond(at, near) {
                        beyond = Some(beyond.map_or(found, |known| known.and(found)));
                    }
                    clean.iter().for_each(|clean| clean(near));
                })
            }
            (want, values) => return Err(FeedError::DType { want, got: values.dtype() }),
        };
        if whole { Ok(beyond) } else { Err(FeedError::Stopped) }
    }

    /// Why these values would not be kept as they are but for rounding, if they would not: finite ones become infinite, or NaN is
    /// made something else.
    pub fn refuses(&self, values: Feed<'_>) -> Option<String> {
        let numbers = |at: usize| match values {
            Feed::F16(v) => v[at].to_f64(),
            Feed::F32(v) => f64::from(v[at]),
            Feed::F64(v) => v[at],
            Feed::U8(v) => f64::from(v[at]),
        };
        let beyond = |v: f64| v.is_finite() && round_f16(v).is_infinite();
        let at = (0..values.len()).find(|&at| {
            let value = numbers(at);
            beyond(value) || (value.is_nan() && self.0.clean.is_some())
        })?;
        let value = numbers(at);
        Some(match value.is_nan() {
            true => {
                format!("would hold NaN at element {at}, which engines do not keep; mend what it comes from")
            }
            false => {
                format!(
                    "would hold {value:e} at element {at}, and half precision ends at 65504; scale it down"
                )
            }
        })
    }

    /// Copies its values in single precision.
    ///
    /// # Panics
    /// If it does not hold half precision, or `out` has another length.
    pub fn read(&self, out: &mut [f32]) {
        self.read_while(out, &mut || true);
    }

    /// The same, as long as `go_on` says so, which is asked every few milliseconds; whether it did to the end.
    ///
    /// # Panics
    /// If it does not hold half precision, or `out` has another length.
    pub fn read_while(&self, out: &mut [f32], go_on: &mut dyn FnMut() -> bool) -> bool {
        let memory = self.lock();
        let memory = halves(self.0.ty, &memory);
        assert_eq!(out.len(), self.0.ty.shape.count(), "buffer: values to read");
        pieces(&self.0.layout, PIECE, go_on, &mut |at, start, count| {
            memory[start..start + count].convert_to_f32_slice(&mut out[at..at + count]);
        })
    }

    /// Copies its half-precision values.
    pub(crate) fn read_halves(&self, out: &mut [f16]) {
        self.halves_in(&self.lock(), out);
    }

    /// The same of its bytes, which are locked already.
    pub(crate) fn halves_in(&self, bytes: &[u8], out: &mut [f16]) {
        let memory = halves(self.0.ty, bytes);
        pieces(&self.0.layout, PIECE, &mut || true, &mut |at, start, count| {
            out[at..at + count].copy_from_slice(&memory[start..start + count]);
        });
    }

    /// Writes clean half-precision values into its bytes, which are locked already.
    pub(crate) fn put_halves_in(&self, bytes: &mut [u8], values: &[f16]) {
        let memory: &mut [f16] = bytemuck::cast_slice_mut(bytes);
        pieces(&self.0.layout, PIECE, &mut || true, &mut |at, start, count| {
            memory[start..start + count].copy_from_slice(&values[at..at + count]);
        });
    }

    /// Its half-precision values where they lie, which is in their order; `None` if it holds other values, or with gaps.
    pub fn values(&self) -> Option<Values<'_>> {
        let Held { ty, layout, .. } = &*self.0;
        let plain = ty.dtype == DType::F16 && layout.is_row_major();
        plain.then(|| Values { guard: self.lock(), count: ty.shape.count() })
    }

    /// The same, to be written; they are cleaned when this is dropped.
    pub fn values_mut(&self) -> Option<ValuesMut<'_>> {
        let Held { ty, layout, clean, .. } = &*self.0;
        let plain = ty.dtype == DType::F16 && layout.is_row_major();
        plain.then(|| ValuesMut { guard: self.lock_mut(), count: ty.shape.count(), clean: clean.as_ref() })
    }

    /// Where its first byte lies, for arrays of other languages. From now on devices clean what they read from it in every
    /// run. The memory lives as long as a clone of this.
    pub fn expose(&self) -> *mut u8 {
        self.0.exposed.store(true, Ordering::Release);
        self.lock_mut().as_mut_ptr()
    }

    /// What the device that has made its memory knows that by.
    pub(crate) fn known_as<T: 'static>(&self) -> Option<&T> {
        self.0.known.as_ref()?.downcast_ref()
    }

    pub(crate) fn lock(&self) -> Bytes<'_> {
        Bytes(self.0.memory.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn lock_mut(&self) -> BytesMut<'_> {
        BytesMut(self.0.memory.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({}, {})", self.0.number, self.0.ty)
    }
}

/// Calls `each` with the parts of a layout's runs, of at most `most` elements each: their place, where they lie, and how
/// many they are. Before every [`PIECE`] of elements `go_on` is asked; whether it agreed each time.
fn pieces(
    layout: &Layout,
    most: usize,
    go_on: &mut dyn FnMut() -> bool,
    each: &mut dyn FnMut(usize, usize, usize),
) -> bool {
    let mut since = 0;
    for (at, start, count) in layout.runs() {
        for done in (0..count).step_by(most) {
            if since >= PIECE {
                since = 0;
                if !go_on() {
                    return false;
                }
            }
            let part = most.min(count - done);
            each(at + done, start + done, part);
            since += part;
        }
    }
    true
}

fn halves(ty: TensorType, bytes: &[u8]) -> &[f16] {
    assert!(ty.dtype == DType::F16, "buffer: holds {}, not half precision", ty.dtype);
    bytemuck::cast_slice(bytes)
}

/// A buffer's values where they lie. No program runs on the buffer while this is held.
pub struct Values<'a> {
    guard: Bytes<'a>,
    count: usize,
}

impl Deref for Values<'_> {
    type Target = [f16];
    fn deref(&self) -> &[f16] {
        bytemuck::cast_slice(&self.guard[..self.count * size_of::<f16>()])
    }
}

/// A buffer's values, to be written where they lie. No program runs on the buffer while this is held.
pub struct ValuesMut<'a> {
    guard: BytesMut<'a>,
    count: usize,
    clean: Option<&'a Clean>,
}

impl Deref for ValuesMut<'_> {
    type Target = [f16];
    fn deref(&self) -> &[f16] {
        bytemuck::cast_slice(&self.guard[..self.count * size_of::<f16>()])
    }
}

impl DerefMut for ValuesMut<'_> {
    fn deref_mut(&mut self) -> &mut [f16] {
        bytemuck::cast_slice_mut(&mut self.guard[..self.count * size_of::<f16>()])
    }
}

impl Drop for ValuesMut<'_> {
    fn drop(&mut self) {
        if let Some(clean) = self.clean {
            clean(self);
        }
    }
}
