//! The networks for pictures of CLIP (Radford et al., ICML 2021) and SigLIP (Zhai et al., ICCV 2023): a picture becomes a vector that
//! is compared with those of texts.

use super::folded::constant;
use super::network::Made;
use super::stack::{self, Activation, Projections, Run, Stack};
use super::vit::{patches, stretched};
use crate::weights::{Stored, WeightError};
use aneforge::Var;
use aneforge::ir::attr::Real;
use aneforge::ir::ops::attention::Attention;
use aneforge_tensor::{Shape, Tensor};
use serde_json::Value;

/// What both call the weights of a layer, for pictures and for texts.
pub(super) static LAYERS: stack::Names = stack::Names {
    layer: "encoder.layers.{}.",
    projections: Projections::Three(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    attended: "self_attn.out_proj",
    attention_norm: "layer_norm1",
    up: "mlp.fc1",
    down: "mlp.fc2",
    feed_norm: "layer_norm2",
    scales: ["", ""],
};

/// What a weight of theirs is called that no other network has, behind what precedes all names.
const FIRST: &str = "embeddings.patch_embedding.weight";
const POSITIONS: &str = "embeddings.position_embedding.weight";
const PROJECTION: &str = "visual_projection.weight";

/// What belongs to texts, and to the comparison.
pub(super) const OF_TEXTS: [&str; 4] = ["text_model.", "text_projection.", "logit_scale", "logit_bias"];

/// What a checkpoint's weights and description say of the network for pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Tower {
    stack: Stack,
    patch: usize,
    grid: usize,
    /// Whether a class token stands before the patches, whose state is the picture's; else a head asks all of them.
    has_class: bool,
    /// Components of the vector.
    vector: usize,
}

/// The layers that these weights are of, by their names and shapes and by one of the two descriptions in `config.json`.
pub(super) fn layers(
    of: &dyn Fn(&str) -> Option<Vec<usize>>,
    width: usize,
    config: &Value,
    clip: bool,
) -> Option<Result<Stack, String>> {
    let in_layer =
        |index: usize, name: &str| of(&format!("{}{name}", LAYERS.layer.replace("{}", &index.to_string())));
    let layers = (0..).take_while(|&index| in_layer(index, "mlp.fc1.weight").is_some()).count();
    let stack = Stack {
        names: &LAYERS,
        layers,
        width,
        heads: stack::heads_of(width),
        inner: *in_layer(0, "mlp.fc1.weight")?.first()?,
        gated: false,
        scaled: false,
        activation: if clip { Activation::QuickGelu } else { Activation::GeluTanh },
        eps: if clip { 1e-5 } else { 1e-6 },
        causal: false,
    };
    Some(stack.described_by(config))
}

impl Tower {
    /// The network that these weights are of; `None` if they are of none.
    pub(super) fn of(
        shape: &dyn Fn(&str) -> Option<Vec<usize>>,
        prefix: &dyn Fn(&str) -> Option<String>,
        config: &Value,
    ) -> Option<Result<Tower, String>> {
        let before = prefix(FIRST)?;
        let of = |name: &str| shape(&format!("{before}{name}"));
        let [width, 3, patch, _] = of(FIRST)?[..] else { return None };
        let has_class = of("embeddings.class_embedding").is_some();
        let square = |n: usize| Some(n.isqrt()).filter(|side| side * side == n && n > 0);
        let grid = square(of(POSITIONS)?.first()?.checked_sub(usize::from(has_class))?)?;
        let projected = shape(PROJECTION).and_then(|dims| dims.first().copied());
        let described = if config["vision_config"].is_object() { &config["vision_config"] } else { config };
        let stack = match layers(&of, width, described, has_class)? {
            Ok(stack) => stack,
            Err(why) => return Some(Err(why)),
        };
        (patch > 0).then(|| Ok(Tower { stack, patch, grid, has_class, vector: projected.unwrap_or(width) }))
    }

    /// Whether it is CLIP's; else it is SigLIP's.
    pub fn is_clip(&self) -> bool {
        self.has_class
    }

    /// Components of the vector.
    pub fn vector(&self) -> usize {
        self.vector
    }

    /// Rows and columns of the pictures that it is trained with.
    pub fn side(&self) -> usize {
        self.grid * self.patch
    }

    /// Rows and columns of a patch.
    pub(super) fn patch(&self) -> usize {
        self.patch
    }

    /// What it is called.
    pub(super) fn name(&self) -> String {
        let kind = if self.has_class { "CLIP" } else { "SigLIP" };
        format!("{kind}-{}x{}/{}", self.stack.layers, self.stack.width, self.patch)
    }

