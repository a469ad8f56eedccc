//! Fetches documents from URLs that strangers name: over https, only from public addresses, with
//! limits on size and time.
//!
//! The name is resolved once; if any of its addresses is not a public one, the fetch fails. The
//! connection goes to the addresses that were verified. Redirects, proxies and decompression are
//! off.
//!
//! A lookup takes one of the resolver's slots for callers' names (`base/dns`), which are shared
//! fairly, until the system's resolver has returned.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde_json::Value;

use super::document_cache::Requester;
use super::document_url::DocumentUrl;
use crate::base::dns::{self, DnsResolver};
use crate::base::headers::media_type;
use crate::base::sync::lock_unpoisoned;
use crate::base::{error_chain, net};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// A person may be waiting, for ten seconds at most.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(8);
const MIN_MAX_AGE: Duration = Duration::from_secs(5 * 60);
const MAX_MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// The HTTP client for documents.
pub(super) struct DocumentFetcher {
    resolver: GuardedResolver,
    client: OnceLock<Option<reqwest::Client>>,
    /// The only root certificate to trust, instead of the system's.
    #[cfg(test)]
    root: Option<reqwest::Certificate>,
}

/// A fetched document, and how long it may be cached.
#[derive(Debug)]
pub(super) struct FetchedDocument {
    pub(super) value: Value,
    pub(super) max_age: Duration,
}

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no HTTP client can be created for it")]
    NoClient,
    #[error("{0}")]
    Unreachable(String),
    #[error("the answer is {0}, not 200")]
    Status(StatusCode),
    #[error("the answer is not JSON")]
    NotJson,
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("the maximum number of DNS lookups is in progress")]
    Busy,
    #[error("the host's name: {0}")]
    NoAddress(#[from] dns::LookupError),
}

impl DocumentFetcher {
    pub(super) fn new() -> Self {
        Self::with_resolver(GuardedResolver::default())
    }

    pub(super) fn with_resolver(resolver: GuardedResolver) -> Self {
        Self {
            resolver,
            client: OnceLock::new(),
            #[cfg(test)]
            root: None,
        }
    }

    /// Trusts this root certificate instead of the system's.
    #[cfg(test)]
    pub(super) fn with_root(self, root: reqwest::Certificate) -> Self {
        Self { root: Some(root), ..self }
    }

    /// Fetches a JSON document of at most `max_bytes` bytes on behalf of `requester`.
    pub(super) async fn get(
        &self,
        url: &DocumentUrl,
        max_bytes: usize,
        requester: &Requester,
    ) -> Result<FetchedDocument, FetchError> {
        let client = self.client().ok_or(FetchError::NoClient)?;
        // Held until the response has arrived: the client connects to these addresses.
        let _approval = self.resolver.resolve_and_approve(url.host(), requester).await?;
        let sent = client.get(url.as_str()).header(header::ACCEPT, "application/json").send().await;
        let mut response = sent.map_err(to_unreachable)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        if !is_json(response.headers()) {
            return Err(FetchError::NotJson);
        }
        let max_age = parse_max_age(response.headers());
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(to_unreachable)? {
            if text.len() + chunk.len() > max_bytes {
                return Err(FetchError::TooLong(max_bytes));
            }
            text.extend_from_slice(&chunk);
        }
        let value = serde_json::from_slice(&text).map_err(|_| FetchError::NotJson)?;
        Ok(FetchedDocument { value, max_age })
    }

