//! The logins of people at all tenants, for operators and for the people themselves: listed, and
//! ended before their time. A login is a grant: what one person allowed one client at one tenant.
//!
//! Nothing here searches by person in the store, whose rows are sealed: lists are read page by page
//! and opened here.

mod block;
mod end;
mod filter;
mod programs;

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

pub use self::block::{BlockError, BlockedPerson, ListedBlock, NewBlock};
pub use self::end::{EndError, EndedLogins, Initiator};
pub use self::filter::{LoginFilter, PersonName};
pub use self::programs::ProgramToken;
use super::context::AuthContext;
use super::error::Unavailable;
use super::grants::{GrantPayload, MAX_GRANT_LIFETIME};
pub use super::login_counts::DayOfLogins;
use crate::identity::Account;
use crate::store::{GrantCursor, GrantId, Incarnation, ListedGrant};

/// The most logins that one request lists or ends.
pub const MAX_LOGINS: usize = 100_000;
/// The most logins that a summary counts.
const MAX_COUNTED: u32 = 1_000;
/// How many rows are read at once, so that the store is never held for long.
const READ_BATCH: u32 = 500;

/// The logins at all tenants. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Logins {
    context: Arc<AuthContext>,
}

/// One login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Login {
    /// The id of the grant.
    pub id: String,
    /// The tenant's name.
    pub tenant: Arc<str>,
    /// Who logged in; none if the row in the store was tampered with.
    pub person: Option<Person>,
    /// The client's id.
    pub client_id: String,
    /// The client's own name.
    pub client_name: Option<String>,
    /// When the person logged in.
    pub since: Timestamp,
    /// When the last refresh token was issued.
    pub renewed_at: Timestamp,
    /// The last call, as far as it is known since the start of the gateway, else the last renewal.
    pub last_used: Timestamp,
    /// When the login ends, unless it is renewed before.
    pub expires_at: Timestamp,
    /// When the login ends in any case.
    pub ends_at: Timestamp,
}

/// The account of a login, by its ids and its names at the last renewal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Person {
    /// The user name.
    pub user: Option<Arc<str>>,
    /// The display name.
    pub name: Option<Arc<str>>,
    /// Who keeps the account: a directory, or an issuer.
    pub tid: Arc<str>,
    /// The account's id there.
    pub oid: Arc<str>,
}

/// A part of a list of logins, ordered by tenant and then by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoginPage {
    /// The logins.
    pub logins: Vec<Login>,
    /// The tokens of programs; all of them are in the first part.
    pub programs: Vec<ProgramToken>,
    /// What to ask with for the rest, if there may be more.
    pub next: Option<String>,
}

/// How many people are logged in, and how many logins there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LoginSummary {
    /// The logins in force, 1,000 at most.
    pub in_force: usize,
    /// Whether these are all.
    pub is_complete: bool,
    /// The logins of the last 24 hours, since the start of the gateway.
    pub last_day: DayOfLogins,
}

/// A grant in a list, opened.
struct OpenedGrant {
    grant: ListedGrant,
    payload: Option<GrantPayload>,
}

impl From<&Account> for Person {
    fn from(account: &Account) -> Self {
        Self {
            user: account.username.clone(),
            name: account.name.clone(),
            tid: Arc::clone(&account.issuer),
            oid: Arc::clone(&account.subject),
        }
    }
}

impl OpenedGrant {
    fn open(grant: ListedGrant) -> Self {
        // What does not open, or cannot be decoded, is listed without its person, so that it can be
        // ended.
        let payload = grant.payload.as_deref().and_then(|bytes| GrantPayload::parse(bytes).ok());
        Self { grant, payload }
    }

    fn account(&self) -> Option<&Account> {
        self.payload.as_ref().map(|payload| &payload.account)
    }

    fn client_name(&self) -> Option<&str> {
        self.payload.as_ref().and_then(|payload| payload.client_name.as_deref())
    }

    fn cursor(&self) -> GrantCursor {
        GrantCursor { tenant: Arc::clone(self.grant.incarnation.tenant()), id: self.grant.id }
    }
}

