//! Clients described by a document at the URL that is their id (Client ID Metadata Document).
//!
//! Documents of well-known vendors are part of the program: their hosts block the addresses of many
//! clouds, and an appliance may reach none of them. Such a client is known at once; its document is
//! fetched in the background and used from then on.
//!
//! Anyone can name a document, so fetches are limited, with a share for each tenant and each source
//! network, and a reserve for the vendors that this program knows. While no fetch is permitted,
//! cached documents stay in use.

mod document;
mod document_cache;
mod document_url;
mod fetcher;
mod jwks;
#[cfg(test)]
mod tests;
mod vendor_comparison;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use serde_json::Value;

use self::document_cache::{DocumentCache, LookupResult, Requester};
use self::document_url::DocumentUrl;
use self::fetcher::DocumentFetcher;
pub use self::vendor_comparison::{DocumentComparison, compare_with_vendors};
use super::{ClientLookupError, LookupContext, OAuthClient};
use crate::base::budget::{Budget, Reservation};
use crate::base::clock::Clock;
use crate::base::dns::CALLER_TIMEOUT;
use crate::base::log_limiter::LogLimiter;
use crate::base::net::client_network;
use crate::base::sync::lock_unpoisoned;
use crate::base::task::Tasks;
use crate::spec::DocumentPolicy;

/// Shipped with the program. `tenantd clients refresh` compares them with what the vendors publish.
const PINNED: &str = include_str!("documents/pinned.json");
/// The limit that the draft proposes, in bytes.
const MAX_DOCUMENT_BYTES: usize = 5 << 10;
const MAX_KEY_SET_BYTES: usize = 32 << 10;
/// How long after a failure a document is not fetched again.
const NEGATIVE_TTL: Duration = Duration::from_secs(60);
/// The same for a document that is also pinned: it is not needed, so retries are rare.
const PINNED_NEGATIVE_TTL: Duration = Duration::from_secs(3600);
/// The limit on fetches of all requesters per minute.
const FETCHES_PER_MINUTE: u64 = 300;
const MINUTE: Duration = Duration::from_secs(60);
/// The capacity of the caches, in entries, and the largest size of an entry in memory.
const CACHED_DOCUMENTS: u64 = 1000;
const CACHED_DOCUMENT_BYTES: u64 = 8 << 10;
const CACHED_KEY_SETS: u64 = 250;
const CACHED_KEY_SET_BYTES: u64 = 64 << 10;

/// The documents cache of the gateway.
pub struct ClientDocuments {
    pinned: HashMap<Arc<str>, OAuthClient>,
    documents: DocumentCache<OAuthClient>,
    key_sets: DocumentCache<Value>,
    fetcher: DocumentFetcher,
    rate_limit: FetchRateLimit,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    weak_self: Weak<Self>,
}

/// A document to fetch: its URL, its largest size, and how long a failure is cached.
#[derive(Debug, Clone, Copy)]
struct DocumentRequest<'a> {
    url: &'a DocumentUrl,
    max_bytes: usize,
    negative_ttl: Duration,
}

impl ClientDocuments {
    /// Creates the cache, with the pinned documents.
    pub fn new(clock: Arc<dyn Clock>, tasks: &Tasks) -> Arc<Self> {
        Self::with_fetcher(DocumentFetcher::new(), clock, tasks)
    }

