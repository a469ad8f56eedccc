//! `tenantd upgrade` of a server that `tenantd run` started.

use std::process::Command;

use super::super::harness::gateway::BINARY;
use super::super::harness::{Era, FakeBackend, Gateway, Tenant};
use super::Customer;

#[tokio::test]
async fn an_upgrade_goes_on_with_the_same_tenant_on_the_same_port() {
    let backend = FakeBackend::start().await;
    let customer = Customer::new().unpacked("server", Tenant::new("sales", &backend).zip());
    let state = customer.path("kept").display().to_string();
    let mut server = customer.args(&["server", "--port", "0", "--state", &state]).start().await;
    let client = server.client("localhost");
    client.search(Era::Modern, "", "any").await.data();
    let mut command = Command::new(BINARY);
    command.args(["upgrade", "--state", &state]).env_clear();
    let upgrade = tokio::task::spawn_blocking(move || command.output().expect("the binary starts"));
    let output = upgrade.await.expect("no panic");
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{text}\n{}", server.stderr());
    let process = text.split("process ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let process: u32 = process.expect("it is named").parse().expect("a number");
    let _ended = EndedWithTest(process);
    assert!(server.until_ended().await.success(), "the first one has ended: {}", server.stderr());
    for client in [client, server.client("localhost")] {
        client.search(Era::Modern, "", "any").await.data();
    }
    assert_eq!(server.status().await["state"], "serving");
    let ended = Command::new("kill").arg(process.to_string()).status();
    assert!(ended.is_ok_and(|status| status.success()), "process {process} serves");
    Gateway::until_process_ended(process).await;
}

/// A process that is no child of the test.
struct EndedWithTest(u32);

impl Drop for EndedWithTest {
    fn drop(&mut self) {
        let _ended = Command::new("kill")
            .args(["-9", &self.0.to_string()])
            .stderr(std::process::Stdio::null())
            .status();
    }
}
