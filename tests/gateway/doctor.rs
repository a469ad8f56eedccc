//! `tenantd doctor`: the world is broken in each way that the vendor's guide and ours know, and its
//! verdict is read.

mod machine;
mod nginx_configuration;
mod proxies;
mod worlds;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::harness::entra::FakeEntra;
use super::harness::gateway::BINARY;
use super::harness::{FakeBackend, Gateway, Setup, Tenant, secret};

/// The key of a tenant's callers.
pub(crate) const KEY: &str = "the-key-of-a-caller-0123456789";

/// How the tenant behind a proxy is guarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    Login,
    Key,
    Open,
}

/// Returns what a tenant's file has of a key.
pub(crate) fn digest(key: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Starts a gateway with the tenant `a`, at which people log in.
async fn serve_with_login(entra: &FakeEntra, backend: &FakeBackend) -> Gateway {
    let gateway = Setup::new()
        .flag("--entra-authority", &entra.authority())
        .file("a.yaml", Tenant::new("a", backend).with(&entra.lines()).yaml())
        .start()
        .await;
    gateway.until_state("a", "serving").await;
    gateway
}

/// What the doctor said.
#[derive(Debug)]
pub(crate) struct Said {
    code: Option<i32>,
    report: Value,
}

/// A run of `tenantd doctor`.
pub(crate) struct Doctor {
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    /// What it runs through: a shell in namespaces of its own, another user.
    through: Vec<String>,
}

impl Doctor {
    /// Asks without a gateway.
    pub(crate) fn new(arguments: &[&str]) -> Self {
        let all = ["doctor", "--format", "json", "--backend-allow", "127.0.0.0/8"];
        let arguments = all.iter().chain(arguments).map(|&argument| argument.to_owned()).collect();
        Self { arguments, variables: Vec::new(), through: Vec::new() }
    }

    /// Asks beside a running gateway.
    pub(crate) fn beside(gateway: &Gateway, arguments: &[&str]) -> Self {
        let admin = gateway.admin_address().to_string();
        Self::new(&[&["--admin", admin.as_str()], arguments].concat())
    }

    pub(crate) fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Lets it run in namespaces of its own (`unshare`), after these lines of a shell. With one for
    /// processes, what the lines start ends with it.
    fn inside(mut self, namespaces: &[&str], lines: &str) -> Self {
        let script = format!("PATH=/usr/sbin:/usr/bin:/sbin:/bin\n{lines}\nexec \"$@\"");
        let shell =
            [&["/usr/bin/unshare"][..], namespaces, &["--", "/bin/sh", "-ec", &script, "sh"]].concat();
        self.through.extend(shell.into_iter().map(str::to_owned));
        self
    }

    /// Lets it run as the user `nobody`.
    fn run_by_nobody(mut self) -> Self {
        let user = ["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        self.through.extend(user.map(str::to_owned));
        self
    }

    pub(crate) fn trusting(self, certificate: &Path) -> Self {
        self.variable("SSL_CERT_FILE", certificate.display().to_string())
    }

    pub(crate) async fn ask(self) -> Said {
        let running = tokio::task::spawn_blocking(move || {
            let mut words = self.through;
            words.push(BINARY.to_owned());
            words.extend(self.arguments);
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).env_clear().envs(self.variables);
            command.output().expect("the binary runs")
        });
        let output = running.await.expect("it runs");
        let [out, error] =
            [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        secret::assert_none("the doctor's verdicts", &out);
        secret::assert_none("the doctor's warnings", &error);
        let report = serde_json::from_str(&out).unwrap_or_else(|_| panic!("no report: {out}\n{error}"));
        Said { code: output.status.code(), report }
    }
}

impl Said {
    pub(crate) fn verdicts(&self) -> &Vec<Value> {
        self.report["verdicts"].as_array().expect("a list")
    }

    /// The codes of verdicts with this outcome.
    fn codes(&self, outcome: &str) -> Vec<&str> {
        let found = self.verdicts().iter().filter(|verdict| verdict["outcome"] == outcome);
        found.map(|verdict| verdict["code"].as_str().expect("a code")).collect()
    }

    pub(crate) fn faults(&self) -> Vec<&str> {
        self.codes("fault")
    }

    /// Returns the verdict with this code.
    pub(crate) fn verdict(&self, code: &str) -> &Value {
        let found = self.verdicts().iter().find(|verdict| verdict["code"] == code);
        found.unwrap_or_else(|| panic!("no {code} in {:#}", self.report))
    }

    /// Asserts that there is a fault with this code that says what it means and what to do.
    fn assert_fault(&self, code: &str) -> &Value {
        let verdict = self.verdict(code);
        assert_eq!(verdict["outcome"], "fault", "{verdict:#}");
        assert!(verdict["advice"].as_str().is_some_and(|text| !text.is_empty()), "{verdict:#}");
        assert_eq!((self.code, &self.report["outcome"]), (Some(1), &"fault".into()), "{code}");
        verdict
    }
}
