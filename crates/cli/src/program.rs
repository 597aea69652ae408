//! Programs as files: a folder that `compile` wrote, its `model.mil`, or the text of a graph.

use crate::exit::file;
use aneforge::artifact::{PROGRAM_FILE, WEIGHTS_FILE};
use aneforge::import::mil;
use aneforge::ir::graph::Graph;
use aneforge::ir::text;
use aneforge_formats::{FileError, map};
use aneforge_mil::BlobFile;
use aneforge_mil::netplist::NET_FILE;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Reads and verifies the program at `path`.
pub fn open(path: &Path) -> Result<Graph> {
    let path = if path.is_dir() { inside(path)? } else { path.to_owned() };
    let bytes = map(&path)?;
    let utf8 = std::str::from_utf8(&bytes).map_err(|e| {
        file(format!(
            "`{}` is not text from byte {} on; name a graph (.ir) or a program (.mil)",
            path.display(),
            e.valid_up_to()
        ))
    })?;
    let named = || path.display().to_string();
    if path.extension().is_some_and(|e| e == "mil") || utf8.trim_start().starts_with("program") {
        return compiled(utf8, &path).with_context(named);
    }
    text::parse(utf8).with_context(named)
}

/// The program in a folder.
fn inside(folder: &Path) -> Result<PathBuf> {
    let (program, first) = (folder.join(PROGRAM_FILE), folder.join("segment0"));
    if program.exists() {
        return Ok(program);
    }
    let layer = folder.join(NET_FILE).exists();
    let folder = folder.display();
    Err(if layer {
        file(format!(
            "`{folder}` holds a native layer, which cannot be read back as a graph; run the graph that it was \
             compiled from"
        ))
    } else if first.exists() {
        file(format!(
            "`{folder}` holds a program in several segments; name one, such as `{}`",
            first.display()
        ))
    } else {
        file(format!(
            "`{folder}` holds no {PROGRAM_FILE}; `aneforge compile GRAPH.ir -o {folder}` writes one"
        ))
    })
}

fn compiled(text: &str, path: &Path) -> Result<Graph> {
    let program = aneforge_mil::parse(text).map_err(|e| file(e.to_string()))?;
    let weights = path.with_file_name(WEIGHTS_FILE);
    let bytes = map(&weights).map_err(|error| match error {
        FileError::Missing(_) => file(format!(
            "its weights `{}` do not exist; a program and its weights stay in one folder",
            weights.display()
        )),
        other => other.into(),
    })?;
    let blob = BlobFile::parse(&bytes)
        .with_context(|| format!("{} is damaged, compile the graph again", weights.display()))?;
    aneforge_mil::verify(&program, Some(blob.directory())).map_err(|errors| {
        let more = errors.len().saturating_sub(1);
        let more = if more > 0 { format!("\nand {more} more") } else { String::new() };
        file(format!(
            "not a valid program: {}{more}",
            errors.first().map_or_else(String::new, ToString::to_string)
        ))
    })?;
    Ok(mil::read(&program, &bytes)?)
}
