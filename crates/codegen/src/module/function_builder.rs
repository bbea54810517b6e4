//! The code between tiles: Cranelift's builder with calls to functions of the module, and counted loops.

use std::sync::Arc;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{ExtFuncData, ExternalName, Function, InstBuilder, UserExternalName, Value};
use cranelift_codegen::isa::TargetFrontendConfig;
use cranelift_frontend::{FunctionBuilder as Cranelift, FunctionBuilderContext};

use super::Declared;
use tconvc_runtime::code::FunctionId;

/// A function under construction, with its parameters.
///
/// Address arithmetic is on 64-bit integers. [`FunctionBuilder::builder`] is Cranelift's own, for all that has no method here.
pub struct FunctionBuilder<'a> {
    /// Cranelift's builder, in the block where code goes on.
    pub builder: Cranelift<'a>,
    /// The parameters.
    pub params: Vec<Value>,
    functions: &'a [Arc<Declared>],
    /// The first call that cannot be.
    misuse: Option<String>,
}

impl<'a> FunctionBuilder<'a> {
    pub(super) fn new(
        function: &'a mut Function,
        context: &'a mut FunctionBuilderContext,
        functions: &'a [Arc<Declared>],
    ) -> FunctionBuilder<'a> {
        let mut builder = Cranelift::new(function, context);
        let entry = builder.create_block();
        builder.append_block_params_for_function_params(entry);
        builder.switch_to_block(entry);
        builder.seal_block(entry);
        let params = builder.block_params(entry).to_vec();
        FunctionBuilder { builder, params, functions, misuse: None }
    }

    /// Ends the function; what was wrong with it, if anything.
    pub(super) fn finish(mut self, config: TargetFrontendConfig) -> Result<(), String> {
        self.builder.ins().return_(&[]);
        self.builder.finalize(config);
        self.misuse.map_or(Ok(()), Err)
    }

    /// A constant.
    pub fn constant(&mut self, value: i64) -> Value {
        self.builder.ins().iconst(I64, value)
    }

    /// `a + value`.
    pub fn add_constant(&mut self, a: Value, value: i64) -> Value {
        if value == 0 { a } else { self.builder.ins().iadd_imm_s(a, value) }
    }

    /// `base + index * stride`, the address of element `index`.
    pub fn element(&mut self, base: Value, index: Value, stride: i64) -> Value {
        let offset = self.builder.ins().imul_imm_s(index, stride);
        self.builder.ins().iadd(base, offset)
    }

    /// Entry `index` of a table of pointers.
    pub fn pointer(&mut self, table: Value, index: usize) -> Value {
        let flags = cranelift_codegen::ir::MemFlagsData::trusted().with_readonly();
        self.builder.ins().load(I64, flags, table, 8 * index as i32)
    }

    /// Calls a tile or another function of the module. Too few or too many arguments are refused when it compiles.
    pub fn call(&mut self, callee: FunctionId, args: &[Value]) {
        let Declared { name, signature, .. } = &*self.functions[callee.index()];
        let (given, expected) = (args.len(), signature.params.len());
        if given != expected {
            let text = || format!("it calls {name} with {given} arguments, and that takes {expected}");
            self.misuse.get_or_insert_with(text);
            return;
        }
        let signature = signature.clone();
        let signature = self.builder.import_signature(signature);
        let name = UserExternalName { namespace: 0, index: callee.index() as u32 };
        let name = self.builder.func.declare_imported_user_function(name);
        let function = self.builder.import_function(ExtFuncData {
            name: ExternalName::user(name),
            signature,
            colocated: true,
            patchable: false,
        });
        self.builder.ins().call(function, args);
    }

    /// The first and the end of the elements in the blocks `begin .. end` of so many elements, of `count` elements in all: the last
    /// block may be shorter.
    pub fn elements_of(
        &mut self,
        (begin, end): (Value, Value),
        block: usize,
        count: usize,
    ) -> (Value, Value) {
        let first = self.builder.ins().imul_imm_s(begin, block as i64);
        let last = self.builder.ins().imul_imm_s(end, block as i64);
        let total = self.constant(count as i64);
        (first, self.builder.ins().umin(last, total))
    }

    /// Runs `body` for each of `begin .. end`, in order. Unsigned; nothing where `begin >= end`.
    pub fn for_each(&mut self, begin: Value, end: Value, body: impl FnOnce(&mut FunctionBuilder<'a>, Value)) {
        let (head, inside, exit) =
            (self.builder.create_block(), self.builder.create_block(), self.builder.create_block());
        let index = self.builder.append_block_param(head, I64);
        self.builder.ins().jump(head, &[begin.into()]);
        self.builder.switch_to_block(head);
        let more = self.builder.ins().icmp(IntCC::UnsignedLessThan, index, end);
        self.builder.ins().brif(more, inside, &[], exit, &[]);
        self.builder.switch_to_block(inside);
        self.builder.seal_block(inside);
        body(self, index);
        let next = self.builder.ins().iadd_imm_s(index, 1);
        self.builder.ins().jump(head, &[next.into()]);
        self.builder.seal_block(head);
        self.builder.switch_to_block(exit);
        self.builder.seal_block(exit);
    }

    /// Runs `body` for each of `0 .. count`, a constant.
    pub fn for_count(&mut self, count: u64, body: impl FnOnce(&mut FunctionBuilder<'a>, Value)) {
        let (begin, end) = (self.constant(0), self.constant(count as i64));
        self.for_each(begin, end, body);
    }

    /// Quotient and remainder of an unsigned value by a constant.
    pub fn split(&mut self, index: Value, count: u64) -> (Value, Value) {
        if count <= 1 {
            let zero = self.constant(0);
            return (index, zero);
        }
        let quotient = self.builder.ins().udiv_imm_u(index, count as i64);
        let whole = self.builder.ins().imul_imm_s(quotient, count as i64);
        (quotient, self.builder.ins().isub(index, whole))
    }

    /// Runs `body` with true where the condition holds, else with false.
    pub fn branch(&mut self, condition: Value, body: &mut dyn FnMut(&mut FunctionBuilder<'a>, bool)) {
        let (yes, no, after) =
            (self.builder.create_block(), self.builder.create_block(), self.builder.create_block());
        self.builder.ins().brif(condition, yes, &[], no, &[]);
        for (block, holds) in [(yes, true), (no, false)] {
            self.builder.switch_to_block(block);
            self.builder.seal_block(block);
            body(self, holds);
            self.builder.ins().jump(after, &[]);
        }
        self.builder.switch_to_block(after);
        self.builder.seal_block(after);
    }
}
