//! What a Winograd convolution is made of: its tiles, and where things lie in scratch memory. [`super::winograd_loops`] has the
//! loops around them.

use crate::builder::Builder;
use crate::error::CompileError;
use crate::kernels::conv::emit::input_tile::{InputTileShape, InputTiles};
use crate::kernels::conv::layer::{Layer, operands};
use crate::kernels::conv::microkernel::post_ops::PostOps;
use crate::kernels::conv::microkernel::width::{Segment, Span, TileSpec, build as build_tile};
use crate::kernels::conv::microkernel::winograd::{self, InputSpec, OutputSpec};
use crate::kernels::conv::problem::Problem;
use crate::kernels::conv::problem::winograd::{Kernels, Matrices};
use crate::kernels::conv::schedule::phases::{Position, Row};
use crate::kernels::conv::schedule::tiling::{channels_of_parts, cut_channels};
use crate::kernels::conv::schedule::winograd::{Schedule, depths, matrices_of_phases, tiles_of};
use crate::kernels::conv::weights::winograd::Transformed;
use std::collections::HashMap;
use tconvc_runtime::code::FunctionId;
use tconvc_runtime::memory::ALIGNMENT;
use tconvc_runtime::program::Kernel;

/// Makes the kernel of a convolution along a schedule.
///
/// # Errors
/// When a transform needs more registers than the target has, among others.
pub(crate) fn build<'w>(
    builder: &mut Builder<'w>,
    layer: &Layer<'w>,
    schedule: &Schedule,
) -> Result<(), CompileError> {
    let [z, y, x] = &layer.problem.axes;
    let phases = |axis, m, pieces| {
        matrices_of_phases(axis, m, pieces).into_iter().map(|(of, kernels, _)| (of, kernels)).collect()
    };
    let weights = Transformed {
        weights: layer.weights,
        zs: depths(z).into_iter().map(|(kernels, _)| kernels).collect(),
        ys: phases(y, schedule.m[0], 1),
        xs: phases(x, schedule.m[1], schedule.pieces),
        pieces: schedule.pieces,
        m: schedule.channels,
    };
    let plan = KernelPlan::new(builder, layer, schedule, &weights)?;
    let packed = builder.pack_weights(weights)?;
    let bias = builder.pack_bias(&layer.bias)?;
    let operands = operands([layer.input, layer.output, packed, bias], &layer.post_op_operands);
    let name = builder.unique(&layer.name);
    let function = builder.add_step(&name, |f| plan.step(f))?;
    let rates = builder.target.rates();
    let macs_per_ns = rates.lanes as f64 * rates.threads.winograd_macs_per_lane;
    let nanoseconds = layer.problem.macs() as f64 / macs_per_ns;
    let partition = builder.weighted_partition(&plan.weights(), nanoseconds);
    builder.push_kernel(Kernel {
        name,
        function,
        operands,
        partition,
        scratch_bytes: plan.scratch_bytes,
        time_steps: 1,
    });
    Ok(())
}

/// A z-phase and y-phase, with all x-phases.
pub(super) struct Group {
    /// First output plane, number of planes, and planes from the first that an input tile of any phase has to the first it reads.
    pub(super) first_plane: usize,
    pub(super) planes: usize,
    pub(super) skipped: i64,
    /// First output row, and number of rows.
    pub(super) first: usize,
    pub(super) rows: usize,
    /// Product terms, of all x-phases.
    pub(super) terms: usize,
    /// Offset of its weights, in floats.
    pub(super) weights: usize,
    /// By kind of x-block.
    pub(super) inputs: Vec<Vec<(FunctionId, i64)>>,
    pub(super) outputs: Vec<Outputs>,
}

/// Output transforms of whole tiles, and of the last row of tiles where it is not whole.
#[derive(Clone)]
pub(super) struct Outputs {
    pub(super) whole: FunctionId,
    pub(super) rest: Option<FunctionId>,
}

