//! Einsum: sums of products by named axes.

use super::support::broadcast::{Walk, broadcast_dims, broadcast_shapes, strides};
use super::support::inputs::{check_dtype, check_size, required};
use super::support::number::Number;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dispatch_numeric;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;
use std::collections::BTreeMap;
use std::slice::from_ref;

/// ONNX `Einsum`: `inputs.. -> output`, such as `bij, bjk -> bik`; `...` stands for axes that broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Einsum {
    /// The equation as it was written.
    pub equation: String,
    terms: Vec<Vec<Label>>,
    output: Vec<Label>,
}

/// An axis in a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    /// A letter.
    Axis(char),
    /// `...`, any number of axes.
    Ellipsis,
}

/// The axes of an input: those with a letter, and those of the ellipsis.
type Split<'a, T> = (Vec<(char, &'a T)>, &'a [T]);

fn parse_term(text: &str) -> Result<Vec<Label>> {
    let wrong = |problem: &str| Error::attribute("equation", format!("{problem} in `{text}`"));
    let mut labels = vec![];
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let mut rest = compact.as_str();
    while let Some(c) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix("...") {
            if labels.contains(&Label::Ellipsis) {
                return Err(wrong("`...` stands twice"));
            }
            labels.push(Label::Ellipsis);
            rest = behind;
        } else if c.is_ascii_alphabetic() {
            labels.push(Label::Axis(c));
            rest = &rest[1..];
        } else {
            return Err(wrong(&format!("expected letters and `...`, found `{c}`")));
        }
    }
    Ok(labels)
}

