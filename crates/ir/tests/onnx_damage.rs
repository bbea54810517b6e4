//! Damaged models: whatever the bytes, reading ends in an error or in a graph that inference and the verifier can look at.
//!
//! `TCONVC_DAMAGED` sets how many; each is made from a seed, which a failure names.

mod onnx_build;

use onnx_build::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};
use tconvc_ir::{infer, onnx, verify};

/// Cases in the default tests.
const DEFAULT_CASES: u64 = 4000;

/// Splitmix64: a sequence of its own for each seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// A message taken apart: fields with numbers, or with bytes that may be messages themselves.
#[derive(Clone)]
enum Wire {
    Number(u64, u64),
    Fixed(u64, Vec<u8>),
    Bytes(u64, Vec<u8>),
    Inner(u64, Vec<Wire>),
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn parse(mut rest: &[u8], depth: usize) -> Option<Vec<Wire>> {
    let mut fields = vec![];
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let tag = key >> 3;
        if tag == 0 || tag > 40 {
            return None;
        }
        let mut take = |length: usize| {
            let (taken, tail) = rest.split_at_checked(length)?;
            rest = tail;
            Some(taken)
        };
        fields.push(match key & 7 {
            0 => Wire::Number(tag, varint(&mut rest)?),
            1 => Wire::Fixed(tag, take(8)?.to_vec()),
            5 => Wire::Fixed(tag, take(4)?.to_vec()),
            2 => {
                let length = varint(&mut rest)?;
                let (bytes, tail) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                rest = tail;
                match parse(bytes, depth + 1) {
                    Some(inner) if depth < 12 && bytes.len() > 1 => Wire::Inner(tag, inner),
                    _ => Wire::Bytes(tag, bytes.to_vec()),
                }
            }
            _ => return None,
        });
    }
    Some(fields)
}

fn unparse(fields: &[Wire]) -> Vec<u8> {
    let one = |wire: &Wire| match wire {
        Wire::Number(tag, value) => int(*tag, *value as i64),
        Wire::Fixed(tag, bytes) if bytes.len() == 4 => {
            float(*tag, f32::from_bits(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])))
        }
        Wire::Fixed(tag, bytes) => [vec![(*tag << 3 | 1) as u8], bytes.clone()].concat(),
        Wire::Bytes(tag, bytes) => field(*tag, bytes),
        Wire::Inner(tag, inner) => field(*tag, unparse(inner)),
    };
    fields.iter().flat_map(one).collect()
}

/// Numbers that code forgets about.
const NUMBERS: &[i64] = &[
    0,
    1,
    2,
    3,
    -1,
    -2,
    5,
    7,
    16,
    1 << 20,
    1 << 30,
    i32::MAX as i64,
    i32::MIN as i64,
    1 << 40,
    i64::MAX,
    i64::MIN,
];

/// Changes something at a random place of a message, down to its innermost fields.
fn damage_fields(fields: &mut Vec<Wire>, other: &[Wire], random: &mut Random) {
    if fields.is_empty() {
        return;
    }
    let at = random.below(fields.len());
    if let Wire::Inner(_, inner) = &mut fields[at]
        && random.below(5) > 0
    {
        let other = match random.pick(other) {
            Wire::Inner(_, inner) if !inner.is_empty() => inner,
            _ => other,
        };
        return damage_fields(inner, other, random);
    }
    match random.below(7) {
        0 => {
            fields.remove(at);
        }
        1 => fields.insert(at, fields[random.below(fields.len())].clone()),
        2 => {
            let to = random.below(fields.len());
            fields.swap(at, to);
        }
        3 if !other.is_empty() => fields.insert(at, random.pick(other).clone()),
        4 if !other.is_empty() => fields[at] = random.pick(other).clone(),
        _ => match &mut fields[at] {
            Wire::Number(tag, value) => {
                if random.below(6) == 0 {
                    *tag = 1 + random.below(25) as u64;
                }
                *value = *random.pick(NUMBERS) as u64;
            }
            Wire::Fixed(_, bytes) => bytes.fill(random.next() as u8),
            Wire::Inner(tag, _) => *tag = 1 + random.below(25) as u64,
            Wire::Bytes(_, bytes) if bytes.len() >= 8 && random.below(2) == 0 => {
                // The elements of a shape, perhaps.
                let start = random.below(bytes.len() / 8) * 8;
                bytes[start..start + 8].copy_from_slice(&random.pick(NUMBERS).to_le_bytes());
            }
            Wire::Bytes(_, bytes) => match random.below(3) {
                0 => bytes.clear(),
                1 => *bytes = b"x".to_vec(),
                _ => bytes.extend_from_within(..),
            },
        },
    }
}

