//! A connection of its own that hears of changes as soon as they are made. Behind a pooler that
//! gives each transaction another connection, nothing is ever heard; whoever listens polls too.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;

use super::PostgresEngine;
use super::error::Error;
use super::inbox::Inbox;
use super::link::Link;
use super::value::Value;

/// The channel of `tenantd.record_changes`.
const CHANGES: &str = "tenantd";
/// How long a notification may take to show that notifications arrive.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that hears of changes. It ends when this is dropped.
pub(in crate::store) struct Listener {
    inbox: Arc<Inbox>,
    _client: Client,
}

impl PostgresEngine {
    /// Listens for changes; `None` if notifications do not arrive, as behind a pooler in
    /// transaction mode.
    pub(in crate::store) async fn listen(&self) -> Result<Option<Listener>, Error> {
        listen(&self.link).await
    }
}

/// Does the same for whoever has a database's connections only.
pub(super) async fn listen(link: &Link) -> Result<Option<Listener>, Error> {
    const TRY: &str = "SELECT pg_notify($1, '')";
    let inbox = Arc::new(Inbox::new());
    let client = link.connector().connect(Some(Arc::clone(&inbox))).await?;
    let listen = format!("LISTEN {CHANGES}; LISTEN {}", inbox.trial_channel);
    let failed = |cause| Error::from_statement(link.shown(), &cause);
    client.batch_execute(&listen).await.map_err(failed)?;
    link.query(TRY, &[Value::Text(&inbox.trial_channel)]).await?;
    let is_heard = tokio::time::timeout(TRIAL_TIMEOUT, inbox.trial.notified()).await.is_ok();
    Ok(is_heard.then_some(Listener { inbox, _client: client }))
}

impl Listener {
    /// Waits for a change. Returns `false` if the connection has ended.
    pub(in crate::store) async fn notified(&self) -> bool {
        tokio::select! {
            () = self.inbox.changes.notified() => true,
            () = self.inbox.closed().cancelled() => false,
        }
    }
}
