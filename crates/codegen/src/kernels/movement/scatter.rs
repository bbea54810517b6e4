//! ScatterND at constant places: the data copied whole, then the updates over it.

use super::axes::{Axis, Move, Source, Words, strides, with_words};
use crate::kernels::family::{self, Site};
use crate::kernels::refusal::Reason;
use tconvc_ir::Node;
use tconvc_ir::ops::{ScatterNd, ScatterReduction};

/// Copies of updates beyond which the definition runs.
const RUNS: usize = 16;

/// The copies: of the data, then of updates.
pub(super) fn moves(site: Site<'_>, node: &Node, op: ScatterNd, words: Words) -> Result<Vec<Move>, Reason> {
    let [data, indices, updates] =
        [family::input(node, 0)?, family::input(node, 1)?, family::input(node, 2)?];
    let y = family::output(node, 0)?;
    if op.reduction != ScatterReduction::None {
        return Err(Reason::variant("ScatterND with a reduction", "ScatterND that replaces"));
    }
    let indices = site.constant(indices, "indices")?;
    let shape = site.shape(data)?;
    let depth = indices.shape().last().copied().unwrap_or(0);
    if depth == 0 || depth > shape.len() {
        return Err(Reason::variant(
            format!("indices of {depth} elements"),
            "one element for each axis, or fewer",
        ));
    }
    let tuples = indices.to_i64s()?;
    let strides = strides(&shape, 1);
    let slice = strides[depth - 1];
    let mut places = vec![];
    for tuple in tuples.chunks_exact(depth) {
        let mut place = 0;
        for ((&index, &extent), stride) in tuple.iter().zip(&shape).zip(&strides) {
            let index = if index < 0 { index + extent as i64 } else { index };
            // What is out of range is an error when it runs.
            let outside = || Reason::variant("an index that is out of range", "an index within the axis");
            let index = usize::try_from(index).ok().filter(|&index| index < extent).ok_or_else(outside)?;
            place += index * stride;
        }
        places.push(place);
    }
    let mut sorted = places.clone();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Reason::variant("a place that is written twice", "each place written at most once"));
    }
    let whole = shape.iter().product::<usize>() * words.count;
    let whole = vec![Axis { extent: whole, target: 1, source: Source::Even { start: 0, step: 1 } }];
    let mut moves = vec![Move { unit: words.unit, axes: whole, fill: 0, from: (data, 0), to: (y, 0) }];
    let irregular =
        || Reason::variant("places that follow no rule", "places in up to 16 rows of even distance");
    let mut done = 0;
    for (first, nest) in runs(&places).ok_or_else(irregular)? {
        let bytes = words.unit * words.count;
        let (from, to) = ((updates, done * slice * bytes), (y, first * bytes));
        let mut count = 1;
        let mut axes = vec![Axis {
            extent: slice,
            target: words.count,
            source: Source::Even { start: 0, step: words.count as i64 },
        }];
        for (extent, step) in nest {
            let step_words = (count * slice * words.count) as i64;
            axes.push(Axis {
                extent,
                target: step * words.count,
                source: Source::Even { start: 0, step: step_words },
            });
            count *= extent;
        }
        done += count;
        axes.reverse();
        let axes = with_words(axes, words);
        moves.push(Move { unit: words.unit, axes, fill: 0, from, to });
    }
    Ok(moves)
}

/// Extents and steps of loops, innermost first.
type Nest = Vec<(usize, usize)>;

/// Places as nested loops, each with its first place: one nest where all places follow one rule, else one a run of
/// neighbours; `None` where these are too many.
fn runs(places: &[usize]) -> Option<Vec<(usize, Nest)>> {
    let Some(&first) = places.first() else { return Some(vec![]) };
    if let Some(nest) = nest(places) {
        return Some(vec![(first, nest)]);
    }
    let mut runs: Vec<(usize, Nest)> = vec![];
    let mut at = 0;
    while at < places.len() {
        let count = evenly(&places[at..]);
        let step = if count > 1 { places[at + 1] - places[at] } else { 1 };
        runs.push((places[at], vec![(count, step)]));
        at += count;
        if runs.len() > RUNS {
            return None;
        }
    }
    Some(runs)
}

/// Places from the front that ascend by the same step.
fn evenly(places: &[usize]) -> usize {
    let Some(step) = places.get(1).and_then(|second| second.checked_sub(places[0])) else { return 1 };
    places.windows(2).take_while(|pair| pair[1].checked_sub(pair[0]) == Some(step)).count() + 1
}

/// Ascending places as one nest of loops.
fn nest(places: &[usize]) -> Option<Nest> {
    let (mut left, mut nest) = (places.to_vec(), Nest::new());
    while left.len() > 1 {
        let count = evenly(&left);
        let step = left[1].checked_sub(left[0])?;
        if count < 2 || !left.len().is_multiple_of(count) {
            return None;
        }
        let follows = |row: &[usize]| evenly(row) == count && row[1].checked_sub(row[0]) == Some(step);
        if !left.chunks_exact(count).all(follows) {
            return None;
        }
        nest.push((count, step));
        left = left.iter().step_by(count).copied().collect();
    }
    if nest.is_empty() {
        nest.push((1, 1));
    }
    Some(nest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_become_loops() {
        let block: Vec<usize> = (0..3)
            .flat_map(|i| (0..2).flat_map(move |j| (0..4).map(move |k| 5 + 100 * i + 10 * j + k)))
            .collect();
        assert_eq!(runs(&block), Some(vec![(5, vec![(4, 1), (2, 10), (3, 100)])]));
        assert_eq!(runs(&[7]), Some(vec![(7, vec![(1, 1)])]));
        assert_eq!(runs(&[3, 4, 5, 0]), Some(vec![(3, vec![(3, 1)]), (0, vec![(1, 1)])]));
        assert_eq!(runs(&[9, 6, 3]), Some(vec![(9, vec![(1, 1)]), (6, vec![(1, 1)]), (3, vec![(1, 1)])]));
        assert_eq!(runs(&(0..40).rev().collect::<Vec<_>>()), None);
        assert_eq!(runs(&[]), Some(vec![]));
    }
}
