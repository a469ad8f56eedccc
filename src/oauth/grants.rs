//! The grants of one tenant: what people allowed clients to do, from the code to the last refresh
//! token.
//!
//! A grant is a family of one-time tokens, numbered from 0, the code. Each token derives from the
//! family's key and its number (HMAC-SHA-256), so none of them is stored. The latest one can be
//! issued again to a client that did not receive it: within a minute, and only in exchange for its
//! predecessor. An older token means that one was stolen, so it revokes the grant (OAuth 2.1
//! section 4.3.1). A forged token has no effect.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::access_token::{self, Holder, LIFE, Token};
use super::error::Unavailable;
use super::issuer::Issuer;
use super::marks::Marks;
use super::revocations::Leave;
use crate::base::digest::Digest;
use crate::base::random;
use crate::base::secret::Secret;
use crate::identity::{self, Kind, Person, Provider, Upstream};
use crate::spec::{LoginSpec, MachineClientSpec, Resource};
use crate::store::{Beginning, Grant, GrantId, Revoked, Step, Store, Subject};
use crate::telemetry::audit::Who;

const CODE_LIFE: SignedDuration = SignedDuration::from_secs(60);
/// How long a replaced refresh token yields its successor again: Claude refreshes from two places,
/// and responses get lost.
const GRACE: SignedDuration = SignedDuration::from_secs(60);
const IDLE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The longest life of a grant: that of Entra's own refresh tokens.
const LONGEST: SignedDuration = SignedDuration::from_hours(90 * 24);

/// A completed login, for a client that may have a code now.
#[derive(Debug)]
pub struct NewGrant {
    /// The client that the grant is for.
    pub client_id: String,
    /// The client's name on the consent page.
    pub client_name: Option<String>,
    /// The redirect URI if the request had one; the token request must repeat it (RFC 6749 section
    /// 4.1.3).
    pub redirect_uri: Option<String>,
    /// The S256 challenge (RFC 7636). Without one, the token request must have no verifier.
    pub code_challenge: Option<String>,
    /// The granted scopes, in the client's spelling and order.
    pub scope: String,
    /// The account that logged in.
    pub person: Person,
    /// Entra's refresh token.
    pub upstream: Option<Secret>,
}

/// The grants of one tenant.
#[derive(Debug)]
pub struct Grants {
    pub(super) issuer: Arc<Issuer>,
    login: Arc<LoginSpec>,
    provider: Provider,
    /// The app and directory of new logins.
    upstream: Arc<Upstream>,
    /// The marks of the machine clients' valid secrets and keys.
    marks: Marks,
}

/// The contents of a grant, sealed in the store.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Details {
    pub(super) person: Person,
    /// The app and directory of the login; grants of older versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<Upstream>,
    pub(super) scope: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) client_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) redirect_uri: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) code_challenge: Option<String>,
    /// Entra's refresh token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upstream: Option<String>,
}

/// A grant with its next refresh token.
#[derive(Debug)]
pub(super) struct Continued {
    pub(super) id: GrantId,
    pub(super) details: Details,
    pub(super) refresh_token: Secret,
}

/// Why a genuine token or grant is not valid under the tenant's current file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The login was made with another app or directory; only a new login helps.
    Elsewhere,
    /// The account may not call; no other token could change that.
    NotAllowed,
    /// It belongs to a machine client, or to one of its secrets or keys, that no longer exists.
    MachineGone,
}

/// Why a one-time token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Unknown, expired, used, forged or another client's.
    Invalid,
    /// It was used before, so the grant is revoked.
    Reused,
    /// The account may no longer log in, so the grant is revoked.
    Ended,
    /// Entra or the store is unavailable. Nothing was used up.
    Unavailable,
}

impl From<Unavailable> for Fault {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

impl Grants {
    /// Creates the grants of a tenant.
    pub fn new(issuer: Arc<Issuer>, login: Arc<LoginSpec>, provider: Provider) -> Self {
        let upstream = Arc::new(Upstream::of(&login.identity));
        let marks = Marks::of(issuer.life(), &login);
        Self { issuer, login, provider, upstream, marks }
    }

