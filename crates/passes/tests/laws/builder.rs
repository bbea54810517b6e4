//! Random graphs made of steps: each step is a kind and a seed, so that a failing graph shrinks by leaving steps out.

use tconvc_ir::{DType, Graph, Op, Tensor, ValueId, ValueType};
use tconvc_passes::patch;

/// A small generator of numbers (SplitMix64).
pub struct Random(pub u64);

impl Random {
    /// Any 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of a range.
    pub fn within(&mut self, range: std::ops::RangeInclusive<i64>) -> i64 {
        let count = (range.end() - range.start() + 1) as u64;
        range.start() + (self.next() % count) as i64
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }

    /// One of a list.
    pub fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.next() as usize % list.len()]
    }

    /// A tensor of small numbers with few bits, zero rarely.
    pub fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let count = shape.iter().product();
        let data = (0..count).map(|_| self.within(-16..=16) as f32 / 16.0).collect();
        Tensor::from_vec(shape, data).unwrap()
    }

    /// A tensor of numbers from a half to two.
    pub fn positive(&mut self, shape: &[usize]) -> Tensor {
        let count = shape.iter().product();
        let data = (0..count).map(|_| self.within(8..=32) as f32 / 16.0).collect();
        Tensor::from_vec(shape, data).unwrap()
    }
}

/// A graph that grows, with the f32 values that a step may use.
pub struct Builder {
    /// The graph.
    pub graph: Graph,
    /// Numbers for the step at hand.
    pub random: Random,
    values: Vec<ValueId>,
}

impl Builder {
    /// One input `[1 or 2, 4, 5, 6]`.
    pub fn new(seed: u64) -> Self {
        let mut graph = Graph::new("random");
        let mut random = Random(seed);
        let shape = [random.within(1..=2) as usize, 4, 5, 6];
        let x = graph.add_input("x", ValueType::new(DType::F32, shape)).unwrap();
        Self { graph, random, values: vec![x] }
    }

    /// A value, rather a late one.
    pub fn any(&mut self) -> ValueId {
        let back = (self.random.next() % 4).min(self.random.next() % 4) as usize;
        self.values[self.values.len() - 1 - back.min(self.values.len() - 1)]
    }

    /// The input.
    pub fn input(&self) -> ValueId {
        self.values[0]
    }

    /// A value of rank 4 with 1 to 8 channels and at least one row and column.
    pub fn image(&mut self) -> (ValueId, Vec<usize>) {
        let first = self.values[0];
        let found = self.any();
        let fits = |shape: &[usize]| shape.len() == 4 && shape[1] <= 8 && !shape.contains(&0);
        let value = if fits(&self.shape(found)) { found } else { first };
        (value, self.shape(value))
    }

    /// Another value of the same shape, if there is one.
    pub fn same_shape(&mut self, value: ValueId) -> Option<ValueId> {
        let shape = self.shape(value);
        let others: Vec<_> = self.values.iter().copied().filter(|&id| self.shape(id) == shape).collect();
        let other = self.random.one_of(&others);
        (other != value).then_some(other)
    }

    /// Extents of a value.
    pub fn shape(&self, value: ValueId) -> Vec<usize> {
        self.graph.ty(value).known_shape().unwrap()
    }

    /// A constant.
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.graph.add_constant("c", tensor)
    }

    /// A constant list.
    pub fn list(&mut self, values: &[i64]) -> ValueId {
        self.constant(Tensor::from_i64s(values))
    }

    /// A constant number.
    pub fn number(&mut self, value: f32) -> ValueId {
        self.constant(Tensor::scalar(value))
    }

    /// A node; `None` when the operator does not take these inputs or gives too much.
    pub fn node(&mut self, op: impl Into<Op>, inputs: &[Option<ValueId>]) -> Option<ValueId> {
        let op = op.into();
        let name = op.name().to_lowercase();
        let types = patch::infer(&self.graph, &op, inputs, 1).ok()?;
        let shape = types.first()?.known_shape()?;
        if shape.iter().product::<usize>() > 4000 || shape.contains(&0) {
            return None;
        }
        patch::add(&mut self.graph, &name, op, inputs).ok()
    }

    /// A node all of whose inputs are present.
    pub fn on(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Option<ValueId> {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        self.node(op, &inputs)
    }

    /// Lets later steps use a value.
    pub fn keep(&mut self, value: Option<ValueId>) {
        self.values.extend(value);
    }

    /// The graph, with its last value and a few others as outputs.
    pub fn finish(mut self, seed: u64) -> Graph {
        self.random = Random(seed);
        let last = self.values[self.values.len() - 1];
        self.graph.add_output(last);
        for value in self.values.clone() {
            if value != last && self.random.once_in(7) {
                self.graph.add_output(value);
            }
        }
        self.graph
    }
}
