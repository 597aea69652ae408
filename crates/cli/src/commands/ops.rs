//! `aneforge ops`: the operations of the graph language, and what is known of MIL's on every chip.

use crate::context::Context;
use crate::exit::file;
use crate::output;
use aneforge::Family;
use aneforge::ir::op::{Entry, Mil, OPS, find};
use aneforge::target::catalog::{self, MilOp};
use aneforge::target::floor;
use anyhow::Result;
use serde_json::{Value, json};
use std::io::Write;

/// What follows the options in `aneforge help ops`.
pub const JSON: &str = "\
JSON keys:
  ops      for each op of the graph language: name, inputs, attributes, doc, mil, first_family, available
  catalog  for each op of MIL: name, category, status per family, kernel, how, note";

/// Show what operations there are, and which chips compute them
///
/// Without a name, every operation of the graph language with how it reaches the engine; with one, its page,
/// and what is known of the MIL op of that name on every family of chips.
#[derive(clap::Args)]
pub struct Args {
    /// The operation to show
    name: Option<String>,
}

/// The families that run programs.
const FAMILIES: [Family; 4] = [Family::A13, Family::A14, Family::A15, Family::A16];

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let wanted = |name: &str| args.name.as_deref().is_none_or(|n| n == name);
    let ops: Vec<&Entry> = OPS.iter().filter(|e| wanted(e.info.name)).collect();
    let rows: Vec<&MilOp> = catalog::CATALOG.iter().filter(|op| wanted(op.name)).collect();
    if let (Some(name), true, true) = (&args.name, ops.is_empty(), rows.is_empty()) {
        return Err(file(format!("there is no operation `{name}`{}", similar(name))));
    }
    if context.json {
        let ops: Vec<Value> = ops.iter().map(|entry| op_json(entry, context)).collect();
        let rows: Vec<Value> = rows.iter().map(|row| row_json(row)).collect();
        return output::print_json(out, &json!({ "ops": ops, "catalog": rows }));
    }
    match &args.name {
        None => list(&ops, context, out),
        Some(_) => {
            ops.iter().try_for_each(|entry| page(entry, out))?;
            rows.iter().try_for_each(|row| known(row, out))
        }
    }
}

fn how(entry: &Entry) -> String {
    match (entry.mil)() {
        Mil::Leaf => "port or weight".into(),
        Mil::Stmt(spelling) | Mil::StmtWith(spelling, ..) => spelling.op.to_owned(),
        Mil::Decompose(_) | Mil::Legalized | Mil::Composed(_) => "written with other ops".into(),
        Mil::Native(_) => "native layer, a program of its own".into(),
    }
}

fn available(name: &str, context: &Context) -> bool {
    context.target.family() >= floor(name)
}

fn list(ops: &[&Entry], context: &Context, out: &mut dyn Write) -> Result<()> {
    for entry in ops {
        let info = &entry.info;
        let call = format!("{}({})", info.name, info.inputs.join(", "));
        let lacking = match available(info.name, context) {
            true => String::new(),
            false => format!(
                "; needs {} or newer, {} is {}",
                floor(info.name),
                context.target,
                context.target.family()
            ),
        };
        writeln!(out, "{call:<48} {}{lacking}", how(entry))?;
    }
    writeln!(out, "\n{}; `aneforge ops NAME` shows one", output::counted(ops.len(), "operation"))?;
    Ok(())
}

fn page(entry: &Entry, out: &mut dyn Write) -> Result<()> {
    let info = &entry.info;
    writeln!(out, "{}({})\n", info.name, info.inputs.join(", "))?;
    for line in info.page().trim().lines() {
        writeln!(out, "  {}", line.trim())?;
    }
    for attr in info.attrs {
        let default = entry.default_of(attr).map_or("required".into(), |value| format!("by default {value}"));
        writeln!(out, "\n  {}: {}, {default}. {}", attr.name, attr.ty, attr.doc.trim().replace('\n', ""))?;
    }
    writeln!(out, "\n  on the engine: {}, from {} on\n", how(entry), floor(info.name))?;
    Ok(())
}

fn known(row: &MilOp, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "MIL op {} ({})", row.name, row.category)?;
    for family in FAMILIES {
        writeln!(out, "  {family}: {}", row.status(family).name())?;
    }
    for (what, text) in [("kernel", row.kernel), ("computed by", row.class.name()), ("note", row.note)] {
        if !text.is_empty() {
            writeln!(out, "  {what}: {text}")?;
        }
    }
    Ok(())
}

fn op_json(entry: &Entry, context: &Context) -> Value {
    let info = &entry.info;
    let attr = |a: &aneforge::ir::op::AttrInfo| json!({ "name": a.name, "type": a.ty, "default": entry.default_of(a), "doc": a.doc.trim() });
    json!({
        "name": info.name,
        "inputs": info.inputs,
        "attributes": info.attrs.iter().map(attr).collect::<Vec<_>>(),
        "doc": info.page().trim(),
        "mil": how(entry),
        "first_family": floor(info.name).to_string(),
        "available": available(info.name, context),
    })
}

fn row_json(row: &MilOp) -> Value {
    let status = FAMILIES.map(|family| (family.to_string(), row.status(family).name().into()));
    json!({
        "name": row.name,
        "category": row.category,
        "status": Value::Object(status.into_iter().collect()),
        "kernel": row.kernel,
        "how": row.class.name(),
        "note": row.note,
    })
}

/// Names that contain the wanted one, or that it contains.
fn similar(name: &str) -> String {
    let names = OPS.iter().map(|e| e.info.name).chain(catalog::CATALOG.iter().map(|op| op.name));
    let mut close: Vec<&str> =
        names.filter(|known| !name.is_empty() && (known.contains(name) || name.contains(*known))).collect();
    close.sort_unstable();
    close.dedup();
    debug_assert!(find(name).is_none());
    match close.len() {
        0 => "; `aneforge ops` lists all".into(),
        _ => format!("; there is {}", close.join(", ")),
    }
}
