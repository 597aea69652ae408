//! Compiled programs on disk, as one file ([`Plan::save`], [`Plan::load`]) or as a folder that the engine reads: `model.mil`
//! and `weights.bin`, or `net.plist` and its weight files for a native layer, the plan, a readable report, and a manifest
//! that binds them into one set. Also a [`Cache`] of programs, how any output reaches its place, and what was measured on
//! this machine.

mod cache;
#[cfg(test)]
mod crash;
mod file;
mod lock;
mod measured;
mod output;
mod set;
mod state;

pub use cache::{Cache, Cached, Checked, Collected, Kept, UnknownSize, size_named};
pub use file::{About, Aligned, EXTENSION, FileFault, is_program};
pub use measured::{MEASURED_FILE, Measured};
pub use output::replace;
pub use set::{Entry, Manifest, Set};
pub(crate) use state::NOTES;
pub use state::{StateError, load_state, load_values, read_state, save_state, save_values};

use crate::plan::{Code, Plan, Segment};
use aneforge_formats::FileError;
use aneforge_mil::netplist::NET_FILE;
use output::Disk;
use set::Stage;
use std::io;
use std::path::{Path, PathBuf};

/// The program's file name.
pub const PROGRAM_FILE: &str = "model.mil";
/// The weights' file name; programs name it relative to their own folder.
pub const WEIGHTS_FILE: &str = "weights.bin";
/// The file name of the plan, which has what the files of the engine do not: names, lines, how segments are joined, and the
/// weights that are in no weight file.
pub const PLAN_FILE: &str = "plan.aneforge";
/// The report's file name.
pub const REPORT_FILE: &str = "report.txt";
/// The manifest's file name.
pub const MANIFEST_FILE: &str = "aneforge.manifest";

/// A program could not be written or read. The environment's fault, mostly.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file stands where a program's file would, and no program was written there before.
    #[error("`{0}` is there and was not written by a compile; move it away, or name another folder")]
    Taken(PathBuf),
    /// A manifest is not one.
    #[error("`{path}` is damaged ({why}); compile the program again")]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file of a set is not the one that the manifest describes.
    #[error(
        "`{path}` was changed after it was compiled: its {got} bytes are not {those} that `{MANIFEST_FILE}` \
         describes; compile the program again",
        those = if got == want { "those".to_owned() } else { format!("the {want}") }
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// Bytes when it was compiled.
        want: u64,
        /// Bytes now.
        got: u64,
    },
    /// A file of a set could not be read.
    #[error("{source}; the files of a compiled program stay in one folder")]
    Absent {
        /// Which, and why.
        source: FileError,
    },
    /// A file with a program is not one that this version loads.
    #[error("`{file}`: {fault}")]
    Program {
        /// The file.
        file: String,
        /// What is wrong.
        fault: Box<FileFault>,
    },
    /// A folder has no manifest.
    #[error(
        "`{0}` holds no {MANIFEST_FILE}, so no compiled program; name another folder, or compile one into it"
    )]
    NoProgram(PathBuf),
    /// A set has no plan.
    #[error("`{0}` was compiled by a version that kept no {PLAN_FILE}; compile the program again")]
    NoPlan(PathBuf),
}

impl ArtifactError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ArtifactError {
        let path = path.to_owned();
        move |source| ArtifactError::Io { action, path, source }
    }

    fn program(file: &str, fault: FileFault) -> ArtifactError {
        ArtifactError::Program { file: file.to_owned(), fault: Box::new(fault) }
    }

    /// The nearest kind of system error.
    pub fn io_kind(&self) -> io::ErrorKind {
        match self {
            ArtifactError::Io { source, .. } => source.kind(),
            ArtifactError::Taken(_) => io::ErrorKind::AlreadyExists,
            ArtifactError::Manifest { .. } | ArtifactError::Changed { .. } => io::ErrorKind::InvalidData,
            ArtifactError::Program { .. } | ArtifactError::NoPlan(_) => io::ErrorKind::InvalidData,
            ArtifactError::Absent { source: FileError::Missing(_) } | ArtifactError::NoProgram(_) => {
                io::ErrorKind::NotFound
            }
            ArtifactError::Absent { .. } => io::ErrorKind::Other,
        }
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The folders that hold a program, in the order they run.
    pub folders: Vec<PathBuf>,
    /// Every file with its size, the report last.
    pub files: Vec<(PathBuf, u64)>,
}

/// Writes every segment of `plan` below `folder`, which is made if it is missing: one segment directly in
/// it, several in folders `segment0`, `segment1` and so on; and the plan, which refers to weights where they lie in the
/// weight files. [`Plan::load`] reads the folder.
///
/// The files are a set. They are written aside, and take the place of the set that was there, if any, in one
/// rename; what that set had and the new one has not is removed. Other files in the folder are left alone,
/// and one that stands in the way is an error.
pub fn write(plan: &Plan, folder: &Path) -> Result<Written, ArtifactError> {
    let single = plan.segments.len() == 1;
    let mut stage = Stage::new(folder)?;
    let (mut folders, mut prefixes) = (Vec::new(), Vec::new());
    for (i, segment) in plan.segments.iter().enumerate() {
        let (prefix, place) = match single {
            true => (String::new(), folder.to_owned()),
            false => (format!("segment{i}/"), folder.join(format!("segment{i}"))),
        };
        write_segment(segment, &prefix, &mut stage)?;
        folders.push(place);
        prefixes.push(prefix);
    }
    let places = file::places(plan, &prefixes);
    let beside = |segment, constant, part| places.get(&(segment, constant, part)).cloned();
    let written = file::prepared(plan, &beside);
    let (_, fill) = written.map_err(ArtifactError::io("write", &folder.join(PLAN_FILE)))?;
    stage.write(PLAN_FILE, fill)?;
    stage.write(REPORT_FILE, |file| file.write_all(report_of(plan).as_bytes()))?;
    let entries = stage.commit()?;
    let files = entries.into_iter().map(|e| (folder.join(e.file), e.bytes)).collect();
    Ok(Written { folders, files })
}

fn write_segment(segment: &Segment, prefix: &str, stage: &mut Stage) -> Result<(), ArtifactError> {
    let named = |name: &str| format!("{prefix}{name}");
    match &segment.code {
        Code::Mil { program, blob } => {
            stage.write(&named(PROGRAM_FILE), |file| write!(file, "{program}"))?;
            stage.write(&named(WEIGHTS_FILE), |file| {
                blob.write(&segment.graph, file).map(|_| ()).map_err(io::Error::other)
            })
        }
        Code::Native(netplist) => {
            stage.write(&named(NET_FILE), |file| write!(file, "{}", netplist.document))?;
            netplist
                .weights
                .iter()
                .try_for_each(|(name, bytes)| stage.write(&named(name), |file| file.write_all(bytes)))
        }
    }
}

/// What was compiled, for people.
pub fn report_of(plan: &Plan) -> String {
    let mut out = plan.to_string();
    for trace in &plan.traces {
        out += &format!("  {}: {} nodes after it\n", trace.stage, trace.graph.len());
        for event in &trace.events {
            out += &format!("    {event}\n");
        }
    }
    out
}
