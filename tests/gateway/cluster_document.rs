//! The commands of docs/cluster.md, as they stand there but for ports, folders and what only root may
//! do: three gateways on one database, of which one may be killed; and the way from one gateway to
//! several and back.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::cluster::{call, refresh};
use super::cluster_figures::postgres_cluster::OwnServer;
use super::harness::entra::FakeEntra;
use super::harness::gateway::BINARY;
use super::harness::login::{App, CALLBACK};
use super::harness::secret::secret;
use super::harness::{FakeBackend, Gateway, Setup, Tenant, unused_port};

/// Returns the indented lines of a section.
fn commands(section: &str) -> String {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cluster.md")).expect("read");
    let from = page.find(section).expect("the section is there");
    let text = &page[from + section.len()..];
    let text = &text[..text.find("\n## ").unwrap_or(text.len())];
    text.lines().filter_map(|line| line.strip_prefix("    ")).map(|line| format!("{line}\n")).collect()
}

/// Draws the digits that ports begin with, so that those with 0, 1, 2 and 3 behind are free.
fn free_port_prefix() -> u16 {
    let drawn = || 1_000 + u16::from_le_bytes(tenantd::base::random::bytes()) % 2_000;
    let is_free = |prefix: &u16| {
        (0..4).all(|digit| std::net::TcpListener::bind(("127.0.0.1", prefix * 10 + digit)).is_ok())
    };
    std::iter::repeat_with(drawn).take(100).find(is_free).expect("some are free")
}

/// Replaces what must be there.
fn replace(script: &mut String, from: &str, to: &str) {
    assert!(script.contains(from), "docs/cluster.md lacks `{from}`");
    *script = script.replace(from, to);
}

/// Ends what the script started.
const END: &str = r#"
end() {
    [ ! -e nginx.pid ] || kill "$(cat nginx.pid)" || true
    for file in gateway-*.pid; do kill -9 "$(cat "$file")" 2>/dev/null || true; done
}
trap end EXIT
"#;
/// The first lines of a configuration for NGINX that root's service has elsewhere.
const NGINX: &str = r#"
cat > nginx.conf <<END
pid $PWD/nginx.pid;
error_log $PWD/nginx.log;
events {}
http { access_log off; include $PWD/conf.d/tenantd.conf; }
END
nginx -c "$PWD/nginx.conf"
"#;

