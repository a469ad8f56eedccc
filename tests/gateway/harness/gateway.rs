//! One running gateway: the real binary as a process of its own, in a folder of its own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::client::Client;
use super::secret;
use super::{PATIENCE, until};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_tenantd");

/// A gateway about to be started.
pub(crate) struct Setup {
    folder: TempDir,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    /// What `prlimit` takes away from it.
    limits: Vec<String>,
    /// Shell lines that come before it, in mounts of its own.
    before: Option<String>,
    /// Where its log goes instead of its output file.
    stderr: Option<File>,
    is_stderr_closed: bool,
}

/// A gateway that serves. When it goes out of scope it is ended, and what it wrote is searched for secrets.
pub(crate) struct Gateway {
    setup: Setup,
    child: Child,
    ready: Value,
}

impl Setup {
    /// A gateway named localhost, on free ports, with an empty tenants folder and TLS of its own.
    pub(crate) fn new() -> Self {
        Self::listening(0)
    }

    /// The same on a port that others know already; 0 is any free one.
    pub(crate) fn listening(port: u16) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("tenants.d")).expect("made");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let flags = [
            // As most operators say it: relative to where it is started.
            ("--tenants", "tenants.d".to_owned()),
            ("--state", path("state")),
            ("--certs", path("certs")),
            ("--ready-file", path("ready.json")),
            ("--listen", format!("127.0.0.1:{port}")),
            ("--admin", "127.0.0.1:0".to_owned()),
            ("--host", "localhost".to_owned()),
            ("--backend-allow", "127.0.0.0/8".to_owned()),
            ("--log", "json".to_owned()),
        ];
        let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
        Self {
            folder,
            flags,
            variables: Vec::new(),
            limits: Vec::new(),
            before: None,
            stderr: None,
            is_stderr_closed: false,
        }
    }

    /// A file in the tenants folder from the start.
    pub(crate) fn file(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        fs::write(self.path().join("tenants.d").join(name), bytes).expect("written");
        self
    }

    /// Lines of the gateway's own configuration file.
    pub(crate) fn settings(mut self, lines: &str) -> Self {
        let file = self.path().join("tenantd.yaml");
        fs::write(&file, lines).expect("written");
        self.flags.extend(["--config".to_owned(), file.display().to_string()]);
        self
    }

    /// A further flag of `serve`.
    pub(crate) fn flag(mut self, flag: &str, value: &str) -> Self {
        self.flags.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    /// Another state folder than its own.
    pub(crate) fn state(self, folder: &str) -> Self {
        self.instead("--state", folder)
    }

    /// Another value of a flag that it has anyway.
    pub(crate) fn instead(mut self, flag: &str, value: &str) -> Self {
        let at = self.flags.iter().position(|given| given == flag).expect("every gateway has it");
        value.clone_into(&mut self.flags[at + 1]);
        self
    }

    /// A variable of its environment.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The hard limit of files that it may open; the soft one is half of it.
    pub(crate) fn open_files(mut self, hard: u32) -> Self {
        self.limits.push(format!("--nofile={}:{hard}", hard / 2));
        self
    }

    /// The most memory that it may have in all; what asks for more fails, as on a machine that has no more.
    pub(crate) fn memory_mib(mut self, mib: u64) -> Self {
        self.limits.push(format!("--data={}", mib << 20));
        self
    }

    /// Runs shell lines before the gateway becomes of that shell. What they mount, the gateway alone sees.
    pub(crate) fn after_mounting(mut self, lines: &str) -> Self {
        self.before = Some(lines.to_owned());
        self
    }

    /// Where its log goes instead of its output file.
    pub(crate) fn stderr(mut self, file: File) -> Self {
        self.stderr = Some(file);
        self
    }

    /// Starts it with standard error closed.
    pub(crate) fn without_stderr(mut self) -> Self {
        self.is_stderr_closed = true;
        self
    }

    /// The folder of everything.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it and waits until it says that it serves.
    pub(crate) async fn start(self) -> Gateway {
        let child = self.spawn();
        let mut gateway = Gateway { setup: self, child, ready: Value::Null };
        gateway.ready = gateway.wait_for_ready_file().await;
        gateway
    }

    /// Starts it in the belief that it refuses; what it says then.
    pub(crate) async fn refusal(self) -> String {
        let child = self.spawn();
        Gateway { setup: self, child, ready: Value::Null }.until_refused().await
    }

    fn spawn(&self) -> Child {
        let log =
            File::options().append(true).create(true).open(self.path().join("output.log")).expect("made");
        let stderr = self.stderr.as_ref().unwrap_or(&log).try_clone().expect("a second handle");
        let limited = (!self.limits.is_empty()).then(|| {
            let mut command = Command::new("prlimit");
            command.args(&self.limits).arg(BINARY);
            command
        });
        let mounted = self.before.as_deref().map(shell);
        let closed = self.is_stderr_closed.then(|| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "exec \"$@\" 2>&-", "sh", BINARY]);
            command
        });
        limited
            .or(mounted)
            .or(closed)
            .unwrap_or_else(|| Command::new(BINARY))
            .arg("serve")
            .args(&self.flags)
            .env_clear()
            .envs(self.variables.iter().cloned())
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(stderr)
            .spawn()
            .expect("the binary starts")
    }
}

