//! Sends what waits to the receiver, in batches, and again later what it did not take.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::TracerState;
use super::span::key_value;
use crate::base::process_resolver::ProcessResolver;
use crate::base::{error_chain, random};

/// How long spans are gathered.
const INTERVAL: Duration = Duration::from_secs(1);
const BATCH: usize = 512;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);
/// The pauses after failures, which double up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Why there is no exporter, or why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("the HTTP client for OTLP cannot be created: {0}")]
    Client(reqwest::Error),
    #[error("{0}")]
    Unreachable(String),
    #[error("it answered {0}")]
    Busy(StatusCode),
    #[error("it answered {0}, so these spans are dropped")]
    Refused(StatusCode),
    #[error("the file with its headers cannot be used: {0}")]
    Headers(String),
}

/// Sends the spans of one gateway.
#[derive(Debug)]
pub struct Exporter {
    shared: Arc<TracerState>,
    client: reqwest::Client,
    resource: Resource,
    /// One batch at a time, so that the last one waits for the one under way.
    sending: tokio::sync::Mutex<ExportHealth>,
}

#[derive(Debug, Default)]
struct ExportHealth {
    failures: u32,
}

impl Exporter {
    pub(super) fn new(shared: Arc<TracerState>) -> Result<Self, ExportError> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("tenantd/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .dns_resolver(ProcessResolver)
            .build()
            .map_err(ExportError::Client)?;
        let attributes: Vec<KeyValue> = vec![
            key_value("service.name", "tenantd"),
            key_value("service.version", env!("CARGO_PKG_VERSION")),
            key_value("service.instance.id", random::hex::<16>()),
        ];
        let resource = Resource { attributes, ..Resource::default() };
        Ok(Self { shared, client, resource, sending: tokio::sync::Mutex::default() })
    }

    /// Sends spans as they come, until it is dropped.
    pub async fn run(&self) {
        loop {
            let failures = self.send_waiting().await;
            let pause = match failures {
                0 => INTERVAL,
                failures => (FIRST_PAUSE * (1 << failures.min(8))).min(MAX_PAUSE),
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends what waits now, for a limited time, and says if something is left.
    pub async fn flush(&self, patience: Duration) {
        if tokio::time::timeout(patience, self.send_waiting()).await.is_err() {
            tracing::warn!("the OTLP receiver did not take the last spans in time");
        }
    }

    /// Sends batches until none waits or one fails. Returns how many have failed in a row.
    async fn send_waiting(&self) -> u32 {
        let mut health = self.sending.lock().await;
        loop {
            let batch = self.shared.spans.take(BATCH);
            if batch.is_empty() {
                return health.failures;
            }
            let count = batch.len() as u64;
            let outcome = self.send(batch).await;
            health.report(outcome.as_ref().err().map(|(error, _)| error));
            match outcome {
                Ok(()) => self.shared.spans.record_sent(count),
                Err((ExportError::Refused(_), _)) => self.shared.spans.record_dropped(count),
                Err((_, unsent)) => {
                    self.shared.spans.put_back(unsent);
                    return health.failures;
                }
            }
        }
    }

    /// Sends a batch; returns it with the error if it was not taken.
    async fn send(&self, spans: Vec<Span>) -> Result<(), (ExportError, Vec<Span>)> {
        let mut request = self.to_request(spans);
        let outcome = self.post(request.encode_to_vec()).await;
        outcome.map_err(|error| {
            let scopes = request.resource_spans.drain(..).flat_map(|resource| resource.scope_spans);
            (error, scopes.flat_map(|scope| scope.spans).collect())
        })
    }

    fn to_request(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        let scope = InstrumentationScope {
            name: "tenantd".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
        let resource = Some(self.resource.clone());
        let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
        ExportTraceServiceRequest { resource_spans }
    }

    async fn post(&self, body: Vec<u8>) -> Result<(), ExportError> {
        let url = format!("{}/v1/traces", self.shared.config.endpoint.trim_end_matches('/'));
        let headers = self.headers().await?;
        let request = self.client.post(url).headers(headers).body(body);
        let response = request
            .send()
            .await
            .map_err(|error| ExportError::Unreachable(error_chain::format_chain(&error.without_url())))?;
        match response.status() {
            status if status.is_success() => Ok(()),
            // OTLP/HTTP, "Failures": these may be sent again, all others must not.
            status @ (StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT) => Err(ExportError::Busy(status)),
            status => Err(ExportError::Refused(status)),
        }
    }

    /// Returns the headers. The file is read with each batch, so that a new token needs no restart.
    async fn headers(&self) -> Result<HeaderMap, ExportError> {
        let mut headers = HeaderMap::new();
        if let Some(file) = &self.shared.config.headers_file {
            let text = tokio::fs::read_to_string(file).await;
            let text = text.map_err(|error| ExportError::Headers(format!("{}: {error}", file.display())))?;
            let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
            for (number, line) in lines {
                let (name, value) = parse_header(line).ok_or_else(|| {
                    ExportError::Headers(format!("line {} is not `name: value`", number + 1))
                })?;
                headers.insert(name, value);
            }
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        Ok(headers)
    }
}

fn parse_header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    let name = name.trim().to_ascii_lowercase().parse().ok()?;
    let mut value = HeaderValue::from_str(value.trim()).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

impl ExportHealth {
    /// Counts a failure, and logs the first and the end of failures.
    fn report(&mut self, error: Option<&ExportError>) {
        match error {
            None if self.failures > 0 => {
                tracing::info!("the OTLP receiver takes spans again");
                self.failures = 0;
            }
            None => {}
            Some(error) => {
                if self.failures == 0 {
                    tracing::warn!(%error, "the OTLP receiver takes no spans; they wait in a bounded queue");
                }
                self.failures = self.failures.saturating_add(1);
            }
        }
    }
}
