//! The weights of a convolution of either kind, by group, channel and tap.

use tconvc_ir::{Result, Tensor};

/// Which axis of the tensor is which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// `[Cout, Cin/group, ..]`, as `Conv` has it.
    Conv,
    /// `[Cin, Cout/group, ..]`, as `ConvTranspose` has it.
    Deconv,
}

/// Weights to be packed.
#[derive(Clone)]
pub(super) struct Weights<'a> {
    data: std::borrow::Cow<'a, [f32]>,
    layout: Layout,
    groups: usize,
    cin: usize,
    cout: usize,
    kernel: [usize; 3],
}

impl<'a> Weights<'a> {
    /// From a constant of the graph, with channels per group.
    pub fn new(tensor: &'a Tensor, layout: Layout, groups: usize, cin: usize, cout: usize) -> Result<Self> {
        let spatial = &tensor.shape()[2..];
        let mut kernel = [1; 3];
        kernel[3 - spatial.len()..].copy_from_slice(spatial);
        Ok(Self { data: tensor.elements::<f32>()?, layout, groups, cin, cout, kernel })
    }

    /// The same weights with their taps along other axes.
    pub fn with_kernel(self, kernel: [usize; 3]) -> Self {
        Self { kernel, ..self }
    }

    pub fn groups(&self) -> usize {
        self.groups
    }

    pub fn cin(&self) -> usize {
        self.cin
    }

    pub fn cout(&self) -> usize {
        self.cout
    }

    /// The weights from input channel `ci` to the output channels `co..co + count` of a group under a tap.
    pub fn row(
        &self,
        group: usize,
        co: usize,
        count: usize,
        ci: usize,
        [z, y, x]: [usize; 3],
    ) -> impl Iterator<Item = f32> + '_ {
        let [kz, ky, kx] = self.kernel;
        let taps = kz * ky * kx;
        let (pair, step) = match self.layout {
            Layout::Conv => ((group * self.cout + co) * self.cin + ci, self.cin * taps),
            Layout::Deconv => ((group * self.cin + ci) * self.cout + co, taps),
        };
        let first = pair * taps + (z * ky + y) * kx + x;
        self.data.get(first..).unwrap_or_default().iter().step_by(step).take(count).copied()
    }
}
