//! Makes connections for the pool: to whichever host of the address can be written, the last good one
//! first. After a failure the next attempt waits, so that a server that is away or starts is not
//! stormed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::config::{Config, Host, TargetSessionAttrs};
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::PostgresAddress;
use super::error::Error;
use super::inbox::Inbox;
use super::server_history::ServerHistory;
use crate::base::backoff::Backoff;
use crate::base::clock::{Clock, SystemClock};
use crate::base::dns::DnsResolver;
use crate::base::sync::lock_unpoisoned;

/// Its longest pause is a part of the two seconds in which a node hears what others changed.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));
const DEFAULT_PORT: u16 = 5432;
/// How long all hosts together may take, within the pool's own deadline, and one of them at least.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(4500);
const MIN_HOST_TIMEOUT: Duration = Duration::from_secs(1);

/// The manager of the pool.
pub(super) struct Connector {
    address: PostgresAddress,
    clock: Arc<dyn Clock>,
    failures: Mutex<Failures>,
    history: ServerHistory,
    /// The place of the host that was connected to last.
    last_good: AtomicUsize,
}

/// The failures in a row.
#[derive(Default)]
struct Failures {
    count: u32,
    what: String,
    retry_at: Option<Instant>,
}

impl Connector {
    pub(super) fn new(address: PostgresAddress) -> Self {
        Self {
            address,
            clock: SystemClock::shared(),
            failures: Mutex::default(),
            history: ServerHistory::default(),
            last_good: AtomicUsize::new(0),
        }
    }

    pub(super) fn shown(&self) -> &str {
        &self.address.shown
    }

    /// Makes a connection to the first host that can be written; one that hangs keeps no other from
    /// its turn. What the server says by itself goes to `inbox`.
    pub(super) async fn connect(&self, inbox: Option<Arc<Inbox>>) -> Result<Client, Error> {
        let hosts = self.resolve().await?;
        let limit = (CONNECT_TIMEOUT / u32::try_from(hosts.len()).unwrap_or(u32::MAX)).max(MIN_HOST_TIMEOUT);
        let first = self.last_good.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for place in (first..first + hosts.len()).map(|place| place % hosts.len()) {
            let (name, config) = &hosts[place];
            match tokio::time::timeout(limit, self.connect_to(config, inbox.clone())).await {
                Ok(Ok(client)) => {
                    self.last_good.store(place, Ordering::Relaxed);
                    return Ok(client);
                }
                Ok(Err(error)) => failures.push((name, error)),
                Err(_) => failures.push((name, Error::timed_out(&self.address.shown, limit))),
            }
        }
        match failures.len() {
            1 => Err(failures.swap_remove(0).1),
            _ => Err(Error::from_hosts(&self.address.shown, &failures)),
        }
    }

    /// Makes a connection whatever failed before. If it succeeds, nobody else waits any longer.
    pub(super) async fn connect_at_once(&self) -> Result<Client, Error> {
        let outcome = self.connect(None).await;
        if outcome.is_ok() {
            self.observe(&outcome);
        }
        outcome
    }

    async fn connect_to(&self, config: &Config, inbox: Option<Arc<Inbox>>) -> Result<Client, Error> {
        let client = loop {
            match self.open_connection(config, inbox.clone()).await {
                // The host may be there again; whoever waits has a deadline.
                Err(Error::Connect { is_unanswered: true, .. }) => {}
                outcome => break outcome?,
            }
        };
        self.history.verify(&client, &self.address.shown).await?;
        Ok(client)
    }

    async fn open_connection(&self, config: &Config, inbox: Option<Arc<Inbox>>) -> Result<Client, Error> {
        let failed = |cause| Error::from_connect(&self.address.shown, &cause);
        // A connection ends with its client, and what ended it reaches the client's caller.
        match &self.address.tls {
            Some(tls) => {
                let tls = MakeRustlsConnect::new((**tls).clone());
                let (client, connection) = config.connect(tls).await.map_err(failed)?;
                spawn_connection(drive(connection, inbox));
                Ok(client)
            }
            None => {
                let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
                spawn_connection(drive(connection, inbox));
                Ok(client)
            }
        }
    }

