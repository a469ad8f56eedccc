//! The token endpoint (RFC 6749 section 3.2): exchanges a code, a refresh token or a machine
//! client's credentials for an access token.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use jiff::Timestamp;
use serde_json::json;

use super::error::Error;
use crate::base::body::Body;
use crate::base::secret::Secret;
use crate::identity::Account;
use crate::oauth::authorization_server::{AuthServer, RequestMeta};
use crate::oauth::client::ClientOrigin;
use crate::oauth::client_auth::{AuthenticatedClient, ClientAuthError, ClientForm};
use crate::oauth::error::Unavailable;
use crate::oauth::grants::{GrantError, GrantPayload, RotatedGrant};
use crate::oauth::issuer::Issuer;
use crate::oauth::machine_tokens::MachineToken;
use crate::oauth::parameters::{ParameterError, Parameters};
use crate::oauth::tokens::access_token::TokenSubject;
use crate::oauth::{credential_fingerprint, pkce, response, scope};
use crate::store::GrantId;
use crate::telemetry::audit::{Actor, AuditEvent, AuditRecord};

/// Why no token is issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenError {
    Client(ClientAuthError),
    Grant(GrantError),
    /// `invalid_grant`: the request does not match the authorization request of the code.
    BindingMismatch(&'static str),
    UnsupportedGrantType,
    UnauthorizedClient,
    InvalidTarget,
}

/// Answers a request to `{prefix}/token`.
pub(super) async fn handle(
    server: &AuthServer,
    request: Request<Bytes>,
    meta: RequestMeta<'_>,
) -> Result<Response<Body>, Error> {
    let mut audit = TokenAudit::default();
    let answer = exchange(server, &request, meta, &mut audit).await;
    audit.record(server, meta, answer.as_ref().err());
    Ok(answer?)
}

async fn exchange(
    server: &AuthServer,
    request: &Request<Bytes>,
    meta: RequestMeta<'_>,
    audit: &mut TokenAudit,
) -> Result<Response<Body>, TokenError> {
    let form = ClientForm::parse(request, meta)?;
    let grant_type = form.parameters.require("grant_type")?;
    let grant_type = GrantType::parse(grant_type).ok_or(TokenError::UnsupportedGrantType)?;
    audit.grant_type = Some(grant_type.as_str());
    let caller = form.authenticate(server).await?;
    audit.client_id = Some(Arc::clone(&caller.client.id));
    audit.client_name.clone_from(&caller.client.name);
    if form.parameters.get_all("resource").any(|resource| server.url.match_resource(resource).is_none()) {
        return Err(TokenError::InvalidTarget);
    }
    let request =
        TokenRequest { server, caller: &caller, parameters: &form.parameters, arrived_at: meta.now };
    match grant_type {
        GrantType::AuthorizationCode => request.exchange_code(audit).await,
        GrantType::RefreshToken => request.exchange_refresh_token(audit).await,
        GrantType::ClientCredentials => request.exchange_client_credentials(audit).await,
    }
}

/// The supported grant types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GrantType {
    AuthorizationCode,
    RefreshToken,
    ClientCredentials,
}

impl GrantType {
    const ALL: [Self; 3] = [Self::AuthorizationCode, Self::RefreshToken, Self::ClientCredentials];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == text)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationCode => "authorization_code",
            Self::RefreshToken => "refresh_token",
            Self::ClientCredentials => "client_credentials",
        }
    }
}

/// A token request of an authenticated client.
struct TokenRequest<'a> {
    server: &'a AuthServer,
    caller: &'a AuthenticatedClient,
    parameters: &'a Parameters<'a>,
    arrived_at: Timestamp,
}

