//! Calls: the request that is sent, and the error that each fault becomes.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;
use crate::base::budget::{Budget, Exhausted};
use crate::spec::TenantName;

/// Long enough for loopback, short enough to wait for.
const SHORT: Duration = Duration::from_millis(150);

#[tokio::test]
async fn a_call_carries_the_key_the_question_and_nothing_of_the_client() {
    let bench = BackendTestkit::new().await;
    assert_eq!(bench.ask(Reply::Rows).await, Ok(fake::rows()));

    let request = &bench.backend.requests()[0];
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/nlp-search"));
    assert_eq!(request.json(), json!({"query": "orders by region", "connection_id": "c-1"}));
    let header = |name: &str| request.header(name);
    assert_eq!(header("x-api-key").as_deref(), Some(KEY));
    assert_eq!(header("x-user").as_deref(), Some("ann@example.com"));
    assert_eq!(header("x-request-id").as_deref(), Some("r-1"));
    assert_eq!(header("content-type").as_deref(), Some("application/json"));
    assert_eq!(header("user-agent"), Some(format!("tenantd/{}", env!("CARGO_PKG_VERSION"))));
    assert_eq!(header("authorization"), None);
    assert_eq!(header("accept-encoding"), None);
}

#[tokio::test]
async fn calls_share_a_connection() {
    let bench = BackendTestkit::new().await;
    for _ in 0..3 {
        bench.ask(Reply::Rows).await.expect("rows");
    }
    bench.ask(Reply::Status(404, json!({}))).await.expect_err("refused");
    bench.ask(Reply::Rows).await.expect("rows");
    assert_eq!(bench.backend.counts().connections, 1);
}

#[tokio::test]
async fn a_restarted_backend_is_found_again() {
    let mut bench = BackendTestkit::new().await;
    let client = bench.client();
    bench.search(&client, Duration::from_secs(10)).await.expect("rows");
    let address = bench.backend.stop().await;
    bench.backend = FakeBackend::start_at(address).await;
    assert_eq!(bench.search(&client, Duration::from_secs(10)).await, Ok(fake::rows()));
}

#[tokio::test]
async fn a_used_connection_that_ends_before_an_answer_is_replaced_once() {
    for end in [Reply::Close, Reply::Reset] {
        let bench = BackendTestkit::new().await;
        bench.ask(Reply::Rows).await.expect("rows");
        assert_eq!(bench.ask(end.clone()).await, Ok(fake::rows()), "{end:?}");
        let counts = bench.backend.counts();
        assert_eq!((counts.requests, counts.connections), (3, 2), "{end:?}");

        bench.backend.answer("/nlp-search", end.clone());
        bench.backend.answer_next(Reply::Rows);
        let client = bench.client();
        bench.search(&client, Duration::from_secs(10)).await.expect("rows");
        let ended = bench.search(&client, Duration::from_secs(10)).await;
        assert_eq!(ended, Err(Error::BrokenOff), "a second end is the backend's");
        assert_eq!(bench.backend.counts().requests, 6, "{end:?}");
    }
}

#[tokio::test]
async fn a_used_connection_whose_answer_began_or_that_ended_late_is_not_replaced() {
    let bench = BackendTestkit::new().await;
    bench.ask(Reply::Rows).await.expect("rows");
    assert_eq!(bench.ask(Reply::TruncatedChunk).await, Err(Error::BrokenOff));
    assert_eq!(bench.backend.counts().requests, 2);

    bench.ask(Reply::Rows).await.expect("rows");
    bench.backend.answer_next(Reply::Held(Box::new(Reply::Close)));
    let client = bench.client();
    let late = async {
        bench.backend.until(|counts| counts.in_flight == 1).await;
        bench.clock.advance(Duration::from_secs(2));
        bench.backend.release();
    };
    let (ended, ()) = tokio::join!(bench.search(&client, Duration::from_secs(10)), late);
    assert_eq!(ended, Err(Error::BrokenOff), "it was at work for two seconds");
    assert_eq!(bench.backend.counts().requests, 4);
}

