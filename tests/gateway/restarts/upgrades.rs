//! `tenantd upgrade`: another program takes over, and whatever goes wrong with it changes nothing.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use tenantd::base::descriptor_channel::DescriptorChannel;
use tenantd::base::handover::{self, FromPredecessor, FromSuccessor};
use tenantd::store;

use super::load::{self, Load};
use super::managed;
use crate::harness::gateway::BINARY;
use crate::harness::{Era, FakeBackend, Gateway, Reply, Setup, Tenant, until};

async fn start() -> (Gateway, FakeBackend) {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    gateway.until_state("a", "serving").await;
    (gateway, backend)
}

async fn assert_serves(gateway: &Gateway, tenant: &str) {
    // A client of its own, so that the connection is new.
    let client = gateway.client_with(|builder| builder);
    assert_eq!(client.search(Era::Modern, tenant, "q").await.data()["row_count"], 2);
}

/// Asserts that the first process goes on with everything: calls, the store, orders.
async fn assert_goes_on(gateway: &Gateway) {
    assert_serves(gateway, "/a").await;
    for (verb, state) in [("pause", "disabled"), ("resume", "serving")] {
        let url = format!("http://{}/api/tenants/a/{verb}", gateway.admin_address());
        let answer = reqwest::Client::new().post(url).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{verb}: the store can be written");
        gateway.until_state("a", state).await;
    }
    let (_, metrics) = gateway.admin("/metrics").await;
    assert!(metrics.contains("tenantd_store_writable 1"), "{metrics}");
}

/// Writes a program into the gateway's folder. Returns its path.
fn program(gateway: &Gateway, name: &str, script: &str) -> String {
    let path = gateway.path().join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("made executable");
    path.display().to_string()
}

async fn assert_refused(gateway: &Gateway, binary: &str, expected: &str) {
    let (code, text) = gateway.try_upgrade(&["--binary", binary]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(expected) && text.contains("the running one goes on"), "{binary}: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_under_load_fail_no_call() {
    let backend = FakeBackend::start().await;
    let mut gateway = load::start(Setup::new(), &backend).await;
    let load = Load::start(&gateway);
    let upgrades = load::repetitions("TENANTD_TEST_UPGRADES");
    for _ in 0..upgrades {
        load.until_calls_go_on().await;
        let previous = gateway.pid();
        gateway.upgrade(&[]).await;
        assert_ne!(previous, gateway.pid());
        match gateway.is_first_process(previous) {
            true => assert!(gateway.until_first_process_ended().await.success()),
            false => Gateway::until_process_ended(previous).await,
        }
    }
    load.finish(upgrades, "upgrades").await;
}

#[tokio::test]
async fn every_listener_is_passed_on_with_the_store_and_its_locks() {
    let backend = FakeBackend::start().await;
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let own = Tenant::new("b", &backend).with(&format!("path_prefix: /\nlisten: {port}")).yaml();
    let setup = Setup::new()
        .flag("--listen", "127.0.0.1:0")
        .flag("--listen-http", "127.0.0.1:0")
        .flag("--tenant-listeners", &format!("127.0.0.1:{port}"))
        .file("a.yaml", Tenant::new("a", &backend).yaml())
        .file("b.yaml", own);
    let mut gateway = setup.start().await;
    gateway.until_state("b", "serving").await;
    let url = format!("http://{}/api/tenants/a/pause", gateway.admin_address());
    assert_eq!(reqwest::Client::new().post(&url).send().await.expect("an answer").status(), 200);
    let (listen, plain, admin) = (gateway.addresses(), gateway.plain_address(), gateway.admin_address());
    let sockets = listening_sockets(gateway.pid());
    assert_eq!(sockets.len(), 5, "two for TLS, plain HTTP, the admin's and a tenant's");
    fs::remove_file(gateway.path().join("ready.json")).expect("removed");
    let text = gateway.upgrade(&[]).await;
    assert!(text.contains("checked itself"), "{text}");
    assert!(gateway.until_first_process_ended().await.success());
    // Not bound again, but the same sockets: nothing that waits in them is lost.
    assert_eq!(listening_sockets(gateway.pid()), sockets);
    let mut gateway = gateway.ready().await;
    assert_eq!(
        (gateway.addresses(), gateway.plain_address(), gateway.admin_address()),
        (listen.clone(), plain, admin)
    );
    for address in listen.iter().chain([&plain, &SocketAddr::from(([127, 0, 0, 1], port))]) {
        TcpStream::connect(address).expect("somebody listens");
    }
    gateway.until_state("a", "disabled").await;
    let url = format!("http://{admin}/api/tenants/a/resume");
    assert_eq!(reqwest::Client::new().post(&url).send().await.expect("an answer").status(), 200);
    gateway.until_state("a", "serving").await;
    assert_serves(&gateway, "/a").await;
    let redirected =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
    let redirected = redirected.get(format!("http://{plain}/a")).header("host", "localhost").send().await;
    assert!(redirected.expect("an answer").status().is_redirection());
    let audit = fs::read_to_string(gateway.path().join("state/audit.jsonl")).expect("an audit");
    let order = audit.lines().find(|line| line.contains("\"upgrade\"")).expect("the order is recorded");
    assert!(order.contains("\"outcome\":\"ok\"") && order.contains("\"uid\":"), "{order}");
    // And on to the next one, which gets everything from the second.
    let second = gateway.pid();
    gateway.upgrade(&[]).await;
    Gateway::until_process_ended(second).await;
    assert_eq!(listening_sockets(gateway.pid()), sockets);
    assert_serves(&gateway, "/a").await;
}

/// Returns the kernel's numbers of the sockets on which a process listens.
fn listening_sockets(pid: u32) -> Vec<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).expect("a table");
    let listens = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(3) == Some(&"0A")).then(|| fields[9].to_owned())
    };
    let listening: Vec<String> = table.lines().filter_map(listens).collect();
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").flatten();
    let inode = |entry: fs::DirEntry| {
        let link = fs::read_link(entry.path()).ok()?.display().to_string();
        let inode = link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned();
        listening.contains(&inode).then_some(inode)
    };
    let mut own: Vec<String> = descriptors.filter_map(inode).collect();
    own.sort();
    own
}

