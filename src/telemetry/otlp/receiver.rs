//! The receiver: where it is, what it is sent besides the messages, and what its answers mean
//! (OTLP/HTTP, "Responses").

use std::path::PathBuf;
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode};

use super::attribute::key_value;
use super::{INSTANCE_ID, OtlpConfig};
use crate::base::process_resolver::ProcessResolver;
use crate::base::{error_chain, random};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);
/// How much of an answer is read, in bytes. Only a few words of it matter.
const MAX_ANSWER: usize = 64 << 10;

/// Why nothing can be exported, or why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("the HTTP client for OTLP cannot be created: {0}")]
    Client(reqwest::Error),
    #[error("{0}")]
    Unreachable(String),
    #[error("it answered {0}")]
    Busy(StatusCode, Duration),
    #[error("it answered {0}")]
    Refused(StatusCode),
    #[error("the file with its headers cannot be used: {0}")]
    Headers(String),
}

impl ExportError {
    /// Returns how long the receiver asks to be left alone.
    pub(super) fn retry_after(&self) -> Duration {
        if let Self::Busy(_, wait) = self { *wait } else { Duration::ZERO }
    }
}

/// What a receiver that took a batch did not take of it ("Partial Success").
#[derive(Debug, Default)]
pub(super) struct RejectedItems {
    pub(super) count: u64,
    pub(super) reason: String,
}

/// How a batch went.
pub(super) type ExportOutcome = Result<RejectedItems, ExportError>;

/// An OTLP receiver. Redirects are not followed, since they would take the headers elsewhere.
#[derive(Debug)]
pub(super) struct Receiver {
    base: String,
    headers_file: Option<PathBuf>,
    client: reqwest::Client,
    resource: Resource,
}

impl Receiver {
    pub(super) fn new(config: &OtlpConfig) -> Result<Self, ExportError> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("tenantd/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .dns_resolver(ProcessResolver)
            .build()
            .map_err(ExportError::Client)?;
        Ok(Self {
            base: config.endpoint.trim_end_matches('/').to_owned(),
            headers_file: config.headers_file.clone(),
            client,
            resource: build_resource(config),
        })
    }

    /// Returns what all messages say of the program that sends them.
    pub(super) fn resource(&self) -> Option<Resource> {
        Some(self.resource.clone())
    }

    /// Sends a message and returns the body of the answer.
    pub(super) async fn post(&self, path: &str, message: Vec<u8>) -> Result<Vec<u8>, ExportError> {
        let headers = self.headers().await?;
        let request = self.client.post(format!("{}{path}", self.base)).headers(headers).body(message);
        let response = request.send().await.map_err(unreachable)?;
        match response.status() {
            status if status.is_success() => read_answer(response).await,
            // "Failures": these may be sent again, all others must not.
            status @ (StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT) => {
                Err(ExportError::Busy(status, parse_retry_after(response.headers())))
            }
            status => Err(ExportError::Refused(status)),
        }
    }

    /// Returns the headers. The file is read with each batch, so that a new token needs no restart.
    async fn headers(&self) -> Result<HeaderMap, ExportError> {
        let mut headers = HeaderMap::new();
        if let Some(file) = &self.headers_file {
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

/// Returns the scope of what a part of the program sends.
pub(super) fn scope(name: &str) -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: name.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    })
}

fn build_resource(config: &OtlpConfig) -> Resource {
    let mut attributes: Vec<KeyValue> = vec![
        key_value("service.name", "tenantd"),
        key_value("service.version", env!("CARGO_PKG_VERSION")),
        key_value(INSTANCE_ID, random::hex::<16>()),
    ];
    attributes.retain(|attribute| !config.resource.contains_key(&attribute.key));
    attributes.extend(config.resource.iter().map(|(key, value)| key_value(key, &**value)));
    Resource { attributes, ..Resource::default() }
}

fn unreachable(error: reqwest::Error) -> ExportError {
    ExportError::Unreachable(error_chain::format_chain(&error.without_url()))
}

/// Reads the answer of a receiver that took a batch; of a long one, nothing.
async fn read_answer(mut response: Response) -> Result<Vec<u8>, ExportError> {
    let mut answer = Vec::new();
    // It has the batch, so what goes wrong from here on must not have it sent again.
    while let Ok(Some(chunk)) = response.chunk().await {
        if answer.len() + chunk.len() > MAX_ANSWER {
            return Ok(Vec::new());
        }
        answer.extend_from_slice(&chunk);
    }
    Ok(answer)
}

/// Returns the pause that an answer asks for, in seconds. A date is not read: it would be as right
/// as two clocks are.
fn parse_retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

fn parse_header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    let name = name.trim().to_ascii_lowercase().parse().ok()?;
    let mut value = HeaderValue::from_str(value.trim()).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}
