//! Clients described by a document at the URL that is their id (Client ID Metadata Document).
//!
//! Documents of well-known vendors are part of the program: their hosts block the addresses of many
//! clouds, and an appliance may reach none of them. Such a client is known at once; its document is
//! fetched in the background and used from then on.
//!
//! Anyone can name a document, so fetches are limited, with a share for each tenant and each source
//! network, and a reserve for the vendors that this program knows. While no fetch is permitted,
//! cached documents stay in use.

mod address;
mod cache;
mod compare;
mod document;
mod fetch;
mod jwks;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use serde_json::Value;

use self::address::DocumentUrl;
use self::cache::{Cache, Known, Party};
pub use self::compare::{Comparison, compare_with_vendors};
use self::fetch::Fetcher;
use super::{Asker, Client, ClientFault};
use crate::base::budget::{Budget, Hold};
use crate::base::clock::Clock;
use crate::base::reach::network;
use crate::base::resolve::PATIENCE_ONCE;
use crate::base::seldom::Seldom;
use crate::base::task::Tasks;
use crate::spec::DocumentPolicy;

/// Shipped with the program. `tenantd clients refresh` compares them with what the vendors publish.
const PINNED: &str = include_str!("documents/pinned.json");
/// The limit that the draft proposes, in bytes.
const LARGEST_DOCUMENT: usize = 5 << 10;
const LARGEST_KEYS: usize = 32 << 10;
/// How long after a failure a document is not fetched again.
const ABSENT: Duration = Duration::from_secs(60);
/// The same for a document that is also pinned: it is not needed, so retries are rare.
const PINNED_ABSENT: Duration = Duration::from_secs(3600);
/// The limit on fetches of all requesters per minute.
const FETCHES_PER_MINUTE: u64 = 300;
const MINUTE: Duration = Duration::from_secs(60);
/// The capacity of the caches, in entries, and the largest size of an entry in memory.
const DOCUMENTS_KEPT: u64 = 1000;
const DOCUMENT_BYTES: u64 = 8 << 10;
const KEY_SETS_KEPT: u64 = 250;
const KEY_SET_BYTES: u64 = 64 << 10;

/// The documents cache of the gateway.
pub struct Documents {
    pinned: HashMap<Arc<str>, Client>,
    documents: Cache<Client>,
    keys: Cache<Value>,
    fetcher: Fetcher,
    allowance: Allowance,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    own: Weak<Self>,
}

/// A document to fetch: its URL, its largest size, and how long a failure is cached.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    url: &'a DocumentUrl,
    largest: usize,
    absent: Duration,
}

impl Documents {
    /// Creates the cache, with the pinned documents.
    pub fn new(clock: Arc<dyn Clock>, tasks: &Tasks) -> Arc<Self> {
        Self::over(Fetcher::new(), clock, tasks)
    }

