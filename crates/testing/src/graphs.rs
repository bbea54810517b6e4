//! Random small networks such as decoders are made of, for property tests. A recipe of bytes decides each step, so that a
//! failing graph shrinks by its recipe; steps whose numbers do not fit together are left out. Steps of several nodes, as
//! decoders have them, are in `blocks`.

mod blocks;

use proptest::prelude::*;
use tconvc_ir::ops::InputInfo;
use tconvc_ir::{Attributes, DType, Dim, Graph, Op, Tensor, ValueId, ValueType, infer, text};

/// Most elements of a value.
const MAX_ELEMENTS: usize = 4096;

/// Bytes that decide a step.
type Step = [u8; 16];

/// Graphs of static shapes: one or two inputs `[N, C, ..]` with 1 to 3 spatial axes, up to 8 steps, one to three outputs.
/// Some nodes may be unused. Types are inferred; [`tconvc_ir::verify`] passes.
pub fn graphs() -> impl Strategy<Value = Graph> {
    recipes().prop_map(|(shape, steps)| build(shape, &steps))
}

/// As [`graphs`], with symbols for the batch and the spatial extents of the inputs wherever inference can follow them.
pub fn symbolic_graphs() -> impl Strategy<Value = Graph> {
    (recipes(), any::<u8>()).prop_map(|((shape, steps), which)| with_symbols(build(shape, &steps), which))
}

fn recipes() -> impl Strategy<Value = ([u8; 8], Vec<Step>)> {
    (any::<[u8; 8]>(), prop::collection::vec(any::<Step>(), 0..8))
}

/// Small numbers out of the bytes of a step; zeros when there are no more.
struct Dice<'a>(std::slice::Iter<'a, u8>);

impl Dice<'_> {
    /// From 0 to below `n`.
    fn below(&mut self, n: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % n
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    fn list(&mut self, count: usize, n: usize, least: usize) -> Vec<i64> {
        (0..count).map(|_| (least + self.below(n)) as i64).collect()
    }
}

fn build(shape: [u8; 8], steps: &[Step]) -> Graph {
    let mut dice = Dice(shape.iter());
    let axes = 1 + dice.below(3);
    let mut extents = vec![1 + dice.below(2), 1 + dice.below(4)];
    extents.extend((0..axes).map(|_| 1 + dice.below(if axes == 3 { 4 } else { 7 })));
    let mut builder = Builder { graph: Graph::new("random"), values: vec![], axes };
    let inputs = if dice.one_in(4) { 2 } else { 1 };
    for i in 0..inputs {
        if let Ok(id) = builder.graph.add_input(&format!("x{i}"), ValueType::new(DType::F32, extents.clone()))
        {
            builder.values.push(id);
        }
    }
    for (i, step) in steps.iter().enumerate() {
        builder.step(i, &mut Dice(step.iter()));
    }
    let Builder { mut graph, values, .. } = builder;
    let last = values.len() - 1;
    graph.add_output(values[last]);
    for _ in 0..2 {
        if dice.one_in(4) {
            graph.add_output(values[dice.below(values.len())]);
        }
    }
    graph.remove_unused_values();
    graph
}

struct Builder {
    graph: Graph,
    /// Values `[N, C, ..]` that may be read.
    values: Vec<ValueId>,
    axes: usize,
}

impl Builder {
    fn step(&mut self, i: usize, dice: &mut Dice<'_>) {
        let kind = dice.below(24);
        let x = if dice.one_in(4) {
            self.values[dice.below(self.values.len())]
        } else {
            self.values[self.values.len() - 1]
        };
        let made = match kind {
            0..=3 => self.conv_transpose(i, x, dice),
            4 => self.conv(i, x, dice),
            5 => self.resize(i, x, dice),
            6 => self.concat(i, x, dice),
            7 => self.activation(i, x, dice),
            8 | 9 => self.binary(i, x, dice),
            10 => self.pad(i, x, dice),
            11 => self.slice(i, x, dice),
            12 => self.batch_norm(i, x, dice),
            13 => self.pool(i, x, dice),
            14 => self.depth_to_space(i, x, dice),
            15 => self.reshape(i, x, dice),
            17 | 18 => self.resize_conv(i, x, dice),
            19 => self.pixel_shuffle(i, x, dice),
            20 => self.normalisation(i, x, dice),
            21 => self.squeeze_and_excite(i, x, dice),
            22 => self.skip(i, x, dice),
            23 => self.spelled(i, x, dice),
            _ => self.softmax_or_reduce(i, x, dice),
        };
        let rank = |id: ValueId| self.graph.ty(id).rank();
        if let Some(made) = made.filter(|&id| rank(id) == Some(self.axes + 2)) {
            self.values.push(made);
        }
    }

