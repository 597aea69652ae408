//! Functions that ANEForge documents (`ane_e5rt_*`), with its names, arguments and answers; see `include/ane_e5rt_dispatch.h`.
//!
//! Programs are used from one thread at a time. Each function's contract: pointers are null or of the type that the header says,
//! texts end in a zero byte, arrays have as many elements as is said, and a program is one that was compiled and not yet released.

use crate::error::loud;
use crate::names::{ports, text};
use crate::program::{Program, Source};
use std::ffi::{c_char, c_int, c_void};

/// The program behind a pointer.
///
/// # Safety
/// It is null, or one that was made and not released, and used by nobody else.
unsafe fn program<'a>(at: *mut Program) -> Result<&'a mut Program, String> {
    // SAFETY: the caller's.
    unsafe { at.as_mut() }.ok_or_else(|| "the program is null".into())
}

/// 0, or -1 after an error.
fn answer(work: impl FnOnce() -> Result<(), String>) -> c_int {
    loud(-1, || work().map(|()| 0))
}

/// Compiles the program in the file `mil`, and loads it; null after an error.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ane_e5rt_program_compile(
    mil: *const c_char,
    cache: *const c_char,
    mask: u64,
    in_names: *const *const c_char,
    in_bytes: *const usize,
    n_in: usize,
    out_names: *const *const c_char,
    out_bytes: *const usize,
    n_out: usize,
) -> *mut Program {
    loud(std::ptr::null_mut(), || {
        // SAFETY: the caller's.
        let inputs = unsafe { ports("input", in_names, in_bytes, n_in) }?;
        // SAFETY: the caller's.
        let outputs = unsafe { ports("output", out_names, out_bytes, n_out) }?;
        // SAFETY: the caller's.
        let (mil, cache) = unsafe { (text("the path", mil)?, text("the cache", cache)?) };
        let source = Source { text: mil.into(), cache: cache.into(), inputs, outputs };
        Ok(Box::into_raw(Box::new(Program::compile(source, mask)?)))
    })
}

/// Whether the program in `mil` compiles for the chip that `options` names, as in `TargetArchitecture=h13`, or for this one: 0, -2 where
/// the system cannot say so, or -1.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ane_e5rt_compile_check(
    mil: *const c_char,
    cache: *const c_char,
    _mask: u64,
    options: *const c_char,
) -> c_int {
    loud(-1, || {
        // SAFETY: the caller's.
        let (mil, cache) = unsafe { (text("the path", mil)?, text("the cache", cache)?) };
        // SAFETY: the caller's.
        let options = if options.is_null() { "" } else { unsafe { text("the options", options) }? };
        crate::program::check(mil, cache, options)
    })
}

/// Copies half-precision values into an input of the first program.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ane_e5rt_program_set_input_fp16(
    of: *mut Program,
    port: *const c_char,
    data: *const u16,
    count: usize,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { ane_e5rt_program_set_input_fp16_op(of, 0, port, data, count) }
}

/// The same for program `op`.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ane_e5rt_program_set_input_fp16_op(
    of: *mut Program,
    op: usize,
    port: *const c_char,
    data: *const u16,
    count: usize,
) -> c_int {
    answer(|| {
        // SAFETY: the caller's.
        let (program, port) = unsafe { (program(of)?, text("the port", port)?) };
        let (to, bytes) = program.input(op, port)?;
        let given = count.checked_mul(2).filter(|given| *given <= bytes);
        let given =
            given.ok_or_else(|| format!("{port} has {bytes} bytes, and {count} values were given"))?;
        if data.is_null() && count > 0 {
            return Err("the values are null".into());
        }
        // SAFETY: the caller has so many values, and the port so many bytes; they do not overlap unless they are the same.
        unsafe { std::ptr::copy(data.cast::<u8>(), to, given) };
        Ok(())
    })
}

/// Copies an output of the first program, as many values as both have.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ane_e5rt_program_get_output_fp16(
    of: *mut Program,
    port: *const c_char,
    data: *mut u16,
    count: usize,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { ane_e5rt_program_get_output_fp16_op(of, 0, port, data, count) }
}

