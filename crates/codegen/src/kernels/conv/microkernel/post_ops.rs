//! The epilogue of a convolution as vector code.

use crate::builder::Builder;
use crate::error::CompileError;
use crate::kernels::unary;
use crate::kernels::walk::first_lanes;
use tconvc_ir::ValueId;
use tconvc_ir::ops::{Epilogue, EpilogueStep, Unary};
use tconvc_machine::Target;
use tconvc_runtime::program::Operand;
use tconvc_tile::{Cmp, Lanes, Pointer, TileBuilder, Vector};

/// One post-op; floats by their bits, so that specifications of tiles can be compared and hashed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Step {
    Unary(UnaryKey),
    /// Slope of each channel, at the tile's own channels.
    PRelu,
    /// A tensor of the output's shape, at the place of the result.
    Add,
}

impl Step {
    fn is_heavy(&self) -> bool {
        matches!(self, Self::Unary(op) if unary::is_heavy(op.0))
    }
}

/// A unary operator that compares by the bits of its parameters.
#[derive(Debug, Clone)]
struct UnaryKey(Unary);

impl UnaryKey {
    fn key(&self) -> (&'static str, Vec<u32>) {
        (self.0.name(), self.0.parameters().into_iter().map(|(_, value)| value.to_bits()).collect())
    }
}

impl PartialEq for UnaryKey {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for UnaryKey {}

impl std::hash::Hash for UnaryKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// Appends what a tile with lanes along the channels reads behind the last channel of biases and slopes: the rest of a vector.
pub(crate) fn pad(channels: &mut Vec<f32>, target: &Target) {
    channels.resize(channels.len() + target.lanes() - 1, 0.0);
}

/// What is done to each sum before it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct PostOps {
    steps: Vec<Step>,
}

/// A vector of results in the output.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// Bytes from the tile's place in the output.
    pub offset: i32,
    /// Bytes between its elements.
    pub stride: i32,
    /// Elements that exist.
    pub count: usize,
    /// Channel of the tile; of its first element where they are of neighbouring channels.
    pub channel: usize,
    /// Whether its elements are of neighbouring channels, not of one.
    pub across: bool,
}

impl Place {
    fn lanes(&self, b: &TileBuilder) -> Lanes {
        first_lanes(b, self.count)
    }

    /// The elements at this place of a tensor of the output's shape.
    pub fn load(&self, b: &mut TileBuilder, from: Pointer) -> Vector {
        if self.stride == 4 && !self.across {
            let lanes = self.lanes(b);
            return b.load_lanes(from.at(self.offset), lanes);
        }
        b.gather(from.at(self.offset), self.stride, self.count)
    }

    /// Writes the elements.
    pub fn store(&self, b: &mut TileBuilder, to: Pointer, vector: Vector) {
        if self.stride == 4 && !self.across {
            let lanes = self.lanes(b);
            b.store_lanes(vector, to.at(self.offset), lanes);
            return;
        }
        for lane in 0..self.count {
            b.store_lane(vector, lane, to.at(self.offset + lane as i32 * self.stride));
        }
    }
}

/// How an operand of the epilogue is broadcast to the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broadcast {
    /// An f32 a channel, all groups.
    Channels,
    /// The output's own shape.
    Output,
}

/// The operands of post-ops in memory.
pub(crate) type PostOpOperands = Vec<(Operand, Broadcast)>;

impl PostOps {
    /// The post_ops of an epilogue with its operands; `channels` of the output, all groups together.
    pub fn new(
        builder: &mut Builder<'_>,
        epilogue: &Epilogue,
        operands: &[Option<ValueId>],
        channels: usize,
    ) -> Result<(Self, PostOpOperands), CompileError> {
        let (mut steps, mut places) = (vec![], vec![]);
        let mut rest = operands.iter().copied().flatten();
        for step in &epilogue.steps {
            let mut operand = || rest.next();
            match step {
                EpilogueStep::Unary(op) => steps.push(Step::Unary(UnaryKey(*op))),
                EpilogueStep::PRelu => {
                    let slope = operand().and_then(|value| builder.constant(value));
                    let Some(slope) = slope else {
                        return Err(builder.unsupported("the slope of a fused PRelu is not constant".into()));
                    };
                    let slope = slope.elements::<f32>()?;
                    let mut slopes = match slope.len() {
                        1 => vec![slope[0]; channels],
                        n if n == channels => slope.to_vec(),
                        n => return Err(builder.unsupported(format!("{n} slopes for {channels} channels"))),
                    };
                    pad(&mut slopes, builder.target);
                    places.push((builder.pack(&slopes), Broadcast::Channels));
                    steps.push(Step::PRelu);
                }
                EpilogueStep::Add => {
                    let Some(value) = operand() else {
                        return Err(builder.unsupported("the operand of a fused Add is missing".into()));
                    };
                    places.push((builder.operand(value)?, Broadcast::Output));
                    steps.push(Step::Add);
                }
            }
        }
        Ok((Self { steps }, places))
    }

    /// Nothing at all, or the addition of what is there already.
    pub fn onto(adds: bool) -> Self {
        Self { steps: if adds { vec![Step::Add] } else { vec![] } }
    }

    /// This one, and then another.
    pub fn then(mut self, next: Self) -> Self {
        self.steps.extend(next.steps);
        self
    }

    /// What can be done with the sums still in registers, and the rest, which works on what was stored.
    pub fn split(&self) -> (Self, Self) {
        let light = self.steps.iter().take_while(|step| !step.is_heavy()).count();
        let (light, rest) = self.steps.split_at(light);
        (Self { steps: light.to_vec() }, Self { steps: rest.to_vec() })
    }

    /// How each operand is broadcast to the output.
    pub fn broadcasts(&self) -> impl Iterator<Item = Broadcast> + '_ {
        self.steps.iter().filter_map(|step| match step {
            Step::Unary(_) => None,
            Step::PRelu => Some(Broadcast::Channels),
            Step::Add => Some(Broadcast::Output),
        })
    }

    /// Number of operands, each a pointer parameter of the tile.
    pub fn operands(&self) -> usize {
        self.steps.iter().filter(|step| !matches!(step, Step::Unary(_))).count()
    }

    /// True when the steps need registers that a tile has only once its sums are stored.
    pub fn is_heavy(&self) -> bool {
        self.steps.iter().any(Step::is_heavy)
    }

    /// Applies the steps to a vector of results.
    pub fn write(
        &self,
        b: &mut TileBuilder,
        operands: &[Pointer],
        mut vector: Vector,
        place: &Place,
    ) -> Vector {
        let mut rest = operands.iter().copied();
        for step in &self.steps {
            match step {
                Step::Unary(op) => vector = unary::apply(b, op.0, vector),
                Step::PRelu => {
                    let Some(slopes) = rest.next() else { return vector };
                    let slope = slopes.float(place.channel as i32);
                    let slope = if place.across { b.load(slope) } else { b.load_splat(slope) };
                    let scaled = b.mul(slope, vector);
                    vector = b.select(Cmp::Lt, vector, 0.0, scaled, vector);
                }
                Step::Add => {
                    let Some(other) = rest.next() else { return vector };
                    let other = place.load(b, other);
                    vector = b.add(vector, other);
                }
            }
        }
        vector
    }
}
