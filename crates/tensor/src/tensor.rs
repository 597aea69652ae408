use crate::{AlignedBytes, Bytes, DType, Shape};
use half::{bf16, f16, slice::HalfFloatSliceExt};
use std::fmt;

/// A typed array with shared, immutable contents in row-major, little-endian order.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Shape,
    bytes: Bytes,
}

/// Why bytes or values do not make a tensor. The caller's or the file's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The bytes are not `shape` elements of `dtype`.
    #[error("{dtype} {shape} takes {want} bytes, got {got}")]
    Length {
        /// Element type asked for.
        dtype: DType,
        /// Shape asked for.
        shape: Shape,
        /// Bytes that they take.
        want: usize,
        /// Bytes that were given.
        got: usize,
    },
    /// The number of values does not fill the shape.
    #[error("shape {shape} holds {} values, got {got}", shape.count())]
    Count {
        /// Shape asked for.
        shape: Shape,
        /// Values given.
        got: usize,
    },
}

/// A Rust type that a tensor can be made of.
pub trait Element: bytemuck::Pod {
    /// The tensor element type of the same representation.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($ty:ty => $dtype:ident),*) => { $(impl Element for $ty { const DTYPE: DType = DType::$dtype; })* };
}
elements!(f16 => F16, bf16 => Bf16, f32 => F32, f64 => F64, u8 => U8, i8 => I8, i32 => I32, i64 => I64);

impl Tensor {
    /// A tensor over existing bytes, which need no particular alignment.
    pub fn new(dtype: DType, shape: Shape, bytes: Bytes) -> Result<Tensor, TensorError> {
        let want = shape.count() * dtype.size();
        if bytes.len() != want {
            return Err(TensorError::Length { dtype, shape, want, got: bytes.len() });
        }
        Ok(Tensor { dtype, shape, bytes })
    }

    /// A tensor with a copy of `values`.
    pub fn from_slice<T: Element>(shape: Shape, values: &[T]) -> Result<Tensor, TensorError> {
        if values.len() != shape.count() {
            return Err(TensorError::Count { shape, got: values.len() });
        }
        let mut bytes = AlignedBytes::zeroed(size_of_val(values));
        bytes.copy_from_slice(bytemuck::cast_slice(values));
        Ok(Tensor { dtype: T::DTYPE, shape, bytes: Bytes::new(bytes) })
    }

    /// A tensor with a copy of `values`, which fill `shape`, or `None` where there is no memory for it.
    pub fn try_from_slice<T: Element>(shape: Shape, values: &[T]) -> Option<Result<Tensor, TensorError>> {
        let mut bytes = AlignedBytes::try_zeroed(size_of_val(values))?;
        bytes.copy_from_slice(bytemuck::cast_slice(values));
        Some(Tensor::new(T::DTYPE, shape, Bytes::new(bytes)))
    }

    /// A scalar.
    pub fn scalar<T: Element>(value: T) -> Tensor {
        Tensor::from_slice(Shape::SCALAR, &[value]).expect("invariant: a scalar holds one value")
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The elements' bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The same elements in another shape of equal count.
    pub fn reshape(&self, shape: Shape) -> Result<Tensor, TensorError> {
        if shape.count() != self.shape.count() {
            return Err(TensorError::Count { shape, got: self.shape.count() });
        }
        Ok(Tensor { shape, ..self.clone() })
    }

    /// The elements as a slice, where the type is `T` and the bytes are aligned for it.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        if self.dtype != T::DTYPE {
            return None;
        }
        bytemuck::try_cast_slice(&self.bytes).ok()
    }

    /// Converts elements `start..start + out.len()` to single precision.
    ///
    /// # Panics
    /// If the range does not lie within the tensor.
    pub fn read_f32(&self, start: usize, out: &mut [f32]) {
        let size = self.dtype.size();
        let bytes = &self.bytes[start * size..(start + out.len()) * size];
        match self.dtype {
            DType::F16 => widen(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            DType::Bf16 => widen(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            DType::F32 => widen(bytes, out, f32::from_le_bytes),
            DType::F64 => widen(bytes, out, |b| f64::from_le_bytes(b) as f32),
            DType::U8 | DType::Bool => widen(bytes, out, |[b]| f32::from(b)),
            DType::I8 => widen(bytes, out, |b| f32::from(i8::from_le_bytes(b))),
            DType::I32 => widen(bytes, out, |b| i32::from_le_bytes(b) as f32),
            DType::I64 => widen(bytes, out, |b| i64::from_le_bytes(b) as f32),
        }
    }

    /// Converts elements `start..start + out.len()` to half precision, rounding once to nearest even.
    ///
    /// # Panics
    /// If the range does not lie within the tensor.
    pub fn read_f16(&self, start: usize, out: &mut [f16]) {
        let range = start..start + out.len();
        match self.dtype {
            DType::F16 => {
                let bytes = &self.bytes[range.start * 2..range.end * 2];
                widen(bytes, out, f16::from_le_bytes);
            }
            DType::F64 => {
                let bytes = &self.bytes[range.start * 8..range.end * 8];
                widen(bytes, out, |b| round_f16(f64::from_le_bytes(b)));
            }
            DType::F32 if let Some(values) = self.as_slice::<f32>() => {
                out.convert_from_f32_slice(&values[range])
            }
            // The remaining types convert to single precision exactly, or are integers beyond 2^24
            // that overflow half precision anyway.
            _ => {
                let mut chunk = [0.0f32; 1024];
                for (i, out) in out.chunks_mut(chunk.len()).enumerate() {
                    let chunk = &mut chunk[..out.len()];
                    self.read_f32(start + i * 1024, chunk);
                    out.convert_from_f32_slice(chunk);
                }
            }
        }
    }

    /// All elements in single precision.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.shape.count()];
        self.read_f32(0, &mut out);
        out
    }

    /// All elements in half precision.
    pub fn to_f16(&self) -> Vec<f16> {
        let mut out = vec![f16::ZERO; self.shape.count()];
        self.read_f16(0, &mut out);
        out
    }

    /// The index of the first element that is NaN, infinite, or rounds to infinity in half precision.
    pub fn first_beyond_half(&self) -> Option<usize> {
        if !self.dtype.is_float() {
            return None;
        }
        if let Some(values) = self.as_slice::<f32>() {
            let parts = values.chunks(4096).enumerate();
            return parts.filter_map(|(i, part)| Some(i * 4096 + beyond_half(part)?)).next();
        }
        if let Some(values) = self.as_slice::<f16>() {
            let parts = values.chunks(4096).enumerate();
            return parts.filter_map(|(i, part)| Some(i * 4096 + infinite(part)?)).next();
        }
        let mut chunk = [0.0f32; 4096];
        let count = self.shape.count();
        for start in (0..count).step_by(chunk.len()) {
            let chunk = &mut chunk[..(count - start).min(4096)];
            self.read_f32(start, chunk);
            if let Some(at) = beyond_half(chunk) {
                return Some(start + at);
            }
        }
        None
    }
}

