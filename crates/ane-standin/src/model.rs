//! What a program is: read, verified, and run on the host.

use crate::faults;
use crate::registry::Memory;
use aneforge::device::host::{self, HostOptions};
use aneforge::ir::graph::InputInfo;
use aneforge::plan::{Code, Results, Segment, Source};
use aneforge::{DType, Feed, Graph, Plan, Session, TensorType, emit, f16, import};
use aneforge_mil::{BlobFile, parse, verify};
use aneforge_tensor::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A program that compiles.
pub(crate) struct Compiled {
    pub(crate) plan: Arc<Plan>,
    pub(crate) inputs: Vec<(String, TensorType)>,
    pub(crate) outputs: Vec<(String, TensorType)>,
    /// Whether it was compiled before, perhaps by another process.
    pub(crate) reopened: bool,
}

/// A port of a program.
pub(crate) type Port = (String, TensorType);

/// Compiles the text at `path`, with the weights beside it, or says why not.
pub(crate) fn compile(path: &Path) -> Result<Compiled, String> {
    faults::print();
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let program = parse(&text).map_err(|error| format!("MIL parse error: {error}"))?;
    let [function] = &program.functions[..] else { return Err("MIL program has not one function".into()) };
    let results = function.body.iter().flat_map(|stmt| &stmt.results);
    if !function.returns.iter().any(|name| results.clone().any(|result| result.name == *name)) {
        crate::broken(
            "libc++abi: terminating: unordered_map::at: key not found (a program without statements)",
        );
    }
    if let Some(stmt) = function.body.iter().find(|stmt| faults::rejects(&stmt.op)) {
        return Err(format!("ANECCompile() FAILED: {}", stmt.op));
    }
    let weights = path.with_file_name("weights.bin");
    let weights = if weights.exists() {
        Bytes::new(
            std::fs::read(&weights).map_err(|error| format!("cannot read {}: {error}", weights.display()))?,
        )
    } else {
        Bytes::new(Vec::new())
    };
    let graph = read(&program, &weights)?;
    let inputs: Vec<Port> =
        graph.feed_types().into_iter().map(|InputInfo { name, ty, .. }| (name, ty)).collect();
    let types = graph.outputs().iter().map(|&id| graph.node(id).ty);
    let outputs: Vec<Port> = function.returns.iter().cloned().zip(types).collect();
    Ok(Compiled { plan: Arc::new(plan_of(graph)), inputs, outputs, reopened: false })
}

fn read(program: &aneforge_mil::Program, weights: &Bytes) -> Result<Graph, String> {
    if weights.is_empty() {
        verify(program, None).map_err(|errors| format!("MIL is invalid: {}", errors[0]))?;
        // A file without records.
        let mut empty = vec![0u8; 64];
        empty[4] = 2;
        return import::mil::read(program, &Bytes::new(empty)).map_err(|error| error.to_string());
    }
    let file = BlobFile::parse(weights).map_err(|error| format!("weights.bin: {error}"))?;
    verify(program, Some(file.directory())).map_err(|errors| format!("MIL is invalid: {}", errors[0]))?;
    import::mil::read(program, weights).map_err(|error| error.to_string())
}

/// A plan of a graph as it is.
fn plan_of(graph: Graph) -> Plan {
    let feeds = graph.feed_types();
    let types = graph.outputs().iter().map(|&id| graph.node(id).ty);
    let outputs =
        types.enumerate().map(|(output, ty)| (ty, Source::Segment { segment: 0, output })).collect();
    let (program, blob) = emit::emit(&graph);
    let inputs = (0..feeds.len()).map(Source::Feed).collect();
    let segment = Segment { graph, inputs, code: Code::Mil { program, blob } };
    Plan {
        target: faults::chip(),
        segments: vec![segment],
        feeds,
        outputs,
        carries: Vec::new(),
        results: Results::InOrder,
        n_ops: 0,
        traces: Vec::new(),
        weights: Vec::new(),
    }
}

/// A session on the host, in the last bits as every other.
pub(crate) fn session(plan: Arc<Plan>) -> Result<Session, String> {
    let host = host::shared_with(&HostOptions::default()).map_err(|error| error.to_string())?;
    Session::new(plan, &*host).map_err(|error| error.to_string())
}

/// Runs once from memory to memory.
pub(crate) fn run(
    session: &mut Session,
    inputs: &[Arc<Memory>],
    outputs: &[Arc<Memory>],
) -> Result<(), String> {
    let types: Vec<TensorType> = session.plan().feeds.iter().map(|feed| feed.ty).collect();
    for (index, (ty, memory)) in types.iter().zip(inputs).enumerate() {
        let bytes = memory_of(memory, ty.bytes());
        let feed =
            if ty.dtype == DType::U8 { Feed::U8(bytes) } else { Feed::F16(bytemuck::cast_slice(bytes)) };
        session.set(index, feed, ty.shape.dims()).map_err(|error| error.to_string())?;
    }
    session.execute().map_err(|error| error.to_string())?;
    for (index, memory) in outputs.iter().enumerate() {
        let values = session.output(index);
        // SAFETY: the memory has at least as many bytes as the port, which was checked when it was bound; the stream runs alone.
        let to = unsafe {
            std::slice::from_raw_parts_mut(memory.at.load(Ordering::Relaxed).cast::<f16>(), values.len())
        };
        to.copy_from_slice(&values);
    }
    Ok(())
}

fn memory_of(memory: &Memory, bytes: usize) -> &[u8] {
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts(memory.at.load(Ordering::Relaxed), bytes) }
}
