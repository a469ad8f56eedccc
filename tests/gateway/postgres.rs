//! Logins in a PostgreSQL database: they outlive the process, one gateway at a time has them, and
//! while the database is away nobody loses a login.

#[path = "../../src/store/tests/postgres_server.rs"]
pub(crate) mod postgres_server;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use self::postgres_server::PostgresServer;
use super::doctor::Doctor;
use super::harness::entra::FakeEntra;
use super::harness::gateway::BINARY;
use super::harness::login::{App, CALLBACK, Tokens};
use super::harness::secret::secret;
use super::harness::{Era, FakeBackend, Gateway, Setup, Tenant, until, unused_port};
use super::state::printed;

/// Writes a file that nobody else may read.
fn write_private(path: &Path, text: &str) -> String {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("changed");
    path.display().to_string()
}

/// A database with a user of its own, who logs in with a password over verified TLS.
pub(super) struct Database {
    pub(super) server: PostgresServer,
    pub(super) name: String,
    folder: tempfile::TempDir,
}

impl Database {
    pub(super) fn new() -> Self {
        let server = PostgresServer::acquire();
        let name = server.create_database();
        server.psql(&name, &format!("CREATE ROLE {name} LOGIN PASSWORD 'canary-password'"));
        server.psql(&name, &format!("ALTER DATABASE {name} OWNER TO {name}"));
        Self { server, name, folder: tempfile::tempdir().expect("a folder") }
    }

    pub(super) fn address(&self) -> String {
        let certificate = self.server.certificate().display().to_string();
        format!("{}?sslrootcert={certificate}", self.server.tcp_address(&self.name, &self.name))
    }

    /// Returns the flags of the password's and the master key's file.
    pub(super) fn files(&self) -> [String; 4] {
        let write = |name, text: &str| write_private(&self.folder.path().join(name), text);
        let password = write("password", "canary-password\n");
        let key = write("master.key", &"ab".repeat(32));
        ["--store-password-file".to_owned(), password, "--master-key-file".to_owned(), key]
    }

    /// Has a gateway share this database, with the master key that all have.
    pub(crate) fn join(&self, setup: Setup) -> Setup {
        self.join_with_key(setup, "ab")
    }

    /// The same with a master key of these digits.
    pub(crate) fn join_with_key(&self, setup: Setup, digits: &str) -> Setup {
        let [password_flag, password, key_flag, _] = self.files();
        let key = write_private(&self.folder.path().join(digits), &digits.repeat(32));
        let setup = setup.flag(&password_flag, &password).flag(&key_flag, &key);
        setup.flag("--store", &self.address())
    }

    /// Runs SQL as the server's owner.
    pub(crate) fn query(&self, sql: &str) -> String {
        self.server.psql(&self.name, sql).trim().to_owned()
    }

    pub(super) fn count(&self, table: &str) -> String {
        self.server.psql(&self.name, &format!("SELECT count(*) FROM tenantd.{table}")).trim().to_owned()
    }

    /// Runs SQL as the server's owner.
    pub(super) fn sql(&self, sql: &str) -> String {
        self.server.psql(&self.name, sql).trim().to_owned()
    }

    /// Keeps everybody from a table until the returned value is dropped.
    pub(crate) fn hold_table(&self, table: &str) -> HeldTable {
        let mut command = Command::new("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", &self.server.address(&self.name)]);
        let mut session = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("psql runs");
        let order = format!("BEGIN; LOCK TABLE tenantd.{table} IN ACCESS EXCLUSIVE MODE; SELECT 'held';\n");
        session.stdin.as_mut().expect("piped").write_all(order.as_bytes()).expect("written");
        let mut said = String::new();
        BufReader::new(session.stdout.as_mut().expect("piped")).read_line(&mut said).expect("read");
        assert_eq!(said.trim(), "held");
        HeldTable(session)
    }

    /// Lets nobody in, and ends the sessions that there are.
    pub(super) fn go_away(&self) {
        let name = &self.name;
        self.server.psql("postgres", &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"));
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname";
        self.server.psql("postgres", &format!("{end} = '{name}'"));
    }

    pub(super) fn come_back(&self) {
        let allow = format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", self.name);
        self.server.psql("postgres", &allow);
    }

    /// Runs a verb of `tenantd store` with a state folder and this database's files.
    pub(super) fn store(&self, state: &Path, arguments: &[&str]) -> Output {
        let mut command = Command::new(BINARY);
        command.arg("store").args(arguments).args(self.files()).arg("--state").arg(state).env_clear();
        command.output().expect("the binary runs")
    }
}

