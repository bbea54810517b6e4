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

    pub fn groups(&self) -> usize {
        self.groups
    }

    pub fn cin(&self) -> usize {
        self.cin
    }

    pub fn cout(&self) -> usize {
        self.cout
    }

    /// The weight from input channel `ci` to output channel `co` of a group under a tap.
    pub fn at(&self, group: usize, co: usize, ci: usize, [z, y, x]: [usize; 3]) -> f32 {
        let pair = match self.layout {
            Layout::Conv => (group * self.cout + co) * self.cin + ci,
            Layout::Deconv => (group * self.cin + ci) * self.cout + co,
        };
        let [kz, ky, kx] = self.kernel;
        self.data[((pair * kz + z) * ky + y) * kx + x]
    }
}
