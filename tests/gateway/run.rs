//! `tenantd run` and `tenantd container` as a customer of the vendor uses them: the guide's
//! commands, variables and unit, the lines that people wait for, and the errors that they search for.

mod upgrade;

use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;

use super::harness::entra::{APP, DIRECTORY, FakeEntra};
use super::harness::gateway::{BINARY, may_mount};
use super::harness::secret::{self, secret};
use super::harness::service_manager::ServiceManager;
use super::harness::{Client, Era, FakeBackend, Setup, Tenant, until};

/// A server that is about to start: a folder with its files, and how the command is called.
struct Customer {
    folder: tempfile::TempDir,
    verb: Vec<String>,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    working_directory: PathBuf,
}

/// A started server. Dropping it stops the process and searches its output for secrets.
struct Server {
    customer: Customer,
    child: Child,
}

impl Customer {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ready = folder.path().join("ready.json").display().to_string();
        let flags = ["--admin", "127.0.0.1:0", "--backend-allow", "127.0.0.0/8", "--ready-file", &ready];
        Self {
            working_directory: folder.path().to_owned(),
            verb: vec!["run".to_owned()],
            flags: flags.map(str::to_owned).to_vec(),
            variables: vec![("TENANTD_LOG_FILTER".to_owned(), "warn".to_owned())],
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, bytes).expect("written");
        self
    }

    /// Unpacks an export as `unzip -d FOLDER` does.
    fn unpacked(self, folder: &str, export: Vec<u8>) -> Self {
        let mut archive = zip::ZipArchive::new(Cursor::new(export)).expect("a zip");
        (0..archive.len()).fold(self, |customer, index| {
            let mut entry = archive.by_index(index).expect("an entry");
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("read");
            customer.file(&format!("{folder}/{}", entry.name().expect("a name")), bytes)
        })
    }

    fn args(mut self, args: &[&str]) -> Self {
        self.flags.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn inside(mut self, folder: &str) -> Self {
        self.working_directory = self.path(folder);
        self
    }

    fn spawn(self) -> Server {
        let output = |name: &str| File::create(self.path(name)).expect("made");
        let child = Command::new(BINARY)
            .args(&self.verb)
            .args(&self.flags)
            .env_clear()
            .envs(self.variables.iter().cloned())
            .current_dir(&self.working_directory)
            .stdin(Stdio::null())
            .stdout(output("stdout"))
            .stderr(output("stderr"))
            .spawn()
            .expect("the binary starts");
        Server { customer: self, child }
    }

    /// Starts it and waits for the line that the guide tells people to wait for.
    async fn start(self) -> Server {
        let mut server = self.spawn();
        until("the server says that it runs", async || {
            let ended = server.child.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "it ended with {ended:?}: {}{}", server.stdout(), server.stderr());
            server.stdout().contains("Uvicorn running on http://0.0.0.0:").then_some(())
        })
        .await;
        server
    }

    /// Starts it and expects it to end. Returns its exit code and what it printed.
    async fn refusal(self) -> (Option<i32>, String) {
        let mut server = self.spawn();
        let code = server.until_ended().await.code();
        let printed = format!("{}{}", server.stdout(), server.stderr());
        (code, server.without_places(&printed))
    }
}

