//! The authorization server of one tenant: every login endpoint below its public URL.
//!
//! It owns the routing and the form of the responses. `authorize`, `consent` and `callback` own the
//! dialogue with people, `grants` and `token` the tokens. It holds handles only, since a gateway
//! has up to ten thousand of these servers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use jiff::Timestamp;

use super::client::{ClientDocuments, ClientRegistry};
use super::context::AuthContext;
use super::grants::Grants;
use super::issuer::Issuer;
use super::{introspect, metadata, register, response, revoke, token};
use crate::base::body::{self, Body};
use crate::identity::{Entra, Provider};
use crate::routing::{DiscoveryDocument, OAuthEndpoint};
use crate::spec::{LoginSpec, PublicUrl, TenantName, TenantSpec};
use crate::store::Store;

/// Clients give up after ten seconds.
const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(9);
const METADATA_MAX_AGE: Duration = Duration::from_secs(300);
const JWKS_MAX_AGE: Duration = Duration::from_secs(600);

/// The parts that the authorization servers of all tenants share.
#[derive(Clone)]
pub struct AuthServerDeps {
    /// Where registrations, consents and logins are sealed, and clients and grants persisted.
    pub store: Arc<Store>,
    /// Revocations, incarnations, clock, caches and audit log.
    pub context: Arc<AuthContext>,
    /// The connection to Microsoft Entra ID.
    pub entra: Arc<Entra>,
    /// The metadata documents of clients.
    pub documents: Arc<ClientDocuments>,
}

/// The authorization server of one tenant.
pub struct AuthServer {
    pub(super) tenant: TenantName,
    pub(super) title: Arc<str>,
    pub(super) url: PublicUrl,
    pub(super) login: Arc<LoginSpec>,
    pub(super) store: Arc<Store>,
    pub(super) clients: ClientRegistry,
    pub(super) provider: Provider,
    pub(super) grants: Arc<Grants>,
    issuer: Arc<Issuer>,
}

/// The context of a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestMeta<'a> {
    /// The request's id, for logs and pages.
    pub request_id: &'a str,
    /// When the request arrived.
    pub now: Timestamp,
    /// The address of the connection that the request came on.
    pub source: IpAddr,
}

impl AuthServer {
    /// Creates the server of a tenant with login, whose entry id is `stem`.
    pub fn new(shared: &AuthServerDeps, stem: &str, spec: &TenantSpec, login: &Arc<LoginSpec>) -> Self {
        let provider = Provider::new(&shared.entra, login, &spec.public_url);
        let lived = shared.context.incarnations.current_or_new(&spec.name, stem, login);
        let url = spec.public_url.clone();
        let issuer = Issuer::new(spec.name.clone(), lived.clone(), url, &shared.context);
        Self {
            tenant: spec.name.clone(),
            title: Arc::clone(&spec.title),
            url: spec.public_url.clone(),
            login: Arc::clone(login),
            store: Arc::clone(&shared.store),
            clients: ClientRegistry {
                incarnation: lived,
                login: Arc::clone(login),
                store: Arc::clone(&shared.store),
                context: Arc::clone(&shared.context),
                documents: Arc::clone(&shared.documents),
            },
            grants: Arc::new(Grants::new(Arc::clone(&issuer), Arc::clone(login), provider.clone())),
            provider,
            issuer,
        }
    }

    /// Returns what prevents every login, according to the last exchange with Entra.
    pub fn provider_problem(&self) -> Option<String> {
        self.provider.problem().map(|trouble| trouble.to_string())
    }

    /// Returns since when every login has failed.
    pub fn provider_problem_since(&self) -> Option<Timestamp> {
        self.provider.problem_since()
    }

    /// Returns the grants, with which the bearer check verifies tokens.
    pub fn grants(&self) -> &Arc<Grants> {
        &self.grants
    }

