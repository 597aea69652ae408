//! `aneforge devices`: what programs can be compiled for and run on here.

use crate::context::Context;
use crate::output;
use aneforge::device::{self, host};
use aneforge::target::CHIPS;
use aneforge::{Device, DeviceError};
use anyhow::Result;
use serde_json::{Value, json};
use std::io::Write;
use std::sync::Arc;

/// What follows the options in `aneforge help devices`.
pub const JSON: &str = "\
JSON keys:
  devices          for each: name, available, default (with these options), and description or why it is not available
  target           the chip compiled for with these options
  default_target   the chip compiled for without any
  host             instruction_set, available_instruction_sets, threads, architecture, os
  targets          for each chip: name, family, runs_mil";

/// Show what programs can be compiled for and run on here
///
/// Says of every device whether it is available and, if not, why. Programs can be compiled for every
/// target on every machine.
#[derive(clap::Args)]
pub struct Args {}

/// A device by its name, or why it is not there.
type Found = (&'static str, Result<Arc<dyn Device>, DeviceError>);

/// Runs the command.
pub fn run(_: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let devices =
        ["ane", "host"].map(|name| (name, device::open(Some(name), &context.host(), &context.engine)));
    if context.json {
        return output::print_json(out, &machine(&devices, context));
    }
    writeln!(out, "devices")?;
    for (name, device) in &devices {
        let mark = if is_default(name, context) { " (default)" } else { "" };
        match device {
            Ok(device) => writeln!(out, "  {name}{mark}: {}", device.describe())?,
            Err(DeviceError::Unavailable { why, .. }) => {
                writeln!(out, "  {name}{mark}: not available: {why}")?
            }
            Err(error) => writeln!(out, "  {name}{mark}: {error}")?,
        }
    }
    let engine = host::shared_with(&context.host()).ok();
    let used = engine.map_or_else(String::new, |host| format!("; {} is used", host::name_of(host.isa())));
    writeln!(out, "\ninstruction sets with code for this processor, slowest first{used}")?;
    writeln!(out, "  {}", host::instruction_sets().join(", "))?;
    writeln!(out, "\ntarget\n  {} (family {})", context.target, context.target.family())?;
    writeln!(out, "\nknown targets")?;
    for family in families() {
        let chips: Vec<&str> = CHIPS.iter().filter(|c| c.family == family).map(|c| c.name).collect();
        let note = if family.runs_mil() { "" } else { " (runs no MIL program)" };
        writeln!(out, "  {}: {}{note}", family, chips.join(" "))?;
    }
    Ok(())
}

fn families() -> Vec<aneforge::Family> {
    let mut families: Vec<_> = CHIPS.iter().map(|c| c.family).collect();
    families.sort();
    families.dedup();
    families
}

/// Whether this device is used with these options and variables.
fn is_default(name: &str, context: &Context) -> bool {
    if let Some(asked) = context.device_name() {
        return asked == name;
    }
    match device::default() {
        Ok(device) => device.name() == name,
        Err(DeviceError::Unavailable { device, .. }) => device == name,
        Err(_) => false,
    }
}

fn machine(devices: &[Found], context: &Context) -> Value {
    let describe = |(name, device): &Found| {
        let mut value =
            json!({ "name": name, "available": device.is_ok(), "default": is_default(name, context) });
        match device {
            Ok(device) => value["description"] = device.describe().into(),
            Err(DeviceError::Unavailable { why, .. }) => value["why"] = why.as_str().into(),
            Err(error) => value["why"] = error.to_string().into(),
        }
        value
    };
    let target = |chip: &aneforge::target::Chip| json!({ "name": chip.name, "family": chip.family.to_string(), "runs_mil": chip.family.runs_mil() });
    let engine = host::shared_with(&context.host()).ok();
    json!({
        "devices": devices.iter().map(describe).collect::<Vec<_>>(),
        "target": context.target.name(),
        "default_target": aneforge::Target::default().name(),
        "host": {
            "instruction_set": engine.as_ref().map(|host| host::name_of(host.isa())),
            "available_instruction_sets": host::instruction_sets(),
            "threads": engine.as_ref().map(|host| host.threads()),
            "architecture": std::env::consts::ARCH,
            "os": std::env::consts::OS,
        },
        "targets": CHIPS.iter().map(target).collect::<Vec<_>>(),
    })
}
