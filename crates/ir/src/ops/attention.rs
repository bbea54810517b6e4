//! Attention: queries against keys, and the values that they choose.

use super::support::inputs::{at_most, check_dtype, common_dtype, optional, required};
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `Attention` of opset 25: `Q, K, V, attn_mask?, past_key?, past_value?, nonpad_kv_seqlen? -> Y, present_key?,
/// present_value?, qk_matmul_output?`.
///
/// `Q [N, heads, queries, size]` or `[N, queries, heads * size]`, keys and values likewise, with as many heads or a divisor
/// of that. Numbers of 16 bits are rounded after each of the steps that ONNX describes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    /// Heads of the queries; `None` is those of a 4-D input.
    pub q_num_heads: Option<usize>,
    /// Heads of keys and values; `None` is those of a 4-D input.
    pub kv_num_heads: Option<usize>,
    /// Factor of the products; `None` is one over the square root of the head's size.
    pub scale: Option<f32>,
    /// Queries see no keys behind them.
    pub is_causal: bool,
    /// Bound that products approach smoothly; 0 is none.
    pub softcap: f32,
    /// Type in which the softmax is taken; `None` is that of the queries.
    pub softmax_precision: Option<DType>,
    /// What the fourth output holds: products, capped ones, those with the mask, or what the softmax makes of them.
    pub qk_matmul_output_mode: i64,
    /// Keys that a query sees before and behind its place; `None` is all.
    pub window: [Option<i64>; 2],
}

