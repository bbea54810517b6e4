//! The list of passes, in the order in which they run, and the loop that runs them.

use crate::check::Signature;
use crate::compat;
use crate::error::{Error, Result};
use crate::forms::ChooseForm;
use crate::inside;
use crate::journal::Journal;
use crate::options::Options;
use crate::pass::{Context, Pass};
use crate::rewrites::{
    Affine, BatchNorm, Branch, Canonicalise, CommonSubexpressions, Crop, DeadCode, Dequantise, Einsum,
    Epilogue, Fold, Gemm, Integers, Noop, PadIntoConv, Recognise, Reshape, ResizeConv, Transpose, Widen,
    ZeroStuffing,
};
use tconvc_ir::verify::verify;
use tconvc_ir::{Graph, infer::infer};

/// Passes that run one after the other, again and again until none of them changes anything.
pub struct Stage {
    /// Name, for people.
    pub name: &'static str,
    /// The passes.
    pub passes: &'static [&'static (dyn Pass + Sync)],
}

/// The pipeline. Everything before `forms` keeps transposed convolutions as they are.
pub const PIPELINE: &[Stage] = &[
    Stage {
        name: "simplify",
        passes: &[
            &Canonicalise,
            &Fold,
            &Branch,
            // Behind the folding, which rounds constants of short types as the file has it.
            &Widen,
            &Integers,
            &Dequantise,
            &Einsum,
            &Noop,
            &Reshape,
            &Transpose,
            &CommonSubexpressions,
            &DeadCode,
        ],
    },
    Stage {
        name: "fuse",
        passes: &[
            &Recognise,
            &BatchNorm,
            &Affine,
            &PadIntoConv,
            &ZeroStuffing,
            &ResizeConv,
            &Crop,
            &Epilogue,
            &Gemm,
            &Canonicalise,
            &Fold,
            &Noop,
            &CommonSubexpressions,
            &DeadCode,
        ],
    },
    Stage {
        name: "forms",
        // A form without zeros to insert is a plain convolution, which can take in what a transposed one could not.
        passes: &[
            &ChooseForm,
            &Canonicalise,
            &Fold,
            &Noop,
            &BatchNorm,
            &Affine,
            &PadIntoConv,
            &Epilogue,
            &CommonSubexpressions,
            &DeadCode,
        ],
    },
];

/// Rounds of a stage after which it is taken to be endless: each round makes at least one rewrite, and what stages gain
/// from each other is a handful of rounds in practice.
const MAX_ROUNDS: usize = 100;

/// Every pass of the pipeline, each once, in the order of its first place.
pub fn passes() -> Vec<&'static (dyn Pass + Sync)> {
    let mut list: Vec<&'static (dyn Pass + Sync)> = vec![];
    for &pass in PIPELINE.iter().flat_map(|stage| stage.passes) {
        if list.iter().all(|seen| seen.about().name != pass.about().name) {
            list.push(pass);
        }
    }
    list
}

/// The pass of that name.
///
/// # Errors
/// When there is none; names those that there are.
pub fn find(name: &str) -> Result<&'static (dyn Pass + Sync)> {
    let known = passes();
    known.iter().copied().find(|pass| pass.about().name == name).ok_or_else(|| Error::UnknownPass {
        name: name.into(),
        known: known.iter().map(|pass| pass.about().name).collect::<Vec<_>>().join(", "),
    })
}

