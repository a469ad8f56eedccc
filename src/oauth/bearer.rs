//! The bearer check of a tenant (RFC 6750): from a credential to a [`Principal`], or to the denial
//! to answer with.
//!
//! A tenant with login requires one of its access tokens, a tenant with keys one of these; a tenant
//! with neither is open, to private networks or to everyone. Credentials are read from the
//! `Authorization` header only, never from a query (RFC 6750 section 2.3 advises against it; OAuth
//! 2.1 forbids it). Keys are held as digests only; all keys of a tenant are compared, each in
//! constant time, so that the duration reveals neither a near match nor which key matched.

mod login;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, StatusCode};
use ipnet::IpNet;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use self::login::LoginCheck;
pub use self::login::{MachinePrincipal, UserPrincipal};
use super::grants::Grants;
use super::revocations::GrantRevocationToken;
use crate::base::digest::Digest;
use crate::base::sync::lock_unpoisoned;
use crate::settings::OpenTenants;
use crate::spec::{AccessRules, AccessSpec, AllowFrom, LoginSpec, ResourceSpelling};
use crate::telemetry::audit::Actor;
use crate::usage::{CallerKey, UsageCaller};

/// The limit on a credential, in bytes; the gateway's own keys have less than a hundred.
const MAX_CREDENTIAL_BYTES: usize = 4096;

/// An admitted caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// An unidentified caller of an open tenant.
    Anonymous,
    /// The holder of a static key.
    Key { label: Arc<str> },
    /// A person who logged in.
    User(UserPrincipal),
    /// A program that acts for itself.
    Machine(MachinePrincipal),
}

impl Principal {
    /// Returns the caller's names for the audit log.
    pub fn audit_identity(&self) -> Actor<'_> {
        match self {
            Self::Anonymous => Actor::default(),
            Self::Key { label } => Actor { label: Some(label), ..Actor::default() },
            Self::Machine(machine) => Actor { label: Some(&machine.label), ..Actor::default() },
            Self::User(user) => user.account.audit_identity(),
        }
    }

    /// Returns the OAuth client, if the tenant has a login.
    pub fn client_id(&self) -> Option<&str> {
        match self {
            Self::Anonymous | Self::Key { .. } => None,
            Self::User(user) => Some(&user.client_id),
            Self::Machine(machine) => Some(&machine.client_id),
        }
    }

    /// Returns the name that the OAuth client registered, if it has one.
    pub fn client_name(&self) -> Option<&str> {
        match self {
            Self::User(user) => user.client_name.as_deref(),
            Self::Anonymous | Self::Key { .. } | Self::Machine(_) => None,
        }
    }

    /// Returns what counts as this caller for limits, if it calls from `address`.
    pub fn usage_key(&self, address: IpAddr) -> CallerKey {
        match self {
            Self::Key { label } => CallerKey::Label(Arc::clone(label)),
            Self::User(user) => CallerKey::User(Arc::clone(&user.subject)),
            Self::Machine(machine) => CallerKey::Machine(Arc::clone(&machine.client_id)),
            Self::Anonymous => CallerKey::from_address(address),
        }
    }

    /// Returns who calls from `address`, for limits and the ledger.
    pub fn usage_caller(&self, address: IpAddr) -> UsageCaller {
        let (name, client) = match self {
            Self::Anonymous => (None, None),
            Self::Key { label } => (Some(label), None),
            Self::User(user) => {
                (user.account.username.as_ref().or(Some(&user.account.subject)), Some(&user.client_id))
            }
            Self::Machine(machine) => (Some(&machine.label), Some(&machine.client_id)),
        };
        UsageCaller { key: self.usage_key(address), name: name.cloned(), client: client.cloned() }
    }

    /// Whether the caller meets these rules. They are about logins: anonymous callers and key
    /// holders meet only empty rules.
    pub fn satisfies(&self, rules: &AccessRules) -> bool {
        match self {
            Self::Anonymous | Self::Key { .. } => rules.is_empty(),
            Self::User(user) => user.account.check_rules(rules).is_ok(),
            Self::Machine(machine) => machine.satisfies(rules),
        }
    }
}

/// The admission of a caller.
#[derive(Debug)]
pub struct AdmittedCaller {
    /// The caller.
    pub principal: Principal,
    /// Ends the call once the caller's access is revoked.
    pub revocation: CallRevocation,
}

