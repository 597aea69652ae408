//! Making an index, and making it up to date.

use crate::error::SearchError;
use crate::index::{About, FileRow, Index, MOST_TEXT, Place, Rows, written};
use crate::model::{Kind, Model};
use crate::passages::passages;
use crate::walk;
use aneforge_formats::{FileError, read};
use aneforge_models::vision::Picture;
use half::f16;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is to be looked through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What the model is called, for those who ask later.
    pub model: String,
    /// Texts or pictures.
    pub kind: Kind,
    /// Folders, and files.
    pub roots: Vec<PathBuf>,
    /// Endings of the files that are taken from folders; none are those of the kind.
    pub endings: Vec<String>,
    /// The most bytes of a passage.
    pub passage: usize,
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted {
            model: String::new(),
            kind: Kind::Texts,
            roots: Vec::new(),
            endings: Vec::new(),
            passage: 1000,
        }
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Files that are done.
    pub done: usize,
    /// Files that are new or changed.
    pub files: usize,
    /// Passages or pictures of those that are done.
    pub rows: usize,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Files of the index.
    pub files: usize,
    /// Passages or pictures.
    pub rows: usize,
    /// Files that are new.
    pub added: usize,
    /// Files that are other than they were.
    pub changed: usize,
    /// Files that are gone.
    pub removed: usize,
    /// Files that could not be read, and why.
    pub skipped: Vec<(PathBuf, String)>,
}

/// The most bytes of a picture.
const MOST_PICTURE: u64 = 1 << 30;
/// Passages that are encoded together, at least.
const PASSAGES: usize = 256;
/// Pictures that are looked at together.
const PICTURES: usize = 8;
/// After so long what is done is written.
const KEEP: Duration = Duration::from_secs(60);

/// A file, and where its rows come from.
struct Item {
    row: FileRow,
    from: From,
}

enum From {
    /// The file of the index before.
    Before(usize),
    /// It is still to be read.
    Unread,
    /// Vectors one after the other, and their places.
    Made(Vec<f16>, Vec<Place>),
}