/// A table that nobody else gets at.
pub(crate) struct HeldTable(Child);

impl Drop for HeldTable {
    fn drop(&mut self) {
        // The session ends with its input, and the lock with the session.
        drop(self.0.stdin.take());
        self.0.wait().expect("ended");
    }
}

async fn start(database: &Database, entra: &FakeEntra, backend: &FakeBackend) -> Gateway {
    let setup = Setup::listening(unused_port()).flag("--entra-authority", &entra.authority());
    database.join(setup).file("a.yaml", Tenant::new("a", backend).with(&entra.lines()).yaml()).start().await
}

async fn call(gateway: &Gateway, access: &str) -> u16 {
    gateway.client().bearer(access).search(Era::Modern, "/a", "q").await.status
}

#[tokio::test]
async fn logins_outlive_the_process_and_an_absence_of_the_database() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let database = Database::new();
    let gateway = start(&database, &entra, &backend).await;
    let app = App::registered(&gateway, "/a").await;
    let (mut tokens, leaver) = (app.tokens(&entra).await, app.tokens(&entra).await);
    let id = app.client_id.clone();
    assert_eq!((database.count("grants"), database.count("incarnations")), ("2".into(), "1".into()));
    assert!(!gateway.output().contains("canary-password"));

    // A second gateway is refused while this one has the database.
    let other = tempfile::tempdir().expect("a folder");
    let refused = database.store(&other.path().join("state"), &["copy", "--to", &database.address()]);
    assert_eq!(refused.status.code(), Some(2), "{}", printed(&refused));
    assert!(printed(&refused).contains("in use by the gateway"), "{}", printed(&refused));

    for access in [&tokens.access, &leaver.access] {
        assert_eq!(call(&gateway, access).await, 200);
    }
    database.go_away();
    let refresh = async |app: &App<'_>, refresh: &str| {
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh), ("client_id", &id)];
        app.post("/token", &form).await
    };
    let answer = refresh(&app, &tokens.refresh).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    assert_eq!(call(&gateway, &tokens.access).await, 200, "calls go on");
    // Whose token that is stands in the database, so the client must ask again.
    let revoke =
        async |app: &App<'_>| app.post("/revoke", &[("token", &leaver.refresh), ("client_id", &id)]).await;
    let revoked = revoke(&app).await;
    assert_eq!(revoked.status, 503, "{revoked:?}");
    assert!(gateway.admin("/metrics").await.1.contains("\ntenantd_store_writable 0"));
    database.come_back();
    let writable = async || {
        let metrics = gateway.admin("/metrics").await.1;
        metrics.contains("\ntenantd_store_writable 1").then_some(())
    };
    until("the database is used again", writable).await;
    let answer = refresh(&app, &tokens.refresh).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    tokens = Tokens::of(&answer.json());
    let revoked = revoke(&app).await;
    assert_eq!(revoked.status, 200, "{revoked:?}");
    assert_eq!(call(&gateway, &leaver.access).await, 401);
    assert_eq!(refresh(&app, &leaver.refresh).await.status, 400);
    drop(app);

    let gateway = gateway.kill_and_restart().await;
    assert_eq!(call(&gateway, &tokens.access).await, 200);
    let app =
        App { gateway: &gateway, prefix: "/a", client_id: id.clone(), redirect_uri: CALLBACK.to_owned() };
    let answer = refresh(&app, &tokens.refresh).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = refresh(&app, &leaver.refresh).await;
    assert_eq!(answer.status, 400, "the revocation was kept: {answer:?}");
    drop(app);

    // Back to the file, and there again.
    let gateway = gateway.killed();
    let state = gateway.path().join("state");
    let address = database.address();
    let checked = database.store(&state, &["check", "--store", &address]);
    assert_eq!(checked.status.code(), Some(0), "{}", printed(&checked));
    assert_eq!(printed(&checked).matches(" 1 grants").count(), 1, "{}", printed(&checked));
    let back = database.store(&state, &["copy", "--to", "file", "--store", &address]);
    assert_eq!(back.status.code(), Some(0), "{}", printed(&back));
    let checked = database.store(&state, &["check", "--store", &address]);
    assert_eq!(printed(&checked).matches(" 1 grants").count(), 2, "both have it: {}", printed(&checked));
    let filled = database.store(&state, &["copy", "--to", &address]);
    assert_eq!(filled.status.code(), Some(2), "{}", printed(&filled));
    assert!(printed(&filled).contains("has logins already"), "{}", printed(&filled));
}

