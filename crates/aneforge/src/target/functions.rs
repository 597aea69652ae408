//! Operands for which the engine's functions are right.

/// The engine's `softplus` is used up to here.
///
/// Its exponential overflows, and the result is 0, from 11.09 on.
/// Evidence: ANEForge 0.4.0, chip not said (reported).
pub const SOFTPLUS_UP_TO: f32 = 10.0;
/// The engine's `round` is used for magnitudes below this, from which on half precision holds integers only.
///
/// It adds a half to what is an integer, so that 1024 becomes 1025 and -2047 becomes -2048.
/// Evidence: ANEForge 0.4.0, chip not said (reported).
pub const ROUND_BELOW: f32 = 1024.0;
