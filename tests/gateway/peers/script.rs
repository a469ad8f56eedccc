//! A client as a running process that executes orders: one JSON object a line in, one out
//! (`tests/peers/README.md`).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::library::Library;
use crate::harness::secret;

/// How long an answer may take: starting an interpreter on a busy machine is in it, and a framework takes seconds.
const PATIENCE: Duration = Duration::from_secs(180);

/// A running script. Dropping it kills the process and searches its error output for secrets.
pub(super) struct Script {
    name: &'static str,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    folder: TempDir,
    /// Kills the process when dropped.
    _child: Child,
}

impl Script {
    /// Starts the script of a library, with a CA to trust and an optional API key.
    pub(super) fn start(library: &Library, ca: &Path, key: Option<&str>) -> Self {
        Self::run(library.name, |folder| {
            let mut command = library.command(folder);
            command
                .env_clear()
                .envs(library.variables(folder))
                .envs([("NODE_EXTRA_CA_CERTS", ca), ("SSL_CERT_FILE", ca)])
                .envs(key.map(|key| ("PEER_KEY", key)));
            command
        })
    }

    /// Starts a program that executes orders, in a folder of its own.
    pub(super) fn run(name: &'static str, command: impl FnOnce(&Path) -> Command) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = command(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.path().join("complaints")).expect("made"))
            .kill_on_drop(true)
            .spawn()
            .expect("the interpreter starts");
        let orders = child.stdin.take().expect("it is piped");
        let answers = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { name, orders, answers, folder, _child: child }
    }

    /// Gives an order and returns the reply.
    pub(super) async fn ask(&mut self, order: Value) -> Value {
        self.tell(order).await;
        self.answer().await
    }

    /// Gives an order.
    pub(super) async fn tell(&mut self, order: Value) {
        let line = format!("{order}\n");
        let told = self.orders.write_all(line.as_bytes()).await;
        told.unwrap_or_else(|error| panic!("{} takes no order: {error}\n{}", self.name, self.complaints()));
    }

    /// Returns the reply to the last order.
    pub(super) async fn answer(&mut self) -> Value {
        self.answer_within(PATIENCE).await
    }

    pub(super) async fn answer_within(&mut self, patience: Duration) -> Value {
        let line = tokio::time::timeout(patience, self.answers.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("{} does not answer\n{}", self.name, self.complaints()));
        let line = line.expect("its output is text");
        let line = line.unwrap_or_else(|| panic!("{} ended\n{}", self.name, self.complaints()));
        secret::assert_none(self.name, &line);
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{}: {error}: {line}", self.name))
    }

    /// Calls the search tool and returns the reply.
    pub(super) async fn search(&mut self, query: &str) -> Value {
        self.ask(search(query)).await
    }

    fn complaints(&self) -> String {
        fs::read_to_string(self.folder.path().join("complaints")).unwrap_or_default()
    }
}

/// Returns the command that runs a script.
pub(super) fn command(interpreter: PathBuf, script: &Path) -> Command {
    let mut command = Command::new(interpreter);
    command.arg(script);
    command
}

/// Returns the order to call the search tool.
pub(super) fn search(query: &str) -> Value {
    json!({ "do": "call", "name": "search", "arguments": { "query": query } })
}

impl Drop for Script {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            secret::assert_none(self.name, &self.complaints());
        }
    }
}
