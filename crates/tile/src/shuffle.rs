//! Lane patterns, and what is composed of them: interleaving, its reverse, transposes, swaps for reductions.
//!
//! A [`Pattern`] says what a shuffle does; the lowerings know which patterns are one instruction. The compositions
//! here use those only, but for 16 lanes, where a two-register permute with an index from memory is as cheap.

use std::fmt::Write as _;

use super::builder::TileBuilder;
use super::ir::Vector;

/// Where each lane of a shuffle comes from: lane `i` of the result is lane `get(i)` of `a` followed by `b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pattern([u8; 16]);

impl Pattern {
    /// The pattern with `f(i)` at lane `i`, for `lanes` lanes.
    pub fn new(lanes: usize, f: impl Fn(usize) -> usize) -> Pattern {
        let mut picks = [0; 16];
        for (i, pick) in picks.iter_mut().take(lanes).enumerate() {
            *pick = f(i) as u8;
        }
        Pattern(picks)
    }

    /// Source of lane `i`: below the number of lanes of `a`, else of `b`.
    pub fn get(self, i: usize) -> usize {
        usize::from(self.0[i])
    }

    /// Whether `f` holds of every lane and its source.
    pub fn all(self, lanes: usize, f: impl Fn(usize, usize) -> bool) -> bool {
        (0..lanes).all(|i| f(i, self.get(i)))
    }

    /// The same result with `a` and `b` exchanged.
    #[must_use]
    pub fn swapped(self, lanes: usize) -> Pattern {
        Pattern::new(lanes, |i| (self.get(i) + lanes) % (2 * lanes))
    }

    pub(crate) fn show(self, lanes: usize) -> String {
        let mut text = String::from("(");
        for i in 0..lanes {
            let (from, lane) =
                if self.get(i) < lanes { ('a', self.get(i)) } else { ('b', self.get(i) - lanes) };
            let _ = write!(text, "{}{from}{lane}", if i == 0 { "" } else { " " });
        }
        text + ")"
    }
}

/// In each group of four lanes: low halves of `a` and `b` alternating, `a0 b0 a1 b1`.
fn zip_low(lanes: usize) -> Pattern {
    Pattern::new(lanes, |i| i / 4 * 4 + i % 4 / 2 + i % 2 * lanes)
}

/// In each group of four lanes: high halves of `a` and `b` alternating, `a2 b2 a3 b3`.
fn zip_high(lanes: usize) -> Pattern {
    Pattern::new(lanes, |i| i / 4 * 4 + 2 + i % 4 / 2 + i % 2 * lanes)
}

/// In each group of four lanes: two picks from `a`, two from `b`.
fn pick_pairs(lanes: usize, picks: [usize; 4]) -> Pattern {
    Pattern::new(lanes, |i| i / 4 * 4 + picks[i % 4] + i % 4 / 2 * lanes)
}

/// Groups of four lanes, `groups[i]` counted through `a` and then `b`.
fn pick_fours(lanes: usize, groups: &[usize]) -> Pattern {
    Pattern::new(lanes, |i| groups[i / 4] * 4 + i % 4)
}

impl TileBuilder {
    /// Lanes of `a` and `b` as `pattern` says.
    pub fn shuffle(&mut self, a: Vector, b: Vector, pattern: Pattern) -> Vector {
        self.define(|dst| super::ir::Inst::Shuffle { dst, a, b, pattern })
    }

    /// Lane `i` of the result is lane `i ^ distance` of `a`, `distance` being a power of two below the lane count.
    pub fn swap_lanes(&mut self, a: Vector, distance: usize) -> Vector {
        let lanes = self.lanes();
        if !distance.is_power_of_two() || distance >= lanes {
            return self.misuse(format!("lanes cannot be swapped over a distance of {distance}"), a);
        }
        self.shuffle(a, a, Pattern::new(lanes, |i| i ^ distance))
    }

    /// The sum of all lanes, in every lane. Adds in a tree: lanes half the width apart first, neighbours last.
    pub fn reduce_sum(&mut self, a: Vector) -> Vector {
        self.reduce(a, TileBuilder::add)
    }

    /// The largest lane, in every lane; NaN where any lane is NaN.
    pub fn reduce_max(&mut self, a: Vector) -> Vector {
        self.reduce(a, TileBuilder::max_nan)
    }

    /// The smallest lane, in every lane; NaN where any lane is NaN.
    pub fn reduce_min(&mut self, a: Vector) -> Vector {
        self.reduce(a, TileBuilder::min_nan)
    }

    fn reduce(&mut self, a: Vector, op: impl Fn(&mut Self, Vector, Vector) -> Vector) -> Vector {
        let mut all = a;
        let mut distance = self.lanes() / 2;
        while distance > 0 {
            let other = self.swap_lanes(all, distance);
            all = op(self, all, other);
            distance /= 2;
        }
        all
    }