    /// Begins a grant and returns its code, which is valid for a minute, once. When this returns,
    /// the grant is on disk.
    ///
    /// # Errors
    /// Fails if the store cannot be written.
    pub async fn begin(&self, new: NewGrant) -> Result<Secret, Unavailable> {
        let now = self.issuer.ledger.now();
        let (id, family) = (GrantId::random(), random::bytes());
        let details = Details {
            person: new.person,
            at: Some(Upstream::clone(&self.upstream)),
            scope: new.scope,
            client_name: new.client_name,
            redirect_uri: new.redirect_uri,
            code_challenge: new.code_challenge,
            upstream: new.upstream.map(|token| token.expose().to_owned()),
        };
        let beginning = Beginning {
            id,
            client_id: new.client_id,
            now,
            expires: now + CODE_LIFE,
            family,
            details: details.encoded(),
        };
        let life = self.issuer.life().clone();
        self.issuer.ledger.ask(move |store| store.begin_grant(&life, beginning)).await?;
        Ok(OneTime { id, number: 0 }.token(&family))
    }

    /// Redeems a code. Of several requests with it, one gets a grant; the others revoke it (RFC
    /// 6749 section 4.1.2). The caller verifies the rest of the request, and calls
    /// [`Grants::revoke`] if it is wrong.
    pub(super) async fn take_code(&self, code: &str, client_id: &str) -> Result<Continued, Fault> {
        let (presented, grant) = self.present(code, client_id).await?;
        if presented.number != 0 {
            return Err(Fault::Invalid);
        }
        let details = Details::of(&grant)?;
        if let Err(refusal) = self.judge(&details.person, &self.upstream_of(&details)) {
            self.revoke(grant.id).await?;
            return Err(refusal.of_grants());
        }
        let now = self.issuer.ledger.now();
        let step = Step {
            id: grant.id,
            from: 0,
            client_id: grant.client_id,
            now,
            expires: now + IDLE,
            ends: now + LONGEST,
            // Only the token request needs these fields.
            details: Details { redirect_uri: None, code_challenge: None, ..details.clone() }.encoded(),
        };
        let life = self.issuer.life().clone();
        // The store decides between concurrent requests with the same code.
        let taken = match grant.number {
            0 => self.issuer.ledger.ask(move |store| store.take_code(&life, step)).await?,
            _ => false,
        };
        if !taken {
            self.revoke(grant.id).await?;
            return Err(Fault::Reused);
        }
        let refresh_token = OneTime { id: grant.id, number: 1 }.token(&grant.family);
        Ok(Continued { id: grant.id, details, refresh_token })
    }

    /// Rotates a refresh token, after asking Entra whether the account is still valid. Two requests
    /// with the same token within a minute get the same successor.
    pub(super) async fn refresh(&self, token: &str, client_id: &str) -> Result<Continued, Fault> {
        let id = OneTime::parse(token).ok_or(Fault::Invalid)?.0.id;
        let _turn = self.issuer.ledger.turn(id).await;
        let (presented, grant) = self.present(token, client_id).await?;
        if presented.number == 0 {
            return Err(Fault::Invalid);
        }
        // Entra's answer decides about the account anew; only the app and directory are compared
        // here.
        let details = Details::of(&grant)?;
        if self.judge(&details.person, &self.upstream_of(&details)) == Err(Refusal::Elsewhere) {
            return Err(Fault::Invalid);
        }
        match grant.number.checked_sub(presented.number) {
            Some(0) => self.rotate(grant, details).await,
            // The predecessor: the client did not receive the response, or refreshes twice.
            Some(1) if self.issuer.ledger.now() < grant.issued + GRACE => {
                let refresh_token = OneTime { id, number: grant.number }.token(&grant.family);
                Ok(Continued { id, details, refresh_token })
            }
            _ => {
                self.revoke(id).await?;
                Err(Fault::Reused)
            }
        }
    }

