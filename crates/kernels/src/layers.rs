//! Ranking, point clouds and small geometry: what the engine has native layers for.

use half::f16;

use crate::simd::chunks;
use crate::{Kernels, Scratch};

/// Elements that one thread ranks or writes at a time.
const GRAIN: usize = 1 << 12;

/// How the elements of rows are ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranking {
    /// Whether the greatest comes first.
    pub descending: bool,
    /// Whether places in the row are wanted, rather than elements.
    pub places: bool,
}

/// A number per element whose order is the wanted one: equal for equal elements, greatest for NaN.
fn rank(x: f16, descending: bool) -> u16 {
    if x.is_nan() {
        return u16::MAX;
    }
    let bits = if x == f16::ZERO { 0 } else { x.to_bits() };
    // Sign and magnitude to an unsigned order: negative numbers turn around, positive ones come after them.
    let rising = if bits & 0x8000 == 0 { bits | 0x8000 } else { !bits };
    if descending { !rising } else { rising }
}

/// The scratch that [`rank_rows`] needs, in `f32`.
#[must_use]
pub fn rank_scratch(elements: usize) -> usize {
    elements
}

/// The first `out.len() / rows` of every row of `x` in the wanted order. Equal elements keep their order; NaN
/// comes last.
///
/// # Panics
/// When a length does not fit, or a row has more than 65,536 elements.
pub fn rank_rows(
    kernels: &Kernels,
    x: &[f16],
    rows: usize,
    ranking: Ranking,
    scratch: &mut Scratch,
    out: &mut [f16],
) {
    assert!(rows > 0 && x.len().is_multiple_of(rows) && out.len().is_multiple_of(rows), "rank_rows: lengths");
    let (columns, kept) = (x.len() / rows, out.len() / rows);
    assert!(columns <= 1 << 16 && kept <= columns, "rank_rows: {kept} of {columns} elements");
    let keys: &mut [u32] = bytemuck::cast_slice_mut(scratch.take(x.len()));
    chunks(&kernels.pool, keys, (GRAIN / columns).max(1) * columns, |start, keys| {
        for (row, keys) in keys.chunks_exact_mut(columns).enumerate() {
            let x = &x[start + row * columns..][..columns];
            for (place, (key, &x)) in keys.iter_mut().zip(x).enumerate() {
                *key = u32::from(rank(x, ranking.descending)) << 16 | place as u32;
            }
            keys.sort_unstable();
        }
    });
    let keys: &[u32] = keys;
    chunks(&kernels.pool, out, (GRAIN / kept).max(1) * kept, |start, out| {
        for (index, out) in out.chunks_exact_mut(kept).enumerate() {
            let row = (start / kept + index) * columns;
            for (out, &key) in out.iter_mut().zip(&keys[row..]) {
                let place = (key & 0xFFFF) as usize;
                *out = if ranking.places { f16::from_f32(place as f32) } else { x[row + place] };
            }
        }
    });
}

/// The place of the greatest of `n` elements per result, the first of equal ones: element `i` of result `r` is
/// `x[start(r) + i * step]`, with `start(r)` of `r` or, when `step` is 1, `r * n`.
///
/// # Panics
/// When a length does not fit.
pub fn argmax(kernels: &Kernels, x: &[f16], n: usize, step: usize, out: &mut [f16]) {
    assert!(n > 0 && x.len() == n * out.len(), "argmax: lengths");
    chunks(&kernels.pool, out, (GRAIN / n).max(1), |start, out| {
        for (index, out) in out.iter_mut().enumerate() {
            let first = if step == 1 { (start + index) * n } else { start + index };
            let at = |place: usize| rank(x[first + place * step], true);
            let best = (0..n).reduce(|best, next| if at(next) < at(best) { next } else { best });
            *out = f16::from_f32(best.unwrap_or(0) as f32);
        }
    });
}