#[tokio::test]
async fn a_call_under_way_ends_on_the_old_process_and_a_stream_ends_whole() {
    let (mut gateway, backend) = start().await;
    let client = gateway.client();
    let stream_client = gateway.client_with(|builder| builder);
    let params = serde_json::json!({ "notifications": { "toolsListChanged": true } });
    let stream = stream_client.ask(Era::Modern, "/a/mcp", "subscriptions/listen", params).send().await;
    backend.answer("/nlp-search", Reply::Held(Box::new(Reply::Rows)));
    let call = async { client.search(Era::Modern, "/a", "q").await.data() };
    let upgrading = async {
        backend.until(|counts| counts.in_flight == 1).await;
        gateway.upgrade(&[]).await;
        let heard = stream.expect("it began").text().await.expect("it ends whole");
        assert!(heard.contains("\"result\""), "{heard}");
        backend.answer("/nlp-search", Reply::Rows);
        assert_serves(&gateway, "/a").await;
        backend.release();
    };
    let (data, ()) = tokio::join!(call, upgrading);
    assert_eq!(data["row_count"], 2);
    assert!(gateway.until_first_process_ended().await.success());
}

#[tokio::test]
async fn a_program_that_does_not_take_over_changes_nothing() {
    let (gateway, _backend) = start().await;
    let pid = gateway.pid();
    assert_refused(&gateway, "/bin/false", "it ended (exit status: 1)").await;
    assert_refused(&gateway, "/nowhere/tenantd", "cannot be started").await;
    let text = program(&gateway, "text", "");
    fs::set_permissions(&text, fs::Permissions::from_mode(0o600)).expect("made a text");
    assert_refused(&gateway, &text, "cannot be started").await;
    // A version that does not know the handover starts as usual, and meets the lock.
    let older = program(&gateway, "older", &format!("unset {}; exec {BINARY} \"$@\"", handover::VARIABLE));
    assert_refused(&gateway, &older, "it ended (exit status: 2)").await;
    assert!(gateway.output().contains("is in use by another tenantd"));
    let chatty = program(&gateway, "chatty", "echo hello >&0; exec sleep 60");
    assert_refused(&gateway, &chatty, "a message that this version does not know").await;
    assert_goes_on(&gateway).await;
    assert_eq!(gateway.pid(), pid);
    until("each order is recorded", async || {
        let audit = fs::read_to_string(gateway.path().join("state/audit.jsonl")).unwrap_or_default();
        (audit.matches("\"order\":\"upgrade\"").count() == 5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_program_that_hangs_is_ended() {
    let (gateway, _backend) = start().await;
    let hanging = program(&gateway, "hanging", "exec sleep 600");
    assert_refused(&gateway, &hanging, "it did not check itself within 20 seconds, and was ended").await;
    assert_goes_on(&gateway).await;
}

/// Plays a successor that dies at the moment that a variable names. Started by the test below.
#[test]
#[ignore = "the program of another test"]
fn plays_a_successor_that_dies() {
    let dies_at = std::env::var("DIES_AT").expect("the other test sets it");
    handover::receive().expect("received");
    let gateway = handover::predecessor().expect("a gateway started this");
    gateway.wait_for_offer().expect("an offer").expect("a gateway is there");
    let schema = store::SCHEMA + i64::from(dies_at == "taken with a newer schema");
    if dies_at == "refusing" {
        handover::refuse("this is a test");
    } else {
        assert!(gateway.take("9.9.9", schema).expect("handed over"));
    }
    if dies_at == "serving" {
        gateway.wait_to_serve().expect("it may serve");
    }
    let pid = std::process::id().to_string();
    Command::new("kill").args(["-9", &pid]).status().expect("killed");
}

#[tokio::test]
async fn a_successor_that_dies_at_any_moment_leaves_the_old_one_serving() {
    let (gateway, _backend) = start().await;
    let this = std::env::current_exe().expect("this program");
    for dies_at in ["refusing", "taken", "taken with a newer schema", "serving"] {
        let script = format!(
            "DIES_AT='{dies_at}' exec {} --ignored --exact restarts::upgrades::plays_a_successor_that_dies",
            this.display()
        );
        let dying = program(&gateway, "dying", &script);
        let expected =
            if dies_at == "refusing" { "this is a test" } else { "it ended (signal: 9 (SIGKILL))" };
        assert_refused(&gateway, &dying, expected).await;
        assert_goes_on(&gateway).await;
    }
    assert!(!gateway.path().join("state/tenantd.db.before-upgrade").exists());
    // None of that keeps a good one from taking over.
    let mut gateway = gateway;
    gateway.upgrade(&["--binary", BINARY]).await;
    assert!(gateway.until_first_process_ended().await.success());
    assert_goes_on(&gateway).await;
}

#[tokio::test]
async fn settings_that_do_not_parse_and_missing_keys_are_told() {
    let backend = FakeBackend::start().await;
    let setup = Setup::new().settings("limits:\n  drain_seconds: 5\n");
    let gateway = setup.file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    gateway.until_state("a", "serving").await;
    let file = gateway.path().join("tenantd.yaml");
    fs::write(&file, "limits:\n  drain_secs: 5\n").expect("written");
    assert_refused(&gateway, BINARY, "drain_secs").await;
    fs::write(&file, "limits:\n  drain_seconds: 5\n").expect("written");
    let (key, away) = (gateway.path().join("state/master.key"), gateway.path().join("state/away"));
    fs::rename(&key, &away).expect("moved");
    assert_refused(&gateway, BINARY, "master.key is missing").await;
    fs::rename(&away, &key).expect("moved back");
    // A port that another program has is found only when it is bound.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let lines = format!("limits:\n  drain_seconds: 5\nlisten_http: {}\n", taken.local_addr().expect("bound"));
    fs::write(&file, lines).expect("written");
    assert_refused(&gateway, BINARY, "the listener for plain HTTP cannot be bound").await;
    assert_goes_on(&gateway).await;
}

#[tokio::test]
async fn a_store_with_a_newer_schema_is_refused_before_anything_is_handed_over() {
    let (gateway, _backend) = start().await;
    let (channel, theirs) = DescriptorChannel::open().expect("a channel");
    let state = gateway.path().join("state").display().to_string();
    let child = Command::new(BINARY)
        .args(["serve", "--state", &state, "--admin", "off", "--host", "localhost"])
        .current_dir(gateway.path())
        .env_clear()
        .env(handover::VARIABLE, "1")
        .stdin(Stdio::from(theirs))
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.expect("it starts");
    let offer = FromPredecessor::Offer { version: "9.9.9".to_owned(), schema: Some(store::SCHEMA + 1) };
    channel.send(&offer, &[]).expect("offered");
    let heard = channel.receive::<FromSuccessor>(Some(Duration::from_secs(30))).expect("an answer").message;
    let FromSuccessor::Refused { reason } = heard else { panic!("{heard:?}") };
    assert!(reason.contains("was written by a newer tenantd"), "{reason}");
    assert_eq!(child.wait().expect("it ends").code(), Some(2));
}

#[tokio::test]
async fn one_upgrade_at_a_time_and_none_while_the_gateway_ends() {
    let (mut gateway, _backend) = start().await;
    let marker = gateway.path().join("started");
    let hanging = program(&gateway, "hanging", &format!("echo $$ > {}; exec sleep 600", marker.display()));
    let first = ["--binary", hanging.as_str()];
    let first = gateway.try_upgrade(&first);
    let meanwhile = async {
        let pid =
            until("it hangs", async || fs::read_to_string(&marker).ok()?.trim().parse::<u32>().ok()).await;
        assert_refused(&gateway, BINARY, "another upgrade is under way").await;
        gateway.signal("TERM");
        Gateway::until_process_ended(pid).await;
    };
    let ((code, text), ()) = tokio::join!(first, meanwhile);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("was told to end"), "{text}");
    assert!(gateway.until_ended().await.success());
    let (code, text) = gateway.try_upgrade(&[]).await;
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("no gateway that uses the state folder"), "{text}");
}

#[tokio::test]
async fn a_successor_whose_gateway_is_killed_serves_by_itself() {
    let (mut gateway, _backend) = start().await;
    let (marker, go) = (gateway.path().join("started"), gateway.path().join("go"));
    let waiting = format!(
        "echo $$ > {}; while ! [ -e {} ]; do sleep 0.05; done; exec {BINARY} \"$@\"",
        marker.display(),
        go.display()
    );
    let waiting = program(&gateway, "waiting", &waiting);
    let args = ["--binary", waiting.as_str()];
    let ordered = gateway.try_upgrade(&args);
    let meanwhile = async {
        let pid =
            until("it waits", async || fs::read_to_string(&marker).ok()?.trim().parse::<u32>().ok()).await;
        gateway.signal("KILL");
        pid
    };
    let ((code, text), pid) = tokio::join!(ordered, meanwhile);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("the gateway broke off"), "{text}");
    gateway.until_first_process_ended().await;
    gateway.succeeded_by(pid);
    fs::remove_file(gateway.path().join("ready.json")).expect("removed");
    fs::write(&go, "").expect("written");
    let gateway = gateway.ready().await;
    assert_goes_on(&gateway).await;
}

#[tokio::test]
async fn the_service_manager_is_told_which_process_is_the_main_one() {
    let backend = FakeBackend::start().await;
    let (setup, manager) = managed(Setup::new());
    let mut gateway = setup.file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    manager.has_heard("READY=1").await;
    gateway.upgrade(&[]).await;
    let main = format!("MAINPID={}", gateway.pid());
    manager.has_heard(&main).await;
    until("the new one is ready", async || (manager.count("READY=1") == 2).then_some(())).await;
    assert!(gateway.until_first_process_ended().await.success());
    let told = manager.told();
    let place = |line: &str| told.iter().rposition(|told| told == line).expect("told");
    assert!(place(&main) < place("READY=1"), "messages of another process would not count: {told:?}");
    assert_eq!(manager.count("STOPPING=1"), 0, "the gateway does not stop: {told:?}");
    manager.until_told("WATCHDOG=1").await;
}
