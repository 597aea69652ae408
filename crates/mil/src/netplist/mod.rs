//! Netplists: programs of one native layer, which MIL cannot spell, as property lists with weight files.
//!
//! A netplist names one network with one procedure. Its *units* are layers; here there is always one. Units
//! read symbols (what is fed), and constants, which are slices of weight files. The compiler infers shapes
//! from the fed symbols; `OutputChannels` of a unit is not authoritative.
//!
//! Evidence for the schema: documents that ANEForge 0.4.0 writes and runs on device (arXiv 2606.17090).
//! Nothing here has run on silicon by this project.

mod plist;

pub use plist::Value;

use crate::program::DType;

/// A document's schema version, as accepted on device (reference).
pub const VERSION: &str = "1.0.10";
/// The file name of the document.
pub const NET_FILE: &str = "net.plist";
/// The number of bytes of `weights.0`, which must exist and is read by nothing.
pub const UNUSED_WEIGHTS: usize = 0;
/// The symbol of the result.
pub const RESULT: &str = "y";
/// The unit's name.
const UNIT: &str = "op-1";
/// The operation's name.
const OPERATION: &str = "op0";

/// One native layer: what the engine is given, and how bytes on the host map to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// The layer's kind, such as `Sort`.
    pub kind: &'static str,
    /// Its parameters.
    pub params: Vec<(&'static str, Value)>,
    /// What is fed, in the order of the layer's operands, each with its place among the op's inputs.
    pub feeds: Vec<(usize, Symbol)>,
    /// An operand that is a constant.
    pub constant: Option<Constant>,
    /// `OutputChannels` of the unit; some layers must not have the key.
    pub unit_channels: Option<usize>,
    /// `OutputChannels` of the procedure's output, where it differs from what the compiler would infer.
    pub output_channels: Option<usize>,
    /// What comes back: the extents that the layer computes, and how the host's value is made of them.
    pub result: Symbol,
    /// The program computes one row; it is run once per row of the operand and of the result.
    pub per_row: bool,
}

impl Layer {
    /// A layer without constants whose unit has `OutputChannels`, run once.
    pub fn new(
        kind: &'static str,
        params: impl IntoIterator<Item = (&'static str, Value)>,
        feeds: impl IntoIterator<Item = Symbol>,
        result: Symbol,
    ) -> Layer {
        Layer {
            kind,
            params: params.into_iter().collect(),
            feeds: feeds.into_iter().enumerate().collect(),
            constant: None,
            unit_channels: Some(result.extents[1]),
            output_channels: None,
            result,
            per_row: false,
        }
    }
}

/// A value that crosses between the host and the engine.
#[derive(Clone, Debug, PartialEq)]
pub struct Symbol {
    /// Its name in the document.
    pub name: &'static str,
    /// Batch, channels, height, width.
    pub extents: [usize; 4],
    /// How the host's value becomes the dense operand, or the dense result the host's value.
    pub transfer: Transfer,
}

impl Symbol {
    /// A value whose bytes are the host's, as they are.
    pub fn dense(name: &'static str, extents: [usize; 4]) -> Symbol {
        Symbol { name, extents, transfer: Transfer::Dense }
    }

    /// A value whose axes are exchanged on the way.
    pub fn permuted(name: &'static str, extents: [usize; 4], perm: &'static [usize]) -> Symbol {
        Symbol { name, extents, transfer: Transfer::Permuted(perm) }
    }
}

/// How dense host bytes and the engine's dense operand relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// They are the same bytes.
    Dense,
    /// The axes of the value on the reading side are those of the writing side in this order.
    Permuted(&'static [usize]),
    /// Rows of two bytes per element, of which the first half of each row holds one byte per element: 0
    /// or 1. The layer declares half precision and writes bytes.
    Flags,
}

/// A constant operand: one element, from a weight file of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// Its name in the document.
    pub name: &'static str,
    /// Its place among the operands.
    pub operand: usize,
    /// Half precision, or 16-bit unsigned integers.
    pub dtype: DType,
    /// Two bytes, little endian.
    pub bytes: [u8; 2],
}

/// A document with its weight files.
#[derive(Clone, Debug, PartialEq)]
pub struct Netplist {
    /// The property list.
    pub document: Value,
    /// Names and contents of the weight files that it lists.
    pub weights: Vec<(String, Vec<u8>)>,
    /// What the document describes.
    pub layer: Layer,
}

/// A scalar parameter that the engine's parser reads as the bits of a half-precision number. A real there
/// is read as an integer near zero, and the layer then does nothing (ANEForge 0.4.0).
pub fn half_bits(value: f64) -> Value {
    Value::Int(i64::from(crate::program::round_to_f16(value).to_bits()))
}

