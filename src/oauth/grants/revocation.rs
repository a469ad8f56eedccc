//! The end of grants: their tokens become invalid, at once and on every gateway.

use jiff::Timestamp;

use super::Grants;
use crate::base::digest::Digest;
use crate::oauth::error::Unavailable;
use crate::oauth::tokens::access_token;
use crate::store::{GrantId, Revocation, RevokedSubject};

impl Grants {
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
}

/// Returns the revocation of the tokens that a subject was issued until now.
pub(in crate::oauth) fn revocation_at(subject: RevokedSubject, now: Timestamp) -> Revocation {
    // `issued_until` includes the current second: tokens issued within it precede the revocation.
    Revocation {
        subject,
        issued_until: now,
        forget_at: now + access_token::MAX_LIFETIME + access_token::MAX_LIFETIME,
    }
}
