//! `draw` with a small pipeline of generated weights.

use crate::drawn::pipeline;
use crate::support::{command, fails, folder, json, keys, run, show, text};
use aneforge_models::vision::Picture;
use std::fs;

/// The command for a prompt, with further words.
fn asked<'a>(model: &'a str, file: &'a str, words: &'a str) -> Vec<&'a str> {
    ["draw", "a photo of a cat", "-m", model, "-o", file].into_iter().chain(words.split(' ')).collect()
}

#[test]
fn a_picture_says_what_it_was_drawn_by() {
    let (dir, model) = (folder(), pipeline("sd1"));
    let file = dir.path().join("out.png");
    let (model, file) = (show(model.path()), show(&file));
    let value = json(&asked(&model, &file, "--steps 3 --guidance 2 --seed 9"));
    let all = "device eta forwards guidance height model negative output prompt sampler seconds seed steps target width";
    assert_eq!(keys(&value).join(" "), all);
    // PNDM takes the second time twice.
    let drawn = (&value["forwards"], &value["sampler"], &value["width"]);
    assert_eq!(drawn, (&4.into(), &"pndm".into(), &16.into()));
    let bytes = fs::read(&file).unwrap();
    let picture = Picture::open(&file).unwrap();
    assert_eq!((picture.width(), picture.height()), (16, 16));
    let has = |words: &str| bytes.windows(words.len()).any(|part| part == words.as_bytes());
    assert!(has("iTXtprompt\0\0\0\0\0a photo of a cat") && has("iTXtnegative\0\0\0\0\0"));
    assert!(has("settings\0\0\0\0\0steps 3, guidance 2, seed 9, sampler pndm, eta 0, size 16x16"));
    // Every checksum is that of its chunk.
    let mut at = 8;
    while at < bytes.len() {
        let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let sum = u32::from_be_bytes(bytes[at + 8 + length..at + 12 + length].try_into().unwrap());
        assert_eq!(crate::made::crc32(&bytes[at + 4..at + 8 + length]), sum);
        at += 12 + length;
    }

    let said = text(&asked(&model, &file, "--steps 3 --guidance 2 --seed 10"));
    assert!(
        said.starts_with(&format!("{file}: 16 x 16 pixels, 4 forwards with pndm, seed 10, in ")),
        "{said}"
    );
    assert_ne!(Picture::open(&file).unwrap().rgb(), picture.rgb());
    let out = command(&asked(&model, "-", "--steps 2 --size 24x16 --sampler euler")).output().unwrap();
    let picture = Picture::decode("-", &out.stdout).unwrap();
    assert_eq!((picture.width(), picture.height()), (24, 16));
}

#[test]
fn what_cannot_be_drawn_is_an_error() {
    let (dir, model) = (folder(), pipeline("sd1"));
    let file = show(&dir.path().join("out.png"));
    let model = show(model.path());
    let wrong = |code: i32, more: &[&str]| {
        fails(code, &[&["draw", "a cat", "-m", &model, "-o", &file], more].concat())
    };
    assert!(
        wrong(3, &["--size", "22x16"]).contains("22 by 16 pixels; both must be multiples of 4 up to 2048")
    );
    assert!(wrong(3, &["--eta", "0.5"]).contains("pndm adds no noise; use ddim"));
    assert!(wrong(3, &["--steps", "2000"]).contains("2000 steps; there must be from 1 to 1000"));
    assert!(wrong(3, &["--guidance", "-1"]).contains("guidance is -1"));
    assert!(wrong(2, &["--sampler", "heun"]).contains("ddim, euler, pndm"));
    assert!(wrong(2, &["--size", "big"]).contains("big is no size such as 512x512"));
    assert!(
        fails(3, &["draw", "a cat", "-m", &show(dir.path()), "-o", &file])
            .contains("has no model_index.json")
    );
    let nowhere = show(&dir.path().join("none/out.png"));
    assert!(fails(3, &["draw", "a cat", "-m", &model, "-o", &nowhere]).contains("there is no folder"));
    let both = run(&["draw", "a cat", "-m", &model, "-o", "-", "--json"]);
    assert!(
        both.code == 2 && both.out.is_empty() && both.err.contains("both print to standard output"),
        "{both:?}"
    );
    assert!(!dir.path().join("out.png").exists());
}
