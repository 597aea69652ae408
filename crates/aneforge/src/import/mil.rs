//! Reading MIL back: the table that emits statements also recognises them.

use crate::emit::mil_type;
use crate::import::weights::{self, Weights};
use crate::ir::attr::Attr;
use crate::ir::graph::Graph;
use crate::ir::op::{Arg, Entry, Fixed, Lit, Mil, OPS, Op, Spelling};
use crate::ir::ops::slice::Split;
use crate::ir::types::{Caller, TensorType};
use crate::ir::var::{BuildError, Var};
use aneforge_mil::program::TensorValue;
use aneforge_mil::{self as mil, BlobError, BlobFile, Literal, Program, Stmt};
use aneforge_tensor::{Bytes, DType, Shape, Tensor, Weight};
use std::collections::HashMap;

/// A program is not one that this project can run. The file's fault, or an op that is not read yet.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReadError {
    /// The weight file is damaged.
    #[error("weights: {0}")]
    Blob(#[from] BlobError),
    /// A statement is not understood.
    #[error("statement `{name}`: {why}")]
    Statement {
        /// The statement's first result.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A statement is understood but invalid.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The program as a whole is not one function with results.
    #[error("program: {0}")]
    Program(String),
}

/// The graph that a program and its weight file compute.
pub fn read(program: &Program, weights: &Bytes) -> Result<Graph, ReadError> {
    read_named(program, weights, "<mil>")
}

/// The graph that a program in a file of this name, and its weight file, compute. Messages about its nodes name the file.
pub fn read_named(program: &Program, weights: &Bytes, file: &str) -> Result<Graph, ReadError> {
    Caller::named(file, 0).scope(|| graph(program, weights))
}

fn graph(program: &Program, weights: &Bytes) -> Result<Graph, ReadError> {
    let [function] = &program.functions[..] else {
        return Err(ReadError::Program(format!("expected one function, found {}", program.functions.len())));
    };
    let file = BlobFile::parse(weights)?;
    let weights = Weights { bytes: weights, file, records: HashMap::new() };
    let mut reader = Reader { weights, values: HashMap::new(), literals: HashMap::new() };
    for port in &function.params {
        let ty = graph_type(&port.ty).map_err(|why| ReadError::Statement { name: port.name.clone(), why })?;
        let named = Var::named_input(ty, &port.name);
        // Names of MIL may have characters that ours may not.
        let input = if named.check().is_ok() { named } else { Var::input_of(ty) };
        reader.values.insert(&port.name, input);
    }
    for stmt in &function.body {
        let name = stmt.results.first().map_or_else(String::new, |r| r.name.clone());
        reader.statement(stmt).map_err(|why| ReadError::Statement { name, why })?;
    }
    let outputs: Result<Vec<Var>, ReadError> = function
        .returns
        .iter()
        .map(|name| reader.values.get(name.as_str()).cloned().ok_or_else(|| undefined(name)))
        .collect();
    let outputs = outputs?;
    if outputs.is_empty() {
        return Err(ReadError::Program("nothing is returned".into()));
    }
    Ok(Graph::freeze(&outputs)?)
}

fn undefined(name: &str) -> ReadError {
    ReadError::Program(format!("`{name}` is returned but never computed"))
}

struct Reader<'a> {
    weights: Weights<'a>,
    values: HashMap<&'a str, Var>,
    literals: HashMap<&'a str, &'a Literal>,
}

/// What an argument of a statement turns out to be.
enum Found<'a> {
    Value(Var),
    Literal(&'a Literal),
}

