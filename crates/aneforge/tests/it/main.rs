//! What the crate does as a whole, seen from outside.

mod encoder;
