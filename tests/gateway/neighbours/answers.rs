//! Large answers of one tenant's backend take no memory or time from other tenants.

use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::super::harness::beside::Fared;
use super::super::harness::{Beside, Client, Era, FakeBackend, Gateway, Reply, Setup, Tenant};
use super::edge::metric;

/// The default size cap of an answer.
const CAP: usize = 16 << 20;

fn reply(text: String) -> Reply {
    Reply::Text(Arc::from(text), &[])
}

/// Returns a JSON array of about this many bytes that repeats one item.
fn many(item: &str, bytes: usize) -> String {
    let count = bytes / (item.len() + 1) - 1;
    format!("[{}{item}]", format!("{item},").repeat(count - 1))
}

/// Starts a gateway with little memory, the tenants `a` and `c` at `bad`, and the tenant `b` at
/// `good`.
async fn gateway(bad: &FakeBackend, good: &FakeBackend, mib: u64) -> Gateway {
    let mut setup = Setup::new().memory_mib(mib).file("b.zip", Tenant::new("b", good).zip());
    for name in ["a", "c"] {
        setup = setup.file(&format!("{name}.zip"), Tenant::new(name, bad).zip());
    }
    setup.start().await
}

/// Calls these tenants concurrently, `each` times. Returns all results.
async fn all_at_once(
    client: &Client,
    tenants: &[&str],
    each: usize,
    tool: &str,
    arguments: Value,
) -> Vec<Value> {
    let mut calls = JoinSet::new();
    for prefix in tenants.iter().flat_map(|name| std::iter::repeat_n(format!("/{name}/mcp"), each)) {
        let (client, parameters) = (client.clone(), json!({ "name": tool, "arguments": arguments }));
        calls.spawn(async move { client.rpc(Era::Modern, &prefix, "tools/call", parameters).await.result() });
    }
    calls.join_all().await
}

fn told(result: &Value) -> &str {
    result["content"][0]["text"].as_str().expect("a text")
}

#[tokio::test]
async fn large_answers_of_several_tenants_take_their_bytes_and_no_more() {
    let (bad, good) = (FakeBackend::start().await, FakeBackend::start().await);
    let gateway = gateway(&bad, &good, 600).await;
    let client = gateway.client();
    Fared::alone(&client, "/b", 20).await.assert_unharmed("b alone");
    let beside = Beside::watch(client.clone(), "/b");
    let nests = many(&format!("{}{}", "[".repeat(110), "]".repeat(110)), CAP);
    for (text, each, said) in [
        (many("0", CAP), 3, "The result has only the first"),
        (format!("{{\"a\":{}}}", many("{\"\":0}", CAP)), 1, "The result has no data"),
        (nests, 1, "The result has only the first"),
    ] {
        bad.answer("/nlp-search", reply(text));
        let mut served = 0;
        for result in all_at_once(&client, &["a", "c"], each, "search", json!({"query": "q"})).await {
            let text = told(&result);
            // On a slow machine some calls wait too long for memory or a permit and are refused.
            let is_refused =
                text.contains("all the memory") || text.contains("Too many calls of this tenant");
            served += usize::from(text.contains(said));
            assert!(text.contains(said) || is_refused, "{text}");
        }
        assert!(served > 0, "no answer was handed on");
    }
    beside.finish().await.assert_unharmed("b beside large answers");
    assert!(gateway.peak_mib() < 400, "answers took {} MiB", gateway.peak_mib());
}

#[tokio::test]
async fn answers_beyond_the_memory_for_answers_are_refused_in_a_sentence() {
    let (bad, good) = (FakeBackend::start().await, FakeBackend::start().await);
    bad.answer("/nlp-search", reply(many("0", 3 << 20)));
    let setup = Setup::new()
        .settings("limits:\n  backend_memory_mib: 4\n")
        .file("b.zip", Tenant::new("b", &good).zip());
    let gateway = setup.file("a.zip", Tenant::new("a", &bad).zip()).start().await;
    let client = gateway.client();
    let beside = Beside::watch(client.clone(), "/b");
    let sentence = client.search(Era::Modern, "/a", "q").await.tool_error();
    assert!(
        sentence.starts_with(
            "The answers in progress use all the memory that is allowed for one tenant's answers. Wait"
        ),
        "{sentence}"
    );
    beside.finish().await.assert_unharmed("b beside a tenant without room");
    // A refused answer holds no memory.
    bad.answer("/nlp-search", Reply::Rows);
    assert_eq!(client.search(Era::Modern, "/a", "q").await.data()["row_count"], 2);
}

