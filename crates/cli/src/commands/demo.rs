//! `aneforge demo`: the whole way from examples to answers, on digits that come with the command.

use crate::context::Context;
use crate::digits::{CLASSES, Digits, SIDE};
use crate::lesson::{self, Lesson};
use crate::live::spark;
use crate::output::{self, grouped, time};
use crate::picture;
use crate::timing::{self, Timing};
use aneforge::{Device, Feed, Plan, RunError, Session, compile};
use anyhow::Result;
use serde_json::json;
use std::io::Write;

/// What follows the options in `aneforge help demo`.
pub const JSON: &str = "\
JSON keys:
  program    ops, statements, program_bytes, weight_bytes, target, family
  device     name, description
  numerics   what the host engine models, or `ieee`
  training   ops, states (of the program of a step), examples, batch, steps, seconds, steps_per_second (without the looks at
             held-out digits), curve: step, loss (the mean since the row before), accuracy (of held-out digits)
  accuracy   correct, total, correct_float32 (of the same network, trained elsewhere in single precision)
  time       one: calls, median_us, p10_us; batch: the same with images, images_per_second
  digits     the digits shown: index, label, predicted, probability";

/// Train a small network to read handwritten digits, and let it read
///
/// Trains a convolutional network on the device: forward pass, gradients and Adam are one program, whose state
/// stays there from step to step. The accuracy on digits that it is not trained on climbs on standard error. Then
/// compiles the network with its weights to one fused program, and shows what was compiled, how many held-out
/// digits it reads correctly, some of them, and the time per call. Everything it needs comes with the command.
#[derive(clap::Args)]
pub struct Args {
    /// Steps to train
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    steps: u64,

    /// Calls to time with one image; a tenth as many with a batch
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    calls: u32,

    /// Images per call where the number of images per second is measured
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
}

/// Digits shown as pictures.
const SHOWN: usize = 5;
/// Columns of a picture.
const COLUMNS: usize = 12;
/// Columns between pictures.
const GAP: usize = 3;

/// What the network says about one image.
struct Reading {
    index: usize,
    label: usize,
    predicted: usize,
    probability: f32,
}

struct Timings {
    one: Timing,
    batch: Timing,
    images: usize,
}

impl Timings {
    fn images_per_second(&self) -> f64 {
        self.images as f64 / self.batch.median.as_secs_f64()
    }
}

/// Everything the demo finds out.
struct Findings<'a> {
    plan: &'a Plan,
    device: &'a dyn Device,
    lesson: &'a Lesson,
    numerics: String,
    readings: Vec<Reading>,
    in_float: usize,
    timings: Timings,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let digits = Digits::embedded()?;
    let device = context.device()?;
    let lesson = lesson::train(&digits, args.steps, context, &device)?;
    let load = |batch: usize| -> Result<Session> {
        let plan = compile(&[lesson.network(batch)?], &context.options())?;
        Ok(context.session(plan, &device)?)
    };
    let mut session = load(1)?;
    let readings = read(&digits, &mut session)?;
    let images = usize::from(args.batch);
    let timings = {
        let _spinner = context.spinner("timing");
        let mut batched = load(images)?;
        let first: Vec<usize> = digits.held_out().cycle().take(images).collect();
        let values: Vec<f32> = first.iter().flat_map(|&i| digits.image(i)).copied().collect();
        Timings {
            one: measure(&mut session, args.calls as usize, digits.image(0))?,
            batch: measure(&mut batched, args.calls.div_ceil(10) as usize, &values)?,
            images,
        }
    };
    let plan = session.plan().clone();
    let in_float = digits.correct_in_float()?;
    let numerics = session.numerics().to_string();
    let (plan, device, lesson) = (&plan, &*device, &lesson);
    let findings = Findings { plan, device, lesson, numerics, readings, in_float, timings };
    if context.json {
        return output::print_json(out, &findings.json());
    }
    findings.print(out, &digits, context.style())
}

/// Reads every held-out digit.
fn read(digits: &Digits, session: &mut Session) -> Result<Vec<Reading>, RunError> {
    let mut probabilities = [0.0; CLASSES];
    let mut readings = Vec::new();
    for index in digits.held_out() {
        session.set(0, Feed::F32(digits.image(index)), &[1, 1, SIDE, SIDE])?;
        session.execute()?;
        session.read(0, &mut probabilities);
        let predicted = lesson::best(&probabilities);
        let probability = probabilities[predicted];
        readings.push(Reading { index, label: digits.label(index), predicted, probability });
    }
    Ok(readings)
}

