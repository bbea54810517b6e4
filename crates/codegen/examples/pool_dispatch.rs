//! Measures what it costs to hand an empty step to the thread pool and to wait for it.
//!
//! `cargo run --release -p tconvc-codegen --example pool_dispatch [THREADS]`

use std::time::Instant;

use tconvc_runtime::thread_pool::ThreadPool;

#[expect(clippy::print_stdout, reason = "what the program is for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let threads = std::env::args().nth(1).map_or(Ok(2), |n| n.parse())?;
    let pool = ThreadPool::new(threads)?;
    let mut nanoseconds: Vec<u128> = (0..200_000)
        .map(|_| {
            let start = Instant::now();
            pool.run(threads, &|_| {});
            start.elapsed().as_nanos()
        })
        .collect();
    nanoseconds.sort_unstable();
    let at = |share: usize| nanoseconds[nanoseconds.len() * share / 1000];
    println!("{threads} threads: median {} ns, p99 {} ns, p99.9 {} ns", at(500), at(990), at(999));
    Ok(())
}
