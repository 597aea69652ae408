//! Which of many vectors are nearest to one, by the greatest product: all are looked at.

use half::f16;
use half::slice::HalfFloatSliceExt;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A row, and how near it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Near {
    /// Its number.
    pub row: usize,
    /// The product of its vector with the one that is looked for.
    pub score: f32,
}

impl Eq for Near {}

impl PartialOrd for Near {
    fn partial_cmp(&self, other: &Near) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The nearer one is greater, and of two that are as near the one that comes first.
impl Ord for Near {
    fn cmp(&self, other: &Near) -> Ordering {
        self.score.total_cmp(&other.score).then(other.row.cmp(&self.row))
    }
}

/// Fewer rows than this are looked at by one thread.
const SHARE: usize = 4096;
/// How many rows that are nearest by bytes are compared again for each that is wanted.
const OVER: usize = 4;

/// The rows of `[N, D]` that are nearest to `query` `[D]`, the nearest first. Products are summed in single precision in the order of
/// eight partial sums.
pub fn exact(vectors: &[f16], query: &[f32], top: usize) -> Vec<Near> {
    let d = query.len().max(1);
    nearest(vectors.len() / d, top, |rows| {
        let mut buffer = vec![0.0; d];
        rows.map(move |row| Near { row, score: product(&vectors[row * d..][..d], query, &mut buffer) })
    })
}

/// The same by bytes, of which `scales` say what they stand for; the candidates are compared again by `vectors`, so that scores are
/// exact, and rows may be missed whose products are as near as bytes are coarse.
pub fn quantized(bytes: &[i8], scales: &[f32], vectors: &[f16], query: &[f32], top: usize) -> Vec<Near> {
    let d = query.len().max(1);
    let (query_bytes, _) = to_bytes(query);
    let coarse = nearest(scales.len(), top.saturating_mul(OVER), |rows| {
        let query = &query_bytes;
        rows.map(move |row| {
            let sum: i32 =
                bytes[row * d..][..d].iter().zip(query).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum();
            Near { row, score: scales[row] * sum as f32 }
        })
    });
    let mut buffer = vec![0.0; d];
    let again =
        |near: Near| Near { score: product(&vectors[near.row * d..][..d], query, &mut buffer), ..near };
    let mut found: Vec<Near> = coarse.into_iter().map(again).collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.truncate(top);
    found
}

/// A vector as bytes, and what one of them stands for.
pub fn to_bytes(vector: &[f32]) -> (Vec<i8>, f32) {
    let greatest = vector.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    if greatest == 0.0 || !greatest.is_finite() {
        return (vec![0; vector.len()], 0.0);
    }
    let scale = greatest / 127.0;
    (vector.iter().map(|v| (v / scale).round() as i8).collect(), scale)
}

fn product(vector: &[f16], query: &[f32], buffer: &mut [f32]) -> f32 {
    vector.convert_to_f32_slice(buffer);
    let (mut sums, whole) = ([0.0f32; 8], buffer.len() / 8 * 8);
    for (a, b) in buffer[..whole].chunks_exact(8).zip(query.chunks_exact(8)) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    let rest: f32 = buffer[whole..].iter().zip(&query[whole..]).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// The greatest of `count` rows, of which `scored` gives the scores of a part, on as many threads as help.
fn nearest<I: Iterator<Item = Near>>(
    count: usize,
    top: usize,
    scored: impl Fn(std::ops::Range<usize>) -> I + Sync,
) -> Vec<Near> {
    let threads =
        std::thread::available_parallelism().map_or(1, usize::from).min(count.div_ceil(SHARE)).max(1);
    let share = count.div_ceil(threads);
    let parts: Vec<Vec<Near>> = std::thread::scope(|scope| {
        let part = |thread: usize| {
            greatest(scored((thread * share).min(count)..((thread + 1) * share).min(count)), top)
        };
        let others: Vec<_> = (1..threads).map(|thread| scope.spawn(move || part(thread))).collect();
        let own = part(0);
        let joined = others.into_iter().map(|other| other.join().expect("invariant: sums do not panic"));
        std::iter::once(own).chain(joined).collect()
    });
    let mut found = greatest(parts.into_iter().flatten(), top);
    found.sort_unstable_by(|a, b| b.cmp(a));
    found
}

fn greatest(rows: impl Iterator<Item = Near>, top: usize) -> Vec<Near> {
    // The least of those that are kept is on top.
    let mut kept: BinaryHeap<Reverse<Near>> = BinaryHeap::new();
    for near in rows {
        if kept.len() < top {
            kept.push(Reverse(near));
        } else if kept.peek().is_some_and(|least| near > least.0) {
            kept.pop();
            kept.push(Reverse(near));
        }
    }
    kept.into_iter().map(|near| near.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aneforge_tensor::random;

    fn vectors(count: usize, d: usize) -> Vec<f16> {
        (0..(count * d) as u64).map(|i| f16::from_f32(random::normal(3, i))).collect()
    }

    #[test]
    fn the_nearest_are_those_of_a_sort() {
        for (count, d) in [(1, 1), (5, 3), (9000, 24), (10_001, 31)] {
            let all = vectors(count, d);
            let query: Vec<f32> = (0..d as u64).map(|i| random::normal(4, i)).collect();
            let score = |row: usize| -> f64 {
                all[row * d..][..d].iter().zip(&query).map(|(a, b)| a.to_f64() * f64::from(*b)).sum()
            };
            let mut order: Vec<usize> = (0..count).collect();
            order.sort_by(|&a, &b| score(b).total_cmp(&score(a)).then(a.cmp(&b)));
            let found = exact(&all, &query, 20);
            assert_eq!(
                found.iter().map(|near| near.row).collect::<Vec<_>>(),
                order[..count.min(20)],
                "{count}"
            );
            assert!(found.iter().all(|near| (f64::from(near.score) - score(near.row)).abs() < 1e-4));
        }
    }

    #[test]
    fn bytes_find_nearly_the_same() {
        let (count, d) = (6000, 64);
        let all = vectors(count, d);
        let (mut bytes, mut scales) = (Vec::new(), Vec::new());
        for row in all.chunks_exact(d) {
            let (row, scale) = to_bytes(&row.iter().map(|v| v.to_f32()).collect::<Vec<_>>());
            bytes.extend(row);
            scales.push(scale);
        }
        let (mut same, mut wanted) = (0, 0);
        for question in 0..20 {
            let query: Vec<f32> = (0..d as u64).map(|i| random::normal(100 + question, i)).collect();
            let (want, got) = (exact(&all, &query, 10), quantized(&bytes, &scales, &all, &query, 10));
            same += got.iter().filter(|near| want.contains(near)).count();
            wanted += want.len();
        }
        assert!(same * 100 >= wanted * 99, "{same} of {wanted}");
    }

    #[test]
    fn nothing_is_nearest_among_nothing() {
        assert!(exact(&[], &[1.0], 3).is_empty());
        assert!(exact(&vectors(4, 2), &[1.0, 0.0], 0).is_empty());
        let zeros = vec![f16::ZERO; 8];
        assert_eq!(exact(&zeros, &[1.0, 1.0], 2).iter().map(|near| near.row).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(to_bytes(&[0.0, 0.0]), (vec![0, 0], 0.0));
    }
}
