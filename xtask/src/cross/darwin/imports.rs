//! What a linked file for macOS says of itself, and what it imports.
//!
//! Names that are looked up while it runs are not seen here.

use super::OLDEST;
use anyhow::{Context, Result, bail, ensure};
use object::Endianness;
use object::macho::{
    BuildVersionCommand, CPU_TYPE_ARM64, DYNAMIC_LOOKUP_ORDINAL, LC_CODE_SIGNATURE, MH_BUNDLE, MH_DYLIB,
    MH_EXECUTE, MachHeader64, PLATFORM_MACOS,
};
use object::read::macho::{LoadCommandVariant, MachHeader, Nlist, SymbolTable};
use std::collections::BTreeMap;
use std::fmt;

/// The libraries that may be linked: the system's C library, and what Rust's standard library names beside it.
const ALLOWED: [&str; 2] = ["/usr/lib/libSystem.B.dylib", "/usr/lib/libiconv.2.dylib"];

/// What a file is, and the libraries that the system loads with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Linked {
    kind: &'static str,
    libraries: Vec<String>,
}

/// Checks a file; Python gives its symbols to one that is its extension.
pub fn check(bytes: &[u8], extension: bool) -> Result<Linked> {
    let header = MachHeader64::<Endianness>::parse(bytes, 0)
        .context("it is no 64-bit Mach-O; it was linked for something else")?;
    let endian = header.endian()?;
    let processor = header.cputype(endian);
    ensure!(processor == CPU_TYPE_ARM64, "it is for processor {:#x}, and not for arm64", processor.0);
    let kind = match header.filetype(endian) {
        MH_EXECUTE => "programs",
        MH_DYLIB | MH_BUNDLE => "libraries",
        other => bail!("it is a Mach-O of type {}, and neither a program nor a library", other.0),
    };
    let (mut versions, mut signed, mut libraries, mut symbols) = (0, false, Vec::new(), None);
    let mut commands = header.load_commands(endian, bytes, 0)?;
    while let Some(command) = commands.next()? {
        signed |= command.cmd() == LC_CODE_SIGNATURE;
        match command.variant()? {
            LoadCommandVariant::Dylib(library) => {
                let name = command.string(endian, library.dylib.name)?;
                libraries.push(String::from_utf8_lossy(name).into_owned());
            }
            LoadCommandVariant::BuildVersion(version, _) => {
                check_version(endian, version)?;
                versions += 1;
            }
            LoadCommandVariant::Symtab(table) => {
                symbols = Some(table.symbols::<MachHeader64<Endianness>, _>(endian, bytes)?);
            }
            _ => {}
        }
    }
    check_libraries(&libraries)?;
    ensure!(versions == 1, "it says {versions} times which system it is for, and not once");
    ensure!(signed, "it has no signature; Apple silicon runs nothing without, and the linker makes one");
    let symbols = symbols.context("it has no table of symbols, so what it imports cannot be checked")?;
    check_lookups(endian, &symbols, extension)?;
    Ok(Linked { kind, libraries })
}

fn check_version(endian: Endianness, version: &BuildVersionCommand<Endianness>) -> Result<()> {
    let platform = version.platform.get(endian);
    ensure!(platform == PLATFORM_MACOS, "it is for Apple's platform {}, and not for macOS", platform.0);
    let oldest = version.minos.get(endian).0;
    let (major, minor) = (oldest >> 16, oldest >> 8 & 0xff);
    let (wanted_major, wanted_minor) = OLDEST;
    ensure!(
        (major, minor) == OLDEST,
        "it needs macOS {major}.{minor}, and not {wanted_major}.{wanted_minor}, which the wheel's name promises"
    );
    Ok(())
}

fn check_libraries(libraries: &[String]) -> Result<()> {
    let wrong: Vec<&str> =
        libraries.iter().map(String::as_str).filter(|library| !ALLOWED.contains(library)).collect();
    ensure!(
        wrong.is_empty(),
        "it imports {}; only {} may be linked. Load others while it runs, or leave out the package that names them \
         (`cargo tree --target aarch64-apple-darwin`)",
        wrong.join(" and "),
        ALLOWED.join(" and ")
    );
    Ok(())
}

/// Symbols that come from whatever is loaded are Python's, in its extension only. The linker takes any name for them,
/// also one that exists nowhere.
fn check_lookups(
    endian: Endianness,
    symbols: &SymbolTable<'_, MachHeader64<Endianness>>,
    extension: bool,
) -> Result<()> {
    for symbol in symbols.iter().filter(|symbol| symbol.is_undefined()) {
        if symbol.library_ordinal(endian) != DYNAMIC_LOOKUP_ORDINAL {
            continue;
        }
        let name = String::from_utf8_lossy(symbol.name(endian, symbols.strings())?).into_owned();
        let python = name.starts_with("_Py") || name.starts_with("__Py");
        ensure!(
            extension && python,
            "symbol {name} is in no library that is linked{}",
            if extension { ", and is none of Python's" } else { "" }
        );
    }
    Ok(())
}

/// What was checked.
#[derive(Default)]
pub struct Summary {
    kinds: BTreeMap<&'static str, usize>,
    libraries: BTreeMap<String, usize>,
}

impl Summary {
    pub fn add(&mut self, linked: Linked) {
        *self.kinds.entry(linked.kind).or_default() += 1;
        linked.libraries.into_iter().for_each(|library| *self.libraries.entry(library).or_default() += 1);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<_> = self.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let libraries: Vec<_> =
            self.libraries.iter().map(|(name, count)| format!("{name} ({count})")).collect();
        write!(f, "{}; they import {}", kinds.join(" and "), libraries.join(", "))
    }
}

#[cfg(test)]
#[path = "imports_tests.rs"]
mod tests;
