//! What a program must satisfy beyond its grammar.
//!
//! The invariants, each with the reference behind it unless it says otherwise:
//!
//! **Program and function**
//! 1. There is one function, `main`, in opset `ios18`.
//! 2. Parameters are `fp16` or `uint8` tensors of rank 1 or more. (The compiler's parser is documented to take int8, int16 and uint16
//!    as well; ANEForge 0.4.0 emits only these two.)
//! 3. The body is not empty, and no output is a parameter: that crashes the compiler
//!    ("unordered_map::at: key not found").
//! 4. There is at least one output; outputs are defined `fp16` tensors of rank 1 or more, each named once, as each
//!    becomes a port.
//!
//! **Names and types**
//!
//! 5. A name is a word of letters, digits and underscores that starts with no digit and is no type.
//! 6. A name is defined once, and before it is used.
//! 7. Tensors have rank 0 to 5 and axes of 1 to 65536. What only feeds a `constexpr_*` op never becomes a tensor of
//!    the engine, so there an axis only has to be at least 1 (a lookup table has the rank of the weight plus 2).
//!
//! **Statements**
//!
//! 8. The op is in [`crate::spec::OPS`]; every argument and attribute is one of its, given once; what is required
//!    is there.
//! 9. An argument has the form and type of its parameter. Where the emitter writes a named constant, a scalar may
//!    be an immediate and the reverse, as the compiler takes both. A string is one of the values the table names.
//! 10. There is one result, `name` says its name; `split` may have more, as many as `num_splits`, all of one type,
//!     and its `name` is a base name and `_split`.
//! 11. The result type follows the rule of the op where the table has one. A `const` has exactly the type of its
//!     literal. All results but those of `const` are tensors.
//! 12. `keep_dims` of a reduction is true and `interleave` of a `concat` is false: nothing else is ever emitted.
//!
//! **Literals**
//!
//! 13. Numbers are finite and in the range of their type; a tensor written inline has as many elements as its type.
//! 14. Strings need no escapes (our caution: the reference shows none).
//! 15. A record is of [`crate::WEIGHTS_PATH`]. If a directory is given, it has a record at the offset, with the
//!     element type and exactly the length of the tensor type.
//!
//! **Compressed weights**
//!
//! 16. `constexpr_affine_dequantize`: axis 0, zero point 0, data of the weight's shape, one scale per entry of the
//!     leading axis.
//! 17. `constexpr_lut_to_dense`: indices of the weight's shape, a table of two more axes, `[1, …, 1, 16, 1]`.
//! 18. `constexpr_sparse_to_dense`: a mask of the weight's shape, no more non-zeros than elements.
//! 19. `constexpr_blockwise_shift_scale`: data of the weight's shape, scales `[O, nblocks]`, rows that divide into the
//!     blocks; no weight of rank 4 or more (inferred by the reference, not tried).
//! 20. Results of the first three feed only `matmul.y` and `conv.weight`; a blockwise result feeds only elementwise
//!     ops. Neither is an output.
//!
//! **Definitions**
//!
//! 21. Parameters are in the [`crate::spec::Domain`]s of the op, which are those of coremltools 9.0.

mod domain;
mod fault;
mod literal;
mod weight;

use std::collections::{HashMap, HashSet};

pub use fault::{Fault, VerifyError};

use crate::blob::BlobDirectory;
use crate::program::{
    Arg, DType, Function, Literal, MAIN, OPSET, Port, Program, SPLIT_SUFFIX, Stmt, TensorValue, Type,
};
use crate::spec::{self, Given, OpSpec, ParamSpec, ParamType, ResultRule};

/// The largest rank of a tensor. Stated for ANEForge 0.4.0 (reference).
pub const MAX_RANK: usize = 5;

/// The largest size of an axis; families of chips have lower limits. Stated for ANEForge 0.4.0 (reference).
pub const MAX_DIM: u64 = 65536;

