//! What was found, as data and as lines.

use super::values::{Got, Value};
use crate::ir::numerics::Numerics;
use crate::ir::types::{Caller, TensorType, counted};
use crate::passes::{Noticed, WeightReport};
use crate::risk::{Concern, Finding};
use crate::target::Target;
use aneforge_tensor::f16;
use serde_json::json;
use std::fmt;
use std::time::Duration;

/// What can be wrong with a node's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Trouble {
    /// Finite in half precision, and infinite on this family of chips.
    Saturation,
    /// Infinite of finite operands, in any half precision.
    Overflow,
    /// Neither a number nor infinite, of operands that were numbers or infinite: the engine stores 0.
    Invalid,
    /// Whole numbers that half precision does not hold, which it does up to 2048.
    LostIntegers,
    /// The sum is wrong if it is accumulated in half precision, as one source says of `reduce_sum`.
    NarrowSum,
    /// The relative error exceeds the tolerance, and did not in any operand.
    Error,
}

impl Trouble {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Trouble::Saturation => "saturation",
            Trouble::Overflow => "overflow",
            Trouble::Invalid => "invalid",
            Trouble::LostIntegers => "lost_integers",
            Trouble::NarrowSum => "narrow_sum",
            Trouble::Error => "error",
        }
    }
}

/// One trouble of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    /// Which.
    pub trouble: Trouble,
    /// How many values it has.
    pub values: usize,
    /// What to do about it; empty where nothing is known.
    pub remedy: String,
}

/// What became of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeReport {
    /// Which program of the plan it is in.
    pub segment: usize,
    /// Its op, as compiled.
    pub op: &'static str,
    /// The line that built it.
    pub at: Caller,
    /// The type of its value.
    pub ty: TensorType,
    /// The largest magnitude in double precision.
    pub largest: f64,
    /// The relative error: the largest difference from double precision by that magnitude. Infinite where a value is.
    pub error: f64,
    /// The relative error if it is a sum that is accumulated in half precision.
    pub narrow: Option<f64>,
    /// What is wrong with it.
    pub troubles: Vec<Values>,
}

/// What the structure of a graph, declared bounds and constants say of a node without any data.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// Its op.
    pub op: &'static str,
    /// The line that built it.
    pub at: Caller,
    /// What, by name: those of [`Concern`] and of [`Notice`](crate::passes::Notice).
    pub kind: &'static str,
    /// Why, with the numbers.
    pub reason: String,
    /// What mends it; empty where the reason says so.
    pub remedy: &'static str,
    /// Whether results may be wrong.
    pub risk: bool,
}

/// The kind of notes of weights whose encoding is off by more than the tolerance.
const ENCODING: &str = "encoding";

impl Note {
    /// A weight that is stored with a larger error.
    pub(super) fn of_weight(weight: &WeightReport, tolerance: f64) -> Option<Note> {
        let error = weight.calibrated.unwrap_or(weight.error);
        let of = if weight.calibrated.is_some() { "of its products" } else { "of its values" };
        let reason = format!(
            "has a weight {} that is stored as {}, with a relative error {of} of {error:.2e}",
            weight.shape, weight.encoding
        );
        let op = crate::ir::op::find(&weight.op).map_or("weight", |entry| entry.info.name);
        let remedy = "where results are off, store it in another form; nodes are compared with the weights as they are stored";
        (error > tolerance).then_some(Note { op, at: weight.at, kind: ENCODING, reason, remedy, risk: true })
    }
}

impl From<Finding> for Note {
    fn from(found: Finding) -> Note {
        let Finding { op, at, kind, .. } = found;
        let (risk, remedy) = (found.is_hotspot(), kind.remedy());
        Note { op, at, kind: Concern::name(kind), reason: found.reason, remedy, risk }
    }
}

impl From<Noticed> for Note {
    fn from(Noticed { kind, op, at, why }: Noticed) -> Note {
        Note { op, at, kind: kind.name(), reason: why, remedy: "", risk: kind.is_warning() }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = if self.remedy.is_empty() { String::new() } else { format!(": {}", self.remedy) };
        write!(f, "{}: {} {} (at {}){remedy}", self.kind, self.op, self.reason, self.at)
    }
}

/// What became of a network.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// The chip it was compiled for.
    pub target: Target,
    /// The arithmetic it was computed with.
    pub numerics: Numerics,
    /// The relative error that was allowed.
    pub tolerance: f64,
    /// Every node that computes, in order.
    pub nodes: Vec<NodeReport>,
    /// The relative error of each result against the graph as written, in double precision: that of the encoding of weights
    /// too, and of what passes write otherwise.
    pub outputs: Vec<f64>,
    /// What the structure, declared bounds and constants say without any data.
    pub notes: Vec<Note>,
    /// How long the half-precision run took, and the double-precision one.
    pub took: [Duration; 2],
    pub(super) results: Vec<Value>,
    pub(super) feeds: Vec<Value>,
}

impl Diagnosis {
    pub(super) fn empty(target: Target) -> Diagnosis {
        Diagnosis {
            target,
            numerics: Numerics::Ane(target.family()),
            tolerance: super::TOLERANCE,
            nodes: Vec::new(),
            outputs: Vec::new(),
            notes: Vec::new(),
            took: [Duration::ZERO; 2],
            results: Vec::new(),
            feeds: Vec::new(),
        }
    }

    /// Nodes with troubles, in order.
    pub fn troubled(&self) -> impl Iterator<Item = &NodeReport> {
        self.nodes.iter().filter(|node| !node.troubles.is_empty())
    }

