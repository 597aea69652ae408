//! Programs of MIL with ports by name, on the engine or on the host.

use crate::engine::Engine;
use crate::host::Host;
use crate::names;
use std::path::{Path, PathBuf};

/// A port: its name, and how many bytes its value has.
pub(crate) type Port = (String, usize);

/// A program that is to be loaded.
pub(crate) struct Source {
    pub(crate) text: PathBuf,
    pub(crate) cache: PathBuf,
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
}

/// What runs programs.
pub(crate) trait Runs {
    /// Compiles another program, to run after those that are there.
    fn add(&mut self, source: &Source) -> Result<(), String>;
    /// Runs all of them.
    fn execute(&mut self) -> Result<(), String>;
    /// Where an input of a program lies.
    fn input(&mut self, op: usize, index: usize) -> Result<*mut u8, String>;
    /// Where an output lies.
    fn output(&mut self, op: usize, index: usize) -> Result<*mut u8, String>;
    /// Gives an input the memory of an output.
    fn share(&mut self, from: (usize, usize), to: (usize, usize)) -> Result<(), String>;
    /// Makes program `after` wait for program `before`.
    fn chain(&mut self, before: usize, after: usize) -> Result<(), String>;
    /// The value of a program's event.
    fn signalled(&self, op: usize) -> Option<u64>;
}

/// One or more programs, and what is known of their ports.
pub struct Program {
    runs: Box<dyn Runs>,
    ops: Vec<[Vec<Port>; 2]>,
    cache: PathBuf,
    ran: bool,
    /// How often it was started, and the event's value before the last time.
    pub(crate) started: u64,
    pub(crate) before: u64,
}

/// The engine's bit in a mask of devices.
const ENGINE: u64 = 4;

impl Program {
    pub(crate) fn compile(source: Source, mask: u64) -> Result<Program, String> {
        if mask & ENGINE == 0 {
            return Err(format!(
                "the mask of devices is {mask:#x}; only programs for the engine (4) are compiled"
            ));
        }
        checked(&source.text)?;
        matched(&source)?;
        let device = names::device(None)?;
        let mut runs: Box<dyn Runs> = match device.name() {
            "ane" => Box::new(Engine::open()?),
            _ => Box::new(Host::new(device)),
        };
        runs.add(&source)?;
        let Source { cache, inputs, outputs, .. } = source;
        Ok(Program { runs, ops: vec![[inputs, outputs]], cache, ran: false, started: 0, before: 0 })
    }

    /// Adds a program of one input and one output; its number.
    pub(crate) fn add(&mut self, text: &str, input: Port, output: Port) -> Result<usize, String> {
        let number = self.ops.len();
        let cache = self.cache.join(format!("op{number}"));
        let source = Source { text: text.into(), cache, inputs: vec![input], outputs: vec![output] };
        checked(&source.text)?;
        matched(&source)?;
        self.runs.add(&source)?;
        self.ops.push([source.inputs, source.outputs]);
        Ok(number)
    }

    pub(crate) fn len(&self) -> usize {
        self.ops.len()
    }

    pub(crate) fn execute(&mut self) -> Result<(), String> {
        self.ran = true;
        self.before = self.runs.signalled(self.ops.len() - 1).unwrap_or(self.started);
        self.started += 1;
        self.runs.execute()
    }

    /// The value of a program's event: the library's, or how often it ran.
    pub(crate) fn signalled(&self, op: usize) -> Result<u64, String> {
        self.ops.get(op).ok_or_else(|| no_op(op, self.ops.len()))?;
        Ok(self.runs.signalled(op).unwrap_or(self.started))
    }

    fn find(&self, op: usize, side: usize, name: &str) -> Result<(usize, usize), String> {
        let ports = &self.ops.get(op).ok_or_else(|| no_op(op, self.ops.len()))?[side];
        let at = ports.iter().position(|(port, _)| port == name);
        let known = || ports.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let what = ["input", "output"][side];
        let at = at.ok_or_else(|| format!("there is no {what} {name}; the program has {}", known()))?;
        Ok((at, ports[at].1))
    }

    /// Where an input lies, and its bytes.
    pub(crate) fn input(&mut self, op: usize, name: &str) -> Result<(*mut u8, usize), String> {
        let (at, bytes) = self.find(op, 0, name)?;
        Ok((self.runs.input(op, at)?, bytes))
    }

