//! What gateways share about a certificate, as this program understands it, and how a gateway reads
//! it: after its start, and whenever another one has changed it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::certs_folder::{self, CertsFolder};
use super::lease;
use super::pending_order::PendingOrder;
use crate::certs::schedule::{CertificateLifetime, RenewalState};
use crate::certs::server_certificate::ServerCertificate;
use crate::store::{ClusterStore, LeaseHolder, LocalCertificate, SharedCertificate, auth};

/// How soon shared certificates are read again after a failure.
const RETRY_INTERVAL: SignedDuration = SignedDuration::from_secs(2);
/// How often all are read in any case; changes are read at once.
const POLL_INTERVAL: SignedDuration = SignedDuration::from_secs(60);

/// What is shared about one certificate.
#[derive(Debug, Default)]
pub(in crate::certs) struct SharedState {
    pub(super) name: String,
    pub(super) version: i64,
    pub(super) certificate: Option<Arc<ServerCertificate>>,
    /// PEM of its key and chain.
    pub(super) pem: Option<String>,
    pub(super) renewal: RenewalState,
    pub(super) pending_order: Option<PendingOrder>,
    pub(super) holder: Option<LeaseHolder>,
    /// Why it cannot be used.
    pub(super) problem: Option<String>,
}

impl From<SharedCertificate> for SharedState {
    fn from(shared: SharedCertificate) -> Self {
        let SharedCertificate { name, version, holder, .. } = shared;
        let mut problem = shared.is_unreadable.then(|| {
            "what gateways share about it in the database cannot be decrypted: it was encrypted with another \
             master key, or changed. Give that key as a second line of the master key, or delete its row of \
             tenantd.certificates"
                .to_owned()
        });
        let pem = shared.bundle.and_then(|bundle| String::from_utf8(bundle).ok());
        let certificate = pem.as_deref().and_then(|pem| {
            certs_folder::parse_bundle_for(pem, &name)
                .inspect_err(|error| problem = Some(format!("the certificate in the database: {error}")))
                .ok()
        });
        let renewal = shared.renewal.and_then(|text| serde_json::from_slice(&text).ok());
        let pending_order = shared.pending_order.and_then(|text| serde_json::from_slice(&text).ok());
        let renewal = renewal.unwrap_or_default();
        Self { name, version, certificate, pem, renewal, pending_order, holder, problem }
    }
}

impl SharedState {
    pub(super) fn lifetime(&self) -> Option<CertificateLifetime> {
        self.certificate.as_ref().map(|held| held.lifetime())
    }
}

/// A certificate to read.
pub(super) struct AskedCertificate {
    pub(super) name: String,
    /// The version that is known; nothing is read again unless there is another.
    pub(super) known_version: i64,
    /// What the folder had when this gateway started; it is imported unless what is shared is as
    /// new.
    pub(super) local: Option<(Option<Timestamp>, RenewalState)>,
}

/// Reads certificates, after those were imported that only this gateway's folder has.
pub(super) async fn load(
    store: &ClusterStore,
    folder: Arc<CertsFolder>,
    asked: &[AskedCertificate],
) -> Result<Vec<SharedState>, auth::Error> {
    let known = |asked: &AskedCertificate| (asked.name.clone(), asked.known_version);
    let mut found = read(store, asked.iter().map(known).collect()).await?;
    let mut imported = Vec::new();
    for AskedCertificate { name, local, .. } in asked {
        let Some((not_before, renewal)) = local else { continue };
        let shared = found.get(name);
        let shared_from = shared.and_then(|shared| Some(shared.certificate.as_ref()?.not_before));
        let is_news = match (shared, *not_before) {
            (Some(shared), _) if shared.problem.is_some() => false,
            (None, None) => *renewal != RenewalState::default(),
            (_, local_from) => local_from > shared_from,
        };
        if is_news && import(store, &folder, name, *not_before, renewal).await? {
            imported.push((name.clone(), UNKNOWN_VERSION));
        }
    }
    if !imported.is_empty() {
        found.extend(read(store, imported).await?);
    }
    Ok(found.into_values().collect())
}

