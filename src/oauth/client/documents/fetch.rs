//! Fetches what a stranger names: over https, from the internet and nowhere nearer, a little of it, soon.
//!
//! The name is resolved once; if any of its addresses leads anywhere but to the internet, none is connected to. What was
//! judged is what is connected to. No redirects, no proxies, nothing decompressed.
//!
//! A name takes one of the places that there are for callers' names (`base/resolve`): by shares, until the look-up has really
//! ended.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde_json::Value;

use super::address::DocumentUrl;
use super::cache::Party;
use crate::base::headers::media_type;
use crate::base::resolve::{self, Resolver};
use crate::base::{causes, reach};

const CONNECT: Duration = Duration::from_secs(4);
/// People wait for it, ten seconds at most.
const ANSWER: Duration = Duration::from_secs(8);
const SHORTEST: Duration = Duration::from_secs(5 * 60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The way to the internet.
pub(super) struct Fetcher {
    names: Names,
    client: OnceLock<Option<reqwest::Client>>,
    /// Whom else to trust than the machine does.
    #[cfg(test)]
    root: Option<reqwest::Certificate>,
}

/// What was fetched, and how long it may be kept.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) value: Value,
    pub(super) keep: Duration,
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("no client for it can be made")]
    NoClient,
    #[error("{0}")]
    Unreachable(String),
    #[error("the answer is {0}, not 200")]
    Status(StatusCode),
    #[error("the answer is not JSON")]
    NotJson,
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("as many names are being looked up as may be")]
    Busy,
    #[error("the host's name: {0}")]
    NoAddress(#[from] resolve::Fault),
}

impl Fetcher {
    pub(super) fn new() -> Self {
        Self::over(Names::default())
    }

    pub(super) fn over(names: Names) -> Self {
        Self {
            names,
            client: OnceLock::new(),
            #[cfg(test)]
            root: None,
        }
    }

    /// Trusts another certificate than the machine does.
    #[cfg(test)]
    pub(super) fn trusting(self, root: reqwest::Certificate) -> Self {
        Self { root: Some(root), ..self }
    }

    /// Fetches a JSON document of so many bytes at most, for whoever wants it.
    pub(super) async fn get(
        &self,
        url: &DocumentUrl,
        largest: usize,
        party: &Party,
    ) -> Result<Fetched, Fault> {
        let client = self.client().ok_or(Fault::NoClient)?;
        // Kept until the answer is here: it is what the client connects to.
        let _judged = self.names.judged(url.host(), party).await?;
        let asked = client.get(url.as_str()).header(header::ACCEPT, "application/json").send().await;
        let mut response = asked.map_err(unreachable)?;
        if response.status() != StatusCode::OK {
            return Err(Fault::Status(response.status()));
        }
        if !is_json(response.headers()) {
            return Err(Fault::NotJson);
        }
        let keep = keep(response.headers());
        let mut text = Vec::new();
        while let Some(more) = response.chunk().await.map_err(unreachable)? {
            if text.len() + more.len() > largest {
                return Err(Fault::TooLong(largest));
            }
            text.extend_from_slice(&more);
        }
        let value = serde_json::from_slice(&text).map_err(|_| Fault::NotJson)?;
        Ok(Fetched { value, keep })
    }

