//! Vision transformers (Dosovitskiy et al., ICLR 2021): ViT, DeiT and DINOv2, in the names of `transformers` and of `timm`.

use super::folded::constant;
use super::network::Made;
use super::stack::{self, Activation, Projections, Stack};
use crate::weights::{Stored, WeightError};
use aneforge::Var;
use aneforge::ir::ops::conv::Conv;
use aneforge_tensor::Tensor;
use serde_json::Value;

/// What a library calls the weights.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    patches: &'static str,
    class: &'static str,
    registers: &'static str,
    positions: &'static str,
    layers: stack::Names,
    last: &'static str,
    head: &'static str,
}

const OLDER: Names = Names {
    patches: "embeddings.patch_embeddings.projection",
    class: "embeddings.cls_token",
    registers: "embeddings.register_tokens",
    positions: "embeddings.position_embeddings",
    layers: OLDER_LAYERS,
    last: "layernorm",
    head: "classifier",
};

const OLDER_LAYERS: stack::Names = stack::Names {
    layer: "encoder.layer.{}.",
    projections: Projections::Three([
        "attention.attention.query",
        "attention.attention.key",
        "attention.attention.value",
    ]),
    attended: "attention.output.dense",
    attention_norm: "layernorm_before",
    up: "intermediate.dense",
    down: "output.dense",
    feed_norm: "layernorm_after",
    scales: ["layer_scale1.lambda1", "layer_scale2.lambda1"],
};

/// All of them. The first whose patches and first norm are there is taken.
static NAMES: [Names; 4] = [
    OLDER,
    Names {
        layers: stack::Names {
            layer: "layers.{}.",
            projections: Projections::Three(["attention.q_proj", "attention.k_proj", "attention.v_proj"]),
            attended: "attention.o_proj",
            up: "mlp.fc1",
            down: "mlp.fc2",
            ..OLDER_LAYERS
        },
        ..OLDER
    },
    // DINOv2.
    Names {
        layers: stack::Names {
            attention_norm: "norm1",
            up: "mlp.fc1",
            down: "mlp.fc2",
            feed_norm: "norm2",
            ..OLDER_LAYERS
        },
        ..OLDER
    },
    Names {
        patches: "patch_embed.proj",
        class: "cls_token",
        registers: "reg_token",
        positions: "pos_embed",
        layers: stack::Names {
            layer: "blocks.{}.",
            projections: Projections::One("attn.qkv"),
            attended: "attn.proj",
            attention_norm: "norm1",
            up: "mlp.fc1",
            down: "mlp.fc2",
            feed_norm: "norm2",
            scales: ["ls1.gamma", "ls2.gamma"],
        },
        last: "norm",
        head: "head",
    },
];

/// The most patches of a picture: 128 by 128, ten times those of the largest pictures that such networks are trained with.
const MOST_PATCHES: usize = 1 << 14;

/// Every pixel by itself.
const ONE: Conv = Conv { strides: [1; 2], pad: [0; 4], dilations: [1; 2], groups: 1 };

/// What a checkpoint's weights and description say of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Vit {
    names: &'static Names,
    stack: Stack,
    patch: usize,
    registers: usize,
    /// Learned positions: how many, and of how many patches to a side.
    positions: usize,
    grid: usize,
    classes: usize,
    /// Whether a classifier reads the mean of the patches beside the class token.
    reads_mean: bool,
    dino: bool,
}

impl Vit {
    /// The network that these weights are of, by names and shapes; `None` if they are of none.
    pub(super) fn of(
        shape: &dyn Fn(&str) -> Option<Vec<usize>>,
        prefix: &dyn Fn(&str) -> Option<String>,
    ) -> Option<Vit> {
        let (names, before) = NAMES.iter().find_map(|names| {
            let before = prefix(&format!("{}.weight", names.patches))?;
            let first = names.layers.layer.replace("{}", "0");
            shape(&format!("{before}{first}{}.weight", names.layers.attention_norm))?;
            shape(&format!("{before}{first}{}.weight", names.layers.attended))?;
            Some((names, before))
        })?;
        let of = |name: &str| shape(&format!("{before}{name}"));
        let in_layer = |index: usize, name: &str| {
            of(&format!("{}{name}", names.layers.layer.replace("{}", &index.to_string())))
        };
        let [width, 3, patch, _] = of(&format!("{}.weight", names.patches))?[..] else { return None };
        let layers = (0..)
            .take_while(|&index| in_layer(index, &format!("{}.weight", names.layers.attended)).is_some())
            .count();
        let gated = in_layer(0, "mlp.weights_in.weight");
        let inner = match &gated {
            Some(joined) => joined.first()? / 2,
            None => *in_layer(0, &format!("{}.weight", names.layers.up))?.first()?,
        };
        let positions = *of(names.positions)?.get(1)?;
        let registers = of(names.registers).and_then(|dims| dims.get(1).copied()).unwrap_or(0);
        let [classes, read] = match shape(&format!("{}.weight", names.head)).as_deref() {
            None => [0, 0],
            Some(&[classes, read]) => [classes, read],
            Some(_) => return None,
        };
        // Class token and registers may have places of their own.
        let square = |n: usize| (n.isqrt() * n.isqrt() == n).then(|| n.isqrt());
        let places = [1 + registers, 1, 0].into_iter().filter_map(|own| square(positions.checked_sub(own)?));
        let grid = places.into_iter().find(|&grid| grid > 0)?;
        let stack = Stack {
            names: &names.layers,
            layers,
            width,
            heads: stack::heads_of(width),
            inner,
            gated: gated.is_some(),
            scaled: in_layer(0, names.layers.scales[0]).is_some(),
            activation: Activation::Gelu,
            eps: 1e-6,
            causal: false,
        };
        let reads_mean = read == 2 * width;
        Some(Vit { names, stack, patch, registers, positions, grid, classes, reads_mean, dino: false })
    }