/// A version that no row has.
pub(super) const UNKNOWN_VERSION: i64 = -1;

async fn read(
    store: &ClusterStore,
    known: Vec<(String, i64)>,
) -> Result<BTreeMap<String, SharedState>, auth::Error> {
    let known: Vec<_> = known.iter().map(|(name, version)| (&**name, *version)).collect();
    let found = Box::pin(store.load_certificates(&known)).await?;
    Ok(found.into_iter().map(|shared| (shared.name.clone(), shared.into())).collect())
}

async fn import(
    store: &ClusterStore,
    folder: &Arc<CertsFolder>,
    name: &str,
    not_before: Option<Timestamp>,
    renewal: &RenewalState,
) -> Result<bool, auth::Error> {
    let (folder, wanted) = (Arc::clone(folder), name.to_owned());
    let pem = tokio::task::spawn_blocking(move || folder.read_pem(&wanted)).await.ok().flatten();
    let bundle = pem.as_deref().map(str::as_bytes).zip(not_before);
    if bundle.is_none() && not_before.is_some() {
        return Ok(false);
    }
    let renewal = lease::serialize(renewal);
    let is_imported =
        Box::pin(store.import_certificate(&LocalCertificate { name, bundle, renewal: &renewal })).await?;
    if is_imported {
        tracing::info!(
            name,
            "gave the certificate of the certs folder to the gateways that share a database"
        );
    }
    Ok(is_imported)
}

/// When which certificates are read from the database.
#[derive(Debug)]
pub(super) struct SharedReads {
    pub(super) store: ClusterStore,
    /// Names that changed; `None` stands for all.
    changed: Option<BTreeSet<String>>,
    pub(super) is_running: bool,
    next_poll: Timestamp,
    /// Why the last read failed.
    pub(super) trouble: Option<String>,
}

impl SharedReads {
    pub(super) fn new(store: ClusterStore) -> Self {
        Self { store, changed: None, is_running: false, next_poll: Timestamp::UNIX_EPOCH, trouble: None }
    }

    /// Remembers that these names must be read, or all.
    pub(super) fn note_changes(&mut self, names: Option<BTreeSet<String>>) {
        match (&mut self.changed, names) {
            (Some(changed), Some(names)) => changed.extend(names),
            (changed, _) => *changed = None,
        }
    }

    /// Returns when the next read is due.
    pub(super) fn due_at(&self, now: Timestamp) -> Timestamp {
        let has_changes = self.changed.as_ref().is_none_or(|names| !names.is_empty());
        match has_changes && self.trouble.is_none() {
            true => now,
            // The wall clock may have jumped.
            false => self.next_poll.min(now + POLL_INTERVAL),
        }
    }

    /// Begins a read, and returns the names that changed; `None` stands for all.
    pub(super) fn begin(&mut self, now: Timestamp) -> Option<BTreeSet<String>> {
        let is_poll = self.next_poll <= now;
        self.is_running = true;
        self.next_poll = now + POLL_INTERVAL;
        let changed = self.changed.replace(BTreeSet::new());
        changed.filter(|_| !is_poll)
    }

    /// Ends a read. After a failure everything is read again.
    pub(super) fn end(&mut self, trouble: Option<String>, now: Timestamp) {
        self.is_running = false;
        match trouble {
            Some(trouble) => self.fail(trouble, now),
            None if self.trouble.take().is_some() => {
                tracing::info!("what gateways share about certificates can be read again");
            }
            None => {}
        }
    }

    /// Remembers that the database cannot be asked.
    pub(super) fn fail(&mut self, trouble: String, now: Timestamp) {
        if self.trouble.is_none() {
            tracing::warn!(trouble, "certificates are served from the last copy, and none is ordered");
        }
        (self.trouble, self.changed, self.next_poll) = (Some(trouble), None, now + RETRY_INTERVAL);
    }
}
