//! Common clients read a refusal that is sent while the request body is still under way.

use std::path::Path;

use tokio::process::Command;

use super::cache;
use super::script::command;
use crate::harness::entra::FakeEntra;
use crate::harness::secret::secret;
use crate::harness::{FakeBackend, Gateway, Setup, Tenant};

/// Refused requests: path, size of the body, whether the key of `/keyed` is sent, and the status
/// that must be read. A connection that is cut shows only in some of several tries.
const REFUSED: [(&str, usize, bool, &str); 6] = [
    ("/login/register", 20_000, false, "413"),
    ("/login/mcp", 20_000, false, "401"),
    ("/login/mcp", 3_000_000, false, "401"),
    ("/login/mcp", 12_000_000, false, "401"),
    ("/keyed/mcp", 400_000, true, "413"),
    ("/nobody/mcp", 3_000_000, false, "404"),
];
const TRIES: usize = 5;

/// Starts a gateway with a tenant that asks for a login and one that has a key.
async fn gateway() -> (FakeEntra, FakeBackend, Gateway) {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let keys = format!("api_keys:\n  - label: ann\n    key: {}", secret("ann"));
    let login = Tenant::new("login", &backend).with(&entra.lines());
    let setup = Setup::new().flag("--entra-authority", &entra.authority()).file("login.yaml", login.yaml());
    let gateway = setup.file("keyed.yaml", Tenant::new("keyed", &backend).with(&keys).yaml()).start().await;
    (entra, backend, gateway)
}

/// Runs a client and returns what it reports to have read.
async fn read(mut command: Command, ca: &Path) -> String {
    let command = command.env_clear().envs([("NODE_EXTRA_CA_CERTS", ca), ("SSL_CERT_FILE", ca)]);
    let output = command.kill_on_drop(true).output().await.expect("it runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Has a client make every request of `REFUSED` up to the largest body that it sends at all.
/// `made` builds its command from URL, CA file, size and key.
async fn assert_read(client: &str, largest: usize, made: impl Fn(&str, &Path, usize, &str) -> Command) {
    let (_entra, _backend, gateway) = gateway().await;
    let ca = gateway.ca().expect("a local CA");
    for (path, size, is_keyed, status) in REFUSED.into_iter().filter(|(_, size, ..)| *size <= largest) {
        let (url, key) = (format!("{}{path}", gateway.base()), secret("ann"));
        for _ in 0..TRIES {
            let command = made(&url, &ca, size, if is_keyed { &key } else { "" });
            assert_eq!(read(command, &ca).await, status, "{client}, {size} bytes to {path}");
        }
    }
}

/// Returns the command that runs a script of this repository for one client of its language.
fn script(interpreter: std::path::PathBuf, name: &str, client: &str, arguments: [&str; 4]) -> Command {
    let mut command = command(interpreter, &cache::script(name));
    command.arg(client).args(arguments);
    command
}

async fn assert_read_by_python(client: &str) {
    assert_read(client, usize::MAX, |url, ca, size, key| {
        let ca = ca.display().to_string();
        script(cache::python("python-fastmcp"), "refused.py", client, [url, &ca, &size.to_string(), key])
    })
    .await;
}

async fn assert_read_by_node(client: &str) {
    // Node's `http2` buffers what it has to send, and at most 10 MB (`maxSessionMemory`).
    let largest = if client == "http2" { 10_000_000 } else { usize::MAX };
    assert_read(client, largest, |url, ca, size, key| {
        let ca = ca.display().to_string();
        script(cache::node(), "refused.mjs", client, [url, &ca, &size.to_string(), key])
    })
    .await;
}

async fn assert_read_by_curl(protocol: &str) {
    assert_read(protocol, usize::MAX, |url, ca, size, key| {
        let mut command = Command::new("/bin/sh");
        let line = "printf '{\"a\":\"%0*d\"}' \"$1\" 0 | curl --silent --show-error --output /dev/null \
                    --write-out '%{http_code}' --max-time 60 --cacert \"$2\" \"$3\" --data-binary @- \
                    --header 'content-type: application/json' --header \"authorization: $4\" \"$5\" 2>&1";
        let authorization = if key.is_empty() { String::new() } else { format!("Bearer {key}") };
        command.args(["-c", line, "sh", &size.to_string()]).arg(ca).args([protocol, &authorization, url]);
        command
    })
    .await;
}

#[tokio::test]
async fn refusals_are_read_by_curl_over_http1() {
    assert_read_by_curl("--http1.1").await;
}

#[tokio::test]
async fn refusals_are_read_by_curl_over_http2() {
    assert_read_by_curl("--http2").await;
}

#[tokio::test]
async fn refusals_are_read_by_pythons_own_client() {
    assert_read_by_python("http.client").await;
}

#[tokio::test]
async fn refusals_are_read_by_httpx() {
    assert_read_by_python("httpx").await;
}

#[tokio::test]
async fn refusals_are_read_by_nodes_http() {
    assert_read_by_node("http").await;
}

#[tokio::test]
async fn refusals_are_read_by_nodes_fetch() {
    assert_read_by_node("fetch").await;
}

#[tokio::test]
async fn refusals_are_read_by_nodes_http2() {
    assert_read_by_node("http2").await;
}
