//! The probe of `check --live`.

use super::super::probe;
use super::*;
use crate::base::diagnostic::Severity;
use crate::spec::{
    AccessSpec, CacheSpec, Mount, Prefix, PublicUrl, TenantName, TenantSpec, ToolKind, ToolSpec,
};

fn tenant(bench: &BackendTestkit) -> TenantSpec {
    let prefix = Prefix::parse("/acme").expect("a prefix");
    let schema = Arc::new(serde_json::Map::new());
    let tool = |name: &str, kind, path: &str| ToolSpec {
        name: name.into(),
        title: name.into(),
        description: name.into(),
        input_schema: schema.clone(),
        output_schema: schema.clone(),
        kind,
        call: Arc::new(search(&bench.backend.url(path))),
    };
    TenantSpec {
        name: TenantName::parse("acme").expect("a name"),
        dataset: "acme".into(),
        title: "Acme".into(),
        description: None,
        instructions: None,
        enabled: true,
        public_url: PublicUrl::new("https://localhost", &prefix),
        mounts: vec![Mount { listener: None, host: None, prefix }],
        shares_hosts: false,
        tools: Arc::new([
            tool("search", ToolKind::Search, "/nlp-search"),
            tool("get_context", ToolKind::Context, "/nlp-context"),
        ]),
        backend: BackendSpec {
            family: Family::Nlp,
            connection_id: None,
            context: Arc::new(search(&bench.backend.url("/nlp-context"))),
            user_header: None,
            http2: false,
            data: Default::default(),
        },
        access: AccessSpec::default(),
        limits: LimitsSpec::default(),
        cache: CacheSpec::default(),
        call_timeout: Duration::from_secs(300),
        slow_answers: Default::default(),
        sample_questions: Arc::default(),
        icon_url: None,
        hold_changes: crate::spec::HoldChanges::default(),
        usage_file: false,
    }
}

#[tokio::test]
async fn a_probe_tells_what_came_back_from_each_url() {
    let bench = BackendTestkit::new().await;
    bench.backend.answer("/nlp-context", Reply::Status(401, json!({"detail": KEY})));
    let findings = probe(&bench.pool, &tenant(&bench), Duration::from_secs(30)).await;
    let seen: Vec<_> = findings.iter().map(|finding| (finding.code, finding.severity)).collect();
    assert_eq!(seen, [("live-context", Severity::Error), ("live-search", Severity::Notice)]);
    let told = findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(told.contains("refused this server's API key"), "{told}");
    assert!(told.contains("with a JSON object of columns, rows, row_count"), "{told}");
    assert!(!told.contains(KEY) && !told.contains("north"), "{told}");
    assert_eq!(bench.backend.requests()[1].json()["query"], "How many rows are there?");
}
