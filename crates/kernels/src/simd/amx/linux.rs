//! Detection, permission and the tile instructions, as x86-64 Linux has them.

#[cfg(feature = "emulate-amx-fp16")]
mod emulate;

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::OnceLock;

use half::f16;

use super::super::COLUMNS;
use super::TILE_ROWS;

/// Bytes of a row of a tile.
const ROW_BYTES: u16 = 64;
/// Bytes of a row of sums, and of a row of pairs of a panel.
const PITCH: usize = COLUMNS * 4;

/// Whether the processor has AMX-FP16, the system saves tiles, and it lets this process use them.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE
        .get_or_init(|| processor_has_tiles() && system_saves_tiles() && permitted() && multiplies_halves())
}

/// Whether the processor has the instruction on which it all rests, or it is emulated.
fn multiplies_halves() -> bool {
    let native = __cpuid_count(7, 0).eax >= 1 && __cpuid_count(7, 1).eax >> 21 & 1 == 1;
    #[cfg(feature = "emulate-amx-fp16")]
    let native = native || emulate::install();
    native
}

fn processor_has_tiles() -> bool {
    if __cpuid(0).eax < 0x1d || __cpuid_count(7, 0).edx >> 24 & 1 == 0 {
        return false;
    }
    let palette = __cpuid_count(0x1d, 1);
    let (row_bytes, names, rows) = (palette.ebx & 0xffff, palette.ebx >> 16, palette.ecx & 0xffff);
    row_bytes >= u32::from(ROW_BYTES) && names >= 8 && rows >= TILE_ROWS as u32
}

fn system_saves_tiles() -> bool {
    const TILE_STATE: u32 = 3 << 17;
    if __cpuid(1).ecx >> 27 & 1 == 0 {
        return false;
    }
    let low: u32;
    // SAFETY: the bit above says that the system lets programs read this register.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _, options(nomem, nostack)) };
    low & TILE_STATE == TILE_STATE
}

/// Asks for the tiles' part of the register state, which Linux hands out per process.
fn permitted() -> bool {
    const ARCH_PRCTL: isize = 158;
    const ARCH_GET_XCOMP_PERM: usize = 0x1022;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const TILE_DATA: usize = 18;
    let call = |code: usize, argument: usize| {
        let result: isize;
        // SAFETY: both codes only read or extend what this process may use; the one that writes is given the
        // address of `mask`.
        unsafe {
            asm!(
                "syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") code, in("rsi") argument,
                out("rcx") _, out("r11") _, options(nostack)
            );
        }
        result
    };
    let mut mask = 0_u64;
    call(ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0
        && call(ARCH_GET_XCOMP_PERM, (&raw mut mask).expose_provenance()) == 0
        && mask >> TILE_DATA & 1 == 1
}

#[cfg_attr(feature = "emulate-amx-fp16", derive(PartialEq))]
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// All eight tiles are 16 rows of 64 bytes.
static CONFIG: Config = {
    let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
    let mut tile = 0;
    while tile < 8 {
        row_bytes[tile] = ROW_BYTES;
        rows[tile] = TILE_ROWS as u8;
        tile += 1;
    }
    Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
};

/// # Safety
/// [`available`] is true.
pub(super) unsafe fn configure() {
    // SAFETY: the caller's promise; the configuration is valid for palette 1, whose sizes `available` checked.
    unsafe {
        asm!(
            "ldtilecfg [{config}]", config = in(reg) &raw const CONFIG, options(nostack, readonly),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
        );
    }
}

/// # Safety
/// [`available`] is true.
pub(super) unsafe fn release() {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "tilerelease", options(nostack, nomem),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
        );
    }
}

/// 16 rows: rows of `a` are `row` values apart, and each of its blocks starts at one of the offsets `blocks`.
///
/// # Safety
/// [`configure`] ran on this thread. `a` holds 16 rows of 32 values at each of the offsets, of which there is one at
/// least; `b` holds `blocks.len() * 16 * 32` pairs, `c` 16 rows of 32 sums.
pub(super) unsafe fn one(
    a: *const f16,
    row: usize,
    blocks: &[usize],
    b: *const u32,
    c: *mut f32,
    more: bool,
) {
    // SAFETY: the caller's promise; no tile outlives the block.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "test {more:e}, {more:e}",
            "jz 2f",
            "tileloadd tmm0, [{c} + {pitch}]",
            "tileloadd tmm1, [{c} + {pitch} + 64]",
            ".p2align 5",
            "2:",
            "mov {at}, [{offsets}]",
            "lea {at}, [{a} + 2 * {at}]",
            "tileloaddt1 tmm4, [{at} + {row}]",
            "tileloadd tmm6, [{b} + {pitch}]",
            "tdpfp16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {pitch} + 64]",
            "tdpfp16ps tmm1, tmm4, tmm7",
            "add {offsets}, 8",
            "add {b}, 2048",
            "dec {blocks}",
            "jnz 2b",
            "tilestored [{c} + {pitch}], tmm0",
            "tilestored [{c} + {pitch} + 64], tmm1",
            a = in(reg) a, b = inout(reg) b => _, blocks = inout(reg) blocks.len() => _, c = in(reg) c,
            offsets = inout(reg) blocks.as_ptr() => _, at = out(reg) _, row = in(reg) 2 * row,
            pitch = in(reg) PITCH, more = in(reg) u32::from(more), options(nostack),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
        );
    }
}

/// Two times 16 rows; see [`one`].
///
/// # Safety
/// That of [`one`] for both parts of `a`; `c` holds 32 rows of 32 sums.
pub(super) unsafe fn two(
    a: [*const f16; 2],
    row: usize,
    blocks: &[usize],
    b: *const u32,
    c: *mut f32,
    more: bool,
) {
    // SAFETY: the caller's promise; no tile outlives the block.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "test {more:e}, {more:e}",
            "jz 2f",
            "tileloadd tmm0, [{c} + {pitch}]",
            "tileloadd tmm1, [{c} + {pitch} + 64]",
            "tileloadd tmm2, [{c} + {pitch} + 2048]",
            "tileloadd tmm3, [{c} + {pitch} + 2112]",
            ".p2align 5",
            "2:",
            "mov {offset}, [{offsets}]",
            "lea {at}, [{a} + 2 * {offset}]",
            "tileloaddt1 tmm4, [{at} + {row}]",
            "tileloadd tmm6, [{b} + {pitch}]",
            "tdpfp16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {pitch} + 64]",
            "tdpfp16ps tmm1, tmm4, tmm7",
            "lea {at}, [{second} + 2 * {offset}]",
            "tileloaddt1 tmm5, [{at} + {row}]",
            "tdpfp16ps tmm2, tmm5, tmm6",
            "tdpfp16ps tmm3, tmm5, tmm7",
            "add {offsets}, 8",
            "add {b}, 2048",
            "dec {blocks}",
            "jnz 2b",
            "tilestored [{c} + {pitch}], tmm0",
            "tilestored [{c} + {pitch} + 64], tmm1",
            "tilestored [{c} + {pitch} + 2048], tmm2",
            "tilestored [{c} + {pitch} + 2112], tmm3",
            a = in(reg) a[0], second = in(reg) a[1], b = inout(reg) b => _,
            blocks = inout(reg) blocks.len() => _, c = in(reg) c, offsets = inout(reg) blocks.as_ptr() => _,
            at = out(reg) _, offset = out(reg) _, row = in(reg) 2 * row, pitch = in(reg) PITCH,
            more = in(reg) u32::from(more), options(nostack),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
        );
    }
}
