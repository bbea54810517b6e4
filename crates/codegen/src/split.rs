//! How units of work are shared out to threads.

/// Up to so many units are weighed one by one; of more than these none is a large share.
const MOST_WEIGHED: usize = 1 << 12;

/// The largest of even shares is so many times the mean, at most.
const MOST_UNEVEN: f64 = 1.02;

/// Shares that so many nanoseconds are worth, of so many threads at most, where one is worth `each_ns`.
pub(crate) fn worth(threads: usize, total_ns: f64, each_ns: f64) -> usize {
    threads.min((total_ns / each_ns).max(1.0) as usize).max(1)
}

/// Boundaries of even shares of equal units.
pub(crate) fn even(units: u64, shares: usize) -> Vec<u64> {
    let shares = (shares as u64).min(units.max(1));
    (0..=shares).map(|share| units * share / shares).collect()
}

/// Boundaries of shares of about equal weight, of units in order.
pub(crate) fn weighted(weights: &[u64], shares: usize) -> Vec<u64> {
    let shares = shares.min(weights.len().max(1));
    if weights.len() > MOST_WEIGHED {
        return even(weights.len() as u64, shares);
    }
    let total: u64 = weights.iter().sum();
    let mut boundaries = vec![0];
    let (mut before, mut end) = (0, 0);
    for share in 1..shares as u64 {
        // The boundary next to where the share should end.
        let wanted = 2 * total * share / shares as u64;
        while end < weights.len() && 2 * before + weights[end] <= wanted {
            before += weights[end];
            end += 1;
        }
        boundaries.push(end as u64);
    }
    boundaries.push(weights.len() as u64);
    boundaries
}

/// Whether shares of these units are about equal.
pub(crate) fn is_even(weights: &[u64], shares: usize) -> bool {
    unevenness(weights, shares) < MOST_UNEVEN
}

/// The weight of the largest share, of what it would be were all of them equal.
fn unevenness(weights: &[u64], shares: usize) -> f64 {
    let of = |pair: &[u64]| weights[pair[0] as usize..pair[1] as usize].iter().sum::<u64>();
    let largest = weighted(weights, shares).windows(2).map(of).max().unwrap_or(0);
    (largest * shares as u64) as f64 / weights.iter().sum::<u64>().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_complete_and_even() {
        assert_eq!(even(17, 2), [0, 8, 17]);
        assert_eq!(even(1, 4), [0, 1]);
        assert_eq!(even(0, 4), [0, 0]);
        for units in 0..20 {
            for shares in 1..6 {
                let boundaries = even(units, shares);
                assert_eq!(weighted(&vec![3; units as usize], shares).len(), boundaries.len());
                assert_eq!((boundaries[0], boundaries.last().copied()), (0, Some(units)));
                assert!(boundaries.windows(2).all(|pair| pair[1] - pair[0] <= units.div_ceil(shares as u64)));
            }
        }
    }

    #[test]
    fn weights_are_shared_out_and_not_units() {
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
