//! Pretrained models, from a directory or from the hub.
//!
//! | module | holds |
//! |---|---|
//! | [`encoder`] | sentence encoders of the BERT family |
//! | [`resolve`] | names to directories |
//!
//! Weights are tensors over mapped files; nothing is copied before a program is compiled. Everything here is
//! written in the users' own API.

pub mod encoder;
pub mod resolve;
