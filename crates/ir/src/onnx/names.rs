//! Unique names.

use std::collections::{HashMap, HashSet};

/// Makes names unique, quickly even when they are all the same. Names of graphs inside of others are hidden: they may be there
/// again in another graph, but no new name is one of them.
#[derive(Default)]
pub(super) struct Names {
    taken: HashSet<String>,
    hidden: HashSet<String>,
    /// Taken names in the order in which they were taken.
    order: Vec<String>,
    next: HashMap<String, u64>,
}

impl Names {
    /// Takes a name that may be taken already.
    pub fn reserve(&mut self, name: &str) {
        self.insert(name);
    }

    /// Hides a name.
    pub fn hide(&mut self, name: String) {
        self.hidden.insert(name);
    }

    /// A name close to `base` that is not taken, and takes it.
    pub fn unique(&mut self, base: &str) -> String {
        let mut name = base.to_owned();
        while self.hidden.contains(&name) || !self.insert(&name) {
            let number = self.next.entry(base.to_owned()).or_insert(0);
            *number += 1;
            name = format!("{base}.{number}");
        }
        name
    }

    /// That name if it is not taken, else one close to it, and takes it.
    pub fn claim(&mut self, name: &str) -> String {
        if self.insert(name) { name.to_owned() } else { self.unique(name) }
    }

    /// Begins a graph inside; for [`Names::end`].
    pub fn begin(&self) -> usize {
        self.order.len()
    }

    /// Ends it: the names taken since then are hidden.
    pub fn end(&mut self, begin: usize) {
        for name in self.order.drain(begin..) {
            self.taken.remove(&name);
            self.hidden.insert(name);
        }
    }

    fn insert(&mut self, name: &str) -> bool {
        let new = !self.taken.contains(name);
        if new {
            self.taken.insert(name.to_owned());
            self.order.push(name.to_owned());
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_graphs_inside_are_hidden() {
        let mut names = Names::default();
        assert_eq!((names.unique("a"), names.unique("a")), ("a".into(), "a.1".into()));
        let begin = names.begin();
        assert_eq!((names.claim("b"), names.claim("a")), ("b".into(), "a.2".into()));
        names.end(begin);
        assert_eq!(names.claim("b"), "b", "another graph may have it again");
        assert_eq!(names.unique("a.2"), "a.2.1", "a new name is no hidden one");
    }
}
