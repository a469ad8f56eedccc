//! The command line of the MCP inspector, which checks schemas for many clients (`--strict`).

use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

use super::cache;
use crate::harness::secret::{self, secret};
use crate::harness::{FakeBackend, Gateway, Setup, Tenant};

const PATIENCE: Duration = Duration::from_secs(90);
const ERAS: [&str; 2] = ["legacy", "modern"];

#[tokio::test]
async fn the_inspector_has_nothing_to_say_against_the_tools() {
    let backend = FakeBackend::start().await;
    let parameters =
        "tools:\n  search:\n    parameters:\n      region: { type: string, enum: [north, south] }";
    let tenant = Tenant::new("a", &backend).with(parameters);
    let gateway = Setup::new().file("a.yaml", tenant.yaml()).start().await;
    for era in ERAS {
        let text = approved(&gateway, era, &["--method", "tools/list", "--strict"]).await;
        assert!(text.contains("get_context") && text.contains("region"), "{era}: {text}");
    }
}

#[tokio::test]
async fn the_inspector_calls_a_tool_with_a_key() {
    let backend = FakeBackend::start().await;
    let key = secret("caller");
    let tenant = Tenant::new("a", &backend).with(&format!("api_keys:\n  - label: ci\n    key: {key}"));
    let gateway = Setup::new().file("a.yaml", tenant.yaml()).start().await;
    let header = format!("Authorization: Bearer {key}");
    let call = ["--method", "tools/call", "--tool-name", "search", "--tool-arg", "query=orders"];
    for era in ERAS {
        let refused = inspect(&gateway, era, &call).await;
        assert!(!refused.status.success(), "{era}: a call without the key succeeded");
        let text = approved(&gateway, era, &[&call[..], &["--header", &header]].concat()).await;
        assert!(text.contains("north"), "{era}: {text}");
    }
}

/// Runs the inspector, asserts that it found no fault, and returns its output.
async fn approved(gateway: &Gateway, era: &str, arguments: &[&str]) -> String {
    let run = inspect(gateway, era, arguments).await;
    let [output, complaints] =
        [&run.stdout, &run.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    secret::assert_none("the inspector's output", &output);
    secret::assert_none("the inspector's complaints", &complaints);
    assert!(run.status.success(), "{era}: {}\n{output}\n{complaints}", run.status);
    output
}

async fn inspect(gateway: &Gateway, era: &str, arguments: &[&str]) -> Output {
    // It stores a catalog of servers in the home folder.
    let home = tempfile::tempdir().expect("a folder");
    let run = Command::new(cache::node())
        .arg(cache::package("@modelcontextprotocol/inspector/clients/launcher/build/index.js"))
        .args(["--cli", &format!("{}/a/mcp", gateway.base()), "--transport", "http"])
        .args(["--protocol-era", era])
        .args(arguments)
        .env_clear()
        .env("HOME", home.path())
        .env("NODE_EXTRA_CA_CERTS", gateway.ca().expect("a gateway with a CA of its own"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(PATIENCE, run).await.expect("the inspector ends in time").expect("node starts")
}
