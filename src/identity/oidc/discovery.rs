//! The metadata that a provider publishes: its issuer and its keys (OpenID Connect Discovery 1.0).
//!
//! It is fetched when first needed, once a day, and when a token names an unknown key: by one
//! caller at a time, and at most once a minute. While the provider is unreachable, the last
//! metadata stays in use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use super::jwks::ProviderKeys;
use super::transport::{ProviderRequest, ProviderTransport};
use crate::identity::error::{Error, ProviderTrace};
use crate::identity::meaning::ErrorMeaning;

const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// The minimum time between two fetches.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(60);

/// Where one directory of a provider publishes its metadata.
#[derive(Debug)]
pub(in crate::identity) struct MetadataSource {
    /// The directory's name, for the log.
    pub(in crate::identity) directory: Arc<str>,
    pub(in crate::identity) configuration: Url,
    pub(in crate::identity) keys: Url,
    /// What it means if nothing is there.
    pub(in crate::identity) not_found: &'static ErrorMeaning,
}

/// The metadata of one directory, as last fetched.
#[derive(Debug)]
pub(in crate::identity) struct MetadataCache {
    source: MetadataSource,
    cached: ArcSwapOption<ProviderMetadata>,
    last_attempt: Mutex<Option<FetchAttempt>>,
}

/// The time of the last fetch, and its error if it failed.
#[derive(Debug)]
struct FetchAttempt {
    fetched_at: Instant,
    error: Option<Error>,
}

/// The published metadata.
#[derive(Debug)]
pub(in crate::identity) struct ProviderMetadata {
    /// The issuer, or a template of it.
    pub(in crate::identity) issuer: String,
    pub(in crate::identity) keys: ProviderKeys,
    fetched_at: Instant,
}

#[derive(Deserialize)]
struct OpenIdConfiguration {
    issuer: String,
}

impl MetadataCache {
    pub(in crate::identity) fn new(source: MetadataSource) -> Self {
        Self { source, cached: ArcSwapOption::empty(), last_attempt: Mutex::new(None) }
    }

    /// Returns the published metadata, at most a day old unless the provider is unreachable.
    pub(in crate::identity) async fn metadata(
        &self,
        transport: &ProviderTransport,
    ) -> Result<Arc<ProviderMetadata>, Error> {
        let cached = self.cached.load_full();
        match cached {
            Some(cached) if transport.elapsed_since(cached.fetched_at) < MAX_AGE => Ok(cached),
            Some(cached) => Ok(self.refresh(transport, &cached).await.ok().flatten().unwrap_or(cached)),
            None => self.fetch_first(transport).await,
        }
    }

    async fn fetch_first(&self, transport: &ProviderTransport) -> Result<Arc<ProviderMetadata>, Error> {
        let mut last_attempt = self.last_attempt.lock().await;
        if let Some(cached) = self.cached.load_full() {
            return Ok(cached);
        }
        // Many callers may wait here during an outage. They share one failure for a second, which
        // is short enough to notice the end of the outage.
        let recent_failure = last_attempt
            .as_ref()
            .filter(|attempt| transport.elapsed_since(attempt.fetched_at) < Duration::from_secs(1));
        if let Some(error) = recent_failure.and_then(|attempt| attempt.error.clone()) {
            return Err(error);
        }
        self.fetch_and_cache(transport, &mut last_attempt).await
    }

    /// Returns the metadata if it is newer than `cached`; `None` if the last fetch was less than a
    /// minute ago.
    pub(in crate::identity) async fn refresh(
        &self,
        transport: &ProviderTransport,
        cached: &Arc<ProviderMetadata>,
    ) -> Result<Option<Arc<ProviderMetadata>>, Error> {
        let mut last_attempt = self.last_attempt.lock().await;
        let current = self.cached.load_full().filter(|current| !Arc::ptr_eq(current, cached));
        if current.is_some() {
            return Ok(current);
        }
        match last_attempt.as_ref() {
            Some(attempt) if transport.elapsed_since(attempt.fetched_at) < MIN_REFRESH_INTERVAL => Ok(None),
            _ => self.fetch_and_cache(transport, &mut last_attempt).await.map(Some),
        }
    }

    async fn fetch_and_cache(
        &self,
        transport: &ProviderTransport,
        last_attempt: &mut Option<FetchAttempt>,
    ) -> Result<Arc<ProviderMetadata>, Error> {
        let fetched = self.fetch(transport).await;
        *last_attempt = Some(FetchAttempt {
            fetched_at: transport.clock.monotonic(),
            error: fetched.as_ref().err().cloned(),
        });
        let fetched = Arc::new(fetched.inspect_err(|error| {
            tracing::warn!(directory = %self.source.directory, %error, "the published metadata and keys of the directory cannot be read");
        })?);
        self.cached.store(Some(Arc::clone(&fetched)));
        Ok(fetched)
    }

    async fn fetch(&self, transport: &ProviderTransport) -> Result<ProviderMetadata, Error> {
        let fetched_at = transport.clock.monotonic();
        let metadata = self.fetch_document(transport, &self.source.configuration).await?;
        let metadata: OpenIdConfiguration = serde_json::from_slice(&metadata)
            .map_err(|_| Error::provider_down("its metadata cannot be read"))?;
        let keys = self.fetch_document(transport, &self.source.keys).await?;
        let keys =
            ProviderKeys::parse(&keys).ok_or_else(|| Error::provider_down("its keys cannot be read"))?;
        Ok(ProviderMetadata { issuer: metadata.issuer, keys, fetched_at })
    }

    async fn fetch_document(&self, transport: &ProviderTransport, url: &Url) -> Result<Bytes, Error> {
        let MetadataSource { directory, not_found, .. } = &self.source;
        // The directory is a requester of its own: a fetch serves every tenant that uses the
        // directory, so it must not wait for the share of a single tenant.
        let share = transport.share_for(&format!("directory {directory}"));
        match transport.send(url.clone(), ProviderRequest::Get, &share).await? {
            (StatusCode::OK, body) => Ok(body),
            (StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND, _) => {
                let detail = Some(format!("there is no directory {directory}"));
                let trace = ProviderTrace { detail, ..ProviderTrace::default() };
                Err(Error::from_meaning(not_found, trace))
            }
            (status, _) => Err(Error::provider_down(format!("it answered {status}"))),
        }
    }
}
