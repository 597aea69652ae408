//! Where compiled programs are kept from call to call.

use crate::exit::caller;
use aneforge::artifact::{Cache, UnknownSize, size_named};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// Which cache is meant.
#[derive(clap::Args)]
pub struct Place {
    /// Folder of the cache [default: `.cache/aneforge` at home]
    #[arg(long, value_name = "DIR", env = "ANEFORGE_CACHE_DIR", hide_env_values = true)]
    cache_dir: Option<PathBuf>,

    /// Bytes that programs in the cache may take, such as `512M`; those that were not used for longest go first [default: `4G`]
    #[arg(
        long,
        value_name = "BYTES",
        env = "ANEFORGE_CACHE_LIMIT",
        hide_env_values = true,
        value_parser = size
    )]
    cache_limit: Option<u64>,
}

impl Place {
    /// The cache that is meant.
    pub fn open(&self) -> Result<Cache> {
        Ok(Cache::new(&self.folder()?).limit(self.limit()))
    }

    /// Its folder.
    pub fn folder(&self) -> Result<PathBuf> {
        self.cache_dir.as_deref().map_or_else(default, expanded)
    }

    /// Bytes that programs may take.
    pub fn limit(&self) -> u64 {
        self.cache_limit.unwrap_or(Cache::LIMIT)
    }
}

/// A folder as it was named, with `~` for home.
fn expanded(folder: &Path) -> Result<PathBuf> {
    match folder.strip_prefix("~") {
        Ok(within) => Ok(home()?.join(within)),
        Err(_) => Ok(folder.to_owned()),
    }
}

/// Programs of the engine, within a cache's folder.
pub fn engine(folder: &Path) -> PathBuf {
    folder.join("engine")
}

/// Whether a cache is used, and which.
#[derive(clap::Args)]
pub struct Use {
    /// Take the program from the cache if it is there, and keep it there if not: by a hash of graph, weights, options and version
    #[arg(long)]
    cache: bool,

    #[command(flatten)]
    place: Place,
}

impl Use {
    /// Where things are kept, whether or not programs are.
    pub fn folder(&self) -> Result<PathBuf> {
        self.place.folder()
    }

    /// The cache, if one is used.
    pub fn open(&self) -> Result<Option<Cache>> {
        self.cache.then(|| self.place.open()).transpose()
    }
}

/// Where things are kept when no option says where: by `ANEFORGE_CACHE_DIR`, or at home.
pub fn default() -> Result<PathBuf> {
    let named = std::env::var_os("ANEFORGE_CACHE_DIR").filter(|folder| !folder.is_empty());
    if let Some(folder) = named {
        return expanded(Path::new(&folder));
    }
    Ok(home()?.join(".cache/aneforge"))
}

fn home() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    home.map(PathBuf::from)
        .ok_or_else(|| caller("HOME is not set; name the folder of the cache with --cache-dir"))
}

fn size(text: &str) -> Result<u64, UnknownSize> {
    size_named(text)
}