/// What ends one call or stream once its access is revoked; to be held until that ends.
#[derive(Debug, Clone)]
pub struct CallRevocation {
    revoked: CancellationToken,
    /// Marks the grant as in use, and says why its calls end.
    grant_revocation: Option<GrantRevocationToken>,
}

impl CallRevocation {
    /// Returns the token that fires when the access is revoked; the call must then end at once.
    pub fn revoked(&self) -> &CancellationToken {
        &self.revoked
    }

    /// Returns what a call is answered that ended with its access.
    pub fn denial(&self) -> Denial {
        match self.grant_revocation.as_ref().is_some_and(|grant| grant.is_in_doubt()) {
            // Its token may be good: a 401 would have its client log in again.
            true => Denial::Unavailable,
            false => Denial::Invalid,
        }
    }
}

/// Why a request is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// 401: the request has no credential.
    Missing,
    /// 400: the Authorization header cannot be parsed.
    Malformed,
    /// 401 `invalid_token`: unknown or expired.
    Invalid,
    /// 403 `insufficient_scope`: the token was not issued for calling tools.
    InsufficientScope,
    /// 403: the account may not call, and no other token could change that.
    NotAllowed,
    /// 403: an operator keeps the person out.
    Blocked,
    /// 503: the credential cannot be checked now. Never 401, over which clients discard valid
    /// tokens.
    Unavailable,
    /// 403: the tenant is open to private networks, and the caller is not on one.
    NotPrivate,
    /// 403: the tenant does not answer this network, or the caller is unknown.
    NetworkNotAllowed,
}

/// The revocation tokens of one tenant, by access basis. They outlive a revision, so that a later
/// one can revoke access while calls and streams are in progress.
#[derive(Debug, Default)]
pub struct AccessRevocations(Mutex<Vec<(Admission, CancellationToken)>>);

/// What a caller was admitted by.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Admission {
    basis: AccessBasis,
    /// From where everybody was allowed. Which of these networks a caller is on is not kept, so a
    /// list that gets narrower ends all calls in progress, and the next ones are checked.
    allow_from: AllowFrom,
}

/// What a caller was admitted by.
#[derive(Debug, Clone, PartialEq, Eq)]
enum AccessBasis {
    Key(Digest),
    /// Any change of the login ends calls in progress; the next call is checked against the new
    /// rules.
    Login(Arc<LoginSpec>),
    OpenToPrivate,
    OpenToAll,
}

impl AccessRevocations {
    fn token_for(&self, basis: AccessBasis, allow_from: &AllowFrom) -> CancellationToken {
        let basis = Admission { basis, allow_from: allow_from.clone() };
        let mut tokens = self.lock();
        if let Some((_, token)) = tokens.iter().find(|(known_basis, _)| *known_basis == basis) {
            return token.clone();
        }
        let token = CancellationToken::new();
        // Most tenants need a single one.
        tokens.reserve_exact(1);
        tokens.push((basis, token.clone()));
        token
    }

    /// Revokes at once the access of every basis that `check` no longer allows.
    pub fn retain_allowed(&self, check: &BearerCheck, now: Timestamp) {
        for (_, token) in self.lock().extract_if(.., |(basis, _)| !check.allows(basis, now)) {
            token.cancel();
        }
    }

    /// Revokes all access at once.
    pub fn revoke_all(&self) {
        self.lock().drain(..).for_each(|(_, token)| token.cancel());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Admission, CancellationToken)>> {
        lock_unpoisoned(&self.0)
    }
}

/// The bearer check of one tenant. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BearerCheck {
    rule: AdmissionRule,
    allow_from: AllowFrom,
    /// Fires when anonymous callers, or all who logged in, are no longer admitted.
    revoked: CancellationToken,
}

/// Whom a tenant admits, and what it takes to check that of a request.
#[derive(Debug, Clone)]
enum AdmissionRule {
    Login(LoginCheck),
    Keys(Arc<[ApiKeyCheck]>),
    /// With the networks that count as private besides.
    OpenToPrivate(Arc<[IpNet]>),
    OpenToAll,
    /// The settings refuse open tenants. Such a tenant is rejected when it is loaded; this variant
    /// denies its calls should one come here nonetheless.
    Closed,
}

