//! The end of logins by an operator's order, or by the person's own.

use std::net::IpAddr;

use serde::Serialize;

use super::{LoginFilter, Logins, MAX_LOGINS, OpenedGrant};
use crate::oauth::error::Unavailable;
use crate::oauth::grants::revocation_at;
use crate::oauth::machine_tokens::MachineToken;
use crate::store::{Incarnation, Revocation, RevokedSubject};
use crate::telemetry::audit::{AuditEvent, AuditRecord, Operator};

/// How many logins end in one transaction.
const WRITE_BATCH: usize = 500;

/// Who ends logins, for the audit.
#[derive(Debug, Clone, Copy)]
pub enum Initiator<'a> {
    /// An operator: what was ordered, and by whom.
    Operator { order: &'a str, operator: &'a Operator },
    /// The person, from a browser at this address.
    Person { source: IpAddr, request_id: &'a str },
}

/// What was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct EndedLogins {
    /// How many logins ended.
    pub ended: usize,
}

/// Why logins did not end, or not for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndError {
    /// Nothing ended.
    #[error("the gateway cannot read its store now, so no login ended; see its log")]
    Unavailable,
    /// They ended, but the store does not know that yet.
    #[error(
        "{ended} logins ended, but the store cannot be written: they are valid again if the gateway restarts \
         before it can; it tries again every two seconds, see its log"
    )]
    NotStored {
        /// How many logins ended.
        ended: usize,
    },
}

impl<'a> Initiator<'a> {
    /// Adds the initiator to an entry of the audit.
    pub(super) fn sign<'b>(self, entry: AuditRecord<'b>) -> AuditRecord<'b>
    where
        'a: 'b,
    {
        match self {
            Self::Operator { order, operator } => AuditRecord { order: Some(order), ..operator.sign(entry) },
            Self::Person { source, request_id } => {
                AuditRecord { client_addr: Some(source), request_id: Some(request_id), ..entry }
            }
        }
    }
}

impl From<Unavailable> for EndError {
    fn from(Unavailable: Unavailable) -> Self {
        Self::Unavailable
    }
}

impl Logins {
    /// Ends logins: their access and refresh tokens become invalid, and calls and streams in
    /// progress end, at once. When this returns `Ok`, that is on the disk.
    ///
    /// Tokens that programs got for themselves end, too, unless a person is named.
    ///
    /// # Errors
    /// Fails if the store cannot be read, or cannot be written. In the latter case the logins ended
    /// nevertheless, which is persisted later.
    pub async fn end(&self, filter: &LoginFilter, by: Initiator<'_>) -> Result<EndedLogins, EndError> {
        let found = self.find(filter, None, MAX_LOGINS).await?;
        let (programs, revocations) = self.revoke_programs(filter);
        let mut is_stored = revocations.is_empty() || self.persist(revocations).await;
        programs.iter().for_each(|token| self.record_program(token, by));
        for batch in found.chunks(WRITE_BATCH) {
            let now = self.context.now();
            let revocations = batch.iter().map(|opened| {
                let subject = RevokedSubject::Grant(opened.grant.id);
                (opened.grant.incarnation.clone(), revocation_at(subject, now))
            });
            is_stored &= self.persist(revocations.collect()).await;
            batch.iter().for_each(|opened| self.record(opened, by));
        }
        let ended = found.len() + programs.len();
        if is_stored { Ok(EndedLogins { ended }) } else { Err(EndError::NotStored { ended }) }
    }

    /// Revokes in memory first, so that it is in force even if the store cannot be written now.
    async fn persist(&self, revocations: Vec<(Incarnation, Revocation)>) -> bool {
        let kept = &self.context.revocations;
        for (incarnation, revocation) in &revocations {
            kept.insert(incarnation, *revocation);
            kept.mark_unpersisted(incarnation, revocation.subject);
        }
        let written = self.context.store.revoke_all(revocations.clone()).await;
        let written = written.map_err(Unavailable::from_store).is_ok();
        if written {
            for (incarnation, revocation) in &revocations {
                kept.mark_persisted(incarnation, revocation.subject);
            }
        }
        written
    }

    fn record_program(&self, token: &MachineToken, by: Initiator<'_>) {
        let entry = AuditRecord {
            client_id: Some(&token.client_id),
            grant: Some(token.id.to_string()),
            ..AuditRecord::new(AuditEvent::Revocation, token.incarnation.tenant(), "ok")
        };
        self.context.audit.record(&by.sign(entry));
    }

    fn record(&self, opened: &OpenedGrant, by: Initiator<'_>) {
        let grant = &opened.grant;
        let entry = AuditRecord {
            who: opened.account().map(|account| account.audit_identity()).unwrap_or_default(),
            client_id: Some(&grant.client_id),
            grant: Some(grant.id.to_string()),
            ..AuditRecord::new(AuditEvent::Revocation, grant.incarnation.tenant(), "ok")
        };
        self.context.audit.record(&by.sign(entry));
    }
}
