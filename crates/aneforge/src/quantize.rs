//! Weights in fewer bytes: the quantisers. What they return stands for exact half-precision values; see
//! [`Weight`].
//!
//! The schemes and their sizes are those of ANEForge 0.4.0, whose programs are known to be accepted (reference); the codes are
//! chosen against the scales and tables as they are stored, in half precision, so that errors are never larger than there.

mod calibrated;

pub use calibrated::{DAMPING, Seen, int8 as calibrated_int8, lut4 as calibrated_lut4};

use aneforge_tensor::{BlockwiseWeight, Int8Weight, Lut4Weight, Shape, SparseWeight, Tensor, Weight, f16};

/// The largest code of a byte with a scale: -128 is not used.
const LARGEST_CODE: f32 = 127.0;
/// Entries of a table.
const ENTRIES: usize = 16;
/// Rounds of improving a table, of which most are improved no further after far fewer.
const ROUNDS: usize = 200;

/// Values that are looked at at once.
const PIECE: usize = 1 << 12;

/// Shows a weight's values piece by piece, of a multiple of `run` values each but for the last; `None` if the thread's work is
/// [stopped](aneforge_kernels::threads::stoppable) meanwhile.
fn in_pieces(weight: &Weight, run: usize, mut see: impl FnMut(usize, &[f32])) -> Option<()> {
    let (count, size) = (weight.shape().count(), PIECE.next_multiple_of(run.max(1)));
    let mut piece = vec![0.0; size.min(count)];
    for start in (0..count).step_by(size) {
        if aneforge_kernels::threads::stopped() {
            return None;
        }
        let piece = &mut piece[..(count - start).min(size)];
        weight.read_f32(start, piece);
        see(start, piece);
    }
    Some(())
}

/// The distance of a weight as it is stored, encoded or rounded to half precision, from the weight, over the weight's length (both
/// Euclidean); infinite where it was not measured to its end.
pub fn relative_error(weight: &Weight, encoded: &Weight) -> f64 {
    let (mut distance, mut length, mut stored) = (0.0, 0.0, vec![f16::ZERO; PIECE]);
    let measured = in_pieces(weight, 1, |start, exact| {
        let stored = &mut stored[..exact.len()];
        encoded.read_f16(start, stored);
        for (&exact, &stored) in exact.iter().zip(&*stored) {
            distance += (f64::from(exact) - stored.to_f64()).powi(2);
            length += f64::from(exact).powi(2);
        }
    });
    measured.map_or(f64::INFINITY, |()| distance.sqrt() / (length.sqrt() + 1e-12))
}

/// As bytes with a scale for each entry of the leading axis; `None` of a scalar.
pub fn int8(weight: &Weight) -> Option<Weight> {
    let rows = *weight.shape().dims().first()?;
    let (codes, scales) = scaled(weight, weight.shape().count() / rows)?;
    let codes = tensor(weight.shape(), &codes)?;
    Some(Int8Weight::new(codes, tensor(Shape::new(&[rows]).ok()?, &scales)?).ok()?.into())
}

/// As bytes with a scale for each block of a row of a matrix, of the largest size up to `block` that divides rows; `None` of
/// what is no matrix.
pub fn blockwise(weight: &Weight, block: usize) -> Option<Weight> {
    let &[rows, columns] = weight.shape().dims() else { return None };
    let block = (1..=block.min(columns)).rev().find(|&block| columns.is_multiple_of(block))?;
    let (codes, scales) = scaled(weight, block)?;
    let scales = tensor(Shape::new(&[rows, columns / block]).ok()?, &scales)?;
    Some(BlockwiseWeight::new(tensor(weight.shape(), &codes)?, scales).ok()?.into())
}

/// As places in one table of 16 values; `None` of a scalar.
pub fn lut4(weight: &Weight) -> Option<Weight> {
    let table = Sorted::of(weight)?.table();
    let middles: Vec<f32> =
        table.windows(2).map(|pair| f32::midpoint(pair[0].to_f32(), pair[1].to_f32())).collect();
    let place = |value: f32| middles.iter().filter(|&&middle| value > middle).count() as u8;
    let mut indices = Vec::with_capacity(weight.shape().count().div_ceil(2));
    in_pieces(weight, 2, |_, values| {
        indices
            .extend(values.chunks(2).map(|pair| place(pair[0]) | pair.get(1).map_or(0, |&v| place(v)) << 4));
    })?;
    let indices = tensor(Shape::new(&[indices.len()]).ok()?, &indices)?;
    Some(Lut4Weight::new(weight.shape(), indices, tensor(Shape::new(&[ENTRIES]).ok()?, &table)?).ok()?.into())
}

