//! How much tenants are used, and how much they may be: traffic, limits of calls, the ledger.

mod documented;
mod shared;

use std::process::Command;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::command_line::printed;
use super::harness::gateway::BINARY;
use super::harness::secret::{self, secret};
use super::harness::{Client, Era, FakeBackend, Gateway, Reply, Setup, Tenant, until};

async fn read(gateway: &Gateway, path: &str) -> Value {
    let (status, report) = gateway.admin(path).await;
    assert_eq!(status, 200, "{report}");
    serde_json::from_str(&report).expect("JSON")
}

/// Returns the sum of a figure over all hours.
fn total(report: &Value, figure: &str) -> u64 {
    let hours = report["hours"].as_array().expect("hours");
    assert_eq!(hours.len(), 24, "{report}");
    hours.iter().map(|hour| hour[figure].as_u64().expect("a number")).sum()
}

#[tokio::test]
async fn the_traffic_of_a_day_is_told_for_each_tenant_and_for_the_gateway() {
    let backend = FakeBackend::start().await;
    let tenant = Tenant::new("a", &backend).with("limits:\n  requests_per_minute: 4");
    let setup = Setup::new().file("a.yaml", tenant.yaml());
    let gateway = setup.file("b.yaml", Tenant::new("b", &backend).yaml()).start().await;
    let client = gateway.client();
    client.search(Era::Modern, "/a", "q").await.data();
    client.search(Era::Modern, "/a", "q").await.data();
    client.search(Era::Modern, "/b", "q").await.data();
    backend.answer("/nlp-search", Reply::Status(500, json!({})));
    client.search(Era::Modern, "/a", "q").await.tool_error();
    while client.search(Era::Modern, "/a", "q").await.status != 429 {}
    let (a, all) = (read(&gateway, "/api/tenants/a/traffic").await, read(&gateway, "/api/traffic").await);
    assert!(total(&a, "calls") >= 3 && total(&a, "errors") >= 1, "{a}");
    assert_eq!((total(&a, "refused"), total(&all, "refused")), (1, 1));
    assert_eq!(total(&all, "calls"), total(&a, "calls") + 1, "b's call is among all");
    assert!(total(&a, "bytes") > 0 && a["in_flight"] == 0, "{a}");
    let hours = a["hours"].as_array().expect("hours");
    let busy = hours.iter().rfind(|hour| hour["calls"] != 0).expect("an hour with calls");
    assert!(busy["p95_ms"].as_u64() >= busy["p50_ms"].as_u64() && busy["p50_ms"] != Value::Null, "{busy}");
    assert_eq!(gateway.admin("/api/tenants/nobody/traffic").await.0, 404);
}

/// Returns a tenant with a key for each person, and these limits.
fn keyed(name: &str, backend: &FakeBackend, limits: &str) -> Tenant {
    let line = |who: &str| format!("  - label: {who}\n    key: {}\n", secret(who));
    let keys = format!("api_keys:\n{}{}", line("ann"), line("ben"));
    Tenant::new(name, backend).with(&format!("{keys}limits:\n{limits}"))
}

fn person(gateway: &Gateway, who: &str) -> Client {
    gateway.client().bearer(&secret(who))
}

/// Calls the search, and returns why it was refused, if it was.
async fn refusal(client: &Client, prefix: &str) -> Option<String> {
    let answer = client.search(Era::Modern, prefix, "q").await;
    (answer.result()["isError"] == true).then(|| answer.tool_error())
}

async fn get_context(client: &Client, prefix: &str) -> Option<String> {
    let params = json!({ "name": "get_context", "arguments": {} });
    let answer = client.rpc(Era::Modern, &format!("{prefix}/mcp"), "tools/call", params).await;
    (answer.result()["isError"] == true).then(|| answer.tool_error())
}

