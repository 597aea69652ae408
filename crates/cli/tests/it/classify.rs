//! `classify` on a small transformer with generated weights, beside the library.

use crate::made::{self, json as read};
use crate::support::{fails, folder, json, keys, show, text};
use aneforge_models::vision::{Clip, Picture, Vision, VisionOptions};
use image::{Rgb, RgbImage};
use std::fs;
use std::path::{Path, PathBuf};

/// A file of weights, and a folder with two pictures.
fn setup(dir: &Path) -> (PathBuf, PathBuf) {
    let described =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/vision-vit-timm/weights.json");
    let weights = dir.join("vit.safetensors");
    made::write_all(&weights, &read(described));
    let pictures = dir.join("pictures");
    fs::create_dir(&pictures).unwrap();
    for (name, shift) in [("a.png", 0), ("b.jpg", 90)] {
        let pixel = |x: u32, y: u32| Rgb([(x * 2 + shift) as u8, (y * 3) as u8, (x ^ y) as u8]);
        RgbImage::from_fn(120, 90, pixel).save(pictures.join(name)).unwrap();
    }
    fs::write(pictures.join("notes.txt"), "none").unwrap();
    (weights, pictures)
}

#[test]
fn pictures_of_files_and_folders_are_classified() {
    let dir = folder();
    let (weights, pictures) = setup(dir.path());
    let device = aneforge::device::named("host").unwrap();
    let options = VisionOptions { device: Some(device), ..VisionOptions::default() };
    let mut network = Vision::load(&show(&weights), options).unwrap();
    let files = ["a.png", "b.jpg"].map(|name| pictures.join(name));
    let want = network.classify(&files.each_ref().map(|file| Picture::open(file).unwrap()), 3).unwrap();

    let value = json(&["classify", "-m", &show(&weights), &show(&pictures), "--top", "3"]);
    assert_eq!(keys(&value), ["device", "model", "network", "pictures", "target"]);
    assert_eq!(value["network"], "ViT-4x128/16");
    for ((row, file), want) in value["pictures"].as_array().unwrap().iter().zip(&files).zip(&want) {
        assert_eq!(row["file"], show(file));
        let classes = row["classes"].as_array().unwrap();
        assert_eq!(classes.len(), 3);
        for (class, want) in classes.iter().zip(want) {
            assert_eq!((&class["index"], &class["label"]), (&want.index.into(), &want.label.clone().into()));
            assert!((class["probability"].as_f64().unwrap() - f64::from(want.probability)).abs() < 1e-6);
        }
    }
    let out = text(&["classify", "-m", &show(&weights), &show(&files[1]), "--top", "1"]);
    let shown =
        format!("{}\n  {:5.1} %  {}\n", files[1].display(), 100.0 * want[1][0].probability, want[1][0].label);
    assert_eq!(out, shown);
}

#[test]
fn what_cannot_be_classified_is_an_error() {
    let dir = folder();
    let (weights, pictures) = setup(dir.path());
    let weights = show(&weights);
    let wrong =
        |code: i32, model: &str, picture: &Path| fails(code, &["classify", "-m", model, &show(picture)]);
    assert!(wrong(3, &weights, &pictures.join("none.png")).contains("none.png` does not exist"));
    assert!(
        wrong(3, &weights, &pictures.join("notes.txt")).contains("notes.txt` cannot be read as a picture")
    );
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(wrong(3, &weights, &empty).contains("has no pictures (.png"));
    let file = pictures.join("notes.txt");
    assert!(wrong(3, &show(&file), &pictures).contains("notes.txt"));
    assert!(wrong(3, &show(&empty), &pictures).contains("holds neither model.safetensors"));
}

/// A CLIP with generated weights.
fn clip(dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/vision-clip");
    let model = dir.join("clip");
    fs::create_dir(&model).unwrap();
    for file in ["config.json", "tokenizer.json"] {
        fs::copy(source.join(file), model.join(file)).unwrap();
    }
    made::write_all(&model.join("model.safetensors"), &read(source.join("weights.json")));
    model
}

#[test]
fn texts_name_the_classes() {
    let dir = folder();
    let (pictures, model) = (setup(dir.path()).1, clip(dir.path()));
    let (picture, model) = (show(&pictures.join("a.png")), show(&model));
    let device = aneforge::device::named("host").unwrap();
    let options = VisionOptions { device: Some(device), ..VisionOptions::default() };
    let labels = ["two dogs", "a cat", "the green house"];
    let mut compared = Clip::load(&model, options).unwrap();
    let want = compared.classify(&[Picture::open(&picture).unwrap()], &labels).unwrap().remove(0);
    let mut asked = vec!["classify", "-m", &model, &picture, "--top", "2"];
    labels.iter().for_each(|label| asked.extend(["--label", label]));
    let value = json(&asked);
    assert_eq!(value["network"], "CLIP-3x64/16");
    let classes = value["pictures"][0]["classes"].as_array().unwrap();
    assert_eq!(classes.len(), 2);
    for (class, want) in classes.iter().zip(&want) {
        assert_eq!(class["label"], want.label);
        assert!((class["probability"].as_f64().unwrap() - f64::from(want.probability)).abs() < 1e-6);
    }
    let without = fails(2, &["classify", "-m", &model, &picture]);
    assert!(without.contains("CLIP has no classes of its own; name texts with --label"), "{without}");
    let weights = show(&dir.path().join("vit.safetensors"));
    let other = fails(3, &["classify", "-m", &weights, &picture, "--label", "a cat"]);
    assert!(other.contains("reads no texts; name a CLIP or a SigLIP"), "{other}");
}

#[test]
fn heat_maps_are_written_beside_each_other() {
    let dir = folder();
    let (weights, pictures) = setup(dir.path());
    let (weights, maps) = (show(&weights), dir.path().join("maps"));
    text(&["classify", "-m", &weights, &show(&pictures), "--heat-maps", &show(&maps)]);
    let size = |name: &str| image::open(maps.join(name)).unwrap().into_rgb8().dimensions();
    assert_eq!([size("a.png"), size("b.png")], [(224, 224); 2]);
    fs::copy(pictures.join("a.png"), pictures.join("b.png")).unwrap();
    let twice = fails(2, &["classify", "-m", &weights, &show(&pictures), "--heat-maps", &show(&maps)]);
    assert!(twice.contains("two pictures would have the heat map"), "{twice}");
}
