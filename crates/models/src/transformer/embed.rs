//! What the first layer takes: words, places and types of tokens, looked up and normalised on the host.

use super::layers::{Embeddings, Transformer};
use super::tokens::Tokens;
use aneforge_tensor::Tensor;

impl Transformer {
    /// Writes a row for each token, and for those that fill up. In single precision, but for sums, which are in double.
    ///
    /// `room` is for a row.
    ///
    /// # Panics
    /// If a token is beyond its table, or there are more than have places.
    pub(crate) fn embed(&self, tokens: &Tokens, room: &mut Vec<f32>, out: &mut [f32]) {
        let Embeddings { words, positions, kinds, gamma, beta } = &self.embeddings;
        let (d, config) = (self.config.hidden, &self.config);
        room.resize(d, 0.0);
        let mut add = |table: &Tensor, row: usize, out: &mut [f32]| {
            table.read_f32(row * d, room);
            out.iter_mut().zip(&*room).for_each(|(sum, v)| *sum += v);
        };
        let mut place = config.first;
        for (index, row) in out.chunks_exact_mut(d).enumerate() {
            let Some(&token) = tokens.ids.get(index) else {
                // Nothing reads it; it only has to be finite.
                row.fill(0.0);
                continue;
            };
            words.read_f32(token as usize * d, row);
            if let Some(kinds) = kinds {
                let kind = tokens.kinds.get(index).map_or(0, |&kind| kind as usize);
                // Where there is a single type, tokenizers count parts all the same.
                add(kinds, if kind < kinds.shape()[0] { kind } else { 0 }, row);
            }
            if let Some(positions) = positions {
                let filler = config.skips_pad && token == config.pad;
                add(positions, if filler { config.pad as usize } else { place }, row);
                place += usize::from(!filler);
            }
            let mean = (row.iter().map(|v| f64::from(*v)).sum::<f64>() / d as f64) as f32;
            let variance = row.iter().map(|v| f64::from(*v - mean).powi(2)).sum::<f64>() / d as f64;
            let scale = (1.0 / (variance + config.eps).sqrt()) as f32;
            for ((v, gamma), beta) in row.iter_mut().zip(gamma).zip(beta) {
                *v = (*v - mean) * scale * gamma + beta;
            }
        }
    }
}
