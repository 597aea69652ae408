//! The instructions on tiles for processors that lack some or all of them: a testing aid, thousands of times slower.
//!
//! What the processor lacks raises `SIGILL`; the handler does it, and goes on behind it. Where the processor has tiles
//! and lacks a product, the tiles are in the saved registers of the interrupted thread; where it has none, each thread has
//! its own in memory.

mod code;
mod product;

use std::arch::x86_64::__cpuid_count;
use std::cell::UnsafeCell;
use std::sync::OnceLock;

use libc::{SA_SIGINFO, SIGILL, c_int, c_void, greg_t, siginfo_t, ucontext_t};

use super::{CONFIG, Config, TILE_ROWS};
use crate::simd::{Simd, WIDTH};
use code::{Address, Instruction, decode};
use product::Product;

/// The components of the saved registers: the tiles' configuration and the tiles.
const CONFIG_STATE: u32 = 17;
const DATA_STATE: u32 = 18;
/// In the saved registers: what says that they have components, and the bit mask of those that are not zero.
const MAGIC: (usize, u32) = (464, 0x4650_5853);
const PRESENT: usize = 512;

type Tile = [[u32; WIDTH]; TILE_ROWS];

thread_local! {
    /// The tiles of a thread whose processor has none.
    static TILES: UnsafeCell<[Tile; 8]> = const { UnsafeCell::new([[[0; WIDTH]; TILE_ROWS]; 8]) };
}

/// What the handler needs to know.
struct Installed {
    /// Where the configuration and the tiles are in the saved registers, on a processor with tiles.
    saved: Option<(usize, usize)>,
    simd: Simd,
    before: libc::sigaction,
}

static INSTALLED: OnceLock<Installed> = OnceLock::new();

/// Makes the instructions work in this process; whether that went well.
pub(super) fn install() -> bool {
    static WENT_WELL: OnceLock<bool> = OnceLock::new();
    *WENT_WELL.get_or_init(|| {
        let offset = |state: u32| __cpuid_count(0xd, state).ebx as usize;
        let saved = super::has_tiles().then(|| (offset(CONFIG_STATE), offset(DATA_STATE)));
        let Some(simd) = Simd::beside_tiles().and_then(Simd::new) else { return false };
        // SAFETY: all zeros is an action without flags; `SIGILL` has an action, and the new one is a handler of the
        // kind that its flag says.
        unsafe {
            let (mut action, mut before): (libc::sigaction, libc::sigaction) = std::mem::zeroed();
            if libc::sigaction(SIGILL, std::ptr::null(), &raw mut before) != 0 {
                return false;
            }
            INSTALLED.get_or_init(|| Installed { saved, simd, before });
            action.sa_sigaction = handle as extern "C" fn(_, _, _) as usize;
            action.sa_flags = SA_SIGINFO;
            libc::sigaction(SIGILL, &raw const action, std::ptr::null_mut()) == 0
        }
    })
}

/// Does what the processor could not, and what follows it of the same kind.
extern "C" fn handle(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    let installed = INSTALLED.get().expect("invariant: set before the handler is");
    // SAFETY: the system hands a handler the registers of the thread that it interrupted.
    let context = unsafe { &mut *context.cast::<ucontext_t>() };
    let (mut emulated, saved) = (false, context.uc_mcontext.fpregs.cast::<u8>());
    loop {
        let registers = &mut context.uc_mcontext.gregs;
        let code = registers[libc::REG_RIP as usize] as *const u8;
        // SAFETY: that is where the processor reads its instructions, and `decode` reads no more bytes than it has.
        let decoded = decode(|at| unsafe { code.add(at).read() });
        // SAFETY: these are the thread's registers, and an instruction says the truth about memory.
        let done =
            decoded.filter(|(instruction, _)| unsafe { run(installed, *instruction, registers, saved) });
        let Some((_, length)) = done else { break };
        registers[libc::REG_RIP as usize] += length as greg_t;
        emulated = true;
    }
    if !emulated {
        // SAFETY: the action that was there. The instruction raises the signal again.
        unsafe { libc::sigaction(SIGILL, &raw const installed.before, std::ptr::null_mut()) };
    }
}

