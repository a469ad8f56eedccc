//! The state that the authorization servers of all tenants share: access to the store, the revoked
//! access tokens, the cache of verified ones, and the task that deletes what has expired.
//!
//! Every query for a tenant carries the tenant's name, so no answer is about another tenant.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use jiff::Timestamp;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

use super::blocks::{Block, Blocks, ProvisionalBlock};
use super::error::Unavailable;
use super::incarnations::IncarnationTable;
use super::last_uses::LastUses;
use super::login_counts::LoginCounts;
use super::machine_tokens::MachineTokens;
use super::replay::ReplayCache;
use super::revocations::Revocations;
use super::tokens::signing_keys::SigningKeyCache;
use super::tokens::verified_cache::VerifiedTokenCache;
use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::settings::StaleStore;
use crate::spec::{LoginSpec, TenantName};
use crate::store::auth::{self, AuthStore, StoredAuthState};
use crate::store::{BlockId, ClusterStore, GrantId};
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Metrics;

const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(60);
/// How often writes that failed are retried.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// The limit on rows deleted at once, so that the database is never locked for long.
const DELETE_BATCH: u32 = 500;

/// The logins that several gateways share.
pub struct SharedLogins {
    /// What the gateways tell each other.
    pub cluster: ClusterStore,
    /// What happens to calls while this gateway cannot know what others revoked.
    pub when_stale: StaleStore,
}

/// The state that the authorization servers of all tenants share.
pub struct AuthContext {
    pub(super) store: AuthStore,
    /// What is shared with other gateways, if anything is.
    pub(super) shared: Option<SharedLogins>,
    clock: Arc<dyn Clock>,
    pub(super) incarnations: IncarnationTable,
    /// Held while incarnations are written or loaded, so that neither overtakes the other.
    pub(super) persist_lock: Mutex<()>,
    pub(super) revocations: Revocations,
    pub(super) blocks: Blocks,
    /// Held while blocks are written, deleted or loaded, so that the store ends with those in force.
    pub(super) block_writes: Mutex<()>,
    pub(super) last_uses: LastUses,
    pub(super) login_counts: LoginCounts,
    pub(super) machine_tokens: MachineTokens,
    /// The logins of published tenants, which name the programs that may have tokens.
    pub(super) login_specs: DashMap<Arc<str>, Arc<LoginSpec>>,
    /// Tenants whose removed clients can no longer be identified.
    unreadable_removals: ArcSwap<Vec<Arc<str>>>,
    pub(super) verified_tokens: VerifiedTokenCache,
    /// The signing keys of published tenants.
    pub(super) key_caches: DashMap<Arc<str>, Weak<SigningKeyCache>>,
    pub(super) used_assertions: ReplayCache,
    pub(super) audit: Audit,
    pub(super) metrics: Arc<Metrics>,
    /// Grants whose refresh token is being rotated.
    refresh_locks: DashMap<GrantId, Arc<Mutex<()>>>,
}

impl AuthContext {
    /// Loads incarnations, revocations and blocks from the store, and starts the housekeeping task.
    /// A store that cannot be asked yet is loaded by [`AuthContext::load_late`].
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub async fn start(
        store: AuthStore,
        shared: Option<SharedLogins>,
        clock: Arc<dyn Clock>,
        audit: Audit,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, auth::Error> {
        let StoredAuthState {
            incarnations,
            revocations: revoked,
            tenants_with_unreadable_removals: unreadable_removals,
            blocks,
        } = match store.is_open() {
            true => store.load_state().await?,
            false => StoredAuthState::default(),
        };
        report_unreadable_removals(&unreadable_removals);
        for block in &blocks.unreadable {
            tracing::error!(%block, "a block in the store cannot be read, because somebody else changed it: it \
                                     could mean anybody, so people who logged in get 503; lift it with `tenantd \
                                     logins unblock`, or restore a backup");
        }
        let blocks = Blocks::from_stored(blocks);
        let seed = store.incarnation_seed().copied();
        let incarnations = match store.is_open() {
            true => IncarnationTable::from_stored(incarnations, seed),
            false => IncarnationTable::not_loaded(seed),
        };
        let revocations = Revocations::default();
        if revoked.unreadable > 0 {
            tracing::error!(
                revocations = revoked.unreadable,
                "somebody else changed revocations in the store: all earlier access tokens are refused, and \
                 clients renew theirs"
            );
            revocations.revoke_all_until(clock.now());
        }
        for (incarnation, revoked) in revoked.known {
            revocations.insert(&incarnation, revoked);
        }
        let context = Arc::new(Self {
            store,
            shared,
            clock,
            incarnations,
            persist_lock: Mutex::default(),
            revocations,
            blocks,
            block_writes: Mutex::default(),
            last_uses: LastUses::default(),
            login_counts: LoginCounts::default(),
            machine_tokens: MachineTokens::default(),
            login_specs: DashMap::new(),
            unreadable_removals: ArcSwap::from_pointee(unreadable_removals),
            verified_tokens: VerifiedTokenCache::default(),
            key_caches: DashMap::new(),
            used_assertions: ReplayCache::default(),
            audit,
            metrics,
            refresh_locks: DashMap::new(),
        });
        let (shared, shutdown) = (Arc::clone(&context), tasks.shutdown_signal().clone());
        let housekeeping = move || run_housekeeping(Arc::clone(&shared), shutdown.clone());
        tasks.spawn("oauth housekeeping", tasks.supervise("oauth housekeeping", housekeeping));
        Ok(context)
    }

    /// Returns the wall-clock time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns the time of the clock that is never set.
    pub(super) fn monotonic(&self) -> Instant {
        self.clock.monotonic()
    }

    /// Whether the tenant's removed clients can no longer be identified.
    pub(super) fn has_unreadable_removals(&self, tenant: &str) -> bool {
        self.unreadable_removals.load().iter().any(|unreadable| **unreadable == *tenant)
    }

    /// Returns whether it is known what the store has. Before that, no tenant with a login can be
    /// served.
    pub fn is_loaded(&self) -> bool {
        self.incarnations.is_loaded()
    }

    /// Loads the store that could not be asked when this gateway started. The tenants that waited for
    /// it must be built again.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub async fn load_late(&self) -> Result<(), Unavailable> {
        self.reload_everything().await?;
        tracing::info!("logins were loaded from the database: the tenants that waited for it are served");
        Ok(())
    }