#[tokio::test]
async fn quotas_of_people_tools_and_tenants_are_independent() {
    let backend = FakeBackend::start().await;
    let limits = "  per_caller: {calls_per_day: 2}\n  tools: {search: {calls_per_month: 3}}\n";
    let setup = Setup::new().file("a.yaml", keyed("a", &backend, limits).yaml());
    let gateway = setup.file("b.yaml", keyed("b", &backend, limits).yaml()).start().await;
    let (ann, ben) = (person(&gateway, "ann"), person(&gateway, "ben"));
    assert_eq!((refusal(&ann, "/a").await, refusal(&ann, "/a").await), (None, None));
    let why = refusal(&ann, "/a").await.expect("her day is used up");
    assert!(why.starts_with("The daily limit of 2 calls of this server for you is used up"), "{why}");
    assert!(why.contains("it begins again at 20") && why.contains("00:00 UTC (in "), "{why}");
    assert_eq!(refusal(&ann, "/b").await, None, "another tenant");
    assert_eq!(refusal(&ben, "/a").await, None, "another person from the same address");
    let why = refusal(&ben, "/a").await.expect("the tool's month is used up");
    assert!(why.starts_with("The monthly limit of 3 calls of the tool search for all"), "{why}");
    assert_eq!(get_context(&ben, "/a").await, None, "another tool");
    let metrics = gateway.admin("/metrics").await.1;
    let counted = "tenantd_tool_calls_total{tenant=\"a\",outcome=\"quota_exhausted\"} 2";
    assert!(metrics.contains(counted), "{metrics}");
    let used = "tenantd_quota_used{tenant=\"a\",scope=\"tool search\",limit=\"calls_per_month\"} 3";
    assert!(metrics.contains(used), "{metrics}");
    let status = gateway.status("a").await.expect("a status");
    let quota = &status["quotas"][0];
    assert_eq!(
        (&quota["scope"], &quota["used"], &quota["of"]),
        (&json!("tool search"), &json!(3), &json!(3))
    );
    assert_eq!(read(&gateway, "/api/tenants/a/traffic").await["quotas"][0], *quota);
    assert_eq!(total(&read(&gateway, "/api/tenants/a/traffic").await, "refused"), 2);
    assert_eq!(gateway.output().matches("80 % of a quota are used").count(), 1, "{}", gateway.output());
}

#[tokio::test]
async fn callers_behind_one_trusted_proxy_have_limits_of_their_own_if_it_tells_them_apart() {
    let backend = FakeBackend::start().await;
    let tenant = Tenant::new("a", &backend).with("limits:\n  per_caller: {calls_per_day: 1}");
    let setup = Setup::new().flag("--trusted-proxies", "127.0.0.7").file("a.yaml", tenant.yaml());
    let setup = setup.file("k.yaml", keyed("k", &backend, "  per_caller: {calls_per_day: 1}\n").yaml());
    let gateway = setup.start().await;
    let proxy = || gateway.client_with(|builder| builder.local_address("127.0.0.7".parse().ok()));
    let behind = |address: &str| proxy().with("x-forwarded-for", address);
    assert_eq!(refusal(&behind("10.1.1.1"), "/a").await, None);
    assert!(refusal(&behind("10.1.1.1"), "/a").await.is_some());
    assert_eq!(refusal(&behind("10.1.1.2"), "/a").await, None, "another caller");
    let keyed = |who: &str| proxy().bearer(&secret(who));
    assert_eq!(refusal(&keyed("ann"), "/k").await, None);
    assert!(refusal(&keyed("ann"), "/k").await.is_some());
    assert_eq!(refusal(&keyed("ben"), "/k").await, None, "the proxy does not say who calls, the key does");
}

