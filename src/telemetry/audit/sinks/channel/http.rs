//! Audit lines over HTTP: POST requests with one line of JSON for each event
//! (`application/x-ndjson`). Any status of success means that all were taken.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{StatusCode, header};

use super::super::config::HttpConfig;
use super::{CONNECT_TIMEOUT, Delivery, SEND_TIMEOUT, SendFailure};
use crate::base::clock::{Clock, SystemClock};
use crate::base::digest::Digest;
use crate::base::headers::parse_retry_after;
use crate::base::secret::Secret;
use crate::base::webhook_signature::SigningKeys;
use crate::base::{disk, error_chain, http_client, tls_client};

const MAX_LINES: usize = 500;
/// The largest file with a token.
const MAX_TOKEN_BYTES: u64 = 16 << 10;
/// How much of an answer is read, so that its connection can be used again.
const MAX_ANSWER_BYTES: usize = 64 << 10;

pub(in crate::telemetry::audit::sinks) struct HttpChannel {
    config: Arc<HttpConfig>,
    clock: Arc<dyn Clock>,
    client: Option<reqwest::Client>,
    /// Halved while the receiver finds requests too large.
    max_lines: usize,
}

/// What is read from files for each request, since it may have been replaced.
struct Credentials {
    token: Option<Secret>,
    keys: Option<SigningKeys>,
}

impl HttpChannel {
    pub(super) fn new(config: HttpConfig) -> Self {
        Self { config: Arc::new(config), clock: SystemClock::shared(), client: None, max_lines: MAX_LINES }
    }

    pub(super) fn max_lines(&self) -> usize {
        self.max_lines
    }

    pub(super) async fn send(&mut self, lines: &[Vec<u8>]) -> Result<Delivery, SendFailure> {
        let credentials = self.read_credentials().await?;
        let client = self.client().await?;
        let (now, body) = (self.clock.now(), lines.concat());
        // The same lines have the same id whenever they are sent.
        let id = format!("audit_{}", Digest::of(&body).short());
        let mut request = client
            .post(self.config.url.clone())
            .header(header::CONTENT_TYPE, "application/x-ndjson")
            .header("webhook-id", &id)
            .header("webhook-timestamp", now.as_second());
        if let Some(token) = &credentials.token {
            request = request.bearer_auth(token.expose());
        }
        if let Some(keys) = &credentials.keys {
            request = request.header("webhook-signature", keys.sign(&id, now, &body));
        }
        let mut response = request.body(body).send().await.map_err(to_failure)?;
        let status = response.status();
        let retry_after = parse_retry_after(response.headers(), now);
        let mut read = 0;
        while read < MAX_ANSWER_BYTES
            && let Ok(Some(piece)) = response.chunk().await
        {
            read += piece.len();
        }
        self.judge(status).map_err(|why| SendFailure { why, retry_after })
    }

    /// Decides by the status whether the lines were taken.
    fn judge(&mut self, status: StatusCode) -> Result<Delivery, String> {
        if status.is_success() {
            self.max_lines = (self.max_lines * 2).min(MAX_LINES);
            return Ok(Delivery { is_confirmed: true, oversized: 0 });
        }
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            self.max_lines = (self.max_lines / 2).max(1);
        }
        Err(match status.is_redirection() {
            true => {
                format!("it answered {status}; redirects are not followed, so write the URL that it leads to")
            }
            false => format!("it answered {status}"),
        })
    }

    async fn read_credentials(&self) -> Result<Credentials, SendFailure> {
        let config = Arc::clone(&self.config);
        let reading = tokio::task::spawn_blocking(move || {
            Ok(Credentials {
                token: config.token_file.as_deref().map(read_token).transpose()?,
                keys: config.secret_file.as_deref().map(SigningKeys::read).transpose()?,
            })
        });
        let read = tokio::time::timeout(SEND_TIMEOUT, reading).await??;
        read.map_err(|why: String| SendFailure::new(why))
    }

    /// Returns the client. It is created at the first batch, since a machine without CA
    /// certificates must be able to start.
    async fn client(&mut self) -> Result<reqwest::Client, SendFailure> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let ca_file: Option<PathBuf> = self.config.ca_file.clone();
        let reading = tokio::task::spawn_blocking(move || tls_client::config(ca_file.as_deref()));
        let builder = http_client::builder()
            .tls_backend_preconfigured(reading.await??)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(SEND_TIMEOUT);
        Ok(self.client.insert(builder.build()?).clone())
    }
}

fn read_token(path: &Path) -> Result<Secret, String> {
    let describe = |why: &str| format!("the token in {} cannot be used: {why}", path.display());
    let text = disk::read_text(path, MAX_TOKEN_BYTES).map_err(|error| describe(&error.to_string()))?;
    let token = text.trim();
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_token { Ok(Secret::new(token)) } else { Err(describe("it is not one word of ASCII characters")) }
}

/// Returns the failure without the URL, which may be a secret.
fn to_failure(error: reqwest::Error) -> SendFailure {
    match error.is_timeout() {
        true => SendFailure::new("it did not answer in time"),
        false => SendFailure::new(error_chain::format_chain(&error.without_url())),
    }
}
