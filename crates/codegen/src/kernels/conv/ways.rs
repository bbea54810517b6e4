//! The ways to compute a convolution directly or with fewer products: the one chosen by estimate, those measured to be
//! faster, and the kernels that they become.

use super::epilogue::{Finish, Follows};
use super::job::Job;
use super::problem::Problem;
use super::residues::{self, Columns};
use super::{depth, rows, winograd};
use crate::builder::Builder;
use crate::compile::{Choice, FastMath};
use crate::error::CompileError;
use crate::program::Operand;
use crate::target::Target;
use std::fmt;

/// Name of [`Way::Residues`].
const RESIDUES: &str = "residues";

/// What stands before the name of the way that is [`Way::Folded`].
const FOLDED: &str = "folded";

/// Rows must take this many times as long by themselves as when they are folded, to be worth stores in parts.
const FOLDING: f64 = 1.03;

/// A way to compute a convolution.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Way {
    /// By tiles over windows, in so many parts of the input channels.
    Direct(usize, rows::Schedule),
    /// By Winograd's filtering.
    Filtered(winograd::Schedule),
    /// Over rows, and small planes, that follow each other: a way of the [folded](Problem::folded) convolution.
    Folded(Box<Way>),
    /// As dense convolutions of the residues along a dilated axis, each in a way of its own.
    Residues(Vec<(Columns, Way)>),
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(parts, schedule) => write!(f, "{parts} {schedule}"),
            Self::Filtered(schedule) => schedule.fmt(f),
            Self::Folded(way) => write!(f, "{FOLDED} {way}"),
            Self::Residues(_) => f.write_str(RESIDUES),
        }
    }
}

/// What ways are chosen for.
#[derive(Clone, Copy)]
pub(super) struct Setting<'a> {
    pub target: &'a Target,
    pub threads: usize,
    pub fast_math: FastMath,
}

impl<'a> Setting<'a> {
    pub fn of(builder: &'a Builder<'_>) -> Self {
        Self { target: &builder.target, threads: builder.threads, fast_math: builder.fast_math }
    }

    fn direct(self, problem: &Problem, parts: usize) -> rows::Schedule {
        rows::Schedule::choose(&of_part(problem, parts), self.target, self.threads)
    }

    fn filtered(self, problem: &Problem) -> Vec<(f64, winograd::Schedule)> {
        match self.fast_math {
            FastMath::Off => vec![],
            _ => winograd::Schedule::candidates(problem, self.target, self.threads),
        }
    }

    /// The way that takes the fewest cycles by estimate.
    pub fn choose(self, problem: &Problem) -> Way {
        let (mut whole, mut way) = self.choose_whole(problem);
        if let Some(folded) = problem.folded() {
            let (cycles, of_folded) = self.choose_whole(&folded);
            if FOLDING * cycles < whole {
                (whole, way) = (cycles, Way::Folded(Box::new(of_folded)));
            }
        }
        match self.residues(problem) {
            Some((cycles, residues)) if cycles < whole || self.fast_math == FastMath::Always => residues,
            _ => way,
        }
    }

    /// Estimated cycles and ways of the residues, where there are any.
    fn residues(self, problem: &Problem) -> Option<(f64, Way)> {
        let mut cycles = 0.0;
        let of_columns = |columns: Columns| {
            let (own, way) = self.choose_whole(&columns.problem);
            cycles += own;
            (columns, way)
        };
        let ways = residues::split(problem)?.into_iter().map(of_columns).collect();
        Some((cycles, Way::Residues(ways)))
    }

    /// Estimated cycles and way, among those that leave the convolution in one piece.
    fn choose_whole(self, problem: &Problem) -> (f64, Way) {
        let (direct, parts) = depth::choose(problem, self.target);
        let most = match self.fast_math {
            FastMath::Off => 0.0,
            FastMath::WherePays => direct / winograd::GAIN,
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
        if text == RESIDUES {
            return self.residues(problem).map(|(_, way)| way);
        }
        if let Some(name) = text.strip_prefix(FOLDED) {
            let way = self.named(name.trim_start(), &problem.folded()?)?;
            return matches!(way, Way::Direct(..)).then(|| Way::Folded(Box::new(way)));
        }
        if let Some((_, schedule)) =
            self.filtered(problem).into_iter().find(|(_, schedule)| schedule.to_string() == text)
        {
            return Some(Way::Filtered(schedule));
        }
        let (parts, schedule) = text.split_once(' ')?;
        let parts = parts.parse().ok().filter(|parts| depth::fits(problem, *parts))?;
        let schedule = rows::Schedule::named(schedule, &of_part(problem, parts), self.target)?;
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
        let (_, parts) = depth::choose(problem, self.target);
        let mut others = vec![Way::Direct(parts, self.direct(problem, parts))];
        if let Some(folded) = problem.folded() {
            let of_folded = match way {
                Way::Folded(way) => self.others(&folded, way),
                _ => vec![self.choose_whole(&folded).1],
            };
            others.extend(of_folded.into_iter().map(|way| Way::Folded(Box::new(way))));
        }
        if let Way::Direct(parts, schedule) = way {
            let part = of_part(problem, *parts);
            let neighbours = schedule.neighbours(&part, self.target, self.threads);
            others.extend(neighbours.into_iter().map(|other| Way::Direct(*parts, other)));
            for parts in [parts / 2, 2 * parts] {
                if depth::fits(problem, parts) {
                    others.push(Way::Direct(parts, self.direct(problem, parts)));
                }
            }
        }
        others.extend(self.filtered(problem).into_iter().map(|(_, schedule)| Way::Filtered(schedule)));
        others.extend(self.residues(problem).map(|(_, way)| way));
        others.retain(|other| other != way);
        others
    }
}

/// The first of so many parts of the input channels: the schedule of one is that of all.
fn of_part(problem: &Problem, parts: usize) -> Problem {
    Problem { cin: problem.cin.div_ceil(parts), ..problem.clone() }
}

/// Makes the kernels of a convolution: in the way that was measured to be the fastest, else the one chosen by estimate.
pub(super) fn build<'a>(builder: &mut Builder<'a>, label: &str, job: Job<'a>) -> Result<(), CompileError> {
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
        Way::Folded(way) => {
            let Some(folded) = job.problem.folded() else {
                return Err(builder.unsupported("its rows do not follow each other".into()));
            };
            job.problem = folded;
            make_way(builder, label, job, *way)
        }
        Way::Filtered(schedule) => {
            let [y, x] = schedule.m;
            job.name = format!("f32_{label}_winograd{y}x{x}_{}", job.name);
            winograd::build(builder, &job, &schedule)
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
    schedule: &rows::Schedule,
) -> Result<(), CompileError> {
    let last = parts - 1;
    for (number, channels) in depth::parts(&job.problem, parts).enumerate() {
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
        rows::build(builder, &part, schedule.clone())?;
    }
    Ok(())
}