/// Checks every invariant of this module; records against `blobs` if it is given.
///
/// # Errors
/// All violations, in the order of the text. A program that somebody emitted and that fails here is a fault of the
/// emitter.
///
/// ```
/// use aneforge_mil::{Port, Program, Stmt, Type, program::Function, verify};
/// let relu = Stmt::op(Port::new("y", Type::fp16([2, 8])), "relu", [("x", "z".into())]);
/// let input = Port::new("x", Type::fp16([2, 8]));
/// let errors = verify(&Program::new(Function::main(vec![input], vec![relu], vec!["y".into()])), None).unwrap_err();
/// assert_eq!(
///     errors[0].to_string(),
///     "relu.x: `z` is not defined before its use\n\
///      in `y`: tensor<fp16, [2, 8]> y = relu(x = z)[name = string(\"y\")];"
/// );
/// ```
pub fn verify(program: &Program, blobs: Option<&BlobDirectory>) -> Result<(), Vec<VerifyError>> {
    let mut errors = Vec::new();
    if program.functions.len() != 1 {
        let fault = Fault::Functions { count: program.functions.len() };
        errors.push(VerifyError { subject: MAIN.to_owned(), line: "program".to_owned(), fault });
    }
    for function in &program.functions {
        let mut checker = Checker { blobs, defs: HashMap::new(), folded: folded(function) };
        checker.function(function, &mut errors);
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// The names that a `constexpr_*` op consumes.
fn folded(function: &Function) -> HashSet<&str> {
    let constexprs = function.body.iter().filter(|s| weight::Class::of(s).is_some());
    constexprs.flat_map(|s| s.args.iter()).flat_map(|(_, arg)| arg.names()).collect()
}

/// A defined name: its type, and the statement unless it is a parameter.
#[derive(Clone, Copy)]
struct Def<'a> {
    ty: &'a Type,
    stmt: Option<&'a Stmt>,
}

impl<'a> Def<'a> {
    /// The literal, if this is a `const`.
    fn literal(self) -> Option<&'a Literal> {
        self.stmt.filter(|s| s.op == "const")?.attr("val")
    }
}

struct Checker<'a> {
    blobs: Option<&'a BlobDirectory>,
    defs: HashMap<&'a str, Def<'a>>,
    folded: HashSet<&'a str>,
}

impl<'a> Checker<'a> {
    fn function(&mut self, function: &'a Function, errors: &mut Vec<VerifyError>) {
        let mut report = |subject: &str, line: &str, faults: Vec<Fault>| {
            errors.extend(faults.into_iter().map(|fault| VerifyError::new(subject, line, fault)));
        };
        let head = format!("func {}<{}>", function.name, function.opset);
        let mut faults = Vec::new();
        if function.name != MAIN {
            faults.push(Fault::Main);
        }
        if function.opset != OPSET {
            faults.push(Fault::Opset { found: function.opset.clone() });
        }
        if function.body.is_empty() {
            faults.push(Fault::EmptyBody);
        }
        if function.returns.is_empty() {
            faults.push(Fault::NoOutput);
        }
        report(&function.name, &head, faults);
        for param in &function.params {
            let mut faults = self.define(param, None);
            if !matches!(param.ty, Type::Tensor { dtype: DType::Fp16 | DType::Uint8, .. })
                || param.ty.shape().is_empty()
            {
                faults.push(Fault::PortType { ty: param.ty.clone() });
            }
            if !faults.is_empty() {
                report(&param.name, &param.to_string(), faults);
            }
        }
        for stmt in &function.body {
            let mut faults = self.stmt(stmt);
            for result in &stmt.results {
                faults.extend(self.define(result, Some(stmt)));
            }
            if !faults.is_empty() {
                let subject = stmt.results.first().map_or(stmt.op.as_str(), |r| r.name.as_str());
                report(subject, &stmt.to_string(), faults);
            }
        }
        let line = format!("-> ({})", function.returns.join(", "));
        let mut returned = HashSet::new();
        for name in &function.returns {
            if let Some(fault) = self.output(name, !returned.insert(name)) {
                report(name, &line, vec![fault]);
            }
        }
    }

