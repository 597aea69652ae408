//! What the networks of a pipeline have in common: weights, a device, and programs by their shapes.

use super::error::DiffusionError;
use crate::programs::Programs;
use crate::weights::Stored;
use aneforge::compile::compile;
use aneforge::device::{self, Device};
use aneforge::ir::types::Caller;
use aneforge::passes::{CompileOptions, Norms};
use aneforge::session::Session;
use aneforge::{RunError, Var};
use std::sync::Arc;

/// What messages call the place where nodes are made, which is no line of the user's.
const MADE_HERE: Caller = Caller::new("<diffusion>", 0);
/// Programs that each network keeps.
const KEPT: usize = 2;

/// How a pipeline is loaded.
#[derive(Clone, Default)]
pub struct DiffusionOptions {
    /// How graphs are compiled, and for which chip.
    pub compile: CompileOptions,
    /// The device to run on; by default that of the machine, as [`device::default`] gives it.
    pub device: Option<Arc<dyn Device>>,
}

/// What programs are compiled for, and run on.
#[derive(Clone)]
pub struct Runtime {
    /// The device.
    pub device: Arc<dyn Device>,
    /// How graphs are compiled.
    pub options: CompileOptions,
}

impl Runtime {
    /// What these options come to.
    pub fn new(options: DiffusionOptions) -> Result<Runtime, DiffusionError> {
        let DiffusionOptions { compile: options, device } = options;
        options.target.runs_programs()?;
        // What learned networks of this kind hold is beyond what plain norms may square.
        let options = match options.norms {
            Norms::Auto => options.norms(Norms::Robust),
            _ => options,
        };
        Ok(Runtime { device: device.map_or_else(device::default, Ok)?, options })
    }
}

/// A network's weights and programs.
pub(super) struct Component<K> {
    pub(super) stored: Stored,
    runtime: Runtime,
    programs: Programs<K>,
}

impl<K: PartialEq> Component<K> {
    pub(super) fn new(stored: Stored, runtime: &Runtime) -> Component<K> {
        Component { stored, runtime: runtime.clone(), programs: Programs::new(KEPT) }
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The program for this shape. Weights whose names begin with `ours` must all be in it.
    pub(super) fn program(
        &mut self,
        key: K,
        ours: [&str; 2],
        file: &'static str,
        build: impl FnOnce(&mut Stored) -> Result<Vec<Var>, DiffusionError>,
    ) -> Result<&mut Session, DiffusionError> {
        let Component { stored, runtime, programs } = self;
        programs.get(key, || {
            let outputs = MADE_HERE.scope(|| build(stored))?;
            // Files of old versions have the numbers of positions among the weights.
            let part =
                |key: &&str| ours.iter().any(|part| key.starts_with(part)) && !key.ends_with("position_ids");
            let mistaken = outputs.iter().any(|output| output.check().is_err());
            if let Some(key) = stored.untaken().find(part).filter(|_| !mistaken) {
                let (directory, key) = (stored.directory().to_owned(), key.to_owned());
                return Err(DiffusionError::Foreign { directory, key, file });
            }
            // The compiler knows constants by number; whoever wrote the file knows them by name.
            let beyond = |e| match stored.beyond_half() {
                Some(beyond) => DiffusionError::Beyond(Box::new(beyond)),
                None => DiffusionError::from(RunError::from(e)),
            };
            let plan = compile(&outputs, &runtime.options).map_err(beyond)?;
            Ok(Session::new(plan, runtime.device.clone())?)
        })
    }
}

/// Fails where there are not as many values as a shape has.
pub(super) fn check(name: &'static str, got: usize, dims: &[usize]) -> Result<(), DiffusionError> {
    let want = dims.iter().product();
    match got == want {
        true => Ok(()),
        false => Err(DiffusionError::Values { name, shape: format!("{dims:?}"), want, got }),
    }
}
