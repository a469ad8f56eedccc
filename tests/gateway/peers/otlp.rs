//! OTLP as a receiver with the official classes reads it (`tests/peers/otlp_receiver.py`): traces,
//! logs and metrics, and receivers that are busy, refuse, hang or are not there.

use serde_json::{Value, json};

use super::script::Script;
use super::{cache, script};
use crate::harness::entra::FakeEntra;
use crate::harness::secret::secret;
use crate::harness::{Client, Era, FakeBackend, Gateway, Reply, Setup, Tenant, until};

const CALLERS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const PROXYS: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const CALLERS_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

struct Receiver {
    script: Script,
    url: String,
}

impl Receiver {
    async fn start() -> Self {
        let mut script = Script::run("otlp_receiver", |_| {
            script::command(cache::python("python-otlp"), &cache::script("otlp_receiver.py"))
        });
        let started = script.ask(json!({ "do": "start" })).await;
        let url = started["url"].as_str().unwrap_or_else(|| panic!("it does not start: {started}"));
        Self { url: url.to_owned(), script }
    }

    async fn answer(&mut self, signal: &str, answer: Value) {
        self.script.ask(json!({ "do": "answer", "signal": signal, "answer": answer })).await;
    }

    /// Returns the items that were taken.
    async fn taken(&mut self, signal: &str) -> Vec<Value> {
        let answer = self.script.ask(json!({ "do": "taken", "signal": signal })).await;
        answer["items"].as_array().unwrap_or_else(|| panic!("{answer}")).clone()
    }

    async fn requests(&mut self, signal: &str) -> Vec<Value> {
        let answer = self.script.ask(json!({ "do": "requests", "signal": signal })).await;
        answer["requests"].as_array().unwrap_or_else(|| panic!("{answer}")).clone()
    }

    /// Waits for an item.
    async fn until_taken(&mut self, signal: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(what, async || self.taken(signal).await.into_iter().find(|item| wanted(item))).await
    }

    fn settings(&self, more: &str) -> String {
        format!("otlp:\n  endpoint: {}\n{more}", self.url)
    }
}

