//! What things take, as plain numbers: the one table that the cost model, the schedules and the partition among threads read.
//!
//! Cycles are those of a core of about 4 GHz that starts two multiply-adds and two loads of vectors in each: a Zen 5, on which
//! the numbers were fitted (`docs/cost-model.md`). Other machines differ in width and caches, which a [`Target`](crate::Target)
//! knows, more than in these.

use crate::isa::{self, Isa, Lowering, VectorIsa};
use crate::{Caches, X86Level};

/// Rates of one core and of what is behind it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// f32 lanes of a vector.
    pub lanes: usize,
    /// Cycles in a nanosecond.
    pub cycles_per_ns: f64,
    /// Multiply-adds of vectors that start in a cycle.
    pub multiply_adds: f64,
    /// Loads of vectors that start in a cycle.
    pub loads: f64,
    /// Instructions of any kind that start in a cycle.
    pub instructions: f64,
    /// Cycles until a sum can be added to again.
    pub latency: f64,
    /// How much of the shorter of multiply-adds and loads does not hide behind the longer.
    pub not_hidden: f64,
    /// Reading what is in a cache, or behind all of them.
    pub memory: Memory,
    /// Elements and vectors that are not computed but moved.
    pub moves: Moves,
    /// Around the inner loops of convolutions.
    pub calls: Calls,
    /// Winograd's transforms.
    pub transforms: Transforms,
    /// Handing work to threads.
    pub threads: Threads,
    /// Everything but convolutions, for the partition among threads alone.
    pub elementwise: Elementwise,
}

/// Bytes a cycle that one core reads, in order, from each level, and what of it shows beside products.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// From the first level.
    pub l1: f64,
    /// From the second one.
    pub l2: f64,
    /// From the last one.
    pub l3: f64,
    /// From memory.
    pub far: f64,
    /// How much of the time of a stream of weights from the last level shows beside the products that it is for.
    pub shown_l3: f64,
    /// How much of that of one from memory does.
    pub shown_far: f64,
    /// How much of what shows is left where several threads read one stream.
    pub shared: f64,
    /// From the second level, of weights that a loop reads in order and asks for ahead of their use.
    pub l2_ahead: f64,
    sizes: [usize; 3],
}

impl Memory {
    /// Bytes a cycle of what is read again and again, and takes so many bytes in all: half of a level is for it.
    pub fn bytes_per_cycle(&self, bytes: f64) -> f64 {
        let [l1d, l2, l3] = self.sizes.map(|size| size as f64 / 2.0);
        match bytes {
            _ if bytes <= l1d => self.l1,
            _ if bytes <= l2 => self.l2,
            _ if bytes <= l3 => self.l3,
            _ => self.far,
        }
    }
}

/// Cycles of moving.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moves {
    /// A vector that is copied into a window.
    pub packed_vector: f64,
    /// What a row of a window takes besides.
    pub packed_row: f64,
    /// A lane that is stored for itself, a few elements from the one before.
    pub lane: f64,
    /// A lane that goes to, or comes from, a plane or line of its own.
    pub far_lane: f64,
    /// The same where such planes are whole pages apart, and push each other out of the cache.
    pub colliding_lane: f64,
    /// What a vector of results takes longer where what is read and written with it collides.
    pub colliding_vector: f64,
    /// What an input channel of a patch takes longer where channels collide.
    pub colliding_channel: f64,
    /// A vector of results that is transposed in registers with others, and stored.
    pub transposed_vector: f64,
    /// A vector of results that is transposed in registers with others, before its lanes are stored apart.
    pub shuffled_vector: f64,
    /// A vector of results with lanes along phases that is stored as it is.
    pub stored_vector: f64,
}

/// Cycles around inner loops, fitted for each kind of tile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calls {
    /// A tile over windows: a call, whatever its size.
    pub tile: f64,
    /// A tile of Winograd's products, its stores included.
    pub product: f64,
    /// A tile of patches, with what it needs to begin.
    pub patch: f64,
    /// A run of neighbouring columns of a patch that is added to the output.
    pub patch_run: f64,
    /// The inner loop of patches, for each cycle that its instructions need.
    pub patch_loop: f64,
    /// A row of added patches that is copied to the output.
    pub patch_row: f64,
    /// A vector of added patches that is cleared, and copied to the output.
    pub patch_vector: f64,
    /// A whole convolution that is no scatter, for each cycle that it is estimated to take: fitted so that of 200 layers for which
    /// estimates are close the faster form is taken.
    pub convolution: f64,
}

