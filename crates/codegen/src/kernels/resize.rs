//! Resize by weights, linear or cubic: for each output row, the rows it reads are joined into one, which stays in the
//! first-level cache; the columns of that row are joined along the output, in vectors of it. Weights are those of the
//! reference's tables. Resize to the nearest element is a movement.

use super::family::{self, Codes, KernelFamily, KernelPlan, Site};
use super::refusal::Reason;
use super::walk::{each_vector, entry, indices, store_up_to};
use crate::builder::{Builder, WorkItems};
use crate::error::CompileError;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, I32, I64};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData};
use tconvc_ir::ops::{Resize, ResizeMode};
use tconvc_ir::resize_axis::{Coordinates, ResizeAxis, ResizeTable};
use tconvc_ir::{Node, Op, Tensor, ValueId};
use tconvc_machine::Target;
use tconvc_passes::plan::Step;
use tconvc_runtime::code::FunctionId;
use tconvc_tile::{Pattern, Tile, TileBuilder, TileError, Vector};

/// Most taps of all rows together: beyond, the tables outgrow the data.
const MAX_TAPS: usize = 1 << 20;
/// Longest row.
const MAX_ROW: usize = 1 << 24;
/// Integer scales along a row that are interleaved from phases.
const PHASES: std::ops::RangeInclusive<usize> = 2..=4;

/// How each axis is resampled.
pub(super) fn geometry(site: Site<'_>, node: &Node, input: &[usize]) -> Result<Vec<ResizeAxis>, Reason> {
    let Op::Resize(resize) = &node.op else { return Err(Reason::variant(node.op.name(), "Resize")) };
    let mut lists = vec![];
    for (index, what) in [(1, "regions"), (2, "scales"), (3, "sizes")] {
        let list = node.input(index).map(|value| site.constant(value, what)).transpose()?;
        lists.push(list.map_or_else(|| Ok(vec![]), Tensor::to_f64s)?);
    }
    let scales: Vec<f32> = lists[1].iter().map(|&scale| scale as f32).collect();
    let sizes: Vec<i64> = lists[2].iter().map(|&size| size as i64).collect();
    Ok(resize.geometry(input, &lists[0], &scales, &sizes)?)
}

/// Resize by weights.
pub(crate) struct Resampling;

impl KernelFamily for Resampling {
    fn name(&self) -> &'static str {
        "resampling"
    }

    fn plan<'a>(&self, site: Site<'a>, step: &Step) -> Result<Box<dyn KernelPlan<'a> + 'a>, Reason> {
        let node = site.single(step)?;
        let (x, y) = (family::input(node, 0)?, family::output(node, 0)?);
        let mode = match &node.op {
            Op::Resize(Resize { mode: ResizeMode::Linear, .. }) => "linear",
            Op::Resize(Resize { mode: ResizeMode::Cubic, .. }) => "cubic",
            op => return Err(Reason::variant(op.name(), "Resize of mode linear or cubic")),
        };
        site.all_f32([x])?;
        let axes = geometry(site, node, &site.shape(x)?)?;
        if axes.iter().any(|axis| axis.coordinates == Coordinates::TfCropAndResize) {
            return Err(Reason::variant("tf_crop_and_resize", "a region of the whole input"));
        }
        let Some(row) = axes.last() else {
            return Err(Reason::variant("Resize of a scalar", "Resize of at least one axis"));
        };
        Reason::within("elements of a row", row.input.max(row.output), MAX_ROW)?;
        let is_empty = axes.iter().any(|axis| axis.output == 0);
        let rows = if is_empty { Rows::default() } else { Rows::new(&axes[..axes.len() - 1], row.input)? };
        let sizes = |f: fn(&ResizeAxis) -> usize| {
            let changed: Vec<String> =
                axes.iter().filter(|axis| !axis.is_identity()).map(|axis| f(axis).to_string()).collect();
            changed.join("x")
        };
        let name = format!("f32_resize_{mode}_{}_{}", sizes(|axis| axis.input), sizes(|axis| axis.output));
        Ok(Box::new(Plan { x, y, axes, rows, name }))
    }
}

/// Rows to resample.
struct Plan {
    x: ValueId,
    y: ValueId,
    axes: Vec<ResizeAxis>,
    rows: Rows,
    name: String,
}

impl<'a> KernelPlan<'a> for Plan {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn cost_ns(&self, target: &Target) -> f64 {
        let Some((row, outer)) = self.axes.split_last() else { return 0.0 };
        let items: usize = outer.iter().map(|axis| axis.output).product();
        let taps = self.rows.weights.len() as f64 / self.rows.starts.len().saturating_sub(1).max(1) as f64;
        let rates = target.rates().elementwise;
        let across = if row.is_identity() { 0.0 } else { row.output as f64 * rates.joined };
        items as f64 * (row.input as f64 * taps * rates.reduced + across + rates.reduced_item)
    }

