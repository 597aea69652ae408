//! Exceptions to the rules, each with the reason. One that is not needed any more is an error.

/// A size above the limit.
pub struct Size {
    /// A path from the root, and for functions `#name`.
    pub id: &'static str,
    /// The limit here.
    pub lines: usize,
    /// Why splitting it would read worse.
    pub reason: &'static str,
}

/// Files and functions that may be longer than the limits.
pub const SIZES: &[Size] = &[
    Size {
        id: "crates/aneforge/src/ir/ops/conv.rs",
        lines: 320,
        reason: "both gradients of convolution are written out as graphs, and read best beside the definition",
    },
    Size {
        id: "crates/aneforge/src/ir/ops/pool.rs",
        lines: 375,
        reason: "two ops over one kind of window, whose gradients share their geometry",
    },
    Size {
        id: "crates/aneforge/src/ir/ops/shape.rs",
        lines: 310,
        reason: "a family of five ops that move nothing",
    },
];

/// Ops that a file outside their homes tells by name.
pub struct Names {
    /// The file.
    pub path: &'static str,
    /// Variants of the enum.
    pub ops: &'static [&'static str],
    /// Why it must.
    #[expect(dead_code, reason = "for the reader of this file")]
    pub reason: &'static str,
}

/// Files outside `ir/ops` and `passes` that may tell ops by name.
pub const NAMES: &[Names] = &[
    Names {
        path: "crates/aneforge/src/emit.rs",
        ops: &["Split"],
        reason: "parts of one value are one statement, the single exception to one statement per node",
    },
    Names { path: "crates/aneforge/src/import/mil.rs", ops: &["Split"], reason: "reads that statement back" },
    Names {
        path: "crates/aneforge/src/rewrite/sums.rs",
        ops: &["ReduceSum"],
        reason: "a rewrite of users' graphs that is not part of the pipeline",
    },
    Names {
        path: "crates/aneforge/src/rewrite/mod.rs",
        ops: &["Relu", "Abs"],
        reason: "tests of the driver need some ops",
    },
];

/// A use of a module that is above the user's own.
pub struct Use {
    /// The file.
    pub path: &'static str,
    /// The module it uses.
    pub uses: &'static str,
    /// Why it must.
    #[expect(dead_code, reason = "for the reader of this file")]
    pub reason: &'static str,
}

/// Files of the library that may use a module above their own.
pub const LAYERING: &[Use] = &[Use {
    path: "crates/aneforge/src/ir/ops/norm.rs",
    uses: "grad",
    reason: "the gradient of a norm is that of its decomposition, which only the walk over a graph can take",
}];
