//! Client authentication at the endpoints that clients call: none, a secret in the header or the
//! body (RFC 6749 section 2.3), or a signed assertion (`private_key_jwt`, RFC 7523). One method per
//! request.

mod assertion;

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use self::assertion::ClientAssertion;
use super::client::{ClientLookupError, ClientOrigin, ClientRegistry, OAuthClient};
use super::error::Unavailable;
use super::issuer::Issuer;
use super::parameters::{ParameterError, Parameters};
use super::response;
use crate::base::body::Body;
use crate::base::digest::Digest;

/// How long a client waits for room to remember used assertions.
const REPLAY_CACHE_RETRY_AFTER: Duration = Duration::from_secs(30);

/// An authenticated client.
#[derive(Debug)]
pub(super) struct AuthenticatedClient {
    pub(super) client: OAuthClient,
    /// Whether the client proved its identity, instead of only naming itself.
    pub(super) is_proven: bool,
    /// For machine clients, the digest of the secret or key that authenticated it.
    pub(super) credential_digest: Option<Digest>,
}

/// Why authentication fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientAuthError {
    /// `invalid_request`
    Malformed(&'static str),
    Parameter(ParameterError),
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

impl From<ParameterError> for ClientAuthError {
    fn from(fault: ParameterError) -> Self {
        Self::Parameter(fault)
    }
}

impl From<Unavailable> for ClientAuthError {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

/// The credentials that a request carries.
#[derive(Debug)]
enum ClientCredential<'a> {
    Absent,
    /// The secret form-decoded (RFC 6749 section 2.3.1), and as it was sent: `curl -u` and many
    /// other programs do not encode it.
    Basic {
        decoded: Option<Digest>,
        raw: Digest,
    },
    Post {
        secret: Digest,
    },
    Assertion(Box<ClientAssertion<'a>>),
}

/// A client's request.
#[derive(Clone, Copy)]
pub(super) struct ClientRequest<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) parameters: &'a Parameters<'a>,
    /// The address that the request comes from.
    pub(super) source: IpAddr,
}

/// Authenticates the client of a request.
pub(super) async fn authenticate(
    issuer: &Issuer,
    clients: &ClientRegistry,
    asked: ClientRequest<'_>,
) -> Result<AuthenticatedClient, ClientAuthError> {
    let (id, proof) = extract_credential(asked.headers, asked.parameters)?;
    let refused = ClientAuthError::Invalid { basic: matches!(proof, ClientCredential::Basic { .. }) };
    let client = clients.find(&id, asked.source).await.map_err(|fault| match fault {
        ClientLookupError::Unknown => refused,
        ClientLookupError::Unavailable => ClientAuthError::Unavailable,
        ClientLookupError::Busy { wait } => ClientAuthError::Busy { wait },
    })?;
    let ways = &client.authentication;
    // Compares every secret, so that the time taken does not reveal which one matched.
    let is_secret =
        |secret: &Digest| ways.secrets.iter().fold(false, |same, known| same | known.ct_eq(secret));
    let mut by = None;
    let proven = match &proof {
        ClientCredential::Absent => ways.none,
        ClientCredential::Basic { decoded, raw } => {
            by = [*decoded, Some(*raw)].into_iter().flatten().find(is_secret);
            ways.basic && by.is_some()
        }
        ClientCredential::Post { secret } => {
            by = Some(*secret);
            ways.post && is_secret(secret)
        }
        ClientCredential::Assertion(assertion) => match &ways.keys {
            Some(keys) => {
                let keys =
                    clients.load_keys(keys, &client, asked.source).await.map_err(|fault| match fault {
                        ClientLookupError::Busy { wait } => ClientAuthError::Busy { wait },
                        ClientLookupError::Unknown | ClientLookupError::Unavailable => {
                            ClientAuthError::Unavailable
                        }
                    })?;
                let good = assertion.verify(issuer, &client, &keys, asked.source);
                let good = good.map_err(|assertion::ReplayCacheFull| ClientAuthError::Busy {
                    wait: REPLAY_CACHE_RETRY_AFTER,
                })?;
                // Only machine clients need the key: replacing it invalidates their tokens.
                by = (good && client.origin == ClientOrigin::Machine)
                    .then(|| assertion.find_signing_key(&keys))
                    .flatten();
                good
            }
            None => false,
        },
    };
    match proven {
        true => Ok(AuthenticatedClient {
            client,
            is_proven: !matches!(proof, ClientCredential::Absent),
            credential_digest: by,
        }),
        false => Err(refused),
    }
}

