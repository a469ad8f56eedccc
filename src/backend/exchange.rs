//! One exchange with a backend: sends the request, resends it where that is safe, and follows
//! redirects within the origin.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::LOCATION;
use http::{Method, Response, StatusCode, Uri};
use hyper_util::client::legacy;
use rustls::AlertDescription;
use url::Url;

use super::Error;
use super::body::ResponseBody;
use super::connector::ConnectError;
use super::meter::ConnectionMeter;
use super::pool::{ConnectionChoice, Connections};
use super::request::BackendRequest;
use crate::base::clock::Clock;
use crate::base::error_chain::causes;
use crate::base::random;

const MAX_RETRIES: usize = 2;
const MAX_REDIRECTS: usize = 3;
/// A connection that closes later than this after a request did not close for having been idle.
const IDLE_CLOSE_WINDOW: Duration = Duration::from_secs(1);

/// Sends the request and follows redirects until there is a final response. The caller sets the
/// deadline.
pub(super) async fn exchange(
    connections: &Connections,
    clock: &dyn Clock,
    mut request: BackendRequest,
) -> Result<Response<ResponseBody>, Error> {
    for _ in 0..=MAX_REDIRECTS {
        let response = send(connections, clock, &request).await?;
        if !is_redirect(response.status()) {
            return Ok(response);
        }
        request.uri = redirect_target(&request, &response)?;
    }
    Err(Error::Refused { status: 302, detail: Some("it redirects too many times".into()) })
}

/// Sends one request, and resends it only if it certainly was not processed, since searches are
/// costly.
async fn send(
    connections: &Connections,
    clock: &dyn Clock,
    request: &BackendRequest,
) -> Result<Response<ResponseBody>, Error> {
    let mut choice = ConnectionChoice::Pooled;
    for attempt in 0.. {
        let started = clock.monotonic();
        let error = match connections.send(request.to_http_request(), choice).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        let failure =
            TransportFailure::from_error(&error, clock.monotonic().saturating_duration_since(started));
        tracing::debug!(
            backend = request.origin(),
            attempt,
            fault = failure.error.class(),
            cause = root_cause(&error),
            "backend call failed"
        );
        match failure.retry {
            RetryDecision::AfterDelay if attempt < MAX_RETRIES => tokio::time::sleep(jitter()).await,
            RetryDecision::OnNewConnection if choice == ConnectionChoice::Pooled => {
                choice = ConnectionChoice::Fresh
            }
            _ => return Err(failure.error),
        }
    }
    unreachable!("the loop ends at the last attempt")
}

/// Returns the reason why a single attempt failed.
pub(super) fn error_of(error: &legacy::Error) -> Error {
    TransportFailure::from_error(error, Duration::MAX).error
}

/// Returns 20 to 84 ms, so that callers that failed together do not retry in step.
fn jitter() -> Duration {
    Duration::from_millis(20 + u64::from(random::bytes::<1>()[0] / 4))
}

/// The classification of a transport error.
struct TransportFailure {
    error: Error,
    retry: RetryDecision,
}

/// Whether and how a request is resent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RetryDecision {
    /// The request may have been processed, or would fail the same way again.
    Never,
    /// Nothing was sent: retry a moment later, a few times.
    AfterDelay,
    /// The request was sent and certainly not processed: retry once, on a new connection.
    OnNewConnection,
}

impl TransportFailure {
    /// Classifies an error. `waited` is how long the attempt took.
    fn from_error(error: &legacy::Error, waited: Duration) -> Self {
        let connect = causes(error).find_map(|cause| cause.downcast_ref::<ConnectError>());
        if let Some(failure) = connect {
            return Self::from_connect_error(failure);
        }
        // Canceled: the connection closed before hyper took the request from its queue.
        let canceled =
            causes(error).filter_map(|cause| cause.downcast_ref::<hyper::Error>()).any(|e| e.is_canceled());
        if error.is_connect() || canceled {
            return Self { error: Error::Unreachable, retry: RetryDecision::AfterDelay };
        }
        let was_not_processed =
            is_refused_by_http2(error) || (waited < IDLE_CLOSE_WINDOW && is_reused_and_silent(error));
        let retry = if was_not_processed { RetryDecision::OnNewConnection } else { RetryDecision::Never };
        Self { error: Error::from_response_error(error), retry }
    }

