//! The instruction sets that the other tests run on.

use aneforge_kernels::Isa;

/// Who runs the tests may know what the machine has, and says so in `ANEFORGE_ISAS`; `cargo xtask cross` does.
#[test]
fn all_instruction_sets_that_are_expected_are_tested() {
    let available: Vec<String> = Isa::available().iter().map(|isa| format!("{isa:?}")).collect();
    println!("tested: {}", available.join(" "));
    if let Ok(expected) = std::env::var("ANEFORGE_ISAS") {
        assert_eq!(available.join(" "), expected);
    }
}
