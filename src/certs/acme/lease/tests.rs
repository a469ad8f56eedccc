use super::*;
use crate::base::clock::ManualClock;
use crate::store::testkit::ClusterDatabase;

const NAME: &str = "mcp.test";

async fn take(store: &ClusterStore, clock: &Arc<ManualClock>) -> Lease {
    let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(clock);
    Lease::take(store, NAME, true, &clock).await.expect("answered").expect("it is free").0
}

#[tokio::test]
async fn a_lease_is_over_by_its_holders_clock_first() {
    let database = ClusterDatabase::new();
    let store = database.connect().await;
    let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
    let lease = take(&store, &clock).await;
    clock.advance(Duration::from_secs(11));
    assert!(lease.clock().is_running());
    assert!(lease.confirm().await.is_ok());
    clock.advance(Duration::from_secs(11));
    assert!(lease.clock().is_running(), "it was extended");
    clock.advance(Duration::from_secs(1));
    assert!(!lease.clock().is_running());
    assert!(
        store.extend_lease(lease.claim()).await.expect("answered"),
        "the database still says that it is held"
    );
    assert!(lease.confirm().await.is_err(), "what is over stays over");
    assert!(!lease.clock().is_running());
}

#[tokio::test]
async fn a_lease_that_another_gateway_took_is_noticed_before_the_ca_is_asked() {
    let database = ClusterDatabase::new();
    let (frozen, other) = (database.connect().await, database.connect().await);
    let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
    let lost = take(&frozen, &clock).await;
    database.psql("UPDATE tenantd.certificates SET until = clock_timestamp() - interval '1 second'");
    let lease = take(&other, &clock).await;
    assert!(lost.clock().is_running(), "this gateway's clock stood still");
    assert!(lost.confirm().await.is_err());
    assert!(!lost.clock().is_running());
    assert!(lease.confirm().await.is_ok());
}

#[tokio::test]
async fn a_holder_extends_its_lease_while_it_works() {
    let database = ClusterDatabase::new();
    let store = database.connect().await;
    let lease = take(&store, &Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH))).await;
    let until = || database.psql("SELECT until FROM tenantd.certificates");
    let before = until();
    let extended = async {
        while until() == before {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = lease.keep() => panic!("it was lost"),
        extended = tokio::time::timeout(Duration::from_secs(30), extended) => extended.expect("in time"),
    }
}
