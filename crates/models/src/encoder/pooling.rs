use aneforge::Kind;
use serde::Deserialize;

/// How the states of a text's tokens become one vector. Padding never takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The state of the first token.
    Cls,
    /// The greatest of each component.
    Max,
}

impl Pooling {
    /// The name by which it is asked for.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Mean => "mean",
            Pooling::Cls => "cls",
            Pooling::Max => "max",
        }
    }
}

/// A model pools in a way that cannot be computed. The file's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{file}` asks for {mode}, which is not supported; pass `pooling` as one of mean, cls, max to override it"
)]
pub struct PoolingError {
    /// The file.
    pub file: String,
    /// The mode.
    pub mode: String,
}

/// `1_Pooling/config.json` of a sentence-transformers directory.
#[derive(Deserialize)]
pub(super) struct PoolingConfig {
    #[serde(default)]
    pooling_mode: Option<String>,
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
    #[serde(default)]
    pooling_mode_weightedmean_tokens: bool,
    #[serde(default)]
    pooling_mode_lasttoken: bool,
}

impl PoolingConfig {
    pub(super) fn mode(&self, file: &str) -> Result<Pooling, PoolingError> {
        let flags = [
            (self.pooling_mode_cls_token, "cls"),
            (self.pooling_mode_mean_tokens, "mean"),
            (self.pooling_mode_max_tokens, "max"),
            (self.pooling_mode_mean_sqrt_len_tokens, "mean_sqrt_len_tokens"),
            (self.pooling_mode_weightedmean_tokens, "weightedmean"),
            (self.pooling_mode_lasttoken, "lasttoken"),
        ];
        let chosen: Vec<&str> = flags.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
        let mode = self.pooling_mode.clone().unwrap_or_else(|| match &chosen[..] {
            [] => "mean".into(),
            names => names.join(" and "),
        });
        match mode.as_str() {
            "mean" => Ok(Pooling::Mean),
            "cls" => Ok(Pooling::Cls),
            "max" => Ok(Pooling::Max),
            _ => Err(PoolingError { file: file.into(), mode: format!("{mode} pooling") }),
        }
    }
}

impl Pooling {
    /// One vector of `states`, which is `[tokens, dim]`; zeros when there is no token.
    pub(super) fn pool(self, states: &[f32], dim: usize) -> Vec<f32> {
        let rows = states.chunks_exact(dim);
        let count = rows.len();
        match self {
            _ if count == 0 => vec![0.0; dim],
            Pooling::Cls => states[..dim].to_vec(),
            Pooling::Max => rows.fold(vec![f32::NEG_INFINITY; dim], |mut best, row| {
                best.iter_mut().zip(row).for_each(|(b, v)| *b = b.max(*v));
                best
            }),
            Pooling::Mean => {
                let mut sums = vec![0.0f64; dim];
                for row in rows {
                    sums.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v));
                }
                sums.into_iter().map(|s| (s / count as f64) as f32).collect()
            }
        }
    }
}

/// Scales a vector to unit length; zeros stay.
pub(super) fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt().max(1e-12);
    vector.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
}

impl PoolingError {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        Kind::File
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_pooling() {
        let states = [1.0, -2.0, 3.0, 4.0];
        assert_eq!(Pooling::Mean.pool(&states, 2), [2.0, 1.0]);
        assert_eq!(Pooling::Cls.pool(&states, 2), [1.0, -2.0]);
        assert_eq!(Pooling::Max.pool(&states, 2), [3.0, 4.0]);
        assert_eq!(Pooling::Mean.pool(&[], 2), [0.0, 0.0]);
    }

    #[test]
    fn zeros_have_no_direction() {
        let mut vector = [0.0; 3];
        normalize(&mut vector);
        assert_eq!(vector, [0.0; 3]);
    }

    #[test]
    fn modes_that_cannot_be_computed_are_refused() {
        let mode = |text: &str| serde_json::from_str::<PoolingConfig>(text).unwrap().mode("f");
        assert_eq!(mode("{}"), Ok(Pooling::Mean));
        assert_eq!(mode(r#"{"pooling_mode_cls_token":true}"#), Ok(Pooling::Cls));
        assert_eq!(mode(r#"{"pooling_mode":"max"}"#), Ok(Pooling::Max));
        let both = r#"{"pooling_mode_cls_token":true,"pooling_mode_max_tokens":true}"#;
        let message = mode(both).unwrap_err().to_string();
        assert!(message.starts_with("`f` asks for cls and max pooling, which is not supported"), "{message}");
        assert!(mode(r#"{"pooling_mode_lasttoken":true}"#).is_err());
    }
}
