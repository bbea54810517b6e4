//! Instructions on elements narrower than a lane.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::{Emulator, Lanes};

/// What an instruction makes of a lane, or a lane of.
#[derive(Clone, Copy)]
enum Convert {
    Half,
    Signed,
    Unsigned,
    /// The low bits.
    Truncated,
}

/// From the bits of the definition: a half is an integer times a power of two.
fn half_to_float(half: u16) -> u32 {
    let (sign, exponent, fraction) =
        (u32::from(half >> 15), u32::from(half >> 10 & 31), u32::from(half & 0x3ff));
    let magnitude = match (exponent, fraction) {
        (31, 0) => 0x7f80_0000,
        (31, _) => 0x7fc0_0000 | fraction << 13,
        (0, 0) => 0,
        (0, _) => {
            let zeros = fraction.leading_zeros() - 21;
            (113 - zeros) << 23 | (fraction << zeros & 0x3ff) << 13
        }
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    sign << 31 | magnitude
}

/// Shifts the significand to the place of the half's, and rounds what falls off.
fn float_to_half(float: u32) -> u16 {
    let (sign, magnitude) = ((float >> 16 & 0x8000) as u16, float & 0x7fff_ffff);
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00 | (magnitude >> 13 & 0x3ff) as u16;
    }
    let exponent = (magnitude >> 23) as i32 - 127;
    if exponent > 15 {
        return sign | 0x7c00;
    }
    let significand = u64::from(magnitude & 0x7f_ffff | 0x80_0000);
    let shift = if exponent < -14 { (-1 - exponent).min(40) } else { 13 } as u32;
    let (kept, lost, half) = (significand >> shift, significand & ((1 << shift) - 1), 1 << (shift - 1));
    let rounded = kept + u64::from(lost > half || lost == half && kept & 1 == 1);
    // A carry moves into the exponent, as it should.
    let base = if exponent < -14 { 0 } else { (exponent + 14) as u64 * 1024 };
    sign | (base + rounded) as u16
}

fn saturated(lane: u32, low: i32, high: i32) -> u32 {
    (lane as i32).clamp(low, high) as u32
}

