//! Documents over real TLS on loopback, and the ways in which one could mislead the gateway.

mod assertions;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::fetcher::{DocumentFetcher, GuardedResolver};
use super::*;
use crate::base::clock::{ManualClock, SystemClock};
use crate::base::dns::DnsResolver;
use crate::base::net;
use crate::oauth::client::ClientOrigin;

const HOST: &str = "app.example.com";
const ID: &str = "https://app.example.com/client.json";

/// A host of documents.
struct FakeDocumentHost {
    address: SocketAddr,
    root: reqwest::Certificate,
    asked: Arc<AtomicUsize>,
    tasks: Tasks,
}

impl Drop for FakeDocumentHost {
    fn drop(&mut self) {
        self.tasks.abort_signal().cancel();
    }
}

impl FakeDocumentHost {
    /// Starts a host with the same response for every request.
    async fn answering(answer: String) -> Self {
        Self::answering_by_path(move |_| answer.clone()).await
    }

    async fn answering_by_path(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let certified = rcgen::generate_simple_self_signed([HOST.to_owned()]).expect("a certificate");
        let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.expect("a key"))
        .expect("they fit");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let (address, asked, tasks) =
            (listener.local_addr().expect("bound"), Arc::<AtomicUsize>::default(), Tasks::new());
        let (counted, answer) = (Arc::clone(&asked), Arc::new(answer));
        let each = tasks.clone();
        tasks.spawn("host", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
                counted.fetch_add(1, Ordering::SeqCst);
                each.spawn("answer", async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut head = [0; 4096];
                    let Ok(length) = stream.read(&mut head).await else { return };
                    let head = String::from_utf8_lossy(&head[..length]);
                    let answer = answer(head.split(' ').nth(1).unwrap_or_default());
                    if answer.is_empty() {
                        // A host that does not respond.
                        return std::future::pending().await;
                    }
                    drop(stream.write_all(answer.as_bytes()).await);
                    drop(stream.shutdown().await);
                });
            }
        });
        let root = reqwest::Certificate::from_pem(certified.cert.pem().as_bytes()).expect("a certificate");
        Self { address, root, asked, tasks }
    }

    async fn serving(document: &Value) -> Self {
        Self::answering(ok("application/json", "", &document.to_string())).await
    }

    /// Returns a cache that resolves the tested names to this host and verifies addresses with
    /// `permits`.
    fn documents_allowing(&self, permits: fn(IpAddr) -> bool) -> Arc<ClientDocuments> {
        let names = GuardedResolver::with_policy(permits);
        lock_unpoisoned(&names.table).insert(HOST.to_owned(), vec![self.address]);
        self.documents_with_resolver(names)
    }

    fn documents_with_resolver(&self, names: GuardedResolver) -> Arc<ClientDocuments> {
        let fetcher = DocumentFetcher::with_resolver(names).with_root(self.root.clone());
        ClientDocuments::with_fetcher(fetcher, SystemClock::shared(), &self.tasks)
    }
}

fn ok(kind: &str, more: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{more}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

fn document() -> Value {
    json!({ "client_id": ID, "client_name": "App", "redirect_uris": ["https://app.example.com/cb"] })
}

fn allow_all(_: IpAddr) -> bool {
    true
}

async fn find(documents: &ClientDocuments, id: &str) -> Result<OAuthClient, ClientLookupError> {
    documents.find_client(id, &DocumentPolicy::Any, lookup_context(&"acme".into(), "192.0.2.1")).await
}

fn lookup_context<'a>(tenant: &'a Arc<str>, source: &str) -> LookupContext<'a> {
    LookupContext { tenant, source: source.parse().expect("an address") }
}

