//! Sends a command to a running gateway and prints the response.

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::admin_client::Error;
use super::args::AdminArgs;
use super::healthcheck::client;
use super::{Exit, output};

/// Sends a request to the gateway.
pub(super) fn ask(
    admin: &AdminArgs,
    method: Method,
    path: &str,
    body: Bytes,
) -> anyhow::Result<Result<Value, Error>> {
    Ok(client(admin)?.order(method, path, body))
}

/// Prints a response, or the gateway's refusal.
pub(super) fn print_answer(
    answer: Result<Value, Error>,
    text: impl FnOnce(&Value) -> String,
) -> anyhow::Result<Exit> {
    match answer {
        Ok(answer) => {
            output::print(&text(&answer))?;
            Ok(Exit::Fine)
        }
        Err(error @ (Error::Rejected(..) | Error::NotFound(_))) => {
            output::print_error(error);
            Ok(Exit::Findings)
        }
        Err(error) => Err(error.into()),
    }
}
