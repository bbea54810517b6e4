//! What a compilation needs whatever the model, made ready by another thread while that is read: memory, which the system has
//! to clear or to ask a host for, and what the first code of a process takes longer for.

use crate::exec;
use crate::memory::AlignedBytes;
use crate::start::Start;
use crate::target::Target;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use tconvc_ir::Pages;

/// Smaller models are read before a thread has made anything ready.
const WORTH_A_THREAD: usize = 8 << 20;

/// The most memory that is taken ahead: what nobody asks for then is not much.
const MOST_BYTES: usize = 64 << 20;

/// How much memory is made present between two looks whether it is waited for.
const PART_BYTES: usize = 2 << 20;

/// The smallest pages of any machine; a byte written to each makes all memory present.
const PAGE_BYTES: usize = 4096;

/// Preparations for one compilation.
pub struct Ahead {
    memory: Mutex<Receiver<Pages>>,
    is_waited_for: Arc<AtomicBool>,
}

impl Ahead {
    /// Begins for a model of so many bytes, nearly all of which are weights that will be packed; `None` where that is not
    /// worth a thread.
    pub fn begin(model_bytes: usize) -> Option<Arc<Self>> {
        if model_bytes < WORTH_A_THREAD {
            return None;
        }
        // Packed weights are padded to whole vectors.
        let bytes = model_bytes.min(MOST_BYTES);
        let bytes = (bytes + bytes / 8).min(MOST_BYTES);
        let (sender, receiver) = mpsc::sync_channel(1);
        let is_waited_for = Arc::new(AtomicBool::new(false));
        let ahead = Arc::new(Self { memory: Mutex::new(receiver), is_waited_for: is_waited_for.clone() });
        let start = Start::here();
        let work = move || {
            start.keep_away();
            if let Some(pages) = present(bytes, &is_waited_for) {
                // Nobody may want it any more.
                let _ = sender.send(pages);
            }
            exec::make_ready(&Target::host());
        };
        thread::Builder::new().spawn(work).ok()?;
        start.give_way();
        Some(ahead)
    }

    /// Zeroed memory, all or most of it present; none for the second one who asks.
    pub(crate) fn take(&self) -> Option<AlignedBytes> {
        self.is_waited_for.store(true, Ordering::Relaxed);
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.recv().ok().map(AlignedBytes::from)
    }
}

/// So many zero bytes, of which those are not present yet that would have to be waited for.
fn present(bytes: usize, is_waited_for: &AtomicBool) -> Option<Pages> {
    let mut pages = Pages::zeroed(bytes)?;
    for part in pages.chunks_mut(PART_BYTES) {
        if is_waited_for.load(Ordering::Relaxed) {
            break;
        }
        part.iter_mut().step_by(PAGE_BYTES).for_each(|byte| *byte = 0);
    }
    Some(pages)
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.is_waited_for.store(true, Ordering::Relaxed);
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
        for model_bytes in [WORTH_A_THREAD, WORTH_A_THREAD + 12_345] {
            let ahead = Ahead::begin(model_bytes).unwrap();
            let memory = ahead.take().unwrap();
            assert!(memory.len() >= model_bytes + model_bytes / 8);
            assert!(memory.as_slice().iter().all(|&byte| byte == 0));
            assert!(ahead.take().is_none());
        }
    }

    #[test]
    fn small_models_are_not_worth_it_and_large_ones_have_a_bound() {
        assert!(Ahead::begin(WORTH_A_THREAD - 1).is_none());
        let largest = Ahead::begin(usize::MAX / 2).unwrap();
        assert_eq!(largest.take().unwrap().len(), MOST_BYTES);
    }

    #[test]
    fn memory_that_is_waited_for_is_whole_all_the_same() {
        assert_eq!(present(3 * PART_BYTES, &AtomicBool::new(true)).unwrap().len(), 3 * PART_BYTES);
    }
}
