//! Client authentication at the endpoints that clients call: none, a secret in the header or the
//! body (RFC 6749 section 2.3), or a signed assertion (`private_key_jwt`, RFC 7523). One method per
//! request.

mod assertion;

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use self::assertion::Assertion;
use super::client::{Client, ClientFault, Clients, Origin};
use super::error::Unavailable;
use super::issuer::Issuer;
use super::parameters::{ParameterFault, Parameters};
use super::reply;
use crate::base::body::Body;
use crate::base::digest::Digest;

/// How long a client waits for room to remember used assertions.
const REMEMBERED: Duration = Duration::from_secs(30);

/// An authenticated client.
#[derive(Debug)]
pub(super) struct Authenticated {
    pub(super) client: Client,
    /// Whether the client proved its identity, instead of only naming itself.
    pub(super) proven: bool,
    /// For machine clients, the digest of the secret or key that authenticated it.
    pub(super) by: Option<Digest>,
}

/// Why authentication fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// `invalid_request`
    Malformed(&'static str),
    Parameter(ParameterFault),
    /// `invalid_client`: unknown, or not proven. Claude registers anew after this error.
    Invalid {
        basic: bool,
    },
    Unavailable,
    /// Too many authentications are in progress, by this client or others. It says nothing about
    /// the client.
    Busy {
        wait: Duration,
    },
}

impl From<ParameterFault> for Fault {
    fn from(fault: ParameterFault) -> Self {
        Self::Parameter(fault)
    }
}

impl From<Unavailable> for Fault {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

/// The credentials that a request carries.
#[derive(Debug)]
enum Proof<'a> {
    Nothing,
    /// The secret form-decoded (RFC 6749 section 2.3.1), and as it was sent: `curl -u` and many
    /// other programs do not encode it.
    Basic {
        decoded: Option<Digest>,
        raw: Digest,
    },
    Post {
        secret: Digest,
    },
    Assertion(Box<Assertion<'a>>),
}

/// A client's request.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) parameters: &'a Parameters<'a>,
    /// The address that the request comes from.
    pub(super) source: IpAddr,
}

/// Authenticates the client of a request.
pub(super) async fn authenticate(
    issuer: &Issuer,
    clients: &Clients,
    asked: Asked<'_>,
) -> Result<Authenticated, Fault> {
    let (id, proof) = presented(asked.headers, asked.parameters)?;
    let refused = Fault::Invalid { basic: matches!(proof, Proof::Basic { .. }) };
    let client = clients.find(&id, asked.source).await.map_err(|fault| match fault {
        ClientFault::Unknown => refused,
        ClientFault::Unavailable => Fault::Unavailable,
        ClientFault::Busy { wait } => Fault::Busy { wait },
    })?;
    let ways = &client.authentication;
    // Compares every secret, so that the time taken does not reveal which one matched.
    let is_secret = |secret: &Digest| {
        ways.secrets.iter().fold(false, |same, known| same | known.same_in_constant_time(secret))
    };
    let mut by = None;
    let proven = match &proof {
        Proof::Nothing => ways.none,
        Proof::Basic { decoded, raw } => {
            by = [*decoded, Some(*raw)].into_iter().flatten().find(is_secret);
            ways.basic && by.is_some()
        }
        Proof::Post { secret } => {
            by = Some(*secret);
            ways.post && is_secret(secret)
        }
        Proof::Assertion(assertion) => match &ways.keys {
            Some(keys) => {
                let keys = clients.keys(keys, &client, asked.source).await.map_err(|fault| match fault {
                    ClientFault::Busy { wait } => Fault::Busy { wait },
                    ClientFault::Unknown | ClientFault::Unavailable => Fault::Unavailable,
                })?;
                let good = assertion.is_good(issuer, &client, &keys, asked.source);
                let good = good.map_err(|assertion::Full| Fault::Busy { wait: REMEMBERED })?;
                // Only machine clients need the key: replacing it invalidates their tokens.
                by = (good && client.origin == Origin::Machine).then(|| assertion.signer(&keys)).flatten();
                good
            }
            None => false,
        },
    };
    match proven {
        true => Ok(Authenticated { client, proven: !matches!(proof, Proof::Nothing), by }),
        false => Err(refused),
    }
}

