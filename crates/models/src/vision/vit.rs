//! Vision transformers (Dosovitskiy et al., ICLR 2021): ViT, DeiT and DINOv2, in the names of `transformers` and of `timm`.

use super::folded::constant;
use super::network::Made;
use crate::weights::{Stored, WeightError};
use aneforge::Var;
use aneforge::ir::attr::Real;
use aneforge::ir::ops::attention::Attention;
use aneforge::ir::ops::conv::Conv;
use aneforge::nn::{attention_tiles, gelu_tanh};
use aneforge_tensor::Tensor;
use serde_json::Value;

/// What a library calls the weights. Names of a layer follow what precedes it, `{}` being its number.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    patches: &'static str,
    class: &'static str,
    registers: &'static str,
    positions: &'static str,
    layer: &'static str,
    projections: Projections,
    attended: &'static str,
    attention_norm: &'static str,
    up: &'static str,
    down: &'static str,
    feed_norm: &'static str,
    /// What scales the results of attention and of the feed-forward part.
    scales: [&'static str; 2],
    last: &'static str,
    head: &'static str,
}

#[derive(Debug, PartialEq, Eq)]
enum Projections {
    /// Queries, keys and values in one.
    One(&'static str),
    Three([&'static str; 3]),
}

const OLDER: Names = Names {
    patches: "embeddings.patch_embeddings.projection",
    class: "embeddings.cls_token",
    registers: "embeddings.register_tokens",
    positions: "embeddings.position_embeddings",
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
    last: "layernorm",
    head: "classifier",
};

/// All of them. The first whose patches and first norm are there is taken.
const NAMES: [Names; 4] = [
    OLDER,
    Names {
        layer: "layers.{}.",
        projections: Projections::Three(["attention.q_proj", "attention.k_proj", "attention.v_proj"]),
        attended: "attention.o_proj",
        up: "mlp.fc1",
        down: "mlp.fc2",
        ..OLDER
    },
    // DINOv2.
    Names { attention_norm: "norm1", up: "mlp.fc1", down: "mlp.fc2", feed_norm: "norm2", ..OLDER },
    Names {
        patches: "patch_embed.proj",
        class: "cls_token",
        registers: "reg_token",
        positions: "pos_embed",
        layer: "blocks.{}.",
        projections: Projections::One("attn.qkv"),
        attended: "attn.proj",
        attention_norm: "norm1",
        up: "mlp.fc1",
        down: "mlp.fc2",
        feed_norm: "norm2",
        scales: ["ls1.gamma", "ls2.gamma"],
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
    width: usize,
    patch: usize,
    layers: usize,
    heads: usize,
    inner: usize,
    /// Whether half of the inner part is a gate of the other half.
    gated: bool,
    scaled: bool,
    registers: usize,
    /// Learned positions: how many, and of how many patches to a side.
    positions: usize,
    grid: usize,
    classes: usize,
    /// Whether a classifier reads the mean of the patches beside the class token.
    reads_mean: bool,
    tanh: bool,
    eps: f64,
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
            let first = names.layer.replace("{}", "0");
            shape(&format!("{before}{first}{}.weight", names.attention_norm))?;
            shape(&format!("{before}{first}{}.weight", names.attended))?;
            Some((names, before))
        })?;
        let of = |name: &str| shape(&format!("{before}{name}"));
        let in_layer = |index: usize, name: &str| {
            of(&format!("{}{name}", names.layer.replace("{}", &index.to_string())))
        };
        let [width, 3, patch, _] = of(&format!("{}.weight", names.patches))?[..] else { return None };
        let layers = (0..)
            .take_while(|&index| in_layer(index, &format!("{}.weight", names.attended)).is_some())
            .count();
        let gated = in_layer(0, "mlp.weights_in.weight");
        let inner = match &gated {
            Some(joined) => joined.first()? / 2,
            None => *in_layer(0, &format!("{}.weight", names.up))?.first()?,
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
        Some(Vit {
            names,
            width,
            patch,
            layers,
            heads: heads_of(width),
            inner,
            gated: gated.is_some(),
            scaled: in_layer(0, names.scales[0]).is_some(),
            registers,
            positions,
            grid,
            classes,
            reads_mean: read == 2 * width,
            tanh: false,
            eps: 1e-6,
            dino: false,
        })
    }

    /// The same with what `config.json` says, or why that cannot be followed.
    pub(super) fn described_by(self, config: &Value) -> Result<Vit, String> {
        let (heads, eps, width) = (&config["num_attention_heads"], &config["layer_norm_eps"], self.width);
        let number = if heads.is_null() { Some(self.heads) } else { number(heads) };
        let number = number.filter(|&heads| heads > 0 && width.is_multiple_of(heads)).ok_or_else(|| {
            format!("num_attention_heads is {heads} for a width of {width}; put the number of heads into config.json")
        })?;
        let added = if eps.is_null() { Some(self.eps) } else { eps.as_f64() };
        let added = added
            .filter(|eps| (0.0..=1.0).contains(eps))
            .ok_or_else(|| format!("layer_norm_eps is {eps}; it must be a number from 0 to 1"))?;
        let tanh = match &config["hidden_act"] {
            Value::Null => false,
            // It is always the same one that a gate goes through.
            _ if self.gated => false,
            Value::String(name) if matches!(&**name, "gelu" | "gelu_python") => false,
            Value::String(name) if matches!(&**name, "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => true,
            other => {
                return Err(format!("hidden_act is {other}; gelu, gelu_new and gelu_pytorch_tanh are known"));
            }
        };
        let dino = config["model_type"].as_str().is_some_and(|kind| kind.starts_with("dinov2"));
        Ok(Vit { heads: number, eps: added, tanh, dino, ..self })
    }

    /// Why it takes no pictures of this size, if it does not.
    pub(super) fn unfit(&self, width: usize, height: usize) -> Option<String> {
        let patch = self.patch;
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

    /// How many classes it has; 0 if it does not classify.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Rows and columns of the pictures that it is trained with.
    pub fn side(&self) -> usize {
        self.grid * self.patch
    }

    /// What it is called, by what its files say.
    pub(super) fn name(&self) -> String {
        let kind = if self.dino { "DINOv2" } else { "ViT" };
        format!("{kind}-{}x{}/{}", self.layers, self.width, self.patch)
    }

    /// The weight that `beside` finds what precedes all names by.
    pub(super) fn first(&self) -> String {
        format!("{}.weight", self.names.patches)
    }

    pub(super) fn build(&self, x: &Var, stored: &mut Stored) -> Result<Made, WeightError> {
        Reader { vit: self, stored }.network(x)
    }
}

fn number(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok())
}

/// How many heads networks of a width have where no file says so, 64 numbers wide but for the largest; 0 where that is not known.
fn heads_of(width: usize) -> usize {
    match width {
        1152 | 1280 | 1408 | 1664 => 16,
        _ if width.is_multiple_of(64) => width / 64,
        _ => 0,
    }
}

/// Takes the weights, and builds with them.
struct Reader<'a> {
    vit: &'a Vit,
    stored: &'a mut Stored,
}

impl Reader<'_> {
    fn dense(&mut self, name: &str, dims: [usize; 2]) -> Result<[Var; 2], WeightError> {
        let weight = self.stored.tensor(&format!("{name}.weight"), &dims)?;
        let bias = self.stored.tensor(&format!("{name}.bias"), &dims[..1])?;
        Ok([Var::constant(weight), Var::constant(bias)])
    }

    fn normed(&mut self, x: &Var, name: &str) -> Result<Var, WeightError> {
        let mut of = |part: &str| {
            Ok::<_, WeightError>(Var::constant(
                self.stored.tensor(&format!("{name}.{part}"), &[self.vit.width])?,
            ))
        };
        Ok(x.layer_norm(&of("weight")?, &of("bias")?, self.vit.eps))
    }

    fn network(&mut self, x: &Var) -> Result<Made, WeightError> {
        let vit = self.vit;
        let (d, names) = (vit.width, vit.names);
        let [n, rows, columns] = [0, 2, 3].map(|axis| x.shape().dims().get(axis).copied().unwrap_or(0));
        let (mut h, tokens) = self.tokens(x, n, [rows / vit.patch, columns / vit.patch])?;
        for index in 0..vit.layers {
            h = self.layer(&h, [n, tokens], &names.layer.replace("{}", &index.to_string()))?;
        }
        let states = self.normed(&h, names.last)?.reshape(&[n as i64, tokens as i64, d as i64]);
        let features = states.narrow(1, 0, 1).reshape(&[n as i64, d as i64]);
        if vit.classes == 0 {
            return Ok(Made { logits: None, features });
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
        Ok(Made { logits: Some(logits), features })
    }

    /// The patches of each picture behind its class token, `[N * T, D]`, and how many these are.
    fn tokens(&mut self, x: &Var, n: usize, grid: [usize; 2]) -> Result<(Var, usize), WeightError> {
        let Vit { names, width: d, patch, registers, .. } = *self.vit;
        let [kernel, bias] = {
            let weight = self.stored.tensor(&format!("{}.weight", names.patches), &[d, 3, patch, patch])?;
            let bias = self.stored.tensor(&format!("{}.bias", names.patches), &[d])?;
            [by_blocks(&weight, d, patch), Var::constant(bias)]
        };
        let count = grid[0] * grid[1];
        let patches = x.space_to_depth(patch).conv(ONE, &kernel, Some(&bias));
        let patches = patches.reshape(&[n as i64, d as i64, count as i64]).transpose(&[0, 2, 1]);
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

    fn layer(&mut self, h: &Var, [n, tokens]: [usize; 2], at: &str) -> Result<Var, WeightError> {
        let Vit { names, width: d, scaled, .. } = *self.vit;
        let scale = |reader: &mut Self, x: Var, which: usize| match scaled {
            true => {
                Ok(x * Var::constant(reader.stored.tensor(&format!("{at}{}", names.scales[which]), &[d])?))
            }
            false => Ok::<_, WeightError>(x),
        };
        let normal = self.normed(h, &format!("{at}{}", names.attention_norm))?;
        let attended = self.attended(&normal, [n, tokens], at)?;
        let h = h + scale(self, attended, 0)?;
        let normal = self.normed(&h, &format!("{at}{}", names.feed_norm))?;
        let fed = self.fed(&normal, at)?;
        Ok(&h + scale(self, fed, 1)?)
    }

    fn attended(&mut self, x: &Var, [n, tokens]: [usize; 2], at: &str) -> Result<Var, WeightError> {
        let Vit { names, width: d, heads, .. } = *self.vit;
        let width = d / heads;
        let apart = [n, tokens, heads, width].map(|extent| extent as i64);
        let [query, key, value] = match names.projections {
            Projections::Three(three) => {
                let mut of = |name: &str| {
                    let [weight, bias] = self.dense(&format!("{at}{name}"), [d, d])?;
                    Ok::<_, WeightError>(x.linear(&weight, Some(&bias)))
                };
                [of(three[0])?, of(three[1])?, of(three[2])?]
            }
            Projections::One(name) => {
                let [weight, bias] = self.dense(&format!("{at}{name}"), [3 * d, d])?;
                let all = x.linear(&weight, Some(&bias));
                [0, 1, 2].map(|part| all.narrow(1, part * d, (part + 1) * d))
            }
        };
        let [query, key, value] = [query, key, value].map(|x| x.reshape(&apart).transpose(&[0, 2, 1, 3]));
        let scale = Real((width as f64).powf(-0.5));
        let attention =
            Attention { scale, causal: false, parts: attention_tiles(tokens) as i64, layer: false };
        let mixed = Var::apply(attention, &[&query, &key, &value]).transpose(&[0, 2, 1, 3]);
        let [weight, bias] = self.dense(&format!("{at}{}", names.attended), [d, d])?;
        Ok(mixed.reshape(&[(n * tokens) as i64, d as i64]).linear(&weight, Some(&bias)))
    }

    fn fed(&mut self, x: &Var, at: &str) -> Result<Var, WeightError> {
        let Vit { names, width: d, inner, gated, tanh, .. } = *self.vit;
        if gated {
            let [weight, bias] = self.dense(&format!("{at}mlp.weights_in"), [2 * inner, d])?;
            let halves = x.linear(&weight, Some(&bias)).split(2, -1);
            let [weight, bias] = self.dense(&format!("{at}mlp.weights_out"), [d, inner])?;
            return Ok((halves[0].silu() * &halves[1]).linear(&weight, Some(&bias)));
        }
        let [weight, bias] = self.dense(&format!("{at}{}", names.up), [inner, d])?;
        let h = x.linear(&weight, Some(&bias));
        let h = if tanh { gelu_tanh(&h) } else { h.gelu() };
        let [weight, bias] = self.dense(&format!("{at}{}", names.down), [d, inner])?;
        Ok(h.linear(&weight, Some(&bias)))
    }
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
fn stretched(positions: &[f32], side: usize, d: usize, [rows, columns]: [usize; 2]) -> Vec<f32> {
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