    /// The same with what `config.json` says, or why that cannot be followed.
    pub(super) fn described_by(self, config: &Value) -> Result<Vit, String> {
        let stack = self.stack.described_by(config)?;
        let dino = config["model_type"].as_str().is_some_and(|kind| kind.starts_with("dinov2"));
        Ok(Vit { stack, dino, ..self })
    }

    /// Why it takes no pictures of this size, if it does not.
    pub(super) fn unfit(&self, width: usize, height: usize) -> Option<String> {
        uneven(self.patch, width, height)
    }

    /// How many classes it has; 0 if it does not classify.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Rows and columns of the pictures that it is trained with.
    pub fn side(&self) -> usize {
        self.grid * self.patch
    }

    /// Rows and columns of a patch.
    pub(super) fn patch(&self) -> usize {
        self.patch
    }

    /// What it is called, by what its files say.
    pub(super) fn name(&self) -> String {
        let kind = if self.dino { "DINOv2" } else { "ViT" };
        format!("{kind}-{}x{}/{}", self.stack.layers, self.stack.width, self.patch)
    }

    /// The weight that `beside` finds what precedes all names by.
    pub(super) fn first(&self) -> String {
        format!("{}.weight", self.names.patches)
    }

    pub(super) fn build(&self, x: &Var, stored: &mut Stored) -> Result<Made, WeightError> {
        Reader { vit: self, stored }.network(x)
    }
}

/// Why pictures of this size do not become patches, if they do not.
pub(super) fn uneven(patch: usize, width: usize, height: usize) -> Option<String> {
    if !width.is_multiple_of(patch) || !height.is_multiple_of(patch) {
        return Some(format!(
            "pictures of {width} by {height} pixels do not divide into patches of {patch} by {patch}; change their size in \
             preprocessor_config.json"
        ));
    }
    let count = (width / patch) * (height / patch);
    (count > MOST_PATCHES).then(|| {
        format!(
            "pictures of {width} by {height} pixels have {count} patches, and {MOST_PATCHES} are the most"
        )
    })
}

/// Takes the weights, and builds with them.
struct Reader<'a> {
    vit: &'a Vit,
    stored: &'a mut Stored,
}

