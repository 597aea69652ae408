//! From what a user calls a model to a directory of files.

use crate::{cache, guard};
use aneforge::Kind;
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

/// A word is no answer. The caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither true (1, true, t, yes, y, on) nor false (0, false, f, no, n, off)")]
pub struct NoAnswer(pub String);

/// Whether a word says yes, as that in `HF_HUB_OFFLINE` may; case and blanks around it do not matter.
pub fn truth(word: &str) -> Result<bool, NoAnswer> {
    match word.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "t" | "yes" | "y" | "on" => Ok(true),
        "0" | "false" | "f" | "no" | "n" | "off" => Ok(false),
        _ => Err(NoAnswer(word.into())),
    }
}

/// Where models are downloaded from, and to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HubOptions {
    /// The cache directory; by default that of the hub's own tools, which `HF_HUB_CACHE` or `HF_HOME` moves.
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

/// What a model is for, by which it has files that it does not work without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// It reads texts, and has a tokenizer.
    Texts,
    /// It looks at pictures.
    Pictures,
}

impl Reads {
    /// The files without which it does not work, and what to do where they are absent.
    pub(crate) fn required(self) -> &'static [(&'static str, &'static str)] {
        const CONFIG: (&str, &str) =
            ("config.json", "it is no model that this version knows; name another one");
        const TOKENIZER: (&str, &str) =
            ("tokenizer.json", "save the tokenizer in the fast format and pass that local directory");
        match self {
            Reads::Texts => &[CONFIG, TOKENIZER],
            Reads::Pictures => &[CONFIG],
        }
    }
}

/// Files that describe a model, in its root or in the directory of one of its numbered modules.
const DESCRIBING: [&str; 7] = [
    "config.json",
    "tokenizer.json",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "config_sentence_transformers.json",
    "preprocessor_config.json",
];

const WEIGHTS: &str = "model.safetensors";
/// What files of weights are called that are no safetensors.
const OLDER: &str = "pytorch_model.bin";

/// The directory of a model: `name` itself if it is one, else that of the hub id in the cache, downloaded
/// if need be.
pub fn resolve(name: &str, reads: Reads, hub: &HubOptions) -> Result<PathBuf, ResolveError> {
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
    let cache = hub.cache.clone().unwrap_or_else(cache::directory);
    let revision = hub.revision.as_deref().unwrap_or("main");
    match cache::snapshot(&cache, name, revision, reads) {
        // Without modules.json it may have come from a tool that does not know it, and lack the pooling.
        Some(directory)
            if hub.offline || reads == Reads::Pictures || directory.join("modules.json").exists() =>
        {
            Ok(directory)
        }
        None if hub.offline => Err(ResolveError::Offline { id: name.into(), cache }),
        cached => download(name, revision, cache, reads, hub).or_else(|error| match (cached, error) {
            (Some(directory), ResolveError::Download { why, .. }) => {
                tracing::info!("`{name}` comes from the cache, as the hub cannot be asked: {why}");
                Ok(directory)
            }
            (_, error) => Err(error),
        }),
    }
}

/// Downloads what a model needs, and nothing else of its repository.
fn download(
    id: &str,
    revision: &str,
    cache: PathBuf,
    reads: Reads,
    hub: &HubOptions,
) -> Result<PathBuf, ResolveError> {
    let repo = Repo::with_revision(id.to_owned(), RepoType::Model, revision.to_owned());
    let mut builder = ApiBuilder::from_cache(Cache::new(cache::beside_token())).with_progress(hub.progress);
    builder = builder.with_cache_dir(cache);
    if let Some(endpoint) = hub.endpoint.clone().or_else(cache::endpoint) {
        builder = builder.with_endpoint(endpoint);
    }
    let failed = |why| ResolveError::Download { id: id.into(), what: "the list of its files".into(), why };
    fetch(id, reads, &guard::call(|| builder.build()).map_err(failed)?.repo(repo))
}

