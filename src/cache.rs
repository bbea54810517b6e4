//! A small map that forgets what was used least recently.

/// Entries by key, most recently used last. Small: looking up is a scan.
pub(crate) struct Cache<K, V> {
    capacity: usize,
    entries: Vec<(K, V)>,
}

impl<K: PartialEq, V> Cache<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, entries: vec![] }
    }

    /// The entry that `matches`, which becomes the most recently used.
    pub(crate) fn get(&mut self, matches: impl Fn(&K) -> bool) -> Option<&mut V> {
        let found = self.entries.iter().rposition(|(key, _)| matches(key))?;
        // Rotating allocates nothing.
        self.entries[found..].rotate_left(1);
        self.entries.last_mut().map(|(_, value)| value)
    }

    /// Adds an entry; the least recently used one goes when there are too many.
    pub(crate) fn insert(&mut self, key: K, value: V) -> &mut V {
        if self.entries.len() >= self.capacity {
            self.entries.remove(0);
        }
        self.entries.push((key, value));
        let last = self.entries.len() - 1;
        &mut self.entries[last].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_least_recently_used() {
        let mut cache = Cache::new(2);
        cache.insert(1, "a");
        cache.insert(2, "b");
        assert_eq!(cache.get(|&key| key == 1), Some(&mut "a"));
        cache.insert(3, "c");
        assert_eq!(cache.get(|&key| key == 2), None);
        assert_eq!(cache.get(|&key| key == 1), Some(&mut "a"));
        assert_eq!(cache.get(|&key| key == 3), Some(&mut "c"));
    }
}