impl TokenRequest<'_> {
    /// Exchanges a code (RFC 6749 section 4.1.3, RFC 7636 section 4.5).
    async fn exchange_code(&self, audit: &mut TokenAudit) -> Result<Response<Body>, TokenError> {
        let code = self.parameters.require("code")?;
        let redirect_uri = self.parameters.get("redirect_uri")?;
        let verifier = self.parameters.get("code_verifier")?;
        let client = self.require_user_client()?;
        // What cannot be signed is not redeemed.
        self.server.issuer.load_keys().await?;
        let grant = self.server.grants.redeem_code(code, client, verifier, self.arrived_at).await?;
        audit.set_grant(&grant);
        if let Err(mismatch) = verify_binding(&grant.payload, redirect_uri, verifier) {
            // The code is used up, and the party that sent it may have stolen it.
            self.server.grants.revoke(grant.id).await?;
            return Err(mismatch);
        }
        let (id, scope) = (grant.id, grant.payload.scope.clone());
        let response = self.issue_tokens(grant, &scope, audit).await?;
        match self.server.grants.confirm_redemption(id).await {
            true => Ok(response),
            false => Err(TokenError::Grant(GrantError::Unavailable)),
        }
    }

    /// Exchanges a refresh token (RFC 6749 section 6). Scopes can be narrowed, never widened, and
    /// the one for calling tools remains.
    async fn exchange_refresh_token(&self, audit: &mut TokenAudit) -> Result<Response<Body>, TokenError> {
        let token = self.parameters.require("refresh_token")?;
        let asked = self.parameters.get("scope")?.map(str::to_owned);
        let client = self.require_user_client()?;
        self.server.issuer.load_keys().await?;
        let grant = self.server.grants.refresh(token, client, self.arrived_at).await?;
        audit.set_grant(&grant);
        let scope = scope::narrow(&grant.payload.scope, asked.as_deref());
        self.issue_tokens(grant, &scope, audit).await
    }

    /// Issues a token to a machine client (RFC 6749 section 4.4), without a refresh token. Only for
    /// authenticated clients in the tenant's file.
    async fn exchange_client_credentials(
        &self,
        audit: &mut TokenAudit,
    ) -> Result<Response<Body>, TokenError> {
        let AuthServer { issuer, login, .. } = self.server;
        let AuthenticatedClient { client, is_proven, credential_digest } = self.caller;
        let scope = scope::select_supported(self.parameters.get("scope")?);
        let is_machine = client.origin == ClientOrigin::Machine && *is_proven;
        let machine = login.find_machine_client(&client.id).filter(|_| is_machine);
        let (machine, credential) = machine.zip(*credential_digest).ok_or(TokenError::UnauthorizedClient)?;
        audit.machine_label = Some(Arc::clone(&machine.label));
        let fingerprint = credential_fingerprint::compute_fingerprint(
            issuer.current_incarnation(),
            &machine.id,
            &credential,
        );
        let subject = TokenSubject::Machine { roles: &machine.roles, fingerprint: &fingerprint };
        let issued = issuer.issue(&client.id, &scope, &subject).await?;
        audit.jti = Some(issued.jti);
        self.server.context.machine_tokens.insert(MachineToken {
            id: issued.id,
            incarnation: issuer.current_incarnation().clone(),
            client_id: Arc::clone(&client.id),
            label: Arc::clone(&machine.label),
            issued_at: issued.issued_at,
            expires_at: issued.issued_at + issuer.access_token_lifetime,
        });
        Ok(token_response(issuer, &issued.text, None, &scope))
    }

    async fn issue_tokens(
        &self,
        grant: RotatedGrant,
        scope: &str,
        audit: &mut TokenAudit,
    ) -> Result<Response<Body>, TokenError> {
        let client = &self.caller.client;
        let client_name = client.name.as_deref();
        let subject = TokenSubject::Person { account: &grant.payload.account, grant: grant.id, client_name };
        let issued = self.server.issuer.issue(&client.id, scope, &subject).await?;
        audit.jti = Some(issued.jti);
        Ok(token_response(&self.server.issuer, &issued.text, Some(&grant.refresh_token), scope))
    }

    fn require_user_client(&self) -> Result<&str, TokenError> {
        let client = &self.caller.client;
        if client.acts_for_people() { Ok(&client.id) } else { Err(TokenError::UnauthorizedClient) }
    }
}

/// Verifies that the token request is by the party that made the authorization request. A verifier
/// is required if there was a challenge, and refused if there was none (a downgrade otherwise,
/// CVE-2025-4144).
fn verify_binding(
    payload: &GrantPayload,
    redirect_uri: Option<&str>,
    verifier: Option<&str>,
) -> Result<(), TokenError> {
    // A redirect URI that the authorization request omitted must be omitted here, too.
    if payload.redirect_uri.as_deref() != redirect_uri
        && (payload.redirect_uri.is_some() || redirect_uri.is_some())
    {
        return Err(TokenError::BindingMismatch("redirect_uri is not the one of the authorization request"));
    }
    match (&payload.code_challenge, verifier) {
        (Some(challenge), Some(verifier)) if pkce::verify(challenge, verifier) => Ok(()),
        (Some(_), Some(_)) => {
            Err(TokenError::BindingMismatch("code_verifier does not match the code_challenge"))
        }
        (Some(_), None) => Err(TokenError::BindingMismatch("code_verifier is missing")),
        (None, Some(_)) => Err(TokenError::BindingMismatch(
            "there is a code_verifier, but the authorization request had no \
                                             code_challenge",
        )),
        (None, None) => Ok(()),
    }
}

