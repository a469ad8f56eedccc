//! The token endpoint (RFC 6749 section 3.2): exchanges a code, a refresh token or a machine
//! client's credentials for an access token.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde_json::json;

use super::access_token::{Bearer, LIFE};
use super::authentication::{self, Asked, Authenticated, authenticate};
use super::client::{Clients, Origin};
use super::error::Unavailable;
use super::grants::{self, Continued, Details, Grants};
use super::parameters::{ParameterFault, Parameters};
use super::{marks, pkce, reply, scope};
use crate::base::body::Body;
use crate::base::secret::Secret;
use crate::telemetry::audit::{Entry, Event};

/// Why no token is issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Client(authentication::Fault),
    Grant(grants::Fault),
    /// `invalid_grant`: the request does not match the authorization request of the code.
    Unlike(&'static str),
    /// `invalid_request`
    Malformed(&'static str),
    UnsupportedGrantType,
    UnauthorizedClient,
    InvalidTarget,
}

/// Answers a request to `{prefix}/token`.
pub(super) async fn answer(
    grants: &Grants,
    clients: &Clients,
    request: &Request<Bytes>,
    source: IpAddr,
) -> Response<Body> {
    if request.method() != Method::POST {
        return reply::method_not_allowed("POST");
    }
    let mut note = Note::default();
    let outcome = match read(request) {
        Ok(parameters) => {
            let asked = Asked { headers: request.headers(), parameters: &parameters, source };
            exchange(grants, clients, asked, &mut note).await
        }
        Err(fault) => Err(fault),
    };
    note.keep(grants, outcome.as_ref().err());
    outcome.unwrap_or_else(Fault::answer)
}

fn read(request: &Request<Bytes>) -> Result<Parameters<'_>, Fault> {
    Ok(Parameters::of_form(request.headers(), request.body())?)
}

async fn exchange(
    grants: &Grants,
    clients: &Clients,
    asked: Asked<'_>,
    note: &mut Note,
) -> Result<Response<Body>, Fault> {
    let parameters = asked.parameters;
    let grant_type = parameters.one("grant_type")?.ok_or(Fault::Malformed("grant_type is missing"))?;
    let grant_type = GrantType::parse(grant_type).ok_or(Fault::UnsupportedGrantType)?;
    note.grant_type = Some(grant_type.as_str());
    let caller = authenticate(&grants.issuer, clients, asked).await;
    let caller = caller.map_err(Fault::Client)?;
    note.client_id = Some(Arc::clone(&caller.client.id));
    if parameters.all("resource").any(|resource| grants.issuer.url.names_resource(resource).is_none()) {
        return Err(Fault::InvalidTarget);
    }
    let bought = Purchase { grants, caller: &caller, parameters };
    match grant_type {
        GrantType::Code => bought.by_code(note).await,
        GrantType::Refresh => bought.by_refresh_token(note).await,
        GrantType::Machine => bought.by_itself(note).await,
    }
}

/// The supported grant types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GrantType {
    Code,
    Refresh,
    Machine,
}

impl GrantType {
    const ALL: [Self; 3] = [Self::Code, Self::Refresh, Self::Machine];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == text)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Code => "authorization_code",
            Self::Refresh => "refresh_token",
            Self::Machine => "client_credentials",
        }
    }
}

/// A token request of an authenticated client.
struct Purchase<'a> {
    grants: &'a Grants,
    caller: &'a Authenticated,
    parameters: &'a Parameters<'a>,
}

impl Purchase<'_> {
    /// Exchanges a code (RFC 6749 section 4.1.3, RFC 7636 section 4.5).
    async fn by_code(&self, note: &mut Note) -> Result<Response<Body>, Fault> {
        let code = self.parameters.one("code")?.ok_or(Fault::Malformed("code is missing"))?;
        let redirect_uri = self.parameters.one("redirect_uri")?;
        let verifier = self.parameters.one("code_verifier")?;
        let client = self.for_people()?;
        let continued = self.grants.take_code(code, client).await?;
        note.of(&continued);
        if let Err(fault) = fits(&continued.details, redirect_uri, verifier) {
            // The code is used up, and the party that sent it may have stolen it.
            self.grants.revoke(continued.id).await?;
            return Err(fault);
        }
        let scope = continued.details.scope.clone();
        self.issue(continued, &scope, note).await
    }

    /// Exchanges a refresh token (RFC 6749 section 6). Scopes can be narrowed, never widened, and
    /// the one for calling tools remains.
    async fn by_refresh_token(&self, note: &mut Note) -> Result<Response<Body>, Fault> {
        let token =
            self.parameters.one("refresh_token")?.ok_or(Fault::Malformed("refresh_token is missing"))?;
        let asked = self.parameters.one("scope")?.map(str::to_owned);
        let client = self.for_people()?;
        let continued = self.grants.refresh(token, client).await?;
        note.of(&continued);
        let scope = scope::narrowed(&continued.details.scope, asked.as_deref());
        self.issue(continued, &scope, note).await
    }

    /// Issues a token to a machine client (RFC 6749 section 4.4), without a refresh token. Only for
    /// authenticated clients in the tenant's file.
    async fn by_itself(&self, note: &mut Note) -> Result<Response<Body>, Fault> {
        let scope = scope::granted(self.parameters.one("scope")?);
        let is_machine = self.caller.client.origin == Origin::Machine && self.caller.proven;
        let machine = self.grants.login().machine(&self.caller.client.id).filter(|_| is_machine);
        let (machine, by) = machine.zip(self.caller.by).ok_or(Fault::UnauthorizedClient)?;
        let mark = marks::mark(self.grants.issuer.life(), &machine.id, &by);
        let bearer = Bearer::Machine { roles: &machine.roles, mark: &mark };
        let issued = self.grants.issuer.issue(&self.caller.client.id, &scope, &bearer).await?;
        note.jti = Some(issued.id);
        Ok(success(&issued.text, None, &scope))
    }

    async fn issue(
        &self,
        continued: Continued,
        scope: &str,
        note: &mut Note,
    ) -> Result<Response<Body>, Fault> {
        let bearer = Bearer::Person { person: &continued.details.person, grant: continued.id };
        let issued = self.grants.issuer.issue(&self.caller.client.id, scope, &bearer).await?;
        note.jti = Some(issued.id);
        Ok(success(&issued.text, Some(&continued.refresh_token), scope))
    }

    fn for_people(&self) -> Result<&str, Fault> {
        let client = &self.caller.client;
        if client.acts_for_people() { Ok(&client.id) } else { Err(Fault::UnauthorizedClient) }
    }
}