    /// Where an output lies, and its bytes.
    pub(crate) fn output(&mut self, op: usize, name: &str) -> Result<(*mut u8, usize), String> {
        let (at, bytes) = self.find(op, 1, name)?;
        Ok((self.runs.output(op, at)?, bytes))
    }

    pub(crate) fn share(&mut self, from: (usize, &str), to: (usize, &str)) -> Result<(), String> {
        if self.ran {
            return Err("memory is shared before the first run; this program has run".into());
        }
        let (output, input) = (self.find(from.0, 1, from.1)?, self.find(to.0, 0, to.1)?);
        if output.1 != input.1 {
            return Err(format!("{} has {} bytes and {} has {}", from.1, output.1, to.1, input.1));
        }
        self.runs.share((from.0, output.0), (to.0, input.0))
    }

    pub(crate) fn chain(&mut self, before: usize, after: usize) -> Result<(), String> {
        let most = self.ops.len();
        let wrong = [before, after].into_iter().find(|op| *op >= most);
        match wrong {
            Some(op) => Err(no_op(op, most)),
            None if before >= after => Err(format!("program {after} cannot wait for program {before}")),
            None => self.runs.chain(before, after),
        }
    }
}

fn no_op(op: usize, most: usize) -> String {
    format!("there is no program {op}; there are {most}")
}

fn checked(text: &Path) -> Result<(), String> {
    match text.is_file() {
        true => Ok(()),
        false => Err(format!("{} is no file", text.display())),
    }
}

/// An error unless the ports are those of the program: an input that is not fed, or an output that goes nowhere, would only show when
/// it runs, or in wrong numbers.
fn matched(source: &Source) -> Result<(), String> {
    let text = std::fs::read_to_string(&source.text)
        .map_err(|error| format!("{}: {error}", source.text.display()))?;
    // What is read here in no way may still be so by the engine's compiler, which has the say.
    let Ok(program) = aneforge_mil::parse(&text) else { return Ok(()) };
    let Some(function) = program.functions.first() else { return Ok(()) };
    let params: Vec<&str> = function.params.iter().map(|port| port.name.as_str()).collect();
    let returns: Vec<&str> = function.returns.iter().map(String::as_str).collect();
    for (what, said, known) in [("input", &source.inputs, params), ("output", &source.outputs, returns)] {
        let all = known.join(", ");
        if let Some((name, _)) = said.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            return Err(format!("the program has no {what} {name}; it has {all}"));
        }
        let times = |name: &str| said.iter().filter(|(said, _)| said == name).count();
        match known.iter().map(|name| (name, times(name))).find(|(_, times)| *times != 1) {
            Some((name, 0)) => {
                return Err(format!(
                    "{what} {name} of the program is not among the ports; name all of {all}"
                ));
            }
            Some((name, _)) => return Err(format!("{what} {name} is named more than once")),
            None => {}
        }
    }
    Ok(())
}

/// Whether a program compiles, for the chip that `options` names.
pub(crate) fn check(text: &str, cache: &str, options: &str) -> Result<std::ffi::c_int, String> {
    let text = PathBuf::from(text);
    checked(&text)?;
    let chip = options.strip_prefix("TargetArchitecture=");
    if !options.is_empty() && chip.is_none() {
        return Err(format!("the only option known is TargetArchitecture=, got {options}"));
    }
    // An unknown name is taken for this machine's chip, without a word, so it is looked up first.
    let target = chip.map(aneforge::Target::named).transpose().map_err(|error| error.to_string())?;
    let device = names::device(None)?;
    if device.name() == "ane" {
        let framework =
            aneforge_ane::Framework::open(&names::engine()?.libraries).map_err(|error| error.to_string())?;
        if target.is_some() && framework.lacks("e5rt_e5_compiler_options_set_custom_ane_compiler_options") {
            return Ok(-2);
        }
        let cache = PathBuf::from(cache);
        let source = aneforge_ane::Source { text: &text, cache: &cache, inputs: &[], outputs: &[] };
        let done = match target {
            Some(target) => framework.check(&source, target.name()),
            None => {
                aneforge_ane::Compiled::new(&framework, &source, aneforge_ane::Options::default()).map(drop)
            }
        };
        return done.map(|()| 0).map_err(|error| error.to_string());
    }
    crate::host::compiles(&text, target.unwrap_or_default()).map(|()| 0)
}
