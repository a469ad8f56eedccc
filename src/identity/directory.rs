//! What a directory publishes: its issuer and its keys (OpenID Connect Discovery 1.0).
//!
//! Looked up when first needed, daily, and when a token has a key that is not known; by one caller at a time, at most once
//! a minute. While Entra cannot be reached, what was seen last counts.

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
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(60);

/// A directory, or all of an audience.
#[derive(Debug)]
pub(super) struct Directory {
    /// Its id, one of its domains, or `organizations` or `common`.
    name: Arc<str>,
    seen: ArcSwapOption<Published>,
    last_look: Mutex<Option<Look>>,
}

/// When somebody looked, and what went wrong then.
#[derive(Debug)]
struct Look {
    at: Instant,
    fault: Option<Error>,
}

/// What was published.
#[derive(Debug)]
pub(super) struct Published {
    /// With `{tenantid}` in it for audiences.
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

    /// What it publishes, at most a day old unless Entra cannot be reached.
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
        // An outage is not asked about anew for each of many who wait; a second is enough to notice that it is over.
        let just_failed =
            last.as_ref().filter(|look| transport.elapsed_since(look.at) < Duration::from_secs(1));
        if let Some(fault) = just_failed.and_then(|look| look.fault.clone()) {
            return Err(fault);
        }
        self.look(transport, &mut last).await
    }

    /// What it publishes now, if that is newer than `seen`; `None` if somebody looked a moment ago.
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
        // A directory's own place: whoever looks, looks for all tenants that have it, and must not wait for one of them.
        let asker = transport.asker(&format!("directory {}", self.name));
        match transport.ask(transport.url(&self.name, path), Request::Get, &asker).await? {
            (StatusCode::OK, body) => Ok(body),
            // Entra's answer for a directory that there is not.
            (StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND, _) => {
                let detail = Some(format!("there is no directory {}", self.name));
                Err(Error::of(&Meaning::DIRECTORY_UNKNOWN, Trace { detail, ..Trace::default() }))
            }
            (status, _) => Err(Error::down(format!("it answered {status}"))),
        }
    }
}
