//! The way to Entra that all tenants share: requests under a deadline and a bound, answers under a cap.

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

/// A connection may take so long, and a whole answer.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);
/// Entra's answers are below 64 KiB.
const LARGEST_ANSWER: usize = 512 << 10;
/// So many requests are under way at once, over all tenants: half of them of one tenant's, the last fifth of its part and of
/// all for logins that are renewed, which nobody begins from nothing.
const AT_ONCE: u64 = 64;

/// The way to Entra: one client, and a bounded number of requests under way.
pub(super) struct Transport {
    authority: Url,
    client: OnceLock<Option<reqwest::Client>>,
    places: Arc<Budget>,
    /// A place was given back.
    freed: Notify,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
}

/// On whose behalf Entra is asked.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    share: Arc<Share>,
    renews: bool,
}

impl Asker {
    /// The same tenant, which renews a login that there is.
    pub(super) fn renewing(&self) -> Self {
        Self { share: Arc::clone(&self.share), renews: true }
    }
}

/// One request's place among those under way.
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

/// What a request is: a look at something published, or a form.
pub(super) enum Request<'a> {
    Get,
    Post(&'a [(&'a str, &'a str)]),
}

impl Transport {
    /// `authority` is the scheme and host of all directories, e.g. `https://login.microsoftonline.com`.
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

    /// The URL of something in a directory.
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

    /// Who asks: a tenant or a directory, by what names it apart from others.
    pub(super) fn asker(&self, name: &str) -> Asker {
        Asker { share: self.places.share(Party::Tenant(name.into())), renews: false }
    }

    /// Waits for a place. A tenant that has its share waits for its own requests to end, whoever else has room.
    async fn place(&self, asker: &Asker) -> Place<'_> {
        let mut hold = self.places.hold(Some(Arc::clone(&asker.share)), None, asker.renews);
        loop {
            // Told of every place that is given back from here on.
            let freed = self.freed.notified();
            if hold.grow(1).is_ok() {
                return Place { hold, freed: &self.freed };
            }
            freed.await;
        }
    }

    /// Asks Entra for something. An answer with any status is one; a server error is an outage.
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

    /// Made at the first login: most gateways need none, and one without CA certificates must start all the same.
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
            // Plain HTTP is for loopback, which no proxy reaches.
            let builder = if is_https { builder } else { builder.no_proxy() };
            builder.build().inspect_err(|error| tracing::error!(%error, "no way to Microsoft's login")).ok()
        });
        made.as_ref()
    }
}

/// The resolver of this process, so that a name server that hangs takes no thread of the store's.
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

/// The chain of causes without the URL, which is known and may be long.
fn unheard(error: reqwest::Error) -> Error {
    Error::down(causes::in_one_line(&error.without_url()))
}
