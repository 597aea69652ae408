//! Private doors for this project's own tests.

use crate::apply::to_python;
use crate::error::Error;
use aneforge::device::ane::AneOptions;
use aneforge::device::{self, host::Sums};
use aneforge::ir::op::{Case, Mil, OPS};
use aneforge::ir::precision::{Array, Precision};
use aneforge::{
    CompileOptions, DType, Graph, HostOptions, Numerics, Session, Shape, Tensor, Var, compile, f16, grad,
};
use aneforge_tensor::random;
use numpy::PyArrayDyn;
use numpy::ndarray::ArrayD;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// The name of every op, in the order of the list.
#[pyfunction]
pub fn ops() -> Vec<&'static str> {
    OPS.iter().map(|entry| entry.info.name).collect()
}

/// Every worked example of every op: what goes in, what the host engine makes of it, and the gradients.
///
/// A row has `op`, `attrs`, `inputs` (float64 arrays of half-precision values; truth values are 0 and 1)
/// and their `dtypes`, `ulp` and `absolute`, whether the op is `decomposed` into others, `value`,
/// `cotangent` and `grads`, where `None` means that the result does not vary with that input.
#[pyfunction]
pub fn cases(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    let rows = PyList::empty(py);
    for entry in OPS {
        for case in (entry.cases)() {
            rows.append(row(py, &case)?)?;
        }
    }
    Ok(rows)
}

fn row<'py>(py: Python<'py>, case: &Case) -> PyResult<Bound<'py, PyDict>> {
    let drawn = Drawn::new(case);
    let attrs = PyDict::new(py);
    for (name, attr) in case.op.attrs() {
        attrs.set_item(name, to_python(py, &attr)?)?;
    }
    let row = PyDict::new(py);
    row.set_item("op", case.op.name())?;
    row.set_item("attrs", attrs)?;
    row.set_item("ulp", case.tolerance.ulp)?;
    row.set_item("absolute", case.tolerance.absolute)?;
    row.set_item("decomposed", is_decomposed(case))?;
    row.set_item("dtypes", case.inputs.iter().map(|ty| ty.dtype.name()).collect::<Vec<_>>())?;
    let inputs: Vec<_> = drawn.values.iter().map(|a| numpy(py, a)).collect();
    row.set_item("inputs", inputs)?;
    row.set_item("value", numpy(py, &run(case, &drawn)?))?;
    let cotangent = draw(drawn.output().shape(), 77, (-1.0, 1.0));
    let grads = gradients(case, &drawn, &cotangent)?;
    let grads: Vec<_> = grads.iter().map(|g| g.as_ref().map(|a| numpy(py, a))).collect();
    row.set_item("cotangent", numpy(py, &cotangent))?;
    row.set_item("grads", grads)?;
    Ok(row)
}

fn is_decomposed(case: &Case) -> bool {
    match case.op.mil() {
        Mil::Leaf | Mil::Stmt(_) | Mil::Native(_) => false,
        Mil::StmtWith(_, n, _) => n != case.inputs.len(),
        Mil::Decompose(_) | Mil::Legalized | Mil::Composed(_) => true,
    }
}

fn numpy<'py>(py: Python<'py>, array: &Array) -> Bound<'py, PyArrayDyn<f64>> {
    let array = ArrayD::from_shape_vec(array.shape.dims(), array.data.clone());
    PyArrayDyn::from_owned_array(py, array.expect("invariant: one value per element"))
}

/// Values in the domain, as half precision holds them.
fn draw(shape: Shape, seed: u64, (low, high): (f64, f64)) -> Array {
    let value = |i: usize| low + (high - low) * f64::from(random::uniform(seed, i as u64));
    Array::from_fn(shape, |i| f16::from_f64(value(i)).to_f64())
}

/// A case with values for its inputs. Truth values are fed as numbers and compared with zero.
struct Drawn {
    case: Case,
    values: Vec<Array>,
    feeds: Vec<Array>,
}

