//! LinearAttention: a state a head that keys and values update place by place, and queries read.

use super::support::inputs::{at_most, check_dtype, check_size, common_dtype, optional, required};
use super::support::values::from_f64s;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// How a place changes the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateRule {
    /// The product of key and value is added.
    Linear,
    /// As `Linear`, to a state that decays.
    Gated,
    /// What the state already says of the key is taken off the value, times a rate.
    Delta,
    /// As `Delta`, to a state that decays.
    GatedDelta,
}

/// ONNX `LinearAttention`: `query [N, T, heads * dk], key, value, past_state [N, kv_heads, dk, dv]?, decay?, beta? ->
/// output [N, T, heads * dv], present_state [N, kv_heads, dk, dv]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearAttention {
    /// Heads of the queries.
    pub q_num_heads: usize,
    /// Heads of keys and values, each with a state.
    pub kv_num_heads: usize,
    /// Factor of the output; 0 is one over the square root of dk.
    pub scale: f32,
    /// How a place changes the state.
    pub update_rule: UpdateRule,
    /// A hint for parallel evaluation, passed through.
    pub chunk_size: i64,
}

const RULES: [(&str, UpdateRule); 4] = [
    ("linear", UpdateRule::Linear),
    ("gated", UpdateRule::Gated),
    ("delta", UpdateRule::Delta),
    ("gated_delta", UpdateRule::GatedDelta),
];

const CHUNK: i64 = 64;

/// `[N, T, heads * size]` of an input, with the size of a head.
fn packed((index, name): (usize, &'static str), ty: &ValueType, heads: usize) -> Result<Option<[Dim; 3]>> {
    match ty.shape.as_deref() {
        None => Ok(None),
        Some([batch, length, hidden]) => {
            let size = match hidden.known() {
                Some(hidden) if hidden.is_multiple_of(heads) => (hidden / heads).into(),
                Some(_) => {
                    let problem = format!("expected [N, T, {heads} heads * size], found {ty}");
                    return Err(Error::input(index, name, problem));
                }
                None => Dim::unknown(),
            };
            Ok(Some([batch.clone(), length.clone(), size]))
        }
        Some(_) => Err(Error::input(index, name, format!("expected [N, T, heads * size], found {ty}"))),
    }
}

impl LinearAttention {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let mut heads = |name: &str| match attributes.int(name)? {
            Some(heads @ 1..=65_536) => Ok(heads as usize),
            Some(other) => Err(Error::attribute(name, format!("expected 1 to 65536, found {other}"))),
            None => Err(Error::attribute(name, "is required")),
        };
        let (q_num_heads, kv_num_heads) = (heads("q_num_heads")?, heads("kv_num_heads")?);
        if !q_num_heads.is_multiple_of(kv_num_heads) {
            let problem = format!("expected a multiple of {kv_num_heads} heads of keys, found {q_num_heads}");
            return Err(Error::attribute("q_num_heads", problem));
        }
        let rule = attributes.string("update_rule")?.unwrap_or_else(|| "gated_delta".into());
        let Some((_, update_rule)) = RULES.iter().find(|(name, _)| *name == rule) else {
            let problem = format!("`{rule}` is not one of linear, gated, delta, gated_delta");
            return Err(Error::attribute("update_rule", problem));
        };
        let op = Self {
            q_num_heads,
            kv_num_heads,
            scale: attributes.float("scale")?.unwrap_or(0.0),
            update_rule: *update_rule,
            chunk_size: attributes.int("chunk_size")?.unwrap_or(CHUNK),
        };
        attributes.finish("chunk_size, kv_num_heads, q_num_heads, scale, update_rule")?;
        Ok(op)
    }

    fn decays(self) -> bool {
        matches!(self.update_rule, UpdateRule::Gated | UpdateRule::GatedDelta)
    }

    fn corrects(self) -> bool {
        matches!(self.update_rule, UpdateRule::Delta | UpdateRule::GatedDelta)
    }
}