/// Returns the client's id and its credentials, from the header or the parameters.
fn extract_credential<'a>(
    headers: &HeaderMap,
    parameters: &'a Parameters<'_>,
) -> Result<(String, ClientCredential<'a>), ClientAuthError> {
    let said = parameters.get("client_id")?;
    let secret = parameters.get("client_secret")?;
    let assertion = parameters.get("client_assertion")?;
    let basic = parse_basic_header(headers)?;
    if usize::from(basic.is_some()) + usize::from(secret.is_some()) + usize::from(assertion.is_some()) > 1 {
        return Err(ClientAuthError::Malformed("the client proves itself in two ways at once; use one"));
    }
    let (id, proof) = if let Some((id, proof)) = basic {
        (Some(id), proof)
    } else if let Some(assertion) = assertion {
        let assertion = parse_assertion(assertion, parameters)?;
        (Some(assertion.client_id().to_owned()), ClientCredential::Assertion(Box::new(assertion)))
    } else {
        let post = |secret: &str| ClientCredential::Post { secret: Digest::of(secret.as_bytes()) };
        (None, secret.map_or(ClientCredential::Absent, post))
    };
    match (id, said) {
        (Some(id), Some(said)) if id != said => {
            Err(ClientAuthError::Malformed("client_id names another client than the one that proves itself"))
        }
        (Some(id), _) => Ok((id, proof)),
        (None, Some(said)) => Ok((said.to_owned(), proof)),
        (None, None) => Err(ClientAuthError::Malformed("client_id is missing")),
    }
}

fn parse_assertion<'a>(
    text: &'a str,
    parameters: &Parameters<'_>,
) -> Result<ClientAssertion<'a>, ClientAuthError> {
    match parameters.get("client_assertion_type")? {
        Some(assertion::ASSERTION_TYPE) => {
            ClientAssertion::parse(text).ok_or(ClientAuthError::Invalid { basic: false })
        }
        _ => Err(ClientAuthError::Malformed(
            "client_assertion_type must be urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        )),
    }
}

/// Reads id and secret of a Basic header. Ids are ours, and have the same text in both encodings.
fn parse_basic_header<'a>(
    headers: &HeaderMap,
) -> Result<Option<(String, ClientCredential<'a>)>, ClientAuthError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let refused = ClientAuthError::Invalid { basic: true };
    if values.next().is_some() {
        return Err(ClientAuthError::Malformed("there is more than one Authorization header"));
    }
    let (scheme, rest) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(refused)?;
    let decoded = BASE64_STANDARD.decode(rest.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("Basic"));
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(refused)?;
    let (id, secret) = decoded.split_once(':').ok_or(refused)?;
    let plain =
        |text: &str| super::parameters::decode_component(text.as_bytes()).map(|text| text.into_owned());
    let id = plain(id).map_err(|_| refused)?;
    let decoded = plain(secret).ok().map(|secret| Digest::of(secret.as_bytes()));
    Ok(Some((id, ClientCredential::Basic { decoded, raw: Digest::of(secret.as_bytes()) })))
}

impl ClientAuthError {
    /// Returns the word for the audit log.
    pub(super) fn audit_label(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Parameter(_) => "invalid_request",
            Self::Invalid { .. } => "invalid_client",
            Self::Unavailable => "unavailable",
            Self::Busy { .. } => "busy",
        }
    }

    /// Returns the response for the client (RFC 6749 section 5.2).
    pub(super) fn into_response(self) -> Response<Body> {
        match self {
            Self::Malformed(what) => response::error(StatusCode::BAD_REQUEST, "invalid_request", what),
            Self::Parameter(fault) => {
                response::error(StatusCode::BAD_REQUEST, "invalid_request", &fault.to_string())
            }
            Self::Unavailable => {
                response::unavailable("the gateway cannot look the client up now", response::RETRY_DELAY)
            }
            Self::Busy { wait } => {
                let what = "too many clients prove themselves here now; wait as long as Retry-After says";
                response::unavailable(what, wait)
            }
            Self::Invalid { basic } => {
                let what = "the client is unknown here or did not prove itself; remove the connector and add it again";
                let mut response = response::error(StatusCode::UNAUTHORIZED, "invalid_client", what);
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