    /// Prepares the publication of a tenant with a login that was built before it was known what the
    /// store has. It is built again as soon as that is known.
    pub fn activate_waiting(&self, tenant: &TenantName, entry_id: &Arc<str>) {
        self.incarnations.activate_waiting(tenant, entry_id);
    }

    pub(super) fn adopt_unreadable_removals(&self, tenants: Vec<Arc<str>>) {
        report_unreadable_removals(&tenants);
        self.unreadable_removals.store(Arc::new(tenants));
    }

    /// Prepares the publication of a tenant without login from the entry `entry_id`: ends the
    /// incarnation that another entry had under this name. For a tenant with login, see
    /// [`AuthServer::activate`](super::authorization_server::AuthServer::activate).
    pub fn activate_without_login(&self, tenant: &TenantName, entry_id: &Arc<str>) {
        self.login_specs.remove(tenant.as_arc());
        self.incarnations.activate(tenant, entry_id, None);
    }

    /// Ends the incarnations of all tenants of a removed entry, so that everything stored for their
    /// logins is deleted.
    pub fn end_entry(&self, entry_id: &str) {
        self.incarnations.end_entry(entry_id);
    }

    /// Writes incarnations that began or ended to the store; returns whether the store has all of
    /// them.
    pub async fn persist_incarnations(&self) -> bool {
        if !self.incarnations.is_loaded() {
            return false;
        }
        if !self.incarnations.has_unpersisted() {
            return true;
        }
        let _one_at_a_time = self.persist_lock.lock().await;
        let turns = self.incarnations.unpersisted();
        // Another gateway may serve what ends, and could not say so while the database was away.
        if self.incarnations.has_unpersisted_end() && !self.knows_the_others() {
            return false;
        }
        let count = turns.len();
        let written = self.store.apply_incarnation_changes(turns).await.map_err(Unavailable::from_store);
        let Ok(refused) = written else { return false };
        self.incarnations.mark_persisted(count, &refused);
        match &self.shared {
            // What other gateways recorded decides whether these changes can still be written.
            Some(shared) if !refused.is_empty() => {
                self.load_incarnations(&shared.cluster, &refused).await.is_ok()
            }
            _ => true,
        }
    }

    /// Whether every gateway that may serve a tenant has had the time to tell the database. Before that,
    /// no incarnation ends.
    fn knows_the_others(&self) -> bool {
        let shared = self.shared.as_ref();
        shared.is_none_or(|shared| shared.cluster.freshness().is_settled(self.monotonic()))
    }

    /// Whether calls may go on by what this gateway knows: it has heard of its database a moment ago,
    /// is alone with it, or serves on by its settings.
    pub(super) fn can_vouch(&self) -> bool {
        match &self.shared {
            Some(SharedLogins { cluster, when_stale: StaleStore::Refuse }) => {
                !cluster.freshness().is_stale(self.monotonic())
            }
            _ => true,
        }
    }

    /// Ends all calls and streams of tenants with a login, unless they may go on.
    pub fn end_stale_calls(&self) {
        if !self.can_vouch() {
            self.revocations.end_calls_in_doubt();
        }
    }

    /// Waits until other gateways ended or replaced the incarnations of tenants that are published
    /// here, and returns their entries, whose tenants must be built again.
    pub async fn next_superseded_entries(&self) -> Vec<Arc<str>> {
        self.incarnations.next_superseded().await
    }

    /// Waits until no other request is working on this grant, and locks it.
    pub(super) async fn lock_grant(&self, grant: GrantId) -> OwnedMutexGuard<()> {
        let lock = Arc::clone(&self.refresh_locks.entry(grant).or_default());
        lock.lock_owned().await
    }

