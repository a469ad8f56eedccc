//! Locking of state that stays usable after a panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex, even if an earlier holder panicked.
///
/// Use it where every holder leaves the state whole at each step, and where a panic elsewhere must
/// not take the log, a budget or a connection with it.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
