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

use super::aadsts::ErrorMeaning;
use super::error::{Error, ProviderTrace};
use super::jwks::ProviderKeys;
use super::transport::{EntraRequest, EntraTransport};

const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// The minimum time between two fetches.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(60);

/// A directory, or all directories of an audience.
#[derive(Debug)]
pub(super) struct EntraDirectory {
    /// The directory's id, one of its domains, or `organizations` or `common`.
    name: Arc<str>,
    cached: ArcSwapOption<DirectoryMetadata>,
    last_attempt: Mutex<Option<FetchAttempt>>,
}

/// The time of the last fetch, and its error if it failed.
#[derive(Debug)]
struct FetchAttempt {
    at: Instant,
    error: Option<Error>,
}

/// The published metadata.
#[derive(Debug)]
pub(super) struct DirectoryMetadata {
    /// Contains `{tenantid}` if the metadata is that of an audience.
    pub(super) issuer: String,
    pub(super) keys: ProviderKeys,
    fetched_at: Instant,
}

#[derive(Deserialize)]
struct OpenIdConfiguration {
    issuer: String,
}

impl EntraDirectory {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name, cached: ArcSwapOption::empty(), last_attempt: Mutex::new(None) }
    }

    /// Returns the published metadata, at most a day old unless Entra is unreachable.
    pub(super) async fn metadata(&self, transport: &EntraTransport) -> Result<Arc<DirectoryMetadata>, Error> {
        let seen = self.cached.load_full();
        match seen {
            Some(seen) if transport.elapsed_since(seen.fetched_at) < MAX_AGE => Ok(seen),
            Some(seen) => Ok(self.refresh(transport, &seen).await.ok().flatten().unwrap_or(seen)),
            None => self.fetch_first(transport).await,
        }
    }

    async fn fetch_first(&self, transport: &EntraTransport) -> Result<Arc<DirectoryMetadata>, Error> {
        let mut last = self.last_attempt.lock().await;
        if let Some(seen) = self.cached.load_full() {
            return Ok(seen);
        }
        // Many callers may wait here during an outage. They share one failure for a second, which
        // is short enough to notice the end of the outage.
        let just_failed =
            last.as_ref().filter(|look| transport.elapsed_since(look.at) < Duration::from_secs(1));
        if let Some(fault) = just_failed.and_then(|look| look.error.clone()) {
            return Err(fault);
        }
        self.fetch_and_cache(transport, &mut last).await
    }

    /// Returns the metadata if it is newer than `seen`; `None` if the last fetch was less than a
    /// minute ago.
    pub(super) async fn refresh(
        &self,
        transport: &EntraTransport,
        seen: &Arc<DirectoryMetadata>,
    ) -> Result<Option<Arc<DirectoryMetadata>>, Error> {
        let mut last = self.last_attempt.lock().await;
        let current = self.cached.load_full().filter(|current| !Arc::ptr_eq(current, seen));
        if current.is_some() {
            return Ok(current);
        }
        match last.as_ref() {
            Some(look) if transport.elapsed_since(look.at) < MIN_REFRESH_INTERVAL => Ok(None),
            _ => self.fetch_and_cache(transport, &mut last).await.map(Some),
        }
    }

    async fn fetch_and_cache(
        &self,
        transport: &EntraTransport,
        last: &mut Option<FetchAttempt>,
    ) -> Result<Arc<DirectoryMetadata>, Error> {
        let found = self.fetch(transport).await;
        *last = Some(FetchAttempt { at: transport.clock.monotonic(), error: found.as_ref().err().cloned() });
        let found = Arc::new(found.inspect_err(|error| {
            tracing::warn!(directory = %self.name, %error, "what the directory publishes cannot be read");
        })?);
        self.cached.store(Some(Arc::clone(&found)));
        Ok(found)
    }

    async fn fetch(&self, transport: &EntraTransport) -> Result<DirectoryMetadata, Error> {
        let at = transport.clock.monotonic();
        let metadata = self.fetch_document(transport, "v2.0/.well-known/openid-configuration").await?;
        let metadata: OpenIdConfiguration = serde_json::from_slice(&metadata)
            .map_err(|_| Error::provider_down("its metadata cannot be read"))?;
        let keys = self.fetch_document(transport, "discovery/v2.0/keys").await?;
        let keys =
            ProviderKeys::parse(&keys).ok_or_else(|| Error::provider_down("its keys cannot be read"))?;
        Ok(DirectoryMetadata { issuer: metadata.issuer, keys, fetched_at: at })
    }

    async fn fetch_document(&self, transport: &EntraTransport, path: &str) -> Result<bytes::Bytes, Error> {
        // The directory is an asker of its own: a fetch serves every tenant that uses the
        // directory, so it must not wait for the share of a single tenant.
        let asker = transport.share_for(&format!("directory {}", self.name));
        match transport.send(transport.url(&self.name, path), EntraRequest::Get, &asker).await? {
            (StatusCode::OK, body) => Ok(body),
            // Entra's response for a directory that does not exist.
            (StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND, _) => {
                let detail = Some(format!("there is no directory {}", self.name));
                Err(Error::from_meaning(
                    &ErrorMeaning::DIRECTORY_UNKNOWN,
                    ProviderTrace { detail, ..ProviderTrace::default() },
                ))
            }
            (status, _) => Err(Error::provider_down(format!("it answered {status}"))),
        }
    }
}
