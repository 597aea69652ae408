//! Weights in fewer bytes that a family's engine reads as they are stored.

use super::Family;
use aneforge_tensor::Encoding;

/// The forms of weights that a family's engine reads as they are; others compile, are expanded to half precision when a
/// program loads, and save no traffic.
///
/// Evidence: ANEForge 0.4.0's table, measured on M1 (4 bits 2.37 times as fast, sparse 1.55 to 1.64 times, bytes not
/// faster), M2 Pro (bytes take 0.52 to 0.87 of the time, by width) and M5 Pro (arXiv 2606.22283; of A15 it is the compiler's
/// table). A stream also needs unit steps and no dilation.
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
/// Evidence: ANEForge 0.4.0, measured on M1, M2 Pro and M5 Pro alike.
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
