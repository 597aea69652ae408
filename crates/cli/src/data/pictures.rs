//! Pictures of one size with a class each, as one file: what `aneforge fetch` writes and `aneforge train` reads.

use super::{Data, Targets, classes, idx};
use crate::exit::file;
use crate::output;
use aneforge_formats::{SafeTensors, safetensors};
use aneforge_tensor::{DType, Shape, Tensor};
use anyhow::Result;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Pictures, one after the other, and the class of each.
pub struct Part {
    pub images: Vec<u8>,
    pub labels: Vec<u8>,
}

/// A set of pictures.
pub struct Pictures {
    /// Rows and columns of one.
    pub extents: [usize; 2],
    pub train: Part,
    /// What the set's authors hold out, if they do.
    pub test: Option<Part>,
    /// What classes are called, where that is known.
    pub names: Vec<String>,
}

/// The tensors of the file: those trained on, and those that its authors hold out.
const TENSORS: [[&str; 2]; 2] = [["images", "labels"], ["test_images", "test_labels"]];

/// The name under which the file has what classes are called.
const NAMES: &str = "classes";

impl Pictures {
    pub fn new(extents: [usize; 2], train: Part) -> Pictures {
        Pictures { extents, train, test: None, names: Vec::new() }
    }

    /// Reads the idx files of a folder, if it has them.
    pub fn of_idx(folder: &Path) -> Result<Option<Pictures>> {
        let Some((images, labels)) = pair(folder, "train") else { return Ok(None) };
        let (extents, train) = part(&images, &labels)?;
        let mut set = Pictures::new(extents, train);
        if let Some((images, labels)) = pair(folder, "t10k") {
            let (extents, test) = part(&images, &labels)?;
            if extents != set.extents {
                let (path, [a, b], [c, d]) = (images.display(), extents, set.extents);
                return Err(file(format!(
                    "{path}: has images of {a} by {b}, and those trained on are {c} by {d}"
                )));
            }
            set.test = Some(test);
        }
        Ok(Some(set))
    }

    pub fn classes(&self) -> usize {
        let labels = self.train.labels.iter().chain(self.test.iter().flat_map(|test| &test.labels));
        labels.max().map_or(0, |&label| usize::from(label) + 1)
    }

    /// Writes the file, which is replaced as a whole.
    pub fn save(&self, path: &Path, out: &mut dyn Write) -> Result<()> {
        let ([rows, columns], mut described, mut parts) = (self.extents, Vec::new(), Vec::new());
        for (part, [images, labels]) in
            [Some(&self.train), self.test.as_ref()].into_iter().flatten().zip(TENSORS)
        {
            let count = part.labels.len();
            described.push((images.to_owned(), DType::U8, Shape::new(&[count, rows, columns])?));
            described.push((labels.to_owned(), DType::U8, Shape::new(&[count])?));
            parts.extend([&part.images, &part.labels]);
        }
        let names = serde_json::to_string(&self.names)?;
        let notes = match self.names.is_empty() {
            true => BTreeMap::new(),
            false => BTreeMap::from([(NAMES.to_owned(), names)]),
        };
        let layout = safetensors::layout(&described, &notes);
        output::save(path, out, |to| {
            to.write_all(&layout.head)?;
            layout.order.iter().try_for_each(|&at| to.write_all(parts[at]))
        })
    }
}

/// Reads the pictures of such a file that are trained on, each value from 0 to 255.
pub fn read(path: &Path) -> Result<Data> {
    let held = SafeTensors::open(path)?;
    let name = path.display().to_string();
    let [images, labels] = TENSORS[0].map(|tensor| held.tensor(tensor));
    let (images, labels) = (images?, labels?);
    let found = (images.dtype(), images.shape(), labels.dtype(), labels.shape());
    let (DType::U8, &[count, rows, columns]) = (found.0, found.1.dims()) else {
        return Err(file(format!(
            "{name}: `images` must be bytes [N, rows, columns], and are {} {}",
            found.0, found.1
        )));
    };
    if (found.2, found.3.dims()) != (DType::U8, &[count]) {
        return Err(file(format!(
            "{name}: `labels` must be bytes [{count}], and are {} {}",
            found.2, found.3
        )));
    }
    let targets = match named(&name, &held, &labels)? {
        Some(targets) => targets,
        None => classes(labels.bytes().iter().map(u8::to_string).collect()),
    };
    match &targets {
        Targets::Classes { names, .. } if names.len() < 2 => {
            Err(file(format!("{name}: all of its pictures are of one class; there is nothing to tell apart")))
        }
        _ => Ok(Data {
            name,
            shape: vec![1, rows, columns],
            features: Vec::new(),
            values: images.to_f32(),
            targets,
        }),
    }
}

/// The classes by the names in the file, if it has some.
fn named(name: &str, held: &SafeTensors, labels: &Tensor) -> Result<Option<Targets>> {
    let Some(text) = held.metadata().get(NAMES) else { return Ok(None) };
    let names: Vec<String> = serde_json::from_str(text)
        .map_err(|error| file(format!("{name}: `{NAMES}` of its metadata is no list of names: {error}")))?;
    let of: Vec<usize> = labels.bytes().iter().map(|&label| usize::from(label)).collect();
    match of.iter().find(|&&label| label >= names.len()) {
        Some(label) => {
            Err(file(format!("{name}: has the label {label} and {} names of classes", names.len())))
        }
        None => Ok(Some(Targets::Classes { names, of })),
    }
}

/// The files with images and labels whose names begin like this.
fn pair(folder: &Path, begin: &str) -> Option<(PathBuf, PathBuf)> {
    let find = |what: &str, axes: usize| {
        let names = ["-", "."].map(|dash| format!("{begin}-{what}{dash}idx{axes}-ubyte"));
        let all = names.iter().flat_map(|name| [folder.join(name), folder.join(format!("{name}.gz"))]);
        all.into_iter().find(|path| path.exists())
    };
    Some((find("images", 3)?, find("labels", 1)?))
}

fn part(images: &Path, labels: &Path) -> Result<([usize; 2], Part)> {
    let (extents, pixels) = idx::read(images, 3)?;
    let (_, of) = idx::read(labels, 1)?;
    let (count, rows, columns) = (extents[0], extents[1], extents[2]);
    if count == 0 || rows == 0 || columns == 0 {
        return Err(file(format!("{}: has no images: {extents:?}", images.display())));
    }
    match of.len() == count {
        true => Ok(([rows, columns], Part { images: pixels, labels: of })),
        false => Err(file(format!(
            "{}: has {} labels, and {} has {count} images; get both again",
            labels.display(),
            of.len(),
            images.display()
        ))),
    }
}