/// Returns the successful response (RFC 6749 section 5.1).
fn token_response(
    issuer: &Issuer,
    access_token: &Secret,
    refresh_token: Option<&Secret>,
    scope: &str,
) -> Response<Body> {
    let mut document = json!({
        "access_token": access_token.expose(),
        "token_type": "Bearer",
        "expires_in": issuer.access_token_lifetime.as_secs(),
        "scope": scope,
    });
    if let Some(token) = refresh_token {
        document["refresh_token"] = token.expose().into();
    }
    response::json(StatusCode::OK, &document)
}

/// The audit entry of a request, as far as it is known.
#[derive(Debug, Default)]
struct TokenAudit {
    grant_type: Option<&'static str>,
    client_id: Option<Arc<str>>,
    client_name: Option<Arc<str>>,
    /// The operator's label of a machine client that has proven itself.
    machine_label: Option<Arc<str>>,
    jti: Option<String>,
    grant: Option<(GrantId, Account)>,
}

impl TokenAudit {
    fn set_grant(&mut self, grant: &RotatedGrant) {
        self.grant = Some((grant.id, grant.payload.account.clone()));
    }

    /// Returns the person of the grant, or the machine client.
    fn actor(&self) -> Actor<'_> {
        match &self.grant {
            Some((_, account)) => account.audit_identity(),
            None => Actor { label: self.machine_label.as_deref(), ..Actor::default() },
        }
    }

    fn record(&self, server: &AuthServer, meta: RequestMeta<'_>, error: Option<&TokenError>) {
        let outcome = error.map_or("ok", TokenError::audit_label);
        let grant_type = self.grant_type.unwrap_or("unknown");
        server.context.metrics.record_token(server.tenant.as_str(), grant_type, outcome);
        server.context.audit.record(&AuditRecord {
            who: self.actor(),
            client_addr: Some(meta.source),
            client: self.client_name.as_deref(),
            client_id: self.client_id.as_deref(),
            grant: self.grant.as_ref().map(|(grant, _)| grant.to_string()),
            grant_type: self.grant_type,
            jti: self.jti.as_deref(),
            ..AuditRecord::new(AuditEvent::Token, server.tenant.as_str(), outcome)
        });
    }
}

impl From<ParameterError> for TokenError {
    fn from(error: ParameterError) -> Self {
        Self::Client(error.into())
    }
}

impl From<ClientAuthError> for TokenError {
    fn from(error: ClientAuthError) -> Self {
        Self::Client(error)
    }
}

impl From<GrantError> for TokenError {
    fn from(error: GrantError) -> Self {
        Self::Grant(error)
    }
}

impl From<Unavailable> for TokenError {
    fn from(error: Unavailable) -> Self {
        Self::Grant(error.into())
    }
}

impl TokenError {
    fn audit_label(&self) -> &'static str {
        match self {
            Self::Client(error) => error.audit_label(),
            Self::Grant(GrantError::Reused) => "reused",
            Self::Grant(GrantError::Ended) => "ended",
            Self::Grant(GrantError::Blocked) => "blocked",
            Self::Grant(GrantError::Unavailable) => "unavailable",
            Self::Grant(GrantError::Invalid) | Self::BindingMismatch(_) => "invalid_grant",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::InvalidTarget => "invalid_target",
        }
    }
}

/// The codes are those of RFC 6749 section 5.2 and RFC 8707 section 2.
impl From<TokenError> for Error {
    fn from(error: TokenError) -> Self {
        let (code, description) = match error {
            TokenError::Client(error) => return error.into(),
            TokenError::Grant(GrantError::Unavailable) => {
                return Self::unavailable("the login cannot be checked now; the token remains valid");
            }
            TokenError::Grant(GrantError::Invalid) => (
                "invalid_grant",
                "the code or refresh token is unknown, used, expired or another client's; log in again",
            ),
            TokenError::Grant(GrantError::Reused) => (
                "invalid_grant",
                "the code or refresh token was used before, so the login has ended; log in again",
            ),
            TokenError::Grant(GrantError::Ended) => {
                ("invalid_grant", "the account may no longer log in here; log in again")
            }
            TokenError::Grant(GrantError::Blocked) => {
                ("invalid_grant", "the operator of this server has blocked the account; ask them")
            }
            TokenError::BindingMismatch(what) => ("invalid_grant", what),
            TokenError::UnsupportedGrantType => {
                ("unsupported_grant_type", "use authorization_code, refresh_token or client_credentials")
            }
            TokenError::UnauthorizedClient => {
                ("unauthorized_client", "this client may not use this grant type")
            }
            TokenError::InvalidTarget => ("invalid_target", "resource is not this server"),
        };
        Self::bad_request(code, description)
    }
}

#[cfg(test)]
mod tests;