impl Server {
    fn stdout(&self) -> String {
        fs::read_to_string(self.customer.path("stdout")).expect("text")
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.customer.path("stderr")).expect("text")
    }

    fn ready(&self) -> Value {
        let file = fs::read(self.customer.path("ready.json")).expect("it is ready");
        serde_json::from_slice(&file).expect("JSON")
    }

    fn port(&self) -> u16 {
        let listen = self.ready()["listen"][0].as_str().expect("an address").to_owned();
        listen.parse::<SocketAddr>().expect("an address").port()
    }

    /// Returns a client that calls it under any host name.
    fn client(&self, host: &str) -> Client {
        let port = self.port();
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let resolve = |builder: reqwest::ClientBuilder| builder.resolve(host, address);
        Client::built(&format!("http://{host}:{port}"), address, None, resolve)
    }

    async fn status(&self) -> Value {
        let admin = self.ready()["admin"].as_str().expect("an address").to_owned();
        let answer = reqwest::get(format!("http://{admin}/api/tenants")).await.expect("an answer");
        let tenants: Value = serde_json::from_str(&answer.text().await.expect("text")).expect("JSON");
        tenants[0].clone()
    }

    /// Returns the text with placeholders for what differs from run to run.
    fn without_places(&self, text: &str) -> String {
        let folder = self.customer.folder.path().display().to_string();
        let text = text.replace(&folder, "[folder]");
        let text = text.replace(&format!("process [{}]", self.child.id()), "process [PID]");
        match fs::exists(self.customer.path("ready.json")) {
            Ok(true) => text.replace(&self.port().to_string(), "[port]"),
            _ => text,
        }
    }

    fn signal(&self, name: &str) {
        let kill = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status();
        assert!(kill.expect("a shell").success(), "the process is there");
    }

    async fn until_ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the server ends", async || child.try_wait().expect("a child can be asked")).await
    }

    /// Calls it until the backend was called with a key.
    async fn until_key(&self, backend: &FakeBackend, key: &str) {
        until("the backend is called with the key", async || {
            self.client("localhost").search(Era::Modern, "", "any").await.data();
            let requests = backend.requests();
            requests
                .last()
                .and_then(|request| request.header("x-api-key"))
                .filter(|used| used == key)
                .map(drop)
        })
        .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("stdout:\n{}\nstderr:\n{}", self.stdout(), self.stderr());
        } else {
            secret::assert_none("standard output", &self.stdout());
            secret::assert_none("standard error", &self.stderr());
        }
    }
}

/// Returns an export as the portal makes it: its key must be filled in.
fn unfinished(backend: &FakeBackend) -> Vec<u8> {
    Tenant::new("sales", backend).zip_with_key("paste-your-api-key-here")
}

#[tokio::test]
async fn an_unpacked_export_prints_the_guides_lines_and_answers_at_the_root_under_any_host() {
    let backend = FakeBackend::start().await;
    let customer = Customer::new().unpacked("tursio-mcp", Tenant::new("sales", &backend).zip());
    let tree = customer.path("tursio-mcp").display().to_string();
    let mut server = customer.args(&["--port", "0", &tree]).start().await;
    insta::assert_snapshot!("unpacked", server.without_places(&server.stdout()));
    for host in ["localhost", "127.0.0.1", "mcp.example.com"] {
        let answer = server.client(host).search(Era::Modern, "", "any").await;
        assert_eq!(answer.status, 200, "{host}: {}", answer.text);
    }
    assert!(fs::exists(server.customer.path("tursio-mcp/state/tenantd.db")).expect("asked"));
    let log = server.customer.path("tursio-mcp/mcp/run.log");
    assert!(fs::read_to_string(&log).expect("a log file").starts_with(&server.stdout()[..40]));
    server.signal("TERM");
    assert_eq!(server.until_ended().await.code(), Some(0));
    let names: Vec<_> = fs::read_dir(server.customer.folder.path()).expect("listed").flatten().collect();
    assert!(!names.iter().any(|name| name.file_name().to_string_lossy().contains("status")), "{names:?}");
}

#[tokio::test]
async fn the_page_shows_the_url_by_which_it_was_asked_for() {
    let backend = FakeBackend::start().await;
    let customer = Customer::new().file("server.zip", Tenant::new("sales", &backend).zip());
    let server = customer.args(&["--port", "0", "server.zip"]).start().await;
    let port = server.port();
    for (host, is_near) in [("localhost", true), ("mcp.example.com", false), ("localhost", true)] {
        let page = server.client(host).get("/").await.text;
        assert!(page.contains(&format!("<code>http://{host}:{port}/mcp</code>")), "{host}: {page}");
        assert_eq!(page.contains("localhost"), is_near, "{host}: {page}");
        assert_eq!(page.contains("--allow-http"), !is_near, "{host}: {page}");
    }
    drop(server);
    let customer = Customer::new().file("server.zip", Tenant::new("sales", &backend).zip());
    let public = ["--port", "0", "--url", "https://mcp.example.com", "server.zip"];
    let server = customer.args(&public).start().await;
    let page = server.client("other.example").get("/").await.text;
    assert!(page.contains("<code>https://mcp.example.com/mcp</code>"), "{page}");
    assert!(!page.contains("other.example"), "{page}");
}

