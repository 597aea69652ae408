//! Plans: what a compiled program is, as data that can be printed and compared.

use crate::emit::Blob;
use crate::ir::graph::{Feed, Graph};
use crate::ir::types::TensorType;
use crate::passes::Trace;
use crate::target::Target;
use aneforge_mil::Program;
use std::fmt;

/// A part of a plan that runs as one program: always the graph, the text and the weights together.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The graph, `Legal(target)`.
    pub graph: Graph,
    /// The same as MIL.
    pub program: Program,
    /// The plan of its weight file.
    pub blob: Blob,
}

/// A compiled program, for one target and any device.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The chip it is compiled for.
    pub target: Target,
    /// Its parts, in the order they run.
    pub segments: Vec<Segment>,
    /// What is fed, in order.
    pub feeds: Vec<Feed>,
    /// What is returned, in order.
    pub outputs: Vec<TensorType>,
    /// The number of ops as written, weights and inputs not counted.
    pub n_ops: usize,
    /// What each stage of the pipeline did.
    pub traces: Vec<Trace>,
}

impl Plan {
    /// MIL statements over all segments, constants included.
    pub fn n_statements(&self) -> usize {
        self.segments.iter().flat_map(|s| &s.program.functions).map(|f| f.body.len()).sum()
    }

    /// Bytes of all weight files.
    pub fn weight_bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.blob.layout.file_len()).sum()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "plan for {} ({}), {} ops", self.target, self.target.family(), self.n_ops)?;
        for (i, feed) in self.feeds.iter().enumerate() {
            writeln!(f, "  input {i}: {}", feed.ty)?;
        }
        for (i, ty) in self.outputs.iter().enumerate() {
            writeln!(f, "  output {i}: {ty}")?;
        }
        for (i, segment) in self.segments.iter().enumerate() {
            let statements: usize = segment.program.functions.iter().map(|f| f.body.len()).sum();
            let records = segment.blob.constants.len();
            let bytes = segment.blob.layout.file_len();
            writeln!(f, "  segment {i}: {statements} statements, {records} weights in {bytes} bytes")?;
        }
        Ok(())
    }
}

/// When a buffer is written and last read, as step numbers, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its size.
    pub bytes: usize,
    /// The step that writes it.
    pub first: usize,
    /// The last step that reads it.
    pub last: usize,
}

/// Slots of memory that buffers share when their spans do not overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// Which slot each buffer lies in.
    pub of: Vec<usize>,
    /// The size of each slot.
    pub bytes: Vec<usize>,
}

/// Assigns slots to buffers in the order they are written: the free slot that fits best, or the largest
/// free one grown, or a new one.
pub fn assign_slots(spans: &[Span]) -> Slots {
    let mut order: Vec<usize> = (0..spans.len()).collect();
    order.sort_by_key(|&i| spans[i].first);
    let mut slots = Slots { of: vec![0; spans.len()], bytes: Vec::new() };
    let mut busy_until: Vec<Option<usize>> = Vec::new();
    for i in order {
        let span = spans[i];
        let free = |slot: &usize| busy_until[*slot].is_none_or(|last| last < span.first);
        let waste = |slot: &usize| {
            let bytes = slots.bytes[*slot];
            // Slots that are large enough come first, the closest of them first; then the largest.
            if bytes >= span.bytes { (0, bytes - span.bytes) } else { (1, span.bytes - bytes) }
        };
        let slot = (0..slots.bytes.len()).filter(free).min_by_key(waste).unwrap_or_else(|| {
            slots.bytes.push(0);
            busy_until.push(None);
            slots.bytes.len() - 1
        });
        slots.bytes[slot] = slots.bytes[slot].max(span.bytes);
        busy_until[slot] = Some(span.last);
        slots.of[i] = slot;
    }
    slots
}
