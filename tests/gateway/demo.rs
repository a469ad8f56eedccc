//! `tenantd demo` as a newcomer uses it: the printed commands are pasted into a shell.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::harness::gateway::BINARY;
use super::harness::until;

/// A running demo. Dropping it stops the process.
struct Demo {
    folder: tempfile::TempDir,
    child: Child,
}

impl Demo {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let output = File::create(folder.path().join("output.log")).expect("made");
        let child = Command::new(BINARY)
            .args(["demo", "--port", "0", "--dir"])
            .arg(folder.path().join("a demo"))
            .env_clear()
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .expect("the binary starts");
        Self { folder, child }
    }

    fn printed(&self) -> String {
        fs::read_to_string(self.folder.path().join("output.log")).unwrap_or_default()
    }

    async fn until_announced(&self) -> String {
        until("the demo says how to use it", async || {
            let text = self.printed();
            text.contains("Stop with Ctrl-C").then_some(text)
        })
        .await
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the demo printed:\n{}", self.printed());
        }
    }
}

/// Returns the printed lines from the one that starts with `beginning` to the next empty line.
fn block<'a>(text: &'a str, beginning: &str) -> &'a str {
    let at =
        text.find(&format!("\n{beginning}")).unwrap_or_else(|| panic!("nothing begins with {beginning}"));
    text[at..].trim_start().split("\n\n").next().unwrap_or_default()
}

fn shell(script: &str, folder: &Path) -> String {
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(folder)
        .env_remove("SSL_CERT_FILE")
        .stderr(Stdio::inherit())
        .output()
        .expect("a shell");
    assert!(output.status.success(), "{script}\nended with {}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn what_it_prints_works_when_pasted() {
    let demo = Demo::start();
    let text = demo.until_announced().await;
    for expected in ["sales", "support", "NODE_EXTRA_CA_CERTS=", "\"mcpServers\""] {
        assert!(text.contains(expected), "the demo does not print {expected}");
    }
    let answer =
        shell(&format!("{} --silent --show-error --max-time 30", block(&text, "curl ")), demo.folder.path());
    let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert_eq!(answer["result"]["isError"], false, "{answer}");
    let rows = answer["result"]["structuredContent"]["data"]["rows"].as_array().expect("rows").len();
    assert!(rows > 1, "the sample API has no answer to its own question: {answer}");
    // The last line of the block lists the tenants; the new one may or may not be among them yet.
    let (copy, list) = block(&text, "cp ").split_once('\n').expect("two lines");
    shell(copy, demo.folder.path());
    until("the third tenant is served", async || {
        let listed = shell(list, demo.folder.path());
        listed.lines().any(|line| line.contains("inventory") && line.contains("serving")).then_some(())
    })
    .await;
}
