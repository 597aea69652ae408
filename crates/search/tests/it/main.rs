//! Indexes of folders of texts and of pictures, made with small models of generated weights.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "../../../models/tests/it/made.rs"]
#[allow(dead_code, reason = "shared with the tests of the models")]
mod made;

use aneforge_models::vision::Picture;
use aneforge_search::{Index, Kind, Model, ModelOptions, Progress, SearchError, Wanted, build};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

fn options() -> ModelOptions {
    ModelOptions { device: Some(aneforge::device::named("host").unwrap()), ..ModelOptions::default() }
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A folder of a model with generated weights.
fn encoder() -> tempfile::TempDir {
    made::model("tiny-bert", made::WHOLE)
}

fn open(model: &Path, kind: Kind) -> Model {
    Model::open(model.to_str().unwrap(), kind, options()).unwrap()
}

/// What is below a folder, in passages of at most 40 bytes.
fn wanted(model: &Path, root: &Path) -> Wanted {
    let model = model.to_str().unwrap().to_owned();
    Wanted { model, roots: vec![root.to_owned()], passage: 40, ..Wanted::default() }
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

/// Some texts, and files that are none of the index.
fn notes() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "animals.txt", "the cat sat on the mat\n\nthe dog ran in the house by the sea\n");
    write(folder.path(), "deep/er/weather.MD", "\n\nrain in the morning and sun in the evening\n\nsnow\n");
    write(folder.path(), "empty.txt", " \n");
    write(folder.path(), ".hidden.txt", "the cat");
    write(folder.path(), ".git/notes.txt", "the cat");
    write(folder.path(), "picture.png", "the cat");
    folder
}

/// The words of each row, as their places say.
fn rows(index: &Index) -> Vec<(String, u64, String)> {
    let all = index.nearest(&vec![0.0; index.dim()], usize::MAX).unwrap();
    let row = |hit: &aneforge_search::Hit| {
        let text = fs::read_to_string(&hit.path).unwrap();
        let words = text[hit.start as usize..(hit.start + hit.length) as usize].to_owned();
        (hit.path.file_name().unwrap().to_str().unwrap().to_owned(), hit.line, words)
    };
    all.iter().map(row).collect()
}

fn near(a: &Index, b: &Index) {
    assert_eq!(rows(a), rows(b));
    let far = |(a, b): (&half::f16, &half::f16)| (a.to_f32() - b.to_f32()).abs();
    assert!(a.vectors().iter().zip(b.vectors()).map(far).all(|far| far < 2e-3));
}

#[test]
fn passages_are_found_by_their_words() {
    let (model, notes, to) = (encoder(), notes(), tempfile::tempdir().unwrap());
    let path = to.path().join("notes.index");
    let mut encoder = open(model.path(), Kind::Texts);
    let report = build(&path, &mut encoder, &wanted(model.path(), notes.path()), None, &mut go_on).unwrap();
    assert_eq!((report.files, report.rows, report.added, report.changed, report.removed), (3, 5, 3, 0, 0));
    assert!(report.skipped.is_empty());
    let index = Index::open(&path).unwrap();
    let found = rows(&index);
    let row = |file: &str, line: u64, words: &str| (file.to_owned(), line, words.to_owned());
    assert_eq!(
        found,
        [
            row("animals.txt", 1, "the cat sat on the mat"),
            row("animals.txt", 3, "the dog ran in the house by the sea"),
            row("weather.MD", 3, "rain in the morning and sun in the"),
            row("weather.MD", 3, "evening"),
            row("weather.MD", 5, "snow"),
        ]
    );
    for (at, (_, _, words)) in found.iter().enumerate() {
        let vector = encoder.text(words).unwrap();
        for hits in [index.nearest(&vector, 2).unwrap(), index.nearly(&vector, 2).unwrap()] {
            assert_eq!((hits.len(), hits[0].row), (2, at), "{words}");
            assert!((hits[0].score - 1.0).abs() < 2e-3 && hits[1].score <= hits[0].score);
        }
    }
    let error = index.nearest(&[1.0], 1).unwrap_err().to_string();
    assert!(error.contains("a vector of 1 components was asked for in an index of"), "{error}");
}

