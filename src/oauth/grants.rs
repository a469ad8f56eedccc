//! The grants of one tenant: what people allowed clients to do, from the code to the last refresh
//! token.
//!
//! A grant is a family of one-time tokens, numbered from 0, the code. Each token derives from the
//! family's key and its number (HMAC-SHA-256), so none of them is stored. The latest one can be
//! issued again to a client that did not receive it: within a minute, and only in exchange for its
//! predecessor. An older token means that one was stolen, so it revokes the grant (OAuth 2.1
//! section 4.3.1). A forged token has no effect.
//!
//! Several gateways may be asked at once, and a database may go away at any moment. So before a
//! token is called invalid the grant is read again, a token is judged by what was in force when it
//! arrived, and a token that may have reached nobody leaves its predecessor valid until somebody has
//! it.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::context::AuthContext;
use super::credential_fingerprint::CredentialFingerprints;
use super::error::Unavailable;
use super::issuer::Issuer;
use super::machine_tokens::MachineToken;
use super::revocations::{GrantHolder, GrantRevocationToken};
use super::tokens::access_token::{self, AccessToken, ResourceOwner};
use crate::base::digest::Digest;
use crate::base::random;
use crate::base::secret::Secret;
use crate::identity::{self, Account, LoginErrorKind, LoginRejection, Provider, ProviderApp};
use crate::spec::{LoginSpec, MachineClientSpec, ResourceSpelling};
use crate::store::{CreateGrant, Grant, GrantId, Revocation, RevokedSubject, RotateGrant};

const CODE_LIFETIME: SignedDuration = SignedDuration::from_secs(60);
/// How long a replaced refresh token yields its successor again: Claude refreshes from two places,
/// and responses get lost.
const REUSE_GRACE_PERIOD: SignedDuration = SignedDuration::from_secs(60);
const REFRESH_IDLE_LIFETIME: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The maximum lifetime of a grant: that of Entra's own refresh tokens.
pub(super) const MAX_GRANT_LIFETIME: SignedDuration = SignedDuration::from_hours(90 * 24);

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
    pub account: Account,
    /// The provider's refresh token.
    pub provider_refresh_token: Option<Secret>,
}

/// The grants of one tenant.
#[derive(Debug)]
pub struct Grants {
    issuer: Arc<Issuer>,
    context: Arc<AuthContext>,
    login: Arc<LoginSpec>,
    provider: Provider,
    /// The app and directory of new logins.
    provider_app: Arc<ProviderApp>,
    /// The fingerprints of the machine clients' valid secrets and keys.
    credential_fingerprints: CredentialFingerprints,
}

/// The contents of a grant, sealed in the store.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct GrantPayload {
    #[serde(rename = "person")]
    pub(super) account: Account,
    /// The app and directory of the login; grants of older versions have none.
    #[serde(rename = "at", default, skip_serializing_if = "Option::is_none")]
    provider_app: Option<ProviderApp>,
    pub(super) scope: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) client_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) redirect_uri: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) code_challenge: Option<String>,
    /// The provider's refresh token.
    #[serde(rename = "upstream", default, skip_serializing_if = "Option::is_none")]
    provider_refresh_token: Option<String>,
}

/// A grant with its next refresh token.
#[derive(Debug)]
pub(super) struct RotatedGrant {
    pub(super) id: GrantId,
    pub(super) payload: GrantPayload,
    pub(super) refresh_token: Secret,
}

/// Why a genuine token or grant is not valid under the tenant's current file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GrantRejection {
    /// The login was made with another app or directory; only a new login helps.
    OtherProviderApp,
    /// The account may not call; no other token could change that.
    NotAllowed,
    /// An operator keeps the person out.
    Blocked,
    /// It is unknown whether an operator keeps the person out.
    Unavailable,
    /// It belongs to a machine client, or to one of its secrets or keys, that no longer exists.
    MachineClientRemoved,
}

