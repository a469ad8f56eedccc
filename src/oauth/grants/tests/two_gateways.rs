//! Two gateways with one PostgreSQL database, and a database that goes away in between: no client
//! loses its login, and a code yields one.

use std::sync::Arc;

use crate::base::clock::SystemClock;
use crate::base::task::Tasks;
use crate::identity::Providers;
use crate::identity::tests::fake::FakeEntra;
use crate::oauth::authorization_server::AuthServerDeps;
use crate::oauth::context::AuthContext;
use crate::oauth::testkit::{
    APP_SECRET, REDIRECT, TestAuthServer, TestResponse, VERIFIER, form_request, log_in, login_spec,
    start_shared,
};
use crate::spec::{AccessRules, TenantName};
use crate::store::testkit::{new_store, open_postgres};
use crate::store::tests::flaky_proxy::{Fault, FlakyProxy};
use crate::store::tests::postgres_server::PostgresServer;

struct TestNode {
    server: TestAuthServer,
    shared: AuthServerDeps,
    _tasks: Tasks,
}

/// Two gateways, of which the first reaches the database through a proxy.
struct Pair {
    database: PostgresServer,
    name: String,
    proxy: FlakyProxy,
    entra: FakeEntra,
    first: TestNode,
    second: TestNode,
    client: String,
}

impl Pair {
    async fn new() -> Self {
        let database = PostgresServer::acquire();
        let name = database.create_database();
        let proxy = FlakyProxy::start(database.socket());
        let entra = FakeEntra::start(APP_SECRET).await;
        let (_folder, file) = new_store();
        let start = async |address: String| {
            let (tasks, keyring) = (Tasks::new(), file.keyring());
            let store = open_postgres(&address, keyring).await;
            let shared = start_shared(store, keyring, SystemClock::shared(), &entra, &tasks).await;
            let tenant = TenantName::parse("acme").expect("a name");
            let server = TestAuthServer::new(&shared, "acme", &tenant, login_spec(AccessRules::default()));
            server.inner.activate(&"acme".into());
            assert!(shared.context.persist_incarnations().await);
            server.issuer.jwks().await.expect("keys");
            TestNode { server, shared, _tasks: tasks }
        };
        let first = Box::pin(start(proxy.address(&name))).await;
        let second = Box::pin(start(database.address(&name))).await;
        let client = first.server.register_public();
        Self { database, name, proxy, entra, first, second, client }
    }

    fn context(&self) -> &AuthContext {
        &self.first.shared.context
    }

    fn providers(&self) -> &Arc<Providers> {
        &self.second.shared.providers
    }

    async fn issue_code(&self) -> String {
        let upstream = log_in(self.providers(), &self.entra).await;
        self.second.server.issue_code(&self.client, Some(upstream)).await
    }

    async fn log_in(&self) -> TestResponse {
        let code = self.issue_code().await;
        let tokens = self.second.server.redeem(&code, &self.client).await;
        assert_eq!(tokens.status, 200, "{tokens:?}");
        tokens
    }

    /// Does something with the first gateway, of which it takes one step in the database whose answer
    /// is lost.
    async fn lose_answer_of_step(&self, work: impl AsyncFnOnce() -> TestResponse) -> TestResponse {
        let count = || self.database.psql(&self.name, "SELECT sum(number) + 1 FROM tenantd.grants");
        let wanted = count();
        self.context().store.probe_write().await.expect("a connection is there");
        self.proxy.set(Fault::LoseAnswersFromStep);
        let answer = work().await;
        self.proxy.set(Fault::None);
        let taken = self.database.psql(&self.name, "SELECT sum(number) FROM tenantd.grants");
        assert_eq!(taken, wanted, "the step was not taken");
        answer
    }

