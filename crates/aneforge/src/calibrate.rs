//! Learning what weights are multiplied with, so that they can be stored in fewer bytes by what becomes of the products.
//!
//! [`calibrate`] runs a graph on the host, on inputs like those it is for, and gathers the second moments of what every
//! linear layer and convolution reads. [`compile_calibrated`](crate::compile::compile_calibrated) makes a plan of them, which
//! is pure: nothing is run or read while a graph is compiled.

mod windows;

use crate::compile::segments;
use crate::device::DeviceError;
use crate::device::host::Host;
use crate::ir::form::{Form, Product};
use crate::ir::graph::{Graph, InputInfo, NodeId};
use crate::ir::op::Mil;
use crate::ir::ops::leaf::Role;
use crate::ir::types::TensorType;
use crate::passes::{self, Calibration, CompileOptions};
use crate::plan::{Plan, Results};
use crate::quantize::Seen;
use crate::session::{RunError, Session};
use aneforge_kernels::compensate::add_moments;
use aneforge_kernels::threads::{Pool, stopped};
use aneforge_tensor::{DType, Encoding, Tensor};
use windows::Windows;

/// The most columns of a weight that is calibrated; their moments take 512 MiB.
const MOST_COLUMNS: usize = 1 << 13;
/// The most moments that are kept of a graph, 2 GiB. Weights beyond are stored as without calibration.
const MOST_MOMENTS: usize = 1 << 28;

/// What is read by weights in the same way, and what was seen of it.
struct Reading {
    /// The value.
    value: NodeId,
    windows: Windows,
}

impl Reading {
    /// The number of moments of each group, and of groups.
    fn size(&self) -> (usize, usize) {
        (self.windows.columns() * self.windows.columns(), self.windows.groups())
    }
}

/// Lower triangles of moments, of each reading and group.
type Lower = Vec<Vec<Vec<f64>>>;

/// Runs a graph on each of these sets of inputs, one tensor for each that is fed, in feed order (state is zeros), and gathers
/// what its weights are multiplied with. The weights of the graph itself are used, in full. The fewer rows were seen of what a
/// weight is multiplied with, for each of its columns, the less it is fitted to them.
///
/// ```
/// use aneforge::device::host::Host;
/// use aneforge::passes::{Compression, Form};
/// use aneforge::{CompileOptions, Graph, Shape, Tensor, Var, calibrate, compile_calibrated};
/// let weight: Vec<f32> = (0..32).map(|i| (i as f32 * 0.7).sin()).collect();
/// let weight = Var::constant(Tensor::from_slice(Shape::new(&[4, 8])?, &weight)?);
/// let graph = Graph::freeze(&[Var::input(Shape::new(&[16, 8])?).linear(&weight, None)])?;
/// let options = CompileOptions::default().compression(Compression::new(Form::Int4).tolerance(0.5));
/// let inputs: Vec<f32> = (0..128).map(|i| ((i * i) as f32).cos()).collect();
/// let calibration = calibrate(&Host::new(1), &graph, &options, &[vec![Tensor::from_slice(Shape::new(&[16, 8])?, &inputs)?]])?;
/// let plan = compile_calibrated(&graph, &options, &calibration)?;
/// assert!(plan.weights[0].calibrated.is_some_and(|error| error < 0.2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn calibrate(
    host: &Host,
    graph: &Graph,
    options: &CompileOptions,
    sets: &[Vec<Tensor>],
) -> Result<Calibration, RunError> {
    calibrate_all(host, options, &[(graph.clone(), sets.to_vec())])
}

