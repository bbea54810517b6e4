//! The first elements of a vector, in memory: a number that is known, or one that is known when the code runs.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, F32X4, F64, F64X2};
use cranelift_codegen::ir::{Block, BlockArg, InstBuilder, Value};

use super::emit::Lowering;
use crate::{Address, Count, Elem, LANE_BYTES};

impl Lowering<'_> {
    /// The first `n` elements, from 1 to 4; zero in the other lanes.
    pub(super) fn load_first(&mut self, elem: Elem, at: Address, n: u8) -> Value {
        if !elem.is_lane() {
            return self.load_narrow(elem, at, n);
        }
        if n == 4 {
            return self.load(F32X4, at);
        }
        if n == 1 {
            let one = self.load(F32, at);
            return self.builder.ins().scalar_to_vector(F32X4, one);
        }
        let two = self.load(F64, at);
        let two = self.builder.ins().scalar_to_vector(F64X2, two);
        let two = self.cast(F32X4, two);
        if n == 2 {
            return two;
        }
        let third = self.load(F32, at.plus(2 * LANE_BYTES));
        self.builder.ins().insertlane(two, third, 2_u8)
    }

    /// Stores the first `n` elements, from 1 to 4.
    pub(super) fn store_first(&mut self, elem: Elem, value: Value, at: Address, n: u8) {
        if !elem.is_lane() {
            return self.store_narrow(elem, value, at, n);
        }
        if n == 4 {
            return self.store(value, at);
        }
        if n == 1 {
            return self.store_lane(value, 0, at);
        }
        let pairs = self.cast(F64X2, value);
        let two = self.builder.ins().extractlane(pairs, 0_u8);
        self.store(two, at);
        if n == 3 {
            self.store_lane(value, 2, at.plus(2 * LANE_BYTES));
        }
    }

    /// Stores one lane of 32 bits.
    pub(super) fn store_lane(&mut self, value: Value, lane: u8, at: Address) {
        let one = self.builder.ins().extractlane(value, lane);
        self.store(one, at);
    }

    /// The first elements, as many as `n` says when the code runs.
    pub(super) fn load_first_of(&mut self, elem: Elem, at: Address, n: Count) -> Value {
        let done = self.builder.create_block();
        let result = self.builder.append_block_param(done, F32X4);
        self.for_lanes(n, done, |lowering, lanes| match lanes {
            0 => Some(lowering.bits(0)),
            n => Some(lowering.load_first(elem, at, n)),
        });
        result
    }

    /// Stores the first elements, as many as `n` says when the code runs.
    pub(super) fn store_first_of(&mut self, elem: Elem, value: Value, at: Address, n: Count) {
        let done = self.builder.create_block();
        self.for_lanes(n, done, |lowering, lanes| {
            if lanes > 0 {
                lowering.store_first(elem, value, at, lanes);
            }
            None
        });
    }

    /// Branches to a piece of code for each number of lanes, all of which end in `done`, where code goes on.
    fn for_lanes(&mut self, n: Count, done: Block, mut piece: impl FnMut(&mut Self, u8) -> Option<Value>) {
        let n = self.count(n);
        for lanes in [4, 0, 1, 2] {
            let (hit, next) = (self.builder.create_block(), self.builder.create_block());
            let cc = if lanes == 4 { IntCC::UnsignedGreaterThanOrEqual } else { IntCC::Equal };
            let is = self.builder.ins().icmp_imm_u(cc, n, i64::from(lanes));
            self.builder.ins().brif(is, hit, &[], next, &[]);
            self.builder.switch_to_block(hit);
            self.builder.seal_block(hit);
            self.leave_to(done, lanes, &mut piece);
            self.builder.switch_to_block(next);
            self.builder.seal_block(next);
        }
        self.leave_to(done, 3, &mut piece);
        self.builder.switch_to_block(done);
        self.builder.seal_block(done);
    }

    fn leave_to(&mut self, done: Block, lanes: u8, piece: &mut impl FnMut(&mut Self, u8) -> Option<Value>) {
        let args: Vec<BlockArg> = piece(self, lanes).map(BlockArg::Value).into_iter().collect();
        self.builder.ins().jump(done, &args);
    }
}