    fn steps(
        self: Box<Self>,
        builder: &mut Builder<'a>,
        name: String,
        _: &Codes,
    ) -> Result<(), CompileError> {
        let Self { x, y, axes, rows, .. } = *self;
        let Some((row, outer)) = axes.split_last() else { return Ok(()) };
        let across = if row.is_identity() { None } else { Some(Across::new(builder, &name, row)?) };
        let begin = across.as_ref().map_or(0, |across| across.begin);
        let joiner = |builder: &mut Builder<'_>, what: &str, taps: usize, adds: bool| {
            let tile = join(builder.tile(&format!("{name}_{what}")), row.input, begin, taps, adds);
            builder.add_tile(tile)
        };
        let one = joiner(builder, "one", 1, false)?;
        let two = joiner(builder, "two", 2, false)?;
        let more = joiner(builder, "more", 1, true)?;

        let mut operands = vec![builder.operand(x)?, builder.operand(y)?];
        operands.push(builder.pack_bytes(bytemuck::cast_slice(&rows.starts)));
        operands.push(builder.pack_bytes(bytemuck::cast_slice(&rows.offsets)));
        operands.push(builder.pack(&rows.weights));
        if let Some(across) = &across {
            operands.push(builder.pack_bytes(&across.table));
        }
        let extents: Vec<usize> = outer.iter().map(|axis| axis.output).collect();
        let items: usize = extents.iter().product();
        let row_bytes = 4 * row.output as i64;
        let function = builder.add_step(&name, |f| {
            let &[table, begin, end, scratch] = f.params.as_slice() else { return };
            let pointers: Vec<_> = (0..operands.len()).map(|i| f.pointer(table, i)).collect();
            if let Some(Across { zero: Some(at), .. }) = across {
                let zero = f.builder.ins().iconst(I32, 0);
                let at = f.add_constant(scratch, at);
                f.builder.ins().store(MemFlagsData::trusted(), zero, at, 0);
            }
            f.for_each(begin, end, |f, item| {
                let along = indices(f, item, &extents);
                let (mut source, mut number) = (pointers[0], f.constant(0));
                for (&index, &(stride, step)) in along.iter().zip(&rows.axes) {
                    source = if stride == 0 { source } else { f.element(source, index, 4 * stride as i64) };
                    number = if step == 0 { number } else { f.element(number, index, step as i64) };
                }
                let target = f.element(pointers[1], item, row_bytes);
                let joined = if across.is_some() { scratch } else { target };
                let first = entry(f, pointers[2], number);
                let next = f.add_constant(number, 1);
                let last = entry(f, pointers[2], next);
                let tap = |f: &mut crate::module::FunctionBuilder<'_>, tap| {
                    let offset = entry(f, pointers[3], tap);
                    (f.builder.ins().iadd(source, offset), f.element(pointers[4], tap, 4))
                };
                let second = f.add_constant(first, 1);
                let third = f.add_constant(first, 2);
                let (from, weight) = tap(f, first);
                let several = f.builder.ins().icmp(IntCC::UnsignedGreaterThan, last, second);
                super::walk::choose(
                    f,
                    several,
                    |f| {
                        let (other, _) = tap(f, second);
                        f.call(two, &[from, other, joined, weight]);
                        f.for_each(third, last, |f, next| {
                            let (from, weight) = tap(f, next);
                            f.call(more, &[from, joined, weight]);
                        });
                    },
                    |f| f.call(one, &[from, joined, weight]),
                );
                if let Some(across) = &across {
                    f.call(across.code, &[scratch, target, pointers[5]]);
                }
            });
        })?;
        let scratch_bytes = across.as_ref().map_or(0, |across| across.scratch_bytes);
        let taps = rows.weights.len() as f64 / (rows.starts.len() - 1) as f64;
        let rates = builder.target.rates().elementwise;
        let work = row.input as f64 * taps * rates.reduced
            + across.map_or(0.0, |across| across.nanoseconds)
            + rates.reduced_item;
        let items = WorkItems { name, function, operands, scratch_bytes, count: items };
        let nanoseconds = items.count as f64 * work;
        builder.push_work_items(items, nanoseconds);
        Ok(())
    }
}