/// Why a one-time token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GrantError {
    /// Unknown, expired, used, forged or another client's.
    Invalid,
    /// It was used before, so the grant is revoked.
    Reused,
    /// The account may no longer log in, so the grant is revoked.
    Ended,
    /// An operator keeps the person out.
    Blocked,
    /// The provider or the store is unavailable. Nothing was used up.
    Unavailable,
}

impl From<Unavailable> for GrantError {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

impl Grants {
    /// Creates the grants of a tenant.
    pub fn new(issuer: Arc<Issuer>, login: Arc<LoginSpec>, provider: Provider) -> Self {
        let provider_app = Arc::new(ProviderApp::from_spec(&login.provider));
        let credential_fingerprints =
            CredentialFingerprints::from_login(issuer.current_incarnation(), &login);
        let context = Arc::clone(&issuer.context);
        Self { issuer, context, login, provider, provider_app, credential_fingerprints }
    }

    /// Begins a grant and returns its code, which is valid for a minute, once. When this returns,
    /// the grant is on disk.
    ///
    /// # Errors
    /// Fails if the store cannot be written.
    pub async fn create(&self, new: NewGrant) -> Result<Secret, Unavailable> {
        let now = self.context.now();
        let (id, family_key) = (GrantId::random(), random::bytes());
        let payload = GrantPayload {
            account: new.account,
            provider_app: Some(ProviderApp::clone(&self.provider_app)),
            scope: new.scope,
            client_name: new.client_name,
            redirect_uri: new.redirect_uri,
            code_challenge: new.code_challenge,
            provider_refresh_token: new.provider_refresh_token.map(|token| token.expose().to_owned()),
        };
        let grant = CreateGrant {
            id,
            client_id: new.client_id,
            now,
            code_expires_at: now + CODE_LIFETIME,
            family_key,
            payload: payload.encode(),
        };
        self.context
            .store
            .create_grant(self.issuer.current_incarnation(), grant)
            .await
            .map_err(Unavailable::from_store)?;
        Ok(GrantToken { id, sequence: 0 }.to_secret(&family_key))
    }

    /// Redeems a code. Of several requests with it, one gets a grant; later ones revoke it (RFC 6749
    /// section 4.1.2). The caller verifies the rest of the request, and calls [`Grants::revoke`] if
    /// it is wrong; before it answers, it calls [`Grants::confirm_redemption`].
    pub(super) async fn redeem_code(
        &self,
        code: &str,
        client_id: &str,
        arrived_at: Timestamp,
    ) -> Result<RotatedGrant, GrantError> {
        let (grant_token, grant) = self.verify_grant_token(code, client_id).await?;
        if grant_token.sequence != 0 {
            return Err(GrantError::Invalid);
        }
        let payload = GrantPayload::decode(&grant)?;
        self.check_block(&payload.account).map_err(GrantRejection::into_grant_error)?;
        if let Err(refusal) = self.check_login(&payload.account, &self.find_provider_app(&payload)) {
            self.revoke(grant.id).await?;
            return Err(refusal.into_grant_error());
        }
        if grant.last_sequence != 0 {
            return self.redeem_again(&grant, payload, arrived_at).await;
        }
        // The store decides between concurrent requests with the same code.
        if self.take_code(&grant, &payload).await? {
            return Ok(RotatedGrant::new(&grant, 1, payload));
        }
        let grant = self.find_grant(grant.id).await?.ok_or(GrantError::Invalid)?;
        self.redeem_again(&grant, payload, arrived_at).await
    }

    async fn take_code(&self, grant: &Grant, payload: &GrantPayload) -> Result<bool, Unavailable> {
        let now = self.context.now();
        let step = RotateGrant {
            id: grant.id,
            from_sequence: 0,
            client_id: grant.client_id.clone(),
            now,
            expires_at: now + REFRESH_IDLE_LIFETIME,
            ends_at: now + MAX_GRANT_LIFETIME,
            payload: payload.encode(),
        };
        let taken = self.context.store.take_code(self.issuer.current_incarnation(), step).await;
        taken.map_err(Unavailable::from_store)
    }

