//! The tokens of programs, for operators: listed, and ended before their time.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::{LoginFilter, Logins};
use crate::base::digest::Digest;
use crate::oauth::grants::revocation_at;
use crate::oauth::machine_tokens::MachineToken;
use crate::spec::MachineClientSpec;
use crate::store::{Incarnation, Revocation, RevokedSubject};

/// A token that a program got for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProgramToken {
    /// The token's id, by which it can be ended.
    pub id: String,
    /// The tenant's name.
    pub tenant: Arc<str>,
    /// The program's id in the tenant's file.
    pub client_id: Arc<str>,
    /// The operator's name for the program.
    pub label: Arc<str>,
    /// When it was issued.
    pub since: Timestamp,
    /// The last call with it, as far as it is known since the start of the gateway.
    pub last_used: Option<Timestamp>,
    /// When it expires.
    pub expires_at: Timestamp,
}

impl LoginFilter {
    /// Whether a program's token is meant. A program is no person.
    fn matches_token(&self, token: &MachineToken) -> bool {
        self.matches_program(token.incarnation.tenant(), &token.client_id, &token.label)
            && self.id.is_none_or(|id| id == token.id)
    }

    /// Whether the tokens of a tenant's program are meant, whichever they are.
    fn matches_program(&self, of: &Arc<str>, client_id: &str, label: &str) -> bool {
        let Self { tenant, person, account, client, id: _ } = self;
        let is_client =
            |client: &String| **client == *client_id || client.to_lowercase() == label.to_lowercase();
        person.is_none()
            && account.is_none()
            && tenant.as_ref().is_none_or(|tenant| tenant == of)
            && client.as_ref().is_none_or(is_client)
    }
}

impl Logins {
    /// Returns the programs' tokens that are meant, by tenant and then by label.
    pub(super) fn list_programs(&self, filter: &LoginFilter) -> Vec<ProgramToken> {
        let mut listed: Vec<_> = self.find_programs(filter).into_iter().map(describe).collect();
        listed.sort_by(|a, b| {
            (&a.tenant, &a.label, a.since, &a.id).cmp(&(&b.tenant, &b.label, b.since, &b.id))
        });
        listed
    }

    /// Returns the programs' tokens that are meant, as far as they are known, and what ends them.
    ///
    /// Unless a single token is meant, all tokens of its program end: those from before a restart, and
    /// those that other gateways issued, too.
    pub(super) fn revoke_programs(
        &self,
        filter: &LoginFilter,
    ) -> (Vec<MachineToken>, Vec<(Incarnation, Revocation)>) {
        let found: Vec<_> = self.find_programs(filter).into_iter().map(|(token, _)| token).collect();
        let now = self.context.now();
        let revoked = |subject| revocation_at(subject, now);
        if filter.id.is_some() {
            let single =
                |token: &MachineToken| (token.incarnation.clone(), revoked(RevokedSubject::Grant(token.id)));
            let revocations = found.iter().map(single).collect();
            return (found, revocations);
        }
        let program =
            |token: &MachineToken| (Arc::clone(token.incarnation.tenant()), Arc::clone(&token.client_id));
        let mut clients: BTreeSet<(Arc<str>, Arc<str>)> = found.iter().map(program).collect();
        for tenant in &self.context.login_specs {
            let meant = |it: &&MachineClientSpec| filter.matches_program(tenant.key(), &it.id, &it.label);
            let meant = tenant.machine_clients.iter().filter(meant);
            clients.extend(meant.map(|machine| (Arc::clone(tenant.key()), Arc::clone(&machine.id))));
        }
        if let LoginFilter {
            tenant: Some(tenant), client: Some(client), person: None, account: None, ..
        } = filter
        {
            clients.insert((Arc::clone(tenant), client.as_str().into()));
        }
        let revocations = clients.iter().filter_map(|(tenant, client)| {
            let incarnation = self.context.incarnations.find(tenant)?;
            Some((incarnation, revoked(RevokedSubject::Client(Digest::of(client.as_bytes())))))
        });
        let revocations = revocations.collect();
        (found, revocations)
    }

    fn find_programs(&self, filter: &LoginFilter) -> Vec<(MachineToken, Option<Timestamp>)> {
        let mut current = self.context.machine_tokens.current(self.context.now());
        current.retain(|(token, _)| filter.matches_token(token) && self.is_token_in_force(token));
        current
    }

    /// Whether the token belongs to the tenant as it is now, and was not ended.
    fn is_token_in_force(&self, token: &MachineToken) -> bool {
        let tenant = token.incarnation.tenant();
        let revocations = &self.context.revocations;
        let client = Digest::of(token.client_id.as_bytes());
        let subjects = [RevokedSubject::Grant(token.id), RevokedSubject::Client(client)];
        self.context.incarnations.find(tenant).as_ref() == Some(&token.incarnation)
            && !revocations.is_covered_by_revoke_all(token.issued_at)
            && !subjects.into_iter().any(|subject| revocations.is_revoked(tenant, subject, token.issued_at))
    }
}

fn describe((token, last_used): (MachineToken, Option<Timestamp>)) -> ProgramToken {
    ProgramToken {
        id: token.id.to_string(),
        tenant: Arc::clone(token.incarnation.tenant()),
        client_id: token.client_id,
        label: token.label,
        since: token.issued_at,
        last_used,
        expires_at: token.expires_at,
    }
}