    fn over(fetcher: Fetcher, clock: Arc<dyn Clock>, tasks: &Tasks) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            pinned: pinned(),
            documents: Cache::of(DOCUMENTS_KEPT, DOCUMENT_BYTES),
            keys: Cache::of(KEY_SETS_KEPT, KEY_SET_BYTES),
            fetcher,
            allowance: Allowance::default(),
            clock,
            tasks: tasks.clone(),
            own: Weak::clone(own),
        })
    }

    /// Returns the client that the document at `id` describes, if the tenant accepts documents of
    /// that host.
    pub(super) async fn find(
        &self,
        id: &str,
        policy: &DocumentPolicy,
        asker: Asker<'_>,
    ) -> Result<Client, ClientFault> {
        let url = DocumentUrl::parse(id).map_err(|_| ClientFault::Unknown)?;
        if !takes(policy, url.host()) {
            return Err(ClientFault::Unknown);
        }
        let party = party(asker, self.pinned.contains_key(url.as_str()));
        let document = match self.pinned.get(url.as_str()) {
            None => self.document(&url, party).await?,
            Some(pinned) => match self.beside(&url, party) {
                Some(document) => Some(document),
                None => return Ok(pinned.clone()),
            },
        };
        document.as_deref().cloned().ok_or(ClientFault::Unavailable)
    }

    /// Returns the JWK set at a URL that a document names.
    pub(super) async fn keys(
        &self,
        at: &str,
        is_known: bool,
        asker: Asker<'_>,
    ) -> Result<Arc<Value>, ClientFault> {
        let url = DocumentUrl::parse(at).map_err(|_| ClientFault::Unknown)?;
        let wanted = Wanted { url: &url, largest: LARGEST_KEYS, absent: ABSENT };
        let keys = self.looked_up(&self.keys, wanted, party(asker, is_known), jwks::pruned).await?;
        keys.ok_or(ClientFault::Unavailable)
    }

    async fn document(&self, url: &DocumentUrl, party: Party) -> Result<Known<Client>, ClientFault> {
        let pinned = party.is_known;
        let absent = if pinned { PINNED_ABSENT } else { ABSENT };
        let wanted = Wanted { url, largest: LARGEST_DOCUMENT, absent };
        let read = |value: &Value| {
            document::client(url, value, pinned)
                .inspect_err(
                    |fault| tracing::debug!(host = url.host(), %fault, "a client's document is of no use"),
                )
                .ok()
        };
        self.looked_up(&self.documents, wanted, party, read).await
    }

    /// Returns the cached document; if there is none, starts to fetch it in the background.
    fn beside(&self, url: &DocumentUrl, party: Party) -> Option<Arc<Client>> {
        let slot = self.documents.find(url.as_str());
        if let Some(known) = slot.and_then(|slot| slot.at_hand(self.clock.monotonic())) {
            return known;
        }
        if let Some(own) = self.own.upgrade() {
            let url = url.clone();
            self.tasks.spawn("client document", async move {
                // The result is in the cache.
                let _known = own.document(&url, party).await;
            });
        }
        None
    }

    /// Returns the cached value of a URL, or fetches it. Only a permitted fetch takes a cache
    /// entry.
    async fn looked_up<T>(
        &self,
        cache: &Cache<T>,
        wanted: Wanted<'_>,
        party: Party,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Known<T>, ClientFault> {
        let now = self.clock.monotonic();
        let (slot, is_paid) = match cache.find(wanted.url.as_str()) {
            Some(slot) => (slot, false),
            None => {
                self.take(&party)?;
                let slot = cache.begin(wanted.url.as_str(), party.clone(), now);
                (slot.ok_or(ClientFault::Busy { wait: MINUTE })?, true)
            }
        };
        slot.known(now, async {
            if !is_paid {
                self.take(&party)?;
            }
            self.fetch(wanted, &party, read).await
        })
        .await
    }

    async fn fetch<T>(
        &self,
        wanted: Wanted<'_>,
        party: &Party,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<(Known<T>, Duration), ClientFault> {
        match self.fetcher.get(wanted.url, wanted.largest, party).await {
            Ok(fetched) => match read(&fetched.value) {
                Some(good) => Ok((Some(Arc::new(good)), fetched.keep)),
                None => Ok((None, wanted.absent)),
            },
            Err(fetch::Fault::Busy) => Err(self.busy(party, "names are being looked up", PATIENCE_ONCE)),
            Err(fault) => {
                tracing::debug!(host = wanted.url.host(), %fault, "a client's document cannot be fetched");
                Ok((None, wanted.absent))
            }
        }
    }

    /// Takes one fetch from the allowance.
    fn take(&self, party: &Party) -> Result<(), ClientFault> {
        let taken = self.allowance.take(party, self.clock.monotonic());
        taken.map_err(|wait| self.busy(party, "documents were fetched in this minute", wait))
    }

    fn busy(&self, party: &Party, what: &str, wait: Duration) -> ClientFault {
        if let Some(unsaid) = self.allowance.full.occasion(self.clock.monotonic()) {
            tracing::warn!(
                tenant = &*party.tenant,
                client.addr = %party.network,
                unsaid,
                "as many of clients' {what} as one asker, or all, may have: others' are refused with 503. Known vendors' go on; \
                 registration.documents in a tenant's file says which hosts are asked at all"
            );
        }
        ClientFault::Busy { wait }
    }
}

fn party(asker: Asker<'_>, is_known: bool) -> Party {
    Party { tenant: Arc::clone(asker.tenant), network: network(asker.source), is_known }
}

fn pinned() -> HashMap<Arc<str>, Client> {
    let listed: Vec<Value> = serde_json::from_str(PINNED).expect("the shipped documents are JSON");
    let client = |document: &Value| {
        let url = DocumentUrl::parse(document["client_id"].as_str()?).ok()?;
        Some((Arc::from(url.as_str()), document::client(&url, document, true).ok()?))
    };
    listed.iter().filter_map(client).collect()
}

fn takes(policy: &DocumentPolicy, host: &str) -> bool {
    match policy {
        DocumentPolicy::Any => true,
        DocumentPolicy::Listed(hosts) => hosts.iter().any(|listed| **listed == *host),
        DocumentPolicy::Off => false,
    }
}

/// The fetches that began within the last minute.
struct Allowance {
    budget: Arc<Budget>,
    begun: Mutex<VecDeque<(Instant, Hold)>>,
    /// Limits the log lines about refused fetches.
    full: Seldom,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            budget: Budget::new(FETCHES_PER_MINUTE),
            begun: Mutex::default(),
            full: Seldom::once_in(MINUTE),
        }
    }
}

impl Allowance {
    /// Takes one fetch, or returns how long to wait for the next.
    fn take(&self, party: &Party, now: Instant) -> Result<(), Duration> {
        let mut begun = self.begun.lock().expect("no holder of this lock panics");
        let age = |at: Instant| now.saturating_duration_since(at);
        while begun.front().is_some_and(|(at, _)| age(*at) >= MINUTE) {
            begun.pop_front();
        }
        let mut fetch = party.hold(&self.budget);
        match fetch.grow(1) {
            Ok(()) => {
                begun.push_back((now, fetch));
                Ok(())
            }
            Err(_) => Err(begun.front().map_or(MINUTE, |(at, _)| MINUTE.saturating_sub(age(*at)))),
        }
    }
}
