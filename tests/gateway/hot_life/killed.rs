//! SIGKILL at two hundred moments of reconciling, writing the store and writing the receipt: the
//! next start serves the revision in the store, which includes everything acknowledged.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use tenantd::base::clock::{Clock, SystemClock};
use tenantd::store::{KeySource, Store};

use super::super::harness::{Era, FakeBackend, Gateway, Setup, Tenant};

const MOMENTS: u32 = 200;
/// Every this many rounds the next start is checked from outside, otherwise only its store.
const SERVED_EVERY: u32 = 10;
/// A moment that does not occur is replaced by the end of this wait.
const PATIENCE: Duration = Duration::from_millis(500);

/// The moment of the kill.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// After this many microseconds.
    After(u64),
    /// When the store's write-ahead log grows.
    StoreWritten,
    /// When the draft of a receipt exists.
    ReceiptBegun,
    /// When the receipt exists.
    ReceiptWritten,
}

impl Moment {
    /// Returns a pseudorandom moment, the same in every run.
    fn of(number: u32) -> Self {
        let mut seed = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        seed ^= seed >> 29;
        match number % 5 {
            0 => Self::StoreWritten,
            1 => Self::ReceiptBegun,
            2 => Self::ReceiptWritten,
            _ => Self::After(seed % 200_000),
        }
    }

    async fn wait(self, gateway: &Gateway) {
        let (clock, before) = (SystemClock, log_length(gateway));
        let (began, receipt) = (clock.monotonic(), receipt(gateway));
        let draft = gateway.tenant_file(".acme.status.json.tmp");
        loop {
            let waited = clock.monotonic() - began;
            let is_there = match self {
                Self::After(micros) => waited >= Duration::from_micros(micros),
                Self::StoreWritten => log_length(gateway) != before,
                Self::ReceiptBegun => draft.exists(),
                Self::ReceiptWritten => self::receipt(gateway) != receipt,
            };
            if is_there || waited > PATIENCE {
                return;
            }
            tokio::time::sleep(Duration::from_micros(50)).await;
        }
    }
}

fn log_length(gateway: &Gateway) -> u64 {
    fs::metadata(gateway.path().join("state/tenantd.db-wal")).map_or(0, |about| about.len())
}

fn receipt(gateway: &Gateway) -> Value {
    let text = fs::read(gateway.tenant_file("acme.status.json")).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Returns the number of the revision that the next start restores, and asserts that it is
/// complete.
fn kept(gateway: &Gateway) -> u64 {
    let store = Store::open_unmodified(&gateway.path().join("state"), &KeySource::State).expect("it opens");
    let store = store.local().tables();
    let entry = store.load_entries().expect("read").into_iter().find(|entry| entry.entry_id == "acme");
    let Some((number, _)) = entry.and_then(|entry| entry.live) else { return 0 };
    assert!(
        store.load_documents("acme", number).expect("it opens").is_some(),
        "revision {number} has no documents"
    );
    number
}

/// Breaks the tenant's file, so that what serves afterwards comes from the store.
async fn assert_served(gateway: Gateway, backend: &FakeBackend, acknowledged: u64) -> Gateway {
    gateway.put("acme.yaml", Tenant::new("acme", backend).with("path_prefix: ../etc").yaml());
    let gateway = gateway.start_again().await;
    let status = gateway.until_state("acme", "stale").await;
    let in_force = status["revision"].as_u64().unwrap_or_default();
    assert!(in_force >= acknowledged, "revision {acknowledged} was acknowledged, then lost: {status}");
    assert_eq!(gateway.client().search(Era::Modern, "/acme", "q").await.data()["row_count"], 2);
    gateway.killed()
}

#[tokio::test]
async fn killed_at_two_hundred_moments_nothing_acknowledged_is_lost() {
    let backend = FakeBackend::start().await;
    let edition =
        |number: u32| Tenant::new("acme", &backend).with(&format!("description: Edition {number}.")).yaml();
    let gateway = Setup::new().file("acme.yaml", edition(0)).start().await;
    gateway.until_state("acme", "serving").await;
    let mut gateway = gateway.killed();
    let (mut acknowledged, mut in_time) = (0, 0);
    for number in 1..=MOMENTS {
        // One round in four changes a serving gateway, the others a starting one.
        match number % 4 {
            0 => {
                gateway = gateway.start_again().await;
                gateway.put("acme.yaml", edition(number));
            }
            _ => {
                gateway.put("acme.yaml", edition(number));
                gateway = gateway.spawned_again();
            }
        }
        let moment = Moment::of(number);
        moment.wait(&gateway).await;
        let told = receipt(&gateway)["revision"].as_u64().unwrap_or_default();
        in_time += u32::from(told > acknowledged);
        acknowledged = acknowledged.max(told);
        gateway = gateway.killed();
        let kept = kept(&gateway);
        assert!(kept >= acknowledged, "{moment:?}: revision {acknowledged} was acknowledged, {kept} is kept");
        if number % SERVED_EVERY == 0 {
            gateway = assert_served(gateway, &backend, acknowledged).await;
        }
    }
    // The kills were neither always too early nor always too late.
    assert!((20..MOMENTS - 20).contains(&in_time), "{in_time} of {MOMENTS} were acknowledged in time");
    println!("{MOMENTS} moments, {in_time} after the receipt, {acknowledged} revisions");
}