#[tokio::test]
async fn a_zip_takes_its_values_from_the_containers_variables() {
    let backend = FakeBackend::start().await;
    let customer = Customer::new()
        .file("mcp_export.zip", Tenant::at("sales", "https://<your-tursio-hostname>").zip())
        .variable("MCP_PORT", "0")
        .variable("API_KEY", &secret("variable"))
        .variable("SEARCH_URL", &backend.url("/nlp-search"))
        .variable("CONTEXT_URL", &backend.url("/nlp-context"))
        .variable("PATH_PREFIX", "/tenant-a");
    let zip = customer.path("mcp_export.zip").display().to_string();
    let server = customer.args(&[&zip]).start().await;
    insta::assert_snapshot!("zip", server.without_places(&server.stdout()));
    let answer = server.client("localhost").search(Era::Modern, "/tenant-a", "any").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let used = backend.requests().last().and_then(|request| request.header("x-api-key"));
    assert_eq!(used, Some(secret("variable")));
    assert_eq!(server.client("localhost").search(Era::Modern, "", "any").await.status, 404);
}

#[tokio::test]
async fn a_backend_that_is_down_is_told_and_keeps_nobody_from_serving() {
    let backend = FakeBackend::start().await;
    let export = Tenant::new("sales", &backend).zip();
    backend.stop().await;
    let customer = Customer::new().file("server.zip", export);
    let server = customer.args(&["--port", "0", "server.zip"]).start().await;
    let lines = server.stdout();
    assert!(lines.contains("\nWARNING:root:Semantic context warmup failed: "), "{lines}");
    assert!(!lines.contains("warmup completed"), "{lines}");
    assert_eq!(server.status().await["state"], "degraded");
}

#[tokio::test]
async fn an_unusable_tenant_ends_the_process_with_the_guides_line() {
    let backend = FakeBackend::start().await;
    let good = Tenant::new("sales", &backend);
    let untrained =
        good.zip_with_yaml(&format!("search_url: {}\napi_key: key-0001\n", backend.url("/nlp-search")));
    let empty = good.zip_with_yaml("connection_id: c\n");
    let several = {
        let east = Tenant::new("east", &backend).zip();
        Customer::new().unpacked("tree", east).unpacked("tree", Tenant::new("west", &backend).zip())
    };
    let zip = |bytes: Vec<u8>| Customer::new().file("server.zip", bytes).args(&["server.zip"]);
    let cases: Vec<(&str, Customer)> = vec![
        ("no_zip", Customer::new().args(&["server.zip"])),
        ("no_zip_anywhere", Customer::new()),
        (
            "empty_folder_as_docker_makes_it",
            Customer::new().file("app/server.zip/x", "").args(&["app/server.zip"]),
        ),
        ("no_yaml_in_the_zip", zip(no_yaml())),
        ("no_yaml_in_the_folder", Customer::new().file("tree/mcp/server/configs/x.txt", "").args(&["tree"])),
        ("several_configs", several.args(&["tree", "--log-file", "off"])),
        ("not_a_zip", zip(b"this is not a zip\n".to_vec())),
        ("placeholder_in_the_file", zip(unfinished(&backend))),
        ("placeholder_in_the_variable", zip(good.zip()).variable("API_KEY", "paste-your-api-key-here")),
        ("missing", zip(empty)),
        ("untrained", zip(untrained)),
        (
            "login_incomplete",
            zip(good.zip()).args(&["--oauth"]).variable("PUBLIC_URL", "https://mcp.example.com"),
        ),
        (
            "login_without_url",
            zip(good.zip())
                .args(&["--oauth", "--client-id", APP, "--tenant-id", DIRECTORY])
                .variable("MICROSOFT_CLIENT_SECRET", &secret("entra")),
        ),
        ("oauth_unclear", zip(good.zip()).variable("OAUTH_ENABLED", "perhaps")),
        ("port_is_no_port", zip(good.zip()).variable("MCP_PORT", "eight")),
        ("key_file_missing", zip(good.zip()).variable("API_KEY_FILE", "/nowhere/key")),
        ("url_file_missing", zip(good.zip()).variable("SEARCH_URL_FILE", "/nowhere/url")),
        (
            "key_given_twice",
            zip(good.zip()).variable("API_KEY", "key-1").variable("API_KEY_FILE", "/run/key"),
        ),
        ("bad_setting", zip(good.zip()).args(&["--private-networks", "everywhere"])),
    ];
    let mut all = String::new();
    for (name, customer) in cases {
        let folder = customer.folder.path().to_owned();
        let (code, printed) = customer.refusal().await;
        assert_eq!(code, Some(2), "{name}: {printed}");
        assert!(printed.contains("ERROR: "), "{name}: {printed}");
        assert!(!folder.join("state").exists(), "{name} leaves a state folder");
        all += &format!("=== {name}\n{}\n", printed.replace(&backend.url(""), "[backend]"));
    }
    insta::assert_snapshot!("refusals", all);
}

