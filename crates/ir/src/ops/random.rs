//! Random tensors: RandomUniform and RandomNormal, their Like forms, Bernoulli and Multinomial.
//!
//! ONNX leaves the generator open. This is NumPy's legacy one (MT19937), as ONNX's reference implementation uses it, so that
//! a seed means the same there and here. Without a seed the generator starts from a fixed one: a program gives the same
//! results on every run.

use super::support::inputs::{at_most, check_dtype, check_size, required};
use super::support::values::from_f64s;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// Generator MT19937 of Matsumoto and Nishimura (1998), seeded and read as NumPy's `RandomState` is.
pub(super) struct Mersenne {
    state: [u32; 624],
    next: usize,
    spare: Option<f64>,
}

impl Mersenne {
    /// Starts from the low 32 bits of a seed.
    pub(super) fn new(seed: i64) -> Self {
        let mut state = [seed as u32; 624];
        for i in 1..624 {
            let before = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(i as u32);
        }
        Self { state, next: 624, spare: None }
    }

    fn word(&mut self) -> u32 {
        if self.next == 624 {
            for i in 0..624 {
                let mixed = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7fff_ffff);
                let odd = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + 397) % 624] ^ (mixed >> 1) ^ odd;
            }
            self.next = 0;
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// Uniform in `[0, 1)`, 53 bits.
    pub(super) fn uniform(&mut self) -> f64 {
        let (high, low) = (self.word() >> 5, self.word() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    /// Standard normal, by Marsaglia's polar method.
    pub(super) fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let (x, y) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let square = x * x + y * y;
            if square < 1.0 && square != 0.0 {
                let factor = (-2.0 * square.ln() / square).sqrt();
                self.spare = Some(factor * x);
                return factor * y;
            }
        }
    }
}

/// A distribution with its parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distribution {
    /// Between `low` and `high`.
    Uniform {
        /// Least value.
        low: f32,
        /// Bound above.
        high: f32,
    },
    /// Bell-shaped.
    Normal {
        /// Mean.
        mean: f32,
        /// Standard deviation.
        scale: f32,
    },
}

/// ONNX `RandomUniform`, `RandomNormal`: `-> output`; `RandomUniformLike`, `RandomNormalLike`: `input -> output` of its shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Random {
    /// What is drawn from.
    pub distribution: Distribution,
    /// Shape of the output; `None` for the Like forms, which take that of their input.
    pub shape: Option<Vec<usize>>,
    /// Element type of the output; `None` is f32, or that of the input.
    pub dtype: Option<DType>,
    /// Seed; a float in ONNX.
    pub seed: Option<f32>,
}

/// ONNX `Bernoulli`: `input (probabilities) -> output` of 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bernoulli {
    /// Element type of the output; `None` is that of the input.
    pub dtype: Option<DType>,
    /// Seed.
    pub seed: Option<f32>,
}

/// ONNX `Multinomial`: `input [batch, classes] (log-probabilities) -> output [batch, sample_size]` of class numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Multinomial {
    /// Element type of the output: i32 or i64.
    pub dtype: DType,
    /// Number of draws.
    pub sample_size: usize,
    /// Seed.
    pub seed: Option<f32>,
}

fn generator(seed: Option<f32>) -> Mersenne {
    Mersenne::new(seed.map_or(0, |seed| seed as i64))
}

fn write_common(attributes: &mut Attributes, dtype: Option<DType>, seed: Option<f32>) {
    if let Some(dtype) = dtype {
        attributes.set("dtype", dtype);
    }
    if let Some(seed) = seed {
        attributes.set("seed", seed);
    }
}

impl Random {
    /// Reads the operator of that name; `Ok(None)` when the name is none of the four.
    ///
    /// # Errors
    /// When an attribute is missing, unknown or out of range.
    pub fn read(name: &str, mut attributes: Attributes) -> Result<Option<Self>> {
        let uniform = match name {
            "RandomUniform" | "RandomUniformLike" => true,
            "RandomNormal" | "RandomNormalLike" => false,
            _ => return Ok(None),
        };
        let mut number = |name, default| Ok::<_, Error>(attributes.float(name)?.unwrap_or(default));
        let distribution = if uniform {
            Distribution::Uniform { low: number("low", 0.0)?, high: number("high", 1.0)? }
        } else {
            Distribution::Normal { mean: number("mean", 0.0)?, scale: number("scale", 1.0)? }
        };
        let shape = if name.ends_with("Like") {
            None
        } else {
            let shape = attributes.ints("shape")?.ok_or_else(|| Error::attribute("shape", "is required"))?;
            let extent = |&extent: &i64| {
                usize::try_from(extent)
                    .map_err(|_| Error::attribute("shape", format!("expected 0 or more, found {extent}")))
            };
            Some(shape.iter().map(extent).collect::<Result<_>>()?)
        };
        let op =
            Self { distribution, shape, dtype: attributes.dtype("dtype")?, seed: attributes.float("seed")? };
        attributes.finish("dtype, high, low, mean, scale, seed, shape where the operator has them")?;
        Ok(Some(op))
    }

