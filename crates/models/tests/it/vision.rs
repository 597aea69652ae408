//! Networks for pictures: odd files beside their weights, and weights that are those of no network or of another one.

use aneforge::device;
use aneforge_formats::safetensors::layout;
use aneforge_models::vision::{Picture, PictureError, Processor, Vision, VisionError, VisionOptions};
use aneforge_tensor::{DType, Shape};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Names and extents of weights.
type Weights = BTreeMap<String, Vec<usize>>;

/// A transformer of one layer in the names of timm: a width, and positions for so many patches of 4 by 4.
fn vit(width: usize, patches: usize) -> Weights {
    let layer = |name: &str| format!("blocks.0.{name}");
    let mut all = vec![
        ("cls_token".into(), vec![1, 1, width]),
        ("pos_embed".into(), vec![1, 1 + patches, width]),
        ("patch_embed.proj.weight".into(), vec![width, 3, 4, 4]),
    ];
    for (name, to, from) in [
        (layer("attn.qkv"), 3 * width, width),
        (layer("attn.proj"), width, width),
        (layer("mlp.fc1"), 8, width),
        (layer("mlp.fc2"), width, 8),
        ("head".into(), 5, width),
    ] {
        all.extend([(format!("{name}.weight"), vec![to, from]), (format!("{name}.bias"), vec![to])]);
    }
    all.push(("patch_embed.proj.bias".into(), vec![width]));
    for name in [layer("norm1"), layer("norm2"), "norm".into()] {
        all.extend([(format!("{name}.weight"), vec![width]), (format!("{name}.bias"), vec![width])]);
    }
    all.into_iter().collect()
}

fn with(mut weights: Weights, name: &str, dims: &[usize]) -> Weights {
    weights.insert(name.to_owned(), dims.to_vec());
    weights
}

fn write(folder: &Path, weights: &Weights) {
    let described: Vec<(String, DType, Shape)> =
        weights.iter().map(|(name, dims)| (name.clone(), DType::F32, Shape::new(dims).unwrap())).collect();
    let layout = layout(&described, &BTreeMap::new());
    let mut file = layout.head;
    for at in layout.order {
        let value =
            |i: usize| if described[at].0.ends_with("running_var") { -1.0 } else { 0.01 * (i % 7) as f32 };
        (0..described[at].2.count()).for_each(|i| file.extend(value(i).to_le_bytes()));
    }
    fs::write(folder.join("model.safetensors"), file).unwrap();
}

/// What becomes of a picture of 9 by 7 pixels: the size that it is brought to, and the likeliest class.
fn classified(weights: &Weights, files: &[(&str, Value)]) -> Result<((usize, usize), usize), String> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), weights);
    for (name, value) in files {
        fs::write(folder.path().join(name), value.to_string()).unwrap();
    }
    let place = folder.path().display().to_string();
    let options = VisionOptions { device: Some(device::named("host").unwrap()), ..VisionOptions::default() };
    let told = |error: VisionError| {
        assert_eq!(error.kind(), aneforge::Kind::File, "{error}");
        error.to_string().replace(&place, "DIR")
    };
    let mut vision = Vision::load(&place, options).map_err(told)?;
    let picture = Picture::new(9, 7, (0..189).collect()).unwrap();
    let classes = vision.classify(&[picture], 1).map_err(told)?;
    assert!(classes[0][0].probability > 0.0);
    Ok((vision.size(), classes[0][0].index))
}

fn refusal(weights: &Weights, files: &[(&str, Value)]) -> String {
    classified(weights, files).unwrap_err()
}

const UNKNOWN: &str = "are those of no network that this version knows";

#[test]
fn weights_of_odd_shapes_are_those_of_no_network() {
    assert_eq!(classified(&vit(64, 16), &[]).unwrap().0, (16, 16));
    let residual: Weights = (1..5)
        .flat_map(|layer| [0, 1].map(|block| (format!("layer{layer}.{block}.conv1.weight"), vec![1])))
        .collect();
    for weights in [
        with(residual.clone(), "fc.weight", &[]),
        with(residual, "fc.weight", &[7]),
        // Positions of patches that are no square.
        vit(64, 7),
        with(vit(64, 16), "pos_embed", &[]),
        with(vit(64, 16), "pos_embed", &[64]),
        with(vit(64, 16), "head.weight", &[]),
        with(vit(64, 16), "head.weight", &[64]),
        with(vit(64, 16), "patch_embed.proj.weight", &[64, 3, 4]),
        with(vit(64, 16), "patch_embed.proj.weight", &[64, 1, 4, 4]),
        with(vit(64, 16), "blocks.0.mlp.fc1.weight", &[]),
    ] {
        let error = refusal(&weights, &[]);
        assert!(error.contains(UNKNOWN), "{error}");
    }
    let error = refusal(&with(vit(64, 16), "patch_embed.proj.weight", &[64, 3, 4, 5]), &[]);
    assert!(error.contains("has shape [64, 3, 4, 5], ViT-1x64/4 asks for [64, 3, 4, 4]"), "{error}");
    // One position, which is that of a patch, and stretched to sixteen.
    let file = [("preprocessor_config.json", json!({ "size": 16 }))];
    assert_eq!(classified(&vit(64, 0), &file).unwrap().0, (16, 16));
}