    /// Judges a code that was redeemed before. If nobody is known to have been answered, whoever
    /// has the verifier of its challenge may ask again, as long as a code is valid.
    async fn redeem_again(
        &self,
        grant: &Grant,
        payload: GrantPayload,
        arrived_at: Timestamp,
    ) -> Result<RotatedGrant, GrantError> {
        let may_be_lost = grant.last_sequence == 1
            && grant.last_token.is_unconfirmed
            && grant.last_token.age < CODE_LIFETIME;
        if may_be_lost && payload.code_challenge.is_some() {
            return Ok(RotatedGrant::new(grant, 1, payload));
        }
        Err(self.refuse_used_token(grant, arrived_at).await?)
    }

    /// Records that a client is answered with what a code yields. Returns `false` if another request
    /// with the same code was.
    pub(super) async fn confirm_redemption(&self, id: GrantId) -> bool {
        let incarnation = self.issuer.current_incarnation();
        let confirmed = self.context.store.confirm_last_token(incarnation, id, 1).await;
        // Without the record, the same client may ask again; that is no reason to refuse it now.
        confirmed.map_err(Unavailable::from_store).unwrap_or(true)
    }

    /// Returns why a token that was used before is refused, and revokes its grant if that proves
    /// that somebody else has it.
    async fn refuse_used_token(
        &self,
        grant: &Grant,
        arrived_at: Timestamp,
    ) -> Result<GrantError, GrantError> {
        // It was used while this request waited, perhaps by the same client at another gateway.
        let was_overtaken = grant.last_token.age < self.context.now().duration_since(arrived_at);
        if was_overtaken || self.context.store.was_away_lately() {
            return Ok(GrantError::Unavailable);
        }
        self.revoke(grant.id).await?;
        Ok(GrantError::Reused)
    }

    /// Rotates a refresh token, after asking the provider whether the account is still valid. Two
    /// requests with the same token within a minute get the same successor.
    pub(super) async fn refresh(
        &self,
        token: &str,
        client_id: &str,
        arrived_at: Timestamp,
    ) -> Result<RotatedGrant, GrantError> {
        let id = GrantToken::parse(token).ok_or(GrantError::Invalid)?.0.id;
        let _turn = self.context.lock_grant(id).await;
        let (grant_token, grant) = self.verify_grant_token(token, client_id).await?;
        if grant_token.sequence == 0 {
            return Err(GrantError::Invalid);
        }
        // The provider's answer decides about the account anew; only the app and directory are
        // compared here.
        let payload = GrantPayload::decode(&grant)?;
        self.check_block(&payload.account).map_err(GrantRejection::into_grant_error)?;
        if self.check_login(&payload.account, &self.find_provider_app(&payload))
            == Err(GrantRejection::OtherProviderApp)
        {
            return Err(GrantError::Invalid);
        }
        match grant.last_sequence == grant_token.sequence {
            true => self.rotate(grant, payload, arrived_at).await,
            false => self.refresh_again(grant_token.sequence, &grant, payload, arrived_at).await,
        }
    }

    /// Answers a refresh token that was replaced. Its successor is issued again if the client did
    /// not receive it, or refreshes twice.
    async fn refresh_again(
        &self,
        sequence: u32,
        grant: &Grant,
        payload: GrantPayload,
        arrived_at: Timestamp,
    ) -> Result<RotatedGrant, GrantError> {
        let last = grant.last_token;
        let is_predecessor = grant.last_sequence.checked_sub(sequence) == Some(1);
        if !is_predecessor || !(last.is_unconfirmed || last.age < REUSE_GRACE_PERIOD) {
            return Err(self.refuse_used_token(grant, arrived_at).await?);
        }
        if last.is_unconfirmed {
            // From now on somebody has it: the grace period begins. If another request was faster,
            // it began just now.
            let incarnation = self.issuer.current_incarnation();
            let confirmed = self.context.store.confirm_last_token(incarnation, grant.id, grant.last_sequence);
            confirmed.await.map_err(Unavailable::from_store)?;
        }
        Ok(RotatedGrant::new(grant, grant.last_sequence, payload))
    }