/// `[N, heads, length, size]` of an input in either layout; the second axis of `[N, length, heads * size]` is split.
fn heads_of(
    (index, name): (usize, &'static str),
    ty: &ValueType,
    heads: Option<usize>,
) -> Result<Option<[Dim; 4]>> {
    match ty.shape.as_deref() {
        None => Ok(None),
        Some([batch, found, length, size]) => {
            if let (Some(heads), Some(found)) = (heads, found.known())
                && heads != found
            {
                return Err(Error::input(index, name, format!("expected {heads} heads, found {ty}")));
            }
            Ok(Some([batch, found, length, size].map(Clone::clone)))
        }
        Some([batch, length, hidden]) => {
            let Some(heads) = heads else {
                let attribute = if index == 0 { "q_num_heads" } else { "kv_num_heads" };
                return Err(Error::attribute(attribute, "is required, for inputs have three axes"));
            };
            let size = match hidden.known() {
                Some(hidden) if !hidden.is_multiple_of(heads) => {
                    let problem = format!("expected [N, length, {heads} heads * size], found {ty}");
                    return Err(Error::input(index, name, problem));
                }
                Some(hidden) => (hidden / heads).into(),
                None => hidden.exact_div(&heads.into()).unwrap_or_else(Dim::unknown),
            };
            Ok(Some([batch.clone(), heads.into(), length.clone(), size]))
        }
        Some(_) => {
            let problem = format!("expected [N, heads, length, size] or [N, length, hidden], found {ty}");
            Err(Error::input(index, name, problem))
        }
    }
}

impl Attention {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let mut heads = |name: &str| match attributes.int(name)? {
            None => Ok(None),
            Some(heads @ 1..=65_536) => Ok(Some(heads as usize)),
            Some(other) => Err(Error::attribute(name, format!("expected 1 to 65536, found {other}"))),
        };
        let (q_num_heads, kv_num_heads) = (heads("q_num_heads")?, heads("kv_num_heads")?);
        let mut side = |name: &str| match attributes.int(name)? {
            None | Some(-1) => Ok(None),
            Some(most @ 0..) => Ok(Some(most)),
            Some(other) => Err(Error::attribute(name, format!("expected -1 or more, found {other}"))),
        };
        let window = [side("left_window_size")?, side("right_window_size")?];
        let softmax_precision = attributes.dtype("softmax_precision")?;
        if let Some(dtype) = softmax_precision
            && !dtype.is_float()
        {
            return Err(Error::attribute(
                "softmax_precision",
                format!("expected a float type, found {dtype}"),
            ));
        }
        let mode = attributes.int("qk_matmul_output_mode")?.unwrap_or(0);
        if !(0..=3).contains(&mode) {
            return Err(Error::attribute("qk_matmul_output_mode", format!("expected 0 to 3, found {mode}")));
        }
        let op = Self {
            q_num_heads,
            kv_num_heads,
            scale: attributes.float("scale")?,
            is_causal: attributes.flag("is_causal", false)?,
            softcap: attributes.float("softcap")?.unwrap_or(0.0),
            softmax_precision,
            qk_matmul_output_mode: mode,
            window,
        };
        attributes.finish(
            "is_causal, kv_num_heads, left_window_size, q_num_heads, qk_matmul_output_mode, right_window_size, scale, \
             softcap, softmax_precision",
        )?;
        Ok(op)
    }

    /// Queries, keys and values as `[N, heads, length, size]`, as far as known.
    pub(super) fn shapes(&self, inputs: &[Option<InputInfo<'_>>]) -> Result<[Option<[Dim; 4]>; 3]> {
        let (q, k) = (required(inputs, 0, "Q")?.ty, required(inputs, 1, "K")?.ty);
        let v = required(inputs, 2, "V")?.ty;
        let shapes = [
            heads_of((0, "Q"), q, self.q_num_heads)?,
            heads_of((1, "K"), k, self.kv_num_heads)?,
            heads_of((2, "V"), v, self.kv_num_heads)?,
        ];
        if let [Some(q), Some(k), Some(v)] = &shapes {
            let differ = |a: &Dim, b: &Dim| a.equals(b) == Some(false);
            if differ(&q[0], &k[0]) || differ(&q[3], &k[3]) {
                return Err(Error::input(1, "K", format!("{k:?} does not fit the queries {q:?}")));
            }
            if (0..3).any(|axis| differ(&k[axis], &v[axis])) {
                return Err(Error::input(2, "V", format!("{v:?} does not fit the keys {k:?}")));
            }
            if let (Some(heads), Some(shared)) = (q[1].known(), k[1].known())
                && (shared == 0 && heads > 0 || shared > 0 && !heads.is_multiple_of(shared))
            {
                let problem = format!("{heads} heads of queries do not share {shared} heads of keys evenly");
                return Err(Error::input(1, "K", problem));
            }
        }
        Ok(shapes)
    }
}

impl Operator for Attention {
    fn name(&self) -> &str {
        "Attention"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        let numbers = [
            ("q_num_heads", self.q_num_heads.map(|heads| heads as i64)),
            ("kv_num_heads", self.kv_num_heads.map(|heads| heads as i64)),
            ("is_causal", self.is_causal.then_some(1)),
            ("qk_matmul_output_mode", Some(self.qk_matmul_output_mode).filter(|&mode| mode != 0)),
            ("left_window_size", self.window[0]),
            ("right_window_size", self.window[1]),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                attributes.set(name, value);
            }
        }
        if let Some(scale) = self.scale {
            attributes.set("scale", scale);
        }
        if self.softcap != 0.0 {
            attributes.set("softcap", self.softcap);
        }
        if let Some(dtype) = self.softmax_precision {
            attributes.set("softmax_precision", dtype);
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 7)?;
        let of = |index: usize| optional(inputs, index).and_then(|input| input.ty.dtype);
        for (index, name) in [(0, "Q"), (2, "V")] {
            check_dtype(index, name, of(index), DType::is_float, "floats")?;
        }
        let key_type = common_dtype(&[(0, "Q", of(0)), (1, "K", of(1)), (4, "past_key", of(4))])?;
        let value_type = common_dtype(&[(2, "V", of(2)), (5, "past_value", of(5))])?;
        let [q, k, v] = self.shapes(inputs)?;
        let flat = required(inputs, 0, "Q")?.ty.rank() == Some(3);
        let pasts = (optional(inputs, 4), optional(inputs, 5));
        let past = match pasts {
            (None, None) => Some(Dim::from(0usize)),
            (Some(key), Some(value)) => {
                for ((index, name, past), now) in
                    [(4, "past_key", key), (5, "past_value", value)].into_iter().zip([&k, &v])
                {
                    let (Some(past), Some(now)) = (&past.ty.shape, now) else { continue };
                    let fits = past.len() == 4
                        && [0, 1, 3].iter().all(|&axis| past[axis].equals(&now[axis]) != Some(false));
                    if !fits {
                        let expected = format!("[{}, {}, past, {}]", now[0], now[1], now[3]);
                        return Err(Error::input(
                            index,
                            name,
                            format!("expected {expected}, found {past:?}"),
                        ));
                    }
                }
                key.ty.shape.as_ref().map(|shape| shape[2].clone())
            }
            _ => return Err(Error::input(4, "past_key", "comes together with past_value, or not at all")),
        };
        if let Some(lengths) = optional(inputs, 6) {
            check_dtype(6, "nonpad_kv_seqlen", lengths.ty.dtype, |dtype| dtype == DType::I64, "i64")?;
            if pasts.0.is_some() {
                return Err(Error::input(6, "nonpad_kv_seqlen", "excludes past_key and past_value"));
            }
            if lengths.ty.rank().is_some_and(|rank| rank != 1) {
                return Err(Error::input(
                    6,
                    "nonpad_kv_seqlen",
                    format!("expected [N], found {}", lengths.ty),
                ));
            }
        }
        if let Some(mask) = optional(inputs, 3) {
            let number = |dtype| dtype == DType::Bool || Some(dtype) == key_type || key_type.is_none();
            check_dtype(3, "attn_mask", mask.ty.dtype, number, "bool or the type of Q")?;
        }
        let total = match (&past, &k) {
            (Some(past), Some(k)) => past.add(&k[2])?,
            _ => Dim::unknown(),
        };
        let four = |a: &[Dim; 4], length: &Dim, size: &Dim| {
            vec![a[0].clone(), a[1].clone(), length.clone(), size.clone()]
        };
        let y = match (&q, &v) {
            (Some(q), Some(v)) if flat => Some(vec![q[0].clone(), q[2].clone(), q[1].mul(&v[3])?]),
            (Some(q), Some(v)) => Some(four(q, &q[2], &v[3])),
            _ => None,
        };
        let types = [
            ValueType { dtype: key_type, shape: y },
            ValueType { dtype: key_type, shape: k.as_ref().map(|k| four(k, &total, &k[3])) },
            ValueType { dtype: value_type, shape: v.as_ref().map(|v| four(v, &total, &v[3])) },
            ValueType { dtype: key_type, shape: q.as_ref().map(|q| four(q, &q[2], &total)) },
        ];
        Ok(types.into_iter().take(outputs.max(1)).collect())
    }

    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        self.evaluate(inputs, outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::super::attention_eval::swapped;
    use super::*;
    use crate::ops::Op;

    fn plain() -> Attention {
        Attention::read(Attributes::new()).unwrap()
    }

    fn run(op: Attention, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        assert_eq!(Attention::read(op.attributes()), Ok(op));
        Op::from(op).eval(inputs, outputs)
    }

    fn tensor(shape: &[usize], values: &[f64]) -> Tensor {
        Tensor::from_vec(shape, values.to_vec()).unwrap()
    }

    /// One query of size 1 against keys 0 and ln 3: weights 1/4 and 3/4.
    #[test]
    fn weights_are_those_of_the_softmax() {
        let q = tensor(&[1, 1, 1, 1], &[1.0]);
        let k = tensor(&[1, 1, 2, 1], &[0.0, 3f64.ln()]);
        let v = tensor(&[1, 1, 2, 2], &[4.0, 8.0, 0.0, 4.0]);
        let y = run(plain(), &[Some(&q), Some(&k), Some(&v)], 4).unwrap();
        let close = |found: &Tensor, expected: &[f64]| {
            let found = found.to_f64s().unwrap();
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{found:?}");
        };
        close(&y[0], &[1.0, 5.0]);
        close(&y[3], &[0.0, 3f64.ln()]);
        let after = Attention { qk_matmul_output_mode: 3, ..plain() };
        close(&run(after, &[Some(&q), Some(&k), Some(&v)], 4).unwrap()[3], &[0.25, 0.75]);
        // A causal query at place 0 sees the first key alone; one that sees none gives zeros.
        let causal = Attention { is_causal: true, ..plain() };
        close(&run(causal, &[Some(&q), Some(&k), Some(&v)], 1).unwrap()[0], &[4.0, 8.0]);
        let hidden = Tensor::from_bools([1, 2], [false, false]).unwrap();
        close(&run(plain(), &[Some(&q), Some(&k), Some(&v), Some(&hidden)], 1).unwrap()[0], &[0.0, 0.0]);
        // A mask of one key where there are two hides the other, and a sum of masks is added.
        let one = tensor(&[1, 1], &[-3f64.ln()]);
        let full = tensor(&[1, 2], &[3f64.ln(), 0.0]);
        close(&run(plain(), &[Some(&q), Some(&k), Some(&v), Some(&full)], 1).unwrap()[0], &[2.0, 6.0]);
        close(&run(plain(), &[Some(&q), Some(&k), Some(&v), Some(&one)], 1).unwrap()[0], &[4.0, 8.0]);
    }

    #[test]
    fn heads_in_the_last_axis_are_the_same_heads() {
        let seeded = |shape: &[usize], seed| Tensor::seeded(DType::F64, shape, seed).unwrap();
        let (q, k, v) = (seeded(&[2, 3, 8], 1), seeded(&[2, 5, 4], 2), seeded(&[2, 5, 6], 3));
        let op = Attention { q_num_heads: Some(4), kv_num_heads: Some(2), ..plain() };
        let flat = run(op, &[Some(&q), Some(&k), Some(&v)], 3).unwrap();
        assert_eq!(flat[0].shape(), [2, 3, 12]);
        let four = |tensor: &Tensor, heads: usize| {
            let [n, length, hidden] = *tensor.shape() else { panic!("three axes") };
            let data = swapped(&tensor.to_f64s().unwrap(), [n, length, heads, hidden / heads]);
            tensor_of([n, heads, length, hidden / heads], data)
        };
        let split = run(plain(), &[Some(&four(&q, 4)), Some(&four(&k, 2)), Some(&four(&v, 2))], 3).unwrap();
        assert_eq!(four(&flat[0], 4), split[0]);
        assert_eq!(flat[1..], split[1..]);
    }

    fn tensor_of(shape: [usize; 4], data: Vec<f64>) -> Tensor {
        Tensor::from_vec(shape, data).unwrap()
    }

    /// Keys given step by step are the keys given at once.
    #[test]
    fn the_past_is_what_came_before() {
        let seeded = |shape: &[usize], seed| Tensor::seeded(DType::F64, shape, seed).unwrap();
        let (q, k, v) = (seeded(&[1, 2, 4, 3], 1), seeded(&[1, 2, 4, 3], 2), seeded(&[1, 2, 4, 3], 3));
        let causal = Attention { is_causal: true, window: [Some(2), None], ..plain() };
        let all = run(causal, &[Some(&q), Some(&k), Some(&v)], 3).unwrap();
        let rows = |tensor: &Tensor, from: usize, to: usize| {
            let data = tensor.to_f64s().unwrap();
            let rows = data.chunks(12).flat_map(|head| head[from * 3..to * 3].to_vec()).collect();
            tensor_of([1, 2, to - from, 3], rows)
        };
        let past: Vec<Tensor> = [&k, &v].map(|tensor| rows(tensor, 0, 3)).to_vec();
        let now: Vec<Tensor> = [&q, &k, &v].map(|tensor| rows(tensor, 3, 4)).to_vec();
        let inputs = [&now[0], &now[1], &now[2]].map(Some);
        let inputs = [&inputs[..], &[None, Some(&past[0]), Some(&past[1])]].concat();
        let step = run(causal, &inputs, 3).unwrap();
        assert_eq!(step[0], rows(&all[0], 3, 4));
        assert_eq!(step[1..], all[1..]);
        // The same from a cache with room to spare.
        let lengths = Tensor::from_i64s(&[4]);
        let inputs = [Some(&now[0]), Some(&k), Some(&v), None, None, None, Some(&lengths)];
        assert_eq!(run(causal, &inputs, 1).unwrap()[0], step[0]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let zeros = |shape: &[usize]| Tensor::zeros(DType::F32, shape).unwrap();
        let error = |op: Attention, q: &[usize], k: &[usize], v: &[usize]| {
            let (q, k, v) = (zeros(q), zeros(k), zeros(v));
            run(op, &[Some(&q), Some(&k), Some(&v)], 1).unwrap_err().to_string()
        };
        assert_eq!(
            error(plain(), &[1, 2, 4], &[1, 2, 4], &[1, 2, 4]),
            "attribute `q_num_heads`: is required, for inputs have three axes"
        );
        assert!(error(plain(), &[1, 3, 2, 4], &[1, 2, 2, 4], &[1, 2, 2, 4]).contains("3 heads of queries"));
        assert!(error(plain(), &[1, 2, 2, 4], &[1, 2, 2, 5], &[1, 2, 2, 5]).contains("(K)"));
        assert!(error(plain(), &[2], &[2], &[2]).contains("found f32[2]"));
        let wrong = Attributes::new().with("qk_matmul_output_mode", 4);
        assert!(Attention::read(wrong).unwrap_err().to_string().contains("expected 0 to 3"));
        let (q, lone) = (zeros(&[1, 1, 0, 2]), zeros(&[1, 1, 0, 2]));
        let none = run(plain(), &[Some(&q), Some(&lone), Some(&lone)], 1).unwrap();
        assert_eq!(none[0].shape(), [1, 1, 0, 2]);
    }
}
