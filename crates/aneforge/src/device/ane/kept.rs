//! Programs for the engine that are kept from process to process, each in a folder of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What a process that was killed has left is as old as this: nothing that is written takes so long.
const LEFT: Duration = Duration::from_secs(3600);

/// A program, or a native layer, with what the system's compiler has made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its folder.
    pub path: PathBuf,
    /// Bytes of its files.
    pub bytes: u64,
    /// When it was last written, or opened by another process than the one that compiled it.
    pub used: SystemTime,
    /// Whether it is whole, and not what a process that was killed has left.
    pub whole: bool,
}

/// What was removed, and what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Programs that were removed.
    pub removed: usize,
    /// Their bytes.
    pub freed: u64,
    /// Programs that are left.
    pub left: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Every program in `folder`, the one that was not used for longest first. None where there is no such folder.
pub fn list(folder: &Path) -> io::Result<Vec<Kept>> {
    let items = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        items => items?,
    };
    let kept = |item: fs::DirEntry| {
        let name = item.file_name().into_string().ok()?;
        let digits = |text: &str| text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let whole = digits(name.strip_prefix("layer-").unwrap_or(&name));
        let ours = whole
            || [".writing-", ".damaged-", ".removed-", "doctor-"].iter().any(|start| name.starts_with(start));
        let about = item.metadata().ok().filter(|about| ours && about.is_dir())?;
        let made = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let path = item.path();
        let (bytes, used) =
            (bytes(&path), fs::metadata(path.join(super::folder::STAMP)).and_then(|about| about.modified()));
        Some(Kept { bytes, used: used.map_or(made, |used| used.max(made)), whole, path })
    };
    let mut all: Vec<Kept> = items.flatten().filter_map(kept).collect();
    all.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
    Ok(all)
}

/// Removes what processes that were killed have left, and then what was not used for longest, until the rest has at most so many bytes. A
/// program that a process has loaded goes on there.
pub fn collect(folder: &Path, most: u64) -> io::Result<Collected> {
    let all = list(folder)?;
    let (whole, left): (Vec<&Kept>, Vec<&Kept>) = all.iter().partition(|kept| kept.whole);
    let mut done = Collected {
        left: whole.len(),
        bytes: whole.iter().map(|kept| kept.bytes).sum(),
        ..Collected::default()
    };
    for kept in left.into_iter().filter(|kept| kept.used.elapsed().is_ok_and(|age| age > LEFT)) {
        if removed(folder, &kept.path) {
            (done.removed, done.freed) = (done.removed + 1, done.freed + kept.bytes);
        }
    }
    for kept in whole {
        if done.bytes <= most {
            break;
        }
        if removed(folder, &kept.path) {
            (done.removed, done.left) = (done.removed + 1, done.left - 1);
            (done.freed, done.bytes) = (done.freed + kept.bytes, done.bytes - kept.bytes);
        }
    }
    Ok(done)
}

/// Removes a folder as a whole: nobody finds half of it.
fn removed(folder: &Path, path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = folder.join(format!(".removed-{}-{name}", std::process::id()));
    fs::rename(path, &aside).is_ok() && fs::remove_dir_all(&aside).is_ok()
}

fn bytes(folder: &Path) -> u64 {
    let of = |item: fs::DirEntry| match item.file_type() {
        Ok(kind) if kind.is_dir() => bytes(&item.path()),
        Ok(_) => item.metadata().map_or(0, |about| about.len()),
        Err(_) => 0,
    };
    fs::read_dir(folder).into_iter().flatten().flatten().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(folder: &Path, name: &str, bytes: usize, age: u64) {
        let at = folder.join(name);
        fs::create_dir_all(at.join("cache")).unwrap();
        fs::write(at.join("cache/program"), vec![0; bytes]).unwrap();
        let when = SystemTime::now() - Duration::from_secs(age);
        fs::File::open(&at).unwrap().set_modified(when).unwrap();
    }

    #[test]
    fn what_was_left_goes_first_and_then_what_was_not_used_for_longest() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert_eq!(list(&folder.join("nowhere")).unwrap(), []);
        let name = |digit: &str| digit.repeat(24);
        made(folder, &name("a"), 100, 300);
        made(folder, &format!("layer-{}", name("b")), 10, 200);
        made(folder, &name("c"), 1, 100);
        made(folder, ".writing-1-0", 7, 7200);
        made(folder, ".damaged-1-0", 7, 10);
        made(folder, "somebody's", 1000, 7200);
        // Opened after all others were made.
        fs::write(folder.join(name("a")).join(super::super::folder::STAMP), "X").unwrap();
        let order: Vec<u64> =
            list(folder).unwrap().into_iter().filter(|kept| kept.whole).map(|kept| kept.bytes).collect();
        assert_eq!(order, [10, 1, 101]);
        assert_eq!(
            collect(folder, 1 << 20).unwrap(),
            Collected { removed: 1, freed: 7, left: 3, bytes: 112 }
        );
        assert_eq!(collect(folder, 102).unwrap(), Collected { removed: 1, freed: 10, left: 2, bytes: 102 });
        assert_eq!(collect(folder, 0).unwrap(), Collected { removed: 2, freed: 102, left: 0, bytes: 0 });
        assert!(folder.join("somebody's").exists() && folder.join(".damaged-1-0").exists());
    }
}