/// The same of several graphs with the same weights in the same order, as of a model for several lengths: what they are
/// multiplied with in any of them. The caller sees to it that the weights are the same.
pub fn calibrate_all(
    host: &Host,
    options: &CompileOptions,
    graphs: &[(Graph, Vec<Vec<Tensor>>)],
) -> Result<Calibration, RunError> {
    let (mut lower, mut rows, mut alike): (Lower, Vec<usize>, Vec<usize>) = Default::default();
    let mut known: Option<(Vec<(usize, usize)>, Assigned)> = None;
    for (graph, sets) in graphs {
        let traces = passes::run(graph, options).map_err(|e| RunError::Compile(e.into()))?;
        let legal = &traces.last().expect("invariant: the pipeline has stages").graph;
        let (readings, assigned) = readings(legal);
        let sizes: Vec<(usize, usize)> = readings.iter().map(Reading::size).collect();
        match &known {
            None => {
                lower = sizes.iter().map(|&(size, groups)| vec![vec![0.0; size]; groups]).collect();
                alike = readings.iter().map(|reading| reading.windows.alike()).collect();
                known = Some((sizes, assigned));
            }
            Some(known) if *known == (sizes, assigned) => {}
            Some(_) => return Err(RunError::Calibrate("the graphs have other weights each".into())),
        }
        if !sets.is_empty() {
            let watched = Watched { host, graph, legal, options, readings: &readings };
            rows.resize(lower.len(), 0);
            watched.observe(sets, &mut lower, &mut rows)?;
        }
    }
    let Some((sizes, assigned)) = known else {
        return Err(RunError::Calibrate("there is no graph; give one".into()));
    };
    rows.resize(lower.len(), 0);
    let mut seen: Vec<Result<Seen, String>> = Vec::new();
    for (((lower, (size, _)), rows), alike) in lower.iter().zip(sizes).zip(rows).zip(alike) {
        if stopped() {
            return Err(DeviceError::Stopped.into());
        }
        let columns = size.isqrt();
        let nothing =
            || "nothing but zeros was seen of what it is multiplied with, or what is no number".to_string();
        seen.push(Seen::new(lower, columns, rows, alike).ok_or_else(nothing));
    }
    let weights = assigned.into_iter().map(|reader| seen[reader?].clone());
    Ok(Calibration { weights: weights.collect(), threads: host.threads() })
}

/// Which reading is each constant's, or why it has none.
type Assigned = Vec<Result<usize, String>>;

/// What weights read, each once, and which of it is each constant's, or why it has none.
fn readings(legal: &Graph) -> (Vec<Reading>, Assigned) {
    let mut readings: Vec<Reading> = Vec::new();
    let mut left = MOST_MOMENTS;
    let of_constant = |index: usize| -> Result<(NodeId, Windows), String> {
        let reads = legal.nodes().flat_map(|(id, node)| node.inputs.iter().map(move |&input| (id, input)));
        let mut reads = reads.filter(|&(_, input)| legal.place_of_constant(input) == Some(index));
        let (Some((id, _)), None) = (reads.next(), reads.next()) else {
            return Err("it is read more than once, or not at all".into());
        };
        let node = legal.node(id);
        let is_weight = node.inputs.get(1).is_some_and(|&w| legal.place_of_constant(w) == Some(index));
        let value = node.inputs[0];
        let windows = match legal.form(id) {
            _ if !is_weight || legal.constant(value).is_some() => None,
            Form::Product(Product::Linear) => Some(Windows::rows(legal.node(value).ty.shape)),
            Form::Conv(params, groups) => {
                let weight = legal.constants()[index].shape();
                Some(Windows::images(params, groups, legal.node(value).ty.shape, weight))
            }
            _ => None,
        };
        let windows = windows.ok_or("it is no weight of a linear layer or convolution")?;
        Ok((value, windows))
    };
    let mut assigned = |index: usize| -> Result<usize, String> {
        if legal.constants()[index].encoding() != Encoding::Dense {
            return Err("it came encoded".into());
        }
        let (value, windows) = of_constant(index)?;
        let there = readings.iter().position(|r| r.value == value && r.windows == windows);
        if let Some(there) = there {
            return Ok(there);
        }
        let (columns, groups) = (windows.columns(), windows.groups());
        let need = columns.saturating_mul(columns).saturating_mul(groups);
        if columns > MOST_COLUMNS {
            return Err(format!("rows of {columns} values are more than {MOST_COLUMNS}"));
        }
        if need > left {
            return Err(format!("the graph's moments take more than {} MiB", MOST_MOMENTS >> 17));
        }
        left -= need;
        readings.push(Reading { value, windows });
        Ok(readings.len() - 1)
    };
    let assigned = (0..legal.constants().len()).map(&mut assigned).collect();
    (readings, assigned)
}

