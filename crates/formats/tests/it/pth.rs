use aneforge_formats::{Pth, PthError};
use aneforge_tensor::{Bytes, DType};
use proptest::prelude::*;

const WEIGHTS: &[u8] = include_bytes!("../data/weights.pth");
const OLD: &[u8] = include_bytes!("../data/old.pth");
const NESTED: &[u8] = include_bytes!("../data/nested.pth");

fn parse(bytes: &[u8]) -> Result<Pth, PthError> {
    Pth::parse(Bytes::new(bytes.to_vec()))
}

fn refusal(bytes: &[u8]) -> String {
    parse(bytes).unwrap_err().to_string()
}

/// A file of the old format whose value is this pickle, and whose storages have these names, and one element each.
fn old(value: &[u8], storages: &[&str]) -> Vec<u8> {
    let mut file =
        b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.".to_vec();
    file.extend(value);
    file.extend(b"\x80\x02](");
    storages.iter().for_each(|name| file.extend([b"U", &[name.len() as u8][..], name.as_bytes()].concat()));
    file.extend(b"e.");
    for _ in storages {
        file.extend(1u64.to_le_bytes());
        file.extend(2.5f32.to_le_bytes());
    }
    file
}

/// A dictionary of one tensor `w` with one storage of one element, and these offset, shape and strides.
fn one(offset: u8, shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let tuple = |numbers: &[u8]| {
        let items: Vec<u8> = numbers.iter().flat_map(|&n| [b'K', n]).collect();
        [b"(", &items[..], b"t"].concat()
    };
    let storage = b"(U\x07storagectorch\nFloatStorage\nU\x01sU\x03cpuK\x01NtQ";
    let tensor = [&storage[..], &[b'K', offset], &tuple(shape), &tuple(strides), b"\x89N"].concat();
    let value = [b"\x80\x02}(U\x01wctorch._utils\n_rebuild_tensor_v2\n(", &tensor[..], b"tRu."].concat();
    old(&value, &["s"])
}