/// The same for program `op`.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ane_e5rt_program_get_output_fp16_op(
    of: *mut Program,
    op: usize,
    port: *const c_char,
    data: *mut u16,
    count: usize,
) -> c_int {
    answer(|| {
        // SAFETY: the caller's.
        let (program, port) = unsafe { (program(of)?, text("the port", port)?) };
        let (from, bytes) = program.output(op, port)?;
        if data.is_null() && count > 0 {
            return Err("the place for the values is null".into());
        }
        let given = count.saturating_mul(2).min(bytes);
        // SAFETY: both have so many bytes.
        unsafe { std::ptr::copy(from, data.cast::<u8>(), given) };
        Ok(())
    })
}

/// Hands out where a port lies.
///
/// # Safety
/// See the module.
unsafe fn place(
    find: impl FnOnce() -> Result<(*mut u8, usize), String>,
    pointer: *mut *mut c_void,
    bytes: *mut usize,
) -> c_int {
    answer(|| {
        if pointer.is_null() {
            return Err("the place for the pointer is null".into());
        }
        if bytes.is_null() {
            return Err("the place for the number of bytes is null".into());
        }
        let (at, count) = find()?;
        // SAFETY: the caller's.
        unsafe { *pointer = at.cast() };
        // SAFETY: the caller's.
        unsafe { *bytes = count };
        Ok(())
    })
}

/// Where an input of the first program lies, and its bytes.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ane_e5rt_program_input_buffer(
    of: *mut Program,
    port: *const c_char,
    pointer: *mut *mut c_void,
    bytes: *mut usize,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { place(|| program(of)?.input(0, text("the port", port)?), pointer, bytes) }
}

/// Where an output of the first program lies, and its bytes.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ane_e5rt_program_output_buffer(
    of: *mut Program,
    port: *const c_char,
    pointer: *mut *mut c_void,
    bytes: *mut usize,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { place(|| program(of)?.output(0, text("the port", port)?), pointer, bytes) }
}

/// Runs every program once, in order, and waits.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ane_e5rt_program_execute(of: *mut Program) -> c_int {
    // SAFETY: the caller's.
    answer(|| unsafe { program(of) }?.execute())
}

/// The same.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ane_e5rt_program_execute_multi(of: *mut Program) -> c_int {
    // SAFETY: the caller's.
    unsafe { ane_e5rt_program_execute(of) }
}

/// Gives an input the memory of an output, before the first run.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ane_e5rt_program_share_buffer(
    of: *mut Program,
    from: usize,
    output: *const c_char,
    to: usize,
    input: *const c_char,
) -> c_int {
    answer(|| {
        // SAFETY: the caller's.
        let (output, input) = unsafe { (text("the output", output)?, text("the input", input)?) };
        // SAFETY: the caller's.
        unsafe { program(of) }?.share((from, output), (to, input))
    })
}

/// Releases a program and its memory. Null is released already.
///
/// # Safety
/// See the module; the program is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ane_e5rt_program_release(of: *mut Program) {
    if !of.is_null() {
        // SAFETY: the caller's; it was made as a box.
        let program = unsafe { Box::from_raw(of) };
        loud((), || {
            drop(program);
            Ok(())
        });
    }
}

/// Compiles another program of one input and one output onto the same stream: its number, or -1.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ane_e5rt_program_add_op(
    of: *mut Program,
    mil: *const c_char,
    input: *const c_char,
    in_bytes: usize,
    output: *const c_char,
    out_bytes: usize,
) -> c_int {
    loud(-1, || {
        // SAFETY: the caller's.
        let (program, mil) = unsafe { (program(of)?, text("the path", mil)?) };
        // SAFETY: the caller's.
        let (input, output) = unsafe { (text("the input", input)?, text("the output", output)?) };
        let number = program.add(mil, (input.into(), in_bytes), (output.into(), out_bytes))?;
        c_int::try_from(number).map_err(|_| "there are too many programs".into())
    })
}

/// How many programs there are.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ane_e5rt_program_get_op_count(of: *mut Program) -> usize {
    // SAFETY: the caller's.
    loud(0, || Ok(unsafe { program(of) }?.len()))
}

