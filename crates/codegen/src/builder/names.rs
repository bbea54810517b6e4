//! Names of code: each is taken once.

use std::collections::HashMap;

/// Names that are taken, and how often each was asked for.
#[derive(Debug, Default)]
pub(crate) struct Names(HashMap<String, u64>);

impl Names {
    /// A name that is not taken yet: the one given, or that with a number behind it.
    pub fn unique(&mut self, name: &str) -> String {
        let count = self.0.entry(name.to_owned()).or_insert(0);
        *count += 1;
        if *count == 1 { name.to_owned() } else { format!("{name}.{count}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_a_number_when_they_are_taken() {
        let mut names = Names::default();
        assert_eq!(["a", "b", "a", "a"].map(|name| names.unique(name)), ["a", "b", "a.2", "a.3"]);
    }
}
