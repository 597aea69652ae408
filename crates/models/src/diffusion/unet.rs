//! The U-Net that says what is noise in latents (Rombach et al., CVPR 2022), in the names of `diffusers`.

use super::component::{Component, Runtime, check};
use super::config::UNetConfig;
use super::error::DiffusionError;
use super::guidance::{self, Guided};
use super::layers::{Heads, Layers, extent, image, mistaken, rows, width};
use crate::weights::{Stored, WeightError, Weights};
use aneforge::session::Session;
use aneforge::{Feed, Var};
use aneforge_formats::Checkpoint;
use aneforge_tensor::Shape;
use std::path::Path;

/// What the norms before transformers add to variances; `diffusers` has the number in its code.
const EPS_BEFORE: f64 = 1e-6;
/// The same of the norms within.
const EPS_WITHIN: f64 = 1e-5;
/// The slowest of the frequencies of a time has this period, over `2 pi`.
const PERIOD: f64 = 10_000.0;
const DESCRIBED_BY: &str = "unet/config.json";

/// The shape of a program: `[N, H, W, tokens]`, and whether it guides.
type Key = ([usize; 4], bool);

/// The U-Net of a pipeline.
///
/// The embedding of a time is computed on the host in double precision; all else is one program for each shape.
pub struct UNet {
    config: UNetConfig,
    parts: Component<Key>,
    /// What makes the embedding of a time of its frequencies: matrices `[D, C]` and `[D, D]`, with their biases.
    time: [(Vec<f32>, Vec<f32>); 2],
    /// The last layer's bias, which the host adds where there is guidance.
    bias: Vec<f32>,
}

/// What a forward is of.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Latents `[N, C, H, W]`, in row-major order.
    pub latents: &'a [f32],
    /// Their extents.
    pub dims: [usize; 4],
    /// The time, of the range that was trained with, 0 to 999.
    pub time: f64,
    /// States of texts, `[N, tokens, D]`.
    pub states: &'a [f32],
}

impl UNet {
    /// Reads the folder `unet` of a pipeline. No weight of the layers is read yet.
    pub fn load(folder: &Path, runtime: &Runtime) -> Result<UNet, DiffusionError> {
        let config = UNetConfig::read(&folder.join("config.json"))?;
        let mut stored = Stored::new(Checkpoint::open_network(folder)?, DESCRIBED_BY);
        let (d, c) = (config.time(), config.blocks[0]);
        let mut layer = |name: &str, from: usize| {
            let weight = stored.tensor(&format!("time_embedding.{name}.weight"), &[d, from])?.to_f32();
            Ok::<_, WeightError>((
                weight,
                stored.tensor(&format!("time_embedding.{name}.bias"), &[d])?.to_f32(),
            ))
        };
        let time = [layer("linear_1", c)?, layer("linear_2", d)?];
        let bias = stored.tensor("conv_out.bias", &[config.channels])?.to_f32();
        Ok(UNet { config, parts: Component::new(stored, runtime), time, bias })
    }

    /// What its file says.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// What the network makes of latents: `[N, C, H, W]`.
    pub fn run(&mut self, step: &Step<'_>) -> Result<Vec<f32>, DiffusionError> {
        self.check(step, step.dims[0])?;
        let session = self.fed(step, false)?;
        let mut made = vec![0.0; session.output(0).len()];
        session.read(0, &mut made);
        finite(made.iter().map(|v| f64::from(*v)), step.time)?;
        Ok(made)
    }

    /// What the network makes of one picture's latents with two texts: without guidance, and what the second text changes. Each
    /// value is a pair of halves.
    pub fn guide(&mut self, step: &Step<'_>) -> Result<Guided, DiffusionError> {
        self.check(step, 2)?;
        if step.dims[0] != 1 {
            return Err(DiffusionError::Asked(format!(
                "one picture is guided at a time, got {}",
                step.dims[0]
            )));
        }
        let bias = self.bias.clone();
        let guided = guidance::read(self.fed(step, true)?, &bias);
        finite(guided.plain.iter().chain(&guided.change).copied(), step.time)?;
        Ok(guided)
    }

    fn check(&self, step: &Step<'_>, texts: usize) -> Result<(), DiffusionError> {
        let [n, c, h, w] = step.dims;
        let multiple = self.config.step();
        let fits = |extent: usize| extent > 0 && extent.is_multiple_of(multiple) && extent <= 4096;
        if n == 0 || n > 8 || c != self.config.channels || !fits(h) || !fits(w) {
            return Err(DiffusionError::Asked(format!(
                "latents are [{n}, {c}, {h}, {w}]; they must be [N, {}, H, W] with N up to 8, and H and W multiples of {multiple}",
                self.config.channels
            )));
        }
        check("latents", step.latents.len(), &step.dims)?;
        let tokens = step.states.len() / (texts * self.config.context);
        check("states", step.states.len(), &[texts, tokens.max(1), self.config.context])?;
        match step.time.is_finite() {
            true => Ok(()),
            false => Err(DiffusionError::Asked(format!("the time is {}; it must be a number", step.time))),
        }
    }

