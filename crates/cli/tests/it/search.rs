//! `index` and `search` on folders of texts, with a small model of generated weights.

use crate::made::{WHOLE, model};
use crate::support::{fails, folder, json, keys, show, text};
use std::fs;

#[test]
fn what_is_indexed_is_found() {
    let (made, dir) = (model("tiny-bert", WHOLE), folder());
    let (model, notes, index) = (show(made.path()), dir.path().join("notes"), dir.path().join("notes.index"));
    fs::create_dir(&notes).unwrap();
    fs::write(notes.join("a.txt"), "the cat sat on the mat\n\n\nthe dog ran in the house\n").unwrap();
    fs::write(notes.join("b.md"), "rain in the morning").unwrap();
    fs::write(notes.join("c.rs"), "fn cat() {}").unwrap();
    let (notes, index) = (show(&notes), show(&index));
    let value = json(&["index", &index, &notes, "-m", &model, "--passage", "30"]);
    let all = "added changed device files index kind model removed rows skipped target title";
    assert_eq!(keys(&value), all.split(' ').collect::<Vec<_>>());
    assert_eq!((&value["rows"], &value["files"], &value["added"]), (&3.into(), &2.into(), &2.into()));

    for more in [&[][..], &["--quantized"]] {
        let asked = [&["search", &index, "the dog ran in the house", "--top", "2"], more].concat();
        let found = json(&asked);
        let all = "device files hits index kind model roots rows target title";
        assert_eq!(keys(&found), all.split(' ').collect::<Vec<_>>());
        let hits = found["hits"].as_array().unwrap();
        assert_eq!((hits.len(), &hits[0]["text"]), (2, &"the dog ran in the house".into()));
        assert_eq!((&hits[0]["line"], &hits[0]["start"]), (&4.into(), &25.into()));
        assert!(hits[0]["score"].as_f64().unwrap() > 0.998);
    }
    let out = text(&["search", &index, "rain in the morning", "--top", "1"]);
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].ends_with("b.md:1") && lines[0].trim_start().starts_with("1.0"), "{out}");
    assert_eq!(lines[1].trim(), "rain in the morning");

    // It is brought up to date without being told how it was made.
    fs::remove_file(format!("{notes}/b.md")).unwrap();
    fs::write(format!("{notes}/a.txt"), "snow").unwrap();
    let out = text(&["index", &index]);
    assert!(out.contains("1 passage of 1 file (0 new, 1 changed, 1 gone)"), "{out}");
    let about = text(&["search", &index]);
    assert!(
        about.contains("notes.index: 1 passage of 1 file\n") && about.contains(&format!("from {notes}\n")),
        "{about}"
    );
    let changed = fails(3, &["index", &index, "--passage", "40"]);
    assert!(changed.contains("leave that out, or give --rebuild"), "{changed}");
    let out = text(&["index", &index, &notes, "-m", &model, "--endings", ".txt,rs", "--rebuild"]);
    assert!(out.contains("2 passages of 2 files (2 new, 0 changed, 0 gone)"), "{out}");
}

#[test]
fn what_cannot_be_searched_is_an_error() {
    let (made, dir) = (model("tiny-bert", WHOLE), folder());
    let (model, index) = (show(made.path()), show(&dir.path().join("notes.index")));
    let without = fails(3, &["index", &index, "-m", &model]);
    assert!(without.contains("a new index needs folders or files; name some"), "{without}");
    let without = fails(3, &["index", &index, "."]);
    assert!(without.contains("a new index needs --model"), "{without}");
    let none = fails(3, &["search", &index, "a cat"]);
    assert!(none.contains("notes.index` does not exist"), "{none}");
    let weights = show(&made.path().join("model.safetensors"));
    let other = fails(3, &["search", &weights, "a cat"]);
    assert!(other.contains("is no index: it has no notes of one; build it again"), "{other}");
    fs::write(dir.path().join("a.txt"), "the cat").unwrap();
    text(&["index", &index, &show(dir.path()), "-m", &model]);
    let seen = fails(3, &["search", &index, "--picture", &weights]);
    assert!(seen.contains("cannot be read as a picture"), "{seen}");
}
