//! Steps of runs as a Chrome trace, for `chrome://tracing` and Perfetto.

use crate::error::Result;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use tconvc::StepReport;

/// Runs that are kept.
const RUNS: usize = 16;

/// Collects the times of steps.
pub struct Trace {
    start: Instant,
    runs: Vec<Run>,
}

struct Run {
    begin: Duration,
    length: Duration,
    /// Number, begin and length of each step.
    steps: Vec<(usize, Duration, Duration)>,
}

impl Trace {
    pub fn new() -> Self {
        Self { start: Instant::now(), runs: vec![] }
    }

    /// A run begins; `false` when enough of them are there.
    pub fn begin(&mut self) -> bool {
        let more = self.runs.len() < RUNS;
        if more {
            self.runs.push(Run { begin: self.start.elapsed(), length: Duration::ZERO, steps: vec![] });
        }
        more
    }

    /// A step of the run has just ended after so long.
    pub fn step(&mut self, step: usize, length: Duration) {
        let now = self.start.elapsed();
        if let Some(run) = self.runs.last_mut() {
            run.steps.push((step, now.saturating_sub(length), length));
        }
    }

    /// The run has just ended.
    pub fn end(&mut self) {
        let now = self.start.elapsed();
        if let Some(run) = self.runs.last_mut() {
            run.length = now.saturating_sub(run.begin);
        }
    }

    /// The trace in Chrome's JSON format: complete events, times in microseconds.
    fn events(&self, model: &str, steps: &[StepReport]) -> Value {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let mut events = vec![
            json!({"ph": "M", "pid": 1, "name": "process_name", "args": {"name": model}}),
            json!({"ph": "M", "pid": 1, "tid": 1, "name": "thread_name", "args": {"name": "runs"}}),
            json!({"ph": "M", "pid": 1, "tid": 2, "name": "thread_name", "args": {"name": "steps"}}),
        ];
        for (number, run) in self.runs.iter().enumerate() {
            events.push(json!({
                "ph": "X", "pid": 1, "tid": 1, "name": format!("run {number}"),
                "ts": micros(run.begin), "dur": micros(run.length),
            }));
            for &(step, begin, length) in &run.steps {
                let Some(report) = steps.get(step) else { continue };
                events.push(json!({
                    "ph": "X", "pid": 1, "tid": 2, "name": report.node, "cat": report.kernel,
                    "ts": micros(begin), "dur": micros(length),
                    "args": {
                        "kernel": report.kernel, "threads": report.threads, "roofline_us": report.roofline_us,
                    },
                }));
            }
        }
        json!({"traceEvents": events, "displayTimeUnit": "ns"})
    }

    /// Writes the file.
    pub fn write(&self, path: &Path, model: &str, steps: &[StepReport]) -> Result<()> {
        let text = self.events(model, steps).to_string();
        crate::files::write(path, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_lie_within_their_run() {
        let mut trace = Trace::new();
        for _ in 0..RUNS {
            assert!(trace.begin());
            trace.step(0, Duration::ZERO);
            trace.end();
        }
        assert!(!trace.begin());
        let step = StepReport {
            node: "up".into(),
            kernel: "f32_subpixel".into(),
            schedule: String::new(),
            threads: 1,
            roofline_us: 2.0,
            estimated_us: 0.0,
            measured_us: None,
        };
        let value = trace.events("model", &[step]);
        let Some(events) = value["traceEvents"].as_array() else { panic!("{value}") };
        assert_eq!(events.len(), 3 + 2 * RUNS);
        let time = |event: &Value, key: &str| event[key].as_f64().unwrap_or(f64::NAN);
        for pair in events[3..].chunks(2) {
            let [run, step] = pair else { panic!("{pair:?}") };
            assert_eq!((&step["name"], &step["args"]["kernel"]), (&json!("up"), &json!("f32_subpixel")));
            assert!(time(run, "ts") <= time(step, "ts"));
            assert!(time(step, "ts") + time(step, "dur") <= time(run, "ts") + time(run, "dur"));
        }
    }
}