/// The square of the distance of two points, summed from x to z in `f32`.
fn squared_distance(a: &[f16], b: &[f16]) -> f32 {
    let square = |(a, b): (&f16, &f16)| (a.to_f32() - b.to_f32()) * (a.to_f32() - b.to_f32());
    a.iter().zip(b).map(square).sum()
}

/// The scratch that [`farthest_points`] needs, in `f32`.
#[must_use]
pub fn farthest_scratch(points: usize) -> usize {
    points
}

/// As many of the `[N, 3]` points as `out` holds, each as far as can be from those before it, from the first
/// on; of equally far ones the first.
///
/// # Panics
/// When a length is not a multiple of 3 or there is no point.
pub fn farthest_points(points: &[f16], scratch: &mut Scratch, out: &mut [f16]) {
    let whole = points.len().is_multiple_of(3) && out.len().is_multiple_of(3);
    assert!(whole && !points.is_empty(), "farthest_points: lengths");
    let nearest = scratch.take(points.len() / 3);
    nearest.fill(f32::INFINITY);
    let mut last = 0;
    for out in out.chunks_exact_mut(3) {
        let chosen = &points[3 * last..3 * last + 3];
        out.copy_from_slice(chosen);
        let mut best = 0;
        for (i, point) in points.chunks_exact(3).enumerate() {
            nearest[i] = nearest[i].min(squared_distance(point, chosen));
            if nearest[i] > nearest[best] {
                best = i;
            }
        }
        last = best;
    }
}

/// For every `[N, 3]` point and `[M, 3]` centre, whether their distance is at most `radius`: 0 or 1.
///
/// # Panics
/// When a length does not fit.
pub fn within(kernels: &Kernels, points: &[f16], centres: &[f16], radius: f32, out: &mut [f16]) {
    let (n, m) = (points.len() / 3, centres.len() / 3);
    assert!(
        m > 0 && out.len() == n * m && points.len() == 3 * n && centres.len() == 3 * m,
        "within: lengths"
    );
    chunks(&kernels.pool, out, (GRAIN / m).max(1) * m, |start, out| {
        for (row, out) in out.chunks_exact_mut(m).enumerate() {
            let point = &points[3 * (start / m + row)..][..3];
            for (out, centre) in out.iter_mut().zip(centres.chunks_exact(3)) {
                let near = squared_distance(point, centre).sqrt() <= radius;
                *out = if near { f16::ONE } else { f16::ZERO };
            }
        }
    });
}

/// `out[d, x] = |a[x] - b[x + d]|`, rounded once.
///
/// # Panics
/// When a length does not fit.
pub fn cost_volume(kernels: &Kernels, a: &[f16], b: &[f16], out: &mut [f16]) {
    let width = a.len();
    assert!(width > 0 && out.len().is_multiple_of(width), "cost_volume: lengths");
    assert!(b.len() + 1 >= width + out.len() / width, "cost_volume: reference length");
    chunks(&kernels.pool, out, (GRAIN / width).max(1) * width, |start, out| {
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            let b = &b[start / width + row..];
            for (out, (a, b)) in out.iter_mut().zip(a.iter().zip(b)) {
                *out = once((a.to_f64() - b.to_f64()).abs());
            }
        }
    });
}

/// What [`scaled`] combines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// A sum.
    Add,
    /// A product.
    Multiply,
    /// The lesser.
    Minimum,
    /// The greater.
    Maximum,
}

/// `scale * (x op z)`, where a sum rounds to `f32` first; the result rounds once.
///
/// # Panics
/// When a length does not fit.
pub fn scaled(kernels: &Kernels, combine: Combine, scale: f16, x: &[f16], z: &[f16], out: &mut [f16]) {
    assert!(x.len() == out.len() && z.len() == out.len(), "scaled: lengths");
    let scale = scale.to_f64();
    chunks(&kernels.pool, out, GRAIN, |start, out| {
        for (out, (x, z)) in out.iter_mut().zip(x[start..].iter().zip(&z[start..])) {
            let (x, z) = (x.to_f64(), z.to_f64());
            let value = match combine {
                Combine::Add => f64::from((x + z) as f32),
                Combine::Multiply => x * z,
                Combine::Minimum => x.min(z),
                Combine::Maximum => x.max(z),
            };
            *out = once(scale * value);
        }
    });
}