    /// Forgets and deletes what has expired.
    pub(super) async fn remove_expired(&self) {
        let now = self.now();
        self.revocations.remove_expired(now);
        self.last_uses.remove_old(now);
        self.machine_tokens.remove_expired(now);
        self.used_assertions.remove_expired(now);
        self.remove_expired_blocks(now).await;
        self.refresh_locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        self.key_caches.retain(|_, cache| cache.strong_count() > 0);
        // A failure is logged already, and retried in a minute.
        while let Ok(deleted) =
            self.store.delete_expired(now, DELETE_BATCH).await.map_err(Unavailable::from_store)
            && deleted >= DELETE_BATCH as usize
        {}
    }

    /// Ends the calls and streams of all whom a block in force keeps out. Calls that are admitted
    /// from here on were checked against the block; all others are registered.
    pub(super) fn end_blocked_calls(&self, block: &Block) {
        self.revocations.end_calls(|holder| {
            let is_here = block.tenant.as_ref().is_none_or(|tenant| *tenant == holder.tenant);
            is_here && holder.account.as_ref().is_some_and(|account| block.subject.matches(account))
        });
    }

    /// Has other gateways keep a person out while the account is looked for, if there are others.
    /// Returns whether they do.
    pub(super) async fn announce_block(&self, block: &ProvisionalBlock<'_>) -> bool {
        if self.shared.is_none() {
            return false;
        }
        let _writing = self.block_writes.lock().await;
        self.store.save_block(block.id(), block.details()).await.map_err(Unavailable::from_store).is_ok()
    }

    /// Has other gateways forget a block that was announced.
    pub(super) async fn withdraw_block(&self, id: BlockId) {
        let _writing = self.block_writes.lock().await;
        if self.store.delete_block(id).await.map_err(Unavailable::from_store).is_err() {
            tracing::error!(
                block = %id,
                "a block by name, in force until the account was found, could not be deleted from the database: \
                 lift it with `tenantd logins unblock`"
            );
        }
    }

    /// Writes the blocks that the store does not have yet; returns whether it has all of them.
    pub(super) async fn persist_blocks(&self) -> bool {
        let _writing = self.block_writes.lock().await;
        for (id, block) in self.blocks.unpersisted() {
            let details = serde_json::to_vec(&*block).expect("plain data");
            if self.store.save_block(id, details).await.map_err(Unavailable::from_store).is_err() {
                return false;
            }
            self.blocks.mark_persisted(id, &block);
        }
        true
    }

    /// Lifts a block.
    ///
    /// # Errors
    /// The store cannot be written; then the block stays.
    pub(super) async fn delete_block(&self, id: BlockId) -> Result<(), Unavailable> {
        let _writing = self.block_writes.lock().await;
        self.store.delete_block(id).await.map_err(Unavailable::from_store)?;
        self.blocks.remove(id);
        Ok(())
    }

    async fn remove_expired_blocks(&self, now: Timestamp) {
        let _writing = self.block_writes.lock().await;
        for id in self.blocks.remove_expired(now) {
            // One that stays in the store is still over after the next start, and goes then.
            let _deleted = self.store.delete_block(id).await.map_err(Unavailable::from_store);
        }
    }

    /// Writes what the store could not take before. If the last write failed, something small is
    /// written first as a probe.
    pub(super) async fn retry_unpersisted(&self) {
        self.store.settle_rotations().await;
        let unpersisted = self.revocations.unpersisted(DELETE_BATCH as usize);
        let has_failed =
            !unpersisted.is_empty() || !self.blocks.unpersisted().is_empty() || !self.store.is_writable();
        if !has_failed {
            // Incarnations may also wait for other gateways, which says nothing of the store.
            self.persist_incarnations().await;
            return;
        }
        // The first failure is in the log already.
        if self.store.probe_write().await.is_err()
            || self.store.revoke_all(unpersisted.clone()).await.is_err()
        {
            return;
        }
        for (incarnation, revoked) in &unpersisted {
            self.revocations.mark_persisted(incarnation, revoked.subject);
        }
        if self.persist_blocks().await && self.persist_incarnations().await {
            tracing::info!(
                revocations = unpersisted.len(),
                "the store can be written again; pending changes are stored now"
            );
        }
    }
}

impl std::fmt::Debug for AuthContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthContext").finish_non_exhaustive()
    }
}

fn report_unreadable_removals(tenants: &[Arc<str>]) {
    for tenant in tenants {
        tracing::error!(%tenant, "removed clients can no longer be recognized, because somebody else changed the \
                                  store: requests of self-registered clients of this tenant get 503; restore a \
                                  backup");
    }
}

async fn run_housekeeping(context: Arc<AuthContext>, shutdown: CancellationToken) {
    let (mut housekeeping, mut retry) =
        (tokio::time::interval(HOUSEKEEPING_INTERVAL), tokio::time::interval(RETRY_INTERVAL));
    loop {
        tokio::select! {
            // A last attempt: unwritten revocations and incarnations would be lost with the
            // process.
            () = shutdown.cancelled() => return context.retry_unpersisted().await,
            _ = housekeeping.tick() => context.remove_expired().await,
            _ = retry.tick() => context.retry_unpersisted().await,
        }
    }
}