#[tokio::test]
async fn who_has_the_port_is_named() {
    let backend = FakeBackend::start().await;
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let customer = Customer::new().file("server.zip", Tenant::new("sales", &backend).zip());
    let (code, printed) = customer.args(&["server.zip", "--port", &port]).refusal().await;
    assert_eq!(code, Some(2));
    let expected = format!("ERROR: Port {port} already in use (by ");
    assert!(printed.contains(&expected), "{printed}");
    assert!(printed.contains(&format!(", process {})", std::process::id())), "{printed}");
    assert!(printed.contains("--port") && printed.contains("MCP_PORT="), "{printed}");
}

#[tokio::test]
async fn an_edit_counts_at_once_and_a_bad_one_keeps_the_last_good() {
    let backend = FakeBackend::start().await;
    let good = Tenant::new("sales", &backend);
    let customer = Customer::new().unpacked("tree", good.zip());
    let config = customer.path("tree/mcp/server/configs/sales.yaml");
    let server = customer.args(&["tree", "--port", "0"]).start().await;
    server.until_key(&backend, &secret("sales")).await;
    // As an editor does it: the same file, written anew.
    let edited = String::from_utf8(good.yaml()).expect("text").replace(&secret("sales"), &secret("edited"));
    fs::write(&config, &edited).expect("written");
    server.until_key(&backend, &secret("edited")).await;
    fs::write(&config, edited.replace(&secret("edited"), "paste-your-api-key-here")).expect("written");
    until("the bad edit is refused", async || (server.status().await["state"] == "stale").then_some(()))
        .await;
    server.until_key(&backend, &secret("edited")).await;
}

#[tokio::test]
async fn values_in_files_are_read_again_when_they_change() {
    let backend = FakeBackend::start().await;
    let customer = Customer::new()
        .file("server.zip", unfinished(&backend))
        .file("secrets/key", format!("{}\n", secret("first")))
        .file("secrets/prefix", "/a\n");
    let (key, prefix) = (customer.path("secrets/key"), customer.path("secrets/prefix"));
    let customer = customer
        .variable("API_KEY_FILE", &key.display().to_string())
        .variable("PATH_PREFIX_FILE", &prefix.display().to_string());
    // These files lie anywhere, so only the periodic scan finds that they changed.
    let server = customer.args(&["server.zip", "--port", "0", "--watch", "poll"]).start().await;
    let client = server.client("localhost");
    let until_answered = async |prefix: &str, key: String| {
        until("the new value counts", async || {
            let answer = client.search(Era::Modern, prefix, "any").await;
            let used = backend.requests().last().and_then(|request| request.header("x-api-key"));
            (answer.status == 200 && used.as_ref() == Some(&key)).then_some(())
        })
        .await;
    };
    until_answered("/a", secret("first")).await;
    fs::write(&key, secret("second")).expect("written");
    until_answered("/a", secret("second")).await;
    fs::write(&prefix, "/b").expect("written");
    until_answered("/b", secret("second")).await;
}