fn fetch(id: &str, reads: Reads, repo: &ApiRepo) -> Result<PathBuf, ResolveError> {
    let failed = |what: &str, why: String| ResolveError::Download { id: id.into(), what: what.into(), why };
    let listing = guard::call(|| repo.info()).map_err(|why| failed("the list of its files", why))?;
    let files: Vec<String> = listing.siblings.into_iter().map(|s| s.rfilename).collect();
    let absent = |file, remedy| ResolveError::Incomplete { id: id.into(), file, remedy };
    let has = |file: &str| files.iter().any(|f| belongs(f) && base(f) == file);
    for &(file, remedy) in reads.required() {
        if !has(file) {
            return Err(absent(file, remedy));
        }
    }
    let whole = has(WEIGHTS);
    let older = !whole && !files.iter().any(|f| belongs(f) && is_part(f));
    let weights = |file: &str| match (whole, older) {
        _ if !belongs(file) => false,
        (true, _) => base(file) == WEIGHTS,
        (false, false) => is_part(file),
        (false, true) => is_older(file),
    };
    if !files.iter().any(|f| weights(f)) {
        return Err(absent(WEIGHTS, "convert its weights to safetensors and pass a local directory"));
    }
    let mut root = None;
    for file in files.iter().filter(|f| is_description(f) || weights(f)) {
        let path = guard::call(|| repo.get(file)).map_err(|why| failed(&format!("`{file}`"), why))?;
        root = path.ancestors().nth(file.split('/').count()).map(Path::to_owned).or(root);
    }
    root.ok_or_else(|| absent("config.json", "name another model"))
}

/// Whether a file lies in the root or in the directory of a numbered module, such as `1_Pooling`.
fn belongs(file: &str) -> bool {
    match file.split('/').collect::<Vec<_>>()[..] {
        [_] => true,
        [directory, _] => is_module(directory),
        _ => false,
    }
}

/// Whether a folder of this name is a numbered module, such as `1_Pooling`.
pub(crate) fn is_module(folder: &str) -> bool {
    folder.starts_with(|c: char| c.is_ascii_digit()) && folder.contains('_')
}

/// Whether a file describes a model, or holds weights.
pub(crate) fn describes_or_weighs(file: &str) -> bool {
    is_description(file) || belongs(file) && (base(file) == WEIGHTS || is_part(file) || is_older(file))
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

/// Whether a file holds weights as `torch.save` writes them.
fn is_older(file: &str) -> bool {
    let name = base(file);
    name == OLDER
        || name == "pytorch_model.bin.index.json"
        || (name.starts_with("pytorch_model-") && name.ends_with(".bin"))
}

/// Whether a name can be a hub id: one or two parts of letters, digits, `-`, `_` and `.`.
fn is_hub_id(name: &str) -> bool {
    let valid = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(plain)
    };
    name.split('/').count() <= 2 && name.split('/').all(valid)
}