impl<'a> Reader<'a> {
    fn statement(&mut self, stmt: &'a Stmt) -> Result<(), String> {
        let first = stmt.results.first().ok_or("has no result")?;
        if stmt.op == "const" {
            let value = stmt.attr("val").ok_or("a const has no `val`")?;
            match value {
                Literal::Tensor { value: TensorValue::Blob { .. }, .. } => {
                    if let Some(tensor) = self.weights.constant(&first.name, value)? {
                        self.values.insert(&first.name, Var::constant(tensor));
                    }
                }
                literal => {
                    self.literals.insert(&first.name, literal);
                }
            }
            return Ok(());
        }
        if let Some(spelling) = weights::encoded(stmt) {
            let weight = self.weights.decoded(stmt, spelling)?;
            self.values.insert(&first.name, Var::constant(weight));
            return Ok(());
        }
        if let Some(weight) = self.made_dense(stmt) {
            self.values.insert(&first.name, weight);
            return Ok(());
        }
        let candidates = OPS.iter().filter_map(|entry| match (entry.mil)() {
            Mil::Stmt(s) | Mil::StmtWith(s, ..) if s.op == stmt.op => Some((entry, s)),
            _ => None,
        });
        let mut reason = format!("op `{}` is not one that this project reads", stmt.op);
        for (entry, spelling) in candidates {
            match self.matches(stmt, entry, &spelling) {
                Ok((op, inputs)) => return self.results(stmt, op, &inputs),
                Err(why) => reason = why,
            }
        }
        Err(reason)
    }

    /// The block-wise weight that a sum with zero makes an operand of.
    fn made_dense(&self, stmt: &Stmt) -> Option<Var> {
        let [x, y] = ["x", "y"].map(|name| stmt.arg(name).map(|arg| self.find(arg)));
        match (stmt.op.as_str(), x?.ok()?, y?.ok()?) {
            ("add", Found::Value(weight), Found::Literal(Literal::Fp16(zero))) if zero.to_f64() == 0.0 => {
                Some(weight).filter(|weight| matches!(weight.data(), Some(Weight::Blockwise(_))))
            }
            _ => None,
        }
    }

    fn results(&mut self, stmt: &'a Stmt, op: Op, inputs: &[Var]) -> Result<(), String> {
        let inputs: Vec<&Var> = inputs.iter().collect();
        for (index, result) in stmt.results.iter().enumerate() {
            let op = match &op {
                Op::Split(split) => Split { index: index as i64, ..split.clone() }.into(),
                op => op.clone(),
            };
            let var = Var::try_apply(op, &inputs).map_err(|e| e.to_string())?;
            if mil_type(var.ty()) != result.ty {
                return Err(format!("is declared {}, but computes {}", result.ty, mil_type(var.ty())));
            }
            self.values.insert(&result.name, var);
        }
        Ok(())
    }

    /// The op and inputs that `stmt` is an instance of this row with.
    fn matches(&self, stmt: &'a Stmt, entry: &Entry, spelling: &Spelling) -> Result<(Op, Vec<Var>), String> {
        let unknown = stmt.args.iter().find(|(name, _)| !spelling.args.iter().any(|(n, _)| n == name));
        if let Some((name, _)) = unknown {
            return Err(format!("{} takes no argument `{name}`", stmt.op));
        }
        let mut inputs: Vec<(usize, Var)> = Vec::new();
        let mut attrs: HashMap<&str, Attr> = HashMap::new();
        for (name, source) in spelling.args {
            let arg = stmt.arg(name).ok_or_else(|| format!("{} lacks its argument `{name}`", stmt.op))?;
            let wrong = || format!("argument `{name}` of {} is not of the expected kind", stmt.op);
            match (*source, arg) {
                (Arg::All, mil::Arg::Tuple(names)) => {
                    for (index, name) in names.iter().enumerate() {
                        inputs.push((index, value(self.named(name)?)?));
                    }
                }
                (Arg::In(index), arg) => inputs.push((index, value(self.find(arg)?)?)),
                (Arg::Named(attr, lit) | Arg::Inline(attr, lit), arg) => match self.find(arg)? {
                    Found::Literal(literal) => {
                        let value = attribute(literal, lit).ok_or_else(wrong)?;
                        if attrs.get(attr).is_some_and(|earlier| *earlier != value) {
                            return Err(format!("argument `{name}` of {} must equal its others", stmt.op));
                        }
                        attrs.insert(attr, value);
                    }
                    Found::Value(_) => return Err(wrong()),
                },
                (Arg::NamedFixed(value) | Arg::InlineFixed(value), arg) => match self.find(arg)? {
                    Found::Literal(literal) if is_fixed(literal, value) => {}
                    _ => return Err(wrong()),
                },
                (Arg::All, _) => return Err(wrong()),
            }
        }
        inputs.sort_by_key(|(index, _)| *index);
        let op = (entry.from_attrs)(&|name| attrs.get(name).cloned())?;
        Ok((op, inputs.into_iter().map(|(_, var)| var).collect()))
    }

