//! `tenantd check` against files, real backends and a running gateway.

use std::net::SocketAddr;
use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::command_line::{printed, run};
use super::harness::gateway::BINARY;
use super::harness::secret::{self, secret};
use super::harness::{FakeBackend, Reply, Setup, Tenant};

/// Runs `check --live` for one tenant. Returns its output and exit code.
async fn live(tenant: Tenant, more: &[&str]) -> (String, Option<i32>) {
    let output = checked(tenant, &[&["--live"], more].concat()).await;
    (printed(&output), output.status.code())
}

async fn checked(tenant: Tenant, more: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.yaml");
    std::fs::write(&file, tenant.yaml()).expect("written");
    let more: Vec<String> = more.iter().map(|&argument| argument.to_owned()).collect();
    let running = tokio::task::spawn_blocking(move || {
        let file = file.display().to_string();
        let mut arguments = vec!["check", &file, "--backend-allow", "127.0.0.0/8", "--host", "mcp.test"];
        arguments.extend(more.iter().map(String::as_str));
        run(&arguments)
    });
    let output = running.await.expect("it runs");
    drop(folder);
    output
}

#[tokio::test]
async fn live_says_what_each_url_of_a_good_backend_answered() {
    let backend = FakeBackend::start().await;
    let (said, code) = live(Tenant::new("a", &backend), &[]).await;
    assert_eq!(code, Some(0), "{said}");
    for wanted in ["a: ok", "live-context", "live-search", "a JSON object of columns, rows", " ms with"] {
        assert!(said.contains(wanted), "no {wanted}: {said}");
    }
    assert!(!said.contains("north"), "data are shown: {said}");
    let asked: Vec<_> = backend.requests().iter().map(|request| request.target.clone()).collect();
    assert!(asked.iter().any(|target| target.starts_with("/nlp-context")), "{asked:?}");
    assert!(asked.iter().any(|target| target.starts_with("/nlp-search")), "{asked:?}");
}

#[tokio::test]
async fn without_live_no_backend_is_called() {
    let backend = FakeBackend::start().await;
    let output = checked(Tenant::new("a", &backend), &[]).await;
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    assert_eq!(backend.counts().connections, 0);
}

#[tokio::test]
async fn live_says_of_each_trouble_what_it_is_and_what_to_do() {
    for (reply, said) in [
        (Reply::Status(401, json!({})), vec!["refused this server's API key", "current API key"]),
        (Reply::Html(200), vec!["not JSON", "not of a web page"]),
        (Reply::Status(503, json!({})), vec!["HTTP 503", "service's log"]),
        (Reply::Status(404, json!({})), vec!["HTTP 404", "search_url and context_url"]),
    ] {
        let backend = FakeBackend::start().await;
        backend.answer("/nlp-search", reply.clone());
        backend.answer("/nlp-context", reply.clone());
        assert_trouble(live(Tenant::new("a", &backend), &[]).await, &said);
    }
}

#[tokio::test]
async fn live_waits_no_longer_than_it_is_told_to() {
    let backend = FakeBackend::start().await;
    backend.answer("/nlp-search", Reply::Hang);
    backend.answer("/nlp-context", Reply::Hang);
    let checking = live(Tenant::new("a", &backend), &["--timeout", "1"]);
    let checked = tokio::time::timeout(Duration::from_secs(20), checking).await;
    assert_trouble(checked.expect("it ends"), &["did not answer in time"]);
}

#[tokio::test]
async fn live_tells_a_refused_connection_an_unknown_name_and_a_wrong_scheme_apart() {
    // A TLS handshake with the plain-HTTP admin listener is answered with an error in plain HTTP.
    let plain = Setup::new().start().await;
    let as_https = Tenant::at("a", &format!("https://{}", plain.admin_address()));
    assert_trouble(live(as_https, &[]).await, &["does not speak TLS", "scheme and the port"]);
    let closed = FakeBackend::start().await.stop().await;
    let refused = live(Tenant::at("a", &format!("http://{closed}")), &[]).await;
    assert_trouble(refused, &[&format!("no connection to {closed} can be opened ("), "firewall"]);
    let unknown = live(Tenant::at("a", "http://portal.invalid"), &[]).await;
    assert_trouble(unknown, &["portal.invalid", "DNS", "/etc/resolv.conf"]);
}