    /// Returns the verified token with its person, if it is valid now. Cheap for a token in the
    /// cache.
    pub(super) async fn recognise(&self, token: &[u8]) -> Result<Arc<Token>, access_token::Fault> {
        let (issuer, digest) = (&self.issuer, Digest::of(token));
        let known = issuer.ledger.verified.find(&digest);
        if let Some(token) = known {
            let keys = issuer.load_keys().await?;
            let good = keys.has(&token.kid) && issuer.is_good(&token);
            return if good { Ok(token) } else { Err(access_token::Fault::Invalid) };
        }
        let mut token = issuer.verify(token).await?;
        if !token.is_machines() {
            let grant = self.find(token.grant).await?.ok_or(access_token::Fault::Invalid)?;
            let details = Details::of(&grant)?;
            let upstream = self.upstream_of(&details);
            token.holder = Some(Holder { person: Arc::new(details.person), upstream });
        }
        let token = Arc::new(token);
        issuer.ledger.verified.keep(digest, Arc::clone(&token));
        Ok(token)
    }

    /// Returns the tenant's login settings.
    pub(super) fn login(&self) -> &Arc<LoginSpec> {
        &self.login
    }

    /// Whether a recognised token is valid at this moment.
    pub(super) fn is_good(&self, token: &Token) -> bool {
        self.issuer.is_good(token)
    }

    /// Verifies that a recognised token is valid under the tenant's current file. Called for every
    /// call.
    pub(super) fn stands(&self, token: &Token) -> Result<(), Refusal> {
        match &token.holder {
            Some(Holder { person, upstream }) => self.judge(person, upstream),
            None => self.machine(token).map(drop).ok_or(Refusal::MachineGone),
        }
    }

    /// Returns the machine client of a token, if the tenant's current file has it and the secret or
    /// key that the token was issued for.
    pub(super) fn machine(&self, token: &Token) -> Option<&MachineClientSpec> {
        let machine = self.login.machine(&token.claims.client_id)?;
        let counts = match &token.claims.by {
            Some(mark) => self.marks.include(&machine.id, mark),
            // From an earlier version, whose tokens have no mark; they expire within an hour of the
            // upgrade.
            None => {
                let before = self.issuer.lived.before.as_ref();
                before.is_some_and(|before| before.has_the_machines_of(&self.login))
            }
        };
        counts.then_some(machine)
    }

    /// Decides, for all paths, whether an earlier login is still valid.
    fn judge(&self, person: &Person, upstream: &Upstream) -> Result<(), Refusal> {
        identity::admits(&self.login.identity, upstream, person)
            .map_err(|why| if why.is_of_the_login() { Refusal::Elsewhere } else { Refusal::NotAllowed })?;
        person.may(&self.login.rules).map_err(|_| Refusal::NotAllowed)
    }

    /// Returns the app and directory of a grant; grants with the current ones share a value. A
    /// grant of an earlier version has those that the tenant had when its life was taken over, or,
    /// if these are unknown, ones that match nothing.
    fn upstream_of(&self, details: &Details) -> Arc<Upstream> {
        let earlier = || self.issuer.lived.before.as_ref().map(|before| &before.upstream);
        match details.at.as_ref().or_else(earlier) {
            Some(at) if *at == *self.upstream => Arc::clone(&self.upstream),
            Some(at) => Arc::new(at.clone()),
            None => Arc::new(Upstream::unknown()),
        }
    }

    /// Returns the token that ends calls made with a grant.
    pub(super) fn leave(&self, grant: GrantId, parent: &CancellationToken) -> Leave {
        self.issuer.ledger.revocations.leave(grant, parent)
    }

    /// Returns the realm of challenges, and the URL of the resource metadata.
    pub(super) fn realm(&self, asked: Resource) -> (&str, String) {
        (self.issuer.tenant.as_str(), self.issuer.url.resource_metadata(asked))
    }