#[tokio::test]
async fn the_oauth_block_guards_the_tenant_at_its_public_url() {
    let backend = FakeBackend::start().await;
    let entra = FakeEntra::start(&secret("entra")).await;
    let customer = Customer::new()
        .file("server.zip", Tenant::new("sales", &backend).zip())
        .file("entra", secret("entra"))
        .variable("OAUTH_ENABLED", "true")
        .variable("PUBLIC_URL", "https://mcp.yourcompany.com")
        .variable("MICROSOFT_CLIENT_ID", APP)
        .variable("MICROSOFT_TENANT_ID", DIRECTORY);
    let (secret_file, state) = (customer.path("entra"), customer.path("server.zip/state"));
    let customer = customer
        .variable("MICROSOFT_CLIENT_SECRET_FILE", &secret_file.display().to_string())
        .args(&["server.zip", "--port", "0", "--entra-authority", &entra.authority()])
        // This cannot be a folder.
        .args(&["--state", &state.display().to_string()]);
    let server = customer.start().await;
    assert!(server.stdout().contains("\nStarting server with OAuth on port "), "{}", server.stdout());
    let lost = server.stderr().contains("all logins are lost at the next restart");
    assert!(lost, "no warning: {}", server.stderr());
    let client = server.client("mcp.yourcompany.com");
    let refused = client.search(Era::Modern, "", "any").await;
    assert_eq!(refused.status, 401, "{}", refused.text);
    let metadata = client.get("/.well-known/oauth-authorization-server").await.json();
    assert_eq!(
        metadata["issuer"].as_str().map(|issuer| issuer.trim_end_matches('/')),
        Some("https://mcp.yourcompany.com")
    );
    assert_eq!(server.status().await["redirect_uri"], "https://mcp.yourcompany.com/auth/ms-callback");
    // A rotated client secret is a change of the tenant.
    let revision = server.status().await["in_force"].clone();
    fs::write(&secret_file, secret("rotated")).expect("written");
    until("the rotated secret counts", async || {
        (server.status().await["in_force"] != revision).then_some(())
    })
    .await;
    assert_eq!(server.status().await["state"], "serving");
}

#[tokio::test]
async fn a_secret_on_the_command_line_and_an_unwritable_log_file_are_warned_of() {
    let backend = FakeBackend::start().await;
    let customer = Customer::new().file("server.zip", Tenant::new("sales", &backend).zip());
    let public = ["--oauth", "--url", "http://localhost:8000", "--client-id", APP, "--tenant-id", DIRECTORY];
    let customer = customer
        .args(&["server.zip", "--port", "0", "--log-file", "/nowhere/run.log"])
        .args(&public)
        .args(&["--client-secret", &secret("entra")])
        .variable("MICROSOFT_TENENT_ID", "x");
    let server = customer.start().await;
    let warnings = server.stderr();
    for expected in ["(ps)", "/nowhere/run.log cannot be written", "MICROSOFT_TENENT_ID"] {
        assert_eq!(warnings.matches(expected).count(), 1, "{expected}: {warnings}");
    }
    assert!(!server.stdout().contains("Log file"), "{}", server.stdout());
}

/// The unit of the guide, with only `ExecStart` changed.
fn unit(tree: &Path) -> String {
    format!(
        "[Unit]\nDescription=Tursio MCP Server\nAfter=network.target\n[Service]\nType=simple\nUser=root\n\
         WorkingDirectory={}\nExecStart={BINARY} run\nRestart=on-failure\nRestartSec=5\n[Install]\n\
         WantedBy=multi-user.target\n",
        tree.display()
    )
}

#[tokio::test]
async fn the_guides_unit_starts_it_with_one_line_changed() {
    let backend = FakeBackend::start().await;
    let customer = Customer::new().unpacked("tursio-mcp", Tenant::new("sales", &backend).zip());
    let unit = unit(&customer.path("tursio-mcp"));
    let file = customer.path("tursio-mcp.service");
    fs::write(&file, &unit).expect("written");
    match Command::new("systemd-analyze").arg("verify").arg(&file).output() {
        Ok(verified) => assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr)),
        Err(_) => eprintln!("skipped: there is no systemd-analyze"),
    }
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
    let mut command = line.split(' ').skip(1).map(str::to_owned);
    let mut customer = customer.inside("tursio-mcp").variable("MCP_PORT", "0");
    customer.verb = vec![command.next().expect("a verb")];
    assert_eq!(command.next(), None, "the unit gives nothing else");
    let server = customer.start().await;
    assert!(server.stdout().contains("Auto-detected config: sales\n"), "{}", server.stdout());
    assert_eq!(server.client("localhost").search(Era::Modern, "", "any").await.status, 200);
}

