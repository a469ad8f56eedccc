//! The login of one tenant at Entra (OpenID Connect Core 1.0 sections 3.1 and 12).

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use url::Url;

use super::claims::{self, IdTokenExpectations, InvalidEntraToken};
use super::directories::EntraConnection;
use super::{BRAND, aadsts, accounts};
use crate::base::secret::Secret;
use crate::identity::account::Account;
use crate::identity::error::Error;
use crate::identity::examination::AppExamination;
use crate::identity::exchange::{ExchangeMonitor, ProviderProblem};
use crate::identity::oidc::discovery::{MetadataCache, ProviderMetadata};
use crate::identity::oidc::id_token::InvalidIdToken;
use crate::identity::oidc::token_response::{TokenAnswer, TokenResponse};
use crate::identity::oidc::transport::{ProviderRequest, RequestShare};
use crate::identity::provider_login::{AuthRequest, LoginRejection, ProviderApp, ProviderLogin};
use crate::spec::{EntraSpec, LoginSpec, PublicUrl};

/// Part of every request: Entra refuses code and refresh requests without a scope (AADSTS900144,
/// AADSTS90009). `offline_access` yields the refresh token, with which renewals verify that an
/// account is still valid.
const SCOPE: &str = "openid profile offline_access";

/// Logs people in at Entra for one tenant. Cheap to clone.
#[derive(Clone)]
pub struct EntraProvider(Arc<EntraProviderInner>);

pub(super) struct EntraProviderInner {
    pub(super) entra: Arc<EntraConnection>,
    pub(super) directory: Arc<MetadataCache>,
    pub(super) spec: Arc<EntraSpec>,
    login: Arc<LoginSpec>,
    pub(super) public_url: PublicUrl,
    request_share: RequestShare,
    monitor: ExchangeMonitor,
}

impl EntraProvider {
    pub(in crate::identity) fn new(
        entra: &Arc<EntraConnection>,
        spec: &Arc<EntraSpec>,
        login: &Arc<LoginSpec>,
        public_url: &PublicUrl,
    ) -> Self {
        Self(Arc::new(EntraProviderInner {
            entra: Arc::clone(entra),
            directory: entra.metadata_cache(&spec.directory.url_segment()),
            request_share: entra.transport.share_for(public_url.as_str()),
            monitor: ExchangeMonitor::new(&BRAND, Arc::clone(&spec.client_id)),
            spec: Arc::clone(spec),
            login: Arc::clone(login),
            public_url: public_url.clone(),
        }))
    }

    /// Returns the URL to send the person's browser to. It never has `resource`, which Entra
    /// refuses (AADSTS9010010), nor `prompt=consent`, which requires an administrator in most
    /// companies.
    pub(in crate::identity) fn authorize_url(&self, request: &AuthRequest<'_>) -> Url {
        let mut url = self.0.endpoint_url("oauth2/v2.0/authorize");
        url.query_pairs_mut()
            .append_pair("client_id", &self.0.spec.client_id)
            .append_pair("response_type", "code")
            .append_pair("redirect_uri", &self.0.public_url.callback_url())
            // `form_post` would be a cross-site POST, without our cookies.
            .append_pair("response_mode", "query")
            .append_pair("scope", SCOPE)
            .append_pair("state", request.state)
            .append_pair("nonce", request.nonce)
            .append_pair("code_challenge", request.code_challenge)
            .append_pair("code_challenge_method", "S256")
            .append_pair("prompt", "select_account")
            .extend_pairs(request.login_hint.map(|hint| ("login_hint", hint)));
        url
    }

    pub(in crate::identity) fn redirect_error(&self, error: &str, description: Option<&str>) -> Error {
        // Not recorded as a problem: anyone can forge such a callback.
        self.0.fill_in(aadsts::from_redirect(error, description).for_login())
    }

    pub(in crate::identity) async fn redeem_code(
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
        let redeeming = async {
            self.0.log_in(&form, Some(nonce), &self.0.request_share).await.map_err(Error::for_login)
        };
        self.0.run_exchange(redeeming).await
    }