    /// Returns the issuer of the tenant's tokens.
    pub fn issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    /// Returns the clients of the tenant.
    pub fn clients(&self) -> &ClientRegistry {
        &self.clients
    }

    /// Answers a request for one of the tenant's public documents.
    pub async fn handle_discovery(
        &self,
        document: DiscoveryDocument,
        request: &Request<Bytes>,
    ) -> Response<Body> {
        let response = match *request.method() {
            Method::OPTIONS => return response::preflight(),
            Method::GET | Method::HEAD => self.discovery_response(document, request).await,
            _ => response::method_not_allowed("GET, HEAD, OPTIONS"),
        };
        response::allow_all_origins(strip_body_of_head(request.method(), response))
    }

    async fn discovery_response(
        &self,
        document: DiscoveryDocument,
        request: &Request<Bytes>,
    ) -> Response<Body> {
        let headers = request.headers();
        match document {
            DiscoveryDocument::Resource(spelling) => {
                let text = metadata::protected_resource(&self.url, &self.title, spelling).to_string();
                response::cacheable_json(text.into(), METADATA_MAX_AGE, headers)
            }
            DiscoveryDocument::AuthorizationServer => {
                let text = metadata::authorization_server(&self.url, &self.login).to_string();
                response::cacheable_json(text.into(), METADATA_MAX_AGE, headers)
            }
            DiscoveryDocument::Jwks => match self.issuer.jwks().await {
                Ok(keys) => response::cacheable_json(keys, JWKS_MAX_AGE, headers),
                Err(fault) => response::unavailable(&fault.to_string(), Duration::from_secs(5)),
            },
        }
    }

    /// Answers a request to a login endpoint, within the deadline.
    pub async fn handle(
        &self,
        step: OAuthEndpoint,
        request: Request<Bytes>,
        visit: RequestMeta<'_>,
    ) -> Response<Body> {
        let method = request.method().clone();
        let for_pages =
            matches!(step, OAuthEndpoint::Token | OAuthEndpoint::Register | OAuthEndpoint::Revoke);
        if method == Method::OPTIONS && for_pages {
            return response::preflight();
        }
        // Boxed, so that the futures of tool calls, which are many, are not as large as this one.
        let taken =
            tokio::time::timeout(ENDPOINT_TIMEOUT, Box::pin(self.dispatch(step, request, visit))).await;
        let response = taken.unwrap_or_else(|_| {
            tracing::warn!(tenant = %self.tenant, request_id = visit.request_id, ?step, "a step of a login took too long");
            response::unavailable("this took too long; try again", Duration::from_secs(5))
        });
        match for_pages {
            true => response::allow_all_origins(response),
            false => strip_body_of_head(&method, response),
        }
    }

    async fn dispatch(
        &self,
        step: OAuthEndpoint,
        request: Request<Bytes>,
        visit: RequestMeta<'_>,
    ) -> Response<Body> {
        match step {
            OAuthEndpoint::Authorize => self.handle_authorize(&request, &visit).await,
            OAuthEndpoint::Consent => self.handle_consent(&request, &visit),
            OAuthEndpoint::Callback => self.handle_callback(&request, &visit).await,
            OAuthEndpoint::Register => match *request.method() {
                Method::POST => register::handle(&self.clients, &request, visit.now),
                _ => response::method_not_allowed("POST, OPTIONS"),
            },
            OAuthEndpoint::Token => token::handle(&self.grants, &self.clients, &request, visit.source).await,
            OAuthEndpoint::Revoke => {
                revoke::handle(&self.grants, &self.clients, &request, visit.source).await
            }
            OAuthEndpoint::Introspect => {
                introspect::handle(&self.grants, &self.clients, &request, visit.source).await
            }
        }
    }
}

/// Drops the body of a response to HEAD (RFC 9110 section 9.3.2).
fn strip_body_of_head(method: &Method, response: Response<Body>) -> Response<Body> {
    match *method {
        Method::HEAD => response.map(|_| body::empty()),
        _ => response,
    }
}