#[tokio::test]
async fn contexts_take_their_bytes_and_no_more() {
    let (bad, good) = (FakeBackend::start().await, FakeBackend::start().await);
    bad.answer("/nlp-context", reply(many("0", 1 << 20)));
    let mut setup = Setup::new().memory_mib(600).file("b.zip", Tenant::new("b", &good).zip());
    let names: Vec<String> = (0..20).map(|number| format!("c{number}")).collect();
    for name in &names {
        setup = setup.file(&format!("{name}.zip"), Tenant::new(name, &bad).zip());
    }
    let gateway = setup.start().await;
    let client = gateway.client();
    let beside = Beside::watch(client.clone(), "/b");
    let tenants: Vec<&str> = names.iter().map(String::as_str).collect();
    for result in all_at_once(&client, &tenants, 2, "get_context", json!({})).await {
        assert!(told(&result).starts_with("Note: The result has only the first"), "{}", told(&result));
    }
    beside.finish().await.assert_unharmed("b beside large contexts");
    // 20 contexts of 1 MiB. Parsed into trees, they took 75 MiB each.
    assert!(gateway.peak_mib() < 200, "contexts took {} MiB", gateway.peak_mib());
}

#[tokio::test]
async fn contexts_of_many_tenants_have_a_bound_together_and_small_ones_stay() {
    const HELD: &str = r#"tenantd_budget_held_bytes{budget="contexts"}"#;
    let (bad, good) = (FakeBackend::start().await, FakeBackend::start().await);
    bad.answer("/nlp-context", reply(many("0", 900 << 10)));
    let mut setup = Setup::new().memory_mib(600).settings("limits:\n  context_memory_mib: 4\n");
    let names: Vec<String> = (0..20).map(|number| format!("c{number}")).collect();
    for name in &names {
        setup = setup.file(&format!("{name}.zip"), Tenant::new(name, &bad).zip());
    }
    let gateway = setup.start().await;
    let client = gateway.client();
    bad.until(|counts| counts.requests >= 20 && counts.in_flight == 0).await;
    gateway.put("b.zip", Tenant::new("b", &good).zip());
    gateway.until_state("b", "serving").await;
    good.until(|counts| counts.requests == 1 && counts.in_flight == 0).await;

    let beside = Beside::watch(client.clone(), "/b");
    let tenants: Vec<&str> = names.iter().map(String::as_str).collect();
    for _ in 0..3 {
        for result in all_at_once(&client, &tenants, 2, "get_context", json!({})).await {
            assert!(told(&result).starts_with("Note: The result has only the first"), "{}", told(&result));
        }
        let held = metric(&gateway, HELD).await;
        assert!((3 << 20..=4 << 20).contains(&held), "contexts hold {held} bytes");
    }
    beside.finish().await.assert_unharmed("b beside contexts that have no room");
    all_at_once(&client, &["b"], 5, "get_context", json!({})).await;
    let fetches = good.requests().iter().filter(|request| request.target.starts_with("/nlp-context")).count();
    assert_eq!(fetches, 1, "a small context stays, whoever came before it");
    let refused = r#"tenantd_budget_refused_total{budget="contexts",reason="all"}"#;
    assert!(metric(&gateway, refused).await > 16, "contexts of 16 tenants were not kept");
    let output = gateway.output();
    assert_eq!(output.matches("limits.context_memory_mib").count(), 1, "{output}");
}

#[tokio::test]
async fn a_large_context_is_worked_on_once_and_beside_the_calls_of_others() {
    let (bad, good) = (FakeBackend::start().await, FakeBackend::start().await);
    let row = |row: usize| {
        let columns: Vec<String> = (0..999).map(|column| format!("\"{row}c{column}\":7")).collect();
        format!("{{{}}}", columns.join(","))
    };
    let rows: Vec<String> = (0..90).map(row).collect();
    bad.answer("/nlp-context", reply(format!("{{\"rows\":[{}]}}", rows.join(","))));
    let gateway = gateway(&bad, &good, 600).await;
    let client = gateway.client();
    Fared::alone(&client, "/b", 20).await.assert_unharmed("b alone");
    let beside = Beside::watch(client.clone(), "/b");
    for _ in 0..10 {
        for result in all_at_once(&client, &["a"], 8, "get_context", json!({})).await {
            assert!(told(&result).contains("more columns"), "{}", told(&result));
        }
    }
    for result in all_at_once(&client, &["a"], 8, "get_context", json!({"topic": "no such thing"})).await {
        assert!(told(&result).contains("Nothing in the context mentions"), "{}", told(&result));
    }
    beside.finish().await.assert_unharmed("b beside a large context");
    assert!(gateway.peak_mib() < 250, "a context took {} MiB", gateway.peak_mib());
}