/// The cross product of two vectors of three elements, each rounded once.
///
/// # Panics
/// When a length is not 3.
pub fn cross(a: &[f16], b: &[f16], out: &mut [f16]) {
    assert!(a.len() == 3 && b.len() == 3 && out.len() == 3, "cross: lengths");
    for (i, out) in out.iter_mut().enumerate() {
        let (j, k) = ((i + 1) % 3, (i + 2) % 3);
        *out = once(a[j].to_f64() * b[k].to_f64() - a[k].to_f64() * b[j].to_f64());
    }
}

/// The nearest `f16`, ties to even. `f16::from_f64` goes through `f32` and rounds twice; rounded to odd on the way, the
/// second rounding is the only one that counts (Boldo and Melquiond, 2008).
fn once(value: f64) -> f16 {
    let single = value as f32;
    if f64::from(single) == value || !single.is_finite() {
        return f16::from_f32(single);
    }
    let towards_zero = single.to_bits() - u32::from(f64::from(single).abs() > value.abs());
    f16::from_f32(f32::from_bits(towards_zero | 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Through single precision both would be ties between two neighbours, and go to the other one.
    #[test]
    fn results_near_a_tie_round_once() {
        let vector = |x: f32, y: f32| [f16::from_f32(x), f16::from_f32(y), f16::ZERO];
        let mut out = [f16::ZERO; 3];
        cross(&vector(-1.184_570_3, -0.225_219_73), &vector(0.078_857_42, -1.208_007_8), &mut out);
        assert_eq!(out[2], f16::from_f32(1.448_242_2), "1.44873044 is below the tie 1.44873047");
        let [scale, x, z, want] = [0x381f, 0x2eaf, 0x3d13, 0x39a9].map(f16::from_bits);
        let mut out = [f16::ZERO];
        scaled(&Kernels::with_threads(1), Combine::Add, scale, &[x], &[z], &mut out);
        assert_eq!(out[0], want);
    }

    #[test]
    fn ranks_order_every_number_and_put_nan_last() {
        let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        for descending in [false, true] {
            for pair in all.windows(2).chain([[all[0], all[0x8000]].as_slice()]) {
                let (a, b) = (pair[0], pair[1]);
                let (left, right) = (rank(a, descending), rank(b, descending));
                if a.is_nan() || b.is_nan() {
                    assert!((left == u16::MAX) == a.is_nan() && (right == u16::MAX) == b.is_nan());
                    continue;
                }
                let order = if descending { b.partial_cmp(&a) } else { a.partial_cmp(&b) };
                assert_eq!(Some(left.cmp(&right)), order, "{a} and {b}");
            }
        }
    }

    #[test]
    fn rows_are_ranked_alike_on_any_number_of_threads() {
        let x: Vec<f16> = (0..3000u32).map(|i| f16::from_f32((i * 7919 % 211) as f32 - 100.0)).collect();
        let ranking = Ranking { descending: true, places: true };
        let run = |threads| {
            let mut out = vec![f16::ZERO; x.len()];
            let mut scratch = Scratch::with_capacity(rank_scratch(x.len()));
            rank_rows(&Kernels::with_threads(threads), &x, 2, ranking, &mut scratch, &mut out);
            out
        };
        let one = run(1);
        assert_eq!(one, run(3));
        let values: Vec<f16> = one[..1000].iter().map(|p| x[p.to_f32() as usize]).collect();
        assert!(values.windows(2).all(|w| w[0] >= w[1]));
    }
}
