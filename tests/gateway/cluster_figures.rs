//! What several gateways with many tenants ask of their database: connections, and the statements
//! that a change costs; and how soon a change acts where no notification passes.
//!
//! A server of the test's own writes every statement into its log. Kinds of statements that gateways
//! send without any occasion are counted apart. `TENANTD_FIGURES_TENANTS` is another number of
//! tenants.

#[path = "../../src/store/tests/postgres_cluster.rs"]
#[expect(dead_code, reason = "nothing fails over here")]
pub(crate) mod postgres_cluster;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tempfile::TempDir;
use tenantd::base::clock::{Clock, SystemClock};

use self::postgres_cluster::{Bouncer, OwnServer, address};
use super::cluster::{call, order, refresh};
use super::harness::entra::FakeEntra;
use super::harness::login::{App, CALLBACK, Tokens};
use super::harness::secret::secret;
use super::harness::{FakeBackend, Gateway, Setup, Tenant, until, until_within, unused_port};

const ADA: &str = "ada@contoso.com";
/// A start with many tenants, or a change, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the documents promise for each node.
const CONNECTIONS_PER_NODE: usize = 10;
/// More people than a node has connections.
const PEOPLE: usize = 16;
/// What one change may cost all nodes together: a multiple of the nodes, and nothing for each tenant.
const STATEMENTS_PER_CHANGE: usize = 60;

/// Gateways at addresses of their own, with the same tenants, on one database.
struct Site {
    entra: FakeEntra,
    backend: FakeBackend,
    folder: TempDir,
    store: String,
    port: u16,
    tenants: usize,
}

impl Site {
    async fn new(store: String, tenants: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("master.key");
        fs::write(&key, "ab".repeat(32)).expect("written");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("changed");
        let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
        Self { entra, backend, folder, store, port: unused_port(), tenants }
    }

    async fn start(&self, number: usize) -> Gateway {
        let key = self.folder.path().join("master.key").display().to_string();
        let listen = format!("127.0.0.{number}:{}", self.port);
        let mut setup = Setup::listening(self.port)
            .instead("--listen", &listen)
            .flag("--store", &self.store)
            .flag("--master-key-file", &key)
            .flag("--node-name", &format!("gateway-{number}"))
            .flag("--entra-authority", &self.entra.authority());
        for name in
            std::iter::once("a".to_owned()).chain((1..self.tenants).map(|tenant| format!("t{tenant}")))
        {
            setup = setup.file(&format!("{name}.yaml"), self.tenant(&name, "first"));
        }
        let gateway = setup.start_unready();
        until_within(PATIENCE, "it is ready", async || gateway.is_ready_file_written().then_some(())).await;
        gateway.ready().await
    }

    fn tenant(&self, name: &str, description: &str) -> Vec<u8> {
        let lines = format!("description: {description}\n{}", self.entra.lines());
        Tenant::new(name, &self.backend).with(&lines).yaml()
    }
}

/// Returns the client as one that asks this gateway.
fn app<'a>(gateway: &'a Gateway, client_id: &str) -> App<'a> {
    App { gateway, prefix: "/a", client_id: client_id.to_owned(), redirect_uri: CALLBACK.to_owned() }
}

/// Counts of statements, by their text.
type Statements = BTreeMap<String, usize>;

/// The log of a server that writes every statement of gateways.
struct StatementLog(PathBuf);

impl StatementLog {
    fn start(server: &OwnServer) -> Self {
        server.psql("ALTER SYSTEM SET log_statement = 'all'");
        server.psql("ALTER SYSTEM SET log_line_prefix = '%a|'");
        server.psql("SELECT pg_reload_conf()");
        let data = PathBuf::from(server.psql("SHOW data_directory").trim());
        Self(data.with_file_name("server.log"))
    }

    /// Reads what was sent so far.
    fn read(&self) -> Statements {
        let text = fs::read_to_string(&self.0).expect("there is a log");
        let mut statements = Statements::new();
        for entry in text.split("\ntenantd|LOG:  ").skip(1) {
            let mut lines = entry.lines();
            let first = lines.next().unwrap_or_default();
            let own = std::iter::once(first).chain(lines.take_while(|line| line.starts_with('\t')));
            let words = own.collect::<Vec<_>>().join(" ");
            let statement = match words.split_once(": ") {
                Some((kind, statement)) if kind == "statement" || kind.starts_with("execute ") => statement,
                _ => continue,
            };
            let statement = statement.split_whitespace().collect::<Vec<_>>().join(" ");
            *statements.entry(statement).or_default() += 1;
        }
        statements
    }