    /// Made when it is needed first: most gateways never fetch.
    fn client(&self) -> Option<&reqwest::Client> {
        let make = || {
            let builder = reqwest::Client::builder()
                .user_agent(concat!("tenantd/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .https_only(true)
                .no_proxy()
                .dns_resolver(self.names.clone())
                .connect_timeout(CONNECT)
                .timeout(ANSWER)
                .pool_max_idle_per_host(0);
            #[cfg(test)]
            let builder = match &self.root {
                Some(root) => builder.tls_certs_only([root.clone()]),
                None => builder,
            };
            builder.build().inspect_err(|error| tracing::error!(%error, "no way to clients' documents")).ok()
        };
        self.client.get_or_init(make).as_ref()
    }
}

/// Resolves names, and judges what they resolve to.
#[derive(Clone)]
pub(super) struct Names {
    permits: fn(IpAddr) -> bool,
    resolver: Resolver,
    /// What may be connected to, by name, while somebody does.
    judged: Arc<Mutex<HashMap<String, Judged>>>,
    /// Names of a test's own.
    #[cfg(test)]
    pub(super) table: Arc<Mutex<HashMap<String, Vec<SocketAddr>>>>,
}

/// The addresses of a name, and how many fetches need them.
#[derive(Default)]
struct Judged {
    addresses: Vec<SocketAddr>,
    needed: usize,
}

/// The addresses of a name are there to be connected to as long as this is.
pub(super) struct Connectable<'a> {
    names: &'a Names,
    name: &'a str,
}

impl Drop for Connectable<'_> {
    fn drop(&mut self) {
        let mut judged = self.names.judged.lock().expect("no holder of this lock panics");
        if let Some(of_name) = judged.get_mut(self.name) {
            of_name.needed -= 1;
            if of_name.needed == 0 {
                judged.remove(self.name);
            }
        }
    }
}

impl Default for Names {
    fn default() -> Self {
        Self {
            permits: reach::leads_to_the_internet,
            resolver: Resolver::of_this_process().clone(),
            judged: Arc::default(),
            #[cfg(test)]
            table: Arc::default(),
        }
    }
}

impl Names {
    #[cfg(test)]
    pub(super) fn permitting(permits: fn(IpAddr) -> bool) -> Self {
        Self { permits, ..Self::default() }
    }

    /// Names that a test's resolver looks up.
    #[cfg(test)]
    pub(super) fn looked_up_by(resolver: Resolver) -> Self {
        Self { resolver, ..Self::permitting(|_| true) }
    }

    /// Has a name looked up and judged. The client that is asked next connects to what was judged here.
    async fn judged<'a>(&'a self, name: &'a str, party: &Party) -> Result<Connectable<'a>, Fault> {
        let found = self.addresses(name, party).await?;
        if !found.iter().all(|address| (self.permits)(address.ip())) {
            return Err(Fault::Unreachable("the host has an address that is not on the internet".into()));
        }
        let mut judged = self.judged.lock().expect("no holder of this lock panics");
        let of_name = judged.entry(name.to_owned()).or_default();
        of_name.addresses = found;
        of_name.needed += 1;
        Ok(Connectable { names: self, name })
    }

    async fn addresses(&self, name: &str, party: &Party) -> Result<Vec<SocketAddr>, Fault> {
        #[cfg(test)]
        if let Some(listed) = self.table.lock().expect("no holder of this lock panics").get(name) {
            return Ok(listed.clone());
        }
        let mut place = party.hold(self.resolver.places_of_callers());
        place.grow(1).map_err(|_| Fault::Busy)?;
        let found = self.resolver.lookup_once(name, place).await?.into_iter();
        // Port 0: the one of the scheme.
        Ok(found.map(|address| SocketAddr::new(address, 0)).collect())
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let judged = self.judged.lock().expect("no holder of this lock panics");
        let found = judged.get(name.as_str()).map(|of_name| of_name.addresses.clone());
        Box::pin(async move {
            let found = found.ok_or("the host's addresses were not judged")?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = media_type(headers).to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// What the answer says (RFC 9111 section 5.2.2), within bounds.
fn keep(headers: &HeaderMap) -> Duration {
    let said = headers.get(header::CACHE_CONTROL).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let seconds = said.split(',').find_map(|part| part.trim().strip_prefix("max-age=")?.parse().ok());
    seconds.map_or(SHORTEST, Duration::from_secs).clamp(SHORTEST, LONGEST)
}

/// The chain of causes without the URL.
fn unreachable(error: reqwest::Error) -> Fault {
    Fault::Unreachable(causes::in_one_line(&error.without_url()))
}