    fn with_fetcher(fetcher: DocumentFetcher, clock: Arc<dyn Clock>, tasks: &Tasks) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            pinned: parse_pinned(),
            documents: DocumentCache::new(CACHED_DOCUMENTS, CACHED_DOCUMENT_BYTES),
            key_sets: DocumentCache::new(CACHED_KEY_SETS, CACHED_KEY_SET_BYTES),
            fetcher,
            rate_limit: FetchRateLimit::default(),
            clock,
            tasks: tasks.clone(),
            weak_self: Weak::clone(this),
        })
    }

    /// Returns the client that the document at `id` describes, if the tenant accepts documents of
    /// that host.
    pub(super) async fn find_client(
        &self,
        id: &str,
        policy: &DocumentPolicy,
        lookup_context: LookupContext<'_>,
    ) -> Result<OAuthClient, ClientLookupError> {
        let url = DocumentUrl::parse(id).map_err(|_| ClientLookupError::Unknown)?;
        if !is_host_allowed(policy, url.host()) {
            return Err(ClientLookupError::Unknown);
        }
        let requester = new_requester(lookup_context, self.pinned.contains_key(url.as_str()));
        let document = match self.pinned.get(url.as_str()) {
            None => self.get_document(&url, requester).await?,
            Some(pinned) => match self.cached_or_refresh(&url, requester) {
                Some(document) => Some(document),
                None => return Ok(pinned.clone()),
            },
        };
        document.as_deref().cloned().ok_or(ClientLookupError::Unavailable)
    }

    /// Returns the JWK set at a URL that a document names.
    pub(super) async fn find_keys(
        &self,
        at: &str,
        is_vouched_for: bool,
        lookup_context: LookupContext<'_>,
    ) -> Result<Arc<Value>, ClientLookupError> {
        let url = DocumentUrl::parse(at).map_err(|_| ClientLookupError::Unknown)?;
        let request = DocumentRequest { url: &url, max_bytes: MAX_KEY_SET_BYTES, negative_ttl: NEGATIVE_TTL };
        let keys = self
            .get_or_fetch(&self.key_sets, request, new_requester(lookup_context, is_vouched_for), jwks::prune)
            .await?;
        keys.ok_or(ClientLookupError::Unavailable)
    }

    async fn get_document(
        &self,
        url: &DocumentUrl,
        requester: Requester,
    ) -> Result<LookupResult<OAuthClient>, ClientLookupError> {
        let pinned = requester.is_vouched_for;
        let negative_ttl = if pinned { PINNED_NEGATIVE_TTL } else { NEGATIVE_TTL };
        let request = DocumentRequest { url, max_bytes: MAX_DOCUMENT_BYTES, negative_ttl };
        let parse = |value: &Value| {
            document::parse_client(url, value, pinned)
                .inspect_err(
                    |error| tracing::debug!(host = url.host(), fault = %error, "a client's metadata document is not usable"),
                )
                .ok()
        };
        self.get_or_fetch(&self.documents, request, requester, parse).await
    }

    /// Returns the cached document; if there is none, starts to fetch it in the background.
    fn cached_or_refresh(&self, url: &DocumentUrl, requester: Requester) -> Option<Arc<OAuthClient>> {
        let slot = self.documents.find(url.as_str());
        if let Some(cached) = slot.and_then(|slot| slot.get_fresh(self.clock.monotonic())) {
            return cached;
        }
        if let Some(this) = self.weak_self.upgrade() {
            let url = url.clone();
            self.tasks.spawn("client document", async move {
                // The result is in the cache.
                let _result = this.get_document(&url, requester).await;
            });
        }
        None
    }

    /// Returns the cached value of a URL, or fetches it. Only a permitted fetch takes a cache
    /// entry.
    async fn get_or_fetch<T>(
        &self,
        cache: &DocumentCache<T>,
        request: DocumentRequest<'_>,
        requester: Requester,
        parse: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<LookupResult<T>, ClientLookupError> {
        let now = self.clock.monotonic();
        let (slot, is_paid) = match cache.find(request.url.as_str()) {
            Some(slot) => (slot, false),
            None => {
                self.take_fetch(&requester)?;
                let slot = cache.get_or_insert(request.url.as_str(), requester.clone(), now);
                (slot.ok_or(ClientLookupError::Busy { wait: MINUTE })?, true)
            }
        };
        slot.get_or_fetch(now, async {
            if !is_paid {
                self.take_fetch(&requester)?;
            }
            self.fetch(request, &requester, parse).await
        })
        .await
    }

    async fn fetch<T>(
        &self,
        request: DocumentRequest<'_>,
        requester: &Requester,
        parse: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<(LookupResult<T>, Duration), ClientLookupError> {
        match self.fetcher.get(request.url, request.max_bytes, requester).await {
            Ok(fetched) => match parse(&fetched.value) {
                Some(value) => Ok((Some(Arc::new(value)), fetched.max_age)),
                None => Ok((None, request.negative_ttl)),
            },
            Err(fetcher::FetchError::Busy) => {
                Err(self.busy_error(requester, "lookups of host names", CALLER_TIMEOUT))
            }
            Err(error) => {
                tracing::debug!(host = request.url.host(), fault = %error, "a client's metadata document cannot be fetched");
                Ok((None, request.negative_ttl))
            }
        }
    }

    /// Takes one fetch from the allowance.
    fn take_fetch(&self, requester: &Requester) -> Result<(), ClientLookupError> {
        let permit = self.rate_limit.try_take(requester, self.clock.monotonic());
        permit
            .map_err(|wait| self.busy_error(requester, "fetches of metadata documents in this minute", wait))
    }

    fn busy_error(&self, requester: &Requester, what: &str, wait: Duration) -> ClientLookupError {
        if let Some(suppressed) = self.rate_limit.refusal_log_limiter.check(self.clock.monotonic()) {
            tracing::warn!(
                tenant = &*requester.tenant,
                client.addr = %requester.network,
                suppressed,
                "the maximum number of {what} is reached, for one requester or for all: further ones are \
                 refused with 503. Known vendors continue; registration.documents in a tenant's file \
                 restricts the hosts"
            );
        }
        ClientLookupError::Busy { wait }
    }
}

fn new_requester(lookup_context: LookupContext<'_>, is_vouched_for: bool) -> Requester {
    Requester {
        tenant: Arc::clone(lookup_context.tenant),
        network: client_network(lookup_context.source),
        is_vouched_for,
    }
}

fn parse_pinned() -> HashMap<Arc<str>, OAuthClient> {
    let documents: Vec<Value> = serde_json::from_str(PINNED).expect("the shipped documents are JSON");
    let client = |document: &Value| {
        let url = DocumentUrl::parse(document["client_id"].as_str()?).ok()?;
        Some((Arc::from(url.as_str()), document::parse_client(&url, document, true).ok()?))
    };
    documents.iter().filter_map(client).collect()
}

fn is_host_allowed(policy: &DocumentPolicy, host: &str) -> bool {
    match policy {
        DocumentPolicy::Any => true,
        DocumentPolicy::Listed(hosts) => hosts.iter().any(|allowed| **allowed == *host),
        DocumentPolicy::Off => false,
    }
}

/// The fetches that began within the last minute.
struct FetchRateLimit {
    budget: Arc<Budget>,
    recent_fetches: Mutex<VecDeque<(Instant, Reservation)>>,
    /// Limits the log lines about refused fetches.
    refusal_log_limiter: LogLimiter,
}

impl Default for FetchRateLimit {
    fn default() -> Self {
        Self {
            budget: Budget::new(FETCHES_PER_MINUTE),
            recent_fetches: Mutex::default(),
            refusal_log_limiter: LogLimiter::new(MINUTE),
        }
    }
}

impl FetchRateLimit {
    /// Takes one fetch, or returns how long to wait for the next.
    fn try_take(&self, requester: &Requester, now: Instant) -> Result<(), Duration> {
        let mut recent = lock_unpoisoned(&self.recent_fetches);
        let age = |at: Instant| now.saturating_duration_since(at);
        while recent.front().is_some_and(|(at, _)| age(*at) >= MINUTE) {
            recent.pop_front();
        }
        let mut fetch = requester.new_reservation(&self.budget);
        match fetch.try_grow(1) {
            Ok(()) => {
                recent.push_back((now, fetch));
                Ok(())
            }
            Err(_) => Err(recent.front().map_or(MINUTE, |(at, _)| MINUTE.saturating_sub(age(*at)))),
        }
    }
}
