//! The state folder: its lock, and what the gateway does when the folder or the store is damaged,
//! full or read-only.

use std::fs;
use std::process::{Command, Output};

use serde_json::json;

use super::harness::entra::FakeEntra;
use super::harness::gateway::BINARY;
use super::harness::login::{App, Browser, CALLBACK, Tokens};
use super::harness::secret::secret;
use super::harness::{Era, FakeBackend, Gateway, Setup, Tenant};

/// Runs a verb of the binary against the gateway's state folder.
fn run(gateway: &Gateway, arguments: &[&str]) -> Output {
    let state = gateway.path().join("state").display().to_string();
    let output = Command::new(BINARY).args(arguments).args(["--state", &state]).env_clear().output();
    output.expect("the binary runs")
}

pub(super) fn printed(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

#[tokio::test]
async fn a_second_process_is_refused_and_told_who_has_the_folder() {
    let gateway = Setup::new().start().await;
    let state = gateway.path().join("state").display().to_string();
    let refusal = Setup::new().state(&state).refusal().await;
    assert!(refusal.contains(&format!("process {}", gateway.pid())), "{refusal}");
    assert!(refusal.contains(&state), "{refusal}");
    assert_eq!(refusal.matches("in use").count(), 1, "it is said once: {refusal}");
    assert!(gateway.client().get("/nobody/").await.status == 404, "the first one serves on");
}

#[tokio::test]
async fn a_store_that_is_damaged_newer_or_without_its_key_is_refused_and_restored() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    gateway.until_state("a", "serving").await;
    let copy = gateway.path().join("copy.db");
    let admin = gateway.admin_address().to_string();
    let backup = run(&gateway, &["store", "backup", &copy.display().to_string(), "--admin", &admin]);
    assert_eq!(backup.status.code(), Some(0), "{}", printed(&backup));
    assert!(printed(&backup).contains("does not contain the master key"), "{}", printed(&backup));
    let while_running = run(&gateway, &["store", "check"]);
    assert_eq!(while_running.status.code(), Some(2), "{}", printed(&while_running));
    let mut gateway = gateway.killed();
    let files = || {
        ["tenantd.db", "tenantd.db-wal"].map(|name| fs::read(gateway.path().join("state").join(name)).ok())
    };
    let left = files();
    let sound = run(&gateway, &["store", "check"]);
    assert_eq!(sound.status.code(), Some(0), "{}", printed(&sound));
    assert!(files() == left, "a check wrote something");

    let store = gateway.path().join("state/tenantd.db");
    let whole = fs::read(&copy).expect("read");
    // SQLite would repair the file from its write-ahead log.
    fs::remove_file(gateway.path().join("state/tenantd.db-wal")).expect("removed");
    fs::write(&store, vec![0x5a; whole.len()]).expect("written");
    let refusal = gateway.refusal().await;
    assert!(refusal.contains("damaged") && refusal.contains("store restore"), "{refusal}");
    assert_eq!(run(&gateway, &["store", "check"]).status.code(), Some(1));
    // Byte 60 of an SQLite file starts the `user_version`, which holds the schema's version.
    let newer = [&whole[..60], &99u32.to_be_bytes(), &whole[64..]].concat();
    fs::write(&store, newer).expect("written");
    let refusal = gateway.refusal().await;
    assert!(refusal.contains("newer"), "{refusal}");

    let restored = run(&gateway, &["store", "restore", &copy.display().to_string()]);
    assert_eq!(restored.status.code(), Some(0), "{}", printed(&restored));
    let key = gateway.path().join("state/master.key");
    let hidden = gateway.path().join("hidden.key");
    fs::rename(&key, &hidden).expect("moved");
    let refusal = gateway.refusal().await;
    assert!(refusal.contains("master key") && refusal.contains("is missing"), "{refusal}");
    fs::rename(&hidden, &key).expect("moved");
    let gateway = gateway.start_again().await;
    assert_eq!(gateway.client().search(Era::Modern, "/a", "q").await.data()["row_count"], 2);
}

/// A tenant guarded by API keys.
fn guarded(backend: &FakeBackend) -> Tenant {
    let digest = tenantd::base::digest::Digest::of(KEY.as_bytes());
    Tenant::new("acme", backend).with(&format!("api_keys:\n  - label: test\n    sha256: {digest}"))
}

const KEY: &str = "a-key-that-callers-show-0123456789";