/// As the values that are not zero in half precision; `None` if there are none, or more than half.
pub fn sparse(weight: &Weight) -> Option<Weight> {
    let (most, mut values) = (weight.shape().count() / 2, Vec::new());
    let mut mask = Vec::with_capacity(weight.shape().count().div_ceil(8));
    in_pieces(weight, 8, |_, piece| {
        // More than half is too much, however many there are.
        let halves = piece.iter().map(|&value| f16::from_f32(value));
        if values.len() <= most {
            values.extend(halves.clone().filter(|&v| v != f16::ZERO));
        }
        let set: Vec<bool> = halves.map(|v| v != f16::ZERO).collect();
        mask.extend(
            set.chunks(8).map(|bits| bits.iter().rev().fold(0, |byte, &bit| byte << 1 | u8::from(bit))),
        );
    })?;
    if values.is_empty() || values.len() > most {
        return None;
    }
    let mask = tensor(Shape::new(&[mask.len()]).ok()?, &mask)?;
    let values = tensor(Shape::new(&[values.len()]).ok()?, &values)?;
    Some(SparseWeight::new(weight.shape(), mask, values).ok()?.into())
}

fn tensor<T: aneforge_tensor::Element>(shape: Shape, values: &[T]) -> Option<Tensor> {
    Tensor::from_slice(shape, values).ok()
}

/// Codes, and a scale for each `run` of values.
fn scaled(weight: &Weight, run: usize) -> Option<(Vec<i8>, Vec<f16>)> {
    let count = weight.shape().count();
    let (mut codes, mut scales) = (Vec::with_capacity(count), Vec::with_capacity(count / run.max(1)));
    in_pieces(weight, run, |_, values| {
        for values in values.chunks(run.max(1)) {
            let scale = scale_of(values.iter().fold(0.0f32, |most, v| most.max(v.abs())));
            let wide = scale.to_f32();
            scales.push(scale);
            codes.extend(values.iter().map(|&value| code(value, wide)));
        }
    })?;
    Some((codes, scales))
}

/// The scale for magnitudes up to `most`, as it is stored: never 0, the next larger one where rounding would leave the largest
/// value more than half a step away, and the next smaller one where the largest code would stand for an infinity.
fn scale_of(most: f32) -> f16 {
    let nearest = f16::from_f32(most / LARGEST_CODE);
    if nearest == f16::ZERO {
        return f16::from_bits(1);
    }
    if f16::from_f32(LARGEST_CODE * nearest.to_f32()).is_infinite() {
        return f16::from_bits(nearest.to_bits() - 1);
    }
    let beyond = most - LARGEST_CODE * nearest.to_f32() > nearest.to_f32() / 2.0;
    if beyond { f16::from_bits(nearest.to_bits() + 1) } else { nearest }
}

/// The code whose product with the scale, rounded to half precision, is nearest to `value`.
fn code(value: f32, scale: f32) -> i8 {
    let quotient = value / scale;
    let nearest = quotient.round_ties_even().clamp(-LARGEST_CODE, LARGEST_CODE);
    // Near the middle between two codes, the rounding of their products decides.
    if (quotient - nearest).abs() < 0.49 || quotient.abs() >= LARGEST_CODE {
        return nearest as i8;
    }
    let other = (nearest + (quotient - nearest).signum()).clamp(-LARGEST_CODE, LARGEST_CODE);
    let error = |code: f32| (f16::from_f32(code * scale).to_f32() - value).abs();
    if error(other) < error(nearest) { other as i8 } else { nearest as i8 }
}

/// Values and their sums, in ascending order of their half-precision roundings.
struct Sorted {
    /// Each rounding once.
    values: Vec<f64>,
    /// How much the values before each count, and their sum.
    before: Vec<(f64, f64)>,
}

impl Sorted {
    /// Where every value counts as one.
    fn of(weight: &Weight) -> Option<Sorted> {
        Sorted::weighed(weight, |_| 1.0)
    }