    fn fed(&mut self, step: &Step<'_>, guides: bool) -> Result<&mut Session, DiffusionError> {
        let (time, d) = (self.embedded(step.time), self.config.time());
        let [n, c, h, w] = step.dims;
        let texts = if guides { 2 } else { n };
        let tokens = step.states.len() / (texts * self.config.context);
        let context = self.config.context;
        let session = self.program([n, h, w, tokens], guides)?;
        session.set(0, Feed::F32(step.latents), &[n, c, h, w])?;
        session.set(1, Feed::F32(&time), &[1, d])?;
        session.set(2, Feed::F32(step.states), &[texts * tokens, context])?;
        session.execute()?;
        Ok(session)
    }

    /// The program for `[N, H, W, tokens]`, compiled and loaded if it is not yet; one that guides takes one picture and two texts.
    pub fn program(&mut self, dims: [usize; 4], guides: bool) -> Result<&mut Session, DiffusionError> {
        let UNet { config, parts, .. } = self;
        let [n, h, w, tokens] = dims;
        parts.program((dims, guides), ["", ""], DESCRIBED_BY, |stored| {
            let texts = if guides { 2 } else { n };
            let shape = |dims: &[usize]| Shape::new(dims).map_err(|e| DiffusionError::Asked(e.to_string()));
            let latents = Var::input(shape(&[n, config.channels, h, w])?);
            let time = Var::input(shape(&[1, config.time()])?);
            let states = Var::input(shape(&[texts * tokens, config.context])?);
            if !guides {
                let last = config.last(&latents, &time, &states, stored)?;
                return Ok(vec![config.out(&last, stored)?]);
            }
            let last = config.last(&Var::concat(&[&latents, &latents], 0), &time, &states, stored)?;
            let weight = stored.tensor("conv_out.weight", &[config.channels, config.blocks[0], 3, 3])?;
            Ok(guidance::outputs(&last, &weight))
        })
    }

    /// The embedding of a time, `[1, D]`, behind the function that every layer would take it through.
    pub fn embedded(&self, time: f64) -> Vec<f32> {
        let [(first, first_bias), (second, second_bias)] = &self.time;
        let silu = |v: f64| v / (1.0 + (-v).exp());
        let frequencies = frequencies(time, &self.config);
        let inner: Vec<f64> = dense(&frequencies, first, first_bias).into_iter().map(silu).collect();
        dense(&inner, second, second_bias).into_iter().map(|v| silu(v) as f32).collect()
    }

    pub(super) fn runtime(&self) -> &Runtime {
        self.parts.runtime()
    }
}

/// Sines and cosines of a time.
fn frequencies(time: f64, config: &UNetConfig) -> Vec<f64> {
    let half = config.blocks[0] / 2;
    let angle = |i: usize| time * (-PERIOD.ln() * i as f64 / (half as f64 - config.shift)).exp();
    let sines = (0..half).map(|i| angle(i).sin());
    let cosines = (0..half).map(|i| angle(i).cos());
    let mut all: Vec<f64> =
        if config.flip { cosines.chain(sines).collect() } else { sines.chain(cosines).collect() };
    all.resize(config.blocks[0], 0.0);
    all
}

fn dense(x: &[f64], weight: &[f32], bias: &[f32]) -> Vec<f64> {
    let dot = |row: &[f32]| row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum::<f64>();
    weight.chunks_exact(x.len()).zip(bias).map(|(row, bias)| dot(row) + f64::from(*bias)).collect()
}

fn finite(mut values: impl Iterator<Item = f64>, time: f64) -> Result<(), DiffusionError> {
    match values.all(f64::is_finite) {
        true => Ok(()),
        false => Err(DiffusionError::Overflow { network: "the U-Net", at: format!(" at time {time}") }),
    }
}

impl UNetConfig {
    /// The graph before its last convolution: of latents `[N, C, H, W]`, the embedding of a time `[1, D]` and states of texts
    /// `[N * tokens, D]`, `[N, C0, H, W]`.
    pub fn last(
        &self,
        latents: &Var,
        time: &Var,
        states: &Var,
        weights: &mut dyn Weights,
    ) -> Result<Var, WeightError> {
        let layers = Layers { weights, groups: self.groups, eps: self.eps };
        Builder { config: self, layers, time, states }.build(latents)
    }

    /// The last convolution.
    pub fn out(&self, last: &Var, weights: &mut dyn Weights) -> Result<Var, WeightError> {
        let mut layers = Layers { weights, groups: self.groups, eps: self.eps };
        layers.conv(last, "conv_out", self.channels, 3, 1)
    }
}

