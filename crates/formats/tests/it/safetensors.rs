use aneforge_formats::{SafeTensors, SafeTensorsError};
use aneforge_tensor::{Bytes, DType};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView, serialize};

/// A file with this header and so many bytes of tensors.
pub fn file(header: &str, payload: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend((0..payload).map(|i| i as u8));
    file
}

fn parse(bytes: Vec<u8>) -> Result<SafeTensors, SafeTensorsError> {
    SafeTensors::parse(Bytes::new(bytes))
}

fn one(dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
}

fn refusal(bytes: Vec<u8>) -> String {
    parse(bytes).unwrap_err().to_string()
}

const TYPES: [(Dtype, DType); 9] = [
    (Dtype::F16, DType::F16),
    (Dtype::BF16, DType::Bf16),
    (Dtype::F32, DType::F32),
    (Dtype::F64, DType::F64),
    (Dtype::U8, DType::U8),
    (Dtype::I8, DType::I8),
    (Dtype::I32, DType::I32),
    (Dtype::I64, DType::I64),
    (Dtype::BOOL, DType::Bool),
];

#[test]
fn what_the_formats_own_library_writes_is_read() {
    let payload: Vec<u8> = (0..48).collect();
    let views = TYPES.map(|(theirs, ours)| {
        (ours.name(), TensorView::new(theirs, vec![2, 3], &payload[..6 * ours.size()]).unwrap())
    });
    let notes = [("format".to_owned(), "pt".to_owned())].into();
    let read = parse(serialize(views, Some(notes)).unwrap()).unwrap();
    assert_eq!(read.names().len(), 9);
    assert_eq!(read.metadata()["format"], "pt");
    for (_, ours) in TYPES {
        let tensor = read.tensor(ours.name()).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape().dims()), (ours, &[2, 3][..]));
        assert_eq!(**tensor.bytes(), payload[..6 * ours.size()]);
    }
}

#[test]
fn a_file_that_is_cut_anywhere_is_an_error() {
    let whole = file(&one("F32", "[2]", "[0,8]"), 8);
    assert!(parse(whole.clone()).is_ok());
    for end in 0..whole.len() {
        assert!(parse(whole[..end].to_vec()).is_err(), "{end}");
    }
}

#[test]
fn too_short_for_a_header() {
    let want = "`<memory>` has 3 bytes, too few for a safetensors file; download it again";
    assert_eq!(refusal(vec![1, 2, 3]), want);
}

#[test]
fn a_header_longer_than_the_file() {
    for length in [3, u64::MAX, 1 << 40] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(b"{}");
        let want = format!("says its header takes {length} bytes and has 2 left; it is cut off");
        assert!(refusal(bytes).contains(&want));
    }
}

#[test]
fn a_header_longer_than_the_format_allows() {
    let mut bytes = 100_000_001u64.to_le_bytes().to_vec();
    bytes.resize(100_000_100, b' ');
    assert!(refusal(bytes).contains("header takes 100000001 bytes, the format allows 100000000"));
}

#[test]
fn headers_that_are_not_json_or_not_of_this_kind() {
    for header in [
        "",
        "[]",
        "{",
        "{\"w\":1}",
        "{\"w\":{}}",
        &one("F32", "[-1]", "[0,4]"),
        &one("F32", "[1.5]", "[0,4]"),
        &one("F32", "[1]", "[0]"),
        &one("F32", "[99999999999999999999999]", "[0,4]"),
        "{\"__metadata__\":{\"a\":1}}",
    ] {
        let message = refusal(file(header, 4));
        assert!(message.starts_with("the header of `<memory>` is not valid: "), "{header}: {message}");
    }
    let mut bytes = file("{}", 0);
    bytes[8] = 0xFF;
    assert!(refusal(bytes).contains("is not valid"));
    assert!(refusal(file(&"[".repeat(100_000), 0)).contains("is not valid"));
}

#[test]
fn offsets_beyond_the_file() {
    for offsets in ["[0,12]", "[8,4]", "[0,18446744073709551615]", "[18446744073709551615,0]"] {
        let message = refusal(file(&one("F32", "[2]", offsets), 8));
        assert!(message.starts_with("tensor `w` of `<memory>` lies at bytes "), "{message}");
        assert!(message.ends_with(" of 8; the file is cut off or damaged, download it again"), "{message}");
    }
}

