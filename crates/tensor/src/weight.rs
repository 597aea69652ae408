//! What a program's weights are: numbers in half precision, which may be stored in fewer bytes.

mod encoded;
mod error;

pub use encoded::{BlockwiseWeight, Int8Weight, Lut4Weight, SparseWeight};
pub use error::WeightError;

use crate::{DType, Element, Shape, Tensor};
use half::f16;
use std::fmt;

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encoding {
    /// Every value in full.
    Dense,
    /// A signed byte per value, and a scale for each entry of the leading axis.
    Int8,
    /// Four bits per value, which choose one of 16.
    Lut4,
    /// A bit per value, and the values whose bit is set; the others are zero.
    Sparse,
    /// A signed byte per value, and a scale for each of the equal blocks of a row.
    Blockwise,
}

impl Encoding {
    /// Every encoding.
    pub const ALL: [Encoding; 5] =
        [Encoding::Dense, Encoding::Int8, Encoding::Lut4, Encoding::Sparse, Encoding::Blockwise];

    /// Its name in texts and files.
    pub const fn name(self) -> &'static str {
        match self {
            Encoding::Dense => "dense",
            Encoding::Int8 => "int8",
            Encoding::Lut4 => "lut4",
            Encoding::Sparse => "sparse",
            Encoding::Blockwise => "blockwise",
        }
    }

    /// The encoding with this name.
    pub fn from_name(name: &str) -> Option<Encoding> {
        Encoding::ALL.into_iter().find(|encoding| encoding.name() == name)
    }

    /// What is stored, in this order: names, and element types where they are fixed.
    pub const fn parts(self) -> &'static [(&'static str, Option<DType>)] {
        const CODES: (&str, Option<DType>) = ("codes", Some(DType::I8));
        const SCALES: (&str, Option<DType>) = ("scales", Some(DType::F16));
        match self {
            Encoding::Dense => &[("values", None)],
            Encoding::Int8 | Encoding::Blockwise => &[CODES, SCALES],
            Encoding::Lut4 => &[("indices", Some(DType::U8)), ("table", Some(DType::F16))],
            Encoding::Sparse => &[("mask", Some(DType::U8)), ("values", Some(DType::F16))],
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A weight: an array that a program holds, in full or encoded. An encoded one stands for exact half-precision values,
/// which every reader of it agrees on.
///
/// ```
/// use aneforge_tensor::{Int8Weight, Shape, Tensor, Weight, f16};
/// let codes = Tensor::from_slice(Shape::new(&[2, 3])?, &[1i8, 2, 3, -4, -5, -6])?;
/// let scales = Tensor::from_slice(Shape::new(&[2])?, &[f16::from_f32(0.5), f16::ONE])?;
/// let weight = Weight::from(Int8Weight::new(codes, scales)?);
/// assert_eq!(weight.to_f32(), [0.5, 1.0, 1.5, -4.0, -5.0, -6.0]);
/// assert_eq!(weight.stored_bytes(), 6 + 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Weight {
    /// In full, in the element type it came in.
    Dense(Tensor),
    /// As bytes with a scale for each entry of the leading axis.
    Int8(Int8Weight),
    /// As places in a table of 16 values.
    Lut4(Lut4Weight),
    /// As the values that are not zero.
    Sparse(SparseWeight),
    /// As bytes with a scale for each block of a row.
    Blockwise(BlockwiseWeight),
}

/// Where a weight's bytes lie and as what they are read. Equal for weights that share their bytes, as long as one of
/// them lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    encoding: Encoding,
    dtype: DType,
    shape: Shape,
    /// Address and length of the parts.
    parts: [(usize, usize); 2],
}

