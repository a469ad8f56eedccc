//! Contains panics: a panic ends only the request, the pass or the run of a task in which it
//! happened.
//!
//! The panic hook logs the location. The panic message may contain data that a caller sent, so this
//! module never passes it on.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt;

/// The error of code that panicked.
#[derive(Debug, PartialEq, Eq)]
pub struct Panicked;

/// Runs a future and catches a panic in it, so that the awaiting task continues.
///
/// # Errors
/// [`Panicked`] if the future panics. It is not polled again, so its half-done work is visible only
/// through state that it shares.
pub fn catch_panic<F: Future>(future: F) -> impl Future<Output = Result<F::Output, Panicked>> {
    // Not an `async fn`, whose future would have room for `future` twice.
    AssertUnwindSafe(future).catch_unwind().map(|outcome| outcome.map_err(discard_payload))
}

/// Runs a function and catches a panic in it, so that the calling thread continues.
///
/// # Errors
/// [`Panicked`] if the function panics.
pub fn catch_panic_sync<T>(function: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(function)).map_err(discard_payload)
}

/// Drops a panic payload, which may itself panic.
fn discard_payload(payload: Box<dyn Any + Send>) -> Panicked {
    let _second_panic = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    Panicked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_contained() {
        assert_eq!(catch_panic(async { panic!("on purpose") }).await, Err::<(), _>(Panicked));
        assert_eq!(catch_panic(async { 1 }).await, Ok(1));
        assert_eq!(catch_panic_sync(|| panic!("on purpose")), Err::<(), _>(Panicked));
        assert_eq!(catch_panic_sync(|| 1), Ok(1));
    }
}
