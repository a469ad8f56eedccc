//! Sends a request to a running gateway's admin listener and prints the response.

use anyhow::Context;
use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::admin_client::{AdminClient, Error};
use super::args::AdminArgs;
use super::{Exit, admin_access, configuration, output, render};
use crate::settings::{Flags, SettingKey};

/// What the gateway answered.
pub(super) type Answer = Result<Value, Error>;

/// Creates a client for the gateway given by these arguments, the environment or the file.
///
/// # Errors
/// The settings cannot be read, or name no admin listener; or the token cannot be read.
pub(super) fn client(admin: &AdminArgs) -> anyhow::Result<AdminClient> {
    if let Some(url) = admin.admin.as_deref().filter(|text| admin_access::is_url(text)) {
        return admin_access::connect_to(url, &admin.access());
    }
    let flags = Flags::new().with(SettingKey::ADMIN, &admin.admin);
    let settings = configuration::load_quietly(&flags, admin.config.as_deref())?;
    let off = "the admin listener is off in these settings; give its address with --admin";
    admin_access::connect(&settings, &admin.access())?.context(off)
}

/// Sends a request to the gateway.
///
/// # Errors
/// There is no gateway to ask; see [`client`].
pub(super) fn send(admin: &AdminArgs, method: Method, path: &str, body: Bytes) -> anyhow::Result<Answer> {
    Ok(client(admin)?.send(method, path, body))
}

/// Prints a response, or the gateway's refusal with its findings.
///
/// # Errors
/// The gateway did not answer, or standard output cannot be written to.
pub(super) fn print_answer(answer: Answer, text: impl FnOnce(&Value) -> String) -> anyhow::Result<Exit> {
    match answer {
        Ok(answer) => {
            output::print(&text(&answer))?;
            Ok(Exit::Fine)
        }
        Err(Error::Rejected(detail, findings)) => {
            output::print_error(detail);
            findings
                .iter()
                .for_each(|finding| output::print_error_lines(&render::finding_of_gateway(finding)));
            Ok(Exit::Findings)
        }
        Err(error @ Error::NotFound(_)) => {
            output::print_error(error);
            Ok(Exit::Findings)
        }
        Err(error) => Err(error.into()),
    }
}
