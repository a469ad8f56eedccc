//! Access tokens: JWTs of RFC 9068 (`at+jwt`, ES256), valid for an hour at most, for one tenant.
//!
//! Three properties bind a token to its tenant, each of them sufficient: the key, the issuer and
//! the audience. A verified token is cached by its digest; what can change while it lives (keys,
//! revocation, expiry) is checked on every call.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::base::digest::Digest;
use crate::base::secret::Secret;
use crate::identity::{Account, ProviderApp};
use crate::oauth::error::Unavailable;
use crate::spec::MAX_ACCESS_TOKEN_LIFETIME;
use crate::store::GrantId;

/// The longest lifetime of a token; a tenant's file may want a shorter one.
pub(in crate::oauth) const MAX_LIFETIME: SignedDuration =
    SignedDuration::from_secs(MAX_ACCESS_TOKEN_LIFETIME.as_secs().cast_signed());
/// The `typ` of the header (RFC 9068 section 2.1).
const JWT_TYPE: &str = "at+jwt";
const ALGORITHM: &str = "ES256";
/// The allowed difference between the clocks of replicas.
pub(in crate::oauth) const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);
/// The `gty` of a token that has no person.
const CLIENT_CREDENTIALS: &str = "client_credentials";

/// The party that a token is issued for.
#[derive(Debug)]
pub(in crate::oauth) enum TokenSubject<'a> {
    Person {
        account: &'a Account,
        grant: GrantId,
        /// The name that the client registered, if it has one.
        client_name: Option<&'a str>,
    },
    /// A machine client, acting for itself. Each of its tokens can be revoked individually.
    Machine {
        roles: &'a [Arc<str>],
        /// The fingerprint of the secret or key with which it authenticated.
        fingerprint: &'a str,
    },
}

/// An issued token.
#[derive(Debug)]
pub(in crate::oauth) struct IssuedToken {
    pub(in crate::oauth) text: Secret,
    pub(in crate::oauth) jti: String,
    /// The grant that it belongs to, or a machine's token's own id.
    pub(in crate::oauth) id: GrantId,
    pub(in crate::oauth) issued_at: Timestamp,
}

/// A token whose signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::oauth) struct AccessToken {
    pub(in crate::oauth) kid: String,
    /// A machine's token has an id of its own here, so that it can be revoked like a grant.
    pub(in crate::oauth) grant_id: GrantId,
    pub(in crate::oauth) client_digest: Digest,
    pub(in crate::oauth) issued_at: Timestamp,
    pub(in crate::oauth) expires_at: Timestamp,
    pub(in crate::oauth) claims: AccessTokenClaims,
    /// The person of the grant; `None` for a machine's token.
    pub(in crate::oauth) resource_owner: Option<ResourceOwner>,
}

/// The person of a token, and where that person logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::oauth) struct ResourceOwner {
    pub(in crate::oauth) account: Arc<Account>,
    pub(in crate::oauth) provider_app: Arc<ProviderApp>,
}

/// The claims of a token (RFC 9068 section 2.2; `client_name`, `gid`, `gty`, `by`, `tid` and
/// `oid` are ours).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::oauth) struct AccessTokenClaims {
    pub(in crate::oauth) iss: Box<str>,
    pub(in crate::oauth) aud: Box<str>,
    pub(in crate::oauth) sub: Arc<str>,
    pub(in crate::oauth) client_id: Arc<str>,
    /// The client's own name, for the audit: calls of earlier revisions of MCP do not name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::oauth) client_name: Option<Arc<str>>,
    pub(in crate::oauth) scope: Box<str>,
    pub(in crate::oauth) exp: i64,
    pub(in crate::oauth) iat: i64,
    pub(in crate::oauth) nbf: i64,
    pub(in crate::oauth) jti: Box<str>,
    pub(in crate::oauth) gid: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::oauth) gty: Option<Box<str>>,
    /// For machines, the fingerprint of the secret or key that the token was issued for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::oauth) by: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::oauth) tid: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::oauth) oid: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::oauth) roles: Vec<Arc<str>>,
}

