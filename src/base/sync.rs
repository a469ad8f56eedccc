//! Locking of shared state, with and without regard to an earlier panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex, even if an earlier holder panicked.
///
/// Use it where every holder leaves the state whole at each step, and where a panic elsewhere must
/// not take the log, a budget or a connection with it.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks a mutex whose holders only look up, insert, remove and replace values, none of which
/// panics.
///
/// # Panics
/// Panics if a holder panicked nonetheless, because its state may then be half changed.
pub fn lock_unpoisoned<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}
