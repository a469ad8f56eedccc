//! The metadata that a directory publishes: its issuer and its keys (OpenID Connect Discovery 1.0).
//!
//! It is fetched when first needed, once a day, and when a token names an unknown key: by one
//! caller at a time, and at most once a minute. While Entra is unreachable, the last metadata stays
//! in use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use http::StatusCode;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::aadsts::Meaning;
use super::error::{Error, Trace};
use super::keys::Keys;
use super::transport::{Request, Transport};

const FRESH: Duration = Duration::from_secs(24 * 3600);
/// The minimum time between two fetches.
const PAUSE: Duration = Duration::from_secs(60);

/// A directory, or all directories of an audience.
#[derive(Debug)]
pub(super) struct Directory {
    /// The directory's id, one of its domains, or `organizations` or `common`.
    name: Arc<str>,
    seen: ArcSwapOption<Published>,
    last_look: Mutex<Option<Look>>,
}

/// The time of the last fetch, and its error if it failed.
#[derive(Debug)]
struct Look {
    at: Instant,
    fault: Option<Error>,
}

/// The published metadata.
#[derive(Debug)]
pub(super) struct Published {
    /// Contains `{tenantid}` if the metadata is that of an audience.
    pub(super) issuer: String,
    pub(super) keys: Keys,
    at: Instant,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
}

impl Directory {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name, seen: ArcSwapOption::empty(), last_look: Mutex::new(None) }
    }

    /// Returns the published metadata, at most a day old unless Entra is unreachable.
    pub(super) async fn published(&self, transport: &Transport) -> Result<Arc<Published>, Error> {
        let seen = self.seen.load_full();
        match seen {
            Some(seen) if transport.elapsed_since(seen.at) < FRESH => Ok(seen),
            Some(seen) => Ok(self.newer(transport, &seen).await.ok().flatten().unwrap_or(seen)),
            None => self.first(transport).await,
        }
    }

    async fn first(&self, transport: &Transport) -> Result<Arc<Published>, Error> {
        let mut last = self.last_look.lock().await;
        if let Some(seen) = self.seen.load_full() {
            return Ok(seen);
        }
        // Many callers may wait here during an outage. They share one failure for a second, which
        // is short enough to notice the end of the outage.
        let just_failed =
            last.as_ref().filter(|look| transport.elapsed_since(look.at) < Duration::from_secs(1));
        if let Some(fault) = just_failed.and_then(|look| look.fault.clone()) {
            return Err(fault);
        }
        self.look(transport, &mut last).await
    }

    /// Returns the metadata if it is newer than `seen`; `None` if the last fetch was less than a
    /// minute ago.
    pub(super) async fn newer(
        &self,
        transport: &Transport,
        seen: &Arc<Published>,
    ) -> Result<Option<Arc<Published>>, Error> {
        let mut last = self.last_look.lock().await;
        let current = self.seen.load_full().filter(|current| !Arc::ptr_eq(current, seen));
        if current.is_some() {
            return Ok(current);
        }
        match last.as_ref() {
            Some(look) if transport.elapsed_since(look.at) < PAUSE => Ok(None),
            _ => self.look(transport, &mut last).await.map(Some),
        }
    }

    async fn look(&self, transport: &Transport, last: &mut Option<Look>) -> Result<Arc<Published>, Error> {
        let found = self.fetch(transport).await;
        *last = Some(Look { at: transport.clock.monotonic(), fault: found.as_ref().err().cloned() });
        let found = Arc::new(found.inspect_err(|error| {
            tracing::warn!(directory = %self.name, %error, "what the directory publishes cannot be read");
        })?);
        self.seen.store(Some(Arc::clone(&found)));
        Ok(found)
    }

    async fn fetch(&self, transport: &Transport) -> Result<Published, Error> {
        let at = transport.clock.monotonic();
        let metadata = self.get(transport, "v2.0/.well-known/openid-configuration").await?;
        let metadata: Metadata =
            serde_json::from_slice(&metadata).map_err(|_| Error::down("its metadata cannot be read"))?;
        let keys = self.get(transport, "discovery/v2.0/keys").await?;
        let keys = Keys::parse(&keys).ok_or_else(|| Error::down("its keys cannot be read"))?;
        Ok(Published { issuer: metadata.issuer, keys, at })
    }

    async fn get(&self, transport: &Transport, path: &str) -> Result<bytes::Bytes, Error> {
        // The directory is an asker of its own: a fetch serves every tenant that uses the
        // directory, so it must not wait for the share of a single tenant.
        let asker = transport.asker(&format!("directory {}", self.name));
        match transport.ask(transport.url(&self.name, path), Request::Get, &asker).await? {
            (StatusCode::OK, body) => Ok(body),
            // Entra's response for a directory that does not exist.
            (StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND, _) => {
                let detail = Some(format!("there is no directory {}", self.name));
                Err(Error::of(&Meaning::DIRECTORY_UNKNOWN, Trace { detail, ..Trace::default() }))
            }
            (status, _) => Err(Error::down(format!("it answered {status}"))),
        }
    }
}
