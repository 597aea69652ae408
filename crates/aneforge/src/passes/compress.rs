//! Weights in fewer bytes, where that is asked for: which, and why not.

use crate::ir::attr::Real;
use crate::ir::graph::{Graph, NodeId};
use crate::ir::op::Op;
use crate::ir::ops::leaf::Constant;
use crate::ir::types::Caller;
use crate::passes::scaled::{self, Stored};
use crate::passes::{PassError, encoded, legal};
use crate::quantize::{self, Seen, calibrated_int8, calibrated_lut4, relative_error};
use crate::target::{Family, Target, native_streams};
use aneforge_kernels::threads::Pool;
use aneforge_tensor::{Encoding, Shape, Weight};
use std::collections::HashMap;
use std::fmt;

/// In which form weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// The form that is tried.
    pub form: Form,
    /// The largest relative error (see [`relative_error`], and [`Seen::error`] where it was calibrated) of a 4-bit table or of
    /// blocks, beyond which a weight is stored in another form. Bytes with a scale per row have no limit.
    pub tolerance: Real,
    /// The columns that share a scale, in blocks: as many as divide a row, at most.
    pub block: usize,
    /// Whether a calibrated 4-bit table may have the scales of a weight's rows taken out, which are then multiplied by behind the
    /// op, where products are nearer so.
    pub scales: bool,
}

/// What [`Compression`] tries, and what it falls back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Bytes with a scale per row, or per matrix of a batch; else in full.
    Int8,
    /// Places in a table of 16 values; else as `Int8`.
    Int4,
    /// A bit mask and the values that are not zero, where at least half are; else in full.
    Sparse,
    /// Bytes with a scale per block, of matrices; else in full.
    Blockwise,
    /// The smallest form that the target's family reads as it is ([`native_streams`]): sparse, 4-bit, then bytes.
    Auto,
}

impl Compression {
    /// The tolerance of the reference, which most tables of 16 values exceed (a normally distributed weight's is 0.1).
    pub const TOLERANCE: f64 = 0.05;
    /// The block of the reference.
    pub const BLOCK: usize = 32;

    /// In this form, with the reference's tolerance and block.
    pub fn new(form: Form) -> Compression {
        Compression { form, tolerance: Real(Compression::TOLERANCE), block: Compression::BLOCK, scales: true }
    }

    /// The same with this tolerance.
    #[must_use]
    pub fn tolerance(self, tolerance: f64) -> Compression {
        Compression { tolerance: Real(tolerance), ..self }
    }

    /// The same with blocks of so many columns.
    #[must_use]
    pub fn block(self, block: usize) -> Compression {
        Compression { block, ..self }
    }

    /// The same with or without scales behind ops.
    #[must_use]
    pub fn scales(self, scales: bool) -> Compression {
        Compression { scales, ..self }
    }
}

impl Form {
    /// Every form, with its name.
    pub const NAMED: [(&'static str, Form); 5] = [
        ("int8", Form::Int8),
        ("int4", Form::Int4),
        ("sparse", Form::Sparse),
        ("blockwise", Form::Blockwise),
        ("auto", Form::Auto),
    ];

    /// The form of this name, in any case.
    pub fn named(name: &str) -> Option<Form> {
        let name = name.trim();
        Form::NAMED.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|&(_, form)| form)
    }

    /// What is tried, in turn.
    fn encodings(self) -> &'static [Encoding] {
        match self {
            Form::Int8 => &[Encoding::Int8],
            Form::Int4 => &[Encoding::Lut4, Encoding::Int8],
            Form::Sparse => &[Encoding::Sparse],
            Form::Blockwise => &[Encoding::Blockwise],
            Form::Auto => &[Encoding::Sparse, Encoding::Lut4, Encoding::Int8],
        }
    }
}

/// How a weight is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightReport {
    /// The op that reads it first.
    pub op: String,
    /// The line that built that op.
    pub at: Caller,
    /// Its extents, as the program stores it: of a linear layer `[outputs, inputs]`.
    pub shape: Shape,
    /// The form it is stored in.
    pub encoding: Encoding,
    /// Whether it is without the scales of its rows, which the program multiplies by behind the op.
    pub scaled: bool,
    /// Bytes that it takes, with such scales.
    pub bytes: usize,
    /// Bytes that it would take in half precision.
    pub dense_bytes: usize,
    /// See [`relative_error`]; of what is stored in full, that of rounding to half precision.
    pub error: f64,
    /// The error of what the op computes of the calibration's inputs ([`Seen::error`]), where the weight was calibrated.
    pub calibrated: Option<f64>,
    /// Why it is not in the form that was tried first, if it is not, or not calibrated, or with few rows.
    pub why: String,
}