    fn from_connect_error(failure: &ConnectError) -> Self {
        let (error, retry) = match failure {
            ConnectError::Forbidden => (Error::AddressRefused, RetryDecision::Never),
            ConnectError::NoHost => (Error::BadRequest, RetryDecision::Never),
            ConnectError::NoAddress(_) | ConnectError::TimedOut => (Error::Unreachable, RetryDecision::Never),
            ConnectError::ProxyLogin => (Error::ProxyLogin, RetryDecision::Never),
            ConnectError::Proxy(cause) if causes(&**cause).any(is_local_connect_failure) => {
                (Error::GatewayBusy, RetryDecision::Never)
            }
            ConnectError::Proxy(_) => (Error::ProxyRefused, RetryDecision::Never),
            ConnectError::Io(error) => match error.get_ref().and_then(|cause| cause.downcast_ref()) {
                Some(rustls::Error::InvalidCertificate(_)) => (Error::Untrusted, RetryDecision::Never),
                Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
                    (Error::OnlyHttp2, RetryDecision::Never)
                }
                Some(_) => (Error::NoTls, RetryDecision::Never),
                None if is_local_exhaustion(error) => (Error::GatewayBusy, RetryDecision::Never),
                None => (Error::Unreachable, RetryDecision::AfterDelay),
            },
        };
        Self { error, retry }
    }
}

/// Whether this machine lacks the resources for a connection: files, ports or memory.
fn is_local_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|error| exhausted.contains(&error))
}

fn is_local_connect_failure(cause: &(dyn std::error::Error + 'static)) -> bool {
    matches!(cause.downcast_ref(), Some(ConnectError::Io(error)) if is_local_exhaustion(error))
}

/// Whether the peer guarantees that it did not process the request: it refused the stream, or its
/// GOAWAY excludes the stream (RFC 9113 sections 6.8 and 8.7).
fn is_refused_by_http2(error: &legacy::Error) -> bool {
    causes(error).filter_map(|cause| cause.downcast_ref::<h2::Error>()).any(|error| {
        let is_shutdown = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        error.is_remote() && (is_shutdown || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

/// Whether the peer closed a reused connection without any response, because its idle timeout
/// crossed the request on the wire.
///
/// RFC 9110 section 9.2.2 permits such a retry to clients that know it to be safe; searches change
/// nothing.
fn is_reused_and_silent(error: &legacy::Error) -> bool {
    let mut extensions = http::Extensions::new();
    error.connect_info().inspect(|connected| connected.get_extras(&mut extensions));
    extensions.get::<Arc<ConnectionMeter>>().is_some_and(|meter| meter.is_reused_and_silent())
}

fn root_cause(error: &legacy::Error) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Returns the target of a redirect, if it may be followed.
///
/// It must be within the origin, to which the key belongs, and the request a GET, since a search
/// must not be sent twice.
fn redirect_target(from: &BackendRequest, response: &Response<ResponseBody>) -> Result<Uri, Error> {
    let status = response.status().as_u16();
    let target = location(&from.uri, response)
        .ok_or_else(|| Error::Refused { status, detail: Some("it redirects without a target".into()) })?;
    let origin = Url::parse(&from.uri.to_string()).map_err(|_| Error::BadRequest)?.origin();
    if target.origin() != origin {
        return Err(Error::RedirectRefused);
    }
    if from.method != Method::GET {
        let detail = Some(format!("it redirects to {}", target.path()));
        return Err(Error::Refused { status, detail });
    }
    target.as_str().parse().map_err(|_| Error::BadRequest)
}

fn location(from: &Uri, response: &Response<ResponseBody>) -> Option<Url> {
    let text = response.headers().get(LOCATION)?.to_str().ok()?;
    let mut target = Url::parse(&from.to_string()).ok()?.join(text).ok()?;
    target.set_fragment(None);
    Some(target)
}
