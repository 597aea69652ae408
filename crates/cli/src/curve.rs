//! A training as a picture.

use crate::exit::file;
use aneforge::train::Events;
use anyhow::Result;
use serde::{Deserialize, Deserializer};
use std::fmt::Write;
use std::path::Path;

/// A point of the training.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Row {
    pub epoch: u64,
    pub step: u64,
    /// The mean loss of the epoch. JSON has no infinities and no NaN, which are null there.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
    /// Steps of the epoch that were void.
    #[serde(default)]
    pub void: u64,
    /// The share of held-out examples that is right, or how far off numbers are.
    pub held_out: Option<f64>,
    pub lr: f64,
    pub steps_per_second: f64,
}

/// A number that may have been none.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// Rows as text with commas; `measure` is what `held_out` is called.
pub fn csv(rows: &[Row], measure: &str) -> String {
    let mut text = format!("epoch,step,loss,{measure},lr,steps_per_second,void\n");
    for row in rows {
        let held_out = row.held_out.map(|value| value.to_string()).unwrap_or_default();
        let _ = writeln!(
            text,
            "{},{},{},{held_out},{},{:.1},{}",
            row.epoch, row.step, row.loss, row.lr, row.steps_per_second, row.void
        );
    }
    text
}

/// The file for TensorBoard in this folder, where there is to be one.
pub fn board(folder: Option<&Path>) -> Result<Option<Events>> {
    let made = folder.map(|folder| {
        Events::create(folder).map_err(|error| file(format!("cannot write to {}: {error}", folder.display())))
    });
    made.transpose()
}

/// Tells TensorBoard of a row; `measure` is what `held_out` is called.
pub fn tell(board: Option<&mut Events>, row: &Row, measure: &str) -> Result<()> {
    let Some(events) = board else { return Ok(()) };
    let path = events.path().display().to_string();
    let held_out = row.held_out.map(|value| (format!("held_out/{measure}"), value));
    let void = row.void as f64;
    let numbers =
        [("loss", row.loss), ("lr", row.lr), ("steps_per_second", row.steps_per_second), ("void", void)];
    let numbers = numbers.map(|(name, value)| (format!("train/{name}"), value));
    for (tag, value) in numbers.into_iter().chain(held_out) {
        let written = events.scalar(&tag, value, row.step);
        written.map_err(|error| file(format!("cannot write {path}: {error}")))?;
    }
    Ok(())
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
/// Around the plot.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 64.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 48.0;
/// Colours that stand out from white and from black.
const LOSS: &str = "#d9730d";
const HELD_OUT: &str = "#2383e2";

/// A picture of loss and `measure`, by step; text and lines take the colour that the page has.
pub fn svg(rows: &[Row], title: &str, measure: &str) -> String {
    let steps: Vec<f64> = rows.iter().map(|row| row.step as f64).collect();
    let most_steps = steps.iter().copied().fold(1.0, f64::max);
    let x = |step: f64| LEFT + step / most_steps * (WIDTH - LEFT - RIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<style>text {{ fill: #37352f }} .axis {{ stroke: #37352f }} \
         @media (prefers-color-scheme: dark) {{ text {{ fill: #e6e6e4 }} .axis {{ stroke: #e6e6e4 }} }}</style>\n"
    );
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    let _ =
        writeln!(svg, "<title>{title}</title>\n<text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{title}</text>");
    let (floor, end) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    let _ = writeln!(svg, "<path class=\"axis\" fill=\"none\" d=\"M{LEFT} {TOP}V{floor}H{end}V{TOP}\"/>");
    let middle = (LEFT + end) / 2.0;
    let _ = writeln!(svg, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">step</text>", HEIGHT - 10.0);
    for part in 0..=4 {
        let step = most_steps * f64::from(part) / 4.0;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{step:.0}</text>",
            x(step),
            floor + 18.0
        );
    }
    let losses: Vec<f64> = rows.iter().map(|row| row.loss).collect();
    let held_out: Vec<f64> = rows.iter().filter_map(|row| row.held_out).collect();
    line(
        &mut svg,
        "loss",
        &steps,
        &losses,
        &x,
        Side { colour: LOSS, at: LEFT - 6.0, anchor: "end", legend: LEFT },
    );
    if held_out.len() == rows.len() {
        let legend = LEFT + 90.0;
        line(
            &mut svg,
            measure,
            &steps,
            &held_out,
            &x,
            Side { colour: HELD_OUT, at: end + 6.0, anchor: "start", legend },
        );
    }
    svg + "</svg>\n"
}

/// Where the numbers of a line stand.
struct Side {
    colour: &'static str,
    at: f64,
    anchor: &'static str,
    legend: f64,
}

fn line(svg: &mut String, name: &str, steps: &[f64], values: &[f64], x: &dyn Fn(f64) -> f64, side: Side) {
    let Side { colour, at, anchor, legend } = side;
    let most = values.iter().copied().filter(|v| v.is_finite()).fold(0.0, f64::max);
    let most = if most > 0.0 { most } else { 1.0 };
    let floor = HEIGHT - BOTTOM;
    let y = |value: f64| floor - value / most * (floor - TOP);
    let _ = writeln!(svg, "<path d=\"M{legend} 38h20\" stroke=\"{colour}\" stroke-width=\"3\"/>");
    let _ = writeln!(svg, "<text x=\"{}\" y=\"42\">{name}</text>", legend + 26.0);
    for part in 0..=4 {
        let value = most * f64::from(part) / 4.0;
        let _ = writeln!(
            svg,
            "<text x=\"{at}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{value:.3}</text>",
            y(value) + 4.0
        );
    }
    let points = steps.iter().zip(values).filter(|(_, value)| value.is_finite());
    let points: Vec<String> =
        points.map(|(&step, &value)| format!("{:.1},{:.1}", x(step), y(value))).collect();
    let points = points.join(" ");
    let _ =
        writeln!(svg, "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{points}\"/>");
    for (&step, &value) in steps.iter().zip(values).filter(|(_, value)| value.is_finite()) {
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"{colour}\"/>",
            x(step),
            y(value)
        );
    }
}
