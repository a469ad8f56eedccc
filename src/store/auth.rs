//! The auth store: grants, revocations, signing keys, clients, and the incarnations of tenants that
//! all of these belong to; and blocks, which belong to none. Several gateways could share it, so
//! its functions are named by intent, take the incarnation first and return owned values, and its
//! errors say nothing of the database behind it.
//!
//! Guarantees: what a function wrote is on the disk when it returns `Ok`. A code is redeemed once and
//! a refresh token rotated once, however many ask at the same time. If a database does not say
//! whether it did that, the function fails, and the store keeps in mind that the token may have
//! reached nobody ([`LastToken::is_unconfirmed`]).

mod block;
mod error;
mod grant;
mod incarnation;
pub(super) mod postgres;
pub(super) mod sealed;
mod signing_key;
pub(super) mod sqlite;

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

pub use self::block::{BlockId, StoredBlocks};
pub use self::error::{Error, ErrorKind};
pub use self::grant::{
    CreateGrant, Grant, GrantCursor, GrantId, LastToken, ListedGrant, Revocation, RevokedSubject,
    RotateGrant, StoredRevocations,
};
pub use self::incarnation::{
    Incarnation, IncarnationChange, IncarnationId, IncarnationRecord, StoredIncarnations,
};
use self::postgres::{ConnectionHealth, PostgresEngine};
pub use self::signing_key::SigningKey;
use self::sqlite::{AuthTables, SqliteEngine};
use crate::base::digest::Digest;

/// The auth store. Cheap to clone. A write that was begun is finished even if its caller stops
/// waiting. Any function may fail with [`ErrorKind::Interrupted`].
#[derive(Clone)]
pub struct AuthStore {
    engine: Engine,
}

/// The database that holds the rows. All engines have the same functions, and keep the same
/// promises.
#[derive(Clone)]
enum Engine {
    Sqlite(SqliteEngine),
    Postgres(PostgresEngine),
}

/// Waits for the same function of whichever engine the store has. What a database does is boxed,
/// since the states of its client library are many layers deep.
macro_rules! with_engine {
    ($store:expr, $engine:ident => $call:expr) => {
        match &$store.engine {
            Engine::Sqlite($engine) => $call.await,
            Engine::Postgres($engine) => Box::pin($call).await,
        }
    };
}

/// What the store holds when a gateway starts.
#[derive(Debug, Default)]
pub struct StoredAuthState {
    /// The incarnations of all tenants.
    pub incarnations: StoredIncarnations,
    /// The revocations of all tenants.
    pub revocations: StoredRevocations,
    /// The tenants that have a removed client whose row was tampered with, so that it is unknown
    /// which client was meant.
    pub tenants_with_unreadable_removals: Vec<Arc<str>>,
    /// Whom operators keep out.
    pub blocks: StoredBlocks,
}

impl AuthStore {
    pub(super) fn in_file(tables: Arc<AuthTables>) -> Self {
        Self { engine: Engine::Sqlite(SqliteEngine::new(tables)) }
    }

    pub(super) fn in_database(engine: PostgresEngine) -> Self {
        Self { engine: Engine::Postgres(engine) }
    }

    /// Loads what a gateway must know from the start. Seals incarnations and blocks anew that an
    /// older master key sealed.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be read. The state names what does not open.
    pub async fn load_state(&self) -> Result<StoredAuthState, Error> {
        with_engine!(self, engine => engine.load_state())
    }

    /// Writes changes of incarnations and deletes what belonged to those that ended; all or
    /// nothing. Returns the tenants whose change is refused, because another gateway with this
    /// store began another incarnation, or still serves the entry of the one that would end.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written.
    pub async fn apply_incarnation_changes(
        &self,
        changes: Vec<IncarnationChange>,
    ) -> Result<Vec<Arc<str>>, Error> {
        with_engine!(self, engine => engine.apply_incarnation_changes(changes))
    }

    /// Stores a grant before its authorization code is issued.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written.
    pub async fn create_grant(&self, incarnation: &Incarnation, grant: CreateGrant) -> Result<(), Error> {
        with_engine!(self, engine => engine.create_grant(incarnation, grant))
    }

    /// Returns a grant, unless it has expired.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be read, [`ErrorKind::Corrupt`] if it does not open.
    pub async fn load_grant(
        &self,
        incarnation: &Incarnation,
        id: GrantId,
        now: Timestamp,
    ) -> Result<Option<Grant>, Error> {
        with_engine!(self, engine => engine.load_grant(incarnation, id, now))
    }

    /// Returns at most `at_most` redeemed grants that have not expired, of all tenants or of one,
    /// that come after `after` in the order of [`GrantCursor`].
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if they cannot be read.
    pub async fn list_grants(
        &self,
        tenant: Option<Arc<str>>,
        after: Option<GrantCursor>,
        now: Timestamp,
        at_most: u32,
    ) -> Result<Vec<ListedGrant>, Error> {
        with_engine!(self, engine => engine.list_grants(tenant, after, now, at_most))
    }

