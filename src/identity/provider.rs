//! One tenant's side of the login (OpenID Connect Core 1.0 sections 3.1 and 12).

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

/// Always asked for: code and refresh requests without it are refused (AADSTS900144, AADSTS90009). `offline_access` is for
/// the refresh token, by which we learn whether an account is still good.
const SCOPE: &str = "openid profile offline_access";

/// A login or renewal takes no longer, whatever it needs to look up.
const EXCHANGE: Duration = Duration::from_secs(10);
/// An outage that nobody has noticed for so long is taken for over.
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
    /// Of the last exchange.
    trouble: Mutex<Option<Noted>>,
}

/// How the last exchange failed.
#[derive(Debug, Clone, Copy)]
struct Noted {
    trouble: Trouble,
    last: Instant,
    /// The first of those that failed in a row.
    since: Timestamp,
}

/// What keeps everybody of a tenant from logging in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    #[error("Microsoft's login does not answer")]
    Down,
    #[error("Microsoft refuses the app's credentials or does not know it: {0}")]
    Misconfigured(&'static str),
}

/// What a login asks Entra for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub state: &'a str,
    /// Comes back inside the id_token.
    pub nonce: &'a str,
    /// S256 of the verifier that [`Provider::redeem`] is given (RFC 7636).
    pub code_challenge: &'a str,
    /// The account that the person most likely means.
    pub login_hint: Option<&'a str>,
}

/// A login that succeeded: the person may use the tenant.
#[derive(Debug, Clone)]
pub struct Login {
    pub person: Person,
    /// Entra's; [`Provider::renew`] takes it. Keep it sealed.
    pub refresh_token: Option<Secret>,
}

impl Provider {
    /// The login of one tenant. Asks nobody anything.
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

    /// Where to send the person's browser. Never with `resource`, which Entra refuses (AADSTS9010010), nor with
    /// `prompt=consent`, which asks for an administrator in most companies.
    pub fn authorize_url(&self, ask: &Ask<'_>) -> Url {
        let mut url = self.0.url("oauth2/v2.0/authorize");
        url.query_pairs_mut()
            .append_pair("client_id", &self.0.login.identity.client_id)
            .append_pair("response_type", "code")
            .append_pair("redirect_uri", &self.0.public_url.callback())
            // A form would be a cross-site POST, without our cookies.
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

    /// What it means that Entra sent the person back with `error` instead of a code.
    pub fn refusal(&self, error: &str, description: Option<&str>) -> Error {
        // Who forges it makes no trouble for others: it is not noted.
        self.0.completed(answer::redirected(error, description).at_login())
    }

    /// Makes a person of a code, which is good once. The person meets the tenant's rules.
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

    /// Whether the account of `person` is still good and meets the rules, and what it is now. Unless the answer holds
    /// another refresh token, the one given remains; it remains after every error but [`Kind::Ended`], too.
    pub async fn renew(&self, refresh_token: &Secret, person: &Person) -> Result<Login, Error> {
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose())];
        let renewing = async {
            let login =
                self.0.login(&form, None, &self.0.asker.renewing()).await.map_err(Error::at_renewal)?;
            if same(&login.person, person) { Ok(login) } else { Err(Error::another_account()) }
        };
        self.0.noted(renewing).await
    }

    /// What keeps everybody from logging in, by the last exchange.
    pub fn trouble(&self) -> Option<Trouble> {
        self.remembered().map(|noted| noted.trouble)
    }

    /// Since when that is so.
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

    /// Lets an exchange go on for a while, then remembers how it went, counts it, and completes what people are told.
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

    /// Says when it begins and when it is over, not each time.
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

    /// What the directory publishes is had first: a code is not used up for nothing.
    async fn login(&self, form: &[(&str, &str)], nonce: Option<&str>, asker: &Asker) -> Result<Login, Error> {
        let published = self.directory.published(&self.entra.transport).await?;
        let tokens = self.tokens(form, asker).await?;
        let person = self.judged(tokens.id_token.expose(), published, nonce).await?;
        person.may(&self.login.rules)?;
        Ok(Login { person, refresh_token: tokens.refresh_token })
    }

    /// Asks the token endpoint, with the next secret if it refuses one.
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

    /// Judges a token, once more with newer keys if its key is not known: they roll without notice.
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
            // The other classes may be about one login, which anybody can spoil for themselves.
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