#[tokio::test]
async fn requests_of_many_values_are_refused_before_anything_is_made_of_them() {
    let (hanging, good) = (FakeBackend::start().await, FakeBackend::start().await);
    hanging.answer("/nlp-search", Reply::Hang);
    let gateway = gateway(&hanging, &good, 600).await;
    let client = gateway.client();
    let before = gateway.resident_mib();
    let beside = Beside::watch(client.clone(), "/b");
    let mut calls = JoinSet::new();
    for _ in 0..64 {
        let parameters = json!({
            "name": "search",
            "arguments": {"query": "q"},
            "_meta": {"x": vec![0; 85_000]},
        });
        let request = client.ask(Era::Legacy, "/a/mcp", "tools/call", parameters);
        calls.spawn(async move { request.send().await.expect("an answer") });
    }
    for answer in calls.join_all().await {
        assert_eq!(answer.status(), 400);
        let text = answer.text().await.expect("a body");
        assert!(text.contains("more than 10000 JSON values"), "{text}");
    }
    beside.finish().await.assert_unharmed("b beside requests of many values");
    let grown = gateway.peak_mib().saturating_sub(before);
    assert!(grown < 100, "requests took {grown} MiB");
}

#[tokio::test]
async fn digits_reach_the_client_as_the_backend_wrote_them() {
    let backend = FakeBackend::start().await;
    backend
        .answer("/nlp-search", reply(r#"{"rows": [{"id": 12345678901234567890123, "x": NaN}]}"#.to_owned()));
    let gateway = Setup::new().file("a.zip", Tenant::new("a", &backend).zip()).start().await;
    for era in [Era::Legacy, Era::Modern] {
        let answer = gateway.client().search(era, "/a", "q").await;
        let result = answer.result();
        assert!(
            answer.text.contains(r#""data":{"rows":[{"id":12345678901234567890123,"x":null}]}"#),
            "{}",
            answer.text
        );
        assert!(
            told(&result).starts_with("Note: Some numbers")
                && told(&result).contains("12345678901234567890123")
        );
        assert_eq!(result["content"].as_array().map(Vec::len), Some(1));
    }
}

fn gzip(text: &[u8]) -> Arc<[u8]> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).expect("memory");
    encoder.finish().expect("memory").into()
}

#[tokio::test]
async fn answers_are_read_in_the_encodings_that_pythons_clients_read() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("a.zip", Tenant::new("a", &backend).zip()).start().await;
    let rows = json!({"rows": [{"name": "Müller"}]}).to_string();
    let latin: Vec<u8> = rows.chars().map(|c| u8::try_from(c).expect("a Latin letter")).collect();
    let utf16: Vec<u8> = format!("\u{feff}{rows}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let replies = [
        Reply::Bytes(
            200,
            gzip(rows.as_bytes()),
            &[("content-type", "application/json"), ("content-encoding", "gzip")],
        ),
        Reply::Bytes(200, latin.clone().into(), &[("content-type", "application/json; charset=ISO-8859-1")]),
        Reply::Bytes(200, utf16.into(), &[("content-type", "application/json")]),
        Reply::Bytes(
            200,
            gzip(&latin),
            &[("content-type", "application/json; charset=latin1"), ("content-encoding", "gzip")],
        ),
    ];
    for reply in replies {
        backend.answer("/nlp-search", reply.clone());
        for era in [Era::Legacy, Era::Modern] {
            let answer = gateway.client().search(era, "/a", "q").await;
            assert!(answer.text.contains(&format!(r#""data":{rows}"#)), "{reply:?}: {}", answer.text);
            assert!(told(&answer.result()).contains("Müller"), "{reply:?}");
        }
    }
    let asked = backend.requests().iter().filter_map(|request| request.header("accept-encoding")).count();
    assert_eq!(asked, 0, "nobody asks for compression");
    for (headers, said) in [
        (&[("content-encoding", "br")], "compressed with br, although the request did not allow it"),
        (&[("content-encoding", "gzip")], "whose gzip compression is damaged"),
        (&[("content-type", "application/json")], "not in UTF-8"),
    ] {
        backend.answer("/nlp-search", Reply::Bytes(200, latin.clone().into(), headers));
        let sentence = gateway.client().search(Era::Modern, "/a", "q").await.tool_error();
        assert!(sentence.contains(said), "{sentence}");
    }
}

#[tokio::test]
async fn a_compressed_bomb_is_refused_and_no_neighbour_notices() {
    let (bad, good) = (FakeBackend::start().await, FakeBackend::start().await);
    // 256 MiB of one text: 260 KiB as they are sent.
    let bomb = gzip(format!("\"{}\"", " ".repeat(256 << 20)).as_bytes());
    bad.answer("/nlp-search", Reply::Bytes(200, bomb, &[("content-encoding", "gzip")]));
    let gateway = gateway(&bad, &good, 600).await;
    let client = gateway.client();
    Fared::alone(&client, "/b", 20).await.assert_unharmed("b alone");
    let beside = Beside::watch(client.clone(), "/b");
    for result in all_at_once(&client, &["a", "c"], 8, "search", json!({"query": "q"})).await {
        let text = told(&result);
        let is_refused = text.contains("larger than 16777216 bytes") || text.contains("all the memory");
        assert!(is_refused || text.contains("Too many calls of this tenant"), "{text}");
    }
    beside.finish().await.assert_unharmed("b beside compressed bombs");
    assert!(gateway.peak_mib() < 200, "bombs took {} MiB", gateway.peak_mib());
}
