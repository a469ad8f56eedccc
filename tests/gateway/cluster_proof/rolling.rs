//! Gateways that are restarted one after another under load, as an upgrade does: no call is lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::balancer::{Connections, Outcome};
use super::cluster::Cluster;
use super::visitor::{Site, Visitor, tool_call};

/// How long a call may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Restarts every node `rounds` times, while `clients` call without a pause.
pub(super) async fn restart_all(nodes: u8, clients: u32, rounds: usize) {
    let mut cluster = Cluster::start(nodes).await;
    let site = Arc::new(Site::new(cluster.balancer(PATIENCE, Connections::ForOneRequest).await));
    let mut visitors = Vec::new();
    for number in 1..=clients {
        let mut visitor = Visitor::new(&site, number);
        assert!(visitor.log_in().await.is_ok(), "nothing is in trouble");
        visitors.push(visitor);
    }
    let (end, mut callers) = (CancellationToken::new(), JoinSet::new());
    for visitor in visitors {
        callers.spawn(call_all_the_time(Arc::clone(&site), visitor, end.clone()));
    }
    for round in 1..=rounds {
        for node in 0..cluster.nodes.len() {
            site.report.begin(round, &format!("node {node} is restarted"), "a node is restarted");
            cluster.nodes[node].stop().await;
            cluster.nodes[node].start_again().await;
        }
        site.report.line("restarted");
    }
    end.cancel();
    let calls: usize = callers.join_all().await.into_iter().sum();
    println!("{calls} calls of {clients} clients, {rounds} restarts of each of {nodes} gateways");
    site.report.conclude();
    assert!(calls > 0);
}

/// Calls until the end. Returns how often.
async fn call_all_the_time(site: Arc<Site>, visitor: Visitor, end: CancellationToken) -> usize {
    let access = visitor.tokens.expect("it has logged in").access;
    let mut calls = 0;
    while !end.is_cancelled() {
        let outcome = site.balancer.send(|client| tool_call(client, &access)).await;
        match outcome {
            Outcome::Answered(answer)
                if answer.status == 200 && !answer.text.contains(r#""isError":true"#) => {}
            Outcome::Answered(answer) => {
                site.report.violation(format!("a call got {} {}", answer.status, answer.text));
            }
            Outcome::Lost => site.report.violation("a call got no answer"),
            Outcome::Nobody => site.report.violation("no node took a call"),
        }
        calls += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    calls
}