    fn shape(&self, id: ValueId) -> Vec<usize> {
        self.graph.ty(id).known_shape().unwrap_or_default()
    }

    fn channels(&self, id: ValueId) -> usize {
        self.shape(id).get(1).copied().unwrap_or(1)
    }

    fn weights(&mut self, name: &str, shape: &[usize], dice: &mut Dice<'_>) -> Option<ValueId> {
        let tensor = text::seeded(DType::F32, shape, dice.below(256) as u64).ok()?;
        Some(self.graph.add_constant(name, tensor))
    }

    fn integers(&mut self, name: &str, values: &[i64]) -> ValueId {
        self.graph.add_constant(name, Tensor::from_i64s(values))
    }

    /// Adds a node when the operator takes these inputs and its output is known and small.
    fn add(
        &mut self,
        name: &str,
        op: &str,
        attributes: Attributes,
        inputs: &[Option<ValueId>],
    ) -> Option<ValueId> {
        let op = Op::read(op, attributes).ok()??;
        let info = |id: ValueId| InputInfo {
            ty: self.graph.ty(id),
            constant: self.graph.constant(id),
            extents: None,
        };
        let infos: Vec<_> = inputs.iter().map(|id| id.map(info)).collect();
        let ty = op.infer(&infos, 1).ok()?.into_iter().next()?;
        let elements: usize = ty.known_shape()?.iter().product();
        if !(1..=MAX_ELEMENTS).contains(&elements) {
            return None;
        }
        let (_, outputs) = self.graph.add_node(name, op, inputs, vec![ty]).ok()?;
        outputs.first().copied()
    }

    fn conv_transpose(&mut self, i: usize, x: ValueId, dice: &mut Dice<'_>) -> Option<ValueId> {
        let (axes, channels, input) = (self.axes, self.channels(x), self.shape(x));
        let group = if dice.one_in(3) { channels } else { 1 };
        let kernel = dice.list(axes, 4, 1);
        let strides = dice.list(axes, 3, 1);
        let mut shape = vec![channels, 1 + dice.below(3)];
        shape.extend(kernel.iter().map(|&k| k as usize));
        let mut attributes = Attributes::new().with("group", group as i64);
        match dice.below(8) {
            0 => attributes.set("auto_pad", "SAME_UPPER"),
            1 => attributes.set("auto_pad", "SAME_LOWER"),
            2 => attributes.set("auto_pad", "VALID"),
            3 => {
                let slack = dice.below(3) as i64;
                let extents =
                    input[2..].iter().zip(&strides).map(|(&extent, stride)| extent as i64 * stride + slack);
                attributes.set("output_shape", extents.collect::<Vec<i64>>());
            }
            4 => {}
            _ => attributes.set("pads", dice.list(2 * axes, 3, 0)),
        }
        if dice.one_in(4) {
            attributes.set("dilations", dice.list(axes, 2, 1));
        }
        if dice.one_in(4) {
            let padding = strides.iter().map(|&stride| dice.below(stride as usize) as i64);
            attributes.set("output_padding", padding.collect::<Vec<i64>>());
        }
        attributes.set("strides", strides);
        let w = self.weights(&format!("up{i}.w"), &shape, dice)?;
        let bias = if dice.one_in(2) {
            Some(self.weights(&format!("up{i}.b"), &[shape[1] * group], dice)?)
        } else {
            None
        };
        let inputs = [Some(x), Some(w), bias];
        self.add(&format!("up{i}"), "ConvTranspose", attributes, &inputs[..2 + usize::from(bias.is_some())])
    }

