//! The edge in front of tenants: what it answers itself before the tenant's own server is called.

use std::sync::OnceLock;

use http::Method;

use super::*;
use crate::backend::{self, AddressRules, Pool};
use crate::base::digest::Digest;
use crate::mcp::{AuthMode, McpServer, McpServerConfig};
use crate::oauth::bearer::BearerCheck;
use crate::server::oauth_endpoint;
use crate::server::page::tests::spec;
use crate::server::request::RequestContext;
use crate::server::trusted_proxies::CallerAddress;
use crate::spec::{ApiKeySpec, Degradation, TenantName, TenantSpec};
use crate::tenants::tenant::{Tenant, TenantSlot};
use crate::usage::Usage;

fn keyed(key: &str) -> TenantSpec {
    spec(vec![ApiKeySpec { label: "ci".to_owned(), digest: Digest::of(key.as_bytes()), expires: None }])
}

fn with_prefix(prefix: &str, spec: TenantSpec) -> TenantSpec {
    let name = TenantName::parse(&prefix[1..]).expect("a name");
    let mount = Mount { listener: None, host: None, prefix: Prefix::parse(prefix).expect("a prefix") };
    TenantSpec { name, mounts: vec![mount], ..spec }
}

fn live(spec: TenantSpec) -> Tenant {
    let (slot, metrics) = (Arc::<TenantSlot>::default(), Arc::new(Metrics::new()));
    let pool =
        Pool::new(AddressRules::default(), SystemClock::shared(), Arc::clone(&metrics)).expect("a pool");
    let state = Arc::clone(&slot.backend);
    let backend =
        backend::BackendClient::new(pool, &spec.backend, &spec.limits, spec.cache.context_ttl, state);
    let usage = Usage::new(SystemClock::shared()).meter(&spec.name, spec.limits.usage.clone());
    let surface = McpServerConfig {
        tenant: spec.name.clone(),
        dataset: Arc::clone(&spec.dataset),
        title: Arc::clone(&spec.title),
        description: None,
        instructions: None,
        tools: Arc::default(),
        backend: Arc::new(backend),
        call_timeout: spec.call_timeout,
        slow_answers: Default::default(),
        icon_url: "https://mcp.example.com/acme/favicon.ico".into(),
        list_ttl: spec.cache.list_ttl,
        max_result_bytes: spec.limits.max_result_bytes,
        auth_mode: AuthMode::from(&spec.access),
        allowed_hosts: None,
        allowed_origins: Arc::new([]),
        metrics,
        tracer: Default::default(),
        audit: Audit::disabled(),
        usage: usage.clone(),
        clock: SystemClock::shared(),
    };
    let mcp = McpServer::new(surface).expect("no tools, no findings");
    let bearer =
        BearerCheck::new(&spec.access, OpenTenants::Private, Arc::default(), &slot.access_revocations);
    let login_absence = spec
        .access
        .login
        .is_some()
        .then(|| Degradation { reason: "there is no store".to_owned(), since: jiff::Timestamp::UNIX_EPOCH });
    Tenant {
        spec,
        revision: Digest::of(b"test"),
        slot,
        usage,
        mcp,
        bearer,
        login: None,
        login_absence,
        page: OnceLock::new(),
    }
}

fn serving(limits: Limits, specs: Vec<TenantSpec>) -> TestServer {
    let gateway = start(limits);
    let mut table = RoutingTable { is_initial_scan_done: true, generation: 2, ..RoutingTable::default() };
    for spec in specs {
        let tenant = Arc::new(live(spec));
        tenant.spec.mounts.iter().for_each(|mount| table.router.insert(mount, Arc::clone(&tenant)));
    }
    gateway.publisher.publish(table);
    gateway
}

fn request(method: Method, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\n{HOST}{headers}\r\n")
}

#[tokio::test]
async fn the_page_is_at_the_prefix_and_for_browsers_at_the_endpoint() {
    let gateway = serving(Limits::default(), vec![with_prefix("/a", keyed("k"))]);
    let browser = "Accept: text/html,*/*;q=0.8\r\n";
    for (path, headers) in [("/a", ""), ("/a/", ""), ("/a/?x=1", ""), ("/a/mcp", browser)] {
        let (status, answer) = ask(&gateway, request(Method::GET, path, headers)).await;
        assert_eq!(status, 200, "{path}");
        assert!(
            answer.contains("content-security-policy: default-src 'none'") && answer.contains("<h1>"),
            "{answer}"
        );
    }
    let stream = "Accept: application/json, text/event-stream\r\n";
    assert_eq!(ask(&gateway, request(Method::GET, "/a", stream)).await.0, 401, "a client, no browser");
    assert_eq!(ask(&gateway, request(Method::PUT, "/a/", "Content-Length: 0\r\n")).await.0, 405);
}