impl WeightReport {
    /// All of it as JSON, the shape as a list.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let WeightReport { op, at, shape, encoding, scaled, bytes, dense_bytes, error, calibrated, why } =
            self;
        serde_json::json!({
            "op": op,
            "at": at.to_string(),
            "shape": shape.dims(),
            "encoding": encoding.name(),
            "scaled": scaled,
            "bytes": bytes,
            "dense_bytes": dense_bytes,
            "error": error,
            "calibrated": calibrated,
            "why": why,
        })
    }
}

impl fmt::Display for WeightReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WeightReport { op, at, shape, encoding, scaled, bytes, dense_bytes, error, calibrated, why } =
            self;
        let scaled = if *scaled { " and scales of rows" } else { "" };
        write!(f, "{op} {shape}: {encoding}{scaled}, {bytes} of {dense_bytes} bytes, error {error:.1e}")?;
        if let Some(error) = calibrated {
            write!(f, ", calibrated to {error:.1e}")?;
        }
        if !why.is_empty() {
            write!(f, " ({why})")?;
        }
        write!(f, " (at {at})")
    }
}

/// What is known of how weights are used: for each constant of a legal graph what it is multiplied with, or why that is not
/// known.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// By the constant's place in the table.
    pub weights: Vec<Result<Seen, String>>,
    /// Threads to choose codes on, which change none.
    pub threads: usize,
}

/// A legal graph with weights in the form that is asked for, and how each that may be encoded is stored.
pub fn compress(
    graph: &Graph,
    compression: Compression,
    target: Target,
    calibration: Option<&Calibration>,
) -> Result<(Graph, Vec<WeightReport>), PassError> {
    let (mut reports, mut scales) = (Vec::new(), HashMap::new());
    let mut compressed = graph.clone();
    let pool = calibration.map(|calibration| Pool::new(calibration.threads.max(1)));
    for (index, readers) in readers(graph).into_iter().enumerate() {
        let Some(&(op, operand, at)) = readers.first() else { continue };
        let weight = &graph.constants[index];
        let fits = |encoded: &Weight| {
            let mut readers = readers.iter().enumerate();
            readers.find_map(|(nth, &(op, operand, _))| {
                let refusal = encoded::refusal(op, operand, encoded)?;
                Some(if nth == 0 { refusal.into() } else { format!("`{}` reads it too", op.name()) })
            })
        };
        if aneforge_kernels::threads::stopped() {
            return Err(PassError::Stopped);
        }
        let seen = calibration.and_then(|calibration| calibration.weights.get(index));
        let known = pool.as_ref().zip(seen.and_then(|seen| seen.as_ref().ok()));
        let turned = matches!(op, Op::ConvTranspose(_));
        let may_be = turned || matches!(op, Op::Matmul(_) | Op::Conv(_) | Op::Bmm(_) | Op::BmmW(_));
        if !may_be || operand != 1 {
            continue;
        }
        let (stored, mut why) = match weight.encoding() {
            _ if turned => {
                (weight.clone().into(), "transposed convolutions take none that is encoded".into())
            }
            Encoding::Dense => {
                let scales = compression.scales && readers.len() == 1 && scaled::takes(op);
                chosen(weight, Compression { scales, ..compression }, target.family(), fits, known)
            }
            _ => (weight.clone().into(), "it came so".into()),
        };
        let encoded = stored.weight.encoding() != Encoding::Dense;
        if let Some(caveat) = seen.filter(|_| encoded).and_then(caveat) {
            why = if why.is_empty() { caveat } else { format!("{why}; {caveat}") };
        }
        let said = (op.name().to_owned(), at, why);
        reports.push(report(weight, &stored, known, said));
        compressed.constants[index] = stored.weight;
        scales.extend(stored.scaled.map(|(of_rows, _)| (index, of_rows)));
    }
    if aneforge_kernels::threads::stopped() {
        return Err(PassError::Stopped);
    }
    if !scales.is_empty() {
        compressed = scaled::put_behind(&compressed, &scales)?;
    }
    legal::check(&compressed, target)?;
    Ok((compressed, reports))
}

/// What there is to say of what a weight is multiplied with.
fn caveat(seen: &Result<Seen, String>) -> Option<String> {
    match seen {
        Ok(seen) => seen.caveat(),
        Err(not) => Some(format!("not calibrated: {not}")),
    }
}