impl Einsum {
    /// From an equation.
    ///
    /// # Errors
    /// When it does not parse.
    pub fn new(equation: &str) -> Result<Self> {
        let (left, right) = match equation.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (equation, None),
        };
        let terms: Vec<Vec<Label>> = left.split(',').map(parse_term).collect::<Result<_>>()?;
        let mut counts: BTreeMap<Label, usize> = BTreeMap::new();
        for &label in terms.iter().flatten() {
            *counts.entry(label).or_default() += 1;
        }
        let output = match right {
            Some(right) => parse_term(right)?,
            // Without a right side: the broadcast axes, then the letters that stand once, in alphabetical order.
            None => {
                let letters =
                    counts.iter().filter(|(label, count)| **label != Label::Ellipsis && **count == 1);
                let ellipsis = counts.contains_key(&Label::Ellipsis).then_some(Label::Ellipsis);
                ellipsis.into_iter().chain(letters.map(|(&label, _)| label)).collect()
            }
        };
        for (i, label) in output.iter().enumerate() {
            if output[..i].contains(label) || (*label != Label::Ellipsis && !counts.contains_key(label)) {
                return Err(Error::attribute(
                    "equation",
                    format!("the output of `{equation}` names an axis twice or one that no input has"),
                ));
            }
        }
        Ok(Self { equation: equation.to_owned(), terms, output })
    }

    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let equation =
            attributes.string("equation")?.ok_or_else(|| Error::attribute("equation", "is required"))?;
        attributes.finish("equation")?;
        Self::new(&equation)
    }

    /// A number for each axis of the inputs, of these ranks, and of the output: axes with the same letter have the same, and so
    /// have axes of the ellipsis that broadcast to each other.
    ///
    /// # Errors
    /// When the equation does not fit.
    pub fn axes(&self, ranks: &[usize]) -> Result<(Vec<Vec<u32>>, Vec<u32>)> {
        let zeros: Vec<Vec<usize>> = ranks.iter().map(|&rank| vec![0; rank]).collect();
        let shapes: Vec<&[usize]> = zeros.iter().map(Vec::as_slice).collect();
        let longest = |fronts: &[&[usize]]| {
            Ok(fronts.iter().copied().max_by_key(|front| front.len()).unwrap_or_default().to_vec())
        };
        let (_, broadcast) = self.extents(&shapes, |&a, _| Ok(a), longest)?;
        // Numbers of the ellipsis count from its last axis, behind those of the letters.
        let front = |count: usize| (0..count as u32).rev().map(|axis| (1 << 16) + axis);
        let of = |labels: &[Label], count: usize| -> Vec<u32> {
            let number = |label: &Label| match *label {
                Label::Axis(letter) => vec![u32::from(letter)],
                Label::Ellipsis => front(count).collect(),
            };
            labels.iter().flat_map(number).collect()
        };
        let inputs = self.terms.iter().zip(&shapes).enumerate().map(|(index, (term, shape))| {
            let (_, front) = self.split(index, shape)?;
            Ok(of(term, front.len()))
        });
        Ok((inputs.collect::<Result<_>>()?, of(&self.output, broadcast.len())))
    }

    /// The axes of an input split by label: those of the letters, and those of the ellipsis.
    fn split<'a, T>(&self, index: usize, shape: &'a [T]) -> Result<Split<'a, T>> {
        let term = self.terms.get(index).ok_or_else(|| {
            Error::input(index, "Inputs", format!("the equation names {} inputs", self.terms.len()))
        })?;
        let letters = term.iter().filter(|label| **label != Label::Ellipsis).count();
        let has_ellipsis = letters < term.len();
        let Some(extra) = shape.len().checked_sub(letters).filter(|&extra| extra == 0 || has_ellipsis) else {
            return Err(Error::input(
                index,
                "Inputs",
                format!(
                    "expected {letters} axes for the equation `{}`, found {}",
                    self.equation,
                    shape.len()
                ),
            ));
        };
        let (mut axes, mut broadcast, mut at) = (vec![], &shape[..0], 0);
        for label in term {
            match *label {
                Label::Axis(letter) => {
                    axes.push((letter, &shape[at]));
                    at += 1;
                }
                Label::Ellipsis => {
                    broadcast = &shape[at..at + extra];
                    at += extra;
                }
            }
        }
        Ok((axes, broadcast))
    }

    /// Extents of the letters and of the ellipsis.
    fn extents<T: Clone>(
        &self,
        shapes: &[&[T]],
        join: impl Fn(&T, &T) -> Result<T>,
        broadcast: impl Fn(&[&[T]]) -> Result<Vec<T>>,
    ) -> Result<(BTreeMap<char, T>, Vec<T>)> {
        if shapes.len() != self.terms.len() {
            return Err(Error::input(
                shapes.len(),
                "Inputs",
                format!("expected {} inputs for the equation `{}`", self.terms.len(), self.equation),
            ));
        }
        let (mut letters, mut fronts) = (BTreeMap::new(), vec![]);
        for (index, shape) in shapes.iter().enumerate() {
            let (axes, front) = self.split(index, shape)?;
            fronts.push(front);
            for (letter, extent) in axes {
                let joined = match letters.get(&letter) {
                    None => extent.clone(),
                    Some(before) => join(before, extent).map_err(|error| {
                        Error::input(index, "Inputs", format!("axis `{letter}`: {error}"))
                    })?,
                };
                letters.insert(letter, joined);
            }
        }
        Ok((letters, broadcast(&fronts)?))
    }

    fn output_shape<T: Clone>(&self, letters: &BTreeMap<char, T>, broadcast: &[T]) -> Vec<T> {
        let of = |label: &Label| match label {
            Label::Axis(letter) => letters.get(letter).map(from_ref).unwrap_or_default().to_vec(),
            Label::Ellipsis => broadcast.to_vec(),
        };
        self.output.iter().flat_map(of).collect()
    }
}

impl Operator for Einsum {
    fn name(&self) -> &str {
        "Einsum"
    }

