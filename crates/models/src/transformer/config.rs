//! What `config.json` says of a transformer, checked.

use super::family::{Biases, Family, Names, Order, Places};
use crate::MOST_TEXT;
use crate::encoder::LoadError;
use aneforge_formats::read;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::Path;

/// The function of a feed-forward layer, or of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    Gelu,
    GeluTanh,
    Relu,
    Silu,
}

/// Names of one size in the families, the usual one first.
const SAME: &[(&str, &[&str])] = &[
    ("hidden_size", &["dim", "n_embd"]),
    ("num_attention_heads", &["n_heads", "n_head"]),
    ("num_hidden_layers", &["n_layers", "n_layer"]),
    ("intermediate_size", &["hidden_dim", "n_inner"]),
    ("max_position_embeddings", &["n_positions"]),
    ("layer_norm_eps", &["norm_eps", "layer_norm_epsilon"]),
    ("hidden_act", &["activation", "hidden_activation", "activation_function"]),
    ("rope_theta", &["global_rope_theta", "rotary_emb_base"]),
];

/// What would make a model compute something else than this one does, where it is true or a number above 0.
const OTHERWISE: &[&str] = &[
    "is_decoder",
    "prenorm",
    "use_rms_norm",
    "parallel_block",
    "rotary_emb_interleaved",
    "logn_attention_scale",
    "moe_every_n_layers",
];

#[derive(Deserialize)]
struct Raw {
    hidden_size: usize,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    max_trained_positions: Option<usize>,
    layer_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    position_embedding_type: Option<String>,
    pad_token_id: Option<u32>,
    type_vocab_size: Option<usize>,
    relative_attention_num_buckets: Option<usize>,
    attention_bias: Option<bool>,
    qkv_proj_bias: Option<bool>,
    mlp_bias: Option<bool>,
    mlp_fc1_bias: Option<bool>,
    mlp_fc2_bias: Option<bool>,
    norm_bias: Option<bool>,
    rope_theta: Option<f64>,
    local_rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<Map<String, Value>>,
    rotary_emb_fraction: Option<f64>,
    local_attention: Option<usize>,
    global_attn_every_n_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
}

/// A transformer that can be built.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) names: &'static Names,
    pub(crate) order: Order,
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) layers: usize,
    pub(crate) intermediate: usize,
    /// The most tokens that have a place.
    pub(crate) positions: usize,
    /// Where the first token stands in the table of places.
    pub(crate) first: usize,
    /// Whether tokens that fill up have no place of their own.
    pub(crate) skips_pad: bool,
    /// Whether there is a table by the type of a token.
    pub(crate) kinds: bool,
    /// Rows of the table by the distance of query and key.
    pub(crate) distances: usize,
    /// The bases of the angles' periods, of layers that see all and of those that see near tokens.
    pub(crate) turned: Option<[f64; 2]>,
    /// For each layer, how far its attention reaches to either side, if not to all.
    pub(crate) reach: Vec<Option<usize>>,
    pub(crate) biases: Biases,
    pub(crate) eps: f64,
    pub(crate) activation: Activation,
    pub(crate) pad: u32,
}

/// Far more than the sizes of any encoder, and so few that products of three do not overflow.
const LARGEST: usize = 1 << 20;

impl Config {
    /// Reads it, and beside it the file as it is.
    pub(crate) fn read(path: &Path) -> Result<(Config, Map<String, Value>), LoadError> {
        let mut file: Map<String, Value> = json(path)?;
        let fail = |why| LoadError::Config { path: path.to_owned(), why };
        let named = file.get("model_type").and_then(Value::as_str).unwrap_or("bert");
        let family = Family::of(named).ok_or_else(|| {
            fail(format!(
                "model type `{named}` is not supported; encoders are of the types {}",
                Family::known()
            ))
        })?;
        for (name, others) in SAME {
            let given = |key: &str| file.get(key).filter(|value| !value.is_null()).cloned();
            if let (None, Some(value)) = (given(name), others.iter().find_map(|key| given(key))) {
                file.insert((*name).to_owned(), value);
            }
        }
        let raw: Raw = serde_json::from_value(Value::Object(file.clone()))
            .map_err(|e| LoadError::Json { path: path.to_owned(), why: e.to_string() })?;
        let on =
            |key: &&&str| file.get(**key).is_some_and(|v| *v == true || v.as_u64().is_some_and(|n| n > 0));
        if let Some(key) = OTHERWISE.iter().find(on) {
            return Err(fail(format!("{key} is {}, which is not supported; name another model", file[*key])));
        }
        Ok((raw.check(family).map_err(fail)?, file))
    }
}