#[test]
fn only_what_has_changed_is_encoded_again() {
    let (model, notes, to) = (encoder(), notes(), tempfile::tempdir().unwrap());
    let path = to.path().join("notes.index");
    let mut encoder = open(model.path(), Kind::Texts);
    let wanted = wanted(model.path(), notes.path());
    build(&path, &mut encoder, &wanted, None, &mut go_on).unwrap();

    let mut again = |expect: [usize; 5]| {
        let before = Index::open(&path).unwrap();
        let mut files = 0;
        let mut count = |progress: Progress| {
            files = progress.files;
            ControlFlow::Continue(())
        };
        let report = build(&path, &mut encoder, &wanted, Some(&before), &mut count).unwrap();
        let (added, changed, removed) = (report.added, report.changed, report.removed);
        assert_eq!([report.rows, files, added, changed, removed], expect);
        let fresh = to.path().join("fresh.index");
        build(&fresh, &mut encoder, &wanted, None, &mut go_on).unwrap();
        near(&Index::open(&path).unwrap(), &Index::open(&fresh).unwrap());
    };
    again([5, 0, 0, 0, 0]);
    let index = Index::open(&path).unwrap();
    let hit = index.nearest(&vec![0.0; index.dim()], 1).unwrap().remove(0);
    assert_eq!(index.words(&hit).unwrap(), "the cat sat on the mat");
    // Written again with the same words.
    write(notes.path(), "animals.txt", "the cat sat on the mat\n\nthe dog ran in the house by the sea\n");
    assert_eq!(index.words(&hit).unwrap(), "the cat sat on the mat");
    again([5, 0, 0, 0, 0]);
    write(notes.path(), "animals.txt", "the bat sat on the mat\n\nthe dog ran in the house by the sea\n");
    let stale = index.words(&hit).unwrap_err().to_string();
    assert!(stale.ends_with("animals.txt` has changed since; bring the index up to date"), "{stale}");
    write(notes.path(), "animals.txt", "the bird\n");
    again([4, 1, 0, 1, 0]);
    fs::remove_file(notes.path().join("deep/er/weather.MD")).unwrap();
    write(notes.path(), "b.txt", "a red house");
    again([2, 1, 1, 0, 1]);
    // As long as before, but other words.
    write(notes.path(), "b.txt", "a big house");
    again([2, 1, 0, 1, 0]);
}

