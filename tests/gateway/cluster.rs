//! Two gateways with one database and one public URL, as behind a balancer: what happens at one
//! counts at the other.

mod people;

use std::fs;
use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tenantd::base::clock::{Clock, SystemClock};
use tenantd::base::digest::Digest;

use super::harness::entra::FakeEntra;
use super::harness::gateway::BINARY;
use super::harness::login::{App, Browser, CALLBACK, Tokens, parameter};
use super::harness::secret::secret;
use super::harness::{Era, FakeBackend, Gateway, Reply, Setup, Tenant, until, until_within, unused_port};
use super::postgres::Database;

/// Ada is who logs in.
const ADA: &str = "ada@contoso.com";
/// A change acts within two seconds; a loaded machine gets more.
const PROMPT: Duration = Duration::from_secs(10);

struct Pair {
    entra: FakeEntra,
    backend: FakeBackend,
    database: Database,
    one: Gateway,
    other: Gateway,
}

impl Pair {
    async fn start() -> Self {
        Self::start_with(|setup| setup).await
    }

    /// The same, with a change of the other one's settings.
    async fn start_with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
        let database = Database::new();
        let port = unused_port();
        let [one, other] =
            ["127.0.0.1", "127.0.0.2"].map(|host| setup(&database, &entra, &backend, host, port));
        // Both see a new tenant on an empty database at the same time.
        let (one, other) = tokio::join!(one.start(), change(other).start());
        Self { entra, backend, database, one, other }
    }

    fn apps<'a>(&'a self, client_id: &str) -> [App<'a>; 2] {
        [&self.one, &self.other].map(|gateway| App {
            gateway,
            prefix: "/a",
            client_id: client_id.to_owned(),
            redirect_uri: CALLBACK.to_owned(),
        })
    }

    async fn registered(&self) -> [App<'_>; 2] {
        let id = App::registered(&self.one, "/a").await.client_id;
        self.apps(&id)
    }
}

/// A gateway at an address of its own, whose public URL is that of all with this port.
fn setup(database: &Database, entra: &FakeEntra, backend: &FakeBackend, host: &str, port: u16) -> Setup {
    let setup = Setup::listening(port).instead("--listen", &format!("{host}:{port}"));
    let setup = database.join(setup).flag("--entra-authority", &entra.authority());
    let digest = Digest::of(secret("program").as_bytes());
    let program = format!("machine_clients: [{{id: job, label: Nightly, sha256: {digest}}}]\n");
    setup.file("a.yaml", Tenant::new("a", backend).with(&(entra.lines() + &program)).yaml())
}

pub(super) async fn call(gateway: &Gateway, access: &str) -> u16 {
    gateway.client().bearer(access).search(Era::Modern, "/a", "q").await.status
}

pub(super) async fn refresh(app: &App<'_>, refresh: &str) -> Result<Tokens, (u16, String)> {
    let form = [("grant_type", "refresh_token"), ("refresh_token", refresh), ("client_id", &app.client_id)];
    let answer = app.post("/token", &form).await;
    match answer.status {
        200 => Ok(Tokens::of(&answer.json())),
        status => Err((status, answer.json()["error"].as_str().unwrap_or_default().to_owned())),
    }
}

/// Runs a verb against a gateway's admin listener.
pub(super) async fn order(gateway: &Gateway, arguments: &[&str]) {
    let admin = gateway.admin_address().to_string();
    let mut command = Command::new(BINARY);
    command.args(arguments).args(["--admin", &admin]).env_clear();
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
    let output = output.expect("the binary runs");
    assert!(output.status.success(), "{output:?}");
}

/// Waits until calls with this token are refused, and says how long that took.
async fn until_out(gateway: &Gateway, access: &str, what: &str) {
    let ordered = SystemClock.monotonic();
    until_within(PROMPT, what, async || (call(gateway, access).await != 200).then_some(())).await;
    eprintln!("{what}: {} ms after the order was answered", ordered.elapsed().as_millis());
}