    /// Invariants 5, 6 and 7; then the name is known.
    fn define(&mut self, port: &'a Port, stmt: Option<&'a Stmt>) -> Vec<Fault> {
        let mut faults = Vec::new();
        let word = port.name.chars().all(crate::lex::is_word)
            && !port.name.starts_with(|c: char| c.is_ascii_digit())
            && !port.name.is_empty();
        if !word || port.name == "tensor" || DType::from_name(&port.name).is_some() {
            faults.push(Fault::Name { name: port.name.clone() });
        }
        let shape = port.ty.shape();
        let folded = self.folded.contains(port.name.as_str());
        if shape.len() > MAX_RANK && !folded {
            faults.push(Fault::Rank { rank: shape.len() });
        }
        let dims = if folded { 1..=u64::MAX } else { 1..=MAX_DIM };
        if let Some((axis, &dim)) = shape.iter().enumerate().find(|(_, d)| !dims.contains(d)) {
            faults.push(Fault::Dim { axis, dim });
        }
        if self.defs.insert(&port.name, Def { ty: &port.ty, stmt }).is_some() {
            faults.push(Fault::Redefined { name: port.name.clone() });
        }
        faults
    }

    /// Invariants 3, 4 and the end of 20.
    fn output(&self, name: &str, again: bool) -> Option<Fault> {
        let owned = || name.to_owned();
        let Some(def) = self.defs.get(name) else {
            return Some(Fault::Undefined { place: "output".to_owned(), name: owned() });
        };
        if def.stmt.is_none() {
            return Some(Fault::OutputIsParam { name: owned() });
        }
        if again {
            return Some(Fault::OutputAgain { name: owned() });
        }
        if !matches!(def.ty, Type::Tensor { dtype: DType::Fp16, .. }) || def.ty.shape().is_empty() {
            return Some(Fault::OutputType { ty: def.ty.clone() });
        }
        weight::unroutable(name, *def, "an output", |_| false)
    }

    fn stmt(&self, stmt: &Stmt) -> Vec<Fault> {
        let mut faults = Vec::new();
        let Some(op) = spec::find(&stmt.op) else { return vec![Fault::op(&stmt.op)] };
        self.arguments(stmt, op, &mut faults);
        self.attributes(stmt, op, &mut faults);
        let well_formed = faults.is_empty();
        self.results(stmt, &mut faults);
        // The rest speaks about parts that are only there, and of the right type, in a statement without faults.
        if well_formed && let [first, ..] = stmt.results.as_slice() {
            self.result_type(stmt, op, &first.ty, &mut faults);
            self.fixed_values(stmt, &mut faults);
            self.compressed(stmt, &first.ty, &mut faults);
            self.domain(stmt, op, &first.ty, &mut faults);
        }
        faults
    }

    /// Invariants 8, 9 and 20 for what is in the parentheses.
    fn arguments(&self, stmt: &Stmt, op: &OpSpec, faults: &mut Vec<Fault>) {
        let given: Vec<&str> = stmt.args.iter().map(|(k, _)| k.as_str()).collect();
        presence(op, op.params, &given, faults);
        for (name, arg) in &stmt.args {
            if let Arg::Literal(literal) = arg {
                self.literal(literal, faults);
            }
            let Some(param) = op.param(name) else { continue };
            let place = format!("{}.{name}", op.name);
            for used in arg.names() {
                match self.defs.get(used) {
                    None => faults.push(Fault::Undefined { place: place.clone(), name: used.to_owned() }),
                    Some(def) => {
                        self.reference(param, &place, used, *def, faults);
                        faults.extend(weight::route(used, *def, op, name));
                    }
                }
            }
            let form = match (param.kind, arg) {
                (Given::Tuple, Arg::Tuple(names)) => !names.is_empty(),
                (Given::Value | Given::Const | Given::Immediate | Given::Weight, Arg::Name(_)) => true,
                // Only scalars are accepted in both forms.
                (Given::Const | Given::Immediate, Arg::Literal(l)) => matches!(l.ty(), Type::Scalar(_)),
                _ => false,
            };
            if !form {
                faults.push(Fault::Form { place, kind: param.kind });
            } else if let Arg::Literal(literal) = arg {
                typed(param, &place, &literal.ty(), faults);
                permitted(param, &place, literal, faults);
            }
        }
    }

