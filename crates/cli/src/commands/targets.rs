//! `aneforge targets`: the chips that programs can be compiled for, and what their families take.

use crate::context::Context;
use crate::output;
use aneforge::Family;
use aneforge::target::cost::{Constants, Figure, Rates};
use aneforge::target::{
    Availability, CHIPS, Chip, FLOORS, Target, has_texture_engine, native_streams, op_status,
};
use anyhow::Result;
use serde_json::{Value, json};
use std::io::Write;

/// What follows the options in `aneforge help targets`.
pub const JSON: &str = "\
JSON keys:
  chips     for each: name, family, cores, is (what it is), note, and what estimates take it for: floor_us,
            port_gigabytes and weight_gigabytes (10^9 bytes per second, of inputs and results, and of large weights),
            teraflops (10^12 operations per second); null where it is not known; measured: whether they are its own
  families  for each that runs programs: name, number, limits (by name), streams (encodings of weights that are read as
            they are stored), texture_unit, decomposed and rejected (ops)";

/// Show the chips that programs can be compiled for, and what their families take
///
/// All of it is from tables and reports of others (docs/python.md says whose); this project has not run on Apple silicon.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    if context.json {
        let chips: Vec<Value> = CHIPS.iter().map(chip_json).collect();
        let families: Vec<Value> = families().map(family_json).collect();
        return output::print_json(out, &json!({ "chips": chips, "families": families }));
    }
    writeln!(out, "chips: family, cores, what it is")?;
    for chip in &CHIPS {
        let family = if chip.family.runs_mil() { chip.family.to_string() } else { "old".into() };
        let cores = chip.cores.map_or_else(|| "?".into(), |cores| cores.to_string());
        let note = if chip.note.is_empty() { String::new() } else { format!("\n          {}", chip.note) };
        writeln!(out, "  {:<5} {family:<4} {cores:>2}  {}{note}", chip.name, chip.is)?;
    }
    writeln!(out, "\nold families run no MIL program; ? is not known")?;
    for family in families() {
        writeln!(out, "\n{family}")?;
        for (name, limit) in family.limits().named() {
            writeln!(out, "  {name:<31}{limit:>9}")?;
        }
        writeln!(out, "  reads as stored: {}", streams(family).join(", "))?;
        for (what, below) in
            [("written with others", Availability::Decompose), ("rejected", Availability::Reject)]
        {
            match ops(family, below) {
                ops if ops.is_empty() => {}
                ops => writeln!(out, "  {what}: {}", ops.join(", "))?,
            }
        }
    }
    Ok(())
}

/// The families that run programs.
fn families() -> impl Iterator<Item = Family> {
    Family::ALL.into_iter().filter(|family| family.runs_mil())
}

fn streams(family: Family) -> Vec<&'static str> {
    native_streams(family).iter().map(|encoding| encoding.name()).collect()
}

/// Ops that this becomes of on a family.
fn ops(family: Family, status: Availability) -> Vec<&'static str> {
    FLOORS.iter().map(|floor| floor.op).filter(|op| op_status(op, family) == status).collect()
}

fn chip_json(chip: &Chip) -> Value {
    let rates = Target::named(chip.name).ok().and_then(|target| Rates::of(target).ok());
    let figure = |of: fn(&Constants) -> Figure| rates.map(|rates| of(&rates.constants).value);
    json!({
        "name": chip.name,
        "family": chip.family.to_string(),
        "cores": chip.cores,
        "is": chip.is,
        "note": chip.note,
        "floor_us": figure(|c| c.floor),
        "port_gigabytes": figure(|c| c.ports),
        "weight_gigabytes": figure(|c| c.streamed_weights),
        "teraflops": figure(|c| c.arithmetic),
        "measured": rates.is_some_and(|rates| rates.measured),
    })
}

fn family_json(family: Family) -> Value {
    let limits = family.limits().named().map(|(name, limit)| (name.to_owned(), limit.into()));
    json!({
        "name": family.to_string(),
        "number": family.number(),
        "limits": Value::Object(limits.into_iter().collect()),
        "streams": streams(family),
        "texture_unit": has_texture_engine(family),
        "decomposed": ops(family, Availability::Decompose),
        "rejected": ops(family, Availability::Reject),
    })
}