    /// Counts the redeemed grants that have not expired, by incarnation; at most `at_most` of all.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if they cannot be read.
    pub async fn count_grants(
        &self,
        now: Timestamp,
        at_most: u32,
    ) -> Result<Vec<(Incarnation, usize)>, Error> {
        with_engine!(self, engine => engine.count_grants(now, at_most))
    }

    /// Redeems the authorization code of a grant. Returns `false` if it was redeemed before or has
    /// expired; of several concurrent attempts one succeeds.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written.
    pub async fn take_code(&self, incarnation: &Incarnation, step: RotateGrant) -> Result<bool, Error> {
        with_engine!(self, engine => engine.take_code(incarnation, step))
    }

    /// Rotates the refresh token of a grant. Returns `false` if the token was not the last one; of
    /// several concurrent attempts one succeeds.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written.
    pub async fn rotate_refresh(&self, incarnation: &Incarnation, step: RotateGrant) -> Result<bool, Error> {
        with_engine!(self, engine => engine.rotate_refresh(incarnation, step))
    }

    /// Records that somebody is answered with the last token of a grant, which is the one with the
    /// number `sequence`. Returns `false` if somebody else was. A file keeps no such record.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written.
    pub async fn confirm_last_token(
        &self,
        incarnation: &Incarnation,
        id: GrantId,
        sequence: u32,
    ) -> Result<bool, Error> {
        match &self.engine {
            Engine::Sqlite(_) => Ok(true),
            Engine::Postgres(engine) => Box::pin(engine.confirm_last_token(incarnation, id, sequence)).await,
        }
    }

    /// Asks the database about the rotations whose outcome it did not tell. Those that happened are
    /// unconfirmed from then on. Returns how many it did not tell about.
    pub async fn settle_rotations(&self) -> usize {
        match &self.engine {
            Engine::Sqlite(_) => 0,
            Engine::Postgres(engine) => Box::pin(engine.settle_rotations()).await,
        }
    }

    /// Returns whether the database is away or was until a moment ago, so that rotations may not be
    /// settled yet.
    pub fn was_away_lately(&self) -> bool {
        self.health().is_some_and(|health| health.was_away_lately())
    }

    /// Deletes all grants of a client and returns their ids.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written.
    pub async fn delete_grants_of_client(
        &self,
        incarnation: &Incarnation,
        client_id: &str,
    ) -> Result<Vec<GrantId>, Error> {
        with_engine!(self, engine => engine.delete_grants_of_client(incarnation, client_id))
    }

    /// Revokes the access tokens of a subject, and deletes its grant if the subject is one.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written.
    pub async fn revoke(&self, incarnation: &Incarnation, revocation: Revocation) -> Result<(), Error> {
        with_engine!(self, engine => engine.revoke(incarnation, revocation))
    }

    /// Revokes the access tokens of several subjects in one transaction, as [`AuthStore::revoke`]
    /// does.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written.
    pub async fn revoke_all(&self, revocations: Vec<(Incarnation, Revocation)>) -> Result<(), Error> {
        with_engine!(self, engine => engine.revoke_all(revocations))
    }

    /// Deletes expired grants and revocations, at most `at_most` rows of each, and returns how many
    /// it deleted.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written.
    pub async fn delete_expired(&self, now: Timestamp, at_most: u32) -> Result<usize, Error> {
        with_engine!(self, engine => engine.delete_expired(now, at_most))
    }

    /// Returns the signing keys of a tenant, ordered by when they begin to sign.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if they cannot be read, [`ErrorKind::Corrupt`] if one does not
    /// open.
    pub async fn load_signing_keys(&self, incarnation: &Incarnation) -> Result<Vec<SigningKey>, Error> {
        with_engine!(self, engine => engine.load_signing_keys(incarnation))
    }

    /// Stores the first signing key of a tenant, unless the tenant has one. Returns the tenant's
    /// keys.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written, [`ErrorKind::Corrupt`] if a key of the
    /// tenant does not open.
    pub async fn insert_first_signing_key(
        &self,
        incarnation: &Incarnation,
        key: SigningKey,
    ) -> Result<Vec<SigningKey>, Error> {
        with_engine!(self, engine => engine.insert_first_signing_key(incarnation, key))
    }

    /// Deletes the signing keys with the ids `gone` and adds `new`, all or nothing. Returns the
    /// tenant's keys.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written, [`ErrorKind::Corrupt`] if a key of the
    /// tenant does not open.
    pub async fn replace_signing_keys(
        &self,
        incarnation: &Incarnation,
        new: Option<SigningKey>,
        gone: Vec<String>,
    ) -> Result<Vec<SigningKey>, Error> {
        with_engine!(self, engine => engine.replace_signing_keys(incarnation, new, gone))
    }

