//! `tenantd doctor`: the world is broken in each way that the vendor's guide and ours know, and its
//! verdict is read.

mod machine;
mod proxies;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::harness::Gateway;
use super::harness::gateway::BINARY;
use super::harness::secret;

/// What the doctor said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    report: Value,
}

/// A run of `tenantd doctor`.
struct Doctor {
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Doctor {
    /// Asks without a gateway.
    fn new(arguments: &[&str]) -> Self {
        let all = ["doctor", "--format", "json", "--backend-allow", "127.0.0.0/8"];
        let arguments = all.iter().chain(arguments).map(|&argument| argument.to_owned()).collect();
        Self { arguments, variables: Vec::new() }
    }

    /// Asks beside a running gateway.
    fn beside(gateway: &Gateway, arguments: &[&str]) -> Self {
        let admin = gateway.admin_address().to_string();
        Self::new(&[&["--admin", admin.as_str()], arguments].concat())
    }

    fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    fn trusting(self, certificate: &Path) -> Self {
        self.variable("SSL_CERT_FILE", certificate.display().to_string())
    }

    async fn ask(self) -> Said {
        let running = tokio::task::spawn_blocking(move || {
            let mut command = Command::new(BINARY);
            command.args(&self.arguments).env_clear().envs(self.variables);
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
    fn verdicts(&self) -> &Vec<Value> {
        self.report["verdicts"].as_array().expect("a list")
    }

    /// The codes of verdicts with this outcome.
    fn codes(&self, outcome: &str) -> Vec<&str> {
        let found = self.verdicts().iter().filter(|verdict| verdict["outcome"] == outcome);
        found.map(|verdict| verdict["code"].as_str().expect("a code")).collect()
    }

    fn faults(&self) -> Vec<&str> {
        self.codes("fault")
    }

    /// Returns the verdict with this code.
    fn verdict(&self, code: &str) -> &Value {
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
