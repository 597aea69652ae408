//! A program of MIL in this process.

use super::folder::Folder;
use super::{Ane, OwnFolder, failed, handle_of, refused, told};
use crate::device::bound::Bound;
use crate::device::buffer::BytesMut;
use crate::device::{Buffer, Device, DeviceError, Loaded, Overflow, Port, Receipt, Roof, StepTime};
use crate::ir::graph::Graph;
use crate::ir::types::TensorType;
use aneforge_ane::{Compiled, Options, Program, Side};
use aneforge_kernels::threads::stopped;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The types of a segment's ports.
pub(super) fn types(graph: &Graph) -> [Vec<TensorType>; 2] {
    let ty = |id: &crate::ir::graph::NodeId| graph.node(*id).ty;
    [graph.feeds().iter().map(ty).collect(), graph.outputs().iter().map(ty).collect()]
}

/// A segment as one step: the engine tells no more.
pub(super) fn one_step(name: &str, types: &[Vec<TensorType>; 2], time: Duration) -> Vec<StepTime> {
    let bytes = types.iter().flatten().map(TensorType::bytes).sum();
    let step = |&ty: &TensorType| StepTime { name: name.into(), ty, flops: 0.0, bytes, time };
    types[1].first().map(step).into_iter().collect()
}

/// A program that is loaded.
pub(super) struct Running {
    program: Program,
    types: [Vec<TensorType>; 2],
    bound: Bound,
    receipt: Receipt,
    /// The ops that it computes.
    name: String,
    _folder: Arc<OwnFolder>,
}

impl Running {
    pub(super) fn load(
        ane: &Ane,
        graph: &Graph,
        compiled: &Compiled,
        folder: Folder,
    ) -> Result<Running, DeviceError> {
        let options = Options { call_limit: ane.options.call_limit, ..Options::default() };
        let program = Program::load(&ane.framework, compiled, &folder.source(), options).map_err(refused)?;
        let types = types(graph);
        dense(&program, &types)?;
        let bound = Bound::new(types[0].len(), types[1].len());
        let mut how = vec![
            "it was compiled for the engine only (mask 0x4), and what cannot be placed there does not compile".to_owned(),
        ];
        let bundles = Compiled::bundles(&folder.cache);
        let names = bundles
            .iter()
            .filter_map(|path| path.file_stem())
            .map(|name| name.to_string_lossy().into_owned());
        let names: Vec<String> = names.collect();
        if !names.is_empty() {
            how.push(format!("the compiler has left {} only", names.join(", ")));
        }
        let device = ane.title();
        let receipt = Receipt { device: device.into(), how };
        let ops = graph.nodes().filter(|(_, node)| !node.inputs.is_empty()).map(|(_, node)| node.op.name());
        let name = ops.take(4).collect::<Vec<_>>().join("+");
        Ok(Running { program, types, bound, receipt, name, _folder: Arc::clone(&ane.folder) })
    }
}

/// Port data is dense, in the order of the program's shapes; where the system says otherwise, values would be read wrongly.
fn dense(program: &Program, types: &[Vec<TensorType>; 2]) -> Result<(), DeviceError> {
    let sides = types[0].iter().enumerate().map(|(at, ty)| (Side::Input(at), ty));
    let sides = sides.chain(types[1].iter().enumerate().map(|(at, ty)| (Side::Output(at), ty)));
    for (side, ty) in sides {
        let Some(layout) = program.layout(0, side) else { continue };
        let dims = ty.shape.dims();
        let stride = |axis: usize| dims[axis + 1..].iter().product::<usize>() as u64;
        // Whether strides count elements or bytes is not said anywhere.
        let lies = |unit: u64| {
            let is = |axis: usize| dims[axis] == 1 || layout[axis].1 == unit * stride(axis);
            (0..dims.len()).all(is)
        };
        let extents = layout.iter().map(|(extent, _)| *extent as usize).eq(dims.iter().copied());
        if !extents {
            tracing::debug!(
                "the engine describes {side:?} as {layout:?} (extents and strides), and the program has {ty}"
            );
            continue;
        }
        if !lies(1) && !lies(ty.dtype.size() as u64) {
            let why = format!(
                "the engine lays {side:?} out as {layout:?} (extents and strides), and the program has {ty} without gaps"
            );
            return Err(DeviceError::Unsupported { op: "program", why });
        }
    }
    Ok(())
}

impl Loaded for Running {
    fn bind(&mut self, port: Port, buffer: &Buffer) -> Result<(), DeviceError> {
        let (side, ty) = match port {
            Port::Input(at) => (Side::Input(at), self.types[0].get(at)),
            Port::Output(at) => (Side::Output(at), self.types[1].get(at)),
        };
        let none = || DeviceError::Bind { port, why: "the program has no such port".into() };
        let handle = handle_of(port, buffer, *ty.ok_or_else(none)?)?;
        let prepare = |why| DeviceError::Prepare { stage: "binding a buffer", why };
        self.program.bind(0, side, &handle).map_err(|error| told(error, prepare))?;
        self.bound.set(port, buffer);
        Ok(())
    }

    fn execute(&mut self) -> Result<(), DeviceError> {
        if stopped() {
            return Err(DeviceError::Stopped);
        }
        let mut held = self.bound.lock();
        self.program.execute(held.iter_mut().filter_map(BytesMut::lent)).map_err(failed)
    }

    fn profile(&mut self) -> Result<Vec<StepTime>, DeviceError> {
        let start = Instant::now();
        self.execute()?;
        Ok(one_step(&self.name, &self.types, start.elapsed()))
    }

    fn roof(&self) -> Option<Roof> {
        None
    }

    fn overflows(&self) -> &[Overflow] {
        &[]
    }

    fn copied(&self) -> u64 {
        0
    }

    fn describe(&self) -> String {
        format!("one program on the engine: {:?}\n", self.program)
    }

    fn receipt(&self) -> Receipt {
        self.receipt.clone()
    }
}
