//! What [`super`] sees where there are no tile registers; [`super::Tiles::enter`] gives none.

use half::f16;

#[cfg(target_arch = "x86_64")]
pub(super) fn available() -> bool {
    false
}

/// # Safety
/// Never called.
pub(super) unsafe fn configure() {}

/// # Safety
/// Never called.
pub(super) unsafe fn release() {}

/// # Safety
/// Never called.
pub(super) unsafe fn one(_: *const f16, _: usize, _: &[usize], _: *const u32, _: *mut f32, _: bool) {}

/// # Safety
/// Never called.
pub(super) unsafe fn two(_: [*const f16; 2], _: usize, _: &[usize], _: *const u32, _: *mut f32, _: bool) {}
