//! Access tokens in use: what is verified at each call beyond the token itself, and who has used it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::payload::GrantPayload;
use super::{GrantRejection, Grants};
use crate::base::digest::Digest;
use crate::identity::{Account, LoginRejection, ProviderApp};
use crate::oauth::error::Unavailable;
use crate::oauth::machine_tokens::MachineToken;
use crate::oauth::revocations::{GrantHolder, GrantRevocationToken};
use crate::oauth::tokens::access_token::{AccessToken, AccessTokenError, ResourceOwner};
use crate::spec::MachineClientSpec;

impl Grants {
    /// Returns the verified token with its person, if it is valid now. Cheap for a token in the
    /// cache.
    pub(in crate::oauth) async fn verify_access_token(
        &self,
        token: &[u8],
    ) -> Result<Arc<AccessToken>, AccessTokenError> {
        if !self.context.can_vouch() {
            return Err(AccessTokenError::Unavailable);
        }
        let (issuer, digest) = (&self.issuer, Digest::of(token));
        let known = self.context.verified_tokens.get(&digest);
        if let Some(token) = known {
            let keys = issuer.load_keys().await?;
            let is_valid = keys.contains(&token.kid) && issuer.is_valid_now(&token);
            return if is_valid { Ok(token) } else { Err(AccessTokenError::Invalid) };
        }
        let mut token = issuer.verify(token).await?;
        if !token.is_client_credentials() {
            let grant = self.find_grant(token.grant_id).await?.ok_or(AccessTokenError::Invalid)?;
            let payload = GrantPayload::decode(&grant)?;
            let provider_app = self.find_provider_app(&payload);
            token.resource_owner = Some(ResourceOwner { account: Arc::new(payload.account), provider_app });
        }
        let token = Arc::new(token);
        self.context.verified_tokens.insert(digest, Arc::clone(&token));
        Ok(token)
    }

    /// Whether a recognised token is valid at this moment.
    pub(in crate::oauth) fn is_valid_now(&self, token: &AccessToken) -> bool {
        self.issuer.is_valid_now(token)
    }

    /// Verifies that a recognised token is valid under the tenant's current file, and that no
    /// operator keeps its person out. Called for every call.
    pub(in crate::oauth) fn check_current_rules(&self, token: &AccessToken) -> Result<(), GrantRejection> {
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
    pub(in crate::oauth) fn find_machine_client(&self, token: &AccessToken) -> Option<&MachineClientSpec> {
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
    pub(in crate::oauth) fn check_block(&self, account: &Account) -> Result<(), GrantRejection> {
        let block = self.context.blocks.find(self.issuer.tenant.as_str(), account, self.context.now());
        match block {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(GrantRejection::Blocked),
            Err(Unavailable) => Err(GrantRejection::Unavailable),
        }
    }

    /// Decides, for all paths, whether an earlier login is still valid.
    pub(super) fn check_login(&self, account: &Account, app: &ProviderApp) -> Result<(), GrantRejection> {
        self.provider.check_login(app, account).map_err(|rejection| match rejection {
            LoginRejection::OtherProviderApp => GrantRejection::OtherProviderApp,
            LoginRejection::NotAdmitted => GrantRejection::NotAllowed,
        })?;
        account.check_rules(&self.login.rules).map_err(|_| GrantRejection::NotAllowed)
    }

    /// Returns the app and directory of a grant; grants with the current ones share a value. A
    /// grant of an earlier version has those that the tenant had when its incarnation was taken
    /// over, or, if these are unknown, ones that match nothing.
    pub(super) fn find_provider_app(&self, payload: &GrantPayload) -> Arc<ProviderApp> {
        let legacy_app = || self.issuer.incarnation.legacy.as_ref().map(|legacy| &legacy.provider_app);
        match payload.provider_app.as_ref().or_else(legacy_app) {
            Some(app) if *app == *self.provider_app => Arc::clone(&self.provider_app),
            Some(app) => Arc::new(app.clone()),
            None => Arc::new(ProviderApp::unknown()),
        }
    }

    /// Returns the token that ends calls made with an access token.
    pub(in crate::oauth) fn revocation_token(
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
    pub(in crate::oauth) fn record_use(&self, token: &AccessToken) {
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
}