    fn conv(&mut self, i: usize, x: ValueId, dice: &mut Dice<'_>) -> Option<ValueId> {
        let channels = self.channels(x);
        let group = if dice.one_in(3) { channels } else { 1 };
        let mut shape = vec![group * (1 + dice.below(2)), channels / group];
        shape.extend(dice.list(self.axes, 3, 1).into_iter().map(|k| k as usize));
        let attributes = Attributes::new()
            .with("group", group as i64)
            .with("strides", dice.list(self.axes, 2, 1))
            .with("pads", dice.list(2 * self.axes, 3, 0));
        let w = self.weights(&format!("conv{i}.w"), &shape, dice)?;
        let b = self.weights(&format!("conv{i}.b"), &shape[..1], dice)?;
        self.add(&format!("conv{i}"), "Conv", attributes, &[Some(x), Some(w), Some(b)])
    }

    fn resize(&mut self, i: usize, x: ValueId, dice: &mut Dice<'_>) -> Option<ValueId> {
        let mut scales = vec![1.0f32, 1.0];
        scales.extend(dice.list(self.axes, 3, 1).into_iter().map(|scale| scale as f32));
        let attributes = match dice.below(4) {
            0 => Attributes::new()
                .with("coordinate_transformation_mode", "asymmetric")
                .with("nearest_mode", "floor"),
            3 => Attributes::new()
                .with("mode", "linear")
                .with("coordinate_transformation_mode", "align_corners"),
            1 => Attributes::new().with("mode", "nearest"),
            _ => Attributes::new().with("mode", "linear"),
        };
        let scales = Tensor::from_vec([scales.len()], scales).ok()?;
        let scales = self.graph.add_constant(&format!("resize{i}.scales"), scales);
        self.add(&format!("resize{i}"), "Resize", attributes, &[Some(x), None, Some(scales)])
    }

    fn concat(&mut self, i: usize, x: ValueId, dice: &mut Dice<'_>) -> Option<ValueId> {
        let other = self.values[dice.below(self.values.len())];
        let attributes = Attributes::new().with("axis", 1);
        let made = self.add(&format!("concat{i}"), "Concat", attributes.clone(), &[Some(other), Some(x)]);
        made.or_else(|| self.add(&format!("concat{i}"), "Concat", attributes, &[Some(x), Some(x)]))
    }

    fn activation(&mut self, i: usize, x: ValueId, dice: &mut Dice<'_>) -> Option<ValueId> {
        let name = format!("act{i}");
        match dice.below(8) {
            0 => {
                let slope = if dice.one_in(2) { vec![1] } else { self.per_channel(x) };
                let slope = self.weights(&format!("{name}.slope"), &slope, dice)?;
                self.add(&name, "PRelu", Attributes::new(), &[Some(x), Some(slope)])
            }
            1 => {
                let bound = |value: f32| Tensor::scalar(value);
                let min = self.graph.add_constant(&format!("{name}.min"), bound(-0.5));
                let max = self.graph.add_constant(&format!("{name}.max"), bound(0.75));
                self.add(&name, "Clip", Attributes::new(), &[Some(x), Some(min), Some(max)])
            }
            2 => self.add(&name, "LeakyRelu", Attributes::new().with("alpha", 0.125f32), &[Some(x)]),
            3 => self.add(&name, "Sigmoid", Attributes::new(), &[Some(x)]),
            4 => self.add(&name, "Tanh", Attributes::new(), &[Some(x)]),
            5 => self.add(&name, "Identity", Attributes::new(), &[Some(x)]),
            6 => self.add(&name, "HardSwish", Attributes::new(), &[Some(x)]),
            _ => self.add(&name, "Relu", Attributes::new(), &[Some(x)]),
        }
    }

    /// `[C, 1, ..]`, which broadcasts over `[N, C, ..]`.
    fn per_channel(&self, x: ValueId) -> Vec<usize> {
        let mut shape = vec![self.channels(x)];
        shape.resize(1 + self.axes, 1);
        shape
    }

