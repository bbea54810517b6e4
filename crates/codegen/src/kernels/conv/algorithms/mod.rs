//! The ways to compute a convolution directly or with fewer products: the one chosen by estimate, those measured to be
//! faster, and the kernels that they become.

mod split_k;

use crate::builder::Builder;
use crate::error::CompileError;
use crate::kernels::conv::emit;
use crate::kernels::conv::layer::Job;
use crate::kernels::conv::microkernel::post_ops::{Finish, Follows};
use crate::kernels::conv::problem::Problem;
use crate::kernels::conv::problem::dilation::{self, Columns};
use crate::kernels::conv::schedule::{direct, winograd as winograd_schedule};
use crate::options::{Choice, FastMath};
use std::fmt;
use tconvc_machine::Target;
use tconvc_runtime::program::Operand;

/// Names of [`Way::Residues`].
const RESIDUES: [&str; 2] = ["residues", "residues as rows"];

/// Another view of the same convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// Rows, and small planes, that follow each other, as [one long row](Problem::folded).
    Folded,
    /// [Neighbouring rows](Problem::in_blocks_of_rows) as phases, for tiles of all phases.
    Rows(usize),
}

impl View {
    /// How much longer a convolution must take otherwise for a view to be worth it.
    const GAIN: f64 = 1.03;

    /// Those that may be worth it.
    fn all(problem: &Problem) -> impl Iterator<Item = Self> {
        // Where there are many output channels, tiles read each row for several of these.
        let rows: &[usize] = if problem.cout <= MOST_CHANNELS { &[2, 3, 4] } else { &[] };
        [Self::Folded].into_iter().chain(rows.iter().map(|&rows| Self::Rows(rows)))
    }

    fn of(self, problem: &Problem) -> Option<Problem> {
        match self {
            Self::Folded => problem.folded(),
            Self::Rows(rows) => problem.in_blocks_of_rows(rows),
        }
    }

    /// Whether a way makes use of it.
    fn is_for(self, way: &Way) -> bool {
        match (self, way) {
            (Self::Folded, Way::Direct(..)) => true,
            (Self::Rows(_), Way::Direct(_, schedule)) => schedule.store == direct::Store::Joint,
            _ => false,
        }
    }
}

/// Output channels of a group up to which rows are taken together.
const MOST_CHANNELS: usize = 4;

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folded => f.write_str("folded"),
            Self::Rows(rows) => write!(f, "rows{rows}"),
        }
    }
}

/// A way to compute a convolution.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Way {
    /// By tiles over windows, in so many parts of the input channels.
    Direct(usize, direct::Schedule),
    /// By Winograd's filtering.
    Filtered(winograd_schedule::Schedule),
    /// A way of another view of it.
    Viewed(View, Box<Way>),
    /// As dense convolutions of the residues along a dilated axis, each in a way of its own.
    Residues(Vec<(Columns, Way)>),
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(parts, schedule) => write!(f, "{parts} {schedule}"),
            Self::Filtered(schedule) => schedule.fmt(f),
            Self::Viewed(view, way) => write!(f, "{view} {way}"),
            Self::Residues(ranges) => {
                let as_rows = ranges.iter().any(|(columns, _)| columns.problem.input.column > 1);
                f.write_str(RESIDUES[usize::from(as_rows)])
            }
        }
    }
}

/// The most elements between neighbours of a row: further apart they cost a cache line each, and displacements have 32 bits.
const MOST_APART: usize = 64;

/// Columns below which residues take twice as long as is estimated, where a vector is a cache line.
const NARROW: usize = 16;

/// What ways are chosen for.
#[derive(Clone, Copy)]
pub(crate) struct Setting<'a> {
    pub target: &'a Target,
    pub threads: usize,
    pub fast_math: FastMath,
}

impl<'a> Setting<'a> {
    pub fn of(builder: &'a Builder<'_>) -> Self {
        Self { target: &builder.target, threads: builder.threads, fast_math: builder.fast_math }
    }

    fn direct(self, problem: &Problem, parts: usize) -> direct::Schedule {
        direct::Schedule::choose(&of_part(problem, parts), self.target, self.threads)
    }

    fn filtered(self, problem: &Problem) -> Vec<(f64, winograd_schedule::Schedule)> {
        match self.fast_math {
            FastMath::Off => vec![],
            _ => winograd_schedule::Schedule::candidates(problem, self.target, self.threads),
        }
    }

