//! Named transposed convolutions of known networks: what benchmarks time, and what blessed schedules are of.

use tconvc_ir::geometry::{Channels, DeconvAxis, DeconvGeometry};

/// One transposed convolution; kernel, stride, dilation and pads are the same along all axes.
#[derive(Debug, Clone, Copy)]
pub struct Layer {
    /// Network and place in it, channels, kernel, stride, extent.
    pub name: &'static str,
    /// Images.
    pub batch: usize,
    /// Input and output channels of all groups.
    pub channels: [usize; 2],
    /// Groups of channels.
    pub group: usize,
    /// Taps.
    pub kernel: usize,
    /// Outputs from an input to the next.
    pub stride: usize,
    /// Outputs from a tap to the next.
    pub dilation: usize,
    /// Outputs that are left out, at the begin and at the end.
    pub pad: usize,
    /// Outputs that are added at the end.
    pub output_padding: usize,
    /// Extents of an input plane.
    pub input: &'static [usize],
}

/// A layer with one image, one group and no dilation.
const fn layer(
    name: &'static str,
    channels: [usize; 2],
    [kernel, stride, pad]: [usize; 3],
    input: &'static [usize],
) -> Layer {
    Layer { name, batch: 1, channels, group: 1, kernel, stride, dilation: 1, pad, output_padding: 0, input }
}

/// Generators, decoders of segmentation networks, super-resolution, vocoders, heads of detectors and pose estimators.
pub const LAYERS: [Layer; 24] = [
    layer("dcgan1_100x1024_k4s1_1", [100, 1024], [4, 1, 0], &[1, 1]),
    layer("dcgan2_1024x512_k4s2_4", [1024, 512], [4, 2, 1], &[4, 4]),
    layer("dcgan4_256x128_k4s2_16", [256, 128], [4, 2, 1], &[16, 16]),
    layer("dcgan5_128x3_k4s2_32", [128, 3], [4, 2, 1], &[32, 32]),
    // Layer 4 in batches, under a name that no filter for layer 4 takes.
    Layer { batch: 16, ..layer("dcgan16_256x128_k4s2_16", [256, 128], [4, 2, 1], &[16, 16]) },
    layer("unet1_1024x512_k2s2_28", [1024, 512], [2, 2, 0], &[28, 28]),
    layer("unet3_256x128_k2s2_112", [256, 128], [2, 2, 0], &[112, 112]),
    Layer { output_padding: 1, ..layer("cyclegan1_256x128_k3s2_64", [256, 128], [3, 2, 1], &[64, 64]) },
    layer("pix2pix_1024x512_k4s2_8", [1024, 512], [4, 2, 1], &[8, 8]),
    layer("pix2pixlast_128x3_k4s2_128", [128, 3], [4, 2, 1], &[128, 128]),
    Layer { output_padding: 2, ..layer("fsrcnnx3_56x1_k9s3_128", [56, 1], [9, 3, 4], &[128, 128]) },
    layer("fcn_21x21_k4s2_16", [21, 21], [4, 2, 1], &[16, 16]),
    Layer { group: 21, ..layer("fcn8sdw_21_k16s8_32", [21, 21], [16, 8, 4], &[32, 32]) },
    layer("sam2_64x32_k2s2_128", [64, 32], [2, 2, 0], &[128, 128]),
    layer("dbnet1_24x24_k2s2_160", [24, 24], [2, 2, 0], &[160, 160]),
    layer("dbnet2_24x1_k2s2_320", [24, 1], [2, 2, 0], &[320, 320]),
    layer("hifi1_512x256_k16s8_100", [512, 256], [16, 8, 4], &[100]),
    layer("hifi3_128x64_k4s2_6400", [128, 64], [4, 2, 1], &[6400]),
    layer("pose1_2048x256_k4s2_8x6", [2048, 256], [4, 2, 1], &[8, 6]),
    layer("pose3_256x256_k4s2_32x24", [256, 256], [4, 2, 1], &[32, 24]),
    layer("vnet_64x32_k2s2_16c", [64, 32], [2, 2, 0], &[16, 16, 16]),
    Layer { group: 256, ..layer("dw_256_k4s2_32", [256, 256], [4, 2, 1], &[32, 32]) },
    Layer { dilation: 2, output_padding: 1, ..layer("dil_64x64_k3s2d2_32", [64, 64], [3, 2, 2], &[32, 32]) },
    layer("s1_64x64_k3s1_64", [64, 64], [3, 1, 1], &[64, 64]),
];

impl Layer {
    /// Multiply-adds, counted alike for every form: each input element times each tap of its group.
    pub fn macs(&self) -> u64 {
        let [cin, cout] = self.channels;
        let taps = self.kernel.pow(self.input.len() as u32);
        (self.batch * cin * (cout / self.group) * taps * self.input.iter().product::<usize>()) as u64
    }

    /// What is computed.
    ///
    /// # Errors
    /// As [`DeconvGeometry::new`]; none of [`LAYERS`] has any.
    pub fn geometry(&self) -> tconvc_ir::Result<DeconvGeometry> {
        let [cin, cout] = self.channels;
        let pads = [self.pad as i64, self.pad as i64 - self.output_padding as i64];
        let axis = |&input: &usize| DeconvAxis::new(input, self.kernel, self.stride, self.dilation, pads);
        let axes = self.input.iter().map(axis).collect::<tconvc_ir::Result<_>>()?;
        DeconvGeometry::new(Channels::new(self.batch, cin, cout, self.group)?, axes)
    }
}
