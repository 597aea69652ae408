//! `cargo xtask capi`: the C library, its headers and its pkg-config file, where C programs look for them.

use crate::run::{Step, root, target_dir};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Where to.
#[derive(clap::Args)]
pub struct Args {
    /// Folder below which `lib` and `include` are, such as `/usr/local`
    prefix: PathBuf,
}

/// Builds the library, and puts everything in its place.
pub fn run(args: &Args) -> Result<()> {
    Step::cargo("build --release -p aneforge-capi").run()?;
    let prefix = std::path::absolute(&args.prefix)?;
    let (lib, include, package) = (prefix.join("lib"), prefix.join("include"), root().join("crates/capi"));
    let described = lib.join("pkgconfig");
    for folder in [&include, &described] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let built = ["so", "dylib"]
        .map(|extension| (target_dir().join(format!("release/libaneforge_c.{extension}")), extension));
    let Some((library, extension)) = built.iter().find(|(path, _)| path.exists()) else {
        bail!("cargo has built no library in {}", target_dir().display())
    };
    copy(library, &lib.join(format!("libaneforge.{extension}")))?;
    for header in ["aneforge.h", "ane_e5rt_dispatch.h"] {
        copy(&package.join("include").join(header), &include.join(header))?;
    }
    let text = fs::read_to_string(package.join("aneforge.pc.in"))?;
    let text =
        text.replace("@PREFIX@", &prefix.to_string_lossy()).replace("@VERSION@", env!("CARGO_PKG_VERSION"));
    let path = described.join("aneforge.pc");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    // Aside first: a program may have the old one open.
    let aside = to.with_extension("new");
    fs::copy(from, &aside)
        .and_then(|_| fs::rename(&aside, to))
        .with_context(|| format!("cannot write {}", to.display()))?;
    println!("wrote {}", to.display());
    Ok(())
}
