//! Plans: what a compiled program is, as data that can be printed and compared.

use crate::emit::Blob;
use crate::ir::graph::{Graph, InputInfo};
use crate::ir::types::TensorType;
use crate::passes::{Trace, WeightReport};
use crate::target::Target;
use aneforge_mil::Program;
use aneforge_mil::netplist::Netplist;
use aneforge_tensor::{Encoding, Weight};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::fmt;

pub use crate::passes::partition::Source;

/// A part of a plan that runs as one program: always the graph and what the engine is given, together.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The graph, `Legal(target)`.
    pub graph: Graph,
    /// Where each of its feeds comes from, in feed order.
    pub inputs: Vec<Source>,
    /// The same for the engine.
    pub code: Code,
}

/// What the engine is given.
#[derive(Clone, Debug)]
pub enum Code {
    /// A program with the plan of its weight file.
    Mil {
        /// The program.
        program: Program,
        /// The plan of its weight file.
        blob: Blob,
    },
    /// One native layer, as a property list with its weight files.
    Native(Netplist),
}

impl Segment {
    /// The program and its weight file, of a segment that is not a native layer.
    pub fn mil(&self) -> Option<(&Program, &Blob)> {
        match &self.code {
            Code::Mil { program, blob } => Some((program, blob)),
            Code::Native(_) => None,
        }
    }

    /// The property list, of a segment that is a native layer.
    pub fn netplist(&self) -> Option<&Netplist> {
        match &self.code {
            Code::Mil { .. } => None,
            Code::Native(netplist) => Some(netplist),
        }
    }

    /// What the engine reads: the program, or the property list.
    pub fn text(&self) -> String {
        match &self.code {
            Code::Mil { program, .. } => program.to_string(),
            Code::Native(netplist) => netplist.document.to_string(),
        }
    }

    /// Bytes of its weight files.
    pub fn weight_bytes(&self) -> u64 {
        match &self.code {
            Code::Mil { blob, .. } => blob.layout.file_len(),
            Code::Native(netplist) => netplist.weights.iter().map(|(_, bytes)| bytes.len() as u64).sum(),
        }
    }
}

/// How callers get results, in languages that tell one from several, and know names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Results {
    /// One after the other.
    #[default]
    InOrder,
    /// The only one by itself.
    Alone,
    /// By these names, one for each.
    Named(Vec<String>),
}

/// A compiled program, for one target and any device.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The chip it is compiled for.
    pub target: Target,
    /// Its parts, in the order they run.
    pub segments: Vec<Segment>,
    /// What is fed, in order.
    pub feeds: Vec<InputInfo>,
    /// What is returned, in order, and from where; after that, what becomes of state.
    pub outputs: Vec<(TensorType, Source)>,
    /// State that a run changes: the feeds that the last outputs are for, one for each.
    pub carries: Vec<usize>,
    /// How they are handed over; sessions always have them in order.
    pub results: Results,
    /// The number of ops as written, but for native layers; weights and inputs do not count.
    pub n_ops: usize,
    /// What each stage of the pipeline did.
    pub traces: Vec<Trace>,
    /// How weights are stored that may be encoded, where a form was asked for.
    pub weights: Vec<WeightReport>,
}

impl Plan {
    /// The place of the feed of this name.
    pub fn feed(&self, name: &str) -> Option<usize> {
        self.feeds.iter().position(|feed| !name.is_empty() && feed.name == name)
    }

    /// What is returned, in order, and from where.
    pub fn returned(&self) -> &[(TensorType, Source)] {
        &self.outputs[..self.outputs.len() - self.carries.len()]
    }

    /// State that a run changes: the place of each among the feeds, and of its next value among the outputs.
    pub fn carried(&self) -> impl Iterator<Item = (usize, usize)> {
        self.carries.iter().copied().zip(self.returned().len()..)
    }

    /// MIL statements over all segments, constants included.
    pub fn n_statements(&self) -> usize {
        let programs = self.segments.iter().filter_map(Segment::mil);
        programs.flat_map(|(program, _)| &program.functions).map(|f| f.body.len()).sum()
    }

    /// The number of native layers, at which the graph is cut.
    pub fn n_native(&self) -> usize {
        self.segments.iter().filter(|s| s.netplist().is_some()).count()
    }

    /// Bytes of all weight files.
    pub fn weight_bytes(&self) -> u64 {
        self.segments.iter().map(Segment::weight_bytes).sum()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Feed(i) => write!(f, "input {i}"),
            Source::Segment { segment, output } => write!(f, "segment {segment}.{output}"),
        }
    }
}