/// Whether this user may mount: who may not cannot see these tests fail.
pub(crate) fn may_mount() -> bool {
    Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success())
}

/// A shell with mounts of its own that runs these lines and then becomes the gateway, as the same process.
fn shell(lines: &str) -> Command {
    let script = format!("PATH=/usr/sbin:/usr/bin:/sbin:/bin\n{lines}\nexec \"$@\"");
    let mut command = Command::new("/usr/bin/unshare");
    command.args(["-m", "--", "/bin/sh", "-ec", &script, "sh", BINARY]);
    command
}

impl Gateway {
    /// Runs a command among the gateway's own mounts.
    pub(crate) fn among_its_mounts(&self, command: &str) {
        let pid = self.pid().to_string();
        // Other mounts are entered at their root.
        let script = format!("cd {} && {command}", self.path().display());
        let status = Command::new("nsenter")
            .args(["-t", &pid, "-m", "sh", "-ec", &script])
            .status()
            .expect("nsenter runs");
        assert!(status.success(), "{command}");
    }

    /// Has it look at all tenants, and waits until it has.
    pub(crate) async fn reload(&self) {
        let url = format!("http://{}/-/reload", self.admin_address());
        let answer = reqwest::Client::new().post(url).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
    }

    async fn wait_for_ready_file(&mut self) -> Value {
        let file = self.path().join("ready.json");
        for _ in 0..PATIENCE.as_millis() / 10 {
            if let Ok(text) = fs::read(&file) {
                return serde_json::from_slice(&text).expect("the ready file is JSON");
            }
            let ended = self.child.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "the gateway ended ({ended:?}):\n{}", self.output());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the gateway does not get ready:\n{}", self.output());
    }