/// Verifies that the token request is by the party that made the authorization request. A verifier
/// is required if there was a challenge, and refused if there was none (a downgrade otherwise,
/// CVE-2025-4144).
fn fits(details: &Details, redirect_uri: Option<&str>, verifier: Option<&str>) -> Result<(), Fault> {
    // A redirect URI that the authorization request omitted must be omitted here, too.
    if details.redirect_uri.as_deref() != redirect_uri
        && (details.redirect_uri.is_some() || redirect_uri.is_some())
    {
        return Err(Fault::Unlike("redirect_uri is not the one of the authorization request"));
    }
    match (&details.code_challenge, verifier) {
        (Some(challenge), Some(verifier)) if pkce::is_verified(challenge, verifier) => Ok(()),
        (Some(_), Some(_)) => Err(Fault::Unlike("code_verifier does not fit the code_challenge")),
        (Some(_), None) => Err(Fault::Unlike("code_verifier is missing")),
        (None, Some(_)) => Err(Fault::Unlike("code_verifier came without a code_challenge before")),
        (None, None) => Ok(()),
    }
}

/// Returns the successful response (RFC 6749 section 5.1).
fn success(access_token: &Secret, refresh_token: Option<&Secret>, scope: &str) -> Response<Body> {
    let mut document = json!({
        "access_token": access_token.expose(),
        "token_type": "Bearer",
        "expires_in": LIFE.as_secs(),
        "scope": scope,
    });
    if let Some(token) = refresh_token {
        document["refresh_token"] = token.expose().into();
    }
    reply::json(StatusCode::OK, &document)
}

/// The audit entry of a request, as far as it is known.
#[derive(Debug, Default)]
struct Note {
    grant_type: Option<&'static str>,
    client_id: Option<Arc<str>>,
    jti: Option<String>,
    about: Option<(crate::store::GrantId, crate::identity::Person)>,
}

impl Note {
    fn of(&mut self, continued: &Continued) {
        self.about = Some((continued.id, continued.details.person.clone()));
    }

    fn keep(&self, grants: &Grants, fault: Option<&Fault>) {
        let outcome = fault.map_or("ok", Fault::class);
        grants.issuer.ledger.audit.note(&Entry {
            who: self.about.as_ref().map(|(_, person)| grants::who(person)).unwrap_or_default(),
            client_id: self.client_id.as_deref(),
            grant: self.about.as_ref().map(|(grant, _)| grant.to_string()),
            grant_type: self.grant_type,
            jti: self.jti.as_deref(),
            ..Entry::new(Event::Token, grants.issuer.tenant.as_str(), outcome)
        });
    }
}

impl From<ParameterFault> for Fault {
    fn from(fault: ParameterFault) -> Self {
        Self::Client(fault.into())
    }
}

impl From<grants::Fault> for Fault {
    fn from(fault: grants::Fault) -> Self {
        Self::Grant(fault)
    }
}

impl From<Unavailable> for Fault {
    fn from(fault: Unavailable) -> Self {
        Self::Grant(fault.into())
    }
}

impl Fault {
    fn class(&self) -> &'static str {
        match self {
            Self::Client(fault) => fault.class(),
            Self::Grant(grants::Fault::Reused) => "reused",
            Self::Grant(grants::Fault::Ended) => "ended",
            Self::Grant(grants::Fault::Unavailable) => "unavailable",
            Self::Grant(grants::Fault::Invalid) | Self::Unlike(_) => "invalid_grant",
            Self::Malformed(_) => "invalid_request",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::InvalidTarget => "invalid_target",
        }
    }

    /// Returns the error response (RFC 6749 section 5.2, RFC 8707 section 2).
    fn answer(self) -> Response<Body> {
        let (code, description) = match self {
            Self::Client(fault) => return fault.answer(),
            Self::Grant(grants::Fault::Unavailable) => {
                let what = "the login cannot be checked now; the token remains good";
                return reply::unavailable(what, reply::RETRY);
            }
            Self::Grant(grants::Fault::Invalid) => {
                ("invalid_grant", "it is unknown, used up, expired or another client's; log in again")
            }
            Self::Grant(grants::Fault::Reused) => {
                ("invalid_grant", "it was used before, so the login is ended; log in again")
            }
            Self::Grant(grants::Fault::Ended) => {
                ("invalid_grant", "the account may no longer log in here; log in again")
            }
            Self::Unlike(what) => ("invalid_grant", what),
            Self::Malformed(what) => ("invalid_request", what),
            Self::UnsupportedGrantType => {
                ("unsupported_grant_type", "use authorization_code, refresh_token or client_credentials")
            }
            Self::UnauthorizedClient => ("unauthorized_client", "this client may not use this grant type"),
            Self::InvalidTarget => ("invalid_target", "resource is not this server"),
        };
        reply::error(StatusCode::BAD_REQUEST, code, description)
    }
}

#[cfg(test)]
mod tests;
