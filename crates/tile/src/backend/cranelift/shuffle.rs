//! Lanes in another order. x86 before SSSE3 has one instruction for some picks only; the others are made of several.

use cranelift_codegen::ir::types::{F32X4, I8X16};
use cranelift_codegen::ir::{ConstantData, InstBuilder, Value};

use super::emit::Lowering;
use crate::Pattern;

impl Lowering<'_> {
    /// Lanes of two vectors, in as few instructions as the target has for them.
    pub(super) fn shuffle(&mut self, a: Value, b: Value, pattern: Pattern) -> Value {
        let pattern = if a == b { Pattern::new(4, |i| pattern.get(i) % 4) } else { pattern };
        let picks = [0, 1, 2, 3].map(|i| pattern.get(i));
        if picks == [0, 1, 2, 3] {
            return a;
        }
        if self.target.x86_level().is_none() || is_one_instruction(picks) {
            return self.shuffle_now(a, b, picks);
        }
        let exchanged = picks.map(|pick| (pick + 4) % 8);
        if is_one_instruction(exchanged) {
            return self.shuffle_now(b, a, exchanged);
        }
        // Any picks of two lanes can be brought into one register by one instruction, and two such joined by another.
        let mut half = |x: usize, y: usize| {
            if x / 4 == y / 4 {
                return if x < 4 { (a, x, y) } else { (b, x - 4, y - 4) };
            }
            let (from_a, from_b) = if x < 4 { (x, y) } else { (y, x) };
            let both = self.shuffle_now(a, b, [from_a, from_a, from_b, from_b]);
            if x < 4 { (both, 0, 2) } else { (both, 2, 0) }
        };
        let (low, x0, x1) = half(picks[0], picks[1]);
        let (high, x2, x3) = half(picks[2], picks[3]);
        self.shuffle_now(low, high, [x0, x1, x2 + 4, x3 + 4])
    }

    fn shuffle_now(&mut self, a: Value, b: Value, picks: [usize; 4]) -> Value {
        let bytes = picks.iter().flat_map(|&pick| (0..4).map(move |byte| (4 * pick + byte) as u8));
        let mask = self.builder.func.dfg.immediates.push(ConstantData::from(bytes.collect::<Vec<u8>>()));
        let (a, b) = (self.cast(I8X16, a), self.cast(I8X16, b));
        let value = self.builder.ins().shuffle(a, b, mask);
        self.cast(F32X4, value)
    }
}

/// Whether x86 has these picks as `shufps`, `pshufd` or an unpack.
fn is_one_instruction(picks: [usize; 4]) -> bool {
    let [p0, p1, p2, p3] = picks.map(|pick| pick / 4);
    let unpack = |low| picks == [low, low + 4, low + 1, low + 5];
    (p0 == p1 && p2 == p3) || unpack(0) || unpack(2)
}
