//! One copy of what many tenants have alike, kept for as long as one of them has it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::digest::Digest;

/// Fewer entries than this are not worth looking through for what nobody has any more.
const FEW: usize = 64;

/// The copies, by the digest of what they are made from.
pub struct Interner<T>(Mutex<Known<T>>);

struct Known<T> {
    copies: HashMap<Digest, Weak<T>>,
    /// At so many it is time to look for what nobody has any more.
    full: usize,
}

impl<T> Interner<T> {
    /// No copies yet.
    pub fn new() -> Self {
        Self(Mutex::new(Known { copies: HashMap::new(), full: FEW }))
    }

    /// The one copy; `make` makes it if there is none. That happens outside the lock: who makes the same at the same
    /// time has a copy of their own, which is harmless.
    pub fn copy<E>(&self, digest: Digest, make: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        if let Some(copy) = self.known().copies.get(&digest).and_then(Weak::upgrade) {
            return Ok(copy);
        }
        let copy = Arc::new(make()?);
        self.known().put(digest, &copy);
        Ok(copy)
    }

    fn known(&self) -> MutexGuard<'_, Known<T>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl<T> Known<T> {
    /// Looks through all only after as many have come as were left the last time.
    fn put(&mut self, digest: Digest, copy: &Arc<T>) {
        if self.copies.len() >= self.full {
            self.copies.retain(|_, copy| copy.strong_count() > 0);
            self.full = FEW.max(2 * self.copies.len());
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
        let made = interner.copy(Digest::of(&number.to_be_bytes()), || Ok::<_, Infallible>(number));
        made.unwrap_or_else(|never| match never {})
    }

    #[test]
    fn equal_things_are_one_and_go_with_their_last_holder() {
        let interner = Interner::new();
        let kept = copy(&interner, 0);
        assert!(Arc::ptr_eq(&kept, &copy(&interner, 0)));
        (1..10 * FEW).for_each(|number| drop(copy(&interner, number)));
        assert!(interner.known().copies.len() <= FEW + 1, "{}", interner.known().copies.len());
        assert!(Arc::ptr_eq(&kept, &copy(&interner, 0)));
    }

    #[test]
    fn what_cannot_be_made_is_not_kept() {
        let interner = Interner::<usize>::new();
        assert_eq!(interner.copy(Digest::of(b"x"), || Err("no luck")), Err("no luck"));
        assert!(interner.known().copies.is_empty());
    }
}
