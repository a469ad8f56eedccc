//! The pool of connections, and how a statement is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use deadpool::Runtime;
use deadpool::managed::{Object, Pool, PoolError, QueueMode};
use tokio_postgres::{Client, Row};

use super::address::PostgresAddress;
use super::connection_health::ConnectionHealth;
use super::connector::Connector;
use super::error::Error;
use super::value::Value;
use crate::base::clock::{Clock, SystemClock};
use crate::base::error_chain::format_chain;

/// A node has ten of the server's connections: these, the one that hears notifications, and the one
/// on which it asks what others changed.
const MAX_CONNECTIONS: usize = 8;
/// How long a statement may take, and how long it may wait for a connection.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a statement may take that reads what others changed, until a new connection is asked.
const PROMPT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long it may take to ask about a statement that did not answer in time.
const RECHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a statement is sent again: several connections may have broken at once.
const RESENDS: u32 = 2;

/// The connections to one database.
pub(in crate::store) struct Link {
    pool: Pool<Connector>,
    /// What the task that follows other nodes uses. It does not wait behind logins.
    follower: tokio::sync::Mutex<Follower>,
    health: Arc<ConnectionHealth>,
    /// Whether statements may be sent. The database that this gateway used before may be another one
    /// now, or of another version, so nothing is asked of it before that is known.
    is_open: AtomicBool,
}

/// The connection that asks what other nodes changed.
struct Follower {
    /// None while somebody uses it, and after a failure.
    client: Option<Client>,
    /// How long an answer may take. It is longer after slow answers, so that a server or machine that
    /// is busy is not kept busy with new connections.
    patience: Duration,
}

impl Link {
    pub(super) fn new(address: PostgresAddress) -> Self {
        let health = ConnectionHealth::new(address.shown.clone());
        Self::with_health(address, health, true)
    }

    /// Creates a link that sends nothing until it is opened.
    pub(super) fn closed(address: PostgresAddress) -> Self {
        let health = ConnectionHealth::away(address.shown.clone());
        Self::with_health(address, health, false)
    }