#[tokio::test]
async fn tiny_chunks_end_a_call_before_its_deadline() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let endless = [
        Reply::Endless(head, "1\r\nx\r\n"),
        Reply::Endless("", "HTTP/1.1 103 Early Hints\r\n\r\n"),
        Reply::Endless("", "HTTP/1.1 100 Continue\r\n\r\n"),
        Reply::Endless(head, "0000000000000000"),
    ];
    for reply in endless {
        let bench = BackendTestkit::new().await;
        assert_eq!(bench.ask(reply.clone()).await, Err(Error::TooFragmented), "{reply:?}");
        bench.backend.until(|counts| counts.in_flight == 0).await;
        assert_eq!(bench.backend.counts().requests, 1, "{reply:?}");
    }
}

#[tokio::test]
async fn each_answer_has_its_class() {
    let refused = |detail: Option<&str>| Error::Refused { status: 422, detail: detail.map(str::to_owned) };
    let expectations = [
        (Reply::Status(401, json!({})), Error::KeyRefused),
        (Reply::Status(403, json!({})), Error::KeyRefused),
        (Reply::Status(422, json!({"detail": "no such table"})), refused(Some("no such table"))),
        (Reply::Html(422), refused(None)),
        (Reply::Status(422, json!({"error": format!("bad key {KEY}")})), refused(Some("bad key [redacted]"))),
        (Reply::RateLimited("7"), Error::RateLimited { retry_after: Some(Duration::from_secs(7)) }),
        (Reply::Status(500, json!({"detail": "stack"})), Error::Failed { status: 500 }),
        (Reply::Html(503), Error::Failed { status: 503 }),
        (Reply::Garbage, Error::NotJson),
        (Reply::Html(200), Error::NotJson),
        (Reply::ManyHeaders(101), Error::HeadTooLarge),
        (Reply::Endless("SSH-2.0-OpenSSH\r\n", " "), Error::NotHttp),
        (Reply::Text("".into(), &[]), Error::Empty),
        (Reply::Text("x".into(), &[("content-encoding", "gzip")]), Error::Corrupt { coding: "gzip" }),
        (Reply::Text("x".into(), &[("content-encoding", "br")]), Error::Compressed { coding: "br" }),
        (gzip_reply(422, r#"{"detail": "no such table"}"#), refused(Some("no such table"))),
        (Reply::Text("[".repeat(200).into(), &[]), Error::TooDeep),
        (Reply::TruncatedChunk, Error::BrokenOff),
        (Reply::Reset, Error::BrokenOff),
        (Reply::Close, Error::BrokenOff),
    ];
    for (reply, error) in expectations {
        let bench = BackendTestkit::new().await;
        assert_eq!(bench.ask(reply.clone()).await, Err(error), "{reply:?}");
        assert_eq!(bench.backend.counts().requests, 1, "what was sent is not sent again: {reply:?}");
    }
}

fn gzip_reply(status: u16, text: &str) -> Reply {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).expect("memory");
    Reply::Bytes(status, encoder.finish().expect("memory").into(), &[("content-encoding", "gzip")])
}

#[tokio::test]
async fn answers_in_other_encodings_are_taken() {
    let bench = BackendTestkit::new().await;
    assert_eq!(bench.ask(gzip_reply(200, &fake::rows().to_string())).await, Ok(fake::rows()));
    let latin = &[("content-type", "application/json; charset=iso-8859-1")];
    assert_eq!(bench.ask(Reply::Bytes(200, (*b"\"M\xfcller\"").into(), latin)).await, Ok(json!("Müller")));
    let utf16 = Reply::Bytes(200, (*b"\xff\xfe\"\0\xfc\0\x3d\xd8\"\0").into(), &[]);
    assert_eq!(bench.ask(utf16).await, Ok(json!("ü\u{fffd}")));
    let undeclared = Reply::Bytes(200, (*b"\"M\xfcller\"").into(), &[("content-type", "application/json")]);
    assert_eq!(bench.ask(undeclared).await, Err(Error::NotUtf8));
}

#[tokio::test]
async fn an_answer_that_decodes_to_more_than_the_cap_is_dropped() {
    let mut bench = BackendTestkit::new().await;
    bench.limits.max_response_bytes = 100_000;
    // Blanks would take no room in the document, but they do while it is read.
    let padded = |size: usize| gzip_reply(200, &format!("{}7", " ".repeat(size - 1)));
    assert_eq!(bench.ask(padded(100_001)).await, Err(Error::TooLarge { limit: 100_000 }));
    assert_eq!(bench.ask(padded(100_000)).await, Ok(json!(7)));
}

#[tokio::test]
async fn unusual_but_complete_answers_are_accepted() {
    let bench = BackendTestkit::new().await;
    assert_eq!(bench.ask(Reply::WrongContentType).await, Ok(json!({"rows": []})));
    assert_eq!(bench.ask(Reply::Drip(Box::new(Reply::Rows))).await, Ok(fake::rows()));
    let pythons = Reply::Text("{\"rows\": [NaN, \"a\tb\", \"\\ud83d\"]}".into(), &[]);
    assert_eq!(bench.ask(pythons).await, Ok(json!({"rows": [null, "a\tb", "\u{fffd}"]})));
    let long = bench.ask(Reply::HugeChunked(1 << 20)).await.expect("one long text");
    assert_eq!(long.as_str().map(str::len), Some((1 << 20) - 2));
}

#[tokio::test]
async fn an_answer_above_the_cap_is_dropped() {
    let mut bench = BackendTestkit::new().await;
    bench.limits.max_response_bytes = 1000;
    for reply in [Reply::Huge(1001), Reply::HugeChunked(5000)] {
        assert_eq!(bench.ask(reply).await, Err(Error::TooLarge { limit: 1000 }));
    }
    assert!(bench.ask(Reply::Huge(1000)).await.is_ok());
}

#[tokio::test]
async fn silence_ends_at_the_deadline_wherever_it_begins() {
    let bench = BackendTestkit::new().await;
    let client = bench.client();
    for (sent, reply) in [Reply::Hang, Reply::HangInHeaders, Reply::HangInBody].into_iter().enumerate() {
        bench.backend.answer_next(reply);
        assert_eq!(bench.search(&client, SHORT).await, Err(Error::TimedOut));
        bench.backend.until(|counts| counts.cancelled == sent + 1 && counts.in_flight == 0).await;
    }
    assert_eq!(
        client.degradation().map(|degradation| degradation.reason).as_deref(),
        Some("the search service did not answer in time")
    );
    bench.ask(Reply::Rows).await.expect("rows");
    assert_eq!(client.degradation(), None);
}

#[tokio::test]
async fn a_dropped_call_is_cancelled_at_the_backend() {
    let bench = BackendTestkit::new().await;
    bench.backend.answer("/nlp-search", Reply::Hang);
    let client = bench.client();
    tokio::select! {
        _ = bench.search(&client, Duration::from_secs(60)) => panic!("the backend is silent"),
        _ = bench.backend.until(|counts| counts.in_flight == 1) => {}
    }
    bench.backend.until(|counts| counts.cancelled == 1).await;
    assert_eq!(client.degradation(), None, "a caller who goes away says nothing about the backend");
}

#[tokio::test]
async fn a_closed_port_is_unreachable_and_opens_the_breaker() {
    let bench = BackendTestkit::new().await;
    let client = bench.client();
    let nobody = search("http://127.0.0.1:1/nlp-search");
    let ask = async || client.call(&nobody, &question(), &bench.call(Duration::from_secs(5))).await;
    for _ in 0..5 {
        assert_eq!(ask().await.err(), Some(Error::Unreachable));
    }
    assert_eq!(ask().await.err(), Some(Error::CircuitOpen { retry_after: Duration::from_secs(1) }));
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(bench.ask(Reply::Rows).await, Ok(fake::rows()), "the one trial closes it");
    assert_eq!(ask().await.err(), Some(Error::Unreachable));
}

#[tokio::test]
async fn redirects_stay_within_the_origin_and_with_get() {
    let (bench, other) = (BackendTestkit::new().await, FakeBackend::start().await);
    let get = CallSpec { method: Method::GET, body: None, ..search(&bench.backend.url("/nlp-context")) };
    let client = bench.client();
    let ask = async |spec: &CallSpec, reply| {
        bench.backend.answer_next(reply);
        let call = bench.call(Duration::from_secs(10));
        client.call(spec, &question(), &call).await.map(|answer| answer.document.to_value())
    };

    assert_eq!(ask(&get, Reply::Redirect(302, "/v2/nlp-context?a=b".into())).await, Ok(fake::rows()));
    assert_eq!(bench.backend.requests()[1].target, "/v2/nlp-context?a=b");
    assert_eq!(ask(&get, Reply::Redirect(307, other.url("/"))).await, Err(Error::RedirectRefused));

    let post = search(&bench.backend.url("/nlp-search"));
    let refused = ask(&post, Reply::Redirect(307, "/v2?key=x".into())).await;
    let detail = Some("it redirects to /v2".to_owned());
    assert_eq!(refused, Err(Error::Refused { status: 307, detail }));

    bench.backend.answer("/loop", Reply::Redirect(301, "/loop".into()));
    let circle = ask(&get, Reply::Redirect(301, "/loop".into())).await;
    assert!(matches!(circle, Err(Error::Refused { .. })));
    assert_eq!(other.counts().connections, 0, "the key went nowhere else");
}

#[tokio::test]
async fn internal_addresses_are_refused_by_number_and_by_name() {
    let bench = BackendTestkit::new().await;
    let client = bench.client();
    let strict = BackendTestkit {
        pool: pool_by(AddressRules::default(), SystemClock::shared()),
        ..BackendTestkit::new().await
    };
    let port = bench.backend.address().port();
    for host in ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"] {
        let spec = search(&format!("http://{host}:{port}/nlp-search"));
        let call = CallContext::internal(SystemClock.monotonic() + Duration::from_secs(5));
        let refused = strict.client().call(&spec, &question(), &call).await;
        assert_eq!(refused.err(), Some(Error::AddressRefused), "{host}");
    }
    let metadata = search("http://169.254.169.254/latest/meta-data");
    let refused = client.call(&metadata, &question(), &bench.call(Duration::from_secs(5))).await;
    assert_eq!(refused.err(), Some(Error::AddressRefused), "allowing loopback does not allow link-local");
    assert_eq!(bench.backend.counts().connections, 0);
}

