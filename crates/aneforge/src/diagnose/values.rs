//! A node's value in both precisions.

use crate::device::{Buffer, DeviceError};
use crate::ir::precision::{Array, Precision};
use aneforge_tensor::{DType, f16};
use std::sync::Arc;

/// What a node computed.
#[derive(Clone)]
pub(super) struct Value {
    /// In double precision.
    pub exact: Arc<Array>,
    /// As the engine has it.
    pub got: Got,
    /// The relative error.
    pub error: f64,
}

/// A value as the engine has it.
#[derive(Clone)]
pub(super) enum Got {
    /// In a buffer of the host.
    Held(Buffer),
    /// Truth values, which lie in no buffer.
    Truth(Arc<Array>),
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Value({}, error {})", self.exact.shape, self.error)
    }
}

impl Got {
    /// The elements as numbers.
    pub(super) fn array(&self) -> Arc<Array> {
        match self {
            Got::Truth(array) => Arc::clone(array),
            Got::Held(buffer) => Arc::new(Array { shape: buffer.ty().shape, data: numbers(buffer) }),
        }
    }
}

/// What a buffer holds, as numbers.
pub(super) fn numbers(buffer: &Buffer) -> Vec<f64> {
    match (buffer.ty().dtype, buffer.values()) {
        (DType::F16, Some(values)) => values.iter().map(|v| v.to_f64()).collect(),
        _ => buffer.lock().iter().take(buffer.ty().shape.count()).map(|v| f64::from(*v)).collect(),
    }
}

/// Whether every element is finite.
pub(super) fn is_finite(got: &Got) -> bool {
    match got {
        Got::Truth(_) => true,
        Got::Held(buffer) => match buffer.values() {
            Some(values) => values.iter().fold(true, |all, v| all & v.is_finite()),
            None => true,
        },
    }
}

/// The largest magnitude of `exact`, and the largest difference by it; infinite where only one of the two is.
pub(super) fn compare(exact: &[f64], got: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut largest, mut difference) = (0.0f64, 0.0f64);
    for (want, got) in exact.iter().zip(got) {
        if want.is_finite() {
            largest = largest.max(want.abs());
        }
        let apart = if want == &got || (want.is_nan() && got.is_nan()) { 0.0 } else { (want - got).abs() };
        difference = if apart.is_nan() { f64::INFINITY } else { difference.max(apart) };
    }
    // Against nothing but zeros any difference is infinitely many times as large.
    let relative = if difference == 0.0 { 0.0 } else { difference / largest };
    (largest, relative)
}

/// A buffer with these half-precision values.
pub(super) fn held(host: &crate::device::host::Host, array: &Array) -> Result<Buffer, DeviceError> {
    use crate::device::{Device, Feed};
    let buffer = host.allocate(crate::ir::types::TensorType::f16(array.shape))?;
    let values: Vec<f16> = array.data.iter().map(|&v| aneforge_tensor::round_f16(v)).collect();
    buffer.write(Feed::F16(&values)).expect("invariant: the count and the type are right");
    Ok(buffer)
}

/// A constant in either precision.
pub(super) fn constant(weight: &aneforge_tensor::Weight) -> Array {
    Array::from_weight(weight, Precision::F64)
}
