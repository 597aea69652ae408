//! Documents that repeat code.

use std::path::Path;

#[test]
fn the_readme_shows_the_quickstart() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let example = read("crates/aneforge/examples/quickstart.rs");
    let (_, body) = example.split_once("\n\n").unwrap();
    assert!(read("README.md").contains(&format!("```rust\n{body}```\n")), "copy the example into README.md");
}
