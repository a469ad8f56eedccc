//! The proof of several gateways on one database: clients that log in, call and renew through
//! whichever node answers, while gateways and the database are killed, frozen and cut off.
//!
//! Each gateway and the database (Debian's PostgreSQL) live in a network namespace of their own.
//! After each round: every client renews with the token that it got last, and calls; a code and an
//! assertion that were shown at all nodes at once were taken once; nobody who was put out is served;
//! nobody ordered a certificate that another gateway has (Pebble is the CA).
//! `scripts/cluster-proof.sh` runs as many rounds as one wants; here it is a few.

mod balancer;
mod certificates;
mod cluster;
mod crowd;
mod database;
mod dice;
mod fault;
mod network;
mod report;
mod revoked;
mod rolling;
mod single_use;
mod visitor;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tenantd::base::clock::{Clock, SystemClock};
use tokio::time::sleep;

use self::balancer::Connections;
use self::certificates::Book;
use self::cluster::Cluster;
use self::crowd::Crowd;
use self::dice::Dice;
use self::fault::Fault;
use self::network::run_inside;
use self::revoked::{Order, Watched};
use self::single_use::SingleUse;
use self::visitor::{Site, Visitor};
use crate::harness::until_within;

/// Gateways in the rolling restart, and in the long proof (`scripts/cluster-proof.sh`).
const GATEWAYS: usize = 3;
/// Gateways in the short proof.
const GATEWAYS_IN_SHORT: usize = 3;
/// Runs with more rounds have long faults, too.
const ROUNDS_IN_SHORT: usize = 16;
/// How long a client waits for an answer before it asks again.
const PATIENCE: Duration = Duration::from_secs(4);
/// Numbers of people who are not of the crowd begin here.
const OTHERS: u32 = 100_000;

#[test]
fn clients_survive_every_fault_of_gateways_and_the_database() {
    run_inside("cluster_proof::clients_survive_every_fault_of_gateways_and_the_database", run_rounds());
}

#[test]
fn a_rolling_restart_loses_no_call() {
    let nodes = u8::try_from(number("TENANTD_PROOF_GATEWAYS", GATEWAYS)).expect("a small number");
    let run = rolling::restart_all(nodes, 8, number("TENANTD_ROLLING_ROUNDS", 1));
    run_inside("cluster_proof::a_rolling_restart_loses_no_call", run);
}

/// Returns a number from the environment.
fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

async fn run_rounds() {
    let rounds = number("TENANTD_PROOF_ROUNDS", 8);
    let clients = u32::try_from(number("TENANTD_PROOF_CLIENTS", 40)).expect("a small number");
    let nodes = number("TENANTD_PROOF_GATEWAYS", GATEWAYS_IN_SHORT);
    let pace = Duration::from_millis(number("TENANTD_PROOF_PACE_MS", 1500) as u64);
    let mut dice = Dice::new(number("TENANTD_PROOF_SEED", 1) as u64);
    let mut cluster = Cluster::start(u8::try_from(nodes).expect("a small number")).await;
    let site = Arc::new(Site::new(cluster.balancer(PATIENCE, Connections::Kept).await));
    let mut crowd = Crowd::start(&site, clients, pace);
    site.report.begin(0, "no fault", "none");
    crowd.prove(usize::MAX - 1).await;
    site.report.line("all clients are logged in");
    let mut book = Book::default();
    for round in 1..=rounds {
        let before = site.report.violations();
        let (fault, lasts) = Fault::of_round(round, nodes, rounds > ROUNDS_IN_SHORT, &mut dice);
        let planned = Round { number: round, fault, lasts, is_ordered_at_faulty: dice.below(2) == 0 };
        run_round(&planned, &mut dice, &mut cluster, &site, &mut crowd, &mut book).await;
        if site.report.violations() > before {
            keep_logs(&cluster, round);
        }
    }
    crowd.end().await;
    site.report.conclude();
}

