//! From what a user calls a model to a directory of files.

use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use std::path::{Path, PathBuf};

/// No directory could be found for a model's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The name is a path, and nothing is there.
    #[error("there is no directory `{0}`; check the path, or pass a hub id such as `organisation/model`")]
    NoDirectory(PathBuf),
    /// The name is a file.
    #[error("`{0}` is a file; pass the directory that holds config.json, tokenizer.json and the weights")]
    File(PathBuf),
    /// The model is not in the cache, and the network may not be used.
    #[error(
        "`{id}` is neither a directory nor complete in the hub's cache at `{cache}`, and downloads are switched off; pass a local directory, or allow downloads"
    )]
    Offline {
        /// The hub id.
        id: String,
        /// The cache.
        cache: PathBuf,
    },
    /// The download failed.
    #[error(
        "`{id}` is not a directory, and {what} could not be downloaded from the hub: {why}; check the id and the network, or pass a local directory"
    )]
    Download {
        /// The hub id.
        id: String,
        /// Which file, or the list of them.
        what: String,
        /// What the hub's client says.
        why: String,
    },
    /// The model's repository has not the files that are needed.
    #[error("`{id}` on the hub has no {file}; {remedy}")]
    Incomplete {
        /// The hub id.
        id: String,
        /// What it lacks.
        file: &'static str,
        /// What to do.
        remedy: &'static str,
    },
}

/// Where models are downloaded from, and to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HubOptions {
    /// The cache directory; by default that of the hub's own tools, which `HF_HOME` moves.
    pub cache: Option<PathBuf>,
    /// Use only what the cache holds.
    pub offline: bool,
    /// The branch, tag or commit; by default `main`.
    pub revision: Option<String>,
    /// The server; by default the public one, which `HF_ENDPOINT` replaces.
    pub endpoint: Option<String>,
    /// Show progress bars of downloads on the terminal.
    pub progress: bool,
}

/// The files without which no model works, and what to do where they are absent.
const REQUIRED: [(&str, &str); 2] = [
    ("config.json", "it is no transformer that this version knows; name another model"),
    ("tokenizer.json", "save the tokenizer in the fast format and pass that local directory"),
];

/// Files that describe a model, in its root or in the directory of one of its numbered modules.
const DESCRIBING: [&str; 4] = ["config.json", "tokenizer.json", "modules.json", "sentence_bert_config.json"];

const WEIGHTS: &str = "model.safetensors";

/// The directory of a model: `name` itself if it is one, else that of the hub id in the cache, downloaded
/// if need be.
pub fn resolve(name: &str, hub: &HubOptions) -> Result<PathBuf, ResolveError> {
    let path = Path::new(name);
    if path.is_dir() {
        return Ok(path.to_owned());
    }
    if path.is_file() {
        return Err(ResolveError::File(path.to_owned()));
    }
    if !is_hub_id(name) {
        return Err(ResolveError::NoDirectory(path.to_owned()));
    }
    let revision = hub.revision.clone().unwrap_or_else(|| "main".into());
    let repo = Repo::with_revision(name.to_owned(), RepoType::Model, revision);
    let cache = hub.cache.clone().map_or_else(Cache::from_env, Cache::new);
    let cached = |file: &str| cache.repo(repo.clone()).get(file);
    if let (Some(config), Some(_), Some(_)) =
        (cached("config.json"), cached("tokenizer.json"), cached(WEIGHTS))
        && (hub.offline || cached("modules.json").is_some())
        && let Some(directory) = config.parent()
    {
        return Ok(directory.to_owned());
    }
    if hub.offline {
        return Err(ResolveError::Offline { id: name.into(), cache: cache.path().clone() });
    }
    let failed = |what: &str, why: String| ResolveError::Download { id: name.into(), what: what.into(), why };
    let mut builder = ApiBuilder::from_env().with_progress(hub.progress);
    if let Some(directory) = &hub.cache {
        builder = builder.with_cache_dir(directory.clone());
    }
    if let Some(endpoint) = &hub.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    let api = builder.build().map_err(|e| failed("the list of its files", e.to_string()))?;
    download(name, &api.repo(repo))
}

/// Downloads what a model needs, and nothing else of its repository.
fn download(id: &str, repo: &ApiRepo) -> Result<PathBuf, ResolveError> {
    let failed = |what: &str, why: String| ResolveError::Download { id: id.into(), what: what.into(), why };
    let listing = repo.info().map_err(|e| failed("the list of its files", e.to_string()))?;
    let files: Vec<String> = listing.siblings.into_iter().map(|s| s.rfilename).collect();
    let absent = |file, remedy| ResolveError::Incomplete { id: id.into(), file, remedy };
    let has = |file: &str| files.iter().any(|f| belongs(f) && base(f) == file);
    for (file, remedy) in REQUIRED {
        if !has(file) {
            return Err(absent(file, remedy));
        }
    }
    let whole = has(WEIGHTS);
    let weights = |file: &str| belongs(file) && if whole { base(file) == WEIGHTS } else { is_part(file) };
    if !files.iter().any(|f| weights(f)) {
        return Err(absent(WEIGHTS, "convert its weights to safetensors and pass a local directory"));
    }
    let mut root = None;
    for file in files.iter().filter(|f| is_description(f) || weights(f)) {
        let path = repo.get(file).map_err(|e| failed(&format!("`{file}`"), e.to_string()))?;
        root = path.ancestors().nth(file.split('/').count()).map(Path::to_owned).or(root);
    }
    root.ok_or_else(|| absent("config.json", "name another model"))
}