/// Runs the pipeline.
///
/// # Errors
/// When the graph is at fault, an option names a pass that does not exist, or (checked) a pass breaks the graph.
pub fn optimise(graph: &mut Graph, options: &Options) -> Result<Journal> {
    let custom = |name: &str| options.custom.iter().any(|pass| pass.about().name == name);
    for name in options.disabled.iter().chain(options.stop_after.as_ref().map(|stop| &stop.pass)) {
        if !custom(name) {
            find(name)?;
        }
    }
    let mut journal = Journal::new();
    infer(graph)?;
    for stage in PIPELINE {
        // Again and again: constants and extents become known on the way.
        compat::apply(graph, options.compat, &mut journal)?;
        if stage.name == "forms" {
            let passes: Vec<&dyn Pass> = options.custom.iter().map(|pass| &**pass as &dyn Pass).collect();
            if run_stage("custom", &passes, graph, options, &mut journal)? {
                return Ok(journal);
            }
        }
        let passes: Vec<&dyn Pass> = stage.passes.iter().map(|&pass| pass as &dyn Pass).collect();
        if run_stage(stage.name, &passes, graph, options, &mut journal)? {
            return Ok(journal);
        }
    }
    if options.portable || options.inside {
        inside::rewrite(graph, options, &mut journal)?;
    }
    Ok(journal)
}

/// Runs these passes, one after the other, to a fixpoint: what tests and tools do with a list of their own.
///
/// # Errors
/// As [`optimise`].
pub fn run_passes(graph: &mut Graph, passes: &[&dyn Pass], options: &Options) -> Result<Journal> {
    let mut journal = Journal::new();
    run_stage("passes", passes, graph, options, &mut journal)?;
    Ok(journal)
}

/// True when the pipeline is to stop behind this stage.
fn run_stage(
    stage: &str,
    passes: &[&dyn Pass],
    graph: &mut Graph,
    options: &Options,
    journal: &mut Journal,
) -> Result<bool> {
    let stop = options.stop_after.as_ref();
    let end = stop.and_then(|stop| passes.iter().position(|pass| pass.about().name == stop.pass));
    let passes = &passes[..end.map_or(passes.len(), |end| end + 1)];
    let mut budget = stop.and_then(|stop| stop.rewrites);
    for _ in 0..MAX_ROUNDS {
        let mut changed = false;
        for &pass in passes {
            let name = pass.about().name;
            if options.disabled.iter().any(|disabled| disabled == name) {
                continue;
            }
            tconvc_ir::budget::check()?;
            let limited = stop.is_some_and(|stop| stop.pass == name);
            let mut context = Context { options, journal, budget: budget.filter(|_| limited) };
            changed |= run_checked(pass, graph, &mut context)?;
            if limited {
                budget = context.budget;
                if budget == Some(0) {
                    return Ok(true);
                }
            }
        }
        if !changed {
            return Ok(end.is_some());
        }
        // What became constant may tell more of shapes.
        infer(graph)?;
    }
    Err(Error::Endless { pass: stage.into(), rewrites: journal.applied().count() })
}

