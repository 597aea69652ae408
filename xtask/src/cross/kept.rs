//! Folders that are made once, and again when what they are made of changes.

use anyhow::{Context, Result};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A folder that is complete: its file `ready` says what it was made of.
pub struct Kept {
    folder: PathBuf,
    made_of: String,
}

impl Kept {
    /// The folder, as it is if it was made by the same recipe. Otherwise `make` fills it, and says what it found there.
    pub fn prepare(
        folder: PathBuf,
        recipe: &str,
        make: impl FnOnce(&Kept) -> Result<String>,
    ) -> Result<Kept> {
        let ready = folder.join("ready");
        let mut kept = Kept { folder, made_of: String::new() };
        if let Some(made_of) = fs::read_to_string(&ready).ok().filter(|found| made_by(found, recipe)) {
            println!("reusing {}", kept.folder.display());
            return Ok(Kept { made_of, ..kept });
        }
        println!("making {}", kept.folder.display());
        if kept.folder.exists() {
            fs::remove_dir_all(&kept.folder)
                .with_context(|| format!("cannot remove {}; remove it yourself", kept.folder.display()))?;
        }
        kept.subfolder("bin")?;
        kept.made_of = format!("{}\n\n{}\n", recipe.trim(), make(&kept)?.trim());
        fs::write(&ready, &kept.made_of).with_context(|| format!("cannot write {}", ready.display()))?;
        Ok(kept)
    }

    /// Its recipe, and what was found when it was followed.
    pub fn made_of(&self) -> &str {
        &self.made_of
    }

    /// A path inside.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.folder.join(inside)
    }

    /// A path inside, as text.
    pub fn shown(&self, inside: &str) -> String {
        self.path(inside).to_string_lossy().into_owned()
    }

    /// A folder inside, which is made.
    pub fn subfolder(&self, inside: &str) -> Result<PathBuf> {
        let path = self.path(inside);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// A file inside, which is written.
    pub fn write(&self, inside: &str, text: &str) -> Result<()> {
        let path = self.path(inside);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// A program of its folder `bin`.
    pub fn script(&self, name: &str, text: &str) -> Result<()> {
        let inside = format!("bin/{name}");
        self.write(&inside, text)?;
        Ok(fs::set_permissions(self.path(&inside), fs::Permissions::from_mode(0o755))?)
    }
}

fn made_by(ready: &str, recipe: &str) -> bool {
    ready.strip_prefix(recipe.trim()).is_some_and(|rest| rest.starts_with("\n\n"))
}

/// A line of a recipe: the name and content of the file whose code follows it.
pub fn written_in(file: &str, source: &str) -> String {
    let mut hash = DefaultHasher::new();
    source.hash(&mut hash);
    let name = Path::new(file).file_name().unwrap_or_default().to_string_lossy();
    format!("{name} {:016x}\n", hash.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_again_when_its_recipe_changes_or_it_is_not_complete() {
        let folder = std::env::temp_dir().join(format!("aneforge-kept-{}", std::process::id()));
        let mut made = 0;
        let mut prepare = |recipe: &str, fails: bool| {
            let kept = Kept::prepare(folder.clone(), recipe, |kept| {
                made += 1;
                assert!(!kept.path("left").exists(), "what was there has to go");
                kept.write("left", "")?;
                anyhow::ensure!(!fails, "no network");
                Ok(format!("version {made}"))
            });
            kept.map(|kept| kept.made_of().to_owned()).map_err(|e| e.to_string())
        };
        assert_eq!(prepare("a 1\n", true), Err("no network".into()));
        assert_eq!(prepare("a 1\n", false), Ok("a 1\n\nversion 2\n".into()));
        assert_eq!(prepare("a 1\n", false), Ok("a 1\n\nversion 2\n".into()));
        assert_eq!(prepare("a 1\nb\n", false), Ok("a 1\nb\n\nversion 3\n".into()));
        assert_eq!(prepare("a 1\n", false), Ok("a 1\n\nversion 4\n".into()));
        fs::remove_dir_all(folder).expect("the test made it");
    }

    #[test]
    fn a_recipe_names_the_code_that_follows_it() {
        assert_eq!(written_in("a/b.rs", "x"), written_in("c/b.rs", "x"));
        assert_ne!(written_in("b.rs", "x"), written_in("b.rs", "y"));
    }
}
