//! The HTTP client for receivers that the operator chose: webhooks, sinks of the audit.

use super::process_resolver::ProcessResolver;

/// Returns a builder for a client that follows no redirects and looks names up in this process.
/// The caller adds its deadlines.
pub fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("tenantd/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .dns_resolver(ProcessResolver)
}