impl Raw {
    fn check(self, family: &'static Family) -> Result<Config, String> {
        self.sizes()?;
        let (hidden, heads, layers) = (self.hidden_size, self.num_attention_heads, self.num_hidden_layers);
        if hidden % heads != 0 {
            return Err(format!("hidden_size {hidden} does not divide into {heads} attention heads"));
        }
        let kinds = ["absolute", "rope", "rotary"];
        if let Some(kind) = self.position_embedding_type.as_deref().filter(|k| !kinds.contains(k)) {
            return Err(format!("position_embedding_type `{kind}` is not supported; only `absolute` is"));
        }
        let turned = self.turned(family.places, hidden / heads)?;
        let pad = self.pad_token_id.unwrap_or(family.pad);
        let after = matches!(family.places, Places::AfterPad | Places::AfterPadAndDistance);
        let first = if after { pad as usize + 1 } else { 0 };
        let trained = self.max_trained_positions.unwrap_or(usize::MAX).max(1);
        let positions = self.max_position_embeddings.saturating_sub(first).min(trained);
        if positions == 0 {
            let most = self.max_position_embeddings;
            return Err(format!("max_position_embeddings {most} leaves no place after pad_token_id {pad}"));
        }
        let eps = self.layer_norm_eps.unwrap_or(family.eps);
        if !(0.0..=1.0).contains(&eps) {
            return Err(format!("layer_norm_eps {eps:e} is not a small positive number"));
        }
        let distances = match family.places {
            Places::AfterPadAndDistance => self.relative_attention_num_buckets.unwrap_or(32),
            _ => 0,
        };
        if distances % 4 != 0 || distances > LARGEST {
            return Err(format!(
                "relative_attention_num_buckets {distances} is no multiple of 4 up to {LARGEST}"
            ));
        }
        let given = family.biases;
        Ok(Config {
            names: &family.names,
            order: family.order,
            hidden,
            heads,
            layers,
            intermediate: self.intermediate_size,
            positions,
            first,
            skips_pad: after,
            kinds: family.names.kinds.is_some() && self.type_vocab_size != Some(0),
            distances,
            turned,
            reach: self.reach(layers, family.order)?,
            biases: Biases {
                attention: self.attention_bias.or(self.qkv_proj_bias).unwrap_or(given.attention),
                up: self.mlp_bias.or(self.mlp_fc1_bias).unwrap_or(given.up),
                down: self.mlp_bias.or(self.mlp_fc2_bias).unwrap_or(given.down),
                norm: self.norm_bias.unwrap_or(given.norm),
            },
            eps,
            activation: Activation::named(self.hidden_act.as_deref().unwrap_or(family.activation))?,
            pad,
        })
    }

