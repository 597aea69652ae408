//! What is counted, and how Prometheus reads it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Seconds: from a cached shape and a short text to the longest that is waited for.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Inputs of a batch.
const SIZES: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// Counts by bounds, the sum of what was counted, and how many.
#[derive(Clone, Debug)]
struct Histogram {
    bounds: &'static [f64],
    /// One for each bound; what exceeds all is in `count` alone.
    counts: Vec<u64>,
    sum: f64,
    count: u64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Histogram {
        Histogram { bounds, counts: vec![0; bounds.len()], sum: 0.0, count: 0 }
    }

    fn add(&mut self, value: f64) {
        if let Some(at) = self.bounds.iter().position(|bound| value <= *bound) {
            self.counts[at] += 1;
        }
        self.sum += value;
        self.count += 1;
    }

    fn write(&self, out: &mut String, name: &str, labels: &str) {
        let mut below = 0;
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            below += count;
            line(out, &format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), below);
        }
        line(out, &format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), self.count);
        line(out, &format!("{name}_sum"), labels, self.sum);
        line(out, &format!("{name}_count"), labels, self.count);
    }
}

/// What is counted of all requests.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: Mutex<Requests>,
    models: Mutex<Vec<(String, Arc<OfModel>)>>,
}

#[derive(Debug, Default)]
struct Requests {
    /// By endpoint and status.
    answered: BTreeMap<(&'static str, u16), u64>,
    seconds: BTreeMap<&'static str, Histogram>,
    running: u64,
}

/// What is counted of one model.
#[derive(Debug)]
pub(crate) struct OfModel(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    waiting: usize,
    batches: Histogram,
    seconds: Histogram,
    tokens: u64,
    refused: u64,
    left: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counts are whole whoever held them last.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Metrics {
    pub fn model(&self, name: &str) -> Arc<OfModel> {
        let (batches, seconds) = (Histogram::new(&SIZES), Histogram::new(&SECONDS));
        let counts = Counts { waiting: 0, batches, seconds, tokens: 0, refused: 0, left: 0 };
        let model = Arc::new(OfModel(Mutex::new(counts)));
        lock(&self.models).push((name.to_owned(), Arc::clone(&model)));
        model
    }

    pub fn began(&self) {
        lock(&self.requests).running += 1;
    }

    pub fn ended(&self, endpoint: &'static str, status: u16, took: Duration) {
        let mut requests = lock(&self.requests);
        requests.running = requests.running.saturating_sub(1);
        *requests.answered.entry((endpoint, status)).or_default() += 1;
        let seconds = requests.seconds.entry(endpoint).or_insert_with(|| Histogram::new(&SECONDS));
        seconds.add(took.as_secs_f64());
    }

    /// The text format, version 0.0.4.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let requests = lock(&self.requests);
        head(&mut out, "aneforge_requests_total", "counter", "Requests answered, by endpoint and status.");
        for ((endpoint, status), count) in &requests.answered {
            let labels = format!("endpoint=\"{endpoint}\",status=\"{status}\"");
            line(&mut out, "aneforge_requests_total", &labels, count);
        }
        head(&mut out, "aneforge_request_seconds", "histogram", "From a request's head to its answer.");
        for (endpoint, seconds) in &requests.seconds {
            seconds.write(&mut out, "aneforge_request_seconds", &format!("endpoint=\"{endpoint}\""));
        }
        head(&mut out, "aneforge_requests_running", "gauge", "Requests that are not answered yet.");
        line(&mut out, "aneforge_requests_running", "", requests.running);
        drop(requests);
        let models: Vec<(String, Arc<OfModel>)> = lock(&self.models).clone();
        let models: Vec<_> = models.iter().map(|(name, model)| (label(name), lock(&model.0))).collect();
        let mut single = |name: &str, kind: &str, help: &str, of: &dyn Fn(&Counts) -> u64| {
            head(&mut out, name, kind, help);
            models.iter().for_each(|(label, counts)| line(&mut out, name, label, of(counts)));
        };
        single("aneforge_queue_inputs", "gauge", "Inputs that wait for their batch.", &|c| c.waiting as u64);
        single("aneforge_tokens_total", "counter", "Tokens of inputs that were taken.", &|c| c.tokens);
        single("aneforge_refused_total", "counter", "Requests refused as the queue was full.", &|c| {
            c.refused
        });
        single(
            "aneforge_left_total",
            "counter",
            "Inputs that no batch took, as their client went away or their request failed.",
            &|c| c.left,
        );
        let mut many = |name: &str, help: &str, of: &dyn for<'a> Fn(&'a Counts) -> &'a Histogram| {
            head(&mut out, name, "histogram", help);
            models.iter().for_each(|(label, counts)| of(counts).write(&mut out, name, label));
        };
        many("aneforge_batch_inputs", "Inputs of a batch, from one request or several.", &|c| &c.batches);
        many("aneforge_batch_seconds", "How long a batch ran.", &|c| &c.seconds);
        out
    }
}

impl OfModel {
    pub fn waiting(&self, inputs: usize) {
        lock(&self.0).waiting = inputs;
    }

    pub fn ran(&self, inputs: usize, took: Duration) {
        let mut counts = lock(&self.0);
        counts.batches.add(inputs as f64);
        counts.seconds.add(took.as_secs_f64());
    }

    pub fn took(&self, tokens: usize) {
        lock(&self.0).tokens += tokens as u64;
    }

    pub fn refused(&self) {
        lock(&self.0).refused += 1;
    }

    pub fn left(&self, inputs: usize) {
        lock(&self.0).left += inputs as u64;
    }

    /// Seconds in which so many inputs are likely to have run, at least one.
    pub fn seconds_for(&self, inputs: usize) -> u64 {
        let counts = lock(&self.0);
        let each = counts.seconds.sum / counts.batches.sum.max(1.0);
        (each * inputs as f64).ceil().clamp(1.0, 60.0) as u64
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let labels = labels.trim_start_matches(',');
    let _ = match labels.is_empty() {
        true => writeln!(out, "{name} {value}"),
        false => writeln!(out, "{name}{{{labels}}} {value}"),
    };
}

fn label(model: &str) -> String {
    let escaped = model.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("model=\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_what_is_below_and_names_are_escaped() {
        let metrics = Metrics::default();
        let model = metrics.model("a\"b\\c");
        for size in [1, 3, 500] {
            model.ran(size, Duration::from_millis(20));
        }
        metrics.began();
        metrics.ended("/x", 200, Duration::from_secs(100));
        let text = metrics.text();
        for line in [
            "aneforge_batch_inputs_bucket{model=\"a\\\"b\\\\c\",le=\"1\"} 1",
            "aneforge_batch_inputs_bucket{model=\"a\\\"b\\\\c\",le=\"4\"} 2",
            "aneforge_batch_inputs_bucket{model=\"a\\\"b\\\\c\",le=\"128\"} 2",
            "aneforge_batch_inputs_bucket{model=\"a\\\"b\\\\c\",le=\"+Inf\"} 3",
            "aneforge_batch_inputs_sum{model=\"a\\\"b\\\\c\"} 504",
            "aneforge_request_seconds_bucket{endpoint=\"/x\",le=\"30\"} 0",
            "aneforge_request_seconds_count{endpoint=\"/x\"} 1",
            "aneforge_requests_running 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }

    #[test]
    fn the_time_to_wait_follows_from_what_ran() {
        let model = Metrics::default().model("m");
        assert_eq!(model.seconds_for(100), 1);
        model.ran(10, Duration::from_secs(1));
        assert_eq!((model.seconds_for(45), model.seconds_for(1_000_000)), (5, 60));
    }
}