#[test]
fn lengths_that_differ_from_the_shape() {
    for shape in
        ["[3]", "[]", "[0]", "[18446744073709551615,18446744073709551615]", "[4611686018427387904,4]"]
    {
        let message = refusal(file(&one("F32", shape, "[0,8]"), 8));
        assert!(message.contains("does not take 8 bytes; the file is damaged"), "{message}");
    }
}

#[test]
fn tensors_that_overlap() {
    let header = r#"{"a":{"dtype":"U8","shape":[6],"data_offsets":[0,6]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}"#;
    assert!(refusal(file(header, 8)).starts_with("tensors `a` and `b` of `<memory>` overlap"));
}

#[test]
fn bytes_that_belong_to_no_tensor() {
    let between = r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}"#;
    assert!(refusal(file(between, 8)).starts_with("bytes 2..4 of `<memory>` belong to no tensor"));
    assert!(refusal(file(&one("U8", "[2]", "[0,2]"), 8)).starts_with("bytes 2..8 of"));
    assert!(refusal(file("{}", 1)).starts_with("bytes 0..1 of"));
}

#[test]
fn limits_are_told_when_the_tensor_is_asked_for() {
    let ask = |dtype, shape, offsets, n| {
        parse(file(&one(dtype, shape, offsets), n)).unwrap().tensor("w").unwrap_err().to_string()
    };
    assert_eq!(
        ask("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]", 4),
        "tensor `w` of `<memory>`: rank 9 is above the limit of 8; reshape to fewer axes"
    );
    assert!(ask("F32", "[2,0]", "[0,0]", 0).contains("axis 1 of [2, 0] has size 0"));
    assert!(
        ask("F8_E4M3", "[4]", "[0,4]", 4).contains("has elements of type F8_E4M3; convert it to one of F16")
    );
    assert!(ask("U64", "[1]", "[0,8]", 8).contains("type U64"));
    let unknown = parse(file("{}", 0)).unwrap().tensor("w").unwrap_err().to_string();
    assert!(unknown.starts_with("`<memory>` has no tensor `w`"), "{unknown}");
}

/// Reads every tensor that there is.
fn touch(bytes: Vec<u8>) -> bool {
    let Ok(read) = parse(bytes) else { return false };
    for name in read.names() {
        if let Ok(tensor) = read.tensor(name) {
            let _ = tensor.to_f32();
        }
    }
    true
}

const GOOD: &str = r#"{"__metadata__":{"a":"b"},"w":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"v":{"dtype":"I8","shape":[3],"data_offsets":[8,11]}}"#;

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        touch(bytes);
    }

    #[test]
    fn random_headers_never_panic(header in "[{}\\[\\]\"a-z_:,0-9F]{0,80}", payload in 0usize..20) {
        touch(file(&header, payload));
    }

    /// On files with bytes changed, removed or added, the format's own library and this reader agree.
    #[test]
    fn changed_files_are_accepted_as_by_the_formats_own_library(
        changes in proptest::collection::vec((8usize..160, any::<u8>(), 0u8..4), 1..4)
    ) {
        let mut bytes = file(GOOD, 11);
        for (at, byte, kind) in changes {
            let at = at % bytes.len();
            match kind {
                0 => { bytes.remove(at); }
                1 => bytes.insert(at, byte),
                _ => bytes[at] = if kind == 2 { byte } else { b"0123456789[]{},:\"FIU"[usize::from(byte) % 20] },
            }
        }
        let theirs = safetensors::SafeTensors::deserialize(&bytes).is_ok();
        // Types that neither knows are theirs to refuse on opening and ours on use.
        prop_assert!(!theirs || touch(bytes.clone()), "{}", String::from_utf8_lossy(&bytes));
        if !theirs && let Ok(ours) = parse(bytes) {
            prop_assert!(ours.names().any(|n| ours.tensor(n).is_err()));
        }
    }

    #[test]
    fn numbers_of_any_size_never_panic(
        dims in proptest::collection::vec(any::<u64>(), 0..7), start in any::<u64>(), end in any::<u64>(), payload in 0usize..40
    ) {
        for (start, end) in [(start, end), (0, payload as u64)] {
            touch(file(&one("F64", &format!("{dims:?}"), &format!("[{start},{end}]")), payload));
        }
    }
}
