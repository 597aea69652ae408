//! Programs of MIL on the host.

use crate::error::text;
use crate::program::{Port, Runs, Source};
use aneforge::device::Device;
use aneforge::{Buffer, CompileOptions, Graph, Session, Target, TensorType, compile_graph, import};
use aneforge_tensor::Bytes;
use std::path::Path;
use std::sync::Arc;

/// A weight file without weights: its head alone.
const NO_WEIGHTS: [u8; 64] = {
    let mut head = [0; 64];
    head[4] = 2;
    head
};

/// Programs that run one after the other.
pub(crate) struct Host {
    device: Arc<dyn Device>,
    ops: Vec<Op>,
    runs: u64,
}

struct Op {
    session: Session,
    /// Where each port of the caller's order is among the session's.
    inputs: Vec<usize>,
    outputs: Vec<usize>,
}

impl Host {
    pub(crate) fn new(device: Arc<dyn Device>) -> Host {
        Host { device, ops: Vec::new(), runs: 0 }
    }

    fn buffer(&self, op: usize, index: usize, input: bool) -> Result<&Buffer, String> {
        let Op { session, inputs, outputs } = &self.ops[op];
        let buffer =
            if input { session.input_buffer(inputs[index]) } else { session.output_buffer(outputs[index]) };
        buffer.ok_or_else(|| "no op reads this input, so that it has no memory".into())
    }
}

/// Where each port is among names with types, and whether it has their bytes.
fn placed(what: &str, ports: &[Port], known: &[(String, TensorType)]) -> Result<Vec<usize>, String> {
    let place = |(name, bytes): &Port| {
        let at = known.iter().position(|(known, _)| known == name);
        let names = || known.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let at = at.ok_or_else(|| format!("the program has no {what} {name}, but {}", names()))?;
        let want = known[at].1.bytes();
        // Callers count in units of two bytes.
        if *bytes != want && *bytes != want.next_multiple_of(2) {
            return Err(format!("{what} {name} has {want} bytes in the program, and {bytes} were said"));
        }
        Ok(at)
    };
    ports.iter().map(place).collect()
}

/// The program in a file, and the graph that it computes.
fn read(path: &Path) -> Result<(aneforge_mil::Program, Graph), String> {
    let program = std::fs::read_to_string(path).map_err(text)?;
    let program = aneforge_mil::parse(&program).map_err(|error| format!("{}: {error}", path.display()))?;
    let weights = path.with_file_name("weights.bin");
    let weights = match weights.exists() {
        true => std::fs::read(weights).map_err(text)?,
        false => NO_WEIGHTS.to_vec(),
    };
    let name = path.display().to_string();
    let graph = import::mil::read_named(&program, &Bytes::new(weights), &name).map_err(text)?;
    Ok((program, graph))
}

/// Whether the program in a file compiles for a chip.
pub(crate) fn compiles(path: &Path, target: Target) -> Result<(), String> {
    let (_, graph) = read(path)?;
    compile_graph(&graph, &CompileOptions::target(target)).map(drop).map_err(text)
}

impl Runs for Host {
    fn add(&mut self, source: &Source) -> Result<(), String> {
        let (program, graph) = read(&source.text)?;
        let plan = compile_graph(&graph, &CompileOptions::default()).map_err(text)?;
        let function = program.functions.first().ok_or("the program has no function")?;
        let fed: Vec<(String, TensorType)> =
            plan.feeds.iter().map(|feed| (feed.name.clone(), feed.ty)).collect();
        let got =
            function.returns.iter().cloned().zip(plan.outputs.iter().map(|(ty, _)| *ty)).collect::<Vec<_>>();
        let (inputs, outputs) =
            (placed("input", &source.inputs, &fed)?, placed("output", &source.outputs, &got)?);
        let session = Session::new(plan, &self.device).map_err(text)?;
        self.ops.push(Op { session, inputs, outputs });
        Ok(())
    }

    fn execute(&mut self) -> Result<(), String> {
        self.ops.iter_mut().try_for_each(|op| op.session.execute().map_err(text))?;
        self.runs += 1;
        Ok(())
    }

    fn input(&mut self, op: usize, index: usize) -> Result<*mut u8, String> {
        Ok(self.buffer(op, index, true)?.expose())
    }

    fn output(&mut self, op: usize, index: usize) -> Result<*mut u8, String> {
        Ok(self.buffer(op, index, false)?.expose())
    }

    fn share(&mut self, from: (usize, usize), to: (usize, usize)) -> Result<(), String> {
        let buffer = self.buffer(from.0, from.1, false)?.clone();
        let Op { session, inputs, .. } = &mut self.ops[to.0];
        session.bind_input(inputs[to.1], &buffer).map_err(text)
    }

    fn chain(&mut self, _: usize, _: usize) -> Result<(), String> {
        // They run in their order.
        Ok(())
    }

    fn signalled(&self, _: usize) -> Option<u64> {
        Some(self.runs)
    }
}
