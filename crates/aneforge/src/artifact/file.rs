//! One file that holds a compiled program: 64 bytes that say what it is, then the plan as [`crate::portable`] writes it.
//!
//! | bytes | hold |
//! |---|---|
//! | 0..8 | `\x89ANEPLAN` |
//! | 8..12 | the version of the format, little-endian as all numbers |
//! | 12..16 | the CRC-32 of everything after these 64 bytes |
//! | 16..24 | how many bytes that is |
//! | 24..40 | the chip that it is compiled for, filled up with zeros |
//! | 40..60 | the version of this library that wrote it, filled up with zeros |
//! | 60..64 | the CRC-32 of the 60 bytes before |
//!
//! The first 12 and the last 4 of these bytes, and the version of the library, are the same in every version of the format.
//! Weights begin at multiples of 64 bytes from the beginning of the file, as long as their elements are of one size, and are
//! used where they lie. The program's text and the layout of its weight file are not in the file but emitted again when
//! it is loaded; a checksum of them is, so that a version that would emit anything else refuses the file.

use super::set::{Set, Summed};
use super::{ArtifactError, Disk, PLAN_FILE, WEIGHTS_FILE, output};
use crate::plan::{Code, Plan};
use crate::portable::{Beside, Links, PortableError, plan_packed, plan_unpacked};
use crate::target::Target;
use aneforge_formats::map;
use aneforge_tensor::{AlignedBytes, Bytes};
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

/// What the name of a file with a program ends with, after a dot.
pub const EXTENSION: &str = "aneforge";

const MAGIC: [u8; 8] = *b"\x89ANEPLAN";
/// The version of the format.
const FORMAT: u32 = 1;
/// Bytes before the plan.
const HEAD: usize = 64;
/// The boundary that a file is used at where it lies.
const ALIGNMENT: usize = 64;

/// Why bytes are no compiled program that this version loads. The file's fault, but for `Memory`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileFault {
    /// They begin otherwise.
    #[error(
        "this is no file with a compiled program, which begins otherwise; name one that `aneforge compile -o \
         NAME.{EXTENSION}`, or `save`, wrote"
    )]
    Foreign,
    /// Some are missing.
    #[error("it was cut off: {got} bytes are there, and {want} were written; write it again")]
    Cut {
        /// Bytes when it was written; of less than its head, those of the head.
        want: u64,
        /// Bytes now.
        got: u64,
    },
    /// There are too many.
    #[error("{got} bytes are there, and {want} were written; write it again")]
    Long {
        /// Bytes when it was written.
        want: u64,
        /// Bytes now.
        got: u64,
    },
    /// They are of another version of the format.
    #[error(
        "it is of format {format}, written by aneforge {library}; this is aneforge {ours}, which reads format {FORMAT}: \
         compile the program again, or use that version",
        ours = env!("CARGO_PKG_VERSION")
    )]
    Format {
        /// Its format.
        format: u32,
        /// What wrote it.
        library: String,
    },
    /// They are others than were written.
    #[error(
        "it was changed after it was written: its {what} has checksum {got:08x}, not {want:08x}; write it again"
    )]
    Changed {
        /// Head or contents.
        what: &'static str,
        /// The checksum when it was written.
        want: u32,
        /// The checksum now.
        got: u32,
    },
    /// A copy at a proper boundary does not fit the memory.
    #[error(
        "a copy of its {0} bytes does not fit the memory that is left; load it from a file, or `include_aligned!` it"
    )]
    Memory(u64),
    /// They are whole, and no plan that this version runs.
    #[error(transparent)]
    Plan(#[from] PortableError),
}

/// What the head of a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The version of this library that wrote it.
    pub library: String,
    /// The chip that it is compiled for.
    pub target: String,
    /// Bytes of the file.
    pub bytes: u64,
    sum: u32,
}

impl About {
    /// Reads the head of a file, of which these are the first bytes.
    pub fn read(bytes: &[u8]) -> Result<About, FileFault> {
        let start = &bytes[..bytes.len().min(MAGIC.len())];
        if start != &MAGIC[..start.len()] || start.is_empty() {
            return Err(FileFault::Foreign);
        }
        let Some(head) = bytes.first_chunk::<HEAD>() else {
            return Err(FileFault::Cut { want: HEAD as u64, got: bytes.len() as u64 });
        };
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (want, got) = (number(60), crc32fast::hash(&head[..60]));
        if want != got {
            return Err(FileFault::Changed { what: "head", want, got });
        }
        let word = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
        let library = word(&head[40..60]);
        if number(8) != FORMAT {
            return Err(FileFault::Format { format: number(8), library });
        }
        let contents = u64::from(number(16)) | u64::from(number(20)) << 32;
        let bytes = contents.saturating_add(HEAD as u64);
        Ok(About { library, target: word(&head[24..40]), bytes, sum: number(12) })
    }

