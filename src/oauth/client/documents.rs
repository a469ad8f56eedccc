//! Clients that are described by a document at their id's own address (Client ID Metadata Document).
//!
//! Documents of well-known vendors are part of the program: their hosts refuse many clouds' addresses, and an appliance
//! may reach none. Such a client is known at once; its document is fetched beside, and counts from then on.

mod address;
mod cache;
mod compare;
mod document;
mod fetch;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use serde_json::Value;

use self::address::DocumentUrl;
use self::cache::{Cache, Known, Slot};
pub use self::compare::{Comparison, compare_with_vendors};
use self::fetch::Fetcher;
use super::{Client, ClientFault};
use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::spec::DocumentPolicy;

/// Shipped with the program. `tenantd clients refresh` compares them with what the vendors publish.
const PINNED: &str = include_str!("documents/pinned.json");
/// What the draft proposes.
const LARGEST_DOCUMENT: usize = 5 << 10;
const LARGEST_KEYS: usize = 32 << 10;
/// A document that could not be had is not asked for again so soon.
const ABSENT: Duration = Duration::from_secs(60);
/// One that is also pinned is not missed, so it is asked for rarely.
const PINNED_ABSENT: Duration = Duration::from_secs(3600);
/// So many a minute, whoever asks.
const FETCHES_PER_MINUTE: u32 = 300;

/// The documents that the whole gateway has read.
pub struct Documents {
    pinned: HashMap<Arc<str>, Client>,
    documents: Cache,
    keys: Cache,
    fetcher: Fetcher,
    allowance: Allowance,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    own: Weak<Self>,
}

impl Documents {
    /// With the vendors' documents of this program.
    pub fn new(clock: Arc<dyn Clock>, tasks: &Tasks) -> Arc<Self> {
        Self::over(Fetcher::new(), clock, tasks)
    }

    fn over(fetcher: Fetcher, clock: Arc<dyn Clock>, tasks: &Tasks) -> Arc<Self> {
        let allowance = Allowance::new(&*clock);
        Arc::new_cyclic(|own| Self {
            pinned: pinned(),
            documents: Cache::default(),
            keys: Cache::default(),
            fetcher,
            allowance,
            clock,
            tasks: tasks.clone(),
            own: Weak::clone(own),
        })
    }

    /// The client that the document at `id` describes, where the tenant takes documents of that host.
    pub(super) async fn find(&self, id: &str, policy: &DocumentPolicy) -> Result<Client, ClientFault> {
        let url = DocumentUrl::parse(id).map_err(|_| ClientFault::Unknown)?;
        if !takes(policy, url.host()) {
            return Err(ClientFault::Unknown);
        }
        let slot = self.documents.slot(url.as_str(), self.clock.monotonic());
        let document = match self.pinned.get(url.as_str()) {
            None => self.fetched(&slot, &url, ABSENT).await,
            Some(pinned) => match self.beside(slot, &url) {
                Some(document) => Some(document),
                None => return Ok(pinned.clone()),
            },
        };
        let document = document.ok_or(ClientFault::Unavailable)?;
        // What is kept was read as a client before.
        document::client(&url, &document).map_err(|_| ClientFault::Unknown)
    }

    /// The keys at an address that a document names.
    pub(super) async fn keys(&self, at: &str) -> Result<Arc<Value>, ClientFault> {
        let url = DocumentUrl::parse(at).map_err(|_| ClientFault::Unknown)?;
        let now = self.clock.monotonic();
        let fetch = self.fetch(&url, LARGEST_KEYS, ABSENT, |value| value["keys"].is_array());
        self.keys.slot(at, now).known(now, fetch).await.ok_or(ClientFault::Unavailable)
    }

    async fn fetched(&self, slot: &Slot, url: &DocumentUrl, absent: Duration) -> Known {
        let fetch = self.fetch(url, LARGEST_DOCUMENT, absent, |value| match document::client(url, value) {
            Ok(_) => true,
            Err(fault) => {
                tracing::debug!(host = url.host(), %fault, "a client's document is of no use");
                false
            }
        });
        slot.known(self.clock.monotonic(), fetch).await
    }

    /// What was fetched, if it was; if not, it is being fetched from now on and nobody waits for it.
    fn beside(&self, slot: Arc<Slot>, url: &DocumentUrl) -> Known {
        if let Some(known) = slot.at_hand(self.clock.monotonic()) {
            return known;
        }
        if let Some(own) = self.own.upgrade() {
            let url = url.clone();
            self.tasks.spawn("client document", async move {
                drop(own.fetched(&slot, &url, PINNED_ABSENT).await);
            });
        }
        None
    }

    async fn fetch(
        &self,
        url: &DocumentUrl,
        largest: usize,
        absent: Duration,
        is_good: impl FnOnce(&Value) -> bool,
    ) -> (Known, Duration) {
        if !self.allowance.take(self.clock.monotonic()) {
            tracing::warn!("more clients' documents are asked for than are fetched in a minute");
            return (None, Duration::from_secs(1));
        }
        match self.fetcher.get(url, largest).await {
            Ok(fetched) if is_good(&fetched.value) => (Some(Arc::new(fetched.value)), fetched.keep),
            Ok(_) => (None, absent),
            Err(fault) => {
                tracing::debug!(host = url.host(), %fault, "a client's document cannot be fetched");
                (None, absent)
            }
        }
    }
}

fn pinned() -> HashMap<Arc<str>, Client> {
    let listed: Vec<Value> = serde_json::from_str(PINNED).expect("the shipped documents are JSON");
    let client = |document: &Value| {
        let url = DocumentUrl::parse(document["client_id"].as_str()?).ok()?;
        Some((Arc::from(url.as_str()), document::client(&url, document).ok()?))
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

/// How many fetches may begin in each minute.
struct Allowance {
    began: Instant,
    minute: AtomicU64,
    taken: AtomicU32,
}

impl Allowance {
    fn new(clock: &dyn Clock) -> Self {
        Self { began: clock.monotonic(), minute: AtomicU64::new(0), taken: AtomicU32::new(0) }
    }

    fn take(&self, now: Instant) -> bool {
        let minute = now.saturating_duration_since(self.began).as_secs() / 60;
        if self.minute.swap(minute, Ordering::Relaxed) != minute {
            self.taken.store(0, Ordering::Relaxed);
        }
        self.taken.fetch_add(1, Ordering::Relaxed) < FETCHES_PER_MINUTE
    }
}
