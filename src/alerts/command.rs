//! Tells a command: the event as JSON on its standard input, and its main parts as variables.
//!
//! There is no shell. The command runs in a process group of its own, which is killed as a whole
//! when its time is up. What it prints is read up to a bound and logged only if it fails.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::delivery::DeliveryFailure;
use super::event::Event;
use crate::base::text::clip;
use crate::telemetry::printable::printable;

const TIMEOUT: Duration = Duration::from_secs(10);
/// How much of what a command prints is kept.
const MAX_OUTPUT_BYTES: u64 = 4 << 10;
/// How much of it is in a message.
const MAX_OUTPUT_CHARS: usize = 300;
/// Where programs are looked for, if the gateway itself was given no path.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a command for an event. Returns how it ended, if that is a success.
pub(super) async fn run(arguments: &[String], event: &Event) -> Result<String, DeliveryFailure> {
    let mut child = spawn(arguments, event)?;
    let group = ProcessGroup(child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)));
    let ended = tokio::time::timeout(TIMEOUT, converse(&mut child, event.to_json())).await;
    drop(group);
    // Reaps it, if it was killed.
    let _killed = child.kill().await;
    let late =
        || DeliveryFailure::new(format!("it did not end within {} s and was killed", TIMEOUT.as_secs()));
    let (status, output) =
        ended.map_err(|_| late())?.map_err(|error| DeliveryFailure::new(error.to_string()))?;
    match status.success() {
        true => Ok(status.to_string()),
        false => Err(DeliveryFailure::new(format!("{status}{}", describe_output(&output)))),
    }
}

fn spawn(arguments: &[String], event: &Event) -> Result<Child, DeliveryFailure> {
    let (program, arguments) = arguments.split_first().ok_or_else(|| DeliveryFailure::new("no program"))?;
    let spawned = Command::new(program)
        .args(arguments)
        // The gateway's variables may be secrets of tenants.
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into()))
        .env("NOTIFY_ID", &event.id)
        .env("NOTIFY_KIND", event.kind)
        .env("NOTIFY_STATE", event.state.as_str())
        .env("NOTIFY_SUBJECT", without_nul(&event.subject.name))
        .env("NOTIFY_SUMMARY", without_nul(&event.summary))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    spawned.map_err(|error| DeliveryFailure::new(format!("{program} cannot be started: {error}")))
}

/// No variable can hold a NUL.
fn without_nul(text: &str) -> String {
    text.replace('\0', " ")
}

/// Gives the command its input and waits until it ends. Returns how, and what it printed.
async fn converse(child: &mut Child, input: Vec<u8>) -> std::io::Result<(std::process::ExitStatus, Vec<u8>)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A command that does not read its input is fine.
            let _unread = stdin.write_all(&input).await;
        }
    };
    let ((), out, err, status) = tokio::join!(write, read_start(stdout), read_start(stderr), child.wait());
    Ok((status?, [out, err].concat()))
}

/// Reads a stream to its end and keeps its beginning.
async fn read_start(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let Some(mut stream) = stream else { return Vec::new() };
    let mut kept = Vec::new();
    let _cut = (&mut stream).take(MAX_OUTPUT_BYTES).read_to_end(&mut kept).await;
    let _rest = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    kept
}

fn describe_output(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    match text.trim() {
        "" => String::new(),
        text => format!(": {}", printable(&clip(text, MAX_OUTPUT_CHARS))),
    }
}

/// The processes of one command, which end with it.
struct ProcessGroup(Option<Pid>);

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // Fails if all have ended.
        let _ended = self.0.map(|id| kill_process_group(id, Signal::KILL));
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::alerts::event::EventContext;

    fn event() -> Event {
        let gateway = "https://mcp.example.com".to_owned();
        Event::test(EventContext { at: Timestamp::UNIX_EPOCH, gateway, node: None, missed: 0 })
    }

    async fn run_shell(script: &str) -> Result<String, String> {
        let arguments = ["/bin/sh", "-c", script].map(str::to_owned);
        run(&arguments, &event()).await.map_err(|failure| failure.why)
    }

    #[tokio::test]
    async fn a_command_gets_the_event_and_little_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().display();
        let script = format!("cat > {path}/event; env > {path}/env; echo fine");
        assert_eq!(run_shell(&script).await, Ok("exit status: 0".to_owned()));
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("written");
        let event: serde_json::Value = serde_json::from_str(&read("event")).expect("JSON");
        assert_eq!((&event["kind"], &event["schema"]), (&"test".into(), &1.into()));
        let variables = read("env");
        assert!(variables.contains("NOTIFY_KIND=test") && !variables.contains("HOME="), "{variables}");
    }

    #[tokio::test]
    async fn a_command_that_fails_says_why_and_floods_nobody() {
        let failure = run_shell("yes 'no pager' | head -c 10000000; exit 3").await.expect_err("it fails");
        assert!(failure.starts_with("exit status: 3: no pager"), "{failure}");
        assert!(failure.len() < 2_000, "{}", failure.len());
        let arguments = ["/nowhere/pager".to_owned()];
        let failure = run(&arguments, &event()).await.expect_err("it is not there").why;
        assert!(failure.contains("/nowhere/pager cannot be started"), "{failure}");
    }

    #[tokio::test]
    async fn what_a_command_leaves_behind_is_killed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pid");
        // The process left behind holds no pipe of the command.
        let script = format!("sleep 1000 >/dev/null 2>&1 & echo $! > {}", file.display());
        run_shell(&script).await.expect("it ends well");
        let id = std::fs::read_to_string(&file).expect("written");
        let stat = format!("/proc/{}/stat", id.trim());
        // Killed, and reaped by whoever inherited it, or still waiting for that.
        let is_gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        for _ in 0..500 {
            if is_gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("process {id} lives on");
    }
}
