//! What other gateways with the same database changed of logins: loads what a change names, and puts
//! it in force here. Whoever revoked, blocked or rotated did the same in its own memory before.

use std::sync::Arc;

use super::context::{AuthContext, SharedLogins};
use super::error::Unavailable;
use crate::store::{BlockId, ChangeBatch, ClusterStore, StoredBlocks, StoredRevocations};

/// The kinds of changes that are about logins, as the statements record them.
const REVOCATION: &str = "revocation";
const BLOCK: &str = "block";
const SIGNING_KEYS: &str = "signing keys";
const INCARNATION: &str = "incarnation";

/// What changed, by kind.
#[derive(Debug, Default)]
struct ChangedLogins {
    /// Subjects of tenants.
    revocations: Vec<(Arc<str>, Vec<u8>)>,
    blocks: Vec<BlockId>,
    /// Tenants.
    signing_keys: Vec<Arc<str>>,
    /// Tenants.
    incarnations: Vec<Arc<str>>,
}

impl ChangedLogins {
    fn from_batch(batch: &ChangeBatch) -> Option<Self> {
        let ChangeBatch::Changes(changes) = batch else { return None };
        let mut changed = Self::default();
        for change in changes.iter() {
            let tenant = || Arc::clone(&change.tenant);
            match &*change.kind {
                REVOCATION => changed.revocations.push((tenant(), change.key.clone())),
                BLOCK => changed.blocks.extend(BlockId::from_bytes(&change.key)),
                SIGNING_KEYS => changed.signing_keys.push(tenant()),
                INCARNATION => changed.incarnations.push(tenant()),
                _ => {}
            }
        }
        Some(changed)
    }
}

impl AuthContext {
    /// Puts in force what other gateways changed. When this returns `Ok`, all of it is.
    ///
    /// # Errors
    /// Fails if the database cannot be read; then some of it may not be in force.
    pub async fn follow(&self, batch: &ChangeBatch) -> Result<(), Unavailable> {
        let Some(SharedLogins { cluster, .. }) = &self.shared else { return Ok(()) };
        let Some(changed) = ChangedLogins::from_batch(batch) else { return self.reload_everything().await };
        // Whom it concerns first.
        if !changed.blocks.is_empty() {
            self.reload_blocks(cluster, &changed.blocks).await?;
        }
        if !changed.revocations.is_empty() {
            let loaded = cluster.load_revocations(&changed.revocations).await;
            self.adopt_revocations(loaded.map_err(Unavailable::from_store)?);
        }
        if !changed.incarnations.is_empty() {
            let _writing = self.persist_lock.lock().await;
            self.load_incarnations(cluster, &changed.incarnations).await?;
        }
        for tenant in &changed.signing_keys {
            self.reload_keys(tenant).await?;
        }
        Ok(())
    }

    /// Loads all that is kept in memory, as it is not known what changed.
    pub(super) async fn reload_everything(&self) -> Result<(), Unavailable> {
        let writing = (self.block_writes.lock().await, self.persist_lock.lock().await);
        let state = self.store.load_state().await.map_err(Unavailable::from_store)?;
        self.adopt_blocks(None, state.blocks);
        self.adopt_revocations(state.revocations);
        self.incarnations.adopt(None, state.incarnations);
        self.adopt_unreadable_removals(state.tenants_with_unreadable_removals);
        drop(writing);
        let tenants: Vec<_> = self.key_caches.iter().map(|cache| Arc::clone(cache.key())).collect();
        for tenant in &tenants {
            self.reload_keys(tenant).await?;
        }
        tracing::info!("what other gateways changed of logins was loaded as a whole");
        Ok(())
    }

    /// Loads the incarnations of tenants. The caller holds the lock of writing them.
    pub(super) async fn load_incarnations(
        &self,
        cluster: &ClusterStore,
        tenants: &[Arc<str>],
    ) -> Result<(), Unavailable> {
        let loaded = cluster.load_incarnations(tenants).await.map_err(Unavailable::from_store)?;
        self.incarnations.adopt(Some(tenants), loaded);
        Ok(())
    }

    async fn reload_blocks(&self, cluster: &ClusterStore, ids: &[BlockId]) -> Result<(), Unavailable> {
        let _writing = self.block_writes.lock().await;
        let loaded = cluster.load_blocks(ids).await.map_err(Unavailable::from_store)?;
        self.adopt_blocks(Some(ids), loaded);
        Ok(())
    }

    fn adopt_blocks(&self, asked: Option<&[BlockId]>, stored: StoredBlocks) {
        for block in self.blocks.adopt(asked, stored) {
            self.end_blocked_calls(&block);
        }
    }

    fn adopt_revocations(&self, loaded: StoredRevocations) {
        if loaded.unreadable > 0 {
            tracing::error!(
                revocations = loaded.unreadable,
                "somebody else changed revocations in the database: all earlier access tokens are refused, and \
                 clients renew theirs"
            );
            self.revocations.revoke_all_until(self.now());
        }
        for (incarnation, revoked) in loaded.known {
            self.revocations.adopt(&incarnation, revoked);
        }
    }

    /// Loads the signing keys of a tenant again, if they are in memory.
    async fn reload_keys(&self, tenant: &Arc<str>) -> Result<(), Unavailable> {
        let cache = self.key_caches.get(tenant).and_then(|cache| cache.upgrade());
        match (cache, self.incarnations.find(tenant)) {
            (Some(cache), Some(incarnation)) => cache.reload(&self.store, &incarnation, self.now()).await,
            _ => Ok(()),
        }
    }
}
