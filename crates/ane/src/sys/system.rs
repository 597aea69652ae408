//! What is asked of the operating system: a block that a library calls back, and which version runs here.

use super::Handle;
use super::table::Library;
use crate::rules::Completion;
use std::ffi::{CStr, c_char, c_void};
use std::path::Path;
use std::sync::Arc;

/// A block of the system's runtime, `i32 (^)(void)`, that says that something has ended.
///
/// It is marked as global, so that retaining and releasing it do nothing and its memory stays this crate's.
#[repr(C)]
pub(crate) struct Block {
    isa: *const c_void,
    flags: i32,
    reserved: i32,
    invoke: unsafe extern "C" fn(*mut Block) -> i32,
    descriptor: *const Descriptor,
    completion: *const Completion,
}

#[repr(C)]
struct Descriptor {
    reserved: usize,
    size: usize,
}

const GLOBAL: i32 = 1 << 28;
static DESCRIPTOR: Descriptor = Descriptor { reserved: 0, size: size_of::<Block>() };

// SAFETY: nothing in it changes after it was made, and completions may be used from any thread.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// A block for `completion`, which stays for good: a library looks at a block after it has called it, and nobody can know when it is
    /// done with that.
    pub(crate) fn new(class: BlockClass, completion: &Arc<Completion>) -> &'static Block {
        Box::leak(Box::new(Block {
            isa: class.0,
            flags: GLOBAL,
            reserved: 0,
            invoke: ended,
            descriptor: &raw const DESCRIPTOR,
            completion: Arc::into_raw(Arc::clone(completion)),
        }))
    }

    /// Makes it ready to be called once more.
    pub(crate) fn rearm(&self) {
        // SAFETY: this holds a count of it.
        unsafe { &*self.completion }.set(false);
    }

    pub(crate) fn pointer(&self) -> Handle {
        std::ptr::from_ref(self).cast_mut().cast()
    }
}

unsafe extern "C" fn ended(block: *mut Block) -> i32 {
    // SAFETY: blocks are called while they live.
    let completion = unsafe { (*block).completion };
    // A count of its own: whoever waits may drop everything once it knows.
    // SAFETY: the block holds a count.
    unsafe { Arc::increment_strong_count(completion) };
    // SAFETY: the count that was just made.
    unsafe { Arc::from_raw(completion) }.set(true);
    0
}

/// The class of blocks that are global.
#[derive(Clone, Copy)]
pub(crate) struct BlockClass(Handle);

// SAFETY: the address of a constant.
unsafe impl Send for BlockClass {}
// SAFETY: as above.
unsafe impl Sync for BlockClass {}

/// The class of blocks that are global: in the system's library, or in the one that stands in for it.
pub(crate) fn block_class(library: &Path) -> Option<BlockClass> {
    Library::open(library).ok()?.find("_NSConcreteGlobalBlock").map(BlockClass)
}

type Sysctl = unsafe extern "C" fn(*const c_char, *mut c_void, *mut usize, *mut c_void, usize) -> i32;

/// What the kernel knows under `name`, asked through `library`: at most so many bytes; how many it wrote.
fn kernel(library: &Path, name: &CStr, to: &mut [u8]) -> Option<usize> {
    let at = Library::open(library).ok()?.find("sysctlbyname")?;
    // SAFETY: it is a public function of the system with this signature.
    let ask = unsafe { std::mem::transmute::<Handle, Sysctl>(at) };
    let mut length = to.len();
    // SAFETY: it writes at most `length` bytes, and says how many.
    let code =
        unsafe { ask(name.as_ptr(), to.as_mut_ptr().cast(), &raw mut length, std::ptr::null_mut(), 0) };
    (code == 0).then_some(length)
}

/// A text that the kernel knows under `name`, asked through `library`.
pub(crate) fn kernel_text(library: &Path, name: &CStr) -> Option<String> {
    let mut text = [0u8; 256];
    let room = text.len() - 1;
    kernel(library, name, &mut text[..room])?;
    CStr::from_bytes_until_nul(&text).ok().map(|text| text.to_string_lossy().into_owned())
}

/// Bytes of memory that the machine has, where it says so: by `sysctl` through `library`, or by `/proc`.
pub(crate) fn memory(library: &Path) -> Option<u64> {
    let mut number = [0u8; 8];
    let asked = kernel(library, c"hw.memsize", &mut number).filter(|&length| length == number.len());
    if asked.is_some() {
        return Some(u64::from_ne_bytes(number));
    }
    let said = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes = said.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    kibibytes.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// What a library says that stands in for the engine, and is none.
pub(crate) fn stand_in(library: &Path) -> Option<String> {
    let at = Library::open(library).ok()?.find("aneforge_standin_version")?;
    // SAFETY: libraries that have it take nothing and give a static text.
    let version = unsafe { std::mem::transmute::<Handle, unsafe extern "C" fn() -> *const c_char>(at) };
    // SAFETY: as above.
    Some(unsafe { CStr::from_ptr(version()) }.to_string_lossy().into_owned())
}
