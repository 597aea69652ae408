//! The networks of Stable Diffusion 1.5 in full size: 860 million weights of the U-Net, of which those of one shape share their bytes.

use aneforge::ir::op::Op;
use aneforge::passes::CompileOptions;
use aneforge::target::{Family, Target};
use aneforge::{Graph, Shape, Tensor, Var, compile};
use aneforge_models::diffusion::config::{TextConfig, UNetConfig, VaeConfig};
use aneforge_tensor::{Bytes, DType};
use std::collections::BTreeMap;
use std::fs;

/// What `unet/config.json` says where it is not as usual.
const UNET: &str = r#"{
    "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768, "sample_size": 64,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]
}"#;
const VAE: &str = r#"{
    "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4,
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]
}"#;
const TEXT: &str = r#"{ "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072 }"#;

/// Weights that are zero, one for each shape, and how many values were asked for.
struct Zeros {
    of_shape: BTreeMap<Vec<usize>, Var>,
    bytes: Bytes,
    values: usize,
}

impl Zeros {
    fn new() -> Zeros {
        Zeros { of_shape: BTreeMap::new(), bytes: Bytes::new(vec![0; 1 << 26]), values: 0 }
    }

    fn get(&mut self, shape: Shape) -> Var {
        self.values += shape.count();
        let make = || {
            let bytes = self.bytes.slice(0..2 * shape.count()).unwrap();
            Var::constant(Tensor::new(DType::F16, shape, bytes).unwrap())
        };
        self.of_shape.entry(shape.dims().to_vec()).or_insert_with(make).clone()
    }
}

fn described<T>(text: &str, read: impl Fn(&std::path::Path) -> T) -> T {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, text).unwrap();
    read(file.path())
}

fn input(dims: &[usize]) -> Var {
    Var::input(Shape::new(dims).unwrap())
}

/// Compiles for a chip of every family that runs programs; compiling verifies what is emitted. Gives how many ops there are.
fn for_every_family(outputs: &[Var]) -> usize {
    let mut ops = 0;
    for target in
        Family::ALL.into_iter().filter_map(Family::representative).filter(|t| t.runs_programs().is_ok())
    {
        let plan = compile(outputs, &CompileOptions::target(target)).unwrap();
        assert!(plan.segments.iter().all(|segment| segment.mil().is_some()), "{target}");
        ops = plan.n_ops;
    }
    assert!(Target::named("h13").unwrap().family() != Target::default().family(), "there are several");
    ops
}

#[test]
fn every_family_takes_the_unet_in_full_size() {
    let config = described(UNET, UNetConfig::read).unwrap();
    let mut zeros = Zeros::new();
    let mut weights = |_: &str, shape: Shape| zeros.get(shape);
    // Two texts, as guidance has them.
    let (latents, time) = (input(&[2, 4, 64, 64]), input(&[1, 1280]));
    let last = config.last(&latents, &time, &input(&[2 * 77, 768]), &mut weights).unwrap();
    let made = config.out(&last, &mut weights).unwrap();
    assert_eq!(made.shape().dims(), [2, 4, 64, 64]);
    // Those of the network, but for the embedding of a time (320 to 1280 to 1280), which the host has.
    assert_eq!(zeros.values, 859_520_964 - (320 + 1) * 1280 - (1280 + 1) * 1280);
    // As diffusers has them: sixteen transformers with a norm of their own, and 8 heads everywhere, 40 to 160 numbers wide.
    let graph = Graph::freeze(std::slice::from_ref(&made)).unwrap();
    let norms = |eps: f64| {
        graph
            .nodes()
            .filter(
                |(_, node)| matches!(&node.op, Op::GroupNorm(op) if op.num_groups == 32 && op.eps.0 == eps),
            )
            .count()
    };
    assert_eq!((norms(1e-6), norms(1e-5)), (16, 2 * 22 + 1));
    let heads =
        graph.nodes().filter(|(_, node)| matches!(node.op, Op::Attention(_))).map(|(_, node)| node.ty.shape);
    let widths: BTreeMap<usize, usize> = heads.fold(BTreeMap::new(), |mut all, shape| {
        assert_eq!(shape[1], 8);
        *all.entry(shape[3]).or_default() += 1;
        all
    });
    assert_eq!(widths, BTreeMap::from([(40, 10), (80, 10), (160, 12)]));
    assert!(for_every_family(&[made]) > 1000);
}

#[test]
fn the_oldest_family_takes_two_texts_at_768_pixels() {
    let config = described(UNET, UNetConfig::read).unwrap();
    let mut zeros = Zeros::new();
    let mut weights = |_: &str, shape: Shape| zeros.get(shape);
    let (latents, time) = (input(&[2, 4, 96, 96]), input(&[1, 1280]));
    // Rows of both pictures together are more than an axis may have.
    let last = config.last(&latents, &time, &input(&[2 * 77, 768]), &mut weights).unwrap();
    compile(&[last], &CompileOptions::target(Target::named("h13").unwrap())).unwrap();
}

#[test]
fn every_family_takes_the_decoder_and_the_text_encoder_in_full_size() {
    let config = described(VAE, VaeConfig::read).unwrap();
    let mut zeros = Zeros::new();
    let made = config
        .decoded(&input(&[1, 4, 64, 64]), false, &mut |_: &str, shape: Shape| zeros.get(shape))
        .unwrap();
    assert_eq!(made.shape().dims(), [1, 3, 512, 512]);
    // Those of the decoder, with the product before it.
    assert_eq!(zeros.values, 49_490_179 + 20);
    for_every_family(&[made]);

    let config = described(TEXT, TextConfig::read).unwrap();
    let mut zeros = Zeros::new();
    let states =
        config.states(&input(&[2 * 77, 768]), 2, &mut |_: &str, shape: Shape| zeros.get(shape)).unwrap();
    // Those of the text encoder, but for words and positions, which the host has.
    assert_eq!(zeros.values, 123_060_480 - (49_408 + 77) * 768);
    for_every_family(&[states]);
}
