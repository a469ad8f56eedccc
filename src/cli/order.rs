//! An order to a running gateway, and what it said.

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::admin_client::Error;
use super::args::AdminArgs;
use super::healthcheck::client;
use super::{Exit, output};

/// Puts a question or an order to the gateway.
pub(super) fn ask(
    admin: &AdminArgs,
    method: Method,
    path: &str,
    body: Bytes,
) -> anyhow::Result<Result<Value, Error>> {
    Ok(client(admin)?.order(method, path, body))
}

/// Prints an answer, or what the gateway refused.
pub(super) fn told(
    answer: Result<Value, Error>,
    text: impl FnOnce(&Value) -> String,
) -> anyhow::Result<Exit> {
    match answer {
        Ok(answer) => {
            output::print(&text(&answer))?;
            Ok(Exit::Fine)
        }
        Err(error @ (Error::Said(..) | Error::NotFound(_))) => {
            output::complain(error);
            Ok(Exit::Findings)
        }
        Err(error) => Err(error.into()),
    }
}
