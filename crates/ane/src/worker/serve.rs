//! The process that runs programs.

use super::{COMPILE_FAILED, MOST_TEXT, ProgramWork, Ready, Request, Work};
use crate::error::AneError;
use crate::framework::Framework;
use crate::native::{NativeModel, NativeSource};
use crate::program::{Compiled, Options, PortSpec, Program, Side, Source};
use crate::sys::buffer::Buffer;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::sync::Arc;
use std::time::Duration;

/// What runs in the process.
enum Served {
    Nothing,
    Program { program: Program, inputs: Vec<Buffer>, outputs: Vec<Buffer> },
    Native { model: NativeModel, inputs: Vec<usize>, outputs: Vec<usize> },
}

impl Served {
    fn load(request: &Request) -> Result<Served, AneError> {
        let framework = Framework::open(&request.libraries)?;
        let call_limit = Duration::from_millis(request.call_limit_ms);
        match &request.work {
            Work::Compile { program } => program.compile(&framework).map(|_| Served::Nothing),
            Work::Program { program } => {
                let compiled = program.compile(&framework)?;
                program.load(&framework, &compiled, call_limit)
            }
            Work::Native { folder, weights, inputs, outputs } => {
                let read = |name: &str| {
                    let path = folder.join(name);
                    std::fs::read(&path).map_err(|error| AneError::Io {
                        action: "read",
                        path,
                        why: error.to_string(),
                    })
                };
                let document = read(crate::native::DOCUMENT_FILE)?;
                let weights: Vec<(String, Vec<u8>)> = weights
                    .iter()
                    .map(|name| Ok((name.clone(), read(name)?)))
                    .collect::<Result<_, AneError>>()?;
                let names = |symbols: &'_ [String]| symbols.to_vec();
                let (fed, got) = (names(inputs), names(outputs));
                let fed: Vec<&str> = fed.iter().map(String::as_str).collect();
                let got: Vec<&str> = got.iter().map(String::as_str).collect();
                let source =
                    NativeSource { document: &document, weights: &weights, inputs: &fed, outputs: &got };
                let model = NativeModel::load(&framework, &source, call_limit)?;
                let inputs = (0..fed.len()).filter_map(|at| Some(model.input(at)?.dense())).collect();
                let outputs = (0..got.len()).filter_map(|at| Some(model.output(at)?.dense())).collect();
                Ok(Served::Native { model, inputs, outputs })
            }
        }
    }

    fn sizes(&self) -> [Vec<usize>; 2] {
        let bytes = |buffers: &[Buffer]| buffers.iter().map(Buffer::len).collect();
        match self {
            Served::Nothing => [Vec::new(), Vec::new()],
            Served::Program { inputs, outputs, .. } => [bytes(inputs), bytes(outputs)],
            Served::Native { inputs, outputs, .. } => [inputs.clone(), outputs.clone()],
        }
    }

    /// Runs once on all inputs, one after the other, and appends the results.
    fn run(&mut self, mut values: &[u8], results: &mut Vec<u8>) -> Result<(), AneError> {
        match self {
            Served::Nothing => Ok(()),
            Served::Program { program, inputs, outputs } => {
                for buffer in &mut *inputs {
                    let (own, rest) = values.split_at(buffer.len());
                    buffer.bytes_mut().copy_from_slice(own);
                    values = rest;
                }
                program.execute(inputs.iter_mut().chain(&mut *outputs))?;
                outputs.iter().for_each(|buffer| results.extend_from_slice(buffer.bytes()));
                Ok(())
            }
            Served::Native { model, inputs, outputs } => {
                for (at, &bytes) in inputs.iter().enumerate() {
                    let (own, rest) = values.split_at(bytes);
                    model.write(at, own)?;
                    values = rest;
                }
                model.evaluate()?;
                for (at, &bytes) in outputs.iter().enumerate() {
                    let start = results.len();
                    results.resize(start + bytes, 0);
                    model.read(at, &mut results[start..])?;
                }
                Ok(())
            }
        }
    }
}

