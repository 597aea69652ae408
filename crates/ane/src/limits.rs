//! What the engine's interface allows, each number with its evidence. None of them has been measured by this project.
//!
//! *Reference* is ANEForge 0.4.0 (arXiv 2606.17090), *guide* is arXiv 2606.22283, *clients* are independent public callers of
//! the same interface.

use std::time::Duration;

/// Programs that a process can have loaded; the next is refused when its operation is made. Reference (docs), guide chapter 14.
pub const MOST_PROGRAMS: usize = 128;
/// Programs that the engine's firmware holds for all processes together. Guide chapters 29 and 30, decompiled on M1.
pub const MOST_PROGRAMS_OF_ALL: usize = 144;
/// The engine's bit in the mask of devices to compile for; the only one ever set. What cannot be placed on the engine does then
/// not compile. Reference (runs on device).
pub const ENGINE_MASK: u64 = 0x4;
/// Memory that host and engine see, as a type of buffer. Reference (runs on device).
pub const HOST_VISIBLE: u32 = 0;
/// The name of the one function of a program. Reference (runs on device).
pub const FUNCTION: &str = "main";
/// Which segmenter cuts a program; the only one ever asked for. Reference (runs on device).
pub const SEGMENTER: &str = "graph";
/// Buffers are a multiple of so many bytes, and at least so many. Reference (runs on device).
pub const BUFFER_UNIT: usize = 64;
/// The class of service of every call of a native layer. Reference (runs on device); 33 is the user-interactive class.
pub const QUALITY_OF_SERVICE: u32 = 33;
/// The bytes of a surface of which a model says no strides. Reference (runs on device).
pub const UNSAID_STRIDE: usize = 65536;
/// Rows of a native layer's surface begin at multiples of so many bytes. Guide chapter 23 (from files), clients on M3 Ultra. What a
/// model reports is used; this is what the stand-in reports.
pub const ROW_UNIT: usize = 64;
/// Bytes of a surface are rounded up to pages of so many. Guide chapters 23 and 28. A surface that is too small stops the machine.
pub const PAGE: usize = 16 << 10;
/// A call takes at most a quarter of a second after idling, and the firmware gives up after two: one that has not come back after
/// so long hangs. Guide chapters 10, 19 and 29.
pub const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Compiles of more than a minute were seen; one that has not come back after so long hangs. Guide chapter 19.
pub const COMPILE_LIMIT: Duration = Duration::from_secs(300);

/// Bytes that a buffer for so many takes; `None` where no number has them.
pub fn buffer_bytes(bytes: usize) -> Option<usize> {
    bytes.max(1).checked_next_multiple_of(BUFFER_UNIT)
}

/// Whether a port of so many elements may be said to have so many bytes: two for each element, or one, which callers may round up to
/// an even number. More than that is never written; fewer would have the engine write past the end.
pub fn port_holds(elements: usize, bytes: usize) -> bool {
    let of_bytes = bytes == elements || elements.checked_next_multiple_of(2) == Some(bytes);
    of_bytes || elements.checked_mul(2).is_some_and(|halves| bytes >= halves)
}

/// What a status means. Codes 0 to 6 are from clients, which read them from the library; others are kept as numbers.
pub fn meaning(code: i32) -> &'static str {
    match code {
        0 => "ok",
        1 => "invalid function argument",
        2 => "invalid operation",
        3 => "memory could not be allocated",
        4 => "out of bounds",
        5 => "invalid type parameter",
        6 => "invalid data type",
        _ => "a status of unknown meaning",
    }
}

/// The public name of a kernel's status (`IOReturn.h`), by which errors of the driver are known.
pub fn kernel_status(code: u32) -> Option<&'static str> {
    Some(match code {
        0xe000_02bc => "kIOReturnError",
        0xe000_02bd => "kIOReturnNoMemory",
        0xe000_02be => "kIOReturnNoResources",
        0xe000_02c1 => "kIOReturnNotPrivileged",
        0xe000_02c2 => "kIOReturnBadArgument",
        0xe000_02c5 => "kIOReturnExclusiveAccess",
        0xe000_02c7 => "kIOReturnUnsupported",
        0xe000_02d0 => "kIOReturnNotAligned",
        0xe000_02d5 => "kIOReturnBusy",
        0xe000_02d6 => "kIOReturnTimeout",
        0xe000_02d8 => "kIOReturnNotReady",
        0xe000_02e2 => "kIOReturnNotPermitted",
        0xe000_02eb => "kIOReturnAborted",
        0xe000_02f0 => "kIOReturnNotFound",
        _ => return None,
    })
}
