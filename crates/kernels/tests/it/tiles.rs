//! What the feature `emulate-amx-fp16` promises.

use aneforge_kernels::Isa;

use super::support::contexts;

#[test]
fn tiles_are_enough_for_the_kernels_on_tiles() {
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if processor.split_whitespace().any(|flag| flag == "amx_tile") {
        assert!(contexts().iter().any(|kernels| kernels.isa() == Isa::AmxFp16));
    }
}
