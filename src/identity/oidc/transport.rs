//! The HTTP transport to an identity provider that all tenants share: requests with a deadline and
//! a concurrency limit, responses with a size limit.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::sync::Notify;
use url::Url;

use crate::base::budget::{Budget, BudgetShare, Consumer, Reservation};
use crate::base::clock::Clock;
use crate::base::error_chain;
use crate::base::process_resolver::ProcessResolver;
use crate::identity::brand::Brand;
use crate::identity::error::Error;
use crate::telemetry::metrics::Metrics;

/// The deadlines of connecting and of a whole exchange.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// In bytes. The largest known responses have less than 64 KiB.
const MAX_RESPONSE_BYTES: usize = 512 << 10;
/// The limit on concurrent requests of all tenants. One tenant gets at most half of it. The last
/// fifth of a tenant's share and of the whole is reserved for renewals, which need an existing
/// login.
const MAX_CONCURRENT_REQUESTS: u64 = 64;

/// One HTTP client and a bounded number of concurrent requests.
pub(in crate::identity) struct ProviderTransport {
    brand: &'static Brand,
    is_https: bool,
    client: OnceLock<Option<reqwest::Client>>,
    budget: Arc<Budget>,
    /// Notified when a permit is released.
    permit_released: Notify,
    pub(in crate::identity) clock: Arc<dyn Clock>,
    pub(in crate::identity) metrics: Arc<Metrics>,
}

/// The party on whose behalf a request is made.
#[derive(Debug, Clone)]
pub(in crate::identity) struct RequestShare {
    share: Arc<BudgetShare>,
    is_renewal: bool,
}

impl RequestShare {
    /// Returns the same requester, for the renewal of an existing login.
    pub(in crate::identity) fn for_renewal(&self) -> Self {
        Self { share: Arc::clone(&self.share), is_renewal: true }
    }
}

/// The permit of one request.
struct RequestPermit<'a> {
    reservation: Reservation,
    released: &'a Notify,
}

impl Drop for RequestPermit<'_> {
    fn drop(&mut self) {
        self.reservation.release();
        self.released.notify_waiters();
    }
}

/// A response as it came, for those who look at more than its body.
pub(in crate::identity) struct ProviderResponse {
    pub(in crate::identity) status: StatusCode,
    pub(in crate::identity) headers: HeaderMap,
    pub(in crate::identity) body: Bytes,
}

/// A GET of published metadata, or a POST of a form.
pub(in crate::identity) enum ProviderRequest<'a> {
    Get,
    Post(&'a [(&'a str, &'a str)]),
}

impl ProviderTransport {
    /// Creates the transport, for HTTPS or, on loopback, for HTTP.
    pub(in crate::identity) fn new(
        brand: &'static Brand,
        is_https: bool,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            brand,
            is_https,
            client: OnceLock::new(),
            budget: Budget::new(MAX_CONCURRENT_REQUESTS),
            permit_released: Notify::new(),
            clock,
            metrics,
        }
    }

    pub(in crate::identity) fn elapsed_since(&self, moment: Instant) -> Duration {
        self.clock.monotonic().saturating_duration_since(moment)
    }

    /// Returns the requester of this name: a tenant or a directory, by a name that no other one
    /// has.
    pub(in crate::identity) fn share_for(&self, name: &str) -> RequestShare {
        RequestShare { share: self.budget.share(Consumer::Tenant(name.into())), is_renewal: false }
    }

    /// Waits for a permit. A tenant that has used up its share waits for its own requests to end,
    /// even while there is room for others.
    async fn acquire_permit(&self, share: &RequestShare) -> RequestPermit<'_> {
        let mut reservation =
            self.budget.new_reservation(Some(Arc::clone(&share.share)), None, share.is_renewal);
        loop {
            // Created before the attempt, so that no release after it is missed.
            let released = self.permit_released.notified();
            if reservation.try_grow(1).is_ok() {
                return RequestPermit { reservation, released: &self.permit_released };
            }
            released.await;
        }
    }

    /// Sends a request to the provider. Returns responses of any status, except that server errors
    /// and 429 are errors: an outage.
    pub(in crate::identity) async fn send(
        &self,
        url: Url,
        request: ProviderRequest<'_>,
        share: &RequestShare,
    ) -> Result<(StatusCode, Bytes), Error> {
        let exchange = async {
            let _permit = self.acquire_permit(share).await;
            self.exchange(url, request).await
        };
        let outcome = tokio::time::timeout(RESPONSE_TIMEOUT, exchange).await;
        let response = outcome.unwrap_or_else(|_| Err(Error::provider_down("no answer in time")))?;
        match response.status {
            StatusCode::TOO_MANY_REQUESTS => {
                Err(Error::provider_down("it answered that there are too many requests"))
            }
            status if status.is_server_error() => Err(Error::provider_down(format!("it answered {status}"))),
            status => Ok((status, response.body)),
        }
    }

    /// Sends a request of an examination, outside of the budget. Any response counts.
    pub(in crate::identity) async fn examine(
        &self,
        url: Url,
        request: ProviderRequest<'_>,
    ) -> Result<ProviderResponse, Error> {
        let outcome = tokio::time::timeout(RESPONSE_TIMEOUT, self.exchange(url, request)).await;
        outcome.unwrap_or_else(|_| Err(Error::provider_down("no answer in time")))
    }

    async fn exchange(&self, url: Url, request: ProviderRequest<'_>) -> Result<ProviderResponse, Error> {
        let client = self.client().ok_or_else(|| {
            Error::provider_down("this machine trusts no certificate authority; install its CA certificates")
        })?;
        let request = match request {
            ProviderRequest::Get => client.get(url),
            ProviderRequest::Post(form) => client
                .post(url)
                .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish()),
        };
        let mut response = request.send().await.map_err(to_outage)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(to_outage)? {
            if body.len() + chunk.len() > MAX_RESPONSE_BYTES {
                return Err(Error::provider_down("its answer is too large"));
            }
            body.extend_from_slice(&chunk);
        }
        let headers = std::mem::take(response.headers_mut());
        Ok(ProviderResponse { status: response.status(), headers, body: body.into() })
    }

    /// Created at the first login: most gateways need no client, and a gateway on a machine without
    /// CA certificates must still start.
    fn client(&self) -> Option<&reqwest::Client> {
        let client = self.client.get_or_init(|| {
            let builder = reqwest::Client::builder()
                .user_agent(concat!("tenantd/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .https_only(self.is_https)
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(RESPONSE_TIMEOUT)
                .dns_resolver(ProcessResolver)
                .pool_max_idle_per_host(8);
            // Plain HTTP is for loopback only, which no proxy can reach.
            let builder = if self.is_https { builder } else { builder.no_proxy() };
            let name = self.brand.name;
            builder
                .build()
                .inspect_err(|error| tracing::error!(%error, "no HTTP client for {name}'s login"))
                .ok()
        });
        client.as_ref()
    }
}

/// Returns the error chain without the URL, which is known and may be long.
fn to_outage(error: reqwest::Error) -> Error {
    Error::provider_down(error_chain::format_chain(&error.without_url()))
}