#[tokio::test]
async fn messages_to_the_base_are_answered_like_those_to_the_endpoint() {
    let gateway = serving(Limits::default(), vec![with_prefix("/a", keyed("for-a"))]);
    for path in ["/a", "/a/", "/a/mcp"] {
        let (status, refused) = ask(&gateway, request(Method::POST, path, "Content-Length: 0\r\n")).await;
        assert_eq!(status, 401, "{path}");
        assert!(
            refused.contains("www-authenticate: Bearer") && refused.contains("\"jsonrpc\":\"2.0\""),
            "{refused}"
        );
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        let headers = format!(
            "Authorization: Bearer for-a\r\nContent-Type: application/json\r\nAccept: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        let (status, listed) = ask(&gateway, request(Method::POST, path, &headers) + body).await;
        assert!(status == 200 && listed.contains("\"tools\""), "{path}: {listed}");
    }
    let metrics = gateway.server.metrics.encode();
    assert!(metrics.contains(r#"route="mcp""#) && !metrics.contains(r#"route="page""#), "{metrics}");
    let preflight = ask(&gateway, request(Method::OPTIONS, "/a", "Origin: https://evil.example\r\n")).await;
    assert_eq!(preflight.0, 403);
}

#[tokio::test]
async fn a_caller_is_refused_before_the_body_is_read() {
    let gateway = serving(
        Limits::default(),
        vec![with_prefix("/a", keyed("for-a")), with_prefix("/b", keyed("for-b"))],
    );
    for (path, headers, expected) in [
        ("/a/mcp", "", 401),
        ("/a/mcp", "Authorization: Bearer for-b\r\n", 401),
        ("/b/mcp", "Authorization: Bearer for-a\r\n", 401),
        ("/b/mcp", "Authorization: Bearer a b\r\n", 400),
    ] {
        let unsent = format!("{headers}Content-Length: 1000\r\n");
        let (status, answer) = ask(&gateway, request(Method::POST, path, &unsent)).await;
        assert_eq!(status, expected, "{path} {headers}");
        assert!(
            answer.contains("www-authenticate: Bearer") && answer.contains("\"jsonrpc\":\"2.0\""),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_refused_request_leaves_its_connection_usable_or_says_that_it_ends() {
    let mut few = keyed("for-a");
    few.limits.requests_per_minute = Some(1);
    let gateway = serving(Limits::default(), vec![with_prefix("/a", few)]);
    for (headers, expected) in [("", 401), ("Authorization: Bearer for-a\r\n", 429)] {
        let mut client = RawClient::connect(&gateway).await;
        let headers = format!("{headers}Content-Length: 4\r\n");
        // Responses until the rate limit is reached are of no interest here.
        while ask(&gateway, request(Method::POST, "/a/mcp", &headers) + "{ n}").await.0 != expected {}
        for _ in 0..3 {
            client.send(request(Method::POST, "/a/mcp", &headers)).await;
            // The body arrives after the head, as over real networks.
            tokio::time::sleep(Duration::from_millis(50)).await;
            client.send("{ n}").await;
            let (status, answer) = client.answer().await;
            assert_eq!(status, expected);
            assert!(!answer.contains("connection: close"), "{answer}");
        }
        // The server does not wait for the end of a body that is too long or never arrives.
        for length in ["1000000", "1000"] {
            let mut client = RawClient::connect(&gateway).await;
            let headers = headers.replace("Length: 4", &format!("Length: {length}"));
            client.send(request(Method::POST, "/a/mcp", &headers)).await;
            let (status, answer) = client.answer().await;
            assert_eq!((status, answer.contains("connection: close")), (expected, true), "{answer}");
            assert!(client.ends().await);
        }
    }
}

#[tokio::test]
async fn a_message_for_nobody_is_refused_in_the_protocols_own_form() {
    let gateway = start(Limits::default());
    let (status, answer) = ask(&gateway, request(Method::POST, "/a/mcp", "Content-Length: 0\r\n")).await;
    assert_eq!(status, 404);
    assert!(answer.contains("\"jsonrpc\":\"2.0\"") && answer.contains("nothing is served"), "{answer}");
    let (_, answer) = ask(&gateway, request(Method::GET, "/a/mcp", "")).await;
    assert!(answer.contains("problem+json"), "{answer}");
}

#[tokio::test]
async fn a_body_is_read_under_a_cap_and_a_deadline() {
    let gateway = serving(impatient(), vec![with_prefix("/a", keyed("k"))]);
    for (headers, body, expected) in [
        ("Content-Length: 300000", "", 413),
        ("Content-Length: 10", "{", 408),
        ("Transfer-Encoding: chunked", "0x1\r\n{\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked", "1\r\n{}\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked", "fffffffffffffffff\r\n", 400),
    ] {
        let head = request(Method::POST, "/a/mcp", &format!("Authorization: Bearer k\r\n{headers}\r\n"));
        let (status, answer) = ask(&gateway, head + body).await;
        assert_eq!(status, expected, "{headers} {body:?}");
        assert!(answer.contains("connection: close") && answer.contains("\"code\":-32600"), "{answer}");
    }
}

#[tokio::test]
async fn requests_per_minute_are_limited_for_each_caller() {
    let mut spec = with_prefix("/a", keyed("k"));
    spec.limits.requests_per_minute = Some(2);
    let gateway = serving(Limits::default(), vec![spec]);
    let call = || request(Method::POST, "/a/mcp", "Authorization: Bearer k\r\nContent-Length: 300000\r\n");
    assert_eq!(ask(&gateway, call()).await.0, 413);
    assert_eq!(ask(&gateway, call()).await.0, 413);
    let (status, answer) = ask(&gateway, call()).await;
    assert_eq!(status, 429);
    assert!(answer.contains("retry-after: 30\r\n"), "{answer}");
}

#[tokio::test]
async fn pages_of_the_own_origin_may_read_answers_and_no_others() {
    let gateway = serving(Limits::default(), vec![with_prefix("/a", keyed("k"))]);
    let own = "Origin: https://mcp.example.com\r\n";
    let (status, answer) = ask(&gateway, request(Method::OPTIONS, "/a/mcp", own)).await;
    assert_eq!(status, 204);
    assert!(answer.contains("access-control-allow-origin: https://mcp.example.com\r\n"), "{answer}");
    let (_, denied) =
        ask(&gateway, request(Method::POST, "/a/mcp", &format!("{own}Content-Length: 0\r\n"))).await;
    assert!(
        denied.contains("access-control-expose-headers: ") && denied.contains("www-authenticate"),
        "{denied}"
    );
    let (status, answer) =
        ask(&gateway, request(Method::OPTIONS, "/a/mcp", "Origin: https://evil.example\r\n")).await;
    assert!(status == 403 && !answer.contains("access-control-allow-origin"), "{answer}");
}

#[tokio::test]
async fn a_disabled_tenant_looks_like_none() {
    let mut disabled = with_prefix("/b", keyed("k"));
    disabled.enabled = false;
    let gateway = serving(Limits::default(), vec![with_prefix("/a", keyed("k")), disabled]);
    let body = |answer: (u16, String)| (answer.0, answer.1.split("\r\n\r\n").nth(1).map(str::to_owned));
    let unknown = body(ask(&gateway, request(Method::GET, "/c/mcp", "")).await);
    assert_eq!(unknown.0, 404);
    assert_eq!(body(ask(&gateway, request(Method::GET, "/b/mcp", "")).await), unknown);
    assert_eq!(body(ask(&gateway, request(Method::GET, "/a/typo", "")).await), unknown);
}

#[tokio::test]
async fn a_tenant_without_login_has_no_discovery() {
    let gateway = serving(Limits::default(), vec![with_prefix("/a", keyed("k"))]);
    for path in
        ["/.well-known/oauth-protected-resource/a/mcp", "/a/.well-known/openid-configuration", "/a/authorize"]
    {
        let (status, answer) = ask(&gateway, request(Method::GET, path, "")).await;
        assert!(status == 404 && answer.contains("this tenant has no login"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn an_ipv6_64_is_one_client_in_login_rates() {
    use crate::routing::OAuthEndpoint;
    let few = Limits {
        logins_per_minute: 2,
        tokens_per_minute: 2,
        registrations_per_minute: 2,
        ..Limits::default()
    };
    let gateway = start(few);
    let tenant = live(with_prefix("/a", keyed("k")));
    let may = |step: OAuthEndpoint, address: &str| {
        let addr = SocketAddr::new(address.parse().expect("an address"), 50_000);
        let peer = ConnInfo::direct(addr, addr.ip());
        let context =
            RequestContext::new(&peer, CallerAddress::Known(addr.ip()), gateway.server.clock.monotonic());
        oauth_endpoint::check_rate_limit(&gateway.server, &context, &tenant, step).is_ok()
    };
    for step in [OAuthEndpoint::Authorize, OAuthEndpoint::Token, OAuthEndpoint::Register] {
        let from_one: Vec<bool> = (1..=9).map(|last| may(step, &format!("2001:db8:1:2::{last}"))).collect();
        assert_eq!(from_one.iter().filter(|may| **may).count(), 2, "{step:?}: {from_one:?}");
        assert!(!may(step, "2001:db8:1:2:ffff:ffff:ffff:ffff"), "{step:?}: the same /64");
        assert!(may(step, "2001:db8:1:3::1"), "{step:?}: the next /64");
        assert!(may(step, "192.0.2.1") && may(step, "::ffff:192.0.2.1"), "{step:?}");
        assert!(!may(step, "192.0.2.1"), "{step:?}: IPv4 in IPv6's clothes is the same party");
    }
}
