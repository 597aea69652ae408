//! NumPy's `.npy` format, versions 1 to 3 (NumPy Enhancement Proposal 1). Written in C order and little endian;
//! read in either order of axes and of bytes.

use crate::{Bytes, DType, Shape, ShapeError, Tensor, TensorError};
use std::borrow::Cow;
use std::io::{self, Write};

/// Why bytes are not an array this crate can hold. The file's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NpyError {
    /// The header is not that of an `.npy` file.
    #[error("not an .npy file: {0}")]
    Header(&'static str),
    /// The element type has no counterpart here.
    #[error("npy element type `{0}` is not supported; save numbers of up to 8 bytes each, or truth values")]
    DType(String),
    /// An unsigned number is beyond the greatest that is held.
    #[error("npy element {index} is {value}, which is beyond the 64-bit integers; save as floating point")]
    Large {
        /// Which, in the file's order.
        index: usize,
        /// The number.
        value: u64,
    },
    /// There is no room for its elements in the order and width in which they are held. The machine's fault.
    #[error("there is no memory for npy elements of {0} bytes")]
    Memory(usize),
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

/// How a file stores an element.
struct Stored {
    big_endian: bool,
    kind: u8,
    size: usize,
}

impl Stored {
    /// Reads a code such as `<f4`.
    fn parse(code: &str) -> Option<Stored> {
        let (order, rest) = match code.as_bytes() {
            [order @ (b'<' | b'>' | b'=' | b'|'), rest @ ..] => (*order, rest),
            rest => (b'=', rest),
        };
        let (kind, size) = rest.split_first()?;
        let size = match (kind, size) {
            (b'?', []) => 1,
            (_, [digit @ (b'1' | b'2' | b'4' | b'8')]) => usize::from(digit - b'0'),
            _ => return None,
        };
        Some(Stored { big_endian: order == b'>', kind: *kind, size })
    }

    /// The type its elements are held in: its own, or a wider one.
    fn held(&self) -> Option<DType> {
        Some(match (self.kind, self.size) {
            (b'f', 2) => DType::F16,
            (b'f', 4) => DType::F32,
            (b'f', 8) => DType::F64,
            (b'V', 2) => DType::Bf16,
            (b'b' | b'?', 1) => DType::Bool,
            (b'u', 1) => DType::U8,
            (b'i', 1) => DType::I8,
            (b'i' | b'u', 2) | (b'i', 4) => DType::I32,
            (b'i', 8) | (b'u', 4 | 8) => DType::I64,
            _ => return None,
        })
    }

    /// Whether the bytes are those of the type it is held in, whatever the numbers are.
    fn is_held_as(&self, held: DType) -> bool {
        let unsigned = self.kind == b'u' && held != DType::U8;
        self.size == held.size() && !unsigned && !(self.big_endian && self.size > 1)
    }

    /// Elements in little-endian order, as wide as they are held.
    fn widened(&self, bytes: &[u8], held: DType) -> Result<Vec<u8>, NpyError> {
        let mut out = room(bytes.len() / self.size * held.size())?;
        for (index, element) in bytes.chunks_exact(self.size).enumerate() {
            let mut wide = [0; 8];
            let low = &mut wide[..self.size];
            low.copy_from_slice(element);
            if self.big_endian {
                low.reverse();
            }
            let negative = low.last().is_some_and(|byte| byte & 0x80 != 0);
            match (self.kind, self.size) {
                (b'i', _) if negative => wide[self.size..].fill(0xff),
                (b'u', 8) if negative => {
                    return Err(NpyError::Large { index, value: u64::from_le_bytes(wide) });
                }
                _ => {}
            }
            out.extend_from_slice(&wide[..held.size()]);
        }
        Ok(out)
    }
}

/// An array's bytes from column by column to row by row.
fn by_rows(bytes: &[u8], shape: Shape, size: usize) -> Result<Vec<u8>, NpyError> {
    let mut out = room(bytes.len())?;
    let mut at = vec![0; shape.rank()];
    for _ in 0..shape.count() {
        let place = at.iter().zip(shape.dims()).rev().fold(0, |place, (&i, &n)| place * n + i);
        out.extend_from_slice(bytes.get(place * size..(place + 1) * size).unwrap_or_default());
        for (i, &n) in at.iter_mut().zip(shape.dims()).rev() {
            *i += 1;
            if *i < n {
                break;
            }
            *i = 0;
        }
    }
    Ok(out)
}

fn room(bytes: usize) -> Result<Vec<u8>, NpyError> {
    let mut out = Vec::new();
    out.try_reserve_exact(bytes).map_err(|_| NpyError::Memory(bytes))?;
    Ok(out)
}

/// Reads an array. Its elements share `bytes`, unless they have to be brought into order or widened.
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
    let stored = Stored::parse(code).and_then(|stored| Some((stored.held()?, stored)));
    let (dtype, stored) = stored.ok_or_else(|| NpyError::DType(code.chars().take(16).collect()))?;
    let fortran = field(header, "fortran_order")? != "False";
    let dims = field(header, "shape")?.trim_matches(['(', ')']).split(',').map(str::trim);
    let dims: Result<Vec<usize>, _> = dims.filter(|d| !d.is_empty()).map(str::parse).collect();
    let shape = Shape::new(&dims.map_err(|_| NpyError::Header("shape is not a tuple of integers"))?)?;
    let payload = bytes.slice(end..bytes.len()).ok_or(NpyError::Header("header is cut off"))?;
    let same = stored.is_held_as(dtype);
    if same && !(fortran && shape.rank() > 1) {
        return Ok(Tensor::new(dtype, shape, payload)?);
    }
    if payload.len() != shape.count() * stored.size {
        let (want, got) = (shape.count() * stored.size, payload.len());
        return Err(TensorError::Length { dtype, shape, want, got }.into());
    }
    let elements: Cow<'_, [u8]> =
        if same { Cow::Borrowed(&payload) } else { Cow::Owned(stored.widened(&payload, dtype)?) };
    let rows = if fortran { by_rows(&elements, shape, dtype.size())? } else { elements.into_owned() };
    Ok(Tensor::new(dtype, shape, Bytes::new(rows))?)
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

    /// A file with this element code and order of axes.
    fn file(code: &str, fortran: bool, shape: &str, payload: &[u8]) -> Vec<u8> {
        let order = if fortran { "True" } else { "False" };
        let header = format!("{{'descr': '{code}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
        let mut bytes = [&MAGIC[..], &[1, 0], &(header.len() as u16).to_le_bytes()].concat();
        bytes.extend(header.as_bytes());
        bytes.extend(payload);
        bytes
    }

    fn values(code: &str, fortran: bool, shape: &str, payload: &[u8]) -> (DType, Vec<f32>) {
        let tensor = read(&Bytes::new(file(code, fortran, shape, payload))).unwrap();
        (tensor.dtype(), tensor.to_f32())
    }

    #[test]
    fn either_order_of_bytes_is_read() {
        assert_eq!(values(">f4", false, "(1,)", &1.5f32.to_be_bytes()), (DType::F32, vec![1.5]));
        assert_eq!(values(">f8", false, "(1,)", &(-2.5f64).to_be_bytes()), (DType::F64, vec![-2.5]));
        assert_eq!(values(">f2", false, "(1,)", &[0x3c, 0]), (DType::F16, vec![1.0]));
        assert_eq!(values(">i8", false, "(1,)", &(-3i64).to_be_bytes()), (DType::I64, vec![-3.0]));
        assert_eq!(values(">u1", false, "(2,)", &[7, 200]), (DType::U8, vec![7.0, 200.0]));
    }

    #[test]
    fn either_order_of_axes_is_read() {
        let columns: Vec<u8> = [0u8, 3, 1, 4, 2, 5].to_vec();
        assert_eq!(values("|u1", true, "(2, 3)", &columns).1, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let wide: Vec<u8> = columns.iter().flat_map(|&v| f32::from(v).to_be_bytes()).collect();
        assert_eq!(values(">f4", true, "(2, 3)", &wide).1, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        // Element [i, j, k] is 4i + 2j + k.
        assert_eq!(
            values("|u1", true, "(2, 2, 2)", &[0, 4, 2, 6, 1, 5, 3, 7]).1,
            [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
        );
        assert_eq!(values("|u1", true, "(3,)", &[1, 2, 3]).1, [1.0, 2.0, 3.0]);
        assert!(read(&Bytes::new(file("|u1", true, "(2, 3)", &columns[..5]))).is_err());
    }

    #[test]
    fn integers_of_every_width_are_read() {
        assert_eq!(values("<i2", false, "(1,)", &(-300i16).to_le_bytes()), (DType::I32, vec![-300.0]));
        assert_eq!(values(">u2", false, "(1,)", &60_000u16.to_be_bytes()), (DType::I32, vec![60_000.0]));
        assert_eq!(
            values("<u4", false, "(1,)", &3_000_000_000u32.to_le_bytes()),
            (DType::I64, vec![3_000_000_000.0])
        );
        assert_eq!(values("<u8", false, "(1,)", &9u64.to_le_bytes()), (DType::I64, vec![9.0]));
        let error = read(&Bytes::new(file("<u8", false, "(1,)", &u64::MAX.to_le_bytes()))).unwrap_err();
        assert!(
            error.to_string().starts_with("npy element 0 is 18446744073709551615, which is beyond"),
            "{error}"
        );
        for code in ["<c8", "<f16", "<U4", "|O", "<M8[ns]", ""] {
            let error = read(&Bytes::new(file(code, false, "(1,)", &[0; 8]))).unwrap_err();
            assert!(matches!(error, NpyError::DType(_)), "{code}: {error}");
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
        fn any_array_reads_or_says_why_not(
            order in "[<>=|]",
            kind in "[biufVc?]",
            size in prop::sample::select(vec!["1", "2", "4", "8", "16", ""]),
            fortran: bool,
            dims in proptest::collection::vec(0usize..5, 0..6),
            payload in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let dims: String = dims.iter().map(|d| format!("{d},")).collect();
            let _ = read(&Bytes::new(file(&format!("{order}{kind}{size}"), fortran, &format!("({dims})"), &payload)));
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
