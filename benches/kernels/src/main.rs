//! The kernels, shape by shape and path by path, beside the machine's roofs, the `gemm` crate, and onnxruntime and PyTorch
//! where Python has them.
//!
//! `cargo xtask bench kernels` runs it. The variants of a row take turns in one run; times are medians.

mod convolution;
mod memory;
mod network;
mod peers;
mod product;
mod python;
mod report;
mod timing;

use std::path::PathBuf;
use std::sync::Arc;

use aneforge_kernels::threads::Pool;
use aneforge_kernels::{Isa, Kernels, f16};

use python::Peer;
use timing::Row;

/// What a benchmark may use.
pub struct Bench {
    /// Contexts by instruction set and threads.
    contexts: Vec<Kernels>,
    peer: Option<Peer>,
    pytorch: Option<Peer>,
    rounds: usize,
    only: Option<String>,
    rows: Vec<Row>,
}

impl Bench {
    /// The contexts worth measuring: every vector instruction set, on one thread and on two.
    fn contexts(&self) -> Vec<Kernels> {
        self.contexts.clone()
    }

    /// The fastest instruction set on all threads.
    fn best(&self) -> Kernels {
        self.contexts.last().cloned().expect("there is always a context")
    }

    /// The libraries in Python that are there, computing `nodes`.
    fn peers<'a>(&self, nodes: &str) -> impl Iterator<Item = timing::Variant<'a>> {
        self.peer.iter().chain(&self.pytorch).map(|peer| peer.variant(nodes))
    }

    /// Whether a row of this name was asked for.
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }

    fn push(&mut self, row: Row) {
        row.print();
        self.rows.push(row);
    }
}

/// `count` values of a normal distribution of the given scale.
pub fn normal(count: usize, seed: u64, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / 16_777_216.0
    };
    // Sums of twelve uniform values are close to normal, and never far out.
    (0..count).map(|_| ((0..12).map(|_| uniform()).sum::<f32>() - 6.0) * scale).collect()
}

/// [`normal`], rounded to half precision.
pub fn halves(count: usize, seed: u64, scale: f32) -> Vec<f16> {
    normal(count, seed, scale).into_iter().map(f16::from_f32).collect()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mut rounds, mut only, mut python, mut output) = (15, None, None, None::<PathBuf>);
    let mut machine = String::from("not described");
    while let (Some(flag), Some(value)) = (arguments.next(), arguments.next()) {
        match flag.as_str() {
            "--rounds" => rounds = value.parse().expect("a number of rounds"),
            "--only" => only = Some(value),
            "--python" => python = Some(value),
            "--output" => output = Some(value.into()),
            "--machine" => machine = value,
            other => panic!("unknown flag {other}"),
        }
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(2);
    let pools: Vec<Arc<Pool>> = (1..=threads).map(|threads| Arc::new(Pool::new(threads))).collect();
    let sets = Isa::available().into_iter().filter(|&isa| isa != Isa::Scalar || Isa::best() == Isa::Scalar);
    let contexts =
        sets.flat_map(|isa| pools.iter().filter_map(move |pool| Kernels::new(isa, Arc::clone(pool))));
    let peer = python.as_deref().and_then(|python| Peer::onnxruntime(python, threads));
    let pytorch = python.as_deref().and_then(|python| Peer::pytorch(python, threads));
    let mut bench = Bench { contexts: contexts.collect(), peer, pytorch, rounds, only, rows: Vec::new() };
    memory::roofs(&mut bench);
    product::run(&mut bench);
    convolution::run(&mut bench);
    network::run(&mut bench);
    memory::run(&mut bench);
    if let Some(path) = output {
        let about = report::About::new(machine, &bench);
        report::write(&path, &about, &bench.rows).expect("the results can be written");
    }
}
