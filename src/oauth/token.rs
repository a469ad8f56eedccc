//! The token endpoint (RFC 6749 section 3.2): exchanges a code, a refresh token or a machine
//! client's credentials for an access token.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde_json::json;

use super::access_token::{ACCESS_TOKEN_LIFETIME, TokenSubject};
use super::client::{ClientOrigin, ClientRegistry};
use super::client_auth::{self, AuthenticatedClient, ClientRequest, authenticate};
use super::error::Unavailable;
use super::grants::{self, GrantPayload, Grants, RotatedGrant};
use super::parameters::{ParameterError, Parameters};
use super::{credential_fingerprint, pkce, response, scope};
use crate::base::body::Body;
use crate::base::secret::Secret;
use crate::telemetry::audit::{AuditEvent, AuditRecord};

/// Why no token is issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenError {
    Client(client_auth::ClientAuthError),
    Grant(grants::GrantError),
    /// `invalid_grant`: the request does not match the authorization request of the code.
    BindingMismatch(&'static str),
    /// `invalid_request`
    Malformed(&'static str),
    UnsupportedGrantType,
    UnauthorizedClient,
    InvalidTarget,
}

/// Answers a request to `{prefix}/token`.
pub(super) async fn handle(
    grants: &Grants,
    clients: &ClientRegistry,
    request: &Request<Bytes>,
    source: IpAddr,
) -> Response<Body> {
    if request.method() != Method::POST {
        return response::method_not_allowed("POST");
    }
    let mut note = TokenAudit::default();
    let outcome = match parse_form(request) {
        Ok(parameters) => {
            let asked = ClientRequest { headers: request.headers(), parameters: &parameters, source };
            exchange(grants, clients, asked, &mut note).await
        }
        Err(fault) => Err(fault),
    };
    note.record(grants, outcome.as_ref().err());
    outcome.unwrap_or_else(TokenError::into_response)
}

fn parse_form(request: &Request<Bytes>) -> Result<Parameters<'_>, TokenError> {
    Ok(Parameters::from_form(request.headers(), request.body())?)
}