/// Makes a program wait for another. The event's name is the library's own.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ane_e5rt_program_chain_ops(
    of: *mut Program,
    before: usize,
    after: usize,
    _event: *const c_char,
) -> c_int {
    // SAFETY: the caller's.
    answer(|| unsafe { program(of) }?.chain(before, after))
}

/// Hands out a number.
///
/// # Safety
/// See the module.
unsafe fn number(what: &str, to: *mut u64, find: impl FnOnce() -> Result<u64, String>) -> c_int {
    answer(|| {
        if to.is_null() {
            return Err(format!("the place for {what} is null"));
        }
        let value = find()?;
        // SAFETY: the caller's.
        unsafe { *to = value };
        Ok(())
    })
}

/// The last value of a program's event.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ane_e5rt_program_get_event_last_signaled(
    of: *mut Program,
    op: usize,
    value: *mut u64,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { number("the value", value, || program(of)?.signalled(op)) }
}

/// The same.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ane_e5rt_program_get_chain_event_last_signaled(
    of: *mut Program,
    op: usize,
    value: *mut u64,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { ane_e5rt_program_get_event_last_signaled(of, op, value) }
}

/// Starts every program. It is done when this comes back: the engine runs one program at a time, and a second asynchronous stream never
/// ends (guide, measured on M1), so that nothing is lost but surprises.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ane_e5rt_program_execute_async(of: *mut Program) -> c_int {
    // SAFETY: the caller's.
    unsafe { ane_e5rt_program_execute(of) }
}

/// Waits for what was started: 0, or -2 if nothing was.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ane_e5rt_program_wait_for_completion(of: *mut Program) -> c_int {
    // SAFETY: the caller's.
    loud(-1, || Ok(if unsafe { program(of) }?.started == 0 { -2 } else { 0 }))
}

/// The value of the last program's event before the last run, and now.
///
/// # Safety
/// See the module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ane_e5rt_program_get_final_event_signaled(
    of: *mut Program,
    before: *mut u64,
    after: *mut u64,
) -> c_int {
    // SAFETY: the caller's.
    let first = unsafe { number("the value before", before, || Ok(program(of)?.before)) };
    if first != 0 {
        return first;
    }
    // SAFETY: the caller's.
    unsafe {
        number("the value after", after, || {
            let program = program(of)?;
            program.signalled(program.len() - 1)
        })
    }
}

/// What a completion block is: the head of the system's blocks, and what it calls.
#[repr(C)]
struct Block {
    isa: *const c_void,
    flags: i32,
    reserved: i32,
    invoke: unsafe extern "C" fn(*mut Block) -> i64,
    descriptor: *const [usize; 2],
    call: unsafe extern "C" fn(*mut c_void, c_int),
    context: *mut c_void,
}

static DESCRIPTOR: [usize; 2] = [0, size_of::<Block>()];

unsafe extern "C" fn invoked(block: *mut Block) -> i64 {
    // SAFETY: blocks are called while they live.
    let (call, context) = unsafe { ((*block).call, (*block).context) };
    // SAFETY: the caller has given both together.
    unsafe { call(context, 0) };
    0
}

/// A block that calls `call` with `context` and 0; null where there is no `call`. It is global: retaining it does nothing, and it is
/// freed below.
///
/// # Safety
/// `call` may be called with `context` as long as the block lives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ane_e5rt_make_completion_block(
    call: Option<unsafe extern "C" fn(*mut c_void, c_int)>,
    context: *mut c_void,
) -> *mut c_void {
    loud(std::ptr::null_mut(), || {
        let call = call.ok_or("the function to call is null")?;
        let block = Block {
            isa: std::ptr::null(),
            flags: 1 << 28,
            reserved: 0,
            invoke: invoked,
            descriptor: &raw const DESCRIPTOR,
            call,
            context,
        };
        Ok(Box::into_raw(Box::new(block)).cast())
    })
}

/// Frees a block.
///
/// # Safety
/// It is null, or was made above and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ane_e5rt_free_completion_block(block: *mut c_void) {
    if !block.is_null() {
        // SAFETY: the caller's.
        drop(unsafe { Box::from_raw(block.cast::<Block>()) });
    }
}