#[tokio::test]
async fn a_backend_that_the_settings_do_not_list_is_never_connected_to() {
    let mut bench = BackendTestkit::new().await;
    let port = bench.backend.address().port();
    let listed = [
        (&["localhost"][..], "localhost", true),
        (&["localhost"], "127.0.0.1", false),
        (&["127.0.0.0/8"], "127.0.0.1", true),
        (&["127.0.0.0/8"], "localhost", true),
        (&["192.0.2.0/24"], "localhost", false),
        (&["192.0.2.0/24"], "127.0.0.1", false),
        (&["portal.test", "*.localhost"], "localhost", false),
    ];
    for (items, host, is_reached) in listed {
        let items = items.iter().map(|item| AllowedBackend::parse(item).expect("an item"));
        let only = BackendOnly::new(items.collect());
        let allow = vec!["127.0.0.0/8".parse().expect("a network")];
        bench.pool = pool_by(AddressRules { allow, only, own: vec![] }, SystemClock::shared());
        let before = bench.backend.counts().connections;
        let spec = search(&format!("http://{host}:{port}/nlp-search"));
        let called = bench.client().call(&spec, &question(), &bench.call(Duration::from_secs(5))).await;
        let refused = (!is_reached).then_some(Error::AddressRefused);
        assert_eq!(called.err(), refused, "{host}");
        assert_eq!(bench.backend.counts().connections > before, is_reached, "{host}");
    }
}

