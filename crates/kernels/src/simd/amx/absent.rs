//! What [`super`] sees where there are no tile registers; [`super::Tiles::enter`] gives none.

use half::f16;

use super::factors::{Part, Work};
use crate::Isa;

pub(super) fn available(_: Isa) -> bool {
    false
}

pub(super) fn has_tiles() -> bool {
    false
}

pub(super) fn holds_in_child(_: fn() -> bool) -> bool {
    false
}

/// # Safety
/// Never called.
pub(super) unsafe fn configure() {}

/// # Safety
/// Never called.
pub(super) unsafe fn release() {}

macro_rules! never {
    ($($name:ident: $factor:ty),*) => {$(
        /// # Safety
        /// Never called.
        pub(super) unsafe fn $name(_: &Work<'_, $factor>) {}
    )*};
}

never!(halves_one: f16, halves_two: f16);
never!(parts_one: Part, parts_two: Part, high_parts_one: Part, high_parts_two: Part);