    /// Stores a client that an operator entered, and returns whether its id was free.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written.
    pub async fn insert_client(
        &self,
        incarnation: &Incarnation,
        id: &str,
        document: Vec<u8>,
    ) -> Result<bool, Error> {
        with_engine!(self, engine => engine.insert_client(incarnation, id, document))
    }

    /// Returns the document of a client that an operator entered.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be read, [`ErrorKind::Corrupt`] if it does not open.
    pub async fn load_client(&self, incarnation: &Incarnation, id: &str) -> Result<Option<Vec<u8>>, Error> {
        with_engine!(self, engine => engine.load_client(incarnation, id))
    }

    /// Returns the ids and documents of the clients that an operator entered, sorted by id.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if they cannot be read, [`ErrorKind::Corrupt`] if one does not
    /// open.
    pub async fn load_clients(&self, incarnation: &Incarnation) -> Result<Vec<(String, Vec<u8>)>, Error> {
        with_engine!(self, engine => engine.load_clients(incarnation))
    }

    /// Returns how many clients an operator entered.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if they cannot be read.
    pub async fn count_clients(&self, incarnation: &Incarnation) -> Result<usize, Error> {
        with_engine!(self, engine => engine.count_clients(incarnation))
    }

    /// Deletes a client and returns whether there was one.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written.
    pub async fn delete_client(&self, incarnation: &Incarnation, id: &str) -> Result<bool, Error> {
        with_engine!(self, engine => engine.delete_client(incarnation, id))
    }

    /// Records that an operator removed a client, so that its id, still genuine, is refused.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written.
    pub async fn mark_client_removed(
        &self,
        incarnation: &Incarnation,
        id: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        with_engine!(self, engine => engine.mark_client_removed(incarnation, id, now))
    }

    /// Returns whether an operator removed a client.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be read.
    pub async fn is_client_removed(&self, incarnation: &Incarnation, id: &str) -> Result<bool, Error> {
        with_engine!(self, engine => engine.is_client_removed(incarnation, id))
    }

    /// Stores a block, in place of the one with the same id.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written.
    pub async fn save_block(&self, id: BlockId, details: Vec<u8>) -> Result<(), Error> {
        with_engine!(self, engine => engine.save_block(id, details))
    }

    /// Deletes a block.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written.
    pub async fn delete_block(&self, id: BlockId) -> Result<(), Error> {
        with_engine!(self, engine => engine.delete_block(id))
    }

    /// Records the use of a client assertion until it expires, and returns whether it is the first.
    /// A file leaves that to the memory of the process, since only one uses it.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written.
    pub async fn use_assertion(&self, assertion: Digest, expires_at: Timestamp) -> Result<bool, Error> {
        match &self.engine {
            Engine::Sqlite(_) => Ok(true),
            Engine::Postgres(engine) => Box::pin(engine.use_assertion(assertion, expires_at)).await,
        }
    }

    /// Returns the seed from which incarnations are derived, if several gateways share the store and
    /// must come to the same; a file's are random.
    pub fn incarnation_seed(&self) -> Option<&[u8; 16]> {
        match &self.engine {
            Engine::Sqlite(_) => None,
            Engine::Postgres(engine) => Some(engine.database_id()),
        }
    }

    /// Returns whether the store can be asked at all: its database was there at the start, or has
    /// answered since.
    pub fn is_open(&self) -> bool {
        match &self.engine {
            Engine::Sqlite(_) => true,
            Engine::Postgres(engine) => engine.is_open(),
        }
    }

    /// Returns whether several gateways may use the store at the same time.
    pub fn is_shared(&self) -> bool {
        matches!(self.engine, Engine::Postgres(_))
    }

    /// Returns whether the database can be used, if it is apart from the rest of the store.
    pub(super) fn health(&self) -> Option<&Arc<ConnectionHealth>> {
        match &self.engine {
            Engine::Sqlite(_) => None,
            Engine::Postgres(engine) => Some(engine.health()),
        }
    }

    /// Returns whether the last write succeeded.
    pub fn is_writable(&self) -> bool {
        match &self.engine {
            Engine::Sqlite(engine) => engine.is_writable(),
            Engine::Postgres(engine) => engine.is_writable(),
        }
    }

    /// Writes a value that nothing reads, to find out whether the store can be written.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written.
    pub async fn probe_write(&self) -> Result<(), Error> {
        with_engine!(self, engine => engine.probe_write())
    }

    /// Returns the functions that block, for tests that are not asynchronous.
    #[cfg(test)]
    pub(in crate::store) fn tables(&self) -> &AuthTables {
        match &self.engine {
            Engine::Sqlite(engine) => engine.tables(),
            Engine::Postgres(_) => panic!("a database has no tables in the file"),
        }
    }
}

impl fmt::Debug for AuthStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthStore").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