#[tokio::test]
async fn serve_names_the_variables_that_it_does_not_read() {
    let setup = Setup::new().variable("API_KEY", "x").variable("MICROSOFT_TENENT_ID", "x");
    let gateway = setup.start().await;
    let output = gateway.output();
    assert!(output.contains("nothing reads the variables API_KEY, MICROSOFT_TENENT_ID"), "{output}");
}

/// Lines of a shell in a network of its own, with a public address on it, that start the server
/// with the arguments given and call it from there. Prints the statuses: twice from the internet to
/// another address of the machine, then from the machine to its own public address.
const CALLS_FROM_THE_INTERNET: &str = r#"
ip link set lo up
ip addr add 8.8.8.8/32 dev lo
"$@" >stdout 2>stderr &
server=$!
for _ in $(seq 600); do
    grep -q 'Uvicorn running' stdout && break
    kill -0 $server || { cat stdout stderr >&2; exit 1; }
    sleep 0.05
done
status() { curl -s -o answer -w '%{http_code} ' "$@"; grep -o 'private networks only' answer || true; }
status --interface 8.8.8.8 http://127.0.0.1:8000/
status --interface 8.8.8.8 -d '{}' -H 'content-type: application/json' http://127.0.0.1:8000/mcp
status --interface 8.8.8.8 -d '{}' -H 'content-type: application/json' http://127.0.0.1:8000/mcp
curl -s -o answer -w '%{http_code}' http://8.8.8.8:8000/
kill -TERM $server
wait $server
"#;

#[test]
fn an_open_tenant_answers_the_internet_only_if_it_is_public() {
    let has = |tool: &str| Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
    let has_tools = ["ip", "curl"].iter().all(|tool| has(tool).is_ok_and(|found| found.status.success()));
    if !may_mount() || !has_tools {
        eprintln!("skipped: this user may make no network, or there is no ip or curl");
        return;
    }
    for (is_public, expected) in [(false, "403 private networks only"), (true, "200 ")] {
        let customer = Customer::new().file("server.zip", Tenant::at("sales", "http://127.0.0.1:1").zip());
        let customer = customer.args(&["server.zip"]).args(if is_public { &["--public"] } else { &[] });
        let script = ["-n", "--", "/bin/sh", "-ec", CALLS_FROM_THE_INTERNET, "sh", BINARY, "run"];
        let output = Command::new("unshare")
            .args(script)
            .args(&customer.flags)
            .env("TENANTD_LOG_FILTER", "warn")
            .current_dir(&customer.working_directory)
            .output()
            .expect("a shell");
        let statuses = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{statuses}{}", String::from_utf8_lossy(&output.stderr));
        assert!(statuses.starts_with(expected), "{statuses}");
        assert!(statuses.trim_end().ends_with("200"), "a caller on this machine is this machine: {statuses}");
        let log = fs::read_to_string(customer.path("stderr")).expect("text");
        let told = log.matches("a caller from the internet was refused").count();
        assert_eq!(told, usize::from(!is_public), "{log}");
    }
}

#[tokio::test]
async fn it_is_ready_while_its_tenant_is_served() {
    let backend = FakeBackend::start().await;
    let good = Tenant::new("sales", &backend);
    let customer = Customer::new().unpacked("tree", good.zip());
    let config = customer.path("tree/mcp/server/configs/sales.yaml");
    let manager = ServiceManager::start(&customer.path(""));
    let customer = customer.variable("NOTIFY_SOCKET", &manager.socket());
    let mut server = customer.args(&["tree", "--port", "0"]).start().await;
    manager.has_heard("READY=1").await;
    let admin = server.ready()["admin"].as_str().expect("an address").to_owned();
    let readiness = async || {
        let answer = reqwest::get(format!("http://{admin}/readyz")).await.expect("an answer");
        answer.status().as_u16()
    };
    assert_eq!(readiness().await, 200);
    // A change that may concern who may call closes the tenant.
    let broken = format!("{}oauth_enabled: perhaps\n", String::from_utf8(good.yaml()).expect("text"));
    fs::write(&config, broken).expect("written");
    until("it is not ready", async || (readiness().await == 503).then_some(())).await;
    fs::write(&config, good.yaml()).expect("written");
    until("it is ready again", async || (readiness().await == 200).then_some(())).await;
    server.signal("TERM");
    manager.has_heard("STOPPING=1").await;
    assert_eq!(server.until_ended().await.code(), Some(0));
}

