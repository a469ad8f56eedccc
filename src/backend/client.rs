//! One tenant's way to its backend.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};
use url::Url;

use super::{Answer, Call, Error, Lasting, Pool};
use crate::base::digest::{Digest, Hasher};
use crate::base::random;
use crate::spec::{BackendSpec, CallSpec, LimitsSpec, Values};

/// The longest a call waits for a place in the bulkhead.
const PATIENCE: Duration = Duration::from_secs(1);
/// Further tries when no connection could be made.
const RETRIES: u32 = 2;
/// Redirects followed, on the same origin and for GET only.
const REDIRECTS: u32 = 3;
/// The largest semantic context taken: it is kept in memory for each tenant.
const MAX_CONTEXT_BYTES: usize = 1 << 20;

/// One tenant's way to its backend.
#[derive(Debug)]
pub struct Client {
    pool: Pool,
    bulkhead: Arc<Semaphore>,
    max_response_bytes: usize,
    user_header: Option<HeaderName>,
    context: Arc<CallSpec>,
    context_source: Digest,
    context_ttl: Duration,
    lasting: Arc<Lasting>,
}

impl Client {
    /// Builds the client of one revision of a tenant; `lasting` is what earlier revisions left.
    pub fn new(
        pool: Pool,
        spec: &BackendSpec,
        limits: &LimitsSpec,
        context_ttl: Duration,
        lasting: Arc<Lasting>,
    ) -> Self {
        Self {
            bulkhead: lasting.bulkhead(limits.concurrent_calls),
            max_response_bytes: limits.max_response_bytes,
            user_header: spec.user_header.clone(),
            context: Arc::clone(&spec.context),
            context_source: source_of(&spec.context),
            context_ttl,
            lasting,
            pool,
        }
    }

    /// Makes one call: breaker, bulkhead, deadline, safe retry, caps. Dropping the future cancels it.
    pub async fn call(&self, spec: &CallSpec, arguments: &Values, call: &Call) -> Result<Answer, Error> {
        self.bounded(spec, arguments, call, self.max_response_bytes).await
    }

    /// The semantic context: cached, refreshed by single flight, the last good one while the backend is down.
    pub async fn context(&self, call: &Call) -> Result<Arc<Value>, Error> {
        let fetch = || async {
            let cap = self.max_response_bytes.min(MAX_CONTEXT_BYTES);
            self.bounded(&self.context, &Values::new(), call, cap).await.map(|answer| answer.value)
        };
        let now = || self.now();
        self.lasting.context.get_or_fetch(&self.context_source, self.context_ttl, now, fetch).await
    }

    /// The context as it is now, without asking anybody.
    pub fn known_context(&self) -> Option<Arc<Value>> {
        self.lasting.context.known(&self.context_source)
    }

    /// The backend's last fault and what to do about it, until a call succeeds.
    pub fn trouble(&self) -> Option<String> {
        self.lasting.last_trouble().map(|error| format!("{error}. {}", error.advice()))
    }

    pub(super) fn now(&self) -> Instant {
        self.pool.clock.monotonic()
    }

    async fn bounded(
        &self,
        spec: &CallSpec,
        arguments: &Values,
        call: &Call,
        cap: usize,
    ) -> Result<Answer, Error> {
        let started = self.now();
        self.lasting.breaker.admit(started)?;
        let outcome = self.in_time(spec, arguments, call, cap).await;
        let ended = self.now();
        self.lasting.record(outcome.as_ref().err(), ended);
        let class = outcome.as_ref().err().map_or("ok", Error::class);
        self.pool.metrics.backend_call(class, ended - started);
        outcome
    }

    async fn in_time(
        &self,
        spec: &CallSpec,
        arguments: &Values,
        call: &Call,
        cap: usize,
    ) -> Result<Answer, Error> {
        let attempt = async {
            let _place = self.enter().await?;
            let values = with_constants(arguments, spec);
            let response = self.send(spec, &values, call).await?;
            read(response, spec, cap).await
        };
        tokio::time::timeout_at(call.deadline.into(), attempt).await.unwrap_or(Err(Error::TimedOut))
    }