#[tokio::test]
async fn a_file_broken_while_down_leaves_the_last_good_revision() {
    let backend = FakeBackend::start().await;
    let setup = Setup::new().file("acme.zip", Tenant::new("acme", &backend).zip());
    let setup = setup.file("acme.yaml", "description: As it was\n").file("new.yaml", "search_url: [");
    let gateway = setup.start().await;
    let before = gateway.until_state("acme", "serving").await;
    let gateway = gateway.killed();
    fs::write(gateway.tenant_file("acme.yaml"), "description: Broken\npath_prefix: ../etc\n")
        .expect("written");
    let gateway = gateway.start_again().await;
    let status = gateway.until_state("acme", "stale").await;
    assert_eq!((&status["in_force"], &status["closed"]), (&before["in_force"], &false.into()), "{status}");
    assert_ne!(status["on_disk"], status["in_force"]);
    assert_eq!(gateway.client().search(Era::Modern, "/acme", "q").await.data()["row_count"], 2);
    assert!(gateway.client().get("/acme/").await.text.contains("As it was"));
    assert_eq!(gateway.status("new").await.expect("there")["state"], "rejected");

    gateway.put("acme.yaml", "description: Repaired\n");
    let after = gateway.until_state("acme", "serving").await;
    assert_eq!(after["revision"], 2, "{after}");
    let gateway = gateway.kill_and_restart().await;
    let again = gateway.until_state("acme", "serving").await;
    assert_eq!((&again["revision"], &again["in_force"]), (&after["revision"], &after["in_force"]));
}

#[tokio::test]
async fn what_broke_while_down_and_may_concern_who_calls_closes_the_tenant() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("acme.yaml", guarded(&backend).yaml()).start().await;
    gateway.until_state("acme", "serving").await;
    let mut gateway = gateway.killed();
    let unreadable = [guarded(&backend).yaml(), b"  broken: [\n".to_vec()].concat();
    let key_taken_away = Tenant::new("acme", &backend).with("path_prefix: ../etc").yaml();
    for broken in [unreadable, key_taken_away] {
        fs::write(gateway.tenant_file("acme.yaml"), broken).expect("written");
        gateway = gateway.start_again().await;
        let status = gateway.until_state("acme", "stale").await;
        assert_eq!(status["closed"], true, "{status}");
        assert_eq!(gateway.client().get("/acme/").await.status, 503);
        gateway = gateway.killed();
    }
    fs::write(gateway.tenant_file("acme.yaml"), guarded(&backend).with("path_prefix: ../etc").yaml())
        .expect("written");
    let gateway = gateway.start_again().await;
    let status = gateway.until_state("acme", "stale").await;
    assert_eq!(status["closed"], false, "{status}");
}

#[tokio::test]
async fn what_was_deleted_while_down_does_not_come_back() {
    let backend = FakeBackend::start().await;
    let setup = Setup::new()
        .file("acme.zip", Tenant::new("acme", &backend).zip())
        .file("acme.yaml", "enabled: true\n");
    let setup = setup.file("beta.yaml", Tenant::new("beta", &backend).yaml());
    let setup = setup.file("stays.yaml", Tenant::new("stays", &backend).yaml());
    let gateway = setup.start().await;
    gateway.until_state("beta", "serving").await;
    let gateway = gateway.killed();
    gateway.remove("acme.yaml");
    gateway.remove("beta.yaml");
    fs::write(gateway.tenant_file("acme.zip"), "no zip").expect("written");
    let gateway = gateway.start_again().await;
    assert_eq!(gateway.until_state("acme", "rejected").await["in_force"], serde_json::Value::Null);
    assert!(gateway.status("beta").await.is_none());
    assert_eq!(gateway.client().search(Era::Modern, "/stays", "q").await.data()["row_count"], 2);
    gateway.put("beta.yaml", "search_url: [");
    gateway.until_state("beta", "rejected").await;
    let gateway = gateway.kill_and_restart().await;
    gateway.until_state("beta", "rejected").await;
}