#[derive(Debug)]
struct ApiKeyCheck {
    label: Arc<str>,
    digest: Digest,
    expires_at: Option<Timestamp>,
    /// Fires when a later revision no longer has this key.
    revoked: CancellationToken,
}

impl BearerCheck {
    /// Creates the check of a tenant with login.
    pub fn with_login(grants: Arc<Grants>, allow_from: AllowFrom, revocations: &AccessRevocations) -> Self {
        let basis = AccessBasis::Login(Arc::clone(grants.login_spec()));
        let revoked = revocations.token_for(basis, &allow_from);
        Self { rule: AdmissionRule::Login(grants.into()), allow_from, revoked }
    }

    /// Creates the check for a tenant without login, within what the settings allow to open
    /// tenants. `networks` count as private in addition to the private ranges.
    pub fn new(
        access: &AccessSpec,
        open: OpenTenants,
        networks: Arc<[IpNet]>,
        revocations: &AccessRevocations,
    ) -> Self {
        let rule = match open {
            // Fail closed: this constructor has no grants with which a login could be checked.
            _ if access.login.is_some() => AdmissionRule::Closed,
            _ if !access.is_open() => AdmissionRule::Keys(build_key_checks(access, revocations)),
            OpenTenants::Refused => AdmissionRule::Closed,
            OpenTenants::Public => AdmissionRule::OpenToAll,
            OpenTenants::Private if access.public => AdmissionRule::OpenToAll,
            OpenTenants::Private => AdmissionRule::OpenToPrivate(networks),
        };
        let allow_from = access.allow_from.clone();
        let revoked = match rule {
            AdmissionRule::OpenToPrivate(_) => revocations.token_for(AccessBasis::OpenToPrivate, &allow_from),
            AdmissionRule::OpenToAll => revocations.token_for(AccessBasis::OpenToAll, &allow_from),
            AdmissionRule::Login(_) | AdmissionRule::Keys(_) | AdmissionRule::Closed => {
                CancellationToken::new()
            }
        };
        Self { rule, allow_from, revoked }
    }

    /// Verifies that the tenant answers `caller`; `None` if it is unknown where the request comes
    /// from. It comes before everything else that the tenant does.
    ///
    /// # Errors
    /// Returns `Denial::NetworkNotAllowed`.
    pub fn check_network(&self, caller: Option<IpAddr>) -> Result<(), Denial> {
        if self.allow_from.allows(caller) { Ok(()) } else { Err(Denial::NetworkNotAllowed) }
    }