/// Runs a script in a folder, and returns what it prints.
async fn run(place: &Path, script: &str) -> String {
    let programs = Path::new(BINARY).parent().expect("a folder").display().to_string();
    let path = format!("{programs}:/usr/lib/postgresql/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
    let mut shell = Command::new("timeout");
    shell
        .args(["120", "bash", "-eu", "-c", script])
        .current_dir(place)
        .env_clear()
        .env("PATH", path)
        .env("HOME", place)
        .env("TENANTD_BACKEND_ALLOW", "127.0.0.0/8")
        .stdin(Stdio::null());
    let ran =
        tokio::task::spawn_blocking(move || shell.output()).await.expect("no panic").expect("bash runs");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
    said
}

#[tokio::test]
async fn three_gateways_are_set_up_by_the_commands_of_the_document() {
    let (server, backend) = (OwnServer::start(), FakeBackend::start().await);
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().display().to_string();
    fs::create_dir(folder.path().join("conf.d")).expect("created");
    fs::write(folder.path().join("export.zip"), Tenant::new("acme", &backend).zip()).expect("written");
    let (public, admin) = (free_port_prefix().to_string(), free_port_prefix().to_string());

    let mut script = commands("## Three gateways in ten minutes");
    let connection = format!("-h 127.0.0.1 -p {} -U postgres", server.port);
    replace(&mut script, "apt install postgresql nginx\n", "");
    replace(&mut script, "/srv/cluster", &place);
    replace(&mut script, "su postgres -c psql", &format!("psql -q -d postgres {connection}"));
    replace(
        &mut script,
        "su postgres -c \"createdb --owner tenantd tenantd\"",
        &format!("createdb {connection} --owner tenantd tenantd"),
    );
    replace(&mut script, "tenantd@127.0.0.1/", &format!("tenantd@127.0.0.1:{}/", server.port));
    replace(&mut script, "990$n", &format!("{admin}$n"));
    replace(&mut script, "800$n", &format!("{public}$n"));
    for digit in 0..4 {
        replace(&mut script, &format!("800{digit}"), &format!("{public}{digit}"));
    }
    replace(&mut script, "/etc/nginx/conf.d/", &format!("{place}/conf.d/"));
    replace(&mut script, "service nginx restart\n", NGINX);
    // What a person does between the commands is to wait until the gateways serve.
    let serving = format!(
        "for n in 1 2 3; do until tenantd tenants show acme --admin 127.0.0.1:{admin}$n 2>/dev/null | grep -q serving; \
         do sleep 0.1; done; done\n"
    );
    let copy = "cp ~/mcp_export.zip tenants.d/acme.zip\n";
    replace(&mut script, copy, &format!("cp export.zip tenants.d/acme.zip\n{serving}"));

    let said = run(folder.path(), &format!("{END}{script}")).await;
    let answers: Vec<_> = said.lines().rev().take(6).collect();
    assert_eq!(answers, ["200"; 6], "one of three gateways was killed, and nobody noticed: {said}");
    assert_eq!(said.matches("acme  serving").count(), 3, "each of them lists the tenant: {said}");
}

/// What the way from one gateway to several needs.
struct Move {
    server: OwnServer,
    entra: FakeEntra,
    backend: FakeBackend,
    folder: tempfile::TempDir,
    port: u16,
}

impl Move {
    async fn new() -> Self {
        let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
        let (server, folder) = (OwnServer::start(), tempfile::tempdir().expect("a folder"));
        fs::create_dir(folder.path().join("etc")).expect("created");
        fs::write(folder.path().join("etc/db-password"), "canary-password\n").expect("written");
        let psql = format!("psql -q -h 127.0.0.1 -p {} -U postgres -d postgres -c", server.port);
        let make = format!(
            "chmod 600 etc/db-password\n\
             {psql} \"CREATE ROLE tenantd LOGIN PASSWORD 'canary-password'\"\n\
             {psql} 'CREATE DATABASE tenantd OWNER tenantd'\n"
        );
        run(folder.path(), &make).await;
        Self { server, entra, backend, folder, port: unused_port() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A gateway of the same public URL, with this state folder.
    fn setup(&self, host: &str, state: &str) -> Setup {
        let setup = Setup::listening(self.port).instead("--listen", &format!("{host}:{}", self.port));
        let tenant = Tenant::new("a", &self.backend).with(&self.entra.lines()).yaml();
        setup
            .flag("--entra-authority", &self.entra.authority())
            .file("a.yaml", tenant)
            .state(&self.path(state))
    }

    /// The same with the three settings that all have who share the database.
    fn setup_with_database(&self, host: &str, state: &str) -> Setup {
        let address = format!("postgres://tenantd@{}/tenantd?sslmode=disable", self.database_host());
        let setup = self.setup(host, state).flag("--store", &address);
        let setup = setup.flag("--store-password-file", &self.path("etc/db-password"));
        setup.flag("--master-key-file", &self.path("etc/master.key"))
    }

    fn database_host(&self) -> String {
        format!("127.0.0.1:{}", self.server.port)
    }

    fn app<'a>(gateway: &'a Gateway, client_id: &str) -> App<'a> {
        App { gateway, prefix: "/a", client_id: client_id.to_owned(), redirect_uri: CALLBACK.to_owned() }
    }
}

#[tokio::test]
async fn nobody_logs_in_again_on_the_way_to_several_gateways_and_back_by_the_commands_of_the_document() {
    let stage = Move::new().await;
    let one = stage.setup("127.0.0.1", "state").start().await;
    let app = App::registered(&one, "/a").await;
    let (tokens, id) = (app.tokens(&stage.entra).await, app.client_id.clone());
    drop(app);

    let mut script = commands("## From one node to many, and back");
    replace(&mut script, "before.db\n", &format!("before.db --admin {}\n", one.admin_address()));
    replace(&mut script, "systemctl stop tenantd\n", &stop(&one));
    replace(&mut script, "runuser -u tenantd -- ", "");
    replace(&mut script, "chown tenantd ", "chown $(id -u) ");
    replace(&mut script, "-o tenantd ", "");
    replace(&mut script, "/etc/tenantd/", &stage.path("etc/"));
    replace(&mut script, "/var/lib/tenantd", &stage.path("state"));
    let host = stage.database_host();
    replace(&mut script, "@db.example.com/tenantd", &format!("@{host}/tenantd?sslmode=disable"));
    let back = script.find("tenantd store copy --to file").expect("it is there");
    let told = run(stage.folder.path(), &script[..back]).await;
    assert!(told.contains("1 grants"), "{told}");
    assert!(stage.folder.path().join("before.db").exists(), "{told}");

    let one = stage.setup_with_database("127.0.0.1", "state").start().await;
    let other = stage.setup_with_database("127.0.0.2", "other").start().await;
    assert_eq!(call(&one, &tokens.access).await, 200);
    assert_eq!(call(&other, &tokens.access).await, 200);
    let tokens = refresh(&Move::app(&other, &id), &tokens.refresh).await.expect("renewed");
    let tokens = refresh(&Move::app(&one, &id), &tokens.refresh).await.expect("renewed");

    let stop = [stop(&one), stop(&other)].concat();
    let told = run(stage.folder.path(), &format!("{stop}{}", &script[back..])).await;
    assert!(told.contains("1 grants"), "{told}");
    let alone = stage.setup("127.0.0.1", "state").flag("--master-key-file", &stage.path("etc/master.key"));
    let alone = alone.start().await;
    assert_eq!(call(&alone, &tokens.access).await, 200);
    refresh(&Move::app(&alone, &id), &tokens.refresh).await.expect("renewed");
}

/// Returns the lines that end a gateway as its service manager does.
fn stop(gateway: &Gateway) -> String {
    let pid = gateway.pid();
    format!("kill -TERM {pid}; while grep -qs '^State:[^Z]*$' /proc/{pid}/status; do sleep 0.1; done\n")
}
