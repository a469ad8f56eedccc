//! Tells a webhook: one POST under a deadline. Redirects are not followed, and of the answer only
//! the status counts.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use url::Url;

use super::delivery::DeliveryFailure;
use super::event::Event;
use crate::base::headers::parse_retry_after;
use crate::base::webhook_signature::SigningKeys;
use crate::base::{disk, error_chain, http_client};
use crate::settings::{WebhookAddress, WebhookFormat, WebhookSettings, parse_webhook_url};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From the connection to the head of the answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest file with a URL.
const MAX_URL_BYTES: u64 = 8 << 10;

/// A webhook and the client for it.
pub(super) struct Webhook {
    settings: WebhookSettings,
    client: OnceLock<Option<reqwest::Client>>,
}

impl Webhook {
    pub(super) fn new(settings: WebhookSettings) -> Self {
        Self { settings, client: OnceLock::new() }
    }

    /// Returns where it is, without what may be a secret.
    pub(super) fn describe(&self) -> String {
        match &self.settings.address {
            WebhookAddress::Url(url) => url.origin().ascii_serialization(),
            WebhookAddress::File(path) => format!("the URL in {}", path.display()),
        }
    }

    /// Sends an event. Returns the status, if it is a success.
    pub(super) async fn send(&self, event: &Event, now: Timestamp) -> Result<String, DeliveryFailure> {
        let (url, keys) = self.read_files().await?;
        let client = self.client().ok_or_else(|| {
            DeliveryFailure::new("this machine trusts no certificate authority; install its CA certificates")
        })?;
        let body = match self.settings.format {
            WebhookFormat::Json => event.to_json(),
            WebhookFormat::Slack => event.to_slack(),
            WebhookFormat::Teams => event.to_teams(),
        };
        let mut request = client
            .post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", &event.id)
            .header("webhook-timestamp", now.as_second());
        if let Some(keys) = keys {
            request = request.header("webhook-signature", keys.sign(&event.id, now, &body));
        }
        // The body of the answer is not read: it may be long, and never end.
        let answer = request.body(body).send().await.map_err(to_failure)?;
        judge(answer.status(), answer.headers(), now)
    }

    /// Reads the URL and the keys, which may have been replaced since the last event.
    async fn read_files(&self) -> Result<(Url, Option<SigningKeys>), DeliveryFailure> {
        let settings = self.settings.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let url = match &settings.address {
                WebhookAddress::Url(url) => url.clone(),
                WebhookAddress::File(path) => read_url(path)?,
            };
            Ok((url, settings.secret_file.as_deref().map(SigningKeys::read).transpose()?))
        });
        let read = tokio::time::timeout(RESPONSE_TIMEOUT, reading).await;
        match read {
            Ok(Ok(read)) => read.map_err(|why: String| DeliveryFailure::new(why)),
            Ok(Err(_)) | Err(_) => Err(DeliveryFailure::new("its files cannot be read in time")),
        }
    }

    /// Created at the first event, since a machine without CA certificates must be able to start.
    fn client(&self) -> Option<&reqwest::Client> {
        let client = self.client.get_or_init(|| {
            let builder = http_client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(RESPONSE_TIMEOUT)
                // Events are rare, and the body of the last answer was not read.
                .pool_max_idle_per_host(0);
            let built = builder.build();
            built.inspect_err(|error| tracing::error!(%error, "no HTTP client for webhooks")).ok()
        });
        client.as_ref()
    }
}

fn read_url(path: &Path) -> Result<Url, String> {
    let describe = |why: &str| format!("the URL in {} cannot be used: {why}", path.display());
    let text = disk::read_text(path, MAX_URL_BYTES).map_err(|error| describe(&error.to_string()))?;
    parse_webhook_url(&text).ok_or_else(|| describe("it is not an http or https URL without a user name"))
}

/// Decides by the status whether the event arrived.
fn judge(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Result<String, DeliveryFailure> {
    if status.is_success() {
        return Ok(status.to_string());
    }
    let why = match status {
        status if status.is_redirection() => {
            format!("it answered {status}; redirects are not followed, so write the URL that it leads to")
        }
        status => format!("it answered {status}"),
    };
    Err(DeliveryFailure { why, retry_after: parse_retry_after(headers, now) })
}

/// Returns the failure without the URL, which may be a secret.
fn to_failure(error: reqwest::Error) -> DeliveryFailure {
    match error.is_timeout() {
        true => DeliveryFailure::new("it did not answer in time"),
        false => DeliveryFailure::new(error_chain::format_chain(&error.without_url())),
    }
}