/// What is done in a round.
struct Round {
    number: usize,
    fault: Fault,
    lasts: Duration,
    /// Whether the node that fails is told to renew a certificate just before; otherwise another is.
    is_ordered_at_faulty: bool,
}

async fn run_round(
    round: &Round,
    dice: &mut Dice,
    cluster: &mut Cluster,
    site: &Arc<Site>,
    crowd: &mut Crowd,
    book: &mut Book,
) {
    let nodes = cluster.nodes.len();
    let Round { fault, lasts, .. } = *round;
    let title = format!("{fault:?} for {:.1} s", lasts.as_secs_f64());
    site.report.begin(round.number, &title, fault.kind());
    let number = OTHERS + 2 * u32::try_from(round.number).expect("a small number");
    let (watched, mut single) =
        tokio::join!(Watched::start(site, nodes, number), SingleUse::prepare(site, cluster, number + 1));
    let at = fault.node().map_or(round.number % nodes, |node| (node + 1) % nodes);
    cluster.ca.lead_to(&cluster.nodes[at].machine.address.to_string()).await;
    let troubled_since = SystemClock.now();
    let orderer = fault.node().filter(|_| round.is_ordered_at_faulty).unwrap_or(at);
    book.demand(cluster, orderer, &site.report).await;

    let began = SystemClock.monotonic();
    fault.begin(cluster);
    sleep(lasts.min(Duration::from_millis(100 + dice.below(400)))).await;
    let order = [Order::Block, Order::EndLogins, Order::RevokeToken][round.number / 8 % 3];
    let watched = async {
        let Ok(mut watched) = watched else { return None };
        watched.put_out(order, cluster, at).await;
        Some(watched)
    };
    let used = async {
        if let Ok(single) = &mut single {
            single.use_everywhere(site, nodes).await;
        }
    };
    let (watched, ()) = tokio::join!(watched, used);
    sleep((began + lasts).saturating_duration_since(SystemClock.monotonic())).await;
    fault.end(cluster).await;
    let healed = SystemClock.monotonic();

    until_serving(site, nodes, number).await;
    let recovered = SystemClock.monotonic();
    let judged = async {
        if let Some(watched) = watched {
            let impaired =
                |node| fault.node().is_none_or(|faulty| faulty == node).then_some((began, recovered));
            watched.judge(nodes, impaired).await;
        }
    };
    tokio::join!(judged, crowd.prove(round.number));
    if let Ok(single) = &mut single {
        for _ in 0..2 {
            single.use_everywhere(site, nodes).await;
        }
        single.conclude(site);
    }
    book.trouble(troubled_since, fault.node());
    book.judge(cluster, &site.report);
    let seconds = |from: Instant, to: Instant| (to - from).as_secs_f64();
    site.report.line(&format!(
        "recovered {:.1} s after it, all renewed {:.1} s after that",
        seconds(healed, recovered),
        seconds(recovered, SystemClock.monotonic())
    ));
}

/// Waits until every node serves a person who just logged in.
async fn until_serving(site: &Arc<Site>, nodes: usize, number: u32) {
    let mut person = Visitor::new(site, number + OTHERS);
    until_within(Duration::from_secs(60), "a login works", async || person.log_in().await.ok()).await;
    let access = person.tokens.expect("it has logged in").access;
    for at in 0..nodes {
        until_within(Duration::from_secs(60), &format!("node {at} serves"), async || {
            let outcome = site.balancer.send_to(at, |client| visitor::tool_call(client, &access)).await;
            let is_served = matches!(&outcome, balancer::Outcome::Answered(answer) if answer.status == 200);
            if !is_served {
                site.report.count(format!("node {at} after a fault: {}", outcome.describe()));
            }
            is_served.then_some(())
        })
        .await;
    }
}

fn keep_logs(cluster: &Cluster, round: usize) {
    if let Some(folder) = std::env::var_os("TENANTD_PROOF_LOGS") {
        cluster.keep_logs(&PathBuf::from(folder).join(format!("round-{round}")));
    }
}
