//! A running gateway: the real binary as a process of its own, in a folder of its own.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
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

/// Returns the program that gateways on machines of their own run: the one that was built with the
/// tests, unless the environment names another.
pub(crate) fn binary() -> String {
    std::env::var("TENANTD_TEST_BINARY").unwrap_or_else(|_| BINARY.to_owned())
}

/// The configuration of a gateway that is about to start.
pub(crate) struct Setup {
    folder: TempDir,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    /// Arguments of `prlimit`.
    limits: Vec<String>,
    /// Shell lines to run before the gateway, in a mount namespace of its own.
    before: Option<String>,
    /// The process with whose network the gateway lives.
    network: Option<u32>,
    /// The file that receives the log instead of `output.log`.
    stderr: Option<File>,
    is_stderr_closed: bool,
    /// A listening socket that the gateway inherits.
    socket: Option<TcpListener>,
    /// The address on which systemd waits for the first connection.
    activated_on: Option<String>,
}

/// A serving gateway. Dropping it stops the process and searches its output for secrets.
pub(crate) struct Gateway {
    setup: Setup,
    child: Child,
    /// The processes to which it was upgraded, the last one last. They are no children of the test.
    successors: Vec<u32>,
    ready: Value,
}

impl Setup {
    /// Configures a gateway with the host `localhost`, free ports, an empty tenants folder and
    /// self-signed TLS.
    pub(crate) fn new() -> Self {
        Self::listening(0)
    }

    /// The same on a port that is known beforehand; 0 means any free one.
    pub(crate) fn listening(port: u16) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("tenants.d")).expect("made");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let flags = [
            // Relative to the working directory, as most operators write it.
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
            network: None,
            stderr: None,
            is_stderr_closed: false,
            socket: None,
            activated_on: None,
        }
    }

    /// Adds a file to the tenants folder.
    pub(crate) fn file(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        fs::write(self.path().join("tenants.d").join(name), bytes).expect("written");
        self
    }

    /// Adds lines to the gateway's configuration file.
    pub(crate) fn settings(mut self, lines: &str) -> Self {
        let file = self.path().join("tenantd.yaml");
        fs::write(&file, lines).expect("written");
        self.flags.extend(["--config".to_owned(), file.display().to_string()]);
        self
    }

    /// Adds a flag of `serve`.
    pub(crate) fn flag(mut self, flag: &str, value: &str) -> Self {
        self.flags.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    /// Sets another state folder.
    pub(crate) fn state(self, folder: &str) -> Self {
        self.instead("--state", folder)
    }

    /// Replaces the value of a flag that is set by default.
    pub(crate) fn instead(mut self, flag: &str, value: &str) -> Self {
        let at = self.flags.iter().position(|given| given == flag).expect("every gateway has it");
        value.clone_into(&mut self.flags[at + 1]);
        self
    }

    /// Leaves out a flag that is set by default, with its value.
    pub(crate) fn without(mut self, flag: &str) -> Self {
        let at = self.flags.iter().position(|given| given == flag).expect("every gateway has it");
        self.flags.drain(at..at + 2);
        self
    }

    /// Sets an environment variable.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the hard limit of open files; the soft limit is half of it.
    pub(crate) fn open_files(mut self, hard: u32) -> Self {
        self.limits.push(format!("--nofile={}:{hard}", hard / 2));
        self
    }

    /// Limits the total memory. Allocations above it fail, as on a machine without more memory.
    pub(crate) fn memory_mib(mut self, mib: u64) -> Self {
        self.limits.push(format!("--data={}", mib << 20));
        self
    }

    /// Runs shell lines in the mount namespace of the gateway before it starts. Only the gateway
    /// sees what they mount.
    pub(crate) fn after_mounting(mut self, lines: &str) -> Self {
        self.before = Some(lines.to_owned());
        self
    }

    /// Starts the gateway in the network namespace of a process.
    pub(crate) fn in_network_of(mut self, pid: u32) -> Self {
        self.network = Some(pid);
        self
    }

    /// Sends the log to `file` instead of `output.log`.
    pub(crate) fn stderr(mut self, file: File) -> Self {
        self.stderr = Some(file);
        self
    }

    /// Starts the gateway with standard error closed.
    pub(crate) fn without_stderr(mut self) -> Self {
        self.is_stderr_closed = true;
        self
    }

    /// Hands a listening socket over to the gateway, as systemd does (`sd_listen_fds(3)`).
    pub(crate) fn inheriting(mut self, socket: &TcpListener) -> Self {
        self.socket = Some(socket.try_clone().expect("a second handle"));
        self
    }

    /// Has systemd open the port and start the gateway for the first connection.
    pub(crate) fn activated_on(mut self, address: &str) -> Self {
        self.activated_on = Some(address.to_owned());
        self
    }

    /// Returns the folder that contains everything.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the gateway and waits until it serves.
    pub(crate) async fn start(self) -> Gateway {
        let child = self.spawn();
        let mut gateway = Gateway { setup: self, child, successors: Vec::new(), ready: Value::Null };
        gateway.ready = gateway.wait_for_ready_file().await;
        gateway
    }

    /// Starts a gateway that cannot serve yet; [`Gateway::ready`] waits for it.
    pub(crate) fn start_unready(self) -> Gateway {
        let child = self.spawn();
        Gateway { setup: self, child, successors: Vec::new(), ready: Value::Null }
    }

    /// Starts a gateway that is expected to refuse to start. Returns its output.
    pub(crate) async fn refusal(self) -> String {
        let child = self.spawn();
        Gateway { setup: self, child, successors: Vec::new(), ready: Value::Null }.until_refused().await
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
        // The socket is standard input until the shell makes it the first descriptor after the
        // three that every process has.
        let handed_over = self.socket.is_some().then(|| {
            let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script, "sh", BINARY]);
            command
        });
        let activated = self.activated_on.as_ref().map(|address| {
            let mut command = Command::new("systemd-socket-activate");
            command.args(["--listen", address, BINARY]);
            command
        });
        let elsewhere = self.network.map(|pid| {
            let mut command = Command::new("/usr/bin/nsenter");
            command.args(["-t", &pid.to_string(), "-n", "--", &binary()]);
            command
        });
        let stdin = self.socket.as_ref().map(|socket| socket.try_clone().expect("a second handle"));
        limited
            .or(mounted)
            .or(closed)
            .or(handed_over)
            .or(activated)
            .or(elsewhere)
            .unwrap_or_else(|| Command::new(BINARY))
            .arg("serve")
            .args(&self.flags)
            .env_clear()
            .envs(self.variables.iter().cloned())
            .current_dir(self.path())
            .stdin(stdin.map_or_else(Stdio::null, |socket| OwnedFd::from(socket).into()))
            .stdout(log)
            .stderr(stderr)
            .spawn()
            .expect("the binary starts")
    }
}