    /// Reads a grant again before its token, which was the last one a moment ago, is called invalid:
    /// another gateway may have rotated it.
    async fn refresh_after_race(
        &self,
        id: GrantId,
        sequence: u32,
        arrived_at: Timestamp,
    ) -> Result<RotatedGrant, GrantError> {
        let grant = self.find_grant(id).await?.ok_or(GrantError::Invalid)?;
        if grant.last_sequence == sequence {
            return Err(GrantError::Unavailable);
        }
        let payload = GrantPayload::decode(&grant)?;
        self.refresh_again(sequence, &grant, payload, arrived_at).await
    }

    /// Returns the verified token with its person, if it is valid now. Cheap for a token in the
    /// cache.
    pub(super) async fn verify_access_token(
        &self,
        token: &[u8],
    ) -> Result<Arc<AccessToken>, access_token::AccessTokenError> {
        if !self.context.can_vouch() {
            return Err(access_token::AccessTokenError::Unavailable);
        }
        let (issuer, digest) = (&self.issuer, Digest::of(token));
        let known = self.context.verified_tokens.get(&digest);
        if let Some(token) = known {
            let keys = issuer.load_keys().await?;
            let is_valid = keys.contains(&token.kid) && issuer.is_valid_now(&token);
            return if is_valid { Ok(token) } else { Err(access_token::AccessTokenError::Invalid) };
        }
        let mut token = issuer.verify(token).await?;
        if !token.is_client_credentials() {
            let grant =
                self.find_grant(token.grant_id).await?.ok_or(access_token::AccessTokenError::Invalid)?;
            let payload = GrantPayload::decode(&grant)?;
            let provider_app = self.find_provider_app(&payload);
            token.resource_owner = Some(ResourceOwner { account: Arc::new(payload.account), provider_app });
        }
        let token = Arc::new(token);
        self.context.verified_tokens.insert(digest, Arc::clone(&token));
        Ok(token)
    }

    /// Returns the tenant's login settings.
    pub(super) fn login_spec(&self) -> &Arc<LoginSpec> {
        &self.login
    }

    /// Whether a recognised token is valid at this moment.
    pub(super) fn is_valid_now(&self, token: &AccessToken) -> bool {
        self.issuer.is_valid_now(token)
    }

    /// Verifies that a recognised token is valid under the tenant's current file, and that no
    /// operator keeps its person out. Called for every call.
    pub(super) fn check_current_rules(&self, token: &AccessToken) -> Result<(), GrantRejection> {
        match &token.resource_owner {
            Some(ResourceOwner { account, provider_app }) => {
                self.check_block(account)?;
                self.check_login(account, provider_app)
            }
            None => self.find_machine_client(token).map(drop).ok_or(GrantRejection::MachineClientRemoved),
        }
    }

    /// Returns the machine client of a token, if the tenant's current file has it and the secret or
    /// key that the token was issued for.
    pub(super) fn find_machine_client(&self, token: &AccessToken) -> Option<&MachineClientSpec> {
        let machine = self.login.find_machine_client(&token.claims.client_id)?;
        let counts = match &token.claims.by {
            Some(fingerprint) => self.credential_fingerprints.contains(&machine.id, fingerprint),
            // From an earlier version, whose tokens have no fingerprint; they expire within an hour
            // of the upgrade.
            None => {
                let legacy = self.issuer.incarnation.legacy.as_ref();
                legacy.is_some_and(|legacy| legacy.has_same_machine_clients(&self.login))
            }
        };
        counts.then_some(machine)
    }

    /// Verifies that no operator keeps the account out of this tenant.
    pub(super) fn check_block(&self, account: &Account) -> Result<(), GrantRejection> {
        let block = self.context.blocks.find(self.issuer.tenant.as_str(), account, self.context.now());
        match block {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(GrantRejection::Blocked),
            Err(Unavailable) => Err(GrantRejection::Unavailable),
        }
    }

