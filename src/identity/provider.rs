//! The login of one tenant (OpenID Connect Core 1.0 sections 3.1 and 12).

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use url::Url;

use super::id_token::{self, IdTokenExpectations, InvalidIdToken};
use super::transport::{EntraRequest, RequestShare};
use super::{Entra, Error, LoginErrorKind, Person};
use super::{aadsts, directory, token_response};
use crate::base::secret::Secret;
use crate::spec::{LoginSpec, PublicUrl};

/// Part of every request: Entra refuses code and refresh requests without a scope (AADSTS900144,
/// AADSTS90009). `offline_access` yields the refresh token, with which renewals verify that an
/// account is still valid.
const SCOPE: &str = "openid profile offline_access";

/// The deadline of a login or renewal, lookups included.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// An outage without a failed exchange for this long is taken to be over.
const OUTAGE_MEMORY: Duration = Duration::from_secs(600);

/// Logs people in for one tenant. Cheap to clone.
#[derive(Clone)]
pub struct Provider(Arc<ProviderInner>);

struct ProviderInner {
    entra: Arc<Entra>,
    directory: Arc<directory::EntraDirectory>,
    login: Arc<LoginSpec>,
    public_url: PublicUrl,
    request_share: RequestShare,
    /// The failure of the last exchange, if it failed.
    problem: Mutex<Option<ProblemRecord>>,
}

/// How the last exchange failed.
#[derive(Debug, Clone, Copy)]
struct ProblemRecord {
    problem: ProviderProblem,
    last_seen: Instant,
    /// When the first of the consecutive failures happened.
    since: Timestamp,
}

/// A failure that prevents every login of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProviderProblem {
    #[error("Microsoft's login does not answer")]
    Down,
    #[error("Microsoft refuses the app's credentials or does not know it: {0}")]
    Misconfigured(&'static str),
}

/// The parameters of a login's authorization request to Entra.
#[derive(Debug, Clone, Copy)]
pub struct AuthRequest<'a> {
    /// Entra returns it with the code.
    pub state: &'a str,
    /// Entra returns it in the id_token.
    pub nonce: &'a str,
    /// The S256 challenge of the verifier passed to [`Provider::redeem_code`] (RFC 7636).
    pub code_challenge: &'a str,
    /// The account that the person most likely wants to use.
    pub login_hint: Option<&'a str>,
}

/// A successful login: the person may use the tenant.
#[derive(Debug, Clone)]
pub struct ProviderLogin {
    /// The account that logged in.
    pub person: Person,
    /// Entra's refresh token, for [`Provider::renew`]. Keep it sealed.
    pub refresh_token: Option<Secret>,
}

impl Provider {
    /// Creates the login of one tenant. Makes no request.
    pub fn new(entra: &Arc<Entra>, login: &Arc<LoginSpec>, public_url: &PublicUrl) -> Self {
        let directory = entra.directory(&login.identity.directory.url_segment());
        Self(Arc::new(ProviderInner {
            entra: Arc::clone(entra),
            directory,
            request_share: entra.transport.share_for(public_url.as_str()),
            login: Arc::clone(login),
            public_url: public_url.clone(),
            problem: Mutex::default(),
        }))
    }

