//! The algorithms to compute a convolution directly or with fewer products: the one chosen by estimate, those measured to be
//! faster, and the kernels that they become.

mod split_k;

use crate::builder::Builder;
use crate::error::CompileError;
use crate::kernels::conv::emit;
use crate::kernels::conv::layer::Layer;
use crate::kernels::conv::microkernel::post_ops::{Broadcast, PostOps};
use crate::kernels::conv::problem::Problem;
use crate::kernels::conv::problem::dilation::{self, Columns};
use crate::kernels::conv::schedule::direct::{Dataflow, Source};
use crate::kernels::conv::schedule::tile_shape::TileShape;
use crate::kernels::conv::schedule::{direct, winograd as winograd_schedule};
use crate::options::{Choice, FastMath};
use std::fmt;
use tconvc_machine::Target;
use tconvc_runtime::program::Operand;

/// Names of [`Algorithm::Decomposed`].
const DILATION: [&str; 2] = ["dilation", "dilation as rows"];

/// Another transform of the same convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transform {
    /// Rows, and small planes, that follow each other, as [one long row](Problem::collapsed).
    Collapsed,
    /// [Neighbouring rows](Problem::height_to_phase) as phases, for tiles of all phases.
    HeightToPhase(usize),
}

impl Transform {
    /// How much longer a convolution must take otherwise for a transform to be worth it.
    const GAIN: f64 = 1.03;

    /// Those that may be worth it.
    fn all(problem: &Problem) -> impl Iterator<Item = Self> {
        // Where there are many output channels, tiles read each row for several of these.
        let rows: &[usize] = if problem.cout <= MOST_CHANNELS { &[2, 3, 4] } else { &[] };
        [Self::Collapsed].into_iter().chain(rows.iter().map(|&rows| Self::HeightToPhase(rows)))
    }

    fn of(self, problem: &Problem) -> Option<Problem> {
        match self {
            Self::Collapsed => problem.collapsed(),
            Self::HeightToPhase(rows) => problem.height_to_phase(rows),
        }
    }

    /// Whether an algorithm makes use of it.
    fn is_for(self, algorithm: &Algorithm) -> bool {
        match (self, algorithm) {
            (Self::Collapsed, Algorithm::Direct(..)) => true,
            (Self::HeightToPhase(_), Algorithm::Direct(_, schedule)) => schedule.dataflow == Dataflow::Joint,
            _ => false,
        }
    }
}

/// Output channels of a group up to which rows are taken together.
const MOST_CHANNELS: usize = 4;

impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collapsed => f.write_str("collapsed"),
            Self::HeightToPhase(rows) => write!(f, "height{rows}"),
        }
    }
}

/// An algorithm to compute a convolution.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Algorithm {
    /// By tiles over input tiles, in so many parts of the input channels.
    Direct(usize, direct::Schedule),
    /// By Winograd F(m, r).
    Winograd(winograd_schedule::Schedule),
    /// An algorithm for another transform of it.
    Transformed(Transform, Box<Algorithm>),
    /// As dense convolutions, decomposed along a dilated axis, each by an algorithm of its own.
    Decomposed(Vec<(Columns, Algorithm)>),
}