/// A graph whose values are looked at.
struct Watched<'a> {
    host: &'a Host,
    /// As written.
    graph: &'a Graph,
    legal: &'a Graph,
    options: &'a CompileOptions,
    readings: &'a [Reading],
}

impl Watched<'_> {
    /// What is computed and read by weights, each once; what is fed is known without a run.
    fn values(&self) -> Vec<NodeId> {
        let mut values: Vec<NodeId> = self.readings.iter().map(|reading| reading.value).collect();
        values.sort();
        values.dedup();
        values.retain(|&id| !matches!(self.legal.node(id).op.mil(), Mil::Leaf));
        values
    }

    /// A plan that returns these values.
    fn plan(&self, values: &[NodeId]) -> Result<Plan, RunError> {
        let feeds = self.graph.feed_types();
        let watched = Graph { outputs: values.to_vec(), carries: Vec::new(), ..self.legal.clone() };
        let (segments, sources) = segments(&watched, &feeds, self.options, &mut Vec::new())?;
        let types = values.iter().map(|&id| self.legal.node(id).ty);
        Ok(Plan {
            target: self.options.target,
            feeds,
            outputs: types.zip(sources).collect(),
            carries: Vec::new(),
            results: Results::InOrder,
            n_ops: 0,
            segments,
            traces: Vec::new(),
            weights: Vec::new(),
        })
    }

    /// Runs the graph on each set of inputs and adds what is seen to the moments.
    fn observe(&self, sets: &[Vec<Tensor>], lower: &mut Lower, seen: &mut [usize]) -> Result<(), RunError> {
        let (feeds, values) = (self.graph.feed_types(), self.values());
        let mut session = match values.is_empty() {
            true => None,
            false => Some(Session::new(self.plan(&values)?, self.host)?),
        };
        let pool = Pool::new(self.host.threads());
        for set in sets {
            let all = fed(&feeds, set)?;
            if let Some(session) = &mut session {
                session.run_all(&all)?;
            }
            for ((reading, lower), seen) in self.readings.iter().zip(&mut *lower).zip(&mut *seen) {
                if stopped() {
                    return Err(DeviceError::Stopped.into());
                }
                let mut read = vec![0.0f32; self.legal.node(reading.value).ty.shape.count()];
                let at = values.iter().position(|&id| id == reading.value);
                match (session.as_ref().zip(at), self.legal.leaf_of(reading.value)) {
                    (Some((session, at)), _) => session.read(at, &mut read),
                    (None, Some(leaf)) => {
                        let feed = feeds.iter().position(|feed| feed.leaf == leaf);
                        all[feed.expect("invariant: passes add no feeds")].read_f32(0, &mut read);
                    }
                    (None, None) => unreachable!("a value is a leaf or is computed"),
                }
                reading.windows.each(&read, |group, rows, columns| {
                    add_moments(&pool, rows, columns, &mut lower[group]);
                    *seen += if group == 0 { rows.len() / columns.max(1) } else { 0 };
                });
            }
        }
        Ok(())
    }
}

/// An array for every feed: those that are given, and zeros for state.
fn fed(feeds: &[InputInfo], set: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
    let want = feeds.iter().filter(|feed| feed.role == Role::Feed).count();
    if set.len() != want {
        return Err(RunError::Count { want, got: set.len() });
    }
    let mut given = set.iter().enumerate();
    feeds
        .iter()
        .map(|feed| {
            if feed.role != Role::Feed {
                return Ok(zeros(feed.ty));
            }
            let (index, tensor) = given.next().expect("invariant: as many were counted");
            let (want, got) = (feed.ty.shape, tensor.shape());
            if want != got {
                return Err(RunError::Shape { index, want, got: got.dims().to_vec() });
            }
            Ok(tensor.clone())
        })
        .collect()
}

fn zeros(ty: TensorType) -> Tensor {
    let count = ty.shape.count();
    let made = match ty.dtype {
        DType::U8 => Tensor::from_slice(ty.shape, &vec![0u8; count]),
        _ => Tensor::from_slice(ty.shape, &vec![0.0f32; count]),
    };
    made.expect("invariant: one value per element")
}
