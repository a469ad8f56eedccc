//! Who is told of trouble, what is wrong now, and tests of the targets.

use http::{Response, StatusCode};
use serde_json::json;

use super::Admin;
use super::call::Call;
use super::response::{self, Refusal};
use crate::alerts::UnknownTarget;
use crate::base::body::Body;

impl Refusal for UnknownTarget {
    fn status(&self) -> StatusCode {
        match self {
            Self::None => StatusCode::CONFLICT,
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
        }
    }
}

/// Returns the targets and the conditions.
pub(super) fn show(admin: &Admin) -> Response<Body> {
    response::json(StatusCode::OK, &admin.alerts.status())
}

/// Sends a test event to each target, or to the one of this name.
pub(super) async fn test(call: Call<'_>) -> Response<Body> {
    let tested = call.admin.alerts.test(call.parameter("target").as_deref()).await;
    response::from_result(tested.map(|results| json!({ "results": results })))
}