    /// The first node with a trouble.
    pub fn first(&self) -> Option<&NodeReport> {
        self.troubled().next()
    }

    /// Whether no result has an error beyond the tolerance, and no node a trouble but such an error, which then did not reach the
    /// results. Without data, whether no note is of a risk.
    pub fn is_safe(&self) -> bool {
        match self.nodes.is_empty() {
            true => !self.notes.iter().any(|note| note.risk),
            false => {
                let mut troubles = self.nodes.iter().flat_map(|node| &node.troubles);
                let only_errors = troubles.all(|values| values.trouble == Trouble::Error);
                let encodings = self.notes.iter().any(|note| note.kind == ENCODING);
                only_errors && !encodings && self.outputs.iter().all(|error| *error <= self.tolerance)
            }
        }
    }

    /// What the program returns, in half precision; after that, what becomes of state.
    pub fn results(&self) -> Vec<Vec<f16>> {
        let read = |value: &Value| match &value.got {
            Got::Held(buffer) => buffer.values().map_or_else(Vec::new, |values| values.to_vec()),
            Got::Truth(_) => unreachable!("results are half precision"),
        };
        self.results.iter().map(read).collect()
    }

    /// As JSON: `target`, `numerics`, `tolerance`, `safe`, `outputs` (relative errors; `null` is infinite), `nodes` and `notes`.
    pub fn to_json(&self) -> serde_json::Value {
        let finite = |v: f64| v.is_finite().then_some(v);
        let nodes = self.nodes.iter().map(|node| {
            let troubles = node.troubles.iter().map(|Values { trouble, values, remedy }| {
                json!({ "trouble": trouble.name(), "values": values, "remedy": remedy })
            });
            json!({
                "op": node.op, "at": node.at.to_string(), "segment": node.segment, "type": node.ty.to_string(),
                "largest": finite(node.largest), "error": finite(node.error),
                "narrow_error": node.narrow.and_then(finite), "troubles": troubles.collect::<Vec<_>>(),
            })
        });
        let notes = self.notes.iter().map(|note| {
            json!({
                "op": note.op, "at": note.at.to_string(), "kind": note.kind, "reason": note.reason,
                "remedy": note.remedy, "risk": note.risk,
            })
        });
        json!({
            "target": self.target.name(), "numerics": self.numerics.name(), "tolerance": self.tolerance,
            "safe": self.is_safe(), "outputs": self.outputs.iter().map(|v| finite(*v)).collect::<Vec<_>>(),
            "nodes": nodes.collect::<Vec<_>>(), "notes": notes.collect::<Vec<_>>(),
            "seconds": self.took.map(|time| time.as_secs_f64()),
        })
    }

    /// One page of HTML that stands alone: the errors as a curve over the nodes, and the table.
    pub fn to_html(&self) -> String {
        super::page::page(self)
    }

    /// The headline.
    pub(super) fn headline(&self) -> String {
        let troubled = self.troubled().count();
        let worst = self.outputs.iter().fold(0.0f64, |worst, error| worst.max(*error));
        if self.nodes.is_empty() {
            let risks = self.notes.iter().filter(|note| note.risk).count();
            let verdict =
                if risks == 0 { "nothing is known to go wrong".into() } else { counted(risks, "risk") };
            return format!("{} ({}), without data: {verdict}", self.target, self.target.family());
        }
        let verdict = match (troubled, self.is_safe()) {
            (0, true) => "safe".to_owned(),
            (n, true) => format!("safe, {} beyond the tolerance on the way", counted(n, "node")),
            (0, false) if worst <= self.tolerance => "weights are stored with larger errors".to_owned(),
            (0, false) => "results differ".to_owned(),
            (n, false) => format!("{} in trouble", counted(n, "node")),
        };
        format!(
            "{} ({}, arithmetic {}): {verdict}; {}, largest relative error of a result {worst:.2e}",
            self.target,
            self.target.family(),
            self.numerics,
            counted(self.nodes.len(), "node"),
        )
    }
}

impl fmt::Display for NodeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} : {} (at {})", self.op, self.ty, self.at)?;
        write!(f, "\n    relative error {:.2e}, largest magnitude {:.4}", self.error, self.largest)?;
        if let Some(narrow) = self.narrow {
            write!(f, "; {narrow:.2e} if the sum is accumulated in half precision")?;
        }
        for Values { trouble, values, remedy } in &self.troubles {
            let count = counted(*values, "value");
            let said = match trouble {
                Trouble::Saturation => format!("{count} finite in half precision, infinite on this family"),
                Trouble::Overflow => format!("{count} infinite, of finite operands"),
                Trouble::Invalid if self.op == "input" => {
                    format!("{count} not a number, which the engine takes for +infinity")
                }
                Trouble::Invalid => format!("{count} not a number, stored as 0 by the engine"),
                Trouble::LostIntegers => format!("{count} whole numbers that half precision does not hold"),
                Trouble::NarrowSum => "wrong if the sum is accumulated in half precision".to_owned(),
                Trouble::Error => "the first whose error exceeds the tolerance".to_owned(),
            };
            write!(f, "\n    {}: {said}", trouble.name())?;
            if !remedy.is_empty() {
                write!(f, "; {remedy}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.headline())?;
        for node in self.troubled() {
            writeln!(f, "  {node}")?;
        }
        for note in self.notes.iter().filter(|note| note.risk) {
            writeln!(f, "  note: {note}")?;
        }
        Ok(())
    }
}