async fn metric(gateway: &Gateway, name: &str) -> Option<u64> {
    let (_, text) = gateway.admin("/metrics").await;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

async fn until_metric(gateway: &Gateway, name: &str, wanted: u64) {
    until(&format!("{name} is {wanted}"), async || {
        (metric(gateway, name).await == Some(wanted)).then_some(())
    })
    .await;
}

/// Calls the search tool with a trace context in the message.
async fn search_within(client: &Client, traceparent: &str) {
    let params = json!({
        "name": "search", "arguments": { "query": "q" }, "_meta": { "traceparent": traceparent },
    });
    client.rpc(Era::Modern, "/a/mcp", "tools/call", params).await.data();
}

fn count_lines(gateway: &Gateway, text: &str) -> usize {
    gateway.output().lines().filter(|line| line.contains(text)).count()
}

#[tokio::test]
async fn a_failed_call_is_a_span_below_the_callers_and_a_log_record_within_it_and_a_counter() {
    let (backend, mut receiver) = (FakeBackend::start().await, Receiver::start().await);
    let settings = receiver.settings(
        "  logs: true\n  metrics: true\n  metrics_interval_seconds: 1\n  headers_file: otlp.headers\n  resource:\n    \
         deployment.environment.name: test\n",
    );
    let setup = Setup::new().settings(&settings).file("a.yaml", Tenant::new("a", &backend).yaml());
    std::fs::write(setup.path().join("otlp.headers"), "X-Token: for-the-receiver\n").expect("written");
    let gateway = setup.start().await;
    let client = gateway.client().with("traceparent", PROXYS);
    search_within(&client, CALLERS).await;
    backend.answer("/nlp-search", Reply::Status(503, json!({})));
    client.search(Era::Modern, "/a", "q").await.tool_error();

    // The message's context is the parent, that of the headers a link.
    let called = receiver
        .until_taken("traces", "the call's span", |span| span["trace"] == CALLERS_TRACE && span["kind"] == 2)
        .await;
    assert_eq!(called["name"], "tools/call search");
    assert_eq!(called["parent"], "00f067aa0ba902b7");
    assert_eq!(
        called["links"],
        json!([{ "trace": "0af7651916cd43dd8448eb211c80319c", "span": "b7ad6b7169203331" }])
    );
    assert_eq!(called["status"], 0, "{called}");
    assert!(called["start"].as_u64() < called["end"].as_u64(), "{called}");
    assert_eq!(called["resource"]["service.name"], "tenantd");
    assert_eq!(called["resource"]["deployment.environment.name"], "test");
    // Our span goes on to the backend.
    let onward = receiver.until_taken("traces", "the backend's span", |span| {
        span["kind"] == 3 && span["parent"] == called["span"]
    });
    let onward = onward.await;
    let wanted = format!("00-{CALLERS_TRACE}-{}-01", onward["span"].as_str().expect("an id"));
    let sent = backend.requests();
    assert!(sent.iter().any(|it| it.header("traceparent").as_deref() == Some(&*wanted)), "{wanted}");

    let failed = receiver
        .until_taken("traces", "the failed call's span", |span| {
            span["attributes"]["error.type"] == "tool_error"
        })
        .await;
    assert_eq!(
        (&failed["status"], &failed["parent"], &failed["links"]),
        (&json!(2), &json!("b7ad6b7169203331"), &json!([])),
        "alone, the context of the headers is the parent"
    );
    let record =
        receiver.until_taken("logs", "the line", |record| record["body"] == "tool call failed").await;
    assert_eq!((&record["trace"], &record["span"]), (&failed["trace"], &failed["span"]), "{record}");
    assert_eq!((&record["severity"], &record["severity_text"]), (&json!(13), &json!("WARN")));
    assert_eq!(record["scope"], "tenantd::mcp::protocol::call");
    assert_eq!(
        (&record["attributes"]["tenant"], &record["attributes"]["tool"]),
        (&json!("a"), &json!("search"))
    );
    let id = &failed["attributes"]["tenantd.request_id"];
    assert!(id.is_string() && record["attributes"]["request_id"] == *id, "{record}");

    let counted =
        |point: &&Value| point["attributes"] == json!({ "tenant": "a", "outcome": "backend_error" });
    let calls = receiver
        .until_taken("metrics", "the failed call is counted", |metric| {
            let points = metric["points"].as_array().expect("points");
            metric["name"] == "tenantd.tool_calls" && points.iter().any(|point| counted(&point))
        })
        .await;
    assert_eq!(
        (&calls["kind"], &calls["temporality"], &calls["monotonic"]),
        (&json!("sum"), &json!(2), &json!(true))
    );
    let point = calls["points"].as_array().expect("points").iter().find(counted).expect("it is there");
    assert_eq!(point["value"], 1);
    assert!(point["start"].as_u64() > Some(0) && point["start"].as_u64() < point["time"].as_u64(), "{point}");
    let took = receiver
        .until_taken("metrics", "both calls are in the histogram", |metric| {
            let counts =
                metric["points"].as_array().into_iter().flatten().filter_map(|it| it["count"].as_u64());
            metric["name"] == "mcp.server.operation.duration" && counts.sum::<u64>() == 2
        })
        .await;
    assert_eq!(
        (&took["kind"], &took["unit"], &took["temporality"]),
        (&json!("histogram"), &json!("s"), &json!(2))
    );
    for point in took["points"].as_array().expect("points") {
        let buckets = point["buckets"].as_array().expect("buckets");
        assert_eq!(buckets.iter().filter_map(Value::as_u64).sum::<u64>(), 1, "{point}");
        assert_eq!(buckets.len(), point["bounds"].as_array().expect("bounds").len() + 1);
        assert_eq!(point["attributes"]["mcp.method.name"], "tools/call");
    }
    for signal in ["traces", "logs", "metrics"] {
        let requests = receiver.requests(signal).await;
        assert!(requests.iter().all(|request| request["token"] == "for-the-receiver"), "{requests:?}");
    }
    assert_eq!(count_lines(&gateway, "for-the-receiver"), 0);
}

#[tokio::test]
async fn every_method_and_every_step_of_a_login_has_a_span_of_its_name() {
    let (backend, entra) = (FakeBackend::start().await, FakeEntra::start(&secret("entra")).await);
    let mut receiver = Receiver::start().await;
    let setup = Setup::new()
        .settings(&receiver.settings(""))
        .flag("--entra-authority", &entra.authority())
        .file("a.yaml", Tenant::new("a", &backend).yaml())
        .file("p.yaml", Tenant::new("p", &backend).with(&entra.lines()).yaml());
    let gateway = setup.start().await;
    let client = gateway.client();
    let hello = json!({
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" },
    });
    let asked = [
        (Era::Legacy, "initialize", hello, true),
        (Era::Legacy, "ping", json!({}), true),
        (Era::Legacy, "prompts/list", json!({}), false),
        (Era::Modern, "server/discover", json!({}), true),
        (Era::Modern, "tools/list", json!({}), true),
        (Era::Modern, "resources/list", json!({}), true),
        (Era::Modern, "resources/templates/list", json!({}), true),
        (Era::Modern, "tools/list", json!({ "cursor": "7" }), false),
        (Era::Modern, "of/a/client", json!({}), false),
    ];
    for (era, method, params, succeeds) in asked {
        let answer = client.rpc(era, "/a/mcp", method, params).await.json();
        assert_eq!(answer["result"].is_object(), succeeds, "{method}: {answer}");
        let name = if method == "of/a/client" { "_OTHER" } else { method };
        let span = receiver
            .until_taken("traces", &format!("a span of {name}"), |span| {
                span["name"] == name && (span["status"] == 2) != succeeds
            })
            .await;
        assert_eq!(
            (&span["kind"], &span["attributes"]["tenantd.tenant"]),
            (&json!(2), &json!("a")),
            "{span}"
        );
        assert_eq!(span["attributes"]["mcp.method.name"], name);
        let code = &span["attributes"]["error.type"];
        assert_eq!(code.is_string(), !succeeds, "{span}");
    }
    let token =
        client.request(reqwest::Method::POST, "/p/token").body("grant_type=nonsense&code=a-code-for-nobody");
    assert!(token.send().await.expect("an answer").status().is_client_error());
    let span = receiver
        .until_taken("traces", "a span of the token endpoint", |span| span["name"] == "POST /{prefix}/token")
        .await;
    assert_eq!(span["status"], 0, "what a client does wrong is no error of the server: {span}");
    assert_eq!(span["attributes"]["http.route"], "/{prefix}/token");
    assert!(span["attributes"]["http.response.status_code"].as_u64().is_some_and(|code| code >= 400));
    assert_eq!(span["attributes"]["tenantd.tenant"], "p");
    let all = format!("{:?}", receiver.taken("traces").await);
    assert!(!all.contains("a-code-for-nobody") && !all.contains("of/a/client"), "{all}");
}

#[tokio::test]
async fn callers_decide_what_is_recorded_only_where_they_are_trusted() {
    let (backend, mut receiver) = (FakeBackend::start().await, Receiver::start().await);
    let settings = receiver.settings("  traces: 0.0\n  trust_sampled: true\n");
    let setup = Setup::new().settings(&settings).file("a.yaml", Tenant::new("a", &backend).yaml());
    let gateway = setup.start().await;
    let client = gateway.client();
    search_within(&client, &CALLERS.replace("-01", "-00")).await;
    client.search(Era::Modern, "/a", "q").await.data();
    search_within(&client, PROXYS).await;
    let recorded =
        receiver.until_taken("traces", "the span that its caller wants", |span| span["kind"] == 2).await;
    assert_eq!(recorded["trace"], "0af7651916cd43dd8448eb211c80319c");
    let onward = receiver.until_taken("traces", "the backend's", |span| span["kind"] == 3).await;
    assert_eq!(receiver.taken("traces").await.len(), 2, "{onward}");
    // What is not recorded goes on as such, in the caller's trace.
    let sent: Vec<String> = backend.requests().iter().filter_map(|it| it.header("traceparent")).collect();
    let unsampled = sent.iter().find(|it| it.contains(CALLERS_TRACE)).expect("it is passed on");
    assert!(unsampled.ends_with("-00") && !unsampled.contains("00f067aa0ba902b7"), "{unsampled}");
}

#[tokio::test]
async fn a_busy_receiver_gets_everything_later_and_is_told_of_once() {
    let (backend, mut receiver) = (FakeBackend::start().await, Receiver::start().await);
    receiver.answer("traces", json!({ "status": 429, "headers": { "Retry-After": "1" } })).await;
    let setup =
        Setup::new().settings(&receiver.settings("")).file("a.yaml", Tenant::new("a", &backend).yaml());
    let gateway = setup.start().await;
    let client = gateway.client();
    search_within(&client, CALLERS).await;
    until("it was refused twice", async || (receiver.requests("traces").await.len() >= 2).then_some(()))
        .await;
    receiver.answer("traces", json!({ "status": 503 })).await;
    search_within(&client, PROXYS).await;
    until("it was refused with 503", async || {
        receiver.requests("traces").await.iter().any(|it| it["status"] == 503).then_some(())
    })
    .await;
    receiver.answer("traces", json!({})).await;
    until("all spans arrive", async || (receiver.taken("traces").await.len() == 4).then_some(())).await;
    until_metric(&gateway, "tenantd_otlp_spans_sent_total", 4).await;
    assert_eq!(metric(&gateway, "tenantd_otlp_spans_dropped_total").await, Some(0));
    assert_eq!(count_lines(&gateway, "the OTLP receiver takes nothing"), 1, "{}", gateway.output());
    assert_eq!(count_lines(&gateway, "the OTLP receiver takes what it is sent again"), 1);
}

#[tokio::test]
async fn what_a_receiver_refuses_or_takes_in_part_is_counted_and_not_sent_again() {
    let (backend, mut receiver) = (FakeBackend::start().await, Receiver::start().await);
    receiver.answer("traces", json!({ "status": 400 })).await;
    let setup =
        Setup::new().settings(&receiver.settings("")).file("a.yaml", Tenant::new("a", &backend).yaml());
    let gateway = setup.start().await;
    let client = gateway.client();
    search_within(&client, CALLERS).await;
    until_metric(&gateway, "tenantd_otlp_spans_dropped_total", 2).await;
    receiver.answer("traces", json!({ "rejected": 1, "reason": "no room for one" })).await;
    search_within(&client, PROXYS).await;
    until("something was sent or dropped again", async || {
        let sent = metric(&gateway, "tenantd_otlp_spans_sent_total").await?;
        let dropped = metric(&gateway, "tenantd_otlp_spans_dropped_total").await?;
        (sent + dropped == 4 && dropped > 2).then_some(())
    })
    .await;
    assert_eq!(receiver.taken("traces").await.len(), 2, "what was refused did not come again");
    assert_eq!(count_lines(&gateway, "refuses what it is sent"), 1, "{}", gateway.output());
    assert_eq!(count_lines(&gateway, "no room for one"), 1, "{}", gateway.output());
}

#[tokio::test]
async fn a_receiver_that_hangs_or_is_not_there_delays_no_call_and_no_end() {
    let (backend, mut receiver) = (FakeBackend::start().await, Receiver::start().await);
    for signal in ["traces", "logs", "metrics"] {
        receiver.answer(signal, json!({ "hangs": true })).await;
    }
    let gone = FakeBackend::start().await.stop().await;
    for endpoint in [receiver.url.clone(), format!("http://{gone}")] {
        let settings = format!(
            "otlp:\n  endpoint: {endpoint}\n  logs: true\n  metrics: true\n  metrics_interval_seconds: 1\n"
        );
        let setup = Setup::new().settings(&settings).file("a.yaml", Tenant::new("a", &backend).yaml());
        let mut gateway = setup.start().await;
        let client = gateway.client();
        for _ in 0..50 {
            client.search(Era::Modern, "/a", "q").await.data();
        }
        match endpoint == receiver.url {
            true => {
                until("it hangs with each signal", async || {
                    for signal in ["traces", "logs", "metrics"] {
                        if receiver.requests(signal).await.is_empty() {
                            return None;
                        }
                    }
                    Some(())
                })
                .await;
            }
            false => {
                until("it was told", async || {
                    (count_lines(&gateway, "the OTLP receiver takes nothing") > 0).then_some(())
                })
                .await;
            }
        }
        client.search(Era::Modern, "/a", "q").await.data();
        assert_eq!(metric(&gateway, "tenantd_otlp_spans_sent_total").await, Some(0));
        gateway.signal("TERM");
        assert!(gateway.until_ended().await.success(), "{}", gateway.output());
    }
}