    async fn rotate(&self, grant: Grant, mut details: Details) -> Result<Continued, Fault> {
        if let Err(fault) = self.renew(&mut details).await {
            if fault == Fault::Ended {
                self.revoke(grant.id).await?;
            }
            return Err(fault);
        }
        let now = self.issuer.ledger.now();
        let step = Step {
            id: grant.id,
            from: grant.number,
            client_id: grant.client_id,
            now,
            expires: now + IDLE,
            ends: grant.ends,
            details: details.encoded(),
        };
        let life = self.issuer.life().clone();
        let rotated = self.issuer.ledger.ask(move |store| store.rotate_refresh(&life, step)).await?;
        if !rotated {
            // Revoked or expired while Entra was asked.
            return Err(Fault::Invalid);
        }
        let refresh_token = OneTime { id: grant.id, number: grant.number + 1 }.token(&grant.family);
        Ok(Continued { id: grant.id, details, refresh_token })
    }

    /// Asks Entra whether the account is still valid and still admitted, and updates the details.
    async fn renew(&self, details: &mut Details) -> Result<(), Fault> {
        // Without Entra's refresh token the account cannot be verified; a new login brings one.
        let upstream = details.upstream.take().map(Secret::new).ok_or(Fault::Ended)?;
        let renewed = self.provider.renew(&upstream, &details.person).await;
        let login = renewed.map_err(|error| self.judged(&error))?;
        details.upstream = Some(login.refresh_token.unwrap_or(upstream).expose().to_owned());
        details.person = login.person;
        details.at = Some(Upstream::clone(&self.upstream));
        Ok(())
    }

    fn judged(&self, error: &identity::Error) -> Fault {
        let tenant = self.issuer.tenant.as_str();
        let trace = error.trace();
        let (correlation_id, trace_id) = (trace.correlation_id.as_deref(), trace.trace_id.as_deref());
        let aadsts = &trace.codes;
        match error.kind() {
            Kind::Refused | Kind::Ended => {
                tracing::info!(
                    tenant,
                    fault = error.class(),
                    ?aadsts,
                    correlation_id,
                    trace_id,
                    "Entra no longer vouches for an account"
                );
                Fault::Ended
            }
            Kind::Misconfigured => {
                tracing::error!(
                    tenant,
                    fault = error.class(),
                    ?aadsts,
                    correlation_id,
                    trace_id,
                    "Entra refuses this gateway, so nobody can renew a login"
                );
                Fault::Unavailable
            }
            Kind::Down => Fault::Unavailable,
        }
    }

    /// Revokes a grant: its tokens become invalid, and calls and streams in progress end, at once.
    ///
    /// # Errors
    /// Fails if the store cannot be written. The revocation is in force nevertheless, and is
    /// persisted later.
    pub async fn revoke(&self, id: GrantId) -> Result<(), Unavailable> {
        self.refuse(Subject::Grant(id)).await
    }

    /// Revokes all grants of a client, and its own tokens; returns the number of grants.
    ///
    /// # Errors
    /// Fails if the store cannot be written. Access tokens of the client are refused nevertheless;
    /// its grants may not be revoked yet.
    pub async fn revoke_client(&self, client_id: &str) -> Result<usize, Unavailable> {
        self.refuse(Subject::Client(Digest::of(client_id.as_bytes()))).await?;
        let (life, client_id) = (self.issuer.life().clone(), client_id.to_owned());
        let ending = move |store: &Store| store.end_grants_of(&life, &client_id);
        let ended = self.issuer.ledger.ask(ending).await?;
        let now = self.issuer.ledger.now();
        for id in &ended {
            self.issuer.ledger.revocations.add(self.issuer.life(), revoked(Subject::Grant(*id), now));
        }
        Ok(ended.len())
    }

    async fn refuse(&self, subject: Subject) -> Result<(), Unavailable> {
        let revoked = revoked(subject, self.issuer.ledger.now());
        let life = self.issuer.life().clone();
        // In memory first: if the store cannot be written now, the revocation is in force all the
        // same and written later.
        self.issuer.ledger.revocations.add(&life, revoked);
        let written = self.issuer.ledger.ask(move |store| store.revoke(&life, revoked)).await;
        if written.is_err() {
            self.issuer.ledger.revocations.is_unwritten(self.issuer.life(), subject);
        }
        written
    }

