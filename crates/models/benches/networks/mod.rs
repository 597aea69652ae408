//! The networks that several benchmarks run, with random weights.

use aneforge::{Shape, Var};
use aneforge_models::resnet::{Depth, resnet};
use aneforge_models::weights::random_weights;

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).expect("a valid shape")
}

pub fn resnet_18(batch: usize) -> Var {
    let x = Var::input(shape(&[batch, 3, 224, 224]));
    resnet(Depth::D18, &x, 1000, &mut random_weights(1)).expect("random weights fit")
}

/// A sentence encoder of MiniLM's shape: 6 layers of 384 with 12 heads, 128 tokens.
pub fn encoder(batch: usize) -> Var {
    let (tokens, d, heads) = (128, 384, 12);
    let mut weights = random_weights(1);
    let mut draw = |dims: &[usize]| weights("", shape(dims));
    let mut x = Var::input(shape(&[batch * tokens, d]));
    for _ in 0..6 {
        let mut projected = || {
            let flat = x.linear(&draw(&[d, d]), Some(&draw(&[d])));
            flat.reshape(&[batch as i64, tokens as i64, heads, (d as i64) / heads]).transpose(&[0, 2, 1, 3])
        };
        let [query, key, value] = [projected(), projected(), projected()];
        let scores =
            query.matmul_value(&key.transpose(&[0, 1, 3, 2])).muls((d as f64 / heads as f64).powf(-0.5));
        let mixed = scores.softmax(-1).matmul_value(&value).transpose(&[0, 2, 1, 3]);
        let mixed = mixed.reshape(&[(batch * tokens) as i64, d as i64]);
        let mixed = mixed.linear(&draw(&[d, d]), Some(&draw(&[d])));
        x = (x + mixed).layer_norm(&draw(&[d]), &draw(&[d]), 1e-5);
        let up = x.linear(&draw(&[4 * d, d]), Some(&draw(&[4 * d]))).gelu();
        let down = up.linear(&draw(&[d, 4 * d]), Some(&draw(&[d])));
        x = (x + down).layer_norm(&draw(&[d]), &draw(&[d]), 1e-5);
    }
    x
}
