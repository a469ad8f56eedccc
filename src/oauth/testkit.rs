//! A test bed: authorization servers with a real store and an Entra on loopback, with a manual
//! clock.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::Value;

use super::authorization_server::{AuthServer, AuthServerDeps, AuthServerSpec, RequestMeta};
use super::client::registered::{ClientAuthMethod, ClientRegistration, IssuedClient};
use super::client::{ClientDocuments, RedirectUri};
use super::context::AuthContext;
use super::endpoints;
use super::grants::{Grants, NewGrant};
use super::issuer::Issuer;
use super::logins::Logins;
use crate::base::body::Body;
use crate::base::clock::{Clock, ManualClock, SystemClock};
use crate::base::digest::Digest;
use crate::base::secret::Secret;
use crate::base::task::Tasks;
use crate::identity::tests::fake::{ACCOUNT, APP, DIRECTORY, FakeEntra};
use crate::identity::{Account, AuthRequest, GroupMembership, Provider, Providers};
use crate::routing::OAuthEndpoint;
use crate::spec::{
    AccessRules, DirectorySpec, EntraSpec, LoginSpec, MachineClientSpec, Prefix, ProviderSpec, PublicUrl,
    RegistrationSpec, TenantName,
};
use crate::store::auth::AuthStore;
use crate::store::{self, CreateGrant, GrantId, KeySource, Keyring, Store};
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Metrics;

pub(super) const REDIRECT: &str = "https://client.example/callback";
/// A verifier of 43 characters, and its S256 challenge.
pub(super) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub(super) const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
pub(super) const MACHINE: &str = "teams-agent";
pub(super) const MACHINE_SECRET: &str = "canary-machine-secret";
/// The address that all requests come from.
pub(super) const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub(super) const APP_SECRET: &str = "canary-app-secret";

/// The authorization servers of a gateway.
pub(super) struct TestGateway {
    pub(super) folder: tempfile::TempDir,
    pub(super) clock: Arc<ManualClock>,
    pub(super) entra: FakeEntra,
    shared: AuthServerDeps,
    _tasks: Tasks,
}

/// The server of one tenant.
pub(super) struct TestAuthServer {
    pub(super) inner: AuthServer,
    pub(super) grants: Arc<Grants>,
    pub(super) issuer: Arc<Issuer>,
}

