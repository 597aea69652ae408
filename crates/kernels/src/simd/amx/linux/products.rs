//! The kernels: for every block of terms the tiles of rows (`tmm4`, `tmm5`) times those of the panel's columns (`tmm6`,
//! `tmm7`), added to the tiles of sums (`tmm0` to `tmm3`).

use std::arch::asm;

use half::f16;

use super::super::COLUMNS;
use super::super::factors::{Part, Work};

/// Bytes of a row of sums, and of a row of pairs of a panel.
const PITCH: usize = COLUMNS * 4;

/// A kernel for one tile of rows, or for two. In a block, `at` and `second` are the first rows, `row` and `b` and `pitch`
/// what else a tile is loaded by; `scale` is the size of an element, `step` that of a block of a panel.
macro_rules! kernel {
    (one $name:ident, $factor:ty, $sizes:tt, $block:tt) => {
        kernel!(
            $name, $factor, $sizes, $block,
            ["tilezero tmm0", "tilezero tmm1"],
            ["tileloadd tmm0, [{c} + {pitch}]", "tileloadd tmm1, [{c} + {pitch} + 64]"],
            ["tilestored [{c} + {pitch}], tmm0", "tilestored [{c} + {pitch} + 64], tmm1"]
        );
    };
    (two $name:ident, $factor:ty, $sizes:tt, $block:tt) => {
        kernel!(
            $name, $factor, $sizes, $block,
            ["tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3"],
            ["tileloadd tmm0, [{c} + {pitch}]", "tileloadd tmm1, [{c} + {pitch} + 64]",
             "tileloadd tmm2, [{c} + {pitch} + 2048]", "tileloadd tmm3, [{c} + {pitch} + 2112]"],
            ["tilestored [{c} + {pitch}], tmm0", "tilestored [{c} + {pitch} + 64], tmm1",
             "tilestored [{c} + {pitch} + 2048], tmm2", "tilestored [{c} + {pitch} + 2112], tmm3"]
        );
    };
    (
        $name:ident, $factor:ty, [$scale:literal, $step:literal], [$($block:literal,)*],
        [$($zero:literal),*], [$($load:literal),*], [$($store:literal),*]
    ) => {
        /// # Safety
        /// Tiles are configured on this thread, and `work` says the truth.
        pub(in super::super) unsafe fn $name(work: &Work<'_, $factor>) {
            // SAFETY: the caller's promise; no tile outlives the block.
            unsafe {
                asm!(
                    $($zero,)*
                    "test {more:e}, {more:e}",
                    "jz 2f",
                    $($load,)*
                    ".p2align 5",
                    "2:",
                    "mov {second}, [{offsets}]",
                    concat!("lea {at}, [{first_rows} + ", $scale, " * {second}]"),
                    concat!("lea {second}, [{second_rows} + ", $scale, " * {second}]"),
                    $($block,)*
                    "add {offsets}, 8",
                    concat!("add {b}, ", $step),
                    "dec {blocks}",
                    "jnz 2b",
                    $($store,)*
                    first_rows = in(reg) work.rows[0], second_rows = in(reg) work.rows[1],
                    at = out(reg) _, second = out(reg) _, row = in(reg) size_of::<$factor>() * work.row,
                    blocks = inout(reg) work.blocks.len() => _, offsets = inout(reg) work.blocks.as_ptr() => _,
                    b = inout(reg) work.panel => _, c = in(reg) work.sums, pitch = in(reg) PITCH,
                    more = in(reg) u32::from(work.more), options(nostack),
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                );
            }
        }
    };
}

kernel!(one halves_one, f16, ["2", "2048"], [
    "tileloaddt1 tmm4, [{at} + {row}]",
    "tileloadd tmm6, [{b} + {pitch}]",
    "tdpfp16ps tmm0, tmm4, tmm6",
    "tileloadd tmm7, [{b} + {pitch} + 64]",
    "tdpfp16ps tmm1, tmm4, tmm7",
]);
kernel!(two halves_two, f16, ["2", "2048"], [
    "tileloaddt1 tmm4, [{at} + {row}]",
    "tileloadd tmm6, [{b} + {pitch}]",
    "tdpfp16ps tmm0, tmm4, tmm6",
    "tileloadd tmm7, [{b} + {pitch} + 64]",
    "tdpfp16ps tmm1, tmm4, tmm7",
    "tileloaddt1 tmm5, [{second} + {row}]",
    "tdpfp16ps tmm2, tmm5, tmm6",
    "tdpfp16ps tmm3, tmm5, tmm7",
]);

