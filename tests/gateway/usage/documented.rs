//! The table of limits in docs/limits.md: what it says of each limit is so.

use std::path::Path;

use serde_json::Value;
use tokio::task::JoinSet;

use super::super::harness::{Era, FakeBackend, Gateway, Reply, Setup, until};
use super::{keyed, person};

/// A limit at one of its places, and what the table says of it.
struct Documented {
    limit: String,
    /// `the tenant`, `per_caller` or `tools`.
    place: String,
    is_429: bool,
    /// What the refusal says.
    phrases: Vec<String>,
    is_told: bool,
}

/// Returns the parts of a text between a mark and the next one.
fn quoted(text: &str, mark: char) -> Vec<String> {
    text.split(mark).skip(1).step_by(2).map(str::to_owned).collect()
}

/// Reads the table.
fn documented() -> Vec<Documented> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/limits.md"));
    let page = page.expect("the page is there");
    let (_, table) = page.split_once("| limit | of | answer |").expect("the table is there");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut all = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        for limit in quoted(cells[1], '`') {
            for place in cells[2].split(", ") {
                all.push(Documented {
                    limit: limit.clone(),
                    place: place.trim_matches('`').to_owned(),
                    is_429: cells[3] == "429",
                    phrases: quoted(cells[4], '"'),
                    is_told: cells[5] == "yes",
                });
            }
        }
    }
    all
}

impl Documented {
    /// Returns the lines of a tenant's limits that one call uses up.
    fn lines(&self) -> String {
        let limit = match self.limit.starts_with("bytes") {
            true => format!("{}: 1KiB", self.limit),
            false => format!("{}: 1", self.limit),
        };
        match self.place.as_str() {
            "the tenant" => format!("  {limit}\n"),
            "per_caller" => format!("  per_caller: {{{limit}}}\n"),
            "tools" => format!("  tools: {{search: {{{limit}}}}}\n"),
            other => panic!("no limit is of {other}"),
        }
    }

    /// Uses the limit up, and checks the refusal of the next call.
    async fn check(&self, gateway: &Gateway, backend: &FakeBackend, tenant: &str) {
        let what = format!("{} of {}", self.limit, self.place);
        let (client, prefix) = (person(gateway, "ann"), format!("/{tenant}"));
        let mut under_way = JoinSet::new();
        if self.limit == "concurrent_calls" {
            backend.answer_next(Reply::Held(Box::new(Reply::Rows)));
            let before = backend.counts().requests;
            let (client, prefix) = (client.clone(), prefix.clone());
            under_way.spawn(async move { client.search(Era::Modern, &prefix, "q").await.status });
            backend.until(|counts| counts.requests > before && counts.in_flight > 0).await;
        } else {
            let first = client.search(Era::Modern, &prefix, "q").await;
            assert_ne!(first.result()["isError"], true, "{what}: {first:?}");
        }
        let refused = client.search(Era::Modern, &prefix, "q").await;
        if self.is_429 {
            assert_eq!(refused.status, 429, "{what}: {refused:?}");
            let seconds = refused.header("retry-after").parse::<u32>();
            assert!(seconds.is_ok_and(|seconds| (1..=60).contains(&seconds)), "{what}: {refused:?}");
        } else {
            let text = refused.tool_error();
            assert!(!self.phrases.is_empty(), "{what}: the table says nothing");
            assert!(self.phrases.iter().all(|phrase| text.contains(phrase)), "{what}: {text}");
        }
        backend.release();
        under_way.join_all().await;
        let lines = gateway.output();
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is_told = lines.into_iter().any(|line| {
            line["tenant"] == tenant && line["message"].as_str().is_some_and(|text| text.contains("80 %"))
        });
        assert_eq!(is_told, self.is_told, "{what}: told at 80 %");
    }
}

#[tokio::test]
async fn every_limit_refuses_and_warns_as_documented() {
    let backend = FakeBackend::start().await;
    let all = documented();
    assert_eq!(all.len(), 1 + 3 + 3 + 6 + 6, "each limit at each of its places");
    let mut setup = Setup::new();
    for (number, row) in all.iter().enumerate() {
        let name = format!("t{number}");
        setup = setup.file(&format!("{name}.yaml"), keyed(&name, &backend, &row.lines()).yaml());
    }
    let gateway = setup.start().await;
    // A request for a context would take an answer that is meant for a call.
    until("all contexts are there", async || {
        (gateway.output().matches("Semantic context warmup completed").count() == all.len()).then_some(())
    })
    .await;
    let text = format!("[{{\"x\":\"{}\"}}]", "y".repeat(2_000));
    backend.answer("/nlp-search", Reply::Text(text.into(), &[]));
    for (number, row) in all.iter().enumerate() {
        row.check(&gateway, &backend, &format!("t{number}")).await;
    }
}

#[tokio::test]
async fn tenants_people_and_tools_behind_one_proxy_address_are_limited_apart() {
    let backend = FakeBackend::start().await;
    let limits = "  requests_per_minute: 3\n  per_caller: {calls_per_minute: 2}\n  tools: {search: {calls_per_day: 3}}\n";
    let mut setup = Setup::new().flag("--trusted-proxies", "127.0.0.7");
    for name in ["a", "b"] {
        setup = setup.file(&format!("{name}.yaml"), keyed(name, &backend, limits).yaml());
    }
    let gateway = setup.start().await;
    // The proxy does not say who calls: all that arrives has its address.
    let proxy = || gateway.client_with(|builder| builder.local_address("127.0.0.7".parse().ok()));
    let as_person = |who: &str| proxy().bearer(&super::secret(who));
    let (ann, ben) = (as_person("ann"), as_person("ben"));
    assert_eq!((super::refusal(&ann, "/a").await, super::refusal(&ann, "/a").await), (None, None));
    let why = super::refusal(&ann, "/a").await.expect("her minute is used up");
    assert!(why.contains("2 calls per minute of this server for you"), "{why}");
    assert_eq!(ann.search(Era::Modern, "/a", "q").await.status, 429, "and so are her requests");
    assert_eq!(super::refusal(&ben, "/a").await, None, "another person");
    let why = super::refusal(&ben, "/a").await.expect("the tool's day is used up");
    assert!(why.contains("daily limit of 3 calls of the tool search"), "{why}");
    assert_eq!(super::get_context(&ben, "/a").await, None, "another tool");
    assert_eq!(super::refusal(&ann, "/b").await, None, "another tenant");
}