impl Algorithm {
    /// What the lanes of a vector run along.
    pub fn vectors_along(&self) -> &'static str {
        match self {
            Self::Direct(_, schedule) if schedule.dataflow.is_by_channels() => "channels",
            Self::Direct(_, schedule) if schedule.dataflow == Dataflow::Phases => "phases",
            Self::Direct(..) => "width",
            Self::Winograd(_) => "tiles",
            Self::Transformed(_, algorithm) => algorithm.vectors_along(),
            Self::Decomposed(ranges) => {
                ranges.first().map_or("width", |(_, algorithm)| algorithm.vectors_along())
            }
        }
    }

    /// Bytes that are copied or transformed in between.
    pub fn moved_bytes(&self, problem: &Problem) -> u64 {
        match self {
            Self::Direct(parts, schedule) => {
                let of_part = schedule.packed_bytes(&of_part(problem, *parts));
                of_part.saturating_mul(*parts as u64)
            }
            Self::Winograd(schedule) => schedule.moved_bytes(problem),
            Self::Transformed(transform, algorithm) => {
                transform.of(problem).map_or(0, |transformed| algorithm.moved_bytes(&transformed))
            }
            Self::Decomposed(ranges) => ranges.iter().fold(0, |bytes, (columns, algorithm)| {
                bytes.saturating_add(algorithm.moved_bytes(&columns.problem))
            }),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(parts, schedule) => write!(f, "{parts} {schedule}"),
            Self::Winograd(schedule) => schedule.fmt(f),
            Self::Transformed(transform, algorithm) => write!(f, "{transform} {algorithm}"),
            Self::Decomposed(ranges) => {
                let as_rows = ranges.iter().any(|(columns, _)| columns.problem.input.column > 1);
                f.write_str(DILATION[usize::from(as_rows)])
            }
        }
    }
}

/// The most elements between neighbours of a row: further apart they cost a cache line each, and displacements have 32 bits.
const MOST_APART: usize = 64;

/// Columns below which a decomposed convolution takes twice as long as is estimated, where a vector is a cache line.
const NARROW: usize = 16;

/// What algorithms are chosen for.
#[derive(Clone, Copy)]
pub(crate) struct Setting<'a> {
    pub target: &'a Target,
    pub threads: usize,
    pub fast_math: FastMath,
}

impl<'a> Setting<'a> {
    pub fn of(builder: &'a Builder<'_>) -> Self {
        Self { target: builder.target, threads: builder.threads, fast_math: builder.fast_math }
    }

    fn direct(self, problem: &Problem, parts: usize) -> direct::Schedule {
        direct::Schedule::choose(&of_part(problem, parts), self.target, self.threads)
    }

    fn winograd(self, problem: &Problem) -> Vec<(f64, winograd_schedule::Schedule)> {
        match self.fast_math {
            FastMath::Off => vec![],
            _ => winograd_schedule::Schedule::candidates(problem, self.target, self.threads),
        }
    }

    /// The algorithm that takes the fewest cycles by estimate.
    pub fn choose(self, problem: &Problem) -> Algorithm {
        self.choose_with_cycles(problem).1
    }