/// Takes the weights, and builds with them.
struct Builder<'a> {
    config: &'a UNetConfig,
    layers: Layers<'a>,
    time: &'a Var,
    states: &'a Var,
}

impl Builder<'_> {
    fn build(mut self, latents: &Var) -> Result<Var, WeightError> {
        let (config, last) = (self.config, self.config.blocks.len() - 1);
        let mut h = self.layers.conv(latents, "conv_in", config.blocks[0], 3, 1)?;
        let mut kept = vec![h.clone()];
        for (block, &width) in config.blocks.iter().enumerate() {
            let at = format!("down_blocks.{block}");
            for layer in 0..config.layers[block] {
                h = self.layers.residual(&h, &format!("{at}.resnets.{layer}"), width, Some(self.time))?;
                if config.attends[0][block] {
                    h = self.transformer(&h, &format!("{at}.attentions.{layer}"), block)?;
                }
                kept.push(h.clone());
            }
            if block < last {
                h = self.layers.conv(&h, &format!("{at}.downsamplers.0.conv"), width, 3, 2)?;
                kept.push(h.clone());
            }
        }
        let wide = config.blocks[last];
        h = self.layers.residual(&h, "mid_block.resnets.0", wide, Some(self.time))?;
        h = self.transformer(&h, "mid_block.attentions.0", last)?;
        h = self.layers.residual(&h, "mid_block.resnets.1", wide, Some(self.time))?;
        for up in 0..=last {
            let (block, at) = (last - up, format!("up_blocks.{up}"));
            for layer in 0..=config.layers[block] {
                let beside = kept.pop().expect("invariant: the way up has as many layers as were kept");
                h = Var::concat(&[&h, &beside], 1);
                let name = format!("{at}.resnets.{layer}");
                h = self.layers.residual(&h, &name, config.blocks[block], Some(self.time))?;
                if config.attends[1][up] {
                    h = self.transformer(&h, &format!("{at}.attentions.{layer}"), block)?;
                }
            }
            if block > 0 {
                let name = format!("{at}.upsamplers.0.conv");
                h = self.layers.conv(&h.upsample(2), &name, config.blocks[block], 3, 1)?;
            }
        }
        Ok(self.layers.group_norm(&h, "conv_norm_out", config.eps)?.silu())
    }

    /// Layers that attend to the picture and to the text, around which there is a residual.
    fn transformer(&mut self, x: &Var, name: &str, block: usize) -> Result<Var, WeightError> {
        let normal = self.layers.group_norm(x, &format!("{name}.norm"), EPS_BEFORE)?;
        let mut h = self.projected(&rows(&normal), &format!("{name}.proj_in"))?;
        for layer in 0..self.config.depth[block] {
            h = self.layer(&h, &format!("{name}.transformer_blocks.{layer}"), [extent(x, 0), block])?;
        }
        Ok(x + image(&self.projected(&h, &format!("{name}.proj_out"))?, x))
    }

    /// A matrix, or a convolution of single pixels, which is one.
    fn projected(&mut self, x: &Var, name: &str) -> Result<Var, WeightError> {
        let c = width(x);
        if self.config.linear || mistaken(x) {
            return self.layers.dense(x, name, c, true);
        }
        let kernel = self.layers.weight(&format!("{name}.weight"), &[c, c, 1, 1])?;
        let bias = self.layers.weight(&format!("{name}.bias"), &[c])?;
        let matrix = kernel.data().and_then(|weight| weight.reshape(Shape::new(&[c, c]).ok()?).ok());
        Ok(x.linear(&matrix.map_or(kernel, Var::constant), Some(&bias)))
    }

    fn layer(&mut self, h: &Var, name: &str, [n, block]: [usize; 2]) -> Result<Var, WeightError> {
        let how = Heads { n, heads: self.config.heads[block], causal: false, upcast: self.config.upcast };
        let names =
            |which: &str| ["to_q", "to_k", "to_v", "to_out.0"].map(|part| format!("{name}.{which}.{part}"));
        let normal = self.layers.layer_norm(h, &format!("{name}.norm1"), EPS_WITHIN)?;
        let h = h + self.layers.attention([&normal, &normal], names("attn1"), false, how)?;
        let normal = self.layers.layer_norm(&h, &format!("{name}.norm2"), EPS_WITHIN)?;
        let h = &h + self.layers.attention([&normal, self.states], names("attn2"), false, how)?;
        let normal = self.layers.layer_norm(&h, &format!("{name}.norm3"), EPS_WITHIN)?;
        let c = width(&h);
        let halves = self.layers.dense(&normal, &format!("{name}.ff.net.0.proj"), 8 * c, true)?.split(2, -1);
        let gated = &halves[0] * halves[1].gelu();
        Ok(&h + self.layers.dense(&gated, &format!("{name}.ff.net.2"), c, true)?)
    }
}
