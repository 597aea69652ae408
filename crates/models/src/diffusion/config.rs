//! What the files beside the weights say of each network, checked.

use super::error::DiffusionError;
use crate::MOST_TEXT;
use aneforge_formats::read;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// More blocks, layers, channels and heads than any network has.
const MOST_BLOCKS: usize = 8;
const MOST_LAYERS: usize = 64;
const MOST_CHANNELS: usize = 16_384;

/// A file that describes something.
pub(super) struct Described {
    path: PathBuf,
    values: Map<String, Value>,
}

impl Described {
    /// Reads a file of JSON that must be there.
    pub(super) fn read(path: PathBuf) -> Result<Described, DiffusionError> {
        let bytes = read(&path, MOST_TEXT)?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(values)) => Ok(Described { path, values }),
            Ok(_) => Err(DiffusionError::Json { path, why: "it is no object".into() }),
            Err(e) => Err(DiffusionError::Json { path, why: e.to_string() }),
        }
    }

    /// What is said of `key`; null where nothing is.
    pub(super) fn get(&self, key: &str) -> &Value {
        self.values.get(key).unwrap_or(&Value::Null)
    }

    pub(super) fn fail(&self, why: impl Into<String>) -> DiffusionError {
        DiffusionError::Described { path: self.path.clone(), why: why.into() }
    }

    /// Fails where something is said that would make another network: pairs of a key and what it must be, which `null` is too.
    pub(super) fn only(&self, known: &[(&str, Value)]) -> Result<(), DiffusionError> {
        let same = |given: &Value, known: &Value| match (given.as_f64(), known.as_f64()) {
            (Some(given), Some(known)) => given == known,
            _ => given == known,
        };
        match known.iter().find(|(key, value)| !self.get(key).is_null() && !same(self.get(key), value)) {
            None => Ok(()),
            Some((key, value)) => {
                let given = self.get(key);
                Err(self.fail(format!(
                    "{key} is {given}, and only {value} is supported; use a pipeline of Stable Diffusion 1 or 2"
                )))
            }
        }
    }

    /// A number within limits.
    pub(super) fn number(
        &self,
        key: &str,
        default: Option<f64>,
        range: [f64; 2],
    ) -> Result<f64, DiffusionError> {
        let given = self.get(key);
        let number = if given.is_null() { default } else { given.as_f64() };
        number.filter(|v| (range[0]..=range[1]).contains(v)).ok_or_else(|| {
            self.fail(format!("{key} is {given}; it must be a number from {} to {}", range[0], range[1]))
        })
    }

    /// A whole number from 1 to `most`.
    pub(super) fn count(
        &self,
        key: &str,
        default: Option<usize>,
        most: usize,
    ) -> Result<usize, DiffusionError> {
        let given = self.get(key);
        let number = if given.is_null() { default } else { whole(given) };
        number
            .filter(|v| (1..=most).contains(v))
            .ok_or_else(|| self.fail(format!("{key} is {given}; it must be a whole number from 1 to {most}")))
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, DiffusionError> {
        match self.get(key) {
            Value::Null => Ok(default),
            Value::Bool(flag) => Ok(*flag),
            given => Err(self.fail(format!("{key} is {given}; it must be true or false"))),
        }
    }

    /// One of these words.
    pub(super) fn word<T: Copy>(
        &self,
        key: &str,
        default: T,
        words: &[(&str, T)],
    ) -> Result<T, DiffusionError> {
        let given = self.get(key);
        if given.is_null() {
            return Ok(default);
        }
        let found = words.iter().find(|(word, _)| given.as_str() == Some(word));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.fail(format!("{key} is {given}; {} are known", known.join(", ")))
        })
    }

    /// As many whole numbers as there are blocks, of a list or of one number for all.
    fn each(
        &self,
        key: &str,
        default: usize,
        blocks: usize,
        most: usize,
    ) -> Result<Vec<usize>, DiffusionError> {
        let given = self.get(key);
        let numbers = match given {
            Value::Null => Some(vec![default; blocks]),
            Value::Array(list) => list.iter().map(whole).collect(),
            one => whole(one).map(|one| vec![one; blocks]),
        };
        numbers.filter(|all| all.len() == blocks && all.iter().all(|v| (1..=most).contains(v))).ok_or_else(
            || {
                self.fail(format!(
                    "{key} is {given}; it must be a whole number from 1 to {most}, or {blocks} of them"
                ))
            },
        )
    }

    /// The channels of each block, which divide into groups.
    fn channels(&self, groups: usize) -> Result<Vec<usize>, DiffusionError> {
        let given = self.get("block_out_channels");
        let all: Option<Vec<usize>> = given.as_array().and_then(|list| list.iter().map(whole).collect());
        let fits = |all: &Vec<usize>| {
            (1..=MOST_BLOCKS).contains(&all.len())
                && all.iter().all(|v| (1..=MOST_CHANNELS).contains(v) && v.is_multiple_of(groups))
        };
        all.filter(fits).ok_or_else(|| {
            self.fail(format!(
                "block_out_channels is {given}; it must be a list of 1 to {MOST_BLOCKS} multiples of norm_num_groups ({groups}), none above \
                 {MOST_CHANNELS}"
            ))
        })
    }

    /// Which of two types each block is of.
    fn types(
        &self,
        key: &str,
        blocks: usize,
        [with, without]: [&str; 2],
    ) -> Result<Vec<bool>, DiffusionError> {
        let given = self.get(key);
        let kind = |value: &Value| match value.as_str() {
            Some(name) if name == with => Some(true),
            Some(name) if name == without => Some(false),
            _ => None,
        };
        let all: Option<Vec<bool>> = given.as_array().and_then(|list| list.iter().map(kind).collect());
        all.filter(|all| all.len() == blocks).ok_or_else(|| {
            self.fail(format!("{key} is {given}; it must name {blocks} blocks, of {with} and {without}"))
        })
    }
}

