//! The quantisers that know what a weight is multiplied with.
//!
//! Codes are chosen by what becomes of the products ([`aneforge_kernels::compensate`]), and tables are fitted to values that
//! count as much as the columns they stand in. None is worse, on what was seen, than the quantiser that knows nothing.

use super::{ENTRIES, Sorted, in_pieces, int8 as plain_int8, lut4 as plain_lut4, tensor};
use aneforge_kernels::compensate::{Codes, Moments};
use aneforge_kernels::threads::{Pool, stopped};
use aneforge_tensor::{Int8Weight, Lut4Weight, Shape, Weight, f16};
use std::sync::Arc;

/// What is added to the moments of each column, as a part of their mean, at least: what GPTQ (arXiv 2210.17323) adds before it
/// factors them. Here it counts in all that is chosen: without it, columns that were hardly seen would take any value that makes
/// up for others, and other inputs would show it.
pub const DAMPING: f64 = 0.01;
/// The same at most, for what was seen in no more rows than it has columns, or few more.
const MOST_DAMPING: f64 = 3.0;

/// How far moments of so many columns are damped that were seen in so many rows, of which that many are as good as one.
fn damping(columns: usize, rows: usize, alike: usize) -> f64 {
    ((columns * alike) as f64 / rows.max(1) as f64).clamp(DAMPING, MOST_DAMPING)
}

/// Rows in which tables are compared, at most.
const SAMPLED: usize = 64;

/// What a weight is multiplied with: second moments of its columns, for each of the equal groups of its rows.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `None` of a group that only zeros reached, such as a channel that is never active: its codes stay the plain ones.
    groups: Arc<[Option<Moments>]>,
    columns: usize,
    rows: usize,
}

impl Seen {
    /// From the lower triangles of the moments of each group, of so many rows, of which `alike` are as good as one; `None` where
    /// only zeros were seen, or where a group has moments that cannot be factored.
    pub fn new(lower: &[Vec<f64>], columns: usize, rows: usize, alike: usize) -> Option<Seen> {
        let damping = damping(columns, rows, alike);
        let group = |lower: &Vec<f64>| {
            let seen = lower.iter().any(|&moment| moment != 0.0);
            if seen { Moments::new(lower, columns, damping).map(Some) } else { Some(None) }
        };
        let groups = lower.iter().map(group).collect::<Option<Vec<_>>>()?;
        groups.iter().any(Option::is_some).then(|| Seen { groups: groups.into(), columns, rows })
    }

    /// What there is to say of an error that is one of few rows: fewer than there are columns to fit to them.
    pub fn caveat(&self) -> Option<String> {
        let Seen { columns, rows, .. } = self;
        let few = || {
            format!(
                "only {rows} rows of what it is multiplied with were seen, and it has {columns} columns: other inputs are further off; give more"
            )
        };
        (rows < columns).then(few)
    }

    /// Whether these are moments of that weight's columns.
    fn fits(&self, weight: &Weight) -> bool {
        let shape = weight.shape();
        let rows = shape.dims().first().copied().unwrap_or(0);
        rows > 0 && shape.count() == rows * self.columns && rows.is_multiple_of(self.groups.len())
    }

    /// How much each column of each group matters.
    fn importance(&self) -> Vec<f64> {
        let of = |group: &Option<Moments>| match group {
            Some(moments) => moments.diagonal().collect(),
            None => vec![0.0; self.columns],
        };
        self.groups.iter().flat_map(of).collect()
    }

    /// Values of each group's rows.
    fn size(&self, weight: &Weight) -> usize {
        weight.shape().count() / self.groups.len()
    }

    /// The distance of what products with `encoded` are from what they are with `weight`, over the length of the latter (both
    /// Euclidean, over everything that was seen): `|X (W - W')| / |X W|`.
    pub fn error(&self, weight: &Weight, encoded: &Weight, pool: &Pool) -> f64 {
        let relative = |[distance, length]: [[f64; 2]; 2]| {
            let seen = |[all, added]: [f64; 2]| (all - added).max(0.0).sqrt();
            seen(distance) / (seen(length) + 1e-12)
        };
        self.lengths(weight, encoded, pool).map_or(f64::INFINITY, relative)
    }

    /// The same as is to be expected of other inputs: with what damping adds, which is the more the fewer rows were seen. Codes
    /// are fitted to what was seen, whose own error says little of others where that is little.
    pub fn expected(&self, weight: &Weight, encoded: &Weight, pool: &Pool) -> f64 {
        let relative = |[distance, length]: [[f64; 2]; 2]| distance[0].sqrt() / (length[0].sqrt() + 1e-12);
        self.lengths(weight, encoded, pool).map_or(f64::INFINITY, relative)
    }

    /// `|X (W - W')|` and `|X W|`, squared, each with what damping adds, and that alone; `None` if the thread's work is
    /// stopped meanwhile.
    fn lengths(&self, weight: &Weight, encoded: &Weight, pool: &Pool) -> Option<[[f64; 2]; 2]> {
        let (mut found, size) = ([[0.0; 2]; 2], self.size(weight));
        let (mut exact, mut stored) = (vec![0.0f32; size], vec![0.0f32; size]);
        for (group, moments) in self.groups.iter().enumerate() {
            let Some(moments) = moments else { continue };
            weight.read_f32(group * size, &mut exact);
            encoded.read_f32(group * size, &mut stored);
            let pairs = exact.iter().zip(&stored);
            let off: Vec<f64> = pairs.map(|(e, s)| f64::from(*e) - f64::from(*s)).collect();
            let exact: Vec<f64> = exact.iter().map(|e| f64::from(*e)).collect();
            for (found, d) in found.iter_mut().zip([off, exact]) {
                found[0] += moments.length(pool, &d);
                found[1] += moments.damp() * d.iter().map(|d| d * d).sum::<f64>();
            }
            if stopped() {
                return None;
            }
        }
        Some(found)
    }