/// Returns whether this user may mount. Tests that must mount are skipped otherwise.
pub(crate) fn may_mount() -> bool {
    Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success())
}

/// Returns a shell in a mount namespace of its own that runs these lines and then replaces itself
/// with the gateway (`exec`).
fn shell(lines: &str) -> Command {
    let script = format!("PATH=/usr/sbin:/usr/bin:/sbin:/bin\n{lines}\nexec \"$@\"");
    let mut command = Command::new("/usr/bin/unshare");
    command.args(["-m", "--", "/bin/sh", "-ec", &script, "sh", BINARY]);
    command
}

impl Gateway {
    /// Runs a command in the gateway's mount namespace.
    pub(crate) fn among_its_mounts(&self, command: &str) {
        let pid = self.pid().to_string();
        // `nsenter` starts in the root of the namespace.
        let script = format!("cd {} && {command}", self.path().display());
        let status = Command::new("nsenter")
            .args(["-t", &pid, "-m", "sh", "-ec", &script])
            .status()
            .expect("nsenter runs");
        assert!(status.success(), "{command}");
    }

    /// Reloads all tenants and waits until that is done.
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
            let is_gone = ended.is_some() && self.successors.is_empty();
            assert!(!is_gone, "the gateway ended ({ended:?}):\n{}", self.output());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the gateway does not get ready:\n{}", self.output());
    }

    /// Returns a client that trusts this gateway's certificate.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.base(), self.address(), self.ca().as_deref())
    }

    /// Returns a client with a connection of its own and a changed configuration, e.g. another
    /// source address.
    pub(crate) fn client_with(
        &self,
        wishes: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> Client {
        Client::built(self.base(), self.address(), self.ca().as_deref(), wishes)
    }

    /// Returns the public base URL: `https://localhost:PORT`.
    pub(crate) fn base(&self) -> &str {
        self.ready["public_base"].as_str().expect("the ready file names it")
    }

    /// Returns the address of the first public listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.ready["listen"][0].as_str().expect("an address").parse().expect("an address")
    }

    /// Returns the address of the first plain-HTTP listener.
    pub(crate) fn plain_address(&self) -> SocketAddr {
        self.ready["listen_http"][0].as_str().expect("an address").parse().expect("an address")
    }

    /// Returns the addresses of all public listeners.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let all = self.ready["listen"].as_array().expect("a list").iter();
        all.map(|address| address.as_str().expect("text").parse().expect("an address")).collect()
    }

    /// Returns the address of the admin listener.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.ready["admin"].as_str().expect("an address").parse().expect("an address")
    }

    /// Returns the path of the certificate to trust.
    pub(crate) fn ca(&self) -> Option<PathBuf> {
        self.ready["ca"].as_str().map(PathBuf::from)
    }

    /// Returns the path of a file in the tenants folder.
    pub(crate) fn tenant_file(&self, name: &str) -> PathBuf {
        self.path().join("tenants.d").join(name)
    }

    /// Returns the folder that contains everything.
    pub(crate) fn path(&self) -> &Path {
        self.setup.path()
    }

    /// Kills the process and starts it again in the same folder, on other ports.
    pub(crate) async fn kill_and_restart(self) -> Self {
        self.killed().start_again().await
    }

    /// Kills the process (SIGKILL).
    pub(crate) fn killed(mut self) -> Self {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
        // A process that was killed early has written no ready file.
        let _none = fs::remove_file(self.path().join("ready.json"));
        self
    }

    /// Starts the gateway in the same folder after it has ended, and waits until it serves.
    pub(crate) async fn start_again(self) -> Self {
        self.spawned_again().ready().await
    }

    /// The same without waiting.
    pub(crate) fn spawned_again(mut self) -> Self {
        self.child = self.setup.spawn();
        self
    }

    /// Whether the gateway has said that it serves.
    pub(crate) fn is_ready_file_written(&self) -> bool {
        self.path().join("ready.json").exists()
    }

    /// Waits until the gateway serves.
    pub(crate) async fn ready(mut self) -> Self {
        self.ready = self.wait_for_ready_file().await;
        self
    }

    /// Starts it in the same folder, expecting it to refuse to start. Returns its output.
    pub(crate) async fn refusal(&mut self) -> String {
        fs::write(self.path().join("output.log"), "").expect("emptied");
        self.child = self.setup.spawn();
        self.until_refused().await
    }

    async fn until_refused(&mut self) -> String {
        assert_eq!(self.until_ended().await.code(), Some(2), "{}", self.output());
        self.output()
    }

    /// Puts a file into the tenants folder as a careful operator does: by renaming it into place.
    pub(crate) fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let draft = self.path().join(format!("{name}.draft"));
        fs::write(&draft, bytes).expect("written");
        fs::rename(draft, self.tenant_file(name)).expect("renamed");
    }

    /// Deletes a file from the tenants folder.
    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.tenant_file(name)).expect("removed");
    }

    /// Sends a GET to the admin listener. Returns status and body.
    pub(crate) async fn admin(&self, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.admin_address());
        let response = reqwest::get(url).await.expect("the admin listener answers");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a text");
        secret::assert_none(path, &text);
        (status, text)
    }

    /// Returns the status of an entry, if it exists.
    pub(crate) async fn status(&self, name: &str) -> Option<Value> {
        let (status, text) = self.admin(&format!("/api/tenants/{name}")).await;
        (status == 200).then(|| serde_json::from_str(&text).expect("a status is JSON"))
    }

    /// Waits until an entry is in `state`. Returns its status.
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

    /// Waits until an entry no longer exists.
    pub(crate) async fn until_gone(&self, name: &str) {
        until(&format!("{name} is gone"), async || self.status(name).await.is_none().then_some(())).await;
    }

    /// Returns the process id, after an upgrade that of the process that serves.
    pub(crate) fn pid(&self) -> u32 {
        self.successors.last().copied().unwrap_or_else(|| self.child.id())
    }

    /// Runs `tenantd upgrade`. Returns its exit code and what it printed.
    pub(crate) async fn try_upgrade(&self, args: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(BINARY);
        command.arg("upgrade").arg("--state").arg(self.state_folder()).args(args).current_dir(self.path());
        let run = tokio::task::spawn_blocking(move || command.output().expect("the binary starts"));
        let output = run.await.expect("it does not panic");
        let texts = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        secret::assert_none("tenantd upgrade", &texts.concat());
        (output.status.code(), texts.concat())
    }

    /// Upgrades to another program, and from then on speaks of the process that it became.
    pub(crate) async fn upgrade(&mut self, args: &[&str]) -> String {
        let (code, text) = self.try_upgrade(args).await;
        assert_eq!(code, Some(0), "{text}\n{}", self.output());
        let serving = text.split("process ").nth(1).and_then(|rest| rest.split_whitespace().next());
        self.successors.push(serving.expect("it is named").parse().expect("a number"));
        text
    }

    /// Whether this is the process that the test started.
    pub(crate) fn is_first_process(&self, pid: u32) -> bool {
        self.child.id() == pid
    }

    /// Speaks of another process from now on.
    pub(crate) fn succeeded_by(&mut self, pid: u32) {
        self.successors.push(pid);
    }

    /// Waits until the process that was started first has ended.
    pub(crate) async fn until_first_process_ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the first process ends", async || child.try_wait().expect("a child can be asked")).await
    }

    /// Waits until this process is no more. A zombie counts: nobody here can wait for it.
    pub(crate) async fn until_process_ended(pid: u32) {
        until(&format!("process {pid} ends"), async || is_process_over(pid).then_some(())).await;
    }

    /// Returns the resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> u64 {
        self.status_kib("VmRSS") >> 10
    }

    /// Returns the peak resident memory in MiB.
    pub(crate) fn peak_mib(&self) -> u64 {
        self.status_kib("VmHWM") >> 10
    }

    /// Returns the number of threads.
    pub(crate) fn threads(&self) -> u64 {
        self.status_kib("Threads")
    }

    fn status_kib(&self, name: &str) -> u64 {
        self.kib(name).expect("it runs, and the kernel says it")
    }

    fn kib(&self, name: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// Sends a signal, by its name for `kill`.
    pub(crate) fn signal(&self, name: &str) {
        let kill = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.pid())])
            .status()
            .expect("a shell");
        assert!(kill.success(), "the process is there");
    }

    /// Waits until the process has ended.
    pub(crate) async fn until_ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the gateway ends", async || child.try_wait().expect("a child can be asked")).await
    }

    /// Returns its output so far. Everything logged before the call is included.
    pub(crate) fn output(&self) -> String {
        self.until_log_is_written();
        fs::read_to_string(self.path().join("output.log")).unwrap_or_default()
    }

    /// Waits for the log's writer thread, which sleeps when it has written everything.
    fn until_log_is_written(&self) {
        for _ in 0..1_000 {
            if self.state_of_thread("log").is_none_or(|state| state == 'S' || state == 'Z') {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns the kernel's state letter of a thread.
    fn state_of_thread(&self, name: &str) -> Option<char> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).ok()?;
        let stat = |task: fs::DirEntry| fs::read_to_string(task.path().join("stat")).ok();
        let marked = format!("({name}) ");
        let of_thread = |stat: String| stat.split_once(&marked)?.1.chars().next();
        tasks.flatten().filter_map(stat).find_map(of_thread)
    }

    /// Returns the requests for a tenant with their statuses, from the log. They are logged at
    /// `tenantd::server=debug`.
    pub(crate) fn steps(&self, tenant: &str) -> Vec<String> {
        let output = self.output();
        let lines = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let answered = lines.filter(|line| line["tenant"] == tenant);
        answered.filter_map(|line| Some(format!("{} {}", line["route"].as_str()?, line["status"]))).collect()
    }

    /// Returns the state folder.
    fn state_folder(&self) -> PathBuf {
        let flags = &self.setup.flags;
        let at = flags.iter().position(|flag| flag == "--state");
        at.map_or_else(|| self.path().join("state"), |at| PathBuf::from(&flags[at + 1]))
    }

    /// Asserts that it wrote no secret to its output or its state folder. Keys of certificates and
    /// dropped tenants are in other folders.
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

/// Whether a process has ended, waited for or not.
fn is_process_over(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_none_or(|state| state == 'Z')
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // For people to compare; one that ended has none any more.
        if let Some(kib) = self.kib("VmHWM") {
            eprintln!("the gateway had {} MiB at most", kib >> 10);
        }
        for &pid in &self.successors {
            let _ended = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
        }
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