    fn output_dtype(&self, input: Option<DType>) -> Result<Option<DType>> {
        let dtype = self.dtype.or(input).or(self.shape.as_ref().map(|_| DType::F32));
        match dtype {
            Some(dtype) if !dtype.is_float() => {
                Err(Error::attribute("dtype", format!("expected a float type, found {dtype}")))
            }
            dtype => Ok(dtype),
        }
    }
}

impl Operator for Random {
    fn name(&self) -> &str {
        match (self.distribution, &self.shape) {
            (Distribution::Uniform { .. }, Some(_)) => "RandomUniform",
            (Distribution::Uniform { .. }, None) => "RandomUniformLike",
            (Distribution::Normal { .. }, Some(_)) => "RandomNormal",
            (Distribution::Normal { .. }, None) => "RandomNormalLike",
        }
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        let [a, b] = match self.distribution {
            Distribution::Uniform { low, high } => [("low", low, 0.0), ("high", high, 1.0)],
            Distribution::Normal { mean, scale } => [("mean", mean, 0.0), ("scale", scale, 1.0)],
        };
        for (name, value, default) in [a, b] {
            if value != default {
                attributes.set(name, value);
            }
        }
        if let Some(shape) = &self.shape {
            attributes.set("shape", shape.as_slice());
        }
        write_common(&mut attributes, self.dtype, self.seed);
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        if let Some(shape) = &self.shape {
            at_most(inputs, 0)?;
            let dtype = self.output_dtype(None)?;
            return Ok(vec![ValueType {
                dtype,
                shape: Some(shape.iter().copied().map(Dim::from).collect()),
            }]);
        }
        at_most(inputs, 1)?;
        let input = required(inputs, 0, "input")?.ty;
        Ok(vec![ValueType { dtype: self.output_dtype(input.dtype)?, shape: input.shape.clone() }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (shape, input) = match &self.shape {
            Some(shape) => (shape.as_slice(), None),
            None => {
                let input = required(inputs, 0, "input")?;
                (input.shape(), Some(input.dtype()))
            }
        };
        let dtype = self.output_dtype(input)?.unwrap_or(DType::F32);
        check_size(dtype, shape)?;
        let mut random = generator(self.seed);
        let mut draw = || match self.distribution {
            Distribution::Uniform { low, high } => {
                f64::from(low) + (f64::from(high) - f64::from(low)) * random.uniform()
            }
            Distribution::Normal { mean, scale } => f64::from(mean) + f64::from(scale) * random.normal(),
        };
        let data: Vec<f64> = (0..shape.iter().product()).map(|_: usize| draw()).collect();
        Ok(vec![from_f64s(dtype, shape, &data)?])
    }
}

impl Bernoulli {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let op = Self { dtype: attributes.dtype("dtype")?, seed: attributes.float("seed")? };
        attributes.finish("dtype, seed")?;
        Ok(op)
    }
}

impl Operator for Bernoulli {
    fn name(&self) -> &str {
        "Bernoulli"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        write_common(&mut attributes, self.dtype, self.seed);
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 1)?;
        let input = required(inputs, 0, "input")?.ty;
        check_dtype(0, "input", input.dtype, DType::is_float, "floats")?;
        Ok(vec![ValueType { dtype: self.dtype.or(input.dtype), shape: input.shape.clone() }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 1)?;
        let input = required(inputs, 0, "input")?;
        let mut random = generator(self.seed);
        let drawn: Vec<bool> = input.to_f64s()?.into_iter().map(|p| random.uniform() < p).collect();
        let dtype = self.dtype.unwrap_or(input.dtype());
        Ok(vec![super::cast::cast(&Tensor::from_bools(input.shape(), drawn)?, dtype)?])
    }
}

impl Multinomial {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let dtype = attributes.dtype("dtype")?.unwrap_or(DType::I32);
        if !matches!(dtype, DType::I32 | DType::I64) {
            return Err(Error::attribute("dtype", format!("expected i32 or i64, found {dtype}")));
        }
        let sample_size = attributes.int("sample_size")?.unwrap_or(1);
        let sample_size = usize::try_from(sample_size).map_err(|_| {
            Error::attribute("sample_size", format!("expected 0 or more, found {sample_size}"))
        })?;
        let seed = attributes.float("seed")?;
        attributes.finish("dtype, sample_size, seed")?;
        Ok(Self { dtype, sample_size, seed })
    }
}

