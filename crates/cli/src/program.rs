//! Programs as files: one file or a folder that `compile` wrote, its `model.mil`, or the text of a graph.

use crate::context::Context;
use crate::exit::file;
use crate::output;
use aneforge::Plan;
use aneforge::artifact::{Cache, MANIFEST_FILE, PROGRAM_FILE, Set, WEIGHTS_FILE, is_program};
use aneforge::import::mil;
use aneforge::ir::graph::Graph;
use aneforge::ir::text;
use aneforge::plan::Segment;
use aneforge_formats::{FileError, at_most, given, map};
use aneforge_mil::BlobFile;
use aneforge_mil::netplist::NET_FILE;
use aneforge_tensor::Bytes;
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};

/// What a file or folder holds.
pub enum Program {
    /// A graph, or what a program was read back as.
    Graph(Graph),
    /// A compiled program.
    Plan(Box<Plan>),
}

impl Program {
    /// The program as these options ask for: a plan as it is, where they ask for nothing else.
    pub fn plan(self, path: &Path, context: &Context, cache: Option<&Cache>) -> Result<Plan> {
        match self {
            Program::Plan(plan) if context.takes(&plan) => Ok(*plan),
            other => Ok(context.cached(&other.graph(path)?, cache)?),
        }
    }

    /// The graph, of which there is one unless a plan is cut.
    pub fn graph(self, path: &Path) -> Result<Graph> {
        let plan = match self {
            Program::Graph(graph) => return Ok(graph),
            Program::Plan(plan) => *plan,
        };
        let (segments, target) = (plan.segments.len(), plan.target);
        match <[Segment; 1]>::try_from(plan.segments) {
            Ok([segment]) if segment.mil().is_some() => Ok(segment.graph),
            _ => Err(file(format!(
                "`{}` is compiled for {target}, in {}, and can be run but not compiled again; leave \
                 --target, --native, --norms and --compress out, or name the graph that it was compiled from",
                name(path),
                output::counted(segments, "segment")
            ))),
        }
    }
}

/// Reads and verifies the graph at `path`, or the one of the compiled program there.
pub fn open(path: &Path) -> Result<Graph> {
    read(path)?.graph(path)
}

/// Reads and verifies what is at `path`.
pub fn read(path: &Path) -> Result<Program> {
    let folder = path.is_dir();
    let path = if folder { path.join(PROGRAM_FILE) } else { path.to_owned() };
    let set = if path.ends_with(PROGRAM_FILE) { set_of(&path)? } else { None };
    if let Some((set, prefix)) = &set {
        if folder
            && prefix.is_empty()
            && let Some(plan) = set.plan(path.parent().unwrap_or(&path))?
        {
            return Ok(Program::Plan(Box::new(plan)));
        }
        let member = |name: &str| set.get(&format!("{prefix}{name}"));
        if let (Some(program), Some(weights)) = (member(PROGRAM_FILE), member(WEIGHTS_FILE)) {
            let weights = || Ok(weights.clone());
            let graph = compiled(utf8(program, &path)?, &path, weights);
            return graph.map(Program::Graph).with_context(|| name(&path));
        }
    }
    if folder {
        return Err(no_program(path.parent().unwrap_or(&path), set));
    }
    let bytes = bytes(&path, MOST_TEXT)?;
    if is_program(&bytes) {
        return Ok(Program::Plan(Box::new(Plan::from_bytes(&bytes, &name(&path))?)));
    }
    if bytes.len() as u64 > MOST_TEXT {
        return Err(FileError::Large { path, most: MOST_TEXT }.into());
    }
    let text = utf8(&bytes, &path)?;
    if path.extension().is_some_and(|e| e == "mil") || text.trim_start().starts_with("program") {
        let graph = compiled(text, &path, || weights_of(&path));
        return graph.map(Program::Graph).with_context(|| name(&path));
    }
    text::parse_named(text, &name(&path)).map(Program::Graph).with_context(|| name(&path))
}

/// What a path is called in messages.
pub fn name(path: &Path) -> String {
    if output::is_standard(path) { "standard input".into() } else { path.display().to_string() }
}

/// The most bytes of text that is read.
pub const MOST_TEXT: u64 = 1 << 30;

