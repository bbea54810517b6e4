//! Unique names.

use std::collections::{HashMap, HashSet};

/// Makes names unique, quickly even when they are all the same.
#[derive(Default)]
pub(super) struct Names {
    taken: HashSet<String>,
    next: HashMap<String, u64>,
}

impl Names {
    /// Takes a name that may be taken already.
    pub fn reserve(&mut self, name: String) {
        self.taken.insert(name);
    }

    /// A name close to `base` that is not taken, and takes it.
    pub fn unique(&mut self, base: &str) -> String {
        let mut name = base.to_owned();
        while !self.taken.insert(name.clone()) {
            let number = self.next.entry(base.to_owned()).or_insert(0);
            *number += 1;
            name = format!("{base}.{number}");
        }
        name
    }
}
