//! Backs up the store for `tenantd store backup`, since only the process that holds the state
//! folder can copy it.

use std::path::PathBuf;
use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::json;

use super::response::{self, problem};
use crate::base::body::Body;
use crate::base::random;
use crate::store::{self, Store};

/// Copies the store into a new file in the state folder and returns its path. The caller moves it
/// away.
pub(super) async fn back_up(store: Option<Arc<Store>>) -> Response<Body> {
    let Some(store) = store else {
        let detail = "this gateway runs without a store: there is nothing to copy";
        return problem(StatusCode::CONFLICT, detail);
    };
    match tokio::task::spawn_blocking(move || copy(&store)).await {
        Ok(Ok(path)) => response::json(StatusCode::OK, &json!({ "path": path })),
        Ok(Err(error)) => problem(StatusCode::INSUFFICIENT_STORAGE, &error.to_string()),
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "copying the store failed inside tenantd"),
    }
}

fn copy(store: &Store) -> Result<PathBuf, store::Error> {
    let path = store.folder().join(format!("backup-{}.db", random::hex::<8>()));
    store.backup(&path)?;
    Ok(path.canonicalize().unwrap_or(path))
}