/// What a proxy does with whoever asks it.
#[derive(Debug, Clone, Copy)]
enum ProxyThat {
    IsNotThere,
    WantsALogin,
    NeverAnswers,
}

impl ProxyThat {
    /// Where it is; it lasts as long as what keeps it.
    async fn start(self) -> (SocketAddr, Option<JoinSet<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let mut serving = JoinSet::new();
        match self {
            Self::IsNotThere => return (address, None),
            Self::WantsALogin => serving.spawn(refuse(listener)),
            Self::NeverAnswers => serving.spawn(async move {
                let mut held = Vec::new();
                while let Ok(accepted) = listener.accept().await {
                    held.push(accepted);
                }
            }),
        };
        (address, Some(serving))
    }
}

async fn refuse(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut head = [0; 4096];
        let _read = stream.read(&mut head).await;
        let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"p\"\r\n\
                      Content-Length: 0\r\nConnection: close\r\n\r\n";
        let _sent = stream.write_all(answer.as_bytes()).await;
    }
}

/// `check --live` of a tenant whose backend is behind this proxy.
async fn live_through(proxy: SocketAddr, backend: &str) -> (String, Option<i32>) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("a.yaml"), Tenant::at("a", backend).yaml()).expect("written");
    let proxy = format!("http://ann:{}@{proxy}", secret("proxy"));
    let mut command = std::process::Command::new(BINARY);
    command.args(["check", "--live", "a.yaml", "--host", "mcp.test", "--timeout", "4"]);
    command.current_dir(folder.path()).env_clear().env("HTTPS_PROXY", &proxy).env("HTTP_PROXY", &proxy);
    let running = tokio::task::spawn_blocking(move || command.output().expect("it runs"));
    let output = running.await.expect("it runs");
    drop(folder);
    (printed(&output), output.status.code())
}

#[tokio::test]
async fn live_says_what_is_wrong_with_the_proxy_and_shows_nobody_its_password() {
    let (nowhere, login) = ("opened no connection to it", "requires a user name and a password");
    for (proxy, backend, said) in [
        (ProxyThat::IsNotThere, "http://portal.test", nowhere),
        (ProxyThat::IsNotThere, "https://portal.test", nowhere),
        (ProxyThat::WantsALogin, "http://portal.test", login),
        (ProxyThat::WantsALogin, "https://portal.test", login),
        // Nothing but time tells a proxy that passes a request on from one that does not.
        (ProxyThat::NeverAnswers, "http://portal.test", "did not answer in time"),
        (ProxyThat::NeverAnswers, "https://portal.test", nowhere),
    ] {
        let (address, serving) = proxy.start().await;
        let (printed, code) = live_through(address, backend).await;
        secret::assert_none("check", &printed);
        let through = format!("({backend} through the proxy {address}, after ");
        let lines = printed.lines().filter(|line| line.contains(&through) && line.contains(said)).count();
        assert_eq!(lines, 2, "{proxy:?}, {backend}: one sentence for each of two URLs: {printed}");
        assert_trouble((printed, code), &["HTTPS_PROXY"][..usize::from(said != "did not answer in time")]);
        drop(serving);
    }
}