impl Logins {
    /// Creates the view of the logins that `context` holds.
    pub fn new(context: Arc<AuthContext>) -> Self {
        Self { context }
    }

    /// Returns the first `limit` logins behind `after`, which is the [`LoginPage::next`] of the
    /// page before.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub async fn list(
        &self,
        filter: &LoginFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<LoginPage, Unavailable> {
        let programs = if after.is_none() { self.list_programs(filter) } else { Vec::new() };
        let after = after.and_then(parse_cursor);
        let found = self.find(filter, after, limit.min(MAX_LOGINS)).await?;
        let next = found.last().filter(|_| found.len() >= limit.min(MAX_LOGINS)).map(|last| {
            let GrantCursor { tenant, id } = last.cursor();
            format!("{tenant}/{id}")
        });
        let logins = found.iter().map(|grant| self.describe(grant)).collect();
        Ok(LoginPage { logins, programs, next })
    }

    /// Counts the logins in force, and those of the last 24 hours. A login whose end the store does
    /// not have yet still counts.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub async fn summarize(&self) -> Result<LoginSummary, Unavailable> {
        let counted = self.context.store.count_grants(self.context.now(), MAX_COUNTED + 1).await;
        let counted = counted.map_err(Unavailable::from_store)?;
        let is_current = |incarnation: &Incarnation| {
            self.context.incarnations.find(incarnation.tenant()).as_ref() == Some(incarnation)
        };
        let in_force = counted.iter().filter(|(incarnation, _)| is_current(incarnation));
        let in_force: usize = in_force.map(|(_, count)| count).sum();
        let all: usize = counted.iter().map(|(_, count)| count).sum();
        Ok(LoginSummary {
            in_force: in_force.min(MAX_COUNTED as usize),
            is_complete: all <= MAX_COUNTED as usize,
            last_day: self.context.login_counts.sum(self.context.now()),
        })
    }

    async fn find(
        &self,
        filter: &LoginFilter,
        mut after: Option<GrantCursor>,
        limit: usize,
    ) -> Result<Vec<OpenedGrant>, Unavailable> {
        let (store, now) = (&self.context.store, self.context.now());
        let mut found = Vec::new();
        while found.len() < limit {
            let listed = store.list_grants(filter.tenant.clone(), after, now, READ_BATCH).await;
            let listed = listed.map_err(Unavailable::from_store)?;
            let is_last = listed.len() < READ_BATCH as usize;
            let opened: Vec<_> = listed.into_iter().map(OpenedGrant::open).collect();
            after = opened.last().map(OpenedGrant::cursor);
            found.extend(opened.into_iter().filter(|grant| self.is_in_force(grant) && filter.matches(grant)));
            if is_last {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Whether the grant belongs to the tenant as it is now, and was not ended.
    fn is_in_force(&self, OpenedGrant { grant, .. }: &OpenedGrant) -> bool {
        let tenant = grant.incarnation.tenant();
        self.context.incarnations.find(tenant).as_ref() == Some(&grant.incarnation)
            && !self.context.revocations.is_grant_ended(tenant, grant.id)
    }

    fn describe(&self, opened: &OpenedGrant) -> Login {
        let grant = &opened.grant;
        let used = self.context.last_uses.find(grant.id);
        Login {
            id: grant.id.to_string(),
            tenant: Arc::clone(grant.incarnation.tenant()),
            person: opened.account().map(Person::from),
            client_id: grant.client_id.clone(),
            client_name: opened.client_name().map(str::to_owned),
            since: grant.ends_at - MAX_GRANT_LIFETIME,
            renewed_at: grant.issued_at,
            last_used: used.map_or(grant.issued_at, |used| used.max(grant.issued_at)),
            expires_at: grant.expires_at,
            ends_at: grant.ends_at,
        }
    }
}

/// Parses `TENANT/ID`.
fn parse_cursor(text: &str) -> Option<GrantCursor> {
    let (tenant, id) = text.rsplit_once('/')?;
    Some(GrantCursor { tenant: tenant.into(), id: GrantId::parse(id)? })
}

#[cfg(test)]
mod tests;
