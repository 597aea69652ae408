//! Transformers that read texts: tokens to states, by programs for batches of texts of near length.
//!
//! All families are one graph over one description ([`family`] and [`config`]); what loads them, looks tokens up, divides
//! texts into batches and runs them is here, and what makes vectors or scores of states is in [`encoder`](crate::encoder)
//! and [`reranker`](crate::reranker).

pub(crate) mod batches;
pub(crate) mod config;
mod embed;
pub(crate) mod family;
mod graph;
pub(crate) mod layers;
pub(crate) mod run;
pub(crate) mod tokens;

use aneforge::ir::types::Caller;

/// What messages call the place where nodes are made, which is no line of the user's.
const MADE_HERE: Caller = Caller::new("<encoder>", 0);
