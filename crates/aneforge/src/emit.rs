//! From a legal graph to a MIL program and the plan of its weight file. Emission decides nothing: it fills
//! in each op's spelling, one statement per node, and parts of one split share a statement.

pub(crate) mod encoded;

use crate::ir::attr::{Attr, Real};
use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::op::{Arg, Fixed, Lit, Mil, Op, Spelling};
use crate::ir::ops::leaf::Constant;
use crate::ir::ops::slice::Split;
use crate::ir::types::TensorType;
use aneforge_mil::program::Function;
use aneforge_mil::{
    self as mil, BlobDType, BlobLayout, BlobWriteError, BlobWriter, Literal, Port, Program, Stmt,
};
use aneforge_tensor::{DType, Encoding, f16};
use std::collections::HashMap;
use std::io::Write;

/// The plan of a weight file: what each record holds. Bytes are made when it is written.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Where each record lies.
    pub layout: BlobLayout,
    /// What each record holds.
    pub payloads: Vec<Payload>,
}

/// What a record of a weight file holds: a constant, or a part of one that is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The constant, by its place in the graph's table.
    pub constant: u64,
    /// The part, in the order of [`Weight::parts`](aneforge_tensor::Weight::parts).
    pub part: usize,
}

/// The program and weight file of a graph that is `Legal`.
///
/// # Panics
/// If the graph is not legal.
pub fn emit(graph: &Graph) -> (Program, Blob) {
    let mut emitter = Emitter {
        graph,
        names: Vec::with_capacity(graph.len()),
        body: Vec::new(),
        blob: Blob { layout: BlobLayout::default(), payloads: Vec::new() },
        splits: HashMap::new(),
    };
    for (id, node) in graph.nodes() {
        let name = emitter.node(id, node);
        emitter.names.push(name);
    }
    let port = |id: &NodeId| Port::new(emitter.names[id.index()].clone(), mil_type(graph.node(*id).ty));
    let params = graph.feeds().iter().map(port).collect();
    let returns = graph.outputs().iter().map(|id| emitter.names[id.index()].clone()).collect();
    (Program::new(Function::main(params, emitter.body, returns)), emitter.blob)
}

struct Emitter<'a> {
    graph: &'a Graph,
    names: Vec<String>,
    body: Vec<Stmt>,
    blob: Blob,
    splits: HashMap<(NodeId, i64, i64), String>,
}

impl Emitter<'_> {
    fn node(&mut self, id: NodeId, node: &GraphNode) -> String {
        let name = format!("t{}", id.0);
        match (&node.op, node.op.mil()) {
            (Op::Constant(Constant { index }), _) => self.constant(&name, *index, node.ty),
            (_, Mil::Leaf) => {}
            (Op::Split(split), Mil::Stmt(spelling)) => return self.split(name, split, &spelling, node),
            (_, Mil::Stmt(spelling) | Mil::StmtWith(spelling, ..)) => {
                let args = self.args(&name, &spelling, node);
                self.body.push(Stmt::op(Port::new(name.clone(), mil_type(node.ty)), spelling.op, args));
            }
            (_, Mil::Decompose(_) | Mil::Legalized | Mil::Composed(_) | Mil::Native(_)) => {
                panic!("invariant: a region of a legal graph has no {}", node.op.name())
            }
        }
        name
    }

    /// A scalar is written as a number, everything else as records of the weight file.
    fn constant(&mut self, name: &str, index: u64, ty: TensorType) {
        let weight = &self.graph.constants()[index as usize];
        if ty.shape.rank() == 0 {
            let mut value = [f16::ZERO];
            weight.read_f16(0, &mut value);
            let value = fp16(value[0].to_f64());
            self.body.push(Stmt::constant(name, value.ty(), value));
            return;
        }
        let blob = &mut self.blob;
        let mut record = |part: usize, of: BlobDType, bytes: usize| {
            blob.payloads.push(Payload { constant: index, part });
            blob.layout.push(of, bytes as u64)
        };
        if weight.encoding() == Encoding::Dense {
            let value = Literal::blob(mil::DType::Fp16, extents(ty), record(0, BlobDType::Fp16, ty.bytes()));
            self.body.push(Stmt::constant(name, mil_type(ty), value));
            return;
        }
        let spelling = encoded::Spelling::of(weight).expect("invariant: every encoding has a spelling");
        let parts = weight.parts();
        let literals = [0, 1].map(|at| {
            let dtype = spelling.parts[at].dtype;
            let of = BlobDType::of(dtype).expect("invariant: parts are numbers");
            Literal::blob(dtype, spelling.extents(weight, at), record(at, of, parts[at].bytes().len()))
        });
        self.body.extend(spelling.statements(name, mil_type(ty), literals));
    }

    /// The parts of one value are the results of one statement, whichever of them are used.
    fn split(&mut self, name: String, split: &Split, spelling: &Spelling, node: &GraphNode) -> String {
        let key = (node.inputs[0], split.num_splits, split.axis);
        let base = match self.splits.get(&key) {
            Some(base) => base.clone(),
            None => {
                let args = self.args(&name, spelling, node);
                let part = |i| Port::new(format!("{name}_part{i}"), mil_type(node.ty));
                self.body.push(Stmt::split((0..split.num_splits).map(part).collect(), &name, args));
                self.splits.insert(key, name.clone());
                name
            }
        };
        format!("{base}_part{}", split.index)
    }

    fn args(&mut self, name: &str, spelling: &Spelling, node: &GraphNode) -> Vec<(String, mil::Arg)> {
        let attrs = node.op.attrs();
        let attr = |wanted: &str| {
            let found = attrs.iter().find(|(name, _)| *name == wanted);
            &found.expect("invariant: spellings name declared attributes").1
        };
        let input = |index: usize| self.names[node.inputs[index].index()].clone();
        let mut named = Vec::new();
        let mut args = Vec::new();
        for (arg, source) in spelling.args {
            let value = match *source {
                Arg::In(index) => mil::Arg::Name(input(index)),
                Arg::All => mil::Arg::tuple((0..node.inputs.len()).map(input)),
                Arg::Inline(from, lit) => mil::Arg::Literal(literal(attr(from), lit)),
                Arg::InlineFixed(value) => mil::Arg::Literal(fixed(value)),
                Arg::Named(..) | Arg::NamedFixed(_) => {
                    let value = match *source {
                        Arg::Named(from, lit) => literal(attr(from), lit),
                        Arg::NamedFixed(value) => fixed(value),
                        _ => unreachable!("matched above"),
                    };
                    let helper = format!("{name}_{arg}");
                    named.push(Stmt::constant(helper.clone(), value.ty(), value));
                    mil::Arg::Name(helper)
                }
            };
            args.push(((*arg).to_owned(), value));
        }
        self.body.extend(named);
        args
    }
}

