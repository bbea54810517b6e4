//! Casts between f32, f16 and bf16: elements that vectors widen when they are loaded and round when they are stored.

use super::family::{self, Codes, KernelFamily, KernelPlan, Site, Tiles};
use super::refusal::Reason;
use crate::builder::{Builder, WorkItems};
use crate::error::CompileError;
use cranelift_codegen::ir::InstBuilder;
use tconvc_ir::{DType, Graph, Node, ValueId};
use tconvc_machine::Target;
use tconvc_passes::plan::Step;
use tconvc_tile::{Elem, Lanes, Tile, TileBuilder, TileError};

/// Elements of a work item.
const BLOCK: usize = 4096;

/// Casts between floats that vectors load and store.
pub(crate) struct ShortFloats;

/// How vectors load and store a type.
fn elem(dtype: DType) -> Option<Elem> {
    match dtype {
        DType::F32 => Some(Elem::F32),
        DType::F16 => Some(Elem::F16),
        DType::BF16 => Some(Elem::Bf16),
        _ => None,
    }
}

/// True for a cast from and to such types.
pub(super) fn casts(graph: &Graph, node: &Node) -> bool {
    let is_one = |value: Option<ValueId>| value.and_then(|id| elem(graph.ty(id).dtype?)).is_some();
    is_one(node.input(0)) && is_one(node.output(0))
}

impl KernelFamily for ShortFloats {
    fn name(&self) -> &'static str {
        "short floats"
    }

    fn plan<'a>(&self, site: Site<'a>, step: &Step) -> Result<Box<dyn KernelPlan<'a> + 'a>, Reason> {
        let node = site.single(step)?;
        let (x, y) = (family::input(node, 0)?, family::output(node, 0)?);
        let float = |value: ValueId| {
            let found = site.graph.ty(value).dtype;
            found
                .and_then(|dtype| Some((dtype, elem(dtype)?)))
                .ok_or(Reason::Type { found, accepted: "f32, f16 or bf16" })
        };
        let ((source, from), (target, to)) = (float(x)?, float(y)?);
        let count = site.shape(x)?.iter().product::<usize>();
        Ok(Box::new(Floats { x, y, from, to, count, name: format!("cast_{source}_to_{target}") }))
    }
}

/// Elements to convert.
struct Floats {
    x: ValueId,
    y: ValueId,
    from: Elem,
    to: Elem,
    count: usize,
    name: String,
}

impl<'a> KernelPlan<'a> for Floats {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn cost_ns(&self, target: &Target) -> f64 {
        self.count as f64 * target.rates().elementwise.converted
    }

    fn tiles(&self, site: Site<'a>, name: &str) -> Result<Tiles, TileError> {
        Ok(vec![("row", vectors(site.tile(format!("{name}_row")), self.from, self.to)?)])
    }

    fn steps(
        self: Box<Self>,
        builder: &mut Builder<'a>,
        name: String,
        codes: &Codes,
    ) -> Result<(), CompileError> {
        let Self { x, y, from, to, count, .. } = *self;
        let operands = vec![builder.operand(x)?, builder.operand(y)?];
        let row = codes.need(builder, "row")?;
        let lanes = builder.target.lanes() as i64;
        let function = builder.add_step(&name, |f| {
            let (table, begin, end) = (f.params[0], f.params[1], f.params[2]);
            let (read, write) = (f.pointer(table, 0), f.pointer(table, 1));
            let (first, last) = f.elements_of((begin, end), BLOCK, count);
            let length = f.builder.ins().isub(last, first);
            let whole = f.builder.ins().udiv_imm_u(length, lanes);
            let done = f.builder.ins().imul_imm_s(whole, lanes);
            let rest = f.builder.ins().isub(length, done);
            let read = f.element(read, first, i64::from(from.bytes()));
            let write = f.element(write, first, i64::from(to.bytes()));
            f.call(row, &[read, write, whole, rest]);
        })?;
        let items = WorkItems { name, function, operands, scratch_bytes: 0, count: count.div_ceil(BLOCK) };
        builder.push_work_items(items, self.cost_ns(builder.target));
        Ok(())
    }
}

/// So many vectors, and elements of the last one.
fn vectors(mut b: TileBuilder, from: Elem, to: Elem) -> Result<Tile, TileError> {
    let [x, y] = b.pointers(["x", "y"]);
    let (whole, rest) = (b.count("vectors"), b.count("rest"));
    let lanes = b.lanes() as i32;
    b.repeat(whole, &[(x, lanes * from.bytes()), (y, lanes * to.bytes())], |b| {
        let vector = b.load_elements(from, x.at(0), Lanes::All);
        b.store_elements(to, vector, y.at(0), Lanes::All);
    });
    let vector = b.load_elements(from, x.at(0), Lanes::FirstOf(rest));
    b.store_elements(to, vector, y.at(0), Lanes::FirstOf(rest));
    b.finish()
}
