//! Chips and families, and what is said of a graph for one of them without running it.

use crate::apply::outputs;
use crate::caller::here;
use crate::compile::{alone, chip};
use crate::error::Error;
use crate::interrupt::interruptible;
use crate::judge::judged;
use crate::text::Text;
use aneforge::passes::{Compression, Form, NodeReport};
use aneforge::target::{self, CHIPS, Family, family_of, native_streams as streams};
use aneforge::{CompileOptions, Encoding, Target, passes};
use aneforge_kernels::threads::stoppable;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

fn family(number: u8) -> PyResult<Family> {
    let wrong = || PyValueError::new_err(format!("families are numbered from 1 to 5, got {number}"));
    Family::numbered(number).ok_or_else(wrong)
}

/// Every chip: its name, its family's number, the cores of its engine, what it is, and what is doubtful about it.
#[pyfunction]
pub fn chips() -> Vec<(&'static str, u8, Option<u32>, &'static str, &'static str)> {
    let row = |c: &target::Chip| (c.name, c.family.number(), c.cores, c.is, c.note);
    CHIPS.iter().map(row).collect()
}

/// The number of the family that a chip belongs to, by any of its names.
#[pyfunction]
pub fn chip_family(chip: Text) -> Option<u8> {
    family_of(&chip).map(Family::number)
}

/// The chip that programs for a whole family are compiled for.
#[pyfunction]
pub fn representative(number: u8) -> PyResult<Option<&'static str>> {
    Ok(family(number)?.representative().map(Target::name))
}

/// The chip that programs for a name are compiled for: of this name, or for the family of this name.
#[pyfunction]
pub fn chip_for(name: Text) -> Option<&'static str> {
    let whole = || family_of(&name)?.representative();
    Target::named(&name).ok().or_else(whole).map(Target::name)
}

/// The chip that programs are compiled for where none is named.
#[pyfunction]
pub fn default_target() -> &'static str {
    Target::default().name()
}

/// The family of a Mac's processor by its brand, and its generation if that is newer than those known.
#[pyfunction]
pub fn family_of_brand(brand: &str) -> Option<(u8, Option<u32>)> {
    target::family_of_brand(brand).map(|found| (found.family.number(), found.newer))
}

/// A family's limits by name.
#[pyfunction]
pub fn limits(number: u8) -> PyResult<Vec<(&'static str, usize)>> {
    Ok(family(number)?.limits().named().to_vec())
}

/// What becomes of an op on a family.
#[pyfunction]
pub fn op_status(op: Text, number: u8) -> PyResult<&'static str> {
    Ok(target::op_status(&op, family(number)?).name())
}

/// Whether a family has a texture unit.
#[pyfunction]
pub fn has_texture_engine(number: u8) -> PyResult<bool> {
    Ok(target::has_texture_engine(family(number)?))
}

/// The forms of weights that a family reads as they are stored, by the names that `compile` takes.
#[pyfunction]
pub fn native_streams(number: u8) -> PyResult<Vec<&'static str>> {
    let name = |encoding: &Encoding| match encoding {
        Encoding::Lut4 => "int4",
        encoding => encoding.name(),
    };
    Ok(streams(family(number)?).iter().map(name).collect())
}

/// How results of an op of a kind differ between two families.
#[pyfunction]
#[pyo3(signature = (kind, a, b, begin, max_abs))]
pub fn divergence(
    kind: Text,
    a: u8,
    b: u8,
    begin: Option<i64>,
    max_abs: Option<f64>,
) -> PyResult<&'static str> {
    let families = [family(a)?, family(b)?];
    Ok(target::divergence::divergence(&kind, families, begin, max_abs).name())
}

/// A node, its shape, what becomes of it, whether it is too large, why it is not taken, and the line that built it.
type Row = (&'static str, Vec<usize>, &'static str, bool, Option<String>, String);

/// What a family makes of each node: rows of those that are native, decomposed, rejected and too large.
#[pyfunction]
pub fn preflight(out: &Bound<'_, PyAny>, number: u8) -> PyResult<[Vec<Row>; 4]> {
    let family = family(number)?;
    let row = move |n: NodeReport| {
        let (why, oversize) = (n.why(family), n.oversize.is_some());
        (n.op, n.shape.dims().to_vec(), n.status.name(), oversize, why, n.at.to_string())
    };
    judged(out, move |graph| {
        let report = passes::preflight(&graph, family);
        let lists = [report.native, report.decompose, report.reject, report.oversize];
        Ok(lists.map(|list| list.into_iter().map(row).collect()))
    })
}

/// What there is to warn of when a graph is compiled for a chip: a line for each node, the worst first.
#[pyfunction]
#[pyo3(signature = (out, target))]
pub fn notices(out: &Bound<'_, PyAny>, target: Option<Text>) -> PyResult<Vec<String>> {
    let target = chip(target.as_deref())?;
    judged(out, move |graph| {
        let mut noticed = passes::notices(&graph, target);
        noticed.sort_by_key(|notice| notice.kind);
        let warned = noticed.into_iter().filter(|notice| notice.kind.is_warning());
        Ok(warned.map(|notice| format!("{} {} (at {})", notice.op, notice.why, notice.at)).collect())
    })
}

/// How results may differ between two families: a line for each op and each way.
#[pyfunction]
pub fn cross_chip(out: &Bound<'_, PyAny>, a: u8, b: u8) -> PyResult<Vec<String>> {
    let families = [family(a)?, family(b)?];
    judged(out, move |graph| Ok(passes::cross_chip(&graph, families)))
}

/// Compiles what `out` needs for a chip, and forgets it. Errors are those of `compile`.
#[pyfunction]
pub fn check_compiles(py: Python<'_>, out: &Bound<'_, PyAny>, target: Text, int8: bool) -> PyResult<()> {
    let (outputs, _) = outputs(out, false)?;
    let compression = int8.then(|| Compression::new(Form::Int8));
    let options = CompileOptions::target(chip(Some(&target))?).compression(compression);
    let at = here(py)?;
    interruptible(py, move |stop| {
        alone(|| stoppable(stop, || at.scope(|| aneforge::compile(&outputs, &options))).map(drop))
            .map_err(|e| PyErr::from(Error::Compile(e)))
    })?
}
