//! The rotation of refresh tokens, each time with the provider's consent, and what becomes of one that
//! was replaced.

use jiff::Timestamp;

use super::payload::GrantPayload;
use super::replaced_tokens::REUSE_GRACE_PERIOD;
use super::token::GrantToken;
use super::{GrantError, GrantRejection, Grants, REFRESH_IDLE_LIFETIME, RotatedGrant};
use crate::base::secret::Secret;
use crate::identity::{self, LoginErrorKind, ProviderApp};
use crate::oauth::error::Unavailable;
use crate::store::{Grant, GrantId, RotateGrant};

impl Grants {
    /// Rotates a refresh token, after asking the provider whether the account is still valid. Two
    /// requests with the same token within a minute get the same successor.
    pub(in crate::oauth) async fn refresh(
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
        let now = self.context.now();
        payload.replaced_tokens.record(sequence, now);
        // Only the exchange of the code needed these, and whoever shows it late.
        if !payload.replaced_tokens.contains_lately(0, now) {
            (payload.redirect_uri, payload.code_challenge) = (None, None);
        }
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
        // Perhaps the network was slow with a request that its client gave up.
        if !is_predecessor && payload.replaced_tokens.contains_lately(sequence, arrived_at) {
            return Err(GrantError::Unavailable);
        }
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
}
