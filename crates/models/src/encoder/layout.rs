//! What the files of a sentence-transformers directory say.

use super::error::LoadError;
use super::pooling::{Pooling, PoolingConfig};
use crate::transformer::config::optional;
use crate::transformer::run::{SentenceConfig, longest};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// What `config_sentence_transformers.json` says of how texts are to be given, and vectors compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Prompts {
    /// What precedes texts of a kind, such as `query`.
    #[serde(default)]
    pub prompts: BTreeMap<String, String>,
    /// The kind that texts are of where none is given.
    #[serde(rename = "default_prompt_name", default)]
    pub default: Option<String>,
    /// How vectors are compared: `cosine`, `dot`, `euclidean` or `manhattan`.
    #[serde(rename = "similarity_fn_name", default)]
    pub similarity: Option<String>,
}

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
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
    pub(super) prompts: Prompts,
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
        let lowercase = sentence.do_lower_case;
        let max_seq_length = match most {
            None => longest(&transformer, &sentence)?,
            given => given,
        };
        let prompts = optional(&directory.join("config_sentence_transformers.json"))?.unwrap_or_default();
        Ok(Layout { prompts, transformer, pooling, max_seq_length, lowercase, normalizes })
    }
}
