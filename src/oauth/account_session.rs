//! A person's visit to their own page at one tenant: sealed in a cookie of the browser that logged
//! in, and over after a quarter of an hour. Nothing of it is stored here.
//!
//! There is one cookie for the host, as browsers send it to all tenants there; one of another
//! tenant does not open, so a person who goes from one tenant to another logs in again.

use std::sync::Arc;

use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::authorization_server::AuthServer;
use super::blocks::PersonRef;
use super::cookie;
use super::sealed::{self, ACCOUNT, ACCOUNT_FORM};
use crate::base::random;
use crate::identity::{Account, GroupMembership};

const COOKIE: &str = "__Host-account";
const LIFETIME: SignedDuration = SignedDuration::from_mins(15);

/// A visit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AccountSession {
    /// Binds the forms of the page to this visit.
    id: String,
    tid: Arc<str>,
    oid: Arc<str>,
    user: Option<Arc<str>>,
    email: Option<Arc<str>>,
    name: Option<Arc<str>>,
    #[serde(rename = "at")]
    begun_at: Timestamp,
}

impl AccountSession {
    /// Begins the visit of an account that has just logged in.
    pub(super) fn begin(account: &Account, now: Timestamp) -> Self {
        Self {
            id: random::token(),
            tid: Arc::clone(&account.issuer),
            oid: Arc::clone(&account.subject),
            user: account.username.clone(),
            email: account.verified_email.clone(),
            name: account.name.clone(),
            begun_at: now,
        }
    }

    /// Returns the visit that this browser has begun at this tenant, unless it is over.
    pub(super) fn open(server: &AuthServer, headers: &HeaderMap, now: Timestamp) -> Option<Self> {
        let sealed = cookie::read(headers, COOKIE)?;
        let incarnation = server.issuer.current_incarnation();
        let session: Self = sealed::open_value(&server.keyring, ACCOUNT, incarnation, "", &sealed)?;
        (now.duration_since(session.begun_at) <= LIFETIME).then_some(session)
    }

    /// Gives the visit to the browser.
    pub(super) fn set_cookie(
        &self,
        server: &AuthServer,
        headers: &mut HeaderMap,
    ) -> Result<(), cookie::CookieTooLong> {
        let incarnation = server.issuer.current_incarnation();
        let sealed = sealed::seal_value(&server.keyring, ACCOUNT, incarnation, "", self);
        cookie::set(headers, COOKIE, &sealed, LIFETIME.as_secs())
    }

    /// Takes the visit from the browser.
    pub(super) fn clear_cookie(asked: &HeaderMap, headers: &mut HeaderMap) {
        cookie::clear(asked, headers, COOKIE);
    }

    /// Returns the token that forms of this visit carry.
    pub(super) fn form_token(&self, server: &AuthServer) -> String {
        let incarnation = server.issuer.current_incarnation();
        sealed::seal_value(&server.keyring, ACCOUNT_FORM, incarnation, &self.id, &())
    }

    /// Whether a form carries a token of this visit.
    pub(super) fn accepts(&self, server: &AuthServer, token: &str) -> bool {
        let incarnation = server.issuer.current_incarnation();
        sealed::open_value::<()>(&server.keyring, ACCOUNT_FORM, incarnation, &self.id, token).is_some()
    }

    /// Returns the account, to find its logins.
    pub(super) fn person(&self) -> PersonRef {
        PersonRef::from_ids(&self.tid, &self.oid)
    }

    /// Returns the account as far as the visit knows it, to find a block.
    pub(super) fn account(&self) -> Account {
        Account {
            issuer: Arc::clone(&self.tid),
            subject: Arc::clone(&self.oid),
            name: self.name.clone(),
            username: self.user.clone(),
            verified_email: self.email.clone(),
            roles: Vec::new(),
            groups: GroupMembership::Known(Vec::new()),
            is_guest: false,
        }
    }

    /// Returns the name for the page.
    pub(super) fn display_name(&self) -> &str {
        self.user.as_deref().or(self.name.as_deref()).unwrap_or("your account")
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::super::testkit::{TestGateway, ada};
    use super::*;

    #[tokio::test]
    async fn a_visit_is_over_after_a_quarter_of_an_hour_and_is_none_elsewhere() {
        let bed = TestGateway::new().await;
        let (acme, beta) = (bed.server("acme"), bed.server("beta"));
        let session = AccountSession::begin(&ada(), bed.now());
        let mut answer = HeaderMap::new();
        assert!(session.set_cookie(&acme.inner, &mut answer).is_ok());
        let cookies = answer.get_all(header::SET_COOKIE).iter().map(|line| line.to_str().expect("ASCII"));
        let pairs: Vec<_> = cookies.filter_map(|line| line.split(';').next()).collect();
        let cookie = HeaderValue::from_str(&pairs.join("; ")).expect("ASCII");
        let asked = HeaderMap::from_iter([(header::COOKIE, cookie)]);
        let end = bed.now() + LIFETIME;
        let open = |server: &AuthServer, at| AccountSession::open(server, &asked, at);
        assert_eq!(open(&acme.inner, end), Some(session));
        assert_eq!(open(&acme.inner, end + SignedDuration::from_secs(1)), None);
        assert_eq!(open(&beta.inner, bed.now()), None);
    }
}