    fn attributes(&self) -> Attributes {
        Attributes::new().with("equation", self.equation.as_str())
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        let types: Vec<&ValueType> =
            (0..inputs.len()).map(|i| Ok(required(inputs, i, "Inputs")?.ty)).collect::<Result<_>>()?;
        let dtype = types.iter().find_map(|ty| ty.dtype);
        for (i, ty) in types.iter().enumerate() {
            check_dtype(i, "Inputs", ty.dtype, DType::is_numeric, "numbers")?;
            let expected = dtype.map_or_else(String::new, |dtype| format!("{dtype} as the others"));
            check_dtype(i, "Inputs", ty.dtype, |found| Some(found) == dtype, &expected)?;
        }
        let shapes: Option<Vec<&[Dim]>> = types.iter().map(|ty| ty.shape.as_deref()).collect();
        let shape = match shapes {
            None => None,
            Some(shapes) => {
                let join = |a: &Dim, b: &Dim| Ok(broadcast_dims(&[from_ref(a), from_ref(b)])?.remove(0));
                let (letters, broadcast) = self.extents(&shapes, join, broadcast_dims)?;
                Some(self.output_shape(&letters, &broadcast))
            }
        };
        Ok(vec![ValueType { dtype, shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let inputs: Vec<&Tensor> =
            (0..inputs.len()).map(|i| required(inputs, i, "Inputs")).collect::<Result<_>>()?;
        let shapes: Vec<&[usize]> = inputs.iter().map(|input| input.shape()).collect();
        let join = |&a: &usize, &b: &usize| Ok(broadcast_shapes(&[&[a], &[b]])?.remove(0));
        let (letters, broadcast) = self.extents(&shapes, join, broadcast_shapes)?;
        let shape = self.output_shape(&letters, &broadcast);
        let dtype = required(&[inputs.first().copied()], 0, "Inputs")?.dtype();
        check_size(dtype, &shape)?;
        let output = self.output.as_slice();
        let summed: Vec<char> =
            letters.keys().copied().filter(|&letter| !output.contains(&Label::Axis(letter))).collect();
        let mut inner: Vec<usize> = summed.iter().map(|letter| letters[letter]).collect();
        let sums_broadcast = !output.contains(&Label::Ellipsis);
        if sums_broadcast {
            inner.extend(&broadcast);
        }
        // For each input, how far its elements lie apart along the axes of the output and those summed over.
        let mut walks = vec![];
        for (index, input) in inputs.iter().enumerate() {
            let steps = strides(input.shape());
            let (axes, front) = self.split(index, &steps)?;
            let (extents, front_extents) = self.split(index, input.shape())?;
            let along = |letter: char| -> usize {
                let own = axes
                    .iter()
                    .zip(&extents)
                    .filter(|((name, _), (_, extent))| *name == letter && **extent != 1);
                own.map(|((_, step), _)| **step).sum()
            };
            let mut stretched = vec![0; broadcast.len() - front.len()];
            stretched.extend(
                front.iter().zip(front_extents).map(|(&step, &extent)| if extent == 1 { 0 } else { step }),
            );
            let mut outer = vec![];
            for label in output {
                match *label {
                    Label::Axis(letter) => outer.push(along(letter)),
                    Label::Ellipsis => outer.extend(&stretched),
                }
            }
            let mut within: Vec<usize> = summed.iter().map(|&letter| along(letter)).collect();
            if sums_broadcast {
                within.extend(&stretched);
            }
            walks.push((Walk::new(&shape, &outer), Walk::new(&inner, &within)));
        }
        dispatch_numeric!(dtype, T => {
            let data: Vec<_> = inputs.iter().map(|input| input.elements::<T>()).collect::<Result<_>>()?;
            let count: usize = shape.iter().product();
            let mut result = Vec::with_capacity(count);
            for _ in 0..count {
                let mut rows = vec![];
                for ((outer, inner), data) in walks.iter_mut().zip(&data) {
                    let start = outer.next().unwrap_or(0);
                    rows.push(inner.clone().map(move |at| data[start + at]));
                }
                result.push(sum_of_products(rows));
            }
            Ok(vec![Tensor::from_vec(shape.clone(), result)?])
        })
    }
}

/// Sum over the common length of the products of a value from each row.
fn sum_of_products<T: Number>(mut rows: Vec<impl Iterator<Item = T>>) -> T {
    if T::DTYPE.is_float() {
        let mut sum = 0.0;
        while let Some(product) = next_product(&mut rows, 1.0, |product, x| product * x.to_f64()) {
            sum += product;
        }
        return T::from_f64(sum);
    }
    let one = T::from_f64(1.0);
    T::sum(std::iter::from_fn(|| next_product(&mut rows, one, T::mul)))
}

fn next_product<T, P>(rows: &mut [impl Iterator<Item = T>], one: P, mul: impl Fn(P, T) -> P) -> Option<P> {
    rows.iter_mut().try_fold(one, |product, row| Some(mul(product, row.next()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize]) -> Tensor {
        let count: usize = shape.iter().product();
        Tensor::from_vec(shape, (0..count).map(|i| (i * 7 % 5) as i64 - 2).collect()).unwrap()
    }

    fn eval(equation: &str, inputs: &[&Tensor]) -> Result<Tensor> {
        let op = Einsum::new(equation)?;
        assert_eq!(Einsum::read(op.attributes()), Ok(op.clone()));
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        let result = op.eval(&inputs, 1)?.remove(0);
        let types: Vec<_> = inputs.iter().flatten().map(|input| ValueType::of(input)).collect();
        let infos: Vec<_> =
            types.iter().map(|ty| Some(InputInfo { ty, constant: None, extents: None })).collect();
        assert_eq!(op.infer(&infos, 1)?, [ValueType::of(&result)]);
        Ok(result)
    }

    #[test]
    fn matrix_product_trace_and_transpose() {
        let (a, b) = (tensor(&[3, 4]), tensor(&[4, 2]));
        let (x, y) = (a.to_i64s().unwrap(), b.to_i64s().unwrap());
        let product: Vec<i64> =
            (0..6).map(|at| (0..4).map(|k| x[at / 2 * 4 + k] * y[k * 2 + at % 2]).sum()).collect();
        let expected = Tensor::from_vec([3, 2], product).unwrap();
        assert_eq!(eval("ij, jk -> ik", &[&a, &b]).unwrap(), expected);
        assert_eq!(eval("ij,jk", &[&a, &b]).unwrap(), expected);
        let square = tensor(&[3, 3]);
        let s = square.to_i64s().unwrap();
        assert_eq!(eval("ii", &[&square]).unwrap(), Tensor::scalar(s[0] + s[4] + s[8]));
        assert_eq!(eval("ii->i", &[&square]).unwrap(), Tensor::from_i64s(&[s[0], s[4], s[8]]));
        let turned: Vec<i64> = (0..9).map(|at| s[at % 3 * 3 + at / 3]).collect();
        assert_eq!(eval("ba", &[&square]).unwrap(), Tensor::from_vec([3, 3], turned).unwrap());
    }

    #[test]
    fn axes_have_numbers() {
        let axes = |equation: &str, ranks: &[usize]| Einsum::new(equation).unwrap().axes(ranks);
        let [a, b, last, front] = [97, 98, 1 << 16, (1 << 16) + 1];
        assert_eq!(axes("ab, b -> a", &[2, 1]), Ok((vec![vec![a, b], vec![b]], vec![a])));
        let expected = (vec![vec![front, last, a], vec![last, a]], vec![a, front, last]);
        assert_eq!(axes("...a, ...a -> a...", &[3, 2]), Ok(expected));
        assert_eq!(axes("aa", &[2]), Ok((vec![vec![a, a]], vec![])));
        assert!(axes("ab", &[3]).is_err());
        assert!(axes("ab", &[2, 2]).is_err());
    }

    #[test]
    fn ellipses_broadcast() {
        let (a, b) = (tensor(&[2, 1, 3]), tensor(&[4, 3]));
        let (x, y) = (a.to_i64s().unwrap(), b.to_i64s().unwrap());
        let expected: Vec<i64> =
            (0..8).map(|at| (0..3).map(|k| x[at / 4 * 3 + k] * y[at % 4 * 3 + k]).sum()).collect();
        assert_eq!(
            eval("...k, ...k -> ...", &[&a, &b]).unwrap(),
            Tensor::from_vec([2, 4], expected).unwrap()
        );
        let sum: i64 = x.iter().sum();
        assert_eq!(eval("...i->", &[&a]).unwrap(), Tensor::scalar(sum));
    }

    #[test]
    fn wrong_equations_and_shapes_are_refused() {
        for equation in ["i-j", "ij->kk", "i->j", "......i", "i1"] {
            assert!(Einsum::new(equation).is_err(), "{equation}");
        }
        let a = tensor(&[2, 3]);
        assert!(eval("ij,ij", &[&a]).is_err());
        assert!(eval("i", &[&a]).is_err());
        assert!(eval("ij,jk", &[&a, &a]).is_err());
    }
}
