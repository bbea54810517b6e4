//! RotaryEmbedding: pairs of elements turned by an angle that depends on their place.

use super::support::inputs::{at_most, check_dtype, common_dtype, optional, required};
use super::support::values::from_f64s;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `RotaryEmbedding`: `X, cos_cache, sin_cache, position_ids [N, length]? -> Y`.
///
/// `X [N, heads, length, size]` or `[N, length, heads * size]`; the caches are `[places, pairs]` with position_ids, else
/// `[N, length, pairs]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotaryEmbedding {
    /// Heads of a 3-D input.
    pub num_heads: usize,
    /// Elements of a head that are turned; 0 is all.
    pub rotary_embedding_dim: usize,
    /// Neighbours are pairs, not the first half with the second.
    pub interleaved: bool,
}

/// Extents: images, heads, places, elements of a head, pairs of these.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    heads: usize,
    length: usize,
    size: usize,
    pairs: usize,
}

impl RotaryEmbedding {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let mut count = |name: &str| {
            let value = attributes.int(name)?.unwrap_or(0);
            usize::try_from(value)
                .map_err(|_| Error::attribute(name, format!("expected 0 or more, found {value}")))
        };
        let op = Self {
            num_heads: count("num_heads")?,
            rotary_embedding_dim: count("rotary_embedding_dim")?,
            interleaved: attributes.flag("interleaved", false)?,
        };
        attributes.finish("interleaved, num_heads, rotary_embedding_dim")?;
        Ok(op)
    }

    fn sizes(&self, x: &[usize]) -> Result<Sizes> {
        let [batch, heads, length, size] = match *x {
            [batch, heads, length, size] => [batch, heads, length, size],
            [batch, length, hidden] if self.num_heads > 0 && hidden.is_multiple_of(self.num_heads) => {
                [batch, self.num_heads, length, hidden / self.num_heads]
            }
            [_, _, hidden] => {
                let problem = format!("expected a divisor of {hidden} elements, found {}", self.num_heads);
                return Err(Error::attribute("num_heads", problem));
            }
            _ => {
                let problem =
                    format!("expected [N, heads, length, size] or [N, length, hidden], found {x:?}");
                return Err(Error::input(0, "X", problem));
            }
        };
        let turned = if self.rotary_embedding_dim == 0 { size } else { self.rotary_embedding_dim };
        if turned > size || !turned.is_multiple_of(2) {
            let problem = format!("expected an even number up to {size}, found {turned}");
            return Err(Error::attribute("rotary_embedding_dim", problem));
        }
        Ok(Sizes { batch, heads, length, size, pairs: turned / 2 })
    }

    /// Checks the caches and positions against the data.
    fn check(sizes: Sizes, cos: &[usize], sin: &[usize], positions: Option<&[usize]>) -> Result<()> {
        let Sizes { batch, length, pairs, .. } = sizes;
        let expected = match positions {
            Some(found) if found != [batch, length] => {
                let problem = format!("expected [{batch}, {length}], found {found:?}");
                return Err(Error::input(3, "position_ids", problem));
            }
            Some(_) if matches!(cos, [_, found] if *found == pairs) => cos.to_vec(),
            Some(_) => {
                return Err(Error::input(
                    1,
                    "cos_cache",
                    format!("expected [places, {pairs}], found {cos:?}"),
                ));
            }
            None => vec![batch, length, pairs],
        };
        for (index, name, found) in [(1, "cos_cache", cos), (2, "sin_cache", sin)] {
            if found != expected {
                return Err(Error::input(index, name, format!("expected {expected:?}, found {found:?}")));
            }
        }
        Ok(())
    }
}

