//! Codes of weights, chosen by what products with them become: second moments of what is multiplied, their factor, and
//! rounding that compensates the errors made before it.
//!
//! For rows `X` and a row `w` of a weight, what codes `q` change is `|X (w - q)|^2 = (w - q) H (w - q)'` with `H = X' X`. Codes
//! are chosen one after the other, each for the best that the errors before it leave, which is the rounding of GPTQ (arXiv
//! 2210.17323) as the nearest-plane algorithm (arXiv 2507.18553): with `H = L L'` no inverse is needed. Then single codes are
//! exchanged as long as that makes the sum smaller. All sums are in double precision and in one order, whatever the threads.

use crate::threads::Pool;
use half::f16;
use std::sync::{Mutex, PoisonError};

/// Rows of moments that one thread adds to at a time.
const BLOCK: usize = 32;
/// Rows of a weight that are worked on together.
const ROWS: usize = 8;
/// The largest code of a byte.
const LARGEST_CODE: f64 = 127.0;

/// What codes stand for.
#[derive(Clone, Copy, Debug)]
pub enum Codes<'a> {
    /// `-127..=127` times the scale of the row, rounded to half precision.
    Scaled(&'a [f32]),
    /// One of these values, in ascending order.
    Table(&'a [f32; 16]),
}

impl Codes<'_> {
    /// The code nearest to `value` in this row.
    #[must_use]
    pub fn nearest(&self, row: usize, value: f64) -> i8 {
        match self {
            Codes::Scaled(scales) => {
                (value / f64::from(scales[row])).round_ties_even().clamp(-LARGEST_CODE, LARGEST_CODE) as i8
            }
            Codes::Table(table) => {
                let above = |pair: &&[f32]| value > 0.5 * (f64::from(pair[0]) + f64::from(pair[1]));
                table.windows(2).filter(above).count() as i8
            }
        }
    }

    /// What a code of this row stands for.
    fn value(&self, row: usize, code: i8) -> f64 {
        match self {
            Codes::Scaled(scales) => f16::from_f32(f32::from(code) * scales[row]).to_f64(),
            Codes::Table(table) => f64::from(table[usize::from(code.unsigned_abs()) % 16]),
        }
    }
}

/// Adds the second moments of `rows`, of `columns` values each, to the lower triangle of `moments`.
///
/// # Panics
/// If `moments` is no square of `columns`, or `rows` ends within a row.
pub fn add_moments(pool: &Pool, rows: &[f32], columns: usize, moments: &mut [f64]) {
    assert!(moments.len() == columns * columns && rows.len().is_multiple_of(columns.max(1)));
    let blocks: Vec<Mutex<&mut [f64]>> =
        moments.chunks_mut((BLOCK * columns).max(1)).map(Mutex::new).collect();
    pool.for_each(blocks.len(), 1, &|block| {
        let mut sums = blocks[block].lock().unwrap_or_else(PoisonError::into_inner);
        for (at, sums) in sums.chunks_exact_mut(columns).enumerate() {
            let column = block * BLOCK + at;
            for row in rows.chunks_exact(columns).filter(|row| row[column] != 0.0) {
                let factor = f64::from(row[column]);
                let others = &row[..=column];
                sums.iter_mut().zip(others).for_each(|(sum, &other)| *sum += factor * f64::from(other));
            }
        }
    });
}

