//! Where the logins of a state folder are kept: in its file, or in a PostgreSQL database. The file
//! remembers the database, so that no start goes on with logins, revocations and blocks other than
//! the last ones.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags};

use super::auth::postgres::{DatabaseProbe, PostgresAddress, PostgresEngine};
use super::auth::sealed::{AuthCounts, AuthRows};
use super::cluster::{
    Joining, NodeIdentity, SharedTablesReport, UsageTables, check_shared_tables, refuse_live_nodes,
};
use super::{AuthStore, ClusterStore, Error, Store, schema, usage_copy};
use crate::base::random;

/// The id of the database that has the logins of this state folder.
const AUTH_DATABASE: &str = "auth-database";
/// The id of this state folder among those that use a database.
const NODE: &str = "node";

/// Returns whether the logins of a store's file, or of a copy of one, are in a database.
///
/// # Errors
/// [`Error::Database`] if the file cannot be read.
pub fn has_logins_elsewhere(file: &Path) -> Result<bool, Error> {
    let read = || {
        let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        schema::load_mark(&connection, AUTH_DATABASE)
    };
    let mark = read().map_err(|cause| Error::Database { file: file.to_owned(), cause: cause.into() })?;
    Ok(mark.is_some())
}

impl Store {
    /// Verifies that the logins are in the file.
    ///
    /// # Errors
    /// [`Error::AuthMoved`] if they are in a database since.
    pub fn verify_auth_in_file(&self) -> Result<(), Error> {
        match self.load_mark(AUTH_DATABASE)? {
            None => Ok(()),
            Some(_) => Err(Error::AuthMoved { file: self.database.file.clone() }),
        }
    }

    /// Keeps the logins in a PostgreSQL database from now on, as the node with this name.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database cannot be used or the state folder is a copy of another
    /// node's, [`Error::AuthNotCopied`] if the file has
    /// logins that the database does not have, [`Error::AuthMoved`] if they are in another database.
    pub async fn connect_auth(mut self, address: PostgresAddress, node_name: &str) -> Result<Self, Error> {
        let shown = address.shown().to_owned();
        let engine = self.open_engine(address).await?;
        match self.load_mark(AUTH_DATABASE)? {
            Some(id) if id == engine.database_id() => {}
            Some(_) => return Err(Error::OtherDatabase { file: self.database.file.clone(), shown }),
            None if self.auth_tables.export_rows()?.counts().is_empty() => {
                self.save_mark(AUTH_DATABASE, engine.database_id())?;
            }
            None => return Err(Error::AuthNotCopied { file: self.database.file.clone(), shown }),
        }
        let node = self.identify(node_name)?;
        self.cluster = Some(Box::pin(ClusterStore::join(engine.clone(), node)).await?);
        self.auth = AuthStore::in_database(engine);
        Ok(self)
    }

    /// Starts without the database, which is away, if it has the logins of this state folder already:
    /// it is joined as soon as [`Joining::attempt`] succeeds, and cannot be asked before. Returns
    /// `None` if this state folder has not seen the database yet, so that nothing is known of it.
    ///
    /// # Errors
    /// The state folder cannot be read.
    pub fn await_auth(
        mut self,
        address: PostgresAddress,
        node_name: &str,
    ) -> Result<Option<(Self, Joining)>, Error> {
        let Some(id) = self.load_mark(AUTH_DATABASE)?.and_then(|id| id.try_into().ok()) else {
            return Ok(None);
        };
        let node = self.identify(node_name)?;
        let keyring = || Arc::clone(&self.keyring);
        let engine = PostgresEngine::await_database(address.clone(), keyring(), node.id, id);
        let cluster = ClusterStore::await_database(engine.clone(), node);
        let probe = DatabaseProbe::new(address, keyring());
        let joining = Joining::new(probe, cluster.clone(), self.database.file.clone());
        self.cluster = Some(cluster);
        self.auth = AuthStore::in_database(engine);
        Ok(Some((self, joining)))
    }

