//! The bearer check in front of a tenant (RFC 6750): credential → [`Principal`], or the [`Denial`] to answer.
//!
//! Static keys are compared by digest, all of them, in constant time. A token in the query string is never looked at.
//! A tenant without keys is open, within bounds: private networks only, unless it or the settings say otherwise.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

use crate::base::digest::Digest;
use crate::settings::OpenTenants;
use crate::spec::{AccessSpec, ApiKeySpec};

/// Who is calling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Nobody in particular: the tenant is open.
    Anonymous,
    /// The holder of a static key.
    Key { label: Arc<str> },
}

impl Principal {
    /// What audit and rate buckets call the caller.
    pub fn label(&self) -> &str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Key { label } => label,
        }
    }
}

/// The check of one tenant.
#[derive(Debug, Clone)]
pub struct BearerCheck {
    door: Door,
}

#[derive(Debug, Clone)]
enum Door {
    Keys(Arc<[Key]>),
    OpenTo(Audience),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audience {
    Everybody,
    PrivateNetworks,
    Nobody,
}

#[derive(Debug)]
struct Key {
    label: Arc<str>,
    digest: Digest,
    expires: Option<Timestamp>,
}

impl BearerCheck {
    /// The check of a tenant with this access; `open` is what the settings say of tenants without credentials.
    pub fn new(access: &AccessSpec, open: OpenTenants) -> Self {
        let door = if access.is_open() {
            Door::OpenTo(match open {
                OpenTenants::Refused => Audience::Nobody,
                OpenTenants::Public => Audience::Everybody,
                OpenTenants::Private if access.public => Audience::Everybody,
                OpenTenants::Private => Audience::PrivateNetworks,
            })
        } else {
            Door::Keys(access.api_keys.iter().map(Key::from).collect())
        };
        Self { door }
    }

    /// Says who is calling, or why they may not.
    pub fn check(&self, headers: &HeaderMap, peer: IpAddr, now: Timestamp) -> Result<Principal, Denial> {
        match &self.door {
            Door::Keys(keys) => holder_of(keys, token(headers)?, now),
            Door::OpenTo(Audience::Everybody) => Ok(Principal::Anonymous),
            Door::OpenTo(Audience::PrivateNetworks) if is_private(peer) => Ok(Principal::Anonymous),
            Door::OpenTo(Audience::PrivateNetworks) => Err(Denial::NotPrivate),
            Door::OpenTo(Audience::Nobody) => Err(Denial::Missing),
        }
    }

    /// How callers are let in, in a few words for status pages: `open (private networks)`, `api keys (2)`.
    pub fn describe(&self) -> String {
        match &self.door {
            Door::Keys(keys) => format!("api keys ({})", keys.len()),
            Door::OpenTo(Audience::Everybody) => "open (public)".to_owned(),
            Door::OpenTo(Audience::PrivateNetworks) => "open (private networks)".to_owned(),
            Door::OpenTo(Audience::Nobody) => "closed".to_owned(),
        }
    }

    /// Whether a caller needs a credential.
    pub fn wants_credentials(&self) -> bool {
        matches!(self.door, Door::Keys(_))
    }
}

impl From<&ApiKeySpec> for Key {
    fn from(spec: &ApiKeySpec) -> Self {
        Self { label: spec.label.as_str().into(), digest: spec.digest, expires: spec.expires }
    }
}

/// The token of `Authorization: Bearer …`: the scheme in any case (RFC 9110 section 11.1), one header, one token.
fn token(headers: &HeaderMap) -> Result<&str, Denial> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Denial::Missing)?;
    if values.next().is_some() {
        return Err(Denial::Malformed);
    }
    let value = value.to_str().map_err(|_| Denial::Malformed)?.trim();
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Denial::Missing);
    }
    let token = token.trim_start();
    let is_token68 = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if token.is_empty() || !token.bytes().all(is_token68) {
        return Err(Denial::Malformed);
    }
    Ok(token)
}

/// Looks at every key, whichever fits, so that the time taken says nothing.
fn holder_of(keys: &[Key], token: &str, now: Timestamp) -> Result<Principal, Denial> {
    let digest = Digest::of(token.as_bytes());
    let fits = keys.iter().fold(None, |found, key| {
        let fits = key.digest.same_in_constant_time(&digest);
        if fits { Some(key) } else { found }
    });
    match fits {
        Some(key) if key.expires.is_none_or(|expires| now < expires) => {
            Ok(Principal::Key { label: Arc::clone(&key.label) })
        }
        Some(_) | None => Err(Denial::Invalid),
    }
}

/// Loopback, RFC 1918, RFC 4193, link-local; carrier-grade NAT (RFC 6598) is other people's.
fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip == Ipv6Addr::LOCALHOST || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// 401: no credential was presented.
    Missing,
    /// 400: the Authorization header cannot be read.
    Malformed,
    /// 401 `invalid_token`: unknown or expired. Which of the two is not said.
    Invalid,
    /// 403: an open tenant, and the caller is not on a private network.
    NotPrivate,
}