    /// Where the value at each place counts so much.
    fn weighed(weight: &Weight, counts: impl Fn(usize) -> f64) -> Option<Sorted> {
        let mut bins = vec![(0.0f64, 0.0f64); 1 << 16];
        in_pieces(weight, 1, |start, values| {
            for (at, &value) in values.iter().enumerate() {
                let count = counts(start + at);
                let bin = &mut bins[f16::from_f32(value).to_bits() as usize];
                *bin = (bin.0 + count, bin.1 + count * f64::from(value));
            }
        })?;
        let negative = (0x8000..=0xfc00_u32).rev();
        let ordered = negative.chain(0..=0x7c00).filter(|&bits| bins[bits as usize].0 > 0.0);
        let mut sorted = Sorted { values: Vec::new(), before: vec![(0.0, 0.0)] };
        for bits in ordered {
            let (count, sum) = bins[bits as usize];
            let (counts, sums) = sorted.before[sorted.values.len()];
            sorted.values.push(f16::from_bits(bits as u16).to_f64());
            sorted.before.push((counts + count, sums + sum));
        }
        Some(sorted)
    }

    /// The value below which this share of all lies.
    fn quantile(&self, share: f64) -> f64 {
        let wanted = share * self.before[self.values.len()].0;
        let at = self.before[1..].partition_point(|&(count, _)| count < wanted);
        self.values[at.min(self.values.len() - 1)]
    }

    /// The means of the values nearest to each of `centres`, which are in order; a centre that is nearest to none stays.
    fn means(&self, centres: &[f64; ENTRIES]) -> [f64; ENTRIES] {
        let border = |at: usize| match at {
            0 => 0,
            ENTRIES => self.values.len(),
            _ => {
                let middle = f64::midpoint(centres[at - 1], centres[at]);
                self.values.partition_point(|&value| value <= middle)
            }
        };
        std::array::from_fn(|at| {
            let (first, last) = (self.before[border(at)], self.before[border(at + 1)]);
            let count = last.0 - first.0;
            if count > 0.0 { (last.1 - first.1) / count } else { centres[at] }
        })
    }

