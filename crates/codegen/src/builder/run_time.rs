//! Weights that are made at run time, packed by code of the program: what packing does to weights is done to their numbers when the
//! program is made, and these become a table of where each packed one comes from.

use super::{Builder, WorkItems};
use crate::error::CompileError;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I32;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData};
use std::sync::{Arc, OnceLock};
use tconvc_ir::{DType, Tensor};
use tconvc_runtime::program::Operand;

/// Packed weights of a work item.
const BLOCK: usize = 4096;
/// Nanoseconds that one takes, about.
const NS_OF_ONE: f64 = 0.8;

/// Numbers of weights, in the place of weights, for as many layers as there are.
#[derive(Default)]
pub(crate) struct Numbers {
    tensors: Vec<OnceLock<Tensor>>,
}

impl Numbers {
    /// For at most so many layers.
    pub fn new(layers: usize) -> Self {
        Self { tensors: (0..layers).map(|_| OnceLock::new()).collect() }
    }
}

impl<'a> Builder<'a> {
    /// A tensor of this shape whose elements are, by their bits, their numbers from 1 on: packers move them as they are, and put
    /// zeros where there is no weight.
    ///
    /// # Errors
    /// When there are more weights than numbers, or more layers than was said.
    pub(crate) fn numbers(&mut self, shape: &[usize]) -> Result<&'a Tensor, CompileError> {
        let count = shape.iter().product::<usize>();
        self.within("weights made at run time", count, (u32::MAX - 1) as usize)?;
        let slot = self.numbers.tensors.get(self.numbered);
        let slot = slot.ok_or_else(|| self.unsupported("it has more layers than steps".into()))?;
        self.numbered += 1;
        let bytes: Vec<u8> = (1..=count as u32).flat_map(u32::to_ne_bytes).collect();
        let tensor = Tensor::from_shared(DType::F32, shape.to_vec(), Arc::new(bytes), 0)?;
        Ok(slot.get_or_init(|| tensor))
    }

    /// Packs what lies at `source` as the numbers in `table` say, before the kernels that come next; gives the place of the packed
    /// weights.
    ///
    /// # Errors
    /// When the function has no code.
    pub(super) fn pack_at_run_time(
        &mut self,
        table: Operand,
        source: Operand,
    ) -> Result<Operand, CompileError> {
        let [start, end] = table.buffer;
        let count = (end - start) / 4;
        let packed = self.shared(4 * count);
        let name = self.unique("f32_pack_weights");
        let function = self.add_step(&name, |f| {
            let (pointers, begin, end) = (f.params[0], f.params[1], f.params[2]);
            let [weights, table, packed] = [0, 1, 2].map(|i| f.pointer(pointers, i));
            let (first, last) = f.elements_of((begin, end), BLOCK, count);
            f.for_each(first, last, |f, i| {
                let at = f.element(table, i, 4);
                let number = f.builder.ins().uload32(MemFlagsData::trusted(), at, 0);
                let none = f.builder.ins().icmp_imm_s(IntCC::Equal, number, 0);
                // Where there is no weight, the first one is read and not used.
                let one = f.constant(1);
                let exists = f.builder.ins().umax(number, one);
                let index = f.builder.ins().iadd_imm_s(exists, -1);
                let at = f.element(weights, index, 4);
                let weight = f.builder.ins().load(I32, MemFlagsData::trusted(), at, 0);
                let zero = f.builder.ins().iconst(I32, 0);
                let value = f.builder.ins().select(none, zero, weight);
                let at = f.element(packed, i, 4);
                f.builder.ins().store(MemFlagsData::trusted(), value, at, 0);
            });
        })?;
        let operands = vec![source, table, packed];
        let items = WorkItems { name, function, operands, scratch_bytes: 0, count: count.div_ceil(BLOCK) };
        self.push_work_items(items, count as f64 * NS_OF_ONE);
        Ok(packed)
    }
}
