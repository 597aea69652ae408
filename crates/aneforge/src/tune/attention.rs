//! Into how many parts attention is cut.

use super::{Bench, SEED, TuneError, filled};
use crate::artifact::Measured;
use crate::device::DeviceError;
use crate::ir::var::Var;
use crate::nn::{AttentionWeights, cross_attention_in_parts};
use crate::session::RunError;
use aneforge_tensor::{Shape, ShapeError, Tensor, random};
use serde_json::json;
use std::path::Path;

/// The numbers of parts that are tried by default.
pub const CANDIDATES: [usize; 7] = [1, 2, 3, 4, 5, 6, 8];

/// What the time of attention depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttentionShape {
    /// The number of queries.
    pub queries: usize,
    /// The number of keys.
    pub keys: usize,
    /// The number of heads.
    pub heads: usize,
    /// The size of a head.
    pub size: usize,
}

impl AttentionShape {
    /// What the best number of parts is kept under: it belongs to a processor.
    pub fn key(&self) -> String {
        let AttentionShape { queries, keys, heads, size } = self;
        format!("attn_tiles:{}:{queries}:{keys}:{heads}:{size}", processor())
    }

    /// The best number of parts, if it was measured and kept in this folder.
    ///
    /// ```
    /// use aneforge::tune::AttentionShape;
    /// let shape = AttentionShape { queries: 800, keys: 800, heads: 2, size: 4 };
    /// let folder = std::env::temp_dir().join("aneforge-doc-attention");
    /// shape.keep(3, &folder)?;
    /// assert_eq!(shape.known(&folder), Some(3));
    /// # std::fs::remove_dir_all(&folder)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn known(&self, folder: &Path) -> Option<usize> {
        let parts = Measured::new(folder).get(&self.key())?.as_u64()?;
        usize::try_from(parts).ok().filter(|&parts| parts > 0)
    }

    /// Keeps the best number of parts in this folder.
    pub fn keep(&self, parts: usize, folder: &Path) -> Result<(), TuneError> {
        Ok(Measured::new(folder).put(&self.key(), json!(parts))?)
    }

    /// Attention of this shape in so many parts each, and what to feed it.
    fn graphs(&self, candidates: &[usize]) -> Result<(Vec<Var>, [Tensor; 2]), RunError> {
        let width = self.heads.saturating_mul(self.size);
        let normal = |seed: u64, rows: usize, scale: f32| {
            let unsupported =
                |why: ShapeError| DeviceError::Unsupported { op: "attention", why: why.to_string() };
            let shape = Shape::new(&[rows, width]).map_err(unsupported)?;
            filled(shape, |i| scale * random::normal(SEED + seed, i))
        };
        let feeds = [normal(0, self.queries, 1.0)?, normal(1, self.keys, 1.0)?];
        let matrix =
            |seed| Ok::<_, DeviceError>(Var::constant(normal(seed, width, (width as f32).powf(-0.5))?));
        let (wq, wk, wv, wo) = (matrix(2)?, matrix(3)?, matrix(4)?, matrix(5)?);
        let weights = AttentionWeights { wq, bq: None, wk, bk: None, wv, bv: None, wo, bo: None };
        let [x, context] = feeds.each_ref().map(|feed| Var::input(feed.shape()));
        let graph = |&parts: &usize| cross_attention_in_parts(&x, &context, &weights, self.heads, parts);
        Ok((candidates.iter().map(graph).collect(), feeds))
    }
}

/// The candidate in whose parts attention takes the least median time; it is kept in the bench's folder, if it has one,
/// but not looked up there.
///
/// ```
/// use aneforge::tune::{AttentionShape, Bench, tune_attention};
/// let shape = AttentionShape { queries: 12, keys: 12, heads: 2, size: 4 };
/// let bench = Bench::on(aneforge::device::named("host")?).reps(1);
/// let parts = tune_attention(&shape, &[1, 2, 3], &bench)?;
/// assert!((1..=3).contains(&parts));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn tune_attention(
    shape: &AttentionShape,
    candidates: &[usize],
    bench: &Bench,
) -> Result<usize, TuneError> {
    let mut fastest: Option<(usize, f64)> = None;
    let (graphs, feeds) = shape.graphs(candidates)?;
    for (&parts, y) in candidates.iter().zip(&graphs) {
        let Some((_, times)) = bench.run(y, &bench.compile, &feeds)? else { continue };
        let time = median(times);
        if fastest.is_none_or(|(_, least)| time < least) {
            fastest = Some((parts, time));
        }
    }
    let (parts, _) = fastest
        .ok_or_else(|| TuneError::NoParts { candidates: candidates.to_vec(), queries: shape.queries })?;
    if let Some(folder) = &bench.cache {
        shape.keep(parts, folder)?;
    }
    Ok(parts)
}

/// The middle one, or the mean of the two in the middle.
fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    if times.len() % 2 == 1 { times[middle] } else { (times[middle - 1] + times[middle]) / 2.0 }
}

/// The processor's name, which measurements belong to.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named =
        text.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
    let apple = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("macos", "aarch64") => "arm",
        ("macos", _) => "i386",
        _ => "unknown",
    };
    named.map_or(apple, |(_, name)| name.trim()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device;

    const SHAPE: AttentionShape = AttentionShape { queries: 9, keys: 5, heads: 2, size: 4 };

    #[test]
    fn the_fastest_is_kept_and_none_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let host = device::named("host").unwrap();
        let bench = Bench::on(host).reps(1).cache(folder.path());
        assert_eq!(SHAPE.known(folder.path()), None);
        let parts = tune_attention(&SHAPE, &[1, 3], &bench).unwrap();
        assert_eq!(SHAPE.known(folder.path()), Some(parts));
        assert!(SHAPE.key().starts_with("attn_tiles:") && SHAPE.key().ends_with(":9:5:2:4"));
        SHAPE.keep(0, folder.path()).unwrap();
        assert_eq!(SHAPE.known(folder.path()), None);
        let error = tune_attention(&SHAPE, &[], &bench).unwrap_err();
        assert_eq!(error.to_string(), "tune_attention: none of () parts of 9 queries could run");
    }

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!((median(vec![3.0, 1.0, 2.0]), median(vec![4.0, 1.0, 2.0, 3.0])), (2.0, 2.5));
    }
}
