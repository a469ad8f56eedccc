//! What the service manager is told, and restarts and upgrades that no client notices.

mod load;
mod upgrades;

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use self::load::Load;
use super::harness::gateway::{BINARY, may_mount};
use super::harness::service_manager::ServiceManager;
use super::harness::{Era, FakeBackend, Gateway, Reply, Setup, Tenant, until};

/// The period of the watchdog, in microseconds.
const WATCHDOG: &str = "300000";

fn managed(setup: Setup) -> (Setup, ServiceManager) {
    let manager = ServiceManager::start(setup.path());
    let setup = setup.variable("NOTIFY_SOCKET", &manager.socket()).variable("WATCHDOG_USEC", WATCHDOG);
    (setup, manager)
}

#[tokio::test]
async fn the_service_manager_is_told_of_every_stage() {
    let backend = FakeBackend::start().await;
    let setup = Setup::new().settings("limits:\n  drain_seconds: 90\n");
    let (setup, manager) = managed(setup.file("a.yaml", Tenant::new("a", &backend).yaml()));
    let mut gateway = setup.start().await;
    manager.has_heard("READY=1").await;
    manager.has_heard("STATUS=1 tenant served").await;
    gateway.put("b.yaml", "search_url: 7\n");
    manager.has_heard("STATUS=1 tenant served, 1 in trouble").await;
    backend.answer("/nlp-search", Reply::Held(Box::new(Reply::Rows)));
    let client = gateway.client();
    let call = async { client.search(Era::Modern, "/a", "q").await.data() };
    let meanwhile = async {
        backend.until(|counts| counts.in_flight == 1).await;
        gateway.signal("TERM");
        manager.has_heard("STOPPING=1").await;
        // The unit's TimeoutStopSec may be shorter than the drain.
        manager.has_heard("EXTEND_TIMEOUT_USEC=20000000").await;
        // The call may last, and so the watchdog must too.
        manager.until_told("WATCHDOG=1").await;
        backend.release();
    };
    let (data, ()) = tokio::join!(call, meanwhile);
    assert_eq!(data["row_count"], 2);
    drop(client);
    assert!(gateway.until_ended().await.success());
    let told = manager.told();
    let place = |line: &str| told.iter().position(|told| told == line).expect("told");
    assert!(place("READY=1") < place("WATCHDOG=1"), "{told:?}");
    assert!(place("WATCHDOG=1") < place("STOPPING=1"), "{told:?}");
}

