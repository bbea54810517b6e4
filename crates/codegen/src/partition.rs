//! How work items are partitioned among threads.

/// Up to so many items are weighed one by one; of more than these none is a large part.
const MOST_WEIGHED: usize = 1 << 12;

/// The largest of even parts is so many times the mean, at most.
const MOST_UNEVEN: f64 = 1.02;

/// Parts that so many nanoseconds are worth, of so many threads at most, where one is worth `each_ns`.
pub(crate) fn parts(threads: usize, total_ns: f64, each_ns: f64) -> usize {
    threads.min((total_ns / each_ns).max(1.0) as usize).max(1)
}

/// Boundaries of even parts of equal items.
pub(crate) fn even(items: u64, parts: usize) -> Vec<u64> {
    let parts = (parts as u64).min(items.max(1));
    (0..=parts).map(|part| items * part / parts).collect()
}

/// Boundaries of parts of about equal weight, of items in order.
pub(crate) fn weighted(weights: &[u64], parts: usize) -> Vec<u64> {
    let parts = parts.min(weights.len().max(1));
    if weights.len() > MOST_WEIGHED {
        return even(weights.len() as u64, parts);
    }
    let total: u64 = weights.iter().sum();
    let mut boundaries = vec![0];
    let (mut before, mut end) = (0, 0);
    for part in 1..parts as u64 {
        // The boundary next to where the part should end.
        let wanted = 2 * total * part / parts as u64;
        while end < weights.len() && 2 * before + weights[end] <= wanted {
            before += weights[end];
            end += 1;
        }
        boundaries.push(end as u64);
    }
    boundaries.push(weights.len() as u64);
    boundaries
}

/// Whether parts of these items are about equal.
pub(crate) fn is_even(weights: &[u64], parts: usize) -> bool {
    unevenness(weights, parts) < MOST_UNEVEN
}

/// The weight of the largest part, of what it would be were all of them equal.
fn unevenness(weights: &[u64], parts: usize) -> f64 {
    let of = |pair: &[u64]| weights[pair[0] as usize..pair[1] as usize].iter().sum::<u64>();
    let largest = weighted(weights, parts).windows(2).map(of).max().unwrap_or(0);
    (largest * parts as u64) as f64 / weights.iter().sum::<u64>().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_complete_and_even() {
        assert_eq!(even(17, 2), [0, 8, 17]);
        assert_eq!(even(1, 4), [0, 1]);
        assert_eq!(even(0, 4), [0, 0]);
        for items in 0..20 {
            for parts in 1..6 {
                let boundaries = even(items, parts);
                assert_eq!(weighted(&vec![3; items as usize], parts).len(), boundaries.len());
                assert_eq!((boundaries[0], boundaries.last().copied()), (0, Some(items)));
                assert!(boundaries.windows(2).all(|pair| pair[1] - pair[0] <= items.div_ceil(parts as u64)));
            }
        }
    }

    #[test]
    fn weights_are_partitioned_and_not_items() {
        assert_eq!(weighted(&[8, 1, 1, 1, 1, 1, 1, 1, 1], 2), [0, 1, 9]);
        assert_eq!(weighted(&[4, 4, 4, 4, 1], 2), [0, 2, 5]);
        assert_eq!(weighted(&[1, 4, 4, 4, 4], 2), [0, 3, 5]);
        assert_eq!(weighted(&[9, 0, 0], 3), [0, 0, 1, 3]);
        assert_eq!(weighted(&[], 3), [0, 0]);
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        close(unevenness(&[1; 17], 2), 18.0 / 17.0);
        close(unevenness(&[2, 1, 1], 2), 1.0);
        close(unevenness(&[5], 4), 4.0);
    }
}
