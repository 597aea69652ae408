//! `Tensor`: a node of the lazy graph with Python's operators.

use crate::caller::attributed;
use crate::error::checked;
use crate::node;
use crate::operand::{Operand, is_array, operand, weight_array};
use crate::pickle::tensor_to_bytes;
use crate::text::Text;
use crate::window::Window;
use aneforge::{DType, Var};
use numpy::PyUntypedArrayMethods;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// A value of a lazy graph. Nothing is computed until the graph is compiled and called.
///
/// Tensors are immutable and may be shared by any number of graphs. They compare and hash by identity of
/// the node, never element by element; `x.equal(y)` compares elements.
#[pyclass(frozen, weakref, subclass, module = "aneforge")]
pub struct Tensor {
    pub(crate) var: Var,
}

impl Tensor {
    /// The result of an operator, or `NotImplemented` when the other side is nothing it takes; `name` is the op in
    /// messages.
    fn with(
        &self,
        name: &str,
        other: &Bound<'_, PyAny>,
        build: impl FnOnce(&Var, Operand) -> Var,
    ) -> PyResult<Py<PyAny>> {
        let py = other.py();
        let Some(other) = operand(name, other)? else { return Ok(py.NotImplemented()) };
        let var = attributed(py, || build(&self.var, other))?;
        Ok(Bound::new(py, Tensor { var: checked(var)? })?.into_any().unbind())
    }

    fn new(py: Python<'_>, build: impl FnOnce() -> Var) -> PyResult<Tensor> {
        Ok(Tensor { var: checked(attributed(py, build)?)? })
    }
}

#[pymethods]
impl Tensor {
    /// The node of this op, as its own function or method would make it.
    ///
    /// `shape` must be that of the result. `attrs` are the op's, with constant weights under their names:
    /// what `op`, `srcs` and `attrs` of a tensor show makes an equal one.
    #[new]
    #[pyo3(signature = (shape, op, srcs = Vec::new(), attrs = None))]
    fn create(
        py: Python<'_>,
        shape: &Bound<'_, PyAny>,
        op: Text,
        srcs: Vec<Bound<'_, Tensor>>,
        attrs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Tensor> {
        let attrs = attrs.map_or_else(|| PyDict::new(py), Clone::clone);
        node::create(py, shape, &op, srcs, &attrs)
    }

    /// Tensors are immutable: a copy is the tensor itself.
    fn __copy__(slf: Py<Tensor>) -> Py<Tensor> {
        slf
    }

    fn __deepcopy__(slf: Py<Tensor>, _memo: &Bound<'_, PyAny>) -> Py<Tensor> {
        slf
    }

    /// What pickle keeps: the graph behind it. Copies of tensors that share inputs share theirs.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let arguments = tensor_to_bytes(py, &self.var)?.into_pyobject(py)?;
        Ok((py.import("aneforge._native")?.getattr("_tensor_from_bytes")?, arguments))
    }