#[tokio::test]
async fn the_gateways_own_listener_is_refused_as_a_backend() {
    let mut bench = BackendTestkit::new().await;
    bench.pool = pool(bench.clock.clone(), vec![bench.backend.address()]);
    assert_eq!(bench.ask(Reply::Rows).await, Err(Error::AddressRefused));
    assert_eq!(bench.backend.counts().connections, 0);
}

#[tokio::test]
async fn a_full_bulkhead_rejects_calls_without_the_backend() {
    let mut bench = BackendTestkit::new().await;
    bench.limits.concurrent_calls = 2;
    bench.backend.answer("/nlp-search", Reply::Held(Box::new(Reply::Rows)));
    let client = bench.client();
    let ask = || bench.search(&client, Duration::from_secs(10));
    let release = async {
        bench.backend.until(|counts| counts.in_flight == 2).await;
        let refused = ask().await;
        bench.backend.release();
        refused
    };
    let (first, second, third) = tokio::join!(ask(), ask(), release);
    assert_eq!((first, second, third), (Ok(fake::rows()), Ok(fake::rows()), Err(Error::Busy)));
    assert_eq!(bench.backend.counts().most_in_flight, 2);
    assert_eq!(client.degradation(), None);
}

#[tokio::test]
async fn the_bulkhead_outlives_a_reload_and_takes_the_new_limit() {
    let mut bench = BackendTestkit::new().await;
    bench.backend.answer("/nlp-search", Reply::Held(Box::new(Reply::Rows)));
    let before = bench.client();
    bench.limits.concurrent_calls = 1;
    let release = async {
        bench.backend.until(|counts| counts.in_flight == 1).await;
        let refused = bench.search(&bench.client(), Duration::from_secs(10)).await;
        bench.backend.release();
        refused
    };
    let (kept, refused) = tokio::join!(bench.search(&before, Duration::from_secs(10)), release);
    assert_eq!((kept, refused), (Ok(fake::rows()), Err(Error::Busy)));
}

