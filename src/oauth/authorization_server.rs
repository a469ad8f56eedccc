//! The authorization server of one tenant (RFC 8414): its parts, for the endpoints below the
//! tenant's public URL. It holds handles only, since a gateway has up to ten thousand of these
//! servers.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::client::{ClientDocuments, ClientRegistry};
use super::context::AuthContext;
use super::grants::Grants;
use super::issuer::Issuer;
use crate::identity::{Provider, ProviderProblem, Providers};
use crate::spec::{Degradation, LoginSpec, PublicUrl, TenantName, TenantSpec};
use crate::store::Keyring;

/// The parts that the authorization servers of all tenants share.
#[derive(Clone)]
pub struct AuthServerDeps {
    /// Seals registrations, consents and logins.
    pub keyring: Arc<Keyring>,
    /// The store of clients and grants; revocations, incarnations, clock, caches and audit log.
    pub context: Arc<AuthContext>,
    /// The connections to identity providers.
    pub providers: Arc<Providers>,
    /// The metadata documents of clients.
    pub documents: Arc<ClientDocuments>,
}

/// The part of a tenant's specification that its authorization server needs.
#[derive(Debug, Clone)]
pub struct AuthServerSpec {
    /// The tenant's name.
    pub tenant: TenantName,
    /// The name shown to people.
    pub title: Arc<str>,
    /// The issuer, and the base of all endpoints.
    pub url: PublicUrl,
    /// The login.
    pub login: Arc<LoginSpec>,
}

impl AuthServerSpec {
    /// Returns this part of a tenant's specification, if people log in there.
    pub fn from_tenant(spec: &TenantSpec) -> Option<Self> {
        Some(Self {
            tenant: spec.name.clone(),
            title: Arc::clone(&spec.title),
            url: spec.public_url.clone(),
            login: Arc::clone(spec.access.login.as_ref()?),
        })
    }
}

/// The authorization server of one tenant.
pub struct AuthServer {
    pub(super) tenant: TenantName,
    pub(super) title: Arc<str>,
    pub(super) url: PublicUrl,
    pub(super) login: Arc<LoginSpec>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) context: Arc<AuthContext>,
    pub(super) issuer: Arc<Issuer>,
    pub(super) clients: ClientRegistry,
    pub(super) provider: Provider,
    pub(super) grants: Arc<Grants>,
}

/// What is known of a request besides its head and body.
#[derive(Debug, Clone, Copy)]
pub struct RequestMeta<'a> {
    /// The request's id, for logs and pages.
    pub request_id: &'a str,
    /// When the request arrived.
    pub now: Timestamp,
    /// The address that the request came from.
    pub source: IpAddr,
}

impl AuthServer {
    /// Creates the server of a tenant of the entry `entry_id`.
    pub fn new(deps: &AuthServerDeps, entry_id: &str, spec: AuthServerSpec) -> Self {
        let AuthServerSpec { tenant, title, url, login } = spec;
        let provider = Provider::new(&deps.providers, &login, &url);
        let incarnation = deps.context.incarnations.current_or_new(&tenant, entry_id, &login);
        let (lifetime, context) = (login.access_token_lifetime, &deps.context);
        let issuer = Issuer::new(tenant.clone(), incarnation.clone(), url.clone(), lifetime, context);
        let clients = ClientRegistry {
            incarnation,
            login: Arc::clone(&login),
            keyring: Arc::clone(&deps.keyring),
            context: Arc::clone(&deps.context),
            documents: Arc::clone(&deps.documents),
        };
        let grants = Arc::new(Grants::new(Arc::clone(&issuer), Arc::clone(&login), provider.clone()));
        Self {
            tenant,
            title,
            url,
            login,
            keyring: Arc::clone(&deps.keyring),
            context: Arc::clone(&deps.context),
            issuer,
            clients,
            provider,
            grants,
        }
    }

    /// Returns why no person can log in, according to the last exchange with the provider.
    pub fn degradation(&self) -> Option<Degradation> {
        let (problem, since) = self.provider.problem()?;
        Some(Degradation { reason: problem.describe(self.provider.brand()), since })
    }

    /// Returns the URL of the page where people see and end what they have connected.
    pub(super) fn account_url(&self) -> String {
        self.url.account_url()
    }

    /// The same, only if the provider refuses the tenant's app or does not know it.
    pub fn app_refusal(&self) -> Option<Degradation> {
        let (problem, _) = self.provider.problem()?;
        matches!(problem, ProviderProblem::Misconfigured(_)).then(|| self.degradation())?
    }

    /// Returns the grants, with which the bearer check verifies tokens.
    pub fn grants(&self) -> &Arc<Grants> {
        &self.grants
    }

    /// Prepares the publication of the tenant from the entry `entry_id`: begins its incarnation, and
    /// ends that of another entry.
    pub fn activate(&self, entry_id: &Arc<str>) {
        self.context.login_specs.insert(Arc::clone(self.tenant.as_arc()), Arc::clone(&self.login));
        self.issuer.activate(entry_id);
    }

    /// Returns the issuer of the tenant's tokens.
    pub fn issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    /// Returns the clients of the tenant.
    pub fn clients(&self) -> &ClientRegistry {
        &self.clients
    }
}