    fn binary(&mut self, i: usize, x: ValueId, dice: &mut Dice<'_>) -> Option<ValueId> {
        let name = format!("binary{i}");
        let op = ["Add", "Mul", "Sub", "Max"][dice.below(4)];
        let other = match dice.below(3) {
            0 => {
                let shape = self.per_channel(x);
                self.weights(&format!("{name}.c"), &shape, dice)?
            }
            1 => self.weights(&format!("{name}.c"), &[], dice)?,
            _ => self.values[dice.below(self.values.len())],
        };
        let inputs = if dice.one_in(3) { [Some(other), Some(x)] } else { [Some(x), Some(other)] };
        self.add(&name, op, Attributes::new(), &inputs)
    }

    fn pad(&mut self, i: usize, x: ValueId, dice: &mut Dice<'_>) -> Option<ValueId> {
        let name = format!("pad{i}");
        let mode = ["constant", "constant", "reflect", "edge"][dice.below(4)];
        let side = |dice: &mut Dice<'_>| {
            let mut pads = vec![0i64, 0];
            pads.extend(dice.list(self.axes, 4, 0).into_iter().map(|pad| pad - 1));
            pads
        };
        let pads = [side(dice), side(dice)].concat();
        let pads = self.integers(&format!("{name}.pads"), &pads);
        self.add(&name, "Pad", Attributes::new().with("mode", mode), &[Some(x), Some(pads)])
    }

    fn slice(&mut self, i: usize, x: ValueId, dice: &mut Dice<'_>) -> Option<ValueId> {
        let name = format!("slice{i}");
        let starts = self.integers(&format!("{name}.starts"), &dice.list(self.axes, 3, 0));
        let ends: Vec<i64> = (0..self.axes).map(|_| [i64::MAX, -1, 4][dice.below(3)]).collect();
        let ends = self.integers(&format!("{name}.ends"), &ends);
        let axes: Vec<i64> = (2..2 + self.axes as i64).collect();
        let axes = self.integers(&format!("{name}.axes"), &axes);
        let mut inputs = vec![Some(x), Some(starts), Some(ends), Some(axes)];
        if dice.one_in(3) {
            inputs.push(Some(self.integers(&format!("{name}.steps"), &dice.list(self.axes, 2, 1))));
        }
        self.add(&name, "Slice", Attributes::new(), &inputs)
    }

    fn batch_norm(&mut self, i: usize, x: ValueId, dice: &mut Dice<'_>) -> Option<ValueId> {
        let (name, channels) = (format!("norm{i}"), self.channels(x));
        let mut inputs = vec![Some(x)];
        for part in ["scale", "b", "mean"] {
            inputs.push(Some(self.weights(&format!("{name}.{part}"), &[channels], dice)?));
        }
        let variance = (0..channels).map(|_| 0.5 + dice.below(4) as f32).collect();
        let variance = Tensor::from_vec([channels], variance).ok()?;
        inputs.push(Some(self.graph.add_constant(&format!("{name}.var"), variance)));
        self.add(&name, "BatchNormalization", Attributes::new(), &inputs)
    }

    fn pool(&mut self, i: usize, x: ValueId, dice: &mut Dice<'_>) -> Option<ValueId> {
        let op = ["MaxPool", "AveragePool", "GlobalAveragePool"][dice.below(3)];
        let mut attributes = Attributes::new();
        if op != "GlobalAveragePool" {
            attributes.set("kernel_shape", dice.list(self.axes, 2, 1));
            attributes.set("strides", dice.list(self.axes, 2, 1));
        }
        self.add(&format!("pool{i}"), op, attributes, &[Some(x)])
    }

    fn depth_to_space(&mut self, i: usize, x: ValueId, dice: &mut Dice<'_>) -> Option<ValueId> {
        let mode = if dice.one_in(2) { "CRD" } else { "DCR" };
        let attributes = Attributes::new().with("blocksize", 2);
        let deep = Attributes::new().with("blocksize", 2).with("mode", mode);
        let made = self.add(&format!("depth{i}"), "DepthToSpace", deep, &[Some(x)]);
        made.or_else(|| self.add(&format!("space{i}"), "SpaceToDepth", attributes, &[Some(x)]))
    }

    /// Away and back again: Transpose twice, Unsqueeze and Squeeze, or Flatten and Reshape.
    fn reshape(&mut self, i: usize, x: ValueId, dice: &mut Dice<'_>) -> Option<ValueId> {
        let name = format!("reshape{i}");
        match dice.below(3) {
            0 => {
                let mut perm: Vec<i64> = (0..self.axes as i64 + 2).collect();
                perm.swap(1, self.axes + 1);
                let attributes = Attributes::new().with("perm", perm);
                let there = self.add(&name, "Transpose", attributes.clone(), &[Some(x)])?;
                if dice.one_in(2) {
                    self.add(&name, "Transpose", attributes, &[Some(there)])
                } else {
                    Some(there)
                }
            }
            1 => {
                let axes = self.integers(&format!("{name}.axes"), &[dice.below(3) as i64]);
                let there = self.add(&name, "Unsqueeze", Attributes::new(), &[Some(x), Some(axes)])?;
                self.add(&name, "Squeeze", Attributes::new(), &[Some(there), Some(axes)])
            }
            _ => {
                let there = self.add(&name, "Flatten", Attributes::new(), &[Some(x)])?;
                let mut shape: Vec<i64> = self.shape(x).into_iter().map(|extent| extent as i64).collect();
                shape[0] = -1;
                let shape = self.integers(&format!("{name}.shape"), &shape);
                self.add(&name, "Reshape", Attributes::new(), &[Some(there), Some(shape)])
            }
        }
    }

    fn softmax_or_reduce(&mut self, i: usize, x: ValueId, dice: &mut Dice<'_>) -> Option<ValueId> {
        let name = format!("reduce{i}");
        if dice.one_in(2) {
            return self.add(&name, "Softmax", Attributes::new().with("axis", 1), &[Some(x)]);
        }
        let axes = self.integers(&format!("{name}.axes"), &[1 + dice.below(2) as i64]);
        let mean = self.add(&name, "ReduceMean", Attributes::new(), &[Some(x), Some(axes)])?;
        self.add(&name, "Sub", Attributes::new(), &[Some(x), Some(mean)])
    }
}