fn whole(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok())
}

/// What `unet/config.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct UNetConfig {
    /// Channels of what it takes and of what it gives.
    pub channels: usize,
    /// Rows and columns that it is trained with.
    pub sample: usize,
    /// Channels of each block.
    pub blocks: Vec<usize>,
    /// Which blocks on the way down, and which on the way up, attend to the text.
    pub attends: [Vec<bool>; 2],
    /// Residual layers of each block on the way down.
    pub layers: Vec<usize>,
    /// Transformer layers behind each residual layer of a block.
    pub depth: Vec<usize>,
    /// Heads of each block. The files call them `attention_head_dim`.
    pub heads: Vec<usize>,
    /// Components of a state of the text.
    pub context: usize,
    /// Groups of the norms.
    pub groups: usize,
    /// What the norms of residual layers add to variances; those before transformers add 1e-6.
    pub eps: f64,
    /// Whether the projections around transformers are stored as matrices.
    pub linear: bool,
    /// Whether scores of attention are too large for half precision before they are scaled.
    pub upcast: bool,
    /// Whether cosines stand before sines in the embedding of a time.
    pub flip: bool,
    /// What is taken from the number of frequencies.
    pub shift: f64,
}

/// Fails where a U-Net has what those of Stable Diffusion 1 and 2 have not.
fn only_unets(file: &Described) -> Result<(), DiffusionError> {
    let (no, one, three) = (Value::Bool(false), Value::from(1), Value::from(3));
    file.only(&[
        ("_class_name", "UNet2DConditionModel".into()),
        ("mid_block_type", "UNetMidBlock2DCrossAttn".into()),
        ("act_fn", "silu".into()),
        ("resnet_time_scale_shift", "default".into()),
        ("time_embedding_type", "positional".into()),
        ("attention_type", "default".into()),
        ("center_input_sample", no.clone()),
        ("only_cross_attention", no.clone()),
        ("mid_block_only_cross_attention", no.clone()),
        ("dual_cross_attention", no.clone()),
        ("resnet_skip_time_act", no.clone()),
        ("class_embeddings_concat", no),
        ("downsample_padding", one.clone()),
        ("mid_block_scale_factor", one.clone()),
        ("resnet_out_scale_factor", one),
        ("conv_in_kernel", three.clone()),
        ("conv_out_kernel", three),
    ])?;
    let absent = [
        "addition_embed_type",
        "class_embed_type",
        "num_class_embeds",
        "encoder_hid_dim",
        "encoder_hid_dim_type",
        "time_embedding_dim",
        "time_embedding_act_fn",
        "timestep_post_act",
        "time_cond_proj_dim",
        "cross_attention_norm",
        "reverse_transformer_layers_per_block",
        "num_attention_heads",
    ];
    file.only(&absent.map(|key| (key, Value::Null)))
}

impl UNetConfig {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<UNetConfig, DiffusionError> {
        let file = Described::read(path.to_owned())?;
        only_unets(&file)?;
        let groups = file.count("norm_num_groups", Some(32), MOST_CHANNELS)?;
        let blocks = file.channels(groups)?;
        let n = blocks.len();
        let heads = file.each("attention_head_dim", 8, n, MOST_CHANNELS)?;
        if let Some((heads, width)) =
            heads.iter().zip(&blocks).find(|(heads, width)| !width.is_multiple_of(**heads))
        {
            return Err(file.fail(format!("attention_head_dim, which is the number of heads, has {heads} for {width} channels; it must divide them")));
        }
        let down = file.types("down_block_types", n, ["CrossAttnDownBlock2D", "DownBlock2D"])?;
        let up = file.types("up_block_types", n, ["CrossAttnUpBlock2D", "UpBlock2D"])?;
        let channels = file.count("in_channels", Some(4), MOST_CHANNELS)?;
        if file.count("out_channels", Some(4), MOST_CHANNELS)? != channels {
            return Err(file.fail(format!("in_channels is {channels} and out_channels is not; use a pipeline that draws from texts alone")));
        }
        Ok(UNetConfig {
            channels,
            sample: file.count("sample_size", Some(64), MOST_CHANNELS)?,
            attends: [down, up],
            layers: file.each("layers_per_block", 2, n, MOST_LAYERS)?,
            depth: file.each("transformer_layers_per_block", 1, n, MOST_LAYERS)?,
            heads,
            context: file.count("cross_attention_dim", Some(1280), MOST_CHANNELS)?,
            groups,
            eps: file.number("norm_eps", Some(1e-5), [0.0, 1.0])?,
            linear: file.flag("use_linear_projection", false)?,
            upcast: file.flag("upcast_attention", false)?,
            flip: file.flag("flip_sin_to_cos", true)?,
            shift: file.number("freq_shift", Some(0.0), [0.0, 1.0])?,
            blocks,
        })
    }

