//! Access tokens: JWTs as RFC 9068 has them (`at+jwt`, ES256), an hour long, for one tenant.
//!
//! Three things bind a token to its tenant, each by itself enough: the key, the issuer and the audience. What is verified is
//! kept by digest; what may change while a token lives (keys, revocation, expiry) is asked with every call.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::error::Unavailable;
use crate::base::digest::{Digest, Hasher};
use crate::base::secret::Secret;
use crate::identity::{Person, Upstream};
use crate::store::GrantId;

/// How long a token is good. ChatGPT refreshes before every call when it is minutes.
pub(super) const LIFE: SignedDuration = SignedDuration::from_hours(1);
/// RFC 9068 section 2.1.
const TYPE: &str = "at+jwt";
const ALGORITHM: &str = "ES256";
/// What replicas' clocks may differ by.
pub(super) const SKEW: SignedDuration = SignedDuration::from_secs(60);
/// Marks a token that no person stands behind.
const MACHINE: &str = "client_credentials";

/// Whom a token is for.
#[derive(Debug)]
pub(super) enum Bearer<'a> {
    Person {
        person: &'a Person,
        grant: GrantId,
    },
    /// A machine client, for itself. Each token can be revoked by itself.
    Machine {
        roles: &'a [Arc<str>],
        /// Of the secret or key that it proved itself by.
        mark: &'a str,
    },
}

/// A token that was issued.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) text: Secret,
    pub(super) id: String,
}

/// What a token says, its signature verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kid: String,
    /// Of a machine: named like a grant, so that it can be revoked like one.
    pub(super) grant: GrantId,
    pub(super) client_digest: Digest,
    pub(super) issued: Timestamp,
    pub(super) expires: Timestamp,
    pub(super) claims: Claims,
    /// Who stands behind it, from the grant; nobody behind a machine's.
    pub(super) holder: Option<Holder>,
}

/// Who stands behind a token, and where they logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) person: Arc<Person>,
    pub(super) upstream: Arc<Upstream>,
}

/// The claims of a token (RFC 9068 section 2.2; `gid`, `gty`, `by`, `tid` and `oid` are ours).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: Box<str>,
    pub(super) aud: Box<str>,
    pub(super) sub: Arc<str>,
    pub(super) client_id: Arc<str>,
    pub(super) scope: Box<str>,
    pub(super) exp: i64,
    pub(super) iat: i64,
    pub(super) nbf: i64,
    pub(super) jti: Box<str>,
    pub(super) gid: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) gty: Option<Box<str>>,
    /// Of a machine: the mark of what it was bought by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) by: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tid: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) oid: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) roles: Vec<Arc<str>>,
}

#[derive(Serialize, Deserialize)]
struct Header<'a> {
    typ: &'a str,
    alg: &'a str,
    kid: &'a str,
    /// Extensions that must be understood: there are none that we do (RFC 7515 section 4.1.11).
    #[serde(default, skip_serializing)]
    crit: Option<serde::de::IgnoredAny>,
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not one of this tenant's that is good now.
    Invalid,
    Unavailable,
}

impl From<Unavailable> for Fault {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

/// The subject of a person's tokens: stable, and tells nobody the account.
fn subject(person: &Person) -> String {
    let mut fields = Hasher::new();
    [&person.tid, &person.oid].iter().for_each(|field| fields.field(field.as_bytes()));
    BASE64_URL_SAFE_NO_PAD.encode(fields.finish().as_bytes())
}

impl Claims {
    /// Names who a token is for: a person by a subject that tells nobody the account, or a machine client by its id.
    pub(super) fn set_bearer(&mut self, bearer: &Bearer<'_>) {
        match bearer {
            Bearer::Machine { roles, mark } => {
                self.gty = Some(MACHINE.into());
                self.by = Some((*mark).into());
                self.roles = roles.to_vec();
            }
            Bearer::Person { person, grant } => {
                self.sub = subject(person).into();
                self.gid = grant.to_string().into();
                self.tid = Some(Arc::clone(&person.tid));
                self.oid = Some(Arc::clone(&person.oid));
                self.roles.clone_from(&person.roles);
            }
        }
    }

    /// What is signed: header and claims (RFC 7515 section 5.1).
    pub(super) fn signing_input(&self, kid: &str) -> String {
        let header = Header { typ: TYPE, alg: ALGORITHM, kid, crit: None };
        format!("{}.{}", part(&header), part(self))
    }
}

impl Token {
    /// Reads a token whose signature `verify` accepts, given the key's id, what was signed, and the signature. Issuer,
    /// audience and dates are left to the caller; so is the person.
    pub(super) fn parse(token: &[u8], verify: impl FnOnce(&str, &[u8], &[u8]) -> bool) -> Option<Self> {
        let (message, signature) = rsplit(token)?;
        let (header, claims) = rsplit(message)?;
        let header = decode(header)?;
        let header: Header<'_> = serde_json::from_slice(&header).ok()?;
        let is_ours = header.typ == TYPE && header.alg == ALGORITHM && header.crit.is_none();
        if !is_ours || !verify(header.kid, message, &decode(signature)?) {
            return None;
        }
        let claims = serde_json::from_slice(&decode(claims)?).ok()?;
        Self::of(header.kid, claims)
    }

    fn of(kid: &str, claims: Claims) -> Option<Self> {
        Some(Self {
            kid: kid.to_owned(),
            grant: GrantId::parse(&claims.gid)?,
            client_digest: Digest::of(claims.client_id.as_bytes()),
            issued: Timestamp::from_second(claims.iat.max(claims.nbf)).ok()?,
            expires: Timestamp::from_second(claims.exp).ok()?,
            claims,
            holder: None,
        })
    }

    #[cfg(test)]
    pub(super) fn example() -> Self {
        let claims = serde_json::json!({
            "iss": "i", "aud": "a", "sub": "s", "client_id": "c", "scope": "mcp:use", "exp": 2, "iat": 1, "nbf": 1,
            "jti": "j", "gid": "0".repeat(32),
        });
        Self::of("k", serde_json::from_value(claims).expect("claims")).expect("a token")
    }

    /// Whether no person stands behind it.
    pub(super) fn is_machines(&self) -> bool {
        self.claims.gty.as_deref() == Some(MACHINE)
    }
}

/// A part of a JWT.
fn part(value: &impl Serialize) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).expect("claims are plain data"))
}

fn decode(part: &[u8]) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(part).ok()
}

/// What stands before and behind the last point.
fn rsplit(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let point = text.iter().rposition(|&byte| byte == b'.')?;
    Some((&text[..point], &text[point + 1..]))
}

#[cfg(test)]
mod tests;