/// The index of the first value that half precision cannot hold.
fn beyond_half(values: &[f32]) -> Option<usize> {
    // As integers, magnitudes order like the numbers, with NaN above all; so the scan vectorises.
    let magnitude = |x: &f32| x.to_bits() & 0x7FFF_FFFF;
    let greatest = values.iter().map(magnitude).max()?;
    if greatest < F16_OVERFLOW.to_bits() {
        return None;
    }
    values.iter().position(|x| magnitude(x) >= F16_OVERFLOW.to_bits())
}

/// The index of the first value that is infinite or NaN.
fn infinite(values: &[f16]) -> Option<usize> {
    let magnitude = |x: &f16| x.to_bits() & 0x7FFF;
    let infinity = f16::INFINITY.to_bits();
    // As in `beyond_half`.
    let greatest = values.iter().map(magnitude).max()?;
    if greatest < infinity { None } else { values.iter().position(|x| magnitude(x) >= infinity) }
}

/// The least magnitude that rounds to infinity in half precision.
const F16_OVERFLOW: f32 = 65520.0;

/// The half-precision value nearest to `value`, ties to even.
///
/// `half::f16::from_f64` rounds twice on processors that convert through single precision. Rounding to
/// odd on the way (Boldo and Melquiond, 2008) makes the second rounding the only one that counts.
pub fn round_f16(value: f64) -> f16 {
    let single = value as f32;
    if f64::from(single) == value || !single.is_finite() {
        return f16::from_f32(single);
    }
    let towards_zero = single.to_bits() - u32::from(f64::from(single).abs() > value.abs());
    f16::from_f32(f32::from_bits(towards_zero | 1))
}

fn widen<const N: usize, T>(bytes: &[u8], out: &mut [T], read: impl Fn([u8; N]) -> T) {
    let (chunks, _) = bytes.as_chunks::<N>();
    for (out, chunk) in out.iter_mut().zip(chunks) {
        *out = read(*chunk);
    }
}

impl PartialEq for Tensor {
    fn eq(&self, other: &Tensor) -> bool {
        self.dtype == other.dtype
            && self.shape == other.shape
            && (self.bytes.same(&other.bytes) || *self.bytes == *other.bytes)
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {})", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misaligned_bytes_read_the_same() {
        let mut raw = vec![0u8];
        raw.extend([1.5f32, -2.0, 1e-3].iter().flat_map(|v| v.to_le_bytes()));
        let bytes = Bytes::new(raw).slice(1..13).unwrap();
        let tensor = Tensor::new(DType::F32, Shape::new(&[3]).unwrap(), bytes).unwrap();
        assert_eq!(tensor.to_f32(), [1.5, -2.0, 1e-3]);
        assert_eq!(tensor.to_f16(), [1.5, -2.0, 1e-3].map(f16::from_f32));
    }

    #[test]
    fn doubles_round_once_to_half() {
        // Through single precision this value would round twice, to 1.0.
        let value = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
        let got = Tensor::scalar(value).to_f16()[0];
        assert_eq!(got.to_f64(), 1.0 + 2f64.powi(-10));
    }

    #[test]
    fn the_first_value_that_half_precision_cannot_hold_is_found() {
        let mut values = vec![65519.0f32; 5000];
        let shape = Shape::new(&[5000]).unwrap();
        assert_eq!(Tensor::from_slice(shape, &values).unwrap().first_beyond_half(), None);
        for beyond in [f32::NAN, f32::NEG_INFINITY, -65520.0] {
            values[4321] = beyond;
            assert_eq!(Tensor::from_slice(shape, &values).unwrap().first_beyond_half(), Some(4321));
        }
        let mut halves = vec![f16::MIN; 5000];
        assert_eq!(Tensor::from_slice(shape, &halves).unwrap().first_beyond_half(), None);
        for beyond in [f16::NAN, f16::INFINITY, f16::NEG_INFINITY] {
            halves[4999] = beyond;
            assert_eq!(Tensor::from_slice(shape, &halves).unwrap().first_beyond_half(), Some(4999));
        }
    }

    #[test]
    fn a_wrong_length_is_an_error() {
        let e = Tensor::new(DType::F32, Shape::new(&[2]).unwrap(), Bytes::new(vec![0; 7])).unwrap_err();
        assert_eq!(e.to_string(), "fp32 [2] takes 8 bytes, got 7");
    }
}
