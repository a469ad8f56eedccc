//! `tenantd migrate`: installations as the vendor's guide describes them become tenants that answer
//! where they answered before.

pub(crate) mod fixtures;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use fixtures::{HOST, Old};
use serde_json::json;

use super::command_line::{printed, run};
use super::harness::entra::FakeEntra;
use super::harness::login::{App, Browser, Tokens, parameter};
use super::harness::secret::secret;
use super::harness::{Era, FakeBackend, Gateway, Setup, Tenant};

/// Runs `migrate` into a folder.
fn migrate(from: &[&Path], to: &Path, more: &[&str]) -> Output {
    let from: Vec<String> = from.iter().map(|path| path.display().to_string()).collect();
    let to = to.display().to_string();
    let mut arguments = vec!["migrate"];
    arguments.extend(from.iter().map(String::as_str));
    arguments.extend(["--to", &to, "--backend-allow", "127.0.0.0/8", "--host", HOST]);
    run(&[&arguments, more].concat())
}

/// Returns the contents of all files below a folder, with the time of their last change.
fn contents(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("listed").flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false => {
                let changed = fs::metadata(&path).and_then(|about| about.modified()).expect("a time");
                drop(found.insert(path.clone(), (fs::read(&path).expect("read"), changed)));
            }
        }
    }
    found
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .expect("listed")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Returns the lines about a place, without the padding of columns.
fn told(output: &Output, place: &str) -> Vec<String> {
    let text = printed(output);
    let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    text.lines().filter(|line| line.contains(place)).map(squeezed).collect()
}

/// Goes through a whole login at a migrated tenant, and searches.
async fn log_in_and_search(gateway: &Gateway, prefix: &'static str, entra: &FakeEntra) {
    let app = App::registered(gateway, prefix).await;
    let mut browser = Browser::new(gateway);
    let callback = app.log_in_at_microsoft(&mut browser, entra).await;
    // The redirect URI is the registered one, which has no port.
    let old = format!("https://{HOST}");
    assert!(callback.starts_with(&format!("{old}{prefix}/auth/ms-callback?")), "{callback}");
    let back = browser.come_back(&callback.replace(&old, gateway.base())).await;
    let sold = app.redeem(&parameter(&back, "code").expect("a code")).await;
    let client = gateway.client().bearer(&Tokens::of(&sold.json()).access);
    let tools = client.rpc(Era::Modern, &format!("{prefix}/mcp"), "tools/list", json!({})).await.result();
    let names: Vec<_> = tools["tools"].as_array().expect("tools").iter().map(|tool| &tool["name"]).collect();
    assert_eq!(names, ["search", "get_context"]);
    assert_eq!(client.search(Era::Modern, prefix, "q").await.data()["row_count"], 2);
}

