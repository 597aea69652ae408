//! A checksum of the library's sources, by which caches know programs that another state of it compiled.

use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=src");
    let mut files = Vec::new();
    gather(Path::new("src"), &mut files);
    files.sort();
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    for file in &files {
        hash.add(file.to_string_lossy().as_bytes());
        hash.add(&fs::read(file).expect("sources can be read"));
    }
    println!("cargo:rustc-env=ANEFORGE_SOURCES={:016x}", hash.0);
}

fn gather(folder: &Path, files: &mut Vec<PathBuf>) {
    let items = fs::read_dir(folder).expect("the folder of sources can be read");
    for path in items.map(|item| item.expect("it can be read").path()) {
        if path.is_dir() {
            gather(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// FNV-1a of 64 bits: nobody tries to deceive it.
struct Fnv(u64);

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
