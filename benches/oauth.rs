//! The cost of a login: the bearer check of a token that is cached and of one that is not, the token
//! endpoint, and what a refresh asks of the store (the provider's part needs a provider).
//!
//! ```text
//! cargo bench --bench oauth
//! ```
//!
//! Times are CPU time of the whole process, because a shared machine is never quiet; the calls per
//! second of one core are a million divided by the microseconds. The store is real, on the disk of
//! the temporary folder; with `TENANTD_BENCH_STORE=postgres://…` logins are in that empty database.
#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::BodyExt;
use serde_json::Value;
use tenantd::base::clock::SystemClock;
use tenantd::base::digest::Digest;
use tenantd::base::task::Tasks;
use tenantd::bundle::{list_entries, load, sample};
use tenantd::identity::{Account, GroupMembership, Providers};
use tenantd::oauth::authorization_server::{AuthServer, AuthServerDeps, AuthServerSpec, RequestMeta};
use tenantd::oauth::bearer::{AccessRevocations, BearerCheck};
use tenantd::oauth::client::ClientDocuments;
use tenantd::oauth::context::AuthContext;
use tenantd::oauth::endpoints;
use tenantd::oauth::grants::NewGrant;
use tenantd::routing::OAuthEndpoint;
use tenantd::spec::AllowFrom;
use tenantd::store::{
    AuthStore, CreateGrant, GrantId, Incarnation, KeySource, PostgresAddress, RotateGrant, Store,
};
use tenantd::telemetry::audit::Audit;
use tenantd::telemetry::metrics::Metrics;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TOKENS: usize = 2_000;
const HOT: usize = 200_000;
const AT_ONCE: usize = 64;
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const REDIRECT: &str = "http://127.0.0.1/callback";
const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return println!("nothing is measured without --bench; run `cargo bench --bench oauth`");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure());
}

async fn measure() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tasks = Tasks::new();
    let (server, store) = server(folder.path(), &tasks).await;
    let client = register(&server).await;
    let codes: Vec<String> =
        stream::iter(0..TOKENS).map(|_| code(&server, &client)).buffer_unordered(AT_ONCE).collect().await;

    let meter = Meter::start();
    let redeemed = stream::iter(&codes).map(|code| redeem(&server, code, &client)).buffer_unordered(AT_ONCE);
    let tokens: Vec<String> = redeemed.collect().await;
    meter.report("token endpoint, a code with PKCE, on the disk", TOKENS);

    measure_refreshes(store.auth()).await;

    let check = BearerCheck::with_login(
        Arc::clone(server.grants()),
        AllowFrom::default(),
        &AccessRevocations::default(),
    );
    let headers: Vec<HeaderMap> = tokens.iter().map(|token| bearer(token)).collect();
    let now = jiff::Timestamp::now();
    let meter = Meter::start();
    for headers in &headers {
        check.authorize(headers, Some(HOME), now).await.expect("let in");
    }
    meter.report("bearer check, first time", TOKENS);
    let meter = Meter::start();
    for round in 0..HOT {
        check.authorize(&headers[round % headers.len()], Some(HOME), now).await.expect("let in");
    }
    meter.report("bearer check, seen before", HOT);
}

/// Measures what a refresh asks of the store: the grant is loaded, and its token rotated.
async fn measure_refreshes(store: &AuthStore) {
    let incarnation = Incarnation::new(&"bench".into());
    let now = jiff::Timestamp::now();
    let rotation = |id, from_sequence| RotateGrant {
        id,
        from_sequence,
        client_id: "client".to_owned(),
        now,
        expires_at: now + Duration::from_secs(3600),
        ends_at: now + Duration::from_secs(7200),
        payload: vec![b'x'; 600],
    };
    let ids: Vec<GrantId> = (0..TOKENS).map(|_| GrantId::random()).collect();
    let created = stream::iter(&ids).map(async |&id| {
        let grant = CreateGrant {
            id,
            client_id: "client".to_owned(),
            now,
            code_expires_at: now + Duration::from_secs(60),
            family_key: [7; 32],
            payload: vec![b'x'; 600],
        };
        store.create_grant(&incarnation, grant).await.expect("kept");
        assert!(store.take_code(&incarnation, rotation(id, 0)).await.expect("answered"));
    });
    created.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    let meter = Meter::start();
    let refreshed = stream::iter(&ids).map(async |&id| {
        let grant = store.load_grant(&incarnation, id, now).await.expect("read").expect("there");
        let rotated = store.rotate_refresh(&incarnation, rotation(id, grant.last_sequence)).await;
        assert!(rotated.expect("answered"));
    });
    refreshed.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    meter.report("a refresh's two statements, on the disk", TOKENS);
}

/// The CPU time of this process and the wall time at the start.
struct Meter(Duration, Instant);

impl Meter {
    fn start() -> Self {
        Self(cpu(), Instant::now())
    }