#[tokio::test]
async fn calls_at_once_a_minute_and_bytes_are_limited() {
    let backend = FakeBackend::start().await;
    let once = keyed("once", &backend, "  per_caller: {concurrent_calls: 1}\n");
    let minute = keyed("minute", &backend, "  calls_per_minute: 1\n");
    let bytes =
        keyed("bytes", &backend, "  bytes_per_day: 1KiB\n  tools: {get_context: {calls_per_day: 1}}\n");
    let setup = Setup::new().file("once.yaml", once.yaml()).file("minute.yaml", minute.yaml());
    let gateway = setup.file("bytes.yaml", bytes.yaml()).start().await;
    let (ann, ben) = (person(&gateway, "ann"), person(&gateway, "ben"));

    backend.answer("/nlp-search", Reply::Held(Box::new(Reply::Rows)));
    let mut held = JoinSet::new();
    let caller = ann.clone();
    held.spawn(async move { refusal(&caller, "/once").await });
    backend.until(|counts| counts.in_flight == 1).await;
    let why = refusal(&ann, "/once").await.expect("one is under way");
    assert!(why.starts_with("1 call is under way for you"), "{why}");
    assert_eq!(read(&gateway, "/api/tenants/once/traffic").await["in_flight"], 1);
    backend.answer("/nlp-search", Reply::Rows);
    assert_eq!(refusal(&ben, "/once").await, None);
    backend.release();
    assert_eq!(held.join_next().await.expect("a call").expect("it ends"), None);
    assert_eq!(refusal(&ann, "/once").await, None, "the place is free again");

    assert_eq!(refusal(&ann, "/minute").await, None);
    let why = refusal(&ben, "/minute").await.expect("the minute is used up");
    assert!(why.contains("1 call per minute") && why.contains("Call again in "), "{why}");

    backend.answer("/nlp-search", Reply::Text("[{\"x\":\"".to_owned().add("y", 2_000).into(), &[]));
    assert_eq!(refusal(&ann, "/bytes").await, None);
    let why = refusal(&ben, "/bytes").await.expect("the bytes are used up");
    assert!(why.starts_with("The daily limit of 1 KiB of results of this server for all"), "{why}");
}

trait Long {
    /// Appends a text so many times, and what closes the JSON.
    fn add(self, text: &str, times: usize) -> String;
}

impl Long for String {
    fn add(self, text: &str, times: usize) -> String {
        self + &text.repeat(times) + "\"}]"
    }
}

#[tokio::test]
async fn quotas_outlive_a_stop_a_kill_and_a_removal() {
    let backend = FakeBackend::start().await;
    let yaml = keyed("a", &backend, "  per_caller: {calls_per_day: 5}\n  calls_per_month: 100\n").yaml();
    let mut gateway = Setup::new().file("a.yaml", &yaml).start().await;
    let used =
        async |gateway: &Gateway| gateway.until_state("a", "serving").await["quotas"][0]["used"].clone();
    for _ in 0..3 {
        assert_eq!(refusal(&person(&gateway, "ann"), "/a").await, None);
    }
    gateway.signal("TERM");
    gateway.until_ended().await;
    let gateway = gateway.killed().start_again().await;
    assert_eq!(used(&gateway).await, 3, "a stop writes everything");

    assert_eq!(refusal(&person(&gateway, "ann"), "/a").await, None);
    // The report writes what it is asked for.
    assert_eq!(read(&gateway, "/api/usage?tenant=a").await["rows"][0]["calls"], 4);
    assert_eq!(refusal(&person(&gateway, "ann"), "/a").await, None);
    let gateway = gateway.kill_and_restart().await;
    let after = used(&gateway).await.as_u64().expect("a number");
    assert!((4..=5).contains(&after), "a kill forgets the calls of a few seconds at most: {after}");

    gateway.remove("a.yaml");
    gateway.until_gone("a").await;
    gateway.put("a.yaml", &yaml);
    assert_eq!(used(&gateway).await, after, "who comes back finds what was used");
}

#[tokio::test]
async fn an_export_neither_sets_nor_loosens_a_limit() {
    let backend = FakeBackend::start().await;
    let loose = Tenant::new("a", &backend)
        .with("limits:\n  calls_per_day: 1000\n  per_caller: {calls_per_day: 1000}");
    let setup = Setup::new().file("a.zip", loose.zip());
    let gateway = setup.file("a.yaml", "limits:\n  calls_per_day: 1\n").start().await;
    let client = gateway.client();
    assert_eq!(refusal(&client, "/a").await, None);
    assert!(refusal(&client, "/a").await.is_some_and(|why| why.contains("limit of 1 calls")));
    let findings = gateway.status("a").await.expect("a status")["findings"].to_string();
    assert!(findings.contains("export-ignored"), "{findings}");
    gateway.put("b.yaml", Tenant::new("b", &backend).with("limits:\n  per_caller: {call_per_day: 1}").yaml());
    let findings = gateway.until_state("b", "rejected").await["findings"].to_string();
    assert!(findings.contains("calls_per_day"), "the nearest field is named: {findings}");
}