/// The rows that each output row reads: taps of all axes but the innermost, joined.
#[derive(Default)]
struct Rows {
    /// For each outer axis, words between its rows in the input where it stays, and its step in the number of an entry.
    axes: Vec<(usize, usize)>,
    /// First tap of each entry, and the end of the last.
    starts: Vec<i64>,
    /// Bytes from the start of the input.
    offsets: Vec<i64>,
    weights: Vec<f32>,
}

impl Rows {
    fn new(outer: &[ResizeAxis], width: usize) -> Result<Self, Reason> {
        let (mut stride, mut entries) = (width, 1usize);
        // Innermost first.
        let mut axes = vec![];
        let mut taps: Vec<Vec<(usize, f64)>> = vec![vec![(0, 1.0)]];
        for axis in outer.iter().rev() {
            if axis.is_identity() {
                axes.push((stride, 0));
            } else {
                let table = axis.table()?;
                let total = taps.iter().map(Vec::len).sum::<usize>();
                let taps_of_all = total.saturating_mul(table.output()).saturating_mul(table.most_taps());
                Reason::within("taps of all rows together", taps_of_all, MAX_TAPS)?;
                axes.push((0, entries));
                entries *= table.output();
                taps = (0..table.output()).flat_map(|o| joined(&table, o, stride, &taps)).collect();
            }
            stride *= axis.input;
        }
        axes.reverse();
        let (mut starts, mut offsets, mut weights) = (vec![0], vec![], vec![]);
        for row in taps {
            offsets.extend(row.iter().map(|(offset, _)| 4 * *offset as i64));
            weights.extend(row.iter().map(|(_, weight)| *weight as f32));
            starts.push(offsets.len() as i64);
        }
        if starts.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Reason::variant(
                "an output row that reads nothing",
                "rows that each read some of the input",
            ));
        }
        Ok(Self { axes, starts, offsets, weights })
    }
}

/// The taps of output `o` of an axis with all those of the axes inside it.
fn joined(
    table: &ResizeTable,
    o: usize,
    stride: usize,
    inner: &[Vec<(usize, f64)>],
) -> Vec<Vec<(usize, f64)>> {
    let outer: Vec<(usize, f64)> =
        table.taps(o).iter().map(|tap| (tap.source * stride, tap.weight)).collect();
    let mut rows = vec![];
    for row in inner {
        let with = |(at, w): &(usize, f64)| -> Vec<(usize, f64)> {
            row.iter().map(|(offset, weight)| (at + offset, w * weight)).collect()
        };
        rows.push(outer.iter().flat_map(with).collect());
    }
    rows
}

/// Weighs rows and adds them up: `source.., target, weights`. The result begins `begin` words into the target.
fn join(mut b: TileBuilder, width: usize, begin: usize, taps: usize, adds: bool) -> Result<Tile, TileError> {
    let sources: Vec<_> = (0..taps).map(|i| b.pointer(&format!("source{i}"))).collect();
    let [target, weights] = b.pointers(["target", "weights"]);
    let factors: Vec<Vector> = (0..taps).map(|i| b.load_splat(weights.float(i as i32))).collect();
    let moving: Vec<_> = sources.iter().copied().chain([target]).collect();
    each_vector(&mut b, width, &moving, |b, at, lanes| {
        let to = target.at(at + 4 * begin as i32);
        let mut sum = adds.then(|| b.load_lanes(to, lanes));
        for (&source, &factor) in sources.iter().zip(&factors) {
            let element = b.load_lanes(source.at(at), lanes);
            match sum {
                Some(sum) => b.fma(sum, element, factor),
                None => sum = Some(b.mul(element, factor)),
            }
        }
        if let Some(sum) = sum {
            b.store_lanes(sum, to, lanes);
        }
    });
    b.finish()
}

/// How the columns of a joined row in scratch memory become those of the output: `scratch, target, table`.
struct Across {
    code: FunctionId,
    /// Words before the row in scratch memory.
    begin: usize,
    /// Bytes to a word that must be zero.
    zero: Option<i64>,
    table: Vec<u8>,
    scratch_bytes: usize,
    nanoseconds: f64,
}

