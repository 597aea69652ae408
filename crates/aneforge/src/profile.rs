//! Where the time of a call goes: step by step, against what the machine can do at most.
//!
//! A [`Profile`] prints as a table; [`Profile::to_trace`] is for trace viewers such as Perfetto, [`Profile::to_svg`] a
//! picture.

use crate::device::{Roof, StepTime};
use crate::ir::types::counted;
use serde_json::json;
use std::fmt::{self, Write};
use std::time::Duration;

/// The steps of a session and how long they take: medians of several calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The device that ran them.
    pub device: String,
    /// Calls that were measured.
    pub calls: usize,
    /// In the order in which they run.
    pub steps: Vec<ProfiledStep>,
    /// What the device can do at most, where that is known.
    pub roof: Option<Roof>,
}

/// A step of a segment.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfiledStep {
    /// The segment that it is part of.
    pub segment: usize,
    /// The step, with the median of its times.
    pub step: StepTime,
}

impl Profile {
    /// Of the times of every call: for each, one list per segment.
    pub(crate) fn new(device: String, calls: &[Vec<Vec<StepTime>>], roof: Option<Roof>) -> Profile {
        let median = |segment: usize, at: usize| {
            let mut times: Vec<Duration> = calls.iter().map(|call| call[segment][at].time).collect();
            times.sort_unstable();
            times[times.len() / 2]
        };
        let segments = calls.first().into_iter().flatten().enumerate();
        let steps = segments.flat_map(|(segment, steps)| {
            let step = move |(at, step): (usize, &StepTime)| ProfiledStep {
                segment,
                step: StepTime { time: median(segment, at), ..step.clone() },
            };
            steps.iter().enumerate().map(step).collect::<Vec<_>>()
        });
        Profile { device, calls: calls.len(), steps: steps.collect(), roof }
    }

    /// The time of all steps.
    pub fn total(&self) -> Duration {
        self.steps.iter().map(|s| s.step.time).sum()
    }

    /// The share of the machine's roof that a step reaches: the least time that its arithmetic and its bytes take, over the
    /// time that it took. Above 1 where operands were in caches.
    pub fn share(&self, step: &StepTime) -> Option<f64> {
        let least = self.roof?.least(step.flops, step.bytes);
        (!step.time.is_zero()).then(|| least / step.time.as_secs_f64())
    }

    /// In the format of Chrome's trace events, which Perfetto and `chrome://tracing` show: one event per step, end to end.
    pub fn to_trace(&self) -> serde_json::Value {
        let mut start = 0.0;
        let events = self.steps.iter().map(|ProfiledStep { segment, step }| {
            let took = step.time.as_secs_f64() * 1e6;
            let event = json!({
                "name": step.name, "cat": "step", "ph": "X", "pid": 0, "tid": segment, "ts": start, "dur": took,
                "args": {
                    "result": step.ty.to_string(), "flops": step.flops, "bytes": step.bytes,
                    "gflop_per_s": rate(step.flops, step.time), "gb_per_s": rate(step.bytes as f64, step.time),
                    "of_roof": self.share(step),
                }
            });
            start += took;
            event
        });
        let events: Vec<_> = events.collect();
        json!({
            "displayTimeUnit": "ns",
            "traceEvents": events,
            "otherData": {
                "device": self.device, "calls": self.calls,
                "roof": self.roof.map(|r| json!({ "gflop_per_s": r.flops / 1e9, "gb_per_s": r.bytes / 1e9 })),
            },
        })
    }

    /// A picture: a bar per step, as long as it took, the dark part the least it could take on this machine.
    pub fn to_svg(&self) -> String {
        const LINE: usize = 16;
        const NAMES: usize = 330;
        const BARS: f64 = 520.0;
        let longest = self.steps.iter().map(|s| s.step.time).max().unwrap_or_default().as_secs_f64();
        let scale = if longest > 0.0 { BARS / longest } else { 0.0 };
        let (width, height) = (NAMES + BARS as usize + 110, (self.steps.len() + 3) * LINE);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        let mut text = |x: usize, line: usize, anchor: &str, text: &str| {
            let y = line * LINE + 12;
            let text = text.replace('&', "&amp;").replace('<', "&lt;");
            let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>");
        };
        text(8, 0, "start", &self.headline());
        text(8, 1, "start", "dark: the least that arithmetic and bytes take on this machine");
        for (at, ProfiledStep { step, .. }) in self.steps.iter().enumerate() {
            text(NAMES - 6, at + 2, "end", &format!("{} {}", step.name, step.ty.shape));
        }
        for (at, ProfiledStep { step, .. }) in self.steps.iter().enumerate() {
            let took = step.time.as_secs_f64();
            let least = self.roof.map_or(0.0, |r| r.least(step.flops, step.bytes).min(took));
            let y = (at + 2) * LINE + 2;
            for (seconds, colour) in [(took, "#9ecae1"), (least, "#08519c")] {
                let w = seconds * scale;
                let _ = writeln!(
                    svg,
                    "<rect x=\"{NAMES}\" y=\"{y}\" width=\"{w:.1}\" height=\"12\" fill=\"{colour}\"/>"
                );
            }
            let (x, y) = (NAMES as f64 + took * scale + 4.0, y + 10);
            let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\">{}</text>", micros(step.time));
        }
        svg + "</svg>\n"
    }

    fn headline(&self) -> String {
        let (steps, calls) = (counted(self.steps.len(), "step"), counted(self.calls, "call"));
        let roof = self.roof.map_or(String::new(), |roof| {
            format!("; roof {:.0} GFLOP/s, {:.1} GB/s", roof.flops / 1e9, roof.bytes / 1e9)
        });
        format!("{}: {steps}, {}, medians of {calls}{roof}", self.device, micros(self.total()))
    }
}

