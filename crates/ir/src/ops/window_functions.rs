//! What audio networks compute from a few numbers: HannWindow, HammingWindow, BlackmanWindow, MelWeightMatrix.

use super::support::inputs::{at_most, check_dtype, check_size, required};
use super::support::scalar_input::{known_one, length, one_f64, one_i64};
use super::support::values::from_f64s;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;
use std::f64::consts::TAU;

/// Which window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowKind {
    /// ONNX `HannWindow`.
    Hann,
    /// ONNX `HammingWindow`.
    Hamming,
    /// ONNX `BlackmanWindow`.
    Blackman,
}

/// ONNX `HannWindow`, `HammingWindow` and `BlackmanWindow`: `size [] -> output [size]`, a sum of cosines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Which one.
    pub kind: WindowKind,
    /// Element type of the output.
    pub output_dtype: DType,
    /// The first `size` of `size + 1` points, for windows that follow each other.
    pub periodic: bool,
}

/// ONNX `MelWeightMatrix`: `num_mel_bins [], dft_length [], sample_rate [], lower_edge_hertz [], upper_edge_hertz [] ->
/// output [dft_length/2 + 1, num_mel_bins]`, triangles that overlap by half on the mel scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MelWeightMatrix {
    /// Element type of the output.
    pub output_dtype: DType,
}

const KINDS: [(&str, WindowKind, [f64; 3]); 3] = [
    ("HannWindow", WindowKind::Hann, [0.5, -0.5, 0.0]),
    // ONNX's evaluator and its definition have 25/46.
    ("HammingWindow", WindowKind::Hamming, [25.0 / 46.0, -21.0 / 46.0, 0.0]),
    ("BlackmanWindow", WindowKind::Blackman, [0.42, -0.5, 0.08]),
];

fn read_dtype(attributes: &mut Attributes) -> Result<DType> {
    match attributes.dtype("output_datatype")?.unwrap_or(DType::F32) {
        dtype if dtype.is_numeric() => Ok(dtype),
        other => Err(Error::attribute("output_datatype", format!("expected a number type, found {other}"))),
    }
}

fn write_dtype(dtype: DType) -> Attributes {
    if dtype == DType::F32 { Attributes::new() } else { Attributes::new().with("output_datatype", dtype) }
}

fn check_integer(input: InputInfo<'_>, index: usize, name: &'static str) -> Result<()> {
    check_dtype(index, name, input.ty.dtype, |dtype| matches!(dtype, DType::I32 | DType::I64), "i32 or i64")
}

/// An extent that an input states: a number, a symbol, or unknown.
fn stated(input: InputInfo<'_>, index: usize, name: &'static str) -> Result<Dim> {
    match (known_one(Some(input), index, name)?, input.extents) {
        (Some(value), _) => Ok(length(value, 0, index, name)?.into()),
        (None, Some([extent])) => Ok(extent.clone()),
        _ => Ok(Dim::unknown()),
    }
}

impl Window {
    pub(super) fn read(name: &str, mut attributes: Attributes) -> Result<Option<Self>> {
        let Some((_, kind, _)) = KINDS.iter().find(|(known, ..)| *known == name) else { return Ok(None) };
        let op = Self {
            kind: *kind,
            output_dtype: read_dtype(&mut attributes)?,
            periodic: attributes.flag("periodic", true)?,
        };
        attributes.finish("output_datatype, periodic")?;
        Ok(Some(op))
    }

    fn spelled(self) -> &'static (&'static str, WindowKind, [f64; 3]) {
        match self.kind {
            WindowKind::Hann => &KINDS[0],
            WindowKind::Hamming => &KINDS[1],
            WindowKind::Blackman => &KINDS[2],
        }
    }
}

impl Operator for Window {
    fn name(&self) -> &str {
        self.spelled().0
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = write_dtype(self.output_dtype);
        if !self.periodic {
            attributes.set("periodic", false);
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 1)?;
        let size = required(inputs, 0, "size")?;
        check_integer(size, 0, "size")?;
        Ok(vec![ValueType { dtype: Some(self.output_dtype), shape: Some(vec![stated(size, 0, "size")?]) }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let size = length(one_i64(required(inputs, 0, "size")?, 0, "size")?, 0, 0, "size")?;
        check_size(DType::F64, &[size])?;
        let (_, _, [a, b, c]) = *self.spelled();
        let points = if self.periodic { size } else { size.saturating_sub(1) };
        let value = |i: usize| {
            if points == 0 {
                // A single point of a symmetric window.
                return 1.0;
            }
            let angle = TAU * i as f64 / points as f64;
            a + b * angle.cos() + c * (2.0 * angle).cos()
        };
        Ok(vec![from_f64s(self.output_dtype, &[size], &(0..size).map(value).collect::<Vec<_>>())?])
    }
}

impl MelWeightMatrix {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let output_dtype = read_dtype(&mut attributes)?;
        attributes.finish("output_datatype")?;
        Ok(Self { output_dtype })
    }
}

/// Hertz to mel, and back.
fn mel(hertz: f64) -> f64 {
    2595.0 * (1.0 + hertz / 700.0).log10()
}

fn hertz(mel: f64) -> f64 {
    700.0 * (10f64.powf(mel / 2595.0) - 1.0)
}

impl Operator for MelWeightMatrix {
    fn name(&self) -> &str {
        "MelWeightMatrix"
    }