impl Emulator {
    pub(super) fn narrow(&mut self, i: &Instruction) {
        match i.mnemonic() {
            Mnemonic::Vcvtph2ps => self.widen(i, 2, Convert::Half),
            Mnemonic::Vpmovsxbd => self.widen(i, 1, Convert::Signed),
            Mnemonic::Vpmovzxbd => self.widen(i, 1, Convert::Unsigned),
            Mnemonic::Vpmovsxwd => self.widen(i, 2, Convert::Signed),
            Mnemonic::Vpmovzxwd => self.widen(i, 2, Convert::Unsigned),
            Mnemonic::Vcvtps2ph => {
                assert_eq!(i.immediate8(), 0, "to nearest");
                self.shorten(i, 2, Convert::Half);
            }
            Mnemonic::Vpmovsdb => self.shorten(i, 1, Convert::Signed),
            Mnemonic::Vpmovusdb => self.shorten(i, 1, Convert::Unsigned),
            Mnemonic::Vpmovsdw => self.shorten(i, 2, Convert::Signed),
            Mnemonic::Vpmovdw => self.shorten(i, 2, Convert::Truncated),
            Mnemonic::Vpackssdw | Mnemonic::Vpackusdw => {
                let is_signed = i.mnemonic() == Mnemonic::Vpackssdw;
                let narrow = |lane: u32| {
                    if is_signed {
                        saturated(lane, -32_768, 32_767) & 0xffff
                    } else {
                        saturated(lane, 0, 65_535)
                    }
                };
                let (a, b) =
                    (self.vectors[i.op_register(1).number()], self.vectors[i.op_register(2).number()]);
                let words = [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]].map(narrow);
                self.set(i, |l| if l < 4 { words[2 * l] | words[2 * l + 1] << 16 } else { 0 });
            }
            Mnemonic::Vpacksswb | Mnemonic::Vpackuswb => {
                let is_signed = i.mnemonic() == Mnemonic::Vpacksswb;
                let mut bytes = Vec::new();
                for operand in [1, 2] {
                    let words = self.low_bytes(i.op_register(operand));
                    bytes.extend(words.as_chunks().0.iter().map(|b| {
                        let word = i16::from_le_bytes(*b);
                        if is_signed { word.clamp(-128, 127) as u8 } else { word.clamp(0, 255) as u8 }
                    }));
                }
                self.set_low_bytes(i.op_register(0), &bytes);
            }
            Mnemonic::Vpbroadcastb | Mnemonic::Vpbroadcastw => {
                let address = self.address(i);
                let lane = if i.mnemonic() == Mnemonic::Vpbroadcastb {
                    u32::from(self.read::<1>(address)[0]) * 0x0101_0101
                } else {
                    u32::from(u16::from_le_bytes(self.read(address))) * 0x0001_0001
                };
                self.set(i, |_| lane);
            }
            _ => self.piece(i),
        }
    }

    /// Moves of 1, 2, 4 or 8 bytes between memory and a place in the lowest four lanes.
    fn piece(&mut self, i: &Instruction) {
        let length = match i.mnemonic() {
            Mnemonic::Vpinsrb | Mnemonic::Vpextrb => 1,
            Mnemonic::Vpinsrw | Mnemonic::Vpextrw => 2,
            Mnemonic::Vpinsrd | Mnemonic::Vpextrd | Mnemonic::Vmovd => 4,
            Mnemonic::Vmovq => 8,
            other => panic!("{other:?} is not emulated"),
        };
        let moves = matches!(i.mnemonic(), Mnemonic::Vmovd | Mnemonic::Vmovq);
        let at = if moves { 0 } else { usize::from(i.immediate8()) * length };
        let address = self.address(i);
        if i.op_kind(0) == OpKind::Memory {
            let bytes = self.low_bytes(i.op_register(1));
            self.write(address, &bytes[at..at + length]);
            return;
        }
        assert_eq!(i.op_kind(i.op_count() - u32::from(!moves) - 1), OpKind::Memory, "from memory");
        let mut bytes = if moves { [0; 16] } else { self.low_bytes(i.op_register(1)) };
        for (k, byte) in bytes[at..at + length].iter_mut().enumerate() {
            *byte = self.read::<1>(address + k as u64)[0];
        }
        self.set_low_bytes(i.op_register(0), &bytes);
    }

    fn low_bytes(&self, register: Register) -> [u8; 16] {
        let lanes = self.vectors[register.number()];
        std::array::from_fn(|i| lanes[i / 4].to_le_bytes()[i % 4])
    }

    /// Sets the lowest four lanes; the others become zero.
    fn set_low_bytes(&mut self, register: Register, bytes: &[u8]) {
        let mut lanes: Lanes = [0; 16];
        for (lane, chunk) in lanes.iter_mut().zip(bytes.as_chunks().0) {
            *lane = u32::from_le_bytes(*chunk);
        }
        self.vectors[register.number()] = lanes;
    }

    /// Elements of `length` bytes to lanes. What the mask leaves out is not read.
    fn widen(&mut self, i: &Instruction, length: usize, convert: Convert) {
        let (lanes, mask) = (i.op_register(0).size() / 4, self.mask(i));
        let from_memory = i.op_kind(1) == OpKind::Memory;
        let base = if from_memory { self.address(i) } else { 0 };
        let mut widened: Lanes = [0; 16];
        for (lane, to) in widened.iter_mut().enumerate().take(lanes).filter(|(lane, _)| mask >> lane & 1 == 1)
        {
            let mut bytes = [0; 2];
            for (k, byte) in bytes.iter_mut().enumerate().take(length) {
                let at = lane * length + k;
                *byte = if from_memory {
                    self.read::<1>(base + at as u64)[0]
                } else {
                    self.vectors[i.op_register(1).number()][at / 4].to_le_bytes()[at % 4]
                };
            }
            let element = u16::from_le_bytes(bytes);
            *to = match convert {
                Convert::Half => half_to_float(element),
                Convert::Signed if length == 1 => i32::from(element as u8 as i8) as u32,
                Convert::Signed => i32::from(element as i16) as u32,
                Convert::Unsigned | Convert::Truncated => u32::from(element),
            };
        }
        self.set(i, |lane| widened[lane]);
    }

    /// Lanes to elements of `length` bytes. What the mask leaves out is not written.
    fn shorten(&mut self, i: &Instruction, length: usize, convert: Convert) {
        let source = i.op_register(1);
        let (lanes, mask, values) = (source.size() / 4, self.mask(i), self.vectors[source.number()]);
        let bits = 8 * length as u32;
        let elements = values.map(|lane| match convert {
            Convert::Half => u32::from(float_to_half(lane)),
            Convert::Signed => saturated(lane, -1 << (bits - 1), (1 << (bits - 1)) - 1),
            Convert::Unsigned => lane.min((1 << bits) - 1),
            Convert::Truncated => lane,
        });
        if i.op_kind(0) == OpKind::Memory {
            let base = self.address(i);
            for lane in (0..lanes).filter(|lane| mask >> lane & 1 == 1) {
                self.write(base + (lane * length) as u64, &elements[lane].to_le_bytes()[..length]);
            }
            return;
        }
        assert_eq!((lanes, length), (8, 2), "to a register");
        let bytes: Vec<u8> = elements[..lanes].iter().flat_map(|e| e.to_le_bytes()[..2].to_vec()).collect();
        self.set_low_bytes(i.op_register(0), &bytes);
    }
}
