//! A whole gateway while its database fails in earnest: it freezes, another server takes its place, or
//! its disk is full. Whatever clients do meanwhile succeeds or gets 503, and what was acknowledged
//! counts afterwards.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::cluster_figures::postgres_cluster::{OwnServer, address};
use super::harness::client::Answer;
use super::harness::entra::FakeEntra;
use super::harness::gateway::may_mount;
use super::harness::login::{App, Browser, Tokens, field, parameter, register, way};
use super::harness::program::{Program, assertion_form};
use super::harness::secret::secret;
use super::harness::{Era, FakeBackend, Gateway, Setup, Tenant, until_within, unused_port};

/// A promotion and a recovery take seconds, and more on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often each kind of request succeeded, and how often it was put off.
#[derive(Debug, Default)]
struct Tally {
    done: Cell<u32>,
    put_off: Cell<u32>,
}

impl Tally {
    /// Takes an answer, which is a success or says that the client should ask again.
    fn take(&self, what: &str, answer: &Answer) -> bool {
        match answer.status {
            200 | 201 | 302 => self.done.set(self.done.get() + 1),
            503 => {
                assert!(answer.headers.contains_key("retry-after"), "{what}: {answer:?}");
                self.put_off.set(self.put_off.get() + 1);
            }
            _ => panic!("{what}: {answer:?}"),
        }
        answer.status != 503
    }
}

/// A gateway, and clients that use it all the time.
struct Stage {
    gateway: Gateway,
    entra: FakeEntra,
    program: Program,
    _backend: FakeBackend,
    _key: tempfile::TempDir,
}

impl Stage {
    async fn start(store: &str) -> Self {
        let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("master.key");
        fs::write(&key, "ab".repeat(32)).expect("written");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("changed");
        let program = Program::new("job");
        let lines = format!("{}machine_clients:\n{}", entra.lines(), program.lines());
        let gateway = Setup::listening(unused_port())
            .flag("--entra-authority", &entra.authority())
            .flag("--store", store)
            .flag("--master-key-file", &key.display().to_string())
            .settings("limits:\n  tokens_per_minute: 100000\n  logins_per_minute: 100000\n  registrations_per_minute: 100000\n")
            .file("a.yaml", Tenant::new("a", &backend).with(&lines).yaml())
            .start()
            .await;
        Self { gateway, entra, program, _backend: backend, _key: folder }
    }

    async fn call(&self, access: &str) -> u16 {
        self.gateway.client().bearer(access).search(Era::Modern, "/a", "q").await.status
    }
}

/// Renews a login again and again until `is_over`. Returns the last tokens.
async fn keep_renewing(app: &App<'_>, mut tokens: Tokens, tally: &Tally, is_over: &Cell<bool>) -> Tokens {
    while !is_over.get() {
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", tokens.refresh.as_str()),
            ("client_id", &app.client_id),
        ];
        let answer = app.post("/token", &form).await;
        if tally.take("a renewal", &answer) {
            tokens = Tokens::of(&answer.json());
        }
        tokio::task::yield_now().await;
    }
    tokens
}