    /// The way that takes the fewest cycles by estimate.
    pub fn choose(self, problem: &Problem) -> Way {
        let (mut whole, mut way) = self.choose_whole(problem);
        let asked_for = self.fast_math == FastMath::Always && matches!(way, Way::Filtered(_));
        for view in View::all(problem).filter(|_| !asked_for) {
            let Some(viewed) = view.of(problem) else { continue };
            let (cycles, of_view) = self.choose_whole(&viewed);
            if View::GAIN * cycles < whole && view.is_for(&of_view) {
                (whole, way) = (cycles, Way::Viewed(view, Box::new(of_view)));
            }
        }
        match self.all_residues(problem).min_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((cycles, residues)) if cycles < whole || self.fast_math == FastMath::Always => residues,
            _ => way,
        }
    }

    /// Estimated cycles and ways of the residues, where there are any.
    fn residues(self, problem: &Problem) -> Option<(f64, Way)> {
        let mut cycles = 0.0;
        let of_columns = |columns: Columns| {
            let (own, way) = self.choose_whole(&columns.problem);
            // Estimates leave out what it takes to copy rows that do not fill a vector.
            let narrow = self.target.lanes() == 16 && columns.problem.axes[2].output < NARROW;
            cycles += if narrow { 2.0 * own } else { own };
            (columns, way)
        };
        let ways = dilation::split(problem)?.into_iter().map(of_columns).collect();
        Some((cycles, Way::Residues(ways)))
    }

    /// Either way, where there is one.
    fn all_residues(self, problem: &Problem) -> impl Iterator<Item = (f64, Way)> {
        [self.residues(problem), self.residues_as_rows(problem)].into_iter().flatten()
    }

    /// As [`Setting::residues`], but with [columns as rows](Columns::into_rows), all of them filtered.
    fn residues_as_rows(self, problem: &Problem) -> Option<(f64, Way)> {
        let mut cycles = 0.0;
        let of_columns = |columns: Columns| {
            let columns = columns.into_rows();
            if columns.problem.input.column > MOST_APART {
                return None;
            }
            let filtered = self.filtered(&columns.problem).into_iter();
            let (own, schedule) = filtered.min_by(|a, b| a.0.total_cmp(&b.0))?;
            cycles += own * winograd_schedule::GAIN;
            Some((columns, Way::Filtered(schedule)))
        };
        let ways: Option<_> = dilation::split(problem)?.into_iter().map(of_columns).collect();
        Some((cycles, Way::Residues(ways?)))
    }

    /// Estimated cycles and way, among those that leave the convolution in one piece.
    fn choose_whole(self, problem: &Problem) -> (f64, Way) {
        let (direct, parts) = split_k::choose(problem, self.target);
        let most = match self.fast_math {
            FastMath::Off => 0.0,
            FastMath::WherePays => direct / winograd_schedule::GAIN,
            FastMath::Always => f64::INFINITY,
        };
        let filtered = self.filtered(problem).into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
        match filtered {
            Some((cycles, schedule)) if cycles < most => (cycles, Way::Filtered(schedule)),
            _ => (direct, Way::Direct(parts, self.direct(problem, parts))),
        }
    }

    /// The way of that name; nothing where it does not fit.
    pub fn named(self, text: &str, problem: &Problem) -> Option<Way> {
        if let Some(which) = RESIDUES.iter().position(|name| *name == text) {
            let found = if which == 0 { self.residues(problem) } else { self.residues_as_rows(problem) };
            return found.map(|(_, way)| way);
        }
        for view in View::all(problem) {
            if let Some(name) = text.strip_prefix(&format!("{view} ")) {
                let way = self.named(name, &view.of(problem)?)?;
                return view.is_for(&way).then(|| Way::Viewed(view, Box::new(way)));
            }
        }
        if let Some((_, schedule)) =
            self.filtered(problem).into_iter().find(|(_, schedule)| schedule.to_string() == text)
        {
            return Some(Way::Filtered(schedule));
        }
        let (parts, schedule) = text.split_once(' ')?;
        let parts = parts.parse().ok().filter(|parts| split_k::fits(problem, *parts))?;
        let schedule = direct::Schedule::named(schedule, &of_part(problem, parts), self.target)?;
        Some(Way::Direct(parts, schedule))
    }

    /// The way and its neighbours, by name.
    fn choice(self, problem: &Problem, way: &Way) -> Choice {
        let mut others: Vec<String> = self.others(problem, way).iter().map(ToString::to_string).collect();
        others.sort_unstable();
        others.dedup();
        Choice { problem: problem.key(), chosen: way.to_string(), others }
    }

    /// Ways that are worth a try beside this one: those that differ in one decision.
    fn others(self, problem: &Problem, way: &Way) -> Vec<Way> {
        let (_, parts) = split_k::choose(problem, self.target);
        let mut others = vec![Way::Direct(parts, self.direct(problem, parts))];
        for view in View::all(problem) {
            let Some(viewed) = view.of(problem) else { continue };
            let ways = match way {
                Way::Viewed(known, way) if *known == view => self.others(&viewed, way),
                _ => vec![self.choose_whole(&viewed).1],
            };
            let ways = ways.into_iter().filter(|way| view.is_for(way));
            others.extend(ways.map(|way| Way::Viewed(view, Box::new(way))));
        }
        if let Way::Direct(parts, schedule) = way {
            let part = of_part(problem, *parts);
            let neighbours = schedule.neighbours(&part, self.target, self.threads);
            others.extend(neighbours.into_iter().map(|other| Way::Direct(*parts, other)));
            for parts in [parts / 2, 2 * parts] {
                if split_k::fits(problem, parts) {
                    others.push(Way::Direct(parts, self.direct(problem, parts)));
                }
            }
        }
        others.extend(self.filtered(problem).into_iter().map(|(_, schedule)| Way::Filtered(schedule)));
        others.extend(self.all_residues(problem).map(|(_, way)| way));
        others.retain(|other| other != way);
        others
    }
}