impl Operator for RotaryEmbedding {
    fn name(&self) -> &str {
        "RotaryEmbedding"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        let numbers = [
            ("num_heads", self.num_heads),
            ("rotary_embedding_dim", self.rotary_embedding_dim),
            ("interleaved", usize::from(self.interleaved)),
        ];
        for (name, value) in numbers {
            if value != 0 {
                attributes.set(name, value as i64);
            }
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 4)?;
        let x = required(inputs, 0, "X")?.ty;
        let (cos, sin) = (required(inputs, 1, "cos_cache")?.ty, required(inputs, 2, "sin_cache")?.ty);
        check_dtype(0, "X", x.dtype, DType::is_float, "floats")?;
        let types = [(0, "X", x.dtype), (1, "cos_cache", cos.dtype), (2, "sin_cache", sin.dtype)];
        let dtype = common_dtype(&types)?;
        let positions = optional(inputs, 3);
        if let Some(positions) = positions {
            check_dtype(3, "position_ids", positions.ty.dtype, |dtype| dtype == DType::I64, "i64")?;
        }
        if let Some(rank) = x.rank()
            && !(3..=4).contains(&rank)
        {
            let problem = format!("expected [N, heads, length, size] or [N, length, hidden], found {x}");
            return Err(Error::input(0, "X", problem));
        }
        let places = positions.map(|positions| positions.ty.known_shape());
        if let (Some(x), Some(cos), Some(sin)) = (x.known_shape(), cos.known_shape(), sin.known_shape())
            && places != Some(None)
        {
            Self::check(self.sizes(&x)?, &cos, &sin, places.flatten().as_deref())?;
        }
        Ok(vec![ValueType { dtype, shape: x.shape.clone() }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0, "X")?;
        let (cos, sin) = (required(inputs, 1, "cos_cache")?, required(inputs, 2, "sin_cache")?);
        let sizes = self.sizes(x.shape())?;
        let places = optional(inputs, 3);
        Self::check(sizes, cos.shape(), sin.shape(), places.map(Tensor::shape))?;
        let Sizes { batch, heads, length, size, pairs } = sizes;
        let (cosines, sines) = (cos.to_f64s()?, sin.to_f64s()?);
        let rows = match places {
            None => (0..batch * length).collect(),
            Some(places) => {
                let count = cos.shape()[0];
                let row = |place: i64| usize::try_from(place).ok().filter(|&place| place < count);
                let rows = places.to_i64s()?.into_iter().map(|place| {
                    row(place).ok_or_else(|| {
                        Error::input(3, "position_ids", format!("{place} is none of {count} places"))
                    })
                });
                rows.collect::<Result<Vec<usize>>>()?
            }
        };
        let mut data = x.to_f64s()?;
        for (number, head) in data.chunks_mut(size.max(1)).enumerate() {
            let place = if x.rank() == 4 {
                number / length / heads * length + number % length
            } else {
                number / heads
            };
            for pair in 0..pairs {
                let [a, b] = if self.interleaved { [2 * pair, 2 * pair + 1] } else { [pair, pairs + pair] };
                let at = rows[place] * pairs + pair;
                let (x, y) = (head[a], head[b]);
                head[a] = cosines[at] * x - sines[at] * y;
                head[b] = sines[at] * x + cosines[at] * y;
            }
        }
        Ok(vec![from_f64s(x.dtype(), x.shape(), &data)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Op;

    fn run(op: RotaryEmbedding, inputs: &[Option<&Tensor>]) -> Result<Vec<f64>> {
        assert_eq!(RotaryEmbedding::read(op.attributes()), Ok(op));
        Op::from(op).eval(inputs, 1)?[0].to_f64s()
    }

    fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::from_vec(shape, values.to_vec()).unwrap()
    }

    #[test]
    fn pairs_turn_by_quarters() {
        let x = tensor(&[1, 1, 2, 4], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        // No turn for the first pair and a quarter for the second; the other way around at the second place.
        let (cos, sin) = (tensor(&[2, 2], &[1.0, 0.0, 0.0, 1.0]), tensor(&[2, 2], &[0.0, 1.0, 1.0, 0.0]));
        let ids = Tensor::from_i64s(&[0, 1]).reshaped([1, 2]).unwrap();
        let plain = RotaryEmbedding { num_heads: 0, rotary_embedding_dim: 0, interleaved: false };
        let inputs = [Some(&x), Some(&cos), Some(&sin), Some(&ids)];
        assert_eq!(run(plain, &inputs).unwrap(), [1.0, -4.0, 3.0, 2.0, -7.0, 6.0, 5.0, 8.0]);
        let neighbours = RotaryEmbedding { interleaved: true, ..plain };
        assert_eq!(run(neighbours, &inputs).unwrap(), [1.0, 2.0, -4.0, 3.0, -6.0, 5.0, 7.0, 8.0]);
        // Half of each head, with the caches of each place; and three axes.
        let (cos, sin) = (tensor(&[1, 2, 1], &[0.0, 1.0]), tensor(&[1, 2, 1], &[1.0, 0.0]));
        let half = RotaryEmbedding { rotary_embedding_dim: 2, ..plain };
        let expected = [-2.0, 1.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        assert_eq!(run(half, &[Some(&x), Some(&cos), Some(&sin)]).unwrap(), expected);
        let flat = x.reshaped([1, 2, 4]).unwrap();
        let headed = RotaryEmbedding { num_heads: 1, ..half };
        assert_eq!(run(headed, &[Some(&flat), Some(&cos), Some(&sin)]).unwrap(), expected);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let (x, cache) = (tensor(&[1, 1, 1, 2], &[0.0; 2]), tensor(&[3, 1], &[0.0; 3]));
        let plain = RotaryEmbedding { num_heads: 0, rotary_embedding_dim: 0, interleaved: false };
        let outside = Tensor::from_i64s(&[3]).reshaped([1, 1]).unwrap();
        let error = run(plain, &[Some(&x), Some(&cache), Some(&cache), Some(&outside)]).unwrap_err();
        assert_eq!(error.to_string(), "input 3 (position_ids): 3 is none of 3 places");
        let error = run(plain, &[Some(&x), Some(&cache), Some(&cache)]).unwrap_err();
        assert_eq!(error.to_string(), "input 1 (cos_cache): expected [1, 1, 1], found [3, 1]");
        let wide = RotaryEmbedding { rotary_embedding_dim: 4, ..plain };
        assert!(
            run(wide, &[Some(&x), Some(&cache), Some(&cache)]).unwrap_err().to_string().contains("up to 2")
        );
        let flat = x.reshaped([1, 1, 2]).unwrap();
        let error = run(plain, &[Some(&flat), Some(&cache), Some(&cache)]).unwrap_err().to_string();
        assert!(error.contains("num_heads"), "{error}");
    }
}
