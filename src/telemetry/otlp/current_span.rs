//! The span in which code runs, so that log records name it.

use std::future::{Future, poll_fn};
use std::pin::Pin;

use super::SpanIds;

tokio::task_local! {
    static CURRENT: SpanIds;
}

/// Runs a future whose log records name this span. Without one it costs nothing but the test for
/// it.
pub fn in_span<F: Future>(
    span: Option<SpanIds>,
    mut future: Pin<Box<F>>,
) -> impl Future<Output = F::Output> + use<F> {
    // Not `CURRENT.scope`, whose future would be a copy of this one.
    poll_fn(move |context| match span {
        None => future.as_mut().poll(context),
        Some(ids) => CURRENT.sync_scope(ids, || future.as_mut().poll(context)),
    })
}

/// Returns the span in which the caller runs, if it is recorded.
pub(super) fn current_span() -> Option<SpanIds> {
    CURRENT.try_with(|ids| *ids).ok().filter(|ids| ids.sampled)
}
