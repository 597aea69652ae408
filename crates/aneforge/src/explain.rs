//! Why a program is what it is: every rule that fired or refused, the ways that were there to compile it, the forms of its
//! weights, and where and why it is cut.

use crate::compile::{CompileError, compile_graph};
use crate::ir::graph::Graph;
use crate::passes::{self, CompileOptions, Noticed, WeightReport, notices};
use crate::plan::{Code, Plan};
use crate::rewrite::Event;
use crate::target::cost::{Estimate, measured};
use crate::tune::{Considered, consider};
use serde_json::{Value, json};
use std::fmt;

/// What is told of a graph that was compiled.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The program, with what each stage did.
    pub plan: Plan,
    /// How it was compiled.
    pub options: CompileOptions,
    /// What a call of the graph as it was built may cost, with weights in bytes where they were asked for; absent for chips of
    /// which nothing is known.
    pub estimate: Option<Estimate>,
    /// The ways to compile it, by ANEForge's formula.
    pub ways: Vec<Considered>,
    /// What the chip does in its own way.
    pub notices: Vec<Noticed>,
}

/// Compiles a graph and tells why the program is what it is.
///
/// ```
/// use aneforge::explain::explain;
/// use aneforge::{CompileOptions, Graph, Shape, Var};
/// let x = Var::input(Shape::new(&[2, 300])?);
/// let graph = Graph::freeze(&[x.square().reshape(&[600]).reshape(&[20, 30])])?;
/// let told = explain(&graph, &CompileOptions::default())?.to_string();
/// assert!(told.contains("square_product at square (at "));
/// assert!(told.contains("reshape_chain at reshape (at "));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn explain(graph: &Graph, options: &CompileOptions) -> Result<Explanation, CompileError> {
    let plan = compile_graph(graph, options)?;
    let ways = consider(graph, options)?;
    let notices = notices(graph, options.target);
    let int8 = options.compression.is_some_and(|compression| compression.form == passes::Form::Int8);
    let estimate = measured(graph, options.target, int8).ok();
    Ok(Explanation { plan, options: *options, estimate, ways, notices })
}

impl Explanation {
    /// Whether the program was compiled in this way.
    fn taken(&self, way: &Considered) -> bool {
        way.options == self.options
    }

    /// What each program is: a native layer with the line that built it, or MIL.
    fn segments(&self) -> Vec<(Option<(String, String)>, u64)> {
        let layer = |segment: &crate::plan::Segment| match &segment.code {
            Code::Native(netplist) => {
                let at = segment.graph.node(segment.graph.outputs()[0]).at.to_string();
                Some((netplist.layer.kind.to_string(), at))
            }
            Code::Mil { .. } => None,
        };
        self.plan.segments.iter().map(|segment| (layer(segment), segment.weight_bytes())).collect()
    }

    /// All of it for machines.
    pub fn to_json(&self) -> Value {
        let event =
            |e: &Event| json!({ "rule": e.rule, "node": e.node, "refused": e.refused, "said": e.said });
        let stages = self.plan.traces.iter().map(|trace| {
            let events: Vec<Value> = trace.events.iter().map(event).collect();
            json!({ "stage": trace.stage, "nodes": trace.graph.len(), "events": events })
        });
        let ways = self.ways.iter().map(|way| {
            json!({
                "name": way.name,
                "estimate_us": way.estimate,
                "lossy": way.lossy,
                "taken": self.taken(way),
                "refused": way.refused,
            })
        });
        let weights = self.plan.weights.iter().map(WeightReport::to_json);
        let segments = self.segments().into_iter().map(|(layer, bytes)| {
            let (kind, at) = layer.unzip();
            json!({ "layer": kind, "at": at, "weight_bytes": bytes })
        });
        let noticed = |n: &Noticed| json!({ "op": n.op, "at": n.at.to_string(), "why": n.why, "warning": n.kind.is_warning() });
        json!({
            "target": self.plan.target.name(),
            "stages": stages.collect::<Vec<_>>(),
            "estimate": self.estimate.as_ref().map(Estimate::to_json),
            "ways": ways.collect::<Vec<_>>(),
            "weights": weights.collect::<Vec<_>>(),
            "segments": segments.collect::<Vec<_>>(),
            "most_bytes": self.options.ceiling(),
            "notices": self.notices.iter().map(noticed).collect::<Vec<_>>(),
        })
    }
}

