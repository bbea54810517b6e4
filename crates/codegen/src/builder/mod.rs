//! What the makers of kernels share: the module that collects code, packed weights, places of values, [`names`], [`steps`].

mod names;
mod run_time;
mod steps;

pub(crate) use run_time::Numbers;
pub(crate) use steps::WorkItems;

use crate::declined::Declined;
use crate::error::CompileError;
use crate::module::{CodeError, CodeModule, FunctionBuilder};
use crate::options::{Choice, FastMath, Options, Schedules};
use crate::packing::{Pack, Packing};
use crate::partition;
use crate::tasks::Queue;
use names::Names;
use std::collections::HashMap;
use std::sync::Arc;
use steps::Steps;
use tconvc_ir::{Graph, NodeId, Tensor, ValueId};
use tconvc_machine::Target;
use tconvc_passes::plan::{self, Place, Plan};
use tconvc_runtime::code::FunctionId;
use tconvc_runtime::memory::{ALIGNMENT, AlignedBytes};
use tconvc_runtime::program::{Kernel, Operand, Port, Space, Step, Work};
use tconvc_tile::backend::LowerError;
use tconvc_tile::{Tile, TileBuilder, TileError};

/// Collects a program step by step.
pub(crate) struct Builder<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) plan: &'a Plan,
    pub(crate) target: &'a Target,
    pub(crate) threads: usize,
    /// The least work that is worth a thread, in nanoseconds.
    grain_ns: f64,
    pub(crate) fast_math: FastMath,
    pub(crate) schedules: Schedules,
    /// Where they are asked for.
    pub(crate) choices: Option<Vec<Choice>>,
    /// Algorithms that were passed over.
    pub(crate) declined: Vec<Declined>,
    module: CodeModule,
    weights: Packing<'a>,
    queue: Arc<Queue<'a>>,
    constants: HashMap<ValueId, Operand>,
    /// Values without a place of their own, and whose they are made in.
    aliases: HashMap<ValueId, ValueId>,
    names: Names,
    steps: Steps,
    /// Bytes behind the plan's arena that the current step has taken, and the most that any has.
    shared: [usize; 2],
    /// Numbers in the place of weights that are made at run time, those that are taken, and where the weights of the layer at hand lie.
    numbers: &'a Numbers,
    numbered: usize,
    pub(crate) made_weights: Option<Operand>,
    /// Where its bias lies, if that is made at run time.
    pub(crate) made_bias: Option<Operand>,
    /// Node at which the current step's errors are reported.
    at: Option<NodeId>,
}

impl<'a> Builder<'a> {
    /// Tasks go into `queue`.
    pub(crate) fn new(
        (graph, plan): (&'a Graph, &'a Plan),
        options: &'a Options,
        numbers: &'a Numbers,
        module: CodeModule,
        queue: &Arc<Queue<'a>>,
    ) -> Self {
        Self {
            graph,
            plan,
            target: &options.target,
            threads: options.threads.max(1),
            grain_ns: options.grain_ns.unwrap_or(options.target.rates().threads.grain_ns),
            fast_math: options.fast_math,
            schedules: options.schedules.clone(),
            choices: options.list_choices.then(Vec::new),
            declined: vec![],
            module,
            weights: Packing::default(),
            queue: Arc::clone(queue),
            constants: HashMap::new(),
            aliases: HashMap::new(),
            names: Names::default(),
            steps: Steps::default(),
            shared: [0; 2],
            numbers,
            numbered: 0,
            made_weights: None,
            made_bias: None,
            at: None,
        }
    }

    /// Kernels and errors from here on are of this step; they are named after its last node.
    pub(crate) fn set_step(&mut self, step: &plan::Step) {
        self.at = step.nodes.last().copied();
        self.shared[0] = 0;
        self.steps.schedule.clear();
    }

    /// How the kernels that come next are cut up.
    pub(crate) fn set_schedule(&mut self, schedule: &impl std::fmt::Display) {
        self.steps.schedule = schedule.to_string();
    }