    async fn enter(&self) -> Result<SemaphorePermit<'_>, Error> {
        if let Ok(place) = self.bulkhead.try_acquire() {
            return Ok(place);
        }
        match tokio::time::timeout(PATIENCE, self.bulkhead.acquire()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(Error::Busy),
        }
    }

    async fn send(&self, spec: &CallSpec, values: &Values, call: &Call) -> Result<reqwest::Response, Error> {
        let mut url =
            Url::parse(&spec.url.render(values)).map_err(|_| Error::Refused { status: 0, detail: None })?;
        let body = spec.body.as_ref().map(|body| body.render(values).to_string());
        for _ in 0..=REDIRECTS {
            let response = self.send_with_retry(spec, &url, body.as_deref(), call).await?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            url = redirected(&response, &url, &spec.method).ok_or(Error::RedirectRefused)?;
        }
        Err(Error::RedirectRefused)
    }

    async fn send_with_retry(
        &self,
        spec: &CallSpec,
        url: &Url,
        body: Option<&str>,
        call: &Call,
    ) -> Result<reqwest::Response, Error> {
        let mut tries = 0;
        loop {
            let request = self.request(spec, url.clone(), body, call);
            match self.pool.send(request).await {
                Ok(response) => return Ok(response),
                Err(failed)
                    if failed.nothing_sent && failed.error == Error::Unreachable && tries < RETRIES =>
                {
                    tries += 1;
                    tokio::time::sleep(jitter(tries)).await;
                }
                Err(failed) => return Err(failed.error),
            }
        }
    }

    fn request(&self, spec: &CallSpec, url: Url, body: Option<&str>, call: &Call) -> reqwest::Request {
        let mut request = reqwest::Request::new(spec.method.clone(), url);
        if let Some(body) = body {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(body.to_owned().into());
        }
        let headers = request.headers_mut();
        for (name, value) in &spec.headers {
            insert(headers, name.clone(), Some(value.expose()), true);
        }
        insert(headers, HeaderName::from_static("x-request-id"), Some(&call.request_id), false);
        insert(headers, HeaderName::from_static("traceparent"), call.traceparent.as_deref(), false);
        insert(headers, HeaderName::from_static("tracestate"), call.tracestate.as_deref(), false);
        if let Some(name) = &self.user_header {
            insert(headers, name.clone(), call.user.as_deref(), false);
        }
        request
    }
}

/// Sets a header if there is a value and HTTP can carry it; others come from a caller and are left out.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: Option<&str>, sensitive: bool) {
    if let Some(Ok(mut value)) = value.map(HeaderValue::from_str) {
        value.set_sensitive(sensitive);
        headers.insert(name, value);
    }
}

/// A caller's arguments, with the tenant's constants over them.
fn with_constants(arguments: &Values, spec: &CallSpec) -> Values {
    let mut values = arguments.clone();
    values.extend(spec.constants.iter().map(|(name, value)| (name.clone(), value.clone())));
    values
}

/// What makes a context this context: where it is fetched, as whom.
fn source_of(spec: &CallSpec) -> Digest {
    let mut hasher = Hasher::new();
    hasher.field(spec.method.as_str().as_bytes());
    hasher.field(spec.url.render(&spec.constants).as_bytes());
    for (name, value) in &spec.headers {
        hasher.field(name.as_str().as_bytes());
        hasher.field(value.expose().as_bytes());
    }
    if let Some(body) = &spec.body {
        hasher.field(body.render(&spec.constants).to_string().as_bytes());
    }
    hasher.finish()
}

/// Where a redirect leads, if it may be followed: a GET, and the same origin.
fn redirected(response: &reqwest::Response, from: &Url, method: &Method) -> Option<Url> {
    let target = from.join(response.headers().get(LOCATION)?.to_str().ok()?).ok()?;
    (method == Method::GET && target.origin() == from.origin()).then_some(target)
}

fn jitter(tries: u32) -> Duration {
    let [random] = random::bytes::<1>();
    Duration::from_millis(u64::from(tries) * 20 + u64::from(random) / 4)
}

async fn read(response: reqwest::Response, spec: &CallSpec, cap: usize) -> Result<Answer, Error> {
    let status = response.status();
    match status {
        _ if status.is_success() => {
            let body = read_body(response, cap).await?;
            let json = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&body);
            let value = serde_json::from_slice(json).map_err(|_| Error::NotJson)?;
            Ok(Answer { value })
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Error::KeyRefused),
        StatusCode::TOO_MANY_REQUESTS => {
            Err(Error::RateLimited { retry_after: retry_after(response.headers()) })
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => Err(Error::TimedOut),
        _ if status.is_client_error() => {
            let body = read_body(response, 16 << 10).await.unwrap_or_default();
            Err(Error::Refused { status: status.as_u16(), detail: detail(&body, spec) })
        }
        _ => Err(Error::Failed { status: status.as_u16() }),
    }
}

async fn read_body(mut response: reqwest::Response, cap: usize) -> Result<Vec<u8>, Error> {
    let length =
        response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > cap) {
        return Err(Error::TooLarge { limit: cap });
    }
    let mut body = Vec::with_capacity(length.unwrap_or(4 << 10));
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > cap {
            return Err(Error::TooLarge { limit: cap });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Seconds only: the date form is rare in APIs and would need the wall clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The backend's own words about a refused request, when it has short plain ones; our secrets are taken out.
fn detail(body: &[u8], spec: &CallSpec) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let text = ["message", "error", "detail", "error_description"].iter().find_map(|name| {
        match value.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Object(inner) => inner.get("message")?.as_str().map(str::to_owned),
            _ => None,
        }
    })?;
    let mut text = text;
    for (_, secret) in spec.headers.iter().filter(|(_, secret)| !secret.expose().is_empty()) {
        text = text.replace(secret.expose(), "[redacted]");
    }
    let plain: String = text.chars().filter(|c| !c.is_control() && !"<>".contains(*c)).take(200).collect();
    (!plain.trim().is_empty()).then(|| plain.trim().to_owned())
}
