//! One exchange with any HTTP server that an operator names, for `tenantd migrate --compare`. It is
//! no call of a tenant: no key is sent, nothing is retried, and any response counts.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};

use super::exchange;
use super::pool::ConnectionChoice;
use super::{Error, Pool};

/// The largest response, in bytes.
const MAX_BODY: usize = 8 << 20;

/// A response.
#[derive(Debug)]
pub struct FetchedResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, or as much of it as was wanted.
    pub body: Bytes,
}

/// Sends a request and reads the response up to its end, or until `is_enough` says so of what has
/// arrived: an event stream may never end.
///
/// # Errors
/// No response arrived within `patience`, or it is too large.
pub async fn fetch(
    pool: &Pool,
    request: Request<Full<Bytes>>,
    patience: Duration,
    is_enough: impl Fn(&HeaderMap, &[u8]) -> bool,
) -> Result<FetchedResponse, Error> {
    let exchange = async {
        let sent = pool.connections(false).send(request, ConnectionChoice::Fresh).await;
        let (head, mut body) = sent.map_err(|error| exchange::error_of(&error))?.into_parts();
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                bytes.extend_from_slice(&data);
            }
            if bytes.len() > MAX_BODY {
                return Err(Error::TooLarge { limit: MAX_BODY });
            }
            if is_enough(&head.headers, &bytes) {
                break;
            }
        }
        Ok(FetchedResponse { status: head.status, headers: head.headers, body: bytes.into() })
    };
    tokio::time::timeout(patience, exchange).await.unwrap_or(Err(Error::TimedOut))
}
