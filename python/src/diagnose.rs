//! What half precision does to a model, node by node.

use crate::compile::{arithmetic, chip};
use crate::error::{Error, guarded};
use crate::feed::Ready;
use crate::interrupt::interruptible;
use crate::model::Model;
use crate::state;
use crate::text::Text;
use aneforge::device::host::{Sums, shared_with};
use aneforge::diagnose::{
    Diagnosis, all_settings, departures, diagnose as of_graph, diagnose_plan, on_all_chips, without_data,
};
use aneforge::{CompileOptions, DType, Device, Graph, Session, Tensor};
use aneforge_kernels::threads::stoppable;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::sync::Arc;

/// What `Model.diagnose` is made of, which is in Python: JSON, a table and a page.
#[pyfunction]
pub fn diagnose<'py>(
    py: Python<'py>,
    model: &Bound<'py, Model>,
    arrays: &Bound<'py, PyTuple>,
    named: &Bound<'py, PyDict>,
    target: Option<Text>,
    numerics: Option<Text>,
    tolerance: f64,
) -> PyResult<(String, String, String)> {
    let has_data = !arrays.is_empty() || !named.is_empty() || state::fed(model.get().running()).is_empty();
    let feeds = if has_data { feeds(py, model.get(), arrays, named)? } else { Vec::new() };
    let running = model.get().running();
    let target = target.map(|name| chip(Some(&name))).transpose()?;
    let plan = Arc::clone(&running.plan);
    let host = match numerics {
        Some(name) => running.host.numerics(arithmetic(&name, target.unwrap_or(plan.target))?),
        None => running.host,
    };
    let host = shared_with(&host.sums(Sums::Defined)).map_err(Error::Device)?;
    let written = match (running.written.clone(), target) {
        (None, _) if !has_data => return Err(unwritten()),
        (None, Some(other)) if other != plan.target => return Err(unwritten()),
        (written, _) => written,
    };
    let found: Diagnosis = interruptible(py, move |stop| {
        guarded(|| {
            stoppable(stop, || match written {
                Some(written) => {
                    let (graph, options) = &*written;
                    let options = CompileOptions { target: target.unwrap_or(options.target), ..*options };
                    if !has_data {
                        return without_data(graph, &options);
                    }
                    of_graph(&host, graph, &options, &feeds, tolerance)
                }
                None => diagnose_plan(&host, &plan, &feeds, tolerance),
            })
        })
    })??
    .map_err(Error::Run)?;
    Ok((found.to_json().to_string(), found.to_string(), found.to_html()))
}

/// What `Model.explain` is made of: JSON and text.
#[pyfunction]
pub fn explain(py: Python<'_>, model: &Bound<'_, Model>) -> PyResult<(String, String)> {
    let written = model.get().running().written.clone().ok_or_else(|| {
        PyValueError::new_err(
            "explain: the model was loaded, or calibrated, and how it was compiled is not kept; explain what the graph compiles to without",
        )
    })?;
    let told = interruptible(py, move |stop| {
        guarded(|| stoppable(stop, || aneforge::explain::explain(&written.0, &written.1)))
    })??
    .map_err(Error::Compile)?;
    Ok((told.to_json().to_string(), told.to_string()))
}

/// What `Model.diagnose_all_chips` is made of: JSON and a table.
#[pyfunction]
pub fn diagnose_all_chips<'py>(
    py: Python<'py>,
    model: &Bound<'py, Model>,
    arrays: &Bound<'py, PyTuple>,
    named: &Bound<'py, PyDict>,
    tolerance: f64,
) -> PyResult<(String, String)> {
    let feeds = feeds(py, model.get(), arrays, named)?;
    let running = model.get().running();
    let host = shared_with(&running.host.sums(Sums::Defined)).map_err(Error::Device)?;
    let written: Arc<(Graph, CompileOptions)> = running.written.clone().ok_or_else(unwritten)?;
    let found = interruptible(py, move |stop| {
        guarded(|| stoppable(stop, || on_all_chips(&host, &written.0, &written.1, &feeds, tolerance)))
    })??
    .map_err(Error::Run)?;
    Ok((found.to_json().to_string(), found.to_string()))
}

/// What `Model.diff_numerics` is made of: JSON and a table.
#[pyfunction]
pub fn diff_numerics<'py>(
    py: Python<'py>,
    model: &Bound<'py, Model>,
    arrays: &Bound<'py, PyTuple>,
    named: &Bound<'py, PyDict>,
) -> PyResult<(String, String)> {
    let feeds = feeds(py, model.get(), arrays, named)?;
    let running = model.get().running();
    let host = shared_with(&running.host.sums(Sums::Defined)).map_err(Error::Device)?;
    let plan = Arc::clone(&running.plan);
    let baseline = host.numerics(plan.target);
    let found = interruptible(py, move |stop| {
        guarded(|| stoppable(stop, || departures(&host, &plan, &feeds, baseline, &all_settings())))
    })??
    .map_err(Error::Run)?;
    Ok((found.to_json().to_string(), found.to_string()))
}

fn unwritten() -> PyErr {
    PyValueError::new_err(
        "diagnose: this model was not compiled in this process, or was calibrated, and what it keeps is a program for its own chip; compile \
         the graph to diagnose it for another",
    )
}

/// Every input: those that were given, and what state holds.
fn feeds<'py>(
    py: Python<'py>,
    model: &Model,
    arrays: &Bound<'py, PyTuple>,
    named: &Bound<'py, PyDict>,
) -> PyResult<Vec<Tensor>> {
    let types: Vec<_> = model.plan().feeds.iter().map(|feed| feed.ty).collect();
    let mut feeds: Vec<Option<Tensor>> = vec![None; types.len()];
    for (index, array) in model.in_order(arrays, named)? {
        let ready = Ready::new(index, types[index], &array)?;
        feeds[index] = Some(ready.tensor(index, types[index])?);
    }
    let held = model.home()?.with(py, |session: &mut Session| {
        let held = |index: usize| {
            let ty = types[index];
            let mut values = vec![0.0f32; ty.shape.count()];
            if let Some(buffer) = session.input_buffer(index).filter(|_| ty.dtype == DType::F16) {
                buffer.read(&mut values);
            }
            Tensor::from_slice(ty.shape, &values).expect("invariant: one value per element")
        };
        feeds.into_iter().enumerate().map(|(index, given)| given.unwrap_or_else(|| held(index))).collect()
    })?;
    Ok(held)
}