    /// Returns the URL to send the person's browser to. It never has `resource`, which Entra
    /// refuses (AADSTS9010010), nor `prompt=consent`, which requires an administrator in most
    /// companies.
    pub fn authorize_url(&self, ask: &AuthRequest<'_>) -> Url {
        let mut url = self.0.endpoint_url("oauth2/v2.0/authorize");
        url.query_pairs_mut()
            .append_pair("client_id", &self.0.login.identity.client_id)
            .append_pair("response_type", "code")
            .append_pair("redirect_uri", &self.0.public_url.callback_url())
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
    pub fn redirect_error(&self, error: &str, description: Option<&str>) -> Error {
        // Not recorded as trouble: anyone can forge such a callback.
        self.0.fill_in_app(token_response::parse_redirect_error(error, description).for_login())
    }

    /// Redeems a code, which is valid once, and returns the login of a person whom the tenant's
    /// rules admit.
    ///
    /// # Errors
    /// Fails if Entra refuses the code or does not answer in time, if the id_token is not valid, or
    /// if the tenant does not admit the account. The error is never of [`LoginErrorKind::Ended`].
    pub async fn redeem_code(
        &self,
        code: &str,
        code_verifier: &Secret,
        nonce: &str,
    ) -> Result<ProviderLogin, Error> {
        let redirect_uri = self.0.public_url.callback_url();
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &redirect_uri),
            ("code_verifier", code_verifier.expose()),
        ];
        self.0
            .run_exchange(async {
                self.0.log_in(&form, Some(nonce), &self.0.request_share).await.map_err(Error::for_login)
            })
            .await
    }

    /// Verifies that the account of `person` is still valid and admitted, and returns its current
    /// state. If the login has no new refresh token, the given one stays valid; so it does after
    /// every error except [`LoginErrorKind::Ended`].
    ///
    /// # Errors
    /// Fails with [`LoginErrorKind::Ended`] if the account must log in again: Entra refused the
    /// token, the rules no longer admit the account, or the token is for another account. Other
    /// kinds are temporary or for the operator.
    pub async fn renew(&self, refresh_token: &Secret, person: &Person) -> Result<ProviderLogin, Error> {
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose())];
        let renewing = async {
            let login = self
                .0
                .log_in(&form, None, &self.0.request_share.for_renewal())
                .await
                .map_err(Error::for_renewal)?;
            if is_same_account(&login.person, person) { Ok(login) } else { Err(Error::another_account()) }
        };
        self.0.run_exchange(renewing).await
    }

    /// Returns what prevents every login, according to the last exchange.
    pub fn problem(&self) -> Option<ProviderProblem> {
        self.last_problem().map(|noted| noted.problem)
    }

    /// Returns since when every login has failed.
    pub fn problem_since(&self) -> Option<Timestamp> {
        self.last_problem().map(|noted| noted.since)
    }

    fn last_problem(&self) -> Option<ProblemRecord> {
        let noted = (*self.0.lock_problem())?;
        let is_forgotten = noted.problem == ProviderProblem::Down
            && self.0.entra.transport.elapsed_since(noted.last_seen) > OUTAGE_MEMORY;
        (!is_forgotten).then_some(noted)
    }
}