/// A small file system of its own. `None` where the tests may not mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(options: &str) -> Option<Self> {
        let disk = Self(tempfile::tempdir().expect("a folder"));
        let path = disk.0.path();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path).output();
        let mounted = mount.is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("skipped: mounting a file system needs root");
            std::mem::forget(disk);
            return None;
        }
        Some(disk)
    }

    fn path(&self) -> String {
        self.0.path().display().to_string()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ended = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Starts a gateway with its state on this disk, and the tenant `a` with a login. The issuer
/// contains the port, so the port is chosen, and stays the same after a restart.
async fn start_with_login(disk: &SmallDisk, entra: &FakeEntra, backend: &FakeBackend) -> Gateway {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let setup = Setup::listening(free.expect("free").port()).state(&disk.path());
    let setup = setup.flag("--entra-authority", &entra.authority());
    let tenant = Tenant::new("a", backend).with(&entra.lines());
    setup.file("a.yaml", tenant.yaml()).start().await
}

#[tokio::test]
async fn a_full_disk_stops_nothing_and_is_reported_until_there_is_room() {
    let Some(disk) = SmallDisk::mount("size=512k") else { return };
    let backend = FakeBackend::start().await;
    let setup = Setup::new().state(&disk.path()).file("acme.yaml", Tenant::new("acme", &backend).yaml());
    let gateway = setup.start().await;
    gateway.until_state("acme", "serving").await;
    let fill = disk.0.path().join("fill");
    let filled = fs::write(&fill, vec![0; 1 << 20]);
    assert!(filled.is_err(), "the disk is full");
    // Small writes still fit into the space of the write-ahead log; a large revision does not.
    let large = format!("# {}\n", "x".repeat(60_000));
    for number in 0..4 {
        gateway.put(
            &format!("t{number}.yaml"),
            Tenant::new(&format!("t{number}"), &backend).with(&large).yaml(),
        );
        gateway.until_state(&format!("t{number}"), "serving").await;
    }
    let said = async |what: bool| {
        let statuses = gateway.admin("/api/tenants").await.1;
        (statuses.contains("not-kept") == what).then_some(())
    };
    super::harness::until("it is said that something is not kept", async || said(true).await).await;
    assert!(gateway.admin("/metrics").await.1.contains("\ntenantd_store_writable 0"));
    assert_eq!(gateway.client().search(Era::Modern, "/t3", "q").await.data()["row_count"], 2);
    fs::remove_file(&fill).expect("removed");
    super::harness::until("all is kept", async || said(false).await).await;
    assert!(gateway.admin("/metrics").await.1.contains("\ntenantd_store_writable 1"));
    let gateway = gateway.kill_and_restart().await;
    assert_eq!(gateway.client().search(Era::Modern, "/t3", "q").await.data()["row_count"], 2);
}

#[tokio::test]
async fn the_first_login_that_a_full_disk_refuses_says_so_and_a_revocation_outlives_it() {
    let Some(disk) = SmallDisk::mount("size=2m") else { return };
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let gateway = start_with_login(&disk, &entra, &backend).await;
    let writable = async |gateway: &Gateway, value: u8| {
        let metrics = gateway.admin("/metrics").await.1;
        metrics.contains(&format!("\ntenantd_store_writable {value}")).then_some(())
    };
    let app = App::registered(&gateway, "/a").await;
    let (mut tokens, leaver) = (app.tokens(&entra).await, app.tokens(&entra).await);
    let id = app.client_id.clone();
    let refresh = async |refresh: &str| {
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh), ("client_id", &id)];
        app.post("/token", &form).await
    };
    writable(&gateway, 1).await.expect("there is room");
    let fill = disk.0.path().join("fill");
    assert!(fs::write(&fill, vec![0; 4 << 20]).is_err(), "the disk is full");
    // The write-ahead log still has space, so the first rotations may succeed.
    let mut refused = false;
    for _ in 0..200 {
        let answer = refresh(&tokens.refresh).await;
        refused = answer.status == 503;
        if refused {
            break;
        }
        tokens = Tokens::of(&answer.json());
    }
    assert!(refused, "the disk has room");
    writable(&gateway, 0).await.expect("a login that cannot be kept is a store that cannot be written");
    // A revocation that cannot be persisted takes effect in memory at once.
    let revoked = app.post("/revoke", &[("token", &leaver.refresh), ("client_id", &id)]).await;
    assert_eq!(revoked.status, 503, "{revoked:?}");
    let call = async |gateway: &Gateway, access: &str| {
        gateway.client().bearer(access).search(Era::Modern, "/a", "q").await.status
    };
    assert_eq!(call(&gateway, &leaver.access).await, 401);
    assert_eq!(call(&gateway, &tokens.access).await, 200, "calls go on");
    fs::remove_file(&fill).expect("removed");
    super::harness::until("the store is written again", async || writable(&gateway, 1).await).await;
    assert_eq!(refresh(&leaver.refresh).await.status, 400);
    assert_eq!(refresh(&tokens.refresh).await.status, 200);
    drop(app);
    let gateway = gateway.kill_and_restart().await;
    assert_eq!(call(&gateway, &leaver.access).await, 401, "it was kept when there was room");
    let app =
        App { gateway: &gateway, prefix: "/a", client_id: id.clone(), redirect_uri: CALLBACK.to_owned() };
    let form = [("grant_type", "refresh_token"), ("refresh_token", &*leaver.refresh), ("client_id", &id)];
    assert_eq!(app.post("/token", &form).await.status, 400);
}

