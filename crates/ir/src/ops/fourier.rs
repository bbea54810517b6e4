//! Fourier transforms: DFT and STFT. Computed in f64, in time that grows with the prime factors of the length.

use super::support::inputs::{at_most, check_dtype, common_dtype, optional, required, resolve_axis};
use super::support::lists::output_shape;
use super::support::scalar_input::{known_one, length, one_i64};
use super::support::values::from_f64s;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::{Tensor, element_count};
use crate::value_type::ValueType;
use std::f64::consts::TAU;

/// ONNX `DFT` of opset 20: `input [.., 1 or 2], dft_length?, axis? -> output [.., 2]` (`[.., 1]` of the one-sided inverse).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dft {
    /// From the spectrum to the signal.
    pub inverse: bool,
    /// Only the half of the spectrum that a real signal has.
    pub onesided: bool,
}

/// ONNX `STFT`: `signal [N, length, 1 or 2], frame_step, window? [frame], frame_length? -> output [N, frames, bins, 2]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stft {
    /// Only the half of the spectrum that a real signal has.
    pub onesided: bool,
}

/// A complex number.
type Complex = [f64; 2];

fn times(a: Complex, b: Complex) -> Complex {
    [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]]
}

/// `e^(-2 pi j i / n)` for each `i` below `n`.
fn roots(n: usize) -> Vec<Complex> {
    let root = |i: usize| {
        let angle = -TAU * i as f64 / n as f64;
        [angle.cos(), angle.sin()]
    };
    (0..n).map(root).collect()
}

/// The transform of `values[first]`, `values[first + step]` .. `count` of them; `roots` are those of the whole length.
fn transform(values: &[Complex], first: usize, step: usize, count: usize, roots: &[Complex]) -> Vec<Complex> {
    let Some(factor) = (2..=count).find(|factor| count.is_multiple_of(*factor)) else {
        return values.get(first).copied().into_iter().take(count).collect();
    };
    let length = count / factor;
    let parts: Vec<Vec<Complex>> = (0..factor)
        .map(|part| transform(values, first + part * step, step * factor, length, roots))
        .collect();
    let stride = roots.len() / count;
    let sum = |k: usize| {
        let term = |(part, spectrum): (usize, &Vec<Complex>)| {
            times(spectrum[k % length], roots[part * k % count * stride])
        };
        parts.iter().enumerate().map(term).fold([0.0; 2], |sum, term| [sum[0] + term[0], sum[1] + term[1]])
    };
    (0..count).map(sum).collect()
}

/// The transform of a row, or its inverse with the factor of one over the length.
fn fourier(row: &mut Vec<Complex>, roots: &[Complex], inverse: bool) {
    let conjugate = |row: &mut Vec<Complex>, factor: f64| {
        for value in row.iter_mut() {
            *value = [value[0] * factor, -value[1] * factor];
        }
    };
    let count = row.len();
    if inverse {
        conjugate(row, 1.0);
    }
    *row = transform(row, 0, 1, count, roots);
    if inverse {
        conjugate(row, 1.0 / count as f64);
    }
}

/// Number of bins that the spectrum of a real signal has.
fn half(length: &Dim) -> Result<Dim> {
    length.floor_div(2)?.add(&1.into())
}

/// Real numbers, or complex ones: what the last axis holds.
fn parts(name: &'static str, last: &Dim) -> Result<Option<usize>> {
    match last.known() {
        Some(parts @ (1 | 2)) => Ok(Some(parts)),
        None if last.known_i64().is_none() => Ok(None),
        _ => Err(Error::input(0, name, format!("expected 1 or 2 as the last extent, found {last}"))),
    }
}