// Low parts lie 64 bytes behind high ones in a row, and 2048 in a panel. The order of the passes is that of
// `crate::order::PartsDot`; each takes over one side's tiles from the one before.
kernel!(one parts_one, Part, ["4", "4096"], [
    "tileloaddt1 tmm4, [{at} + {row} + 64]",
    "tileloadd tmm6, [{b} + {pitch} + 2048]",
    "tdpbf16ps tmm0, tmm4, tmm6",
    "tileloadd tmm7, [{b} + {pitch} + 2112]",
    "tdpbf16ps tmm1, tmm4, tmm7",
    "tileloadd tmm6, [{b} + {pitch}]",
    "tdpbf16ps tmm0, tmm4, tmm6",
    "tileloadd tmm7, [{b} + {pitch} + 64]",
    "tdpbf16ps tmm1, tmm4, tmm7",
    "tileloaddt1 tmm4, [{at} + {row}]",
    "tdpbf16ps tmm0, tmm4, tmm6",
    "tdpbf16ps tmm1, tmm4, tmm7",
    "tileloadd tmm6, [{b} + {pitch} + 2048]",
    "tdpbf16ps tmm0, tmm4, tmm6",
    "tileloadd tmm7, [{b} + {pitch} + 2112]",
    "tdpbf16ps tmm1, tmm4, tmm7",
]);
kernel!(two parts_two, Part, ["4", "4096"], [
    "tileloaddt1 tmm4, [{at} + {row} + 64]",
    "tileloadd tmm6, [{b} + {pitch} + 2048]",
    "tdpbf16ps tmm0, tmm4, tmm6",
    "tileloadd tmm7, [{b} + {pitch} + 2112]",
    "tdpbf16ps tmm1, tmm4, tmm7",
    "tileloaddt1 tmm5, [{second} + {row} + 64]",
    "tdpbf16ps tmm2, tmm5, tmm6",
    "tdpbf16ps tmm3, tmm5, tmm7",
    "tileloadd tmm6, [{b} + {pitch}]",
    "tdpbf16ps tmm0, tmm4, tmm6",
    "tileloadd tmm7, [{b} + {pitch} + 64]",
    "tdpbf16ps tmm1, tmm4, tmm7",
    "tdpbf16ps tmm2, tmm5, tmm6",
    "tdpbf16ps tmm3, tmm5, tmm7",
    "tileloaddt1 tmm4, [{at} + {row}]",
    "tdpbf16ps tmm0, tmm4, tmm6",
    "tdpbf16ps tmm1, tmm4, tmm7",
    "tileloaddt1 tmm5, [{second} + {row}]",
    "tdpbf16ps tmm2, tmm5, tmm6",
    "tdpbf16ps tmm3, tmm5, tmm7",
    "tileloadd tmm6, [{b} + {pitch} + 2048]",
    "tdpbf16ps tmm0, tmm4, tmm6",
    "tileloadd tmm7, [{b} + {pitch} + 2112]",
    "tdpbf16ps tmm1, tmm4, tmm7",
    "tdpbf16ps tmm2, tmm5, tmm6",
    "tdpbf16ps tmm3, tmm5, tmm7",
]);
kernel!(one high_parts_one, Part, ["4", "4096"], [
    "tileloaddt1 tmm4, [{at} + {row} + 64]",
    "tileloadd tmm6, [{b} + {pitch}]",
    "tdpbf16ps tmm0, tmm4, tmm6",
    "tileloadd tmm7, [{b} + {pitch} + 64]",
    "tdpbf16ps tmm1, tmm4, tmm7",
    "tileloaddt1 tmm4, [{at} + {row}]",
    "tdpbf16ps tmm0, tmm4, tmm6",
    "tdpbf16ps tmm1, tmm4, tmm7",
]);
kernel!(two high_parts_two, Part, ["4", "4096"], [
    "tileloaddt1 tmm4, [{at} + {row} + 64]",
    "tileloadd tmm6, [{b} + {pitch}]",
    "tdpbf16ps tmm0, tmm4, tmm6",
    "tileloadd tmm7, [{b} + {pitch} + 64]",
    "tdpbf16ps tmm1, tmm4, tmm7",
    "tileloaddt1 tmm5, [{second} + {row} + 64]",
    "tdpbf16ps tmm2, tmm5, tmm6",
    "tdpbf16ps tmm3, tmm5, tmm7",
    "tileloaddt1 tmm4, [{at} + {row}]",
    "tdpbf16ps tmm0, tmm4, tmm6",
    "tdpbf16ps tmm1, tmm4, tmm7",
    "tileloaddt1 tmm5, [{second} + {row}]",
    "tdpbf16ps tmm2, tmm5, tmm6",
    "tdpbf16ps tmm3, tmm5, tmm7",
]);