impl Netplist {
    /// The document of one layer in a network of this name.
    pub fn new(network: &str, layer: Layer) -> Netplist {
        let mut weights = vec![("weights.0".to_owned(), vec![0; UNUSED_WEIGHTS])];
        weights.extend(layer.constant.as_ref().map(|c| ("weights.1".to_owned(), c.bytes.to_vec())));
        let (name, procedure) = (format!("network_{network}"), format!("procedure_{network}"));
        let document = Value::dict([
            ("Version", VERSION.into()),
            ("Networks", Value::strings([name.clone()])),
            ("ProcedureList", vec![layer.procedure(&procedure, &name)].into()),
            (&name, layer.network(weights.iter().map(|(file, _)| file))),
        ]);
        Netplist { document, weights, layer }
    }
}

fn type_name(dtype: DType) -> &'static str {
    match dtype {
        DType::Uint16 => "UInt16",
        _ => "Float16",
    }
}

impl Layer {
    fn procedure(&self, name: &str, network: &str) -> Value {
        let input = |(_, symbol): &(usize, Symbol)| {
            let [batch, channels, height, width] = symbol.extents;
            Value::dict([
                // The unit that reads it; a symbol read by two units would be listed twice.
                ("Name", UNIT.into()),
                ("InputName", symbol.name.into()),
                ("OperationName", OPERATION.into()),
                ("InputType", "Float16".into()),
                ("BatchSize", batch.into()),
                ("InputChannels", channels.into()),
                ("InputDepth", 1usize.into()),
                ("InputHeight", height.into()),
                ("InputWidth", width.into()),
                ("InputInterleave", 1usize.into()),
            ])
        };
        let mut output = vec![
            ("Name", UNIT.into()),
            ("OutputName", RESULT.into()),
            ("OperationName", OPERATION.into()),
            ("OutputType", "Float16".into()),
            ("OutputInterleave", 1usize.into()),
        ];
        output.extend(self.output_channels.map(|n| ("OutputChannels", n.into())));
        let operation = Value::dict([("NetworkName", network.into()), ("OperationName", OPERATION.into())]);
        Value::dict([
            ("Name", name.into()),
            ("InputList", Value::Array(self.feeds.iter().map(input).collect())),
            ("OperationList", vec![operation].into()),
            ("OutputList", vec![Value::dict(output)].into()),
        ])
    }

    fn network<'a>(&self, files: impl Iterator<Item = &'a String>) -> Value {
        let mut network = vec![
            ("Units", Value::strings([UNIT])),
            ("Weights", Value::strings(files.cloned())),
            (UNIT, self.unit()),
            (
                RESULT,
                Value::dict([
                    ("Bottom", UNIT.into()),
                    ("OutputName", RESULT.into()),
                    ("OutputType", "Float16".into()),
                    ("OutputInterleave", 1usize.into()),
                ]),
            ),
        ];
        if let Some(constant) = &self.constant {
            network.push(("Constants", Value::strings([constant.name])));
            network.push((constant.name, constant.entry()));
        }
        Value::dict(network)
    }

    fn unit(&self) -> Value {
        let mut operands: Vec<(&str, &str)> = self.feeds.iter().map(|(_, s)| (s.name, "Float16")).collect();
        if let Some(constant) = &self.constant {
            operands.insert(constant.operand, (constant.name, type_name(constant.dtype)));
        }
        let mut unit = vec![
            ("Type", self.kind.into()),
            ("Name", UNIT.into()),
            ("Bottom", Value::strings(operands.iter().map(|(name, _)| *name))),
            ("InputType", Value::strings(operands.iter().map(|(_, ty)| *ty))),
            ("OutputType", "Float16".into()),
            ("Params", Value::dict(self.params.iter().cloned())),
        ];
        unit.extend(self.unit_channels.map(|n| ("OutputChannels", n.into())));
        Value::dict(unit)
    }
}

impl Constant {
    /// Its entry in the network. Weight file 0 is unused, so a constant lies in file 1.
    fn entry(&self) -> Value {
        Value::dict([
            ("ConstantName", self.name.into()),
            ("ConstantType", type_name(self.dtype).into()),
            ("ConstantIndex", 1usize.into()),
            ("ConstantByteOffset", 0usize.into()),
            ("ConstantBatchSize", 1usize.into()),
            ("ConstantChannels", 1usize.into()),
            ("ConstantDepth", 1usize.into()),
            ("ConstantHeight", 1usize.into()),
            ("ConstantWidth", 1usize.into()),
            ("ConstantInterleave", 1usize.into()),
        ])
    }
}
