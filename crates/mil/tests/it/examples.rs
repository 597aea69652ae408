//! Every statement that the reference shows in sections 5 to 8, in `examples.mil`: it prints back to itself, and it
//! verifies in a program that defines what it uses.

use std::collections::{BTreeSet, HashSet};

use aneforge_mil::program::Function;
use aneforge_mil::spec::{self, Evidence, Given, OPS, ParamSpec, ParamType};
use aneforge_mil::{Arg, DType, Literal, Port, Program, Stmt, Type, parse, parse_stmt, verify};

fn examples() -> impl Iterator<Item = (&'static str, Stmt)> {
    let lines = include_str!("examples.mil").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| (line, parse_stmt(line).unwrap_or_else(|e| panic!("{line}: {e}"))))
}

#[test]
fn print_back() {
    assert_eq!(examples().count(), 105);
    for (line, stmt) in examples() {
        // The three accepted spellings of zero; the rest is the same to the byte.
        let line = line.replace("fp16(0x0p+0)", "fp16(0x0.0p+0)").replace("fp16(0.0)", "fp16(0x0.0p+0)");
        assert_eq!(stmt.to_string(), line);
        let tight = line.replace(" = ", "=").replace(", ", ",").replace('[', " [\n");
        assert_eq!(parse_stmt(&tight), Ok(stmt));
    }
}

#[test]
fn verify_in_a_program() {
    for (line, stmt) in examples() {
        let program = around(stmt);
        verify(&program, None).unwrap_or_else(|e| panic!("{line}\n{}\n{program}", e[0]));
        assert_eq!(parse(&program.to_string()), Ok(program), "{line}");
    }
}

/// The table has the 94 ops that the reference counts, and the reference an example of each.
#[test]
fn table_is_complete() {
    let names: HashSet<&str> = OPS.iter().map(|op| op.name).collect();
    assert_eq!(names.len(), OPS.len());
    let emitted: BTreeSet<&str> =
        OPS.iter().filter(|op| op.evidence == Evidence::SeenAccepted).map(|op| op.name).collect();
    assert_eq!(emitted.len(), 94);
    let shown: BTreeSet<String> = examples().map(|(_, stmt)| stmt.op).collect();
    let missing: Vec<&str> = emitted.into_iter().filter(|op| !shown.contains(*op)).collect();
    assert_eq!(missing, [""; 0]);
    for (line, stmt) in examples() {
        let op = spec::find(&stmt.op).unwrap_or_else(|| panic!("{line}"));
        let required: Vec<&str> = op.params.iter().filter(|p| p.required).map(|p| p.name).collect();
        let given: Vec<&str> = stmt.args.iter().map(|(k, _)| k.as_str()).collect();
        assert_eq!(given, required, "emitted order: {line}");
        let attrs: Vec<&str> = op.attrs.iter().map(|p| p.name).collect();
        let given: Vec<&str> = stmt.attrs.iter().map(|(k, _)| k.as_str()).collect();
        assert_eq!(given, attrs, "emitted order: {line}");
    }
}

/// A program of one example: what it uses is defined before, as its spec wants it.
fn around(stmt: Stmt) -> Program {
    let op = spec::find(&stmt.op).expect("a known op");
    let mut params = vec![Port::new("in0", Type::fp16([1]))];
    let mut body = Vec::new();
    let mut defined = HashSet::new();
    for (key, arg) in &stmt.args {
        let param = op.param(key).expect("a known parameter");
        let names = match arg {
            Arg::Name(name) => std::slice::from_ref(name),
            Arg::Tuple(names) => names.as_slice(),
            Arg::Literal(_) => &[],
        };
        for name in names.iter().filter(|name| defined.insert(name.as_str())) {
            define(name, param, &stmt, &mut params, &mut body);
        }
    }
    body.push(stmt);
    // Something to return, whatever the example is.
    body.push(Stmt::op(Port::new("out0", Type::fp16([1])), "relu", [("x", "in0".into())]));
    Program::new(Function::main(params, body, vec!["out0".into()]))
}

fn define(name: &str, param: &ParamSpec, stmt: &Stmt, params: &mut Vec<Port>, body: &mut Vec<Stmt>) {
    let shape = stmt.results[0].ty.shape().to_vec();
    let mut constant = |literal: Literal| body.push(Stmt::constant(name, literal.ty(), literal));
    match (param.kind, param.ty) {
        (Given::Value | Given::Tuple, ParamType::Data(DType::Bool)) => {
            let side = format!("{name}_of");
            params.push(Port::new(&side, Type::fp16(shape.clone())));
            let args = [("x", side.as_str().into()), ("y", side.as_str().into())];
            body.push(Stmt::op(Port::new(name, Type::tensor(DType::Bool, shape)), "less", args));
        }
        (Given::Value, ParamType::Any) => params.push(Port::new(name, Type::tensor(DType::Uint8, shape))),
        (Given::Value | Given::Tuple, _) => params.push(Port::new(name, Type::fp16(shape))),
        (Given::Weight, _) => constant(weight(&stmt.op, param, shape)),
        (_, ParamType::Scalar(DType::Int32)) => {
            constant(Literal::int32(if param.name == "num_splits" { 2 } else { 1 }));
        }
        (_, ParamType::Scalar(DType::Uint32)) => constant(Literal::uint32(2)),
        (_, ParamType::Scalar(DType::Bool)) => constant(Literal::bool(param.name != "interleave")),
        (_, ParamType::Scalar(DType::Fp16)) => constant(Literal::fp16(0.0).expect("finite")),
        (_, ParamType::Scalar(DType::String)) => constant(Literal::string(param.values[0])),
        (_, ParamType::Array(_, 4)) => constant(Literal::ints(&[1, 1, 1, 1])),
        (_, ParamType::Array(..) | ParamType::Vector(_)) => constant(Literal::ints(&[1, 1])),
        (kind, ty) => panic!("no definition for {} {kind:?} {ty:?}", param.name),
    }
}

fn weight(op: &str, param: &ParamSpec, weight: Vec<u64>) -> Literal {
    let (dtype, shape) = match (param.name, param.ty) {
        ("lut", _) => (DType::Fp16, [vec![1; weight.len()], vec![16, 1]].concat()),
        ("scale", _) => (DType::Fp16, vec![weight[0], 2]),
        (_, ParamType::Vector(dtype)) => (dtype, vec![4]),
        (_, ParamType::Tensor(dtype)) => (dtype, weight),
        (name, ty) => panic!("no weight for {op}.{name} {ty:?}"),
    };
    Literal::blob(dtype, shape, 64)
}