    /// Copies the logins and the usage from the file to an empty database, where they are kept from
    /// then on.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database cannot be used or a gateway uses it,
    /// [`Error::AuthTargetNotEmpty`] if it has logins, [`Error::AuthMoved`] if the file's logins are in a database already.
    pub async fn copy_auth_to(&self, address: PostgresAddress) -> Result<AuthCounts, Error> {
        self.verify_auth_in_file()?;
        let shown = address.shown().to_owned();
        let engine = self.open_engine(address).await?;
        Box::pin(refuse_live_nodes(&engine)).await?;
        if !Box::pin(engine.export_rows()).await?.counts().is_empty() {
            return Err(Error::AuthTargetNotEmpty { target: shown });
        }
        Box::pin(usage_copy::to_database(self.local.tables(), &UsageTables::new(&engine))).await?;
        let rows = self.auth_tables.export_rows()?;
        self.verify_rows(&rows)?;
        Box::pin(engine.import_rows(&rows)).await?;
        let (sent, arrived) = (rows.counts(), Box::pin(engine.export_rows()).await?.counts());
        if sent != arrived {
            return Err(Error::CopyIncomplete { target: shown });
        }
        self.save_mark(AUTH_DATABASE, engine.database_id())?;
        Ok(arrived)
    }

    /// Copies the logins and the usage from a database back to the file, where they are kept from
    /// then on.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database cannot be used or a gateway uses it,
    /// [`Error::AuthTargetNotEmpty`] if the file has logins of its own.
    pub async fn copy_auth_from(&self, address: PostgresAddress) -> Result<AuthCounts, Error> {
        let shown = address.shown().to_owned();
        let engine = self.open_engine(address).await?;
        Box::pin(refuse_live_nodes(&engine)).await?;
        match self.load_mark(AUTH_DATABASE)? {
            Some(id) if id == engine.database_id() => {}
            Some(_) => return Err(Error::OtherDatabase { file: self.database.file.clone(), shown }),
            None if self.auth_tables.export_rows()?.counts().is_empty() => {}
            None => {
                let target = self.database.file.display().to_string();
                return Err(Error::AuthTargetNotEmpty { target });
            }
        }
        Box::pin(usage_copy::to_file(&UsageTables::new(&engine), self.local.tables())).await?;
        let rows = Box::pin(engine.export_rows()).await?;
        self.verify_rows(&rows)?;
        let sent = rows.counts();
        self.auth_tables.import_rows(rows)?;
        let arrived = self.auth_tables.export_rows()?.counts();
        if sent != arrived {
            return Err(Error::CopyIncomplete { target: self.database.file.display().to_string() });
        }
        schema::delete_mark(&self.database.connection(), AUTH_DATABASE).map_err(self.database.error())?;
        Ok(arrived)
    }

    /// Checks a database: its schema, and that every sealed value opens. Returns what it holds.
    /// Changes nothing.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database cannot be used, [`Error::CannotUnseal`] if a value of logins
    /// does not open. The report names others.
    pub async fn check_auth(
        &self,
        address: PostgresAddress,
    ) -> Result<(AuthCounts, SharedTablesReport), Error> {
        let keyring = Arc::clone(&self.keyring);
        let engine = Box::pin(PostgresEngine::open_unmodified(address, keyring)).await?;
        let rows = Box::pin(engine.export_rows()).await?;
        self.verify_rows(&rows)?;
        Ok((rows.counts(), Box::pin(check_shared_tables(&engine)).await?))
    }

    async fn open_engine(&self, address: PostgresAddress) -> Result<PostgresEngine, Error> {
        Box::pin(PostgresEngine::open(address, Arc::clone(&self.keyring), self.node_id()?)).await
    }

    fn verify_rows(&self, rows: &AuthRows) -> Result<(), Error> {
        if rows.is_intact(&self.keyring) { Ok(()) } else { Err(Error::CannotUnseal) }
    }

    /// Returns the id of this state folder, which is drawn once.
    fn node_id(&self) -> Result<[u8; 16], Error> {
        if let Some(id) = self.load_mark(NODE)?.and_then(|id| id.try_into().ok()) {
            return Ok(id);
        }
        let id = random::bytes();
        self.save_mark(NODE, &id)?;
        Ok(id)
    }

    /// Returns who this state folder is among the nodes of a database.
    fn identify(&self, name: &str) -> Result<NodeIdentity, Error> {
        let machine_boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let about = fs::metadata(self.folder()).map_err(|cause| Error::File {
            action: "read",
            path: self.folder().to_owned(),
            cause,
        })?;
        Ok(NodeIdentity {
            id: self.node_id()?,
            name: name.to_owned(),
            boot: random::bytes(),
            place: NodeIdentity::digest_place(&machine_boot, about.dev(), about.ino()),
        })
    }

    fn load_mark(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        schema::load_mark(&self.database.connection(), name).map_err(self.database.error())
    }

    fn save_mark(&self, name: &str, value: &[u8]) -> Result<(), Error> {
        schema::save_mark(&self.database.connection(), name, value).map_err(self.database.error())
    }
}