    fn find<'b>(&'b self, arg: &'b mil::Arg) -> Result<Found<'b>, String> {
        match arg {
            mil::Arg::Name(name) => self.named(name),
            mil::Arg::Literal(literal) => Ok(Found::Literal(literal)),
            mil::Arg::Tuple(_) => Err("a tuple stands where a value is expected".into()),
        }
    }

    fn named(&self, name: &str) -> Result<Found<'_>, String> {
        match (self.values.get(name), self.literals.get(name)) {
            (Some(var), _) => Ok(Found::Value(var.clone())),
            (None, Some(literal)) => Ok(Found::Literal(literal)),
            (None, None) if self.weights.records.contains_key(name) => {
                Err(format!("`{name}` is part of an encoded weight and no value"))
            }
            (None, None) => Err(format!("`{name}` is used before it is defined")),
        }
    }
}

/// A scalar literal in the place of a value is a constant.
fn value(found: Found<'_>) -> Result<Var, String> {
    match found {
        Found::Value(var) => Ok(var),
        Found::Literal(Literal::Fp16(v)) => Ok(Var::constant(Tensor::scalar(*v))),
        Found::Literal(other) => Err(format!("{} is not a value", other.ty())),
    }
}

fn attribute(literal: &Literal, lit: Lit) -> Option<Attr> {
    match (lit, literal) {
        (Lit::Int32 | Lit::Uint32, Literal::Int { value, .. }) => Some(Attr::Int(*value)),
        (Lit::Fp32, Literal::Fp32(v)) if v.fract() == 0.0 => Some(Attr::Int(*v as i64)),
        (Lit::Ints, Literal::Tensor { value: TensorValue::Ints(values), .. }) => {
            Some(Attr::Ints(values.clone()))
        }
        (Lit::Fp16, Literal::Fp16(v)) => Some(Attr::Real(v.to_f64())),
        (Lit::Bool, Literal::Bool(b)) => Some(Attr::Bool(*b)),
        (Lit::Str, Literal::String(s)) => Some(Attr::Str(s.clone())),
        (Lit::Switch(no, yes), Literal::String(s)) if s == no || s == yes => Some(Attr::Bool(s == yes)),
        _ => None,
    }
}

fn is_fixed(literal: &Literal, value: Fixed) -> bool {
    match (literal, value) {
        (Literal::Bool(a), Fixed::Bool(b)) => *a == b,
        (Literal::String(a), Fixed::Str(b)) => a == b,
        (Literal::Fp16(a), Fixed::Fp16(b)) => a.to_f64() == b,
        _ => false,
    }
}

pub(super) fn shape_of(extents: &[u64]) -> Result<Shape, String> {
    let extents: Result<Vec<usize>, _> = extents.iter().map(|&d| usize::try_from(d)).collect();
    Shape::new(&extents.map_err(|_| "an extent does not fit this machine")?).map_err(|e| e.to_string())
}

fn graph_type(ty: &mil::Type) -> Result<TensorType, String> {
    let shape = shape_of(ty.shape())?;
    match ty.dtype() {
        mil::DType::Fp16 => Ok(TensorType::f16(shape)),
        mil::DType::Uint8 => Ok(TensorType { dtype: DType::U8, shape }),
        other => Err(format!("ports are fp16 or uint8, found {other}")),
    }
}