impl Operator for Multinomial {
    fn name(&self) -> &str {
        "Multinomial"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        if self.sample_size != 1 {
            attributes.set("sample_size", self.sample_size as i64);
        }
        write_common(&mut attributes, Some(self.dtype).filter(|&dtype| dtype != DType::I32), self.seed);
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 1)?;
        let input = required(inputs, 0, "input")?.ty;
        check_dtype(0, "input", input.dtype, DType::is_float, "floats")?;
        let batch = match input.shape.as_deref() {
            None => Dim::unknown(),
            Some([batch, _]) => batch.clone(),
            Some(_) => {
                return Err(Error::input(0, "input", format!("expected [batch, classes], found {input}")));
            }
        };
        Ok(vec![ValueType::new(self.dtype, [batch, self.sample_size.into()])])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 1)?;
        let input = required(inputs, 0, "input")?;
        let &[batch, classes] = input.shape() else {
            return Err(Error::input(
                0,
                "input",
                format!("expected [batch, classes], found {:?}", input.shape()),
            ));
        };
        let shape = [batch, self.sample_size];
        check_size(self.dtype, &shape)?;
        if classes == 0 && self.sample_size > 0 {
            return Err(Error::input(0, "input", "expected at least one class"));
        }
        let logits = input.to_f64s()?;
        let mut random = generator(self.seed);
        let mut drawn = vec![];
        for row in logits.chunks(classes.max(1)).take(batch) {
            let weights: Vec<f64> = row.iter().map(|x| x.exp()).collect();
            let total: f64 = weights.iter().sum();
            for _ in 0..self.sample_size {
                let mut left = random.uniform() * total;
                let class = weights.iter().position(|weight| {
                    left -= weight;
                    left < 0.0
                });
                drawn.push(class.unwrap_or(classes - 1) as i64);
            }
        }
        Ok(vec![super::cast::cast(&Tensor::from_vec(shape, drawn)?, self.dtype)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generator_is_that_of_numpy() {
        // numpy.random.RandomState(0).random_sample(3), .randn(3)
        let mut random = Mersenne::new(0);
        let uniform: Vec<f64> = (0..3).map(|_| random.uniform()).collect();
        assert_eq!(uniform, [0.548_813_503_927_324_8, 0.715_189_366_372_419_5, 0.602_763_376_071_643_9]);
        let mut random = Mersenne::new(0);
        let normal: Vec<f64> = (0..3).map(|_| random.normal()).collect();
        let expected = [1.764_052_345_967_664, 0.400_157_208_367_223_3, 0.978_737_984_105_739_2];
        assert!(normal.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-14), "{normal:?}");
    }

    #[test]
    fn same_seed_same_numbers_and_attributes_read_back() {
        let op = Random {
            distribution: Distribution::Uniform { low: -2.0, high: 1.0 },
            shape: Some(vec![3, 0, 2]),
            dtype: Some(DType::F16),
            seed: Some(4.0),
        };
        assert_eq!(Random::read("RandomUniform", op.attributes()), Ok(Some(op.clone())));
        let op = Random { shape: Some(vec![200]), ..op };
        let y = op.eval(&[], 1).unwrap();
        assert_eq!(y, op.eval(&[], 1).unwrap());
        assert!(y[0].to_f64s().unwrap().iter().all(|y| (-2.0..=1.0).contains(y)));
        let like = Random {
            distribution: Distribution::Normal { mean: 5.0, scale: 0.5 },
            shape: None,
            dtype: None,
            seed: None,
        };
        assert_eq!(Random::read("RandomNormalLike", like.attributes()), Ok(Some(like.clone())));
        let z =
            like.eval(&[Some(&Tensor::zeros(DType::F64, [400]).unwrap())], 1).unwrap()[0].to_f64s().unwrap();
        let mean = z.iter().sum::<f64>() / 400.0;
        assert!((mean - 5.0).abs() < 0.15, "{mean}");
    }

    #[test]
    fn certain_outcomes_are_certain() {
        let p = Tensor::from_vec([3], vec![0f32, 1.0, 1.0]).unwrap();
        let op = Bernoulli { dtype: Some(DType::Bool), seed: None };
        assert_eq!(
            op.eval(&[Some(&p)], 1).unwrap()[0],
            Tensor::from_bools([3], [false, true, true]).unwrap()
        );
        let logits = Tensor::from_vec([2, 2], vec![0f32, f32::NEG_INFINITY, -900.0, 3.0]).unwrap();
        let op = Multinomial { dtype: DType::I64, sample_size: 3, seed: Some(1.0) };
        assert_eq!(Multinomial::read(op.attributes()), Ok(op));
        let y = op.eval(&[Some(&logits)], 1).unwrap();
        assert_eq!(y[0], Tensor::from_vec([2, 3], vec![0i64, 0, 0, 1, 1, 1]).unwrap());
    }
}