    /// Checks the credentials of a request from `peer`; `None` if its origin is unknown.
    ///
    /// # Errors
    /// Returns the denial to answer with. It is `Denial::Unavailable` if a login cannot be
    /// checked now.
    pub async fn authorize(
        &self,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<AdmittedCaller, Denial> {
        if let AdmissionRule::Login(login) = &self.rule {
            return login.authorize(parse_bearer_token(headers)?, &self.revoked).await;
        }
        let principal = self.authorize_without_login(headers, peer, now)?;
        let revoked = self.revocation_token(&principal).clone();
        Ok(AdmittedCaller { principal, revocation: CallRevocation { revoked, grant_revocation: None } })
    }

    /// Returns the token that fires when the access of an admitted caller is revoked.
    fn revocation_token(&self, principal: &Principal) -> &CancellationToken {
        let key = match (&self.rule, principal) {
            (AdmissionRule::Keys(keys), Principal::Key { label }) => {
                keys.iter().find(|key| key.label == *label)
            }
            _ => None,
        };
        key.map_or(&self.revoked, |key| &key.revoked)
    }

    fn allows(&self, admission: &Admission, now: Timestamp) -> bool {
        if !self.allow_from.covers(&admission.allow_from) {
            return false;
        }
        match (&self.rule, &admission.basis) {
            (AdmissionRule::Login(login), AccessBasis::Login(spec)) => login.login_spec() == spec,
            (AdmissionRule::Keys(keys), AccessBasis::Key(digest)) => keys
                .iter()
                .any(|key| key.digest == *digest && key.expires_at.is_none_or(|expires| now < expires)),
            (AdmissionRule::OpenToAll, AccessBasis::OpenToAll | AccessBasis::OpenToPrivate) => true,
            (AdmissionRule::OpenToPrivate(_), basis) => *basis == AccessBasis::OpenToPrivate,
            _ => false,
        }
    }

    /// Verifies that `peer` may see the page for people.
    ///
    /// # Errors
    /// Returns `Denial::NotPrivate` if the tenant is open to private networks only and `peer` is
    /// not on one.
    pub fn check_page_access(&self, peer: Option<IpAddr>) -> Result<(), Denial> {
        match &self.rule {
            AdmissionRule::OpenToPrivate(networks) if !is_private(peer, networks) => Err(Denial::NotPrivate),
            _ => Ok(()),
        }
    }

    /// Checks keys and networks. An open tenant ignores the header: clients often send one from an
    /// earlier configuration.
    fn authorize_without_login(
        &self,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Principal, Denial> {
        match &self.rule {
            AdmissionRule::Keys(keys) => {
                let token = Digest::of(parse_bearer_token(headers)?);
                let label = find_key_label(keys, &token, now).ok_or(Denial::Invalid)?;
                Ok(Principal::Key { label })
            }
            AdmissionRule::OpenToAll => Ok(Principal::Anonymous),
            AdmissionRule::OpenToPrivate(networks) if is_private(peer, networks) => Ok(Principal::Anonymous),
            AdmissionRule::OpenToPrivate(_) => Err(Denial::NotPrivate),
            AdmissionRule::Closed | AdmissionRule::Login(_) => Err(Denial::Missing),
        }
    }

    /// Returns the `WWW-Authenticate` value of a denial, if its status requires one. `asked` is the
    /// spelling of the endpoint that the client used.
    pub fn challenge(&self, denial: Denial, asked: ResourceSpelling) -> Option<HeaderValue> {
        match &self.rule {
            AdmissionRule::Login(login) => login.challenge(denial, asked),
            _ => denial.challenge().map(HeaderValue::from_static),
        }
    }

    /// Returns one sentence about a denial for people: what is wrong and what to do.
    pub fn message(&self, denial: Denial) -> Cow<'static, str> {
        match (&self.rule, denial) {
            (AdmissionRule::Login(login), Denial::Missing) => format!(
                "This server requires a login; add its URL to your client as a connector with OAuth, and log \
                 in with {}.",
                login.brand().name
            )
            .into(),
            (AdmissionRule::Login(_), Denial::Invalid) => {
                "The access token is unknown, expired or revoked; log in again.".into()
            }
            _ => denial.message().into(),
        }
    }

    /// Returns the kind of check for status pages: `api keys (2)`, `open (private networks)`, `open
    /// (public)`.
    pub fn describe(&self) -> String {
        let credential = self.describe_credential();
        match self.allow_from.networks() {
            None => credential,
            Some(networks) => format!("{credential}, from {} networks only", networks.len()),
        }
    }

    fn describe_credential(&self) -> String {
        match &self.rule {
            AdmissionRule::Login(login) => login.describe(),
            AdmissionRule::Keys(keys) => format!("api keys ({})", keys.len()),
            AdmissionRule::OpenToPrivate(_) => "open (private networks)".to_owned(),
            AdmissionRule::OpenToAll => "open (public)".to_owned(),
            AdmissionRule::Closed => "closed (no key is configured)".to_owned(),
        }
    }
}

fn build_key_checks(access: &AccessSpec, revocations: &AccessRevocations) -> Arc<[ApiKeyCheck]> {
    let key = |key: &crate::spec::ApiKeySpec| ApiKeyCheck {
        label: key.label.as_str().into(),
        digest: key.digest,
        expires_at: key.expires,
        revoked: revocations.token_for(AccessBasis::Key(key.digest), &access.allow_from),
    };
    access.api_keys.iter().map(key).collect()
}

/// Returns the label of the key with this digest, unless the key has expired. Compares every key.
fn find_key_label(keys: &[ApiKeyCheck], token: &Digest, now: Timestamp) -> Option<Arc<str>> {
    let mut holder = None;
    for key in keys {
        let same = key.digest.ct_eq(token);
        let valid = key.expires_at.is_none_or(|expires| now < expires);
        if same & valid {
            holder = Some(&key.label);
        }
    }
    holder.cloned()
}

/// Returns the token of the single Authorization header: `Bearer`, in any case, spaces, then a
/// `b64token` (RFC 6750 section 2.1).
///
/// Another scheme is not a bearer credential (RFC 9110 section 11.4), so it counts as missing.
fn parse_bearer_token(headers: &HeaderMap) -> Result<&[u8], Denial> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Denial::Missing)?;
    if values.next().is_some() {
        return Err(Denial::Malformed);
    }
    let text = value.as_bytes().trim_ascii();
    let end = text.iter().position(|&b| b == b' ').unwrap_or(text.len());
    let (scheme, rest) = text.split_at(end);
    if scheme.is_empty() || !scheme.iter().all(|&b| is_tchar(b)) {
        return Err(Denial::Malformed);
    }
    if !scheme.eq_ignore_ascii_case(b"Bearer") {
        return Err(Denial::Missing);
    }
    let token = rest.trim_ascii_start();
    if is_b64token(token) && token.len() <= MAX_CREDENTIAL_BYTES { Ok(token) } else { Err(Denial::Malformed) }
}