/// Does what `instruction` does, if that is emulated, on tiles of the one configuration that is used here.
///
/// # Safety
/// `registers` and `saved` are those of the interrupted thread, which is to run the instruction.
unsafe fn run(
    installed: &Installed,
    instruction: Instruction,
    registers: &[greg_t; 23],
    saved: *mut u8,
) -> bool {
    if let Some(places) = installed.saved {
        // SAFETY: the caller's promise.
        return unsafe { multiply_saved(installed, instruction, places, saved) };
    }
    // SAFETY: the thread is in its handler, and nothing else borrows its tiles; memory as the instruction has it.
    TILES.with(|tiles| unsafe {
        let tiles = &mut *tiles.get();
        match instruction {
            Instruction::Configure(at) => {
                return start(at, registers).cast::<Config>().read_unaligned() == CONFIG;
            }
            Instruction::Release => *tiles = [[[0; WIDTH]; TILE_ROWS]; 8],
            Instruction::Zero(tile) => tiles[tile] = [[0; WIDTH]; TILE_ROWS],
            Instruction::Load(tile, at) => {
                for (index, values) in tiles[tile].iter_mut().enumerate() {
                    *values = row(at, registers, index).read_unaligned();
                }
            }
            Instruction::Store(tile, at) => {
                for (index, values) in tiles[tile].iter().enumerate() {
                    row(at, registers, index).write_unaligned(*values);
                }
            }
            Instruction::Product(numbers, operands) => {
                installed.simd.run(Product { numbers, operands, tiles });
            }
        }
        true
    })
}

/// Does a product on the saved registers.
///
/// # Safety
/// `saved` are all registers of the interrupted thread, with the components where `places` says.
unsafe fn multiply_saved(
    installed: &Installed,
    instruction: Instruction,
    (config, tiles): (usize, usize),
    saved: *mut u8,
) -> bool {
    let Instruction::Product(numbers, operands) = instruction else { return false };
    // SAFETY: saved registers are at least 512 bytes; with the magic number, the mask and the components follow, where
    // the processor said.
    unsafe {
        if saved.add(MAGIC.0).cast::<u32>().read() != MAGIC.1 {
            return false;
        }
        let present = |state: u32| saved.add(PRESENT).cast::<u64>().read() >> state & 1 == 1;
        if !present(CONFIG_STATE) || saved.add(config).cast::<Config>().read() != CONFIG {
            return false;
        }
        // Tiles that are not there are zeros, and stay zeros.
        if present(DATA_STATE) {
            let tiles = &mut *saved.add(tiles).cast::<[Tile; 8]>();
            installed.simd.run(Product { numbers, operands, tiles });
        }
        true
    }
}

/// The first byte of an address.
fn start(at: Address, registers: &[greg_t; 23]) -> *mut u8 {
    let base = register(registers, at.base);
    std::ptr::with_exposed_provenance_mut(base.wrapping_add_signed(at.displacement as isize))
}

/// Row `index` of an address.
fn row(at: Address, registers: &[greg_t; 23], index: usize) -> *mut [u32; WIDTH] {
    let stride = at.stride.map_or(0, |(number, shift)| register(registers, number) << shift);
    start(at, registers).wrapping_add(index.wrapping_mul(stride)).cast()
}

/// A register by its number in instructions.
fn register(registers: &[greg_t; 23], number: usize) -> usize {
    use libc::{REG_R8, REG_RAX, REG_RBP, REG_RBX, REG_RCX, REG_RDI, REG_RDX, REG_RSI, REG_RSP};
    const FIRST: [c_int; 8] = [REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI];
    let place = FIRST.get(number).map_or(REG_R8 as usize + number.wrapping_sub(8), |&place| place as usize);
    registers[place] as usize
}