#[tokio::test]
async fn a_block_that_a_full_disk_refuses_is_in_force_and_kept_when_there_is_room() {
    let Some(disk) = SmallDisk::mount("size=2m") else { return };
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let gateway = start_with_login(&disk, &entra, &backend).await;
    let tokens = App::registered(&gateway, "/a").await.tokens(&entra).await;
    let fill = disk.0.path().join("fill");
    assert!(fs::write(&fill, vec![0; 4 << 20]).is_err(), "the disk is full");
    // The write-ahead log still has space, so the first blocks may be kept.
    let order = async |gateway: &Gateway, person: &str| {
        let reason = "x".repeat(500);
        let order = json!({ "person": person, "all_tenants": true, "reason": reason }).to_string();
        let url = format!("http://{}/api/blocks", gateway.admin_address());
        reqwest::Client::new().post(url).body(order).send().await.expect("an answer")
    };
    let mut is_full = false;
    for number in 0..400 {
        is_full = order(&gateway, &format!("nobody-{number}@contoso.com")).await.status() == 503;
        if is_full {
            break;
        }
    }
    assert!(is_full, "the disk has room");
    let answer = order(&gateway, "ada@contoso.com").await;
    let (status, said) = (answer.status(), answer.text().await.expect("a text"));
    assert!(
        status == 503 && said.contains("the person is blocked, but the store cannot be written"),
        "{said}"
    );
    let call = async |gateway: &Gateway| {
        gateway.client().bearer(&tokens.access).search(Era::Modern, "/a", "q").await.status
    };
    assert_ne!(call(&gateway).await, 200);
    fs::remove_file(&fill).expect("removed");
    super::harness::until("the store is written again", async || {
        let metrics = gateway.admin("/metrics").await.1;
        metrics.contains("\ntenantd_store_writable 1").then_some(())
    })
    .await;
    // The next order finds all earlier ones written.
    assert_eq!(order(&gateway, "another@contoso.com").await.status(), 200);
    let gateway = gateway.kill_and_restart().await;
    assert_ne!(call(&gateway).await, 200);
    assert!(gateway.admin("/api/blocks").await.1.contains("ada@contoso.com"));
}

#[tokio::test]
async fn a_state_folder_that_was_never_writable_costs_the_memory_only() {
    let Some(disk) = SmallDisk::mount("size=512k,ro") else { return };
    let backend = FakeBackend::start().await;
    let setup = Setup::new().state(&disk.path()).file("acme.yaml", Tenant::new("acme", &backend).yaml());
    let gateway = setup.start().await;
    gateway.until_state("acme", "serving").await;
    assert!(gateway.output().contains("serving without a state folder"));
    assert!(gateway.admin("/metrics").await.1.contains("\ntenantd_store_writable 0"));
}

#[tokio::test]
async fn a_tenant_that_asks_for_a_login_is_closed_where_logins_cannot_be_kept() {
    let Some(disk) = SmallDisk::mount("size=512k,ro") else { return };
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let setup = Setup::new().state(&disk.path()).flag("--entra-authority", &entra.authority());
    let setup = setup.file("a.yaml", Tenant::new("a", &backend).with(&entra.lines()).yaml());
    let gateway = setup.file("b.yaml", Tenant::new("b", &backend).yaml()).start().await;
    for path in ["/a/mcp", "/.well-known/oauth-protected-resource/a/mcp", "/a/authorize", "/a/"] {
        let answer = gateway.client().get(path).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, "5"), "{path}: {answer:?}");
    }
    assert_eq!(gateway.client().search(Era::Modern, "/a", "q").await.status, 503);
    assert_eq!(gateway.client().search(Era::Modern, "/b", "q").await.data()["row_count"], 2, "others serve");
}

