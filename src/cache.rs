//! A small map that forgets what was used least recently.

/// Entries by key, most recently used last. Small: looking up is a scan.
pub(crate) struct Cache<K, V> {
    capacity: usize,
    /// Most bytes of all entries together; the newest is kept even when it alone has more.
    capacity_bytes: usize,
    entries: Vec<Entry<K, V>>,
}

struct Entry<K, V> {
    key: K,
    value: V,
    bytes: usize,
}

impl<K: PartialEq, V> Cache<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, capacity_bytes: usize::MAX, entries: vec![] }
    }

    /// As it is, but forgetful when the entries have more bytes than this.
    pub(crate) fn with_bytes(self, capacity_bytes: usize) -> Self {
        Self { capacity_bytes, ..self }
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry that `matches`, which becomes the most recently used.
    pub(crate) fn get(&mut self, matches: impl Fn(&K) -> bool) -> Option<&mut V> {
        let found = self.entries.iter().rposition(|entry| matches(&entry.key))?;
        // Rotating allocates nothing.
        self.entries[found..].rotate_left(1);
        self.entries.last_mut().map(|entry| &mut entry.value)
    }

    /// Adds an entry; the least recently used ones go when there are too many.
    pub(crate) fn insert(&mut self, key: K, value: V) -> &mut V {
        self.insert_sized(key, value, 0)
    }

    /// As [`Cache::insert`], of so many bytes.
    pub(crate) fn insert_sized(&mut self, key: K, value: V, bytes: usize) -> &mut V {
        let mut total = self.entries.iter().map(|entry| entry.bytes).fold(bytes, usize::saturating_add);
        let excess = (self.entries.len() + 1).saturating_sub(self.capacity.max(1));
        let mut gone = 0;
        while gone < self.entries.len() && (gone < excess || total > self.capacity_bytes) {
            total -= self.entries[gone].bytes;
            gone += 1;
        }
        self.entries.drain(..gone);
        self.entries.push(Entry { key, value, bytes });
        let last = self.entries.len() - 1;
        &mut self.entries[last].value
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

    #[test]
    fn forgets_when_entries_become_too_large() {
        let mut cache = Cache::new(9).with_bytes(100);
        for (key, bytes) in [(1, 40), (2, 40), (3, 10)] {
            cache.insert_sized(key, "", bytes);
        }
        assert_eq!((cache.len(), cache.get(|&key| key == 1)), (3, Some(&mut "")));
        cache.insert_sized(4, "", 30);
        assert_eq!(cache.get(|&key| key == 2), None);
        assert_eq!(cache.len(), 3);
        cache.insert_sized(5, "", 1000);
        assert_eq!((cache.len(), cache.get(|&key| key == 5)), (1, Some(&mut "")));
    }
}