impl Drawn {
    fn new(case: &Case) -> Drawn {
        let (mut values, mut feeds) = (Vec::new(), Vec::new());
        for (i, ty) in case.inputs.iter().enumerate() {
            let seed = 1000 + i as u64;
            let drawn = match ty.dtype {
                DType::Bool => draw(ty.shape, seed, (-1.0, 1.0)),
                _ => draw(ty.shape, seed, case.domain),
            };
            let holds = |v: f64| f64::from(u8::from(v > 0.0));
            let (value, feed) = match ty.dtype {
                DType::Bool => (Array::from_fn(ty.shape, |i| holds(drawn.data[i])), drawn),
                DType::U8 => {
                    let bytes = Array::from_fn(ty.shape, |i| drawn.data[i].floor());
                    (bytes.clone(), bytes)
                }
                _ => (drawn.clone(), drawn),
            };
            values.push(value);
            feeds.push(feed);
        }
        Drawn { case: case.clone(), values, feeds }
    }

    /// The inputs and the result; weights are constants unless all inputs are `fed`.
    fn build(&self, fed: bool) -> (Vec<Var>, Var) {
        let input = |(i, ty): (usize, &aneforge::TensorType)| match ty.dtype {
            DType::Bool => Var::input(ty.shape).greater(&Var::from(0.0)),
            DType::F16 if i >= self.case.constants_from && !fed => Var::constant(tensor(&self.feeds[i])),
            _ => Var::input_of(*ty),
        };
        let inputs: Vec<Var> = self.case.inputs.iter().enumerate().map(input).collect();
        let output = Var::apply(self.case.op.clone(), &inputs.iter().collect::<Vec<_>>());
        (inputs, output)
    }

    fn output(&self) -> Var {
        self.build(true).1
    }
}

fn tensor(array: &Array) -> Tensor {
    let values: Vec<f32> = array.data.iter().map(|&v| v as f32).collect();
    Tensor::from_slice(array.shape, &values).expect("invariant: one value per element")
}

fn numbers(var: &Var) -> Var {
    match var.ty().dtype {
        DType::Bool => var.select(&Var::from(1.0), &Var::from(0.0)),
        DType::U8 => var.cast(),
        _ => var.clone(),
    }
}

/// What the host engine computes for a case, without the engine's departures from IEEE arithmetic.
fn run(case: &Case, drawn: &Drawn) -> PyResult<Array> {
    let (_, output) = drawn.build(false);
    let plan = compile(&[numbers(&output)], &CompileOptions::default()).map_err(Error::Compile)?;
    let options = HostOptions::default().sums(Sums::Defined).numerics(Numerics::Ieee);
    let host = device::open(Some("host"), &options, &AneOptions::default()).map_err(Error::Device)?;
    let mut session = Session::new(plan, host).map_err(Error::Run)?;
    let fed = |(i, ty): (usize, &aneforge::TensorType)| match ty.dtype {
        DType::U8 => {
            let bytes: Vec<u8> = drawn.feeds[i].data.iter().map(|&v| v as u8).collect();
            Some(Tensor::from_slice(ty.shape, &bytes).expect("invariant: one value per element"))
        }
        DType::F16 if i >= case.constants_from => None,
        _ => Some(tensor(&drawn.feeds[i])),
    };
    let feeds: Vec<Tensor> = case.inputs.iter().enumerate().filter_map(fed).collect();
    let outputs = session.run(&feeds).map_err(Error::Run)?;
    Ok(Array::from_tensor(&outputs[0], Precision::F64))
}

/// The gradient of each input by the op's rule, evaluated in double precision.
fn gradients(case: &Case, drawn: &Drawn, cotangent: &Array) -> PyResult<Vec<Option<Array>>> {
    let (inputs, output) = drawn.build(true);
    if output.ty().dtype != DType::F16 {
        return Ok(vec![None; inputs.len()]);
    }
    let dy = Var::input(output.shape());
    let mut feeds = drawn.feeds.clone();
    feeds.push(cotangent.clone());
    let mut gradients = Vec::new();
    for (input, ty) in inputs.iter().zip(&case.inputs) {
        if ty.dtype != DType::F16 {
            gradients.push(None);
            continue;
        }
        gradients.push(match grad::grad(&output, &dy, std::slice::from_ref(input)) {
            Ok(dx) => {
                // Every input takes part, so that feeds are numbered as they were drawn.
                let all: Vec<Var> = dx.iter().chain(&inputs).map(numbers).chain([dy.clone()]).collect();
                let graph = Graph::freeze(&all).map_err(|e| Error::Build(e, false))?;
                let values = graph.eval(&feeds, Precision::F64);
                Some(values[graph.outputs()[0].index()].clone())
            }
            Err(grad::GradError::Independent { .. }) => None,
            Err(e) => return Err(Error::Grad(e).into()),
        });
    }
    Ok(gradients)
}