#[tokio::test]
async fn a_document_makes_a_client_and_is_fetched_once() {
    let host = FakeDocumentHost::serving(&document()).await;
    let documents = host.documents_allowing(allow_all);
    for _ in 0..3 {
        let client = find(&documents, ID).await.expect("a client");
        assert_eq!(client.name.as_deref(), Some("App"));
        assert_eq!(client.origin, ClientOrigin::Document { host: HOST.into(), pinned: false });
        assert!(client.authentication.none);
    }
    assert_eq!(host.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_host_with_a_private_address_is_not_connected_to() {
    let host = FakeDocumentHost::serving(&document()).await;
    let documents = host.documents_allowing(net::is_public_destination);
    assert_eq!(find(&documents, ID).await.map(|_| ()), Err(ClientLookupError::Unavailable));
    // Nor a name that mixes internal and public addresses, as in DNS rebinding.
    let names = GuardedResolver::with_policy(net::is_public_destination);
    let both = vec!["203.0.113.9:0".parse().expect("an address"), host.address];
    lock_unpoisoned(&names.table).insert(HOST.to_owned(), both);
    let documents = host.documents_with_resolver(names);
    assert_eq!(find(&documents, ID).await.map(|_| ()), Err(ClientLookupError::Unavailable));
    assert_eq!(host.asked.load(Ordering::SeqCst), 0, "nothing was connected to");
}

#[tokio::test]
async fn answers_that_are_no_document_are_of_no_use() {
    let moved = "HTTP/1.1 302 Found\r\nLocation: https://app.example.com/other\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let long = json!({ "client_id": ID, "client_name": "x".repeat(6000), "redirect_uris": ["https://a.example/cb"] });
    let other = json!({ "client_id": "https://other.example/client.json", "redirect_uris": ["https://a.example/cb"] });
    let with = |name: &str, value: Value| {
        let mut document = document();
        document[name] = value;
        ok("application/json", "", &document.to_string())
    };
    for (what, answer) in [
        ("moved", moved.to_owned()),
        ("too long", ok("application/json", "", &long.to_string())),
        ("another's", ok("application/json", "", &other.to_string())),
        ("a page", ok("text/html", "", &document().to_string())),
        ("no JSON", ok("application/json", "", "<html>")),
        ("no object", ok("application/json", "", "[]")),
        ("a secret", with("client_secret", "x".into())),
        ("by secret", with("token_endpoint_auth_method", "client_secret_post".into())),
        ("nowhere to return to", with("redirect_uris", json!(["javascript:alert(1)"]))),
        (
            "foreign keys",
            with("jwks_uri", "https://evil.example/jwks".into()).replace("200 OK", "201 Created"),
        ),
        ("refused", "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()),
    ] {
        let host = FakeDocumentHost::answering(answer).await;
        let documents = host.documents_allowing(allow_all);
        for _ in 0..2 {
            assert!(find(&documents, ID).await.is_err(), "{what}");
        }
        assert_eq!(
            host.asked.load(Ordering::SeqCst),
            1,
            "{what}: that it failed is remembered, and nothing followed"
        );
    }
}

#[tokio::test]
async fn a_slow_host_is_given_up() {
    let host = FakeDocumentHost::answering(String::new()).await;
    let documents = host.documents_allowing(allow_all);
    let asked = tokio::time::timeout(Duration::from_secs(10), find(&documents, ID)).await;
    assert_eq!(asked.expect("in time").map(|_| ()), Err(ClientLookupError::Unavailable));
}

#[tokio::test]
async fn keys_must_be_on_the_documents_own_host() {
    let with = |jwks_uri: &str| {
        json!({ "client_id": ID, "redirect_uris": ["https://a.example/cb"],
                "token_endpoint_auth_method": "private_key_jwt", "jwks_uri": jwks_uri })
    };
    let host = FakeDocumentHost::serving(&with("https://evil.example/jwks.json")).await;
    assert!(find(&host.documents_allowing(allow_all), ID).await.is_err());
    let host = FakeDocumentHost::serving(&with("https://app.example.com/jwks.json")).await;
    let client = find(&host.documents_allowing(allow_all), ID).await.expect("a client");
    assert!(client.authentication.keys.is_some() && !client.authentication.none);
}

#[tokio::test]
async fn every_pinned_document_is_a_client_at_once_and_without_a_network() {
    let tasks = Tasks::new();
    let names = GuardedResolver::with_policy(|_| false);
    let documents =
        ClientDocuments::with_fetcher(DocumentFetcher::with_resolver(names), SystemClock::shared(), &tasks);
    let listed: Vec<Value> = serde_json::from_str(PINNED).expect("JSON");
    assert!(listed.len() >= 7);
    for document in &listed {
        let id = document["client_id"].as_str().expect("a text");
        let client = find(&documents, id).await.unwrap_or_else(|fault| panic!("{id}: {fault}"));
        let uris = document["redirect_uris"].as_array().expect("a list").len();
        assert_eq!((client.redirect_uris.len(), client.authentication.none), (uris, true), "{id}");
    }
    tasks.abort_signal().cancel();
}

#[tokio::test]
async fn a_tenant_takes_documents_of_the_hosts_it_lists() {
    let host = FakeDocumentHost::serving(&document()).await;
    let documents = host.documents_allowing(allow_all);
    for (policy, taken) in [
        (DocumentPolicy::Any, true),
        (DocumentPolicy::Listed(vec![HOST.into()]), true),
        (DocumentPolicy::Listed(vec!["example.com".into()]), false),
        (DocumentPolicy::Off, false),
    ] {
        assert_eq!(
            documents.find_client(ID, &policy, lookup_context(&"acme".into(), "192.0.2.1")).await.is_ok(),
            taken,
            "{policy:?}"
        );
    }
}

/// Returns a cache whose lookups fail at once, so that nothing touches the network.
fn unreachable_documents(clock: Arc<dyn Clock>, tasks: &Tasks) -> Arc<ClientDocuments> {
    ClientDocuments::with_fetcher(
        DocumentFetcher::with_resolver(GuardedResolver::with_policy(|_| false)),
        clock,
        tasks,
    )
}

#[tokio::test]
async fn a_flood_of_documents_uses_up_no_fetches_of_others() {
    let host = FakeDocumentHost::serving(&document()).await;
    let documents = host.documents_allowing(allow_all);
    let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
    let mut answers = Vec::new();
    for number in 0..330 {
        let id = format!("https://n{number}.example/x");
        answers.push(
            documents
                .find_client(&id, &DocumentPolicy::Any, lookup_context(&a, "192.0.2.1"))
                .await
                .map(|_| ()),
        );
    }
    let fetched = answers.iter().filter(|answer| **answer == Err(ClientLookupError::Unavailable)).count();
    assert!(fetched <= 120, "one address has four fifths of a half: {fetched}");
    assert!(
        matches!(answers.last(), Some(Err(ClientLookupError::Busy { wait })) if *wait <= MINUTE),
        "{answers:?}"
    );
    let good = documents.find_client(ID, &DocumentPolicy::Any, lookup_context(&b, "198.51.100.7")).await;
    assert!(good.is_ok(), "{good:?}");
    // An address is the same requester at another tenant. Cached documents and pinned ones need no
    // fetch.
    let other = documents
        .find_client("https://new.example/x", &DocumentPolicy::Any, lookup_context(&b, "192.0.2.1"))
        .await;
    assert!(matches!(other, Err(ClientLookupError::Busy { .. })), "{other:?}");
    assert!(documents.find_client(ID, &DocumentPolicy::Any, lookup_context(&a, "192.0.2.1")).await.is_ok());
}

#[tokio::test]
async fn floods_from_everywhere_leave_a_part_for_the_vendors_that_are_known() {
    let tasks = Tasks::new();
    let documents = unreachable_documents(SystemClock::shared(), &tasks);
    for number in 0..400 {
        let (tenant, source) = (format!("t{}", number % 7).into(), format!("192.0.2.{}", number % 200));
        let id = format!("https://n{number}.example/x");
        let _refused =
            documents.find_client(&id, &DocumentPolicy::Any, lookup_context(&tenant, &source)).await;
    }
    let tenant: Arc<str> = "b".into();
    let asker = lookup_context(&tenant, "198.51.100.7");
    let stranger = documents.find_client("https://new.example/x", &DocumentPolicy::Any, asker).await;
    assert!(matches!(stranger, Err(ClientLookupError::Busy { .. })), "{stranger:?}");
    let keys = async |is_vouched_for| {
        documents.find_keys("https://chatgpt.com/oauth/jwks.json", is_vouched_for, asker).await
    };
    assert!(matches!(keys(false).await, Err(ClientLookupError::Busy { .. })));
    assert_eq!(keys(true).await, Err(ClientLookupError::Unavailable), "it was fetched, in vain here");
    tasks.abort_signal().cancel();
}

#[tokio::test]
async fn the_rate_limit_recovers_as_fetches_age() {
    let (allowance, clock) = (FetchRateLimit::default(), ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
    let flood = new_requester(lookup_context(&"a".into(), "192.0.2.1"), false);
    for _ in 0..60 {
        assert_eq!(allowance.try_take(&flood, clock.monotonic()), Ok(()));
    }
    clock.advance(MINUTE / 2);
    for _ in 0..60 {
        assert_eq!(allowance.try_take(&flood, clock.monotonic()), Ok(()));
    }
    assert_eq!(allowance.try_take(&flood, clock.monotonic()), Err(MINUTE / 2));
    clock.advance(MINUTE / 2);
    assert_eq!((0..100).filter(|_| allowance.try_take(&flood, clock.monotonic()).is_ok()).count(), 60);
}

#[tokio::test]
async fn a_cached_document_is_used_while_the_rate_limit_is_reached() {
    let host = FakeDocumentHost::answering(ok(
        "application/json",
        "Cache-Control: max-age=300\r\n",
        &document().to_string(),
    ))
    .await;
    let names = GuardedResolver::with_policy(allow_all);
    lock_unpoisoned(&names.table).insert(HOST.to_owned(), vec![host.address]);
    let clock = Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
    let fetcher = DocumentFetcher::with_resolver(names).with_root(host.root.clone());
    let documents = ClientDocuments::with_fetcher(fetcher, clock.clone(), &host.tasks);
    assert!(find(&documents, ID).await.is_ok());
    clock.advance(Duration::from_secs(400));
    for number in 0..200 {
        let _spent = find(&documents, &format!("https://n{number}.example/x")).await;
    }
    assert!(matches!(find(&documents, "https://new.example/x").await, Err(ClientLookupError::Busy { .. })));
    assert!(find(&documents, ID).await.is_ok(), "it is stale, and better than nothing");
    assert_eq!(host.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn names_that_hang_keep_their_askers_places_and_nobody_elses() {
    static HUNG: AtomicUsize = AtomicUsize::new(0);
    let resolver = DnsResolver::with_lookup(|name| {
        if name.ends_with(".hang.example") {
            HUNG.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_secs(6));
            HUNG.fetch_sub(1, Ordering::SeqCst);
        }
        Err(std::io::Error::other("there is no such name"))
    });
    let tasks = Tasks::new();
    let documents = ClientDocuments::with_fetcher(
        DocumentFetcher::with_resolver(GuardedResolver::with_lookup(resolver)),
        SystemClock::shared(),
        &tasks,
    );
    let mut asked = tokio::task::JoinSet::new();
    for number in 0..30 {
        let documents = Arc::clone(&documents);
        asked.spawn(async move {
            let id = format!("https://n{number}.hang.example/x");
            let answer = documents
                .find_client(&id, &DocumentPolicy::Any, lookup_context(&"a".into(), "192.0.2.1"))
                .await;
            (answer.expect_err("nothing is there"), HUNG.load(Ordering::SeqCst))
        });
    }
    let answers = asked.join_all().await;
    let busy = answers.iter().filter(|(fault, _)| matches!(fault, ClientLookupError::Busy { .. })).count();
    assert_eq!(busy, 22, "one asker has eight of the twenty places");
    // The lookups that were waited for timed out, and their threads still hang.
    let given_up = answers.iter().filter(|(fault, _)| *fault == ClientLookupError::Unavailable);
    assert!(given_up.clone().count() == 8 && given_up.clone().all(|(_, hung)| *hung == 8), "{answers:?}");
    let same = documents
        .find_client("https://m.example/x", &DocumentPolicy::Any, lookup_context(&"a".into(), "192.0.2.1"))
        .await;
    assert!(
        matches!(same, Err(ClientLookupError::Busy { .. })),
        "the place is held until the look-up ends: {same:?}"
    );
    let other = documents
        .find_client("https://m.example/x", &DocumentPolicy::Any, lookup_context(&"b".into(), "192.0.2.2"))
        .await;
    assert_eq!(other.map(|_| ()), Err(ClientLookupError::Unavailable), "its name was looked up");
    tasks.abort_signal().cancel();
}