/// Billions per second.
fn rate(amount: f64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { amount / time.as_secs_f64() / 1e9 }
}

fn micros(time: Duration) -> String {
    format!("{:.1} us", time.as_secs_f64() * 1e6)
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.headline())?;
        let cut = self.steps.iter().any(|s| s.segment > 0);
        let name = |s: &ProfiledStep| match cut {
            true => format!("{}: {} {}", s.segment, s.step.name, s.step.ty.shape),
            false => format!("{} {}", s.step.name, s.step.ty.shape),
        };
        let wide = self.steps.iter().map(|s| name(s).chars().count()).max().unwrap_or(0).max(4);
        let total = self.total().as_secs_f64();
        writeln!(
            f,
            "{:wide$}  {:>10}  {:>5}  {:>9}  {:>7}  {:>7}",
            "step", "us", "share", "GFLOP/s", "GB/s", "of roof"
        )?;
        for profiled in &self.steps {
            let step = &profiled.step;
            let time = step.time.as_secs_f64();
            let share = if total > 0.0 { time / total * 100.0 } else { 0.0 };
            let roof = self.share(step).map_or("-".into(), |share| format!("{:.0}%", share * 100.0));
            let flops =
                if step.flops > 0.0 { format!("{:.1}", rate(step.flops, step.time)) } else { "-".into() };
            let (us, bytes) = (time * 1e6, rate(step.bytes as f64, step.time));
            writeln!(
                f,
                "{:wide$}  {us:>10.1}  {share:>4.1}%  {flops:>9}  {bytes:>7.2}  {roof:>7}",
                name(profiled)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Shape, TensorType};

    fn step(name: &str, micros: u64) -> StepTime {
        let ty = TensorType::f16(Shape::new(&[2, 3]).unwrap());
        StepTime { name: name.into(), ty, flops: 2000.0, bytes: 24, time: Duration::from_micros(micros) }
    }

    fn profile() -> Profile {
        let call = |a, b| vec![vec![step("linear+add", a)], vec![step("a<b", b)]];
        let roof = Some(Roof { flops: 1e9, bytes: 1e9 });
        Profile::new("host".into(), &[call(9, 4), call(3, 70), call(4, 6)], roof)
    }

    #[test]
    fn each_step_has_the_median_of_its_times() {
        let times: Vec<_> = profile().steps.iter().map(|s| (s.segment, s.step.time.as_micros())).collect();
        assert_eq!(times, [(0, 4), (1, 6)]);
        assert_eq!(profile().total().as_micros(), 10);
    }

    #[test]
    fn a_share_of_the_roof_is_the_least_time_over_the_time() {
        let profile = profile();
        assert_eq!(profile.share(&profile.steps[0].step), Some(0.5));
        assert_eq!(profile.share(&step("relu", 0)), None);
        // What could take less than a nanosecond has a share, too.
        let small = StepTime { flops: 0.25, bytes: 0, ..step("relu", 1) };
        assert_eq!(profile.share(&small).map(|share| (share * 1e6).round()), Some(250.0));
        let unknown = Profile { roof: None, ..profile };
        assert_eq!(unknown.share(&unknown.steps[0].step), None);
    }

    #[test]
    fn tables_traces_and_pictures_show_every_step() {
        let profile = profile();
        let table = profile.to_string();
        assert!(table.starts_with("host: 2 steps, 10.0 us, medians of 3 calls; roof 1 GFLOP/s, 1.0 GB/s\n"));
        assert!(
            table.contains("0: linear+add [2, 3]         4.0  40.0%        0.5     0.01      50%"),
            "{table}"
        );
        let trace = profile.to_trace();
        let events = trace["traceEvents"].as_array().unwrap();
        assert_eq!((events[1]["ts"].as_f64(), events[1]["dur"].as_f64()), (Some(4.0), Some(6.0)));
        assert_eq!(events[1]["args"]["result"], "fp16[2, 3]");
        let svg = profile.to_svg();
        assert!(svg.contains("a&lt;b [2, 3]") && svg.matches("<rect").count() == 5, "{svg}");
    }

    #[test]
    fn nothing_is_profiled_without_steps() {
        let empty = Profile::new("ane".into(), &[vec![Vec::new()]], None);
        assert!(empty.to_string().starts_with("ane: 0 steps, 0.0 us, medians of 1 call\n"));
        assert!(empty.to_svg().ends_with("</svg>\n"));
    }
}
