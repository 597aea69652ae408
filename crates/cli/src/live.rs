//! How a training goes, while it goes, on standard error.

use crate::output::{self, grouped};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::time::Instant;

/// A bar that counts steps where standard error is a terminal, else a line now and then.
pub struct Live {
    /// None where nothing is shown.
    shown: Option<Shown>,
    total: u64,
    start: Instant,
}

enum Shown {
    Bar(ProgressBar),
    Lines,
}

impl Live {
    /// Of a training of `total` steps.
    pub fn new(total: u64, silent: bool) -> Live {
        let shown = match (silent, io::stderr().is_terminal()) {
            (true, _) => None,
            (false, true) => Some(Shown::Bar(bar(total))),
            (false, false) => Some(Shown::Lines),
        };
        Live { shown, total, start: Instant::now() }
    }

    /// Step `step` is done.
    pub fn step(&self, step: u64) {
        if let Some(Shown::Bar(bar)) = &self.shown {
            bar.set_position(step);
        }
    }

    /// What is known after step `step`.
    pub fn say(&self, step: u64, text: &str) {
        let rate = step as f64 / self.start.elapsed().as_secs_f64();
        let text = format!("{text}  {} steps/s", grouped(rate as u64));
        match &self.shown {
            Some(Shown::Bar(bar)) => bar.set_message(text),
            Some(Shown::Lines) => {
                let width = self.total.to_string().len();
                // Whether anyone listens is not the training's business.
                let _ = writeln!(io::stderr(), "step {step:>width$} of {}  {text}", self.total);
            }
            None => {}
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(Shown::Bar(bar)) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

fn bar(total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}");
    let bar = ProgressBar::with_draw_target(Some(total), output::target(false));
    bar.set_style(style.expect("invariant: the template is valid"));
    bar.with_message("training")
}

/// Numbers as a line of bars, the lowest and the highest of them at its ends.
pub fn spark(values: &[f64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let (least, most) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let reach = if most > least { most - least } else { 1.0 };
    let bar = |value: &f64| match value.is_finite() {
        true => BARS[((value - least) / reach * (BARS.len() - 1) as f64).round() as usize],
        false => '?',
    };
    values.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_bars_reaches_from_the_lowest_to_the_highest() {
        assert_eq!(spark(&[0.0, 0.5, 1.0]), "▁▅█");
        assert_eq!(spark(&[3.0, f64::NAN, 3.0]), "▁?▁");
        assert_eq!(spark(&[]), "");
    }
}