/// Changes bytes without regard to what they mean.
fn damage_bytes(bytes: &mut Vec<u8>, random: &mut Random) {
    if bytes.is_empty() {
        return;
    }
    let at = random.below(bytes.len());
    match random.below(5) {
        0 => bytes.truncate(at),
        1 => {
            for _ in 0..=random.below(8) {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
        }
        2 => {
            bytes.splice(at..at, [0xff; 9].into_iter().take(1 + random.below(9)));
        }
        3 => {
            let end = (at + random.below(64)).min(bytes.len());
            bytes.drain(at..end);
        }
        _ => {
            let end = (at + random.below(64)).min(bytes.len());
            let part = bytes[at..end].to_vec();
            let to = random.below(bytes.len());
            bytes.splice(to..to, part);
        }
    }
}

/// Models that hold something of everything.
fn seeds() -> Vec<Vec<u8>> {
    let x = || value("x", &["1", "2", "H", "4"]);
    let one = |nodes: Vec<Message>, initializers: Vec<Message>| Graph {
        inputs: vec![x()],
        outputs: vec![value("y", &[])],
        initializers,
        nodes,
    };
    let conv = |op: &str, attributes: &[Message]| {
        one(
            vec![node(op, &["x", "w", "b"], &["y"], attributes)],
            vec![floats("w", &[2, 2, 3, 3], &[0.5; 36]), floats("b", &[2], &[0.0; 2])],
        )
    };
    let strides = ints_attribute("strides", &[2, 2]);
    let shaped = one(
        vec![
            node("Shape", &["x"], &["s"], &[]),
            node("Slice", &["s", "from", "to"], &["t"], &[]),
            node("Concat", &["t", "rest"], &["u"], &[int_attribute("axis", 0)]),
            node("Reshape", &["x", "u"], &["v"], &[]),
            node("Expand", &["v", "big"], &["y"], &[]),
        ],
        vec![
            ints("from", &[1], &[0]),
            ints("to", &[1], &[2]),
            ints("rest", &[1], &[-1]),
            ints("big", &[3], &[1, 2, 8]),
        ],
    );
    let moved = one(
        vec![
            node("Pad", &["x", "pads"], &["a"], &[text_attribute("mode", "reflect")]),
            node("Resize", &["a", "", "scales"], &["b"], &[text_attribute("mode", "linear")]),
            node("Transpose", &["b"], &["c"], &[ints_attribute("perm", &[0, 2, 3, 1])]),
            node("MaxPool", &["b"], &["d"], &[ints_attribute("kernel_shape", &[2, 2]), strides.clone()]),
            node("Split", &["c"], &["e", "f"], &[int_attribute("axis", 3), int_attribute("num_outputs", 2)]),
            node("Softmax", &["e"], &["y"], &[int_attribute("axis", 1)]),
            node("ReduceMean", &["f", "axes"], &["g"], &[]),
            node("Gather", &["g", "axes"], &["h"], &[]),
            node("TopK", &["h", "axes"], &["i", "j"], &[]),
            node("Unsqueeze", &["i", "axes"], &["k"], &[]),
        ],
        vec![
            ints("pads", &[8], &[0, 0, 1, 1, 0, 0, 1, 1]),
            floats("scales", &[4], &[1.0, 1.0, 2.0, 2.0]),
            ints("axes", &[1], &[1]),
        ],
    );
    let deconv: &[Message] = &[
        strides.clone(),
        ints_attribute("pads", &[1, 1, 1, 1]),
        ints_attribute("output_padding", &[1, 1]),
        ints_attribute("dilations", &[1, 2]),
        int_attribute("group", 1),
    ];
    let same: &[Message] = &[
        strides,
        text_attribute("auto_pad", "SAME_UPPER"),
        ints_attribute("output_shape", &[9, 8]),
        ints_attribute("kernel_shape", &[3, 3]),
    ];
    let branch = |op: &str| Graph {
        outputs: vec![value("inner", &[])],
        nodes: vec![node(op, &["x"], &["inner"], &[])],
        ..Graph::default()
    };
    let branches = [
        graph_attribute("then_branch", &branch("Relu").encode()),
        graph_attribute("else_branch", &branch("Neg").encode()),
    ];
    let branching = one(vec![node("If", &["c"], &["y"], &branches)], vec![ints("c", &[], &[1])]);
    let function = [
        field(1, "F"),
        field(4, "in"),
        field(5, "out"),
        field(7, node("LeakyRelu", &["in"], &["out"], &[float_attribute("alpha", 0.1)])),
        field(10, "custom"),
    ]
    .concat();
    let calling = one(vec![[node("F", &["x"], &["y"], &[]), field(7, "custom")].concat()], vec![]);
    let old = one(
        vec![
            node("Upsample", &["x"], &["a"], &[floats_attribute("scales", &[1.0, 1.0, 2.0, 2.0])]),
            node("Softmax", &["a"], &["b"], &[]),
            node("ReduceSum", &["b"], &["c"], &[ints_attribute("axes", &[1]), int_attribute("keepdims", 0)]),
            node("Unsqueeze", &["c"], &["d"], &[ints_attribute("axes", &[0, 2])]),
            node("Clip", &["d"], &["e"], &[float_attribute("max", 6.0)]),
            node("Slice", &["e"], &["y"], &[ints_attribute("starts", &[0]), ints_attribute("ends", &[-1])]),
        ],
        vec![],
    );
    let typed = one(
        vec![node("Constant", &[], &["k"], &[tensor_attribute("value", &ints("", &[2], &[3, 4]))])],
        vec![
            [tensor_head("y", F32, &[2]), field(4, [0u8; 8])].concat(),
            [tensor_head("z", I64, &[3]), field(7, [1u8, 2, 3])].concat(),
            [tensor_head("s", 8, &[2]), field(6, "ab"), field(6, "")].concat(),
        ],
    );
    vec![
        conv("ConvTranspose", deconv).model(17),
        conv("ConvTranspose", same).model(11),
        conv("Conv", &[text_attribute("auto_pad", "SAME_LOWER")]).model(21),
        shaped.model(18),
        moved.model(18),
        branching.model(19),
        model(8, 17, &calling.encode(), &[function]),
        old.model(9),
        typed.model(13),
        with_external("data.bin", "0").model(17),
    ]
}

fn with_external(location: &str, offset: &str) -> Graph {
    Graph {
        outputs: vec![value("w", &["3"])],
        initializers: vec![external(
            "w",
            &[3],
            &[("location", location), ("offset", offset), ("length", "12")],
        )],
        ..Graph::default()
    }
}

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
    let seeds = seeds();
    for (i, seed) in seeds.iter().enumerate().filter(|(i, _)| *i != 9) {
        assert!(guarded(&format!("seed {i}"), || survive(|| onnx::read_bytes(seed))), "seed {i} is refused");
    }
    let fields: Vec<Vec<Wire>> =
        seeds.iter().map(|seed| parse(seed, 0).expect("a seed is well-formed")).collect();
    let mut accepted = 0;
    for case in 0..cases {
        let mut random = Random(case);
        let which = random.below(seeds.len());
        let mut bytes = if random.below(3) == 0 {
            seeds[which].clone()
        } else {
            let mut fields_of = fields[which].clone();
            for _ in 0..=random.below(3) {
                let other = random.pick(&fields).clone();
                damage_fields(&mut fields_of, &other, &mut random);
            }
            unparse(&fields_of)
        };
        if bytes == seeds[which] || random.below(10) == 0 {
            damage_bytes(&mut bytes, &mut random);
        }
        let name = format!("case {case}, made from seed {which}");
        accepted += u64::from(guarded(&name, || survive(|| onnx::read_bytes(&bytes))));
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

/// Messages that would take far more memory than the file has bytes.
#[test]
fn swollen_models_take_no_memory() {
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
