//! Follows the labelled Secrets of a namespace: a complete list, then each change.
//!
//! After a fault everything is listed again. That costs one request, and whatever was missed is in
//! the list.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};
use tokio_util::sync::CancellationToken;

use super::copies::{CopyError, SecretCopies, SecretFiles};
use crate::base::backoff::Backoff;
use crate::telemetry::metrics::Metrics;

/// Which Secrets are tenants.
const LABEL: &str = "tenantd.io/tenant=true";
/// How many Secrets a page of the list has: each may have 1 MiB.
const PAGE_SIZE: u32 = 50;
/// When a watch is asked for anew, in seconds; a dead connection is found soon after that.
const WATCH_SECONDS: u32 = 60;
/// The pauses after faults.
const PAUSES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));

/// Keeps the copies as the Secrets are.
pub(super) struct SecretFollower {
    pub(super) secrets: Api<Secret>,
    pub(super) namespace: String,
    pub(super) copies: Arc<SecretCopies>,
    pub(super) metrics: Arc<Metrics>,
    /// Fires after the first complete list.
    pub(super) filled: CancellationToken,
}

/// Why the Secrets must be listed again.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Api(#[from] Box<watcher::Error>),
    #[error("a copy of a Secret cannot be written or removed: {0}")]
    Copy(std::io::Error),
}

/// How far the following is since the last fault.
#[derive(Debug, Default)]
struct Progress {
    /// The names in the list that is being read; `None` outside of one.
    listed: Option<BTreeSet<String>>,
    /// Whether a list was complete.
    is_listed: bool,
}

impl SecretFollower {
    /// Follows the Secrets until it is dropped.
    pub(super) async fn follow(self) -> Infallible {
        let mut faults = 0;
        loop {
            let config = watcher::Config::default().labels(LABEL).page_size(PAGE_SIZE).timeout(WATCH_SECONDS);
            let events = watcher::watcher(self.secrets.clone(), config);
            let mut progress = Progress::default();
            let fault = self.take_events(events, &mut progress).await;
            faults = if progress.is_listed { 0 } else { faults };
            self.metrics.set_kubernetes_state(&self.namespace, false);
            self.report(&fault);
            tokio::time::sleep(PAUSES.pause_after(faults)).await;
            faults += 1;
        }
    }

    /// Takes events until one of them is a fault.
    async fn take_events(
        &self,
        events: impl Stream<Item = watcher::Result<Event<Secret>>>,
        progress: &mut Progress,
    ) -> Fault {
        let mut events = pin!(events);
        while let Some(event) = events.next().await {
            let taken = match event {
                Ok(event) => self.take(event, progress).await,
                Err(error) => Err(Fault::Api(Box::new(error))),
            };
            if let Err(fault) = taken {
                return fault;
            }
        }
        unreachable!("a watcher's stream has no end")
    }

    async fn take(&self, event: Event<Secret>, progress: &mut Progress) -> Result<(), Fault> {
        match event {
            Event::Init => progress.listed = Some(BTreeSet::new()),
            Event::InitApply(secret) => {
                progress.listed.get_or_insert_default().insert(secret.name_any());
                self.copy(secret).await?;
            }
            Event::InitDone => {
                let listed = progress.listed.take().unwrap_or_default();
                self.finish_list(listed).await?;
                progress.is_listed = true;
            }
            Event::Apply(secret) => self.copy(secret).await?,
            Event::Delete(secret) => {
                let name = secret.name_any();
                self.on_disk(move |copies| copies.remove(&name)).await.map_err(Fault::Copy)?;
            }
        }
        Ok(())
    }

    /// Removes the copies of what a complete list does not have.
    async fn finish_list(&self, listed: BTreeSet<String>) -> Result<(), Fault> {
        let secrets = listed.len();
        let remove_others = move |copies: &SecretCopies| {
            let mut gone = copies.names()?.into_iter().filter(|name| !listed.contains(name));
            gone.try_for_each(|name| copies.remove(&name))
        };
        self.on_disk(remove_others).await.map_err(Fault::Copy)?;
        tracing::info!(namespace = %self.namespace, secrets, "the tenants' Secrets were read");
        self.metrics.set_kubernetes_state(&self.namespace, true);
        self.filled.cancel();
        Ok(())
    }

    /// Copies a Secret. One that cannot be a tenant is logged and left out; it keeps no other away.
    async fn copy(&self, mut secret: Secret) -> Result<(), Fault> {
        let name = secret.name_any();
        let data = secret.data.take().unwrap_or_default();
        let files: SecretFiles = data.into_iter().map(|(key, bytes)| (key, bytes.0)).collect();
        let copied = name.clone();
        match self.on_disk(move |copies| copies.put(&copied, &files)).await {
            Ok(_) => Ok(()),
            Err(CopyError::Io(error)) => Err(Fault::Copy(error)),
            Err(error) => {
                tracing::warn!(secret = name, namespace = %self.namespace, "this Secret is no tenant: {error}");
                Ok(())
            }
        }
    }

    async fn on_disk<T: Send + 'static>(&self, work: impl FnOnce(&SecretCopies) -> T + Send + 'static) -> T {
        let copies = Arc::clone(&self.copies);
        let working = tokio::task::spawn_blocking(move || work(&copies));
        working.await.expect("copying does not panic")
    }

    fn report(&self, fault: &Fault) {
        let namespace = &self.namespace;
        match fault {
            Fault::Api(error) => match find_refusal(error) {
                Some(403) => tracing::warn!(
                    %namespace,
                    "the service account may not read Secrets: {error}. Grant it the verbs list and watch for secrets in \
                     this namespace (a Role and a RoleBinding); tenants go on as they are"
                ),
                Some(410) => tracing::info!(%namespace, "the Secrets are listed again: {error}"),
                _ => tracing::warn!(
                    %namespace,
                    "the API of Kubernetes does not answer as it should; tenants go on as they are: {error}"
                ),
            },
            Fault::Copy(_) => tracing::warn!(%namespace, "{fault}; tenants go on as they are"),
        }
    }
}

/// Returns the status code with which the API refused a request.
fn find_refusal(error: &watcher::Error) -> Option<u16> {
    use kube::Error::Api;
    use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(Api(status)) | WatchStartFailed(Api(status)) | WatchFailed(Api(status)) => {
            Some(status.code)
        }
        WatchError(status) => Some(status.code),
        _ => None,
    }
}
