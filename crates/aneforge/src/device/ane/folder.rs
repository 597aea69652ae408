//! The files that the compiler reads, in a folder whose name is what they hold.
//!
//! The system keys what it has compiled by paths, too, so a program has the same one in every process.

use super::made;
use crate::device::DeviceError;
use crate::emit::Blob;
use crate::ir::graph::Graph;
use aneforge_ane::{PortSpec, Source};
use aneforge_mil::Program;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const TEXT: &str = "model.mil";
const WEIGHTS: &str = "weights.bin";
/// What the compiler makes, with the system's build after it: what one has made another cannot load.
const CACHE: &str = "cache";
/// Which system a program was compiled on.
pub(super) const STAMP: &str = "compiled";
/// Hexadecimal digits of a folder's name, as the reference has them.
const DIGITS: usize = 24;

/// A program on disk.
pub(super) struct Folder {
    /// What it holds, as a hash.
    pub(super) key: String,
    text: PathBuf,
    pub(super) cache: PathBuf,
    inputs: Vec<PortSpec>,
    outputs: Vec<PortSpec>,
}

/// A writer whose bytes are hashed, too.
struct Hashed<W> {
    to: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Folder {
    /// Writes a program below `root`, unless it is there.
    pub(super) fn write(
        root: &Path,
        system: &str,
        graph: &Graph,
        program: &Program,
        blob: &Blob,
    ) -> Result<Folder, DeviceError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        made(root)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let aside = root.join(format!(".writing-{}-{number}", std::process::id()));
        made(&aside)?;
        let failed = |error: &dyn std::fmt::Display| DeviceError::Folder {
            why: format!("cannot write the program to {}: {error}", root.display()),
        };
        let text = program.to_string();
        let key = filled(&aside, &text, graph, blob);
        let key = key.inspect_err(|_| _ = std::fs::remove_dir_all(&aside)).map_err(|error| failed(&error))?;
        let place = root.join(&key);
        if !same(&aside, &place) {
            // Damaged, or never finished; whoever has it open keeps what was there.
            let away = root.join(format!(".damaged-{}-{number}", std::process::id()));
            if std::fs::rename(&place, &away).is_ok() {
                _ = std::fs::remove_dir_all(&away);
            }
            // Another process may be first, with the same.
            if std::fs::rename(&aside, &place).is_err() && !same(&aside, &place) {
                _ = std::fs::remove_dir_all(&aside);
                return Err(failed(&"the folder is in the way of another"));
            }
        }
        _ = std::fs::remove_dir_all(&aside);
        let function = &program.functions[0];
        let bytes = |id: crate::ir::graph::NodeId| graph.node(id).ty.bytes();
        let inputs = function.params.iter().zip(graph.feeds());
        let inputs =
            inputs.map(|(port, id)| PortSpec { name: port.name.clone(), bytes: bytes(id) }).collect();
        let outputs = function.returns.iter().zip(graph.outputs());
        let outputs = outputs.map(|(name, &id)| PortSpec { name: name.clone(), bytes: bytes(id) }).collect();
        Ok(Folder { key, text: place.join(TEXT), cache: place.join(cache_of(system)), inputs, outputs })
    }

    /// What is compiled.
    pub(super) fn source(&self) -> Source<'_> {
        Source { text: &self.text, cache: &self.cache, inputs: &self.inputs, outputs: &self.outputs }
    }

    fn stamp_file(&self) -> PathBuf {
        self.text.with_file_name(STAMP)
    }

    /// Remembers on which system it was compiled. It is compiled again where that is not known.
    pub(super) fn stamp(&self, system: &str) {
        _ = std::fs::write(self.stamp_file(), system);
    }

    /// On which system it was compiled.
    pub(super) fn stamped(&self) -> Option<String> {
        std::fs::read_to_string(self.stamp_file()).ok()
    }
}

/// The folder of what the compiler of this system makes.
fn cache_of(system: &str) -> String {
    let plain: String = system.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
    format!("{CACHE}-{plain}")
}

/// Whether both folders have the same program.
fn same(one: &Path, other: &Path) -> bool {
    [TEXT, WEIGHTS].iter().all(|file| equal(&one.join(file), &other.join(file)).unwrap_or(false))
}

/// Whether two files hold the same.
fn equal(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let count = one.read(&mut a)?;
        if count == 0 {
            return Ok(true);
        }
        other.read_exact(&mut b[..count])?;
        if a[..count] != b[..count] {
            return Ok(false);
        }
    }
}

/// Writes the files; their hash.
fn filled(folder: &Path, text: &str, graph: &Graph, blob: &Blob) -> io::Result<String> {
    std::fs::write(folder.join(TEXT), text)?;
    let to = BufWriter::with_capacity(1 << 16, File::create(folder.join(WEIGHTS))?);
    let mut hash = Sha256::new();
    hash.update(text.as_bytes());
    let written = blob.write(graph, Hashed { to, hash }).map_err(io::Error::other)?;
    let Hashed { to, hash } = written;
    to.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
    let digest = hash.finalize();
    Ok(digest
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .take(DIGITS)
        .map(|d| char::from(b"0123456789abcdef"[usize::from(d)]))
        .collect())
}
