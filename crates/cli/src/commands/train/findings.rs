//! What `aneforge train` says when it is done.

use super::{Args, Kind, measure};
use crate::curve::{self, Row};
use crate::data::{Data, Split, Targets};
use crate::live::spark;
use crate::output::{self, grouped, time};
use aneforge::Device;
use anyhow::Result;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// What came of a training.
pub struct Findings<'a> {
    pub args: &'a Args,
    pub data: &'a Data,
    pub split: &'a Split,
    pub device: &'a dyn Device,
    pub rows: Vec<Row>,
    /// Steps and time of this run.
    pub done: (u64, Duration),
    /// Why the last void step of this run was.
    pub why: Option<String>,
    pub kind: Kind,
    pub parameters: usize,
    pub labels: Option<PathBuf>,
}

impl Findings<'_> {
    fn void(&self) -> u64 {
        self.rows.iter().map(|row| row.void).sum()
    }

    fn rate(&self) -> f64 {
        self.done.0 as f64 / self.done.1.as_secs_f64().max(1e-9)
    }

    /// Writes the rows, and their picture.
    pub fn write(&self, out: &mut dyn Write) -> Result<()> {
        let measure = measure(self.data);
        if let Some(path) = &self.args.log {
            output::save(path, out, |to| to.write_all(curve::csv(&self.rows, measure).as_bytes()))?;
        }
        if let Some(path) = &self.args.curve {
            let title = format!("{}: loss and {measure}", self.data.name);
            let picture = curve::svg(&self.rows, &title, measure);
            output::save(path, out, |to| to.write_all(picture.as_bytes()))?;
        }
        Ok(())
    }

    pub fn json(&self) -> Value {
        let (data, split) = (self.data, self.split);
        let classes = match &data.targets {
            Targets::Classes { names, .. } => json!(names),
            Targets::Numbers { .. } => Value::Null,
        };
        json!({
            "data": {
                "examples": data.len(), "trained": split.trained.len(), "held_out": split.held_out.len(),
                "shape": data.shape, "classes": classes,
            },
            "network": { "kind": format!("{:?}", self.kind).to_lowercase(), "parameters": self.parameters },
            "device": { "name": self.device.title(), "description": self.device.describe() },
            "training": {
                "steps": self.done.0, "seconds": self.done.1.as_secs_f64(), "steps_per_second": self.rate(),
                "void": self.void(), "curve": self.rows,
            },
            "held_out": self.rows.last().and_then(|row| row.held_out),
            "output": self.args.output,
            "labels": self.labels,
        })
    }

    pub fn print(&self, out: &mut dyn Write) -> Result<()> {
        print(out, self.data, self.split, &self.rows)?;
        let (steps, took) = (grouped(self.done.0), time(self.done.1));
        writeln!(
            out,
            "  trained    {steps} steps in {took}: {} steps per second",
            grouped(self.rate() as u64)
        )?;
        if self.void() > 0 {
            let (void, steps) = (grouped(self.void()), grouped(self.rows.last().map_or(0, |row| row.step)));
            let why = self.why.as_ref().map_or(String::new(), |why| format!(", the last as {why}"));
            writeln!(out, "  void       {void} of {steps} steps, which changed nothing{why}")?;
        }
        writeln!(out, "  device     {}: {}", self.device.title(), self.device.describe())?;
        let parameters = grouped(self.parameters as u64);
        writeln!(out, "  network    {parameters} parameters, in {}", self.args.output.display())?;
        if let Some(labels) = &self.labels {
            writeln!(out, "  classes    {}", labels.display())?;
        }
        Ok(())
    }
}

fn print(out: &mut dyn Write, data: &Data, split: &Split, rows: &[Row]) -> Result<()> {
    let (trained, held_out) = (split.trained.len() as u64, split.held_out.len() as u64);
    writeln!(out, "  examples   {} trained on, {} held out", grouped(trained), grouped(held_out))?;
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
    let losses: Vec<f64> = rows.iter().map(|row| row.loss).collect();
    // As many as fit a line.
    let every = losses.len().div_ceil(40);
    let shown: Vec<f64> =
        losses.chunks(every).map(|part| part.iter().sum::<f64>() / part.len() as f64).collect();
    writeln!(out, "  loss       {:.4} {} {:.4}", first.loss, spark(&shown), last.loss)?;
    match (last.held_out, &data.targets) {
        (Some(share), Targets::Classes { .. }) => {
            writeln!(out, "  accuracy   {:.2} % of those held out", 100.0 * share)?;
        }
        (Some(off), Targets::Numbers { name, .. }) => {
            writeln!(
                out,
                "  error      `{name}` of those held out is off by {off:.4} (root of the mean square)"
            )?;
        }
        (None, _) => {}
    }
    Ok(())
}
