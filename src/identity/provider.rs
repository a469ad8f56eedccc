//! The login of one tenant (OpenID Connect Core 1.0 sections 3.1 and 12).

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use url::Url;

use super::id_token::{self, Expected, Fault};
use super::transport::{Asker, Request};
use super::{Entra, Error, Kind, Person};
use super::{aadsts, answer, directory};
use crate::base::secret::Secret;
use crate::spec::{LoginSpec, PublicUrl};

/// Part of every request: Entra refuses code and refresh requests without a scope (AADSTS900144,
/// AADSTS90009). `offline_access` yields the refresh token, with which renewals verify that an
/// account is still valid.
const SCOPE: &str = "openid profile offline_access";

/// The deadline of a login or renewal, lookups included.
const EXCHANGE: Duration = Duration::from_secs(10);
/// An outage without a failed exchange for this long is taken to be over.
const OUTAGE: Duration = Duration::from_secs(600);

/// Logs people in for one tenant. Cheap to clone.
#[derive(Clone)]
pub struct Provider(Arc<Inner>);

struct Inner {
    entra: Arc<Entra>,
    directory: Arc<directory::Directory>,
    login: Arc<LoginSpec>,
    public_url: PublicUrl,
    asker: Asker,
    /// The failure of the last exchange, if it failed.
    trouble: Mutex<Option<Noted>>,
}

/// How the last exchange failed.
#[derive(Debug, Clone, Copy)]
struct Noted {
    trouble: Trouble,
    last: Instant,
    /// When the first of the consecutive failures happened.
    since: Timestamp,
}

/// A failure that prevents every login of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    #[error("Microsoft's login does not answer")]
    Down,
    #[error("Microsoft refuses the app's credentials or does not know it: {0}")]
    Misconfigured(&'static str),
}

/// The parameters of a login's authorization request to Entra.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Entra returns it with the code.
    pub state: &'a str,
    /// Entra returns it in the id_token.
    pub nonce: &'a str,
    /// The S256 challenge of the verifier passed to [`Provider::redeem`] (RFC 7636).
    pub code_challenge: &'a str,
    /// The account that the person most likely wants to use.
    pub login_hint: Option<&'a str>,
}

/// A successful login: the person may use the tenant.
#[derive(Debug, Clone)]
pub struct Login {
    /// The account that logged in.
    pub person: Person,
    /// Entra's refresh token, for [`Provider::renew`]. Keep it sealed.
    pub refresh_token: Option<Secret>,
}

impl Provider {
    /// Creates the login of one tenant. Makes no request.
    pub fn new(entra: &Arc<Entra>, login: &Arc<LoginSpec>, public_url: &PublicUrl) -> Self {
        let directory = entra.directory(&login.identity.directory.name());
        Self(Arc::new(Inner {
            entra: Arc::clone(entra),
            directory,
            asker: entra.transport.asker(public_url.as_str()),
            login: Arc::clone(login),
            public_url: public_url.clone(),
            trouble: Mutex::default(),
        }))
    }

    /// Returns the URL to send the person's browser to. It never has `resource`, which Entra
    /// refuses (AADSTS9010010), nor `prompt=consent`, which requires an administrator in most
    /// companies.
    pub fn authorize_url(&self, ask: &Ask<'_>) -> Url {
        let mut url = self.0.url("oauth2/v2.0/authorize");
        url.query_pairs_mut()
            .append_pair("client_id", &self.0.login.identity.client_id)
            .append_pair("response_type", "code")
            .append_pair("redirect_uri", &self.0.public_url.callback())
            // `form_post` would be a cross-site POST, without our cookies.
            .append_pair("response_mode", "query")
            .append_pair("scope", SCOPE)
            .append_pair("state", ask.state)
            .append_pair("nonce", ask.nonce)
            .append_pair("code_challenge", ask.code_challenge)
            .append_pair("code_challenge_method", "S256")
            .append_pair("prompt", "select_account")
            .extend_pairs(ask.login_hint.map(|hint| ("login_hint", hint)));
        url
    }

    /// Returns the error for a callback with `error` instead of a code.
    pub fn refusal(&self, error: &str, description: Option<&str>) -> Error {
        // Not recorded as trouble: anyone can forge such a callback.
        self.0.completed(answer::redirected(error, description).at_login())
    }

    /// Redeems a code, which is valid once, and returns the login of a person whom the tenant's
    /// rules admit.
    ///
    /// # Errors
    /// Fails if Entra refuses the code or does not answer in time, if the id_token is not valid, or
    /// if the tenant does not admit the account. The error is never of [`Kind::Ended`].
    pub async fn redeem(&self, code: &str, code_verifier: &Secret, nonce: &str) -> Result<Login, Error> {
        let redirect_uri = self.0.public_url.callback();
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &redirect_uri),
            ("code_verifier", code_verifier.expose()),
        ];
        self.0
            .noted(async { self.0.login(&form, Some(nonce), &self.0.asker).await.map_err(Error::at_login) })
            .await
    }

    /// Verifies that the account of `person` is still valid and admitted, and returns its current
    /// state. If the login has no new refresh token, the given one stays valid; so it does after
    /// every error except [`Kind::Ended`].
    ///
    /// # Errors
    /// Fails with [`Kind::Ended`] if the account must log in again: Entra refused the token, the
    /// rules no longer admit the account, or the token is for another account. Other kinds are
    /// temporary or for the operator.
    pub async fn renew(&self, refresh_token: &Secret, person: &Person) -> Result<Login, Error> {
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose())];
        let renewing = async {
            let login =
                self.0.login(&form, None, &self.0.asker.renewing()).await.map_err(Error::at_renewal)?;
            if same(&login.person, person) { Ok(login) } else { Err(Error::another_account()) }
        };
        self.0.noted(renewing).await
    }

    /// Returns what prevents every login, according to the last exchange.
    pub fn trouble(&self) -> Option<Trouble> {
        self.remembered().map(|noted| noted.trouble)
    }

    /// Returns since when every login has failed.
    pub fn trouble_since(&self) -> Option<Timestamp> {
        self.remembered().map(|noted| noted.since)
    }

    fn remembered(&self) -> Option<Noted> {
        let noted = (*self.0.trouble())?;
        let is_forgotten =
            noted.trouble == Trouble::Down && self.0.entra.transport.elapsed_since(noted.last) > OUTAGE;
        (!is_forgotten).then_some(noted)
    }
}

