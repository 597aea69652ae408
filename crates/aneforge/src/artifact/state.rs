//! The state of a session, kept in a file.

use super::ArtifactError;
use super::output::{Disk, replace_for_good};
use crate::session::{RunError, Session};
use aneforge_formats::{SafeTensors, SafeTensorsError, safetensors};
use aneforge_tensor::Tensor;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// State could not be written to a file, or read from one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The file could not be written. The environment's fault.
    #[error(transparent)]
    Write(#[from] ArtifactError),
    /// It is no safetensors file, or is not there. The file's fault.
    #[error(transparent)]
    Read(#[from] SafeTensorsError),
    /// It is not what was written. The file's fault.
    #[error(
        "{file} was changed after it was written: its values have checksum {got}, not {want}; save the state again"
    )]
    Changed {
        /// The file.
        file: String,
        /// The checksum when it was written.
        want: String,
        /// The checksum now.
        got: String,
    },
    /// It does not hold the state of this program. The file's fault.
    #[error("{file}: {error}; it was saved by another program")]
    Other {
        /// The file.
        file: String,
        /// What does not fit.
        error: Box<RunError>,
    },
    /// A value has the name under which the format keeps notes. The caller's fault.
    #[error("no state may be called `{NOTES}`: files keep their notes by that name; give it another")]
    Name,
    /// The session failed.
    #[error(transparent)]
    Run(Box<RunError>),
}

/// The name of notes in a safetensors file.
pub(crate) const NOTES: &str = "__metadata__";

impl StateError {
    /// The kind of system error behind it, if there is one.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            StateError::Write(error) => Some(error.io_kind()),
            StateError::Read(SafeTensorsError::File(error)) => Some(error.io_kind()),
            _ => None,
        }
    }
}

/// The note that has the checksum.
const SUM: &str = "crc32";

/// The CRC-32 of names and values, in the order of names, and of notes.
fn checksum<'a>(
    values: impl Iterator<Item = (&'a str, &'a Tensor)>,
    notes: &BTreeMap<String, String>,
) -> String {
    let mut values: Vec<_> = values.collect();
    values.sort_by_key(|(name, _)| *name);
    let mut sum = crc32fast::Hasher::new();
    for (name, tensor) in values {
        sum.update(name.as_bytes());
        sum.update(tensor.bytes());
    }
    for (key, note) in notes.iter() {
        sum.update(key.as_bytes());
        sum.update(note.as_bytes());
    }
    format!("{:08x}", sum.finalize())
}

/// Writes all state of a session to a safetensors file: half-precision tensors under the names of the states, or their numbers
/// among the inputs where they have none. The file is replaced as a whole, so that a reader finds the old state or the new.
pub fn save_state(session: &Session, path: &Path) -> Result<(), StateError> {
    let values = session.snapshot().map_err(|e| StateError::Run(Box::new(e)))?;
    save_values(&values, &BTreeMap::new(), path)
}

/// Writes values by name, and notes, to a safetensors file with a checksum of both. It is on the disk before it takes the place
/// of what was there.
pub fn save_values(
    values: &[(String, Tensor)],
    notes: &BTreeMap<String, String>,
    path: &Path,
) -> Result<(), StateError> {
    if values.iter().any(|(name, _)| name == NOTES) {
        return Err(StateError::Name);
    }
    let described: Vec<_> = values.iter().map(|(name, t)| (name.clone(), t.dtype(), t.shape())).collect();
    let sum = checksum(values.iter().map(|(name, tensor)| (name.as_str(), tensor)), notes);
    let mut notes = notes.clone();
    notes.insert(SUM.to_owned(), sum);
    let layout = safetensors::layout(&described, &notes);
    let write = |file: &mut dyn std::io::Write| {
        file.write_all(&layout.head)?;
        layout.order.iter().try_for_each(|&at| file.write_all(values[at].1.bytes()))
    };
    Ok(replace_for_good(&Disk, path, write)?)
}

/// Gives a session the state that [`save_state`] wrote: all of it or, where the file is not one of this program's state, none.
pub fn load_state(session: &mut Session, path: &Path) -> Result<(), StateError> {
    let values: Vec<(String, Tensor)> = load_values(path)?.0.into_iter().collect();
    let other = |error| StateError::Other { file: path.display().to_string(), error: Box::new(error) };
    session.restore(&values).map_err(other)
}

/// What such a file holds, by name.
pub fn read_state(path: &Path) -> Result<BTreeMap<String, Tensor>, StateError> {
    Ok(load_values(path)?.0)
}

/// Values by name.
pub type Values = BTreeMap<String, Tensor>;
/// Notes by name.
pub type Notes = BTreeMap<String, String>;

/// What [`save_values`] wrote: values by name, and notes.
pub fn load_values(path: &Path) -> Result<(Values, Notes), StateError> {
    let file = SafeTensors::open(path)?;
    let values = file.names().map(|name| Ok((name.to_owned(), file.tensor(name)?)));
    let values = values.collect::<Result<BTreeMap<_, _>, SafeTensorsError>>()?;
    let mut notes = file.metadata().clone();
    // Files of others have none.
    if let Some(want) = notes.remove(SUM) {
        let got = checksum(values.iter().map(|(name, tensor)| (name.as_str(), tensor)), &notes);
        if want != got {
            return Err(StateError::Changed { file: path.display().to_string(), want, got });
        }
    }
    Ok((values, notes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::host::Host;
    use crate::ir::ops::leaf::Role;
    use crate::{CompileOptions, Graph, TensorType, Var, compile_graph};
    use aneforge_tensor::Shape;

    fn counter(name: &str, by: f64) -> Session {
        let ty = TensorType::f16(Shape::new(&[2]).unwrap());
        let state = Var::described_leaf(ty, Role::State, f64::INFINITY, name);
        let graph = Graph::carrying(&[], &[(&state, &state.adds(by))]).unwrap();
        Session::new(compile_graph(&graph, &CompileOptions::default()).unwrap(), Host::new(1)).unwrap()
    }

    #[test]
    fn state_goes_on_where_it_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.safetensors");
        let mut first = counter("n", 1.0);
        (0..3).for_each(|_| first.execute().unwrap());
        save_state(&first, &path).unwrap();
        first.execute().unwrap();
        let mut second = counter("n", 10.0);
        load_state(&mut second, &path).unwrap();
        second.execute().unwrap();
        assert_eq!(second.snapshot().unwrap()[0].1.to_f32(), [13.0; 2]);
        save_state(&first, &path).unwrap();
        load_state(&mut second, &path).unwrap();
        assert_eq!(second.snapshot().unwrap()[0].1.to_f32(), [4.0; 2]);
        let mut other = counter("m", 1.0);
        let error = load_state(&mut other, &path).unwrap_err();
        assert!(error.to_string().ends_with(
            "state.safetensors: state `n` is not read or changed by this program; it was saved by another program"
        ));
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let error = load_state(&mut second, &path).unwrap_err();
        assert!(
            error.to_string().contains("was changed after it was written: its values have checksum"),
            "{error}"
        );
        std::fs::write(&path, b"{}").unwrap();
        assert!(matches!(load_state(&mut second, &path), Err(StateError::Read(_))));
        let error = save_state(&second, &folder.path().join("no/such/folder")).unwrap_err();
        assert!(error.to_string().starts_with("cannot write "), "{error}");
        let error = save_state(&counter(NOTES, 1.0), &path).unwrap_err();
        assert!(error.to_string().starts_with("no state may be called `__metadata__`"), "{error}");
        assert_eq!(second.snapshot().unwrap()[0].1.to_f32(), [4.0; 2]);
    }
}
