//! The machine, and what of the system's libraries is there.

use crate::device::ane::{Ane, AneOptions, absent};
use crate::target::family_of_brand;
use aneforge_ane::symbols::{CORE_FOUNDATION, E5RT, Function, IO_SURFACE, Need, OBJC};
use aneforge_ane::{Framework, Libraries};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// A library, and which of the functions that are called it has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Library {
    /// Its path.
    pub path: String,
    /// What it is for.
    pub purpose: String,
    /// Why it cannot be opened, if so.
    pub absent: Option<String>,
    /// Functions that it has.
    pub found: Vec<String>,
    /// Functions without which nothing runs, and which it has not.
    pub missing: Vec<String>,
    /// Functions that it need not have, and has not.
    pub lacking: Vec<String>,
}

/// The machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Operating system and processor architecture.
    pub platform: String,
    /// The processor's name, where the kernel says it.
    pub processor: Option<String>,
    /// The family of its engine, where that is known of the name.
    pub family: Option<String>,
    /// The build of the system, or the version of what stands in for the engine.
    pub system: Option<String>,
    /// What the device says of itself, or why there is none.
    pub device: String,
    /// Libraries.
    pub libraries: Vec<Library>,
    /// Where programs are written for the compiler, and whether that can be written to.
    pub folder: String,
}

/// Looks at the machine.
pub fn machine(options: &AneOptions) -> Machine {
    let framework = Framework::open(&options.libraries);
    let processor = framework.as_ref().ok().and_then(|framework| framework.processor()).or_else(processor);
    let family = processor.as_deref().and_then(family_of_brand).map(|brand| brand.family.to_string());
    let device = match (absent(options), Ane::open(options)) {
        (None, Ok(ane)) => crate::Device::describe(&ane),
        (None, Err(error)) => error.to_string(),
        (Some(why), _) => why,
    };
    let Libraries { espresso, engine, foundation, core_foundation, io_surface, objc, system, .. } =
        &options.libraries;
    let libraries: [(_, _, &[Function]); 7] = [
        (espresso, "compiles and runs programs", E5RT),
        (objc, "messages to what runs native layers", OBJC),
        (engine, "compiles and runs native layers", &[]),
        (foundation, "what native layers are described with", &[]),
        (core_foundation, "what native layers are described with", CORE_FOUNDATION),
        (io_surface, "memory of native layers", IO_SURFACE),
        (system, "what the kernel says of the machine, and calls back", &[]),
    ];
    let folder = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    Machine {
        platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        processor,
        family,
        system: framework.ok().map(|framework| framework.system().to_owned()),
        device,
        libraries: libraries.map(|(path, purpose, functions)| library(path, purpose, functions)).into(),
        folder: match writes(&folder) {
            Ok(()) => folder.display().to_string(),
            Err(error) => format!("{} cannot be written to: {error}", folder.display()),
        },
    }
}

/// The processor's name on Linux.
fn processor() -> Option<String> {
    let said = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let name = said.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'))?.1.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

fn writes(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(format!(".doctor-{}", std::process::id()));
    std::fs::write(&path, b"x")?;
    std::fs::remove_file(path)
}

fn library(path: &Path, purpose: &str, functions: &[Function]) -> Library {
    let purpose = purpose.to_owned();
    let name = path.display().to_string();
    let found = aneforge_ane::symbols::found(path, functions);
    match found {
        Err(why) => {
            let (found, missing, lacking) = (Vec::new(), Vec::new(), Vec::new());
            Library { path: name, purpose, absent: Some(why), found, missing, lacking }
        }
        Ok(found) => {
            let names = |of: &dyn Fn(&Function, bool) -> bool| {
                let rows = functions.iter().zip(&found).filter(|(function, there)| of(function, **there));
                rows.map(|(function, _)| function.symbol.to_owned()).collect()
            };
            Library {
                path: name,
                purpose,
                absent: None,
                found: names(&|_, there| there),
                missing: names(&|function, there| !there && function.need == Need::Hard),
                lacking: names(&|function, there| !there && function.need == Need::Soft),
            }
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".into());
        writeln!(f, "\nmachine")?;
        writeln!(f, "  platform: {}", self.platform)?;
        writeln!(f, "  processor: {}, engine of family {}", known(&self.processor), known(&self.family))?;
        writeln!(f, "  system: {}", known(&self.system))?;
        writeln!(f, "  engine: {}", self.device)?;
        writeln!(f, "  programs: {}", self.folder)?;
        for Library { path, purpose, absent, found, missing, lacking } in &self.libraries {
            match absent {
                Some(why) => writeln!(f, "  {path} ({purpose}): not there ({why})")?,
                None if found.is_empty() && missing.is_empty() && lacking.is_empty() => {
                    writeln!(f, "  {path} ({purpose}): there")?;
                }
                None => {
                    writeln!(f, "  {path} ({purpose}): {} functions of those that are called", found.len())?
                }
            }
            for (what, names) in [("missing, and nothing runs without", missing), ("lacking", lacking)] {
                if !names.is_empty() {
                    writeln!(f, "    {what}: {}", names.join(", "))?;
                }
            }
        }
        Ok(())
    }
}
