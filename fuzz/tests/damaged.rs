//! The passes on damaged models, as many as `TCONVC_DAMAGED` says; each has a number, which a failure names.

use tconvc_testing::onnx_build::damage::Damage;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

#[test]
fn damaged_models_go_through_the_passes() {
    let cases = std::env::var("TCONVC_DAMAGED").ok().and_then(|count| count.parse().ok()).unwrap_or(1000);
    let damage = Damage::of_seeds();
    let mut failed = vec![];
    for case in 0..cases {
        let (bytes, start) = (damage.model(case), Instant::now());
        if catch_unwind(AssertUnwindSafe(|| tconvc_fuzz::passes(&bytes))).is_err() {
            failed.push(format!("case {case} panicked"));
        } else if start.elapsed() > Duration::from_secs(10) {
            failed.push(format!("case {case} took {:?}", start.elapsed()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
