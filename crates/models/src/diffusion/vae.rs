//! The decoder that makes pictures of latents (Kingma and Welling's autoencoder, with the layers of Rombach et al.), in the names of
//! `diffusers`.

use super::component::{Component, Runtime, check};
use super::config::VaeConfig;
use super::error::DiffusionError;
use super::layers::{Heads, Layers, extent, image, rows};
use crate::vision::Picture;
use crate::weights::{Stored, WeightError, Weights};
use aneforge::session::Session;
use aneforge::{Feed, Var};
use aneforge_formats::Checkpoint;
use aneforge_tensor::Shape;
use std::path::Path;

/// What the norms add to variances; `diffusers` has the number in its code.
const EPS: f64 = 1e-6;
const DESCRIBED_BY: &str = "vae/config.json";
/// What the products of attention are called, and what they were called before.
const NAMES: [[&str; 4]; 2] = [["to_q", "to_k", "to_v", "to_out.0"], ["query", "key", "value", "proj_attn"]];

/// The decoder of a pipeline: one program for each size.
pub struct VaeDecoder {
    config: VaeConfig,
    parts: Component<[usize; 3]>,
    /// Whether attention has the older names.
    older: bool,
}

impl VaeDecoder {
    /// Reads the folder `vae` of a pipeline. No weight is read yet, and none of the encoder ever.
    pub fn load(folder: &Path, runtime: &Runtime) -> Result<VaeDecoder, DiffusionError> {
        let config = VaeConfig::read(&folder.join("config.json"))?;
        let stored = Stored::new(Checkpoint::open_network(folder)?, DESCRIBED_BY);
        let older = stored.has("decoder.mid_block.attentions.0.query.weight");
        Ok(VaeDecoder { config, parts: Component::new(stored, runtime), older })
    }

    /// What its file says.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// Pictures `[N, 3, H, W]`, from -1 to 1, of latents `[N, C, h, w]` that are scaled as the U-Net has them.
    pub fn run(&mut self, latents: &[f32], dims: [usize; 4]) -> Result<Vec<f32>, DiffusionError> {
        let [n, c, h, w] = dims;
        let fits = |extent: usize| (1..=4096).contains(&extent);
        if n == 0 || n > 8 || c != self.config.latent || !fits(h) || !fits(w) {
            return Err(DiffusionError::Asked(format!(
                "latents are [{n}, {c}, {h}, {w}]; they must be [N, {}, H, W] with N up to 8",
                self.config.latent
            )));
        }
        check("latents", latents.len(), &dims)?;
        let VaeConfig { scaling, shift, .. } = self.config;
        let scaled: Vec<f32> = latents.iter().map(|v| (f64::from(*v) / scaling + shift) as f32).collect();
        let session = self.program([n, h, w])?;
        session.set(0, Feed::F32(&scaled), &dims)?;
        session.execute()?;
        let mut made = vec![0.0; session.output(0).len()];
        session.read(0, &mut made);
        match made.iter().all(|v| v.is_finite()) {
            true => Ok(made),
            false => Err(DiffusionError::Overflow { network: "the VAE", at: String::new() }),
        }
    }

    /// The picture of one picture's latents.
    pub fn picture(&mut self, latents: &[f32], [h, w]: [usize; 2]) -> Result<Picture, DiffusionError> {
        let made = self.run(latents, [1, self.config.latent, h, w])?;
        let factor = self.config.factor();
        let (width, height) = (w * factor, h * factor);
        let pixels = width * height;
        let byte = |v: f32| ((f64::from(v) / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round() as u8;
        let rgb = (0..3 * pixels).map(|i| byte(made[i % 3 * pixels + i / 3])).collect();
        Picture::new(width, height, rgb).map_err(|e| DiffusionError::Asked(e.to_string()))
    }

    /// The program for latents of `[N, H, W]`, compiled and loaded if it is not yet.
    pub fn program(&mut self, dims: [usize; 3]) -> Result<&mut Session, DiffusionError> {
        let VaeDecoder { config, parts, older } = self;
        parts.program(dims, ["decoder.", "post_quant_conv."], DESCRIBED_BY, |stored| {
            let [n, h, w] = dims;
            let shape =
                Shape::new(&[n, config.latent, h, w]).map_err(|e| DiffusionError::Asked(e.to_string()))?;
            Ok(vec![config.decoded(&Var::input(shape), *older, stored)?])
        })
    }
}

impl VaeConfig {
    /// The graph: of latents `[N, C, h, w]` that are not scaled any more, pictures `[N, 3, H, W]`. `older` says how attention is called.
    pub fn decoded(&self, latents: &Var, older: bool, weights: &mut dyn Weights) -> Result<Var, WeightError> {
        let mut layers = Layers { weights, groups: self.groups, eps: EPS };
        let mut h = latents.clone();
        if self.projected {
            h = layers.conv(&h, "post_quant_conv", self.latent, 1, 1)?;
        }
        let last = self.blocks.len() - 1;
        let width = self.blocks[last];
        h = layers.conv(&h, "decoder.conv_in", width, 3, 1)?;
        h = layers.residual(&h, "decoder.mid_block.resnets.0", width, None)?;
        if self.attends {
            h = attended(&h, "decoder.mid_block.attentions.0", &mut layers, older)?;
        }
        h = layers.residual(&h, "decoder.mid_block.resnets.1", width, None)?;
        for up in 0..=last {
            let (at, width) = (format!("decoder.up_blocks.{up}"), self.blocks[last - up]);
            for layer in 0..=self.layers {
                h = layers.residual(&h, &format!("{at}.resnets.{layer}"), width, None)?;
            }
            if up < last {
                h = layers.conv(&h.upsample(2), &format!("{at}.upsamplers.0.conv"), width, 3, 1)?;
            }
        }
        let h = layers.group_norm(&h, "decoder.conv_norm_out", EPS)?.silu();
        layers.conv(&h, "decoder.conv_out", 3, 3, 1)
    }
}

/// Attention of all pixels to each other, with one head, around which there is a residual.
fn attended(x: &Var, name: &str, layers: &mut Layers<'_>, older: bool) -> Result<Var, WeightError> {
    let normal = layers.group_norm(x, &format!("{name}.group_norm"), EPS)?;
    let pixels = rows(&normal);
    let names = NAMES[usize::from(older)].map(|part| format!("{name}.{part}"));
    let how = Heads { n: extent(x, 0), heads: 1, causal: false, upcast: false };
    Ok(x + image(&layers.attention([&pixels, &pixels], names, true, how)?, x))
}