#[tokio::test]
async fn a_state_folder_that_became_read_only_still_counts() {
    let Some(disk) = SmallDisk::mount("size=2m") else { return };
    let backend = FakeBackend::start().await;
    let setup = Setup::new().state(&disk.path()).file("acme.yaml", Tenant::new("acme", &backend).yaml());
    let mut gateway = setup.file("beta.yaml", Tenant::new("beta", &backend).yaml()).start().await;
    gateway.until_state("acme", "serving").await;
    fine(&gateway, &["pause", "acme"]);
    gateway.signal("TERM");
    assert!(gateway.until_ended().await.success());
    let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(disk.0.path()).status();
    assert!(remount.is_ok_and(|status| status.success()), "nobody writes there");
    fs::write(
        gateway.tenant_file("beta.yaml"),
        Tenant::new("beta", &backend).with("path_prefix: ../etc").yaml(),
    )
    .expect("written");
    let gateway = gateway.killed().start_again().await;
    assert_eq!(gateway.until_state("acme", "disabled").await["paused"], true);
    gateway.until_state("beta", "stale").await;
    let resumed = fine(&gateway, &["resume", "acme"]);
    assert!(resumed.contains("would not survive a restart"), "{resumed}");
    assert_eq!(gateway.client().search(Era::Modern, "/acme", "q").await.data()["row_count"], 2);
}

/// A client of the tenant at `/a` that registered earlier.
fn app<'a>(gateway: &'a Gateway, id: &str) -> App<'a> {
    App { gateway, prefix: "/a", client_id: id.to_owned(), redirect_uri: CALLBACK.to_owned() }
}

#[tokio::test]
async fn a_store_that_became_read_only_puts_logins_and_renewals_off_and_forgets_none() {
    let Some(disk) = SmallDisk::mount("size=2m") else { return };
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let mut gateway = start_with_login(&disk, &entra, &backend).await;
    let registered = App::registered(&gateway, "/a").await;
    let (id, tokens) = (registered.client_id.clone(), registered.tokens(&entra).await);
    drop(registered);
    let remount = |how: &str| {
        let status = Command::new("mount").args(["-o", how]).arg(disk.0.path()).status();
        assert!(status.is_ok_and(|status| status.success()), "{how}");
    };
    let form = [("grant_type", "refresh_token"), ("refresh_token", &*tokens.refresh), ("client_id", &*id)];
    gateway.signal("TERM");
    assert!(gateway.until_ended().await.success());
    remount("remount,ro");
    let mut gateway = gateway.killed().start_again().await;
    let put_off = |answer: &super::harness::client::Answer| {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0), "{answer:?}");
        assert!(!answer.text.contains("invalid_grant"), "{answer:?}");
    };
    put_off(&app(&gateway, &id).post("/token", &form).await);
    let mut browser = Browser::new(&gateway);
    let callback = app(&gateway, &id).log_in_at_microsoft(&mut browser, &entra).await;
    let page = browser.get(&callback).await;
    assert_eq!(page.status, 503, "{page:?}");
    assert!(page.text.contains("temporarily_unavailable"), "the application is told: {page:?}");
    let called = gateway.client().bearer(&tokens.access).search(Era::Modern, "/a", "q").await;
    assert_eq!(called.status, 200, "calls go on: {called:?}");
    gateway.signal("TERM");
    assert!(gateway.until_ended().await.success());
    remount("remount,rw");
    let gateway = gateway.killed().start_again().await;
    assert_eq!(app(&gateway, &id).post("/token", &form).await.status, 200, "nothing was used up");
}

/// Runs a verb about tenants against a gateway.
pub(super) fn tenants(gateway: &Gateway, arguments: &[&str]) -> Output {
    let admin = gateway.admin_address().to_string();
    let arguments = [&["tenants"], arguments, &["--admin", &admin]].concat();
    let output = Command::new(BINARY).args(arguments).env_clear().output().expect("the binary runs");
    super::harness::secret::assert_none("a verb's output", &printed(&output));
    output
}