fn literal(attr: &Attr, lit: Lit) -> Literal {
    let int = |i: i64| i32::try_from(i).expect("invariant: legal extents fit 32 bits");
    match (lit, attr) {
        (Lit::Int32, Attr::Int(i)) => Literal::int32(int(*i)),
        (Lit::Uint32, Attr::Int(i)) => {
            Literal::uint32(u32::try_from(*i).expect("invariant: legal factors fit 32 bits"))
        }
        (Lit::Ints, Attr::Ints(v)) => Literal::ints(&v.iter().map(|&i| int(i)).collect::<Vec<_>>()),
        (Lit::Fp16, Attr::Real(k)) => fp16(Real(*k).0),
        (Lit::Fp32, Attr::Int(i)) => Literal::fp32(*i as f32).expect("invariant: integers are finite"),
        (Lit::Bool, Attr::Bool(b)) => Literal::bool(*b),
        (Lit::Switch(no, yes), Attr::Bool(b)) => Literal::string(if *b { yes } else { no }),
        (Lit::Str, Attr::Str(s)) => Literal::string(s.clone()),
        (lit, attr) => unreachable!("spelling wants {lit:?}, the attribute is {attr}"),
    }
}

fn fixed(value: Fixed) -> Literal {
    match value {
        Fixed::Bool(b) => Literal::bool(b),
        Fixed::Str(s) => Literal::string(s),
        Fixed::Fp16(k) => fp16(k),
    }
}

fn fp16(k: f64) -> Literal {
    Literal::fp16(k).expect("invariant: legal scalars fit half precision")
}

fn extents(ty: TensorType) -> Vec<u64> {
    ty.shape.dims().iter().map(|&d| d as u64).collect()
}

/// The MIL type of a graph value.
pub(crate) fn mil_type(ty: TensorType) -> mil::Type {
    let dtype = match ty.dtype {
        DType::F16 => mil::DType::Fp16,
        DType::U8 => mil::DType::Uint8,
        DType::Bool => mil::DType::Bool,
        other => unreachable!("graph values are fp16, uint8 or bool, not {other}"),
    };
    mil::Type::tensor(dtype, extents(ty))
}

/// Elements that are encoded at a time: large enough that buffered files are written without a copy.
const CHUNK: usize = 1 << 17;

impl Blob {
    /// Writes every constant, in order: half precision, of which no more than a chunk is held, or as it is encoded.
    pub fn write<W: Write>(&self, graph: &Graph, sink: W) -> Result<W, BlobWriteError> {
        let mut writer = BlobWriter::new(sink, self.layout.clone())?;
        let mut chunk = vec![f16::ZERO; CHUNK];
        for &Payload { constant, part } in &self.payloads {
            let weight = &graph.constants()[constant as usize];
            writer.begin()?;
            let Some(tensor) = weight.dense() else {
                writer.write(weight.parts()[part].bytes())?;
                continue;
            };
            let count = tensor.shape().count();
            for start in (0..count).step_by(CHUNK) {
                let chunk = &mut chunk[..(count - start).min(CHUNK)];
                tensor.read_f16(start, chunk);
                writer.write(as_bytes(chunk))?;
            }
        }
        writer.finish()
    }
}

fn as_bytes(values: &[f16]) -> &[u8] {
    bytemuck::cast_slice(values)
}