    pub(in crate::identity) async fn renew(
        &self,
        refresh_token: &Secret,
        account: &Account,
    ) -> Result<ProviderLogin, Error> {
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose())];
        let share = self.0.request_share.for_renewal();
        let renewing = async {
            let login = self.0.log_in(&form, None, &share).await.map_err(Error::for_renewal)?;
            let is_same = login.account.issuer == account.issuer && login.account.subject == account.subject;
            if is_same { Ok(login) } else { Err(Error::another_account()) }
        };
        self.0.run_exchange(renewing).await
    }

    pub(in crate::identity) fn check_login(
        &self,
        app: &ProviderApp,
        account: &Account,
    ) -> Result<(), LoginRejection> {
        accounts::check_login(&self.0.spec, app, account).map_err(Into::into)
    }

    pub(in crate::identity) async fn examine(&self) -> AppExamination {
        self.0.examine().await
    }

    pub(in crate::identity) fn problem(&self) -> Option<(ProviderProblem, Timestamp)> {
        self.0.monitor.problem(&self.0.entra.transport)
    }
}

impl EntraProviderInner {
    async fn run_exchange(
        &self,
        exchange: impl Future<Output = Result<ProviderLogin, Error>>,
    ) -> Result<ProviderLogin, Error> {
        let outcome = self.monitor.run(&self.entra.transport, exchange).await;
        outcome.map_err(|error| self.fill_in(error))
    }

    pub(super) fn fill_in(&self, error: Error) -> Error {
        error.fill_in(&BRAND, &self.spec.client_id, &self.public_url.callback_url())
    }

    pub(super) fn endpoint_url(&self, path: &str) -> Url {
        self.entra.url(&self.spec.directory.url_segment(), path)
    }

    /// Fetches the metadata before redeeming the code, so that a failure to fetch it does not use
    /// up the code.
    async fn log_in(
        &self,
        form: &[(&str, &str)],
        nonce: Option<&str>,
        share: &RequestShare,
    ) -> Result<ProviderLogin, Error> {
        let published = self.directory.metadata(&self.entra.transport).await?;
        let tokens = self.request_tokens(form, share).await?;
        let account = self.verify_id_token(tokens.id_token.expose(), published, nonce).await?;
        account.check_rules(&self.login.rules)?;
        Ok(ProviderLogin { account, refresh_token: tokens.refresh_token })
    }

    /// Sends the form to the token endpoint; tries the next secret if Entra refuses one.
    async fn request_tokens(
        &self,
        form: &[(&str, &str)],
        share: &RequestShare,
    ) -> Result<TokenResponse, Error> {
        let app = &self.spec.client_id;
        let mut refused = None;
        for secret in &self.spec.client_secrets {
            let proof = [("client_id", &**app), ("client_secret", secret.expose()), ("scope", SCOPE)];
            let form: Vec<_> = form.iter().copied().chain(proof).collect();
            let url = self.endpoint_url("oauth2/v2.0/token");
            let (status, body) = self.entra.transport.send(url, ProviderRequest::Post(&form), share).await?;
            let error = match TokenAnswer::parse(status, &body)? {
                TokenAnswer::Tokens(tokens) => return Ok(tokens),
                TokenAnswer::Refused(refusal) => aadsts::from_token_response(refusal),
            };
            if !aadsts::is_client_secret_error(&error) {
                return Err(error);
            }
            tracing::warn!(%app, %error, "Microsoft refuses a client secret; renew it");
            refused = Some(error);
        }
        Err(refused.expect("a login has a secret"))
    }

    /// Verifies a token; retries with newer keys if its key is unknown, since keys rotate without
    /// notice.
    async fn verify_id_token(
        &self,
        token: &str,
        published: Arc<ProviderMetadata>,
        nonce: Option<&str>,
    ) -> Result<Account, Error> {
        let verified = self.verify_with_keys(token, &published, nonce);
        if verified != Err(InvalidIdToken::UnknownKey.into()) {
            return verified.map_err(Error::from);
        }
        match self.directory.refresh(&self.entra.transport, &published).await? {
            Some(newer) => self.verify_with_keys(token, &newer, nonce).map_err(Error::from),
            None => Err(InvalidEntraToken::from(InvalidIdToken::UnknownKey).into()),
        }
    }

    fn verify_with_keys(
        &self,
        token: &str,
        published: &ProviderMetadata,
        nonce: Option<&str>,
    ) -> Result<Account, InvalidEntraToken> {
        let expected = IdTokenExpectations {
            spec: &self.spec,
            issuer: &published.issuer,
            nonce,
            now: self.entra.transport.clock.now(),
        };
        claims::verify(token, &published.keys, &expected)
    }
}

impl fmt::Debug for EntraProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntraProvider({})", self.0.public_url)
    }
}
