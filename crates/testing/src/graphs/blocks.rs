//! Steps of several nodes that decoders are made of: resize and convolution, pixel shuffles, normalisations,
//! squeeze-and-excite, skips past a few layers, and functions that exporters spell out.

use super::{Builder, Dice};
use tconvc_ir::{Attributes, Tensor, ValueId};

impl Builder {
    /// A convolution of stride 1 that keeps the extents, to so many channels.
    fn same_conv(
        &mut self,
        name: &str,
        (x, channels): (ValueId, usize),
        kernel: usize,
        dice: &mut Dice<'_>,
    ) -> Option<ValueId> {
        let mut shape = vec![channels, self.channels(x)];
        shape.resize(2 + self.axes, kernel);
        let attributes = Attributes::new().with("pads", vec![(kernel / 2) as i64; 2 * self.axes]);
        let w = self.weights(&format!("{name}.w"), &shape, dice)?;
        let b = self.weights(&format!("{name}.b"), &shape[..1], dice)?;
        self.add(name, "Conv", attributes, &[Some(x), Some(w), Some(b)])
    }

    /// Resize by whole factors, then a convolution: what becomes phases of summed taps.
    pub(super) fn resize_conv(&mut self, i: usize, x: ValueId, dice: &mut Dice<'_>) -> Option<ValueId> {
        let name = format!("enlarge{i}");
        let mut scales = vec![1.0f32, 1.0];
        let factor = 2 + dice.below(2);
        scales.extend((0..self.axes).map(|_| if dice.one_in(4) { 1.0 } else { factor as f32 }));
        let scales = self
            .graph
            .add_constant(&format!("{name}.scales"), Tensor::from_vec([scales.len()], scales).ok()?);
        let asymmetric = || Attributes::new().with("coordinate_transformation_mode", "asymmetric");
        let attributes = match dice.below(3) {
            0 => asymmetric().with("nearest_mode", "floor"),
            1 => Attributes::new().with("mode", "linear"),
            _ => asymmetric().with("mode", "linear"),
        };
        let large = self.add(&name, "Resize", attributes, &[Some(x), None, Some(scales)])?;
        let kernel = [3, 3, 5, 1][dice.below(4)];
        let channels = 1 + dice.below(3);
        self.same_conv(&format!("{name}.conv"), (large, channels), kernel, dice)
    }

    /// A convolution to `channels * 2^axes` and the shuffle of its channels into space, in two dimensions; the spelled
    /// Reshape, Transpose, Reshape in one.
    pub(super) fn pixel_shuffle(&mut self, i: usize, x: ValueId, dice: &mut Dice<'_>) -> Option<ValueId> {
        let (name, channels) = (format!("shuffle{i}"), 1 + dice.below(2));
        let deep = self.same_conv(&format!("{name}.conv"), (x, channels << self.axes), 3, dice)?;
        match self.axes {
            2 => {
                let mode = if dice.one_in(2) { "DCR" } else { "CRD" };
                let attributes = Attributes::new().with("blocksize", 2).with("mode", mode);
                self.add(&name, "DepthToSpace", attributes, &[Some(deep)])
            }
            1 => {
                let parts = self.integers(&format!("{name}.parts"), &[0, channels as i64, 2, -1]);
                let apart = self.add(
                    &format!("{name}.apart"),
                    "Reshape",
                    Attributes::new(),
                    &[Some(deep), Some(parts)],
                )?;
                let perm = Attributes::new().with("perm", vec![0i64, 1, 3, 2]);
                let turned = self.add(&format!("{name}.turned"), "Transpose", perm, &[Some(apart)])?;
                let whole = self.integers(&format!("{name}.whole"), &[0, channels as i64, -1]);
                self.add(&name, "Reshape", Attributes::new(), &[Some(turned), Some(whole)])
            }
            _ => Some(deep),
        }
    }