    /// Decides, for all paths, whether an earlier login is still valid.
    fn check_login(&self, account: &Account, app: &ProviderApp) -> Result<(), GrantRejection> {
        self.provider.check_login(app, account).map_err(|rejection| match rejection {
            LoginRejection::OtherProviderApp => GrantRejection::OtherProviderApp,
            LoginRejection::NotAdmitted => GrantRejection::NotAllowed,
        })?;
        account.check_rules(&self.login.rules).map_err(|_| GrantRejection::NotAllowed)
    }

    /// Returns the app and directory of a grant; grants with the current ones share a value. A
    /// grant of an earlier version has those that the tenant had when its incarnation was taken
    /// over, or, if these are unknown, ones that match nothing.
    fn find_provider_app(&self, payload: &GrantPayload) -> Arc<ProviderApp> {
        let legacy_app = || self.issuer.incarnation.legacy.as_ref().map(|legacy| &legacy.provider_app);
        match payload.provider_app.as_ref().or_else(legacy_app) {
            Some(app) if *app == *self.provider_app => Arc::clone(&self.provider_app),
            Some(app) => Arc::new(app.clone()),
            None => Arc::new(ProviderApp::unknown()),
        }
    }

    /// Returns the token that ends calls made with an access token.
    pub(super) fn revocation_token(
        &self,
        token: &AccessToken,
        parent: &CancellationToken,
    ) -> GrantRevocationToken {
        let holder = || GrantHolder {
            tenant: Arc::clone(self.issuer.tenant.as_arc()),
            client: token.client_digest,
            account: token.resource_owner.as_ref().map(|owner| Arc::clone(&owner.account)),
        };
        self.context.revocations.token_for(token.grant_id, holder, parent)
    }

    /// Records that an access token was used now.
    pub(super) fn record_use(&self, token: &AccessToken) {
        let (id, now) = (token.grant_id, self.context.now());
        if token.resource_owner.is_some() {
            self.context.last_uses.record(id, now);
        } else if let Some(machine) = self.find_machine_client(token) {
            let incarnation = self.issuer.current_incarnation();
            self.context
                .machine_tokens
                .record_use(id, now, || MachineToken::from_access_token(token, incarnation, &machine.label));
        }
    }

    /// Returns the realm of challenges, and the URL of the resource metadata.
    pub(super) fn challenge_params(&self, asked: ResourceSpelling) -> (&str, String) {
        (self.issuer.tenant.as_str(), self.issuer.url.resource_metadata_url(asked))
    }

    async fn rotate(
        &self,
        grant: Grant,
        mut payload: GrantPayload,
        arrived_at: Timestamp,
    ) -> Result<RotatedGrant, GrantError> {
        let (id, sequence) = (grant.id, grant.last_sequence);
        if let Err(error) = self.renew_at_provider(&mut payload).await {
            if error != GrantError::Ended {
                return Err(error);
            }
            // A provider may have replaced its token for another gateway.
            if self.find_grant(id).await?.is_some_and(|now| now.last_sequence != sequence) {
                return self.refresh_after_race(id, sequence, arrived_at).await;
            }
            self.revoke(id).await?;
            return Err(error);
        }
        // Only the exchange of the code needed these.
        (payload.redirect_uri, payload.code_challenge) = (None, None);
        let now = self.context.now();
        let rotation = RotateGrant {
            id,
            from_sequence: sequence,
            client_id: grant.client_id.clone(),
            now,
            expires_at: now + REFRESH_IDLE_LIFETIME,
            ends_at: grant.ends_at,
            payload: payload.encode(),
        };
        let rotated = self.context.store.rotate_refresh(self.issuer.current_incarnation(), rotation).await;
        match rotated.map_err(Unavailable::from_store)? {
            true => Ok(RotatedGrant::new(&grant, sequence + 1, payload)),
            // Rotated elsewhere, revoked or expired while the provider was asked.
            false => self.refresh_after_race(id, sequence, arrived_at).await,
        }
    }