impl Inner {
    fn trouble(&self) -> std::sync::MutexGuard<'_, Option<Noted>> {
        self.trouble.lock().expect("no holder of this lock panics")
    }

    /// Runs an exchange with a deadline, records its outcome, counts it, and completes the text of
    /// its error.
    async fn noted(&self, exchange: impl Future<Output = Result<Login, Error>>) -> Result<Login, Error> {
        let begun = self.entra.transport.clock.monotonic();
        let outcome = tokio::time::timeout(EXCHANGE, exchange).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Error::down("no answer in time")));
        let now = self.entra.transport.clock.monotonic();
        self.note(outcome.as_ref().err().and_then(Trouble::of), now);
        let label = outcome.as_ref().err().map_or("ok", |error| error.kind().label());
        self.entra.transport.metrics.identity_call(label, now.saturating_duration_since(begun));
        outcome.map_err(|error| self.completed(error))
    }

    /// Logs when trouble begins and when it ends, not at each exchange.
    fn note(&self, trouble: Option<Trouble>, now: Instant) {
        let before = {
            let mut noted = self.trouble();
            let since = noted.map_or_else(|| self.entra.transport.clock.now(), |noted| noted.since);
            std::mem::replace(&mut *noted, trouble.map(|trouble| Noted { trouble, last: now, since }))
        };
        let app = &self.login.identity.client_id;
        match (before.map(|before| before.trouble), trouble) {
            (before, now) if before == now => {}
            (_, Some(trouble)) => tracing::warn!(%app, "nobody can log in: {trouble}"),
            (_, None) => tracing::info!(%app, "people can log in again"),
        }
    }

    fn completed(&self, error: Error) -> Error {
        error.about(&self.login.identity.client_id, &self.public_url.callback())
    }

    fn url(&self, path: &str) -> Url {
        self.entra.transport.url(&self.login.identity.directory.name(), path)
    }

    /// Fetches the metadata before redeeming the code, so that a failure to fetch it does not use
    /// up the code.
    async fn login(&self, form: &[(&str, &str)], nonce: Option<&str>, asker: &Asker) -> Result<Login, Error> {
        let published = self.directory.published(&self.entra.transport).await?;
        let tokens = self.tokens(form, asker).await?;
        let person = self.judged(tokens.id_token.expose(), published, nonce).await?;
        person.may(&self.login.rules)?;
        Ok(Login { person, refresh_token: tokens.refresh_token })
    }

    /// Sends the form to the token endpoint; tries the next secret if Entra refuses one.
    async fn tokens(&self, form: &[(&str, &str)], asker: &Asker) -> Result<answer::Tokens, Error> {
        let identity = &self.login.identity;
        let mut refused = None;
        for secret in &identity.client_secrets {
            let proof =
                [("client_id", &*identity.client_id), ("client_secret", secret.expose()), ("scope", SCOPE)];
            let form: Vec<_> = form.iter().copied().chain(proof).collect();
            let (status, body) =
                self.entra.transport.ask(self.url("oauth2/v2.0/token"), Request::Post(&form), asker).await?;
            match answer::tokens(status, &body) {
                Err(error) if aadsts::is_of_secret(&error.trace().codes) => {
                    tracing::warn!(app = %identity.client_id, %error, "Microsoft refuses a client secret; renew it");
                    refused = Some(error);
                }
                answered => return answered,
            }
        }
        Err(refused.expect("a login has a secret"))
    }

    /// Verifies a token; retries with newer keys if its key is unknown, since keys rotate without
    /// notice.
    async fn judged(
        &self,
        token: &str,
        published: Arc<directory::Published>,
        nonce: Option<&str>,
    ) -> Result<Person, Error> {
        let verdict = self.verdict(token, &published, nonce);
        if verdict != Err(Fault::UnknownKey) {
            return verdict.map_err(Error::from);
        }
        match self.directory.newer(&self.entra.transport, &published).await? {
            Some(newer) => self.verdict(token, &newer, nonce).map_err(Error::from),
            None => Err(Fault::UnknownKey.into()),
        }
    }

    fn verdict(
        &self,
        token: &str,
        published: &directory::Published,
        nonce: Option<&str>,
    ) -> Result<Person, Fault> {
        let expected = Expected {
            identity: &self.login.identity,
            issuer: &published.issuer,
            nonce,
            now: self.entra.transport.clock.now(),
        };
        id_token::judge(token, &published.keys, &expected)
    }
}

fn same(one: &Person, other: &Person) -> bool {
    one.tid == other.tid && one.oid == other.oid
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Provider({})", self.0.public_url)
    }
}

impl Trouble {
    fn of(error: &Error) -> Option<Self> {
        match error.kind() {
            Kind::Down => Some(Self::Down),
            // The other classes may concern a single login, which anyone can provoke.
            Kind::Misconfigured if error.is_of_the_app() => Some(Self::Misconfigured(error.class())),
            Kind::Misconfigured | Kind::Refused | Kind::Ended => None,
        }
    }
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Misconfigured => "misconfigured",
            Self::Ended => "ended",
            Self::Down => "down",
        }
    }
}