    fn head(&self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(&MAGIC);
        head[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        head[12..16].copy_from_slice(&self.sum.to_le_bytes());
        head[16..24].copy_from_slice(&(self.bytes - HEAD as u64).to_le_bytes());
        for (word, place) in [(&self.target, 24..40), (&self.library, 40..60)] {
            let place = &mut head[place];
            let length = word.len().min(place.len());
            place[..length].copy_from_slice(&word.as_bytes()[..length]);
        }
        let sum = crc32fast::hash(&head[..60]);
        head[60..].copy_from_slice(&sum.to_le_bytes());
        head
    }
}

/// Whether bytes begin as a file with a program does.
pub fn is_program(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// A file of a plan that is ready to be written: how long it is, and what writes it.
pub(super) fn prepared<'a>(
    plan: &'a Plan,
    beside: &Links<'_>,
) -> io::Result<(u64, impl Fn(&mut dyn Write) -> io::Result<()> + use<'a>)> {
    // The numbers of inputs mean something to one process only; without them, equal plans are equal files.
    let packed = plan_packed(plan, &|at, _| at as u64, beside);
    let mut summed = Summed::new(io::sink());
    packed.write(&mut summed)?;
    let bytes = packed.bytes() as u64 + HEAD as u64;
    let (target, library) = (plan.target.name().to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    let head = About { library, target, bytes, sum: summed.sum() }.head();
    Ok((bytes, move |sink: &mut dyn Write| {
        sink.write_all(&head)?;
        packed.write(sink)
    }))
}

/// Reads a file of a plan, whose constants may lie beside it.
fn read(bytes: &Bytes, beside: &Beside<'_>) -> Result<Plan, FileFault> {
    let about = About::read(bytes)?;
    let (want, got) = (about.bytes, bytes.len() as u64);
    match got.cmp(&want) {
        std::cmp::Ordering::Less => return Err(FileFault::Cut { want, got }),
        std::cmp::Ordering::Greater => return Err(FileFault::Long { want, got }),
        std::cmp::Ordering::Equal => {}
    }
    let contents = bytes.slice(HEAD..bytes.len()).expect("invariant: it is longer than its head");
    let sum = crc32fast::hash(&contents);
    if sum != about.sum {
        return Err(FileFault::Changed { what: "contents", want: about.sum, got: sum });
    }
    let target = Target::named(&about.target).map_err(PortableError::from)?;
    let plan = plan_unpacked(aligned(contents)?, &mut |_, fresh| fresh, beside)?;
    if plan.target != target {
        let why = format!("its head says that it is for {target}, and it is for {}", plan.target);
        return Err(PortableError::Content { what: "plan", why }.into());
    }
    Ok(plan)
}

/// These bytes at a boundary that every element type may lie at: themselves, or a copy.
fn aligned(bytes: Bytes) -> Result<Bytes, FileFault> {
    if (bytes.as_ptr() as usize).is_multiple_of(ALIGNMENT) {
        return Ok(bytes);
    }
    let copy = AlignedBytes::try_zeroed(bytes.len());
    let mut copy = copy.ok_or(FileFault::Memory(bytes.len() as u64))?;
    copy.copy_from_slice(&bytes);
    Ok(Bytes::new(copy))
}

impl Plan {
    /// Writes the plan as one file: program, weights, names, target, versions and checksums. A file that is there is
    /// replaced as a whole, so that whoever reads it finds the old one or the new one, also after a crash.
    ///
    /// How it was compiled (`traces`) is not kept, and weights in full are kept in half precision, as they are in weight files.
    ///
    /// ```
    /// use aneforge::{CompileOptions, Plan, Session, Shape, Tensor, Var, compile, device};
    /// let y = Var::input(Shape::new(&[4])?).relu();
    /// let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("relu.aneforge");
    /// compile(&[y], &CompileOptions::default())?.save(&path)?;
    ///
    /// let mut session = Session::new(Plan::load(&path)?, device::named("host")?)?;
    /// let feed = Tensor::from_slice(Shape::new(&[4])?, &[-1.0f32, 0.5, 2.0, -3.0])?;
    /// assert_eq!(session.run(&[feed])?[0].to_f32(), [0.0, 0.5, 2.0, 0.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ArtifactError> {
        let path = path.as_ref();
        let (_, fill) = prepared(self, &|_, _, _| None).map_err(ArtifactError::io("write", path))?;
        output::replace_for_good(&Disk, path, fill)
    }

    /// Reads what [`save`](Plan::save) wrote, or the folder that [`write`](super::write()) did. The file is mapped and its
    /// weights are used where they lie, so it must not be written into, nor cut, while the plan is in use; replacing it, as
    /// `save` does, is fine. Everything is checked first: what is damaged, or of another version or target, is refused.
    pub fn load(path: impl AsRef<Path>) -> Result<Plan, ArtifactError> {
        let path = path.as_ref();
        if path.is_dir() {
            let set = Set::open(path)?.ok_or_else(|| ArtifactError::NoProgram(path.to_owned()))?;
            return set.plan(path)?.ok_or_else(|| ArtifactError::NoPlan(path.to_owned()));
        }
        let bytes = map(path).map_err(|source| ArtifactError::Absent { source })?;
        Plan::from_bytes(&bytes, &path.display().to_string())
    }

    /// The plan in these bytes of a file, which `name` stands for in messages. Bytes that do not begin at a multiple of 64
    /// are copied.
    pub fn from_bytes(bytes: &Bytes, name: &str) -> Result<Plan, ArtifactError> {
        read(bytes, &|_| None).map_err(|fault| ArtifactError::program(name, fault))
    }

    /// The plan in a file that is part of the executable. [`include_aligned!`](crate::include_aligned!) puts it where it can
    /// be used in place; what `include_bytes!` gives may have to be copied, once. A build script that depends on this library
    /// may compile the program and [`save`](Plan::save) it in `OUT_DIR`.
    ///
    /// ```
    /// # use aneforge::{CompileOptions, Plan, Shape, Var, compile};
    /// # let plan = compile(&[Var::input(Shape::new(&[4])?).relu()], &CompileOptions::default())?;
    /// # let folder = tempfile::tempdir()?;
    /// # plan.save(folder.path().join("m"))?;
    /// # let file: &'static [u8] = Box::leak(std::fs::read(folder.path().join("m"))?.into_boxed_slice());
    /// // let file = aneforge::include_aligned!(concat!(env!("OUT_DIR"), "/model.aneforge"));
    /// let plan = Plan::from_static(file)?;
    /// assert_eq!(plan.n_ops, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_static(bytes: &'static [u8]) -> Result<Plan, ArtifactError> {
        Plan::from_bytes(&Bytes::new(bytes), "the file in the executable")
    }
}

