//! NumPy's `.npy` format, versions 1 to 3, C order only (NumPy Enhancement Proposal 1).

use crate::{Bytes, DType, Shape, ShapeError, Tensor, TensorError};
use std::io::{self, Write};

/// Why bytes are not an array this crate can hold. The file's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NpyError {
    /// The header is not that of an `.npy` file.
    #[error("not an .npy file: {0}")]
    Header(&'static str),
    /// The element type has no counterpart here.
    #[error("npy element type `{0}` is not supported; save as one of <f2 <f4 <f8 |u1 |i1 <i4 <i8 |b1")]
    DType(String),
    /// The array is stored column by column.
    #[error("npy array is in Fortran order; save it with numpy.ascontiguousarray")]
    Fortran,
    /// The shape is not one.
    #[error("npy shape: {0}")]
    Shape(#[from] ShapeError),
    /// The payload is shorter or longer than the shape.
    #[error("npy payload: {0}")]
    Payload(#[from] TensorError),
}

const MAGIC: &[u8; 6] = b"\x93NUMPY";

fn descr(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "<f2",
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::U8 => "|u1",
        DType::I8 => "|i1",
        DType::I32 => "<i4",
        DType::I64 => "<i8",
        DType::Bool => "|b1",
        // NumPy has no bfloat16; raw two-byte voids keep the bits.
        DType::Bf16 => "|V2",
    }
}

/// Reads an array; its elements share `bytes`.
pub fn read(bytes: &Bytes) -> Result<Tensor, NpyError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(NpyError::Header("wrong magic bytes"))?;
    let (start, length) = match rest {
        [1, _, a, b, ..] => (10, usize::from(u16::from_le_bytes([*a, *b]))),
        [2 | 3, _, a, b, c, d, ..] => (12, u32::from_le_bytes([*a, *b, *c, *d]) as usize),
        _ => return Err(NpyError::Header("unknown version or truncated header")),
    };
    let end = start + length;
    let header = bytes.get(start..end).ok_or(NpyError::Header("header is cut off"))?;
    let header = std::str::from_utf8(header).map_err(|_| NpyError::Header("header is not text"))?;
    let code = field(header, "descr")?.trim_matches(['\'', '"']);
    let dtype = DType::ALL.into_iter().find(|&d| descr(d) == code || descr(d).replace('|', "<") == code);
    let dtype = dtype.ok_or_else(|| NpyError::DType(code.chars().take(16).collect()))?;
    if field(header, "fortran_order")? != "False" {
        return Err(NpyError::Fortran);
    }
    let dims = field(header, "shape")?.trim_matches(['(', ')']).split(',').map(str::trim);
    let dims: Result<Vec<usize>, _> = dims.filter(|d| !d.is_empty()).map(str::parse).collect();
    let shape = Shape::new(&dims.map_err(|_| NpyError::Header("shape is not a tuple of integers"))?)?;
    let payload = bytes.slice(end..bytes.len()).ok_or(NpyError::Header("header is cut off"))?;
    Ok(Tensor::new(dtype, shape, payload)?)
}

/// The text of one entry of the header's dictionary.
fn field<'a>(header: &'a str, key: &str) -> Result<&'a str, NpyError> {
    let missing = NpyError::Header("an entry of the header is missing");
    let at = header.find(&format!("'{key}'")).ok_or(missing.clone())?;
    let (_, value) = header[at..].split_once(':').ok_or(missing.clone())?;
    let value = value.trim_start();
    let end = if value.starts_with('(') { value.find(')').map(|i| i + 1) } else { value.find([',', '}']) };
    Ok(value.get(..end.ok_or(missing.clone())?).ok_or(missing)?.trim())
}

/// Writes `tensor` as version 1.
pub fn write(tensor: &Tensor, mut to: impl Write) -> io::Result<()> {
    let dims: Vec<String> = tensor.shape().dims().iter().map(|d| format!("{d},")).collect();
    let mut header = format!(
        "{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}",
        descr(tensor.dtype()),
        dims.join(" ")
    );
    // The payload starts at a multiple of 64 bytes, after a newline.
    let padding = 63 - (10 + header.len()) % 64;
    header.extend(std::iter::repeat_n(' ', padding));
    header.push('\n');
    to.write_all(MAGIC)?;
    to.write_all(&[1, 0])?;
    to.write_all(&(header.len() as u16).to_le_bytes())?;
    to.write_all(header.as_bytes())?;
    to.write_all(tensor.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(tensor: &Tensor) -> Vec<u8> {
        let mut out = Vec::new();
        write(tensor, &mut out).unwrap();
        out
    }

    #[test]
    fn arrays_come_back() {
        for dims in [&[][..], &[3], &[2, 1, 3]] {
            let shape = Shape::new(dims).unwrap();
            let values: Vec<f32> = (0..shape.count()).map(|i| i as f32 - 0.5).collect();
            let tensor = Tensor::from_slice(shape, &values).unwrap();
            let bytes = written(&tensor);
            assert_eq!(bytes.len() % 64, tensor.bytes().len() % 64);
            assert_eq!(read(&Bytes::new(bytes)), Ok(tensor));
        }
    }

    #[test]
    fn a_cut_file_is_an_error() {
        let bytes = written(&Tensor::scalar(1.0f32));
        for end in 0..bytes.len() {
            assert!(read(&Bytes::new(bytes[..end].to_vec())).is_err(), "{end}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..200), version in 0u8..4) {
            let mut bytes = MAGIC.to_vec();
            bytes.extend([version, 0]);
            bytes.extend(tail);
            let _ = read(&Bytes::new(bytes));
        }

        #[test]
        fn random_headers_never_panic(header in "[{}'a-z_:(),0-9 <]{0,80}") {
            let mut bytes = MAGIC.to_vec();
            bytes.extend([1, 0, header.len() as u8, 0]);
            bytes.extend(header.as_bytes());
            let _ = read(&Bytes::new(bytes));
        }
    }
}