/// A sum of products in eight lanes.
fn dot(x: &[f64], y: &[f64]) -> f64 {
    let (mut lanes, whole) = ([0.0f64; 8], x.len().min(y.len()) / 8 * 8);
    for (x, y) in x[..whole].chunks_exact(8).zip(y[..whole].chunks_exact(8)) {
        for lane in 0..8 {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    let rest: f64 = x[whole..].iter().zip(&y[whole..]).map(|(x, y)| x * y).sum();
    lanes.iter().sum::<f64>() + rest
}

/// The moments of one weight's columns, prepared for choosing codes.
#[derive(Clone, Debug)]
pub struct Moments {
    columns: usize,
    /// All of `H`, symmetric, with what was added to its diagonal.
    full: Vec<f64>,
    /// What was added.
    damp: f64,
    /// The factor's rows, each divided by the diagonal of its column: what an error of column `order[k]` adds to the best value
    /// of the columns `order[..k]`.
    factor: Vec<f64>,
    /// Columns in ascending order of their moments; the last is chosen first.
    order: Vec<usize>,
}

impl Moments {
    /// From the lower triangle of `H`, with `damping` times the mean of the diagonal added to the diagonal; `None` if it is no
    /// matrix of finite numbers with a positive factor.
    ///
    /// # Panics
    /// If `lower` is no square of `columns`.
    #[must_use]
    pub fn new(lower: &[f64], columns: usize, damping: f64) -> Option<Moments> {
        assert_eq!(lower.len(), columns * columns, "a square of {columns}");
        let mut full = lower.to_vec();
        let damp = damping * (0..columns).map(|i| full[i * columns + i]).sum::<f64>() / columns as f64;
        for i in 0..columns {
            full[i * columns + i] += damp;
            for j in 0..i {
                full[j * columns + i] = full[i * columns + j];
            }
        }
        let mut order: Vec<usize> = (0..columns).collect();
        order.sort_by(|&a, &b| full[a * columns + a].total_cmp(&full[b * columns + b]));
        let mut factor = vec![0.0; columns * columns];
        for i in 0..columns {
            for j in 0..=i {
                factor[i * columns + j] = full[order[i] * columns + order[j]];
            }
        }
        factored(&mut factor, columns)?;
        Some(Moments { columns, full, damp, factor, order })
    }

    /// What was added to each column's moment.
    #[must_use]
    pub fn damp(&self) -> f64 {
        self.damp
    }

    /// How much each column matters: the diagonal of `H`.
    pub fn diagonal(&self) -> impl Iterator<Item = f64> + '_ {
        (0..self.columns).map(|i| self.full[i * self.columns + i])
    }

    /// `d H` of rows `d`. The moments are read once for all of them.
    fn slopes(&self, d: &[f64]) -> Vec<f64> {
        let n = self.columns;
        let mut slopes = vec![0.0; d.len()];
        for (at, moments) in self.full.chunks_exact(n).enumerate() {
            for (slopes, d) in slopes.chunks_exact_mut(n).zip(d.chunks_exact(n)) {
                slopes[at] = dot(moments, d);
            }
        }
        slopes
    }

    /// The sum of `d H d'` over rows `d`.
    ///
    /// # Panics
    /// If there is no whole number of rows.
    #[must_use]
    pub fn length(&self, pool: &Pool, d: &[f64]) -> f64 {
        assert!(d.len().is_multiple_of(self.columns.max(1)));
        let blocks: Vec<&[f64]> = d.chunks((ROWS * self.columns).max(1)).collect();
        let sums: Vec<Mutex<f64>> = blocks.iter().map(|_| Mutex::new(0.0)).collect();
        pool.for_each(blocks.len(), 1, &|block| {
            let sum = dot(blocks[block], &self.slopes(blocks[block]));
            *sums[block].lock().unwrap_or_else(PoisonError::into_inner) = sum;
        });
        sums.into_iter().map(|sum| sum.into_inner().unwrap_or_else(PoisonError::into_inner)).sum()
    }

    /// Chooses codes for the rows of `weights`, which `codes` has for a start, and returns the sum over them of `d H d'` with
    /// `d` what the codes change. It is never larger than that of the codes at the start.
    ///
    /// # Panics
    /// If the lengths differ, or no multiple of the columns is there.
    pub fn choose(&self, pool: &Pool, weights: &[f32], stands: Codes<'_>, codes: &mut [i8]) -> f64 {
        assert!(weights.len() == codes.len() && weights.len().is_multiple_of(self.columns.max(1)));
        let (columns, size) = (self.columns, ROWS * self.columns.max(1));
        let errors: Vec<Mutex<f64>> = (0..weights.len().div_ceil(size)).map(|_| Mutex::new(0.0)).collect();
        let blocks: Vec<Mutex<&mut [i8]>> = codes.chunks_mut(size).map(Mutex::new).collect();
        pool.for_each(blocks.len(), 1, &|block| {
            let mut codes = blocks[block].lock().unwrap_or_else(PoisonError::into_inner);
            let weights = &weights[block * size..][..codes.len()];
            let first = block * ROWS;
            let compensated = self.compensated(weights, first, stands);
            let off = |codes: &[i8]| -> Vec<f64> {
                let value = |at: usize| stands.value(first + at / columns, codes[at]);
                weights.iter().enumerate().map(|(at, &weight)| f64::from(weight) - value(at)).collect()
            };
            let distances = [off(&codes), off(&compensated)];
            let mut slopes = [self.slopes(&distances[0]), self.slopes(&distances[1])];
            for (row, codes) in codes.chunks_exact_mut(columns).enumerate() {
                let span = row * columns..(row + 1) * columns;
                let [plain, other] =
                    [0, 1].map(|at: usize| dot(&distances[at][span.clone()], &slopes[at][span.clone()]));
                let better = usize::from(other < plain);
                if better == 1 {
                    codes.copy_from_slice(&compensated[span.clone()]);
                }
                self.exchange(first + row, stands, codes, &mut slopes[better][span], plain.min(other));
            }
            let distance = off(&codes);
            let sum = dot(&distance, &self.slopes(&distance));
            *errors[block].lock().unwrap_or_else(PoisonError::into_inner) = sum;
        });
        errors.into_iter().map(|sum| sum.into_inner().unwrap_or_else(PoisonError::into_inner)).sum()
    }

    /// Codes chosen one after the other. Rows of the factor are read once for all rows of the block.
    fn compensated(&self, weights: &[f32], first: usize, stands: Codes<'_>) -> Vec<i8> {
        let n = self.columns;
        let mut best: Vec<f64> = weights
            .chunks_exact(n)
            .flat_map(|row| self.order.iter().map(|&column| f64::from(row[column])))
            .collect();
        let mut codes = vec![0i8; weights.len()];
        for k in (0..n).rev() {
            let factor = &self.factor[k * n..][..k];
            for (row, best) in best.chunks_exact_mut(n).enumerate() {
                let at = row * n + self.order[k];
                let code = stands.nearest(first + row, best[k]);
                codes[at] = code;
                let error = f64::from(weights[at]) - stands.value(first + row, code);
                best[..k].iter_mut().zip(factor).for_each(|(best, &factor)| *best += error * factor);
            }
        }
        codes
    }

    /// Exchanges single codes of a row for better ones, from these slopes and this error on.
    fn exchange(&self, row: usize, stands: Codes<'_>, codes: &mut [i8], slope: &mut [f64], error: f64) {
        let mut error = error;
        for _ in 0..SWEEPS {
            let mut changed = false;
            for column in (0..self.columns).rev().map(|at| self.order[at]) {
                let moments = &self.full[column * self.columns..][..self.columns];
                let weight = moments[column];
                if weight <= 0.0 {
                    continue;
                }
                let now = stands.value(row, codes[column]);
                let code = stands.nearest(row, now + slope[column] / weight);
                let step = stands.value(row, code) - now;
                let gain = step * (2.0 * slope[column] - step * weight);
                // What rounding alone could feign is no gain.
                if code == codes[column] || gain <= 1e-12 * error.abs() {
                    continue;
                }
                codes[column] = code;
                error -= gain;
                slope.iter_mut().zip(moments).for_each(|(slope, &moment)| *slope -= step * moment);
                changed = true;
            }
            if !changed {
                break;
            }
        }
    }
}

/// Most times that all codes of a row are looked at for exchanges.
const SWEEPS: usize = 4;

/// The factor `L` of `L L'`, in the place of a lower triangle; each row is divided by the diagonal of its column.
fn factored(lower: &mut [f64], n: usize) -> Option<()> {
    for i in 0..n {
        let (above, row) = lower.split_at_mut(i * n);
        for j in 0..i {
            let left = row[j] - dot(&row[..j], &above[j * n..][..j]);
            row[j] = left / above[j * n + j];
        }
        let rest = row[i] - dot(&row[..i], &row[..i]);
        if !(rest > 0.0 && rest.is_finite()) {
            return None;
        }
        row[i] = rest.sqrt();
    }
    let diagonal: Vec<f64> = (0..n).map(|i| lower[i * n + i]).collect();
    for row in lower.chunks_exact_mut(n) {
        row.iter_mut().zip(&diagonal).for_each(|(value, diagonal)| *value /= diagonal);
    }
    Some(())
}

#[cfg(test)]
mod tests;