    /// What the error of a table is, squared, in each so many-th row.
    fn sampled(&self, weight: &Weight, pool: &Pool, table: &[f32; ENTRIES]) -> Option<f64> {
        let rows = weight.shape().dims()[0];
        let per_group = rows / self.groups.len();
        let (mut error, every) = (0.0, rows.div_ceil(SAMPLED));
        let mut values = vec![0.0f32; self.columns];
        let mut codes = vec![0i8; self.columns];
        for row in (0..rows).step_by(every) {
            let Some(moments) = &self.groups[row / per_group] else { continue };
            weight.read_f32(row * self.columns, &mut values);
            let stands = Codes::Table(table);
            codes
                .iter_mut()
                .zip(&values)
                .for_each(|(code, &value)| *code = stands.nearest(0, f64::from(value)));
            error += moments.choose(pool, &values, stands, &mut codes);
            if stopped() {
                return None;
            }
        }
        Some(error)
    }

    /// The distance, squared, of products with `encoded` from those with `weight`, as codes are chosen by it.
    fn distance(&self, weight: &Weight, encoded: &Weight, pool: &Pool) -> f64 {
        self.lengths(weight, encoded, pool).map_or(f64::INFINITY, |[[distance, _], _]| distance)
    }

    /// Better codes than these, and what their error is, squared; `None` if the thread's work is stopped meanwhile.
    fn choose(&self, weight: &Weight, pool: &Pool, codes: &mut [i8], stands: Stands<'_>) -> Option<f64> {
        let (size, mut error) = (self.size(weight), 0.0);
        let mut values = vec![0.0f32; size];
        for (group, (moments, codes)) in self.groups.iter().zip(codes.chunks_mut(size)).enumerate() {
            let Some(moments) = moments else { continue };
            weight.read_f32(group * size, &mut values);
            let stands = match stands {
                Stands::Scaled(scales) => Codes::Scaled(&scales[group * (size / self.columns)..]),
                Stands::Table(table) => Codes::Table(table),
            };
            error += moments.choose(pool, &values, stands, codes);
            if stopped() {
                return None;
            }
        }
        Some(error)
    }
}

/// What the codes of a weight stand for.
#[derive(Clone, Copy)]
enum Stands<'a> {
    Scaled(&'a [f32]),
    Table(&'a [f32; ENTRIES]),
}

/// As bytes with a scale for each row; `None` of what these are no moments of.
pub fn int8(weight: &Weight, seen: &Seen, pool: &Pool) -> Option<Weight> {
    let Weight::Int8(plain) = plain_int8(weight).filter(|_| seen.fits(weight))? else { return None };
    let mut codes = plain.codes().as_slice::<i8>()?.to_vec();
    let scales = plain.scales().to_f32();
    seen.choose(weight, pool, &mut codes, Stands::Scaled(&scales))?;
    Some(Int8Weight::new(tensor(weight.shape(), &codes)?, plain.scales().clone()).ok()?.into())
}

/// As places in one table of 16 values; `None` of what these are no moments of.
pub fn lut4(weight: &Weight, seen: &Seen, pool: &Pool) -> Option<Weight> {
    let Weight::Lut4(plain) = plain_lut4(weight).filter(|_| seen.fits(weight))? else { return None };
    let plain: [f16; ENTRIES] = plain.table().as_slice::<f16>()?.try_into().ok()?;
    let importance = seen.importance();
    let fitted =
        Sorted::weighed(weight, |at| importance[at / seen.size(weight) * seen.columns + at % seen.columns])?;
    // Which table is better shows in some rows; the one that knows nothing is kept where the other is worse in all.
    let tables = [plain, fitted.table()];
    let tried = tables.map(|table| seen.sampled(weight, pool, &table.map(f16::to_f32)));
    let first = usize::from(tried[1]? < tried[0]?);
    let chosen = |table: [f16; ENTRIES]| {
        let wide = table.map(f16::to_f32);
        let mut codes = nearest(weight, &wide)?;
        let error = seen.choose(weight, pool, &mut codes, Stands::Table(&wide))?;
        Some((error, codes, table))
    };
    let mut best = chosen(tables[first])?;
    if first == 1 && best.0 > seen.distance(weight, &plain_lut4(weight)?, pool) {
        best = chosen(plain)?;
    }
    let (_, codes, table) = best;
    let low = |code: i8| code.unsigned_abs() & 15;
    let pairs = codes.chunks(2).map(|pair| low(pair[0]) | pair.get(1).map_or(0, |&code| low(code)) << 4);
    let indices: Vec<u8> = pairs.collect();
    let indices = tensor(Shape::new(&[indices.len()]).ok()?, &indices)?;
    Some(Lut4Weight::new(weight.shape(), indices, tensor(Shape::new(&[ENTRIES]).ok()?, &table)?).ok()?.into())
}

/// The places of the nearest values of a table.
fn nearest(weight: &Weight, table: &[f32; ENTRIES]) -> Option<Vec<i8>> {
    let middles: Vec<f32> = table.windows(2).map(|pair| f32::midpoint(pair[0], pair[1])).collect();
    let mut codes = Vec::with_capacity(weight.shape().count());
    in_pieces(weight, 1, |_, values| {
        let place = |value: &f32| middles.iter().filter(|&&middle| *value > middle).count() as i8;
        codes.extend(values.iter().map(place));
    })?;
    Some(codes)
}

#[cfg(test)]
mod tests;
