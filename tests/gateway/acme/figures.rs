//! Prints how long issuance and a start take. `CONTRIBUTING.md` has the command.

use std::fs;
use std::time::Duration;

use tenantd::base::clock::{Clock, SystemClock};

use super::pebble::{Options, Pebble};
use super::renew;
use super::visitor::Visitor;
use crate::harness::{FakeBackend, Gateway, Tenant, until};

const ISSUES: usize = 40;
const STARTS: usize = 20;

#[tokio::test]
#[ignore = "it measures, and shows nothing but figures"]
async fn how_long_an_issue_and_a_start_take() {
    let mut pebble = Pebble::start(Options::default()).await;
    let backend = FakeBackend::start().await;
    let gateway = pebble.setup("").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    until("it is certified", async || visitor.serial("mcp.test").await).await;

    let mut renewals = Vec::new();
    for _ in 0..ISSUES {
        let begun = SystemClock.monotonic();
        renew(&gateway, "mcp.test").await;
        renewals.push(begun.elapsed());
    }
    told("a certificate, from wanted to served", renewals);

    let mut drops = Vec::new();
    for number in 0..ISSUES {
        let (name, host) = (format!("t{number}"), format!("t{number}.test"));
        let begun = SystemClock.monotonic();
        let yaml = Tenant::new(&name, &backend).with(&format!("hosts: [{host}]")).yaml();
        gateway.put(&format!("{name}.yaml"), yaml);
        until("its host is certified", async || visitor.serial(&host).await).await;
        drops.push(begun.elapsed());
    }
    told("a tenant's host, from its file to the first handshake", drops);

    pebble.kill();
    let mut starts = Vec::new();
    let mut gateway = gateway;
    for _ in 0..STARTS {
        let (started, took) = start_with_nothing(gateway, &pebble).await;
        gateway = started;
        starts.push(took);
    }
    told("a start, from the process to the first handshake with the bootstrap certificate", starts);
}

/// Starts a gateway whose certs folder is missing and whose CA is dead.
async fn start_with_nothing(gateway: Gateway, pebble: &Pebble) -> (Gateway, Duration) {
    let stopped = gateway.killed();
    fs::remove_dir_all(stopped.path().join("certs")).expect("removed");
    let strange = Visitor::trusting_nobody(pebble.tls_port);
    let begun = SystemClock.monotonic();
    let served = async {
        while !strange.is_served("mcp.test").await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        begun.elapsed()
    };
    tokio::join!(stopped.start_again(), served)
}

fn told(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share).round() as usize];
    println!("{what}: median {:?}, p95 {:?}, longest {:?}, {} times", at(0.5), at(0.95), at(1.0), took.len());
}
