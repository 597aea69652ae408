//! `TDPFP16PS` for processors with tiles that lack it: a testing aid, thousands of times slower than the
//! instruction.
//!
//! All other tile instructions run as they are. This one raises `SIGILL`; the handler finds the tiles in the saved
//! registers of the interrupted thread, adds there what the instruction adds, and goes on behind it.

use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

use half::f16;
use libc::{REG_RIP, SA_SIGINFO, SIGILL, c_int, c_void, siginfo_t, ucontext_t};

use super::{CONFIG, Config, TILE_ROWS};
use crate::Isa;
use crate::order::BLOCK;
use crate::simd::{Lanes, Real, Simd, Task, WIDTH};

/// Bytes of the instruction.
const LENGTH: usize = 5;
/// The components of the saved registers: the tiles' configuration and the tiles.
const CONFIG_STATE: u32 = 17;
const DATA_STATE: u32 = 18;
/// In the saved registers: what says that they have components, and the bit mask of those that are not zero.
const MAGIC: (usize, u32) = (464, 0x4650_5853);
const PRESENT: usize = 512;

type Tile = [[u32; WIDTH]; TILE_ROWS];

/// What the handler needs to know.
struct Installed {
    /// Where the configuration and the tiles are in the saved registers.
    config: usize,
    tiles: usize,
    simd: Simd,
    before: libc::sigaction,
}

static INSTALLED: OnceLock<Installed> = OnceLock::new();

/// Makes the instruction work in this process; whether that went well.
pub(super) fn install() -> bool {
    let offset = |state: u32| __cpuid_count(0xd, state).ebx as usize;
    let Some(simd) = Simd::new(Isa::Avx512) else { return false };
    // SAFETY: all zeros is an action without flags; `SIGILL` has an action, and the new one is a handler of the
    // kind that its flag says.
    unsafe {
        let (mut action, mut before): (libc::sigaction, libc::sigaction) = std::mem::zeroed();
        if libc::sigaction(SIGILL, std::ptr::null(), &raw mut before) != 0 {
            return false;
        }
        let (config, tiles) = (offset(CONFIG_STATE), offset(DATA_STATE));
        INSTALLED.get_or_init(|| Installed { config, tiles, simd, before });
        action.sa_sigaction = handle as extern "C" fn(_, _, _) as usize;
        action.sa_flags = SA_SIGINFO;
        libc::sigaction(SIGILL, &raw const action, std::ptr::null_mut()) == 0
    }
}

extern "C" fn handle(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    let installed = INSTALLED.get().expect("invariant: set before the handler is");
    // SAFETY: the system hands a handler the registers of the thread that it interrupted.
    let context = unsafe { &mut *context.cast::<ucontext_t>() };
    let code = context.uc_mcontext.gregs[REG_RIP as usize] as *const u8;
    // SAFETY: that is where the processor read what it could not run, and these are the thread's registers.
    if unsafe { emulate(installed, code, context.uc_mcontext.fpregs.cast()) } {
        context.uc_mcontext.gregs[REG_RIP as usize] += LENGTH as i64;
    } else {
        // SAFETY: the action that was there. The instruction raises the signal again.
        unsafe { libc::sigaction(SIGILL, &raw const installed.before, std::ptr::null_mut()) };
    }
}

/// Does what the instruction at `code` does to the saved registers, if it is `TDPFP16PS` on tiles of the one
/// configuration that is used here.
///
/// # Safety
/// The processor read an instruction at `code`, and `saved` are all registers of its thread.
unsafe fn emulate(installed: &Installed, code: *const u8, saved: *mut u8) -> bool {
    // SAFETY: the caller's promise. An instruction that starts with this byte has at least five. Saved registers are
    // at least 512 bytes; with the magic number, the mask and the components follow, where the processor said.
    unsafe {
        if code.read() != 0xc4 {
            return false;
        }
        let Some(operands) = operands(code.cast::<[u8; LENGTH]>().read()) else { return false };
        if saved.add(MAGIC.0).cast::<u32>().read() != MAGIC.1 {
            return false;
        }
        let present = |state: u32| saved.add(PRESENT).cast::<u64>().read() >> state & 1 == 1;
        let config = saved.add(installed.config).cast::<Config>();
        if !present(CONFIG_STATE) || config.read() != CONFIG {
            return false;
        }
        // Tiles that are not there are zeros, and stay zeros.
        if present(DATA_STATE) {
            let tiles = &mut *saved.add(installed.tiles).cast::<[Tile; 8]>();
            let [a, b] = [operands[1], operands[2]].map(|tile| bytemuck::cast(tiles[tile]));
            let sums = bytemuck::cast_mut(&mut tiles[operands[0]]);
            installed.simd.run(Product { sums, a, b });
        }
        true
    }
}

/// The tiles of sums, of the left and of the right operand of `VEX.128.F2.0F38.W0 5C /r` with three registers.
fn operands(code: [u8; LENGTH]) -> Option<[usize; 3]> {
    let [0xc4, 0xe2, vex, 0x5c, registers] = code else { return None };
    // The right operand stands in `vex` with its bits turned, and a fourth bit that is zero.
    let matches = vex & 0b1100_0111 == 0b0100_0011 && registers >> 6 == 0b11;
    matches.then_some([registers >> 3 & 7, registers & 7, !vex >> 3 & 7].map(usize::from))
}

/// `sums += a . b` for the 16 rows of `a`, and the 16 columns of pairs of terms of `b`.
struct Product<'a> {
    sums: &'a mut [[f32; WIDTH]; TILE_ROWS],
    a: [[f16; BLOCK]; TILE_ROWS],
    b: [[f16; BLOCK]; TILE_ROWS],
}

impl Task for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        for (sums, row) in self.sums.iter_mut().zip(&self.a) {
            let mut chains = [L::Vector::splat(0.0); 2];
            for (terms, pairs) in row.as_chunks::<2>().0.iter().zip(&self.b) {
                for (parity, chain) in chains.iter_mut().enumerate() {
                    let right = L::read(&std::array::from_fn(|column| pairs[2 * column + parity]));
                    *chain = L::Vector::splat(terms[parity].to_f32()).mul_add(right, *chain);
                }
            }
            let total = L::load(sums) + (chains[0] + chains[1]);
            L::store(total, sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::operands;

    #[test]
    fn operands_are_decoded() {
        // As the assembler writes `tdpfp16ps tmm1, tmm4, tmm7` and `tdpfp16ps tmm5, tmm0, tmm2`.
        assert_eq!(operands([0xc4, 0xe2, 0x43, 0x5c, 0xcc]), Some([1, 4, 7]));
        assert_eq!(operands([0xc4, 0xe2, 0x6b, 0x5c, 0xe8]), Some([5, 0, 2]));
        // `tdpbf16ps` and `tdpbssd`.
        assert_eq!(operands([0xc4, 0xe2, 0x42, 0x5c, 0xcc]), None);
        assert_eq!(operands([0xc4, 0xe2, 0x43, 0x5e, 0xcc]), None);
    }
}
