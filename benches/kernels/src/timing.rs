//! Taking turns.

use std::time::{Duration, Instant};

/// How long one turn of a variant should take.
const TURN: f64 = 4e-3;

/// What one call does.
#[derive(Clone, Copy)]
pub enum Work {
    /// Floating-point operations.
    Flops(f64),
    /// Bytes that must be read or written.
    Bytes(f64),
    /// Only the time matters.
    Time,
}

/// One way to do it: runs so often and returns the seconds per call.
pub struct Variant<'a> {
    pub name: String,
    /// The variant that bounds it, by name.
    pub roof: Option<String>,
    pub run: Box<dyn FnMut(usize) -> f64 + 'a>,
}

impl<'a> Variant<'a> {
    /// `body` once per call.
    pub fn new(name: impl Into<String>, mut body: impl FnMut() + 'a) -> Variant<'a> {
        let run = move |calls: usize| {
            let start = Instant::now();
            for _ in 0..calls {
                body();
            }
            start.elapsed().as_secs_f64() / calls as f64
        };
        Variant { name: name.into(), roof: None, run: Box::new(run) }
    }

    /// With the variant that bounds it.
    pub fn under(mut self, roof: impl Into<String>) -> Variant<'a> {
        self.roof = Some(roof.into());
        self
    }
}

/// The result of one variant.
pub struct Cell {
    pub name: String,
    pub roof: Option<String>,
    /// Seconds per call: the median of the turns, and the best.
    pub median: f64,
    pub best: f64,
}

/// A mark of the project: a bound of the ratio of two variants' medians.
pub struct Mark {
    pub text: String,
    /// The variant that must be fast, and the one it is compared with.
    pub of: [String; 2],
    /// The time of the second over that of the first must be at least this.
    pub least: f64,
}

/// What was measured together.
pub struct Row {
    pub name: String,
    pub work: Work,
    pub cells: Vec<Cell>,
    pub marks: Vec<Mark>,
}

/// Lets every variant take `rounds` turns.
pub fn measure(name: &str, work: Work, rounds: usize, mut variants: Vec<Variant<'_>>) -> Row {
    let calls: Vec<usize> = variants
        .iter_mut()
        .map(|variant| {
            let first = (variant.run)(1).min((variant.run)(1));
            (TURN / first).ceil().clamp(1.0, 20_000.0) as usize
        })
        .collect();
    let mut times = vec![Vec::new(); variants.len()];
    for _ in 0..rounds {
        for ((variant, calls), times) in variants.iter_mut().zip(&calls).zip(&mut times) {
            times.push((variant.run)(*calls));
        }
    }
    let cells = variants.into_iter().zip(times).map(|(variant, mut times)| {
        times.sort_by(f64::total_cmp);
        Cell { name: variant.name, roof: variant.roof, median: times[times.len() / 2], best: times[0] }
    });
    Row { name: name.into(), work, cells: cells.collect(), marks: Vec::new() }
}

/// Lets the threads of other engines fall asleep.
pub fn rest() {
    std::thread::sleep(Duration::from_millis(25));
}

impl Row {
    /// With a mark: `fast` takes at most `1 / least` of the time of `other`.
    pub fn mark(mut self, text: &str, fast: &str, other: &str, least: f64) -> Row {
        let has = |name: &str| self.cells.iter().any(|cell| cell.name == name);
        if has(fast) && has(other) {
            self.marks.push(Mark { text: text.into(), of: [fast.into(), other.into()], least });
        }
        self
    }

    pub fn cell(&self, name: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.name == name)
    }

    /// The ratio that a mark bounds.
    pub fn ratio(&self, mark: &Mark) -> f64 {
        let [fast, other] = mark.of.each_ref().map(|name| self.cell(name).map_or(f64::NAN, |c| c.median));
        other / fast
    }

    /// The rate of a cell in GFLOP/s or GB/s.
    pub fn rate(&self, cell: &Cell) -> Option<f64> {
        match self.work {
            Work::Flops(work) | Work::Bytes(work) => Some(work / cell.median / 1e9),
            Work::Time => None,
        }
    }

    pub fn unit(&self) -> &'static str {
        match self.work {
            Work::Flops(_) => "GFLOP/s",
            Work::Bytes(_) => "GB/s",
            Work::Time => "",
        }
    }

    /// The share of its roof that a cell reaches.
    pub fn share(&self, cell: &Cell) -> Option<f64> {
        let roof = self.cell(cell.roof.as_deref()?)?;
        Some(roof.median / cell.median)
    }

    pub fn print(&self) {
        println!("{}", self.name);
        for cell in &self.cells {
            let rate = self.rate(cell).map_or(String::new(), |r| format!(", {r:.1} {}", self.unit()));
            let share =
                self.share(cell).map_or(String::new(), |s| format!(", {:.0}% of its roof", s * 100.0));
            println!(
                "  {:<32} {:>10.1} us (best {:.1}){rate}{share}",
                cell.name,
                cell.median * 1e6,
                cell.best * 1e6
            );
        }
        for mark in &self.marks {
            let ratio = self.ratio(mark);
            let verdict = if ratio >= mark.least { "met" } else { "missed" };
            println!("  mark {verdict}: {}: {ratio:.2}, wanted {:.2}", mark.text, mark.least);
        }
    }
}