    /// Interleaves `s` vectors: the results, one behind the other, hold `a0 b0 c0 .. a1 b1 c1 ..`.
    ///
    /// This is how the phases of a sub-pixel convolution become a row of the output. Any `s` of at least 1 that fits
    /// the registers; powers of two cost 2 instructions a vector and doubling, odd factors `s` a vector.
    pub fn interleave(&mut self, inputs: &[Vector]) -> Vec<Vector> {
        match inputs.len() {
            0 | 1 => inputs.to_vec(),
            2 => self.interleave_2(inputs[0], inputs[1]).to_vec(),
            s => match smallest_factor(s) {
                p if p == s => self.interleave_odd(inputs),
                p => self.interleave_composed(inputs, p),
            },
        }
    }

    /// With `s = p * q`: interleaves groups of `p` inputs that are `q` apart, then the `q` sequences so made.
    fn interleave_composed(&mut self, inputs: &[Vector], p: usize) -> Vec<Vector> {
        let q = inputs.len() / p;
        let sequences: Vec<Vec<Vector>> = (0..q)
            .map(|k| {
                let group: Vec<Vector> = (0..p).map(|m| inputs[k + m * q]).collect();
                self.interleave(&group)
            })
            .collect();
        (0..p)
            .flat_map(|part| {
                let group: Vec<Vector> = sequences.iter().map(|sequence| sequence[part]).collect();
                self.interleave(&group)
            })
            .collect()
    }

    fn interleave_2(&mut self, a: Vector, b: Vector) -> [Vector; 2] {
        let lanes = self.lanes();
        if lanes == 16 {
            return [0, 8].map(|from| self.shuffle(a, b, Pattern::new(16, |i| from + i / 2 + i % 2 * 16)));
        }
        let low = self.shuffle(a, b, zip_low(lanes));
        let high = self.shuffle(a, b, zip_high(lanes));
        if lanes == 4 {
            return [low, high];
        }
        [&[0, 2], &[1, 3]].map(|groups| self.shuffle(low, high, pick_fours(lanes, groups)))
    }

    /// For odd `s`: element `n` of input `i` goes to place `n * s + i`. As `s` has no factor in common with the lane
    /// count, the places of one input fall into different lanes: one permute an input, then only blends.
    fn interleave_odd(&mut self, inputs: &[Vector]) -> Vec<Vector> {
        let (s, lanes) = (inputs.len(), self.lanes());
        let spread: Vec<Vector> = inputs
            .iter()
            .enumerate()
            .map(|(i, &input)| {
                let source = |lane: usize| (0..lanes).find(|n| (n * s + i) % lanes == lane).unwrap_or(0);
                self.shuffle(input, input, Pattern::new(lanes, source))
            })
            .collect();
        (0..s).map(|part| self.blend(&spread, |lane| (part * lanes + lane) % s)).collect()
    }

    /// Lane by lane from the input that `which` names.
    fn blend(&mut self, inputs: &[Vector], which: impl Fn(usize) -> usize) -> Vector {
        let lanes = self.lanes();
        let mut all = inputs[0];
        for (k, &input) in inputs.iter().enumerate().skip(1) {
            if (0..lanes).any(|lane| which(lane) == k) {
                let take = |lane: usize| if which(lane) == k { lane + lanes } else { lane };
                all = self.shuffle(all, input, Pattern::new(lanes, take));
            }
        }
        all
    }

    /// The reverse of [`TileBuilder::interleave`]: `s` vectors that follow each other in memory hold
    /// `a0 b0 c0 .. a1 b1 c1 ..`; the results are `a`, `b`, `c` and so on. Packs the input of strided convolutions.
    pub fn deinterleave(&mut self, inputs: &[Vector]) -> Vec<Vector> {
        match inputs.len() {
            0 | 1 => inputs.to_vec(),
            2 => self.deinterleave_2(inputs[0], inputs[1]).to_vec(),
            s => match smallest_factor(s) {
                p if p == s => self.deinterleave_odd(inputs),
                p => self.deinterleave_composed(inputs, p),
            },
        }
    }

    fn deinterleave_composed(&mut self, inputs: &[Vector], p: usize) -> Vec<Vector> {
        let q = inputs.len() / p;
        let mut sequences = vec![Vec::new(); q];
        for part in inputs.chunks(q) {
            for (k, v) in self.deinterleave(part).into_iter().enumerate() {
                sequences[k].push(v);
            }
        }
        let mut outputs = vec![inputs[0]; inputs.len()];
        for (k, sequence) in sequences.iter().enumerate() {
            for (m, v) in self.deinterleave(sequence).into_iter().enumerate() {
                outputs[k + m * q] = v;
            }
        }
        outputs
    }

