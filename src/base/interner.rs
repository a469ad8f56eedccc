//! Interning: tenants with equal content share one copy, which lives as long as one of them holds
//! it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::digest::Digest;
use super::sync::lock_unpoisoned;

/// Below this number of entries, looking for dropped copies is not worth it.
const MIN_PRUNED: usize = 64;

/// The shared copies, by the digest of what they were made from.
pub struct Interner<T>(Mutex<InternTable<T>>);

struct InternTable<T> {
    copies: HashMap<Digest, Weak<T>>,
    /// The number of entries at which dropped copies are removed next.
    prune_at: usize,
}

impl<T> Interner<T> {
    /// Creates an interner without copies.
    pub fn new() -> Self {
        Self(Mutex::new(InternTable { copies: HashMap::new(), prune_at: MIN_PRUNED }))
    }

    /// Returns the shared copy, made by `make` if there is none.
    ///
    /// `make` runs outside the lock. Callers that make the same copy concurrently may each get
    /// their own, which is harmless.
    ///
    /// # Errors
    /// The error of `make`.
    pub fn get_or_insert<E>(&self, digest: Digest, make: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        if let Some(copy) = self.lock_table().copies.get(&digest).and_then(Weak::upgrade) {
            return Ok(copy);
        }
        let copy = Arc::new(make()?);
        self.lock_table().insert(digest, &copy);
        Ok(copy)
    }

    fn lock_table(&self) -> MutexGuard<'_, InternTable<T>> {
        lock_unpoisoned(&self.0)
    }
}

impl<T> InternTable<T> {
    /// Adds a copy. Dropped copies are removed only once the map has doubled since the last time,
    /// so that the cost stays amortized.
    fn insert(&mut self, digest: Digest, copy: &Arc<T>) {
        if self.copies.len() >= self.prune_at {
            self.copies.retain(|_, copy| copy.strong_count() > 0);
            self.prune_at = MIN_PRUNED.max(2 * self.copies.len());
        }
        self.copies.insert(digest, Arc::downgrade(copy));
    }
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn copy(interner: &Interner<usize>, number: usize) -> Arc<usize> {
        let made = interner.get_or_insert(Digest::of(&number.to_be_bytes()), || Ok::<_, Infallible>(number));
        made.unwrap_or_else(|never| match never {})
    }

    #[test]
    fn equal_copies_are_shared_and_dropped_with_their_last_holder() {
        let interner = Interner::new();
        let kept = copy(&interner, 0);
        assert!(Arc::ptr_eq(&kept, &copy(&interner, 0)));
        (1..10 * MIN_PRUNED).for_each(|number| drop(copy(&interner, number)));
        assert!(
            interner.lock_table().copies.len() <= MIN_PRUNED + 1,
            "{}",
            interner.lock_table().copies.len()
        );
        assert!(Arc::ptr_eq(&kept, &copy(&interner, 0)));
    }

    #[test]
    fn a_failed_copy_is_not_kept() {
        let interner = Interner::<usize>::new();
        assert_eq!(interner.get_or_insert(Digest::of(b"x"), || Err("no luck")), Err("no luck"));
        assert!(interner.lock_table().copies.is_empty());
    }
}
