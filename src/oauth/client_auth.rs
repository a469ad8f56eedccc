//! Client authentication at the endpoints that clients call: none, a secret in the header or the
//! body (RFC 6749 section 2.3), or a signed assertion (`private_key_jwt`, RFC 7523). One method per
//! request.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, header};

use super::authorization_server::{AuthServer, RequestMeta};
use super::client::assertion::{self, ClientAssertion, UseError};
use super::client::{ClientLookupError, ClientOrigin, OAuthClient};
use super::error::Unavailable;
use super::parameters::{ParameterError, Parameters, decode_component};
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

/// The proof of a client's identity.
struct Proof {
    /// The digest of the secret or key that proves it, as far as anyone asks for it.
    credential: Option<Digest>,
}

/// A form that a client posts to one of its endpoints.
pub(super) struct ClientForm<'a> {
    headers: &'a HeaderMap,
    pub(super) parameters: Parameters<'a>,
    /// The address that the request comes from.
    source: IpAddr,
}

impl<'a> ClientForm<'a> {
    /// Parses the form of a request.
    pub(super) fn parse(request: &'a Request<Bytes>, meta: RequestMeta<'_>) -> Result<Self, ParameterError> {
        let headers = request.headers();
        let parameters = Parameters::from_form(headers, request.body())?;
        Ok(Self { headers, parameters, source: meta.source })
    }

    /// Authenticates the client that posts the form.
    pub(super) async fn authenticate(
        &self,
        server: &AuthServer,
    ) -> Result<AuthenticatedClient, ClientAuthError> {
        let (id, credential) = extract_credential(self.headers, &self.parameters)?;
        let invalid =
            ClientAuthError::Invalid { basic: matches!(credential, ClientCredential::Basic { .. }) };
        let client = server.clients.find(&id, self.source).await.map_err(|error| match error {
            ClientLookupError::Unknown => invalid,
            ClientLookupError::Unavailable => ClientAuthError::Unavailable,
            ClientLookupError::Busy { wait } => ClientAuthError::Busy { wait },
        })?;
        let proof = self.verify_credential(server, &client, &credential).await?.ok_or(invalid)?;
        let is_proven = !matches!(credential, ClientCredential::Absent);
        Ok(AuthenticatedClient { client, is_proven, credential_digest: proof.credential })
    }

    /// Verifies the credential in the way that the client is allowed to prove itself in; returns
    /// `None` if it is wrong.
    async fn verify_credential(
        &self,
        server: &AuthServer,
        client: &OAuthClient,
        credential: &ClientCredential<'_>,
    ) -> Result<Option<Proof>, ClientAuthError> {
        let allowed = &client.authentication;
        // Compares every secret, so that the time taken does not reveal which one matched.
        let is_secret =
            |secret: &Digest| allowed.secrets.iter().fold(false, |same, known| same | known.ct_eq(secret));
        Ok(match credential {
            ClientCredential::Absent => allowed.none.then_some(Proof { credential: None }),
            ClientCredential::Basic { decoded, raw } => {
                let secret = [*decoded, Some(*raw)].into_iter().flatten().find(is_secret);
                secret.filter(|_| allowed.basic).map(|secret| Proof { credential: Some(secret) })
            }
            ClientCredential::Post { secret } => {
                (allowed.post && is_secret(secret)).then_some(Proof { credential: Some(*secret) })
            }
            ClientCredential::Assertion(assertion) => {
                self.verify_assertion(server, client, assertion).await?
            }
        })
    }

    async fn verify_assertion(
        &self,
        server: &AuthServer,
        client: &OAuthClient,
        assertion: &ClientAssertion<'_>,
    ) -> Result<Option<Proof>, ClientAuthError> {
        let Some(keys) = &client.authentication.keys else { return Ok(None) };
        let keys = server.clients.load_keys(keys, client, self.source).await;
        let keys = keys.map_err(|error| match error {
            ClientLookupError::Busy { wait } => ClientAuthError::Busy { wait },
            ClientLookupError::Unknown | ClientLookupError::Unavailable => ClientAuthError::Unavailable,
        })?;
        let verified = assertion.verify(&server.issuer, client, &keys, self.source).await;
        let is_valid = verified.map_err(|error| match error {
            UseError::CacheFull => ClientAuthError::Busy { wait: REPLAY_CACHE_RETRY_AFTER },
            UseError::Unavailable => ClientAuthError::Unavailable,
        })?;
        // Only machine clients need the key: replacing it invalidates their tokens.
        let needs_key = client.origin == ClientOrigin::Machine;
        let credential = || needs_key.then(|| assertion.find_signing_key(&keys)).flatten();
        Ok(is_valid.then(|| Proof { credential: credential() }))
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
        return Err(ClientAuthError::Malformed("the client authenticates in two ways at once; use one"));
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
            Err(ClientAuthError::Malformed("client_id names another client than the one that authenticates"))
        }
        (Some(id), _) => Ok((id, proof)),
        (None, Some(said)) => Ok((said.to_owned(), proof)),
        (None, None) => Err(ParameterError::Missing("client_id").into()),
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
    let plain = |text: &str| decode_component(text.as_bytes()).map(|text| text.into_owned());
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
}

#[cfg(test)]
mod tests;
