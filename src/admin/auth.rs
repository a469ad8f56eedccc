//! Who a request to the admin listener comes from, and what they may do.
//!
//! Without tokens (`admin_auth`), this machine operates and other machines read. With tokens,
//! everybody needs one, or a session that began with one, except the gateway's own account and root
//! on this machine.
//!
//! Browsers send requests that their people never meant. So a request of another page is refused
//! whatever it asks for ([`browser`]), and a change needs a token that only our own pages have
//! ([`csrf`]).

pub(super) mod attempts;
pub(super) mod browser;
pub(super) mod caller;
pub(super) mod csrf;
pub(super) mod sessions;
pub(super) mod tokens;

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, header};
use jiff::Timestamp;

use self::attempts::FailedAttempts;
use self::browser::{Cookie, Sender};
use self::caller::AdminCaller;
use self::csrf::CsrfKey;
use self::sessions::Sessions;
use self::tokens::{AdminTokens, Unusable};
use super::account::Ends;
use crate::base::clock::Clock;
use crate::base::digest::Digest;
use crate::settings::{AdminAccess, AdminRole, AdminTls, AdminToken};
use crate::spec::HostName;

/// What decides who may use the admin listener.
#[derive(Debug)]
pub struct AdminAuth {
    /// `None` if there is no login.
    tokens: Option<AdminTokens>,
    pub(super) sessions: Sessions,
    pub(super) csrf: CsrfKey,
    pub(super) attempts: FailedAttempts,
    hosts: Vec<HostName>,
    pub(super) is_tls: bool,
    clock: Arc<dyn Clock>,
}

/// Why a request is not taken from whom it says to come from.
#[derive(Debug)]
pub(super) enum Refused {
    /// The token is not one of the file, or expired.
    Token { why: &'static str },
    /// The same, too often.
    TooOften,
}

impl AdminAuth {
    /// Creates what these settings ask for.
    pub fn new(access: &AdminAccess, clock: Arc<dyn Clock>) -> Self {
        Self {
            tokens: access.tokens.clone().map(AdminTokens::new),
            sessions: Sessions::default(),
            csrf: CsrfKey::new(),
            attempts: FailedAttempts::default(),
            hosts: access.hosts.clone(),
            is_tls: matches!(access.tls, Some(AdminTls::Gateway | AdminTls::Files { .. })),
            clock,
        }
    }

    /// Whether people log in.
    pub(super) fn has_login(&self) -> bool {
        self.tokens.is_some()
    }

    /// Whether the listener is reached by this name. A name that is not configured could be
    /// an attacker's, which leads here.
    pub(super) fn is_own_name(&self, name: &HostName) -> bool {
        name.as_str() == "localhost" || name.ip_address().is_some() || self.hosts.contains(name)
    }

    /// Says whether the tokens could be used when they were last looked at, and looks at them
    /// again;
    /// `None` if there are none to use. A probe waits for no file.
    pub(super) fn state(self: &Arc<Self>) -> Option<&'static str> {
        let tokens = self.tokens.as_ref()?;
        let auth = Arc::clone(self);
        let _beside = tokio::task::spawn_blocking(move || auth.tokens.as_ref().map(AdminTokens::refresh));
        Some(if tokens.is_usable() { "ok" } else { "unusable" })
    }

    /// Finds out who sends a request.
    ///
    /// # Errors
    /// It has a token that is not good.
    pub(super) async fn identify(
        self: &Arc<Self>,
        head: &Parts,
        ends: Ends,
        sender: Sender,
    ) -> Result<AdminCaller, Refused> {
        let cookie = (sender != Sender::Program).then(|| Cookie::of(&head.headers, self.is_tls));
        let caller = AdminCaller { ends, role: None, operator: None, cookie };
        let is_here = ends.peer.ip().to_canonical().is_loopback() && !is_forwarded(&head.headers);
        if self.tokens.is_none() {
            let role = if is_here { AdminRole::Operate } else { AdminRole::Read };
            return Ok(AdminCaller { role: Some(role), ..caller });
        }
        let (auth, headers) = (Arc::clone(self), head.headers.clone());
        // The file of tokens and the kernel's tables are files.
        let finding = tokio::task::spawn_blocking(move || {
            match bearer(&headers) {
                Some(text) => auth.find_token(text).map(Some),
                None => {
                    let cookie = caller.cookie.as_ref().filter(|cookie| !cookie.is_new);
                    Ok(cookie.and_then(|cookie| auth.find_session(&cookie.value)))
                }
            }
            .map(|token| match token {
                Some(token) => AdminCaller { role: Some(token.role), operator: Some(token.name), ..caller },
                None if is_here && is_trusted_account(ends.account()) => {
                    AdminCaller { role: Some(AdminRole::Operate), ..caller }
                }
                None => caller,
            })
        });
        match finding.await {
            Ok(Err(refused)) => Err(self.count_failure(ends, refused)),
            Ok(found) => found,
            Err(_) => Err(Refused::Token { why: "the gateway is shutting down" }),
        }
    }