    /// Components of the embedding of a time.
    pub fn time(&self) -> usize {
        4 * self.blocks[0]
    }

    /// What rows and columns must be multiples of.
    pub fn step(&self) -> usize {
        1 << (self.blocks.len() - 1)
    }
}

/// What `vae/config.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct VaeConfig {
    /// Channels of what it takes.
    pub latent: usize,
    /// Channels of each block of the encoder; the decoder goes through them backwards.
    pub blocks: Vec<usize>,
    /// Residual layers of each block of the encoder; the decoder has one more.
    pub layers: usize,
    /// Groups of the norms.
    pub groups: usize,
    /// What latents were multiplied with.
    pub scaling: f64,
    /// What was taken from latents before.
    pub shift: f64,
    /// Whether latents go through a product of their own.
    pub projected: bool,
    /// Whether the middle has attention.
    pub attends: bool,
}

impl VaeConfig {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<VaeConfig, DiffusionError> {
        let file = Described::read(path.to_owned())?;
        file.only(&[
            ("_class_name", "AutoencoderKL".into()),
            ("act_fn", "silu".into()),
            ("out_channels", 3.into()),
            ("latents_mean", Value::Null),
            ("latents_std", Value::Null),
        ])?;
        let groups = file.count("norm_num_groups", Some(32), MOST_CHANNELS)?;
        let blocks = file.channels(groups)?;
        if file.types("up_block_types", blocks.len(), ["UpDecoderBlock2D", ""])?.contains(&false) {
            return Err(file.fail("up_block_types must all be UpDecoderBlock2D"));
        }
        Ok(VaeConfig {
            latent: file.count("latent_channels", Some(4), MOST_CHANNELS)?,
            layers: file.count("layers_per_block", Some(1), MOST_LAYERS)?,
            groups,
            scaling: file.number("scaling_factor", Some(0.18215), [1e-6, 1e6])?,
            shift: file.number("shift_factor", Some(0.0), [-1e6, 1e6])?,
            projected: file.flag("use_post_quant_conv", true)?,
            attends: file.flag("mid_block_add_attention", true)?,
            blocks,
        })
    }

    /// Rows and columns of the picture for each of the latents.
    pub fn factor(&self) -> usize {
        1 << (self.blocks.len() - 1)
    }
}

/// The function between the halves of a feed-forward part of the text encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// By the normal distribution.
    Gelu,
    /// By its approximation with a hyperbolic tangent.
    GeluTanh,
    /// `x sigmoid(1.702 x)`.
    QuickGelu,
}

/// What `text_encoder/config.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Components of a state.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of each.
    pub heads: usize,
    /// Components between the halves of a feed-forward part.
    pub inner: usize,
    /// Tokens of a text, to which each is padded.
    pub positions: usize,
    /// Different tokens.
    pub words: usize,
    /// What stands in a feed-forward part.
    pub activation: Activation,
    /// What norms add to variances.
    pub eps: f64,
}

impl TextConfig {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<TextConfig, DiffusionError> {
        let file = Described::read(path.to_owned())?;
        file.only(&[("model_type", "clip_text_model".into())])?;
        let width = file.count("hidden_size", Some(512), MOST_CHANNELS)?;
        let heads = file.count("num_attention_heads", Some(8), width)?;
        if !width.is_multiple_of(heads) {
            return Err(file.fail(format!(
                "num_attention_heads is {heads}; it must divide hidden_size, which is {width}"
            )));
        }
        let functions = [
            ("quick_gelu", Activation::QuickGelu),
            ("gelu", Activation::Gelu),
            ("gelu_new", Activation::GeluTanh),
            ("gelu_pytorch_tanh", Activation::GeluTanh),
        ];
        Ok(TextConfig {
            width,
            layers: file.count("num_hidden_layers", Some(12), MOST_LAYERS)?,
            heads,
            inner: file.count("intermediate_size", Some(2048), 4 * MOST_CHANNELS)?,
            positions: file.count("max_position_embeddings", Some(77), MOST_CHANNELS)?,
            words: file.count("vocab_size", Some(49_408), 1 << 24)?,
            activation: file.word("hidden_act", Activation::QuickGelu, &functions)?,
            eps: file.number("layer_norm_eps", Some(1e-5), [0.0, 1.0])?,
        })
    }
}