    /// A client that trusts this gateway's certificate.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.base(), self.address(), self.ca().as_deref())
    }

    /// A client with a connection of its own and wishes about it, for instance from which address it comes.
    pub(crate) fn client_with(
        &self,
        wishes: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> Client {
        Client::built(self.base(), self.address(), self.ca().as_deref(), wishes)
    }

    /// Where it serves: `https://localhost:PORT`.
    pub(crate) fn base(&self) -> &str {
        self.ready["public_base"].as_str().expect("the ready file names it")
    }

    /// The first public listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.ready["listen"][0].as_str().expect("an address").parse().expect("an address")
    }

    /// The first listener for plain HTTP.
    pub(crate) fn plain_address(&self) -> SocketAddr {
        self.ready["listen_http"][0].as_str().expect("an address").parse().expect("an address")
    }

    /// All public listeners.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let all = self.ready["listen"].as_array().expect("a list").iter();
        all.map(|address| address.as_str().expect("text").parse().expect("an address")).collect()
    }

    /// The admin listener.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.ready["admin"].as_str().expect("an address").parse().expect("an address")
    }

    /// The certificate to trust.
    pub(crate) fn ca(&self) -> Option<PathBuf> {
        self.ready["ca"].as_str().map(PathBuf::from)
    }

    /// A file in its tenants folder.
    pub(crate) fn tenant_file(&self, name: &str) -> PathBuf {
        self.path().join("tenants.d").join(name)
    }

    /// The folder of everything.
    pub(crate) fn path(&self) -> &Path {
        self.setup.path()
    }

    /// Ends it without any warning and starts it again in the same folder, on other ports.
    pub(crate) async fn kill_and_restart(self) -> Self {
        self.killed().start_again().await
    }

    /// Ends it without any warning.
    pub(crate) fn killed(mut self) -> Self {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
        // One that was killed early has none.
        let _none = fs::remove_file(self.path().join("ready.json"));
        self
    }

    /// Starts it in the same folder after it has ended.
    pub(crate) async fn start_again(self) -> Self {
        self.spawned_again().ready().await
    }

    /// The same without waiting for anything.
    pub(crate) fn spawned_again(mut self) -> Self {
        self.child = self.setup.spawn();
        self
    }

    /// Waits until it says that it serves.
    pub(crate) async fn ready(mut self) -> Self {
        self.ready = self.wait_for_ready_file().await;
        self
    }

    /// Starts it in the same folder in the belief that it refuses; what it says then.
    pub(crate) async fn refusal(&mut self) -> String {
        fs::write(self.path().join("output.log"), "").expect("emptied");
        self.child = self.setup.spawn();
        self.until_refused().await
    }

    async fn until_refused(&mut self) -> String {
        assert_eq!(self.until_ended().await.code(), Some(2), "{}", self.output());
        self.output()
    }

    /// Drops a file as a careful operator does: renamed into place.
    pub(crate) fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let draft = self.path().join(format!("{name}.draft"));
        fs::write(&draft, bytes).expect("written");
        fs::rename(draft, self.tenant_file(name)).expect("renamed");
    }

    /// Deletes a file of its tenants folder.
    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.tenant_file(name)).expect("removed");
    }

    /// What the admin listener answers to a GET.
    pub(crate) async fn admin(&self, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.admin_address());
        let response = reqwest::get(url).await.expect("the admin listener answers");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a text");
        secret::assert_none(path, &text);
        (status, text)
    }

    /// The status of one entry, if there is one.
    pub(crate) async fn status(&self, name: &str) -> Option<Value> {
        let (status, text) = self.admin(&format!("/api/tenants/{name}")).await;
        (status == 200).then(|| serde_json::from_str(&text).expect("a status is JSON"))
    }

    /// Waits until an entry is in a state.
    pub(crate) async fn until_state(&self, name: &str, state: &str) -> Value {
        let mut last = None;
        let reached = tokio::time::timeout(PATIENCE, async {
            loop {
                last = self.status(name).await;
                match last.clone().filter(|status| status["state"] == state) {
                    Some(status) => return status,
                    None => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        reached
            .await
            .unwrap_or_else(|_| panic!("{name} does not become {state}: {last:?}\n{}", self.output()))
    }

    /// Waits until there is no such entry.
    pub(crate) async fn until_gone(&self, name: &str) {
        until(&format!("{name} is gone"), async || self.status(name).await.is_none().then_some(())).await;
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The memory that it has now, in MiB.
    pub(crate) fn resident_mib(&self) -> u64 {
        self.status_kib("VmRSS") >> 10
    }

    /// The most memory that it ever had, in MiB.
    pub(crate) fn peak_mib(&self) -> u64 {
        self.status_kib("VmHWM") >> 10
    }

    /// How many threads it has now.
    pub(crate) fn threads(&self) -> u64 {
        self.status_kib("Threads")
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let value = line.and_then(|line| line.split_whitespace().next()).expect("the kernel says it");
        value.parse().expect("a number")
    }

    /// Sends it a signal, by the name `kill` knows.
    pub(crate) fn signal(&self, name: &str) {
        let kill = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.pid())])
            .status()
            .expect("a shell");
        assert!(kill.success(), "the process is there");
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn until_ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the gateway ends", async || child.try_wait().expect("a child can be asked")).await
    }

    /// What it has written to its output so far: all that was logged before what has been seen of it otherwise.
    pub(crate) fn output(&self) -> String {
        self.until_log_is_written();
        fs::read_to_string(self.path().join("output.log")).unwrap_or_default()
    }

    /// Its log is written by a thread of its own, which rests when nothing is left to write.
    fn until_log_is_written(&self) {
        for _ in 0..1_000 {
            if self.state_of_thread("log").is_none_or(|state| state == 'S' || state == 'Z') {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The letter that the kernel has for what a thread does.
    fn state_of_thread(&self, name: &str) -> Option<char> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).ok()?;
        let stat = |task: fs::DirEntry| fs::read_to_string(task.path().join("stat")).ok();
        let marked = format!("({name}) ");
        let of_thread = |stat: String| stat.split_once(&marked)?.1.chars().next();
        tasks.flatten().filter_map(stat).find_map(of_thread)
    }

    /// What was asked for of a tenant, and how it was answered. It logs that with `tenantd::server=debug`.
    pub(crate) fn steps(&self, tenant: &str) -> Vec<String> {
        let output = self.output();
        let lines = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let answered = lines.filter(|line| line["tenant"] == tenant);
        answered.filter_map(|line| Some(format!("{} {}", line["route"].as_str()?, line["status"]))).collect()
    }

    /// Where its state is.
    fn state_folder(&self) -> PathBuf {
        let flags = &self.setup.flags;
        let at = flags.iter().position(|flag| flag == "--state").expect("every gateway has one");
        PathBuf::from(&flags[at + 1])
    }

    /// What it must not have written anywhere: a secret. Keys of certificates and what tenants dropped are other folders.
    fn assert_kept_secrets(&self) {
        secret::assert_none("the gateway's output", &self.output());
        secret::assert_none_below(&self.state_folder());
        for entry in fs::read_dir(self.path().join("tenants.d")).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.to_string_lossy().ends_with(".status.json") {
                let text = fs::read_to_string(&path).unwrap_or_default();
                secret::assert_none(&path.display().to_string(), &text);
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the gateway's output:\n{}", self.output());
        } else {
            self.assert_kept_secrets();
        }
    }
}