    fn attributes(&self) -> Attributes {
        write_dtype(self.output_dtype)
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 5)?;
        let (bins, dft) = (required(inputs, 0, "num_mel_bins")?, required(inputs, 1, "dft_length")?);
        let rate = required(inputs, 2, "sample_rate")?;
        for (index, name, input) in
            [(0, "num_mel_bins", bins), (1, "dft_length", dft), (2, "sample_rate", rate)]
        {
            check_integer(input, index, name)?;
        }
        for (index, name) in [(3, "lower_edge_hertz"), (4, "upper_edge_hertz")] {
            check_dtype(index, name, required(inputs, index, name)?.ty.dtype, DType::is_float, "floats")?;
        }
        let spectrum = stated(dft, 1, "dft_length")?.floor_div(2)?.add(&1.into())?;
        let shape = vec![spectrum, stated(bins, 0, "num_mel_bins")?];
        Ok(vec![ValueType { dtype: Some(self.output_dtype), shape: Some(shape) }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let integer = |index: usize, name: &'static str| one_i64(required(inputs, index, name)?, index, name);
        let real = |index: usize, name: &'static str| one_f64(required(inputs, index, name)?, index, name);
        let bins = length(integer(0, "num_mel_bins")?, 0, 0, "num_mel_bins")?;
        let dft = length(integer(1, "dft_length")?, 0, 1, "dft_length")?;
        let rate = length(integer(2, "sample_rate")?, 1, 2, "sample_rate")? as f64;
        let (low, high) = (real(3, "lower_edge_hertz")?, real(4, "upper_edge_hertz")?);
        let shape = [dft / 2 + 1, bins];
        check_size(DType::F64, &shape)?;
        let (first, last) = (mel(low), mel(high));
        // Corners of the triangles as bins of the spectrum, cut to whole ones.
        let corner = |i: usize| {
            let at = first + i as f64 * (last - first) / (bins + 2) as f64;
            ((dft + 1) as f64 * hertz(at) / rate).floor()
        };
        let mut weights = vec![0.0; shape[0] * bins];
        for bin in 0..bins {
            let [from, peak, to] = [corner(bin), corner(bin + 1), corner(bin + 2)];
            for (row, weight) in weights.chunks_mut(bins).map(|row| &mut row[bin]).enumerate() {
                let row = row as f64;
                if row == peak && from == peak {
                    *weight = 1.0;
                } else if from <= row && row <= peak {
                    *weight = (row - from) / (peak - from);
                } else if peak < row && row < to {
                    *weight = (to - row) / (to - peak);
                }
            }
        }
        Ok(vec![from_f64s(self.output_dtype, &shape, &weights)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(kind: WindowKind, periodic: bool, size: i64) -> Result<Vec<f64>> {
        let op = Window { kind, periodic, output_dtype: DType::F64 };
        assert_eq!(Window::read(op.name(), op.attributes()), Ok(Some(op)));
        op.eval(&[Some(&Tensor::scalar(size))], 1)?[0].to_f64s()
    }

    #[test]
    fn windows_of_four_and_five_points() {
        let close = |found: Vec<f64>, expected: &[f64]| {
            assert_eq!(found.len(), expected.len());
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
        };
        close(window(WindowKind::Hann, true, 4).unwrap(), &[0.0, 0.5, 1.0, 0.5]);
        close(window(WindowKind::Hann, false, 5).unwrap(), &[0.0, 0.5, 1.0, 0.5, 0.0]);
        close(window(WindowKind::Hamming, true, 4).unwrap(), &[4.0 / 46.0, 25.0 / 46.0, 1.0, 25.0 / 46.0]);
        close(window(WindowKind::Blackman, true, 4).unwrap(), &[0.0, 0.34, 1.0, 0.34]);
        close(window(WindowKind::Blackman, false, 1).unwrap(), &[1.0]);
        close(window(WindowKind::Hann, true, 0).unwrap(), &[]);
        assert!(window(WindowKind::Hann, true, -1).unwrap_err().to_string().contains("(size)"));
        assert!(window(WindowKind::Hann, true, i64::MAX).is_err());
    }

    #[test]
    fn triangles_stand_on_the_mel_scale() {
        let op = MelWeightMatrix { output_dtype: DType::F32 };
        let numbers = [2i64, 16, 8000].map(Tensor::scalar);
        let edges = [Tensor::scalar(0f32), Tensor::scalar(4000f32)];
        let inputs: Vec<Option<&Tensor>> = numbers.iter().chain(&edges).map(Some).collect();
        let y = op.eval(&inputs, 1).unwrap().remove(0);
        assert_eq!(y.shape(), [9, 2]);
        // Corners at bins 0, 0.9 and 2.6 and 5 (floored).
        let expected = |bin: usize| y.to_f64s().unwrap().into_iter().skip(bin).step_by(2).collect::<Vec<_>>();
        let corner = |i: f64| (17.0 * hertz(mel(4000.0) * i / 4.0) / 8000.0).floor();
        for (bin, from) in [(0, 0.0), (1, 1.0)] {
            let peak = corner(from + 1.0) as usize;
            assert_eq!(expected(bin)[peak], 1.0, "{:?}", expected(bin));
            assert_eq!(expected(bin).iter().filter(|&&weight| weight == 1.0).count(), 1);
        }
        let mut wrong = inputs.clone();
        let negative = Tensor::scalar(-3i64);
        wrong[1] = Some(&negative);
        assert!(op.eval(&wrong, 1).unwrap_err().to_string().contains("dft_length"));
    }
}