/// Makes an index of files at `path`. What has not changed since `before`, an index of the same model, is taken from it. What is done
/// is written from time to time, so that whoever stops it loses little.
pub fn build(
    path: &Path,
    model: &mut Model,
    wanted: &Wanted,
    before: Option<&Index>,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report, SearchError> {
    let mut about = About::new(wanted.kind, &wanted.model, model)?;
    let whole = |root: &PathBuf| std::path::absolute(root).unwrap_or_else(|_| root.clone());
    about.roots = wanted.roots.iter().map(whole).collect();
    about.endings = match wanted.endings.is_empty() {
        true => wanted.kind.endings().iter().map(|end| (*end).to_owned()).collect(),
        // `.txt` means the same.
        false => wanted.endings.iter().map(|end| end.trim_start_matches('.').to_owned()).collect(),
    };
    about.passage = wanted.passage;
    // Passages of another size are other rows.
    let before =
        before.filter(|before| before.about().passage == about.passage && before.about().kind == about.kind);
    if let Some(before) = before {
        before.about().is_of(model)?;
    }
    let (items, mut report) = items(&about, before)?;
    let mut work = Work { path, about, items, before, dim: before.map_or(0, Index::dim) };
    work.fill(model, &mut report, progress)?;
    let rows = work.write()?;
    if rows == 0 {
        let why = report.skipped.first().map_or("they are empty".into(), |(_, why)| why.clone());
        return Err(SearchError::Unreadable { files: work.items.len(), why });
    }
    let files = work.items.iter().filter(|item| !matches!(item.from, From::Unread)).count();
    Ok(Report { files, rows, ..report })
}

/// The files that there are, and what of them is known already.
fn items(about: &About, before: Option<&Index>) -> Result<(Vec<Item>, Report), SearchError> {
    let found = walk::files(&about.roots, &about.endings)?;
    if found.is_empty() {
        let roots: Vec<String> = about.roots.iter().map(|root| format!("`{}`", root.display())).collect();
        let (roots, endings) = (roots.join(", "), about.endings.join(", "));
        return Err(SearchError::Empty { roots, kind: about.kind, endings });
    }
    let known: BTreeMap<&Path, usize> = before
        .map(|before| before.files().iter().enumerate().map(|(at, file)| (&*file.path, at)).collect())
        .unwrap_or_default();
    let mut report = Report::default();
    let mut items = Vec::with_capacity(found.len());
    let mut gone = known.len();
    for path in found {
        if path.to_str().is_none() {
            return Err(SearchError::Path(path));
        }
        let at = known.get(&*path).copied();
        gone -= usize::from(at.is_some());
        items.push(item(path, at, before, &mut report)?);
    }
    report.removed = gone;
    Ok((items, report))
}

fn item(
    path: PathBuf,
    at: Option<usize>,
    before: Option<&Index>,
    report: &mut Report,
) -> Result<Item, SearchError> {
    let about = std::fs::metadata(&path).map_err(|error| FileError::new(&path, error))?;
    let written = written(&path);
    let mut row = FileRow { path, length: about.len(), written, sum: 0, rows: 0 };
    let Some((at, old)) = at.zip(before).map(|(at, before)| (at, &before.files()[at])) else {
        report.added += 1;
        return Ok(Item { row, from: From::Unread });
    };
    (row.sum, row.rows) = (old.sum, old.rows);
    // A file that was only written again is the same one.
    if row == *old || row.length == old.length && sum(&row.path)? == old.sum {
        return Ok(Item { row, from: From::Before(at) });
    }
    report.changed += 1;
    Ok(Item { row: FileRow { rows: 0, ..row }, from: From::Unread })
}

/// The checksum of a file, which need not fit into memory.
fn sum(path: &Path) -> Result<u32, SearchError> {
    let fail = |error| FileError::new(path, error);
    let (mut file, mut sum) = (File::open(path).map_err(fail)?, crc32fast::Hasher::new());
    let mut part = vec![0; 1 << 16];
    loop {
        match file.read(&mut part).map_err(fail)? {
            0 => return Ok(sum.finalize()),
            count => sum.update(&part[..count]),
        }
    }
}

/// An index that is being made.
struct Work<'a> {
    path: &'a Path,
    about: About,
    items: Vec<Item>,
    before: Option<&'a Index>,
    dim: usize,
}

/// A file that was read, and what is to be encoded of it.
enum Read {
    /// The text, and where its passages are.
    Text(String, Vec<Place>),
    Picture(Picture),
}

impl Read {
    fn rows(&self) -> usize {
        match self {
            Read::Text(_, places) => places.len(),
            Read::Picture(_) => 1,
        }
    }
}