#[tokio::test]
async fn nothing_prints_the_key() {
    let bench = BackendTestkit::new().await;
    let client = bench.client();
    let error = bench.ask(Reply::Status(401, json!({"detail": KEY}))).await.expect_err("refused");
    let printed = format!("{client:?} {:?} {:?} {error:?} {error}", bench.pool, bench.state);
    assert!(!printed.contains(KEY), "{printed}");
    assert!(!printed.contains(&KEY[..6]), "{printed}");
}

#[tokio::test]
async fn one_origin_has_half_of_all_calls_and_others_have_the_rest() {
    let (bench, elsewhere) = (BackendTestkit::new().await, FakeBackend::start().await);
    let client = bench.client();
    let share = |backend: &FakeBackend| bench.pool.origin_share(backend.url("").trim_end_matches('/'));
    let mut held = Vec::new();
    while let Ok(place) = bench.pool.reserve_call(share(&bench.backend)) {
        held.push(place);
    }
    let refused = bench.search(&client, Duration::from_secs(10)).await;
    assert!(matches!(refused, Err(Error::GatewayBusy)), "{refused:?}");
    assert_eq!(bench.backend.counts().connections, 0);
    let other = search(&elsewhere.url("/nlp-search"));
    let call = bench.call(Duration::from_secs(10));
    client.call(&other, &question(), &call).await.expect("another origin has places");
    let half = held.len();
    while let Ok(place) = bench.pool.reserve_call(share(&elsewhere)) {
        held.push(place);
    }
    assert_eq!(held.len(), half * 2, "the other half");
    let third = bench.pool.reserve_call(bench.pool.origin_share("http://third.example"));
    assert!(matches!(third, Err(Error::GatewayBusy)), "all places are taken");
    drop(held);
    bench.search(&client, Duration::from_secs(10)).await.expect("there are places again");
}

#[tokio::test]
async fn callers_at_one_address_have_half_of_the_memory_for_answers() {
    let bench = BackendTestkit::new().await;
    let pool = bench.pool.clone().with_response_budget(Budget::from_mib(1));
    let new_reservation = |tenant: &str, network: &str| {
        let name = TenantName::parse(tenant).expect("a name");
        let network = Some(network.parse().expect("an address"));
        pool.clone()
            .for_tenant(&name)
            .response_budget()
            .new_reservation(&CallContext { network, ..bench.call(Duration::from_secs(1)) })
    };
    let (mut one, mut same, mut other) = (
        new_reservation("a", "192.0.2.1"),
        new_reservation("b", "192.0.2.1"),
        new_reservation("b", "192.0.2.2"),
    );
    assert_eq!(one.try_grow(512 << 10), Ok(()));
    assert_eq!(same.try_grow(1), Err(Exhausted::Network));
    assert_eq!(other.try_grow(512 << 10), Ok(()));
}