/// Waits until a person can log in again.
async fn until_let_in(app: &App<'_>, entra: &FakeEntra, what: &str) {
    until(what, async || {
        let mut browser = Browser::new(app.gateway);
        let callback = app.log_in_at_microsoft(&mut browser, entra).await;
        (browser.get(&callback).await.status == 302).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_login_begun_at_one_gateway_goes_on_at_the_other() {
    let pair = Pair::start().await;
    let [at_one, at_other] = pair.registered().await;
    let back = at_other.log_in(&mut Browser::new(&pair.other), &pair.entra).await;
    let code = parameter(&back, "code").expect("a code");
    let sold = at_one.redeem(&code).await;
    assert_eq!(sold.status, 200, "{sold:?}");
    let first = Tokens::of(&sold.json());
    let mut tokens = first.clone();
    for app in [&at_other, &at_one, &at_other] {
        assert_eq!(
            (call(&pair.one, &tokens.access).await, call(&pair.other, &tokens.access).await),
            (200, 200)
        );
        tokens = refresh(app, &tokens.refresh).await.expect("renewed");
    }
    // The network may have delivered it late.
    let late = refresh(&at_one, &first.refresh).await;
    assert_eq!(late.err(), Some((503, "temporarily_unavailable".to_owned())));
    for app in [&at_other, &at_one].iter().cycle().take(20) {
        tokens = refresh(app, &tokens.refresh).await.expect("renewed");
    }
    // A token that was used long ago, or many renewals ago, ends the login, wherever it is shown.
    assert_eq!(refresh(&at_one, &first.refresh).await.err(), Some((400, "invalid_grant".to_owned())));
    assert_eq!(refresh(&at_other, &tokens.refresh).await.err(), Some((400, "invalid_grant".to_owned())));
    until_out(&pair.other, &tokens.access, "a stolen login is out at the other gateway").await;

    let back = at_one.log_in(&mut Browser::new(&pair.one), &pair.entra).await;
    let code = parameter(&back, "code").expect("a code");
    let (one, other) = tokio::join!(at_one.redeem(&code), at_other.redeem(&code));
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    // Whoever was overtaken while it redeemed may be told to ask again.
    assert!(matches!(statuses, [200, 400 | 503]), "{one:?} {other:?}");
    assert_eq!(pair.database.count("incarnations"), "1");
}

#[tokio::test]
async fn whoever_is_blocked_is_out_of_calls_streams_and_renewals_everywhere() {
    let pair = Pair::start().await;
    let [at_one, at_other] = pair.registered().await;
    let tokens = at_one.tokens(&pair.entra).await;
    let client = pair.other.client().bearer(&tokens.access);
    assert_eq!(call(&pair.other, &tokens.access).await, 200);
    let params = json!({ "notifications": { "toolsListChanged": true } });
    let stream = client.ask(Era::Modern, "/a/mcp", "subscriptions/listen", params);
    let stream = stream.send().await.expect("an answer");
    assert_eq!(stream.status(), 200);
    pair.backend.answer("/nlp-search", Reply::Held(Box::new(Reply::Rows)));
    let held = async {
        let refused = client.search(Era::Modern, "/a", "q").await;
        assert_eq!(refused.status, 401, "{refused:?}");
    };
    let blocked = async {
        pair.backend.until(|counts| counts.in_flight == 1).await;
        order(&pair.one, &["logins", "block", ADA, "--tenant", "a"]).await;
        let ordered = SystemClock.monotonic();
        // The stream or its connection ends; either way nothing more arrives.
        let _rest = stream.bytes().await;
        eprintln!("a stream at the other gateway ended {} ms after the order", ordered.elapsed().as_millis());
    };
    tokio::time::timeout(PROMPT * 2, async { tokio::join!(held, blocked) }).await.expect("both ended");
    pair.backend.release();
    pair.backend.answer("/nlp-search", Reply::Rows);
    assert_ne!(call(&pair.other, &tokens.access).await, 200);
    assert_eq!(refresh(&at_other, &tokens.refresh).await.err().map(|it| it.0), Some(400));
    let mut browser = Browser::new(&pair.other);
    let callback = at_other.log_in_at_microsoft(&mut browser, &pair.entra).await;
    assert_eq!(browser.get(&callback).await.status, 403);

    order(&pair.other, &["logins", "unblock", ADA]).await;
    until_let_in(&at_one, &pair.entra, "the block is lifted at the first gateway too").await;
    let again = at_one.tokens(&pair.entra).await;
    assert_eq!(call(&pair.other, &again.access).await, 200);
    order(&pair.one, &["logins", "end", "--person", ADA, "--yes"]).await;
    until_out(&pair.other, &again.access, "whose logins ended is out at the other gateway").await;
}

#[tokio::test]
async fn keys_rotated_in_an_emergency_at_one_gateway_count_at_the_other() {
    let pair = Pair::start().await;
    let [at_one, at_other] = pair.registered().await;
    let old = at_one.tokens(&pair.entra).await;
    assert_eq!(call(&pair.other, &old.access).await, 200);
    order(&pair.one, &["keys", "rotate", "a", "--emergency"]).await;
    // The other one hears of it, before it meets anything that the new key signed.
    until_out(&pair.other, &old.access, "a token of the old keys is out at the other gateway").await;
    let new = refresh(&at_one, &old.refresh).await.expect("renewed");
    assert_eq!(call(&pair.other, &new.access).await, 200);
    order(&pair.one, &["keys", "rotate", "a", "--emergency"]).await;
    // What the new key signs is taken at once, heard of or not.
    let new = refresh(&at_one, &new.refresh).await.expect("renewed");
    assert_eq!(call(&pair.other, &new.access).await, 200);
    let key_set = async |gateway: &Gateway| {
        let found = gateway.client().request(Method::GET, "/a/.well-known/jwks.json").send().await;
        found.expect("an answer").text().await.expect("text")
    };
    assert_eq!(key_set(&pair.one).await, key_set(&pair.other).await);
    refresh(&at_other, &new.refresh).await.expect("renewed");
}

#[tokio::test]
async fn what_no_notification_tells_is_found_by_asking() {
    let pair = Pair::start().await;
    let [at_one, _] = pair.registered().await;
    let tokens = at_one.tokens(&pair.entra).await;
    assert_eq!(call(&pair.other, &tokens.access).await, 200);
    let silence = "DO $$ BEGIN EXECUTE replace(
        pg_get_functiondef('tenantd.record_changes'::regproc), 'pg_notify(''tenantd''', 'pg_notify(''nobody''');
        END $$";
    pair.database.sql(silence);
    order(&pair.one, &["logins", "end", "--person", ADA, "--yes"]).await;
    until_out(&pair.other, &tokens.access, "a revocation that nobody was notified of acts").await;
    // The connection that hears notifications is gone, too.
    let again = at_one.tokens(&pair.entra).await;
    assert_eq!(call(&pair.other, &again.access).await, 200);
    pair.database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()");
    order(&pair.one, &["logins", "end", "--person", ADA, "--yes"]).await;
    until_out(&pair.other, &again.access, "a revocation acts although the listening connection broke").await;
}

#[tokio::test]
async fn a_gateway_says_again_and_again_that_it_is_there() {
    let pair = Pair::start().await;
    let live =
        || pair.database.query("SELECT count(*) FROM tenantd.nodes AS node WHERE tenantd.is_live(node)");
    assert_eq!(live(), "2");
    pair.database.sql("UPDATE tenantd.nodes SET seen_at = seen_at - interval '1 hour'");
    until("both were heard of again", async || (live() == "2").then_some(())).await;
}

#[tokio::test]
async fn a_gateway_that_missed_too_much_loads_everything() {
    let pair = Pair::start().await;
    let [at_one, _] = pair.registered().await;
    let tokens = at_one.tokens(&pair.entra).await;
    assert_eq!(call(&pair.other, &tokens.access).await, 200);
    pair.other.signal("STOP");
    order(&pair.one, &["logins", "end", "--person", ADA, "--yes"]).await;
    order(&pair.one, &["logins", "block", ADA, "--all-tenants"]).await;
    pair.database.sql("DELETE FROM tenantd.changes WHERE number < (SELECT max(number) FROM tenantd.changes)");
    pair.other.signal("CONT");
    until_out(&pair.other, &tokens.access, "what happened while a gateway was frozen acts").await;
    until("it loaded everything", async || pair.other.output().contains("loaded as a whole").then_some(()))
        .await;
}

#[tokio::test]
async fn a_copy_of_a_state_folder_in_use_is_refused() {
    let pair = Pair::start().await;
    let copy = tempfile::tempdir().expect("a folder");
    let state = copy.path().join("state");
    fs::create_dir(&state).expect("created");
    for file in fs::read_dir(pair.one.path().join("state")).expect("a folder").flatten() {
        if file.file_type().is_ok_and(|kind| kind.is_file()) {
            fs::copy(file.path(), state.join(file.file_name())).expect("copied");
        }
    }
    let setup = setup(&pair.database, &pair.entra, &pair.backend, "127.0.0.3", pair.one.address().port());
    let refusal = setup.state(&state.display().to_string()).refusal().await;
    assert!(refusal.contains("this state folder is a copy"), "{refusal}");
    // The first one notices nothing.
    assert_eq!(pair.one.status("a").await.expect("there")["state"], json!("serving"));
}

#[tokio::test]
async fn a_gateway_among_several_that_hears_nothing_refuses_calls_or_serves_on_as_the_settings_say() {
    let pair = Pair::start_with(|setup| setup.flag("--store-stale", "serve")).await;
    let [at_one, _] = pair.registered().await;
    let tokens = at_one.tokens(&pair.entra).await;
    assert_eq!((call(&pair.one, &tokens.access).await, call(&pair.other, &tokens.access).await), (200, 200));
    let metrics = async |gateway: &Gateway| gateway.admin("/metrics").await.1;
    let cluster = async |gateway: &Gateway| {
        let ready: serde_json::Value = serde_json::from_str(&gateway.admin("/readyz").await.1).expect("JSON");
        ready["cluster"]["stale"].clone()
    };
    until("each knows of the other", async || {
        metrics(&pair.one).await.contains("\ntenantd_cluster_live_nodes 2").then_some(())
    })
    .await;
    assert_eq!(cluster(&pair.one).await, json!(false));
    let client = pair.one.client().bearer(&tokens.access);
    let params = json!({ "notifications": { "toolsListChanged": true } });
    let stream = client.ask(Era::Modern, "/a/mcp", "subscriptions/listen", params);
    let stream = stream.send().await.expect("an answer");
    pair.database.go_away();
    until("the first one refuses", async || {
        let answer = client.search(Era::Modern, "/a", "q").await;
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        (answer.status == 503 && answer.headers.contains_key("retry-after")).then_some(())
    })
    .await;
    let _ended = tokio::time::timeout(PROMPT, stream.bytes()).await.expect("the stream ended");
    assert_eq!((cluster(&pair.one).await, cluster(&pair.other).await), (json!(true), json!(true)));
    assert!(metrics(&pair.one).await.contains("\ntenantd_cluster_stale 1"));
    assert_eq!(call(&pair.other, &tokens.access).await, 200, "it serves on");
    pair.database.come_back();
    until("the first one serves again", async || {
        (call(&pair.one, &tokens.access).await == 200).then_some(())
    })
    .await;
    assert_eq!(cluster(&pair.one).await, json!(false));
}