impl Reader<'_> {
    fn network(&mut self, x: &Var) -> Result<Made, WeightError> {
        let vit = self.vit;
        let (d, names) = (vit.stack.width, vit.names);
        let [n, rows, columns] = [0, 2, 3].map(|axis| x.shape().dims().get(axis).copied().unwrap_or(0));
        let (h, tokens) = self.tokens(x, n, [rows / vit.patch, columns / vit.patch])?;
        let run = vit.stack.build(&h, [n, tokens], self.stored)?;
        let looks = run.looks.map(|all| all.narrow(2, 1 + vit.registers, tokens));
        let last = vit.stack.normed(&run.states, names.last, self.stored)?;
        let states = last.reshape(&[n as i64, tokens as i64, d as i64]);
        let features = states.narrow(1, 0, 1).reshape(&[n as i64, d as i64]);
        if vit.classes == 0 {
            return Ok(Made { logits: None, features, looks });
        }
        let read = match vit.reads_mean {
            true => {
                let patches =
                    states.narrow(1, 1 + vit.registers, tokens).mean(&[1]).reshape(&[n as i64, d as i64]);
                Var::concat(&[&features, &patches], 1)
            }
            false => features.clone(),
        };
        let width = read.shape().dims().last().copied().unwrap_or(0);
        let weight = self.stored.beyond_prefix(&format!("{}.weight", names.head), &[vit.classes, width])?;
        let bias = self.stored.beyond_prefix(&format!("{}.bias", names.head), &[vit.classes])?;
        let logits = read.linear(&Var::constant(weight), Some(&Var::constant(bias)));
        Ok(Made { logits: Some(logits), features, looks })
    }

    /// The patches of each picture behind its class token, `[N * T, D]`, and how many these are.
    fn tokens(&mut self, x: &Var, n: usize, grid: [usize; 2]) -> Result<(Var, usize), WeightError> {
        let (d, names) = (self.vit.stack.width, self.vit.names);
        let Vit { patch, registers, .. } = *self.vit;
        let count = grid[0] * grid[1];
        let patches = patches(x, names.patches, [n, d, patch], self.stored)?;
        let positions = self.stored.tensor(names.positions, &[1, self.vit.positions, d])?.to_f32();
        let own = self.vit.positions - self.vit.grid * self.vit.grid;
        let (of_others, of_patches) = positions.split_at(own * d);
        let (of_class, of_registers) = of_others.split_at(own.min(1) * d);
        // The same for each picture.
        let mut repeated = |name: &str, tokens: usize, added: &[f32]| {
            let one = self.stored.tensor(name, &[1, tokens, d])?.to_f32();
            let one: Vec<f32> =
                one.iter().enumerate().map(|(i, v)| v + added.get(i).unwrap_or(&0.0)).collect();
            Ok::<_, WeightError>(constant(&[n, tokens, d], &one.repeat(n)))
        };
        let class = repeated(names.class, 1, of_class)?;
        let beside =
            (registers > 0).then(|| repeated(names.registers, registers, of_registers)).transpose()?;
        let places = stretched(of_patches, self.vit.grid, d, grid);
        let patches = patches + constant(&[1, count, d], &places);
        let parts: Vec<&Var> = std::iter::once(&class).chain(&beside).chain([&patches]).collect();
        let tokens = 1 + registers + count;
        Ok((Var::concat(&parts, 1).reshape(&[(n * tokens) as i64, d as i64]), tokens))
    }
}

/// The patches of pictures, `[N, T, D]`, by the convolution of this name, which may have no bias.
pub(super) fn patches(
    x: &Var,
    name: &str,
    [n, d, patch]: [usize; 3],
    stored: &mut Stored,
) -> Result<Var, WeightError> {
    let weight = stored.tensor(&format!("{name}.weight"), &[d, 3, patch, patch])?;
    let own = format!("{name}.bias");
    let bias = stored.has(&own).then(|| stored.tensor(&own, &[d])).transpose()?.map(Var::constant);
    let patches = x.space_to_depth(patch).conv(ONE, &by_blocks(&weight, d, patch), bias.as_ref());
    Ok(patches.reshape(&[n as i64, d as i64, -1]).transpose(&[0, 2, 1]))
}

/// A kernel of patches `[D, 3, P, P]` as one of the channels that blocks become, `[D, P * P * 3, 1, 1]`: row, column, colour.
fn by_blocks(kernel: &Tensor, d: usize, patch: usize) -> Var {
    let (values, cells) = (kernel.to_f32(), patch * patch);
    let at = |i: usize| {
        let (to, cell, colour) = (i / (3 * cells), i / 3 % cells, i % 3);
        values[(to * 3 + colour) * cells + cell]
    };
    let moved: Vec<f32> = (0..values.len()).map(at).collect();
    constant(&[d, 3 * cells, 1, 1], &moved)
}

/// Positions of a square grid at the places of another one, by cubics with `a = -3/4` between pixels' middles, as PyTorch's
/// `interpolate` has it.
pub(super) fn stretched(positions: &[f32], side: usize, d: usize, [rows, columns]: [usize; 2]) -> Vec<f32> {
    if rows == side && columns == side {
        return positions.to_vec();
    }
    let taps = |to: usize, index: usize| -> [(usize, f64); 4] {
        let place = (index as f64 + 0.5) * side as f64 / to as f64 - 0.5;
        let (whole, part) = (place.floor(), place - place.floor());
        std::array::from_fn(|tap| {
            let at = (whole as i64 + tap as i64 - 1).clamp(0, side as i64 - 1);
            (at as usize, cubic(part - (tap as f64 - 1.0)))
        })
    };
    let mut out = Vec::with_capacity(rows * columns * d);
    for row in 0..rows {
        let down = taps(rows, row);
        for column in 0..columns {
            let across = taps(columns, column);
            let value = |i: usize| {
                let line = |at: usize| {
                    across
                        .iter()
                        .map(|&(c, w)| w * f64::from(positions[(at * side + c) * d + i]))
                        .sum::<f64>()
                };
                down.iter().map(|&(r, w)| w * line(r)).sum::<f64>() as f32
            };
            out.extend((0..d).map(value));
        }
    }
    out
}

/// The cubic kernel with `a = -3/4`.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.75;
    match x.abs() {
        x if x <= 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => ((x - 5.0) * x + 8.0) * x * A - 4.0 * A,
        _ => 0.0,
    }
}