    /// Returns a configuration for each host and address, since only `base::dns` looks names up.
    async fn resolve(&self) -> Result<Vec<(String, Config)>, Error> {
        let (hosts, ports) = (self.address.config.get_hosts(), self.address.config.get_ports());
        let mut places = Vec::new();
        let mut failure = None;
        for (place, host) in hosts.iter().enumerate() {
            let port = ports.get(place).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
            let mut config = Config::new();
            copy_login(&self.address.config, &mut config);
            config.port(port);
            match host {
                Host::Unix(folder) => {
                    config.host_path(folder);
                    places.push((folder.display().to_string(), config));
                }
                Host::Tcp(name) => match lookup(name).await {
                    Ok(addresses) => places.extend(addresses.into_iter().map(|ip| {
                        let mut config = config.clone();
                        config.host(name).hostaddr(ip);
                        (format!("{name}:{port}"), config)
                    })),
                    Err(cause) => failure = Some(Error::Lookup { host: name.clone(), cause }),
                },
            }
        }
        match (places.is_empty(), failure) {
            (true, Some(failure)) => Err(failure),
            _ => Ok(places),
        }
    }

    /// Returns the last failure if the next attempt must wait.
    fn check_backoff(&self) -> Result<(), Error> {
        let failures = lock_unpoisoned(&self.failures);
        match failures.retry_at {
            Some(at) if self.clock.monotonic() < at => {
                Err(Error::BackingOff { shown: self.address.shown.clone(), what: failures.what.clone() })
            }
            _ => Ok(()),
        }
    }

    fn observe(&self, outcome: &Result<Client, Error>) {
        let mut failures = lock_unpoisoned(&self.failures);
        match outcome {
            Ok(_) => *failures = Failures::default(),
            Err(error) => {
                let pause = BACKOFF.pause_after(failures.count);
                failures.count = failures.count.saturating_add(1);
                failures.what = error.to_string();
                failures.retry_at = Some(self.clock.monotonic() + pause);
            }
        }
    }
}

impl Manager for Connector {
    type Type = Client;
    type Error = Error;

    async fn create(&self) -> Result<Client, Error> {
        self.check_backoff()?;
        let outcome = self.connect(None).await;
        self.observe(&outcome);
        outcome
    }

    async fn recycle(&self, client: &mut Client, _: &Metrics) -> RecycleResult<Error> {
        match client.is_closed() {
            true => Err(RecycleError::message("the connection ended")),
            false => Ok(()),
        }
    }
}

async fn lookup(name: &str) -> Result<Vec<std::net::IpAddr>, crate::base::dns::LookupError> {
    match name.trim_matches(['[', ']']).parse() {
        Ok(ip) => Ok(vec![ip]),
        Err(_) => DnsResolver::global().lookup(name).await.map(|found| found.to_vec()),
    }
}

/// Copies everything but the hosts.
fn copy_login(from: &Config, to: &mut Config) {
    if let Some(user) = from.get_user() {
        to.user(user);
    }
    if let Some(password) = from.get_password() {
        to.password(password);
    }
    if let Some(database) = from.get_dbname() {
        to.dbname(database);
    }
    if let Some(options) = from.get_options() {
        to.options(options);
    }
    if let Some(name) = from.get_application_name() {
        to.application_name(name);
    }
    if let Some(timeout) = from.get_connect_timeout() {
        to.connect_timeout(*timeout);
    }
    if let Some(interval) = from.get_keepalives_interval() {
        to.keepalives_interval(interval);
    }
    if let Some(timeout) = from.get_tcp_user_timeout() {
        to.tcp_user_timeout(*timeout);
    }
    to.ssl_mode(from.get_ssl_mode())
        .ssl_negotiation(from.get_ssl_negotiation())
        .keepalives(from.get_keepalives())
        .keepalives_idle(from.get_keepalives_idle())
        // Every connection must be able to write; `ServerHistory` asks.
        .target_session_attrs(TargetSessionAttrs::Any)
        .channel_binding(from.get_channel_binding())
        .load_balance_hosts(from.get_load_balance_hosts());
}

/// Does a connection's work until it ends.
async fn drive<S, T>(mut connection: Connection<S, T>, inbox: Option<Arc<Inbox>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let _closing = inbox.as_ref().map(|inbox| inbox.closed().clone().drop_guard());
    while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
        if let (AsyncMessage::Notification(notification), Some(inbox)) = (message, &inbox) {
            inbox.receive(notification.channel());
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the connection's client owns it: it ends with the client")]
fn spawn_connection(connection: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(connection));
}
