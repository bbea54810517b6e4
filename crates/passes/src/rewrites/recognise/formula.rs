//! Formulas of one variable in a normal form, read off a graph: products and sums are flat, with one number each.

use crate::matching::{scalar, sources};
use std::collections::BTreeSet;
use tconvc_ir::ops::{Binary, Unary, Variadic};
use tconvc_ir::{Graph, NodeId, Op, ValueId};

/// A formula of one variable.
#[derive(Debug, Clone, PartialEq)]
pub enum Formula {
    /// The variable.
    X,
    /// A number.
    Number(f64),
    /// The number (in a pattern, `None` is any) times the factors. No factor is a number or a product.
    Product(Option<f64>, Vec<Formula>),
    /// The number plus the terms. No term is a number or a sum.
    Sum(f64, Vec<Formula>),
    /// A function of a formula.
    Apply(Unary, Box<Formula>),
}

/// Numbers that differ by less than this, relatively, are the same number, written with more or fewer digits.
const TOLERANCE: f64 = 1e-5;

/// Nodes between a formula and its variable at most.
const MAX_NODES: usize = 16;

/// Values looked at for one formula at most; a value that is read twice counts twice.
const MAX_VISITS: usize = 64;

/// Nodes that a formula was read off.
#[derive(Default)]
pub struct Cone {
    /// The nodes.
    pub nodes: BTreeSet<NodeId>,
    visits: usize,
}

fn close(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs())
}

/// Product in normal form.
pub fn product(factors: impl IntoIterator<Item = Formula>) -> Formula {
    let (mut number, mut rest) = (1.0, vec![]);
    for factor in factors {
        match factor {
            Formula::Number(value) => number *= value,
            Formula::Product(Some(value), inner) => {
                number *= value;
                rest.extend(inner);
            }
            other => rest.push(other),
        }
    }
    match (rest.len(), rest.pop()) {
        (_, None) => Formula::Number(number),
        (1, Some(only)) if number == 1.0 => only,
        (_, Some(last)) => {
            rest.push(last);
            Formula::Product(Some(number), rest)
        }
    }
}

/// Sum in normal form.
pub fn sum(terms: impl IntoIterator<Item = Formula>) -> Formula {
    let (mut number, mut rest) = (0.0, vec![]);
    for term in terms {
        match term {
            Formula::Number(value) => number += value,
            Formula::Sum(value, inner) => {
                number += value;
                rest.extend(inner);
            }
            other => rest.push(other),
        }
    }
    match (rest.len(), rest.pop()) {
        (_, None) => Formula::Number(number),
        (1, Some(only)) if number == 0.0 => only,
        (_, Some(last)) => {
            rest.push(last);
            Formula::Sum(number, rest)
        }
    }
}

/// A function of a formula, in normal form.
pub fn apply(function: Unary, of: Formula) -> Formula {
    match function {
        Unary::Neg => product([Formula::Number(-1.0), of]),
        _ => Formula::Apply(function, Box::new(of)),
    }
}

impl Formula {
    /// The formula of `value` with `x` as its variable; the nodes it is read off go to `cone`. `None` when something else
    /// than `x` and numbers is in it, or too much.
    pub fn read(graph: &Graph, value: ValueId, x: ValueId, cone: &mut Cone) -> Option<Self> {
        if value == x {
            return Some(Self::X);
        }
        if let Some(number) = scalar(graph, value) {
            return Some(Self::Number(number));
        }
        let node = graph.producer(value)?;
        cone.nodes.insert(node);
        cone.visits += 1;
        if cone.visits > MAX_VISITS {
            return None;
        }
        let inputs = graph.node(node).inputs().iter();
        let mut operands = vec![];
        for input in inputs {
            operands.push(Self::read(graph, (*input)?, x, cone)?);
        }
        match (&graph.node(node).op, operands.as_slice()) {
            (Op::Unary(function), [of]) => Some(apply(*function, of.clone())),
            (Op::Binary(Binary::Add) | Op::Variadic(Variadic::Sum), _) => Some(sum(operands)),
            (Op::Binary(Binary::Mul), _) => Some(product(operands)),
            (Op::Binary(Binary::Sub), [a, b]) => {
                Some(sum([a.clone(), product([Self::Number(-1.0), b.clone()])]))
            }
            (Op::Binary(Binary::Div), [a, Self::Number(b)]) => {
                Some(product([a.clone(), Self::Number(b.recip())]))
            }
            (Op::Binary(Binary::Div), [a, b]) => {
                Some(product([a.clone(), apply(Unary::Reciprocal, b.clone())]))
            }
            (Op::Binary(Binary::Pow), [a, Self::Number(power)]) if [2.0, 3.0].contains(power) => {
                Some(product(vec![a.clone(); *power as usize]))
            }
            _ => None,
        }
    }

    /// True when this formula, a pattern, is `other` but for the order of factors and terms and the last digits of numbers.
    /// What stands for [`None`] in a product of the pattern goes to `any`.
    pub fn matches(&self, other: &Self, any: &mut Option<f64>) -> bool {
        match (self, other) {
            (Self::X, Self::X) => true,
            (Self::Number(a), Self::Number(b)) => close(*a, *b),
            (Self::Product(a, factors), Self::Product(Some(b), others)) => {
                let same = match a {
                    Some(a) => close(*a, *b),
                    None => {
                        *any = Some(*b);
                        true
                    }
                };
                same && matches_all(factors, others, any)
            }
            (Self::Sum(a, terms), Self::Sum(b, others)) => close(*a, *b) && matches_all(terms, others, any),
            (Self::Apply(f, a), Self::Apply(g, b)) => same_function(*f, *g) && a.matches(b, any),
            _ => false,
        }
    }
}

fn same_function(f: Unary, g: Unary) -> bool {
    let parameters = || f.parameters().into_iter().zip(g.parameters());
    f.name() == g.name() && parameters().all(|((_, a), (_, b))| close(f64::from(a), f64::from(b)))
}

/// Each pattern has a formula of its own, in any order.
fn matches_all(patterns: &[Formula], formulas: &[Formula], any: &mut Option<f64>) -> bool {
    let Some((first, patterns)) = patterns.split_first() else { return formulas.is_empty() };
    (0..formulas.len()).any(|i| {
        let others = [&formulas[..i], &formulas[i + 1..]].concat();
        first.matches(&formulas[i], any) && matches_all(patterns, &others, any)
    })
}

/// Values that may be the variable of a formula of `value`: those it is computed from, nearest first.
pub fn variables(graph: &Graph, value: ValueId) -> Vec<ValueId> {
    sources(graph, value, MAX_NODES, |op| {
        matches!(op, Op::Unary(_) | Op::Binary(_) | Op::Variadic(Variadic::Sum))
    })
}
