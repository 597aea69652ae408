//! The digits that come with the command, images and labels, and a network that learns to read them.
//! `tools/digits` makes the file and says where the images are from.

use aneforge::nn::{Conv2d, Linear, Scope};
use aneforge::{DType, Tensor, Var};
use aneforge_formats::SafeTensors;
use aneforge_tensor::Bytes;
use anyhow::{Context, Result, ensure};

static FILE: &[u8] = include_bytes!("../assets/digits.safetensors");

/// Pixels per row and column.
pub const SIDE: usize = 8;
/// Classes.
pub const CLASSES: usize = 10;
/// One in so many images is held out.
const EVERY: usize = 5;
/// The greatest value of a pixel.
const WHITE: f32 = 16.0;

/// Images with labels.
pub struct Digits {
    file: SafeTensors,
    images: Vec<f32>,
    labels: Bytes,
}

impl Digits {
    /// The embedded file.
    pub fn embedded() -> Result<Digits> {
        let file = SafeTensors::parse(Bytes::new(FILE)).context("the embedded digits")?;
        let (images, labels) = (file.tensor("images")?, file.tensor("labels")?);
        let count = labels.shape().count();
        ensure!(images.shape().dims() == [count, SIDE, SIDE], "images and labels do not match");
        ensure!(labels.dtype() == DType::U8, "labels are not bytes");
        let images = images.to_f32().iter().map(|v| v / WHITE).collect();
        Ok(Digits { file, images, labels: labels.bytes().clone() })
    }

    /// The images that are not trained on.
    pub fn held_out(&self) -> impl Iterator<Item = usize> + Clone + use<> {
        (0..self.labels.len()).step_by(EVERY)
    }

    /// The images that are.
    pub fn trained_on(&self) -> impl Iterator<Item = usize> + Clone + use<> {
        (0..self.labels.len()).filter(|index| index % EVERY != 0)
    }

    /// The values of an image, row by row, from 0 to 1.
    pub fn image(&self, index: usize) -> &[f32] {
        let pixels = SIDE * SIDE;
        &self.images[index * pixels..(index + 1) * pixels]
    }

    /// What an image shows.
    pub fn label(&self, index: usize) -> usize {
        usize::from(self.labels[index])
    }

    /// How many held-out images the same network reads correctly that `tools/digits` trained in single precision.
    pub fn correct_in_float(&self) -> Result<usize> {
        let recorded = self.file.metadata().get("test_correct_float32").context("no accuracy is recorded")?;
        recorded.parse().context("the recorded accuracy")
    }
}

/// The network: from images `[N, 1, 8, 8]` to a number per class.
pub struct Network {
    conv: [Conv2d; 2],
    fc: [Linear; 2],
}

impl Network {
    /// One whose weights are parameters of `scope`.
    pub fn new(scope: &Scope) -> Network {
        let pooled = (SIDE / 2) * (SIDE / 2);
        Network {
            conv: [Conv2d::new(&scope.at("conv1"), 1, 16, 3), Conv2d::new(&scope.at("conv2"), 16, 32, 3)],
            fc: [Linear::new(&scope.at("fc1"), 32 * pooled, 64), Linear::new(&scope.at("fc2"), 64, CLASSES)],
        }
    }

    /// The same with weights that are part of the program: parameters of `scope`, by name.
    pub fn fixed(scope: &Scope, weights: &[(String, Tensor)]) -> Network {
        let mut network = Network::new(scope);
        let parameters = scope.parameters();
        for leaf in network.weights() {
            let parameter = parameters.iter().find(|parameter| parameter.var.id() == leaf.id());
            let name = &parameter.expect("invariant: weights are parameters").name;
            let (_, value) =
                weights.iter().find(|(other, _)| other == name).expect("invariant: all have values");
            *leaf = Var::constant(value.clone());
        }
        network
    }

    fn weights(&mut self) -> impl Iterator<Item = &mut Var> {
        let conv = self.conv.iter_mut().map(|layer| (&mut layer.weight, &mut layer.bias));
        let fc = self.fc.iter_mut().map(|layer| (&mut layer.weight, &mut layer.bias));
        conv.chain(fc).flat_map(|(weight, bias)| [Some(weight), bias.as_mut()]).flatten()
    }

    /// A number per class, the greater the likelier.
    pub fn logits(&self, images: &Var) -> Var {
        let strokes = self.conv.iter().fold(images.clone(), |x, layer| layer.forward(&x).relu());
        let features = strokes.max_pool(2, 2, 0).reshape(&[images.shape()[0] as i64, -1]);
        let [hidden, last] = &self.fc;
        last.forward(&hidden.forward(&features).relu())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aneforge::Shape;

    #[test]
    fn the_embedded_file_is_what_the_network_takes() {
        let digits = Digits::embedded().unwrap();
        assert_eq!(digits.held_out().count(), 360);
        let images = Var::input(Shape::new(&[3, 1, SIDE, SIDE]).unwrap());
        let logits = Network::new(&Scope::new(0)).logits(&images);
        assert_eq!(logits.check().unwrap().shape.dims(), [3, CLASSES]);
        assert_eq!((digits.trained_on().count(), digits.trained_on().any(|i| i % EVERY == 0)), (1437, false));
        assert!(digits.images.iter().all(|v| (0.0..=1.0).contains(v)));
        assert!((0..digits.labels.len()).all(|i| digits.label(i) < CLASSES));
        assert_eq!(digits.correct_in_float().unwrap(), 358);
    }
}
