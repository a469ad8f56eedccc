//! `registration:`: how clients without a registration may introduce themselves.

use std::sync::Arc;

use super::validation::Validation;
use crate::base::diagnostic::Diagnostic;
use crate::spec::{DocumentPolicy, HostName, RegistrationSpec};

/// Returns the permitted ways of registration; by default all are.
pub(super) fn validate(validation: &mut Validation<'_, '_>) -> RegistrationSpec {
    let default = RegistrationSpec::default();
    RegistrationSpec {
        dynamic: validation.layers.find_bool(&["registration", "dynamic"]).unwrap_or(default.dynamic),
        documents: read_document_policy(validation).unwrap_or(default.documents),
    }
}

fn read_document_policy(validation: &mut Validation<'_, '_>) -> Option<DocumentPolicy> {
    let found = validation.layers.find(&["registration", "documents"])?;
    let words = found.list_items();
    match words.as_slice() {
        ["any"] => return Some(DocumentPolicy::Any),
        // YAML 1.1 reads a bare `off` as false; here it is text.
        ["off" | "false"] => return Some(DocumentPolicy::Off),
        _ => {}
    }
    let listed: Option<Vec<Arc<str>>> = words.iter().map(|word| parse_host(word)).collect();
    if listed.as_ref().is_none_or(Vec::is_empty) {
        validation.add_finding(
            Diagnostic::error(
                "registration-invalid",
                "registration.documents must be any, off, or a list of hosts",
            )
            .help(
                "list the hosts whose client metadata documents are accepted, such as [claude.ai, \
                   chatgpt.com]",
            ),
            Some(found.location()),
        );
    }
    listed.map(DocumentPolicy::Listed)
}

/// Parses a host name; client documents at IP addresses are not fetched.
fn parse_host(word: &str) -> Option<Arc<str>> {
    let host = HostName::parse(word)?;
    let is_address = host.as_str().starts_with('[') || host.as_str().parse::<std::net::IpAddr>().is_ok();
    (!is_address && host.as_str().contains('.')).then(|| host.as_str().into())
}