/// Bytes between the weights of a product in use and those asked for: they are read again soon.
const PRODUCT_AHEAD: i32 = 4096;

/// Where things lie in scratch memory, in bytes, and how.
pub(super) struct Layout {
    pub(super) factors: i64,
    pub(super) products: i64,
    pub(super) temporary: i64,
    /// Tiles from a plane of a block to the next, in both.
    pub(super) plane: usize,
    /// Bytes between channels, in both.
    pub(super) channel: i32,
    /// Bytes between terms.
    pub(super) factor_term: i32,
    pub(super) product_term: i32,
}

pub(super) struct KernelPlan<'a> {
    pub(super) layer: &'a Layer<'a>,
    pub(super) schedule: &'a Schedule,
    /// The convolution whose steps are tiles.
    pub(super) tiles: Problem,
    pub(super) lanes: usize,
    pub(super) input_tiles: InputTiles,
    pub(super) layout: Layout,
    pub(super) groups: Vec<Group>,
    /// The product tile of each size of channel tile.
    pub(super) products: Vec<FunctionId>,
    /// Offset of zeros among the packed weights, in floats.
    pub(super) zeros: usize,
    pub(super) scratch_bytes: usize,
}

impl<'a> KernelPlan<'a> {
    fn new(
        builder: &mut Builder<'_>,
        layer: &'a Layer<'a>,
        schedule: &'a Schedule,
        weights: &Transformed<'_>,
    ) -> Result<Self, CompileError> {
        let problem = &layer.problem;
        let tiles = tiles_of(problem, schedule.m, schedule.pieces);
        let lanes = builder.target.lanes();
        let shape = InputTileShape {
            planes: 1,
            rows: schedule.rows,
            columns: schedule.columns,
            spare: lanes,
            packed: true,
            room: [0; 2],
        };
        let input_tiles = InputTiles::new(builder, &layer.name, &tiles, &shape)?;
        let [z, y, x] = &problem.axes;
        let zs = depths(z);
        let ys = matrices_of_phases(y, schedule.m[0], 1);
        let xs = matrices_of_phases(x, schedule.m[1], schedule.pieces);
        let terms = |y: &Matrices| xs.iter().map(|(x, _, _)| y.n() * x.n()).sum::<usize>();
        let most_terms = ys.iter().map(|(y, _, _)| terms(y)).max().unwrap_or(0);

        let too_large = || builder.unsupported("its blocks are too large for 32-bit displacements".into());
        // A row of tiles is written in whole vectors: room behind the last.
        let beyond = schedule.pieces - 1;
        let plane = schedule.rows * (schedule.columns + beyond);
        let deeper = (zs[0].0.len() - 1) * plane;
        let used = schedule.planes * plane - beyond;
        let width = used.next_multiple_of(schedule.vectors * lanes)
            + (deeper + beyond + lanes).next_multiple_of(lanes);
        let channel = 4 * width;
        let spread = |bytes: usize| if bytes.is_multiple_of(1024) { bytes + ALIGNMENT } else { bytes };
        let (factor_term, product_term) =
            (spread(channel * problem.cin), spread(channel * schedule.channels));
        let after = |bytes: usize| bytes.next_multiple_of(ALIGNMENT);
        let factors = after(input_tiles.bytes(problem.cin));
        let products = factors + after(most_terms * factor_term);
        let temporary = products + after(most_terms * product_term);
        let results = xs.iter().map(|(x, _, _)| x.m).sum::<usize>();
        let scratch_bytes = temporary + (most_terms + results) * 4 * lanes;
        if i32::try_from(scratch_bytes).is_err() {
            return Err(too_large());
        }
        let layout = Layout {
            factors: factors as i64,
            products: products as i64,
            temporary: temporary as i64,
            plane,
            channel: channel as i32,
            factor_term: factor_term as i32,
            product_term: product_term as i32,
        };
        let (starts, zeros) = weights.starts();
        let mut plan = Self {
            layer,
            schedule,
            tiles,
            lanes,
            input_tiles,
            layout,
            groups: vec![],
            products: vec![],
            zeros,
            scratch_bytes,
        };
        for (index, (matrices, _, first_y)) in ys.iter().enumerate() {
            let inputs = plan.inputs(builder, (matrices, *first_y), &xs)?;
            let outputs = plan.outputs(builder, index, matrices, &xs)?;
            let phase = &y.phases[index];
            for (number, (of_z, (_, first_z))) in z.phases.iter().zip(&zs).enumerate() {
                plan.groups.push(Group {
                    first_plane: of_z.first,
                    planes: of_z.count,
                    skipped: first_z - z.shifts().0,
                    first: phase.first,
                    rows: phase.count,
                    terms: terms(matrices),
                    weights: starts[number * ys.len() + index],
                    inputs: inputs.clone(),
                    outputs: outputs.clone(),
                });
            }
        }
        for (m, _) in cut_channels(problem.cout, schedule.channels) {
            let code = plan.product(builder, m)?;
            plan.products.push(code);
        }
        Ok(plan)
    }

