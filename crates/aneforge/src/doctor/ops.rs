//! Every case of every op, on a device and on the host.

use super::probe::Verdict;
use crate::device::Device;
use crate::device::host::{self, HostOptions};
use crate::ir::op::{Case, OPS, Op};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use crate::passes::CompileOptions;
use crate::session::Session;
use crate::target::Target;
use aneforge_tensor::{DType, Tensor, f16, random};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A case of an op, and how far the device is from the host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpCheck {
    /// The op.
    pub op: String,
    /// Which of its cases.
    pub case: usize,
    /// The op with the types that it takes and gives, and its attributes.
    pub text: String,
    /// Whether it agrees with the host: not run where there is nothing but the host, which always agrees with itself, or where its
    /// process ended before it was done.
    pub verdict: Verdict,
    /// How many values there are.
    pub values: usize,
    /// How many of them have other bits than on the host.
    pub different: usize,
    /// The largest difference, in units in the last place of the host's value.
    pub ulp: f64,
    /// The largest difference.
    pub absolute: f64,
    /// Whether all are within the tolerance that the op's case has against exact results, twice: one for each device.
    pub within: bool,
    /// Why it did not run, if so.
    pub failed: Option<String>,
}

/// Why the host confirms nothing.
pub(super) const ITSELF: &str = "it ran on the host, which would be compared with itself";

impl OpCheck {
    fn new(op: &str, case: usize, text: String, values: usize) -> OpCheck {
        OpCheck {
            op: op.into(),
            case,
            text,
            verdict: Verdict::NotRun,
            values,
            different: 0,
            ulp: 0.0,
            absolute: 0.0,
            within: true,
            failed: None,
        }
    }

    /// Cases of an op whose process ended before it was done.
    pub fn ended(op: &str, why: String) -> OpCheck {
        OpCheck { failed: Some(why), ..OpCheck::new(op, 0, String::new(), 0) }
    }

    /// Whether it ran, and does not differ from the host.
    pub fn is_well(&self) -> bool {
        self.failed.is_none() && self.within
    }
}

impl fmt::Display for OpCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OpCheck { op, case, text, verdict, values, different, ulp, absolute, failed, .. } = self;
        let case = if text.is_empty() { op.clone() } else { format!("{op} case {case}, {text}") };
        match failed {
            Some(why) => write!(f, "{verdict} {case}: {why}"),
            None => write!(
                f,
                "{verdict} {case}: {different} of {values} values differ, by up to {ulp:.1} ulp ({absolute:.2e})"
            ),
        }
    }
}

/// Ops with how many cases each has.
pub fn ops() -> impl Iterator<Item = (&'static str, usize)> {
    OPS.iter().map(|entry| (entry.info.name, (entry.cases)().len())).filter(|(_, count)| *count > 0)
}

/// Compiles a case for `target`, and runs it on the device and on the host. None where there is no such case, or where the target
/// does not have the op.
pub fn check_op(device: &(dyn Device + 'static), target: Target, op: &str, case: usize) -> Option<OpCheck> {
    let entry = OPS.iter().find(|entry| entry.info.name == op)?;
    let Case { op: node, inputs, constants_from, domain, tolerance } =
        (entry.cases)().into_iter().nth(case)?;
    let (mut leaves, mut fed) = (Vec::new(), Vec::new());
    for (at, ty) in inputs.iter().enumerate() {
        let values = drawn(*ty, 1000 + at as u64, domain);
        leaves.push(match ty.dtype {
            DType::Bool => {
                fed.push(drawn(TensorType::f16(ty.shape), 1000 + at as u64, (-1.0, 1.0)));
                Var::input(ty.shape).greater(&Var::from(0.0))
            }
            _ if at >= constants_from => Var::constant(values),
            _ => {
                fed.push(values);
                Var::input_of(*ty)
            }
        });
    }
    let text = described(&node, &leaves);
    let output = Var::apply(node, &leaves.iter().collect::<Vec<_>>());
    let output = match output.ty().dtype {
        DType::Bool => output.select(&Var::from(1.0), &Var::from(0.0)),
        _ => output,
    };
    let mut check = OpCheck::new(op, case, text, output.shape().count());
    let plan = crate::compile::compile(&[output], &CompileOptions::target(target)).ok()?;
    let host = host::shared_with(&HostOptions::default()).ok()?;
    let want = Session::new(plan.clone(), &*host).and_then(|mut session| session.run(&fed)).ok()?;
    let got = Session::new(plan, device).and_then(|mut session| session.run(&fed));
    match got {
        Err(error) => {
            check.failed = Some(error.to_string());
            check.verdict = Verdict::Refuted;
        }
        // It says that it compiles and runs, and no more.
        Ok(_) if device.name() == "host" => {}
        Ok(got) => {
            compare(&mut check, &got[0].to_f32(), &want[0].to_f32(), |ulp, absolute| {
                ulp <= 2.0 * tolerance.ulp.max(0.5) || absolute <= 2.0 * tolerance.absolute
            });
            check.verdict = if check.within { Verdict::Confirmed } else { Verdict::Refuted };
        }
    }
    Some(check)
}

/// An op with the types that it takes, and its attributes.
fn described(op: &Op, inputs: &[Var]) -> String {
    let types = inputs.iter().map(|input| input.ty().to_string());
    let attributes = op.attrs().into_iter().map(|(name, value)| format!("{name}={value}"));
    format!("{}({})", op.name(), types.chain(attributes).collect::<Vec<_>>().join(", "))
}

fn drawn(ty: TensorType, seed: u64, (low, high): (f64, f64)) -> Tensor {
    let value = |at: usize| low + (high - low) * f64::from(random::uniform(seed, at as u64));
    let values: Vec<f32> = (0..ty.shape.count()).map(|at| f16::from_f64(value(at)).to_f32()).collect();
    let made = match ty.dtype {
        DType::U8 => Tensor::from_slice(ty.shape, &values.iter().map(|&v| v as u8).collect::<Vec<u8>>()),
        _ => Tensor::from_slice(ty.shape, &values),
    };
    made.expect("invariant: one value per element")
}

fn compare(check: &mut OpCheck, got: &[f32], want: &[f32], allows: impl Fn(f64, f64) -> bool) {
    for (got, want) in got.iter().zip(want).filter(|(got, want)| got.to_bits() != want.to_bits()) {
        check.different += 1;
        let (got, want) = (f64::from(*got), f64::from(*want));
        if got == want || (got.is_nan() && want.is_nan()) {
            continue;
        }
        let absolute = (got - want).abs();
        let exponent = want.abs().max(2f64.powi(-14)).log2().floor();
        let ulp = absolute / 2f64.powf(exponent - 10.0);
        check.within &= absolute.is_finite() && allows(ulp, absolute);
        check.ulp = check.ulp.max(ulp);
        check.absolute = check.absolute.max(absolute);
    }
}
