//! Detection, permission and the tile instructions, as x86-64 Linux has them.

mod child;
#[cfg(feature = "emulate-amx")]
mod emulate;
mod products;

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::OnceLock;

use super::TILE_ROWS;
use crate::Isa;

pub(super) use child::holds_in_child;
pub(super) use products::{halves_one, halves_two, high_parts_one, high_parts_two, parts_one, parts_two};

/// Bytes of a row of a tile.
const ROW_BYTES: u16 = 64;

/// Whether there are tiles that multiply as `isa` says, or they are emulated.
pub(super) fn available(isa: Isa) -> bool {
    let native = has_tiles() && multiplies(isa);
    #[cfg(feature = "emulate-amx")]
    let native = native || emulate::install();
    native
}

/// Whether the processor has tiles, the system saves them, and it lets this process use them.
pub(super) fn has_tiles() -> bool {
    static TILES: OnceLock<bool> = OnceLock::new();
    *TILES.get_or_init(|| processor_has_tiles() && system_saves_tiles() && permitted())
}

/// Whether the processor says that it has the product of `isa`.
fn multiplies(isa: Isa) -> bool {
    match isa {
        Isa::AmxBf16 => __cpuid_count(7, 0).edx >> 22 & 1 == 1,
        Isa::AmxFp16 => __cpuid_count(7, 0).eax >= 1 && __cpuid_count(7, 1).eax >> 21 & 1 == 1,
        _ => false,
    }
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

#[cfg_attr(feature = "emulate-amx", derive(PartialEq))]
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
/// [`has_tiles`], or they are emulated.
pub(super) unsafe fn configure() {
    // SAFETY: the caller's promise; the configuration is valid for palette 1, whose sizes `processor_has_tiles` checked.
    unsafe {
        asm!(
            "ldtilecfg [{config}]", config = in(reg) &raw const CONFIG, options(nostack, readonly),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
        );
    }
}

/// # Safety
/// [`has_tiles`], or they are emulated.
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