#[test]
fn weights_that_are_no_part_of_a_network_are_those_of_another_one() {
    for name in ["norm_pre.weight", "blocks.0.attn.q_norm.weight", "register_tokens", "fc_norm.bias"] {
        assert_eq!(
            refusal(&with(vit(64, 16), name, &[64]), &[]),
            format!(
                "the weights in `DIR` have `{name}`, which ViT-1x64/4 has not; they are of a network that is not known here"
            )
        );
    }
    let also = with(with(vit(64, 16), "mask_token", &[1, 64]), "norm.num_batches_tracked", &[1]);
    assert_eq!(classified(&also, &[]), classified(&vit(64, 16), &[]));
}

#[test]
fn a_normalisation_that_no_training_leaves_is_named() {
    let mut weights: Weights = (1..5)
        .flat_map(|layer| [0, 1].map(|block| (format!("layer{layer}.{block}.conv1.weight"), vec![1])))
        .collect();
    weights.extend([("fc.weight".into(), vec![7, 512]), ("conv1.weight".into(), vec![64, 3, 7, 7])]);
    weights.extend(
        ["weight", "bias", "running_mean", "running_var"].map(|part| (format!("bn1.{part}"), vec![64])),
    );
    let error = refusal(&weights, &[]);
    assert!(error.starts_with("normalisation `bn1` in `DIR` makes NaN of a weight before it, "), "{error}");
}

#[test]
fn a_description_that_cannot_be_followed_is_refused() {
    let config = |value: Value| refusal(&vit(64, 16), &[("config.json", value)]);
    for heads in
        [json!(0), json!(-1), json!(1.5), json!("2"), json!([]), json!(65), json!(1u64 << 63), json!(1e30)]
    {
        let want = format!(
            "`DIR`: num_attention_heads is {heads} for a width of 64; put the number of heads into config.json"
        );
        assert_eq!(config(json!({ "num_attention_heads": heads })), want);
    }
    let act = config(json!({ "hidden_act": "relu7" }));
    assert_eq!(
        act,
        "`DIR`: hidden_act is \"relu7\"; gelu, gelu_new, gelu_pytorch_tanh and quick_gelu are known"
    );
    for eps in [json!("x"), json!(-1), json!(1e30)] {
        let error = config(json!({ "layer_norm_eps": eps }));
        assert!(error.ends_with("it must be a number from 0 to 1"), "{error}");
    }
    for value in
        [json!(null), json!([]), json!({}), json!({ "id2label": 5 }), json!({ "id2label": { "0": 5 } })]
    {
        let same = classified(&vit(64, 16), &[("config.json", value)]);
        assert_eq!(same, classified(&vit(64, 16), &[]));
    }
    let blurred = config(json!({ "architecture": "resnetblur50" }));
    assert_eq!(
        blurred,
        "`DIR`: it is `resnetblur50`, whose filters against aliasing are not known here; take a plain ResNet"
    );
    // How many heads a network of this width has, nobody says.
    let error = refusal(&vit(96, 16), &[]);
    assert!(error.contains("num_attention_heads is null for a width of 96"), "{error}");
    let told = classified(&vit(96, 16), &[("config.json", json!({ "num_attention_heads": 3 }))]);
    assert_eq!(told.unwrap().0, (16, 16));
    let told = classified(&vit(96, 16), &[("config.json", json!({ "model_args": { "num_heads": 3 } }))]);
    assert_eq!(told.unwrap().0, (16, 16));
}