impl Weight {
    /// A weight from what [`parts`](Weight::parts) gave, each in any shape of as many elements.
    pub fn assemble(encoding: Encoding, shape: Shape, parts: Vec<Tensor>) -> Result<Weight, WeightError> {
        let want = encoding.parts().len();
        let missing = WeightError::Parts { encoding, want, got: parts.len() };
        if let (Encoding::Dense, [values]) = (encoding, &parts[..]) {
            let shapes = [shape, values.shape()];
            let fails = |_| WeightError::Elements { encoding, part: "values", shapes: Box::new(shapes) };
            return values.reshape(shape).map(Weight::Dense).map_err(fails);
        }
        let Ok([first, second]) = <[Tensor; 2]>::try_from(parts) else { return Err(missing) };
        Ok(match encoding {
            Encoding::Dense => return Err(missing),
            Encoding::Int8 => {
                Int8Weight::new(error::shaped(encoding, "codes", &first, shape)?, second)?.into()
            }
            Encoding::Lut4 => Lut4Weight::new(shape, first, second)?.into(),
            Encoding::Sparse => SparseWeight::new(shape, first, second)?.into(),
            Encoding::Blockwise => {
                let codes = error::shaped(encoding, "codes", &first, shape)?;
                BlockwiseWeight::new(codes, encoded::by_row(&second, shape))?.into()
            }
        })
    }

    /// What is stored, in the order of [`Encoding::parts`].
    pub fn parts(&self) -> Vec<&Tensor> {
        match self {
            Weight::Dense(tensor) => vec![tensor],
            Weight::Int8(weight) => vec![weight.codes(), weight.scales()],
            Weight::Lut4(weight) => vec![weight.indices(), weight.table()],
            Weight::Sparse(weight) => vec![weight.mask(), weight.values()],
            Weight::Blockwise(weight) => vec![weight.codes(), weight.scales()],
        }
    }

    /// How it is stored.
    pub fn encoding(&self) -> Encoding {
        match self {
            Weight::Dense(_) => Encoding::Dense,
            Weight::Int8(_) => Encoding::Int8,
            Weight::Lut4(_) => Encoding::Lut4,
            Weight::Sparse(_) => Encoding::Sparse,
            Weight::Blockwise(_) => Encoding::Blockwise,
        }
    }