impl Across {
    fn new(builder: &mut Builder<'_>, name: &str, row: &ResizeAxis) -> Result<Self, CompileError> {
        let table = row.table()?;
        let rates = builder.target.rates().elementwise;
        let name = format!("{name}_columns");
        if let Some(phases) = phases(&table, row) {
            let reach = phases.iter().flatten().map(|(at, _)| at.unsigned_abs() as usize).max().unwrap_or(0);
            let begin = reach.next_multiple_of(16);
            let tile = write_phases(builder.tile(&name), &phases, row.input, begin, reach);
            if let Some(code) = builder.try_tile(tile)? {
                let words = begin + row.input.next_multiple_of(16) + reach.next_multiple_of(16) + 32;
                return Ok(Self {
                    code,
                    begin,
                    zero: None,
                    table: vec![0; 8],
                    scratch_bytes: 4 * words,
                    nanoseconds: row.output as f64 * rates.joined,
                });
            }
        }
        if let Some(blocks) = blocks(&table, builder.target.lanes())
            && let tile = write_blocks(builder.tile(&name), &blocks, row.output)
            && let Some(code) = builder.try_tile(tile)?
        {
            let words = row.input + 2 * builder.target.lanes();
            return Ok(Self {
                code,
                begin: 0,
                zero: None,
                table: blocks
                    .iter()
                    .flat_map(|block| &block.taps)
                    .flat_map(|tap| bytes_of(&tap.weights))
                    .collect(),
                scratch_bytes: 4 * words,
                nanoseconds: row.output as f64 * rates.joined,
            });
        }
        // Taps that an output does not have read the word behind the row, which is zero.
        let (taps, zero) = (table.most_taps().max(1), 4 * row.input as i64);
        let mut bytes = vec![];
        for o in 0..table.output() {
            let here = table.taps(o);
            for i in 0..taps {
                let (at, weight) =
                    here.get(i).map_or((zero, 0.0), |tap| (4 * tap.source as i64, tap.weight as f32));
                bytes.extend((at as u32).to_le_bytes());
                bytes.extend(weight.to_le_bytes());
            }
        }
        let outputs = row.output as u64;
        let code = builder.add_function(&name, 3, |f| {
            let &[scratch, target, table] = f.params.as_slice() else { return };
            let read = MemFlagsData::trusted();
            f.for_count(outputs, |f, o| {
                let taken = f.element(table, o, 8 * taps as i64);
                let mut sum = None;
                for i in 0..taps as i32 {
                    let ins = &mut f.builder;
                    let at = ins.ins().load(I32, read, taken, 8 * i);
                    let at = ins.ins().uextend(I64, at);
                    let weight = ins.ins().load(F32, read, taken, 8 * i + 4);
                    let from = ins.ins().iadd(scratch, at);
                    let element = ins.ins().load(F32, read, from, 0);
                    let product = ins.ins().fmul(element, weight);
                    sum = Some(sum.map_or(product, |sum| ins.ins().fadd(sum, product)));
                }
                if let Some(sum) = sum {
                    let to = f.element(target, o, 4);
                    f.builder.ins().store(MemFlagsData::trusted(), sum, to, 0);
                }
            });
        })?;
        Ok(Self {
            code,
            begin: 0,
            zero: Some(zero),
            table: bytes,
            scratch_bytes: 4 * row.input + 64,
            nanoseconds: (row.output * taps) as f64 * rates.gathered,
        })
    }
}

/// A vector of outputs.
struct Block {
    /// The first input that it reads.
    first: usize,
    taps: Vec<Tap>,
}

/// A tap of each lane: its input, from the first of the block on, and its weight.
struct Tap {
    places: Vec<usize>,
    weights: Vec<f32>,
}

/// Most taps of the blocks of a row: their code is written out.
const MAX_BLOCK_TAPS: usize = 1024;

/// A row in vectors of outputs; nothing where one reads inputs that do not lie in two vectors, or there are too many.
fn blocks(table: &ResizeTable, lanes: usize) -> Option<Vec<Block>> {
    let most = table.most_taps().max(1);
    let empty = (0..table.output()).any(|o| table.taps(o).is_empty());
    if empty || table.output().div_ceil(lanes) * most > MAX_BLOCK_TAPS {
        return None;
    }
    let block = |start: usize| {
        let outputs = start..table.output().min(start + lanes);
        let sources = || outputs.clone().flat_map(|o| table.taps(o)).map(|tap| tap.source);
        let (first, last) = (sources().min().unwrap_or(0), sources().max().unwrap_or(0));
        let tap = |t: usize| {
            // Taps that an output does not have are shares of its last one: no product with what it does not read.
            let of_lane = |lane: usize| {
                let taps = table.taps(outputs.start + lane.min(outputs.len() - 1));
                let last = t.min(taps.len() - 1);
                let shares = if last == taps.len() - 1 { most - last } else { 1 };
                (taps[last].source - first, (taps[last].weight / shares as f64) as f32)
            };
            let (places, weights) = (0..lanes).map(of_lane).unzip();
            Tap { places, weights }
        };
        (last - first < 2 * lanes).then(|| Block { first, taps: (0..most).map(tap).collect() })
    };
    (0..table.output()).step_by(lanes).map(block).collect()
}

