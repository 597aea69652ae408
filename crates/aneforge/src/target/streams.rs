//! Weights in fewer bytes that a family's engine reads as they are stored.

use super::Family;
use aneforge_tensor::Encoding;

/// The forms of weights that a family's engine reads as they are; others compile, are expanded to half precision when a
/// program loads, and save no traffic.
///
/// On M1 4 bits are 2.37 times as fast, sparse ones 1.55 to 1.64 times, and bytes no faster; on M2 Pro bytes take 0.52 to 0.87 of
/// the time, by width, 4 bits 0.39 and sparse ones 0.48, and blocks 0.985; on M5 Pro all are 1.6 to 1.8 times as fast. A stream
/// also needs unit steps and no dilation.
/// Evidence: ANEForge 0.4.0's table and arXiv 2606.22283 c7 and c10, M1, M2 Pro and M5 Pro (measured); A15 is the compiler's table.
pub fn native_streams(family: Family) -> &'static [Encoding] {
    match family {
        Family::Older => &[],
        Family::A13 => &[Encoding::Sparse, Encoding::Lut4],
        Family::A14 => &[Encoding::Sparse, Encoding::Lut4, Encoding::Int8],
        Family::A15 | Family::A16 => &[Encoding::Sparse, Encoding::Lut4, Encoding::Int8, Encoding::Blockwise],
    }
}

/// Activations beyond this become infinite in products whose weights are bytes.
///
/// Evidence: ANEForge 0.4.0, M1, M2 Pro and M5 Pro alike (measured).
pub const INT8_ACTIVATIONS: f64 = 4094.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_the_references() {
        let reads = |family, encoding| native_streams(family).contains(&encoding);
        let rows = [
            (Encoding::Lut4, [false, true, true, true, true]),
            (Encoding::Sparse, [false, true, true, true, true]),
            (Encoding::Int8, [false, false, true, true, true]),
            (Encoding::Blockwise, [false, false, false, true, true]),
        ];
        for (encoding, want) in rows {
            assert_eq!(Family::ALL.map(|family| reads(family, encoding)), want, "{encoding}");
        }
    }
}