impl Dft {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let op = Self {
            inverse: attributes.flag("inverse", false)?,
            onesided: attributes.flag("onesided", false)?,
        };
        attributes.finish("inverse, onesided; the axis is an input")?;
        Ok(op)
    }

    fn axis(axis: Option<i64>, rank: usize) -> Result<usize> {
        let axis = resolve_axis("axis", axis.unwrap_or(-2), rank)?;
        if axis + 1 == rank {
            return Err(Error::input(2, "axis", "the last axis holds real and imaginary parts"));
        }
        Ok(axis)
    }

    /// Checks how many parts a number has.
    fn check_parts(self, parts: usize) -> Result<()> {
        match (self.onesided, self.inverse, parts) {
            (true, false, 2) => {
                Err(Error::input(0, "input", "a one-sided spectrum is that of a real signal"))
            }
            (true, true, 1) => {
                Err(Error::input(0, "input", "expected a complex spectrum, the last extent is 1"))
            }
            _ => Ok(()),
        }
    }
}

impl Operator for Dft {
    fn name(&self) -> &str {
        "DFT"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        for (name, value) in [("inverse", self.inverse), ("onesided", self.onesided)] {
            if value {
                attributes.set(name, true);
            }
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 3)?;
        let x = required(inputs, 0, "input")?.ty;
        check_dtype(0, "input", x.dtype, DType::is_float, "floats")?;
        let integer = |dtype| matches!(dtype, DType::I32 | DType::I64);
        for (index, name) in [(1, "dft_length"), (2, "axis")] {
            let dtype = optional(inputs, index).and_then(|input| input.ty.dtype);
            check_dtype(index, name, dtype, integer, "i32 or i64")?;
        }
        let Some(shape) = &x.shape else { return Ok(vec![ValueType { dtype: x.dtype, shape: None }]) };
        let Some((last, signal)) = shape.split_last().filter(|(_, signal)| !signal.is_empty()) else {
            return Err(Error::input(0, "input", format!("expected [.., signal, 1 or 2], found {x}")));
        };
        if let Some(parts) = parts("input", last)? {
            self.check_parts(parts)?;
        }
        let mut shape = signal.to_vec();
        let axis = known_one(optional(inputs, 2), 2, "axis")?;
        if optional(inputs, 2).is_some() && axis.is_none() {
            shape.fill(Dim::unknown());
        } else {
            let axis = Self::axis(axis, signal.len() + 1)?;
            let found = known_one(optional(inputs, 1), 1, "dft_length")?;
            let length = match (optional(inputs, 1), found) {
                (Some(_), None) => Dim::unknown(),
                (_, Some(value)) => length(value, 1, 1, "dft_length")?.into(),
                (None, None) if self.onesided && self.inverse => {
                    signal[axis].sub(&1.into())?.mul(&2.into())?
                }
                (None, None) => signal[axis].clone(),
            };
            shape[axis] = if self.onesided && !self.inverse { half(&length)? } else { length };
        }
        shape.push((if self.onesided && self.inverse { 1 } else { 2usize }).into());
        Ok(vec![ValueType { dtype: x.dtype, shape: Some(shape) }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0, "input")?;
        let shape = output_shape(self, inputs)?;
        let axis = optional(inputs, 2).map(|axis| one_i64(axis, 2, "axis")).transpose()?;
        let axis = Self::axis(axis, x.rank())?;
        let length = match optional(inputs, 1) {
            Some(given) => length(one_i64(given, 1, "dft_length")?, 1, 1, "dft_length")?,
            None if self.onesided && self.inverse => shape[axis],
            None => x.shape()[axis],
        };
        let (parts, outputs) = (x.shape()[x.rank() - 1], shape[shape.len() - 1]);
        let (found, made) = (x.shape()[axis], shape[axis]);
        let inner: usize = x.shape()[axis + 1..x.rank() - 1].iter().product();
        let outer: usize = x.shape()[..axis].iter().product();
        element_count(&[length, 2])?;
        let data = x.to_f64s()?;
        let mut results = vec![0.0; element_count(&shape)?];
        if results.is_empty() {
            return Ok(vec![from_f64s(x.dtype(), &shape, &results)?]);
        }
        let roots = roots(length);
        for (before, after) in (0..outer).flat_map(|before| (0..inner).map(move |after| (before, after))) {
            let read = |i: usize| {
                let at = ((before * found + i) * inner + after) * parts;
                [data[at], if parts == 2 { data[at + 1] } else { 0.0 }]
            };
            let mut row = vec![[0.0; 2]; length];
            let given = if self.onesided && self.inverse { length / 2 + 1 } else { length };
            for i in 0..given.min(found) {
                row[i] = read(i);
                // The other half of the spectrum of a real signal is this one's mirror image.
                if given < length && i > 0 && length - i >= given {
                    row[length - i] = [row[i][0], -row[i][1]];
                }
            }
            fourier(&mut row, &roots, self.inverse);
            for (i, value) in row.into_iter().take(made).enumerate() {
                let at = ((before * made + i) * inner + after) * outputs;
                results[at..at + outputs].copy_from_slice(&value[..outputs]);
            }
        }
        Ok(vec![from_f64s(x.dtype(), &shape, &results)?])
    }
}

impl Stft {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let onesided = attributes.flag("onesided", true)?;
        attributes.finish("onesided")?;
        Ok(Self { onesided })
    }