/// The same graph with symbols for some extents of its inputs; as it is when inference refuses them.
fn with_symbols(graph: Graph, which: u8) -> Graph {
    let mut symbolic = graph.clone();
    for &id in graph.inputs() {
        let mut ty = graph.ty(id).clone();
        let names = ["N", "C", "D", "H", "W"];
        for (axis, dim) in ty.shape.iter_mut().flatten().enumerate() {
            if axis != 1 && (which >> axis) & 1 == 1 {
                *dim = Dim::symbol(names[axis]);
            }
        }
        symbolic.set_ty(id, ty);
    }
    let made: Vec<ValueId> =
        symbolic.nodes().flat_map(|node| node.outputs().iter().flatten().copied()).collect();
    for id in made {
        symbolic.set_ty(id, ValueType::default());
    }
    if infer::infer(&mut symbolic).is_ok() { symbolic } else { graph }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    use std::collections::BTreeMap;
    use tconvc_ir::verify::verify;

    #[test]
    fn graphs_are_sound_and_varied() {
        let mut runner = TestRunner::deterministic();
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..400 {
            let graph = graphs().new_tree(&mut runner).unwrap().current();
            verify(&graph).unwrap_or_else(|error| panic!("{error}\n{graph:?}"));
            for node in graph.nodes() {
                *seen.entry(node.op.name().to_owned()).or_default() += 1;
            }
        }
        assert!(seen["ConvTranspose"] > 100, "{seen:?}");
        for op in [
            "Conv",
            "Resize",
            "Concat",
            "Pad",
            "Slice",
            "BatchNormalization",
            "MaxPool",
            "PRelu",
            "Clip",
            "Add",
            "InstanceNormalization",
            "LayerNormalization",
            "DepthToSpace",
            "GlobalAveragePool",
            "Erf",
        ] {
            assert!(seen.get(op).is_some_and(|&count| count > 5), "{op} is rare: {seen:?}");
        }
    }

    #[test]
    fn symbolic_graphs_have_symbols() {
        let mut runner = TestRunner::deterministic();
        let mut with_symbols = 0;
        for _ in 0..100 {
            let graph = symbolic_graphs().new_tree(&mut runner).unwrap().current();
            verify(&graph).unwrap_or_else(|error| panic!("{error}\n{graph:?}"));
            with_symbols += usize::from(!graph.symbols().is_empty());
        }
        assert!(with_symbols > 30, "{with_symbols}");
    }
}
