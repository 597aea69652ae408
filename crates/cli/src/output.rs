//! What people and machines see: progress, JSON, numbers in words.

use aneforge::device::Overflow;
use aneforge::{TensorType, artifact};
use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// A sign of life that disappears when it is dropped.
pub struct Spinner(ProgressBar);

impl Spinner {
    /// One on standard error, hidden unless that is a terminal.
    pub fn new(what: &'static str, quiet: bool) -> Spinner {
        let bar = ProgressBar::with_draw_target(None, target(quiet));
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(100));
        Spinner(bar)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A bar on standard error, hidden unless that is a terminal.
pub fn bar(what: &'static str, total: usize, quiet: bool) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}");
    let bar = ProgressBar::with_draw_target(Some(total as u64), target(quiet));
    bar.set_style(style.expect("invariant: the template is valid"));
    bar.with_message(what)
}

/// Where progress is drawn.
pub fn target(quiet: bool) -> ProgressDrawTarget {
    // Standard error that is no terminal hides itself.
    if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() }
}

/// Prints one JSON object.
pub fn print_json(out: &mut dyn Write, value: &Value) -> Result<()> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(std::io::Error::from)?;
    Ok(writeln!(out)?)
}

/// Whether an output is to go to standard output.
pub fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

/// Writes an output to the file called `path`, or to `out` where that is `-`.
pub fn save(
    path: &Path,
    out: &mut dyn Write,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    match is_standard(path) {
        true => Ok(fill(out)?),
        false => Ok(artifact::replace(path, fill)?),
    }
}

/// A type as the keys `dtype` and `shape`.
pub fn type_json(ty: TensorType) -> Value {
    json!({ "dtype": ty.dtype.to_string(), "shape": ty.shape.dims() })
}

/// A count of things, such as `2 inputs`.
pub fn counted(count: usize, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

/// A count with its thousands parted.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A time in the unit that suits it.
pub fn time(duration: Duration) -> String {
    let us = duration.as_secs_f64() * 1e6;
    match us {
        ..1e3 => format!("{us:.1} us"),
        ..1e6 => format!("{:.2} ms", us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}

/// A node that made an infinity or NaN of finite operands.
pub fn overflow_json(overflow: &Overflow) -> Value {
    json!({
        "op": overflow.op, "at": overflow.at.to_string(), "values": overflow.values, "calls": overflow.calls
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_parted() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn times_have_a_unit() {
        let times = [12_345, 1_234_567, 3_210_000_000].map(|ns| time(Duration::from_nanos(ns)));
        assert_eq!(times, ["12.3 us", "1.23 ms", "3.21 s"]);
    }
}