/// A file system whose server answers nothing, in the tenants folder. Killing this process ends it.
fn mount_that_hangs(gateway: &Gateway) -> Child {
    let script = format!(
        "cd {} && mkdir tenants.d/stuck && exec 3<>/dev/fuse && mount -i -t fuse \
         -o fd=3,rootmode=40000,user_id=0,group_id=0 none tenants.d/stuck && echo mounted && exec sleep 600",
        gateway.path().display()
    );
    let pid = gateway.pid().to_string();
    let mut child = Command::new("nsenter")
        .args(["-t", &pid, "-m", "sh", "-ec", &script])
        .stdout(Stdio::piped())
        .spawn()
        .expect("nsenter runs");
    let mut said = String::new();
    let out = child.stdout.take().expect("it is piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut said).expect("a line");
    assert_eq!(said, "mounted\n");
    child
}

#[tokio::test]
async fn the_watchdog_is_fed_while_tenants_are_read_and_not_when_that_hangs() {
    if !may_mount() || !std::path::Path::new("/dev/fuse").exists() {
        eprintln!("skipped: this user may not mount, or there is no FUSE");
        return;
    }
    let backend = FakeBackend::start().await;
    let setup = Setup::new().after_mounting("mount --make-rprivate /");
    let (setup, manager) = managed(setup.file("a.yaml", Tenant::new("a", &backend).yaml()));
    let gateway = setup.start().await;
    manager.has_heard("WATCHDOG=1").await;
    let mut hanging = mount_that_hangs(&gateway);
    gateway.signal("HUP");
    until("the watchdog is no longer fed", async || {
        gateway.output().contains("the service manager's watchdog is not fed").then_some(())
    })
    .await;
    // The rest goes on, which a timer of its own could not tell from a gateway that is well.
    let fed = manager.count("WATCHDOG=1");
    for _ in 0..50 {
        assert_eq!(gateway.client().search(Era::Modern, "/a", "q").await.data()["row_count"], 2);
    }
    assert_eq!(manager.count("WATCHDOG=1"), fed, "fed while nothing is read");
    hanging.kill().expect("killed");
    hanging.wait().expect("ended");
    manager.until_told("WATCHDOG=1").await;
}

#[tokio::test]
async fn the_watchdog_is_fed_while_the_disk_is_full() {
    if !may_mount() {
        eprintln!("skipped: this user may not mount");
        return;
    }
    let backend = FakeBackend::start().await;
    let setup = Setup::new()
        .after_mounting("mount --make-rprivate / && mkdir -p state && mount -t tmpfs -o size=1m none state");
    let (setup, manager) = managed(setup.file("a.yaml", Tenant::new("a", &backend).yaml()));
    let gateway = setup.start().await;
    gateway.until_state("a", "serving").await;
    gateway.among_its_mounts("cat /dev/zero > state/filler 2>/dev/null || true");
    gateway.put("a.yaml", Tenant::new("a", &backend).with("description: Other texts").yaml());
    until("the store cannot be written", async || {
        let (_, metrics) = gateway.admin("/metrics").await;
        metrics.contains("tenantd_store_writable 0").then_some(())
    })
    .await;
    for _ in 0..40 {
        manager.until_told("WATCHDOG=1").await;
    }
    assert!(!gateway.output().contains("watchdog is not fed"));
}

/// The real unit files, with the program under test.
#[test]
fn the_units_are_understood_and_cannot_restart_in_a_loop() {
    let folder = tempfile::tempdir().expect("a folder");
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd");
    let service = std::fs::read_to_string(units.join("tenantd.service")).expect("text");
    for line in ["Restart=on-failure", "RestartPreventExitStatus=2", "StartLimitBurst=5", "WatchdogSec=1min"]
    {
        assert!(service.lines().any(|is| is == line), "{line}");
    }
    let service = service.replace("/usr/local/bin/tenantd", BINARY);
    std::fs::write(folder.path().join("tenantd.service"), service).expect("written");
    std::fs::copy(units.join("tenantd.socket"), folder.path().join("tenantd.socket")).expect("copied");
    let files = ["tenantd.service", "tenantd.socket"].map(|name| folder.path().join(name));
    match Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&files).output() {
        Ok(verified) => {
            assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
        }
        Err(_) => assert!(std::env::var_os("CI").is_none(), "there is no systemd-analyze"),
    }
}

#[tokio::test]
async fn systemd_opens_the_port_and_starts_the_gateway_for_the_first_connection() {
    if Command::new("systemd-socket-activate").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "there is no systemd-socket-activate");
        eprintln!("skipped: there is no systemd-socket-activate");
        return;
    }
    let backend = FakeBackend::start().await;
    // The port is free again once the listener is gone; systemd binds it by number.
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port();
    let setup = Setup::listening(port).activated_on(&format!("127.0.0.1:{port}"));
    let setup = setup.file("a.yaml", Tenant::new("a", &backend).yaml());
    let first = until("systemd listens", async || TcpStream::connect(("127.0.0.1", port)).ok());
    let (gateway, _first) = tokio::join!(setup.start(), first);
    assert_eq!(gateway.address().port(), port);
    assert_eq!(gateway.client().search(Era::Modern, "/a", "q").await.data()["row_count"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_on_a_socket_of_the_service_manager_fail_no_call() {
    let backend = FakeBackend::start().await;
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let setup = Setup::listening(socket.local_addr().expect("bound").port()).inheriting(&socket);
    let mut gateway = load::start(setup, &backend).await;
    let load = Load::start(&gateway);
    let restarts = load::repetitions("TENANTD_TEST_RESTARTS");
    for _ in 0..restarts {
        load.until_calls_go_on().await;
        gateway.signal("TERM");
        assert!(gateway.until_ended().await.success());
        std::fs::remove_file(gateway.path().join("ready.json")).expect("removed");
        gateway = gateway.start_again().await;
    }
    load.finish(restarts, "restarts").await;
}
