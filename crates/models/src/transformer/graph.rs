//! The layers of a transformer as one graph.

use super::MADE_HERE;
use super::config::{Activation, Config};
use super::family::Order;
use super::layers::{Dense, Layer, Norm, Transformer, shape};
use aneforge::ir::attr::Real;
use aneforge::ir::ops::attention::{Attention, HIDDEN};
use aneforge::ir::var::Var;
use aneforge::nn::{attention_tiles, gelu_tanh};
use aneforge_tensor::{Tensor, f16};

/// What is the same for all layers of a program.
struct Common<'a> {
    config: &'a Config,
    batch: usize,
    length: usize,
    /// Added to the scores of all layers, and of those whose attention is local.
    masks: [Var; 2],
    /// By what queries and keys are turned, in layers that see all and in those that see near tokens.
    turns: Option<[[Var; 2]; 2]>,
}

impl Transformer {
    /// `batch` texts of `length` tokens: embedded tokens `[batch * length, D]` and a mask `[batch, 1, 1, length]` to
    /// states `[batch * length, D]`.
    pub(crate) fn graph(&self, batch: usize, length: usize) -> Var {
        MADE_HERE.scope(|| self.states(batch, length))
    }

    fn states(&self, batch: usize, length: usize) -> Var {
        let config = &self.config;
        let mut h = Var::input(shape(&[batch * length, config.hidden]));
        let mut mask = Var::input(shape(&[batch, 1, 1, length]));
        if let Some(table) = &self.distances {
            mask = mask + by_distance(table, length);
        }
        let near = config.reach.iter().flatten().find(|&&reach| reach + 1 < length);
        let masks = [mask.clone(), near.map_or_else(|| mask.clone(), |&reach| &mask + band(length, reach))];
        let turns =
            config.turned.map(|bases| bases.map(|base| turns(base, length, config.hidden / config.heads)));
        let common = Common { config, batch, length, masks, turns };
        for (layer, reach) in self.layers.iter().zip(&config.reach) {
            h = common.layer(&h, layer, reach.is_some());
        }
        match &self.last {
            Some(norm) => normed(&h, norm, config.eps),
            None => h,
        }
    }
}

impl Common<'_> {
    fn layer(&self, h: &Var, layer: &Layer, local: bool) -> Var {
        let eps = self.config.eps;
        match self.config.order {
            Order::After => {
                let attended = h + self.attend(h, layer, local);
                let h = layer
                    .attention_norm
                    .as_ref()
                    .map_or_else(|| attended.clone(), |norm| normed(&attended, norm, eps));
                normed(&(&h + self.feed(&h, layer)), &layer.norm, eps)
            }
            Order::Before => {
                let normal =
                    layer.attention_norm.as_ref().map_or_else(|| h.clone(), |norm| normed(h, norm, eps));
                let h = h + self.attend(&normal, layer, local);
                let normal = normed(&h, &layer.norm, eps);
                h + self.feed(&normal, layer)
            }
        }
    }

    fn attend(&self, h: &Var, layer: &Layer, local: bool) -> Var {
        let Common { config, batch, length, masks, turns } = self;
        let width = config.hidden / config.heads;
        let apart = [*batch, *length, config.heads, width].map(|extent| extent as i64);
        let [query, key, value] =
            layer.projections.each_ref().map(|by| dense(h, by).reshape(&apart).transpose(&[0, 2, 1, 3]));
        let turned = |x: Var| match turns {
            Some(turns) => turn(&x, &turns[usize::from(local)]),
            None => x,
        };
        let scale = Real((width as f64).powf(-0.5));
        let attention =
            Attention { scale, causal: false, parts: attention_tiles(*length) as i64, layer: false };
        let mask = &masks[usize::from(local)];
        let merged = Var::apply(attention, &[&turned(query), &turned(key), &value, mask]);
        let rows = (batch * length) as i64;
        dense(&merged.transpose(&[0, 2, 1, 3]).reshape(&[rows, config.hidden as i64]), &layer.attended)
    }

    fn feed(&self, h: &Var, layer: &Layer) -> Var {
        let inner = activated(&dense(h, &layer.up), self.config.activation);
        let inner = match &layer.gate {
            Some(gate) => inner * dense(h, gate),
            None => inner,
        };
        dense(&inner, &layer.down)
    }
}

fn dense(x: &Var, by: &Dense) -> Var {
    x.linear(&by.weight, by.bias.as_ref())
}

fn normed(x: &Var, norm: &Norm, eps: f64) -> Var {
    x.layer_norm(&norm.gamma, &norm.beta, eps)
}

fn activated(x: &Var, by: Activation) -> Var {
    match by {
        Activation::Gelu => x.gelu(),
        Activation::GeluTanh => gelu_tanh(x),
        Activation::Relu => x.relu(),
        Activation::Silu => x.silu(),
    }
}

/// A constant of half precision, by its elements' places.
fn constant(dims: &[usize], at: impl Fn(usize) -> f64) -> Var {
    let shape = shape(dims);
    let values: Vec<f16> = (0..shape.count()).map(|i| f16::from_f64(at(i))).collect();
    Var::constant(Tensor::from_slice(shape, &values).expect("invariant: one value per element"))
}

/// Hides keys that are farther than `reach` from their query.
fn band(length: usize, reach: usize) -> Var {
    let far = |i: usize| (i / length).abs_diff(i % length) > reach;
    constant(&[1, 1, length, length], |i| if far(i) { HIDDEN } else { 0.0 })
}

/// What scores get by the distance of query and key, for each head: a row of the table for every near distance, and for
/// far ones rows for wider and wider ranges, half of them for keys behind the query. The rule is T5's.
fn by_distance(table: &Tensor, length: usize) -> Var {
    /// From here on all are the same.
    const FARTHEST: f64 = 128.0;
    let [rows, heads] = [table.shape()[0], table.shape()[1]];
    let values = table.to_f32();
    let (half, exact) = (rows / 2, rows / 4);
    let row = |query: usize, key: usize| {
        let far = query.abs_diff(key);
        let bucket = if far < exact {
            far
        } else {
            // In single precision, as the model was trained.
            let wider = (far as f32 / exact as f32).ln() / (FARTHEST / exact as f64).ln() as f32;
            (exact + (wider * (half - exact) as f32) as usize).min(half - 1)
        };
        bucket + if key > query { half } else { 0 }
    };
    constant(&[1, heads, length, length], |i| {
        let (head, pair) = (i / (length * length), i % (length * length));
        f64::from(values[row(pair / length, pair % length) * heads + head])
    })
}

/// Cosines and sines, `[1, 1, length, width]`, of angles that grow with the place: each for two elements of a head.
fn turns(base: f64, length: usize, width: usize) -> [Var; 2] {
    let half = width / 2;
    let angle = move |i: usize| {
        let (place, pair) = (i / width, i % width % half);
        place as f64 * base.powf(-(pair as f64) / half as f64)
    };
    let dims = [1, 1, length, width];
    [constant(&dims, move |i| angle(i).cos()), constant(&dims, move |i| angle(i).sin())]
}

/// Turns pairs of elements, which are half a head apart.
fn turn(x: &Var, [cos, sin]: &[Var; 2]) -> Var {
    let halves = x.split(2, -1);
    let across = Var::concat(&[&halves[1].muls(-1.0), &halves[0]], -1);
    x * cos + across * sin
}
