//! Backs up the store for `tenantd store backup`, since only the process that holds the state
//! folder can copy it.

use http::{Response, StatusCode};
use serde_json::json;

use super::response::{self, problem};
use crate::base::body::Body;
use crate::store::{self, Store};

/// Copies the store into a new file in the state folder and returns its path. The caller moves it
/// away.
pub(super) async fn back_up(store: Option<&Store>) -> Response<Body> {
    let Some(store) = store else {
        let detail = "this gateway runs without a store, so there is nothing to copy";
        return problem(StatusCode::CONFLICT, detail);
    };
    match store.backup_beside().await {
        Ok(path) => response::json(StatusCode::OK, &json!({ "path": path })),
        Err(store::Error::Interrupted) => {
            problem(StatusCode::INTERNAL_SERVER_ERROR, "copying the store failed inside tenantd")
        }
        Err(error) => problem(StatusCode::INSUFFICIENT_STORAGE, &error.to_string()),
    }
}
