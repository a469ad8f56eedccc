//! Makes connections for the pool. After a failure the next attempt waits, so that a server that is
//! away or starts is not stormed.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::config::{Config, Host};
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::PostgresAddress;
use super::error::Error;
use super::listener::Inbox;
use crate::base::backoff::Backoff;
use crate::base::clock::{Clock, SystemClock};
use crate::base::dns::DnsResolver;
use crate::base::sync::lock_unpoisoned;

const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
const DEFAULT_PORT: u16 = 5432;

/// The manager of the pool.
pub(super) struct Connector {
    address: PostgresAddress,
    clock: Arc<dyn Clock>,
    failures: Mutex<Failures>,
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
        Self { address, clock: SystemClock::shared(), failures: Mutex::default() }
    }

    pub(super) fn shown(&self) -> &str {
        &self.address.shown
    }

    /// Makes a connection. What the server says by itself goes to `inbox`.
    pub(super) async fn connect(&self, inbox: Option<Arc<Inbox>>) -> Result<Client, Error> {
        let config = self.resolve().await?;
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

    /// Returns the configuration with the addresses of its hosts, since only `base::dns` looks names
    /// up.
    async fn resolve(&self) -> Result<Config, Error> {
        let mut config = self.address.config.clone();
        let (hosts, ports) = (config.get_hosts().to_vec(), config.get_ports().to_vec());
        if hosts.iter().any(|host| matches!(host, Host::Unix(_))) {
            return Ok(config);
        }
        let mut places = Vec::new();
        let mut failure = None;
        for (place, host) in hosts.iter().enumerate() {
            let Host::Tcp(name) = host else { continue };
            let port = ports.get(place).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
            match lookup(name).await {
                Ok(addresses) => places.extend(addresses.iter().map(|ip| (name.clone(), *ip, port))),
                Err(cause) => failure = Some(Error::Lookup { host: name.clone(), cause }),
            }
        }
        if let (true, Some(failure)) = (places.is_empty(), failure) {
            return Err(failure);
        }
        let options = self.address.config.clone();
        config = Config::new();
        copy_login(&options, &mut config);
        for (name, ip, port) in places {
            config.host(name).hostaddr(ip).port(port);
        }
        Ok(config)
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
    if let Some(timeout) = from.get_tcp_user_timeout() {
        to.tcp_user_timeout(*timeout);
    }
    to.ssl_mode(from.get_ssl_mode())
        .ssl_negotiation(from.get_ssl_negotiation())
        .keepalives(from.get_keepalives())
        .keepalives_idle(from.get_keepalives_idle())
        .target_session_attrs(from.get_target_session_attrs())
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
