//! Nodes in an order in which values are made before they are read. Files should have them so; not all do.

use super::source::Source;
use crate::error::{Error, Result};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Sorts nodes; those that are in order already stay as they are.
pub(super) fn sort(sources: Vec<Source>) -> Result<Vec<Source>> {
    let mut makers = HashMap::new();
    for (index, source) in sources.iter().enumerate() {
        for output in source.proto.output.iter().filter(|name| !name.is_empty()) {
            if let Some(other) = makers.insert(output.as_str(), index) {
                let other = &sources[other].name;
                return Err(source.at(Error::Graph(format!("`{output}` is made by node `{other}`, too"))));
            }
        }
    }
    let mut users: Vec<Vec<usize>> = vec![vec![]; sources.len()];
    let mut waiting = vec![0usize; sources.len()];
    for (index, source) in sources.iter().enumerate() {
        for name in source.reads() {
            if let Some(&maker) = makers.get(name) {
                users[maker].push(index);
                waiting[index] += 1;
            }
        }
    }
    let mut ready: BinaryHeap<Reverse<usize>> =
        (0..sources.len()).filter(|&index| waiting[index] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(sources.len());
    while let Some(Reverse(index)) = ready.pop() {
        order.push(index);
        for &user in &users[index] {
            waiting[user] -= 1;
            if waiting[user] == 0 {
                ready.push(Reverse(user));
            }
        }
    }
    if let Some(stuck) = waiting.iter().position(|&count| count > 0) {
        return Err(sources[stuck].at(Error::Graph("the node depends on its own output (a cycle)".into())));
    }
    let mut sources: Vec<Option<Source>> = sources.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|index| sources[index].take()).collect())
}
