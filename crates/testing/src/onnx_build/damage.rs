//! Damages models: changes bytes, and fields wherever they are nested, each time otherwise.

use super::seeds::seeds;
use super::{field, float, int};

/// Models that hold something of everything, and what is made of them.
pub struct Damage(Vec<(Vec<u8>, Vec<Wire>)>);

impl Damage {
    /// Of the models made here.
    pub fn of_seeds() -> Self {
        Self::with([])
    }

    /// Of the models made here, and others.
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
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below a limit.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit.max(1) as u64) as usize
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
            Wire::Fixed(_, bytes) => bytes.fill(random.number() as u8),
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
