//! Classes over HTTP are those of the network.

use crate::made;
use crate::support::{Served, host, load, options, post, send, serve};
use aneforge_models::vision::{Picture, Vision, VisionOptions};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};
use std::io::Cursor;
use std::path::{Path, PathBuf};

fn weights(folder: &Path) -> PathBuf {
    let described =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/vision-vit-timm/weights.json");
    let path = folder.join("vit.safetensors");
    made::write_all(&path, &made::json(described));
    path
}

fn picture(format: ImageFormat) -> Vec<u8> {
    let pixel = |x: u32, y: u32| Rgb([(x * 2) as u8, (y * 3) as u8, (x ^ y) as u8]);
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_fn(120, 90, pixel).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn served() -> (Served, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let model = load("vit", &weights(folder.path()));
    assert_eq!(model.does(), "classify");
    (serve(options(), vec![model]), folder)
}

#[test]
fn classes_are_those_of_the_network() {
    let (served, folder) = served();
    let file = picture(ImageFormat::Png);
    let vision = VisionOptions { device: host().device, ..VisionOptions::default() };
    let mut network = Vision::load(folder.path().join("vit.safetensors").to_str().unwrap(), vision).unwrap();
    let want = network.classify(&[Picture::decode("x", &file).unwrap()], 3).unwrap().remove(0);
    let text = STANDARD.encode(&file);
    let line = "POST /v1/classify?top_k=3&model=vit";
    for answer in [
        send(served.address, line, &["Content-Type: image/png"], &file),
        send(served.address, line, &["Content-Type: application/octet-stream"], &file),
        post(served.address, "/v1/classify", json!({ "image": text, "top_k": 3 }).to_string()),
        post(
            served.address,
            "/v1/classify",
            json!({ "image": format!("data:image/png;base64,{text}"), "top_k": 3, "model": "vit" })
                .to_string(),
        ),
    ] {
        assert_eq!(answer.status, 200, "{answer:?}");
        let value = answer.json();
        assert_eq!((&value["model"], value["data"].as_array().unwrap().len()), (&json!("vit"), 3));
        for (row, want) in value["data"].as_array().unwrap().iter().zip(&want) {
            assert_eq!((&row["index"], &row["label"]), (&json!(want.index), &json!(want.label)));
            assert_eq!(row["probability"].as_f64().unwrap() as f32, want.probability);
        }
    }
    let value =
        send(served.address, "POST /v1/classify", &["Content-Type: image/jpeg"], &picture(ImageFormat::Jpeg));
    assert_eq!(value.json()["data"].as_array().unwrap().len(), 5);
}

/// A file of some bytes that says that it has many pixels.
fn claims() -> Vec<u8> {
    let mut file = picture(ImageFormat::Bmp);
    for at in [18, 22] {
        file[at..at + 4].copy_from_slice(&20_000u32.to_le_bytes());
    }
    file
}

#[test]
fn what_is_wrong_is_named() {
    let (served, _folder) = served();
    let raw = |query: &str, body: &[u8]| {
        send(served.address, &format!("POST /v1/classify{query}"), &["Content-Type: image/png"], body)
    };
    let file = picture(ImageFormat::Png);
    for (query, body, status, said) in [
        ("", &b"no picture"[..], 400, "cannot be read as a picture"),
        ("", b"", 400, "cannot be read as a picture"),
        ("", &file[..file.len() / 2], 400, "cannot be read as a picture"),
        ("", &claims(), 413, "20000 by 20000 pixels, and 32768 by 32768 and 268435456 bytes are the most"),
        ("?top_k=0", &file, 400, "top_k is 0"),
        ("?top_k=x", &file, 400, "top_k is no number"),
        ("?top=3", &file, 400, "`model` and `top_k` are known"),
        ("?model=x", &file, 404, "for classify there is `vit`"),
    ] {
        let answer = raw(query, body);
        assert!(answer.status == status && answer.error().contains(said), "{query}: {answer:?}");
    }
    for (image, said) in
        [("", "neither base64"), ("???", "neither base64"), ("data:image/png,x", "neither base64")]
    {
        let answer = post(served.address, "/v1/classify", json!({ "image": image }).to_string());
        assert!(answer.status == 400 && answer.error().contains(said), "{answer:?}");
        assert_eq!(answer.json()["error"]["param"], Value::from("image"));
    }
    let answer = send(served.address, "POST /v1/classify", &["Content-Type: text/plain"], b"x");
    assert_eq!(answer.status, 415, "{answer:?}");
}
