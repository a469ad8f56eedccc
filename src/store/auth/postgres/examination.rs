//! What `tenantd doctor` asks a database. Nothing is created or changed.

use jiff::SignedDuration;

use super::address::PostgresAddress;
use super::error::Error;
use super::link::Link;
use super::{listener, schema};
use crate::base::clock::{Clock, SystemClock};

/// A database that the gateway can use, and what is worth knowing of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseExamination {
    /// The version of the server.
    pub server_version: String,
    /// Whether the connection is encrypted.
    pub is_encrypted: bool,
    /// The version of the schema; 0 if there is none yet.
    pub schema: i64,
    /// The version that this program writes.
    pub known_schema: i64,
    /// How far the server's clock is ahead of this machine's.
    pub clock_difference: SignedDuration,
    /// Replicas that follow the server.
    pub replicas: i64,
    /// Whether the server acknowledges what a replica has, too.
    pub waits_for_replica: bool,
    /// How many more clients the server takes.
    pub free_connections: i64,
    /// Whether changes are heard at once; they are asked for every second otherwise.
    pub hears_changes: bool,
}

impl PostgresAddress {
    /// Examines the database as the gateway finds it at its start.
    ///
    /// # Errors
    /// Why the gateway could not use it.
    pub async fn examine(self) -> Result<DatabaseExamination, Error> {
        const ASK: &str = "
            SELECT current_setting('server_version'), (extract(epoch FROM clock_timestamp()) * 1e6)::bigint,
                (SELECT count(*) FROM pg_stat_replication), current_setting('synchronous_standby_names') <> '',
                current_setting('max_connections')::bigint
                    - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
                has_database_privilege(current_database(), 'CREATE')";
        let is_encrypted = self.tls.is_some();
        let link = Link::new(self);
        let schema = schema::examine(&link).await?;
        let clock = SystemClock;
        let before = clock.now();
        let rows = link.query(ASK, &[]).await?;
        let ours = before + clock.now().duration_since(before) / 2;
        let read = |row: &tokio_postgres::Row| {
            let theirs = SignedDuration::from_micros(row.try_get(1)?);
            let may_create: bool = row.try_get(5)?;
            let examination = DatabaseExamination {
                server_version: row.try_get(0)?,
                is_encrypted,
                schema,
                known_schema: schema::CURRENT_VERSION,
                clock_difference: theirs - SignedDuration::from_micros(ours.as_microsecond()),
                replicas: row.try_get(2)?,
                waits_for_replica: row.try_get(3)?,
                free_connections: row.try_get(4)?,
                hears_changes: false,
            };
            Ok((examination, may_create))
        };
        let found = link.read_rows(&rows, read)?.into_iter().next();
        let (mut examination, may_create) = found.expect("the statement yields one row");
        if schema == 0 && !may_create {
            let what = "it cannot create the schema tenantd".to_owned();
            return Err(Error::NoRights { shown: link.shown().to_owned(), what });
        }
        examination.hears_changes = listener::listen(&link).await?.is_some();
        Ok(examination)
    }
}
