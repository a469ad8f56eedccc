use super::*;
use crate::store::testkit::ClusterDatabase;

const DIRECTORY: &str = "https://ca.test/directory";

async fn load(store: &ClusterStore) -> Option<(Vec<u8>, Vec<u8>)> {
    match store.load_acme_account(DIRECTORY).await.expect("read") {
        SharedAccount::Open { account, sealed } => Some((account, sealed)),
        SharedAccount::Missing => None,
        SharedAccount::Unreadable => panic!("it does not open"),
    }
}

#[tokio::test]
async fn one_gateway_at_a_time_opens_an_account_and_one_that_is_late_replaces_none() {
    let database = ClusterDatabase::new();
    let (first, second) = (database.connect().await, database.connect().await);
    let take = async |store: &ClusterStore| store.take_acme_account(DIRECTORY).await.expect("answered");
    let late = take(&first).await.expect("nobody opens it");
    assert!(take(&second).await.is_none() && load(&second).await.is_none());
    first.release_acme_account(&late).await.expect("answered");
    let claim = take(&second).await.expect("it was given back");
    assert!(!first.save_acme_account(&late, b"late").await.expect("answered"));
    first.release_acme_account(&late).await.expect("answered");
    assert!(take(&first).await.is_none(), "the right of another is not given back");
    assert!(second.save_acme_account(&claim, b"canary").await.expect("answered"));
    assert_eq!(load(&first).await.expect("there is one").0, b"canary");
    assert!(take(&first).await.is_none(), "there is an account");
    let stored = database.psql("SELECT encode(account, 'escape') FROM tenantd.acme_accounts");
    assert!(!stored.contains("canary"), "{stored}");
}

#[tokio::test]
async fn an_account_is_forgotten_unless_another_has_replaced_it() {
    let database = ClusterDatabase::new();
    let store = database.connect().await;
    let open = async |account: &[u8]| {
        let claim = store.take_acme_account(DIRECTORY).await.expect("answered").expect("there is none");
        assert!(store.save_acme_account(&claim, account).await.expect("answered"));
        load(&store).await.expect("there is one").1
    };
    let old = open(b"old").await;
    store.forget_acme_account(DIRECTORY, &old).await.expect("answered");
    assert!(load(&store).await.is_none());
    open(b"new").await;
    store.forget_acme_account(DIRECTORY, &old).await.expect("answered");
    assert_eq!(load(&store).await.expect("it is another").0, b"new");
}

#[tokio::test]
async fn answers_are_given_while_they_last_and_published_under_a_lease_in_force() {
    let database = ClusterDatabase::new();
    let (orderer, other) = (database.connect().await, database.connect().await);
    let answers = async || other.load_challenges().await.expect("read");
    let (minute, none) = (Duration::from_secs(60), None);
    let http = SharedChallenge::new_http01("token".to_owned(), "text");
    let tls = SharedChallenge::new_tls_alpn01("mcp.test".to_owned(), vec![7; 32]);
    assert!(
        orderer.publish_challenge(none, &http, minute).await.expect("answered"),
        "a dry run has no lease"
    );
    let (claim, _) = orderer.take_certificate("mcp.test", true).await.expect("answered").expect("free");
    assert!(orderer.publish_challenge(Some(&claim), &tls, minute).await.expect("answered"));
    assert!(answers().await.iter().all(|answer| [&http, &tls].contains(&answer)));
    assert_eq!(answers().await.len(), 2);
    orderer.remove_challenge(SharedChallengeKind::Http01, "token").await.expect("answered");
    assert_eq!(answers().await, std::slice::from_ref(&tls));

    database.psql("UPDATE tenantd.acme_challenges SET until = clock_timestamp() - interval '1 second'");
    assert_eq!(answers().await, []);
    database.psql("UPDATE tenantd.certificates SET until = clock_timestamp() - interval '1 second'");
    assert!(!orderer.publish_challenge(Some(&claim), &tls, minute).await.expect("answered"), "it ran out");
    let _taken = other.take_certificate("mcp.test", true).await.expect("answered").expect("it ran out");
    assert!(!orderer.publish_challenge(Some(&claim), &tls, minute).await.expect("answered"), "it was taken");
    assert_eq!(answers().await, []);
}
