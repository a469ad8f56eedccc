//! One exchange with a backend: sends, retries while nothing was sent, follows redirects within the origin.

use std::time::Duration;

use bytes::Bytes;
use http::header::LOCATION;
use http::{Method, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy;
use url::Url;

use super::connector::ConnectFault;
use super::outgoing::Outgoing;
use super::{Error, Pool};
use crate::base::causes::causes;
use crate::base::random;

const RETRIES: usize = 2;
const REDIRECTS: usize = 3;

/// Sends the request until there is an answer that is no redirect. The caller sets the deadline.
pub(super) async fn exchange(pool: &Pool, mut outgoing: Outgoing) -> Result<Response<Incoming>, Error> {
    for _ in 0..=REDIRECTS {
        let response = send(pool, &outgoing).await?;
        if !is_redirect(response.status()) {
            return Ok(response);
        }
        outgoing.uri = redirect_target(&outgoing, &response)?;
    }
    Err(Error::Refused { status: 302, detail: Some("it redirects again and again".into()) })
}

/// Retries only what cannot have reached the backend: a search may be dear, and is asked once.
async fn send(pool: &Pool, outgoing: &Outgoing) -> Result<Response<Incoming>, Error> {
    for attempt in 0.. {
        let error = match pool.send(outgoing.request()).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        let fault = Fault::of(&error);
        tracing::debug!(
            backend = outgoing.origin(),
            attempt,
            fault = fault.error.class(),
            cause = deepest(&error),
            "backend call failed"
        );
        if !fault.worth_retrying || attempt == RETRIES {
            return Err(fault.error);
        }
        tokio::time::sleep(jitter()).await;
    }
    unreachable!("the loop ends at the last attempt")
}

/// 20 to 84 ms, so that callers who failed together don't come back together.
fn jitter() -> Duration {
    Duration::from_millis(20 + u64::from(random::bytes::<1>()[0] / 4))
}

/// What a transport error means.
struct Fault {
    error: Error,
    worth_retrying: bool,
}

impl Fault {
    fn of(error: &legacy::Error) -> Self {
        let connect = causes(error).find_map(|cause| cause.downcast_ref::<ConnectFault>());
        if let Some(fault) = connect {
            return Self::of_connect(fault);
        }
        // Canceled: the connection closed before hyper took the request from its queue.
        let canceled =
            causes(error).filter_map(|cause| cause.downcast_ref::<hyper::Error>()).any(|e| e.is_canceled());
        if error.is_connect() || canceled {
            return Self { error: Error::Unreachable, worth_retrying: true };
        }
        Self { error: Error::BrokenOff, worth_retrying: false }
    }

    fn of_connect(fault: &ConnectFault) -> Self {
        let (error, worth_retrying) = match fault {
            ConnectFault::Forbidden => (Error::AddressRefused, false),
            ConnectFault::NoHost => (Error::BadRequest, false),
            ConnectFault::NoAddress | ConnectFault::TimedOut => (Error::Unreachable, false),
            ConnectFault::Io(error) => match error.get_ref().and_then(|cause| cause.downcast_ref()) {
                Some(rustls::Error::InvalidCertificate(_)) => (Error::Untrusted, false),
                Some(_) => (Error::Unreachable, false),
                None => (Error::Unreachable, true),
            },
        };
        Self { error, worth_retrying }
    }
}

fn deepest(error: &legacy::Error) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads, if it may be followed: within the origin, since the key is that origin's; and only from
/// GET, since a search must not be sent twice.
fn redirect_target(from: &Outgoing, response: &Response<Incoming>) -> Result<Uri, Error> {
    let status = response.status().as_u16();
    let target = location(&from.uri, response)
        .ok_or_else(|| Error::Refused { status, detail: Some("it redirects to nowhere".into()) })?;
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

fn location(from: &Uri, response: &Response<Incoming>) -> Option<Url> {
    let text = response.headers().get(LOCATION)?.to_str().ok()?;
    let mut target = Url::parse(&from.to_string()).ok()?.join(text).ok()?;
    target.set_fragment(None);
    Some(target)
}

/// The body, as far as it fits under `cap`.
pub(super) async fn collect(mut body: Incoming, cap: usize) -> Result<Bytes, Error> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > cap {
        return Err(Error::TooLarge { limit: cap });
    }
    let mut all = Vec::with_capacity(announced);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Error::BrokenOff)?.into_data() else { continue };
        if all.len() + data.len() > cap {
            return Err(Error::TooLarge { limit: cap });
        }
        all.extend_from_slice(&data);
    }
    Ok(all.into())
}
