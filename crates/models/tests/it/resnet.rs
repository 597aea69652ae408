//! Residual networks.

use aneforge::{Kind, Shape, Var};
use aneforge_formats::Checkpoint;
use aneforge_models::resnet::{Depth, resnet};
use aneforge_models::weights::{Stored, random_weights};
use aneforge_models::{WeightError, Weights};

#[test]
fn nodes_of_a_network_are_the_callers() {
    let image = Var::input(Shape::new(&[1, 3, 32, 32]).unwrap());
    let line = line!() + 1;
    let classes = resnet(Depth::D18, &image, 10, &mut random_weights(1)).unwrap();
    assert_eq!(classes.shape().dims(), [1, 10]);
    let (mut open, mut seen) = (vec![classes], 0);
    while let Some(var) = open.pop() {
        open.extend(var.inputs().iter().cloned());
        let at = var.caller().to_string();
        let ours = at == format!("crates/models/tests/it/resnet.rs:{line}");
        assert!(ours || var.inputs().is_empty(), "{} at {at}", var.op().name());
        seen += 1;
    }
    assert!(seen > 60, "{seen} nodes");
}

#[test]
fn weights_of_another_model_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let why = |header: &str| {
        let length = (header.len() as u64).to_le_bytes();
        let file = [&length[..], header.as_bytes(), &[0; 4]].concat();
        std::fs::write(folder.path().join("model.safetensors"), file).unwrap();
        let mut weights = Stored::new(Checkpoint::open(folder.path()).unwrap(), "ResNet-18");
        let image = Var::input(Shape::new(&[1, 3, 32, 32]).unwrap());
        let error: WeightError = resnet(Depth::D18, &image, 10, &mut weights).unwrap_err();
        assert_eq!(error.kind(), Kind::File);
        error.to_string().replace(&folder.path().display().to_string(), "DIR")
    };
    let conv1 = |dtype: &str, shape: &str| {
        why(&format!(r#"{{"conv1.weight":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,4]}}}}"#))
    };
    assert_eq!(
        why(r#"{"fc":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#),
        "the weights in `DIR` lack `conv1.weight`; they are not those of the model that ResNet-18 describes"
    );
    assert_eq!(
        conv1("F32", "[1]"),
        "weight `conv1.weight` in `DIR` has shape [1], ResNet-18 asks for [64, 3, 7, 7]; the two belong to \
         different models"
    );
}

#[test]
fn random_weights_are_a_source() {
    let mut source = random_weights(3);
    let source: &mut dyn Weights = &mut source;
    let bias = source.get("bias", Shape::new(&[2]).unwrap()).unwrap();
    assert!(bias.data().unwrap().to_f32().iter().all(|v| v.abs() < 0.3));
}