    /// Returns the grant that a one-time token of this client belongs to, and the token's number.
    async fn present(&self, token: &str, client_id: &str) -> Result<(OneTime, Grant), Fault> {
        let (presented, proof) = OneTime::parse(token).ok_or(Fault::Invalid)?;
        let grant = self.find(presented.id).await?.ok_or(Fault::Invalid)?;
        let genuine = presented.number <= grant.number && presented.is_proven(&grant.family, proof);
        if genuine && grant.client_id == client_id { Ok((presented, grant)) } else { Err(Fault::Invalid) }
    }

    pub(super) async fn find(&self, id: GrantId) -> Result<Option<Grant>, Unavailable> {
        let (life, now) = (self.issuer.life().clone(), self.issuer.ledger.now());
        if self.issuer.ledger.revocations.ended(life.tenant(), id) {
            return Ok(None);
        }
        self.issuer.ledger.ask(move |store| store.grant(&life, id, now)).await
    }

    /// Returns the grant and the client of a genuine refresh token, whatever its number.
    pub(super) async fn owner(&self, token: &str) -> Result<Option<(GrantId, String)>, Unavailable> {
        let Some((presented, proof)) = OneTime::parse(token) else { return Ok(None) };
        let grant = self.find(presented.id).await?;
        let genuine = grant
            .filter(|grant| presented.number <= grant.number && presented.is_proven(&grant.family, proof));
        Ok(genuine.map(|grant| (grant.id, grant.client_id)))
    }
}

/// Returns a person's names for the audit log.
pub(super) fn who(person: &Person) -> Who<'_> {
    Who { tid: Some(&person.tid), oid: Some(&person.oid), user: person.username.as_deref(), label: None }
}

fn revoked(subject: Subject, now: Timestamp) -> Revoked {
    // `issued_until` includes the current second: tokens issued within it precede the revocation.
    Revoked { subject, issued_until: now, forget: now + LIFE + LIFE }
}

impl Refusal {
    /// Returns the fault for the client that presents a code.
    fn of_grants(self) -> Fault {
        match self {
            Self::NotAllowed => Fault::Ended,
            Self::Elsewhere | Self::MachineGone => Fault::Invalid,
        }
    }
}

/// One of a grant's tokens: `c.<grant>.0.<proof>` or `rt.<grant>.<number>.<proof>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OneTime {
    id: GrantId,
    number: u32,
}

impl OneTime {
    fn kind(self) -> &'static str {
        if self.number == 0 { "c" } else { "rt" }
    }

    fn parse(text: &str) -> Option<(Self, &str)> {
        let mut parts = text.splitn(4, '.');
        let (kind, id, number, proof) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let one = Self { id: GrantId::parse(id)?, number: number.parse().ok()? };
        // Each number has a single spelling.
        (kind == one.kind() && number == one.number.to_string()).then_some((one, proof))
    }

    fn token(self, family: &[u8; 32]) -> Secret {
        let Self { id, number } = self;
        Secret::new(format!("{}.{id}.{number}.{}", self.kind(), self.proof(family)))
    }

    fn proof(self, family: &[u8; 32]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, family);
        let tag = hmac::sign(&key, format!("{}.{}", self.kind(), self.number).as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(tag)
    }

    fn is_proven(self, family: &[u8; 32], proof: &str) -> bool {
        constant_time::verify_slices_are_equal(self.proof(family).as_bytes(), proof.as_bytes()).is_ok()
    }
}

impl Details {
    fn of(grant: &Grant) -> Result<Self, Unavailable> {
        serde_json::from_slice(&grant.details).map_err(|error| {
            tracing::error!(%error, "a grant in the store cannot be read");
            Unavailable
        })
    }

    fn encoded(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("details are plain data")
    }
}

impl fmt::Debug for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Details").field("scope", &self.scope).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