    /// The input transforms of a y-phase: for each kind of block, those of the x-phases and where their factors begin.
    fn inputs(
        &self,
        builder: &mut Builder<'_>,
        (y, first_y): (&Matrices, i64),
        xs: &[(Matrices, Kernels, i64)],
    ) -> Result<Vec<Vec<(FunctionId, i64)>>, CompileError> {
        let [_, y_axis, x_axis] = &self.layer.problem.axes;
        let mut known: HashMap<(usize, usize), FunctionId> = HashMap::new();
        let mut inputs = vec![];
        for kind in &self.input_tiles.kinds {
            let vectors = self.pitch(kind.steps).div_ceil(self.lanes);
            let (mut term, mut of_kind) = (0, vec![]);
            for (index, (x, _, first_x)) in xs.iter().enumerate() {
                // A phase without taps needs no factors.
                if y.n() * x.n() == 0 {
                    continue;
                }
                let code = match known.get(&(index, vectors)) {
                    Some(&code) => code,
                    None => {
                        let name = builder.unique(&format!("{}_input", self.layer.name));
                        let spec = InputSpec {
                            y,
                            x,
                            cin: self.layer.problem.cin,
                            vectors,
                            input_tile: self.input_tiles.layout,
                            row: (first_y - y_axis.shifts().0) as usize,
                            position: (first_x - x_axis.shifts().0) as usize,
                            target_channel: self.layout.channel,
                            target_term: self.layout.factor_term,
                        };
                        let tile = winograd::input(builder.tile(&name), &spec);
                        let code = builder.add_tile(tile)?;
                        known.insert((index, vectors), code);
                        code
                    }
                };
                of_kind.push((code, i64::from(self.layout.factor_term) * term));
                term += (y.n() * x.n()) as i64;
            }
            inputs.push(of_kind);
        }
        Ok(inputs)
    }