    fn sizes(&self) -> Result<(), String> {
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_hidden_layers", self.num_hidden_layers),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        if let Some((name, _)) = sizes.into_iter().find(|&(_, size)| size == 0) {
            return Err(format!("{name} is 0; it must be at least 1"));
        }
        match sizes.into_iter().find(|&(_, size)| size > LARGEST) {
            Some((name, size)) => {
                Err(format!("{name} is {size}; more than {LARGEST} is no encoder that could be loaded"))
            }
            None => Ok(()),
        }
    }

    /// The bases of the angles' periods, if queries and keys are turned.
    fn turned(&self, places: Places, width: usize) -> Result<Option<[f64; 2]>, String> {
        let Places::Turned { theta, local } = places else { return Ok(None) };
        let scaled = |value: &Value| {
            let kind = value.get("rope_type").or_else(|| value.get("type")).and_then(Value::as_str);
            kind.is_some_and(|kind| kind != "default")
        };
        let parameters = self.rope_parameters.clone().map(Value::Object).unwrap_or_default();
        let of = |layers: &str| parameters.get(layers).unwrap_or(&parameters).clone();
        let [all, near] = [of("full_attention"), of("sliding_attention")];
        if self.rope_scaling.iter().chain([&all, &near]).any(scaled) {
            return Err("its rotary positions are scaled, which is not supported; name another model".into());
        }
        if self.rotary_emb_fraction.is_some_and(|part| part != 1.0) || !width.is_multiple_of(2) {
            return Err("only a part of each head has rotary positions, which is not supported".into());
        }
        let base = |given: &Value, older: Option<f64>, usual: f64| {
            given.get("rope_theta").and_then(Value::as_f64).or(older).unwrap_or(usual)
        };
        let local = if theta == local { self.rope_theta.unwrap_or(local) } else { local };
        let bases = [base(&all, self.rope_theta, theta), base(&near, self.local_rope_theta, local)];
        match bases.into_iter().find(|base| !(base.is_finite() && *base > 1.0)) {
            Some(base) => Err(format!("rope_theta {base} is not above 1")),
            None => Ok(Some(bases)),
        }
    }

    /// How far each layer's attention reaches.
    fn reach(&self, layers: usize, order: Order) -> Result<Vec<Option<usize>>, String> {
        let near = (order == Order::Before).then(|| self.local_attention.unwrap_or(128) / 2);
        let every = self.global_attn_every_n_layers.unwrap_or(3).max(1);
        let Some(types) = &self.layer_types else {
            return Ok((0..layers).map(|layer| near.filter(|_| layer % every != 0)).collect());
        };
        if types.len() != layers {
            return Err(format!("layer_types has {} entries for {layers} layers", types.len()));
        }
        let of = |kind: &String| match kind.as_str() {
            "full_attention" => Ok(None),
            "sliding_attention" => Ok(near),
            other => Err(format!(
                "layer type `{other}` is not supported; full_attention and sliding_attention are"
            )),
        };
        types.iter().map(of).collect()
    }
}

impl Activation {
    pub(crate) fn named(name: &str) -> Result<Activation, String> {
        match name {
            "gelu" | "geglu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            "silu" | "swish" | "swiglu" => Ok(Activation::Silu),
            other => {
                let known = "gelu, gelu_new, gelu_pytorch_tanh, relu, silu and swish";
                Err(format!("hidden_act `{other}` is not supported; {known} are"))
            }
        }
    }
}

impl Activation {
    /// The function of a number.
    pub(crate) fn of(self, x: f64) -> f64 {
        match self {
            Activation::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
            Activation::GeluTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                0.5 * x * (1.0 + inner.tanh())
            }
            Activation::Relu => x.max(0.0),
            Activation::Silu => x / (1.0 + (-x).exp()),
        }
    }
}

/// The error function, to 1e-12 or better: its series near zero, and beyond the continued fraction of its complement.
fn erf(x: f64) -> f64 {
    let at = x.abs();
    let value = if at < 3.0 {
        let (mut term, mut sum) = (at, at);
        for n in 1..80 {
            term *= -at * at / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let fraction = (1..60).rev().fold(at, |below, n| at + f64::from(n) / 2.0 / below);
        1.0 - (-at * at).exp() / (fraction * std::f64::consts::PI.sqrt())
    };
    value.copysign(x)
}

/// The contents of a file that need not be there.
pub(crate) fn optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, LoadError> {
    if path.exists() { json(path).map(Some) } else { Ok(None) }
}

pub(crate) fn json<T: DeserializeOwned>(path: &Path) -> Result<T, LoadError> {
    let bytes = read(path, MOST_TEXT)?;
    serde_json::from_slice(&bytes).map_err(|e| LoadError::Json { path: path.to_owned(), why: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_heads_have_known_values() {
        // From `math.erf` and `math.tanh` of Python.
        for (x, want) in
            [(0.5, 0.520_499_877_813_046_5), (2.9, 0.999_958_902_121_900_5), (3.5, 0.999_999_256_901_627_6)]
        {
            assert!((erf(x) - want).abs() < 1e-12 && (erf(-x) + want).abs() < 1e-12, "{x}");
        }
        assert_eq!((erf(0.0), erf(40.0)), (0.0, 1.0));
        let at_one = [
            (Activation::Gelu, 0.841_344_746_068_543),
            (Activation::GeluTanh, 0.841_191_990_608_276_1),
            (Activation::Silu, 0.731_058_578_630_004_9),
            (Activation::Relu, 1.0),
        ];
        for (function, want) in at_one {
            assert!((function.of(1.0) - want).abs() < 1e-9, "{function:?}");
        }
    }
}