    /// The weight that what precedes all names is found by.
    pub(super) fn first(&self) -> &'static str {
        FIRST
    }

    /// Vectors of unit length `[N, vector]`.
    pub(super) fn build(&self, x: &Var, stored: &mut Stored) -> Result<Made, WeightError> {
        let d = self.stack.width;
        let [n, rows, columns] = [0, 2, 3].map(|axis| x.shape().dims().get(axis).copied().unwrap_or(0));
        let grid = [rows / self.patch, columns / self.patch];
        let (h, tokens) = self.tokens(x, n, grid, stored)?;
        let Run { states: h, looks } = self.stack.build(&h, [n, tokens], stored)?;
        let (vector, looks) = match self.has_class {
            true => {
                let states = h.reshape(&[n as i64, tokens as i64, d as i64]);
                let class = states.narrow(1, 0, 1).reshape(&[n as i64, d as i64]);
                let normal = self.stack.normed(&class, "post_layernorm", stored)?;
                let vector = match stored.contains(PROJECTION) {
                    true => normal
                        .linear(&Var::constant(stored.beyond_prefix(PROJECTION, &[self.vector, d])?), None),
                    false => normal,
                };
                (vector, looks.map(|all| all.narrow(2, 1, tokens)))
            }
            false => {
                let states = self.stack.normed(&h, "post_layernorm", stored)?;
                self.asked(&states, [n, tokens], stored)?
            }
        };
        Ok(Made { logits: None, features: vector.l2_norm(-1, 0.0), looks })
    }

    fn tokens(
        &self,
        x: &Var,
        n: usize,
        grid: [usize; 2],
        stored: &mut Stored,
    ) -> Result<(Var, usize), WeightError> {
        let (d, count) = (self.stack.width, grid[0] * grid[1]);
        let own = usize::from(self.has_class);
        let positions = stored.tensor(POSITIONS, &[own + self.grid * self.grid, d])?.to_f32();
        let (of_class, of_patches) = positions.split_at(own * d);
        let h = patches(x, "embeddings.patch_embedding", [n, d, self.patch], stored)?;
        let h = h + constant(&[1, count, d], &stretched(of_patches, self.grid, d, grid));
        let rows = |h: &Var, tokens: usize| h.reshape(&[(n * tokens) as i64, d as i64]);
        if !self.has_class {
            return Ok((rows(&h, count), count));
        }
        let class = stored.tensor("embeddings.class_embedding", &[d])?.to_f32();
        let class: Vec<f32> = class.iter().zip(of_class).map(|(token, place)| token + place).collect();
        let h = Var::concat(&[&constant(&[n, 1, d], &class.repeat(n)), &h], 1);
        // The name is misspelt in the files.
        let normal = self.stack.normed(&rows(&h, 1 + count), "pre_layrnorm", stored)?;
        Ok((normal, 1 + count))
    }

    /// What a learned question finds among the states of all patches, and a feed-forward part makes of it; and how much it looks at
    /// each.
    fn asked(
        &self,
        states: &Var,
        [n, tokens]: [usize; 2],
        stored: &mut Stored,
    ) -> Result<(Var, Option<Var>), WeightError> {
        let (d, heads) = (self.stack.width, self.stack.heads);
        let probe = stored.tensor("head.probe", &[1, 1, d])?.to_f32();
        let weight = stored.tensor("head.attention.in_proj_weight", &[3 * d, d])?;
        let bias = stored.tensor("head.attention.in_proj_bias", &[3 * d])?;
        let part = |which: usize| {
            [(&weight, vec![d, d]), (&bias, vec![d])]
                .map(|(all, dims)| Var::constant(third(all, which, &dims)))
        };
        let projected = |x: &Var, which: usize, count: usize| {
            let [weight, bias] = part(which);
            let apart = [n, count, heads, d / heads].map(|extent| extent as i64);
            x.linear(&weight, Some(&bias)).reshape(&apart).transpose(&[0, 2, 1, 3])
        };
        let query = projected(&constant(&[n, d], &probe.repeat(n)), 0, 1);
        let [key, value] = [1, 2].map(|which| projected(states, which, tokens));
        let scale = Real(((d / heads) as f64).powf(-0.5));
        let attention = Attention { scale, causal: false, parts: 1, layer: false };
        let found = Var::apply(attention, &[&query, &key, &value]).transpose(&[0, 2, 1, 3]);
        let found = dense(&found.reshape(&[n as i64, d as i64]), "attention.out_proj", [d, d], stored)?;
        let normal = self.stack.normed(&found, "head.layernorm", stored)?;
        let inner = self.stack.activation.of(&dense(&normal, "mlp.fc1", [self.stack.inner, d], stored)?);
        let vector = found + dense(&inner, "mlp.fc2", [d, self.stack.inner], stored)?;
        Ok((vector, Some(stack::looks(&query, &key))))
    }
}

/// A layer of the head.
fn dense(x: &Var, name: &str, dims: [usize; 2], stored: &mut Stored) -> Result<Var, WeightError> {
    let weight = Var::constant(stored.tensor(&format!("head.{name}.weight"), &dims)?);
    let bias = Var::constant(stored.tensor(&format!("head.{name}.bias"), &dims[..1])?);
    Ok(x.linear(&weight, Some(&bias)))
}

/// A third of a tensor's rows, of this shape; it shares the bytes.
fn third(all: &Tensor, which: usize, dims: &[usize]) -> Tensor {
    let bytes = all.bytes().len() / 3;
    let part = all.bytes().slice(which * bytes..(which + 1) * bytes).expect("invariant: there are three");
    let shape = Shape::new(dims).expect("invariant: a third of a shape that was checked");
    Tensor::new(all.dtype(), shape, part).expect("invariant: as many bytes as elements take")
}