/// Returns the client's id and its credentials, from the header or the parameters.
fn presented<'a>(headers: &HeaderMap, parameters: &'a Parameters<'_>) -> Result<(String, Proof<'a>), Fault> {
    let said = parameters.one("client_id")?;
    let secret = parameters.one("client_secret")?;
    let assertion = parameters.one("client_assertion")?;
    let basic = basic(headers)?;
    if usize::from(basic.is_some()) + usize::from(secret.is_some()) + usize::from(assertion.is_some()) > 1 {
        return Err(Fault::Malformed("the client proves itself in two ways at once; use one"));
    }
    let (id, proof) = if let Some((id, proof)) = basic {
        (Some(id), proof)
    } else if let Some(assertion) = assertion {
        let assertion = read_assertion(assertion, parameters)?;
        (Some(assertion.client_id().to_owned()), Proof::Assertion(Box::new(assertion)))
    } else {
        let post = |secret: &str| Proof::Post { secret: Digest::of(secret.as_bytes()) };
        (None, secret.map_or(Proof::Nothing, post))
    };
    match (id, said) {
        (Some(id), Some(said)) if id != said => {
            Err(Fault::Malformed("client_id names another client than the one that proves itself"))
        }
        (Some(id), _) => Ok((id, proof)),
        (None, Some(said)) => Ok((said.to_owned(), proof)),
        (None, None) => Err(Fault::Malformed("client_id is missing")),
    }
}

fn read_assertion<'a>(text: &'a str, parameters: &Parameters<'_>) -> Result<Assertion<'a>, Fault> {
    match parameters.one("client_assertion_type")? {
        Some(assertion::TYPE) => Assertion::read(text).ok_or(Fault::Invalid { basic: false }),
        _ => Err(Fault::Malformed(
            "client_assertion_type must be urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        )),
    }
}

/// Reads id and secret of a Basic header. Ids are ours, and have the same text in both encodings.
fn basic<'a>(headers: &HeaderMap) -> Result<Option<(String, Proof<'a>)>, Fault> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let refused = Fault::Invalid { basic: true };
    if values.next().is_some() {
        return Err(Fault::Malformed("there is more than one Authorization header"));
    }
    let (scheme, rest) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(refused)?;
    let decoded = BASE64_STANDARD.decode(rest.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("Basic"));
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(refused)?;
    let (id, secret) = decoded.split_once(':').ok_or(refused)?;
    let plain = |text: &str| super::parameters::decode(text.as_bytes()).map(|text| text.into_owned());
    let id = plain(id).map_err(|_| refused)?;
    let decoded = plain(secret).ok().map(|secret| Digest::of(secret.as_bytes()));
    Ok(Some((id, Proof::Basic { decoded, raw: Digest::of(secret.as_bytes()) })))
}

impl Fault {
    /// Returns the word for the audit log.
    pub(super) fn class(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Parameter(_) => "invalid_request",
            Self::Invalid { .. } => "invalid_client",
            Self::Unavailable => "unavailable",
            Self::Busy { .. } => "busy",
        }
    }

    /// Returns the response for the client (RFC 6749 section 5.2).
    pub(super) fn answer(self) -> Response<Body> {
        match self {
            Self::Malformed(what) => reply::error(StatusCode::BAD_REQUEST, "invalid_request", what),
            Self::Parameter(fault) => {
                reply::error(StatusCode::BAD_REQUEST, "invalid_request", &fault.to_string())
            }
            Self::Unavailable => {
                reply::unavailable("the gateway cannot look the client up now", reply::RETRY)
            }
            Self::Busy { wait } => {
                let what = "too many clients prove themselves here now; wait as long as Retry-After says";
                reply::unavailable(what, wait)
            }
            Self::Invalid { basic } => {
                let what = "the client is unknown here or did not prove itself; remove the connector and add it again";
                let mut response = reply::error(StatusCode::UNAUTHORIZED, "invalid_client", what);
                if basic {
                    let challenge = HeaderValue::from_static(r#"Basic realm="token""#);
                    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
                }
                response
            }
        }
    }
}

#[cfg(test)]
mod tests;