#[test]
fn sizes_that_the_network_cannot_take_are_refused() {
    let of = |value: Value| classified(&vit(64, 16), &[("preprocessor_config.json", value)]);
    for (side, want) in [
        (2, "pictures of 2 by 2 pixels do not divide into patches of 4 by 4"),
        (18, "pictures of 18 by 18 pixels do not divide into patches of 4 by 4"),
        (2048, "have 262144 patches, and 16384 are the most"),
        (4096, "it must be a whole number from 1 to 2048"),
    ] {
        let error = of(json!({ "size": { "height": side, "width": side } })).unwrap_err();
        assert!(error.contains(want), "{error}");
    }
    // A part that is larger than what it is cut out of.
    let larger = json!({ "size": { "shortest_edge": 4 }, "do_center_crop": true, "crop_size": 20 });
    assert_eq!(of(larger).unwrap().0, (20, 20));
    // A small file whose positions are those of a large picture.
    let large = Weights::from_iter(vit(64, 16)).into_iter().map(|(name, dims)| {
        let narrow = dims.iter().map(|&n| {
            if n == 64 {
                1
            } else if n == 192 {
                3
            } else {
                n
            }
        });
        (name, narrow.collect())
    });
    let large = with(large.collect(), "pos_embed", &[1, 1 + 600 * 600, 1]);
    let error = refusal(&large, &[("config.json", json!({ "num_attention_heads": 1 }))]);
    assert!(
        error.contains("pictures come out in 2400 by 2400 pixels, and 1 to 2048 are possible"),
        "{error}"
    );
}

#[test]
fn numbers_that_half_precision_does_not_hold_are_refused() {
    let of = |name: &str, value: Value| {
        let file = json!({ "size": 16, name: value });
        classified(&vit(64, 16), &[("preprocessor_config.json", file)])
    };
    for (name, value) in [
        ("image_std", json!(1e-30)),
        ("image_std", json!(1e30)),
        ("image_mean", json!(1e30)),
        ("rescale_factor", json!(0)),
        ("rescale_factor", json!(-1)),
        ("rescale_factor", json!(1e300)),
        ("rescale_factor", json!(3000)),
    ] {
        let error = of(name, value).unwrap_err();
        assert!(error.contains("bytes become numbers that half precision does not hold"), "{name}: {error}");
    }
    for (name, value, want) in [
        ("rescale_factor", json!("x"), "rescale_factor is \"x\"; it must be a number"),
        ("do_resize", json!("false"), "do_resize is \"false\"; it must be true or false"),
        ("do_rescale", json!(0), "do_rescale is 0; it must be true or false"),
        ("image_std", json!(0), "deviations must be above 0"),
        ("image_mean", json!([1e39, 1, 1]), "it must be three numbers"),
    ] {
        let error = of(name, value).unwrap_err();
        assert!(error.contains(want), "{error}");
    }
    for value in [json!(null), json!([]), json!(5), json!("a")] {
        let error = refusal(&vit(64, 16), &[("preprocessor_config.json", value)]);
        assert!(error.contains("it must be an object of JSON"), "{error}");
    }
}

#[test]
fn a_jpeg_that_ends_within_its_picture_is_refused() {
    use image::ImageEncoder;
    let rgb: Vec<u8> = (0..64 * 48 * 3u32).map(|i| (i * i % 251) as u8).collect();
    let mut whole = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new(&mut whole);
    encoder.write_image(&rgb, 64, 48, image::ExtendedColorType::Rgb8).unwrap();
    // A small picture of its own before it, as cameras put it into Exif data.
    let inner = [&b"\xff\xd8\xff\xe1\x00\x08Ex\xff\xd9if"[..], &whole[2..]].concat();
    for file in [&whole, &inner] {
        let read = Picture::decode("a.jpg", file).unwrap();
        assert_eq!((read.width(), read.height()), (64, 48));
        for end in [file.len() / 2, file.len() * 3 / 4, file.len() - 20] {
            let error = Picture::decode("a.jpg", &file[..end]).unwrap_err().to_string();
            assert!(error.contains("the file ends within the picture; download"), "{error}");
        }
        let more = [&file[..], b"and what follows"].concat();
        assert_eq!(Picture::decode("a.jpg", &more).unwrap(), read);
    }
}

#[test]
fn pictures_like_lines_are_prepared_and_longer_ones_refused() {
    let processor = Processor::torchvision(16, 16);
    for (width, height) in [(1, 1), (1, 32768), (32768, 1), (3, 20000)] {
        let picture = Picture::new(width, height, vec![77; 3 * width * height]).unwrap();
        let prepared = picture.prepared(&processor);
        assert_eq!((prepared.width(), prepared.height()), (16, 16));
        assert!(prepared.rgb().iter().all(|&byte| byte == 77), "{width} by {height}");
    }
    let long = Picture::new(32769, 1, vec![0; 3 * 32769]).unwrap_err();
    assert!(matches!(long, PictureError::Large { width: 32769, height: 1, .. }), "{long}");
}

#[test]
fn a_file_that_is_not_there_is_told_as_one() {
    let options = VisionOptions { device: Some(device::named("host").unwrap()), ..VisionOptions::default() };
    let error = Vision::load("no/such.pth", options).map(|_| ()).unwrap_err();
    assert!(matches!(error, VisionError::File(_)), "{error}");
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::NotFound));
    assert!(error.to_string().contains("no/such.pth"), "{error}");
}
