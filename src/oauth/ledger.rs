//! What the authorization servers of all tenants share: the store and how it is asked, which access tokens are revoked,
//! which have been verified lately, and what deletes all that has expired.
//!
//! Whoever asks the store for a tenant asks with that tenant's name: no answer is about another's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use jiff::Timestamp;
use tokio::sync::Mutex;

use super::error::Unavailable;
use super::lives::Lives;
use super::replay::Replay;
use super::revocations::Revocations;
use super::verified::Verified;
use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::spec::TenantName;
use crate::store::{self, GrantId, Store};
use crate::telemetry::audit::Audit;

const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// How often what the store could not take is offered to it again.
const AGAIN: Duration = Duration::from_secs(2);
/// How many rows of a kind are deleted at once, so that nobody waits long for the file.
const AT_ONCE: u32 = 500;

/// What all tenants' authorization servers share.
pub struct Ledger {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    pub(super) lives: Lives,
    writing_lives: Mutex<()>,
    pub(super) revocations: Revocations,
    /// Tenants whose refused clients cannot be told any more.
    doubtful: Vec<Arc<str>>,
    pub(super) verified: Verified,
    pub(super) assertions: Replay,
    pub(super) audit: Audit,
    /// Grants whose refresh token is being replaced.
    busy: DashMap<GrantId, Arc<Mutex<()>>>,
}

impl Ledger {
    /// Reads what is revoked, and keeps house from then on.
    pub async fn start(
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        audit: Audit,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, store::Error> {
        let asked = Arc::clone(&store);
        let read = move || {
            asked.renew_lives();
            Ok::<_, store::Error>((asked.lives()?, asked.revoked()?, asked.doubtful_denials()?))
        };
        let reading = tokio::task::spawn_blocking(read);
        let (lives, revoked, doubtful) = reading.await.expect("reading the store does not panic")?;
        for tenant in &doubtful {
            tracing::error!(%tenant, "a client that an operator removed cannot be told from others any more, because the store was changed by somebody else: clients that registered themselves wait there; restore a backup");
        }
        let revocations = Revocations::default();
        if revoked.unreadable > 0 {
            tracing::error!(
                revocations = revoked.unreadable,
                "revocations in the store were changed by somebody else: every access token of before is refused, clients renew theirs"
            );
            revocations.refuse_all(clock.now());
        }
        for (life, revoked) in revoked.known {
            revocations.add(&life, revoked);
        }
        let ledger = Arc::new(Self {
            store,
            clock,
            lives: Lives::of(lives),
            writing_lives: Mutex::default(),
            revocations,
            doubtful,
            verified: Verified::default(),
            assertions: Replay::default(),
            audit,
            busy: DashMap::new(),
        });
        let (kept, ended) = (Arc::clone(&ledger), tasks.soft().clone());
        let housekeeping = move || keep_house(Arc::clone(&kept), ended.clone());
        tasks.spawn("oauth housekeeping", tasks.supervised("oauth housekeeping", housekeeping));
        Ok(ledger)
    }

    /// The wall clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The clock that is never set.
    pub(super) fn monotonic(&self) -> Instant {
        self.clock.monotonic()
    }

    /// Whether the tenant's refused clients cannot be told from others.
    pub(super) fn doubts_denials(&self, tenant: &str) -> bool {
        self.doubtful.iter().any(|doubtful| **doubtful == *tenant)
    }

    /// A tenant of this entry is about to be published, and nobody logs in to it: what is kept for another's logins ends.
    /// With a login, [`Issuer::settle`](super::issuer::Issuer::settle) says so.
    pub fn settle_without_login(&self, tenant: &TenantName, stem: &Arc<str>) {
        self.lives.settle(tenant, stem, None);
    }

    /// An operator removed an entry: all that is kept for logins of the tenants that it was is to be deleted.
    pub fn end_lives(&self, stem: &str) {
        self.lives.end(stem);
    }

    /// Tells the store of lives that began or ended. Says whether it knows of all.
    pub async fn write_lives(&self) -> bool {
        if !self.lives.is_behind() {
            return true;
        }
        let _one_at_a_time = self.writing_lives.lock().await;
        let turns = self.lives.unwritten();
        let count = turns.len();
        let written = self.ask(move |store| store.turn_lives(&turns)).await;
        if written.is_ok() {
            self.lives.are_written(count);
        }
        written.is_ok()
    }

    /// Asks the store, where blocking is fine. A failure is ours, and the log's.
    pub(super) async fn ask<T, Q>(&self, question: Q) -> Result<T, Unavailable>
    where
        T: Send + 'static,
        Q: FnOnce(&Store) -> Result<T, store::Error> + Send + 'static,
    {
        let store = Arc::clone(&self.store);
        let asking = tokio::task::spawn_blocking(move || question(&store));
        let answer = asking.await.map_err(|_panicked| Unavailable)?;
        answer.map_err(|error| {
            tracing::error!(%error, "the store cannot be used, so logins wait");
            Unavailable
        })
    }

    /// The turn of one asker at a grant; the others wait for it to be let go.
    pub(super) async fn turn(&self, grant: GrantId) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = Arc::clone(&self.busy.entry(grant).or_default());
        turn.lock_owned().await
    }

    async fn tidy(&self) {
        let now = self.now();
        self.revocations.tidy(now);
        self.assertions.tidy(now);
        self.busy.retain(|_, turn| Arc::strong_count(turn) > 1);
        // Whatever fails is in the log already, and tried again in a minute.
        while let Ok(deleted) = self.ask(move |store| store.delete_expired(now, AT_ONCE)).await
            && deleted >= AT_ONCE as usize
        {}
    }

    /// Offers the store what it could not take. Where it did not take the last, something small is tried first.
    async fn write_again(&self) {
        let waiting = self.revocations.unwritten(AT_ONCE as usize);
        if waiting.is_empty() && !self.lives.is_behind() && self.store.is_writable() {
            return;
        }
        let store = Arc::clone(&self.store);
        let trying = tokio::task::spawn_blocking(move || {
            store.try_writing()?;
            waiting.iter().try_for_each(|(life, revoked)| store.revoke(life, *revoked))?;
            Ok::<_, store::Error>(waiting)
        });
        // The first failure is in the log already.
        let Ok(Ok(written)) = trying.await else { return };
        for (life, revoked) in &written {
            self.revocations.is_written(life, revoked.subject);
        }
        if self.write_lives().await {
            tracing::info!(
                revocations = written.len(),
                "the store can be written again; what waited is kept"
            );
        }
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

async fn keep_house(ledger: Arc<Ledger>, ended: tokio_util::sync::CancellationToken) {
    let (mut beat, mut again) = (tokio::time::interval(HOUSEKEEPING), tokio::time::interval(AGAIN));
    loop {
        tokio::select! {
            // What waits would be forgotten with the process.
            () = ended.cancelled() => return ledger.write_again().await,
            _ = beat.tick() => ledger.tidy().await,
            _ = again.tick() => ledger.write_again().await,
        }
    }
}