/// Times whole calls: values in, run, probabilities out.
fn measure(session: &mut Session, calls: usize, values: &[f32]) -> Result<Timing, RunError> {
    let batch = values.len() / (SIDE * SIDE);
    let mut probabilities = vec![0.0; batch * CLASSES];
    timing::measure(calls, || {
        session.set(0, Feed::F32(values), &[batch, 1, SIDE, SIDE])?;
        session.execute()?;
        session.read(0, &mut probabilities);
        Ok(())
    })
}

/// The first digit that is read wrongly and the first ones of different kinds that are read correctly.
fn selection(readings: &[Reading]) -> Vec<&Reading> {
    let mut shown: Vec<&Reading> = Vec::new();
    let wrong = readings.iter().find(|r| r.label != r.predicted);
    let room = SHOWN - usize::from(wrong.is_some());
    for reading in readings.iter().filter(|r| r.label == r.predicted) {
        if shown.len() < room && shown.iter().all(|s| s.label != reading.label) {
            shown.push(reading);
        }
    }
    shown.extend(wrong);
    shown
}

impl Findings<'_> {
    fn correct(&self) -> usize {
        self.readings.iter().filter(|r| r.label == r.predicted).count()
    }

    fn program_bytes(&self) -> usize {
        self.plan.segments.iter().map(|s| s.text().len()).sum()
    }

    fn json(&self) -> serde_json::Value {
        let plan = self.plan;
        let digits = selection(&self.readings).into_iter().map(|r| {
            json!({
                "index": r.index, "label": r.label, "predicted": r.predicted, "probability": r.probability
            })
        });
        let mut batch = self.timings.batch.json();
        batch["images"] = self.timings.images.into();
        batch["images_per_second"] = self.timings.images_per_second().into();
        json!({
            "program": {
                "ops": plan.n_ops,
                "statements": plan.n_statements(),
                "program_bytes": self.program_bytes(),
                "weight_bytes": plan.weight_bytes(),
                "target": plan.target.name(),
                "family": plan.target.family().to_string(),
            },
            "device": { "name": self.device.title(), "description": self.device.describe() },
            "numerics": self.numerics,
            "training": self.training_json(),
            "accuracy": {
                "correct": self.correct(), "total": self.readings.len(), "correct_float32": self.in_float
            },
            "time": { "one": self.timings.one.json(), "batch": batch },
            "digits": digits.collect::<Vec<_>>(),
        })
    }

    fn training_json(&self) -> serde_json::Value {
        let (lesson, total) = (self.lesson, self.readings.len() as f64);
        let curve = lesson.curve.iter().map(|point| {
            json!({ "step": point.step, "loss": point.loss, "accuracy": point.correct as f64 / total })
        });
        json!({
            "ops": lesson.ops,
            "states": lesson.states,
            "examples": lesson.examples,
            "batch": lesson::BATCH,
            "steps": lesson.steps,
            "seconds": lesson.time.as_secs_f64(),
            "steps_per_second": lesson.steps_per_second(),
            "curve": curve.collect::<Vec<_>>(),
        })
    }

    fn print_training(&self, out: &mut dyn Write) -> Result<()> {
        let lesson = self.lesson;
        writeln!(
            out,
            "  trained    {} steps of {} of {} digits in {}: {} steps per second,",
            grouped(lesson.steps),
            lesson::BATCH,
            grouped(lesson.examples as u64),
            time(lesson.time),
            grouped(lesson.steps_per_second() as u64)
        )?;
        writeln!(
            out,
            "             a step is one program of {} ops; {} states stay on the device",
            grouped(lesson.ops as u64),
            lesson.states
        )?;
        let share = |correct: usize| 100.0 * correct as f64 / self.readings.len() as f64;
        if let [first, .., last] = &lesson.curve[..] {
            let shares: Vec<f64> = lesson.curve.iter().map(|point| share(point.correct)).collect();
            writeln!(
                out,
                "  learned    {:.1} % of held-out digits {} {:.1} %, loss {:.2} to {:.2}",
                share(first.correct),
                spark(&shares),
                share(last.correct),
                first.loss,
                last.loss
            )?;
        }
        Ok(())
    }

    fn print(&self, out: &mut dyn Write, digits: &Digits, style: picture::Style) -> Result<()> {
        let (plan, total) = (self.plan, self.readings.len());
        let percent = |correct: usize| 100.0 * correct as f64 / total as f64;
        writeln!(out, "A network that has just learned to read handwritten digits\n")?;
        self.print_training(out)?;
        writeln!(
            out,
            "  compiled   {} ops to {} MIL statements: {} bytes of program,",
            plan.n_ops,
            plan.n_statements(),
            grouped(self.program_bytes() as u64)
        )?;
        writeln!(out, "             {} bytes of weights", grouped(plan.weight_bytes()))?;
        writeln!(out, "  target     {} (family {})", plan.target, plan.target.family())?;
        // What it models has a line of its own.
        let described = self.device.describe();
        let described = described
            .strip_suffix(" numerics")
            .and_then(|text| text.rsplit_once(", "))
            .map_or(&*described, |(rest, _)| rest);
        writeln!(out, "  device     {}: {described}", self.device.title())?;
        writeln!(out, "  numerics   {}", self.numerics)?;
        let (correct, float) = (self.correct(), self.in_float);
        writeln!(out, "  accuracy   {correct} of {total} held-out digits ({:.2} %)", percent(correct))?;
        writeln!(out, "             ({float} by the same network trained elsewhere in float32)")?;
        let Timings { one, batch, images } = &self.timings;
        writeln!(
            out,
            "  one image  {} per call, median of {} (p10 {})",
            time(one.median),
            grouped(one.calls as u64),
            time(one.p10)
        )?;
        writeln!(
            out,
            "  {:<10} {} per call, {} images per second\n",
            format!("{images} images"),
            time(batch.median),
            grouped(self.timings.images_per_second() as u64)
        )?;
        pictures(out, digits, &selection(&self.readings), style)?;
        writeln!(out, "\n{}", ran_on(self.device.title()))?;
        Ok(())
    }
}

