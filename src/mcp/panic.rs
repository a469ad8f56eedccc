//! A panic in our code must not leave a client waiting: rmcp runs handlers in tasks of its own, where a panic would
//! take the answer with it.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// What a panicking future left. Its text may hold what a caller sent, so nobody is shown it.
#[derive(Debug)]
pub(super) struct Panicked;

/// Runs a future; a panic in it ends it, not the task.
pub(super) async fn caught<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = pin!(future);
    // A future that panicked is never polled again, so no one sees what it left half done.
    poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(payload) => Poll::Ready(Err(forget(payload))),
    })
    .await
}

/// Dropping a payload may panic again.
fn forget(payload: Box<dyn Any + Send>) -> Panicked {
    let _second_panic = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    Panicked
}