impl Operator for LinearAttention {
    fn name(&self) -> &str {
        "LinearAttention"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new()
            .with("q_num_heads", self.q_num_heads as i64)
            .with("kv_num_heads", self.kv_num_heads as i64);
        if self.scale != 0.0 {
            attributes.set("scale", self.scale);
        }
        if let Some((name, _)) = RULES[..3].iter().find(|(_, rule)| *rule == self.update_rule) {
            attributes.set("update_rule", *name);
        }
        if self.chunk_size != CHUNK {
            attributes.set("chunk_size", self.chunk_size);
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 6)?;
        let (q, k) = (required(inputs, 0, "query")?.ty, required(inputs, 1, "key")?.ty);
        let v = required(inputs, 2, "value")?.ty;
        let of = |index: usize| optional(inputs, index).and_then(|input| input.ty.dtype);
        check_dtype(0, "query", q.dtype, DType::is_float, "floats")?;
        check_dtype(3, "past_state", of(3), DType::is_float, "floats")?;
        let types = [
            (0, "query", of(0)),
            (1, "key", of(1)),
            (2, "value", of(2)),
            (4, "decay", of(4)),
            (5, "beta", of(5)),
        ];
        let dtype = common_dtype(&types)?;
        let (qs, ks) =
            (packed((0, "query"), q, self.q_num_heads)?, packed((1, "key"), k, self.kv_num_heads)?);
        let vs = packed((2, "value"), v, self.kv_num_heads)?;
        let differ = |a: &Dim, b: &Dim| a.equals(b) == Some(false);
        if let (Some(q), Some(k)) = (&qs, &ks)
            && (0..3).any(|axis| differ(&q[axis], &k[axis]))
        {
            return Err(Error::input(1, "key", format!("{k:?} does not fit the queries {q:?}")));
        }
        if let (Some(q), Some(v)) = (&qs, &vs)
            && (0..2).any(|axis| differ(&q[axis], &v[axis]))
        {
            return Err(Error::input(2, "value", format!("{v:?} does not fit the queries {q:?}")));
        }
        let state = match (&qs, &vs) {
            (Some(q), Some(v)) => {
                Some(vec![q[0].clone(), self.kv_num_heads.into(), q[2].clone(), v[2].clone()])
            }
            _ => None,
        };
        if let (Some(past), Some(state)) =
            (optional(inputs, 3).and_then(|past| past.ty.shape.as_ref()), &state)
            && (past.len() != 4 || past.iter().zip(state).any(|(a, b)| differ(a, b)))
        {
            return Err(Error::input(3, "past_state", format!("expected {state:?}, found {past:?}")));
        }
        for (index, name, needed) in [(4, "decay", self.decays()), (5, "beta", self.corrects())] {
            match optional(inputs, index) {
                None if needed => {
                    let problem = "is required by update_rule".to_owned();
                    return Err(Error::input(index, name, problem));
                }
                Some(input) => {
                    let Some(shape) = &input.ty.shape else { continue };
                    let last = shape.last().and_then(Dim::known);
                    let wide = ks.as_ref().and_then(|k| k[2].known()).map(|size| size * self.kv_num_heads);
                    let fits = |extent: usize| {
                        extent == self.kv_num_heads
                            || if index == 4 { wide.is_none_or(|wide| wide == extent) } else { extent == 1 }
                    };
                    let lead = |axis: usize| qs.as_ref().is_none_or(|q| !differ(&shape[axis], &q[axis]));
                    if shape.len() != 3 || !last.is_none_or(fits) || !lead(0) || !lead(1) {
                        let last = if index == 4 { "kv_heads or kv_heads * size" } else { "kv_heads or 1" };
                        let problem = format!("expected [N, T, {last}], found {}", input.ty);
                        return Err(Error::input(index, name, problem));
                    }
                }
                None => {}
            }
        }
        let y = match (&qs, &vs) {
            (Some(q), Some(v)) => Some(vec![q[0].clone(), q[1].clone(), v[2].mul(&self.q_num_heads.into())?]),
            _ => None,
        };
        let types = [
            ValueType { dtype, shape: y },
            ValueType {
                dtype: of(3).or(if optional(inputs, 3).is_some() { None } else { dtype }),
                shape: state,
            },
        ];
        Ok(types.into_iter().take(outputs.max(1)).collect())
    }

    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        let (q, k, v) =
            (required(inputs, 0, "query")?, required(inputs, 1, "key")?, required(inputs, 2, "value")?);
        let [batch, length, hidden] = *q.shape() else {
            return Err(Error::input(0, "query", "expected three axes"));
        };
        let (heads, shared) = (self.kv_num_heads, self.q_num_heads / self.kv_num_heads);
        let (dk, dv) = (hidden / self.q_num_heads, v.shape()[2] / heads);
        check_size(DType::F64, &[batch, heads, dk, dv])?;
        check_size(DType::F64, &[batch, length, self.q_num_heads, dv])?;
        let (queries, keys, values) = (q.to_f64s()?, k.to_f64s()?, v.to_f64s()?);
        let mut states = match optional(inputs, 3) {
            Some(past) => past.to_f64s()?,
            None => vec![0.0; batch * heads * dk * dv],
        };
        let numbers = |index: usize, used: bool| {
            let input = optional(inputs, index).filter(|_| used);
            input.map(|input| Ok::<_, Error>((input.to_f64s()?, input.shape()[2]))).transpose()
        };
        let (decay, beta) = (numbers(4, self.decays())?, numbers(5, self.corrects())?);
        let scale = if self.scale == 0.0 { (dk as f64).sqrt().recip() } else { f64::from(self.scale) };
        let mut y = vec![0.0; batch * length * self.q_num_heads * dv];
        for (image, head) in (0..batch).flat_map(|image| (0..heads).map(move |head| (image, head))) {
            let state = &mut states[(image * heads + head) * dk * dv..][..dk * dv];
            for place in (image * length)..(image + 1) * length {
                let key = &keys[(place * heads + head) * dk..][..dk];
                let value = &values[(place * heads + head) * dv..][..dv];
                if let Some((decay, extent)) = &decay {
                    for (i, row) in state.chunks_mut(dv.max(1)).enumerate() {
                        let at = if *extent == heads { head } else { head * dk + i };
                        let factor = decay[place * extent + at].exp();
                        for x in row.iter_mut() {
                            *x *= factor;
                        }
                    }
                }
                let rate = beta.as_ref().map(|(beta, extent)| beta[place * extent + head % extent]);
                let change: Vec<f64> = (0..dv)
                    .map(|j| match rate {
                        None => value[j],
                        Some(rate) => {
                            let known: f64 = (0..dk).map(|i| state[i * dv + j] * key[i]).sum();
                            rate * (value[j] - known)
                        }
                    })
                    .collect();
                for (row, factor) in state.chunks_mut(dv.max(1)).zip(key) {
                    row.iter_mut().zip(&change).for_each(|(x, change)| *x += factor * change);
                }
                for member in 0..shared {
                    let number = place * self.q_num_heads + head * shared + member;
                    let query = &queries[number * dk..][..dk];
                    for j in 0..dv {
                        let sum: f64 = (0..dk).map(|i| state[i * dv + j] * query[i]).sum();
                        y[number * dv + j] = scale * sum;
                    }
                }
            }
        }
        let kind = optional(inputs, 3).map_or(q.dtype(), Tensor::dtype);
        let results = [
            from_f64s(q.dtype(), &[batch, length, self.q_num_heads * dv], &y)?,
            from_f64s(kind, &[batch, heads, dk, dv], &states)?,
        ];
        Ok(results.into_iter().take(outputs.max(1)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Op;

    fn op(update_rule: UpdateRule) -> LinearAttention {
        LinearAttention { q_num_heads: 1, kv_num_heads: 1, scale: 1.0, update_rule, chunk_size: CHUNK }
    }

    fn run(op: LinearAttention, inputs: &[Option<&Tensor>]) -> Result<Vec<Vec<f64>>> {
        assert_eq!(LinearAttention::read(op.attributes()), Ok(op));
        Op::from(op).eval(inputs, 2)?.iter().map(Tensor::to_f64s).collect()
    }

    fn row(values: &[f64]) -> Tensor {
        Tensor::from_vec([1, values.len(), 1], values.to_vec()).unwrap()
    }

    /// Sizes of one: the state is a number.
    #[test]
    fn each_rule_in_numbers() {
        let (q, k, v) = (row(&[1.0, 1.0, 2.0]), row(&[1.0, 2.0, 1.0]), row(&[3.0, 1.0, 5.0]));
        let half = row(&[0.5f64.ln(); 3]);
        let rate = row(&[0.5; 3]);
        let inputs = [Some(&q), Some(&k), Some(&v), None, Some(&half), Some(&rate)];
        let states = |rule| run(op(rule), &inputs).unwrap();
        // 3, 3 + 2, 5 + 5.
        assert_eq!(states(UpdateRule::Linear), [vec![3.0, 5.0, 20.0], vec![10.0]]);
        // 3, 1.5 + 2, 1.75 + 5.
        assert_eq!(states(UpdateRule::Gated), [vec![3.0, 3.5, 13.5], vec![6.75]]);
        // 1.5, then 1.5 + 0.5 * 2 * (1 - 3), then -0.5 + 0.5 * (5 + 0.5).
        assert_eq!(states(UpdateRule::Delta), [vec![1.5, -0.5, 4.5], vec![2.25]]);
        // 1.5, then 0.75 + (1 - 1.5), then 0.125 + 0.5 * (5 - 0.125).
        assert_eq!(states(UpdateRule::GatedDelta), [vec![1.5, 0.25, 5.125], vec![2.5625]]);
        // A state from before goes on where it was.
        let past = Tensor::from_vec([1, 1, 1, 1], vec![7.0]).unwrap();
        let inputs = [Some(&q), Some(&k), Some(&v), Some(&past)];
        assert_eq!(run(op(UpdateRule::Linear), &inputs).unwrap()[1], [17.0]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let x = row(&[1.0]);
        let error = run(op(UpdateRule::Gated), &[Some(&x); 3]).unwrap_err().to_string();
        assert_eq!(error, "input 4 (decay): is required by update_rule");
        let two = LinearAttention { q_num_heads: 2, ..op(UpdateRule::Linear) };
        let error = run(two, &[Some(&x); 3]).unwrap_err().to_string();
        assert!(error.contains("2 heads * size"), "{error}");
        let wrong = Attributes::new().with("q_num_heads", 3).with("kv_num_heads", 2);
        assert!(LinearAttention::read(wrong).unwrap_err().to_string().contains("a multiple of 2"));
        let none = Tensor::zeros(DType::F32, [1, 0, 1]).unwrap();
        assert_eq!(run(op(UpdateRule::Linear), &[Some(&none); 3]).unwrap(), [vec![], vec![0.0]]);
    }
}
