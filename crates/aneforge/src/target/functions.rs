//! Operands for which the engine's functions are right.

/// The engine's `softplus` is used up to here.
///
/// Evidence: ANEForge 0.4.0; its exponential overflows, and the result is 0, from 11.09 on.
pub const SOFTPLUS_UP_TO: f32 = 10.0;
/// The engine's `round` is used for magnitudes below this, from which on half precision holds integers only.
///
/// Evidence: ANEForge 0.4.0; it adds a half to what is an integer, so that 1024 becomes 1025 and -2047 becomes -2048.
pub const ROUND_BELOW: f32 = 1024.0;