/// Registers clients and has each begin a login, until `is_over`.
async fn keep_registering(stage: &Stage, tally: &Tally, is_over: &Cell<bool>) {
    while !is_over.get() {
        let body = serde_json::json!({ "client_name": "A test", "redirect_uris": ["http://127.0.0.1/cb"],
            "token_endpoint_auth_method": "none" });
        let answer = register(&stage.gateway, "/a", &body).await;
        if tally.take("a registration", &answer) {
            let client_id = answer.json()["client_id"].as_str().expect("an id").to_owned();
            let app = App {
                gateway: &stage.gateway,
                prefix: "/a",
                client_id,
                redirect_uri: "http://127.0.0.1/cb".to_owned(),
            };
            let page = Browser::new(&stage.gateway).get(&app.authorize_path(&[])).await;
            tally.take("a consent page", &page);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Has people log in until `is_over`. Returns the refresh tokens that were acknowledged.
async fn keep_logging_in(stage: &Stage, app: &App<'_>, tally: &Tally, is_over: &Cell<bool>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    while !is_over.get() {
        let mut browser = Browser::new(&stage.gateway);
        let page = browser.get(&app.authorize_path(&[])).await;
        if !tally.take("a consent page", &page) {
            continue;
        }
        let form = [("request", &*field(&page.text, "request")), ("decision", "allow")];
        let on = browser.post("/a/consent", &form).await;
        if !tally.take("a consent", &on) {
            continue;
        }
        let back = browser.get(&stage.entra.visit(&way(&on.text)).await).await;
        if !tally.take("a callback", &back) {
            continue;
        }
        let url = url::Url::parse(back.header("location")).expect("a URL");
        let code = parameter(&url, "code").expect("a code");
        // A code whose redemption was put off counts for its minute.
        for _ in 0..50 {
            let sold = app.redeem(&code).await;
            if tally.take("a code", &sold) {
                acknowledged.push(Tokens::of(&sold.json()).refresh);
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            if is_over.get() {
                break;
            }
        }
    }
    acknowledged
}

/// Has the program get tokens until `is_over`, with a new assertion each time as programs do: one whose
/// answer was put off may have counted.
async fn keep_asserting(stage: &Stage, app: &App<'_>, tally: &Tally, is_over: &Cell<bool>) {
    let issuer = format!("{}/a", stage.gateway.base());
    for jti in 0.. {
        if is_over.get() {
            return;
        }
        let assertion = stage.program.assertion(&issuer, jti);
        if !tally.take("an assertion", &app.post("/token", &assertion_form(&assertion)).await) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Does everything at once while `fail` makes the database fail and mends it, and then for a while
/// longer. All that was acknowledged must count in the end.
async fn endure(stage: &Stage, fail: impl AsyncFnOnce(&[Tally; 4])) {
    let app = App::registered(&stage.gateway, "/a").await;
    let tokens = app.tokens(&stage.entra).await;
    let (tallies, is_over) = (<[Tally; 4]>::default(), Cell::new(false));
    let [renewals, registrations, logins, assertions] = &tallies;
    let steering = async {
        until_more(&tallies, 3).await;
        fail(&tallies).await;
        until_more(&tallies, 3).await;
        is_over.set(true);
    };
    let (last, (), acknowledged, (), ()) = tokio::join!(
        keep_renewing(&app, tokens, renewals, &is_over),
        keep_registering(stage, registrations, &is_over),
        keep_logging_in(stage, &app, logins, &is_over),
        keep_asserting(stage, &app, assertions, &is_over),
        steering,
    );
    eprintln!("{tallies:?}");
    assert_eq!(stage.call(&last.access).await, 200);
    for refresh in acknowledged.iter().chain([&last.refresh]) {
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh.as_str()),
            ("client_id", &app.client_id),
        ];
        let answer = app.post("/token", &form).await;
        assert_eq!(answer.status, 200, "an acknowledged login was lost: {answer:?}");
    }
    let metrics = stage.gateway.admin("/metrics").await.1;
    assert!(metrics.contains("\ntenantd_store_writable 1"), "it is well again");
}

/// Waits until each kind of request has succeeded so many times more.
async fn until_more(tallies: &[Tally; 4], more: u32) {
    let before = tallies.each_ref().map(|tally| tally.done.get());
    let is_more = async || {
        let mut both = tallies.iter().zip(before);
        both.all(|(tally, before)| tally.done.get() >= before + more).then_some(())
    };
    until_within(PATIENCE, "all kinds of requests succeed", is_more).await;
}

/// Waits until some requests are put off.
async fn until_put_off(tallies: &[Tally; 4]) {
    let before: u32 = tallies.iter().map(|tally| tally.put_off.get()).sum();
    let is_so =
        async || (tallies.iter().map(|tally| tally.put_off.get()).sum::<u32>() > before).then_some(());
    until_within(PATIENCE, "requests are put off", is_so).await;
}

#[tokio::test]
async fn a_frozen_database_and_a_promoted_replica_lose_nothing_and_say_invalid_to_nobody() {
    let primary = OwnServer::start();
    let replica = primary.start_replica();
    let store = format!("{}&target_session_attrs=read-write", address(&[primary.port, replica.port]));
    let stage = Stage::start(&store).await;
    endure(&stage, async |tallies| {
        primary.freeze();
        until_put_off(tallies).await;
        primary.thaw();
        until_more(tallies, 3).await;
        primary.freeze();
        until_put_off(tallies).await;
        replica.promote();
        until_more(tallies, 3).await;
        // It comes back beside the new one, and nobody listens to it.
        primary.thaw();
    })
    .await;
}

#[tokio::test]
async fn a_full_disk_of_the_database_is_named_and_costs_nothing() {
    if !may_mount() {
        eprintln!("skipped: this user may not mount a small disk");
        return;
    }
    let server = OwnServer::start_on_small_disk(192);
    let stage = Stage::start(&address(&[server.port])).await;
    let ballast = server.folder().join("ballast");
    endure(&stage, async |tallies| {
        fill(&ballast);
        until_put_off(tallies).await;
        let is_named = async || stage.gateway.output().contains("its disk is full").then_some(());
        until_within(PATIENCE, "the log names the cause", is_named).await;
        fs::remove_file(&ballast).expect("removed");
    })
    .await;
}

/// Writes to a file until its disk is full.
fn fill(file: &Path) {
    let status = Command::new("dd")
        .args(["if=/dev/zero", "bs=64k", "status=none"])
        .arg(format!("of={}", file.display()))
        .status()
        .expect("dd runs");
    assert!(!status.success(), "the disk is not full");
}