/// Whether a file lies in the root or in the directory of a numbered module, such as `1_Pooling`.
fn belongs(file: &str) -> bool {
    match file.split('/').collect::<Vec<_>>()[..] {
        [_] => true,
        [directory, _] => directory.starts_with(|c: char| c.is_ascii_digit()) && directory.contains('_'),
        _ => false,
    }
}

fn base(file: &str) -> &str {
    file.rsplit_once('/').map_or(file, |(_, name)| name)
}

fn is_description(file: &str) -> bool {
    belongs(file) && DESCRIBING.contains(&base(file))
}

fn is_part(file: &str) -> bool {
    let name = base(file);
    name == "model.safetensors.index.json" || (name.starts_with("model-") && name.ends_with(".safetensors"))
}

/// Whether a name can be a hub id: one or two parts of letters, digits, `-`, `_` and `.`.
fn is_hub_id(name: &str) -> bool {
    let valid = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(plain)
    };
    name.split('/').count() <= 2 && name.split('/').all(valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing listens on this port: it is the discard service's.
    fn nowhere(cache: &Path) -> HubOptions {
        let endpoint = Some("http://127.0.0.1:9".into());
        HubOptions { cache: Some(cache.to_owned()), endpoint, ..HubOptions::default() }
    }

    /// A cache as the hub's tools lay it out, with these files.
    fn cache(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("models--org--name");
        std::fs::create_dir_all(model.join("refs")).unwrap();
        std::fs::write(model.join("refs/main"), "abc").unwrap();
        std::fs::create_dir_all(model.join("snapshots/abc")).unwrap();
        for file in files {
            std::fs::write(model.join("snapshots/abc").join(file), "").unwrap();
        }
        dir
    }

    #[test]
    fn paths_and_ids_are_told_apart() {
        for id in ["org/name", "bert-base-uncased", "sentence-transformers/all-MiniLM-L6-v2"] {
            assert!(is_hub_id(id), "{id}");
        }
        for path in ["", "/abs", "./x", "../x", "a/b/c", "~/x", "a\\b", "org/", "a b"] {
            assert!(!is_hub_id(path), "{path}");
        }
    }

    #[test]
    fn a_cached_model_needs_no_network() {
        let dir = cache(&["config.json", "tokenizer.json", WEIGHTS, "modules.json"]);
        let found = resolve("org/name", &nowhere(dir.path())).unwrap();
        assert!(found.ends_with("models--org--name/snapshots/abc"));
        let plain = cache(&["config.json", "tokenizer.json", WEIGHTS]);
        let offline = HubOptions { offline: true, ..nowhere(plain.path()) };
        assert!(resolve("org/name", &offline).is_ok());
    }

    #[test]
    fn without_a_network_the_error_names_the_id_and_the_remedy() {
        let dir = cache(&["config.json"]);
        let message = resolve("org/name", &nowhere(dir.path())).unwrap_err().to_string();
        let start =
            "`org/name` is not a directory, and the list of its files could not be downloaded from the hub: ";
        assert!(message.starts_with(start), "{message}");
        assert!(message.ends_with("check the id and the network, or pass a local directory"), "{message}");
        let offline = HubOptions { offline: true, ..nowhere(dir.path()) };
        let message = resolve("org/name", &offline).unwrap_err().to_string();
        assert!(message.starts_with("`org/name` is neither a directory nor complete in the hub's cache"));
    }

    #[test]
    fn paths_that_lead_nowhere_are_errors() {
        let hub = HubOptions::default();
        let message = resolve("/no/such/model", &hub).unwrap_err().to_string();
        assert!(message.starts_with("there is no directory `/no/such/model`; check the path"), "{message}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let message = resolve(file.path().to_str().unwrap(), &hub).unwrap_err().to_string();
        assert!(message.contains("is a file; pass the directory that holds config.json"), "{message}");
    }

    #[test]
    fn only_files_of_the_model_are_downloaded() {
        let wanted = |f: &str| is_description(f) || belongs(f) && is_part(f);
        assert!(
            ["config.json", "1_Pooling/config.json", "0_Transformer/model-00001-of-2.safetensors"]
                .map(wanted)
                == [true; 3]
        );
        assert!(
            ["onnx/model.onnx", "onnx/config.json", "../config.json", "README.md"].map(wanted) == [false; 4]
        );
    }
}