    /// Length of a frame, when it is known: stated, the window's, or the signal's.
    fn frame_length(inputs: &[Option<InputInfo<'_>>], signal: &Dim) -> Result<Dim> {
        let window = optional(inputs, 2).map(|window| match window.ty.shape.as_deref() {
            None => Ok(Dim::unknown()),
            Some([length]) => Ok(length.clone()),
            Some(_) => {
                let problem = format!("expected [frame_length], found {}", window.ty);
                Err(Error::input(2, "window", problem))
            }
        });
        let window = window.transpose()?;
        let stated = optional(inputs, 3);
        match known_one(stated, 3, "frame_length")? {
            Some(value) => {
                let stated: Dim = length(value, 1, 3, "frame_length")?.into();
                if window.as_ref().is_some_and(|window| window.equals(&stated) == Some(false)) {
                    let problem = format!("expected {stated} as frame_length says, found {window:?}");
                    return Err(Error::input(2, "window", problem));
                }
                Ok(stated)
            }
            None => Ok(window.unwrap_or(if stated.is_some() { Dim::unknown() } else { signal.clone() })),
        }
    }
}

impl Operator for Stft {
    fn name(&self) -> &str {
        "STFT"
    }

    fn attributes(&self) -> Attributes {
        if self.onesided { Attributes::new() } else { Attributes::new().with("onesided", false) }
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 4)?;
        let (signal, step) = (required(inputs, 0, "signal")?.ty, required(inputs, 1, "frame_step")?);
        check_dtype(0, "signal", signal.dtype, DType::is_float, "floats")?;
        let window = optional(inputs, 2).and_then(|window| window.ty.dtype);
        common_dtype(&[(0, "signal", signal.dtype), (2, "window", window)])?;
        let step = known_one(Some(step), 1, "frame_step")?
            .map(|step| length(step, 1, 1, "frame_step"))
            .transpose()?;
        let (batch, samples) = match signal.shape.as_deref() {
            None => (Dim::unknown(), Dim::unknown()),
            Some([batch, samples, last]) => {
                if parts("signal", last)? == Some(2) && self.onesided {
                    return Err(Error::attribute("onesided", "expected 0, for the signal is complex"));
                }
                (batch.clone(), samples.clone())
            }
            Some(_) => {
                let problem = format!("expected [batch, samples, 1 or 2], found {signal}");
                return Err(Error::input(0, "signal", problem));
            }
        };
        let frame = Self::frame_length(inputs, &samples)?;
        let frames = match (samples.sub(&frame)?, step) {
            (rest, Some(step)) if !rest.is_unknown() => {
                if rest.known_i64().is_some_and(|rest| rest < 0) {
                    let problem = format!("{samples} samples are fewer than the {frame} of a frame");
                    return Err(Error::input(0, "signal", problem));
                }
                rest.floor_div(step as i64)?.add(&1.into())?
            }
            _ => Dim::unknown(),
        };
        let bins = if self.onesided { half(&frame)? } else { frame };
        Ok(vec![ValueType { dtype: signal.dtype, shape: Some(vec![batch, frames, bins, 2usize.into()]) }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (signal, step) = (required(inputs, 0, "signal")?, required(inputs, 1, "frame_step")?);
        let shape = output_shape(self, inputs)?;
        let [_, frames, bins, _] = shape[..] else { return Err(Error::Graph("four axes".into())) };
        let (samples, parts) = (signal.shape()[1], signal.shape()[2]);
        let step = length(one_i64(step, 1, "frame_step")?, 1, 1, "frame_step")?;
        let window = optional(inputs, 2).map(Tensor::to_f64s).transpose()?;
        let frame = match (optional(inputs, 3), &window) {
            (Some(stated), _) => length(one_i64(stated, 3, "frame_length")?, 1, 3, "frame_length")?,
            (None, Some(window)) => window.len(),
            (None, None) => samples,
        };
        let data = signal.to_f64s()?;
        let mut results = Vec::with_capacity(element_count(&shape)?);
        let roots = roots(frame);
        for image in data.chunks_exact((samples * parts).max(1)).filter(|_| bins > 0) {
            for start in (0..frames).map(|number| number * step) {
                let sample = |i: usize| {
                    let at = (start + i) * parts;
                    let weight = window.as_ref().map_or(1.0, |window| window[i]);
                    [image[at] * weight, if parts == 2 { image[at + 1] * weight } else { 0.0 }]
                };
                let mut row: Vec<Complex> = (0..frame).map(sample).collect();
                fourier(&mut row, &roots, false);
                results.extend(row.iter().take(bins).flatten());
            }
        }
        results.resize(shape.iter().product(), 0.0);
        Ok(vec![from_f64s(signal.dtype(), &shape, &results)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eval(op: &impl Operator, inputs: &[Option<&Tensor>]) -> Result<(Vec<usize>, Vec<f64>)> {
        let infos: Vec<_> = inputs.iter().map(|input| input.map(ValueType::of)).collect();
        let infos: Vec<_> = infos
            .iter()
            .zip(inputs)
            .map(|(ty, tensor)| Some(InputInfo { ty: ty.as_ref()?, constant: *tensor, extents: None }))
            .collect();
        op.infer(&infos, 1)?;
        let y = op.eval(inputs, 1)?.remove(0);
        Ok((y.shape().to_vec(), y.to_f64s()?))
    }

    fn signal(values: &[f64]) -> Tensor {
        Tensor::from_vec([1, values.len(), 1], values.to_vec()).unwrap()
    }

    fn close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-12, "{found:?} is not {expected:?}");
        }
    }

    const FORWARD: Dft = Dft { inverse: false, onesided: false };

    #[test]
    fn short_signals_have_the_spectra_of_the_definition() {
        let (shape, y) = eval(&FORWARD, &[Some(&signal(&[1.0, 2.0, 3.0, 4.0]))]).unwrap();
        assert_eq!(shape, [1, 4, 2]);
        close(&y, &[10.0, 0.0, -2.0, 2.0, -2.0, 0.0, -2.0, -2.0]);
        // One-sided, and padded with zeros to five.
        let half = Dft { onesided: true, ..FORWARD };
        let five = Tensor::scalar(5i64);
        let (shape, y) = eval(&half, &[Some(&signal(&[1.0])), Some(&five)]).unwrap();
        assert_eq!((shape, y), (vec![1, 3, 2], vec![1.0, 0.0, 1.0, 0.0, 1.0, 0.0]));
    }

    #[test]
    fn every_length_and_axis_agrees_with_the_sum() {
        for (length, axis) in (1..=12).flat_map(|length| [(length, -2i64), (length, 1), (length, -3)]) {
            let x = Tensor::seeded(DType::F64, [2, length, length, 2], length as u64).unwrap();
            let at = Tensor::scalar(axis);
            let (shape, y) = eval(&FORWARD, &[Some(&x), None, Some(&at)]).unwrap();
            assert_eq!(shape, x.shape());
            let data = x.to_f64s().unwrap();
            let (step, other) = if axis == -2 { (2, length * 2) } else { (length * 2, 2) };
            for (image, line, k) in
                (0..2 * length * length).map(|i| (i / length / length, i / length % length, i % length))
            {
                let first = image * length * length * 2 + line * other;
                let mut sum = [0.0; 2];
                for n in 0..length {
                    let angle = -TAU * (k * n) as f64 / length as f64;
                    let at = first + n * step;
                    let term = times([data[at], data[at + 1]], [angle.cos(), angle.sin()]);
                    sum = [sum[0] + term[0], sum[1] + term[1]];
                }
                close(&y[first + k * step..][..2], &sum);
            }
        }
    }

    #[test]
    fn the_inverse_gives_the_signal_back() {
        for length in 1..=9usize {
            let x = Tensor::seeded(DType::F64, [1, length, 1], 3).unwrap();
            let n = Tensor::scalar(length as i64);
            for onesided in [false, true] {
                let spectrum = Dft { inverse: false, onesided }.eval(&[Some(&x)], 1).unwrap().remove(0);
                let back = Dft { inverse: true, onesided };
                let (shape, y) = eval(&back, &[Some(&spectrum), Some(&n)]).unwrap();
                assert_eq!(shape, [1, length, if onesided { 1 } else { 2 }]);
                let real: Vec<f64> = y.iter().copied().step_by(shape[2]).collect();
                close(&real, &x.to_f64s().unwrap());
            }
        }
    }

    #[test]
    fn frames_are_windowed_and_transformed() {
        let x = signal(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        let step = Tensor::scalar(2i64);
        let window = Tensor::from_vec([2], vec![1.0, 0.5]).unwrap();
        let op = Stft { onesided: true };
        let (shape, y) = eval(&op, &[Some(&x), Some(&step), Some(&window)]).unwrap();
        assert_eq!(shape, [1, 2, 2, 2]);
        close(&y, &[2.0, 0.0, 0.0, 0.0, 5.0, 0.0, 1.0, 0.0]);
        let whole = eval(&Stft { onesided: false }, &[Some(&x), Some(&step)]).unwrap();
        assert_eq!(whole.0, [1, 1, 5, 2]);
        assert_eq!(Stft::read(op.attributes()), Ok(op));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let text = |op: &dyn Fn() -> Result<(Vec<usize>, Vec<f64>)>| op().unwrap_err().to_string();
        let x = signal(&[1.0, 2.0]);
        let (zero, last) = (Tensor::scalar(0i64), Tensor::scalar(-1i64));
        assert_eq!(
            text(&|| eval(&FORWARD, &[Some(&x), Some(&zero)])),
            "input 1 (dft_length): expected 1 to 2147483647, found 0"
        );
        assert_eq!(
            text(&|| eval(&FORWARD, &[Some(&x), None, Some(&last)])),
            "input 2 (axis): the last axis holds real and imaginary parts"
        );
        let complex = Tensor::zeros(DType::F32, [1, 4, 2]).unwrap();
        let half = Dft { onesided: true, ..FORWARD };
        assert!(text(&|| eval(&half, &[Some(&complex)])).contains("real signal"));
        let odd = Tensor::zeros(DType::F32, [1, 4, 3]).unwrap();
        assert!(text(&|| eval(&FORWARD, &[Some(&odd)])).contains("1 or 2 as the last extent"));
        let stft = Stft { onesided: true };
        let step = Tensor::scalar(1i64);
        let wide = Tensor::from_vec([3], vec![1.0; 3]).unwrap();
        assert!(text(&|| eval(&stft, &[Some(&x), Some(&step), Some(&wide)])).contains("fewer than the 3"));
        assert!(text(&|| eval(&stft, &[Some(&x), Some(&zero)])).contains("frame_step"));
        assert!(text(&|| eval(&stft, &[Some(&complex), Some(&step)])).contains("complex"));
        let empty = Tensor::zeros(DType::F32, [0, 4, 1]).unwrap();
        assert_eq!(eval(&stft, &[Some(&empty), Some(&step)]).unwrap().0, [0, 1, 3, 2]);
        let none = Tensor::zeros(DType::F32, [1, 0, 1]).unwrap();
        assert_eq!(eval(&FORWARD, &[Some(&none)]).unwrap().0, [1, 0, 2]);
    }
}
