//! A thousand changes under constant load: unchanged tenants lose no call and no byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::super::harness::{Client, Era, FakeBackend, Gateway, PATIENCE, Setup, Tenant, until};

const STEADY: usize = 4;
const STREAMS_EACH: usize = 2;
const CHANGING: usize = 20;
const ROUNDS: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_changes_cost_their_neighbours_no_call_and_no_byte() {
    let backend = FakeBackend::start().await;
    let steady = |number| format!("steady-{number}");
    let setup = (0..STEADY).fold(Setup::new(), |setup, number| {
        let name = steady(number);
        setup.file(&format!("{name}.yaml"), Tenant::new(&name, &backend).yaml())
    });
    let gateway = setup.start().await;
    let mut streams = JoinSet::new();
    for number in 0..STEADY * STREAMS_EACH {
        let stream = listen(&gateway.client(), &format!("/{}", steady(number % STEADY))).await;
        streams.spawn(stream);
    }
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut callers = JoinSet::new();
    for number in 0..STEADY {
        let prefix = format!("/{}", steady(number));
        callers.spawn(call_on(gateway.client(), prefix, Arc::clone(&stop), Arc::clone(&calls)));
    }

    let before = changes(&gateway).await;
    for round in 0..ROUNDS {
        for number in 0..CHANGING {
            let name = format!("changing-{number}");
            let tenant = Tenant::new(&name, &backend).with(&format!("description: Edition {round}"));
            // One tenant in ten is broken, and repaired in the next round.
            let broken = round % 5 == 1 && number % 2 == 0;
            let bytes = if broken { b"search_url: [".to_vec() } else { tenant.yaml() };
            gateway.put(&format!("{name}.yaml"), bytes);
        }
        let wanted = before + (round + 1) * CHANGING;
        until("the round is taken in", async || (changes(&gateway).await >= wanted).then_some(())).await;
    }
    assert_eq!(changes(&gateway).await - before, ROUNDS * CHANGING);

    stop.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller.expect("no call failed");
    }
    let calls = calls.load(Ordering::Relaxed);
    assert!(calls > ROUNDS, "hardly any load: {calls} calls");
    // Every stream is still open and receives its own tenant's change, once, and nothing else.
    for number in 0..STEADY {
        let name = steady(number);
        let other = Tenant::new(&name, &backend).with("description: Other texts");
        gateway.put(&format!("{name}.yaml"), other.yaml());
    }
    let mut heard = 0;
    while let Some(events) = streams.join_next().await {
        let events = events.expect("the stream went on");
        let methods: Vec<_> = events.iter().filter_map(|event| event["method"].as_str()).collect();
        let changed = methods.iter().filter(|method| **method == "notifications/tools/list_changed").count();
        assert_eq!(changed, 1, "{events:?}");
        assert!(events.iter().all(|event| event.get("result").is_none()), "the stream was ended: {events:?}");
        heard += 1;
    }
    assert_eq!(heard, STEADY * STREAMS_EACH);
    println!("{} changes, {calls} calls, 0 failed; {heard} streams, each whole", ROUNDS * CHANGING);
}

/// Opens a stream. The returned future reads until the tools change and returns all events.
async fn listen(client: &Client, prefix: &str) -> impl Future<Output = Vec<Value>> + use<> {
    let params = json!({ "notifications": { "toolsListChanged": true } });
    let request = client.ask(Era::Modern, &format!("{prefix}/mcp"), "subscriptions/listen", params);
    let mut stream = request.timeout(4 * PATIENCE).send().await.expect("an answer");
    assert_eq!(stream.status(), 200);
    async move {
        let mut heard = String::new();
        while !(heard.contains("tools/list_changed") && heard.ends_with("\n\n")) {
            let piece = stream.chunk().await.expect("no byte is lost").expect("the stream goes on");
            heard.push_str(&String::from_utf8_lossy(&piece));
        }
        let data = heard.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim);
        data.filter(|data| !data.is_empty()).map(|data| serde_json::from_str(data).expect("whole")).collect()
    }
}

async fn call_on(client: Client, prefix: String, stop: Arc<AtomicBool>, calls: Arc<AtomicUsize>) {
    let mut eras = [Era::Legacy, Era::Modern].into_iter().cycle();
    while !stop.load(Ordering::Relaxed) {
        let era = eras.next().expect("a cycle");
        assert_eq!(client.search(era, &prefix, "q").await.data()["row_count"], 2);
        calls.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns the number of tenant changes so far, from the metrics.
async fn changes(gateway: &Gateway) -> usize {
    let (_, text) = gateway.admin("/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix("tenantd_tenant_changes_total "));
    line.expect("the counter").parse().expect("a number")
}