impl ResolveError {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        match self {
            ResolveError::NoDirectory(_) | ResolveError::File(_) => Kind::Caller,
            ResolveError::Offline { .. }
            | ResolveError::Download { .. }
            | ResolveError::Incomplete { .. } => Kind::File,
        }
    }
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
    fn yes_and_no_in_any_case() {
        let answers = |words: &str| words.split(' ').map(truth).collect::<Result<Vec<bool>, _>>();
        assert_eq!(answers("1 true T yes Y oN").unwrap(), [true; 6]);
        assert_eq!(answers("0 false F no N oFF").unwrap(), [false; 6]);
        assert!(["zzz", "2", " ", ""].iter().all(|word| truth(word).is_err()));
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
        let found = resolve("org/name", Reads::Texts, &nowhere(dir.path())).unwrap();
        assert!(found.ends_with("models--org--name/snapshots/abc"));
        let plain = cache(&["config.json", "tokenizer.json", WEIGHTS]);
        let offline = HubOptions { offline: true, ..nowhere(plain.path()) };
        assert!(resolve("org/name", Reads::Texts, &offline).is_ok());
    }

    #[test]
    fn networks_for_pictures_have_no_tokenizer_and_may_have_older_weights() {
        for weights in [WEIGHTS, OLDER] {
            let dir = cache(&["config.json", weights]);
            let found = resolve("org/name", Reads::Pictures, &nowhere(dir.path())).unwrap();
            assert!(found.ends_with("snapshots/abc"));
            assert!(resolve("org/name", Reads::Texts, &nowhere(dir.path())).is_err());
        }
    }

    #[test]
    fn what_a_complete_cache_may_look_like() {
        let load = |dir: &tempfile::TempDir| resolve("org/name", Reads::Texts, &nowhere(dir.path()));
        let model = |dir: &tempfile::TempDir| dir.path().join("models--org--name");
        let files = ["config.json", "tokenizer.json", WEIGHTS];
        let unreachable = cache(&files);
        assert!(load(&unreachable).unwrap().ends_with("snapshots/abc"));

        let newline = cache(&files);
        std::fs::write(model(&newline).join("refs/main"), "abc\n").unwrap();
        assert!(load(&newline).unwrap().ends_with("snapshots/abc"));

        let copied = cache(&files);
        std::fs::remove_dir_all(model(&copied).join("refs")).unwrap();
        assert!(load(&copied).unwrap().ends_with("snapshots/abc"));

        for name in ["main", "pr/1"] {
            let emptied = cache(&files);
            let references = model(&emptied).join("refs");
            std::fs::remove_file(references.join("main")).unwrap();
            assert!(load(&emptied).unwrap().ends_with("snapshots/abc"), "no reference is left");
            let reference = references.join(name);
            std::fs::create_dir_all(reference.parent().unwrap()).unwrap();
            std::fs::write(&reference, "\n").unwrap();
            assert!(load(&emptied).unwrap().ends_with("snapshots/abc"), "{name} is empty");
            std::fs::write(&reference, "def").unwrap();
            assert!(load(&emptied).is_err(), "{name} refers to what is not there");
        }

        let parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        let sharded = cache(&["config.json", "tokenizer.json", parts[0], parts[1]]);
        let index = format!(r#"{{"weight_map":{{"a":"{}","b":"{}"}}}}"#, parts[0], parts[1]);
        let snapshot = model(&sharded).join("snapshots/abc");
        std::fs::write(snapshot.join("model.safetensors.index.json"), index).unwrap();
        assert_eq!(load(&sharded).unwrap(), snapshot);
        std::fs::remove_file(snapshot.join(parts[1])).unwrap();
        assert!(load(&sharded).is_err(), "a part is missing");

        let nested = cache(&[]);
        let inner = model(&nested).join("snapshots/abc/0_Transformer");
        std::fs::create_dir(&inner).unwrap();
        for file in files {
            std::fs::write(inner.join(file), "").unwrap();
        }
        assert!(load(&nested).unwrap().ends_with("snapshots/abc"));

        let elsewhere = cache(&files);
        std::fs::write(model(&elsewhere).join("refs/main"), "../../..").unwrap();
        assert!(load(&elsewhere).is_err());
    }

    #[test]
    fn without_a_network_the_error_names_the_id_and_the_remedy() {
        let dir = cache(&["config.json"]);
        let message = resolve("org/name", Reads::Texts, &nowhere(dir.path())).unwrap_err().to_string();
        let start =
            "`org/name` is not a directory, and the list of its files could not be downloaded from the hub: ";
        assert!(message.starts_with(start), "{message}");
        assert!(message.ends_with("check the id and the network, or pass a local directory"), "{message}");
        let offline = HubOptions { offline: true, ..nowhere(dir.path()) };
        let message = resolve("org/name", Reads::Texts, &offline).unwrap_err().to_string();
        assert!(message.starts_with("`org/name` is neither a directory nor complete in the hub's cache"));
    }

    #[test]
    fn paths_that_lead_nowhere_are_errors() {
        let hub = HubOptions::default();
        let message = resolve("/no/such/model", Reads::Texts, &hub).unwrap_err().to_string();
        assert!(message.starts_with("there is no directory `/no/such/model`; check the path"), "{message}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let message = resolve(file.path().to_str().unwrap(), Reads::Texts, &hub).unwrap_err().to_string();
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
