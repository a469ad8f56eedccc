//! What all request bodies together may hold of memory, from their first byte until their call is answered.
//!
//! Only bytes that came are counted: who announces much and sends nothing takes no room from others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The room for request bodies.
#[derive(Debug)]
pub(super) struct Memory {
    bytes: usize,
    taken: AtomicUsize,
}

/// What one request has of it; given back when dropped.
#[derive(Debug)]
pub(super) struct Held {
    memory: Arc<Memory>,
    bytes: usize,
}

/// There is no room for more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Memory {
    pub(super) fn of_mib(mib: usize) -> Arc<Self> {
        Arc::new(Self { bytes: mib.saturating_mul(1 << 20), taken: AtomicUsize::new(0) })
    }

    /// Nothing yet.
    pub(super) fn hold(self: &Arc<Self>) -> Held {
        Held { memory: Arc::clone(self), bytes: 0 }
    }
}

impl Held {
    /// Takes so many bytes more, or none.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Full> {
        let all = self.memory.bytes;
        let more = |taken: usize| taken.checked_add(bytes).filter(|taken| *taken <= all);
        let taken = self.memory.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map_err(|_| Full)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Gives back what it has.
    pub(super) fn let_go(&mut self) {
        self.memory.taken.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.let_go();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_for_all_and_comes_back() {
        let memory = Memory::of_mib(1);
        let (mut one, mut two) = (memory.hold(), memory.hold());
        assert_eq!(one.grow(600 << 10), Ok(()));
        assert_eq!(two.grow(500 << 10), Err(Full));
        assert_eq!(two.grow(400 << 10), Ok(()), "a refusal takes nothing");
        assert_eq!(one.grow(usize::MAX), Err(Full));
        drop(one);
        assert_eq!(two.grow(600 << 10), Ok(()));
        drop(two);
        assert_eq!(memory.taken.load(Ordering::Relaxed), 0);
    }
}
