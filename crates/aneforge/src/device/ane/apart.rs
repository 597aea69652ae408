//! Segments in another process.

use super::folder::Folder;
use super::native::{Wires, bind, receipt};
use super::program::{one_step, types};
use super::{Ane, OwnFolder, failed, made, refused};
use crate::device::bound::Bound;
use crate::device::{Buffer, Device, DeviceError, Loaded, Overflow, Port, Receipt, Roof, StepTime};
use crate::ir::graph::Graph;
use crate::ir::types::TensorType;
use aneforge_ane::worker::{ProgramWork, Request, Work, Worker};
use aneforge_ane::{DOCUMENT_FILE, Framework};
use aneforge_mil::netplist::{Netplist, RESULT};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A segment in another process, which is started again when it has ended.
pub(super) struct Apart {
    command: Vec<OsString>,
    request: Request,
    ready: Duration,
    limit: Duration,
    worker: Option<Worker>,
    /// What goes between buffers and a native layer; a program's values go as they are.
    wires: Option<Wires>,
    types: [Vec<TensorType>; 2],
    bound: Bound,
    copied: u64,
    receipt: Receipt,
    name: String,
    framework: Arc<Framework>,
    _folder: Arc<OwnFolder>,
}

/// A program in another process.
pub(super) fn program(
    ane: &Ane,
    command: Vec<OsString>,
    graph: &Graph,
    folder: Folder,
) -> Result<Apart, DeviceError> {
    let work = Work::Program { program: ProgramWork::of(&folder.source()) };
    let how = "it was compiled in another process for the engine only (mask 0x4), and what cannot be placed there does not compile";
    let device = ane.title();
    let receipt = Receipt { device: device.into(), how: vec![how.into()] };
    started(ane, command, work, None, types(graph), receipt, "a program".into())
}

/// A native layer in another process.
pub(super) fn native(
    ane: &Ane,
    command: Vec<OsString>,
    graph: &Graph,
    netplist: &Netplist,
) -> Result<Apart, DeviceError> {
    let wires = Wires::new(graph, netplist);
    let document = netplist.document.to_string();
    let mut hash = Sha256::new();
    hash.update(document.as_bytes());
    netplist.weights.iter().for_each(|(_, bytes)| hash.update(bytes));
    let key: String = hash.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    let folder = ane.folder.path.join(format!("layer-{key}"));
    made(&folder)?;
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let own = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let files = netplist.weights.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    for (name, bytes) in files.chain([(DOCUMENT_FILE, document.as_bytes())]) {
        let (path, aside) = (folder.join(name), folder.join(format!(".{name}-{own}")));
        let written = std::fs::write(&aside, bytes).and_then(|()| std::fs::rename(&aside, &path));
        written.map_err(|error| DeviceError::Folder {
            why: format!("cannot write {}: {error}", path.display()),
        })?;
    }
    let work = Work::Native {
        folder,
        weights: netplist.weights.iter().map(|(name, _)| name.clone()).collect(),
        inputs: wires.symbols().into_iter().map(str::to_owned).collect(),
        outputs: vec![RESULT.to_owned()],
    };
    let (types, receipt) = (wires.types.clone(), receipt(ane, netplist));
    let (operands, result) = (wires.operand_bytes(), wires.result_bytes());
    let apart = started(ane, command, work, Some(wires), types, receipt, netplist.layer.kind.to_owned())?;
    let worker = apart.worker.as_ref().expect("invariant: just started");
    if (&worker.inputs, &worker.outputs[..]) != (&operands, &[result]) {
        let (got, given) = (&worker.inputs, &worker.outputs);
        let why = format!(
            "{} takes {got:?} bytes and gives {given:?}, and {operands:?} and {result} were expected",
            netplist.layer.kind
        );
        return Err(DeviceError::Unsupported { op: netplist.layer.kind, why });
    }
    Ok(apart)
}

fn started(
    ane: &Ane,
    command: Vec<OsString>,
    work: Work,
    wires: Option<Wires>,
    types: [Vec<TensorType>; 2],
    receipt: Receipt,
    name: String,
) -> Result<Apart, DeviceError> {
    let limit = ane.options.call_limit;
    let call_limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let request = Request { libraries: ane.options.libraries.clone(), work, call_limit_ms };
    let bound = Bound::new(types[0].len(), types[1].len());
    let ready = ane.options.compile_limit;
    let worker = ane.paced(|| Worker::start(&command, &request, ready, limit))?;
    let apart = Apart {
        command,
        request,
        ready,
        limit,
        worker: Some(worker),
        wires,
        types,
        bound,
        copied: 0,
        receipt,
        name,
        framework: Arc::clone(&ane.framework),
        _folder: Arc::clone(&ane.folder),
    };
    Ok(apart)
}

impl Apart {
    fn run(&mut self) -> Result<(), DeviceError> {
        self.framework.here().map_err(failed)?;
        let Apart { command, request, ready, limit, worker, wires, bound, copied, .. } = self;
        if worker.as_mut().is_none_or(Worker::has_ended) {
            *worker = Some(Worker::start(command, request, *ready, *limit).map_err(refused)?);
        }
        let worker = worker.as_mut().expect("invariant: just started");
        let places = |count: usize, port: fn(usize) -> Port| -> Result<Vec<usize>, DeviceError> {
            (0..count).map(|at| bound.place(port(at))).collect()
        };
        let inputs = places(bound.inputs.len(), Port::Input)?;
        let outputs = places(bound.outputs.len(), Port::Output)?;
        let mut held = bound.lock();
        let Some(wires) = wires else {
            let values: Vec<&[u8]> = inputs.iter().map(|&at| &*held[at]).collect();
            let results = worker.run(&values).map_err(failed)?;
            *copied += (values.iter().map(|v| v.len()).sum::<usize>() + results.len()) as u64;
            drop(values);
            let mut results = &results[..];
            for &at in &outputs {
                let (own, rest) = results.split_at(held[at].len());
                held[at].copy_from_slice(own);
                results = rest;
            }
            return Ok(());
        };
        for row in 0..wires.rows {
            let mut values: Vec<Vec<u8>> = Vec::new();
            let keep = |_, dense: &[u8]| -> Result<(), DeviceError> {
                values.push(dense.to_vec());
                Ok(())
            };
            wires.feed(row, |at| &*held[inputs[at]], keep)?;
            let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
            let results = worker.run(&values).map_err(failed)?;
            wires.deliver(row, &results, &mut held[outputs[0]]);
        }
        Ok(())
    }
}

impl Loaded for Apart {
    fn bind(&mut self, port: Port, buffer: &Buffer) -> Result<(), DeviceError> {
        bind(&mut self.bound, &self.types, port, buffer)
    }

    fn execute(&mut self) -> Result<(), DeviceError> {
        self.run()
    }

    fn profile(&mut self) -> Result<Vec<StepTime>, DeviceError> {
        let start = Instant::now();
        self.run()?;
        Ok(one_step(&self.name, &self.types, start.elapsed()))
    }

    fn roof(&self) -> Option<Roof> {
        None
    }

    fn overflows(&self) -> &[Overflow] {
        &[]
    }

    fn copied(&self) -> u64 {
        self.copied + self.wires.as_ref().map_or(0, |wires| wires.copied)
    }

    fn describe(&self) -> String {
        format!("{} on the engine, in another process\n", self.name)
    }

    fn receipt(&self) -> Receipt {
        self.receipt.clone()
    }
}