    /// Waits until the gateways have sent some statements more by themselves: whatever follows from
    /// a change was sent before.
    async fn settle(&self) {
        let sum = |statements: Statements| statements.values().sum::<usize>();
        let before = sum(self.read());
        until("gateways go on asking", async || (sum(self.read()) > before + 15).then_some(())).await;
    }
}

/// What gateways ask without any occasion, and what was counted for changes.
struct Costs<'a> {
    log: &'a StatementLog,
    idle: Statements,
    idle_for: Duration,
}

impl<'a> Costs<'a> {
    async fn start(log: &'a StatementLog) -> Self {
        log.settle().await;
        let (before, begun) = (log.read(), SystemClock.monotonic());
        // Long enough for everything that has a period.
        until_within(PATIENCE, "a while", async || (begun.elapsed() > Duration::from_secs(12)).then_some(()))
            .await;
        let idle = difference(&log.read(), &before);
        let costs = Self { log, idle, idle_for: begun.elapsed() };
        for (statement, count) in &costs.idle {
            println!(
                "idle: {:.2} a second: {}",
                *count as f64 / costs.idle_for.as_secs_f64(),
                short(statement)
            );
        }
        costs
    }

    /// Prints the statements since `before`, without those of an idle cluster, and returns how many
    /// there are of kinds that an idle one does not send.
    async fn print(&self, what: &str, before: &Statements, begun: Instant) -> usize {
        self.log.settle().await;
        let share = begun.elapsed().as_secs_f64() / self.idle_for.as_secs_f64();
        let sent = difference(&self.log.read(), before);
        let (usual, special): (Statements, Statements) =
            sent.into_iter().partition(|(statement, _)| self.idle.contains_key(statement));
        let expected = self.idle.values().sum::<usize>() as f64 * share;
        let sum: usize = special.values().sum();
        let more = usual.values().sum::<usize>() as f64 - expected;
        println!("{what}: {sum} statements, and {more:.1} more of those that are sent anyway");
        special.iter().for_each(|(statement, count)| println!("    {count} {}", short(statement)));
        sum
    }
}

fn difference(after: &Statements, before: &Statements) -> Statements {
    let more = |(statement, count): (&String, &usize)| {
        let more = count - before.get(statement).copied().unwrap_or_default();
        (more > 0).then(|| (statement.clone(), more))
    };
    after.iter().filter_map(more).collect()
}

fn short(statement: &str) -> String {
    statement.chars().take(100).collect()
}

/// Returns how many connections gateways have now.
fn count_connections(server: &OwnServer) -> usize {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tenantd'";
    server.psql(count).trim().parse().expect("a number")
}

/// Has everybody renew and call at the same time, some times, each time at another gateway. The pool
/// keeps its connections for a while, so they can be counted afterwards.
async fn load(gateways: &[Gateway], client_id: &str, people: &mut [Tokens]) {
    for round in 0..6 {
        let one = |(number, tokens)| {
            renew_and_call(&gateways[(number + round) % gateways.len()], client_id, tokens)
        };
        join_all(people.iter_mut().enumerate().map(one)).await;
    }
}