impl ProgramWork {
    fn specs(&self) -> [Vec<PortSpec>; 2] {
        let specs = |ports: &[(String, usize)]| {
            ports.iter().map(|(name, bytes)| PortSpec { name: name.clone(), bytes: *bytes }).collect()
        };
        [specs(&self.inputs), specs(&self.outputs)]
    }

    fn compile(&self, framework: &Framework) -> Result<Compiled, AneError> {
        let [inputs, outputs] = self.specs();
        let source = Source { text: &self.text, cache: &self.cache, inputs: &inputs, outputs: &outputs };
        Compiled::new(framework, &source, Options::default())
    }

    fn load(
        &self,
        framework: &Arc<Framework>,
        compiled: &Compiled,
        call_limit: Duration,
    ) -> Result<Served, AneError> {
        let [inputs, outputs] = self.specs();
        let source = Source { text: &self.text, cache: &self.cache, inputs: &inputs, outputs: &outputs };
        let options = Options { call_limit, ..Options::default() };
        let mut program = Program::load(framework, compiled, &source, options)?;
        let allocate = |specs: &[PortSpec]| {
            specs.iter().map(|spec| framework.allocate(spec.bytes)).collect::<Result<Vec<Buffer>, _>>()
        };
        let (fed, got) = (allocate(&inputs)?, allocate(&outputs)?);
        for (at, buffer) in fed.iter().enumerate() {
            program.bind(0, Side::Input(at), &buffer.handle())?;
        }
        for (at, buffer) in got.iter().enumerate() {
            program.bind(0, Side::Output(at), &buffer.handle())?;
        }
        Ok(Served::Program { program, inputs: fed, outputs: got })
    }
}

/// Does what the process at standard input and output asks. What libraries print to standard output goes to standard error from now on,
/// as the other process reads answers there.
pub fn serve_standard() -> std::io::Result<()> {
    let answers = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
    serve(BufReader::new(std::io::stdin()), BufWriter::new(std::fs::File::from(answers)))
}

/// Does what the process on the other side of `from` and `to` asks, until `from` ends.
pub fn serve(mut from: impl BufRead, mut to: impl Write) -> std::io::Result<()> {
    crate::capture::leave();
    let mut line = String::new();
    from.read_line(&mut line)?;
    let invalid = |error: serde_json::Error| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
    let request: Request = serde_json::from_str(&line).map_err(invalid)?;
    let (mut served, answer) = match Served::load(&request) {
        Ok(served) => {
            let [input_bytes, output_bytes] = served.sizes();
            let ready = Ready { status: "ready".into(), error: String::new(), input_bytes, output_bytes };
            (Some(served), ready)
        }
        Err(error) => {
            let status = match error {
                AneError::Library { .. } | AneError::Symbol { .. } => "dlopen_failed",
                AneError::Compile { .. } => COMPILE_FAILED,
                AneError::Budget { .. } | AneError::Recompile(_) => "load_failed",
                _ => "failed",
            };
            let (input_bytes, output_bytes) = (Vec::new(), Vec::new());
            (None, Ready { status: status.into(), error: error.to_string(), input_bytes, output_bytes })
        }
    };
    writeln!(to, "{}", serde_json::to_string(&answer).map_err(invalid)?)?;
    to.flush()?;
    let Some(served) = &mut served else { return Ok(()) };
    let bytes: usize = answer.input_bytes.iter().sum();
    let (mut values, mut results) = (vec![0; bytes], Vec::new());
    loop {
        let mut count = [0u8; 4];
        if from.read_exact(&mut count).is_err() {
            return Ok(());
        }
        results.clear();
        let mut failed = None;
        for _ in 0..u32::from_le_bytes(count) {
            from.read_exact(&mut values)?;
            if failed.is_none() {
                failed = served.run(&values, &mut results).err();
            }
        }
        let answer = failed.map(|error| error.to_string());
        match &answer {
            None => to.write_all(&0u32.to_le_bytes()).and_then(|()| to.write_all(&results))?,
            Some(text) => {
                let length = (text.len() as u32).clamp(1, MOST_TEXT);
                to.write_all(&length.to_le_bytes())
                    .and_then(|()| to.write_all(&text.as_bytes()[..length as usize]))?;
            }
        }
        to.flush()?;
    }
}
