//! The encodings, each checked when it is made.

use super::error::shaped;
use super::{Encoding, WeightError};
use crate::{Shape, Tensor};
use half::f16;
use std::sync::Arc;

/// Entries of a table of [`Lut4Weight`].
const ENTRIES: usize = 16;

/// Elements of a sparse weight whose values are counted together.
const GROUP: usize = 4096;

/// Signed bytes, and a half-precision scale for each entry of the leading axis. A value is the code times its scale,
/// rounded once.
#[derive(Clone, Debug, PartialEq)]
pub struct Int8Weight {
    codes: Tensor,
    scales: Tensor,
}

impl Int8Weight {
    /// The weight of `codes`, `int8` with the weight's shape, and as many `fp16` scales as its leading axis has entries.
    pub fn new(codes: Tensor, scales: Tensor) -> Result<Int8Weight, WeightError> {
        let rows = line(leading(Encoding::Int8, codes.shape())?);
        let codes = shaped(Encoding::Int8, "codes", &codes, codes.shape())?;
        Ok(Int8Weight { codes, scales: shaped(Encoding::Int8, "scales", &scales, rows)? })
    }

    /// The codes, in the weight's shape.
    pub fn codes(&self) -> &Tensor {
        &self.codes
    }

    /// The scales, a vector.
    pub fn scales(&self) -> &Tensor {
        &self.scales
    }

    pub(super) fn read(&self, start: usize, out: &mut [f16]) {
        read_scaled(&self.codes, &self.scales, start, out);
    }
}

/// Signed bytes of a matrix, and a half-precision scale for each of the equal blocks that every row divides into. A
/// value is the code times its scale, rounded once.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockwiseWeight {
    codes: Tensor,
    scales: Tensor,
}

impl BlockwiseWeight {
    /// The weight of `codes`, `int8` `[rows, columns]`, and `fp16` scales `[rows, blocks]`.
    pub fn new(codes: Tensor, scales: Tensor) -> Result<BlockwiseWeight, WeightError> {
        let encoding = Encoding::Blockwise;
        let &[rows, columns] = codes.shape().dims() else {
            return Err(WeightError::Axes { encoding, want: "two axes", shape: codes.shape() });
        };
        let blocks = scales.shape().dims().get(1).copied().unwrap_or(1);
        let wanted = Shape::new(&[rows, blocks]).map_err(|_| WeightError::Blocks { columns, blocks })?;
        let codes = shaped(encoding, "codes", &codes, codes.shape())?;
        let scales = shaped(encoding, "scales", &scales, wanted)?;
        if !columns.is_multiple_of(blocks) {
            return Err(WeightError::Blocks { columns, blocks });
        }
        if let Some((at, value)) = halves(&scales).enumerate().find(|(_, v)| v.is_sign_negative()) {
            return Err(WeightError::Negative { at, value: value.to_string() });
        }
        Ok(BlockwiseWeight { codes, scales })
    }

    /// The codes, in the weight's shape.
    pub fn codes(&self) -> &Tensor {
        &self.codes
    }

    /// The scales, `[rows, blocks]`.
    pub fn scales(&self) -> &Tensor {
        &self.scales
    }

    pub(super) fn read(&self, start: usize, out: &mut [f16]) {
        read_scaled(&self.codes, &self.scales, start, out);
    }
}

/// Four bits per value, two values in a byte with the first in the low half, which choose one of 16 half-precision
/// values.
#[derive(Clone, Debug, PartialEq)]
pub struct Lut4Weight {
    shape: Shape,
    indices: Tensor,
    table: Tensor,
}

impl Lut4Weight {
    /// The weight of this shape whose `indices`, `uint8`, choose from the 16 `fp16` values of `table`.
    pub fn new(shape: Shape, indices: Tensor, table: Tensor) -> Result<Lut4Weight, WeightError> {
        let encoding = Encoding::Lut4;
        leading(encoding, shape)?;
        let indices = shaped(encoding, "indices", &indices, line(shape.count().div_ceil(2)))?;
        Ok(Lut4Weight { shape, indices, table: shaped(encoding, "table", &table, line(ENTRIES))? })
    }

    /// The weight's shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The bytes of the indices.
    pub fn indices(&self) -> &Tensor {
        &self.indices
    }

    /// The 16 values.
    pub fn table(&self) -> &Tensor {
        &self.table
    }

    /// The 16 values, as an array.
    pub fn entries(&self) -> [f16; 16] {
        let mut entries = [f16::ZERO; ENTRIES];
        self.table.read_f16(0, &mut entries);
        entries
    }