#[tokio::test]
async fn the_state_of_several_tenants_is_left_alone() {
    let backend = FakeBackend::start().await;
    let setup = Setup::new()
        .file("a.zip", Tenant::new("a", &backend).zip())
        .file("b.zip", Tenant::new("b", &backend).zip());
    let gateway = setup.start().await;
    gateway.until_state("b", "serving").await;
    let gateway = gateway.killed();
    let state = gateway.path().join("state").display().to_string();
    let customer = Customer::new().file("server.zip", Tenant::new("sales", &backend).zip());
    let (code, printed) = customer.args(&["server.zip", "--port", "0", "--state", &state]).refusal().await;
    assert_eq!(code, Some(2));
    assert!(printed.contains("belongs to a gateway with several tenants (a, b)"), "{printed}");
    let gateway = gateway.start_again().await;
    assert_eq!(gateway.status("a").await.expect("still there")["revision"], 1);
}

/// A root folder as the image has it: the program, its libraries, and nothing to write but /data.
fn container_root(customer: &Customer) -> (String, PathBuf) {
    let root = customer.path("root");
    for folder in ["app", "bin", "data", "dev", "etc", "lib", "lib64", "proc", "usr"] {
        fs::create_dir_all(root.join(folder)).expect("made");
    }
    fs::write(root.join("bin/tenantd"), "").expect("made");
    let mut lines = String::from("PATH=/usr/sbin:/usr/bin:/sbin:/bin\n");
    let shown = root.display();
    for place in ["dev", "etc", "lib", "lib64", "proc", "usr"] {
        lines += &format!("mount --rbind /{place} {shown}/{place}\n");
    }
    lines += &format!("mount --bind {BINARY} {shown}/bin/tenantd\n");
    (lines, root)
}

#[tokio::test]
async fn the_images_command_runs_the_mounted_zip_or_serves_the_folder() {
    if !may_mount() {
        eprintln!("skipped: this user may not mount");
        return;
    }
    let backend = FakeBackend::start().await;
    for (has_zip, expected) in [(true, "Extracting config from /app/server.zip..."), (false, "serving")] {
        let customer = Customer::new();
        let (mounts, root) = container_root(&customer);
        if has_zip {
            fs::write(root.join("app/server.zip"), Tenant::new("sales", &backend).zip()).expect("written");
        }
        let output = File::create(customer.path("output")).expect("made");
        let script = format!("{mounts}exec chroot {} /bin/tenantd container", root.display());
        let mut child = Command::new("unshare")
            .args(["-m", "--", "/bin/sh", "-ec", &script])
            .env_clear()
            .envs([
                ("TENANTD_STATE", "/data/state"),
                ("TENANTD_TENANTS", "/data/tenants.d"),
                ("TENANTD_CERTS", "/data/certs"),
                ("TENANTD_LISTEN", "127.0.0.1:0"),
                ("TENANTD_ADMIN", "off"),
                ("TENANTD_BACKEND_ALLOW", "127.0.0.0/8"),
                ("TENANTD_READY_FILE", "/data/ready.json"),
            ])
            .envs(has_zip.then_some(("MCP_PORT", "0")))
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .expect("a shell");
        let printed = || fs::read_to_string(customer.path("output")).expect("text");
        until(expected, async || printed().contains(expected).then_some(())).await;
        let ready = root.join("data/ready.json");
        let text = until("it serves", async || fs::read_to_string(&ready).ok()).await;
        assert_eq!(text.contains("http://"), has_zip, "{text}");
        // The shell has become the program.
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert!(root.join("data/state/tenantd.db").exists());
    }
}

/// Returns an export without a configuration.
fn no_yaml() -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    archive.start_file("mcp/run.sh", zip::write::SimpleFileOptions::default()).expect("a new name");
    archive.finish().expect("written").into_inner()
}