    /// The array, where it is stored in full.
    pub fn dense(&self) -> Option<&Tensor> {
        match self {
            Weight::Dense(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// The extents.
    pub fn shape(&self) -> Shape {
        match self {
            Weight::Dense(tensor) => tensor.shape(),
            Weight::Int8(weight) => weight.codes().shape(),
            Weight::Lut4(weight) => weight.shape(),
            Weight::Sparse(weight) => weight.shape(),
            Weight::Blockwise(weight) => weight.codes().shape(),
        }
    }

    /// The type of the values: half precision where they are encoded.
    pub fn dtype(&self) -> DType {
        self.dense().map_or(DType::F16, Tensor::dtype)
    }

    /// Bytes that it takes in a weight file, where dense ones are in half precision.
    pub fn stored_bytes(&self) -> usize {
        match self {
            Weight::Dense(tensor) => tensor.shape().count() * DType::F16.size(),
            encoded => encoded.parts().iter().map(|part| part.bytes().len()).sum(),
        }
    }

    /// See [`Identity`].
    pub fn identity(&self) -> Identity {
        let mut parts = [(0, 0); 2];
        for (place, part) in parts.iter_mut().zip(self.parts()) {
            *place = (part.bytes().as_ptr().addr(), part.bytes().len());
        }
        Identity { encoding: self.encoding(), dtype: self.dtype(), shape: self.shape(), parts }
    }

    /// The elements as a slice, where they are stored in full, as `T`, and aligned for it.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        self.dense()?.as_slice()
    }

    /// Elements `start..start + out.len()` in half precision, each rounded once.
    ///
    /// # Panics
    /// If the range does not lie within the weight.
    pub fn read_f16(&self, start: usize, out: &mut [f16]) {
        match self {
            Weight::Dense(tensor) => tensor.read_f16(start, out),
            Weight::Int8(weight) => weight.read(start, out),
            Weight::Lut4(weight) => weight.read(start, out),
            Weight::Sparse(weight) => weight.read(start, out),
            Weight::Blockwise(weight) => weight.read(start, out),
        }
    }

    /// Elements `start..start + out.len()` in single precision: not rounded to half where they are stored in full.
    ///
    /// # Panics
    /// If the range does not lie within the weight.
    pub fn read_f32(&self, start: usize, out: &mut [f32]) {
        if let Weight::Dense(tensor) = self {
            return tensor.read_f32(start, out);
        }
        let mut halves = [f16::ZERO; 1024];
        for (at, out) in out.chunks_mut(halves.len()).enumerate() {
            let halves = &mut halves[..out.len()];
            self.read_f16(start + at * 1024, halves);
            out.iter_mut().zip(halves).for_each(|(out, half)| *out = half.to_f32());
        }
    }

    /// All elements in half precision.
    pub fn to_f16(&self) -> Vec<f16> {
        let mut out = vec![f16::ZERO; self.shape().count()];
        self.read_f16(0, &mut out);
        out
    }

    /// All elements in single precision.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.shape().count()];
        self.read_f32(0, &mut out);
        out
    }

    /// The array in full: itself where it is dense, else decoded.
    pub fn to_dense(&self) -> Tensor {
        match self {
            Weight::Dense(tensor) => tensor.clone(),
            encoded => Tensor::from_slice(encoded.shape(), &encoded.to_f16())
                .expect("invariant: one value per element"),
        }
    }

    /// Whether the parts of an encoded weight tell, without decoding it, that its values are finite.
    fn parts_are_small(&self) -> bool {
        // The largest code is -128, and 65520 the least magnitude that rounds to infinity.
        let small = |scales: &Tensor| scales.to_f32().iter().all(|scale| scale.abs() * 128.0 < 65520.0);
        match self {
            Weight::Dense(_) => false,
            Weight::Lut4(weight) => weight.table().first_beyond_half().is_none(),
            Weight::Sparse(weight) => weight.values().first_beyond_half().is_none(),
            Weight::Int8(weight) => small(weight.scales()),
            Weight::Blockwise(weight) => small(weight.scales()),
        }
    }

    /// The index of the first element that is NaN, infinite, or rounds to infinity in half precision.
    pub fn first_beyond_half(&self) -> Option<usize> {
        if let Weight::Dense(tensor) = self {
            return tensor.first_beyond_half();
        }
        if self.parts_are_small() {
            return None;
        }
        let (count, mut chunk) = (self.shape().count(), [f16::ZERO; 4096]);
        (0..count).step_by(chunk.len()).find_map(|start| {
            let chunk = &mut chunk[..(count - start).min(4096)];
            self.read_f16(start, chunk);
            Some(start + chunk.iter().position(|value| !value.is_finite())?)
        })
    }

    /// The same elements in another shape, encoded as before. An encoding with scales needs its rows to stay what they
    /// are.
    pub fn reshape(&self, shape: Shape) -> Result<Weight, WeightError> {
        let shapes = [self.shape(), shape];
        let fails = || WeightError::Reshape { encoding: self.encoding(), shapes: Box::new(shapes) };
        if shape.count() != self.shape().count() {
            return Err(fails());
        }
        let again = |first: &Tensor, second: &Tensor| {
            Weight::assemble(self.encoding(), shape, vec![first.clone(), second.clone()])
        };
        match self {
            Weight::Dense(tensor) => tensor.reshape(shape).map(Weight::Dense).map_err(|_| fails()),
            Weight::Lut4(weight) if shape.rank() > 0 => again(weight.indices(), weight.table()),
            Weight::Sparse(weight) if shape.rank() > 0 => again(weight.mask(), weight.values()),
            Weight::Int8(weight) if shape.dims().first() == self.shape().dims().first() => {
                again(weight.codes(), weight.scales())
            }
            Weight::Blockwise(_) if shape == self.shape() => Ok(self.clone()),
            _ => Err(fails()),
        }
    }
}

macro_rules! from_encodings {
    ($($of:ty => $variant:ident),*) => {
        $(impl From<$of> for Weight {
            fn from(weight: $of) -> Weight {
                Weight::$variant(weight)
            }
        })*
    };
}
from_encodings!(
    Tensor => Dense, Int8Weight => Int8, Lut4Weight => Lut4, SparseWeight => Sparse, BlockwiseWeight => Blockwise
);

#[cfg(test)]
mod tests;