#[tokio::test]
async fn compose_stacks_behind_nginx_answer_where_they_answered() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let old = Old::new();
    let base = format!("https://{HOST}");
    for (name, port) in [("tenant-a", 8001), ("tenant-b", 8002)] {
        old.stack(name, port, &base, &entra.lines(), &backend);
    }
    old.nginx();
    let before = contents(old.path());
    let setup = Setup::new().instead("--host", HOST).flag("--entra-authority", &entra.authority());
    let folder = setup.path().join("tenants.d");

    let dry = migrate(&[old.path()], &folder, &["--dry-run"]);
    assert_eq!(names(&folder), [""; 0], "{}", printed(&dry));
    assert!(printed(&dry).contains("tenant-a.zip: would be written"), "{}", printed(&dry));

    let moved = migrate(&[old.path()], &folder, &[]);
    assert_eq!(moved.status.code(), Some(0), "{}", printed(&moved));
    let files = ["env", "key", "secret", "zip"];
    let expected: Vec<_> =
        ["tenant-a", "tenant-b"].iter().flat_map(|name| files.map(|file| format!("{name}.{file}"))).collect();
    assert_eq!(names(&folder), expected);
    for name in names(&folder) {
        let mode = fs::metadata(folder.join(&name)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    for (place, row) in [
        ("tenant-a/.env:6", "kept PLACE PATH_PREFIX=/tenant-a in tenant-a.env"),
        ("tenant-a/.env:3", "kept PLACE API_KEY in tenant-a.key"),
        ("tenant-a/.env:2", "not needed PLACE port 8001 only the proxy used it"),
        (
            "nginx.conf:7",
            "replaced PLACE location /tenant-a -> 127.0.0.1:8001 the gateway answers there with tenant \
             tenant-a",
        ),
    ] {
        let place = old.path().join(place).display().to_string();
        let rows = told(&moved, &format!("{place} "));
        assert!(rows.contains(&row.replace("PLACE", &place)), "{row}: {rows:?} of {}", printed(&moved));
    }
    assert!(
        printed(&moved).contains(&format!("https://{HOST}/tenant-b/auth/ms-callback")),
        "{}",
        printed(&moved)
    );

    let again = migrate(&[old.path()], &folder, &[]);
    assert_eq!(again.status.code(), Some(0), "{}", printed(&again));
    let lines = printed(&again);
    assert_eq!(lines.matches(": already there\n").count(), 8, "{lines}");
    assert!(!lines.contains(": written"), "{lines}");
    assert_eq!(contents(old.path()), before, "a source was touched");

    let gateway = setup.start().await;
    for prefix in ["/tenant-a", "/tenant-b"] {
        let client = gateway.client();
        for path in ["oauth-protected-resource", "oauth-authorization-server", "openid-configuration"] {
            let answer = client.get(&format!("/.well-known/{path}{prefix}")).await;
            assert_eq!(answer.status, 200, "{path}{prefix}: {answer:?}");
            assert!(answer.text.contains(&format!("https://{HOST}{prefix}")), "{answer:?}");
        }
        log_in_and_search(&gateway, prefix, &entra).await;
    }
}

#[tokio::test]
async fn a_unit_with_its_unpacked_export_becomes_a_tenant() {
    let backend = FakeBackend::start().await;
    let old = Old::new();
    old.unit("tursio-mcp", "support", "--port 8000", &backend);
    let setup = Setup::new().instead("--host", HOST);
    let folder = setup.path().join("tenants.d");
    let moved = migrate(&[&old.path().join("tursio-mcp.service")], &folder, &[]);
    // The port is for a person to decide on.
    assert_eq!(moved.status.code(), Some(1), "{}", printed(&moved));
    assert!(printed(&moved).contains("port 8000 is not kept"), "{}", printed(&moved));
    assert!(printed(&moved).contains("systemctl disable --now tursio-mcp"), "{}", printed(&moved));
    assert_eq!(names(&folder), ["support.env", "support.yaml"]);
    let gateway = setup.start().await;
    let answer = gateway.client().search(Era::Modern, "", "q").await;
    assert_eq!(answer.data()["row_count"], 2, "{answer:?}");
}

#[tokio::test]
async fn flags_of_run_sh_and_a_docker_line_are_kept() {
    let backend = FakeBackend::start().await;
    let old = Old::new();
    let client_secret = secret("flag");
    let flags = format!(
        "--port 8001 --oauth --url https://{HOST}/tenant-a --client-id 6731de76-14a6-49ae-97bc-6eba6914391e \
         --client-secret \"{client_secret}\" --tenant-id contoso.com"
    );
    old.unit("tursio-mcp", "support", &flags, &backend);
    old.docker_run("acme", 8005, &backend);
    let folder = old.path().join("tenants.d");
    let moved = migrate(&[old.path()], &folder, &[]);
    assert_eq!(
        names(&folder),
        ["acme.env", "acme.key", "acme.zip", "tenant-a.env", "tenant-a.secret", "tenant-a.yaml"]
    );
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect("read");
    assert_eq!(read("tenant-a.secret").trim(), client_secret);
    assert!(read("tenant-a.env").contains("\nOAUTH_ENABLED=true\n"), "{}", read("tenant-a.env"));
    assert!(!read("tenant-a.env").contains(&client_secret));
    assert!(
        printed(&moved).contains(&format!("https://{HOST}/tenant-a/auth/ms-callback")),
        "{}",
        printed(&moved)
    );
    assert!(printed(&moved).contains("docker stop acme"), "{}", printed(&moved));
}

#[tokio::test]
async fn manifests_with_their_secrets_become_tenants() {
    let backend = FakeBackend::start().await;
    let old = Old::new();
    old.manifests("tenant-a", &backend);
    old.manifests("tenant-b", &backend);
    old.ingress();
    let setup = Setup::new().instead("--host", HOST);
    let folder = setup.path().join("tenants.d");
    let moved = migrate(&[old.path()], &folder, &[]);
    assert_eq!(moved.status.code(), Some(0), "{}", printed(&moved));
    let files = ["env", "key", "zip"];
    let expected: Vec<_> =
        ["tenant-a", "tenant-b"].iter().flat_map(|name| files.map(|file| format!("{name}.{file}"))).collect();
    assert_eq!(names(&folder), expected);
    assert!(
        printed(&moved).contains("scale deployment tursio-mcp-tenant-a --replicas=0"),
        "{}",
        printed(&moved)
    );
    let gateway = setup.start().await;
    for prefix in ["/tenant-a", "/tenant-b"] {
        let answer = gateway.client().search(Era::Modern, prefix, "q").await;
        assert_eq!(answer.data()["row_count"], 2, "{answer:?}");
    }
}

#[tokio::test]
async fn what_a_person_edited_is_not_overwritten_unless_told_to() {
    let backend = FakeBackend::start().await;
    let old = Old::new();
    old.stack("tenant-a", 8001, &format!("https://{HOST}"), "", &backend);
    old.nginx();
    let folder = old.path().join("tenants.d");
    let from = [old.path().join("tenant-a"), old.path().join("nginx.conf")];
    let from: Vec<&Path> = from.iter().map(PathBuf::as_path).collect();
    migrate(&from, &folder, &[]);
    // What was written before is no source, wherever it is.
    let again = migrate(&[old.path()], &folder, &[]);
    assert_eq!(printed(&again).matches(": already there").count(), 3, "{}", printed(&again));
    let edited = "PATH_PREFIX=/elsewhere\n";
    fs::write(folder.join("tenant-a.env"), edited).expect("edited");
    let again = migrate(&from, &folder, &[]);
    assert_eq!(again.status.code(), Some(1), "{}", printed(&again));
    assert!(printed(&again).contains("tenant-a.env: NOT WRITTEN"), "{}", printed(&again));
    assert_eq!(fs::read_to_string(folder.join("tenant-a.env")).expect("read"), edited);
    migrate(&from, &folder, &["--overwrite"]);
    assert!(fs::read_to_string(folder.join("tenant-a.env")).expect("read").contains("PATH_PREFIX=/tenant-a"));
}

#[test]
fn what_cannot_be_read_is_one_line_that_names_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        path
    };
    let to = folder.path().join("tenants.d");
    for (path, place, why) in [
        (file("a.conf", "server {\n listen 80;\n"), ":3", "a block is not closed"),
        (file("b.yaml", "services:\n  x: [\n"), ":2", "this is not YAML"),
        (file("c.env", "API_KEY=\"x\n"), ":1", "a quote is not closed"),
        (file("d.zip", "PK"), "", "not a zip file"),
        (file("e.txt", "hello\n"), "", "none of what can be moved"),
        (file("f.service", "[Service]\nExecStart=/x/run.sh \"a\n"), ":2", "a quote is not closed"),
        (file("g.sh", "docker run -e \"API_KEY=x tursio-mcp\n"), ":1", "a quote is not closed"),
    ] {
        let output = migrate(&[&path], &to, &[]);
        assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
        let place = format!("{}{place} ", path.display());
        let lines = told(&output, &place);
        assert!(lines.len() == 1 && lines[0].contains(why), "{place}: {}", printed(&output));
    }
    let missing = migrate(&[Path::new("/nowhere/at-all")], &to, &[]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(
        printed(&missing).contains("/nowhere/at-all cannot be read: there is no such file"),
        "{}",
        printed(&missing)
    );
    assert!(!to.exists(), "something was left behind");
}

