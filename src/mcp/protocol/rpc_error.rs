//! JSON-RPC errors as complete HTTP responses, for requests that never reach rmcp and for those
//! that it answers in plain text.
//!
//! A client chooses its protocol era from the body of a 400 (2026-07-28, "Versioning"), so there is
//! always one.

use http::header::CACHE_CONTROL;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use crate::base::body::{self, Body};

pub(super) const PARSE_ERROR: i32 = -32700;
pub(super) const INVALID_REQUEST: i32 = -32600;
pub(super) const INVALID_PARAMS: i32 = -32602;
pub(super) const INTERNAL_ERROR: i32 = -32603;
pub(super) const UNSUPPORTED_VERSION: i32 = -32022;

/// A JSON-RPC error before it is sent.
#[derive(Debug)]
pub(super) struct RpcError {
    pub(super) status: StatusCode,
    pub(super) code: i32,
    pub(super) message: String,
    pub(super) data: Option<Value>,
    /// The request's id if it is known, else null.
    pub(super) id: Value,
}

impl RpcError {
    pub(super) fn new(status: StatusCode, code: i32, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), data: None, id: Value::Null }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(data) = self.data {
            error["data"] = data;
        }
        let error = json!({ "jsonrpc": "2.0", "id": self.id, "error": error });
        let json = HeaderValue::from_static("application/json");
        let mut response = body::response(self.status, json, error.to_string());
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
