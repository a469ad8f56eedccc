//! The HTTP transport to Entra that all tenants share: requests with a deadline and a concurrency
//! limit, responses with a size limit.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Notify;
use url::Url;

use super::error::Error;
use crate::base::budget::{Budget, Hold, Party, Share};
use crate::base::causes;
use crate::base::clock::Clock;
use crate::base::resolve::Resolver;
use crate::telemetry::metrics::Metrics;

/// The deadlines of connecting and of a whole exchange.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);
/// In bytes. Entra's responses are below 64 KiB.
const LARGEST_ANSWER: usize = 512 << 10;
/// The limit on concurrent requests of all tenants. One tenant gets at most half of it. The last
/// fifth of a tenant's share and of the whole is reserved for renewals, which need an existing
/// login.
const AT_ONCE: u64 = 64;

/// One HTTP client and a bounded number of concurrent requests.
pub(super) struct Transport {
    authority: Url,
    client: OnceLock<Option<reqwest::Client>>,
    places: Arc<Budget>,
    /// Notified when a permit is released.
    freed: Notify,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
}

/// The party on whose behalf a request is made.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    share: Arc<Share>,
    renews: bool,
}

impl Asker {
    /// Returns the same asker, for the renewal of an existing login.
    pub(super) fn renewing(&self) -> Self {
        Self { share: Arc::clone(&self.share), renews: true }
    }
}

/// The permit of one request.
struct Place<'a> {
    hold: Hold,
    freed: &'a Notify,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.hold.release();
        self.freed.notify_waiters();
    }
}

/// A GET of published metadata, or a POST of a form.
pub(super) enum Request<'a> {
    Get,
    Post(&'a [(&'a str, &'a str)]),
}

impl Transport {
    /// Creates the transport. `authority` is the scheme and host of all directories, e.g.
    /// `https://login.microsoftonline.com`.
    pub(super) fn new(authority: Url, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self {
            authority,
            client: OnceLock::new(),
            places: Budget::new(AT_ONCE),
            freed: Notify::new(),
            clock,
            metrics,
        }
    }

    /// Returns the URL of `path` in a directory.
    pub(super) fn url(&self, directory: &str, path: &str) -> Url {
        let mut url = self.authority.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(directory).extend(path.split('/'));
        }
        url
    }

    pub(super) fn elapsed_since(&self, moment: Instant) -> Duration {
        self.clock.monotonic().saturating_duration_since(moment)
    }

    /// Returns the asker of this name: a tenant or a directory, by a name that no other one has.
    pub(super) fn asker(&self, name: &str) -> Asker {
        Asker { share: self.places.share(Party::Tenant(name.into())), renews: false }
    }

    /// Waits for a permit. A tenant that has used up its share waits for its own requests to end,
    /// even while there is room for others.
    async fn place(&self, asker: &Asker) -> Place<'_> {
        let mut hold = self.places.hold(Some(Arc::clone(&asker.share)), None, asker.renews);
        loop {
            // Created before the attempt, so that no release after it is missed.
            let freed = self.freed.notified();
            if hold.grow(1).is_ok() {
                return Place { hold, freed: &self.freed };
            }
            freed.await;
        }
    }

    /// Sends a request to Entra. Returns responses of any status, except that server errors and 429
    /// are errors: an outage.
    pub(super) async fn ask(
        &self,
        url: Url,
        request: Request<'_>,
        asker: &Asker,
    ) -> Result<(StatusCode, Bytes), Error> {
        let asking = async {
            let _place = self.place(asker).await;
            self.exchange(url, request).await
        };
        let answered = tokio::time::timeout(ANSWER, asking).await;
        let (status, body) = answered.unwrap_or_else(|_| Err(Error::down("no answer in time")))?;
        match status {
            StatusCode::TOO_MANY_REQUESTS => Err(Error::down("too many requests, it says")),
            status if status.is_server_error() => Err(Error::down(format!("it answered {status}"))),
            _ => Ok((status, body)),
        }
    }

    async fn exchange(&self, url: Url, request: Request<'_>) -> Result<(StatusCode, Bytes), Error> {
        let client = self.client().ok_or_else(|| {
            Error::down("this machine trusts no certificate authority; install its CA certificates")
        })?;
        let request = match request {
            Request::Get => client.get(url),
            Request::Post(form) => client
                .post(url)
                .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish()),
        };
        let mut response = request.send().await.map_err(unheard)?;
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(unheard)? {
            if body.len() + piece.len() > LARGEST_ANSWER {
                return Err(Error::down("its answer is too large"));
            }
            body.extend_from_slice(&piece);
        }
        Ok((response.status(), body.into()))
    }

    /// Created at the first login: most gateways need no client, and a gateway on a machine without
    /// CA certificates must still start.
    fn client(&self) -> Option<&reqwest::Client> {
        let made = self.client.get_or_init(|| {
            let is_https = self.authority.scheme() == "https";
            let builder = reqwest::Client::builder()
                .user_agent(concat!("tenantd/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .https_only(is_https)
                .connect_timeout(CONNECT)
                .timeout(ANSWER)
                .dns_resolver(Names)
                .pool_max_idle_per_host(8);
            // Plain HTTP is for loopback only, which no proxy can reach.
            let builder = if is_https { builder } else { builder.no_proxy() };
            builder.build().inspect_err(|error| tracing::error!(%error, "no way to Microsoft's login")).ok()
        });
        made.as_ref()
    }
}

/// Resolves names with the resolver of this process, so that a hanging name server occupies no
/// thread that the store needs.
#[derive(Clone)]
struct Names;

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = Resolver::of_this_process().lookup(name.as_str()).await?;
            let found: Vec<_> = found.iter().map(|&address| SocketAddr::new(address, 0)).collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Returns the error chain without the URL, which is known and may be long.
fn unheard(error: reqwest::Error) -> Error {
    Error::down(causes::in_one_line(&error.without_url()))
}
