//! Compiled programs on disk: `model.mil` and `weights.bin`, or `net.plist` and its weight files for a native
//! layer, and a readable report; each file is written whole or not at all.

use crate::plan::{Code, Plan, Segment};
use aneforge_mil::netplist::NET_FILE;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// The program's file name.
pub const PROGRAM_FILE: &str = "model.mil";
/// The weights' file name; programs name it relative to their own folder.
pub const WEIGHTS_FILE: &str = "weights.bin";
/// The report's file name.
pub const REPORT_FILE: &str = "report.txt";

/// A program could not be written or read. The environment's fault, mostly.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}", path = path.display())]
pub struct ArtifactError {
    /// What was tried.
    pub action: &'static str,
    /// On which file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ArtifactError {
    let path = path.to_owned();
    move |source| ArtifactError { action, path, source }
}

/// Writes every segment of `plan` below `folder`, which is made if it is missing: one segment directly in
/// it, several in folders `segment0`, `segment1` and so on. Returns the folders written.
pub fn write(plan: &Plan, folder: &Path) -> Result<Vec<PathBuf>, ArtifactError> {
    let single = plan.segments.len() == 1;
    let mut folders = Vec::new();
    for (i, segment) in plan.segments.iter().enumerate() {
        let folder = if single { folder.to_owned() } else { folder.join(format!("segment{i}")) };
        fs::create_dir_all(&folder).map_err(failed("make folder", &folder))?;
        write_segment(segment, &folder)?;
        folders.push(folder);
    }
    let report = folder.join(REPORT_FILE);
    replace(&report, |file| file.write_all(report_of(plan).as_bytes()))?;
    Ok(folders)
}

fn write_segment(segment: &Segment, folder: &Path) -> Result<(), ArtifactError> {
    // Weights first: a program without its weights never stands in the folder.
    match &segment.code {
        Code::Mil { program, blob } => {
            let encode = |file: &mut BufWriter<File>| {
                blob.write(&segment.graph, file).map(|_| ()).map_err(io::Error::other)
            };
            replace(&folder.join(WEIGHTS_FILE), encode)?;
            replace(&folder.join(PROGRAM_FILE), |file| write!(file, "{program}"))
        }
        Code::Native(netplist) => {
            for (name, bytes) in &netplist.weights {
                replace(&folder.join(name), |file| file.write_all(bytes))?;
            }
            replace(&folder.join(NET_FILE), |file| write!(file, "{}", netplist.document))
        }
    }
}

/// What was compiled, for people.
pub fn report_of(plan: &Plan) -> String {
    let mut out = plan.to_string();
    for trace in &plan.traces {
        out += &format!("  {}: {} nodes after it\n", trace.stage, trace.graph.len());
        for event in &trace.events {
            let what = event.refused.map_or_else(String::new, |why| format!(", left alone: {why}"));
            out += &format!("    {} at {}{what}\n", event.rule, event.node);
        }
    }
    out
}

/// Writes a file beside its place and moves it there, so that readers see the old one or the whole new
/// one, also after a crash.
pub fn replace(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), ArtifactError> {
    let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = File::create(&temporary).and_then(|file| {
        let mut file = BufWriter::with_capacity(1 << 16, file);
        fill(&mut file)?;
        file.into_inner().map_err(io::IntoInnerError::into_error).map(drop)
    });
    let moved = written.and_then(|()| fs::rename(&temporary, path));
    moved.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        failed("write", path)(error)
    })
}
