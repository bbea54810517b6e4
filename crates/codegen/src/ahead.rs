//! What compiling any large model takes, made ready by another thread while that is read: memory, which the system has to clear
//! or to ask a host for, and the first use of the assembler and of Cranelift.

use crate::exec;
use crate::memory::AlignedBytes;
use crate::start::Start;
use crate::target::Target;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Smaller models are read before a thread has made anything ready.
const WORTH_A_THREAD_BYTES: usize = 2 << 20;

/// The most memory that is taken ahead: what nobody asks for then is not much.
const MOST_BYTES: usize = 64 << 20;

/// The smallest pages of any machine; a byte written to each makes all memory present.
const PAGE_BYTES: usize = 4096;

/// Memory for the packed weights of one compilation.
pub struct Ahead(Mutex<Option<AlignedBytes>>);

impl Ahead {
    /// Reads a model of so many bytes, nearly all of which are weights that will be packed, and makes things ready meanwhile
    /// where that is worth a thread.
    pub fn while_reading<T>(model_bytes: usize, read: impl FnOnce() -> T) -> (T, Option<Arc<Self>>) {
        if model_bytes < WORTH_A_THREAD_BYTES {
            return (read(), None);
        }
        // Packed weights are padded to whole vectors.
        let bytes = model_bytes.saturating_add(model_bytes / 8).min(MOST_BYTES);
        // Asked for here: the system does not give out memory while who reads has a page fault.
        let mut memory = AlignedBytes::zeroed(bytes);
        let pages = memory.iter_mut().flat_map(|memory| memory.as_mut_slice().chunks_mut(PAGE_BYTES));
        let model = thread::scope(|scope| {
            let start = Start::here();
            // Without another thread nothing is ready, and all is done later.
            let _ = thread::Builder::new().spawn_scoped(scope, move || {
                start.keep_away();
                pages.for_each(|page| page[0] = 0);
                exec::make_ready(&Target::host());
            });
            start.give_way();
            read()
        });
        (model, memory.map(|memory| Arc::new(Self(Mutex::new(Some(memory))))))
    }

    /// Zeroed memory; none for the second one who asks.
    pub(crate) fn take(&self) -> Option<AlignedBytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ahead")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_larger_than_the_model_and_there_once() {
        for model_bytes in [WORTH_A_THREAD_BYTES, WORTH_A_THREAD_BYTES + 12_345] {
            let (read, ahead) = Ahead::while_reading(model_bytes, || 7);
            let (ahead, memory) = (ahead.as_ref().unwrap(), ahead.as_ref().unwrap().take().unwrap());
            assert_eq!(read, 7);
            assert!(memory.len() >= model_bytes + model_bytes / 8);
            assert!(memory.as_slice().iter().all(|&byte| byte == 0));
            assert!(ahead.take().is_none());
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_is_present() {
        use std::os::unix::fs::FileExt;
        let (_, ahead) = Ahead::while_reading(2 * WORTH_A_THREAD_BYTES, || 7);
        let memory = ahead.unwrap().take().unwrap();
        // Eight bytes for each page, whose highest bits say that it is in memory, or was and is swapped out.
        let page_map = std::fs::File::open("/proc/self/pagemap").unwrap();
        let size = rustix::param::page_size();
        for at in (0..memory.len()).step_by(size) {
            let mut entry = [0; 8];
            let page = (memory.as_ptr().addr() + at) / size;
            page_map.read_exact_at(&mut entry, 8 * page as u64).unwrap();
            assert_ne!(u64::from_ne_bytes(entry) >> 62, 0, "byte {at} of {}", memory.len());
        }
    }

    #[test]
    fn small_models_are_not_worth_it_and_large_ones_have_a_bound() {
        assert!(Ahead::while_reading(WORTH_A_THREAD_BYTES - 1, || {}).1.is_none());
        let (read, largest) = Ahead::while_reading(usize::MAX, || 7);
        assert_eq!(read, 7);
        assert_eq!(largest.unwrap().take().unwrap().len(), MOST_BYTES);
    }
}
