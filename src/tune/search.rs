//! The search for the fastest schedule: from neighbour to neighbour, and once more against the start.

use std::collections::HashSet;
use std::time::Duration;

/// Candidates that are tried at most.
const MOST_TRIALS: usize = 80;
/// The share of a candidate's time that another must stay below to be better: less could be chance.
const BETTER: f64 = 0.98;
/// Blocks of runs of each candidate in a comparison.
pub(super) const BLOCKS: usize = 8;

/// What is searched.
pub(super) trait Space {
    type Candidate;
    type Error;

    /// Names of the candidates next to one, and its own.
    fn names(&self, candidate: &Self::Candidate) -> (String, Vec<String>);

    /// The candidate of a name; none where there is no such thing after all.
    fn make(&mut self, name: &str) -> Option<Self::Candidate>;

    /// The least times of a block of runs of both, in turns.
    fn race(
        &mut self,
        a: &mut Self::Candidate,
        b: &mut Self::Candidate,
    ) -> Result<[Duration; 2], Self::Error>;
}

/// The fastest candidate that can be reached from `start` by neighbours that are faster.
pub(super) fn climb<S: Space>(space: &mut S, start: S::Candidate) -> Result<S::Candidate, S::Error> {
    let (first, mut others) = space.names(&start);
    let (mut best, mut name) = (start, first.clone());
    let mut tried = HashSet::from([first.clone()]);
    loop {
        let before = name.clone();
        for other in others {
            if tried.len() > MOST_TRIALS || !tried.insert(other.clone()) {
                continue;
            }
            let Some(mut candidate) = space.make(&other) else { continue };
            if is_faster(space, &mut candidate, &mut best, BLOCKS)? {
                (best, name) = (candidate, other);
            }
        }
        if name == before {
            break;
        }
        others = space.names(&best).1;
    }
    // The best of many looks better than it is: it must win again.
    if name != first
        && let Some(mut start) = space.make(&first)
        && !is_faster(space, &mut best, &mut start, 2 * BLOCKS)?
    {
        return Ok(start);
    }
    Ok(best)
}

/// Whether the first is faster, after so many blocks of runs; fewer where it is far behind.
pub(super) fn is_faster<S: Space>(
    space: &mut S,
    challenger: &mut S::Candidate,
    champion: &mut S::Candidate,
    blocks: usize,
) -> Result<bool, S::Error> {
    let mut least = [Duration::MAX; 2];
    for block in 0..blocks {
        let times = space.race(challenger, champion)?;
        least = [0, 1].map(|i| least[i].min(times[i]));
        let hopeless = if block < 2 { 1.3 } else { 1.1 };
        if least[0] > least[1].mul_f64(hopeless) {
            return Ok(false);
        }
    }
    Ok(least[0] < least[1].mul_f64(BETTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// Candidates are numbers; next to one are some before and behind it.
    struct Line<F> {
        /// Microseconds of a candidate in a race of that number.
        time: F,
        reach: i64,
        races: u32,
        made: Vec<i64>,
    }

    impl<F: Fn(i64, u32) -> u64> Line<F> {
        fn new(reach: i64, time: F) -> Self {
            Self { time, reach, races: 0, made: vec![] }
        }
    }

    impl<F: Fn(i64, u32) -> u64> Space for Line<F> {
        type Candidate = i64;
        type Error = Infallible;

        fn names(&self, &at: &i64) -> (String, Vec<String>) {
            let others = (at - self.reach..=at + self.reach).filter(|&other| other != at);
            (at.to_string(), others.map(|other| other.to_string()).collect())
        }

        fn make(&mut self, name: &str) -> Option<i64> {
            let at = name.parse().ok()?;
            self.made.push(at);
            // Seven is no candidate.
            (at != 7).then_some(at)
        }

        fn race(&mut self, a: &mut i64, b: &mut i64) -> Result<[Duration; 2], Infallible> {
            self.races += 1;
            Ok([*a, *b].map(|at| Duration::from_micros((self.time)(at, self.races))))
        }
    }

    #[test]
    fn goes_to_the_fastest_and_tries_nothing_twice() {
        let mut line = Line::new(2, |at, _| 1000 + 100 * at.abs_diff(12));
        assert_eq!(climb(&mut line, 0), Ok(12));
        let mut made = line.made.clone();
        // The start is made again for the last comparison.
        assert_eq!(made.pop(), Some(0));
        made.sort_unstable();
        let count = made.len();
        made.dedup();
        assert_eq!(made.len(), count);
    }

    #[test]
    fn stays_where_nothing_is_clearly_faster() {
        assert_eq!(climb(&mut Line::new(3, |at, _| 1000 - u64::from(at == 2) * 10), 0), Ok(0));
        assert_eq!(climb(&mut Line::new(3, |at, _| 1000 - u64::from(at == 2) * 30), 0), Ok(2));
    }

    #[test]
    fn a_winner_by_chance_does_not_win_again() {
        // Two, the fourth that is tried, is fast in its first comparison only.
        let first = 4 * BLOCKS as u32;
        let lucky = move |at, race| if at == 2 && race <= first { 500 } else { 1000 };
        let mut line = Line::new(2, lucky);
        assert_eq!(climb(&mut line, 0), Ok(0));
        assert!(line.made.contains(&3), "what is next to two was to be tried: {:?}", line.made);
    }

    #[test]
    fn tries_only_so_many() {
        let mut line = Line::new(200, |_, _| 1000);
        assert_eq!(climb(&mut line, 0), Ok(0));
        assert_eq!(line.made.len(), MOST_TRIALS);
    }

    #[test]
    fn what_is_far_behind_is_soon_given_up() {
        let mut line = Line::new(1, |at, _| if at == 0 { 100 } else { 1000 });
        assert_eq!(is_faster(&mut line, &mut 1, &mut 0, BLOCKS), Ok(false));
        assert_eq!(line.races, 1);
        assert_eq!(is_faster(&mut line, &mut 0, &mut 1, BLOCKS), Ok(true));
    }
}