/// Cycles of a vector in Winograd's transforms: of a term of the inputs and of the results, and around them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transforms {
    /// Along both axes.
    pub both: [f64; 2],
    /// Along one axis.
    pub one: [f64; 2],
    /// A vector of the input that is taken apart into a window of tiles.
    pub gathered: f64,
    /// A vector of the output that is interleaved and stored.
    pub stored: f64,
    /// What that takes longer where the output does not stay in the last-level cache: no products hide it.
    pub stored_far: f64,
}

/// Nanoseconds of handing work over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threads {
    /// From handing a step to the threads to its end, without work.
    pub dispatch_ns: f64,
    /// Work that is worth a thread more: about ten times what it takes to hand it over.
    pub grain_ns: f64,
    /// A time step of a recurrent layer from which on threads share each of them, rather than sequences.
    pub time_step_ns: f64,
    /// Multiply-adds a nanosecond for each lane that a convolution is taken to make: half of the peak, so that a step which is
    /// slow for its size is shared as well.
    pub macs_per_lane: f64,
    /// The same by the multiply-adds of the definition, of which Winograd has fewer to make.
    pub winograd_macs_per_lane: f64,
}

/// Nanoseconds of an element, about, by what is done to it. They only say whether a step is worth another thread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Elementwise {
    /// Read by a loop over vectors, and added to others or weighed.
    pub reduced: f64,
    /// Of an operand or a result of fused elementwise nodes.
    pub operand: f64,
    /// Copied in runs, by words of 32 bits.
    pub copied: f64,
    /// Written by a loop over vectors that reads several rows.
    pub joined: f64,
    /// Taken from wherever its indices say, one by one.
    pub gathered: f64,
    /// Of a normalisation, which passes over it twice.
    pub normalised: f64,
    /// Of a softmax, exponential included.
    pub exponential: f64,
    /// Converted between types, in vectors.
    pub converted: f64,
    /// Converted between types one by one.
    pub converted_alone: f64,
    /// Around the elements of a work item that reduces or joins rows.
    pub reduced_item: f64,
    /// Around the elements of a block of fused elementwise nodes.
    pub operand_item: f64,
    /// Around the elements of a run that is copied.
    pub copied_item: f64,
    /// Around the product of a state and a block of recurrent weights.
    pub recurrent_item: f64,
    /// Multiply-adds a nanosecond of a product of matrices.
    pub matrix_macs: f64,
    /// Multiply-adds a nanosecond of a product of a matrix and a vector, which waits for its weights.
    pub vector_macs: f64,
}

impl Rates {
    /// Of a core with such vectors and caches.
    pub(crate) fn of(isa: &VectorIsa, caches: &Caches) -> Self {
        // Lanes are extracted from the widest vectors before they are stored.
        let lane = if isa.vector_bytes > 32 { 1.5 } else { 1.0 };
        // Cranelift's scatter spills more than its tiles over windows do.
        let convolution = if isa.lowering == Lowering::Cranelift { 0.7 } else { 0.9 };
        Self {
            lanes: isa.lanes(),
            cycles_per_ns: 4.0,
            multiply_adds: 2.0,
            loads: 2.0,
            instructions: 5.0,
            latency: 4.0,
            not_hidden: 0.05,
            memory: Memory {
                l1: 2.0 * isa.vector_bytes as f64,
                l2: 24.0,
                l3: 13.0,
                far: 8.0,
                shown_l3: 0.8125,
                shown_far: 1.0,
                shared: 0.5,
                l2_ahead: 32.0,
                sizes: [caches.l1d.bytes, caches.l2.bytes, caches.l3.bytes],
            },
            moves: Moves {
                packed_vector: 3.0,
                packed_row: 8.0,
                lane,
                far_lane: 1.5,
                colliding_lane: 3.0,
                colliding_vector: 7.0,
                colliding_channel: 3.0,
                transposed_vector: 6.0,
                shuffled_vector: 4.0,
                stored_vector: 1.5,
            },
            calls: Calls {
                tile: 20.0,
                product: 30.0,
                patch: 31.0,
                patch_run: 1.5,
                patch_loop: 1.11,
                patch_row: 5.0,
                patch_vector: 1.0,
                convolution,
            },
            transforms: Transforms {
                both: [3.3, 1.0],
                one: [1.8, 0.5],
                gathered: 7.4,
                stored: 3.6,
                stored_far: 10.0,
            },
            threads: Threads {
                dispatch_ns: 300.0,
                grain_ns: 4000.0,
                time_step_ns: 3000.0,
                macs_per_lane: 4.0,
                winograd_macs_per_lane: 8.0,
            },
            elementwise: Elementwise {
                reduced: 0.15,
                operand: 0.2,
                copied: 0.4,
                joined: 0.3,
                gathered: 1.0,
                normalised: 0.4,
                exponential: 2.0,
                converted: 0.2,
                converted_alone: 0.8,
                reduced_item: 10.0,
                operand_item: 5.0,
                copied_item: 4.0,
                recurrent_item: 40.0,
                matrix_macs: 30.0,
                vector_macs: 8.0,
            },
        }
    }

