//! `aneforge inspect`: every form a program takes on its way, as text.

use crate::context::Context;
use crate::output;
use crate::program::{self, Program};
use aneforge::Plan;
use aneforge::device::host::{self, HostPlan};
use aneforge::passes::Trace;
use anyhow::Result;
use clap::ValueEnum;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;

/// What follows the options in `aneforge help inspect`.
pub const JSON: &str = "\
JSON keys, but for those that --show leaves out:
  target   the chip compiled for
  graph    text of the graph, or of those of a compiled program, long constants shortened
  passes   nothing for a compiled program; else for each: stage, nodes (left after it), events of rule, node, refused (why, or null if it fired),
           said (what it did, where its name does not say it)
  plan     steps of op (with what is fused into it), inputs, output, dtype, shape, order (how it lies; empty for rows),
           until (the last step that needs it, null for outputs), bytes (read and written), flops, apart (the step that
           computes what it reads and could have computed it, too, and why it does not; or null); slots: bytes of each
  mil      text of each program";

/// Show a program: its graph, what each pass did, the plan, the MIL text
///
/// Of a program that `compile` wrote, graphs are those of its segments, and what passes did is not known any more.
/// The plan is that of the host engine: its steps, how and where values lie and how long they live, the bytes that each
/// step moves, and why functions of elements are not computed by the step before.
#[derive(clap::Args)]
pub struct Args {
    /// The text of a graph, a compiled program, or its folder; `-` is standard input
    file: PathBuf,

    /// Which part to show
    #[arg(long, value_enum, ignore_case = true, default_value = "all")]
    show: Part,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The graph as read
    Graph,
    /// What each rule of each pass did or refused to do
    Passes,
    /// Steps and memory of the host engine
    Plan,
    /// The program
    Mil,
    /// All of these
    All,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let program = program::read(&args.file)?;
    let (graph, plan) = match program {
        // A graph that does not compile can still be looked at.
        Program::Graph(graph) if args.show == Part::Graph => (graph.to_string(), None),
        Program::Graph(graph) => (graph.to_string(), Some(context.compile(&graph)?)),
        compiled => {
            let plan = compiled.plan(&args.file, context, None)?;
            (graphs(&plan), Some(plan))
        }
    };
    let shown = |part: Part| args.show == part || args.show == Part::All;
    if context.json {
        return output::print_json(out, &machine(&graph, plan.as_ref(), shown, context)?);
    }
    let title = |out: &mut dyn Write, text: &str| match args.show {
        Part::All => writeln!(out, "== {text}"),
        _ => Ok(()),
    };
    if shown(Part::Graph) {
        title(out, "graph")?;
        write!(out, "{graph}")?;
    }
    let Some(plan) = &plan else { return Ok(()) };
    if shown(Part::Passes) {
        title(out, "passes")?;
        plan.traces.iter().try_for_each(|trace| pass(out, trace))?;
        if plan.traces.is_empty() {
            writeln!(out, "it was compiled before; inspect the graph that it was compiled from")?;
        }
    }
    if shown(Part::Plan) {
        title(out, "plan")?;
        write!(out, "{plan}")?;
        let host = host::shared_with(&context.host())?;
        for segment in &plan.segments {
            write!(out, "{}", host.plan(segment, plan.target)?)?;
        }
    }
    if shown(Part::Mil) {
        title(out, "mil")?;
        for segment in &plan.segments {
            writeln!(out, "{}", segment.text().trim_end())?;
        }
    }
    Ok(())
}

fn pass(out: &mut dyn Write, trace: &Trace) -> std::io::Result<()> {
    writeln!(out, "{}: {} nodes after it", trace.stage, trace.graph.len())?;
    if trace.events.is_empty() {
        writeln!(out, "  no rule applied")?;
    }
    for event in &trace.events {
        writeln!(out, "  {event}")?;
    }
    Ok(())
}

/// The graphs of a plan, each with its number if there are several.
fn graphs(plan: &Plan) -> String {
    match &plan.segments[..] {
        [segment] => segment.graph.to_string(),
        all => {
            all.iter().enumerate().map(|(at, segment)| format!("# segment {at}\n{}", segment.graph)).collect()
        }
    }
}

fn machine(
    graph: &str,
    plan: Option<&Plan>,
    shown: impl Fn(Part) -> bool,
    context: &Context,
) -> Result<Value> {
    let target = plan.map_or(context.target, |plan| plan.target);
    let mut value = json!({ "target": target.name() });
    if shown(Part::Graph) {
        value["graph"] = graph.into();
    }
    let Some(plan) = plan else { return Ok(value) };
    if shown(Part::Passes) {
        value["passes"] = plan.traces.iter().map(pass_json).collect();
    }
    if shown(Part::Plan) {
        // A layer that the host has no steps for has been reported when the plan was made.
        let host = host::shared_with(&context.host())?;
        let plans = plan.segments.iter().filter_map(|s| host.plan(s, plan.target).ok());
        let (steps, slots): (Vec<_>, Vec<_>) = plans.map(|p| (steps_json(&p), p.slots.bytes)).unzip();
        value["plan"] = json!({ "steps": steps.concat(), "slots": slots.concat() });
    }
    if shown(Part::Mil) {
        value["mil"] = plan.segments.iter().map(aneforge::plan::Segment::text).collect();
    }
    Ok(value)
}

fn pass_json(trace: &Trace) -> Value {
    let events = trace.events.iter();
    let events =
        events.map(|e| json!({ "rule": e.rule, "node": e.node, "refused": e.refused, "said": e.said }));
    json!({ "stage": trace.stage, "nodes": trace.graph.len(), "events": events.collect::<Vec<_>>() })
}

fn steps_json(plan: &HostPlan) -> Vec<Value> {
    let step = |(step, span): (&host::Step, &aneforge::plan::Span)| {
        let operands = step.inputs.iter().map(|operand| operand.place);
        let added = step.fused.residual.map(|operand| operand.place);
        let places = operands.chain(step.fused.bias).chain(added);
        let mut value = output::type_json(step.output.ty);
        value["op"] = step.name().into();
        value["inputs"] = places.map(|place| place.to_string()).collect();
        value["output"] = step.output.place.to_string().into();
        value["order"] = step.output.order.to_string().trim().into();
        value["until"] = (span.last != usize::MAX).then_some(span.last).into();
        value["bytes"] = step.bytes.into();
        value["flops"] = step.flops.into();
        value["apart"] = step.apart.map(|apart| json!({ "step": apart.step, "why": apart.why })).into();
        value
    };
    plan.steps.iter().zip(&plan.spans).map(step).collect()
}
