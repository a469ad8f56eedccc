//! The protocol's conformance suite, with the requirements of both eras.
//!
//! Expected failures are listed in tests/peers/conformance, each with its reason. The suite is
//! strict about them: a new failure fails the run, and so does a listed scenario that passes.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

use super::cache;
use crate::harness::secret;
use crate::harness::{FakeBackend, Setup, Tenant};

/// Far above the duration of a whole run of some 60 scenarios.
const PATIENCE: Duration = Duration::from_secs(300);

#[cfg(feature = "conformance")]
#[tokio::test]
async fn the_conformance_tenant_meets_2026_07_28() {
    passes("fixture", "2026-07-28", "tenantd-conformance").await;
}

#[cfg(feature = "conformance")]
#[tokio::test]
async fn the_conformance_tenant_meets_2025_11_25() {
    passes("fixture", "2025-11-25", "tenantd-conformance").await;
}

#[tokio::test]
async fn a_tenant_meets_2026_07_28() {
    passes("tenant", "2026-07-28", "acme").await;
}

#[tokio::test]
async fn a_tenant_meets_2025_11_25() {
    passes("tenant", "2025-11-25", "acme").await;
}

/// Runs the suite against a tenant with this dataset.
async fn passes(who: &str, requirements: &str, dataset: &str) {
    let backend = FakeBackend::start().await;
    let tenant = Tenant::new(dataset, &backend);
    // Without TLS: the suite builds its Origin header from the URL, always with http.
    let gateway = Setup::new().flag("--tls", "off").file("a.yaml", tenant.yaml()).start().await;
    gateway.until_state("a", "serving").await;
    meets(&format!("{}/a/mcp", gateway.base()), who, requirements).await;
}

/// Runs the suite against a URL.
pub(super) async fn meets(url: &str, who: &str, requirements: &str) {
    let run = suite(url, requirements, &expected(who, requirements)).await;
    let text = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    secret::assert_none("the conformance suite's output", &text);
    assert!(text.contains("Total:"), "the suite did not run:\n{text}");
    assert!(run.status.success(), "{text}");
}

fn expected(who: &str, requirements: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/peers/conformance");
    folder.join(format!("{who}-{requirements}.yaml"))
}

async fn suite(url: &str, requirements: &str, expected: &Path) -> Output {
    let run = Command::new(cache::node())
        .arg(cache::package("@modelcontextprotocol/conformance/dist/index.js"))
        .args(["server", "--url", url, "--requirements", requirements, "--expected-failures"])
        .arg(expected)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(PATIENCE, run).await.expect("the suite ends in time").expect("node starts")
}
