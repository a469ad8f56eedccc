//! A panic ends what it happened in and nothing else: one request, one pass, one run of a task.
//!
//! The panic hook logs where it happened. Its text may hold what a caller sent, so nothing here passes it on.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// The code panicked.
#[derive(Debug, PartialEq, Eq)]
pub struct Panicked;

/// Runs a future; a panic in it ends the future, not the task that awaits it.
///
/// # Errors
/// [`Panicked`]; the future is not polled again, so nobody sees what it left half done unless it shares state.
pub async fn caught<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = pin!(future);
    poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(payload) => Poll::Ready(Err(forget(payload))),
    })
    .await
}

/// Runs a function; a panic in it ends the function, not the thread.
///
/// # Errors
/// [`Panicked`].
pub fn caught_now<T>(function: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(function)).map_err(forget)
}

/// Dropping a payload may panic again.
fn forget(payload: Box<dyn Any + Send>) -> Panicked {
    let _second_panic = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    Panicked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_what_it_happened_in_only() {
        assert_eq!(caught(async { panic!("on purpose") }).await, Err::<(), _>(Panicked));
        assert_eq!(caught(async { 1 }).await, Ok(1));
        assert_eq!(caught_now(|| panic!("on purpose")), Err::<(), _>(Panicked));
        assert_eq!(caught_now(|| 1), Ok(1));
    }
}