    fn deinterleave_2(&mut self, a: Vector, b: Vector) -> [Vector; 2] {
        let lanes = self.lanes();
        match lanes {
            4 => [[0, 2, 0, 2], [1, 3, 1, 3]].map(|picks| self.shuffle(a, b, pick_pairs(4, picks))),
            8 => {
                let low = self.shuffle(a, b, pick_fours(8, &[0, 2]));
                let high = self.shuffle(a, b, pick_fours(8, &[1, 3]));
                [[0, 2, 0, 2], [1, 3, 1, 3]].map(|picks| self.shuffle(low, high, pick_pairs(8, picks)))
            }
            _ => [0, 1].map(|odd| self.shuffle(a, b, Pattern::new(lanes, |i| 2 * i + odd))),
        }
    }

    /// Blends put together what belongs to one output, one permute brings it into order.
    fn deinterleave_odd(&mut self, inputs: &[Vector]) -> Vec<Vector> {
        let (s, lanes) = (inputs.len(), self.lanes());
        (0..s)
            .map(|i| {
                let part_of = |lane: usize| (0..s).find(|part| (part * lanes + lane) % s == i).unwrap_or(0);
                let mixed = self.blend(inputs, part_of);
                self.shuffle(mixed, mixed, Pattern::new(lanes, |n| (n * s + i) % lanes))
            })
            .collect()
    }

    /// Transposes a square of as many vectors as there are lanes: result `i` holds lane `i` of every input.
    pub fn transpose(&mut self, rows: &[Vector]) -> Vec<Vector> {
        let lanes = self.lanes();
        if rows.len() != lanes {
            let text = format!("{} vectors cannot be transposed as a square of {lanes}", rows.len());
            self.misuse(text, Vector(0));
            return rows.to_vec();
        }
        let mut columns = vec![Vector(0); lanes];
        self.transpose_each(rows, |_, i, column| columns[i] = column);
        columns
    }

    /// Transposes up to as many vectors as there are lanes, and hands over each result as soon as it is made, with its number:
    /// few registers are taken at a time. Lanes of missing inputs hold anything.
    pub fn transpose_each(&mut self, rows: &[Vector], mut take: impl FnMut(&mut Self, usize, Vector)) {
        let lanes = self.lanes();
        // Squares of four within each group of four lanes; column[c][g] then holds lane c of rows 4g .. 4g+3.
        let mut columns = vec![Vec::new(); 4];
        for four in rows.chunks(4) {
            let row = |i: usize| four.get(i).copied().unwrap_or(four[0]);
            let zips = [(0, 1), (2, 3)].map(|(a, b)| {
                [zip_low(lanes), zip_high(lanes)].map(|pattern| self.shuffle(row(a), row(b), pattern))
            });
            for (c, column) in columns.iter_mut().enumerate() {
                let picks = if c % 2 == 0 { [0, 1, 0, 1] } else { [2, 3, 2, 3] };
                column.push(self.shuffle(zips[0][c / 2], zips[1][c / 2], pick_pairs(lanes, picks)));
            }
        }
        // What is left is a transpose of groups of four lanes.
        for (c, mut column) in columns.into_iter().enumerate() {
            let Some(&any) = column.first() else { return };
            column.resize(lanes / 4, any);
            for (g, result) in self.transpose_fours(&column).into_iter().enumerate() {
                take(self, 4 * g + c, result);
            }
        }
    }

    fn transpose_fours(&mut self, rows: &[Vector]) -> Vec<Vector> {
        let mut pairs = |a: Vector, b: Vector, groups: [&[usize]; 2]| {
            groups.map(|groups| self.shuffle(a, b, pick_fours(4 * groups.len(), groups)))
        };
        match *rows {
            [a, b] => pairs(a, b, [&[0, 2], &[1, 3]]).to_vec(),
            [a, b, c, d] => {
                let [ab_even, ab_odd] = pairs(a, b, [&[0, 2, 4, 6], &[1, 3, 5, 7]]);
                let [cd_even, cd_odd] = pairs(c, d, [&[0, 2, 4, 6], &[1, 3, 5, 7]]);
                let [r0, r2] = pairs(ab_even, cd_even, [&[0, 2, 4, 6], &[1, 3, 5, 7]]);
                let [r1, r3] = pairs(ab_odd, cd_odd, [&[0, 2, 4, 6], &[1, 3, 5, 7]]);
                vec![r0, r1, r2, r3]
            }
            _ => rows.to_vec(),
        }
    }
}

fn smallest_factor(s: usize) -> usize {
    (2..=s).find(|p| s.is_multiple_of(*p)).unwrap_or(s)
}