    fn with_health(address: PostgresAddress, health: ConnectionHealth, is_open: bool) -> Self {
        let pool = Pool::builder(Connector::new(address))
            .max_size(MAX_CONNECTIONS)
            .queue_mode(QueueMode::Lifo)
            .wait_timeout(Some(STATEMENT_TIMEOUT))
            .create_timeout(Some(STATEMENT_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .build()
            .expect("the pool has a runtime for its timeouts");
        let (health, is_open) = (Arc::new(health), AtomicBool::new(is_open));
        let follower = Follower { client: None, patience: PROMPT_TIMEOUT };
        Self { pool, follower: tokio::sync::Mutex::new(follower), health, is_open }
    }

    /// Lets statements through from now on.
    pub(in crate::store) fn open(&self) {
        self.is_open.store(true, Ordering::Release);
    }

    fn verify_open(&self) -> Result<(), Error> {
        match self.is_open() {
            true => Ok(()),
            false => Err(Error::NotJoined { shown: self.shown().to_owned() }),
        }
    }

    /// Returns whether statements are sent.
    pub(in crate::store) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    pub(in crate::store) fn shown(&self) -> &str {
        self.pool.manager().shown()
    }

    /// Returns what makes connections.
    pub(super) fn connector(&self) -> &Connector {
        self.pool.manager()
    }

    pub(super) fn health(&self) -> &Arc<ConnectionHealth> {
        &self.health
    }

    /// Sends a statement, and again if its connection breaks. For reads, and for writes that do
    /// nothing the second time.
    pub(in crate::store) async fn query(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, Error> {
        let mut outcome = self.send(sql, values, STATEMENT_TIMEOUT).await;
        let mut lost = None;
        for _ in 0..RESENDS {
            match outcome {
                Err(error) if error.is_of_connection() => {
                    lost = lost.or(error.leaves_doubt().then_some(error));
                    outcome = self.send(sql, values, STATEMENT_TIMEOUT).await;
                }
                _ => break,
            }
        }
        // What was sent first may have happened, whatever became of the rest.
        let outcome = outcome.map_err(|error| lost.unwrap_or(error));
        self.health.observe(&outcome);
        outcome
    }

    /// Sends a statement that reads and that others wait for. A connection that is silent for a second
    /// is given up, and a new one is asked: an answer that was lost on its way, as when a network was
    /// cut, comes late or never.
    async fn query_promptly(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, Error> {
        match self.send(sql, values, PROMPT_TIMEOUT).await {
            Err(error) if error.spoils_connection() => self.query(sql, values).await,
            outcome => {
                self.health.observe(&outcome);
                outcome
            }
        }
    }

    /// The same for what other nodes changed, on a connection of its own.
    async fn query_as_follower(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, Error> {
        self.verify_open()?;
        let mut follower = self.follower.lock().await;
        // Whoever stops waiting takes the connection along, and what is on its way with it.
        if let Some(client) = follower.client.take().filter(|client| !client.is_closed()) {
            let asked_at = SystemClock.monotonic();
            match self.send_on(&client, sql, values, follower.patience).await {
                // Others may wait for their answers with reason.
                Err(Error::TimedOut { .. }) => {}
                Err(error) if error.spoils_connection() => self.forget_connections_before(asked_at),
                outcome => {
                    if SystemClock.monotonic() < asked_at + PROMPT_TIMEOUT {
                        follower.patience = PROMPT_TIMEOUT;
                    }
                    follower.client = Some(client);
                    return outcome;
                }
            }
        }
        // This is tried every second, so it need not wait for a pause that others make.
        let client = self.connector().connect_at_once().await?;
        let asked_at = SystemClock.monotonic();
        let outcome = self.send_on(&client, sql, values, STATEMENT_TIMEOUT).await;
        self.health.observe(&outcome);
        if !outcome.as_ref().is_err_and(Error::spoils_connection) {
            follower.client = Some(client);
        }
        if SystemClock.monotonic() > asked_at + PROMPT_TIMEOUT / 4 {
            follower.patience = (follower.patience * 2).min(STATEMENT_TIMEOUT);
        }
        outcome
    }

    /// Sends a statement once.
    pub(in crate::store) async fn query_once(
        &self,
        sql: &str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, Error> {
        let outcome = self.send(sql, values, STATEMENT_TIMEOUT).await;
        self.health.observe(&outcome);
        outcome
    }

    /// Asks what became of a statement that did not answer; somebody waits already.
    pub(super) async fn recheck(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, Error> {
        let asked = tokio::time::timeout(RECHECK_TIMEOUT, self.query(sql, values)).await;
        asked.unwrap_or_else(|_| Err(self.timed_out()))
    }

    async fn send(&self, sql: &str, values: &[Value<'_>], limit: Duration) -> Result<Vec<Row>, Error> {
        let client = self.connection().await?;
        let sent_at = SystemClock.monotonic();
        let outcome = self.send_on(&client, sql, values, limit).await;
        if outcome.as_ref().is_err_and(Error::spoils_connection) {
            drop(Object::take(client));
            // Whoever is less patient says less about the others.
            if limit == STATEMENT_TIMEOUT || !matches!(outcome, Err(Error::TimedOut { .. })) {
                self.forget_connections_before(sent_at);
            }
        }
        outcome
    }

    async fn send_on(
        &self,
        client: &Client,
        sql: &str,
        values: &[Value<'_>],
        limit: Duration,
    ) -> Result<Vec<Row>, Error> {
        let typed: Vec<_> = values.iter().map(Value::typed).collect();
        match tokio::time::timeout(limit, client.query_typed(sql, &typed)).await {
            Ok(answer) => answer.map_err(|cause| Error::from_statement(self.shown(), &cause)),
            Err(_) => Err(Error::timed_out(self.shown(), limit)),
        }
    }

    /// Forgets connections that were there at a moment at which one was spoiled: what happened to that
    /// one happened to the others, too, or they lead where it led.
    fn forget_connections_before(&self, spoiled_at: Instant) {
        self.pool.retain(|_, metrics| metrics.created > spoiled_at);
    }

    /// Returns a connection, for transactions of several statements.
    pub(super) async fn connection(&self) -> Result<Object<Connector>, Error> {
        self.verify_open()?;
        self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            _ => self.timed_out(),
        })
    }

    fn timed_out(&self) -> Error {
        Error::timed_out(self.shown(), STATEMENT_TIMEOUT)
    }
}

/// Why a row cannot be read: a column has another type, or another length.
pub(in crate::store) type ReadError = Box<dyn std::error::Error + Send + Sync>;

impl Link {
    /// Sends a statement that reads, and returns its rows.
    pub(in crate::store) async fn query_rows<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        read: impl Fn(&Row) -> Result<T, ReadError>,
    ) -> Result<Vec<T>, Error> {
        let rows = self.query(sql, values).await?;
        self.read_rows(&rows, read)
    }

    /// Sends a statement that reads and that others wait for, and returns its rows.
    pub(in crate::store) async fn query_rows_promptly<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        read: impl Fn(&Row) -> Result<T, ReadError>,
    ) -> Result<Vec<T>, Error> {
        let rows = self.query_promptly(sql, values).await?;
        self.read_rows(&rows, read)
    }

    /// Sends a statement that reads what other nodes changed, and returns its rows.
    pub(in crate::store) async fn query_rows_as_follower<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        read: impl Fn(&Row) -> Result<T, ReadError>,
    ) -> Result<Vec<T>, Error> {
        let rows = self.query_as_follower(sql, values).await?;
        self.read_rows(&rows, read)
    }

    pub(in crate::store) fn read_rows<T>(
        &self,
        rows: &[Row],
        read: impl Fn(&Row) -> Result<T, ReadError>,
    ) -> Result<Vec<T>, Error> {
        rows.iter().map(read).collect::<Result<_, _>>().map_err(|cause| self.unreadable(&*cause))
    }

    /// Returns the error for a row that is not as this program writes it.
    pub(in crate::store) fn unreadable(&self, cause: &(dyn std::error::Error + 'static)) -> Error {
        Error::Refused { shown: self.shown().to_owned(), what: format_chain(cause) }
    }
}
