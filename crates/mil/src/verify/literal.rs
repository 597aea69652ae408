//! Invariants 13 to 15: literals.

use super::{Checker, Fault};
use crate::blob::BlobDType;
use crate::program::{DType, Literal, TensorValue, Type, WEIGHTS_PATH};

impl Checker<'_> {
    pub(super) fn literal(&self, literal: &Literal, faults: &mut Vec<Fault>) {
        match literal {
            Literal::Fp16(value) => finite(value.to_f64(), DType::Fp16, faults),
            Literal::Fp32(value) => finite((*value).into(), DType::Fp32, faults),
            Literal::Int { dtype, value } if !fits(*dtype, *value) => {
                faults.push(Fault::IntRange { value: *value, dtype: *dtype });
            }
            Literal::Int { .. } | Literal::Bool(_) => {}
            Literal::String(value) => plain(value, faults),
            Literal::Tensor { dtype, value, .. } => {
                let ty = literal.ty();
                match value {
                    TensorValue::Ints(values) => {
                        // The first is enough: a text may hold millions.
                        if let Some(&value) = values.iter().find(|&&v| !fits(*dtype, v)) {
                            faults.push(Fault::IntRange { value, dtype: *dtype });
                        }
                        count(&ty, values.len(), faults);
                    }
                    TensorValue::Fp16Bits(bits) => {
                        if *dtype != DType::Fp16 {
                            faults.push(Fault::Payload { ty: ty.clone() });
                        }
                        let mut values = bits.iter().map(|&b| half::f16::from_bits(b).to_f64());
                        if let Some(value) = values.find(|v| !v.is_finite()) {
                            finite(value, DType::Fp16, faults);
                        }
                        count(&ty, bits.len(), faults);
                    }
                    TensorValue::Blob { path, offset } => self.record(&ty, path, *offset, faults),
                }
            }
        }
    }

    fn record(&self, ty: &Type, path: &str, offset: u64, faults: &mut Vec<Fault>) {
        if path != WEIGHTS_PATH {
            faults.push(Fault::Path { found: path.to_owned() });
        }
        let Some(dtype) = BlobDType::of(ty.dtype()) else {
            faults.push(Fault::Payload { ty: ty.clone() });
            return;
        };
        let Some(blobs) = self.blobs else { return };
        let Some(record) = blobs.at(offset) else {
            faults.push(Fault::NoRecord { offset });
            return;
        };
        let expected = ty.numel().and_then(|n| dtype.payload_len(n));
        if record.dtype != dtype || Some(record.len) != expected {
            faults.push(Fault::Record { offset, ty: ty.clone(), dtype: record.dtype, len: record.len });
        }
    }
}

fn finite(value: f64, dtype: DType, faults: &mut Vec<Fault>) {
    if !value.is_finite() {
        faults.push(Fault::NotFinite { value, dtype });
    }
}

fn fits(dtype: DType, value: i64) -> bool {
    dtype.int_range().is_some_and(|(low, high)| (low..=high).contains(&value))
}

fn plain(value: &str, faults: &mut Vec<Fault>) {
    if value.chars().any(|c| c == '"' || c == '\\' || c.is_control()) {
        faults.push(Fault::Escape { found: value.to_owned() });
    }
}

fn count(ty: &Type, found: usize, faults: &mut Vec<Fault>) {
    if ty.numel() != Some(found as u64) {
        faults.push(Fault::Count { ty: ty.clone(), found });
    }
}