/// Runs one pass; checks afterwards, when that is asked for, that the graph is well formed and its outputs are what they were.
fn run_checked(pass: &dyn Pass, graph: &mut Graph, context: &mut Context<'_>) -> Result<bool> {
    if !context.options.check {
        return pass.run(graph, context);
    }
    let signature = Signature::of(graph);
    let changed = pass.run(graph, context)?;
    let broken = |problem: String| Error::Broken { pass: pass.about().name.into(), problem };
    verify(graph).map_err(|error| broken(error.to_string()))?;
    signature.check(graph).map_err(broken)?;
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Decision;
    use crate::pass::{About, Miss, Rewrite, Site, require};
    use tconvc_ir::ops::Unary;
    use tconvc_ir::{DType, NodeId, Op, ValueType};

    /// x -> Neg -> Abs -> y, and a dead Relu.
    fn graph() -> Graph {
        let mut graph = Graph::new("g");
        let ty = || ValueType::new(DType::F32, [2usize, 3]);
        let x = graph.add_input("x", ty()).unwrap();
        let (_, neg) = graph.add_node("neg", Unary::Neg, &[Some(x)], vec![ty()]).unwrap();
        let y = graph.add_undefined("y", ty()).unwrap();
        graph.add_node_defining("abs", Unary::Abs, &[Some(neg[0])], &[Some(y)]).unwrap();
        graph.add_node("relu", Unary::Relu, &[Some(neg[0])], vec![ty()]).unwrap();
        graph.add_output(y);
        graph
    }

    /// Neg before Abs is needless; refused where `refuse`, wrong where `wreck`, never done where `endless`.
    struct NegBeforeAbs {
        refuse: bool,
        wreck: bool,
        endless: bool,
    }

    impl Rewrite for NegBeforeAbs {
        type Found = tconvc_ir::ValueId;

        fn about(&self) -> About {
            About { name: "neg-abs", summary: "", pattern: "Abs(Neg(x))", claim: "falls" }
        }

        fn find(&self, graph: &Graph, node: NodeId, _: &Options) -> Site<Self::Found> {
            if graph.node(node).op != Op::Unary(Unary::Abs) {
                return Err(Miss::Elsewhere);
            }
            let neg = crate::matching::producer(graph, node, 0).ok_or(Miss::Elsewhere)?;
            require(!self.refuse, || "it was told to")?;
            graph.node(neg).input(0).ok_or(Miss::Elsewhere)
        }

        fn apply(&self, graph: &mut Graph, node: NodeId, x: Self::Found) -> Result<Decision> {
            if self.wreck {
                let y = graph.outputs()[0];
                graph.set_ty(y, ValueType::new(DType::F32, [6usize]));
            }
            if !self.endless {
                graph.set_input(node, 0, Some(x));
            }
            Ok(Decision::only("drops Neg"))
        }
    }

    const SOUND: NegBeforeAbs = NegBeforeAbs { refuse: false, wreck: false, endless: false };

    #[test]
    fn a_stage_runs_to_its_fixpoint() {
        let mut graph = graph();
        let journal = run_passes(&mut graph, &[&DeadCode, &SOUND], &Options::default()).unwrap();
        assert_eq!(graph.node_count(), 1);
        assert_eq!(
            journal.to_string(),
            "dce: relu (Relu): removed\nneg-abs: abs (Abs): drops Neg\ndce: neg (Neg): removed\n"
        );
    }

    #[test]
    fn refusals_are_noted_once_and_only_while_they_stand() {
        let pass = NegBeforeAbs { refuse: true, ..SOUND };
        let mut graph = graph();
        let journal = run_passes(&mut graph, &[&pass, &DeadCode], &Options::default()).unwrap();
        let refused: Vec<String> = journal.refused().map(ToString::to_string).collect();
        assert_eq!(refused, ["neg-abs: abs (Abs): refused: it was told to"]);
    }

    #[test]
    fn a_pass_that_breaks_the_outputs_is_caught() {
        let pass = NegBeforeAbs { wreck: true, ..SOUND };
        let options = Options { check: true, ..Options::default() };
        let error = run_passes(&mut graph(), &[&pass], &options).unwrap_err();
        assert!(matches!(&error, Error::Broken { pass, .. } if pass == "neg-abs"), "{error}");
    }

    #[test]
    fn a_pass_without_end_is_stopped() {
        let pass = NegBeforeAbs { endless: true, ..SOUND };
        let error = run_passes(&mut graph(), &[&pass], &Options::default()).unwrap_err();
        assert!(matches!(error, Error::Endless { .. }), "{error}");
    }

    #[test]
    fn stopping_cuts_the_list_and_the_rewrites() {
        let run = |stop: &str| {
            let mut graph = graph();
            let options = Options { stop_after: Some(stop.parse().unwrap()), ..Options::default() };
            run_passes(&mut graph, &[&DeadCode, &SOUND], &options).unwrap();
            graph.node_count()
        };
        assert_eq!((run("dce:0"), run("dce:1"), run("dce"), run("neg-abs")), (3, 2, 2, 1));
    }

    #[test]
    fn options_name_passes_that_exist() {
        let options = Options { disabled: vec!["nonesuch".into()], ..Options::default() };
        let error = optimise(&mut graph(), &options).unwrap_err().to_string();
        assert!(error.contains("`nonesuch`") && error.contains("dce"), "{error}");
        assert!("dce:x".parse::<crate::StopAfter>().is_err());
    }
}
