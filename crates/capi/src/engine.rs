//! Programs of MIL on the engine: the text is handed over as it is.

use crate::error::text;
use crate::names;
use crate::program::{Port, Runs, Source};
use aneforge::device::ane::{AneOptions, Isolation, paced};
use aneforge_ane::worker::try_compile;
use aneforge_ane::{Buffer, Compiled, Framework, Options, PortSpec, Program, Side};
use std::sync::Arc;

/// Programs on one stream.
pub(crate) struct Engine {
    framework: Arc<Framework>,
    options: AneOptions,
    program: Option<Program>,
    /// Of each program, memory of inputs and outputs; an input that shares another's has none.
    buffers: Vec<[Vec<Option<Buffer>>; 2]>,
    /// Inputs that share an output's memory.
    shared: Vec<((usize, usize), (usize, usize))>,
}

impl Engine {
    pub(crate) fn open() -> Result<Engine, String> {
        let options = names::engine()?;
        if options.isolation == Isolation::Worker {
            return Err("ANEFORGE_ISOLATION is worker, and the functions ane_e5rt_* hand out memory of this process, so that they run \
                        programs in it; unset it, or load compiled models with aneforge_open"
                .into());
        }
        let framework = Framework::open(&options.libraries).map_err(text)?;
        Ok(Engine { framework, options, program: None, buffers: Vec::new(), shared: Vec::new() })
    }

    fn program(&mut self) -> Result<&mut Program, String> {
        self.program.as_mut().ok_or_else(|| "nothing is loaded".into())
    }

    /// An error for a port of which the library says another size than the caller: the engine would write past its memory.
    fn sized(&mut self, op: usize, source: &Source) -> Result<(), String> {
        let program = self.program()?;
        let inputs = source.inputs.iter().enumerate().map(|(at, port)| (Side::Input(at), port));
        let outputs = source.outputs.iter().enumerate().map(|(at, port)| (Side::Output(at), port));
        for (side, (name, bytes)) in inputs.chain(outputs) {
            let Some(layout) = program.layout(op, side) else { continue };
            let count = layout.iter().map(|(extent, _)| *extent as usize).product::<usize>();
            // Half precision; or bytes, which callers count in units of two.
            if ![2 * count, count, count.next_multiple_of(2)].contains(bytes) {
                return Err(format!("{name} has {count} values in the program, and {bytes} bytes were said"));
            }
        }
        Ok(())
    }

    fn memory(&mut self, op: usize, side: usize, index: usize) -> Result<*mut u8, String> {
        let from = self.shared.iter().find(|(_, to)| side == 0 && *to == (op, index)).map(|(from, _)| *from);
        let (op, side, index) = from.map_or((op, side, index), |(op, index)| (op, 1, index));
        let buffer = self.buffers[op][side][index].as_mut();
        Ok(buffer.ok_or("the port has no memory")?.bytes_mut().as_mut_ptr())
    }
}

impl Runs for Engine {
    fn add(&mut self, source: &Source) -> Result<(), String> {
        let specs = |ports: &[Port]| {
            ports
                .iter()
                .map(|(name, bytes)| PortSpec { name: name.clone(), bytes: *bytes })
                .collect::<Vec<_>>()
        };
        let (inputs, outputs) = (specs(&source.inputs), specs(&source.outputs));
        let from = aneforge_ane::Source {
            text: &source.text,
            cache: &source.cache,
            inputs: &inputs,
            outputs: &outputs,
        };
        let AneOptions { libraries, worker, compile_limit, backoff, .. } = &self.options;
        if let Some(worker) = worker {
            paced(&self.framework, *backoff, || try_compile(worker, libraries, &from, *compile_limit))
                .map_err(text)?;
        }
        let compile = || Compiled::new(&self.framework, &from, Options::default());
        let compiled = paced(&self.framework, *backoff, compile).map_err(text)?;
        let op = match &mut self.program {
            Some(program) => program.add(&compiled, &from).map_err(text)?,
            None => {
                let loaded = Program::load(&self.framework, &compiled, &from, Options::default());
                self.program = Some(loaded.map_err(text)?);
                0
            }
        };
        self.sized(op, source)?;
        let framework = Arc::clone(&self.framework);
        let allocate = |specs: &[PortSpec]| {
            specs
                .iter()
                .map(|spec| framework.allocate(spec.bytes).map(Some).map_err(text))
                .collect::<Result<Vec<_>, _>>()
        };
        let buffers = [allocate(&inputs)?, allocate(&outputs)?];
        for (side, buffers) in buffers.iter().enumerate() {
            for (index, buffer) in buffers.iter().enumerate() {
                let port = if side == 0 { Side::Input(index) } else { Side::Output(index) };
                let handle = buffer.as_ref().ok_or("a buffer is missing")?.handle();
                self.program()?.bind(op, port, &handle).map_err(text)?;
            }
        }
        self.buffers.push(buffers);
        Ok(())
    }

    fn execute(&mut self) -> Result<(), String> {
        let program = self.program.as_mut().ok_or("nothing is loaded")?;
        program.execute(self.buffers.iter_mut().flatten().flatten().flatten()).map_err(text)
    }

    fn input(&mut self, op: usize, index: usize) -> Result<*mut u8, String> {
        self.memory(op, 0, index)
    }

    fn output(&mut self, op: usize, index: usize) -> Result<*mut u8, String> {
        self.memory(op, 1, index)
    }

    fn share(&mut self, from: (usize, usize), to: (usize, usize)) -> Result<(), String> {
        let handle = self.buffers[from.0][1][from.1].as_ref().ok_or("the output has no memory")?.handle();
        self.program()?.bind(to.0, Side::Input(to.1), &handle).map_err(text)?;
        // What the input had is not needed any more.
        self.buffers[to.0][0][to.1] = None;
        self.shared.retain(|(_, known)| *known != to);
        self.shared.push((from, to));
        Ok(())
    }

    fn chain(&mut self, before: usize, after: usize) -> Result<(), String> {
        self.program()?.chain(before, after).map_err(text)
    }

    fn signalled(&self, op: usize) -> Option<u64> {
        self.program.as_ref()?.signalled(op)?.ok()
    }
}
