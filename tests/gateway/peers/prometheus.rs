//! Debian's Prometheus scrapes a gateway with the shipped rules, which fire when tenants break, and
//! answers every query of the shipped dashboard.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::harness::secret::secret;
use crate::harness::{Era, FakeBackend, Gateway, PATIENCE, Reply, Setup, Tenant, until_within};

/// A running Prometheus.
struct Prometheus {
    base: String,
    http: reqwest::Client,
    _folder: TempDir,
    /// Ends the process when dropped.
    _child: Child,
}

impl Prometheus {
    /// Starts one with the shipped files, which differ in the gateway's address and in how long
    /// things wait.
    async fn start(gateway: &Gateway) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let config = read("deploy/monitoring/prometheus.yaml")
            .replace("127.0.0.1:9900", &gateway.admin_address().to_string())
            .replace("15s", "1s");
        fs::write(path("prometheus.yaml"), config).expect("written");
        let rules = read("deploy/monitoring/alerts.yaml");
        let rules: Vec<&str> = rules.lines().filter(|line| !line.trim_start().starts_with("for: ")).collect();
        fs::write(path("alerts.yaml"), rules.join("\n")).expect("written");
        let mut child = Command::new("prometheus")
            .arg(format!("--config.file={}", path("prometheus.yaml").display()))
            .arg(format!("--storage.tsdb.path={}", path("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Debian's prometheus is installed; scripts/test.sh installs it");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let mut told = Vec::new();
        let address = loop {
            let line = lines.next_line().await.expect("text").unwrap_or_else(|| panic!("it ended: {told:?}"));
            if let Some((_, address)) = line.split_once(r#"msg="Listening on" address="#) {
                break address.trim().to_owned();
            }
            told.push(line);
        };
        // It would wait for a reader of its log.
        #[expect(clippy::disallowed_methods, reason = "tests have no Tasks")]
        let _detached = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { base: format!("http://{address}/api/v1"), http, _folder: folder, _child: child }
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let mut url = url::Url::parse(&format!("{}/{path}", self.base)).expect("a URL");
        url.query_pairs_mut().extend_pairs(query);
        let answer = self.http.get(url).send().await.expect("an answer").bytes().await.expect("a body");
        serde_json::from_slice(&answer).expect("JSON")
    }

    /// Returns the results of an instant query.
    async fn query(&self, query: &str) -> Vec<Value> {
        let answer = self.get("query", &[("query", query)]).await;
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().expect("results").clone()
    }

    async fn until_firing(&self, alert: &str) -> Value {
        until_within(2 * PATIENCE, &format!("{alert} fires"), async || {
            let alerts = self.get("alerts", &[]).await;
            let alerts = alerts["data"]["alerts"].as_array().expect("alerts").clone();
            alerts.into_iter().find(|it| it["labels"]["alertname"] == alert && it["state"] == "firing")
        })
        .await
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("it is in the repository")
}

/// Returns the title and the queries of each panel, for all instances and tenants.
fn dashboard_queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("deploy/monitoring/dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(|target| (panel["title"].to_string(), target["expr"].as_str().expect("a query")))
    });
    let plain = |query: &str| {
        query.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$tenant", ".*")
    };
    targets.map(|(title, query)| (title.trim_matches('"').to_owned(), plain(query))).collect()
}

/// Families without series while nobody logs in, nothing is refused for lack of room, and the audit
/// has no sink.
const MAY_BE_EMPTY: [&str; 7] = [
    "tenantd_audit_sink_lines_dropped_total",
    "tenantd_audit_sink_failing",
    "tenantd_logins_total",
    "tenantd_tokens_total",
    "tenantd_identity_call_duration_seconds_count",
    "tenantd_connections_refused_total",
    "tenantd_budget_refused_total",
];

