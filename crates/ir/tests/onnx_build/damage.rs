//! Damages models: changes bytes, and fields wherever they are nested, each time otherwise.

use super::*;

/// Models that hold something of everything, and what is made of them.
pub struct Damage(Vec<(Vec<u8>, Vec<Wire>)>);

impl Damage {
    /// Takes the models apart.
    pub fn new() -> Self {
        Self::with([])
    }

    /// Takes the models apart, and others as well.
    pub fn with(others: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let apart = |seed: Vec<u8>| {
            let fields = parse(&seed, 0).expect("a seed is well-formed");
            (seed, fields)
        };
        Self(seeds().into_iter().chain(others).map(apart).collect())
    }

    /// The models before they are damaged.
    pub fn seeds(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|(seed, _)| seed.as_slice())
    }

    /// The damaged model of that number.
    pub fn model(&self, case: u64) -> Vec<u8> {
        let mut random = Random(case);
        let (seed, fields) = random.pick(&self.0);
        let mut bytes = if random.below(3) == 0 {
            seed.clone()
        } else {
            let mut fields = fields.clone();
            for _ in 0..=random.below(3) {
                let (_, other) = random.pick(&self.0);
                damage_fields(&mut fields, other, &mut random);
            }
            unparse(&fields)
        };
        if bytes == *seed || random.below(10) == 0 {
            damage_bytes(&mut bytes, &mut random);
        }
        bytes
    }
}

/// Splitmix64: a sequence of its own for each seed.
pub struct Random(pub u64);

impl Random {
    /// A number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below a limit.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// One of a list.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
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
pub fn damage_bytes(bytes: &mut Vec<u8>, random: &mut Random) {
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
    let x = || value("x", &["1", "2", "3", "4"]);
    let one = |nodes: Vec<Message>, initializers: Vec<Message>| Graph {
        inputs: vec![x()],
        outputs: vec![untyped("y")],
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
            ints("big", &[4], &[3, 1, 2, 12]),
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
        outputs: vec![untyped("inner")],
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
    let mut symbolic = conv("ConvTranspose", deconv);
    symbolic.inputs = vec![value("x", &["N", "2", "H", "2"])];
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
        symbolic.model(17),
    ]
}

/// A model with a tensor of three floats in another file.
pub fn with_external(location: &str, offset: &str) -> Graph {
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