#[derive(Serialize, Deserialize)]
struct JwsHeader<'a> {
    typ: &'a str,
    alg: &'a str,
    kid: &'a str,
    /// Critical extensions (RFC 7515 section 4.1.11). None is supported.
    #[serde(default, skip_serializing)]
    crit: Option<serde::de::IgnoredAny>,
}

/// Why a token is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::oauth) enum AccessTokenError {
    /// The token is not a currently valid one of this tenant.
    Invalid,
    Unavailable,
}

impl From<Unavailable> for AccessTokenError {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

impl AccessTokenClaims {
    /// Sets the claims of the bearer: of a person, a subject that does not reveal the account; of a
    /// machine client, its id.
    pub(in crate::oauth) fn set_subject(&mut self, bearer: &TokenSubject<'_>) {
        match bearer {
            TokenSubject::Machine { roles, fingerprint } => {
                self.gty = Some(CLIENT_CREDENTIALS.into());
                self.by = Some((*fingerprint).into());
                self.roles = roles.to_vec();
            }
            TokenSubject::Person { account, grant, client_name } => {
                self.client_name = client_name.map(Arc::from);
                self.sub = account.id().as_str().into();
                self.gid = grant.to_string().into();
                self.tid = Some(Arc::clone(&account.issuer));
                self.oid = Some(Arc::clone(&account.subject));
                self.roles.clone_from(&account.roles);
            }
        }
    }

    /// Returns the signing input: header and claims (RFC 7515 section 5.1).
    pub(in crate::oauth) fn signing_input(&self, kid: &str) -> String {
        let header = JwsHeader { typ: JWT_TYPE, alg: ALGORITHM, kid, crit: None };
        format!("{}.{}", encode_part(&header), encode_part(self))
    }
}

impl AccessToken {
    /// Parses a token whose signature `verify` accepts, given the key's id, the signed bytes and
    /// the signature. The caller checks issuer, audience and dates, and adds the person.
    pub(in crate::oauth) fn parse(
        token: &[u8],
        verify: impl FnOnce(&str, &[u8], &[u8]) -> bool,
    ) -> Option<Self> {
        let (message, signature) = split_last_part(token)?;
        let (header, claims) = split_last_part(message)?;
        let header = decode_part(header)?;
        let header: JwsHeader<'_> = serde_json::from_slice(&header).ok()?;
        let is_ours = header.typ == JWT_TYPE && header.alg == ALGORITHM && header.crit.is_none();
        if !is_ours || !verify(header.kid, message, &decode_part(signature)?) {
            return None;
        }
        let claims = serde_json::from_slice(&decode_part(claims)?).ok()?;
        Self::from_claims(header.kid, claims)
    }

    fn from_claims(kid: &str, claims: AccessTokenClaims) -> Option<Self> {
        Some(Self {
            kid: kid.to_owned(),
            grant_id: GrantId::parse(&claims.gid)?,
            client_digest: Digest::of(claims.client_id.as_bytes()),
            issued_at: Timestamp::from_second(claims.iat.max(claims.nbf)).ok()?,
            expires_at: Timestamp::from_second(claims.exp).ok()?,
            claims,
            resource_owner: None,
        })
    }

    #[cfg(test)]
    pub(in crate::oauth) fn example() -> Self {
        let claims = serde_json::json!({
            "iss": "i", "aud": "a", "sub": "s", "client_id": "c", "scope": "mcp:use", "exp": 2, "iat": 1, "nbf": 1,
            "jti": "j", "gid": "0".repeat(32),
        });
        Self::from_claims("k", serde_json::from_value(claims).expect("claims")).expect("a token")
    }

    /// Whether the token is a machine client's.
    pub(in crate::oauth) fn is_client_credentials(&self) -> bool {
        self.claims.gty.as_deref() == Some(CLIENT_CREDENTIALS)
    }
}

/// Encodes a part of a JWT.
fn encode_part(value: &impl Serialize) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).expect("claims are plain data"))
}

fn decode_part(part: &[u8]) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(part).ok()
}

/// Splits at the last point.
fn split_last_part(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let point = text.iter().rposition(|&byte| byte == b'.')?;
    Some((&text[..point], &text[point + 1..]))
}

#[cfg(test)]
mod tests;