    /// Multiply-adds a nanosecond of one core at its peak, over all lanes.
    pub fn peak_macs_per_ns(&self) -> f64 {
        self.multiply_adds * self.lanes as f64 * self.cycles_per_ns
    }

    /// Bytes a nanosecond that one core moves between the last cache and itself.
    pub fn bytes_per_ns(&self) -> f64 {
        self.memory.l3 * self.cycles_per_ns
    }

    /// Cycles of so many multiply-adds of vectors and loads of vectors: not quite beside each other, and no more in all than
    /// instructions start.
    pub fn work_cycles(&self, multiply_adds: f64, loads: f64) -> f64 {
        let (a, b) = (multiply_adds / self.multiply_adds, loads / self.loads);
        let beside = a.max(b) + self.not_hidden * a.min(b);
        beside.max((multiply_adds + loads) / self.instructions)
    }
}

impl Default for Rates {
    /// A core with AVX2 and the caches that are assumed of a machine which cannot be asked.
    fn default() -> Self {
        Self::of(isa::row(Isa::X86V3, Some(X86Level::V3), false), &Caches::ASSUMED)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Caches, Target};

    #[test]
    fn levels_are_in_order_and_half_of_each_is_taken() {
        for name in ["x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64"] {
            let rates = Target::parse(name).unwrap().with_caches(Caches::ZEN5).rates();
            let memory = rates.memory;
            let kib = |kib: f64| memory.bytes_per_cycle(kib * 1024.0);
            assert_eq!([24.0, 25.0, 512.0, 513.0].map(kib), [memory.l1, memory.l2, memory.l2, memory.l3]);
            assert_eq!([16384.0, 16385.0].map(kib), [memory.l3, memory.far]);
            assert!(memory.l1 > memory.l2 && memory.l2 > memory.l3 && memory.l3 > memory.far, "{name}");
        }
    }

    #[test]
    fn the_peak_is_that_of_whole_vectors() {
        let peak = |name: &str| Target::parse(name).unwrap().rates().peak_macs_per_ns();
        assert_eq!(["x86-64-v2", "aarch64"].map(peak), [32.0, 32.0]);
        assert_eq!(["x86-64-v3", "x86-64-v4"].map(peak), [64.0, 128.0]);
    }

    #[test]
    fn work_is_at_least_its_longer_part_and_at_most_both() {
        let rates = Target::parse("x86-64-v3").unwrap().rates();
        for (fma, loads) in [(0.0, 4.0), (4.0, 0.0), (12.0, 3.0), (3.0, 12.0), (8.0, 8.0)] {
            let (cycles, longer) = (rates.work_cycles(fma, loads), f64::max(fma, loads) / 2.0);
            let both = f64::midpoint(fma, loads);
            assert!((longer..=both).contains(&cycles), "{fma} {loads}: {cycles}");
        }
        assert_eq!(rates.work_cycles(8.0, 8.0), 4.2);
    }
}