/// The first of so many parts of the input channels: the schedule of one is that of all.
fn of_part(problem: &Problem, parts: usize) -> Problem {
    Problem { cin: problem.cin.div_ceil(parts), ..problem.clone() }
}

/// Makes the kernels of a convolution: in the way that was measured to be the fastest, else the one chosen by estimate.
pub(crate) fn build<'a>(builder: &mut Builder<'a>, label: &str, job: Job<'a>) -> Result<(), CompileError> {
    let setting = Setting::of(builder);
    let measured = builder.schedules.get(|| job.problem.key());
    let way = measured.and_then(|name| setting.named(name, &job.problem));
    let way = way.unwrap_or_else(|| setting.choose(&job.problem));
    let choice = builder.choices.is_some().then(|| setting.choice(&job.problem, &way));
    builder.choices.iter_mut().for_each(|choices| choices.extend(choice.clone()));
    make(builder, label, job, way)
}

/// A range of columns of a dilated convolution.
fn of_columns<'a>(job: &Job<'a>, columns: Columns) -> Job<'a> {
    let moved = |operand: Operand| Operand { offset: operand.offset + 4 * columns.first, ..operand };
    let finish_operands = job.finish_operands.iter().map(|&(operand, follows)| match follows {
        Follows::Output => (moved(operand), follows),
        Follows::Channels => (operand, follows),
    });
    Job {
        name: format!("residues_{}", job.name),
        weights: job.weights.with_kernel(columns.kernel),
        bias: job.bias.clone(),
        finish: job.finish.clone(),
        finish_operands: finish_operands.collect(),
        input: moved(job.input),
        output: moved(job.output),
        problem: columns.problem,
    }
}

fn make<'a>(builder: &mut Builder<'a>, label: &str, job: Job<'a>, way: Way) -> Result<(), CompileError> {
    builder.set_schedule(&way);
    make_way(builder, label, job, way)
}

fn make_way<'a>(
    builder: &mut Builder<'a>,
    label: &str,
    mut job: Job<'a>,
    way: Way,
) -> Result<(), CompileError> {
    match way {
        Way::Viewed(view, way) => {
            let Some(viewed) = view.of(&job.problem) else {
                return Err(builder.unsupported(format!("it cannot be seen as {view}")));
            };
            job.problem = viewed;
            make_way(builder, label, job, *way)
        }
        Way::Filtered(schedule) => {
            let [y, x] = schedule.m;
            job.name = format!("f32_{label}_winograd{y}x{x}_{}", job.name);
            emit::winograd::build(builder, &job, &schedule)
        }
        Way::Direct(parts, schedule) => {
            job.name = format!("f32_{label}_{}", job.name);
            in_depth(builder, &job, parts, &schedule)
        }
        Way::Residues(ways) => ways
            .into_iter()
            .try_for_each(|(columns, way)| make(builder, label, of_columns(&job, columns), way)),
    }
}

/// The kernels of a convolution computed directly, one for each part of its input channels.
fn in_depth<'a>(
    builder: &mut Builder<'a>,
    job: &Job<'a>,
    parts: usize,
    schedule: &direct::Schedule,
) -> Result<(), CompileError> {
    let last = parts - 1;
    for (number, channels) in split_k::parts(&job.problem, parts).enumerate() {
        // All but the first add to what is there; all but the last leave the rest to those behind.
        let (mut finish, mut finish_operands) = (Finish::onto(number > 0), vec![]);
        if number > 0 {
            finish_operands.push((job.output, Follows::Output));
        }
        if number == last {
            finish = finish.then(job.finish.clone());
            finish_operands.extend(job.finish_operands.iter().copied());
        }
        let first = 4 * channels.start * job.problem.input.plane;
        let bias = if number == 0 { job.bias.clone() } else { vec![0.0; job.bias.len()] };
        let part = Job {
            name: job.name.clone(),
            problem: Problem { cin: channels.len(), ..job.problem.clone() },
            weights: job.weights.of_inputs(&channels),
            bias,
            finish,
            finish_operands,
            input: Operand { offset: job.input.offset + first, ..job.input },
            output: job.output,
        };
        emit::direct::build(builder, &part, schedule.clone())?;
    }
    Ok(())
}
