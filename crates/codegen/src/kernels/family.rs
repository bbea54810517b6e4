//! What a family of kernels is. It looks at a step before any code is made, and answers a plan or a reason; a plan makes tiles,
//! then the functions around them.

use super::refusal::Reason;
use crate::builder::Builder;
use crate::error::CompileError;
use tconvc_ir::{DType, Graph, Node, Tensor, ValueId};
use tconvc_machine::Target;
use tconvc_passes::plan::Step;
use tconvc_runtime::code::FunctionId;
use tconvc_tile::{Tile, TileBuilder, TileError};

/// Kernels that go about their work in the same way.
pub(crate) trait KernelFamily: Sync {
    /// As refusals name it.
    fn name(&self) -> &'static str;

    /// How the kernels of a step are made.
    ///
    /// # Errors
    /// Why the family does not take it, and what it would take.
    fn plan<'a>(&self, site: Site<'a>, step: &Step) -> Result<Box<dyn KernelPlan<'a> + 'a>, Reason>;
}

/// How the kernels of a step are made.
pub(crate) trait KernelPlan<'a> {
    /// What the kernel is called, before it gets a number; empty where its functions have names of their own.
    fn name(&self) -> String;

    /// Nanoseconds that it takes one thread of the target, about.
    fn cost_ns(&self, target: &Target) -> f64;

    /// Tiles that [`KernelPlan::steps`] calls, each under what it is for. The driver adds them, and refuses the step where one
    /// does not fit the target.
    ///
    /// # Errors
    /// Where a tile breaks the rules of the tile IR.
    fn tiles(&self, _site: Site<'a>, _name: &str) -> Result<Tiles, TileError> {
        Ok(vec![])
    }

    /// Adds the functions around the tiles, and the program's steps.
    ///
    /// # Errors
    /// [`CompileError::Tile`] where a tile does not fit the target, which is a refusal, too; any other ends the compilation.
    fn steps(
        self: Box<Self>,
        builder: &mut Builder<'a>,
        name: String,
        codes: &Codes,
    ) -> Result<(), CompileError>;
}

/// Tiles, each under what it is for.
pub(crate) type Tiles = Vec<(&'static str, Tile)>;

/// The functions that tiles have become.
#[derive(Debug, Default)]
pub(crate) struct Codes(pub Vec<(&'static str, FunctionId)>);

impl Codes {
    /// The one for a purpose, where the plan has made one.
    pub fn get(&self, purpose: &str) -> Option<FunctionId> {
        self.0.iter().find(|(known, _)| *known == purpose).map(|&(_, id)| id)
    }

    /// The one for a purpose that plans always make one for.
    ///
    /// # Errors
    /// Where this one has not.
    pub fn need(&self, builder: &Builder<'_>, purpose: &str) -> Result<FunctionId, CompileError> {
        self.get(purpose).ok_or_else(|| builder.unsupported(format!("no tile is made for its {purpose}")))
    }
}

/// What a family can ask before code is made.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a> {
    pub graph: &'a Graph,
    pub target: &'a Target,
}

impl<'a> Site<'a> {
    /// The only node of a step.
    pub fn single(self, step: &Step) -> Result<&'a Node, Reason> {
        match step.nodes.as_slice() {
            &[node] => Ok(self.graph.node(node)),
            _ => Err(Reason::variant("a group of nodes", "a node of its own")),
        }
    }

    /// Extents of a value.
    pub fn shape(self, value: ValueId) -> Result<Vec<usize>, Reason> {
        let info = self.graph.value(value);
        let unknown = || Reason::Graph(format!("the shape of `{}` is not known: {}", info.name, info.ty));
        info.ty.known_shape().ok_or_else(unknown)
    }

    /// Refuses values of other types than f32.
    pub fn all_f32(self, values: impl IntoIterator<Item = ValueId>) -> Result<(), Reason> {
        let types = values.into_iter().map(|value| self.graph.ty(value).dtype);
        match types.into_iter().find(|dtype| *dtype != Some(DType::F32)) {
            None => Ok(()),
            Some(found) => Err(Reason::Type { found, accepted: "f32" }),
        }
    }

    /// The elements of a value that kernels want constant.
    pub fn constant(self, value: ValueId, what: &'static str) -> Result<&'a Tensor, Reason> {
        self.graph.constant(value).ok_or(Reason::RunTime { what })
    }

    /// A tile builder for the target.
    pub fn tile(self, name: String) -> TileBuilder {
        TileBuilder::new(name, self.target)
    }
}

/// An input of a node.
pub(crate) fn input(node: &Node, index: usize) -> Result<ValueId, Reason> {
    node.input(index).ok_or_else(|| Reason::Graph(format!("input {index} is missing")))
}

/// An output of a node.
pub(crate) fn output(node: &Node, index: usize) -> Result<ValueId, Reason> {
    node.output(index).ok_or_else(|| Reason::Graph(format!("output {index} is missing")))
}