#[test]
fn what_was_done_before_a_stop_is_kept() {
    let (model, notes, to) = (encoder(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = to.path().join("notes.index");
    for file in 0..4 {
        let text: String = (0..200).map(|line| format!("the cat number {line} of {file}\n\n")).collect();
        write(notes.path(), &format!("{file}.txt"), &text);
    }
    let mut encoder = open(model.path(), Kind::Texts);
    let wanted = Wanted { passage: 30, ..wanted(model.path(), notes.path()) };
    let stop_at = |done: usize| {
        move |progress: Progress| match progress.done >= done {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let error = build(&path, &mut encoder, &wanted, None, &mut stop_at(0)).unwrap_err();
    assert!(matches!(error, SearchError::Stopped), "{error}");
    assert!(!path.exists(), "nothing was done yet");
    let error = build(&path, &mut encoder, &wanted, None, &mut stop_at(2)).unwrap_err();
    assert!(matches!(error, SearchError::Stopped), "{error}");
    let half = Index::open(&path).unwrap();
    assert_eq!((half.files().len(), half.rows()), (2, 400));
    let report = build(&path, &mut encoder, &wanted, Some(&half), &mut go_on).unwrap();
    assert_eq!((report.files, report.rows, report.added), (4, 800, 2));
}

#[test]
fn what_cannot_be_had_now_is_asked_for_again() {
    let (model, notes, to) = (encoder(), notes(), tempfile::tempdir().unwrap());
    let path = to.path().join("notes.index");
    let mut encoder = open(model.path(), Kind::Texts);
    let wanted = wanted(model.path(), notes.path());
    fs::File::create(notes.path().join("huge.txt")).unwrap().set_len((1 << 26) + 1).unwrap();
    fs::write(notes.path().join("latin.txt"), b"caf\xe9").unwrap();
    let report = build(&path, &mut encoder, &wanted, None, &mut go_on).unwrap();
    assert_eq!((report.files, report.rows, report.skipped.len()), (4, 5, 2));
    // Bytes that are no text stay none; what was too much for now is told again.
    let before = Index::open(&path).unwrap();
    let report = build(&path, &mut encoder, &wanted, Some(&before), &mut go_on).unwrap();
    assert_eq!((report.files, report.rows, report.skipped.len()), (4, 5, 1));
    assert!(report.skipped[0].1.contains("huge.txt` has more than 67108864 bytes"), "{:?}", report.skipped);
}

#[test]
fn pictures_are_found_by_pictures_and_by_words() {
    let (model, photos, to) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/vision-clip");
    for file in ["config.json", "tokenizer.json"] {
        fs::copy(source.join(file), model.path().join(file)).unwrap();
    }
    made::write_all(&model.path().join("model.safetensors"), &made::json(source.join("weights.json")));
    let picture = |shift: usize| {
        let rgb = (0..70 * 60 * 3).map(|i| ((i * (7 + shift) + i / 50) % 251) as u8).collect();
        Picture::new(70, 60, rgb).unwrap()
    };
    for shift in 0..5 {
        fs::write(photos.path().join(format!("{shift}.png")), picture(shift).png()).unwrap();
    }
    write(photos.path(), "broken.jpg", "no picture");
    let path = to.path().join("photos.index");
    let mut clip = open(model.path(), Kind::Pictures);
    let wanted = Wanted { kind: Kind::Pictures, ..wanted(model.path(), photos.path()) };
    let report = build(&path, &mut clip, &wanted, None, &mut go_on).unwrap();
    assert_eq!((report.files, report.rows, report.skipped.len()), (6, 5, 1));
    assert!(report.skipped[0].1.contains("broken.jpg` cannot be read as a picture"), "{:?}", report.skipped);
    let index = Index::open(&path).unwrap();
    for shift in 0..5 {
        let hits = index.nearest(&clip.picture(&picture(shift)).unwrap(), 5).unwrap();
        assert!(hits[0].path.ends_with(format!("{shift}.png")) && hits[0].score > 0.999);
    }
    let hits = index.nearest(&clip.text("a cat").unwrap(), 9).unwrap();
    assert_eq!(hits.len(), 5);
    // What cannot be read is not tried again until it changes.
    let report = build(&path, &mut clip, &wanted, Some(&index), &mut go_on).unwrap();
    assert_eq!((report.rows, report.added, report.changed, report.skipped.len()), (5, 0, 0, 0));
    let mut texts = open(encoder().path(), Kind::Texts);
    let error = texts.picture(&picture(0)).unwrap_err().to_string();
    assert!(error.contains("makes no vectors of pictures; ask with a text"), "{error}");
}

#[test]
fn another_model_is_refused() {
    let (model, notes, to) = (encoder(), notes(), tempfile::tempdir().unwrap());
    let path = to.path().join("notes.index");
    let wanted = wanted(model.path(), notes.path());
    build(&path, &mut open(model.path(), Kind::Texts), &wanted, None, &mut go_on).unwrap();
    let index = Index::open(&path).unwrap();
    index.about().is_of(&open(model.path(), Kind::Texts)).unwrap();
    let other = made::model("tiny-bert", made::Stored { parts: 2, ..made::WHOLE });
    let mut other_model = open(other.path(), Kind::Texts);
    let error = index.about().is_of(&other_model).unwrap_err().to_string();
    assert!(error.contains("name that model, or build the index again"), "{error}");
    let error = build(&path, &mut other_model, &wanted, Some(&index), &mut go_on).unwrap_err();
    assert!(matches!(error, SearchError::Model { .. }), "{error}");
}

#[test]
fn what_cannot_be_indexed_is_an_error() {
    let (model, to) = (encoder(), tempfile::tempdir().unwrap());
    let path = to.path().join("notes.index");
    let mut encoder = open(model.path(), Kind::Texts);
    let mut fails = |root: &Path| {
        build(&path, &mut encoder, &wanted(model.path(), root), None, &mut go_on).unwrap_err().to_string()
    };
    let folder = tempfile::tempdir().unwrap();
    let none = fails(folder.path());
    assert!(none.starts_with("nothing to index below") && none.contains("texts end in txt, md,"), "{none}");
    let gone = fails(&folder.path().join("gone"));
    assert!(gone.contains("gone` cannot be read"), "{gone}");
    fs::write(folder.path().join("latin.txt"), b"caf\xe9").unwrap();
    let latin = fails(folder.path());
    assert!(
        latin.contains("none of the 1 files can be indexed: ") && latin.contains("no text in UTF-8"),
        "{latin}"
    );
    assert!(!path.exists());
}

#[test]
fn damaged_indexes_are_errors() {
    let (model, notes, to) = (encoder(), notes(), tempfile::tempdir().unwrap());
    let path = to.path().join("notes.index");
    build(&path, &mut open(model.path(), Kind::Texts), &wanted(model.path(), notes.path()), None, &mut go_on)
        .unwrap();
    let whole = fs::read(&path).unwrap();
    let damaged = to.path().join("damaged.index");
    let opened = |bytes: &[u8]| {
        fs::write(&damaged, bytes).unwrap();
        Index::open(&damaged)
    };
    for length in 0..whole.len() {
        assert!(opened(&whole[..length]).is_err(), "cut to {length}");
    }
    // Each byte of what describes the parts: an error, or an index that can be asked.
    let head = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for at in (0..head).chain(whole.len() - 400..whole.len()) {
        for bit in [1, 0x10, 0x80] {
            let mut bytes = whole.clone();
            bytes[at] ^= bit;
            if let Ok(index) = opened(&bytes) {
                let query = vec![0.1; index.dim()];
                let _ = (index.nearest(&query, 3), index.nearly(&query, 3));
            }
        }
    }
    let changed = |from: &str, to: &str| {
        let text = |bytes: &[u8]| bytes.iter().map(|&b| b as char).collect::<String>();
        let bytes: Vec<u8> = text(&whole).replacen(from, to, 1).chars().map(|c| c as u8).collect();
        assert_ne!(bytes, whole, "{from}");
        opened(&bytes).err().unwrap().to_string()
    };
    assert!(changed(r#"\"version\":1"#, r#"\"version\":7"#).contains("it is of version 7, and this reads 1"));
    assert!(changed(r#""rows":2"#, r#""rows":3"#).contains("its parts do not belong together"));
    assert!(changed("aneforge.index", "aneforge.inde_").contains("it has no notes of one"));
    let error = Index::open(&model.path().join("model.safetensors")).err().unwrap().to_string();
    assert!(error.contains("is no index: it has no notes of one; build it again"), "{error}");
}
