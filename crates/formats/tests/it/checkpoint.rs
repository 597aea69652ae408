use super::safetensors::file;
use aneforge_formats::Checkpoint;
use std::path::Path;

fn header(name: &str) -> String {
    format!(r#"{{"{name}":{{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}}}"#)
}

fn write(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    std::fs::write(dir.join(name), bytes).unwrap();
}

fn refusal(dir: &Path) -> String {
    Checkpoint::open(dir).unwrap_err().to_string()
}

#[test]
fn one_file_or_several() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "part-1.safetensors", file(&header("a"), 2));
    write(dir.path(), "part-2.safetensors", file(&header("b"), 2));
    let index =
        r#"{"metadata":{"total_size":4},"weight_map":{"a":"part-1.safetensors","b":"part-2.safetensors"}}"#;
    write(dir.path(), "model.safetensors.index.json", index);
    let parts = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(parts.names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(parts.tensor("b").unwrap().to_f32(), [0.0, 1.0]);
    assert!(parts.tensor("c").unwrap_err().to_string().contains("has no tensor `c`"));

    write(dir.path(), "model.safetensors", file(&header("c"), 2));
    let whole = Checkpoint::open(dir.path()).unwrap();
    assert!(whole.contains("c") && !whole.contains("a"));
}

#[test]
fn files_of_torch_are_taken_where_there_are_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let torch = include_bytes!("../data/weights.pth");
    write(dir.path(), "part.bin", torch);
    let index = r#"{"weight_map":{"a":"part.bin","h":"part.bin"}}"#;
    write(dir.path(), "pytorch_model.bin.index.json", index);
    assert!(Checkpoint::is_complete(dir.path()));
    assert_eq!(Checkpoint::open(dir.path()).unwrap().names().collect::<Vec<_>>(), ["a", "h"]);
    write(dir.path(), "pytorch_model.bin", torch);
    assert!(Checkpoint::open(dir.path()).unwrap().contains("scalar"));
    // A file that is named itself is what it holds, and not what it is called.
    let named = Checkpoint::open(dir.path().join("part.bin")).unwrap();
    assert_eq!(named.tensor("h").unwrap().to_f32(), [1.0, 1.0]);
    assert!(named.directory().ends_with("part.bin"));
    write(dir.path(), "model.safetensors", file(&header("c"), 2));
    assert!(Checkpoint::open(dir.path()).unwrap().contains("c"));
}

#[test]
fn networks_of_pipelines_are_taken_in_single_precision_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let only = |open: fn(&Path) -> Checkpoint| open(path).names().map(str::to_owned).collect::<Vec<_>>();
    let network = |path: &Path| Checkpoint::open_network(path).unwrap();
    let encoder = |path: &Path| Checkpoint::open_encoder(path).unwrap();
    let message = Checkpoint::open_network(path).unwrap_err().to_string();
    assert!(message.ends_with("holds no weights, such as diffusion_pytorch_model.safetensors; download it again, or save it with `save_pretrained`"), "{message}");
    assert!(Checkpoint::open_encoder(path).unwrap_err().to_string().contains("such as model.safetensors;"));
    let part = "diffusion_pytorch_model.fp16-00001-of-00001.safetensors";
    write(path, part, file(&header("parts"), 2));
    write(
        path,
        "diffusion_pytorch_model.safetensors.index.fp16.json",
        format!(r#"{{"weight_map":{{"parts":"{part}"}}}}"#),
    );
    assert_eq!(only(network), ["parts"]);
    write(path, "diffusion_pytorch_model.fp16.safetensors", file(&header("half"), 2));
    assert_eq!(only(network), ["half"]);
    write(path, "diffusion_pytorch_model.safetensors", file(&header("single"), 2));
    assert_eq!(only(network), ["single"]);
    write(path, "model.fp16.safetensors", file(&header("text, half"), 2));
    assert_eq!(only(encoder), ["text, half"]);
    write(path, "model.safetensors", file(&header("text"), 2));
    assert_eq!(only(encoder), ["text"]);
}

#[test]
fn what_is_no_checkpoint_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(refusal(dir.path()).contains("holds neither model.safetensors nor model.safetensors.index.json"));
    let index = |text: &str| {
        write(dir.path(), "model.safetensors.index.json", text);
        refusal(dir.path())
    };
    assert!(index("{").contains("is not valid: EOF"));
    assert!(index(r#"{"weight_map":{"a":"gone.safetensors"}}"#).contains("gone.safetensors` does not exist"));
    for part in ["../x", "/etc/passwd", "a/b", "..", ".", "", "a\\\\b"] {
        let message = index(&format!(r#"{{"weight_map":{{"a":"{part}"}}}}"#));
        assert!(message.contains("which is no plain file name; do not trust this checkpoint"), "{message}");
    }
}

#[test]
fn an_index_that_names_a_tensor_its_part_lacks() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "part.safetensors", file(&header("a"), 2));
    write(dir.path(), "model.safetensors.index.json", r#"{"weight_map":{"b":"part.safetensors"}}"#);
    let message = Checkpoint::open(dir.path()).unwrap().tensor("b").unwrap_err().to_string();
    assert!(message.contains("part.safetensors` has no tensor `b`"), "{message}");
}
