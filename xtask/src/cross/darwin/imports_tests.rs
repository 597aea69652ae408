use super::*;
use object::macho::{
    LC_BUILD_VERSION, LC_ID_DYLIB, LC_LOAD_DYLIB, LC_LOAD_WEAK_DYLIB, LC_REEXPORT_DYLIB, LC_SYMTAB,
    MH_MAGIC_64, MH_OBJECT, PLATFORM_IOS,
};

const ENGINE: &str = "/System/Library/PrivateFrameworks/AppleNeuralEngine.framework/AppleNeuralEngine";

/// A Mach-O of load commands and undefined symbols, and nothing else.
#[derive(Clone)]
struct File {
    processor: u32,
    kind: u32,
    versions: Vec<(u32, u32)>,
    signed: bool,
    libraries: Vec<(u32, &'static str)>,
    /// Names, each with the number of its library.
    symbols: Vec<(&'static str, u8)>,
}

fn good() -> File {
    File {
        processor: CPU_TYPE_ARM64.0,
        kind: MH_DYLIB.0,
        versions: vec![(PLATFORM_MACOS.0, 11 << 16)],
        signed: true,
        libraries: vec![
            (LC_ID_DYLIB.0, "@rpath/its_own_name.dylib"),
            (LC_LOAD_DYLIB.0, ALLOWED[0]),
            (LC_LOAD_DYLIB.0, ALLOWED[1]),
        ],
        symbols: vec![("_malloc", 1)],
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

impl File {
    fn bytes(&self) -> Vec<u8> {
        let mut commands: Vec<Vec<u8>> = Vec::new();
        for &(platform, oldest) in &self.versions {
            commands.push(words(&[LC_BUILD_VERSION.0, 24, platform, oldest, oldest, 0]));
        }
        if self.signed {
            commands.push(words(&[LC_CODE_SIGNATURE.0, 16, 0, 0]));
        }
        for &(command, name) in &self.libraries {
            let size = (24 + name.len() + 1).next_multiple_of(8);
            let mut bytes = words(&[command, size as u32, 24, 0, 0, 0]);
            bytes.extend(name.bytes());
            bytes.resize(size, 0);
            commands.push(bytes);
        }
        const SYMTAB: usize = 24;
        let size = commands.iter().map(Vec::len).sum::<usize>() + SYMTAB;
        let (mut entries, mut strings) = (Vec::new(), vec![0]);
        for &(name, library) in &self.symbols {
            entries.extend(words(&[strings.len() as u32]));
            // External and undefined; in no section; its library; no address.
            entries.extend([1, 0, 0, library]);
            entries.extend([0; 8]);
            strings.extend(name.bytes().chain([0]));
        }
        let at = 32 + size;
        let (offset, string_offset) = (at as u32, (at + entries.len()) as u32);
        let count = self.symbols.len() as u32;
        commands.push(words(&[LC_SYMTAB.0, 24, offset, count, string_offset, strings.len() as u32]));
        let head = [MH_MAGIC_64, self.processor, 0, self.kind, commands.len() as u32, size as u32, 0, 0];
        [words(&head), commands.concat(), entries, strings].concat()
    }

    fn check(&self, extension: bool) -> Result<Linked, String> {
        check(&self.bytes(), extension).map_err(|e| format!("{e:#}"))
    }
}

/// The error of a good file that was changed.
fn refused(extension: bool, change: impl FnOnce(&mut File)) -> String {
    let mut file = good();
    change(&mut file);
    file.check(extension).expect_err("the file is not good")
}

#[test]
fn a_file_that_imports_the_c_library_is_good() {
    let libraries = ALLOWED.map(String::from).to_vec();
    assert_eq!(good().check(false), Ok(Linked { kind: "libraries", libraries: libraries.clone() }));
    let program = File { kind: MH_EXECUTE.0, ..good() };
    assert_eq!(program.check(false), Ok(Linked { kind: "programs", libraries }));
}

#[test]
fn any_other_import_is_named_however_it_is_loaded() {
    for command in [LC_LOAD_DYLIB, LC_LOAD_WEAK_DYLIB, LC_REEXPORT_DYLIB] {
        for library in [ENGINE, "/usr/lib/libobjc.A.dylib", "@rpath/Python.framework/Versions/3.12/Python"] {
            let error = refused(true, |file| file.libraries.push((command.0, library)));
            assert!(error.contains(&format!("imports {library};")) && error.contains("libSystem"), "{error}");
        }
    }
}

#[test]
fn what_is_for_other_machines_or_systems_is_refused() {
    let error = refused(false, |file| file.processor = 0x0100_0007);
    assert!(error.contains("not for arm64"), "{error}");
    let error = refused(false, |file| file.versions[0].0 = PLATFORM_IOS.0);
    assert!(error.contains("not for macOS"), "{error}");
    let error = refused(false, |file| file.versions[0].1 = 15 << 16 | 4 << 8);
    assert!(error.contains("needs macOS 15.4, and not 11.0"), "{error}");
    let error = refused(false, |file| file.versions.clear());
    assert!(error.contains("0 times"), "{error}");
    let error = refused(false, |file| file.signed = false);
    assert!(error.contains("no signature"), "{error}");
    let error = refused(false, |file| file.kind = MH_OBJECT.0);
    assert!(error.contains("neither a program nor a library"), "{error}");
    let error = check(b"\x7fELF\x02\x01\x01 and so on, for long enough", false).expect_err("it is no Mach-O");
    assert!(error.to_string().contains("no 64-bit Mach-O"), "{error:#}");
}

#[test]
fn only_pythons_symbols_come_from_nowhere() {
    let mut file = good();
    file.symbols.extend([("_PyModule_Create2", 0xfe), ("__Py_NoneStruct", 0xfe)]);
    assert!(file.check(true).is_ok());
    let error = file.check(false).expect_err("a program is not loaded by Python");
    assert!(error.contains("_PyModule_Create2 is in no library"), "{error}");
    let error = refused(true, |file| file.symbols.push(("_nowhere", 0xfe)));
    assert!(error.contains("_nowhere") && error.contains("none of Python's"), "{error}");
}

#[test]
fn cut_files_are_errors() {
    let mut file = good();
    file.symbols.push(("_PyModule_Create2", 0xfe));
    let whole = file.bytes();
    for length in 0..whole.len() {
        assert!(check(&whole[..length], true).is_err(), "{length} of {} bytes", whole.len());
    }
}
