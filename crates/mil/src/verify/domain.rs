//! Invariant 21: what the public op definitions of coremltools 9.0 ask of parameters together.

use super::{Checker, Fault, broadcast};
use crate::program::{Arg, Literal, Stmt, TensorValue, Type};
use crate::spec::{Domain, OpSpec};

impl Checker<'_> {
    pub(super) fn domain(&self, stmt: &Stmt, op: &OpSpec, result: &Type, faults: &mut Vec<Fault>) {
        let outside = op.domain.iter().filter_map(|domain| self.outside(stmt, *domain, result));
        faults
            .extend(outside.map(|(param, why)| Fault::Domain { place: format!("{}.{param}", op.name), why }));
    }

    /// The parameter at fault, and what is wrong with it.
    fn outside(&self, stmt: &Stmt, domain: Domain, result: &Type) -> Option<(&'static str, String)> {
        match domain {
            Domain::Rank(param, least, most) => {
                let rank = self.arg_type(stmt.arg(param)?)?.shape().len();
                let wrong = !(least..=most).contains(&rank);
                wrong.then(|| (param, format!("has rank {rank}; {least} to {most} is possible")))
            }
            Domain::UndilatedValue => {
                let Some(Arg::Name(weight)) = stmt.arg("weight") else { return None };
                let made = self.defs.get(weight.as_str())?.stmt.map_or("", |stmt| stmt.op.as_str());
                let constant = made == "const" || made.starts_with("constexpr_");
                let dilations = self.integers(stmt, "dilations")?;
                let wrong = !constant && dilations.iter().any(|&d| d != 1);
                wrong.then(|| {
                    ("dilations", format!("is {dilations:?}; a weight that is computed takes 1 only"))
                })
            }
            Domain::EvenPadding => {
                let pad = self.integers(stmt, "pad")?;
                let partial = self.value(stmt, "ceil_mode") == Some(&Literal::Bool(true));
                let wrong = partial && pad.chunks(2).any(|sides| sides[0] != sides[sides.len() - 1]);
                wrong.then(|| {
                    ("pad", format!("is {pad:?}; with ceil_mode both sides of an axis are padded alike"))
                })
            }
            Domain::Choices => {
                let choices = [stmt.arg("a")?, stmt.arg("b")?].map(|arg| self.arg_type(arg));
                let [Some(a), Some(b)] = choices else { return None };
                let wrong = broadcast(&[a, b]).is_some_and(|shape| shape != result.shape());
                wrong.then(|| ("a", format!("and b do not have the result's extents together: {a}, {b}")))
            }
        }
    }

    fn integers<'b>(&'b self, stmt: &'b Stmt, name: &str) -> Option<&'b [i64]> {
        match self.value(stmt, name)? {
            Literal::Tensor { value: TensorValue::Ints(values), .. } => Some(values),
            _ => None,
        }
    }
}