async fn exchange(
    grants: &Grants,
    clients: &ClientRegistry,
    asked: ClientRequest<'_>,
    note: &mut TokenAudit,
) -> Result<Response<Body>, TokenError> {
    let parameters = asked.parameters;
    let grant_type = parameters.get("grant_type")?.ok_or(TokenError::Malformed("grant_type is missing"))?;
    let grant_type = GrantType::parse(grant_type).ok_or(TokenError::UnsupportedGrantType)?;
    note.grant_type = Some(grant_type.as_str());
    let caller = authenticate(&grants.issuer, clients, asked).await;
    let caller = caller.map_err(TokenError::Client)?;
    note.client_id = Some(Arc::clone(&caller.client.id));
    if parameters.get_all("resource").any(|resource| grants.issuer.url.match_resource(resource).is_none()) {
        return Err(TokenError::InvalidTarget);
    }
    let bought = TokenRequest { grants, caller: &caller, parameters };
    match grant_type {
        GrantType::AuthorizationCode => bought.exchange_code(note).await,
        GrantType::RefreshToken => bought.exchange_refresh_token(note).await,
        GrantType::ClientCredentials => bought.exchange_client_credentials(note).await,
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
    grants: &'a Grants,
    caller: &'a AuthenticatedClient,
    parameters: &'a Parameters<'a>,
}

impl TokenRequest<'_> {
    /// Exchanges a code (RFC 6749 section 4.1.3, RFC 7636 section 4.5).
    async fn exchange_code(&self, note: &mut TokenAudit) -> Result<Response<Body>, TokenError> {
        let code = self.parameters.get("code")?.ok_or(TokenError::Malformed("code is missing"))?;
        let redirect_uri = self.parameters.get("redirect_uri")?;
        let verifier = self.parameters.get("code_verifier")?;
        let client = self.require_user_client()?;
        let continued = self.grants.redeem_code(code, client).await?;
        note.set_grant(&continued);
        if let Err(fault) = verify_binding(&continued.payload, redirect_uri, verifier) {
            // The code is used up, and the party that sent it may have stolen it.
            self.grants.revoke(continued.id).await?;
            return Err(fault);
        }
        let scope = continued.payload.scope.clone();
        self.issue_tokens(continued, &scope, note).await
    }

    /// Exchanges a refresh token (RFC 6749 section 6). Scopes can be narrowed, never widened, and
    /// the one for calling tools remains.
    async fn exchange_refresh_token(&self, note: &mut TokenAudit) -> Result<Response<Body>, TokenError> {
        let token =
            self.parameters.get("refresh_token")?.ok_or(TokenError::Malformed("refresh_token is missing"))?;
        let asked = self.parameters.get("scope")?.map(str::to_owned);
        let client = self.require_user_client()?;
        let continued = self.grants.refresh(token, client).await?;
        note.set_grant(&continued);
        let scope = scope::narrow(&continued.payload.scope, asked.as_deref());
        self.issue_tokens(continued, &scope, note).await
    }

    /// Issues a token to a machine client (RFC 6749 section 4.4), without a refresh token. Only for
    /// authenticated clients in the tenant's file.
    async fn exchange_client_credentials(&self, note: &mut TokenAudit) -> Result<Response<Body>, TokenError> {
        let scope = scope::select_supported(self.parameters.get("scope")?);
        let is_machine = self.caller.client.origin == ClientOrigin::Machine && self.caller.is_proven;
        let machine =
            self.grants.login_spec().find_machine_client(&self.caller.client.id).filter(|_| is_machine);
        let (machine, by) =
            machine.zip(self.caller.credential_digest).ok_or(TokenError::UnauthorizedClient)?;
        let mark = credential_fingerprint::compute_fingerprint(
            self.grants.issuer.current_incarnation(),
            &machine.id,
            &by,
        );
        let bearer = TokenSubject::Machine { roles: &machine.roles, mark: &mark };
        let issued = self.grants.issuer.issue(&self.caller.client.id, &scope, &bearer).await?;
        note.jti = Some(issued.jti);
        Ok(token_response(&issued.text, None, &scope))
    }

    async fn issue_tokens(
        &self,
        continued: RotatedGrant,
        scope: &str,
        note: &mut TokenAudit,
    ) -> Result<Response<Body>, TokenError> {
        let bearer = TokenSubject::Person { person: &continued.payload.person, grant: continued.id };
        let issued = self.grants.issuer.issue(&self.caller.client.id, scope, &bearer).await?;
        note.jti = Some(issued.jti);
        Ok(token_response(&issued.text, Some(&continued.refresh_token), scope))
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
    details: &GrantPayload,
    redirect_uri: Option<&str>,
    verifier: Option<&str>,
) -> Result<(), TokenError> {
    // A redirect URI that the authorization request omitted must be omitted here, too.
    if details.redirect_uri.as_deref() != redirect_uri
        && (details.redirect_uri.is_some() || redirect_uri.is_some())
    {
        return Err(TokenError::BindingMismatch("redirect_uri is not the one of the authorization request"));
    }
    match (&details.code_challenge, verifier) {
        (Some(challenge), Some(verifier)) if pkce::verify(challenge, verifier) => Ok(()),
        (Some(_), Some(_)) => {
            Err(TokenError::BindingMismatch("code_verifier does not fit the code_challenge"))
        }
        (Some(_), None) => Err(TokenError::BindingMismatch("code_verifier is missing")),
        (None, Some(_)) => {
            Err(TokenError::BindingMismatch("code_verifier came without a code_challenge before"))
        }
        (None, None) => Ok(()),
    }
}

/// Returns the successful response (RFC 6749 section 5.1).
fn token_response(access_token: &Secret, refresh_token: Option<&Secret>, scope: &str) -> Response<Body> {
    let mut document = json!({
        "access_token": access_token.expose(),
        "token_type": "Bearer",
        "expires_in": ACCESS_TOKEN_LIFETIME.as_secs(),
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
    jti: Option<String>,
    grant: Option<(crate::store::GrantId, crate::identity::Person)>,
}

impl TokenAudit {
    fn set_grant(&mut self, continued: &RotatedGrant) {
        self.grant = Some((continued.id, continued.payload.person.clone()));
    }

    fn record(&self, grants: &Grants, fault: Option<&TokenError>) {
        let outcome = fault.map_or("ok", TokenError::audit_label);
        grants.issuer.context.audit.record(&AuditRecord {
            who: self.grant.as_ref().map(|(_, person)| grants::audit_identity(person)).unwrap_or_default(),
            client_id: self.client_id.as_deref(),
            grant: self.grant.as_ref().map(|(grant, _)| grant.to_string()),
            grant_type: self.grant_type,
            jti: self.jti.as_deref(),
            ..AuditRecord::new(AuditEvent::Token, grants.issuer.tenant.as_str(), outcome)
        });
    }
}

impl From<ParameterError> for TokenError {
    fn from(fault: ParameterError) -> Self {
        Self::Client(fault.into())
    }
}

impl From<grants::GrantError> for TokenError {
    fn from(fault: grants::GrantError) -> Self {
        Self::Grant(fault)
    }
}

impl From<Unavailable> for TokenError {
    fn from(fault: Unavailable) -> Self {
        Self::Grant(fault.into())
    }
}

impl TokenError {
    fn audit_label(&self) -> &'static str {
        match self {
            Self::Client(fault) => fault.audit_label(),
            Self::Grant(grants::GrantError::Reused) => "reused",
            Self::Grant(grants::GrantError::Ended) => "ended",
            Self::Grant(grants::GrantError::Unavailable) => "unavailable",
            Self::Grant(grants::GrantError::Invalid) | Self::BindingMismatch(_) => "invalid_grant",
            Self::Malformed(_) => "invalid_request",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::InvalidTarget => "invalid_target",
        }
    }

    /// Returns the error response (RFC 6749 section 5.2, RFC 8707 section 2).
    fn into_response(self) -> Response<Body> {
        let (code, description) = match self {
            Self::Client(fault) => return fault.into_response(),
            Self::Grant(grants::GrantError::Unavailable) => {
                let what = "the login cannot be checked now; the token remains good";
                return response::unavailable(what, response::RETRY_DELAY);
            }
            Self::Grant(grants::GrantError::Invalid) => {
                ("invalid_grant", "it is unknown, used up, expired or another client's; log in again")
            }
            Self::Grant(grants::GrantError::Reused) => {
                ("invalid_grant", "it was used before, so the login is ended; log in again")
            }
            Self::Grant(grants::GrantError::Ended) => {
                ("invalid_grant", "the account may no longer log in here; log in again")
            }
            Self::BindingMismatch(what) => ("invalid_grant", what),
            Self::Malformed(what) => ("invalid_request", what),
            Self::UnsupportedGrantType => {
                ("unsupported_grant_type", "use authorization_code, refresh_token or client_credentials")
            }
            Self::UnauthorizedClient => ("unauthorized_client", "this client may not use this grant type"),
            Self::InvalidTarget => ("invalid_target", "resource is not this server"),
        };
        response::error(StatusCode::BAD_REQUEST, code, description)
    }
}

#[cfg(test)]
mod tests;
