//! The integration tests of the library: one binary.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod allocations;
mod attention;
mod attributes;
mod buffers;
mod calibrate;
mod ceiling;
mod chains;
mod compress;
mod conformance;
mod cost;
mod cost_rows;
mod counting;
mod diagnose;
mod doctor;
mod errors;
mod facts;
mod faithful;
mod files;
mod golden;
mod images;
mod legal;
mod lowering;
mod measured;
mod noise;
mod norms;
mod overflow;

mod parts;
mod passes;
mod plans;
mod portable;
mod random_graph;
mod reference;
mod state;
mod support;
mod targets;
mod training;
mod training_steps;
mod verdicts;
mod weights;
mod wholes;