#[test]
fn what_torch_writes_is_read() {
    for (file, bytes) in [("weights", WEIGHTS), ("old", OLD), ("nested", NESTED)] {
        let read = parse(bytes).unwrap();
        assert_eq!(read.names().collect::<Vec<_>>(), ["a", "b", "bf", "c", "flag", "h", "scalar"], "{file}");
        let is = |name: &str, dtype, dims: &[usize], values: &[f32]| {
            let tensor = read.tensor(name).unwrap();
            assert_eq!((tensor.dtype(), tensor.shape().dims()), (dtype, dims), "{name} of {file}");
            assert_eq!(tensor.to_f32(), values, "{name} of {file}");
        };
        is("a", DType::F32, &[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        is("b", DType::F32, &[3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        is("bf", DType::Bf16, &[2], &[1.5, 1.5]);
        is("c", DType::I64, &[2], &[1.0, 2.0]);
        is("flag", DType::Bool, &[2], &[1.0, 0.0]);
        is("h", DType::F16, &[2], &[1.0, 1.0]);
        is("scalar", DType::F32, &[], &[3.0]);
    }
}

#[test]
fn a_file_that_asks_for_code_is_refused_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("made");
    for (module, name) in [("posix", "system"), ("builtins", "eval"), ("torch.nn.modules.linear", "Linear")] {
        let text = format!("touch {}", made.display());
        let call = [format!("c{module}\n{name}\n(U").as_bytes(), &[text.len() as u8], text.as_bytes(), b"tR"]
            .concat();
        let by_stack = [
            &[0x8c, module.len() as u8],
            module.as_bytes(),
            &[0x8c, name.len() as u8],
            name.as_bytes(),
            b"\x93",
        ]
        .concat();
        for value in [call, by_stack] {
            let file = old(&[b"\x80\x02}(U\x01w", &value[..], b"u."].concat(), &[]);
            let error = refusal(&file);
            assert!(error.starts_with(&format!("`<memory>` asks for `{module}.{name}`, ")), "{error}");
            assert!(matches!(parse(&file), Err(PthError::Refused { .. })) && !made.exists());
        }
    }
}

#[test]
fn elements_are_those_of_the_storage_or_an_error() {
    let value = |file: &[u8]| parse(file).unwrap().tensor("w").map(|tensor| tensor.to_f32());
    assert_eq!(value(&one(0, &[1, 1], &[7, 1])).unwrap(), [2.5]);
    for (offset, shape, strides) in [
        (1, &[1][..], &[1][..]),
        (0, &[2], &[1]),
        // One element in the place of many, which would make a small file large.
        (0, &[255, 255], &[0, 0]),
        (0, &[2, 1], &[1]),
    ] {
        let error = value(&one(offset, shape, strides)).unwrap_err();
        assert!(matches!(error, PthError::Outside { .. }), "{error}");
    }
    let error = value(&one(0, &[1; 9], &[1; 9])).unwrap_err();
    assert!(matches!(error, PthError::Shape { .. }), "{error}");
    let absent = parse(WEIGHTS).unwrap().tensor("d").unwrap_err();
    assert_eq!(absent.to_string(), "`<memory>` has no tensor `d`; it is a checkpoint of another model");
}

#[test]
fn each_way_to_be_wrong_has_its_message() {
    let deep = [b"\x80\x02", &[b')'; 1][..], &[0x85; 40], b"."].concat();
    for (value, want) in [
        (&b"\x80\x02}."[..], "it holds no tensors by name"),
        (b"\x80\x02K\x01.", "it holds no dictionary of tensors by name"),
        (b"\x80\x06}.", "its pickle is of protocol 6"),
        (b"\x80\x02R.", "its pickle takes what it did not make"),
        (b"\x80\x02(K\x010.", "its pickle takes what it did not make"),
        (b"\x80\x02t.", "its pickle has no mark where it needs one"),
        (b"\x80\x02h\x05.", "its pickle takes what it did not make"),
        (b"\x80\x02}(K\x01u.", "an entry has no value"),
        (b"\x80\x02](K\x01K\x02u.", "it sets an entry of what is no dictionary"),
        (b"\x80\x02i", "its pickle has the instruction 0x69"),
        (b"\x80\x02X\xff\xff\xff\xff.", "its pickle is cut off"),
        (b"\x80\x02U\x01\xff.", "a text is not UTF-8"),
        (b"\x80\x02K\x01Q.", "a storage is described by no tuple"),
        (&deep, "its tuples are nested too deep"),
    ] {
        let error = refusal(&old(value, &[]));
        assert!(error.contains(want), "{error}, not {want}");
    }
    assert!(refusal(b"").contains("it begins as neither of the two formats does"));
    assert!(refusal(b"PK\x03\x04").contains("no file of torch.save"));
    let endless: Vec<u8> = old(&[b"\x80\x02}", &vec![b'2'; (1 << 24) + 2][..], b"."].concat(), &[]);
    assert!(refusal(&endless).contains("its pickle is longer than that of any model"));
}

#[test]
fn an_archive_is_as_torch_writes_it_or_an_error() {
    let replace = |from: &[u8], to: &[u8]| {
        let mut file = WEIGHTS.to_vec();
        let places: Vec<usize> = (0..file.len()).filter(|&at| file[at..].starts_with(from)).collect();
        places.iter().for_each(|&at| file[at..at + to.len()].copy_from_slice(to));
        assert!(!places.is_empty());
        file
    };
    assert!(refusal(&replace(b"data.pkl", b"data.pkx")).contains("has 0 files `data.pkl`"));
    let big = replace(b"little", b"big!!!");
    assert!(refusal(&big).contains("big-endian"), "{}", refusal(&big));
    // The method of compression, in the archive's list.
    let mut packed = WEIGHTS.to_vec();
    let at = (0..packed.len()).find(|&at| packed[at..].starts_with(b"PK\x01\x02")).unwrap();
    packed[at + 10] = 8;
    assert!(refusal(&packed).contains("is compressed or encrypted"));
}

#[test]
fn a_file_that_is_cut_anywhere_is_an_error() {
    for whole in [WEIGHTS, OLD] {
        for end in 0..whole.len() {
            let cut = parse(&whole[..end]);
            assert!(cut.is_err() || end + 64 > whole.len(), "{end} of {}", whole.len());
        }
    }
}

proptest! {
    #[test]
    fn no_byte_makes_it_panic(at in any::<prop::sample::Index>(), to: u8, which in 0..3usize) {
        let mut file = [WEIGHTS, OLD, NESTED][which].to_vec();
        let at = at.index(file.len());
        file[at] = to;
        if let Ok(read) = parse(&file) {
            let names: Vec<String> = read.names().map(str::to_owned).collect();
            for name in names {
                let _ = read.tensor(&name);
            }
        }
    }

    #[test]
    fn no_pickle_makes_it_panic(value in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&old(&value, &["s"]));
    }
}

/// A pickle whose one dictionary has what these instructions leave, under names of their own.
fn dict(items: &[u8]) -> Vec<u8> {
    [b"\x80\x02}(", items, b"u."].concat()
}

#[test]
fn a_few_bytes_do_not_make_a_copy_of_many() {
    let long = |text: usize| [b"X", &(text as u32).to_le_bytes()[..], &vec![b'n'; text]].concat();
    let error = refusal(&old(&dict(&[&long(5000)[..], b"K\x01"].concat()), &[]));
    assert!(error.contains("a name in it is longer than that of any tensor"), "{error}");
    assert!(refusal(&old(&dict(&[&long(4000)[..], b"K\x01"].concat()), &[])).contains("no tensors by name"));

    // A tensor and its storage are remembered, and made again by five instructions each.
    let storage = b"(U\x07storagectorch\nFloatStorage\nU\x01sU\x03cpuK\x01Ntq\x01Q";
    let many = [&b"\x80\x02"[..], storage, &b"0h\x01Q".repeat(1 << 20), b"."].concat();
    assert!(refusal(&old(&many, &["s"])).contains("it has more storages than any model"));
    let tensor =
        [&b"ctorch._utils\n_rebuild_tensor_v2\nq\x02("[..], storage, b"K\x00K\x01\x85K\x01\x85\x89Ntq\x03R"];
    let tensor = tensor.concat();
    let many = [b"\x80\x02", &tensor[..], &b"0h\x02h\x03R".repeat(1 << 20), b"."].concat();
    assert!(refusal(&old(&many, &["s"])).contains("it has more tensors than any model"));
    assert!(refusal(&one(0, &[1; 65], &[1; 65])).contains("one with more than 64 axes"));
}

#[test]
fn tensors_may_share_a_storage_but_not_take_more_than_the_file_many_times() {
    // A storage of 4,096 elements, and many names of the one tensor that takes all of it.
    let count = 4096u64;
    let storage = b"(U\x07storagectorch\nFloatStorage\nU\x01sU\x03cpuK\x01NtQ";
    let extents = b"K\x00M\x00\x10\x85K\x01\x85\x89NtRq\x01";
    let tensor = [&b"ctorch._utils\n_rebuild_tensor_v2\n("[..], storage, extents].concat();
    let file = |names: usize| {
        let rest = (1..names).flat_map(|at| [b"U\x05", format!("{at:05}").as_bytes(), b"h\x01"].concat());
        let mut file = old(&dict(&[b"U\x01w", &tensor[..], &rest.collect::<Vec<u8>>()].concat()), &["s"]);
        file.truncate(file.len() - 12);
        file.extend(count.to_le_bytes());
        file.extend(vec![0; 4 * count as usize]);
        file
    };
    assert_eq!(parse(&file(60)).unwrap().names().len(), 60);
    let error = refusal(&file(80));
    assert!(
        error.contains("its tensors would take 1310720 bytes, more than 64 times those of the file"),
        "{error}"
    );
}

#[test]
fn sets_of_tensors_are_looked_at_once_and_told_by_name() {
    let tensor = b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x01sU\x03cpuK\x01NtQK\x00K\x01\x85K\x01\x85\x89NtR";
    let inner = [b"}U\x01w", &tensor[..], b"sq\x01"].concat();
    let named = |name: String| [b"U", &[name.len() as u8][..], name.as_bytes(), b"h\x01"].concat();
    let sets = |names: &[String]| {
        let rest: Vec<u8> = names.iter().cloned().flat_map(named).collect();
        old(&dict(&[b"U\x01x", &inner[..], &rest].concat()), &["s"])
    };
    assert_eq!(parse(&sets(&[])).unwrap().names().collect::<Vec<_>>(), ["w"]);
    let all: Vec<String> = (0..20).map(|at| format!("set{at:02}")).collect();
    let error = refusal(&sets(&all));
    assert!(
        error.contains("it holds 21 sets of tensors: set00, set01") && error.contains("set07, ...;"),
        "{error}"
    );
    assert_eq!(parse(&sets(&["model".into()])).unwrap().names().collect::<Vec<_>>(), ["w"]);
}

#[test]
fn what_wraps_a_network_is_no_part_of_its_names() {
    let tensor = b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x01sU\x03cpuK\x01NtQK\x00K\x01\x85K\x01\x85\x89NtRq\x01";
    let named = |first: &str, second: &str| {
        let name = |name: &str| [b"U", &[name.len() as u8][..], name.as_bytes()].concat();
        let items = [name(first), tensor.to_vec(), name(second), b"h\x01".to_vec()].concat();
        let read = parse(&old(&dict(&items), &["s"])).unwrap();
        read.names().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(named("module.a", "module.b.c"), ["a", "b.c"]);
    assert_eq!(named("_orig_mod.a", "_orig_mod.b"), ["a", "b"]);
    assert_eq!(named("module.a", "b"), ["b", "module.a"]);
}

#[test]
fn many_storages_are_found_by_their_names() {
    // None is looked for among all of the others.
    let count = 60_000usize;
    let name = |at: usize| format!("{at:05}");
    let mut value = b"\x80\x02}(".to_vec();
    for at in 0..count {
        let storage =
            [b"(U\x07storagectorch\nFloatStorage\nU\x05", name(at).as_bytes(), b"U\x03cpuK\x01NtQ"].concat();
        let tensor =
            [&b"ctorch._utils\n_rebuild_tensor_v2\n("[..], &storage, b"K\x00K\x01\x85K\x01\x85\x89NtR"]
                .concat();
        value.extend([b"U\x05", name(at).as_bytes(), &tensor].concat());
    }
    value.extend(b"u.");
    let names: Vec<String> = (0..count).map(name).collect();
    let file = old(&value, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let read = parse(&file).unwrap();
    assert_eq!(read.names().len(), count);
    assert_eq!(read.tensor("59999").unwrap().to_f32(), [2.5]);
}
