//! The conformance suite's scenarios for authorization servers: metadata, and a complete login with
//! the authorization code flow.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use super::cache;
use crate::harness::entra::FakeEntra;
use crate::harness::login::{Browser, field, register, way};
use crate::harness::secret::{self, secret};
use crate::harness::{FakeBackend, Gateway, Setup, Tenant};

const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_tenant_is_an_authorization_server_as_the_suite_wants_it() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let tenant = Tenant::new("a", &backend).with(&entra.lines());
    let setup = Setup::new().flag("--entra-authority", &entra.authority()).file("a.yaml", tenant.yaml());
    let gateway = setup.start().await;
    gateway.until_state("a", "serving").await;
    // The suite listens on this port; loopback redirect URIs may use any port (RFC 8252, section
    // 7.3).
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("free").port();
    let body =
        json!({ "redirect_uris": ["http://127.0.0.1/callback"], "token_endpoint_auth_method": "none" });
    let client = register(&gateway, "/a", &body).await.json();
    let client_id = client["client_id"].as_str().expect("an id").to_owned();

    let text = tokio::time::timeout(PATIENCE, run(&gateway, &entra, &client_id, port)).await;
    let text = text.expect("the suite ends in time");
    secret::assert_none("the conformance suite's output", &text);
    for scenario in ["authorization-server-metadata-endpoint", "authorization-code-grant"] {
        assert!(text.contains(scenario), "{scenario} did not run:\n{text}");
    }
}

/// Runs the suite to its end, playing its person and browser. Returns its output.
async fn run(gateway: &Gateway, entra: &FakeEntra, client_id: &str, port: u16) -> String {
    let base = gateway.base();
    let mut suite = Command::new(cache::node())
        .arg(cache::package("@modelcontextprotocol/conformance/dist/index.js"))
        .args(["authorization", "--url", &format!("{base}/a"), "--resource", &format!("{base}/a/mcp")])
        .args(["--client-id", client_id, "--port", &port.to_string()])
        .env("NODE_EXTRA_CA_CERTS", gateway.ca().expect("a CA of its own"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .expect("node starts");
    let mut lines = BufReader::new(suite.stdout.take().expect("it is piped")).lines();
    let mut text = String::new();
    while let Some(line) = lines.next_line().await.expect("text") {
        if line.starts_with(&format!("{base}/a/authorize?")) {
            let back = log_in(gateway, entra, &line).await;
            reqwest::get(back).await.expect("the suite listens");
        }
        text += &(line + "\n");
    }
    lines.into_inner().read_to_string(&mut text).await.expect("text");
    assert!(suite.wait().await.expect("it ends").success(), "{text}");
    text
}

/// Logs in. Returns the redirect URI with its parameters.
async fn log_in(gateway: &Gateway, entra: &FakeEntra, authorize: &str) -> String {
    let mut browser = Browser::new(gateway);
    let page = browser.get(authorize).await;
    assert_eq!(page.status, 200, "{page:?}");
    let form = [("request", field(&page.text, "request")), ("decision", "allow".to_owned())];
    let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let on = browser.post("/a/consent", &form).await;
    let done = browser.get(&entra.visit(&way(&on.text)).await).await;
    assert_eq!(done.status, 302, "{done:?}");
    done.header("location").to_owned()
}
