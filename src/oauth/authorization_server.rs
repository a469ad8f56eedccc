//! The authorization server of one tenant: everything below its public URL that is about login.
//!
//! It owns what is answered where, and in which form. What people are asked and told is `authorize`'s, `consent`'s and
//! `callback`'s; what tokens are worth, `grants`' and `token`'s. It holds handles only, since there are ten thousand.

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

/// Clients give up after ten.
const PATIENCE: Duration = Duration::from_secs(9);
const KEEP_METADATA: Duration = Duration::from_secs(300);
const KEEP_KEYS: Duration = Duration::from_secs(600);

/// What the authorization servers of all tenants share.
#[derive(Clone)]
pub struct Shared {
    pub store: Arc<Store>,
    pub ledger: Arc<Ledger>,
    pub entra: Arc<Entra>,
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

/// What is known of a request besides itself.
#[derive(Debug, Clone, Copy)]
pub struct Visit<'a> {
    pub request_id: &'a str,
    pub now: Timestamp,
    /// Where it comes from: the address of the connection.
    pub source: IpAddr,
}

impl AuthorizationServer {
    /// The server of a tenant with a login, of the entry of this stem.
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

    /// What keeps everybody from logging in.
    pub fn trouble(&self) -> Option<String> {
        self.provider.trouble().map(|trouble| trouble.to_string())
    }

    /// Since when that is so.
    pub fn trouble_since(&self) -> Option<Timestamp> {
        self.provider.trouble_since()
    }

    /// What the bearer check asks about tokens.
    pub fn grants(&self) -> &Arc<Grants> {
        &self.grants
    }

    /// Whose tokens they are.
    pub fn issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    /// Who may ask for tokens.
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Answers who asks for a document about this tenant.
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

    /// Answers a step of a login, in time.
    pub async fn step(&self, step: Step, request: Request<Bytes>, visit: Visit<'_>) -> Response<Body> {
        let method = request.method().clone();
        let for_pages = matches!(step, Step::Token | Step::Register | Step::Revoke);
        if method == Method::OPTIONS && for_pages {
            return reply::preflight();
        }
        // Boxed: calls, which are many, need not be as large as a step of a login.
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

/// HEAD is GET without what it would have brought (RFC 9110 section 9.3.2).
fn head_only(method: &Method, response: Response<Body>) -> Response<Body> {
    match *method {
        Method::HEAD => response.map(|_| body::empty()),
        _ => response,
    }
}