#[tokio::test]
async fn an_upgrade_keeps_logins_in_a_database_and_their_use() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let database = Database::new();
    let mut gateway = start(&database, &entra, &backend).await;
    let app = App::registered(&gateway, "/a").await;
    let tokens = app.tokens(&entra).await;
    let id = app.client_id.clone();
    drop(app);
    gateway.upgrade(&[]).await;
    assert_eq!(call(&gateway, &tokens.access).await, 200);
    let app =
        App { gateway: &gateway, prefix: "/a", client_id: id.clone(), redirect_uri: CALLBACK.to_owned() };
    let form =
        [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.as_str()), ("client_id", &id)];
    let answer = app.post("/token", &form).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    app.tokens(&entra).await;
    drop(app);
    // The node that was handed over is live, and the one before did not sign it off.
    let live = "SELECT count(*) FROM tenantd.nodes AS node WHERE tenantd.is_live(node)";
    assert_eq!(database.server.psql(&database.name, live).trim(), "1");
    // One that cannot serve changes nothing.
    let (code, text) = gateway.try_upgrade(&["--binary", "/bin/false"]).await;
    assert_ne!(code, Some(0), "{text}");
    assert_eq!(call(&gateway, &Tokens::of(&answer.json()).access).await, 200);
}

#[tokio::test]
async fn a_backup_says_that_logins_are_elsewhere_and_the_doctor_what_the_database_is_like() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let database = Database::new();
    let gateway = start(&database, &entra, &backend).await;
    let copy = gateway.path().join("copy.db").display().to_string();
    let state = gateway.path().join("state");
    let mut backup = Command::new(BINARY);
    let admin = gateway.admin_address().to_string();
    backup.args(["store", "backup", &copy, "--admin", &admin]).env_clear();
    let told = printed(&backup.output().expect("the binary runs"));
    assert!(told.contains("in a PostgreSQL database") && told.contains("pg_dump"), "{told}");

    let [password_flag, password, key_flag, key] = database.files();
    let address = database.address();
    let with_database = ["--admin", &admin, "--store", &address, &password_flag, &password, &key_flag, &key];
    let said = Doctor::new(&with_database).ask().await;
    let good = said.verdict("database-good");
    let found = good["found"].as_str().expect("a text");
    assert!(found.contains("PostgreSQL 1") && found.contains("encrypted and verified"), "{found}");
    assert!(found.contains("heard at once"), "{found}");
    database.go_away();
    let said = Doctor::new(&with_database).ask().await;
    let gone = said.verdict("database-unusable");
    assert_eq!(gone["outcome"], "fault", "{gone:#}");
    assert!(!gone.to_string().contains("canary-password"));
    database.come_back();
    let _ended = gateway.killed();
    let mut restore = Command::new(BINARY);
    restore.args(["store", "restore", &copy, "--state"]).arg(&state).env_clear();
    let told = printed(&restore.output().expect("the binary runs"));
    assert!(told.contains("restored") && told.contains("in a PostgreSQL database"), "{told}");
}

#[tokio::test]
async fn a_start_that_would_forget_logins_is_refused() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let database = Database::new();
    let gateway = start(&database, &entra, &backend).await;
    App::registered(&gateway, "/a").await.tokens(&entra).await;
    let state = gateway.path().join("state").display().to_string();
    let _ended = gateway.killed();
    let [_, password, key_flag, key] = database.files();
    let refusal = Setup::new().state(&state).flag(&key_flag, &key).refusal().await;
    assert!(refusal.contains("are in a PostgreSQL database"), "{refusal}");

    let empty = Database::new();
    let socket = empty.server.address(&empty.name);
    let with_key = Setup::new().flag(&key_flag, &key).flag("--store", &socket);
    let refusal = with_key.flag("--store-password-file", &password).state(&state).refusal().await;
    assert!(refusal.contains("are in another database"), "{refusal}");

    let own_key = Setup::new().flag("--store", &empty.address());
    let refusal = own_key.flag("--store-password-file", &password).refusal().await;
    assert!(refusal.contains("--master-key-file"), "{refusal}");

    let with_password = ["serve", "--store", "postgres://u:canary@h/x"];
    let told = Command::new(BINARY).args(with_password).env_clear().output().expect("the binary runs");
    let told = printed(&told);
    assert!(told.contains("store_password_file") && !told.contains("canary"), "{told}");
}