    /// The output transforms of a y-phase, by kind of block.
    fn outputs(
        &self,
        builder: &mut Builder<'_>,
        phase: usize,
        y: &Matrices,
        xs: &[(Matrices, Kernels, i64)],
    ) -> Result<Vec<Outputs>, CompileError> {
        let problem = &self.layer.problem;
        let [_, y_axis, x_axis] = &problem.axes;
        let step = self.schedule.m[1] * x_axis.out_stride;
        let mut outputs = vec![];
        for kind in &self.input_tiles.kinds {
            let mut exist = kind.steps * step;
            if kind.last {
                exist = exist.min(x_axis.output - kind.before * step);
            }
            let mut code = |rows: usize| {
                let name = builder.unique(&format!("{}_output", self.layer.name));
                let spec = OutputSpec {
                    y,
                    xs: xs.iter().map(|(x, _, _)| x).collect(),
                    vectors: kind.steps.div_ceil(self.lanes),
                    rows,
                    outputs: exist,
                    source_channel: self.layout.channel,
                    source_term: self.layout.product_term,
                    target_step: 4 * problem.output.column as i32,
                    target_row: (4 * y_axis.out_stride * problem.output.row) as i32,
                    target_channel: 4 * problem.output.plane as i32,
                    post_ops: &self.layer.post_ops,
                };
                let tile = winograd::output(builder.tile(&name), &spec);
                builder.add_tile(tile)
            };
            let rest = y_axis.phases[phase].count % self.schedule.m[0];
            let whole = code(self.schedule.m[0])?;
            outputs.push(Outputs { whole, rest: if rest > 0 { Some(code(rest)?) } else { None } });
        }
        Ok(outputs)
    }

    /// The product of factors and weights: a 1x1 convolution over a vector of tiles.
    fn product(&self, builder: &mut Builder<'_>, m: usize) -> Result<FunctionId, CompileError> {
        let (n, cin) = (self.schedule.vectors, self.layer.problem.cin);
        // Input channels written out one after the other, as rows of taps are.
        let unrolled = [4, 2, 1].into_iter().find(|unrolled| cin.is_multiple_of(*unrolled)).unwrap_or(1);
        let vectors = (0..n).map(|i| Span { offset: (4 * i * self.lanes) as i32, steps: self.lanes });
        let spec = TileSpec {
            m,
            vectors: vectors.collect(),
            phases: 1,
            cin: cin / unrolled,
            channel_stride: unrolled as i32 * self.layout.channel,
            row_phases: vec![0],
            rows: (0..unrolled as i32).map(|i| Row::at(i * self.layout.channel)).collect(),
            positions: self
                .pieces()
                .map(|offset| Position { offset: 4 * offset as i32, phases: vec![0] })
                .collect(),
            segments: vec![Segment { first: 0, end: n * self.lanes, offset: 0 }],
            step_stride: 1,
            output_stride: self.layout.channel,
            ahead: PRODUCT_AHEAD,
            copies: None,
            mask_loads: false,
            post_ops: PostOps::default(),
        };
        let name = builder.unique(&format!("{}_m{m}n{n}", self.layer.name));
        build_tile(builder, &name, &spec)
    }

    /// Tiles from one row of a block to the next, where it has so many columns: behind them are those that only the pieces of a
    /// long kernel read.
    pub(super) fn pitch(&self, columns: usize) -> usize {
        columns + self.schedule.pieces - 1
    }

    /// Tiles from that of a result to those whose products are summed up for it.
    pub(super) fn pieces(&self) -> impl Iterator<Item = usize> {
        let (along_z, plane) = (self.depth(), self.layout.plane);
        (0..along_z).flat_map(move |z| (0..self.schedule.pieces).map(move |piece| z * plane + piece))
    }

    /// Taps of a phase along z.
    pub(super) fn depth(&self) -> usize {
        depths(&self.layer.problem.axes[0])[0].0.len()
    }

    pub(super) fn blocks(&self) -> [u64; 3] {
        [
            self.layer.problem.axes[0].output_positions().div_ceil(self.schedule.planes) as u64,
            self.tiles.axes[1].output_positions().div_ceil(self.schedule.rows) as u64,
            self.tiles.axes[2].output_positions().div_ceil(self.schedule.columns) as u64,
        ]
    }

    /// What the work items weigh against each other.
    fn weights(&self) -> Vec<u64> {
        let problem = &self.layer.problem;
        let parts = channels_of_parts(problem.cout, self.schedule.channels, self.schedule.channel_parts);
        let blocks = self.schedule.block_vectors(problem, self.lanes);
        let all = blocks.into_iter().flat_map(|vectors| parts.iter().map(move |channels| vectors * channels));
        all.collect()
    }
}