#[tokio::test]
async fn the_shipped_rules_fire_when_tenants_break_and_every_panel_is_answered() {
    let backend = FakeBackend::start().await;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24);
    let otlp = FakeBackend::start().await;
    let keys = format!("api_keys:\n  - label: ci\n    key: {}\n    expires: {soon}", secret("ci"));
    let settings = format!("otlp:\n  endpoint: {}\n  logs: true\n  metrics: true\n", otlp.url(""));
    let edition = |text: &str| Tenant::new("waiting", &backend).with(&format!("description: {text}")).zip();
    let setup = Setup::new()
        .settings(&settings)
        .file("waiting.zip", edition("First"))
        .file("waiting.yaml", "hold_changes: tools\nlimits: {calls_per_day: 5}\n")
        .file("good.yaml", Tenant::new("good", &backend).yaml())
        .file("keyed.yaml", Tenant::new("keyed", &backend).with(&keys).yaml());
    let gateway = setup.start().await;
    let prometheus = Prometheus::start(&gateway).await;
    let client = gateway.client();
    client.search(Era::Modern, "/good", "q").await.data();
    until_within(2 * PATIENCE, "it is scraped", async || {
        let up = prometheus.query("up{job=\"tenantd\"} == 1").await;
        (!up.is_empty()).then_some(())
    })
    .await;
    let rules = prometheus.get("rules", &[]).await;
    let rules = rules["data"]["groups"][0]["rules"].as_array().expect("rules").clone();
    let sick: Vec<_> = rules.iter().filter(|rule| rule["health"] == "err").collect();
    assert!(rules.len() > 15 && sick.is_empty(), "{sick:?}");

    for _ in 0..4 {
        client.search(Era::Modern, "/waiting", "q").await.data();
    }
    let near = prometheus.until_firing("TenantdQuotaNear").await;
    assert_eq!((&near["labels"]["tenant"], &near["labels"]["scope"]), (&"waiting".into(), &"tenant".into()));
    let text = near["annotations"]["summary"].as_str().unwrap_or_default();
    assert!(text.contains("has used 80% of calls_per_day"), "{text}");
    client.search(Era::Modern, "/waiting", "q").await.data();
    client.search(Era::Modern, "/waiting", "q").await.tool_error();
    prometheus.until_firing("TenantdQuotaUsedUp").await;
    gateway.put("waiting.zip", edition("Second"));
    prometheus.until_firing("TenantdChangeHeld").await;

    gateway.put("bad.zip", b"no zip");
    gateway.put("dead.yaml", Tenant::new("dead", &backend).yaml());
    gateway.until_state("dead", "serving").await;
    backend.answer("/nlp-search", Reply::Status(503, serde_json::json!({})));
    // More than any minimum of a rule; the breaker opens after five.
    for _ in 0..6 {
        client.search(Era::Modern, "/dead", "q").await.tool_error();
    }
    assert_eq!(client.search(Era::Modern, "/keyed", "q").await.status, 401);
    prometheus.until_firing("TenantdTenantRejected").await;
    prometheus.until_firing("TenantdTenantDegraded").await;
    let paused = prometheus.until_firing("TenantdBackendPaused").await;
    assert_eq!(paused["labels"]["tenant"], "dead", "{paused}");
    let expiring = prometheus.until_firing("TenantdSecretExpires").await;
    assert_eq!(expiring["labels"]["label"], "ci", "{expiring}");
    let text = expiring["annotations"]["summary"].as_str().unwrap_or_default();
    assert!(text.contains("The secret ci (api_key) of the tenant keyed expires in 23h"), "{text}");

    let queries = dashboard_queries();
    assert!(queries.len() > 30, "{queries:?}");
    for (title, query) in &queries {
        let may_be_empty = MAY_BE_EMPTY.iter().any(|family| query.contains(family));
        // A rate needs two scrapes.
        until_within(2 * PATIENCE, &format!("{title} has data: {query}"), async || {
            (!prometheus.query(query).await.is_empty() || may_be_empty).then_some(())
        })
        .await;
    }
}