    /// Instance, group or layer normalisation, and often an activation behind it.
    pub(super) fn normalisation(&mut self, i: usize, x: ValueId, dice: &mut Dice<'_>) -> Option<ValueId> {
        let (name, channels) = (format!("normal{i}"), self.channels(x));
        let kind = dice.below(3);
        let last = self.shape(x).last().copied()?;
        let extent = if kind == 2 { last } else { channels };
        let scale = self.weights(&format!("{name}.scale"), &[extent], dice)?;
        let shift = self.weights(&format!("{name}.shift"), &[extent], dice)?;
        let inputs = [Some(x), Some(scale), Some(shift)];
        // A wide epsilon: a variance of nearly nothing would enlarge what sums round off.
        let attributes = Attributes::new().with("epsilon", 0.125f32);
        let normal = match kind {
            0 => self.add(&name, "InstanceNormalization", attributes, &inputs)?,
            1 => {
                let groups = if dice.one_in(2) { channels } else { 1 };
                self.add(&name, "GroupNormalization", attributes.with("num_groups", groups as i64), &inputs)?
            }
            _ => self.add(&name, "LayerNormalization", attributes, &inputs)?,
        };
        if dice.one_in(2) { self.activation(i, normal, dice) } else { Some(normal) }
    }

    /// Channels weighed by what a small network makes of their means.
    pub(super) fn squeeze_and_excite(
        &mut self,
        i: usize,
        x: ValueId,
        dice: &mut Dice<'_>,
    ) -> Option<ValueId> {
        let (name, channels) = (format!("excite{i}"), self.channels(x));
        let mean = self.add(&format!("{name}.mean"), "GlobalAveragePool", Attributes::new(), &[Some(x)])?;
        let few = self.same_conv(&format!("{name}.few"), (mean, 1 + dice.below(2)), 1, dice)?;
        let few = self.add(&format!("{name}.relu"), "Relu", Attributes::new(), &[Some(few)])?;
        let all = self.same_conv(&format!("{name}.all"), (few, channels), 1, dice)?;
        let gate = ["Sigmoid", "HardSigmoid"][dice.below(2)];
        let gate = self.add(&format!("{name}.gate"), gate, Attributes::new(), &[Some(all)])?;
        self.add(&name, "Mul", Attributes::new(), &[Some(x), Some(gate)])
    }

    /// A convolution or two and what went in, added or beside it.
    pub(super) fn skip(&mut self, i: usize, x: ValueId, dice: &mut Dice<'_>) -> Option<ValueId> {
        let (name, channels) = (format!("skip{i}"), self.channels(x));
        let inner = self.same_conv(&format!("{name}.first"), (x, channels), 3, dice)?;
        let inner = self.activation(i, inner, dice)?;
        let inner = self.same_conv(&format!("{name}.second"), (inner, channels), 1, dice)?;
        if dice.one_in(2) {
            self.add(&name, "Concat", Attributes::new().with("axis", 1), &[Some(inner), Some(x)])
        } else {
            self.add(&name, "Add", Attributes::new(), &[Some(inner), Some(x)])
        }
    }

    /// Gelu, Mish or Swish by the formula.
    pub(super) fn spelled(&mut self, i: usize, x: ValueId, dice: &mut Dice<'_>) -> Option<ValueId> {
        let name = format!("spelled{i}");
        let plain = Attributes::new;
        match dice.below(3) {
            0 => {
                let root = self
                    .graph
                    .add_constant(&format!("{name}.root"), Tensor::scalar(std::f32::consts::SQRT_2));
                let one = self.graph.add_constant(&format!("{name}.one"), Tensor::scalar(1.0f32));
                let half = self.graph.add_constant(&format!("{name}.half"), Tensor::scalar(0.5f32));
                let scaled = self.add(&format!("{name}.scaled"), "Div", plain(), &[Some(x), Some(root)])?;
                let erf = self.add(&format!("{name}.erf"), "Erf", plain(), &[Some(scaled)])?;
                let sum = self.add(&format!("{name}.sum"), "Add", plain(), &[Some(erf), Some(one)])?;
                let product = self.add(&format!("{name}.product"), "Mul", plain(), &[Some(x), Some(sum)])?;
                self.add(&name, "Mul", plain(), &[Some(product), Some(half)])
            }
            1 => {
                let plus = self.add(&format!("{name}.plus"), "Softplus", plain(), &[Some(x)])?;
                let tanh = self.add(&format!("{name}.tanh"), "Tanh", plain(), &[Some(plus)])?;
                self.add(&name, "Mul", plain(), &[Some(x), Some(tanh)])
            }
            _ => {
                let gate = self.add(&format!("{name}.gate"), "Sigmoid", plain(), &[Some(x)])?;
                self.add(&name, "Mul", plain(), &[Some(gate), Some(x)])
            }
        }
    }
}