/// Events in their order, each once with how often it is there.
fn counted(events: &[Event]) -> Vec<(&Event, usize)> {
    let mut found: Vec<(&Event, usize)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for event in events {
        let place =
            *places.entry((event.rule, &event.node, event.refused, &event.said)).or_insert(found.len());
        match found.get_mut(place) {
            Some((_, count)) => *count += 1,
            None => found.push((event, 1)),
        }
    }
    found
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { target, n_ops, segments, traces, weights, .. } = &self.plan;
        writeln!(f, "for {target} ({}), {n_ops} ops, programs: {}", target.family(), segments.len())?;
        for trace in traces {
            writeln!(f, "{}: {} nodes after it", trace.stage, trace.graph.len())?;
            for (event, count) in counted(&trace.events) {
                let times = if count > 1 { format!(" ({count} times)") } else { String::new() };
                writeln!(f, "  {event}{times}")?;
            }
        }
        if let Some(estimate) = &self.estimate {
            writeln!(f, "estimate, from what was measured of such chips:")?;
            estimate.to_string().lines().try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        writeln!(f, "ways to compile it, by ANEForge's formula for an M5 Pro:")?;
        for way in &self.ways {
            writeln!(f, "  {way}{}", if self.taken(way) { ", taken" } else { "" })?;
        }
        match (self.options.compression, &weights[..]) {
            (None, _) => writeln!(f, "weights: as they came, for no form was asked for")?,
            (Some(_), []) => writeln!(f, "weights: none may be stored in another form")?,
            (Some(_), weights) => {
                writeln!(f, "weights:")?;
                weights.iter().try_for_each(|weight| writeln!(f, "  {weight}"))?;
            }
        }
        writeln!(f, "programs, of at most {} bytes of weights each:", self.options.ceiling())?;
        for (at, (layer, bytes)) in self.segments().into_iter().enumerate() {
            match layer {
                Some((kind, line)) => writeln!(f, "  segment {at}: native layer {kind}, a cut (at {line})")?,
                None => writeln!(f, "  segment {at}: MIL, {bytes} bytes of weights")?,
            }
        }
        for Noticed { op, why, at, .. } in &self.notices {
            writeln!(f, "note: {op} {why} (at {at})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::var::Var;
    use crate::passes::{Compression, Form, Routes};
    use aneforge_tensor::Shape;

    #[test]
    fn everything_is_told_with_its_reason() {
        let x = Var::input(Shape::new(&[1, 2, 4, 8]).unwrap());
        let y = x.square().minmax_norm("Width", 1e-4);
        let weight = Var::full(Shape::new(&[8, 8]).unwrap(), 0.5);
        let graph = Graph::freeze(&[y.linear(&weight, None).linear(&weight.muls(0.3), None)]).unwrap();
        let options = CompileOptions::default()
            .routes(Routes::Native)
            .compression(Compression::new(Form::Sparse))
            .most_bytes(300);
        let told = explain(&graph, &options).unwrap();
        let text = told.to_string();
        for part in [
            "  square_product at square (at crates/aneforge/src/explain.rs:",
            "  split_program at matmul (at crates/aneforge/src/explain.rs:",
            "native layer MinMaxNormalization, a cut (at ",
            "less than half of it is zero, or all",
            "\n  fused: estimated ",
            "\n  native: estimated ",
            "\nestimate, from what was measured of such chips:\n  ",
            "\n  of which floor 72.0, ",
        ] {
            assert!(text.contains(part), "no {part:?} in:\n{text}");
        }
        let json = told.to_json();
        assert_eq!(json["segments"].as_array().unwrap().len(), told.plan.segments.len());
        assert!(told.plan.segments.len() >= 4, "{text}");
        assert_eq!(json["estimate"]["target"], "h17s");
        assert_eq!(json["ways"].as_array().unwrap().iter().filter(|way| way["taken"] == true).count(), 1);
    }
}