    /// Counts a failed attempt of an address, and says so once there are too many.
    pub(super) fn count_failure(&self, ends: Ends, refused: Refused) -> Refused {
        let is_often = self.attempts.count(ends.peer.ip(), self.clock.monotonic());
        if is_often { Refused::TooOften } else { refused }
    }

    /// Finds the token with this text. Reads the file, so it blocks.
    ///
    /// # Errors
    /// There is none, or it is not valid now.
    pub(super) fn find_token(&self, text: &str) -> Result<AdminToken, Refused> {
        let digest = Digest::of(text.as_bytes());
        self.find_digest(&digest, self.clock.now())
    }

    /// Finds the token with which a session began, while that is valid. Blocks.
    fn find_session(&self, id: &str) -> Option<AdminToken> {
        let digest = self.sessions.find(id, self.clock.monotonic())?;
        self.find_digest(&digest, self.clock.now()).ok()
    }

    fn find_digest(&self, digest: &Digest, now: Timestamp) -> Result<AdminToken, Refused> {
        let refuse = |why| Err(Refused::Token { why });
        let Some(tokens) = &self.tokens else { return refuse("this listener takes no tokens") };
        let all = match tokens.load() {
            Ok(all) => all,
            Err(Unusable) => {
                return refuse("the file of tokens cannot be used, so nobody gets in; the log says why");
            }
        };
        // All are compared, so that the time does not tell which one is near.
        let found = all.iter().fold(
            None,
            |found, token| {
                if token.sha256.ct_eq(digest) { Some(token) } else { found }
            },
        );
        match found {
            Some(token) if token.is_expired(now) => refuse("the token has expired; ask for a new one"),
            Some(token) => Ok(token.clone()),
            None => refuse("the token is not one of this gateway's"),
        }
    }

    /// Begins a session for the holder of a token. Returns its id, for the cookie.
    pub(super) fn begin_session(&self, token: &AdminToken) -> String {
        self.sessions.begin(token.sha256, self.clock.monotonic())
    }
}

/// Returns the text of the Bearer credential, if there is exactly one Authorization header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, text) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(text.trim())
}

/// Whether a proxy says that it passes the request on for somebody else, who is not on this
/// machine.
fn is_forwarded(headers: &HeaderMap) -> bool {
    ["forwarded", "x-forwarded-for", "x-real-ip", "via"].iter().any(|name| headers.contains_key(*name))
}

/// Whether an account could read and change the gateway's files anyway: its own, and root.
fn is_trusted_account(account: Option<u32>) -> bool {
    let own = std::fs::metadata("/proc/self").map(|metadata| metadata.uid()).ok();
    account.is_some_and(|uid| uid == 0 || Some(uid) == own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_credential_is_read_whatever_its_schemes_case() {
        let read = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, http::HeaderValue::from_static(value));
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(read("bearer abc").as_deref(), Some("abc"));
        assert_eq!(read("Bearer abc").as_deref(), Some("abc"));
        assert_eq!((read("Basic abc"), read("Bearer")), (None, None));
    }

    #[test]
    fn only_root_and_the_gateways_own_account_need_no_token() {
        let own = std::fs::metadata("/proc/self").expect("this process").uid();
        assert!(is_trusted_account(Some(0)) && is_trusted_account(Some(own)));
        assert!(!is_trusted_account(None) && !is_trusted_account(Some(own + 4711)));
    }
}