    /// Says what the kernels that come next have become, where the schedule's tiles were too large.
    pub(crate) fn refine_schedule<S: std::fmt::Display + PartialEq>(&mut self, chosen: &S, made: &S) {
        if chosen != made {
            self.steps.schedule = self.steps.schedule.replace(&chosen.to_string(), &made.to_string());
        }
    }

    /// Name and extents of an f32 value that are known; the plan has checked that they are.
    pub(crate) fn shape(&self, value: ValueId) -> Result<Vec<usize>, CompileError> {
        let ty = self.graph.ty(value);
        ty.known_shape().ok_or_else(|| {
            self.unsupported(format!("the shape of `{}` is not known: {ty}", self.graph.value(value).name))
        })
    }

    /// Name, type and shape of a value.
    pub(crate) fn port(&self, value: ValueId) -> Result<Port, CompileError> {
        let info = self.graph.value(value);
        let dtype = info
            .ty
            .dtype
            .ok_or_else(|| self.unsupported(format!("the type of `{}` is not known", info.name)))?;
        Ok(Port { name: info.name.clone(), dtype, shape: self.shape(value)? })
    }

    /// Where a value lives; a constant is copied into the weights on first use.
    pub(crate) fn operand(&mut self, value: ValueId) -> Result<Operand, CompileError> {
        let value = self.aliases.get(&value).copied().unwrap_or(value);
        let Some(&place) = self.plan.places.get(&value) else {
            return Err(
                self.unsupported(format!("`{}` has no place in memory", self.graph.value(value).name))
            );
        };
        let bytes = self.port(value)?.bytes();
        Ok(match place {
            Place::Input { index, offset } => Operand::new(Space::Input(index), offset, bytes),
            Place::Output { index, offset } => Operand::new(Space::Output(index), offset, bytes),
            Place::Arena { offset } => Operand::new(Space::Arena, offset, bytes),
            Place::Constant { value, offset } => {
                let whole = match (self.constants.get(&value), self.graph.constant(value)) {
                    (Some(&whole), _) => whole,
                    (None, Some(tensor)) => {
                        let whole = self.weights.copy(tensor.bytes());
                        self.constants.insert(value, whole);
                        whole
                    }
                    (None, None) => return Err(self.unsupported("a constant is missing".into())),
                };
                Operand::new(whole.space, whole.offset + offset, bytes)
            }
        })
    }

    /// Makes a value that the plan gives no place in that of another one, which is of the same type.
    pub(crate) fn place_in(&mut self, alias: ValueId, value: ValueId) {
        self.aliases.insert(alias, value);
    }

    /// Memory for what the kernels of the current step hand to each other.
    pub(crate) fn shared(&mut self, bytes: usize) -> Operand {
        let start = self.plan.arena_bytes.next_multiple_of(ALIGNMENT) + self.shared[0];
        self.shared[0] += bytes.next_multiple_of(ALIGNMENT);
        self.shared[1] = self.shared[1].max(self.shared[0]);
        Operand::new(Space::Arena, start, bytes)
    }

    /// Bytes of the arena: what the plan has allocated, and what steps have taken behind it.
    pub(crate) fn arena_bytes(&self) -> usize {
        match self.shared[1] {
            0 => self.plan.arena_bytes,
            shared => self.plan.arena_bytes.next_multiple_of(ALIGNMENT) + shared,
        }
    }

