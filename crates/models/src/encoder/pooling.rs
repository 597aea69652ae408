use aneforge::Kind;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

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
    pooling_mode: Option<String>,
    #[serde(default)]
    pooling_mode_cls_token: bool,
    /// True where the file does not say, and names no other.
    pooling_mode_mean_tokens: Option<bool>,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    /// Other modes among the rest.
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

impl PoolingConfig {
    pub(super) fn mode(&self, file: &str) -> Result<Pooling, PoolingError> {
        let flags = [
            (self.pooling_mode_cls_token, "cls"),
            (self.pooling_mode_mean_tokens == Some(true), "mean"),
            (self.pooling_mode_max_tokens, "max"),
        ];
        let others = self.rest.iter().filter_map(|(name, value)| {
            Some((*value == Value::Bool(true), name.strip_prefix("pooling_mode_")?))
        });
        let chosen: Vec<&str> =
            flags.into_iter().chain(others).filter(|(on, _)| *on).map(|(_, name)| name).collect();
        let mode = self.pooling_mode.clone().unwrap_or_else(|| match &chosen[..] {
            [] if self.pooling_mode_mean_tokens.is_none() => "mean".into(),
            names => names.join(" and "),
        });
        match mode.to_ascii_lowercase().as_str() {
            "mean" => Ok(Pooling::Mean),
            "cls" => Ok(Pooling::Cls),
            "max" => Ok(Pooling::Max),
            "" => Err(PoolingError { file: file.into(), mode: "no pooling at all".into() }),
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

impl Pooling {
    /// One vector of those of a text's parts, each with its tokens.
    pub(super) fn join(self, parts: &[(&[f32], usize)], dim: usize) -> Vec<f32> {
        let all = parts.iter().map(|(_, tokens)| *tokens as f64).sum::<f64>();
        let of = |at: usize| {
            let values = parts.iter().map(|(vector, tokens)| (f64::from(vector[at]), *tokens as f64));
            match self {
                Pooling::Max => values.map(|(v, _)| v).fold(f64::NEG_INFINITY, f64::max) as f32,
                Pooling::Mean | Pooling::Cls => {
                    values.map(|(v, tokens)| v * tokens / all).sum::<f64>() as f32
                }
            }
        };
        (0..dim).map(of).collect()
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
        for other in ["lasttoken", "weightedmean_tokens", "unheard_of"] {
            let message = mode(&format!(r#"{{"pooling_mode_{other}":true}}"#)).unwrap_err().to_string();
            assert!(message.starts_with(&format!("`f` asks for {other} pooling, ")), "{message}");
        }
        for none in [r#"{"pooling_mode_mean_tokens":false}"#, r#"{"pooling_mode":""}"#] {
            let message = mode(none).unwrap_err().to_string();
            assert!(
                message.starts_with("`f` asks for no pooling at all, which is not supported"),
                "{message}"
            );
        }
        assert_eq!(
            mode(r#"{"pooling_mode_cls_token":false,"word_embedding_dimension":4}"#),
            Ok(Pooling::Mean)
        );
    }
}