/// Whether the byte is a `tchar` (RFC 9110 section 5.6.2).
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether the token is `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`.
fn is_b64token(token: &[u8]) -> bool {
    let padding = token.iter().rev().take_while(|&&b| b == b'=').count();
    let body = &token[..token.len() - padding];
    !body.is_empty() && body.iter().all(|&b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b))
}

/// Whether an address is private: loopback, RFC 1918, unique local (RFC 4193), link-local, or such
/// an IPv4 address mapped into IPv6. The carriers' shared space (100.64.0.0/10, RFC 6598) is not,
/// since strangers share it, unless the settings name it (`private_networks`). An unknown address
/// is not: the proxy that does not tell it is often private itself.
fn is_private(peer: Option<IpAddr>, networks: &[IpNet]) -> bool {
    let Some(peer) = peer.map(|peer| peer.to_canonical()) else { return false };
    let is_near = match peer {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    is_near || networks.iter().any(|network| network.contains(&peer))
}

impl Denial {
    /// Returns the status of the response.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Missing | Self::Invalid => StatusCode::UNAUTHORIZED,
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::InsufficientScope
            | Self::NotAllowed
            | Self::Blocked
            | Self::NotPrivate
            | Self::NetworkNotAllowed => StatusCode::FORBIDDEN,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns the word for the audit log.
    pub fn audit_label(self) -> &'static str {
        match self {
            Self::Missing => "no_credential",
            Self::Malformed => "malformed",
            Self::Invalid => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
            Self::NotAllowed => "not_allowed",
            Self::Blocked => "blocked",
            Self::Unavailable => "unavailable",
            Self::NotPrivate => "not_private",
            Self::NetworkNotAllowed => "network_not_allowed",
        }
    }

    /// Returns the `WWW-Authenticate` value of a tenant without login. A request without a
    /// credential gets no error code (RFC 6750 section 3.1).
    fn challenge(self) -> Option<&'static str> {
        match self {
            Self::Missing => Some("Bearer"),
            Self::Malformed => Some(r#"Bearer error="invalid_request""#),
            Self::Invalid => {
                Some(r#"Bearer error="invalid_token", error_description="unknown or expired key""#)
            }
            Self::InsufficientScope
            | Self::NotAllowed
            | Self::Blocked
            | Self::Unavailable
            | Self::NotPrivate
            | Self::NetworkNotAllowed => None,
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::Missing => {
                "This server requires an API key; send it as \"Authorization: Bearer <key>\" (ask its \
                 operator for a key)."
            }
            Self::Malformed => {
                "The Authorization header is not valid; send exactly one, as \"Authorization: Bearer \
                 <key>\"."
            }
            Self::Invalid => {
                "The API key is unknown or expired; ask the operator of this server for a new one."
            }
            Self::InsufficientScope => "The access token was not issued for calling tools; log in again.",
            Self::NotAllowed => {
                "You are logged in, but your account may not use this server; ask its operator for access."
            }
            Self::Blocked => "The operator of this server has blocked your account; ask them.",
            Self::Unavailable => "This server cannot check logins now; try again in a moment.",
            Self::NetworkNotAllowed => {
                "This server does not answer callers from your network; ask its operator for access from it."
            }
            Self::NotPrivate => {
                "This server has no login and answers private networks only; its operator can add api_keys to it, public: true, or your network to private_networks."
            }
        }
    }
}

#[cfg(test)]
mod tests;