    pub(super) fn read(&self, start: usize, out: &mut [f16]) {
        let entries = self.entries();
        for (out, at) in out.iter_mut().zip(start..) {
            let byte = self.indices.bytes()[at / 2];
            *out = entries[usize::from(byte >> (at % 2 * 4) & 0xf)];
        }
    }
}

/// A bit per value, the first in the lowest place of its byte, and the half-precision values whose bit is set, in order.
/// The others are zero.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseWeight {
    shape: Shape,
    mask: Tensor,
    values: Tensor,
    /// How many values come before each group of elements.
    before: Arc<[usize]>,
}

impl SparseWeight {
    /// The weight of this shape with `values`, `fp16`, where `mask`, `uint8`, has its bit set.
    pub fn new(shape: Shape, mask: Tensor, values: Tensor) -> Result<SparseWeight, WeightError> {
        let encoding = Encoding::Sparse;
        leading(encoding, shape)?;
        let mask = shaped(encoding, "mask", &mask, line(shape.count().div_ceil(8)))?;
        let values = shaped(encoding, "values", &values, line(values.shape().count()))?;
        let mut set = 0;
        let counted = mask.bytes().chunks(GROUP / 8).map(|group| {
            let before = set;
            set += ones(group);
            before
        });
        let before = counted.collect();
        let last = mask.bytes().last().copied().unwrap_or_default();
        let behind = (last.count_ones() - (last & inside(shape.count())).count_ones()) as usize;
        if set != values.shape().count() || behind > 0 {
            return Err(WeightError::Mask { set, values: values.shape().count(), beyond: behind });
        }
        Ok(SparseWeight { shape, mask, values, before })
    }

    /// The weight's shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The bytes of the bits.
    pub fn mask(&self) -> &Tensor {
        &self.mask
    }

    /// The values whose bit is set.
    pub fn values(&self) -> &Tensor {
        &self.values
    }

    pub(super) fn read(&self, start: usize, out: &mut [f16]) {
        let (mask, group) = (self.mask.bytes(), start / GROUP);
        let set = |at: usize| mask[at / 8] >> (at % 8) & 1 == 1;
        let before = self.before.get(group).copied().unwrap_or_default();
        let mut next = before + (group * GROUP..start).filter(|&at| set(at)).count();
        for (out, at) in out.iter_mut().zip(start..) {
            *out = f16::ZERO;
            if set(at) {
                self.values.read_f16(next, std::slice::from_mut(out));
                next += 1;
            }
        }
    }
}

/// Scales of blocks by row, as far as their number allows.
pub(super) fn by_row(scales: &Tensor, shape: Shape) -> Tensor {
    let (count, rows) = (scales.shape().count(), shape.dims().first().copied().unwrap_or(1));
    let matrix = Shape::new(&[rows, count / rows]).ok();
    matrix.and_then(|matrix| scales.reshape(matrix).ok()).unwrap_or_else(|| scales.clone())
}

/// The extent of the leading axis.
fn leading(encoding: Encoding, shape: Shape) -> Result<usize, WeightError> {
    let missing = WeightError::Axes { encoding, want: "at least one axis", shape };
    shape.dims().first().copied().ok_or(missing)
}

fn line(count: usize) -> Shape {
    Shape::new(&[count]).expect("invariant: parts have elements, and no more than their weight")
}

fn halves(tensor: &Tensor) -> impl Iterator<Item = f16> {
    tensor.bytes().as_chunks::<2>().0.iter().map(|&bytes| f16::from_le_bytes(bytes))
}

fn ones(bytes: &[u8]) -> usize {
    bytes.iter().map(|byte| byte.count_ones() as usize).sum()
}

/// The bits of the last byte of a mask that belong to elements.
fn inside(count: usize) -> u8 {
    match count % 8 {
        0 => u8::MAX,
        used => (1 << used) - 1,
    }
}

/// Codes times their scales, of which each is for as many codes that follow each other.
fn read_scaled(codes: &Tensor, scales: &Tensor, start: usize, out: &mut [f16]) {
    let each = codes.shape().count() / scales.shape().count();
    let codes = &codes.bytes()[start..start + out.len()];
    let (mut scale, mut known) = ([f16::ZERO], None);
    for ((out, code), at) in out.iter_mut().zip(codes).zip(start..) {
        if known != Some(at / each) {
            known = Some(at / each);
            scales.read_f16(at / each, &mut scale);
        }
        // The product of 8 and 11 bits is exact in single precision.
        *out = f16::from_f32(f32::from(code.cast_signed()) * scale[0].to_f32());
    }
}
