//! The layers of transformers whose norms stand before their parts, as networks that look at pictures have them.

use crate::weights::{Stored, WeightError};
use aneforge::Var;
use aneforge::ir::attr::Real;
use aneforge::ir::ops::attention::Attention;
use aneforge::nn::{attention_tiles, gelu_tanh};
use serde_json::Value;

/// What a library calls the weights of a layer; they follow what precedes it, `{}` being its number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) layer: &'static str,
    pub(super) projections: Projections,
    pub(super) attended: &'static str,
    pub(super) attention_norm: &'static str,
    pub(super) up: &'static str,
    pub(super) down: &'static str,
    pub(super) feed_norm: &'static str,
    /// What scales the results of attention and of the feed-forward part.
    pub(super) scales: [&'static str; 2],
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Projections {
    /// Queries, keys and values in one.
    One(&'static str),
    Three([&'static str; 3]),
}

/// The function between the halves of a feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    Gelu,
    GeluTanh,
    /// `x sigmoid(1.702 x)`.
    QuickGelu,
}

impl Activation {
    /// The function of this name in a description; `None` if it is none that is known.
    pub(super) fn named(value: &Value) -> Option<Activation> {
        match value.as_str()? {
            "gelu" | "gelu_python" => Some(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Some(Activation::GeluTanh),
            "quick_gelu" => Some(Activation::QuickGelu),
            _ => None,
        }
    }

    pub(super) fn of(self, x: &Var) -> Var {
        match self {
            Activation::Gelu => x.gelu(),
            Activation::GeluTanh => gelu_tanh(x),
            Activation::QuickGelu => x * x.muls(1.702).sigmoid(),
        }
    }
}

/// Layers, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stack {
    pub(super) names: &'static Names,
    pub(super) layers: usize,
    pub(super) width: usize,
    pub(super) heads: usize,
    pub(super) inner: usize,
    /// Whether half of the inner part is a gate of the other half.
    pub(super) gated: bool,
    pub(super) scaled: bool,
    pub(super) activation: Activation,
    pub(super) eps: f64,
    /// Whether a token sees those before it alone.
    pub(super) causal: bool,
}

impl Stack {
    /// The same with what `config.json` says, or why that cannot be followed.
    pub(super) fn described_by(self, config: &Value) -> Result<Stack, String> {
        let (eps, width) = (&config["layer_norm_eps"], self.width);
        // The second is timm's, where it differs from what the network's name says.
        let named = [&config["num_attention_heads"], &config["model_args"]["num_heads"]];
        let heads = named.into_iter().find(|value| !value.is_null()).unwrap_or(&Value::Null);
        let number = if heads.is_null() { Some(self.heads) } else { number(heads) };
        let number = number.filter(|&heads| heads > 0 && width.is_multiple_of(heads)).ok_or_else(|| {
            format!("num_attention_heads is {heads} for a width of {width}; put the number of heads into config.json")
        })?;
        let added = if eps.is_null() { Some(self.eps) } else { eps.as_f64() };
        let added = added
            .filter(|eps| (0.0..=1.0).contains(eps))
            .ok_or_else(|| format!("layer_norm_eps is {eps}; it must be a number from 0 to 1"))?;
        let activation = match &config["hidden_act"] {
            // It is always the same one that a gate goes through.
            given if given.is_null() || self.gated => Some(self.activation),
            given => Activation::named(given),
        };
        let activation = activation.ok_or_else(|| {
            let given = &config["hidden_act"];
            format!("hidden_act is {given}; gelu, gelu_new, gelu_pytorch_tanh and quick_gelu are known")
        })?;
        Ok(Stack { heads: number, eps: added, activation, ..self })
    }

    /// What becomes of `n` rows of so many tokens, `[n * tokens, D]`.
    pub(super) fn build(&self, h: &Var, rows: [usize; 2], stored: &mut Stored) -> Result<Run, WeightError> {
        let mut run = Run { states: h.clone(), looks: None };
        for index in 0..self.layers {
            let at = self.names.layer.replace("{}", &index.to_string());
            run = Layer { stack: self, stored: &mut *stored, at }.build(&run.states, rows)?;
        }
        Ok(run)
    }

    /// The norm of this name.
    pub(super) fn normed(&self, x: &Var, name: &str, stored: &mut Stored) -> Result<Var, WeightError> {
        let mut of = |part: &str| stored.tensor(&format!("{name}.{part}"), &[self.width]).map(Var::constant);
        Ok(x.layer_norm(&of("weight")?, &of("bias")?, self.eps))
    }
}

/// What layers make.
pub(super) struct Run {
    pub(super) states: Var,
    /// How much the first token of each row looks at each token in the last layer, `[N, heads, tokens]`.
    pub(super) looks: Option<Var>,
}

/// How much of what a query `[N, heads, 1, w]` finds is from each key `[N, heads, tokens, w]`.
pub(super) fn looks(query: &Var, key: &Var) -> Var {
    let [n, heads, tokens, width] = std::array::from_fn(|axis| key.shape().dims()[axis] as i64);
    let scores = query.matmul_value(&key.transpose(&[0, 1, 3, 2])).muls((width as f64).powf(-0.5));
    scores.softmax(-1).reshape(&[n, heads, tokens])
}

fn number(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok())
}

/// How many heads networks of a width have where no file says so, 64 numbers wide but for the largest; 0 where that is not known.
pub(super) fn heads_of(width: usize) -> usize {
    match width {
        1152 | 1280 | 1408 | 1664 => 16,
        _ if width.is_multiple_of(64) => width / 64,
        _ => 0,
    }
}

/// Takes the weights of a layer, and builds it.
struct Layer<'a> {
    stack: &'a Stack,
    stored: &'a mut Stored,
    at: String,
}

impl Layer<'_> {
    fn dense(&mut self, x: &Var, name: &str, dims: [usize; 2]) -> Result<Var, WeightError> {
        let name = format!("{}{name}", self.at);
        let weight = self.stored.tensor(&format!("{name}.weight"), &dims)?;
        let bias = self.stored.tensor(&format!("{name}.bias"), &dims[..1])?;
        Ok(x.linear(&Var::constant(weight), Some(&Var::constant(bias))))
    }

    fn normed(&mut self, x: &Var, name: &str) -> Result<Var, WeightError> {
        self.stack.normed(x, &format!("{}{name}", self.at), self.stored)
    }

    fn scaled(&mut self, x: Var, which: usize) -> Result<Var, WeightError> {
        if !self.stack.scaled {
            return Ok(x);
        }
        let name = format!("{}{}", self.at, self.stack.names.scales[which]);
        Ok(x * Var::constant(self.stored.tensor(&name, &[self.stack.width])?))
    }

    fn build(mut self, h: &Var, rows: [usize; 2]) -> Result<Run, WeightError> {
        let names = self.stack.names;
        let normal = self.normed(h, names.attention_norm)?;
        let (attended, looks) = self.attended(&normal, rows)?;
        let h = h + self.scaled(attended, 0)?;
        let normal = self.normed(&h, names.feed_norm)?;
        let fed = self.fed(&normal)?;
        Ok(Run { states: &h + self.scaled(fed, 1)?, looks: Some(looks) })
    }

    fn attended(&mut self, x: &Var, [n, tokens]: [usize; 2]) -> Result<(Var, Var), WeightError> {
        let Stack { names, width: d, heads, causal, .. } = *self.stack;
        let width = d / heads;
        let apart = [n, tokens, heads, width].map(|extent| extent as i64);
        let projected = match names.projections {
            Projections::Three([query, key, value]) => {
                [self.dense(x, query, [d, d])?, self.dense(x, key, [d, d])?, self.dense(x, value, [d, d])?]
            }
            Projections::One(name) => {
                let all = self.dense(x, name, [3 * d, d])?;
                [0, 1, 2].map(|part| all.narrow(1, part * d, (part + 1) * d))
            }
        };
        let [query, key, value] = projected.map(|x| x.reshape(&apart).transpose(&[0, 2, 1, 3]));
        let scale = Real((width as f64).powf(-0.5));
        let attention = Attention { scale, causal, parts: attention_tiles(tokens) as i64, layer: false };
        let mixed = Var::apply(attention, &[&query, &key, &value]).transpose(&[0, 2, 1, 3]);
        let mixed = mixed.reshape(&[(n * tokens) as i64, d as i64]);
        Ok((self.dense(&mixed, names.attended, [d, d])?, looks(&query.narrow(2, 0, 1), &key)))
    }

    fn fed(&mut self, x: &Var) -> Result<Var, WeightError> {
        let Stack { names, width: d, inner, gated, activation, .. } = *self.stack;
        if gated {
            let halves = self.dense(x, "mlp.weights_in", [2 * inner, d])?.split(2, -1);
            return self.dense(&(halves[0].silu() * &halves[1]), "mlp.weights_out", [d, inner]);
        }
        let h = activation.of(&self.dense(x, names.up, [inner, d])?);
        self.dense(&h, names.down, [d, inner])
    }
}