    /// A constant's contents. What is not computed yet has no array.
    #[pyo3(signature = (dtype = None, copy = None))]
    fn __array__<'py>(
        &self,
        py: Python<'py>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let Some(data) = self.var.data() else {
            return Err(PyTypeError::new_err(format!(
                "{} has no values until it is computed: af.eval(x) or af.eval(x, {{input: array}}) computes it, \
                 af.compile(x) makes a model",
                self.__repr__()
            )));
        };
        if copy == Some(false) {
            return Err(PyValueError::new_err("a constant's contents are copied into an array"));
        }
        let contents = node::contents(py, data)?;
        match dtype {
            Some(dtype) => contents.call_method1("astype", (dtype,)),
            None => Ok(contents),
        }
    }

    #[classattr]
    fn __array_priority__() -> f64 {
        1000.0
    }

    /// Extents, outermost axis first.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.var.shape().dims())
    }

    /// The number of axes.
    #[getter]
    fn ndim(&self) -> usize {
        self.var.shape().rank()
    }

    /// The number of elements.
    #[getter]
    fn size(&self) -> usize {
        self.var.shape().count()
    }

    /// The element type in the graph: `fp16`, `uint8` or `bool`.
    #[getter]
    fn dtype(&self) -> &'static str {
        self.var.ty().dtype.name()
    }

    /// The name of the op that makes it.
    #[getter]
    fn op(&self) -> &'static str {
        node::shown(&self.var).op().name()
    }

    /// The tensors it is made from, without the constants that are its weights.
    #[getter]
    fn srcs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, node::sources(&self.var).map(|var| Tensor { var: var.clone() }))
    }

    /// The op's attributes, and its constant weights under their names, read-only.
    ///
    /// A constant has one, `value`: its contents. Those of an input are a dictionary that lives as long as
    /// the input, for notes of your own.
    #[getter]
    fn attrs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        node::attrs(py, &self.var)
    }

    /// The axes in reverse order.
    #[getter(T)]
    fn transposed(&self, py: Python<'_>) -> PyResult<Tensor> {
        let perm: Vec<i64> = (0..self.var.shape().rank() as i64).rev().collect();
        Tensor::new(py, || self.var.transpose(&perm))
    }

    fn __repr__(&self) -> String {
        let dims: Vec<String> = self.var.shape().dims().iter().map(usize::to_string).collect();
        let comma = if dims.len() == 1 { "," } else { "" };
        let dtype = match self.var.ty().dtype {
            DType::F16 => String::new(),
            other => format!(", dtype={other}"),
        };
        format!("Tensor({}, shape=({}{comma}){dtype})", self.op(), dims.join(", "))
    }

    /// What notebooks show: the node, and those before it, last first.
    fn _repr_html_(&self) -> String {
        node::html(&self.var)
    }

    fn __hash__(&self) -> u64 {
        self.var.id()
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Tensor>().is_ok_and(|other| other.get().var.id() == self.var.id())
    }

    fn __gt__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.with("greater", other, |x, y| x.greater(&y.into_var()))
    }

    fn __ge__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.with("greater_equal", other, |x, y| x.greater_equal(&y.into_var()))
    }

    fn __lt__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.with("less", other, |x, y| x.less(&y.into_var()))
    }

    fn __le__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.with("less_equal", other, |x, y| x.less_equal(&y.into_var()))
    }

    fn __bool__(&self) -> PyResult<bool> {
        Err(PyTypeError::new_err(
            "a Tensor has no value until its graph is compiled and called; choose with where(cond, a, b)",
        ))
    }

    fn __len__(&self) -> PyResult<usize> {
        self.var
            .shape()
            .dims()
            .first()
            .copied()
            .ok_or_else(|| PyTypeError::new_err("len() of a scalar tensor"))
    }

    /// Iteration would build one slice per element without anyone asking for it.
    fn __iter__(&self) -> PyResult<Py<PyAny>> {
        Err(PyTypeError::new_err("a Tensor is not iterable; use split(x, n) or slices"))
    }

    fn __getitem__(&self, py: Python<'_>, index: &Bound<'_, PyAny>) -> PyResult<Tensor> {
        let window = Window::read(self.var.shape().dims(), index)?;
        Tensor::new(py, || window.of(&self.var))
    }

    fn __neg__(&self, py: Python<'_>) -> PyResult<Tensor> {
        Tensor::new(py, || self.var.muls(-1.0))
    }

    fn __pos__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __abs__(&self, py: Python<'_>) -> PyResult<Tensor> {
        Tensor::new(py, || self.var.abs())
    }

    fn __add__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.with("add", other, |x, y| x.plus(&y.into_var()))
    }

    fn __radd__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.with("add", other, |x, y| y.into_var().plus(x))
    }

    fn __sub__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.with("sub", other, |x, y| x.minus(&y.into_var()))
    }

    fn __rsub__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.with("sub", other, |x, y| y.into_var().minus(x))
    }

    fn __mul__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.with("muls", other, |x, y| match y {
            Operand::Number(k) => x.muls(k),
            Operand::Value(y) => x.times(&y),
        })
    }

    fn __rmul__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.with("muls", other, |x, y| match y {
            Operand::Number(k) => x.muls(k),
            Operand::Value(y) => y.times(x),
        })
    }

    fn __truediv__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.with("real_div", other, |x, y| x.real_div(&y.into_var()))
    }

    fn __rtruediv__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.with("real_div", other, |x, y| y.into_var().real_div(x))
    }

    fn __pow__(&self, other: &Bound<'_, PyAny>, modulo: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        match modulo {
            Some(_) => Err(PyValueError::new_err("pow: a modulus is not supported")),
            None => self.with("pow", other, |x, y| x.pow(&y.into_var())),
        }
    }

    fn __rpow__(&self, other: &Bound<'_, PyAny>, _modulo: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        self.with("pow", other, |x, y| y.into_var().pow(x))
    }

    /// With a tensor, the product of two values; with a matrix `[K, N]`, a product with a weight.
    fn __matmul__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        if other.is_instance_of::<Tensor>() {
            return self.with("matmul", other, |x, y| x.matmul_value(&y.into_var()));
        }
        if !is_array(other)? {
            return Ok(other.py().NotImplemented());
        }
        let weight = weight_array("matmul: the weight", other)?;
        if weight.ndim() != 2 {
            let shape = PyTuple::new(other.py(), weight.shape())?.str()?;
            let shape = shape.to_str()?;
            return Err(PyValueError::new_err(format!(
                "matmul: the weight must be [K, N], got shape {shape}; use bmm_weight for [B, K, N]"
            )));
        }
        self.with("matmul", &weight.getattr("T")?, |x, y| x.linear(&y.into_var(), None))
    }

    fn __rmatmul__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        if !is_array(other)? {
            return Ok(other.py().NotImplemented());
        }
        let weight = weight_array("matmul: the weight", other)?;
        self.with("matmul", &weight, |x, y| y.into_var().matmul_value(x))
    }
}