pub(super) fn fine(gateway: &Gateway, arguments: &[&str]) -> String {
    let output = tenants(gateway, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", printed(&output));
    printed(&output)
}

#[tokio::test]
async fn a_rollback_holds_across_a_restart_until_the_file_changes() {
    let backend = FakeBackend::start().await;
    let edition = |text: &str| Tenant::new("acme", &backend).with(&format!("description: {text}")).yaml();
    let gateway = Setup::new().file("acme.yaml", edition("First")).start().await;
    gateway.until_state("acme", "serving").await;
    gateway.put("acme.yaml", edition("Second"));
    let page = async |gateway: &Gateway| gateway.client().get("/acme/").await.text;
    super::harness::until("it changes", async || page(&gateway).await.contains("Second").then_some(())).await;
    let history = fine(&gateway, &["history", "acme"]);
    assert_eq!(history.lines().count(), 3, "{history}");
    let difference = fine(&gateway, &["diff", "acme"]);
    assert!(
        difference.contains("revision 1 -> 2") && difference.contains("description: Second"),
        "{difference}"
    );

    fine(&gateway, &["rollback", "acme", "1"]);
    assert!(page(&gateway).await.contains("First"));
    assert!(fine(&gateway, &["show", "acme"]).contains("rolled back"));
    let gateway = gateway.kill_and_restart().await;
    let status = gateway.until_state("acme", "serving").await;
    assert_eq!((&status["revision"], &status["rolled_back"]), (&1.into(), &true.into()), "{status}");
    assert!(page(&gateway).await.contains("First"));

    gateway.put("acme.yaml", edition("Third"));
    super::harness::until("the change wins", async || page(&gateway).await.contains("Third").then_some(()))
        .await;
    assert_eq!(gateway.status("acme").await.expect("there")["revision"], 3);
    for (arguments, code) in [(["rollback", "acme", "9"], 1), (["rollback", "nobody", "1"], 1)] {
        assert_eq!(tenants(&gateway, &arguments).status.code(), Some(code), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_pause_outlives_restarts_and_even_the_file() {
    let backend = FakeBackend::start().await;
    let yaml = Tenant::new("acme", &backend).yaml();
    let gateway = Setup::new().file("acme.yaml", &yaml).start().await;
    gateway.until_state("acme", "serving").await;
    fine(&gateway, &["pause", "acme"]);
    assert_eq!(gateway.client().get("/acme/").await.status, 404);
    let gateway = gateway.kill_and_restart().await;
    assert_eq!(gateway.until_state("acme", "disabled").await["paused"], true);
    gateway.remove("acme.yaml");
    gateway.until_gone("acme").await;
    gateway.put("acme.yaml", &yaml);
    gateway.until_state("acme", "disabled").await;
    assert_eq!(gateway.client().get("/acme/").await.status, 404);
    fine(&gateway, &["resume", "acme"]);
    assert_eq!(gateway.client().search(Era::Modern, "/acme", "q").await.data()["row_count"], 2);
    let gateway = gateway.kill_and_restart().await;
    gateway.until_state("acme", "serving").await;
}

#[tokio::test]
async fn a_tenant_is_added_and_removed_by_the_command_line() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().start().await;
    let file = gateway.path().join("acme.zip");
    let path = file.display().to_string();
    fs::write(&file, Tenant::new("acme", &backend).with("path_prefix: ../etc").zip()).expect("written");
    let refused = tenants(&gateway, &["add", &path]);
    assert_eq!(refused.status.code(), Some(1), "{}", printed(&refused));
    assert!(printed(&refused).contains("path_prefix"), "{}", printed(&refused));
    assert!(!gateway.tenant_file("acme.zip").exists());

    fs::write(&file, Tenant::new("acme", &backend).zip()).expect("written");
    // Its overlay may say who may call, so it must not be left behind in silence.
    fs::write(file.with_extension("yaml"), "api_keys: {}\n").expect("written");
    let refused = tenants(&gateway, &["add", &path]);
    assert_eq!(refused.status.code(), Some(1), "{}", printed(&refused));
    assert!(printed(&refused).contains("belongs to the same tenant"), "{}", printed(&refused));
    assert!(!gateway.tenant_file("acme.zip").exists());
    let misnamed = file.with_file_name("Acme.yaml");
    fs::rename(file.with_extension("yaml"), &misnamed).expect("renamed");
    let refused = tenants(&gateway, &["add", &path]);
    assert!(printed(&refused).contains("Acme.yaml"), "{}", printed(&refused));
    let added = fine(&gateway, &["add", &path, "--alone"]);
    fs::remove_file(misnamed).expect("removed");
    assert!(added.contains("serving") && added.contains("/acme/mcp"), "{added}");
    assert!(added.contains("open (private networks)"), "{added}");
    assert_eq!(gateway.client().search(Era::Modern, "/acme", "q").await.data()["row_count"], 2);
    assert_eq!(tenants(&gateway, &["add", &path]).status.code(), Some(1), "it is there already");
    fine(&gateway, &["add", &path, "--replace"]);
    fine(&gateway, &["reload"]);
    fine(&gateway, &["remove", "acme"]);
    assert!(!gateway.tenant_file("acme.zip").exists());
    assert!(gateway.status("acme").await.is_none());
    assert_eq!(gateway.client().get("/acme/").await.status, 404);
}