    /// Asks the provider whether the account is still valid and still admitted, and updates the
    /// details.
    async fn renew_at_provider(&self, payload: &mut GrantPayload) -> Result<(), GrantError> {
        // Without the provider's refresh token the account cannot be verified; a new login brings
        // one.
        let provider_refresh_token =
            payload.provider_refresh_token.take().map(Secret::new).ok_or(GrantError::Ended)?;
        let renewed = self.provider.renew(&provider_refresh_token, &payload.account).await;
        let login = renewed.map_err(|error| self.classify_renewal_error(&error))?;
        payload.provider_refresh_token =
            Some(login.refresh_token.unwrap_or(provider_refresh_token).expose().to_owned());
        payload.account = login.account;
        payload.provider_app = Some(ProviderApp::clone(&self.provider_app));
        Ok(())
    }

    fn classify_renewal_error(&self, error: &identity::Error) -> GrantError {
        error.log_renewal(self.issuer.tenant.as_str(), self.provider.brand().service);
        match error.kind() {
            LoginErrorKind::Refused | LoginErrorKind::Ended => GrantError::Ended,
            LoginErrorKind::Misconfigured | LoginErrorKind::Down => GrantError::Unavailable,
        }
    }

    /// Revokes a grant: its tokens become invalid, and calls and streams in progress end, at once.
    ///
    /// # Errors
    /// Fails if the store cannot be written. The revocation is in force nevertheless, and is
    /// persisted later.
    pub async fn revoke(&self, id: GrantId) -> Result<(), Unavailable> {
        self.persist_revocation(RevokedSubject::Grant(id)).await
    }

    /// Revokes all grants of a client, and its own tokens; returns the number of grants.
    ///
    /// # Errors
    /// Fails if the store cannot be written. Access tokens of the client are refused nevertheless;
    /// its grants may not be revoked yet.
    pub async fn revoke_client(&self, client_id: &str) -> Result<usize, Unavailable> {
        self.persist_revocation(RevokedSubject::Client(Digest::of(client_id.as_bytes()))).await?;
        let incarnation = self.issuer.current_incarnation();
        let ended = self.context.store.delete_grants_of_client(incarnation, client_id).await;
        let ended = ended.map_err(Unavailable::from_store)?;
        let now = self.context.now();
        let revoked = ended.iter().map(|id| revocation_at(RevokedSubject::Grant(*id), now));
        let revoked: Vec<_> = revoked.map(|revoked| (incarnation.clone(), revoked)).collect();
        revoked.iter().for_each(|(_, revoked)| self.context.revocations.insert(incarnation, *revoked));
        if self.context.store.is_shared() {
            // Another gateway may have renewed one of them a moment ago.
            self.context.store.revoke_all(revoked).await.map_err(Unavailable::from_store)?;
        }
        Ok(ended.len())
    }

    async fn persist_revocation(&self, subject: RevokedSubject) -> Result<(), Unavailable> {
        let revoked = revocation_at(subject, self.context.now());
        let incarnation = self.issuer.current_incarnation();
        // In memory first: if the store cannot be written now, the revocation is in force all the
        // same and written later.
        self.context.revocations.insert(incarnation, revoked);
        let written = self.context.store.revoke(incarnation, revoked).await.map_err(Unavailable::from_store);
        if written.is_err() {
            self.context.revocations.mark_unpersisted(incarnation, subject);
        }
        written
    }

    /// Returns the grant that a one-time token of this client belongs to, and the token's number.
    async fn verify_grant_token(
        &self,
        token: &str,
        client_id: &str,
    ) -> Result<(GrantToken, Grant), GrantError> {
        let (grant_token, proof) = GrantToken::parse(token).ok_or(GrantError::Invalid)?;
        let grant = self.find_grant(grant_token.id).await?.ok_or(GrantError::Invalid)?;
        if grant_token.is_genuine(&grant, proof) && grant.client_id == client_id {
            Ok((grant_token, grant))
        } else {
            Err(GrantError::Invalid)
        }
    }