fn write_blocks(mut b: TileBuilder, blocks: &[Block], outputs: usize) -> Result<Tile, TileError> {
    let [scratch, target, table] = b.pointers(["scratch", "target", "table"]);
    let (lanes, bytes) = (b.lanes(), b.vector_bytes());
    let mut weights = 0;
    for (number, block) in blocks.iter().enumerate() {
        let near = b.load(scratch.float(block.first as i32));
        let reach = block.taps.iter().flat_map(|tap| &tap.places).max();
        let far = match reach {
            Some(&reach) if reach >= lanes => b.load(scratch.float((block.first + lanes) as i32)),
            _ => near,
        };
        let mut sum: Option<Vector> = None;
        for tap in &block.taps {
            let elements = b.shuffle(near, far, Pattern::new(lanes, |lane| tap.places[lane]));
            let weight = table.at(weights);
            weights += bytes;
            match sum {
                Some(sum) => b.fma(sum, elements, weight),
                None => sum = Some(b.mul(elements, weight)),
            }
        }
        if let Some(sum) = sum {
            let lanes = super::walk::first_lanes(&b, outputs - number * lanes);
            b.store_lanes(sum, target.at(number as i32 * bytes), lanes);
        }
    }
    b.finish()
}

fn bytes_of(floats: &[f32]) -> impl Iterator<Item = u8> {
    floats.iter().flat_map(|float| float.to_ne_bytes())
}

/// Places relative to the input of the same number, with their weights.
type Phase = Vec<(i64, f64)>;

/// The phases of an integer scale, when all outputs follow them with the border repeated.
fn phases(table: &ResizeTable, row: &ResizeAxis) -> Option<Vec<Phase>> {
    let scale = row.output / row.input;
    if !PHASES.contains(&scale) || row.output != scale * row.input {
        return None;
    }
    let (middle, last) = ((row.input / 2) as i64, row.input as i64 - 1);
    let phases: Vec<Phase> = (0..scale)
        .map(|f| {
            let taps = table.taps(middle as usize * scale + f);
            taps.iter().map(|tap| (tap.source as i64 - middle, tap.weight)).collect()
        })
        .collect();
    let follows = |o: usize| {
        let taps = table.taps(o);
        let mut left: Vec<f64> = taps.iter().map(|tap| tap.weight).collect();
        let known = phases[o % scale].iter().all(|(at, weight)| {
            let source = ((o / scale) as i64 + at).clamp(0, last) as usize;
            let found = taps.iter().position(|tap| tap.source == source);
            found.map(|i| left[i] -= weight).is_some()
        });
        known && left.iter().all(|rest| rest.abs() < 1e-9)
    };
    (0..row.output).all(follows).then_some(phases)
}

fn write_phases(
    mut b: TileBuilder,
    phases: &[Phase],
    input: usize,
    begin: usize,
    reach: usize,
) -> Result<Tile, TileError> {
    let [scratch, target, _] = b.pointers(["scratch", "target", "table"]);
    let (lanes, bytes) = (b.lanes(), b.vector_bytes());
    for (element, from) in [(begin, begin - reach), (begin + input - 1, begin + input)] {
        let border = b.load_splat(scratch.float(element as i32));
        each_vector(&mut b, reach, &[], |b, at, lanes| {
            b.store_lanes(border, scratch.at(4 * from as i32 + at), lanes);
        });
    }
    let block = |b: &mut TileBuilder, count: usize| {
        let mut places: Vec<i64> = phases.iter().flatten().map(|(at, _)| *at).collect();
        places.sort_unstable();
        places.dedup();
        let mut sums: Vec<Option<Vector>> = vec![None; phases.len()];
        for place in places {
            let element = b.load(scratch.float((begin as i64 + place) as i32));
            for (sum, phase) in sums.iter_mut().zip(phases) {
                let Some((_, weight)) = phase.iter().find(|(at, _)| *at == place) else { continue };
                match sum {
                    Some(sum) => b.fma(*sum, element, *weight as f32),
                    None => *sum = Some(b.mul(element, *weight as f32)),
                }
            }
        }
        let sums: Vec<Vector> = sums.into_iter().map(|sum| sum.unwrap_or_else(|| b.zero())).collect();
        for (i, vector) in b.interleave(&sums).into_iter().enumerate() {
            store_up_to(b, vector, target, i, count * phases.len());
        }
    };
    let (full, rest) = (input / lanes, input % lanes);
    if full > 0 {
        let moving = [(scratch, bytes), (target, bytes * phases.len() as i32)];
        b.repeat(full as u32, &moving, |b| block(b, lanes));
    }
    if rest > 0 {
        block(&mut b, rest);
    }
    b.finish()
}