    /// The elements of a constant f32 tensor; `None` when the value is not constant.
    pub(crate) fn constant(&self, value: ValueId) -> Option<&'a Tensor> {
        self.graph.constant(value)
    }

    /// Appends floats, aligned to a cache line.
    pub(crate) fn pack(&mut self, data: &[f32]) -> Operand {
        self.pack_bytes(bytemuck::cast_slice(data))
    }

    /// Appends bytes, aligned to a cache line.
    pub(crate) fn pack_bytes(&mut self, data: &[u8]) -> Operand {
        self.weights.copy(data.to_vec())
    }

    /// Appends weights, aligned to a cache line, which are written by tasks.
    pub(crate) fn pack_later(&mut self, pack: impl Pack + 'a) -> Operand {
        self.weights.pack(pack)
    }

    /// Packs weights of a layer: in tasks, or at run time before the kernels that come next.
    ///
    /// # Errors
    /// When the code that packs them at run time cannot be made.
    pub(crate) fn pack_weights(&mut self, pack: impl Pack + 'a) -> Result<Operand, CompileError> {
        let packed = self.pack_later(pack);
        match self.made_weights {
            None => Ok(packed),
            Some(source) => self.pack_at_run_time(packed, source),
        }
    }

    /// As [`Builder::pack_weights`], of the bias of a layer, as it is.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn pack_bias(&mut self, bias: &[f32]) -> Result<Operand, CompileError> {
        let packed = self.pack(bias);
        match self.made_bias {
            None => Ok(packed),
            Some(source) => self.pack_at_run_time(packed, source),
        }
    }

    /// A tile builder for the target.
    pub(crate) fn tile(&self, name: &str) -> TileBuilder {
        TileBuilder::new(name, self.target)
    }

    /// Finishes a tile and adds it to the module. Its name is made unique unless an equal tile is there.
    pub(crate) fn add_tile(&mut self, tile: Result<Tile, TileError>) -> Result<FunctionId, CompileError> {
        let id = match tile.map(|tile| self.module.tile(tile)) {
            Ok(Err(CodeError::Lower(LowerError::Tile(source)))) | Err(source) => {
                return Err(CompileError::Tile { node: self.at_name().0, source });
            }
            Ok(id) => id?,
        };
        self.hand_out();
        Ok(id)
    }

    /// As [`Builder::add_tile`], for code that has an alternative where the tile is refused or does not fit the target.
    pub(crate) fn try_tile(
        &mut self,
        tile: Result<Tile, TileError>,
    ) -> Result<Option<FunctionId>, CompileError> {
        match self.add_tile(tile) {
            Err(CompileError::Tile { .. }) => Ok(None),
            added => added.map(Some),
        }
    }

    /// Adds a step function around the tiles. The name gets a number when it is taken.
    pub(crate) fn add_step(
        &mut self,
        name: &str,
        build: impl FnOnce(&mut FunctionBuilder<'_>),
    ) -> Result<FunctionId, CompileError> {
        let name = self.unique(name);
        let made = self.module.step(&name, build);
        let id = made.map_err(|error| self.refused(error))?;
        self.hand_out();
        Ok(id)
    }

    /// Adds a function of so many parameters of 64 bits, to be called by others.
    pub(crate) fn add_function(
        &mut self,
        name: &str,
        params: usize,
        build: impl FnOnce(&mut FunctionBuilder<'_>),
    ) -> Result<FunctionId, CompileError> {
        let made = self.module.function(name, params, build);
        let id = made.map_err(|error| self.refused(error))?;
        self.hand_out();
        Ok(id)
    }

    /// Lets others do what is new.
    fn hand_out(&mut self) {
        self.module.tasks().for_each(|task| self.queue.push(task));
    }

    /// A name of code that is not taken yet.
    pub(crate) fn unique(&mut self, name: &str) -> String {
        self.names.unique(name)
    }

    /// Boundaries that give each thread an even part of the work items, or all to the first when the work is too little.
    pub(crate) fn even_partition(&self, items: u64, total_ns: f64) -> Vec<u64> {
        partition::even(items, self.parts(total_ns))
    }

    /// As [`Builder::even_partition`], for work items of such weights.
    pub(crate) fn weighted_partition(&self, weights: &[u64], total_ns: f64) -> Vec<u64> {
        partition::weighted(weights, self.parts(total_ns))
    }

    /// Threads that so many nanoseconds of work are worth.
    fn parts(&self, total_ns: f64) -> usize {
        partition::parts(self.threads, total_ns, self.grain_ns)
    }

    /// Appends a step of machine code to the program.
    pub(crate) fn push_kernel(&mut self, kernel: Kernel) {
        self.push(Work::Kernel(kernel));
    }

    /// Appends a kernel, its work items partitioned evenly.
    pub(crate) fn push_work_items(&mut self, items: WorkItems, total_ns: f64) {
        let partition = self.even_partition(items.count as u64, total_ns);
        self.push_kernel(items.partitioned(partition));
    }

    /// Steps of the program so far.
    pub(crate) fn steps_made(&self) -> usize {
        self.steps.len()
    }

    /// Takes back what the current step has added to the program behind the first `steps` ones. Its functions stay, unused.
    pub(crate) fn undo(&mut self, steps: usize) {
        self.steps.truncate(steps);
        self.shared[0] = 0;
        self.steps.schedule.clear();
    }

    /// Notes that the current node's algorithm has no code, and which one takes its place.
    pub(crate) fn decline(&mut self, algorithm: String, error: &CompileError, instead: String) {
        let reason = match error {
            CompileError::Tile { source, .. } => source.kind.to_string(),
            CompileError::Size { what, found, most, .. } => format!("{found} {what}, {most} at most"),
            other => other.to_string(),
        };
        self.declined.push(Declined { node: self.at_name().0, algorithm, reason, instead });
    }

    /// Appends any step to the program.
    pub(crate) fn push(&mut self, work: Work) {
        let (node, _) = self.at_name();
        self.push_named(&node, work);
    }

    /// Appends a step that belongs to no node.
    pub(crate) fn push_named(&mut self, name: &str, work: Work) {
        self.steps.push(name, work);
    }

    /// Name and operator of the current node.
    fn at_name(&self) -> (String, String) {
        self.at.map_or_else(Default::default, |node| {
            let node = self.graph.node(node);
            (node.name.clone(), node.op.name().to_owned())
        })
    }

    /// Refuses code of which there would be more than `most`.
    ///
    /// # Errors
    /// [`CompileError::Size`] about the current node.
    pub(crate) fn within(&self, what: &'static str, found: usize, most: usize) -> Result<(), CompileError> {
        if found <= most {
            return Ok(());
        }
        Err(CompileError::Size { node: self.at_name().0, what, found, most })
    }

    /// What is wrong with a function around tiles, of the current node.
    fn refused(&self, error: CodeError) -> CompileError {
        match error {
            CodeError::Size { what, found, most, .. } => {
                CompileError::Size { node: self.at_name().0, what, found, most }
            }
            error => error.into(),
        }
    }

    /// An error about the current node.
    pub(crate) fn unsupported(&self, problem: String) -> CompileError {
        let (node, op) = self.at_name();
        CompileError::Unsupported { node, op, problem }
    }

    /// Bytes of packed weights so far.
    pub(crate) fn weight_bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// Bytes that the program needs at run time beside the constants of its graph: what packing adds to these, activations, and
    /// scratch memory of all threads.
    fn workspace_bytes(&self) -> usize {
        let constants = self.graph.values().filter_map(|(id, _)| self.graph.constant(id));
        let constants: usize = constants.map(|tensor| tensor.bytes().len()).sum();
        let scratch = self.steps.scratch_bytes.saturating_mul(self.threads);
        let packing = self.weights.bytes().saturating_sub(constants);
        self.arena_bytes().saturating_add(scratch).saturating_add(packing)
    }

    /// Takes memory for packed weights, and does what tasks are left. Gives steps, scratch bytes of a thread, and the
    /// functions.
    ///
    /// # Errors
    /// When that is more than `limit` allows, before any of it is taken, or more than there is.
    pub(crate) fn finish(
        self,
        memory: &'a mut Option<AlignedBytes>,
        limit: usize,
    ) -> Result<(Vec<Step>, usize, CodeModule), CompileError> {
        let bytes = self.workspace_bytes();
        if bytes > limit {
            return Err(CompileError::Workspace { bytes, limit });
        }
        let bytes = self.weights.bytes();
        tconvc_ir::budget::ask(bytes)?;
        let taken = AlignedBytes::zeroed(bytes);
        let taken = taken.ok_or(CompileError::Memory { what: "packed weights", bytes })?;
        for task in self.weights.write(memory.insert(taken).as_mut_slice()) {
            self.queue.push(task);
        }
        self.queue.finish();
        let scratch_bytes = self.steps.scratch_bytes;
        Ok((self.steps.finish(), scratch_bytes, self.module))
    }
}
