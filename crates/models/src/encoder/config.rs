use super::error::LoadError;
use super::pooling::{Pooling, PoolingConfig};
use crate::MOST_TEXT;
use aneforge_formats::read;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::{Component, Path, PathBuf};

/// The function between the two halves of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    Gelu,
    GeluTanh,
    Relu,
    Silu,
}

#[derive(Deserialize)]
struct RawConfig {
    model_type: Option<String>,
    hidden_size: usize,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    layer_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    position_embedding_type: Option<String>,
    pad_token_id: Option<u32>,
}

/// What `config.json` says of a BERT.
#[derive(Clone, Copy, Debug)]
pub(super) struct BertConfig {
    pub(super) hidden: usize,
    pub(super) heads: usize,
    pub(super) layers: usize,
    pub(super) intermediate: usize,
    pub(super) positions: usize,
    pub(super) eps: f64,
    pub(super) activation: Activation,
    pub(super) pad: u32,
}

impl BertConfig {
    pub(super) fn read(path: &Path) -> Result<BertConfig, LoadError> {
        let raw: RawConfig = json(path)?;
        let fail = |why| LoadError::Config { path: path.to_owned(), why };
        raw.check().map_err(fail)
    }
}

/// Far more than the sizes of any encoder, and so few that products of three do not overflow.
const LARGEST: usize = 1 << 20;

impl RawConfig {
    fn check(self) -> Result<BertConfig, String> {
        if let Some(kind) = self.model_type.as_deref().filter(|&k| k != "bert") {
            return Err(format!(
                "model type `{kind}` is not supported; sentence encoders are of type `bert`"
            ));
        }
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        let sizes = [
            ("hidden_size", hidden),
            ("num_attention_heads", heads),
            ("num_hidden_layers", self.num_hidden_layers),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        if let Some((name, _)) = sizes.into_iter().find(|&(_, size)| size == 0) {
            return Err(format!("{name} is 0; it must be at least 1"));
        }
        if let Some((name, size)) = sizes.into_iter().find(|&(_, size)| size > LARGEST) {
            return Err(format!("{name} is {size}; more than {LARGEST} is no encoder that could be loaded"));
        }
        if hidden % heads != 0 {
            return Err(format!("hidden_size {hidden} does not divide into {heads} attention heads"));
        }
        if let Some(kind) = self.position_embedding_type.filter(|k| k != "absolute") {
            return Err(format!("position_embedding_type `{kind}` is not supported; only `absolute` is"));
        }
        let activation = match self.hidden_act.as_deref() {
            None | Some("gelu") => Activation::Gelu,
            Some("gelu_new" | "gelu_pytorch_tanh") => Activation::GeluTanh,
            Some("relu") => Activation::Relu,
            Some("silu" | "swish") => Activation::Silu,
            Some(other) => {
                let known = "gelu, gelu_new, gelu_pytorch_tanh, relu, silu and swish";
                return Err(format!("hidden_act `{other}` is not supported; {known} are"));
            }
        };
        let eps = self.layer_norm_eps.unwrap_or(1e-12);
        if !(0.0..=1.0).contains(&eps) {
            return Err(format!("layer_norm_eps {eps:e} is not a small positive number"));
        }
        Ok(BertConfig {
            hidden,
            heads,
            layers: self.num_hidden_layers,
            intermediate: self.intermediate_size,
            positions: self.max_position_embeddings,
            eps,
            activation,
            pad: self.pad_token_id.unwrap_or(0),
        })
    }
}

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize, Default)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

#[derive(Deserialize, Default)]
struct TokenizerConfig {
    /// A huge number where there is no limit.
    model_max_length: Option<f64>,
}

/// What the files of a sentence-transformers directory say, with the defaults for what they leave open.
#[derive(Debug)]
pub(super) struct Layout {
    /// The directory of configuration, tokenizer and weights.
    pub(super) transformer: PathBuf,
    pub(super) pooling: Pooling,
    pub(super) max_seq_length: Option<usize>,
    pub(super) lowercase: bool,
    /// Whether the model ends in a module that normalises.
    pub(super) normalizes: bool,
}

impl Layout {
    /// Reads `modules.json` and what it names; `pooling` overrides the pooling module, `most` the
    /// most tokens of a text.
    pub(super) fn read(
        directory: &Path,
        pooling: Option<Pooling>,
        most: Option<usize>,
    ) -> Result<Layout, LoadError> {
        let mut transformer = directory.to_owned();
        let mut pooler = directory.join("1_Pooling");
        let mut normalizes = false;
        let path = directory.join("modules.json");
        for module in optional::<Vec<Module>>(&path)?.unwrap_or_default() {
            let fail = |why| LoadError::Config { path: path.clone(), why };
            let inner = Path::new(&module.path);
            if !inner.components().all(|c| matches!(c, Component::Normal(_))) {
                return Err(fail(format!(
                    "module path `{}` leaves the directory; do not trust it",
                    module.path
                )));
            }
            match module.kind.rsplit('.').next() {
                // Joining nothing would end the path in a separator.
                Some("Transformer") if module.path.is_empty() => {}
                Some("Transformer") => transformer = directory.join(inner),
                Some("Pooling") => pooler = directory.join(inner),
                Some("Normalize") => normalizes = true,
                _ => {
                    let (name, kind) = (module.path, module.kind);
                    return Err(fail(format!("module `{name}` of type `{kind}` is not supported")));
                }
            }
        }
        let pooling = match pooling {
            Some(pooling) => pooling,
            None => {
                let path = pooler.join("config.json");
                let config = optional::<PoolingConfig>(&path)?;
                config.map_or(Ok(Pooling::Mean), |c| c.mode(&path.display().to_string()))?
            }
        };
        let sentence: SentenceConfig =
            optional(&transformer.join("sentence_bert_config.json"))?.unwrap_or_default();
        let tokenizer: TokenizerConfig =
            optional(&transformer.join("tokenizer_config.json"))?.unwrap_or_default();
        let lowercase = sentence.do_lower_case;
        let max_seq_length = match most {
            None => longest(&transformer, &sentence, &tokenizer)?,
            given => given,
        };
        Ok(Layout { transformer, pooling, max_seq_length, lowercase, normalizes })
    }
}

/// The most tokens of a text, where the files say so.
fn longest(
    transformer: &Path,
    sentence: &SentenceConfig,
    tokenizer: &TokenizerConfig,
) -> Result<Option<usize>, LoadError> {
    let (file, name, most) = match sentence.max_seq_length {
        Some(most) => ("sentence_bert_config.json", "max_seq_length", Some(most as f64)),
        None => ("tokenizer_config.json", "model_max_length", tokenizer.model_max_length),
    };
    match most {
        Some(most) if most < 1.0 => Err(LoadError::Config {
            path: transformer.join(file),
            why: format!("{name} is {most}; it must be at least 1"),
        }),
        most => Ok(most.map(|most| most as usize)),
    }
}

/// The contents of a file that need not be there.
fn optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, LoadError> {
    if path.exists() { json(path).map(Some) } else { Ok(None) }
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T, LoadError> {
    let bytes = read(path, MOST_TEXT)?;
    serde_json::from_slice(&bytes).map_err(|e| LoadError::Json { path: path.to_owned(), why: e.to_string() })
}