    /// Created on first use: most gateways never fetch a document.
    fn client(&self) -> Option<&reqwest::Client> {
        let make = || {
            let builder = reqwest::Client::builder()
                .user_agent(concat!("tenantd/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .https_only(true)
                .no_proxy()
                .dns_resolver(self.resolver.clone())
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(RESPONSE_TIMEOUT)
                .pool_max_idle_per_host(0);
            #[cfg(test)]
            let builder = match &self.root {
                Some(root) => builder.tls_certs_only([root.clone()]),
                None => builder,
            };
            builder
                .build()
                .inspect_err(
                    |error| tracing::error!(%error, "no HTTP client for clients' metadata documents"),
                )
                .ok()
        };
        self.client.get_or_init(make).as_ref()
    }
}

/// Resolves names and verifies their addresses.
#[derive(Clone)]
pub(super) struct GuardedResolver {
    is_allowed: fn(IpAddr) -> bool,
    resolver: DnsResolver,
    /// The verified addresses by name, as long as a fetch uses them.
    approved: Arc<Mutex<HashMap<String, ApprovedAddresses>>>,
    /// Addresses by name, for tests.
    #[cfg(test)]
    pub(super) table: Arc<Mutex<HashMap<String, Vec<SocketAddr>>>>,
}

/// The verified addresses of a name, and the number of fetches that use them.
#[derive(Default)]
struct ApprovedAddresses {
    addresses: Vec<SocketAddr>,
    users: usize,
}

/// Keeps the verified addresses of a name available to the HTTP client.
pub(super) struct ApprovalGuard<'a> {
    resolver: &'a GuardedResolver,
    name: &'a str,
}

impl Drop for ApprovalGuard<'_> {
    fn drop(&mut self) {
        let mut approved = lock_unpoisoned(&self.resolver.approved);
        if let Some(entry) = approved.get_mut(self.name) {
            entry.users -= 1;
            if entry.users == 0 {
                approved.remove(self.name);
            }
        }
    }
}

impl Default for GuardedResolver {
    fn default() -> Self {
        Self {
            is_allowed: net::is_public_destination,
            resolver: DnsResolver::global().clone(),
            approved: Arc::default(),
            #[cfg(test)]
            table: Arc::default(),
        }
    }
}

impl GuardedResolver {
    #[cfg(test)]
    pub(super) fn with_policy(is_allowed: fn(IpAddr) -> bool) -> Self {
        Self { is_allowed, ..Self::default() }
    }

    /// Names that a test's resolver looks up.
    #[cfg(test)]
    pub(super) fn with_lookup(resolver: DnsResolver) -> Self {
        Self { resolver, ..Self::with_policy(|_| true) }
    }

    /// Looks a name up and verifies its addresses, which the HTTP client then connects to.
    async fn resolve_and_approve<'a>(
        &'a self,
        name: &'a str,
        requester: &Requester,
    ) -> Result<ApprovalGuard<'a>, FetchError> {
        let addresses = self.lookup_addresses(name, requester).await?;
        if !addresses.iter().all(|address| (self.is_allowed)(address.ip())) {
            return Err(FetchError::Unreachable(
                "the host has an address that is not on the internet".into(),
            ));
        }
        let mut approved = lock_unpoisoned(&self.approved);
        let entry = approved.entry(name.to_owned()).or_default();
        entry.addresses = addresses;
        entry.users += 1;
        Ok(ApprovalGuard { resolver: self, name })
    }

    async fn lookup_addresses(
        &self,
        name: &str,
        requester: &Requester,
    ) -> Result<Vec<SocketAddr>, FetchError> {
        #[cfg(test)]
        if let Some(listed) = lock_unpoisoned(&self.table).get(name) {
            return Ok(listed.clone());
        }
        let mut slot = requester.new_reservation(self.resolver.caller_slots());
        slot.try_grow(1).map_err(|_| FetchError::Busy)?;
        let addresses = self.resolver.lookup_once(name, slot).await?.into_iter();
        // Port 0: the one of the scheme.
        Ok(addresses.map(|address| SocketAddr::new(address, 0)).collect())
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let approved = lock_unpoisoned(&self.approved);
        let addresses = approved.get(name.as_str()).map(|entry| entry.addresses.clone());
        Box::pin(async move {
            let addresses = addresses.ok_or("the host's addresses were not judged")?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = media_type(headers).to_ascii_lowercase();
    content_type == "application/json"
        || (content_type.starts_with("application/") && content_type.ends_with("+json"))
}

/// Returns the `max-age` of the response (RFC 9111 section 5.2.2), within our limits.
fn parse_max_age(headers: &HeaderMap) -> Duration {
    let directives =
        headers.get(header::CACHE_CONTROL).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let seconds = directives.split(',').find_map(|part| part.trim().strip_prefix("max-age=")?.parse().ok());
    seconds.map_or(MIN_MAX_AGE, Duration::from_secs).clamp(MIN_MAX_AGE, MAX_MAX_AGE)
}

/// Returns the error chain without the URL.
fn to_unreachable(error: reqwest::Error) -> FetchError {
    FetchError::Unreachable(error_chain::format_chain(&error.without_url()))
}