    /// The same, with the cycles that it is estimated to take on one core; these do not depend on the number of threads.
    pub fn choose_with_cycles(self, problem: &Problem) -> (f64, Algorithm) {
        let (mut whole, mut algorithm) = self.choose_whole(problem);
        let asked_for = self.fast_math == FastMath::Always && matches!(algorithm, Algorithm::Winograd(_));
        for transform in Transform::all(problem).filter(|_| !asked_for) {
            let Some(transformed) = transform.of(problem) else { continue };
            let (cycles, of_transformed) = self.choose_whole(&transformed);
            if Transform::GAIN * cycles < whole && transform.is_for(&of_transformed) {
                (whole, algorithm) = (cycles, Algorithm::Transformed(transform, Box::new(of_transformed)));
            }
        }
        match self.all_decomposed(problem).min_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((cycles, decomposed)) if cycles < whole || self.fast_math == FastMath::Always => {
                (cycles, decomposed)
            }
            _ => (whole, algorithm),
        }
    }

    /// Estimated cycles and algorithms of the decomposition, where there is one.
    fn decomposed(self, problem: &Problem) -> Option<(f64, Algorithm)> {
        let mut cycles = 0.0;
        let of_columns = |columns: Columns| {
            let (own, algorithm) = self.choose_whole(&columns.problem);
            // Estimates leave out what it takes to copy rows that do not fill a vector.
            let is_line = self.target.vector_bytes() == self.target.caches().line_bytes;
            let narrow = is_line && columns.problem.axes[2].output < NARROW;
            cycles += if narrow { 2.0 * own } else { own };
            (columns, algorithm)
        };
        let algorithms = dilation::split(problem)?.into_iter().map(of_columns).collect();
        Some((cycles, Algorithm::Decomposed(algorithms)))
    }

    /// Either algorithm, where there is one.
    fn all_decomposed(self, problem: &Problem) -> impl Iterator<Item = (f64, Algorithm)> {
        [self.decomposed(problem), self.decomposed_as_rows(problem)].into_iter().flatten()
    }

    /// As [`Setting::decomposed`], but with [columns as rows](Columns::into_rows), all of them by Winograd.
    fn decomposed_as_rows(self, problem: &Problem) -> Option<(f64, Algorithm)> {
        let mut cycles = 0.0;
        let of_columns = |columns: Columns| {
            let columns = columns.into_rows();
            if columns.problem.input.column > MOST_APART {
                return None;
            }
            let winograd = self.winograd(&columns.problem).into_iter();
            let (own, schedule) = winograd.min_by(|a, b| a.0.total_cmp(&b.0))?;
            cycles += own * winograd_schedule::GAIN;
            Some((columns, Algorithm::Winograd(schedule)))
        };
        let algorithms: Option<_> = dilation::split(problem)?.into_iter().map(of_columns).collect();
        Some((cycles, Algorithm::Decomposed(algorithms?)))
    }

    /// Estimated cycles and algorithm, among those that leave the convolution in one piece.
    fn choose_whole(self, problem: &Problem) -> (f64, Algorithm) {
        let (direct, parts) = split_k::choose(problem, self.target);
        let most = match self.fast_math {
            FastMath::Off => 0.0,
            FastMath::WherePays => direct / winograd_schedule::GAIN,
            FastMath::Always => f64::INFINITY,
        };
        let winograd = self.winograd(problem).into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
        match winograd {
            Some((cycles, schedule)) if cycles < most => (cycles, Algorithm::Winograd(schedule)),
            _ => (direct, Algorithm::Direct(parts, self.direct(problem, parts))),
        }
    }

    /// What computes the same with fewer registers, where an algorithm needs more than there are: the best direct algorithm, then
    /// one whose tiles copy nothing, then the smallest tiles that there are.
    fn fallbacks(self, problem: &Problem, algorithm: &Algorithm) -> Vec<Algorithm> {
        let (_, parts) = split_k::choose(problem, self.target);
        let part = of_part(problem, parts);
        let best = self.direct(problem, parts);
        let tile = TileShape { m: best.m, n: best.n, stack: best.stack, cycles: 0.0 };
        let packed = |dataflow, tile| {
            direct::Schedule::with_tile(&part, self.target, self.threads, Source::Packed, dataflow, tile)
        };
        let smallest = TileShape { m: 1, n: 1, stack: 1, cycles: 0.0 };
        let mut all = vec![best.clone(), packed(best.dataflow, tile), packed(Dataflow::Strided, smallest)];
        all.dedup();
        let all = all.into_iter().map(|schedule| Algorithm::Direct(parts, schedule));
        all.filter(|other| other != algorithm).collect()
    }

    /// The algorithm of that name; nothing where it does not fit.
    pub fn named(self, text: &str, problem: &Problem) -> Option<Algorithm> {
        if let Some(which) = DILATION.iter().position(|name| *name == text) {
            let found = if which == 0 { self.decomposed(problem) } else { self.decomposed_as_rows(problem) };
            return found.map(|(_, algorithm)| algorithm);
        }
        for transform in Transform::all(problem) {
            if let Some(name) = text.strip_prefix(&format!("{transform} ")) {
                let algorithm = self.named(name, &transform.of(problem)?)?;
                return transform
                    .is_for(&algorithm)
                    .then(|| Algorithm::Transformed(transform, Box::new(algorithm)));
            }
        }
        if let Some((_, schedule)) =
            self.winograd(problem).into_iter().find(|(_, schedule)| schedule.to_string() == text)
        {
            return Some(Algorithm::Winograd(schedule));
        }
        let (parts, schedule) = text.split_once(' ')?;
        let parts = parts.parse().ok().filter(|parts| split_k::fits(problem, *parts))?;
        let schedule = direct::Schedule::named(schedule, &of_part(problem, parts), self.target)?;
        Some(Algorithm::Direct(parts, schedule))
    }

    /// The algorithm and its neighbours, by name.
    fn choice(self, problem: &Problem, algorithm: &Algorithm) -> Choice {
        let mut others: Vec<String> =
            self.neighbourhood(problem, algorithm).iter().map(ToString::to_string).collect();
        others.sort_unstable();
        others.dedup();
        Choice { problem: problem.key(), chosen: algorithm.to_string(), others }
    }

    /// Algorithms that are worth a try beside this one: those that differ in one decision.
    fn neighbourhood(self, problem: &Problem, algorithm: &Algorithm) -> Vec<Algorithm> {
        let (_, parts) = split_k::choose(problem, self.target);
        let mut others = vec![Algorithm::Direct(parts, self.direct(problem, parts))];
        for transform in Transform::all(problem) {
            let Some(transformed) = transform.of(problem) else { continue };
            let algorithms = match algorithm {
                Algorithm::Transformed(known, algorithm) if *known == transform => {
                    self.neighbourhood(&transformed, algorithm)
                }
                _ => vec![self.choose_whole(&transformed).1],
            };
            let algorithms = algorithms.into_iter().filter(|algorithm| transform.is_for(algorithm));
            others.extend(algorithms.map(|algorithm| Algorithm::Transformed(transform, Box::new(algorithm))));
        }
        if let Algorithm::Direct(parts, schedule) = algorithm {
            let part = of_part(problem, *parts);
            let neighbours = schedule.neighbourhood(&part, self.target, self.threads);
            others.extend(neighbours.into_iter().map(|other| Algorithm::Direct(*parts, other)));
            for parts in [parts / 2, 2 * parts] {
                if split_k::fits(problem, parts) {
                    others.push(Algorithm::Direct(parts, self.direct(problem, parts)));
                }
            }
        }
        others.extend(self.winograd(problem).into_iter().map(|(_, schedule)| Algorithm::Winograd(schedule)));
        others.extend(self.all_decomposed(problem).map(|(_, algorithm)| algorithm));
        others.retain(|other| other != algorithm);
        others
    }
}