#[tokio::test]
async fn live_is_told_to_programs_as_findings() {
    let backend = FakeBackend::start().await;
    backend.answer("/nlp-search", Reply::Status(401, json!({})));
    let output = checked(Tenant::new("a", &backend), &["--live", "--format", "json"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    let verdict: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let tenant = &verdict["tenants"][0];
    assert_eq!(tenant["has_answered"], false);
    let findings = tenant["findings"].as_array().expect("findings").iter();
    let seen: Vec<_> = findings.map(|finding| (&finding["code"], &finding["severity"])).collect();
    assert_eq!(json!(seen), json!([["live-context", "notice"], ["live-search", "error"]]));
}

const LOGIN: &str = "oauth_enabled: true\nmicrosoft_client_id: 6731de76-14a6-49ae-97bc-6eba6914391e\n\
    microsoft_client_secret: canary-of-entra-0001\nmicrosoft_tenant_id: contoso.com\n";

/// Runs `check` for a tenant with a login and the given admin address. Returns its output.
async fn check_beside(admin: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let tenant = Tenant::at("a", "https://portal.test").with(LOGIN);
    std::fs::write(folder.path().join("a.yaml"), tenant.yaml()).expect("written");
    let mut command = std::process::Command::new(BINARY);
    command.args(["check", "a.yaml"]).current_dir(folder.path()).env_clear().env("TENANTD_ADMIN", admin);
    let running = tokio::task::spawn_blocking(move || command.output().expect("it runs"));
    printed(&running.await.expect("it runs"))
}

#[tokio::test]
async fn urls_are_those_of_the_gateway_that_runs_or_unknown() {
    let gateway = Setup::new().instead("--host", "mcp.example.test").start().await;
    let said = check_beside(&gateway.admin_address().to_string()).await;
    let base = gateway.base();
    assert!(base.starts_with("https://mcp.example.test:"), "{base}");
    for wanted in [format!("ok, {base}/a/mcp"), format!(": {base}/a/auth/ms-callback\n")] {
        assert!(said.contains(&wanted), "no {wanted:?}: {said}");
    }
    let unknown = check_beside("off").await;
    assert!(unknown.contains("/a/auth/ms-callback (host unknown: give --host NAME"), "{unknown}");
    assert!(!unknown.contains("localhost"), "{unknown}");
}

#[tokio::test]
async fn without_tls_the_same_is_refused_as_by_serve() {
    let setup = Setup::new().instead("--host", "mcp.example.test").flag("--tls", "off");
    let gateway =
        setup.file("a.yaml", Tenant::at("a", "https://portal.test").with(LOGIN).yaml()).start().await;
    let served = gateway.until_state("a", "rejected").await.to_string();
    assert!(served.contains("insecure-public-url"), "{served}");
    let admin = gateway.admin_address().to_string();
    for said in [
        check_beside(&admin).await,
        printed(&checked(Tenant::at("a", "https://portal.test").with(LOGIN), &["--tls", "off"]).await),
    ] {
        assert!(said.contains("insecure-public-url") && said.contains("1 refused"), "{said}");
    }
}

#[tokio::test]
async fn where_backends_may_be_is_judged_as_by_serve() {
    let gateway = Setup::new().flag("--backend-only", "*.listed.test").start().await;
    let beside = check_beside(&gateway.admin_address().to_string()).await;
    let told = checked(Tenant::at("a", "https://portal.test"), &["--backend-only", "*.listed.test"]).await;
    for said in [beside, printed(&told)] {
        assert!(said.contains("backend-unlisted") && said.contains("portal.test"), "{said}");
    }
    let listed = checked(Tenant::at("a", "https://portal.test"), &["--backend-only", "portal.test"]).await;
    assert_eq!(listed.status.code(), Some(0), "{}", printed(&listed));
}

/// Runs `check` for one file in a folder of its own. Returns whether it would be served, and the
/// codes of its findings.
async fn codes_beside(admin: &str, name: &str, bytes: &[u8]) -> (bool, Vec<String>) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join(name), bytes).expect("written");
    let mut command = std::process::Command::new(BINARY);
    command.args(["check", name, "--format", "json"]).current_dir(folder.path());
    command.env_clear().env("TENANTD_ADMIN", admin).env("TENANT_ANY_KEY", secret("variable"));
    let running = tokio::task::spawn_blocking(move || command.output().expect("it runs"));
    let output = running.await.expect("it runs");
    let verdict: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let tenant = &verdict["tenants"][0];
    (tenant["connector"].is_string(), codes(&tenant["findings"]))
}

fn codes(findings: &Value) -> Vec<String> {
    let findings = findings.as_array().expect("findings").iter();
    findings.map(|finding| finding["code"].as_str().expect("a code").to_owned()).collect()
}

