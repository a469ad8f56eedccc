//! The caller of the current request, for questions that rmcp asks before it passes the request on.

use std::future::Future;

use tokio::task::futures::TaskLocalFuture;

use crate::oauth::bearer::Principal;

tokio::task_local! {
    static CALLER: Principal;
}

/// Runs a future on behalf of a caller.
pub(super) fn run_as<F: Future>(caller: Principal, future: F) -> TaskLocalFuture<Principal, F> {
    CALLER.scope(caller, future)
}

/// Calls `what` with the current caller; with an anonymous one outside of a request.
pub(super) fn with_current_caller<T>(what: impl FnOnce(&Principal) -> T) -> T {
    let known = CALLER.try_with(Principal::clone);
    what(known.as_ref().unwrap_or(&Principal::Anonymous))
}