    /// A name behind a parameter: right kind of definition, right type.
    fn reference(&self, param: &ParamSpec, place: &str, name: &str, def: Def<'_>, faults: &mut Vec<Fault>) {
        typed(param, place, def.ty, faults);
        let literal = def.literal();
        let inline =
            literal.is_some_and(|l| !matches!(l, Literal::Tensor { value: TensorValue::Blob { .. }, .. }));
        let right = match param.kind {
            Given::Const | Given::Immediate => inline,
            Given::Weight => literal.is_some(),
            Given::Value | Given::Tuple | Given::Attribute => true,
        };
        if !right {
            faults.push(Fault::NotConst { place: place.to_owned(), name: name.to_owned(), kind: param.kind });
        } else if let Some(literal) = literal {
            permitted(param, place, literal, faults);
        }
    }

    /// Invariants 8, 9 and 13 to 15 for what is in the brackets.
    fn attributes(&self, stmt: &Stmt, op: &OpSpec, faults: &mut Vec<Fault>) {
        let given: Vec<&str> = stmt.attrs.iter().map(|(k, _)| k.as_str()).collect();
        presence(op, op.attrs, &given, faults);
        for (name, literal) in &stmt.attrs {
            self.literal(literal, faults);
            if let Some(attr) = op.attrs.iter().find(|a| a.name == name) {
                typed(attr, &format!("{}.{name}", op.name), &literal.ty(), faults);
            }
        }
    }

    /// Invariant 10.
    fn results(&self, stmt: &Stmt, faults: &mut Vec<Fault>) {
        let Some(Literal::String(name)) = stmt.attr("name") else { return };
        let [first, rest @ ..] = stmt.results.as_slice() else {
            faults.push(Fault::Results { op: stmt.op.clone(), found: 0 });
            return;
        };
        if stmt.op != "split" {
            if !rest.is_empty() {
                faults.push(Fault::Results { op: stmt.op.clone(), found: stmt.results.len() });
            }
            if *name != first.name {
                faults.push(Fault::NameAttr { expected: first.name.clone(), found: name.clone() });
            }
            return;
        }
        if name.strip_suffix(SPLIT_SUFFIX).is_none_or(str::is_empty) {
            faults.push(Fault::NameAttr {
                expected: format!("a base name and {SPLIT_SUFFIX}"),
                found: name.clone(),
            });
        }
        if let Some(Literal::Int { value, .. }) = self.value(stmt, "num_splits")
            && u64::try_from(*value) != Ok(stmt.results.len() as u64)
        {
            faults.push(Fault::SplitCount { num_splits: *value, found: stmt.results.len() });
        }
        if let Some(other) = rest.iter().find(|r| r.ty != first.ty) {
            faults.push(Fault::ResultType { expected: first.ty.to_string(), found: other.ty.clone() });
        }
    }

    /// Invariant 11.
    fn result_type(&self, stmt: &Stmt, op: &OpSpec, found: &Type, faults: &mut Vec<Fault>) {
        let x = stmt.arg("x").and_then(|arg| self.arg_type(arg));
        let tensor = |dtype, shape: &[u64]| Some(Type::tensor(dtype, shape));
        let expected = match op.result {
            ResultRule::Literal => stmt.attr("val").map(Literal::ty),
            ResultRule::SameAsX => x.and_then(|ty| tensor(ty.dtype(), ty.shape())),
            ResultRule::ShapeOfX => match (x, self.value(stmt, "dtype")) {
                (Some(ty), Some(Literal::String(name))) => {
                    DType::from_name(name).and_then(|dtype| tensor(dtype, ty.shape()))
                }
                _ => None,
            },
            ResultRule::Broadcast(dtype) => {
                let types: Vec<&Type> = stmt.args.iter().filter_map(|(_, a)| self.arg_type(a)).collect();
                let Some(shape) = broadcast(&types) else {
                    faults.push(Fault::Broadcast { types: types.into_iter().cloned().collect() });
                    return;
                };
                tensor(dtype, &shape)
            }
            ResultRule::Tensor(dtype) => {
                if !matches!(found, Type::Tensor { dtype: d, .. } if *d == dtype) {
                    faults.push(Fault::ResultType {
                        expected: format!("a tensor of {dtype}"),
                        found: found.clone(),
                    });
                }
                return;
            }
        };
        if let Some(expected) = expected.filter(|e| e != found) {
            faults.push(Fault::ResultType { expected: expected.to_string(), found: found.clone() });
        }
    }