fn usage(gateway: &Gateway, arguments: &[&str]) -> String {
    let admin = gateway.admin_address().to_string();
    let arguments = [&["usage"], arguments, &["--admin", &admin]].concat();
    let output = Command::new(BINARY).args(&arguments).env_clear().output().expect("the binary runs");
    secret::assert_none("a verb's output", &printed(&output));
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", printed(&output));
    printed(&output)
}

#[tokio::test]
async fn the_ledger_tells_who_used_what() {
    let backend = FakeBackend::start().await;
    let setup = Setup::new().file("a.yaml", keyed("a", &backend, "  concurrent_calls: 8\n").yaml());
    let gateway = setup.file("open.yaml", Tenant::new("open", &backend).yaml()).start().await;
    let (ann, ben) = (person(&gateway, "ann"), person(&gateway, "ben"));
    assert_eq!((refusal(&ann, "/a").await, refusal(&ann, "/a").await), (None, None));
    assert_eq!((get_context(&ben, "/a").await, refusal(&gateway.client(), "/open").await), (None, None));
    backend.answer("/nlp-search", Reply::Status(500, json!({})));
    assert!(refusal(&ben, "/a").await.is_some());
    let rows = read(&gateway, "/api/usage?tenant=a&by=person").await["rows"].clone();
    let figures = |row: &Value| (row["person"].clone(), row["calls"].clone(), row["errors"].clone());
    assert_eq!(figures(&rows[0]), (json!("ann"), json!(2), json!(0)), "{rows}");
    assert_eq!(figures(&rows[1]), (json!("ben"), json!(2), json!(1)), "{rows}");
    assert!(rows[0]["bytes"].as_u64() > Some(0) && rows[0]["seconds"].as_f64() > Some(0.0), "{rows}");
    let csv = usage(&gateway, &["a", "--by", "tool", "--format", "csv"]);
    assert!(csv.starts_with("tenant,tool,calls,errors,seconds,bytes\na,search,3,1,"), "{csv}");
    let table = usage(&gateway, &["--by", "person"]);
    assert!(table.contains("TENANT") && table.contains("anonymous"), "{table}");
    let all = usage(&gateway, &["--from", "2000-01-01", "--to", "2000-01-31", "--format", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&all).expect("JSON")["rows"], json!([]));
    assert_eq!(gateway.admin("/api/usage?from=yesterday").await.0, 400);
    // A row of this hour, once the first hour is over: the sum over whole days is the same.
    let hours = read(&gateway, "/api/usage?tenant=a&per=hour").await["rows"].clone();
    let calls = hours.as_array().expect("rows").iter().filter_map(|row| row["calls"].as_u64()).sum::<u64>();
    assert_eq!(calls, 4, "{hours}");
    let gateway = gateway.kill_and_restart().await;
    let kept = until("the ledger is there", async || {
        let rows = read(&gateway, "/api/usage?tenant=a").await["rows"].clone();
        (rows[0]["calls"] == 4).then_some(rows)
    });
    kept.await;
}

#[tokio::test]
async fn a_usage_file_lies_beside_the_tenants_files_and_is_no_tenant() {
    let backend = FakeBackend::start().await;
    let yaml = Tenant::new("a", &backend).with("usage_file: true").yaml();
    let mut gateway =
        Setup::new().file("a.yaml", yaml).file("b.yaml", Tenant::new("b", &backend).yaml()).start().await;
    assert_eq!(refusal(&gateway.client(), "/a").await, None);
    gateway.signal("TERM");
    gateway.until_ended().await;
    let text = std::fs::read_to_string(gateway.tenant_file("a.usage.json")).expect("a file");
    let file: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&file["tenant"], &file["months"][0]["calls"]), (&json!("a"), &json!(1)), "{file}");
    assert_eq!(file["days"][0]["calls"], 1, "{file}");
    assert!(!gateway.tenant_file("b.usage.json").exists(), "only who asks for one has one");
    let gateway = gateway.killed().start_again().await;
    assert_eq!(read(&gateway, "/api/tenants").await.as_array().map(Vec::len), Some(2));
}