    /// Sixteen values, ascending, near which all lie: means of neighbouring quantiles, moved to the mean of the values nearest
    /// to them until that changes nothing (Lloyd's algorithm).
    fn table(&self) -> [f16; ENTRIES] {
        if self.values.is_empty() {
            return [f16::ZERO; ENTRIES];
        }
        let edge = |at: usize| self.quantile(at as f64 / ENTRIES as f64);
        let mut centres: [f64; ENTRIES] = std::array::from_fn(|at| f64::midpoint(edge(at), edge(at + 1)));
        for _ in 0..ROUNDS {
            let moved = self.means(&centres);
            if moved == centres {
                break;
            }
            centres = moved;
        }
        let mut table = centres.map(f16::from_f64);
        table.sort_by(f16::total_cmp);
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aneforge_tensor::random;

    fn weight(dims: &[usize], value: impl Fn(u64) -> f32) -> Weight {
        let shape = Shape::new(dims).unwrap();
        let values: Vec<f32> = (0..shape.count() as u64).map(value).collect();
        Tensor::from_slice(shape, &values).unwrap().into()
    }

    fn normal(dims: &[usize], scale: f32) -> Weight {
        weight(dims, |i| random::normal(3, i) * scale)
    }

    #[test]
    fn bytes_are_those_of_the_reference() {
        let Some(Weight::Int8(row)) = int8(&weight(&[1, 3], |i| [0.5, -1.0, 0.25][i as usize])) else {
            panic!()
        };
        assert_eq!(row.codes().as_slice::<i8>().unwrap(), [64, -127, 32]);
        assert_eq!(row.scales().as_slice::<f16>().unwrap(), [f16::from_f32(1.0 / 127.0)]);
        let Some(Weight::Blockwise(row)) = blockwise(&weight(&[1, 6], |i| i as f32), 4) else { panic!() };
        assert_eq!(row.codes().as_slice::<i8>().unwrap(), [0, 64, 127, 76, 102, 127]);
        let scales = [2.0, 5.0].map(|most| f16::from_f32(most / 127.0));
        assert_eq!(row.scales().as_slice::<f16>().unwrap(), scales);
    }

    /// The reference's, which divides by the scale before it is stored.
    fn plainly(values: &[f32], run: usize) -> Vec<f32> {
        let of = |values: &[f32]| {
            let scale = values.iter().fold(0.0f32, |most, v| most.max(v.abs())) / 127.0;
            let scale = scale.max(1e-8);
            let decoded = |v: &f32| {
                let code = (v / scale).round_ties_even().clamp(-127.0, 127.0);
                f16::from_f32(code * f16::from_f32(scale).to_f32()).to_f32()
            };
            values.iter().map(decoded).collect::<Vec<_>>()
        };
        values.chunks(run).flat_map(of).collect()
    }

    #[test]
    fn errors_are_never_larger_than_those_of_the_reference() {
        for scale in [1e-6, 1e-4, 0.02, 1.0, 300.0] {
            let weight = normal(&[64, 96], scale);
            let plain =
                |run| Tensor::from_slice(weight.shape(), &plainly(&weight.to_f32(), run)).unwrap().into();
            for (ours, run) in [(int8(&weight), 96), (blockwise(&weight, 32), 32)] {
                let [ours, theirs] =
                    [ours.unwrap(), plain(run)].map(|encoded| relative_error(&weight, &encoded));
                assert!(ours <= theirs, "{scale}, {run}: {ours} and {theirs}");
            }
        }
        let error =
            relative_error(&normal(&[256, 256], 0.02), &blockwise(&normal(&[256, 256], 0.02), 32).unwrap());
        assert!((error - 0.0054).abs() < 0.0005, "{error}");
    }

    #[test]
    fn tables_have_the_known_errors() {
        let error = |weight: &Weight| relative_error(weight, &lut4(weight).unwrap());
        let gaussian = error(&normal(&[256, 256], 0.02));
        assert!((0.09..0.101).contains(&gaussian), "{gaussian}");
        let uniform = error(&weight(&[256, 256], |i| random::uniform(1, i) - 0.5));
        assert!((0.06..0.063).contains(&uniform), "{uniform}");
        // What has at most 16 values is exact.
        let few = weight(&[8, 8], |i| (i % 16) as f32 - 7.5);
        assert_eq!(error(&few), 0.0);
        assert_eq!(error(&weight(&[3, 2], |_| 0.25)), 0.0);
    }

    #[test]
    fn only_what_is_mostly_zero_is_sparse() {
        let zeros = |every: u64| weight(&[10, 9], move |i| if i % every == 0 { 1.0 + i as f32 } else { 0.0 });
        let encoded = sparse(&zeros(3)).unwrap();
        assert_eq!((encoded.to_f32(), relative_error(&zeros(3), &encoded)), (zeros(3).to_f32(), 0.0));
        assert_eq!(encoded.stored_bytes(), 90_usize.div_ceil(8) + 2 * 30);
        assert!(sparse(&zeros(1)).is_none() && sparse(&weight(&[4, 4], |_| 0.0)).is_none());
        // Values that half precision rounds to zero are none.
        assert!(sparse(&weight(&[4, 4], |i| if i == 0 { 1.0 } else { 1e-9 })).is_some());
    }

    #[test]
    fn tiny_rows_and_odd_ones_are_encoded() {
        let tiny = normal(&[4, 6], 3e-8);
        assert!(relative_error(&tiny, &int8(&tiny).unwrap()) < 1.0, "no scale is stored as 0");
        for largest in [65504.0, 65472.0, 65000.0, -65504.0] {
            let large = weight(&[2, 4], |_| largest);
            for encoded in [int8(&large), blockwise(&large, 2), lut4(&large)] {
                assert!(relative_error(&large, &encoded.unwrap()) < 0.001, "{largest}");
            }
        }
        let zero = weight(&[2, 3], |_| 0.0);
        assert_eq!(int8(&zero).unwrap().to_f32(), [0.0; 6]);
        assert!(
            int8(&weight(&[], |_| 1.0)).is_none() && blockwise(&weight(&[2, 2, 2], |_| 1.0), 2).is_none()
        );
        let prime = normal(&[3, 7], 1.0);
        assert_eq!(blockwise(&prime, 4).unwrap().stored_bytes(), 21 + 2 * 21);
    }
}
