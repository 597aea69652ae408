//! The digits that come with the command: images, labels, and the weights of a network that reads them.
//! `tools/digits` makes the file and says where the images are from.

use aneforge::ir::ops::conv::Conv;
use aneforge::ir::types::Caller;
use aneforge::{DType, Shape, Var};
use aneforge_formats::SafeTensors;
use aneforge_tensor::{Bytes, Tensor};
use anyhow::{Context, Result, ensure};

static FILE: &[u8] = include_bytes!("../assets/digits.safetensors");

/// Pixels per row and column.
pub const SIDE: usize = 8;
/// Classes.
pub const CLASSES: usize = 10;
/// The greatest value of a pixel.
const WHITE: f32 = 16.0;

/// Images with labels, and weights.
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

    /// The images that were held out in training.
    pub fn held_out(&self) -> impl Iterator<Item = usize> + Clone + use<> {
        (0..self.labels.len()).step_by(5)
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

    /// How many held-out images the network reads correctly in single precision, as training recorded it.
    pub fn correct_in_float(&self) -> Result<usize> {
        let recorded = self.file.metadata().get("test_correct_float32").context("no accuracy is recorded")?;
        recorded.parse().context("the recorded accuracy")
    }

    /// The network on `batch` images: from `[batch, 1, 8, 8]` to a probability per class.
    pub fn network(&self, batch: usize) -> Result<Var> {
        Caller::new("<demo>", 0).scope(|| self.layers(batch))
    }

    fn layers(&self, batch: usize) -> Result<Var> {
        let weight = |name: &str| -> Result<Var> { Ok(Var::constant(self.weight(name)?)) };
        let three = Conv { strides: [1, 1], pad: [1; 4], dilations: [1, 1], groups: 1 };

        let images = Var::input(Shape::new(&[batch, 1, SIDE, SIDE])?);
        let edges = images.conv(three.clone(), &weight("conv1.weight")?, Some(&weight("conv1.bias")?)).relu();
        let strokes = edges.conv(three, &weight("conv2.weight")?, Some(&weight("conv2.bias")?)).relu();
        let features = strokes.max_pool(2, 2, 0).reshape(&[batch as i64, -1]);
        let hidden = features.linear(&weight("fc1.weight")?, Some(&weight("fc1.bias")?)).relu();
        let logits = hidden.linear(&weight("fc2.weight")?, Some(&weight("fc2.bias")?));
        Ok(logits.softmax(-1))
    }

    fn weight(&self, name: &str) -> Result<Tensor> {
        Ok(self.file.tensor(name)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_file_is_what_the_network_takes() {
        let digits = Digits::embedded().unwrap();
        assert_eq!(digits.held_out().count(), 360);
        assert_eq!(digits.network(3).unwrap().check().unwrap().shape.dims(), [3, CLASSES]);
        assert!(digits.images.iter().all(|v| (0.0..=1.0).contains(v)));
        assert!((0..digits.labels.len()).all(|i| digits.label(i) < CLASSES));
        assert_eq!(digits.correct_in_float().unwrap(), 358);
    }
}