#[tokio::test]
async fn what_the_settings_allow_to_tenants_is_judged_as_by_serve() {
    let secrets = tempfile::tempdir().expect("a folder");
    std::fs::write(secrets.path().join("portal.key"), secret("file")).expect("written");
    let root = secrets.path().display().to_string();
    let plain = || Tenant::at("a", "https://portal.test");
    let without_key = |lines: String| {
        let text = String::from_utf8(plain().yaml()).expect("text");
        let rest: Vec<_> = text.lines().filter(|line| !line.starts_with("api_key:")).collect();
        (rest.join("\n") + "\n" + &lines + "\n").into_bytes()
    };
    for (settings, name, bytes, is_served) in [
        ("require_auth: true\n".to_owned(), "a.yaml", plain().yaml(), false),
        (
            "zip_hosts: allow\n".to_owned(),
            "a.zip",
            plain().with("public_url: https://a.example.test").zip(),
            true,
        ),
        (
            format!("secret_root: {root}\n"),
            "a.yaml",
            without_key(format!("api_key_file: {root}/portal.key")),
            true,
        ),
        (
            "confine_tenants: true\n".to_owned(),
            "a.yaml",
            without_key("api_key: ${TENANT_ANY_KEY}".to_owned()),
            false,
        ),
        (
            "limits:\n  request_memory_mib: 8\n".to_owned(),
            "a.yaml",
            plain().with("limits: {max_request: 4MiB}").yaml(),
            true,
        ),
    ] {
        let setup = Setup::new().settings(&settings).variable("TENANT_ANY_KEY", &secret("variable"));
        let gateway = setup.file(name, &bytes).start().await;
        let served = gateway.status("a").await.expect("it was read");
        let by_serve = (served["state"] != "rejected", codes(&served["findings"]));
        assert_eq!(by_serve.0, is_served, "{settings}: {served}");
        let admin = gateway.admin_address().to_string();
        assert_eq!(codes_beside(&admin, name, &bytes).await, by_serve, "{settings}");
        let alone = codes_beside("off", name, &bytes).await;
        assert_ne!(alone, by_serve, "{settings}: the setting decides");
    }
}

#[test]
fn the_installed_settings_are_those_of_etc() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(path("etc/tenantd")).expect("made");
    std::fs::write(path("etc/tenantd/tenantd.yaml"), "host: installed.example.test\nadmin: off\n")
        .expect("written");
    std::fs::write(path("a.yaml"), Tenant::at("a", "https://portal.test").yaml()).expect("written");
    // A folder of the test's own lies over /etc, for the command alone.
    let mut command = std::process::Command::new("unshare");
    command.args(["-rm", "sh", "-ec", "mount --bind etc /etc; exec \"$@\"", "sh", BINARY, "check", "a.yaml"]);
    let may = std::process::Command::new("unshare").args(["-rm", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        return eprintln!("skipped: this user may not mount in a namespace of its own");
    }
    command.current_dir(folder.path()).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let output = command.output().expect("it runs");
    let said = printed(&output);
    assert!(output.status.success(), "{said}");
    for wanted in [
        "checked with the settings in /etc/tenantd/tenantd.yaml",
        "a: ok, https://installed.example.test/a/mcp",
    ] {
        assert!(said.contains(wanted), "no {wanted:?}: {said}");
    }
}

fn assert_trouble((said, code): (String, Option<i32>), wanted: &[&str]) {
    assert_eq!(code, Some(1), "{said}");
    for wanted in wanted.iter().chain(&["live-search", "does not answer"]) {
        assert!(said.contains(wanted), "no {wanted:?}: {said}");
    }
}

#[test]
fn a_file_of_another_user_is_refused_with_the_command_that_helps() {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.zip");
    fs::write(&file, "a zip").expect("written");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("changed");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("changed");
    let mut command = std::process::Command::new(BINARY);
    command.args(["check", &file.display().to_string()]);
    // Root reads any file, so another user runs the program then, as in the image.
    let wanted = match fs::metadata(&file).expect("there").uid() {
        0 => {
            command.uid(65532).gid(65532);
            "the gateway runs as user 65532, and it belongs to user 0 with mode 0600: run `chown 65532` on it"
        }
        _ => {
            fs::set_permissions(&file, Permissions::from_mode(0o000)).expect("changed");
            "it has mode 0000: run `chmod u+r` on it"
        }
    };
    let output = match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            eprintln!("skipped: another user cannot run {BINARY}");
            return;
        }
        other => other.expect("it runs"),
    };
    let said = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error[unreadable]") && said.contains(wanted), "{said}");
}