/// How many weights are stored in which encoding, and in how many bytes; nothing of those in full.
fn write_encodings<'a>(
    f: &mut fmt::Formatter<'_>,
    weights: impl Iterator<Item = &'a Weight> + Clone,
) -> fmt::Result {
    for encoding in &Encoding::ALL[1..] {
        let encoded = weights.clone().filter(|weight| weight.encoding() == *encoding);
        let (count, bytes) =
            encoded.fold((0, 0), |(count, bytes), weight| (count + 1, bytes + weight.stored_bytes()));
        if count > 0 {
            write!(f, ", {count} of them {encoding} in {bytes}")?;
        }
    }
    Ok(())
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "plan for {} ({}), {} ops", self.target, self.target.family(), self.n_ops)?;
        for (i, feed) in self.feeds.iter().enumerate() {
            let name = if feed.name.is_empty() { String::new() } else { format!(" ({})", feed.name) };
            writeln!(f, "  input {i}{name}: {}", feed.ty)?;
        }
        for event in self.traces.iter().filter(|trace| trace.stage == "partition").flat_map(|t| &t.events) {
            writeln!(f, "  {event}")?;
        }
        let cut = self.segments.len() > 1;
        let from = |source: &Source| if cut { format!(" from {source}") } else { String::new() };
        for (i, (ty, source)) in self.returned().iter().enumerate() {
            let name = match &self.results {
                Results::Named(names) => {
                    names.get(i).map_or_else(String::new, |name| format!(" ({})", name.escape_debug()))
                }
                Results::InOrder | Results::Alone => String::new(),
            };
            writeln!(f, "  output {i}{name}: {ty}{}", from(source))?;
        }
        for (feed, output) in self.carried() {
            writeln!(f, "  state: input {feed} becomes output {output}{}", from(&self.outputs[output].1))?;
        }
        for (i, segment) in self.segments.iter().enumerate() {
            match &segment.code {
                Code::Mil { program, blob } => {
                    let statements: usize = program.functions.iter().map(|f| f.body.len()).sum();
                    let weights = blob.payloads.iter().filter(|payload| payload.part == 0);
                    let (count, bytes) = (weights.clone().count(), blob.layout.file_len());
                    write!(f, "  segment {i}: {statements} statements, {count} weights in {bytes} bytes")?;
                    let held = weights.map(|payload| &segment.graph.constants()[payload.constant as usize]);
                    write_encodings(f, held)?;
                }
                Code::Native(netplist) => write!(f, "  segment {i}: native layer {}", netplist.layer.kind)?,
            }
            if cut {
                let sources: Vec<String> = segment.inputs.iter().map(Source::to_string).collect();
                write!(f, ", of {}", sources.join(", "))?;
            }
            writeln!(f)?;
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
    // By size, then by number.
    let mut free: BTreeSet<(usize, usize)> = BTreeSet::new();
    // By the last step that reads them, the first of those first.
    let mut busy: BinaryHeap<Reverse<(usize, usize)>> = BinaryHeap::new();
    for i in order {
        let span = spans[i];
        while let Some(&Reverse((last, slot))) = busy.peek()
            && last < span.first
        {
            busy.pop();
            free.insert((slots.bytes[slot], slot));
        }
        let fits = free.range((span.bytes, 0)..).next();
        let largest = || free.last().and_then(|&(bytes, _)| free.range((bytes, 0)..).next());
        let slot = match fits.or_else(largest).copied() {
            Some(found) => {
                free.remove(&found);
                found.1
            }
            None => {
                slots.bytes.push(0);
                slots.bytes.len() - 1
            }
        };
        slots.bytes[slot] = slots.bytes[slot].max(span.bytes);
        busy.push(Reverse((span.last, slot)));
        slots.of[i] = slot;
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What `assign_slots` does, by looking at every slot.
    fn assign_slowly(spans: &[Span]) -> Slots {
        let mut order: Vec<usize> = (0..spans.len()).collect();
        order.sort_by_key(|&i| spans[i].first);
        let mut slots = Slots { of: vec![0; spans.len()], bytes: Vec::new() };
        let mut busy: Vec<usize> = Vec::new();
        for i in order {
            let span = spans[i];
            let waste = |&slot: &usize| {
                let bytes = slots.bytes[slot];
                if bytes >= span.bytes { (0, bytes - span.bytes) } else { (1, span.bytes - bytes) }
            };
            let slot = (0..busy.len()).filter(|&slot| busy[slot] < span.first).min_by_key(waste);
            let slot = slot.unwrap_or(busy.len());
            if slot == busy.len() {
                slots.bytes.push(0);
                busy.push(0);
            }
            let grown = slots.bytes[slot].max(span.bytes);
            slots.bytes[slot] = grown;
            busy[slot] = span.last;
            slots.of[i] = slot;
        }
        slots
    }

    proptest! {
        #[test]
        fn slots_are_the_closest_free_ones(spans in proptest::collection::vec((0usize..6, 0usize..20, 0usize..8), 0..40)) {
            let span = |(bytes, first, more)| Span { bytes, first, last: if more == 7 { usize::MAX } else { first + more } };
            let spans: Vec<Span> = spans.into_iter().map(span).collect();
            prop_assert_eq!(assign_slots(&spans), assign_slowly(&spans));
        }
    }

    #[test]
    fn many_values_that_live_to_the_end_take_no_time() {
        let spans: Vec<Span> = (0..300_000).map(|first| Span { bytes: 4, first, last: usize::MAX }).collect();
        let start = std::time::Instant::now();
        assert_eq!(assign_slots(&spans).bytes.len(), spans.len());
        assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
    }
}