    pub(super) async fn find_grant(&self, id: GrantId) -> Result<Option<Grant>, Unavailable> {
        let (incarnation, now) = (self.issuer.current_incarnation(), self.context.now());
        if self.context.revocations.is_grant_ended(incarnation.tenant(), id) {
            return Ok(None);
        }
        self.context.store.load_grant(incarnation, id, now).await.map_err(Unavailable::from_store)
    }

    /// Returns the grant and the client of a genuine refresh token, whatever its number.
    pub(super) async fn find_refresh_token_client(
        &self,
        token: &str,
    ) -> Result<Option<(GrantId, String)>, Unavailable> {
        let Some((grant_token, proof)) = GrantToken::parse(token) else { return Ok(None) };
        let grant = self.find_grant(grant_token.id).await?;
        let grant = grant.filter(|grant| grant_token.is_genuine(grant, proof));
        Ok(grant.map(|grant| (grant.id, grant.client_id)))
    }
}

/// Returns the revocation of the tokens that a subject was issued until now.
pub(super) fn revocation_at(subject: RevokedSubject, now: Timestamp) -> Revocation {
    // `issued_until` includes the current second: tokens issued within it precede the revocation.
    Revocation {
        subject,
        issued_until: now,
        forget_at: now + access_token::MAX_LIFETIME + access_token::MAX_LIFETIME,
    }
}

impl GrantRejection {
    /// Returns the fault for the client that presents a code.
    fn into_grant_error(self) -> GrantError {
        match self {
            Self::NotAllowed => GrantError::Ended,
            Self::Blocked => GrantError::Blocked,
            Self::Unavailable => GrantError::Unavailable,
            Self::OtherProviderApp | Self::MachineClientRemoved => GrantError::Invalid,
        }
    }
}

/// One of a grant's tokens: `c.<grant_id>.0.<proof>` or `rt.<grant_id>.<sequence>.<proof>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct GrantToken {
    id: GrantId,
    sequence: u32,
}

impl GrantToken {
    fn prefix(self) -> &'static str {
        if self.sequence == 0 { "c" } else { "rt" }
    }

    fn parse(text: &str) -> Option<(Self, &str)> {
        let mut parts = text.splitn(4, '.');
        let (kind, id, sequence, proof) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let token = Self { id: GrantId::parse(id)?, sequence: sequence.parse().ok()? };
        // Each number has a single spelling.
        (kind == token.prefix() && sequence == token.sequence.to_string()).then_some((token, proof))
    }

    fn to_secret(self, family_key: &[u8; 32]) -> Secret {
        let Self { id, sequence } = self;
        Secret::new(format!("{}.{id}.{sequence}.{}", self.prefix(), self.compute_proof(family_key)))
    }

    fn compute_proof(self, family_key: &[u8; 32]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, family_key);
        let tag = hmac::sign(&key, format!("{}.{}", self.prefix(), self.sequence).as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(tag)
    }

    /// Whether the grant has issued this token. Compares the proof in constant time.
    fn is_genuine(self, grant: &Grant, proof: &str) -> bool {
        let expected = self.compute_proof(&grant.family_key);
        self.sequence <= grant.last_sequence
            && constant_time::verify_slices_are_equal(expected.as_bytes(), proof.as_bytes()).is_ok()
    }
}

impl RotatedGrant {
    fn new(grant: &Grant, sequence: u32, payload: GrantPayload) -> Self {
        let refresh_token = GrantToken { id: grant.id, sequence }.to_secret(&grant.family_key);
        Self { id: grant.id, payload, refresh_token }
    }
}

impl GrantPayload {
    fn decode(grant: &Grant) -> Result<Self, Unavailable> {
        Self::parse(&grant.payload)
    }

    pub(super) fn parse(payload: &[u8]) -> Result<Self, Unavailable> {
        serde_json::from_slice(payload).map_err(|error| {
            tracing::error!(%error, "a grant in the store cannot be read");
            Unavailable
        })
    }

    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("details are plain data")
    }
}

impl fmt::Debug for GrantPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrantPayload").field("scope", &self.scope).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
