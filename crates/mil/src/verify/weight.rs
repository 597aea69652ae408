//! Invariants 16 to 20: compressed weights. All from ANEForge 0.4.0 (reference).

use super::{Checker, Def, Fault};
use crate::program::{Literal, Stmt, Type};
use crate::spec::OpSpec;

/// Entries of a lookup table. The only size ANEForge 0.4.0 emits (reference).
const LUT_ENTRIES: u64 = 16;

/// Where the compiler can take the result of a `constexpr_*` op.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Into the weight operand of a `matmul` or `conv`.
    Operand,
    /// Into elementwise ops.
    Elementwise,
}

impl Class {
    pub(super) fn of(stmt: &Stmt) -> Option<Self> {
        match stmt.op.as_str() {
            "constexpr_blockwise_shift_scale" => Some(Class::Elementwise),
            op if op.starts_with("constexpr_") => Some(Class::Operand),
            _ => None,
        }
    }

    const fn allowed(self) -> &'static str {
        match self {
            Class::Operand => "matmul.y and conv.weight",
            Class::Elementwise => "elementwise ops (add 0 to make it dense)",
        }
    }
}

/// Invariant 20 for one use of a name as an argument.
pub(super) fn route(name: &str, def: Def<'_>, op: &OpSpec, param: &str) -> Option<Fault> {
    unroutable(name, def, &format!("{}.{param}", op.name), |class| match class {
        Class::Operand => matches!((op.name, param), ("matmul", "y") | ("conv", "weight")),
        Class::Elementwise => op.elementwise,
    })
}

/// The fault of a use that the compiler cannot take.
pub(super) fn unroutable(
    name: &str,
    def: Def<'_>,
    use_: &str,
    takes: impl Fn(Class) -> bool,
) -> Option<Fault> {
    let stmt = def.stmt?;
    let class = Class::of(stmt).filter(|&class| !takes(class))?;
    let (name, op, use_) = (name.to_owned(), stmt.op.clone(), use_.to_owned());
    Some(Fault::Route { name, op, use_, allowed: class.allowed() })
}

impl Checker<'_> {
    /// Invariants 16 to 19. `ty` is the type of the weight; types of arguments and attributes are checked already.
    pub(super) fn compressed(&self, stmt: &Stmt, ty: &Type, faults: &mut Vec<Fault>) {
        let shape = ty.shape();
        let part = |name: &str| -> Vec<u64> {
            let attr = || stmt.attr(name).map(|l| l.ty().shape().to_vec());
            stmt.arg(name)
                .and_then(|a| self.arg_type(a))
                .map(|t| t.shape().to_vec())
                .or_else(attr)
                .unwrap_or_default()
        };
        let mut expect = |name: &str, expected: &[u64]| {
            let found = part(name);
            if found != expected {
                let place = format!("{}.{name}", stmt.op);
                faults.push(Fault::PartShape {
                    place,
                    expected: expected.to_vec(),
                    found,
                    weight: ty.clone(),
                });
            }
        };
        match stmt.op.as_str() {
            "constexpr_affine_dequantize" => {
                expect("quantized_data", shape);
                expect("scale", shape.get(..1).unwrap_or_default());
                zero_attrs(stmt, faults);
            }
            "constexpr_lut_to_dense" => {
                expect("indices", shape);
                let mut lut = vec![1; shape.len()];
                lut.extend([LUT_ENTRIES, 1]);
                expect("lut", &lut);
            }
            "constexpr_sparse_to_dense" => {
                expect("mask", shape);
                let nonzeros = part("nonzero_data").into_iter().next().unwrap_or_default();
                if ty.numel().is_none_or(|n| nonzeros > n) {
                    faults.push(Fault::NonZeros { nonzeros, weight: ty.clone() });
                }
            }
            "constexpr_blockwise_shift_scale" => {
                expect("data", shape);
                let found = part("scale");
                let row =
                    shape.get(1..).and_then(|rest| rest.iter().try_fold(1u64, |n, &d| n.checked_mul(d)));
                let blocks = matches!((found.as_slice(), shape.first(), row), (&[rows, blocks], Some(&o), Some(row))
                    if rows == o && blocks > 0 && row.is_multiple_of(blocks));
                if !blocks || shape.len() < 2 || shape.len() > 3 {
                    faults.push(Fault::Blocks { scale: found, weight: ty.clone() });
                }
            }
            _ => {}
        }
    }
}

fn zero_attrs(stmt: &Stmt, faults: &mut Vec<Fault>) {
    for name in ["axis", "zero_point"] {
        if let Some(Literal::Int { value, .. }) = stmt.attr(name)
            && *value != 0
        {
            let place = format!("{}.{name}", stmt.op);
            faults.push(Fault::Value { place, found: value.to_string(), allowed: "0".to_owned() });
        }
    }
}