async fn renew_and_call(gateway: &Gateway, client_id: &str, tokens: &mut Tokens) {
    *tokens = refresh(&app(gateway, client_id), &tokens.refresh).await.expect("renewed");
    assert_eq!(call(gateway, &tokens.access).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_and_the_statements_of_a_change_do_not_grow_with_the_tenants() {
    let tenants = std::env::var("TENANTD_FIGURES_TENANTS").ok().and_then(|text| text.parse().ok());
    let server = OwnServer::start();
    let log = StatementLog::start(&server);
    let site = Site::new(address(&[server.port]), tenants.unwrap_or(1_000)).await;
    let mut gateways = vec![site.start(1).await];
    let client_id = App::registered(&gateways[0], "/a").await.client_id;
    let logins = (0..PEOPLE).map(|_| async { app(&gateways[0], &client_id).tokens(&site.entra).await });
    let mut people: Vec<Tokens> = join_all(logins).await;
    load(&gateways, &client_id, &mut people).await;
    let connections = count_connections(&server);
    println!("one gateway, {} tenants: {connections} connections", site.tenants);
    assert!((2..=CONNECTIONS_PER_NODE).contains(&connections), "{connections}");
    gateways.extend([site.start(2).await, site.start(3).await]);
    load(&gateways, &client_id, &mut people).await;
    let connections = count_connections(&server);
    println!("three gateways: {connections} connections");
    assert!((4..=3 * CONNECTIONS_PER_NODE).contains(&connections), "{connections}");

    let costs = Costs::start(&log).await;
    let now = || (log.read(), SystemClock.monotonic());
    let mut sums = Vec::new();

    let (before, begun) = now();
    for gateway in &gateways {
        assert_eq!(call(gateway, &people[0].access).await, 200);
    }
    let first_calls = costs.print("the first call with a token at each of three nodes", &before, begun).await;
    assert!(first_calls <= gateways.len(), "a node reads the grant of a token that it did not issue");
    let (before, begun) = now();
    for number in 0..60 {
        assert_eq!(call(&gateways[number % 3], &people[0].access).await, 200);
    }
    assert_eq!(costs.print("60 calls with a token that was seen", &before, begun).await, 0);

    let (before, begun) = now();
    for gateway in &gateways {
        gateway.put("a.yaml", site.tenant("a", "second"));
    }
    for gateway in &gateways {
        until_within(PATIENCE, "the change is live", async || {
            let status = gateway.status("a").await?;
            (status["revision"] == 2).then_some(())
        })
        .await;
    }
    sums.push(costs.print("a changed file on three nodes", &before, begun).await);

    let (before, begun) = now();
    let tokens = app(&gateways[1], &client_id).tokens(&site.entra).await;
    sums.push(costs.print("a login", &before, begun).await);

    let (before, begun) = now();
    let renewed = refresh(&app(&gateways[2], &client_id), &tokens.refresh).await.expect("renewed");
    sums.push(costs.print("a renewal", &before, begun).await);

    let (before, begun) = now();
    order(&gateways[0], &["logins", "block", ADA, "--tenant", "a"]).await;
    for gateway in &gateways {
        until("whoever is blocked is out", async || {
            (call(gateway, &renewed.access).await != 200).then_some(())
        })
        .await;
    }
    sums.push(costs.print("a block of somebody with many logins", &before, begun).await);

    let (before, begun) = now();
    order(&gateways[1], &["logins", "unblock", ADA]).await;
    sums.push(costs.print("the block's end", &before, begun).await);

    let tokens = app(&gateways[1], &client_id).tokens(&site.entra).await;
    let (before, begun) = now();
    let form = [("token", tokens.refresh.as_str()), ("client_id", &client_id)];
    assert_eq!(app(&gateways[0], &client_id).post("/revoke", &form).await.status, 200);
    for gateway in &gateways {
        until("it is revoked", async || (call(gateway, &tokens.access).await != 200).then_some(())).await;
    }
    sums.push(costs.print("a revocation", &before, begun).await);
    assert!(sums.iter().all(|sum| *sum <= STATEMENTS_PER_CHANGE), "{sums:?}");
}

#[tokio::test]
async fn a_sign_out_acts_where_a_pooler_passes_no_notification() {
    const ROUNDS: usize = 12;
    let server = OwnServer::start();
    let pooler = Bouncer::start(&server, "transaction");
    let site = Site::new(address(&[pooler.port]), 1).await;
    let (one, other) = tokio::join!(site.start(1), site.start(2));
    let client_id = App::registered(&one, "/a").await.client_id;
    let mut last_served: Vec<Duration> = Vec::new();
    for _ in 0..ROUNDS {
        let tokens = app(&one, &client_id).tokens(&site.entra).await;
        assert_eq!(call(&other, &tokens.access).await, 200);
        order(&one, &["logins", "end", "--person", ADA, "--yes"]).await;
        let ordered = SystemClock.monotonic();
        let mut served = Duration::ZERO;
        until("the other gateway knows", async || {
            let begun = ordered.elapsed();
            let is_out = call(&other, &tokens.access).await != 200;
            served = if is_out { served } else { begun };
            is_out.then_some(())
        })
        .await;
        last_served.push(served);
    }
    last_served.sort_unstable();
    println!("the last call that was served began so long after the order's answer: {last_served:?}");
}