impl ProviderInner {
    fn lock_problem(&self) -> std::sync::MutexGuard<'_, Option<ProblemRecord>> {
        self.problem.lock().expect("no holder of this lock panics")
    }

    /// Runs an exchange with a deadline, records its outcome, counts it, and completes the text of
    /// its error.
    async fn run_exchange(
        &self,
        exchange: impl Future<Output = Result<ProviderLogin, Error>>,
    ) -> Result<ProviderLogin, Error> {
        let begun = self.entra.transport.clock.monotonic();
        let outcome = tokio::time::timeout(EXCHANGE_TIMEOUT, exchange).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Error::provider_down("no answer in time")));
        let now = self.entra.transport.clock.monotonic();
        self.update_problem(outcome.as_ref().err().and_then(ProviderProblem::from_error), now);
        let label = outcome.as_ref().err().map_or("ok", |error| error.kind().metric_label());
        self.entra.transport.metrics.record_identity_call(label, now.saturating_duration_since(begun));
        outcome.map_err(|error| self.fill_in_app(error))
    }

    /// Logs when trouble begins and when it ends, not at each exchange.
    fn update_problem(&self, trouble: Option<ProviderProblem>, now: Instant) {
        let before = {
            let mut noted = self.lock_problem();
            let since = noted.map_or_else(|| self.entra.transport.clock.now(), |noted| noted.since);
            std::mem::replace(
                &mut *noted,
                trouble.map(|trouble| ProblemRecord { problem: trouble, last_seen: now, since }),
            )
        };
        let app = &self.login.identity.client_id;
        match (before.map(|before| before.problem), trouble) {
            (before, now) if before == now => {}
            (_, Some(trouble)) => tracing::warn!(%app, "nobody can log in: {trouble}"),
            (_, None) => tracing::info!(%app, "people can log in again"),
        }
    }

    fn fill_in_app(&self, error: Error) -> Error {
        error.fill_in_app(&self.login.identity.client_id, &self.public_url.callback_url())
    }

    fn endpoint_url(&self, path: &str) -> Url {
        self.entra.transport.url(&self.login.identity.directory.url_segment(), path)
    }

    /// Fetches the metadata before redeeming the code, so that a failure to fetch it does not use
    /// up the code.
    async fn log_in(
        &self,
        form: &[(&str, &str)],
        nonce: Option<&str>,
        asker: &RequestShare,
    ) -> Result<ProviderLogin, Error> {
        let published = self.directory.metadata(&self.entra.transport).await?;
        let tokens = self.request_tokens(form, asker).await?;
        let person = self.verify_id_token(tokens.id_token.expose(), published, nonce).await?;
        person.check_rules(&self.login.rules)?;
        Ok(ProviderLogin { person, refresh_token: tokens.refresh_token })
    }

    /// Sends the form to the token endpoint; tries the next secret if Entra refuses one.
    async fn request_tokens(
        &self,
        form: &[(&str, &str)],
        asker: &RequestShare,
    ) -> Result<token_response::TokenResponse, Error> {
        let identity = &self.login.identity;
        let mut refused = None;
        for secret in &identity.client_secrets {
            let proof =
                [("client_id", &*identity.client_id), ("client_secret", secret.expose()), ("scope", SCOPE)];
            let form: Vec<_> = form.iter().copied().chain(proof).collect();
            let (status, body) = self
                .entra
                .transport
                .send(self.endpoint_url("oauth2/v2.0/token"), EntraRequest::Post(&form), asker)
                .await?;
            match token_response::parse(status, &body) {
                Err(error) if aadsts::is_client_secret_error(&error.trace().codes) => {
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
    async fn verify_id_token(
        &self,
        token: &str,
        published: Arc<directory::DirectoryMetadata>,
        nonce: Option<&str>,
    ) -> Result<Person, Error> {
        let verdict = self.verify_with_keys(token, &published, nonce);
        if verdict != Err(InvalidIdToken::UnknownKey) {
            return verdict.map_err(Error::from);
        }
        match self.directory.refresh(&self.entra.transport, &published).await? {
            Some(newer) => self.verify_with_keys(token, &newer, nonce).map_err(Error::from),
            None => Err(InvalidIdToken::UnknownKey.into()),
        }
    }

    fn verify_with_keys(
        &self,
        token: &str,
        published: &directory::DirectoryMetadata,
        nonce: Option<&str>,
    ) -> Result<Person, InvalidIdToken> {
        let expected = IdTokenExpectations {
            identity: &self.login.identity,
            issuer: &published.issuer,
            nonce,
            now: self.entra.transport.clock.now(),
        };
        id_token::verify(token, &published.keys, &expected)
    }
}

fn is_same_account(one: &Person, other: &Person) -> bool {
    one.tid == other.tid && one.oid == other.oid
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Provider({})", self.0.public_url)
    }
}

impl ProviderProblem {
    fn from_error(error: &Error) -> Option<Self> {
        match error.kind() {
            LoginErrorKind::Down => Some(Self::Down),
            // The other classes may concern a single login, which anyone can provoke.
            LoginErrorKind::Misconfigured if error.is_app_misconfiguration() => {
                Some(Self::Misconfigured(error.class()))
            }
            LoginErrorKind::Misconfigured | LoginErrorKind::Refused | LoginErrorKind::Ended => None,
        }
    }
}

impl LoginErrorKind {
    fn metric_label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Misconfigured => "misconfigured",
            Self::Ended => "ended",
            Self::Down => "down",
        }
    }
}
