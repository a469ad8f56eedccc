//! Steps whose outcome the database does not tell: they happen at most once, and are found out.

use super::database::new_keyring;
use super::grants::{acme, create_grant, new_rotation};
use super::*;
use crate::store::testkit::open_postgres;
use crate::store::tests::flaky_proxy::{Fault, FlakyProxy};
use crate::store::tests::postgres_server::PostgresServer;

/// Two gateways with one database, of which one is behind a proxy.
struct Pair {
    server: PostgresServer,
    name: String,
    proxy: FlakyProxy,
    behind_proxy: AuthStore,
    other: AuthStore,
}

impl Pair {
    async fn new() -> Self {
        let server = PostgresServer::acquire();
        let name = server.create_database();
        let (proxy, keyring) = (FlakyProxy::start(server.socket()), new_keyring());
        let behind_proxy = open_postgres(&proxy.address(&name), &keyring).await;
        let other = open_postgres(&server.address(&name), &keyring).await;
        Self { server, name, proxy, behind_proxy, other }
    }

    async fn create_grant(&self) -> GrantId {
        create_grant(&self.other, "client").await
    }

    async fn load(&self, store: &AuthStore, id: GrantId) -> Grant {
        store.load_grant(&acme(), id, NOW).await.expect("read").expect("there")
    }

    /// Lets the proxy pass again, and waits until the store is used again.
    async fn heal(&self) {
        self.proxy.set(Fault::None);
        for _ in 0..200 {
            if self.behind_proxy.probe_write().await.is_ok() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("the store is not used again");
    }
}

#[tokio::test]
async fn a_rotation_whose_answer_was_lost_is_unconfirmed_until_somebody_has_its_token() {
    let pair = Pair::new().await;
    let id = pair.create_grant().await;
    assert!(pair.other.take_code(&acme(), new_rotation(id, 0)).await.expect("answered"));
    pair.behind_proxy.probe_write().await.expect("a connection is there");
    pair.proxy.set(Fault::LoseAnswers);
    let error = pair.behind_proxy.rotate_refresh(&acme(), new_rotation(id, 1)).await.expect_err("lost");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let elsewhere = pair.load(&pair.other, id).await;
    assert_eq!((elsewhere.last_sequence, elsewhere.last_token.is_unconfirmed), (2, false));
    assert_eq!(pair.behind_proxy.settle_rotations().await, 1, "the database is still away");
    pair.heal().await;
    assert!(pair.behind_proxy.was_away_lately() && !pair.other.was_away_lately());
    assert_eq!(pair.behind_proxy.settle_rotations().await, 0);
    assert!(pair.load(&pair.other, id).await.last_token.is_unconfirmed, "however long ago it was");
    assert!(pair.other.confirm_last_token(&acme(), id, 2).await.expect("answered"));
    assert!(!pair.other.confirm_last_token(&acme(), id, 2).await.expect("answered"), "once");
    let grant = pair.load(&pair.other, id).await;
    assert!(!grant.last_token.is_unconfirmed && grant.last_token.age < SignedDuration::from_secs(60));
}

#[tokio::test]
async fn a_reader_settles_the_rotation_that_it_reads() {
    let pair = Pair::new().await;
    let id = pair.create_grant().await;
    assert!(pair.other.take_code(&acme(), new_rotation(id, 0)).await.expect("answered"));
    pair.behind_proxy.probe_write().await.expect("a connection is there");
    pair.proxy.set(Fault::LoseAnswers);
    pair.behind_proxy.rotate_refresh(&acme(), new_rotation(id, 1)).await.expect_err("lost");
    assert!(pair.behind_proxy.load_grant(&acme(), id, NOW).await.is_err(), "not before it is settled");
    pair.heal().await;
    assert!(pair.load(&pair.behind_proxy, id).await.last_token.is_unconfirmed);
    // Of the next rotation everything is known.
    assert!(pair.behind_proxy.rotate_refresh(&acme(), new_rotation(id, 2)).await.expect("answered"));
    assert!(!pair.load(&pair.other, id).await.last_token.is_unconfirmed);
}

#[tokio::test]
async fn a_rotation_that_did_not_happen_marks_nothing() {
    let pair = Pair::new().await;
    let id = pair.create_grant().await;
    assert!(pair.other.take_code(&acme(), new_rotation(id, 0)).await.expect("answered"));
    assert!(pair.other.confirm_last_token(&acme(), id, 1).await.expect("answered"));
    pair.proxy.set(Fault::Cut);
    pair.behind_proxy.rotate_refresh(&acme(), new_rotation(id, 1)).await.expect_err("cut off");
    // Another gateway does it meanwhile.
    assert!(pair.other.rotate_refresh(&acme(), new_rotation(id, 1)).await.expect("answered"));
    pair.heal().await;
    pair.behind_proxy.settle_rotations().await;
    let grant = pair.load(&pair.other, id).await;
    assert_eq!((grant.last_sequence, grant.last_token.is_unconfirmed), (2, false));
}

#[tokio::test]
async fn a_statement_that_gets_no_answer_in_time_is_asked_about() {
    let pair = Pair::new().await;
    let id = pair.create_grant().await;
    pair.behind_proxy.probe_write().await.expect("a connection is there");
    pair.proxy.set(Fault::SwallowAnswers);
    let incarnation = acme();
    let taking = pair.behind_proxy.take_code(&incarnation, new_rotation(id, 0));
    let healing = async {
        for _ in 0..500 {
            if pair.load(&pair.other, id).await.last_sequence == 1 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        pair.proxy.set(Fault::None);
    };
    let (taken, ()) = tokio::join!(taking, healing);
    assert!(taken.expect("it was found out"), "its answer was swallowed, not its work");
    assert!(pair.load(&pair.other, id).await.last_token.is_unconfirmed);
    assert!(pair.server.psql(&pair.name, "SELECT number FROM tenantd.grants").trim() == "1");
}

#[tokio::test]
async fn the_age_of_a_token_follows_the_servers_clock_and_what_an_older_version_wrote() {
    let pair = Pair::new().await;
    let id = pair.create_grant().await;
    assert!(pair.other.take_code(&acme(), new_rotation(id, 0)).await.expect("answered"));
    let age = async || pair.load(&pair.other, id).await.last_token.age;
    assert!(age().await < SignedDuration::from_secs(60));
    let minutes_ago = "UPDATE tenantd.grants SET rotated_at = clock_timestamp() - interval '10 minutes'";
    pair.server.psql(&pair.name, minutes_ago);
    assert!(age().await >= SignedDuration::from_mins(10));
    // A version before writes the time only that its own clock shows; then the number differs, too.
    assert!(pair.load(&pair.other, id).await.last_token.is_unconfirmed);
    pair.server.psql(&pair.name, "UPDATE tenantd.grants SET rotated_number = 0");
    assert!(!pair.load(&pair.other, id).await.last_token.is_unconfirmed);
    assert!(age().await > SignedDuration::from_hours(24 * 365), "it was issued in 1970");
}