/// How that weight is stored, of this op, built there, and why so.
fn report(
    weight: &Weight,
    stored: &Stored,
    known: Option<(&Pool, &Seen)>,
    (op, at, why): (String, Caller, String),
) -> WeightReport {
    let encoded = stored.weight.encoding() != Encoding::Dense;
    WeightReport {
        op,
        at,
        shape: weight.shape(),
        encoding: stored.weight.encoding(),
        scaled: stored.scaled.is_some(),
        bytes: stored.bytes(),
        dense_bytes: weight.shape().count() * 2,
        error: relative_error(weight, stored.stands()),
        calibrated: known.filter(|_| encoded).map(|(pool, seen)| seen.error(weight, stored.stands(), pool)),
        why,
    }
}

/// An op, as which operand it reads a constant, and the line that built it.
type Reader<'a> = (&'a Op, usize, Caller);

/// Who reads each constant of the table; of one that is returned, the constant itself does.
fn readers(graph: &Graph) -> Vec<Vec<Reader<'_>>> {
    let mut readers = vec![Vec::new(); graph.constants.len()];
    let index = |id: NodeId| match graph.node(id).op {
        Op::Constant(Constant { index }) => Some(index as usize),
        _ => None,
    };
    let reads =
        graph.nodes().flat_map(|(_, node)| node.inputs.iter().enumerate().map(move |read| (node, read)));
    for (node, (operand, &input)) in reads {
        if let Some(index) = index(input) {
            readers[index].push((&node.op, operand, node.at));
        }
    }
    for &output in graph.outputs() {
        if let Some(index) = index(output) {
            readers[index].push((&graph.node(output).op, 0, graph.node(output).at));
        }
    }
    readers
}

/// A weight as the one quantiser makes it, which knows how it is used, or else the other.
fn by_use(
    weight: &Weight,
    known: Option<(&Pool, &Seen)>,
    calibrated: impl Fn(&Weight, &Seen, &Pool) -> Option<Weight>,
    plain: impl Fn(&Weight) -> Option<Weight>,
) -> Option<Weight> {
    known.and_then(|(pool, seen)| calibrated(weight, seen, pool)).or_else(|| plain(weight))
}

/// The first form that a weight may be stored in, and why it is not the one before.
fn chosen(
    weight: &Weight,
    compression: Compression,
    family: Family,
    refused: impl Fn(&Weight) -> Option<String>,
    known: Option<(&Pool, &Seen)>,
) -> (Stored, String) {
    let mut why: Vec<String> = Vec::new();
    for &encoding in compression.form.encodings() {
        if compression.form == Form::Auto && !native_streams(family).contains(&encoding) {
            why.push(format!("not {encoding}: {family} expands it when a program loads"));
            continue;
        }
        let (encoded, missing) = match encoding {
            Encoding::Int8 => (by_use(weight, known, calibrated_int8, quantize::int8), "it has no rows"),
            Encoding::Lut4 => (by_use(weight, known, calibrated_lut4, quantize::lut4), "it has no rows"),
            Encoding::Sparse => (quantize::sparse(weight), "less than half of it is zero, or all"),
            Encoding::Blockwise => (quantize::blockwise(weight, compression.block), "it is no matrix"),
            Encoding::Dense => (None, ""),
        };
        let Some(encoded) = encoded else {
            why.push(format!("not {encoding}: {missing}"));
            continue;
        };
        if let Some(refusal) = refused(&encoded) {
            why.push(format!("not {encoding}: {refusal}"));
            continue;
        }
        let encoded = match known {
            Some((pool, seen)) if compression.scales && encoding == Encoding::Lut4 => {
                scaled::nearer(weight, encoded, pool, seen)
            }
            _ => encoded.into(),
        };
        let (stored, dense) = (encoded.bytes(), weight.shape().count() * 2);
        if stored >= dense {
            why.push(format!("not {encoding}: it would take {stored} bytes, and {dense} in half precision"));
            continue;
        }
        let limited = matches!(encoding, Encoding::Lut4 | Encoding::Blockwise);
        let error = match known {
            _ if !limited => 0.0,
            Some((pool, seen)) => seen.error(weight, encoded.stands(), pool),
            None => relative_error(weight, encoded.stands()),
        };
        if error > compression.tolerance.0 {
            why.push(format!("not {encoding}: error {error:.3}, above {}", compression.tolerance.0));
            continue;
        }
        return (encoded, why.join("; "));
    }
    (weight.clone().into(), why.join("; "))
}
