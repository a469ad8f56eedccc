//! The auth store in the SQLite file: its functions for callers that must not block. Each is one
//! turn on a thread that may, where concurrent writes share one sync of the disk. A write that was
//! begun is finished even if its caller stops waiting.

use std::sync::Arc;

use jiff::Timestamp;

use super::AuthTables;
use crate::store::auth::{
    BlockId, CreateGrant, Error, Grant, GrantCursor, GrantId, Incarnation, IncarnationChange, ListedGrant,
    Revocation, RotateGrant, SigningKey, StoredAuthState, StoredIncarnations,
};

/// The SQLite file as an engine of [`AuthStore`](crate::store::AuthStore), which describes the
/// functions.
#[derive(Clone)]
pub(in crate::store) struct SqliteEngine {
    tables: Arc<AuthTables>,
}

impl SqliteEngine {
    pub(in crate::store) fn new(tables: Arc<AuthTables>) -> Self {
        Self { tables }
    }

    pub(in crate::store) async fn load_state(&self) -> Result<StoredAuthState, Error> {
        self.run(|tables| {
            tables.reseal_incarnations();
            tables.reseal_blocks();
            Ok(StoredAuthState {
                incarnations: StoredIncarnations { current: tables.load_incarnations()?, ended: Vec::new() },
                revocations: tables.load_revocations()?,
                tenants_with_unreadable_removals: tables.tenants_with_unreadable_removals()?,
                blocks: tables.load_blocks()?,
            })
        })
        .await
    }

    pub(in crate::store) async fn apply_incarnation_changes(
        &self,
        changes: Vec<IncarnationChange>,
    ) -> Result<Vec<Arc<str>>, Error> {
        self.run(move |tables| tables.apply_incarnation_changes(&changes)).await?;
        Ok(Vec::new())
    }

    pub(in crate::store) async fn create_grant(
        &self,
        incarnation: &Incarnation,
        grant: CreateGrant,
    ) -> Result<(), Error> {
        let incarnation = incarnation.clone();
        self.run(move |tables| tables.create_grant(&incarnation, grant)).await
    }

    pub(in crate::store) async fn load_grant(
        &self,
        incarnation: &Incarnation,
        id: GrantId,
        now: Timestamp,
    ) -> Result<Option<Grant>, Error> {
        let incarnation = incarnation.clone();
        self.run(move |tables| tables.load_grant(&incarnation, id, now)).await
    }

    pub(in crate::store) async fn list_grants(
        &self,
        tenant: Option<Arc<str>>,
        after: Option<GrantCursor>,
        now: Timestamp,
        at_most: u32,
    ) -> Result<Vec<ListedGrant>, Error> {
        self.run(move |tables| tables.list_grants(tenant.as_deref(), after.as_ref(), now, at_most)).await
    }

    pub(in crate::store) async fn count_grants(
        &self,
        now: Timestamp,
        at_most: u32,
    ) -> Result<Vec<(Incarnation, usize)>, Error> {
        self.run(move |tables| tables.count_grants(now, at_most)).await
    }

    pub(in crate::store) async fn take_code(
        &self,
        incarnation: &Incarnation,
        step: RotateGrant,
    ) -> Result<bool, Error> {
        let incarnation = incarnation.clone();
        self.run(move |tables| tables.take_code(&incarnation, step)).await
    }

    pub(in crate::store) async fn rotate_refresh(
        &self,
        incarnation: &Incarnation,
        step: RotateGrant,
    ) -> Result<bool, Error> {
        let incarnation = incarnation.clone();
        self.run(move |tables| tables.rotate_refresh(&incarnation, step)).await
    }

    pub(in crate::store) async fn delete_grants_of_client(
        &self,
        incarnation: &Incarnation,
        client_id: &str,
    ) -> Result<Vec<GrantId>, Error> {
        let (incarnation, client_id) = (incarnation.clone(), client_id.to_owned());
        self.run(move |tables| tables.delete_grants_of_client(&incarnation, &client_id)).await
    }

    pub(in crate::store) async fn revoke(
        &self,
        incarnation: &Incarnation,
        revocation: Revocation,
    ) -> Result<(), Error> {
        let incarnation = incarnation.clone();
        self.run(move |tables| tables.revoke(&incarnation, revocation)).await
    }

    pub(in crate::store) async fn revoke_all(
        &self,
        revocations: Vec<(Incarnation, Revocation)>,
    ) -> Result<(), Error> {
        self.run(move |tables| tables.revoke_all(&revocations)).await
    }