impl Work<'_> {
    /// Reads what is unread, and encodes it.
    fn fill(
        &mut self,
        model: &mut Model,
        report: &mut Report,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(), SearchError> {
        let unread: Vec<usize> =
            (0..self.items.len()).filter(|&at| matches!(self.items[at].from, From::Unread)).collect();
        let most = if self.about.kind == Kind::Texts { PASSAGES } else { PICTURES };
        let mut told = Progress { done: 0, files: unread.len(), rows: 0 };
        let (mut pending, mut rows, mut kept): (Vec<(usize, Read)>, usize, _) =
            (Vec::new(), 0, Instant::now());
        for (count, &at) in unread.iter().enumerate() {
            match self.read(at)? {
                Ok(read) => {
                    rows += read.rows();
                    pending.push((at, read));
                }
                Err(why) => report.skipped.push((self.items[at].row.path.clone(), why)),
            }
            if rows < most && count + 1 < unread.len() {
                continue;
            }
            let mut stopped = false;
            let mut go_on = || {
                let next = progress(told);
                stopped |= next.is_break();
                next
            };
            let done = match go_on() {
                ControlFlow::Continue(()) => self.encode(model, &mut pending, &mut go_on),
                ControlFlow::Break(()) => Ok(()),
            };
            if stopped {
                self.write()?;
                return Err(SearchError::Stopped);
            }
            done?;
            told = Progress { done: count + 1, rows: told.rows + std::mem::take(&mut rows), ..told };
            if kept.elapsed() > KEEP {
                self.write()?;
                kept = Instant::now();
            }
        }
        // That all is done is said as well; there is nothing left to stop.
        let _ = progress(told);
        Ok(())
    }

    /// What is to be encoded of a file, or why it cannot be read. What holds something else is left out until it changes; what the system
    /// does not give is asked for again the next time.
    fn read(&mut self, at: usize) -> Result<Result<Read, String>, SearchError> {
        let row = &mut self.items[at].row;
        // It is read and not mapped, as somebody may write to it meanwhile.
        let most = if self.about.kind == Kind::Texts { MOST_TEXT } else { MOST_PICTURE };
        let bytes = match read(&row.path, most) {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Err(error.to_string())),
        };
        row.length = bytes.len() as u64;
        row.sum = crc32fast::hash(&bytes);
        let name = row.path.display().to_string();
        let made = match self.about.kind {
            Kind::Pictures => {
                Picture::decode(&name, &bytes).map(Read::Picture).map_err(|error| error.to_string())
            }
            Kind::Texts => match String::from_utf8(bytes) {
                Ok(text) => {
                    let place = |passage: crate::passages::Passage<'_>| {
                        [passage.start, passage.text.len(), passage.line].map(|value| value as i64)
                    };
                    let places = passages(&text, self.about.passage).into_iter().map(place).collect();
                    Ok(Read::Text(text, places))
                }
                Err(_) => Err(format!("`{name}` is no text in UTF-8; convert it, or leave it out")),
            },
        };
        if made.is_err() {
            self.items[at].from = From::Made(Vec::new(), Vec::new());
        }
        Ok(made)
    }

    /// Makes vectors of what was read.
    fn encode(
        &mut self,
        model: &mut Model,
        pending: &mut Vec<(usize, Read)>,
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<(), SearchError> {
        let taken = std::mem::take(pending);
        let vectors = match self.about.kind {
            Kind::Pictures => {
                let pictures = |(_, read): &(usize, Read)| match read {
                    Read::Picture(picture) => Some(picture.clone()),
                    Read::Text(..) => None,
                };
                model.pictures(&taken.iter().filter_map(pictures).collect::<Vec<_>>())?
            }
            Kind::Texts => {
                let texts = |(_, read): &'_ (usize, Read)| match read {
                    Read::Text(text, places) => {
                        places.iter().map(|place| cut(text, place).to_owned()).collect()
                    }
                    Read::Picture(_) => Vec::new(),
                };
                let texts: Vec<String> = taken.iter().flat_map(texts).collect();
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                model.passages(&texts, go_on)?
            }
        };
        let mut vectors = vectors.into_iter();
        for (at, read) in taken {
            let places = match read {
                Read::Text(_, places) => places,
                Read::Picture(_) => vec![[0; 3]],
            };
            let own: Vec<Vec<f32>> = vectors.by_ref().take(places.len()).collect();
            self.dim = own.first().map_or(self.dim, Vec::len);
            let halves = own.iter().flatten().map(|&v| f16::from_f32(v)).collect();
            self.items[at].row.rows = places.len();
            self.items[at].from = From::Made(halves, places);
        }
        Ok(())
    }

    /// Writes what is done; nothing, where nothing is. Returns how many rows there are.
    fn write(&self) -> Result<usize, SearchError> {
        let (mut files, mut vectors, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for Item { row, from } in &self.items {
            match (from, self.before) {
                (From::Made(values, own), _) => {
                    vectors.extend(values.chunks_exact(self.dim.max(1)));
                    places.extend_from_slice(own);
                }
                (From::Before(at), Some(before)) => {
                    let rows = before.of_file(*at);
                    places.extend_from_slice(&before.places()[rows.clone()]);
                    let d = self.dim;
                    vectors.extend(before.vectors()[rows.start * d..rows.end * d].chunks_exact(d));
                }
                _ => continue,
            }
            files.push(row.clone());
        }
        let count = vectors.len();
        if count > 0 {
            Rows { about: &self.about, files, vectors, places, dim: self.dim }.write(self.path)?;
        }
        Ok(count)
    }
}

/// The passage that is there.
fn cut<'a>(text: &'a str, [start, length, _]: &Place) -> &'a str {
    &text[*start as usize..(start + length) as usize]
}
