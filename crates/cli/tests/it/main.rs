//! The built command, as people and machines run it.

mod commands;
mod documents;
mod embed;
mod errors;
mod support;
