//! Damaged models: whatever the bytes, reading ends in an error or in a graph that inference and the verifier can look at.
//!
//! `TCONVC_DAMAGED` sets how many; each is made from a seed, which a failure names.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};
use tconvc_ir::{infer, onnx, verify};
use tconvc_testing::onnx_build::damage::{Damage, Random, damage_bytes};
use tconvc_testing::onnx_build::*;
use tconvc_testing::{Cases, in_child};

/// Cases in the default tests.
const DEFAULT_CASES: u64 = 4000;

/// Reads, infers, verifies, writes and reads again; gives whether the model was accepted.
fn survive(read: impl FnOnce() -> tconvc_ir::Result<tconvc_ir::Graph>) -> bool {
    let Ok(mut graph) = read() else { return false };
    graph.order().expect("a graph that was read has an order");
    if infer::infer(&mut graph).is_ok() {
        // The verifier may still refuse what inference does not look at.
        let _ = verify::verify(&graph);
    }
    if let Ok(bytes) = onnx::write(&graph) {
        onnx::read_bytes(&bytes).expect("what was written is read");
    }
    true
}

/// Runs a case; a panic or more than ten seconds fail the test and name the case.
fn guarded(name: &str, case: impl FnOnce() -> bool) -> bool {
    let start = Instant::now();
    let accepted = catch_unwind(AssertUnwindSafe(case));
    assert!(start.elapsed() < Duration::from_secs(10), "{name} took {:?}", start.elapsed());
    accepted.unwrap_or_else(|_| panic!("{name} panicked"))
}

#[test]
fn damaged_models_are_errors_or_graphs() {
    let cases = std::env::var("TCONVC_DAMAGED").ok().and_then(|count| count.parse().ok());
    let cases: u64 = cases.unwrap_or(DEFAULT_CASES);
    let damage = Damage::of_seeds();
    for (i, seed) in damage.seeds().enumerate() {
        // All but the one whose weights are in a file that is not there.
        let accepted = guarded(&format!("seed {i}"), || survive(|| onnx::read_bytes(seed)));
        assert_eq!(accepted, i != 9, "seed {i}");
    }
    let mut accepted = 0;
    for case in 0..cases {
        let bytes = damage.model(case);
        accepted += u64::from(guarded(&format!("case {case}"), || survive(|| onnx::read_bytes(&bytes))));
    }
    // Damage that is always refused at the door would test little.
    assert!(accepted > cases / 10, "{accepted} of {cases} are accepted");
}

/// Real models, cut off and with bytes flipped.
#[test]
fn damaged_real_models_are_errors_or_graphs() {
    let shared = std::env::var_os("TCONVC_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        std::path::PathBuf::from,
    );
    for name in ["burn_convtranspose1d", "burn_convtranspose3d", "bvae_decoder"] {
        let Ok(seed) = std::fs::read(shared.join("models/real").join(name).with_extension("onnx")) else {
            continue;
        };
        for case in 0..60 {
            let mut random = Random(case);
            let mut bytes = seed.clone();
            damage_bytes(&mut bytes, &mut random);
            guarded(&format!("{name}, case {case}"), || survive(|| onnx::read_bytes(&bytes)));
        }
    }
}

#[test]
fn hostile_places_of_external_data_are_errors() {
    let folder = std::env::temp_dir().join(format!("tconvc-damage-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the test can be made");
    std::fs::write(folder.join("data.bin"), [0u8; 64]).expect("a file for the test can be written");
    let mut accepted = 0;
    let locations =
        ["data.bin", "../data.bin", "/dev/zero", "/etc/passwd", "", ".", "a\0b", "data.bin/", "..", "~"];
    for location in locations {
        for offset in ["0", "52", "53", "-1", "18446744073709551615", "9223372036854775807", "x", ""] {
            let path = folder.join("m.onnx");
            std::fs::write(&path, with_external(location, offset).model(17))
                .expect("it can be written again");
            let name = format!("{location:?} at {offset:?}");
            accepted += u32::from(guarded(&name, || survive(|| onnx::read_path(&path))));
        }
    }
    std::fs::remove_dir_all(&folder).expect("the folder can be removed");
    assert!((2..=4).contains(&accepted), "{accepted} are accepted");
}

/// Messages that would take far more memory than the file has bytes; in a process of their own, whose memory is looked at.
#[test]
fn swollen_models_take_no_memory() {
    in_child("onnx_damage::swollen_models_take_no_memory", swollen);
}

fn swollen(tell: &mut Cases) {
    let many = |tag: u64, count: usize| -> Message { field(tag, "").repeat(count) };
    let graph = |fields: Message| [int(1, 8), field(7, fields), field(8, int(2, 17))].concat();
    let tensor = |fields: Message| graph(field(5, fields));
    let cases = [
        ("nodes", graph(many(1, 5_000_000))),
        ("fewer nodes", graph(many(1, 20_000))),
        ("initialisers", graph(many(5, 5_000_000))),
        ("inputs", graph(many(11, 3_000_000))),
        ("opsets", many(8, 5_000_000)),
        ("metadata", many(14, 5_000_000)),
        ("node inputs", graph(field(1, many(1, 5_000_000)))),
        ("attributes", graph(field(1, [field(4, "Relu"), many(5, 3_000_000)].concat()))),
        ("dims", tensor(int(1, 1).repeat(5_000_000))),
        ("zero dims", tensor([int(1, 0).repeat(4_000_000), int(2, 1)].concat())),
        ("packed dims", tensor([field(1, vec![1u8; 5_000_000]), int(2, 1)].concat())),
        ("packed elements", tensor(field(7, vec![1u8; (1 << 27) + 1]))),
        ("large tensor", tensor([int(1, 1 << 30), int(1, 1 << 30), int(2, 1), field(9, "")].concat())),
        (
            "large empty tensor",
            tensor([int(1, 1 << 60), int(1, 1 << 60), int(1, 0), int(2, 1), field(9, "")].concat()),
        ),
        (
            "length",
            [int(1, 8), vec![7 << 3 | 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]].concat(),
        ),
        ("varint", vec![0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ("groups", vec![0x0b; 100_000]),
    ];
    for (name, bytes) in cases {
        tell.begin(&name);
        guarded(name, || survive(|| onnx::read_bytes(&bytes)));
    }
    if let Some(peak) = peak_bytes() {
        assert!(peak < 1 << 30, "{peak} bytes at the peak");
    }
}

/// The most memory that this process has taken, where the system says so.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