/// The contents of a file, or of standard input where the path is `-`. Of what is no file, at most so many bytes.
pub fn bytes(path: &Path, most: u64) -> Result<Bytes> {
    if !output::is_standard(path) {
        return Ok(given(path, most)?);
    }
    let bytes = at_most(std::io::stdin().lock(), Path::new("standard input"), most);
    bytes.map(Bytes::new).map_err(|error| match error {
        FileError::Read { source, .. } => anyhow::Error::from(source).context("standard input"),
        FileError::Large { .. } => file(format!("standard input has more than {most} bytes")),
        other => other.into(),
    })
}

fn utf8<'a>(bytes: &'a [u8], path: &Path) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|e| {
        let (name, at) = (name(path), e.valid_up_to());
        file(format!(
            "`{name}` is not text from byte {at} on; name a graph (.ir) or a program (.mil, .aneforge)"
        ))
    })
}

/// The set that a program's file would belong to, and the part of its name that comes before the file's.
fn set_of(program: &Path) -> Result<Option<(Set, String)>> {
    let Some(folder) = program.parent().and_then(|folder| absolute(folder).ok()) else { return Ok(None) };
    if let Some(set) = Set::open(&folder)? {
        return Ok(Some((set, String::new())));
    }
    let segment = folder.file_name().and_then(|n| n.to_str()).filter(|n| n.starts_with("segment"));
    let (Some(segment), Some(parent)) = (segment, folder.parent()) else { return Ok(None) };
    Ok(Set::open(parent)?.map(|set| (set, format!("{segment}/"))))
}

/// The folder with a name of its own, even if it is called `.`.
fn absolute(folder: &Path) -> std::io::Result<PathBuf> {
    match folder.as_os_str().is_empty() || folder.file_name().is_none() {
        true => folder.join(".").canonicalize(),
        false => Ok(folder.to_owned()),
    }
}

/// Why a folder cannot be run.
fn no_program(folder: &Path, set: Option<(Set, String)>) -> anyhow::Error {
    let runs = |set: &Set| first_program(set).map(|name| folder.join(name));
    let folder = folder.display();
    file(match set {
        Some((set, prefix)) if set.get(&format!("{prefix}{NET_FILE}")).is_some() => format!(
            "`{folder}` holds a native layer, which cannot be read back as a graph; run the graph that it was \
             compiled from"
        ),
        Some((set, prefix)) if prefix.is_empty() => match runs(&set) {
            Some(first) => format!(
                "`{folder}` holds a program in several segments; name one that is no native layer, such as `{}`, or run \
                 the graph that it was compiled from",
                first.display()
            ),
            None => format!(
                "`{folder}` holds native layers, which cannot be read back as graphs; run the graph that they were \
                 compiled from"
            ),
        },
        _ => format!(
            "`{folder}` holds no {MANIFEST_FILE}, so no compiled program; `aneforge compile GRAPH.ir -o \
             {folder}` writes one"
        ),
    })
}

/// The folder of the first segment that can be run by itself.
fn first_program(set: &Set) -> Option<String> {
    let has = |folder: &str, file: &str| set.get(&format!("{folder}/{file}")).is_some();
    let folders = (0..).map(|at| format!("segment{at}"));
    let mut there = folders.take_while(|folder| has(folder, PROGRAM_FILE) || has(folder, NET_FILE));
    there.find(|folder| has(folder, PROGRAM_FILE))
}

/// The weights of a program that belongs to no set.
fn weights_of(path: &Path) -> Result<Bytes> {
    if output::is_standard(path) {
        return Err(file("a compiled program has its weights beside it; name its file or folder"));
    }
    let weights = path.with_file_name(WEIGHTS_FILE);
    map(&weights).map_err(|error| match error {
        FileError::Missing(_) => file(format!(
            "its weights `{}` do not exist; a program and its weights stay in one folder",
            weights.display()
        )),
        other => other.into(),
    })
}

fn compiled(text: &str, path: &Path, weights: impl FnOnce() -> Result<Bytes>) -> Result<Graph> {
    let program = aneforge_mil::parse(text).map_err(|e| file(e.to_string()))?;
    let weights = weights()?;
    let blob = BlobFile::parse(&weights).with_context(|| {
        format!("{} is damaged, compile the graph again", path.with_file_name(WEIGHTS_FILE).display())
    })?;
    aneforge_mil::verify(&program, Some(blob.directory())).map_err(|errors| {
        let more = errors.len().saturating_sub(1);
        let more = if more > 0 { format!("\nand {more} more") } else { String::new() };
        file(format!(
            "not a valid program: {}{more}",
            errors.first().map_or_else(String::new, ToString::to_string)
        ))
    })?;
    Ok(mil::read_named(&program, &weights, &name(path))?)
}
