//! A small emulator of the x86-64 instructions that tiles are made of, so that AVX-512 code is tested without the
//! hardware. What it knows of AVX2 is checked against the processor by the same tests.

mod known;
mod narrow;

use self::known::step_of;
use tconvc_machine::CallingConvention;
use tconvc_tile::backend::MachineCode;

use iced_x86::{Code, ConditionCode, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

/// Where things are in the emulated address space.
const CODE: u64 = 0x1000_0000;
const STACK: u64 = 0x7000_0000;
const STACK_BYTES: usize = 4096;
const RETURN: u64 = 0xdead_0000;
/// Buffer `i` starts at `(i + 1) << 40`, far from all others.
const BUFFER_SHIFT: u32 = 40;

pub(super) type Lanes = [u32; 16];

pub struct Emulator {
    code: Vec<u8>,
    stack: Vec<u8>,
    buffers: Vec<Vec<u8>>,
    general: [u64; 16],
    pub(super) vectors: [Lanes; 32],
    masks: [u64; 8],
    zero: bool,
    carry: bool,
    rip: u64,
}

/// Whether an instruction can be run.
pub fn knows(mnemonic: Mnemonic) -> bool {
    step_of(mnemonic).is_some()
}

/// Runs a function on buffers of floats; `offsets` are in bytes. Whatever the convention wants kept must be as it was.
pub fn run(
    code: &MachineCode,
    convention: &CallingConvention,
    buffers: &[Vec<f32>],
    offsets: &[i64],
    counts: &[u64],
) -> Vec<Vec<f32>> {
    // Whatever is executed of it.
    for instruction in &mut Decoder::new(64, &code.bytes[..code.code_len], DecoderOptions::NONE) {
        assert!(knows(instruction.mnemonic()), "{:?} is not emulated", instruction.mnemonic());
    }
    let bytes = |floats: &Vec<f32>| floats.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut emulator = Emulator {
        code: code.bytes.clone(),
        stack: vec![0; STACK_BYTES],
        buffers: buffers.iter().map(bytes).collect(),
        // What is not set by the caller must not be relied on.
        general: std::array::from_fn(|i| 0x5a5a_0000_0000_0000 + i as u64),
        vectors: std::array::from_fn(|i| [0x7fc0_de00 + i as u32; 16]),
        masks: [0x5a5a; 8],
        zero: false,
        carry: false,
        rip: CODE,
    };
    let pointers = offsets
        .iter()
        .enumerate()
        .map(|(i, offset)| ((i as u64 + 1) << BUFFER_SHIFT).wrapping_add_signed(*offset));
    let args: Vec<u64> = pointers.chain(counts.iter().copied()).collect();
    emulator.call(convention, &args);
    emulator
        .buffers
        .iter()
        .map(|b| b.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
        .collect()
}

impl Emulator {
    fn call(&mut self, convention: &CallingConvention, args: &[u64]) {
        let general = |&n: &u8| Register::RAX + u32::from(n);
        let registers: Vec<Register> = convention.arguments.iter().map(general).collect();
        for (&register, &arg) in registers.iter().zip(args) {
            self.set_general(register, arg);
        }
        let mut rsp = STACK + STACK_BYTES as u64 - 256;
        assert_eq!(rsp % convention.stack_alignment as u64, 0);
        for (i, &arg) in args.iter().skip(registers.len()).enumerate() {
            self.write(rsp + (convention.shadow_bytes + 8 * i) as u64, &arg.to_le_bytes());
        }
        rsp -= 8;
        self.write(rsp, &RETURN.to_le_bytes());
        self.set_general(Register::RSP, rsp);
        let kept = |emulator: &Self| {
            let generals = convention.saved_generals.iter().map(general).map(|r| emulator.general(r));
            let lanes = convention.saved_vector_bytes / 4;
            let vectors = convention.saved_vectors.iter();
            let vectors = vectors.map(|&n| emulator.vectors[usize::from(n)][..lanes].to_vec());
            (generals.collect::<Vec<u64>>(), vectors.collect::<Vec<_>>())
        };
        let before = kept(self);
        let mut steps = 0;
        while self.rip != RETURN {
            let start = (self.rip - CODE) as usize;
            let mut decoder = Decoder::with_ip(64, &self.code[start..], self.rip, DecoderOptions::NONE);
            let instruction = decoder.decode();
            assert!(!instruction.is_invalid(), "not an instruction at {start:#x}");
            self.rip = instruction.next_ip();
            step_of(instruction.mnemonic()).unwrap()(self, &instruction);
            steps += 1;
            assert!(steps < 10_000_000, "does not come to an end");
        }
        assert_eq!(kept(self), before, "registers of the caller");
        assert_eq!(self.general(Register::RSP), rsp + 8, "the stack pointer");
    }

    // Registers and memory.

    pub(super) fn general(&self, register: Register) -> u64 {
        let value = self.general[register.full_register().number()];
        if register.size() == 4 { value & 0xffff_ffff } else { value }
    }

    fn set_general(&mut self, register: Register, value: u64) {
        // A 32-bit result clears the upper half.
        let value = if register.size() == 4 { value & 0xffff_ffff } else { value };
        self.general[register.full_register().number()] = value;
    }

    fn bytes(&mut self, address: u64, length: usize) -> &mut [u8] {
        let (region, start) = if address >= 1 << BUFFER_SHIFT {
            let buffer = (address >> BUFFER_SHIFT) as usize - 1;
            (self.buffers.get_mut(buffer), address & ((1 << BUFFER_SHIFT) - 1))
        } else if address >= STACK {
            (Some(&mut self.stack), address - STACK)
        } else {
            (Some(&mut self.code), address.wrapping_sub(CODE))
        };
        let found = region.and_then(|r| r.get_mut(usize::try_from(start).ok()?..)?.get_mut(..length));
        found.unwrap_or_else(|| panic!("{length} bytes at {address:#x} are out of bounds"))
    }

    pub(super) fn read<const N: usize>(&mut self, address: u64) -> [u8; N] {
        self.bytes(address, N).try_into().unwrap()
    }

    pub(super) fn write(&mut self, address: u64, bytes: &[u8]) {
        self.bytes(address, bytes.len()).copy_from_slice(bytes);
    }

    fn word(&mut self, address: u64) -> u32 {
        u32::from_le_bytes(self.read(address))
    }

    pub(super) fn address(&self, i: &Instruction) -> u64 {
        if i.is_ip_rel_memory_operand() {
            return i.ip_rel_memory_address();
        }
        let base = if i.memory_base() == Register::None { 0 } else { self.general(i.memory_base()) };
        // The index of a gather is a vector, which the instruction itself adds.
        let index = if i.memory_index().is_gpr64() {
            self.general(i.memory_index()).wrapping_mul(u64::from(i.memory_index_scale()))
        } else {
            0
        };
        base.wrapping_add(index).wrapping_add(i.memory_displacement64())
    }

    // Operands.

    fn scalar(&mut self, i: &Instruction, operand: u32) -> u64 {
        match i.op_kind(operand) {
            OpKind::Register => self.general(i.op_register(operand)),
            OpKind::Memory => u64::from_le_bytes(self.read(self.address(i))),
            OpKind::NearBranch64 => i.near_branch64(),
            _ => i.immediate(operand),
        }
    }

    /// A vector operand, `lanes` of it.
    pub(super) fn vector(&mut self, i: &Instruction, operand: u32, lanes: usize) -> Lanes {
        if i.op_kind(operand) == OpKind::Register {
            return self.vectors[i.op_register(operand).number()];
        }
        let address = self.address(i);
        std::array::from_fn(|lane| {
            if lane >= lanes {
                0
            } else if i.is_broadcast() {
                self.word(address)
            } else {
                self.word(address + 4 * lane as u64)
            }
        })
    }

    pub(super) fn mask(&self, i: &Instruction) -> u64 {
        if i.op_mask() == Register::None { u64::MAX } else { self.masks[i.op_mask().number()] }
    }

    /// Writes the destination register under the instruction's mask; lanes above its width become zero.
    pub(super) fn set(&mut self, i: &Instruction, value: impl Fn(usize) -> u32) {
        let register = i.op_register(0);
        let (lanes, mask, zeroing) = (register.size() / 4, self.mask(i), i.zeroing_masking());
        let old = self.vectors[register.number()];
        self.vectors[register.number()] = std::array::from_fn(|lane| match lane {
            _ if lane >= lanes => 0,
            _ if mask >> lane & 1 == 1 => value(lane),
            _ if zeroing => 0,
            _ => old[lane],
        });
    }

    /// The destination from two sources, lane by lane.
    pub(super) fn lanewise(&mut self, i: &Instruction, op: impl Fn(u32, u32) -> u32) {
        let lanes = i.op_register(0).size() / 4;
        let (a, b) = (self.vector(i, 1, lanes), self.vector(i, 2, lanes));
        self.set(i, |lane| op(a[lane], b[lane]));
    }

    pub(super) fn floats(&mut self, i: &Instruction, op: impl Fn(f32, f32) -> f32) {
        self.lanewise(i, |a, b| op(f32::from_bits(a), f32::from_bits(b)).to_bits());
    }

    /// The destination from one source, lane by lane.
    pub(super) fn map(&mut self, i: &Instruction, op: impl Fn(u32) -> u32) {
        let a = self.vector(i, 1, i.op_register(0).size() / 4);
        self.set(i, |lane| op(a[lane]));
    }

    /// The destination from lanes of two sources, `pick` counting through the first and then the second by 16.
    pub(super) fn pick(&mut self, i: &Instruction, operands: [u32; 2], pick: impl Fn(usize) -> usize) {
        let lanes = i.op_register(0).size() / 4;
        let sources = operands.map(|operand| self.vector(i, operand, lanes));
        self.set(i, |lane| sources[pick(lane) / 16][pick(lane) % 16]);
    }

    pub(super) fn fma(&mut self, i: &Instruction, op: impl Fn(f32, f32, f32) -> f32) {
        let lanes = i.op_register(0).size() / 4;
        let [d, a, b] = [0, 1, 2].map(|operand| self.vector(i, operand, lanes).map(f32::from_bits));
        self.set(i, |lane| op(d[lane], a[lane], b[lane]).to_bits());
    }

    pub(super) fn compare(&mut self, i: &Instruction) {
        let lanes = i.op_register(1).size() / 4;
        let (a, b) = (self.vector(i, 1, lanes), self.vector(i, 2, lanes));
        let holds = |lane: usize| {
            let (a, b) = (f32::from_bits(a[lane]), f32::from_bits(b[lane]));
            match i.immediate8() {
                0x00 => a == b,
                0x03 => a.is_nan() || b.is_nan(),
                0x04 => a != b,
                0x11 => a < b,
                0x12 => a <= b,
                0x1d => a >= b,
                0x1e => a > b,
                other => panic!("predicate {other:#x}"),
            }
        };
        let dst = i.op_register(0);
        if dst.is_k() {
            self.masks[dst.number()] = (0..lanes).map(|lane| u64::from(holds(lane)) << lane).sum();
        } else {
            self.set(i, |lane| if holds(lane) { u32::MAX } else { 0 });
        }
    }

    /// Loads, stores, and moves of lanes.
    pub(super) fn mov(&mut self, i: &Instruction) {
        if i.op_kind(0) == OpKind::Memory {
            return self.store(i);
        }
        let dst = i.op_register(0);
        let lanes = dst.size() / 4;
        match i.mnemonic() {
            Mnemonic::Vmovups | Mnemonic::Vmovaps if i.op_kind(1) == OpKind::Register => self.map(i, |a| a),
            Mnemonic::Vmovups | Mnemonic::Vmaskmovps => {
                // Lanes under the mask are not read at all.
                let masked = i.mnemonic() == Mnemonic::Vmaskmovps;
                let mask = if masked { self.sign_mask(i, 1) } else { self.mask(i) };
                let address = self.address(i);
                let loaded: Lanes = std::array::from_fn(|lane| {
                    let read = lane < lanes && mask >> lane & 1 == 1;
                    if read { self.word(address + 4 * lane as u64) } else { 0 }
                });
                self.set(i, |lane| loaded[lane]);
            }
            Mnemonic::Vbroadcastss => {
                let value = self.word(self.address(i));
                self.set(i, |_| value);
            }
            Mnemonic::Vmovss | Mnemonic::Vmovsd => {
                let bytes = if i.mnemonic() == Mnemonic::Vmovss { 1 } else { 2 };
                let address = self.address(i);
                let loaded: Lanes =
                    std::array::from_fn(
                        |lane| if lane < bytes { self.word(address + 4 * lane as u64) } else { 0 },
                    );
                self.set(i, |lane| loaded[lane]);
            }
            Mnemonic::Vinsertps => {
                let a = self.vector(i, 1, 4);
                let value = self.word(self.address(i));
                let lane = usize::from(i.immediate8() >> 4 & 3);
                assert_eq!(i.immediate8() & 0x0f, 0, "zeroing");
                self.set(i, |l| if l == lane { value } else { a[l] });
            }
            Mnemonic::Vinsertf128 => {
                let (a, four) = (self.vector(i, 1, 8), self.vector(i, 2, 4));
                self.set(i, |l| if l < 4 { a[l] } else { four[l - 4] });
            }
            Mnemonic::Vextractf64x4 => {
                let (a, part) = (self.vector(i, 1, 16), usize::from(i.immediate8()));
                self.set(i, |l| a[8 * part + l]);
            }
            Mnemonic::Vextractf128 | Mnemonic::Vextracti128 | Mnemonic::Vextractf32x4 => {
                let (a, part) = (self.vector(i, 1, 16), usize::from(i.immediate8()));
                self.set(i, |l| a[4 * part + l]);
            }
            Mnemonic::Vgatherdps => {
                let (index, mask) = (self.vectors[i.memory_index().number()], self.mask(i));
                assert_ne!(i.memory_index(), dst, "index and destination");
                let base = self.address(i);
                let old = self.vectors[dst.number()];
                let loaded: Lanes = std::array::from_fn(|lane| {
                    let offset = i64::from(index[lane] as i32) * i64::from(i.memory_index_scale());
                    let read = mask >> lane & 1 == 1;
                    if read { self.word(base.wrapping_add_signed(offset)) } else { old[lane] }
                });
                self.vectors[dst.number()] = loaded;
                self.masks[i.op_mask().number()] = 0;
            }
            other => panic!("{other:?} is not emulated to a register"),
        }
    }

    fn store(&mut self, i: &Instruction) {
        let last = i.op_count() - 1;
        let (from, mask, lanes) = match i.mnemonic() {
            Mnemonic::Vmovups => (i.op_register(1), self.mask(i), i.op_register(1).size() / 4),
            Mnemonic::Vmaskmovps => (i.op_register(2), self.sign_mask(i, 1), i.op_register(2).size() / 4),
            Mnemonic::Vmovss => (i.op_register(last), u64::MAX, 1),
            Mnemonic::Vmovlps => (i.op_register(last), u64::MAX, 2),
            Mnemonic::Vextractps => {
                let value = self.vectors[i.op_register(1).number()][usize::from(i.immediate8())];
                let address = self.address(i);
                return self.write(address, &value.to_le_bytes());
            }
            other => panic!("{other:?} is not emulated to memory"),
        };
        let (values, address) = (self.vectors[from.number()], self.address(i));
        for lane in (0..lanes).filter(|lane| mask >> lane & 1 == 1) {
            self.write(address + 4 * lane as u64, &values[lane].to_le_bytes());
        }
    }

    /// The sign bits of a vector operand.
    fn sign_mask(&mut self, i: &Instruction, operand: u32) -> u64 {
        let v = self.vector(i, operand, 8);
        (0..8).map(|lane| u64::from(v[lane] >> 31) << lane).sum()
    }

    pub(super) fn integer(&mut self, i: &Instruction) {
        let dst = i.op0_register();
        match i.mnemonic() {
            Mnemonic::Kmovw if i.code() == Code::VEX_Kmovw_r32_kr => {
                self.set_general(dst, self.masks[i.op1_register().number()]);
            }
            Mnemonic::Vpmovd2m | Mnemonic::Vmovmskps => {
                let lanes = i.op_register(1).size() / 4;
                let vector = self.vector(i, 1, lanes);
                let signs = (0..lanes).map(|lane| u64::from(vector[lane] >> 31) << lane).sum();
                if dst.is_k() { self.masks[dst.number()] = signs } else { self.set_general(dst, signs) }
            }
            Mnemonic::Kmovw => {
                assert_eq!(i.code(), Code::VEX_Kmovw_kr_r32);
                self.masks[dst.number()] = self.scalar(i, 1) & 0xffff;
            }
            Mnemonic::Mov => {
                let value = self.scalar(i, 1);
                self.set_general(dst, value);
            }
            Mnemonic::Lea => self.set_general(dst, self.address(i)),
            Mnemonic::Add => {
                let sum = self.scalar(i, 0).wrapping_add(self.scalar(i, 1));
                self.set_general(dst, sum);
                self.zero = sum == 0;
            }
            Mnemonic::Sub | Mnemonic::Cmp => {
                let (a, b) = (self.scalar(i, 0), self.scalar(i, 1));
                self.zero = a == b;
                self.carry = a < b;
                if i.mnemonic() == Mnemonic::Sub {
                    self.set_general(dst, a.wrapping_sub(b));
                }
            }
            Mnemonic::Dec => {
                let value = self.general(dst).wrapping_sub(1);
                self.set_general(dst, value);
                self.zero = value == 0;
            }
            Mnemonic::Test => self.zero = self.scalar(i, 0) & self.scalar(i, 1) == 0,
            Mnemonic::Imul => {
                let product = self.scalar(i, 1).wrapping_mul(self.scalar(i, 2));
                self.set_general(dst, product);
            }
            Mnemonic::Shl => self.set_general(dst, self.general(dst) << i.immediate8()),
            Mnemonic::Cmovb => {
                if self.carry {
                    let value = self.scalar(i, 1);
                    self.set_general(dst, value);
                }
            }
            Mnemonic::Bzhi => {
                let (value, bits) = (self.scalar(i, 1), self.scalar(i, 2) & 0xff);
                let kept = if bits < 32 { value & ((1 << bits) - 1) } else { value };
                self.set_general(dst, kept);
            }
            Mnemonic::Push => {
                let rsp = self.general(Register::RSP) - 8;
                self.set_general(Register::RSP, rsp);
                self.write(rsp, &self.general(dst).to_le_bytes());
            }
            Mnemonic::Pop | Mnemonic::Ret => {
                let rsp = self.general(Register::RSP);
                let value = u64::from_le_bytes(self.read(rsp));
                self.set_general(Register::RSP, rsp + 8);
                if i.mnemonic() == Mnemonic::Pop {
                    self.set_general(dst, value);
                } else {
                    self.rip = value;
                }
            }
            _ => {
                let taken = match i.condition_code() {
                    ConditionCode::None => true,
                    ConditionCode::ne => !self.zero,
                    ConditionCode::e => self.zero,
                    other => panic!("condition {other:?}"),
                };
                if taken {
                    self.rip = i.near_branch64();
                }
            }
        }
    }
}