/// The first of so many parts of the input channels: the schedule of one is that of all.
fn of_part(problem: &Problem, parts: usize) -> Problem {
    Problem { cin: problem.cin.div_ceil(parts), ..problem.clone() }
}

/// Makes the kernels of a convolution: by the algorithm that was measured to be the fastest, else the one chosen by estimate.
pub(crate) fn build<'a>(
    builder: &mut Builder<'a>,
    label: &str,
    layer: &Layer<'a>,
) -> Result<(), CompileError> {
    let setting = Setting::of(builder);
    let measured = builder.schedules.get(|| layer.problem.key());
    let algorithm = measured.and_then(|name| setting.named(name, &layer.problem));
    let algorithm = algorithm.unwrap_or_else(|| setting.choose(&layer.problem));
    let choice = builder.choices.is_some().then(|| setting.choice(&layer.problem, &algorithm));
    builder.choices.iter_mut().for_each(|choices| choices.extend(choice.clone()));
    make_first_that_fits(builder, label, layer, &algorithm)
}

/// Makes the kernels by the algorithm, or by the first of its fallbacks for which the target has the registers; notes what it has
/// none for.
fn make_first_that_fits<'a>(
    builder: &mut Builder<'a>,
    label: &str,
    layer: &Layer<'a>,
    chosen: &Algorithm,
) -> Result<(), CompileError> {
    let before = builder.steps_made();
    let mut name = chosen.to_string();
    let mut made = make(builder, label, layer.clone(), chosen.clone());
    if !made.as_ref().is_err_and(CompileError::is_of_size) {
        return made;
    }
    for other in Setting::of(builder).fallbacks(&layer.problem, chosen) {
        match made {
            Err(error) if error.is_of_size() => builder.decline(name, &error, other.to_string()),
            _ => break,
        }
        builder.undo(before);
        name = other.to_string();
        made = make(builder, label, layer.clone(), other);
    }
    made
}