    fn report(self, what: &str, times: usize) {
        let (cpu, wall) = ((cpu() - self.0).as_secs_f64(), self.1.elapsed().as_secs_f64());
        let each = cpu / times as f64;
        println!(
            "{what}: {:.2} us CPU each, {:.0} a second on one core; {:.0} a second on the wall",
            each * 1e6,
            1.0 / each,
            times as f64 / wall
        );
    }
}

/// Returns the CPU time of all live threads of this process.
fn cpu() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").expect("this is Linux").flatten();
    let ran = threads.map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).unwrap_or(0)
    });
    Duration::from_nanos(ran.sum())
}

async fn server(folder: &std::path::Path, tasks: &Tasks) -> (AuthServer, Store) {
    let tenants = folder.join("tenants.d");
    std::fs::create_dir(&tenants).expect("made");
    std::fs::write(tenants.join("acme.yaml"), TENANT).expect("written");
    let entry = list_entries(&tenants, None).expect("listed").into_iter().next().expect("the one tenant");
    let loaded = load(&entry, &sample::sample_context());
    let spec = loaded.spec.unwrap_or_else(|| panic!("{:?}", loaded.report));
    let spec = AuthServerSpec::from_tenant(&spec).expect("it asks for a login");
    let clock = SystemClock::shared();
    let mut store = Store::open(&folder.join("state"), &KeySource::State).expect("opened");
    if let Ok(address) = std::env::var("TENANTD_BENCH_STORE") {
        let address = PostgresAddress::parse(&address, None).expect("an address");
        store = store.connect_auth(address, "bench").await.expect("an empty database");
    }
    let ledger = AuthContext::start(
        store.auth().clone(),
        None,
        Arc::clone(&clock),
        Audit::disabled(),
        Arc::default(),
        tasks,
    )
    .await
    .expect("read");
    let providers = Providers::new(
        "http://127.0.0.1:9".parse().expect("a URL"),
        Arc::clone(&clock),
        Arc::new(Metrics::new()),
    );
    let documents = ClientDocuments::new(clock, tasks);
    let keyring = Arc::clone(store.keyring());
    let deps = AuthServerDeps { keyring, context: ledger, providers, documents };
    (AuthServer::new(&deps, "acme", spec), store)
}

const TENANT: &str = "\
search_url: https://api.example.com/nlp-search
context_url: https://api.example.com/nlp-context
api_key: k3-9f2c61d07b5e4a88
connection_id: bench
oauth_enabled: true
microsoft_client_id: 6731de76-14a6-49ae-97bc-6eba6914391e
microsoft_client_secret: b2-0d5e8f17a3c94620-bench
microsoft_tenant_id: 72f988bf-86f1-41af-91ab-2d7cd011db47
";

async fn ask(server: &AuthServer, step: OAuthEndpoint, kind: &'static str, body: String) -> Value {
    let request =
        Request::post("/x").header("content-type", kind).body(Bytes::from(body)).expect("a request");
    let meta = RequestMeta {
        request_id: "bench",
        now: jiff::Timestamp::now(),
        source: std::net::Ipv4Addr::LOCALHOST.into(),
    };
    let response = endpoints::handle(server, step, request, meta).await;
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    serde_json::from_slice(&body).expect("JSON")
}

async fn register(server: &AuthServer) -> String {
    let body = format!(r#"{{"redirect_uris":["{REDIRECT}"],"token_endpoint_auth_method":"none"}}"#);
    let answer = ask(server, OAuthEndpoint::Register, "application/json", body).await;
    answer["client_id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

async fn code(server: &AuthServer, client: &str) -> String {
    let new = NewGrant {
        client_id: client.to_owned(),
        client_name: None,
        redirect_uri: Some(REDIRECT.to_owned()),
        code_challenge: Some(BASE64_URL_SAFE_NO_PAD.encode(Digest::of(VERIFIER.as_bytes()).as_bytes())),
        scope: "mcp:use".to_owned(),
        account: account(),
        provider_refresh_token: None,
    };
    server.grants().create(new).await.expect("begun").expose().to_owned()
}

async fn redeem(server: &AuthServer, code: &str, client: &str) -> String {
    let pairs = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("client_id", client),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ];
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    let answer = ask(server, OAuthEndpoint::Token, "application/x-www-form-urlencoded", body).await;
    answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

fn account() -> Account {
    Account {
        issuer: "72f988bf-86f1-41af-91ab-2d7cd011db47".into(),
        subject: "00aa11bb-22cc-33dd-44ee-55ff66007788".into(),
        name: Some("Ada Lovelace".into()),
        username: Some("ada@contoso.com".into()),
        verified_email: None,
        roles: vec!["Analyst".into()],
        groups: GroupMembership::Known(vec![]),
        is_guest: false,
    }
}

fn bearer(token: &str) -> HeaderMap {
    let value = HeaderValue::try_from(format!("Bearer {token}")).expect("a header value");
    HeaderMap::from_iter([(AUTHORIZATION, value)])
}