impl TestGateway {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // Entra's tokens carry the real time.
        let clock = Arc::new(ManualClock::at(SystemClock.now()));
        Self::start_in(folder, clock, FakeEntra::start(APP_SECRET).await).await
    }

    async fn start_in(folder: tempfile::TempDir, clock: Arc<ManualClock>, entra: FakeEntra) -> Self {
        let store = open_store(folder.path()).await;
        let tasks = Tasks::new();
        let ours: Arc<dyn Clock> = clock.clone();
        let shared = start_shared(store.auth().clone(), store.keyring(), ours, &entra, &tasks).await;
        Self { folder, clock, entra, shared, _tasks: tasks }
    }

    /// Opens the same folder again, as after a restart of the process.
    pub(super) async fn restart(self) -> Self {
        let Self { folder, clock, entra, shared, _tasks } = self;
        _tasks.abort_signal().cancel();
        _tasks.drain(Duration::from_secs(5)).await;
        drop((shared, _tasks));
        Self::start_in(folder, clock, entra).await
    }

    /// Does the same, after something else has modified the store.
    pub(super) async fn restart_after(self, sql: &str) -> Self {
        let Self { folder, clock, entra, shared, _tasks } = self;
        _tasks.abort_signal().cancel();
        _tasks.drain(Duration::from_secs(5)).await;
        drop((shared, _tasks));
        store::testkit::tamper(folder.path(), sql);
        Self::start_in(folder, clock, entra).await
    }

    /// Servers created from now on read clients' documents there.
    pub(super) fn use_documents(&mut self, documents: Arc<ClientDocuments>) {
        self.shared.documents = documents;
    }

    pub(super) fn server(&self, tenant: &str) -> TestAuthServer {
        self.server_with_rules(tenant, AccessRules::default())
    }

    pub(super) fn server_with_rules(&self, tenant: &str, rules: AccessRules) -> TestAuthServer {
        let tenant = TenantName::parse(tenant).expect("a name");
        self.server_for_entry(tenant.as_str(), &tenant, login_spec(rules))
    }

    /// Creates the server of a tenant of this entry, which holds the tenant's name from now on.
    pub(super) fn server_for_entry(
        &self,
        entry_id: &str,
        tenant: &TenantName,
        login: LoginSpec,
    ) -> TestAuthServer {
        let server = TestAuthServer::new(&self.shared, entry_id, tenant, login);
        server.inner.activate(&entry_id.into());
        let context = &self.shared.context;
        store::testkit::apply_incarnation_changes(&context.store, &context.incarnations.unpersisted());
        context.incarnations.mark_persisted(context.incarnations.unpersisted().len(), &[]);
        server
    }

    /// Returns the Entra refresh token of a completed login.
    pub(super) async fn provider_refresh_token(&self) -> Secret {
        log_in(&self.shared.providers, &self.entra).await
    }

    pub(super) fn logins(&self) -> Logins {
        Logins::new(Arc::clone(&self.shared.context))
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Starts what the authorization servers of a gateway share.
pub(super) async fn start_shared(
    store: AuthStore,
    keyring: &Arc<Keyring>,
    clock: Arc<dyn Clock>,
    entra: &FakeEntra,
    tasks: &Tasks,
) -> AuthServerDeps {
    let context = AuthContext::start(store, None, clock, Audit::disabled(), Arc::default(), tasks).await;
    let authority = entra.authority().parse().expect("a URL");
    let providers = Providers::new(authority, SystemClock::shared(), Arc::new(Metrics::new()));
    let documents = ClientDocuments::new(SystemClock::shared(), tasks);
    let context = context.expect("read");
    AuthServerDeps { keyring: Arc::clone(keyring), context, providers, documents }
}

/// Completes a login and returns its Entra refresh token.
pub(super) async fn log_in(providers: &Arc<Providers>, entra: &FakeEntra) -> Secret {
    let url = PublicUrl::new("https://mcp.example.com", &Prefix::root());
    let provider = Provider::new(providers, &Arc::new(login_spec(AccessRules::default())), &url);
    let ask = AuthRequest { state: "s", nonce: "n", code_challenge: CHALLENGE, login_hint: None };
    let callback = entra.visit(provider.authorize_url(&ask).as_str()).await;
    let callback = url::Url::parse(&callback).expect("a URL");
    let code = callback.query_pairs().find(|(name, _)| name == "code").expect("a code").1.into_owned();
    let login = provider.redeem_code(&code, &Secret::new(VERIFIER), "n").await.expect("logged in");
    login.refresh_token.expect("a refresh token")
}

/// Opens a store as soon as the work on it is over that outlives the tasks of the last process.
async fn open_store(folder: &Path) -> Store {
    for _ in 0..500 {
        if let Ok(store) = Store::open(folder, &KeySource::State) {
            return store;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Store::open(folder, &KeySource::State).expect("opened")
}

pub(super) fn login_spec(rules: AccessRules) -> LoginSpec {
    LoginSpec {
        provider: ProviderSpec::Entra(Arc::new(EntraSpec {
            client_id: APP.into(),
            client_secrets: vec![Secret::new(APP_SECRET)],
            client_secret_expires: None,
            directory: DirectorySpec::One(DIRECTORY.into()),
            allow_guests: false,
            allow_personal_accounts: false,
        })),
        rules,
        tools: [].into(),
        machine_clients: vec![MachineClientSpec {
            id: MACHINE.into(),
            label: "Teams".into(),
            secret: Some(Digest::of(MACHINE_SECRET.as_bytes())),
            jwks: None,
            roles: vec!["Agent".into()],
        }],
        registration: RegistrationSpec::default(),
        access_token_lifetime: crate::spec::MAX_ACCESS_TOKEN_LIFETIME,
    }
}

pub(super) fn ada() -> Account {
    Account {
        issuer: DIRECTORY.into(),
        subject: ACCOUNT.into(),
        name: Some("Ada Lovelace".into()),
        username: Some("ada@contoso.com".into()),
        verified_email: None,
        roles: vec!["Analyst".into()],
        groups: GroupMembership::Known(vec![]),
        is_guest: false,
    }
}

/// A parsed response.
#[derive(Debug)]
pub(super) struct TestResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl TestResponse {
    async fn read(response: Response<Body>) -> Self {
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let body = serde_json::from_slice(&bytes).expect("JSON");
        Self { status: head.status, headers: head.headers, body }
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_else(|| panic!("{name} of {self:?}"))
    }

    pub(super) fn error(&self) -> (u16, &str) {
        (self.status.as_u16(), self.text("error"))
    }
}

pub(super) fn form_request(pairs: &[(&str, &str)]) -> Request<Bytes> {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    let kind = "application/x-www-form-urlencoded";
    Request::post("/token").header(header::CONTENT_TYPE, kind).body(body.into()).expect("a request")
}

pub(super) fn with_basic_auth(mut request: Request<Bytes>, id: &str, secret: &str) -> Request<Bytes> {
    use base64::Engine;
    let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = base64::prelude::BASE64_STANDARD.encode(format!("{}:{}", encode(id), encode(secret)));
    let value = HeaderValue::try_from(format!("Basic {pair}")).expect("a header value");
    request.headers_mut().insert(header::AUTHORIZATION, value);
    request
}

impl TestAuthServer {
    pub(super) fn new(
        shared: &AuthServerDeps,
        entry_id: &str,
        tenant: &TenantName,
        login: LoginSpec,
    ) -> Self {
        let prefix = Prefix::parse(&format!("/{tenant}")).expect("a prefix");
        let url = PublicUrl::new("https://mcp.example.com", &prefix);
        let spec =
            AuthServerSpec { tenant: tenant.clone(), title: "Acme".into(), url, login: Arc::new(login) };
        let inner = AuthServer::new(shared, entry_id, spec);
        let (grants, issuer) = (Arc::clone(&inner.grants), Arc::clone(&inner.issuer));
        Self { inner, grants, issuer }
    }

    pub(super) fn register(&self, method: ClientAuthMethod) -> IssuedClient {
        let redirect_uris = vec![RedirectUri::parse(REDIRECT).expect("a redirect URI")];
        let registration =
            ClientRegistration { issued_at: Timestamp::UNIX_EPOCH, name: None, method, redirect_uris };
        registration.issue(&self.inner.keyring, self.issuer.current_incarnation()).expect("an id")
    }

    /// Registers a public client.
    pub(super) fn register_public(&self) -> String {
        self.register(ClientAuthMethod::None).id
    }

    /// Issues a code for Ada and this client.
    pub(super) async fn issue_code(&self, client_id: &str, upstream: Option<Secret>) -> String {
        self.issue_code_for(client_id, upstream, Some(CHALLENGE)).await
    }

    /// Issues a code whose request had this challenge, or none.
    pub(super) async fn issue_code_for(
        &self,
        client_id: &str,
        upstream: Option<Secret>,
        challenge: Option<&str>,
    ) -> String {
        let new = NewGrant {
            client_id: client_id.to_owned(),
            client_name: None,
            redirect_uri: Some(REDIRECT.to_owned()),
            code_challenge: challenge.map(str::to_owned),
            scope: "mcp:use".to_owned(),
            account: ada(),
            provider_refresh_token: upstream,
        };
        self.grants.create(new).await.expect("begun").expose().to_owned()
    }

    /// Sends a request to one of the endpoints that clients use.
    async fn request(&self, endpoint: OAuthEndpoint, request: Request<Bytes>) -> TestResponse {
        let meta = RequestMeta { request_id: "test", now: self.inner.context.now(), source: SOURCE };
        TestResponse::read(endpoints::handle(&self.inner, endpoint, request, meta).await).await
    }

    pub(super) async fn request_token(&self, request: Request<Bytes>) -> TestResponse {
        self.request(OAuthEndpoint::Token, request).await
    }

    pub(super) async fn redeem(&self, code: &str, client_id: &str) -> TestResponse {
        self.request_token(form_request(&[
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", VERIFIER),
            ("client_id", client_id),
        ]))
        .await
    }

    pub(super) async fn refresh(&self, token: &str, client_id: &str) -> TestResponse {
        self.request_token(form_request(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("client_id", client_id),
        ]))
        .await
    }

    pub(super) async fn revoke(&self, token: &str, client_id: &str) -> TestResponse {
        self.request_revocation(form_request(&[("token", token), ("client_id", client_id)])).await
    }

    pub(super) async fn request_revocation(&self, request: Request<Bytes>) -> TestResponse {
        self.request(OAuthEndpoint::Revoke, request).await
    }

    pub(super) async fn introspect(&self, request: Request<Bytes>) -> TestResponse {
        self.request(OAuthEndpoint::Introspect, request).await
    }

    /// Writes a grant into the store that cannot be decoded.
    pub(super) fn corrupt_grant(&self, id: GrantId) {
        let now = self.inner.context.now();
        let expires = now + jiff::SignedDuration::from_hours(1);
        let (client_id, details) = ("client".to_owned(), b"spoiled".to_vec());
        let grant = CreateGrant {
            id,
            client_id,
            now,
            code_expires_at: expires,
            family_key: [0; 32],
            payload: details,
        };
        store::testkit::create_grant(&self.inner.context.store, self.issuer.current_incarnation(), grant);
    }

    pub(super) async fn is_access_token_valid(&self, token: &str) -> bool {
        self.grants.verify_access_token(token.as_bytes()).await.is_ok()
    }
}