/// A range of columns of a dilated convolution.
fn of_columns<'a>(layer: &Layer<'a>, columns: Columns) -> Layer<'a> {
    let moved = |operand: Operand| Operand { offset: operand.offset + 4 * columns.first, ..operand };
    let post_op_operands = layer.post_op_operands.iter().map(|&(operand, broadcast)| match broadcast {
        Broadcast::Output => (moved(operand), broadcast),
        Broadcast::Channels => (operand, broadcast),
    });
    Layer {
        name: format!("dilation_{}", layer.name),
        weights: layer.weights.with_kernel(columns.kernel),
        bias: layer.bias.clone(),
        post_ops: layer.post_ops.clone(),
        post_op_operands: post_op_operands.collect(),
        input: moved(layer.input),
        output: moved(layer.output),
        problem: columns.problem,
    }
}

fn make<'a>(
    builder: &mut Builder<'a>,
    label: &str,
    layer: Layer<'a>,
    algorithm: Algorithm,
) -> Result<(), CompileError> {
    builder.set_schedule(&algorithm);
    build_algorithm(builder, label, layer, algorithm)
}

fn build_algorithm<'a>(
    builder: &mut Builder<'a>,
    label: &str,
    mut layer: Layer<'a>,
    algorithm: Algorithm,
) -> Result<(), CompileError> {
    match algorithm {
        Algorithm::Transformed(transform, algorithm) => {
            let Some(transformed) = transform.of(&layer.problem) else {
                return Err(builder.unsupported(format!("it cannot be seen as {transform}")));
            };
            layer.problem = transformed;
            build_algorithm(builder, label, layer, *algorithm)
        }
        Algorithm::Winograd(schedule) => {
            let [y, x] = schedule.m;
            layer.name = format!("f32_{label}_winograd{y}x{x}_{}", layer.name);
            emit::winograd::build(builder, &layer, &schedule)
        }
        Algorithm::Direct(parts, schedule) => {
            layer.name = format!("f32_{label}_{}", layer.name);
            by_split_k(builder, &layer, parts, &schedule)
        }
        Algorithm::Decomposed(algorithms) => algorithms.into_iter().try_for_each(|(columns, algorithm)| {
            make(builder, label, of_columns(&layer, columns), algorithm)
        }),
    }
}

/// The kernels of a convolution computed directly, one for each part of its input channels.
fn by_split_k<'a>(
    builder: &mut Builder<'a>,
    layer: &Layer<'a>,
    parts: usize,
    schedule: &direct::Schedule,
) -> Result<(), CompileError> {
    let last = parts - 1;
    for (number, channels) in split_k::parts(&layer.problem, parts).enumerate() {
        // All but the first add to what is there; all but the last leave the rest to those behind.
        let (mut post_ops, mut post_op_operands) = (PostOps::onto(number > 0), vec![]);
        if number > 0 {
            post_op_operands.push((layer.output, Broadcast::Output));
        }
        if number == last {
            post_ops = post_ops.then(layer.post_ops.clone());
            post_op_operands.extend(layer.post_op_operands.iter().copied());
        }
        let first = 4 * channels.start * layer.problem.input.plane;
        let bias = if number == 0 { layer.bias.clone() } else { vec![0.0; layer.bias.len()] };
        let part = Layer {
            name: layer.name.clone(),
            problem: Problem { cin: channels.len(), ..layer.problem.clone() },
            weights: layer.weights.of_inputs(&channels),
            bias,
            post_ops,
            post_op_operands,
            input: Operand { offset: layer.input.offset + first, ..layer.input },
            output: layer.output,
        };
        emit::direct::build(builder, &part, schedule)?;
    }
    Ok(())
}