fn pictures(
    out: &mut dyn Write,
    digits: &Digits,
    shown: &[&Reading],
    style: picture::Style,
) -> std::io::Result<()> {
    let drawn: Vec<Vec<String>> =
        shown.iter().map(|r| picture::draw(digits.image(r.index), SIDE, COLUMNS, style)).collect();
    let gap = " ".repeat(GAP);
    for row in 0..COLUMNS / 2 {
        let line: Vec<&str> = drawn.iter().map(|lines| lines[row].as_str()).collect();
        writeln!(out, "  {}", line.join(&gap).trim_end())?;
    }
    let captions = |text: &dyn Fn(&Reading) -> String| {
        let cells: Vec<String> = shown.iter().map(|r| format!("{:<COLUMNS$}", text(r))).collect();
        cells.join(&gap).trim_end().to_owned()
    };
    writeln!(out, "  {}", captions(&|r| format!("{}  {:.1} %", r.predicted, 100.0 * r.probability)))?;
    let verdict =
        |r: &Reading| if r.label == r.predicted { "right".into() } else { format!("wrong: a {}", r.label) };
    writeln!(out, "  {}", captions(&verdict))
}

/// Where it ran, without flattery.
fn ran_on(device: &str) -> &'static str {
    match device {
        "host" => {
            "This ran on the host engine: the same legal graph on this processor, with the\n\
             Neural Engine's documented numerics. This project has not run on Apple silicon."
        }
        "ane" => "This ran on the Neural Engine.",
        _ => {
            "This ran on a library that stands in for the Neural Engine and computes on this processor.\n\
             Nothing about silicon follows from it."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_reading_is_shown_beside_different_right_ones() {
        let reading = |index, label, predicted| Reading { index, label, predicted, probability: 0.5 };
        let mut readings: Vec<Reading> = (0..20).map(|i| reading(i, i % 7, i % 7)).collect();
        assert_eq!(selection(&readings).len(), SHOWN);
        readings.push(reading(20, 8, 1));
        let shown: Vec<usize> = selection(&readings).iter().map(|r| r.index).collect();
        assert_eq!(shown, [0, 1, 2, 3, 20]);
    }
}