impl Denial {
    /// The status to answer with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Missing | Self::Invalid => StatusCode::UNAUTHORIZED,
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::NotPrivate => StatusCode::FORBIDDEN,
        }
    }

    /// The `WWW-Authenticate` value (RFC 6750 section 3), if the answer carries one.
    pub fn challenge(self) -> Option<&'static str> {
        match self {
            Self::Missing => Some("Bearer"),
            Self::Malformed => Some("Bearer error=\"invalid_request\""),
            Self::Invalid => {
                Some("Bearer error=\"invalid_token\", error_description=\"unknown or expired key\"")
            }
            Self::NotPrivate => None,
        }
    }

    /// What was found and what to do, in one sentence for people.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Missing => {
                "This server wants an API key; send it as \"Authorization: Bearer <key>\" (its operator hands keys out)."
            }
            Self::Malformed => {
                "The Authorization header cannot be read; send exactly one, as \"Authorization: Bearer <key>\"."
            }
            Self::Invalid => {
                "The API key is unknown or expired; ask the operator of this server for a new one."
            }
            Self::NotPrivate => {
                "This server has no login and answers private networks only; its operator can add api_keys to it, or public: true."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn key(label: &str, text: &str, expires: Option<i64>) -> ApiKeySpec {
        let expires = expires.map(|second| Timestamp::from_second(second).expect("in range"));
        ApiKeySpec { label: label.into(), digest: Digest::of(text.as_bytes()), expires }
    }

    fn with_keys(keys: Vec<ApiKeySpec>) -> BearerCheck {
        BearerCheck::new(&AccessSpec { api_keys: keys, public: false }, OpenTenants::Private)
    }

    fn ask(check: &BearerCheck, authorization: &[&str], peer: &str) -> Result<Principal, Denial> {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(AUTHORIZATION, value.parse().expect("a header value"));
        }
        check.check(&headers, peer.parse().expect("an address"), NOW)
    }

    #[test]
    fn each_of_two_keys_opens_and_says_whose_it_is() {
        let check = with_keys(vec![key("old", "tk_one", None), key("new", "tk_two", Some(1))]);
        let label = |value| ask(&check, &[value], "8.8.8.8").map(|principal| principal.label().to_owned());
        assert_eq!(label("Bearer tk_one"), Ok("old".into()));
        assert_eq!(label("bearer  tk_two"), Ok("new".into()));
        assert_eq!(check.describe(), "api keys (2)");
    }

    #[test]
    fn expired_and_unknown_keys_look_alike() {
        let check = with_keys(vec![key("old", "tk_one", Some(0))]);
        assert_eq!(ask(&check, &["Bearer tk_one"], "127.0.0.1"), Err(Denial::Invalid));
        assert_eq!(ask(&check, &["Bearer tk_two"], "127.0.0.1"), Err(Denial::Invalid));
    }

    #[test]
    fn odd_headers_never_open() {
        let check = with_keys(vec![key("k", "tk_one", None)]);
        for (headers, denial) in [
            (vec![], Denial::Missing),
            (vec!["Basic dGtfb25l"], Denial::Missing),
            (vec!["Bearer"], Denial::Malformed),
            (vec!["Bearer tk_one tk_one"], Denial::Malformed),
            (vec!["Bearer \"tk_one\""], Denial::Malformed),
            (vec!["Bearer tk_one", "Bearer tk_one"], Denial::Malformed),
            (vec!["Bearer tk_on"], Denial::Invalid),
        ] {
            assert_eq!(ask(&check, &headers, "127.0.0.1"), Err(denial), "{headers:?}");
        }
    }

    #[test]
    fn an_open_tenant_answers_private_networks_only() {
        let check = with_keys(vec![]);
        for private in
            ["127.0.0.1", "10.0.0.1", "192.168.7.7", "172.31.0.1", "::1", "fd00::1", "::ffff:10.0.0.1"]
        {
            assert_eq!(ask(&check, &[], private), Ok(Principal::Anonymous), "{private}");
        }
        for public in ["8.8.8.8", "172.32.0.1", "100.64.0.1", "2606:4700::1", "::ffff:8.8.8.8"] {
            assert_eq!(ask(&check, &[], public), Err(Denial::NotPrivate), "{public}");
        }
    }

    #[test]
    fn settings_open_and_close_open_tenants() {
        let open = AccessSpec::default();
        let public = AccessSpec { public: true, ..AccessSpec::default() };
        let ask = |access, settings| ask(&BearerCheck::new(access, settings), &[], "8.8.8.8");
        assert_eq!(ask(&open, OpenTenants::Public), Ok(Principal::Anonymous));
        assert_eq!(ask(&public, OpenTenants::Private), Ok(Principal::Anonymous));
        assert_eq!(ask(&public, OpenTenants::Refused), Err(Denial::Missing));
    }

    proptest! {
        #[test]
        fn a_key_of_one_tenant_never_opens_another(a in "[a-zA-Z0-9._~+/-]{1,40}", b in "[a-zA-Z0-9._~+/-]{1,40}") {
            let check = with_keys(vec![key("b", &b, None)]);
            let outcome = ask(&check, &[&format!("Bearer {a}")], "127.0.0.1");
            prop_assert_eq!(outcome.is_ok(), a == b);
        }

        #[test]
        fn no_header_makes_the_check_panic(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = http::HeaderValue::from_bytes(&value) {
                headers.append(AUTHORIZATION, value);
            }
            let check = with_keys(vec![key("k", "tk_one", None)]);
            prop_assert!(check.check(&headers, IpAddr::from([127, 0, 0, 1]), NOW).is_err());
        }
    }
}