    pub(in crate::store) async fn delete_expired(
        &self,
        now: Timestamp,
        at_most: u32,
    ) -> Result<usize, Error> {
        self.run(move |tables| tables.delete_expired(now, at_most)).await
    }

    pub(in crate::store) async fn load_signing_keys(
        &self,
        incarnation: &Incarnation,
    ) -> Result<Vec<SigningKey>, Error> {
        let incarnation = incarnation.clone();
        self.run(move |tables| tables.load_signing_keys(&incarnation)).await
    }

    pub(in crate::store) async fn insert_first_signing_key(
        &self,
        incarnation: &Incarnation,
        key: SigningKey,
    ) -> Result<Vec<SigningKey>, Error> {
        let incarnation = incarnation.clone();
        self.run(move |tables| {
            tables.insert_first_signing_key(&incarnation, &key)?;
            tables.load_signing_keys(&incarnation)
        })
        .await
    }

    pub(in crate::store) async fn replace_signing_keys(
        &self,
        incarnation: &Incarnation,
        new: Option<SigningKey>,
        gone: Vec<String>,
    ) -> Result<Vec<SigningKey>, Error> {
        let incarnation = incarnation.clone();
        self.run(move |tables| {
            tables.replace_signing_keys(&incarnation, new.as_ref(), gone)?;
            tables.load_signing_keys(&incarnation)
        })
        .await
    }

    pub(in crate::store) async fn insert_client(
        &self,
        incarnation: &Incarnation,
        id: &str,
        document: Vec<u8>,
    ) -> Result<bool, Error> {
        let (incarnation, id) = (incarnation.clone(), id.to_owned());
        self.run(move |tables| tables.insert_client(&incarnation, &id, &document)).await
    }

    pub(in crate::store) async fn load_client(
        &self,
        incarnation: &Incarnation,
        id: &str,
    ) -> Result<Option<Vec<u8>>, Error> {
        let (incarnation, id) = (incarnation.clone(), id.to_owned());
        self.run(move |tables| tables.load_client(&incarnation, &id)).await
    }

    pub(in crate::store) async fn load_clients(
        &self,
        incarnation: &Incarnation,
    ) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let incarnation = incarnation.clone();
        self.run(move |tables| tables.load_clients(&incarnation)).await
    }

    pub(in crate::store) async fn count_clients(&self, incarnation: &Incarnation) -> Result<usize, Error> {
        let incarnation = incarnation.clone();
        self.run(move |tables| tables.list_client_ids(&incarnation).map(|ids| ids.len())).await
    }

    pub(in crate::store) async fn delete_client(
        &self,
        incarnation: &Incarnation,
        id: &str,
    ) -> Result<bool, Error> {
        let (incarnation, id) = (incarnation.clone(), id.to_owned());
        self.run(move |tables| tables.delete_client(&incarnation, &id)).await
    }

    pub(in crate::store) async fn mark_client_removed(
        &self,
        incarnation: &Incarnation,
        id: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        let (incarnation, id) = (incarnation.clone(), id.to_owned());
        self.run(move |tables| tables.mark_client_removed(&incarnation, &id, now)).await
    }

    pub(in crate::store) async fn is_client_removed(
        &self,
        incarnation: &Incarnation,
        id: &str,
    ) -> Result<bool, Error> {
        let (incarnation, id) = (incarnation.clone(), id.to_owned());
        self.run(move |tables| tables.is_client_removed(&incarnation, &id)).await
    }

    pub(in crate::store) async fn save_block(&self, id: BlockId, details: Vec<u8>) -> Result<(), Error> {
        self.run(move |tables| tables.save_block(id, &details)).await
    }

    pub(in crate::store) async fn delete_block(&self, id: BlockId) -> Result<(), Error> {
        self.run(move |tables| tables.delete_block(id)).await
    }

    pub(in crate::store) fn is_writable(&self) -> bool {
        self.tables.database().is_writable()
    }

    pub(in crate::store) async fn probe_write(&self) -> Result<(), Error> {
        self.run(|tables| tables.database().probe_write()).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&AuthTables) -> Result<T, crate::store::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let tables = Arc::clone(&self.tables);
        let done = tokio::task::spawn_blocking(move || work(&tables)).await;
        done.map_err(|_| Error::interrupted())?.map_err(Error::from)
    }

    /// Returns the functions that block, for tests that are not asynchronous.
    #[cfg(test)]
    pub(in crate::store) fn tables(&self) -> &AuthTables {
        &self.tables
    }
}