/// Compares one tenant of two gateways.
async fn compare(old: &Gateway, new: &Gateway, more: &[&str]) -> (String, Option<i32>) {
    let url = |gateway: &Gateway| format!("http://{}/a/mcp", gateway.address());
    let (old, new) = (url(old), url(new));
    let more: Vec<String> = more.iter().map(|&argument| argument.to_owned()).collect();
    let running = tokio::task::spawn_blocking(move || {
        let mut arguments = vec!["migrate", "--compare", &old, "--with", &new];
        arguments.extend(more.iter().map(String::as_str));
        let output = run(&arguments);
        (printed(&output), output.status.code())
    });
    running.await.expect("it runs")
}

async fn plain(backend: &FakeBackend, lines: &str) -> Gateway {
    let tenant = Tenant::new("a", backend).with(lines);
    let setup = Setup::new().flag("--tls", "off").instead("--host", "127.0.0.1");
    let gateway = setup.flag("--public-base", "http://127.0.0.1").file("a.yaml", tenant.yaml()).start().await;
    gateway.until_state("a", "serving").await;
    gateway
}

#[tokio::test]
async fn two_servers_are_compared_by_their_answers() {
    let backend = FakeBackend::start().await;
    let (old, new) = (plain(&backend, "").await, plain(&backend, "").await);
    let (told, code) = compare(&old, &new, &[]).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(!told.contains("DIFFERS") && !told.contains("tools were not compared"), "{told}");

    let renamed = plain(&backend, "tools: {search: {name: find, description: Finds.}}").await;
    let (told, code) = compare(&old, &renamed, &[]).await;
    assert_eq!(code, Some(1), "{told}");
    let rows: Vec<_> = told.lines().filter(|line| line.contains("tool ")).collect();
    assert!(rows.iter().any(|row| row.starts_with("DIFFERS") && row.contains("tool search")), "{told}");
    assert!(rows.iter().any(|row| row.starts_with("minor") && row.contains("tool find")), "{told}");
}

#[tokio::test]
async fn a_guarded_server_is_compared_with_a_token_that_nobody_else_gets() {
    let backend = FakeBackend::start().await;
    let key = secret("caller");
    let lines = format!("api_keys: [{{label: a, key: {key}}}]");
    let (old, new) = (plain(&backend, &lines).await, plain(&backend, "").await);
    let (told, code) = compare(&old, &new, &[]).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("without a token") && told.contains("401 Unauthorized"), "{told}");
    assert!(told.contains("the old server: it requires a credential (401); --token-file"), "{told}");

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    fs::write(&file, format!("{key}\n")).expect("written");
    let (told, _) = compare(&old, &new, &["--token-file", &file.display().to_string()]).await;
    assert!(!told.contains("tools were not compared"), "{told}");

    let closed = old.address();
    drop(old);
    let gone = format!("http://{closed}/a/mcp");
    let output = tokio::task::spawn_blocking(move || run(&["migrate", "--compare", &gone, "--with", &gone]));
    let output = output.await.expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(printed(&output).contains("does not answer: unreachable"), "{}", printed(&output));
}