    /// Invariant 12.
    fn fixed_values(&self, stmt: &Stmt, faults: &mut Vec<Fault>) {
        for (name, only) in [("keep_dims", true), ("interleave", false)] {
            if let Some(Literal::Bool(found)) = self.value(stmt, name)
                && *found != only
            {
                let (found, only) = (found.to_string(), only.to_string());
                faults.push(Fault::Value { place: format!("{}.{name}", stmt.op), found, allowed: only });
            }
        }
    }

    fn arg_type(&self, arg: &Arg) -> Option<&'a Type> {
        let Arg::Name(name) = arg else { return None };
        self.defs.get(name.as_str()).map(|def| def.ty)
    }

    /// The literal that an argument is or names.
    fn value<'b>(&'b self, stmt: &'b Stmt, name: &str) -> Option<&'b Literal> {
        match stmt.arg(name)? {
            Arg::Literal(literal) => Some(literal),
            Arg::Name(name) => self.defs.get(name.as_str())?.literal(),
            Arg::Tuple(_) => None,
        }
    }
}

/// Invariant 8 for the parentheses or the brackets.
fn presence(op: &OpSpec, specs: &[ParamSpec], given: &[&str], faults: &mut Vec<Fault>) {
    for (i, name) in given.iter().enumerate() {
        let place = format!("{}.{name}", op.name);
        if !specs.iter().any(|s| s.name == *name) {
            faults.push(Fault::Unknown { place });
        } else if given.iter().take(i).any(|n| n == name) {
            faults.push(Fault::Twice { place });
        }
    }
    let missing = specs.iter().filter(|s| s.required && !given.contains(&s.name));
    faults.extend(missing.map(|s| Fault::Missing { place: format!("{}.{}", op.name, s.name) }));
}

fn typed(param: &ParamSpec, place: &str, found: &Type, faults: &mut Vec<Fault>) {
    let right = match param.ty {
        ParamType::Any => true,
        ParamType::Data(dtype) => found.dtype() == dtype,
        ParamType::Scalar(dtype) => *found == Type::Scalar(dtype),
        ParamType::Tensor(want) => matches!(found, Type::Tensor { dtype, .. } if *dtype == want),
        ParamType::Vector(want) => {
            matches!(found, Type::Tensor { dtype, shape } if *dtype == want && shape.len() == 1)
        }
        ParamType::Array(dtype, len) => *found == Type::tensor(dtype, [len]),
    };
    if !right {
        faults.push(Fault::ParamType { place: place.to_owned(), expected: param.ty, found: found.clone() });
    }
}

/// Invariant 9 for strings.
fn permitted(param: &ParamSpec, place: &str, literal: &Literal, faults: &mut Vec<Fault>) {
    if let Literal::String(found) = literal
        && !param.values.is_empty()
        && !param.values.contains(&found.as_str())
    {
        let (place, found) = (place.to_owned(), found.clone());
        faults.push(Fault::Value { place, found, allowed: param.values.join(", ") });
    }
}

/// The shape that all shapes broadcast to: axes align at the end, an axis of 1 repeats.
fn broadcast(types: &[&Type]) -> Option<Vec<u64>> {
    let rank = types.iter().map(|t| t.shape().len()).max()?;
    let mut result = vec![1; rank];
    for ty in types {
        for (slot, &dim) in result.iter_mut().rev().zip(ty.shape().iter().rev()) {
            match (*slot, dim) {
                (_, 1) => {}
                (1, _) => *slot = dim,
                (a, b) if a == b => {}
                _ => return None,
            }
        }
    }
    Some(result)
}