impl Set {
    /// The plan that the set of `folder` was written from, if it is one of a whole program that keeps it.
    pub fn plan(&self, folder: &Path) -> Result<Option<Plan>, ArtifactError> {
        let Some(bytes) = self.get(PLAN_FILE) else { return Ok(None) };
        let plan = read(bytes, &|file| self.get(file).cloned());
        let path = folder.join(PLAN_FILE);
        plan.map(Some).map_err(|fault| ArtifactError::program(&path.display().to_string(), fault))
    }
}

/// Where the weights of a plan lie in the weight files of its folder: by segment, constant and part.
pub(super) fn places(plan: &Plan, prefixes: &[String]) -> HashMap<(usize, usize, usize), (String, u64)> {
    let mut places = HashMap::new();
    for (at, (segment, prefix)) in plan.segments.iter().zip(prefixes).enumerate() {
        let Code::Mil { blob, .. } = &segment.code else { continue };
        for (payload, record) in blob.payloads.iter().zip(blob.layout.records()) {
            let place = (format!("{prefix}{WEIGHTS_FILE}"), record.data_offset);
            places.insert((at, payload.constant as usize, payload.part), place);
        }
    }
    places
}

/// Something at a multiple of 64 bytes; see [`include_aligned!`](crate::include_aligned!).
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Aligned<T: ?Sized>(pub T);

/// The bytes of a file, as `include_bytes!` gives them, at a multiple of 64 bytes: a compiled program in them is used in place.
///
/// ```
/// let bytes: &'static [u8] = aneforge::include_aligned!("file.rs");
/// assert_eq!(bytes.as_ptr() as usize % 64, 0);
/// ```
#[macro_export]
macro_rules! include_aligned {
    ($path:expr $(,)?) => {{
        static FILE: &$crate::artifact::Aligned<[u8]> = &$crate::artifact::Aligned(*include_bytes!($path));
        &FILE.0
    }};
}