    /// Waits until the first gateway uses the database again, and knows what became of its work.
    async fn settle(&self) {
        for _ in 0..200 {
            if self.context().store.probe_write().await.is_ok()
                && self.context().store.settle_rotations().await == 0
            {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("the database is not used again");
    }

    /// Lets time pass by the server's clock.
    fn pass_minutes(&self, minutes: u32) {
        let past =
            format!("UPDATE tenantd.grants SET rotated_at = rotated_at - interval '{minutes} minutes'");
        self.database.psql(&self.name, &past);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_that_refresh_a_token_at_once_issue_the_same_successor() {
    let pair = Pair::new().await;
    let mut token = pair.log_in().await.text("refresh_token").to_owned();
    for round in 0..10 {
        let (one, two) = tokio::join!(
            pair.first.server.refresh(&token, &pair.client),
            pair.second.server.refresh(&token, &pair.client)
        );
        assert_eq!((one.status, two.status), (http::StatusCode::OK, http::StatusCode::OK), "round {round}");
        assert_eq!(one.text("refresh_token"), two.text("refresh_token"), "round {round}");
        token = one.text("refresh_token").to_owned();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_gateways_that_redeem_a_code_at_once_one_does_and_its_client_stays_logged_in() {
    let pair = Pair::new().await;
    for _ in 0..10 {
        let code = pair.issue_code().await;
        let (one, two) = tokio::join!(
            pair.first.server.redeem(&code, &pair.client),
            pair.second.server.redeem(&code, &pair.client)
        );
        let (won, lost) = if one.status == 200 { (one, two) } else { (two, one) };
        assert_eq!((won.status.as_u16(), lost.status.as_u16()), (200, 503), "{won:?} {lost:?}");
        let refreshed = pair.first.server.refresh(won.text("refresh_token"), &pair.client).await;
        assert_eq!(refreshed.status, 200, "{refreshed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_whose_redemption_was_not_answered_is_redeemed_again() {
    let pair = Pair::new().await;
    let code = pair.issue_code().await;
    let lost = pair.lose_answer_of_step(async || pair.first.server.redeem(&code, &pair.client).await).await;
    assert_eq!(lost.error(), (503, "temporarily_unavailable"));
    let again = pair.second.server.redeem(&code, &pair.client).await;
    assert_eq!(again.status, 200, "{again:?}");
    let refreshed = pair.second.server.refresh(again.text("refresh_token"), &pair.client).await;
    assert_eq!(refreshed.status, 200, "{refreshed:?}");
    // It was answered, and not while the next request waited, so a third time it yields nothing. Its
    // client has the verifier, and keeps its login.
    pair.pass_minutes(1);
    assert_eq!(pair.second.server.redeem(&code, &pair.client).await.error(), (400, "invalid_grant"));
    let goes_on = pair.second.server.refresh(refreshed.text("refresh_token"), &pair.client).await;
    assert_eq!(goes_on.status, 200, "{goes_on:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thief_without_the_verifier_gains_nothing_of_a_lost_answer() {
    let pair = Pair::new().await;
    let code = pair.issue_code().await;
    let lost = pair.lose_answer_of_step(async || pair.first.server.redeem(&code, &pair.client).await).await;
    assert_eq!(lost.status, 503);
    let stolen = form_request(&[
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", &VERIFIER.to_lowercase()),
        ("client_id", &pair.client),
    ]);
    let stolen = pair.second.server.request_token(stolen).await;
    assert_eq!(stolen.error(), (400, "invalid_grant"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_without_a_challenge_is_redeemed_once_even_if_nobody_was_answered() {
    let pair = Pair::new().await;
    let code = pair.second.server.issue_code_for(&pair.client, None, None).await;
    let request = || {
        form_request(&[
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", REDIRECT),
            ("client_id", &pair.client),
        ])
    };
    let lost = pair.lose_answer_of_step(async || pair.first.server.request_token(request()).await).await;
    assert_eq!(lost.status, 503);
    // Nothing tells its client from a thief.
    let again = pair.second.server.request_token(request()).await;
    assert_ne!(again.status, 200, "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_that_was_not_answered_is_repeated_whenever_the_client_comes_back() {
    let pair = Pair::new().await;
    let tokens = pair.log_in().await;
    let first = tokens.text("refresh_token");
    let lost = pair.lose_answer_of_step(async || pair.first.server.refresh(first, &pair.client).await).await;
    assert_eq!(lost.error(), (503, "temporarily_unavailable"));
    pair.settle().await;
    pair.pass_minutes(10);
    let again = pair.second.server.refresh(first, &pair.client).await;
    assert_eq!(again.status, 200, "{again:?}");
    // Somebody has the successor now: the predecessor is good for the grace period only.
    let within = pair.second.server.refresh(first, &pair.client).await;
    assert_eq!(within.text("refresh_token"), again.text("refresh_token"));
    pair.pass_minutes(10);
    assert_eq!(pair.second.server.refresh(first, &pair.client).await.error(), (400, "invalid_grant"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reuse_is_judged_neither_while_the_database_is_away_nor_right_after() {
    let pair = Pair::new().await;
    let tokens = pair.log_in().await;
    let first = tokens.text("refresh_token");
    let second = pair.second.server.refresh(first, &pair.client).await;
    assert_eq!(second.status, 200, "{second:?}");
    pair.pass_minutes(1);
    pair.proxy.set(Fault::Cut);
    assert_eq!(pair.first.server.refresh(first, &pair.client).await.status, 503);
    pair.proxy.set(Fault::None);
    pair.settle().await;
    assert_eq!(pair.first.server.refresh(first, &pair.client).await.status, 503, "it may not know all yet");
    assert!(pair.second.server.is_access_token_valid(second.text("access_token")).await, "it did not end");
    assert_eq!(pair.second.server.refresh(first, &pair.client).await.error(), (400, "invalid_grant"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_the_network_delivers_late_ends_no_login_whichever_gateway_has_rotated_since() {
    let pair = Pair::new().await;
    let first = pair.log_in().await;
    let mut last = first.text("refresh_token").to_owned();
    for node in [&pair.second, &pair.first, &pair.second] {
        let answer = node.server.refresh(&last, &pair.client).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        last = answer.text("refresh_token").to_owned();
    }
    for node in [&pair.first, &pair.second] {
        let late = node.server.refresh(first.text("refresh_token"), &pair.client).await;
        assert_eq!(late.error(), (503, "temporarily_unavailable"));
    }
    let goes_on = pair.first.server.refresh(&last, &pair.client).await;
    assert_eq!(goes_on.status, 200, "{goes_on:?}");
}
