//! The code of a grant: the grant begins with it, and it is redeemed once (RFC 6749 section 4.1.2).

use jiff::{SignedDuration, Timestamp};

use super::payload::GrantPayload;
use super::replaced_tokens::ReplacedTokens;
use super::token::GrantToken;
use super::{
    GrantError, GrantRejection, Grants, MAX_GRANT_LIFETIME, NewGrant, REFRESH_IDLE_LIFETIME, RotatedGrant,
};
use crate::base::random;
use crate::base::secret::Secret;
use crate::identity::ProviderApp;
use crate::oauth::error::Unavailable;
use crate::store::{CreateGrant, Grant, GrantId, RotateGrant};

const CODE_LIFETIME: SignedDuration = SignedDuration::from_secs(60);

impl Grants {
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
            replaced_tokens: ReplacedTokens::default(),
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
    /// section 4.1.2), unless they are the client's own (`verifier`, RFC 7636). The caller verifies the
    /// rest of the request, and calls [`Grants::revoke`] if it is wrong; before it answers, it calls
    /// [`Grants::confirm_redemption`].
    pub(in crate::oauth) async fn redeem_code(
        &self,
        code: &str,
        client_id: &str,
        verifier: Option<&str>,
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
            return self.redeem_again(&grant, payload, verifier, arrived_at).await;
        }
        // The store decides between concurrent requests with the same code.
        if self.take_code(&grant, &payload).await? {
            return Ok(RotatedGrant::new(&grant, 1, payload));
        }
        let grant = self.find_grant(grant.id).await?.ok_or(GrantError::Invalid)?;
        let payload = GrantPayload::decode(&grant)?;
        self.redeem_again(&grant, payload, verifier, arrived_at).await
    }

    async fn take_code(&self, grant: &Grant, payload: &GrantPayload) -> Result<bool, Unavailable> {
        let (now, mut payload) = (self.context.now(), payload.clone());
        payload.replaced_tokens.record(0, now);
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
    /// has the verifier of its challenge may ask again, as long as a code is valid. If somebody was,
    /// the client itself, which has the verifier, gets nothing and loses nothing within a minute:
    /// perhaps the network delivered a request late that it had given up, or it asks twice.
    async fn redeem_again(
        &self,
        grant: &Grant,
        payload: GrantPayload,
        verifier: Option<&str>,
        arrived_at: Timestamp,
    ) -> Result<RotatedGrant, GrantError> {
        let may_be_lost = grant.last_sequence == 1
            && grant.last_token.is_unconfirmed
            && grant.last_token.age < CODE_LIFETIME;
        if may_be_lost && payload.code_challenge.is_some() {
            return Ok(RotatedGrant::new(grant, 1, payload));
        }
        let is_own =
            payload.replaced_tokens.contains_lately(0, arrived_at) && payload.is_verified_by(verifier);
        if is_own && !self.is_reuse_in_doubt(grant, arrived_at) {
            return Err(GrantError::Invalid);
        }
        Err(self.refuse_used_token(grant, arrived_at).await?)
    }

    /// Records that a client is answered with what a code yields. Returns `false` if another request
    /// with the same code was.
    pub(in crate::oauth) async fn confirm_redemption(&self, id: GrantId) -> bool {
        let incarnation = self.issuer.current_incarnation();
        let confirmed = self.context.store.confirm_last_token(incarnation, id, 1).await;
        // Without the record, the same client may ask again; that is no reason to refuse it now.
        confirmed.map_err(Unavailable::from_store).unwrap_or(true)
    }
}
