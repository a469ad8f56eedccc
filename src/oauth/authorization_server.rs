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

use super::client::{Clients, Documents};
use super::grants::Grants;
use super::issuer::Issuer;
use super::ledger::Ledger;
use super::{introspect, metadata, register, reply, revoke, token};
use crate::base::body::{self, Body};
use crate::identity::{Entra, Provider};
use crate::routing::{Document, Step};
use crate::spec::{LoginSpec, PublicUrl, TenantName, TenantSpec};
use crate::store::Store;

/// Clients give up after ten seconds.
const PATIENCE: Duration = Duration::from_secs(9);
const KEEP_METADATA: Duration = Duration::from_secs(300);
const KEEP_KEYS: Duration = Duration::from_secs(600);

/// The parts that the authorization servers of all tenants share.
#[derive(Clone)]
pub struct Shared {
    /// Where registrations, consents and logins are sealed, and clients and grants persisted.
    pub store: Arc<Store>,
    /// Revocations, lives, clock, caches and audit log.
    pub ledger: Arc<Ledger>,
    /// The connection to Microsoft Entra ID.
    pub entra: Arc<Entra>,
    /// The metadata documents of clients.
    pub documents: Arc<Documents>,
}

/// The authorization server of one tenant.
pub struct AuthorizationServer {
    pub(super) tenant: TenantName,
    pub(super) title: Arc<str>,
    pub(super) url: PublicUrl,
    pub(super) login: Arc<LoginSpec>,
    pub(super) store: Arc<Store>,
    pub(super) clients: Clients,
    pub(super) provider: Provider,
    pub(super) grants: Arc<Grants>,
    issuer: Arc<Issuer>,
}

/// The context of a request.
#[derive(Debug, Clone, Copy)]
pub struct Visit<'a> {
    /// The request's id, for logs and pages.
    pub request_id: &'a str,
    /// When the request arrived.
    pub now: Timestamp,
    /// The address of the connection that the request came on.
    pub source: IpAddr,
}

impl AuthorizationServer {
    /// Creates the server of a tenant with login, whose entry is `stem`.
    pub fn new(shared: &Shared, stem: &str, spec: &TenantSpec, login: &Arc<LoginSpec>) -> Self {
        let provider = Provider::new(&shared.entra, login, &spec.public_url);
        let lived = shared.ledger.lives.look(&spec.name, stem, login);
        let url = spec.public_url.clone();
        let issuer = Issuer::new(spec.name.clone(), lived.clone(), url, &shared.ledger);
        Self {
            tenant: spec.name.clone(),
            title: Arc::clone(&spec.title),
            url: spec.public_url.clone(),
            login: Arc::clone(login),
            store: Arc::clone(&shared.store),
            clients: Clients {
                lived,
                login: Arc::clone(login),
                store: Arc::clone(&shared.store),
                ledger: Arc::clone(&shared.ledger),
                documents: Arc::clone(&shared.documents),
            },
            grants: Arc::new(Grants::new(Arc::clone(&issuer), Arc::clone(login), provider.clone())),
            provider,
            issuer,
        }
    }

    /// Returns what prevents every login, according to the last exchange with Entra.
    pub fn trouble(&self) -> Option<String> {
        self.provider.trouble().map(|trouble| trouble.to_string())
    }

    /// Returns since when every login has failed.
    pub fn trouble_since(&self) -> Option<Timestamp> {
        self.provider.trouble_since()
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
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Answers a request for one of the tenant's public documents.
    pub async fn describe(&self, document: Document, request: &Request<Bytes>) -> Response<Body> {
        let response = match *request.method() {
            Method::OPTIONS => return reply::preflight(),
            Method::GET | Method::HEAD => self.document(document, request).await,
            _ => reply::method_not_allowed("GET, HEAD, OPTIONS"),
        };
        reply::readable_by_all(head_only(request.method(), response))
    }

    async fn document(&self, document: Document, request: &Request<Bytes>) -> Response<Body> {
        let headers = request.headers();
        match document {
            Document::Resource(spelling) => {
                let text = metadata::resource(&self.url, &self.title, spelling).to_string();
                reply::document(text.into(), KEEP_METADATA, headers)
            }
            Document::Server => {
                let text = metadata::server(&self.url, &self.login).to_string();
                reply::document(text.into(), KEEP_METADATA, headers)
            }
            Document::Keys => match self.issuer.jwks().await {
                Ok(keys) => reply::document(keys, KEEP_KEYS, headers),
                Err(fault) => reply::unavailable(&fault.to_string(), Duration::from_secs(5)),
            },
        }
    }

    /// Answers a request to a login endpoint, within the deadline.
    pub async fn step(&self, step: Step, request: Request<Bytes>, visit: Visit<'_>) -> Response<Body> {
        let method = request.method().clone();
        let for_pages = matches!(step, Step::Token | Step::Register | Step::Revoke);
        if method == Method::OPTIONS && for_pages {
            return reply::preflight();
        }
        // Boxed, so that the futures of tool calls, which are many, are not as large as this one.
        let taken = tokio::time::timeout(PATIENCE, Box::pin(self.taken(step, request, visit))).await;
        let response = taken.unwrap_or_else(|_| {
            tracing::warn!(tenant = %self.tenant, request_id = visit.request_id, ?step, "a step of a login took too long");
            reply::unavailable("this took too long; try again", Duration::from_secs(5))
        });
        match for_pages {
            true => reply::readable_by_all(response),
            false => head_only(&method, response),
        }
    }

    async fn taken(&self, step: Step, request: Request<Bytes>, visit: Visit<'_>) -> Response<Body> {
        match step {
            Step::Authorize => self.authorize(&request, &visit).await,
            Step::Consent => self.consent(&request, &visit),
            Step::Callback => self.callback(&request, &visit).await,
            Step::Register => match *request.method() {
                Method::POST => register::answer(&self.clients, &request, visit.now),
                _ => reply::method_not_allowed("POST, OPTIONS"),
            },
            Step::Token => token::answer(&self.grants, &self.clients, &request, visit.source).await,
            Step::Revoke => revoke::answer(&self.grants, &self.clients, &request, visit.source).await,
            Step::Introspect => introspect::answer(&self.grants, &self.clients, &request, visit.source).await,
        }
    }
}

/// Drops the body of a response to HEAD (RFC 9110 section 9.3.2).
fn head_only(method: &Method, response: Response<Body>) -> Response<Body> {
    match *method {
        Method::HEAD => response.map(|_| body::empty()),
        _ => response,
    }
}
