//! The certificates of the site: a real CA issues them for minutes only and one is renewed in each
//! round besides, and whatever happens to whoever orders, nobody orders what another one has.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::Certificate;
use serde_json::Value;
use tenantd::base::clock::{Clock, SystemClock};

use super::balancer::PORT;
use super::cluster::Cluster;
use super::report::Report;
use crate::acme::pebble::{Options, Pebble};

/// The name of the site.
pub(super) const NAME: &str = "mcp.test";
/// The name whose certificate is renewed by order.
pub(super) const ORDERED: &str = "renewed.test";
const VALIDITY: Duration = Duration::from_secs(200);
/// A certificate that is younger than this is not due by itself.
const NOT_DUE: Duration = Duration::from_secs(60);
/// How long an order to renew may take before it is given up.
const ORDER_PATIENCE: Duration = Duration::from_secs(20);

/// The CA, and what was asked of it.
pub(super) struct Ca {
    pebble: Pebble,
}

/// What happened to certificates, as far as it was judged.
#[derive(Default)]
pub(super) struct Book {
    /// When somebody ordered that the certificate be renewed.
    demands: Vec<Timestamp>,
    /// When orders could fail, and at which node, or at all.
    troubles: Vec<(Timestamp, Timestamp, Option<usize>)>,
    /// How many orders of each name were judged.
    judged: BTreeMap<String, usize>,
    under_way: Option<(Child, Instant)>,
}

/// A line of a gateway's log about a certificate.
struct Event {
    at: Timestamp,
    node: usize,
    is_order: bool,
    /// Whether the order names the certificate that it replaces.
    is_renewal: bool,
}

impl Event {
    /// Whether the CA refused this order, since the same gateway went on without naming a certificate.
    fn is_refused_before(&self, next: &Self) -> bool {
        self.is_order && next.is_order && self.node == next.node && self.is_renewal && !next.is_renewal
    }
}

impl Ca {
    pub(super) async fn start() -> Self {
        let options = Options {
            validity_seconds: u32::try_from(VALIDITY.as_secs()).expect("minutes"),
            tls_port: Some(PORT),
            ..Options::default()
        };
        Self { pebble: Pebble::start(options).await }
    }

    pub(super) fn port(&self) -> u16 {
        self.pebble.port()
    }

    /// Returns the settings of a gateway that uses it.
    pub(super) fn settings(&self) -> String {
        let (directory, root) = (format!("https://127.0.0.1:{}/dir", self.port()), self.pebble.root());
        format!(
            "tls: acme\naccept_tos: true\nacme_directory: {directory}\nacme_ca_root: {root}\n\
             acme_contact: ops@example.com\n"
        )
    }

    /// Has the CA find the names at a gateway.
    pub(super) async fn lead_to(&self, address: &str) {
        for name in [NAME, ORDERED] {
            self.pebble.lead(name, address).await;
        }
    }

    /// Returns what clients trust.
    pub(super) async fn root(&self) -> Certificate {
        Certificate::from_der(&self.pebble.roots().await).expect("a certificate")
    }
}

impl Book {
    /// Orders a node to renew a certificate, and does not wait for it.
    pub(super) async fn demand(&mut self, cluster: &Cluster, node: usize, report: &Report) {
        self.settle(report).await;
        let mut command = cluster.nodes[node].command(&["certs", "renew", ORDERED]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.demands.push(SystemClock.now());
        self.under_way = Some((command.spawn().expect("nsenter runs"), SystemClock.monotonic()));
    }

    /// Waits until the last order to renew was answered, or ends its command.
    async fn settle(&mut self, report: &Report) {
        let Some((mut child, began)) = self.under_way.take() else { return };
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child") {
                break status;
            }
            if SystemClock.monotonic() > began + ORDER_PATIENCE {
                let _ = child.kill();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let outcome = if status.success() { "done" } else { "refused, or not answered in time" };
        report.count(format!("certificates: an order to renew was {outcome}"));
    }

    /// Notes that an order could fail at a node, or anywhere, since a moment.
    pub(super) fn trouble(&mut self, since: Timestamp, node: Option<usize>) {
        self.troubles.push((since, SystemClock.now(), node));
    }

    /// Judges every order that was placed since the last time. One follows another of its name only if
    /// that was demanded, if the certificate was due again, or if the first one could have failed.
    pub(super) fn judge(&mut self, cluster: &Cluster, report: &Report) {
        for (name, events) in read_events(cluster) {
            let orders: Vec<usize> = (0..events.len()).filter(|at| events[*at].is_order).collect();
            let judged = self.judged.insert(name.clone(), orders.len()).unwrap_or(0);
            for number in judged.max(1)..orders.len() {
                report.count("certificates: ordered");
                let (place, next_place) = (orders[number - 1], orders[number]);
                let (order, next) = (&events[place], &events[next_place]);
                let issued = events[place..next_place].iter().rfind(|event| !event.is_order);
                if let Some(why) = self.find_need(&name, order, issued, next) {
                    report.count(format!("certificates: {why}"));
                    continue;
                }
                report.violation(format!(
                    "node {} ordered {name} at {}, and node {} at {} without a need",
                    order.node, order.at, next.node, next.at
                ));
            }
        }
        let (orders, told) = (cluster.ca.pebble.orders(), self.judged.values().sum::<usize>());
        if orders > told {
            report.violation(format!("the CA knows {orders} orders, and gateways told of {told}"));
        }
    }

    fn find_need(
        &mut self,
        name: &str,
        order: &Event,
        issued: Option<&Event>,
        next: &Event,
    ) -> Option<&'static str> {
        if let Some(issued) = issued
            && next.at.duration_since(issued.at) >= NOT_DUE.try_into().expect("a minute")
        {
            return Some("were due");
        }
        if name == ORDERED
            && let Some(place) = self.demands.iter().position(|at| *at <= next.at)
        {
            self.demands.remove(place);
            return Some("were demanded");
        }
        let may_fail = |(from, to, node): &(Timestamp, Timestamp, Option<usize>)| {
            order.at <= *to && next.at >= *from && node.is_none_or(|node| node == order.node)
        };
        (issued.is_none() && self.troubles.iter().any(may_fail)).then_some("were ordered again after trouble")
    }
}

/// Reads what gateways logged of orders and new certificates, by name, in the order of time.
fn read_events(cluster: &Cluster) -> BTreeMap<String, Vec<Event>> {
    let mut events = BTreeMap::<String, Vec<Event>>::new();
    for (node, log) in cluster.nodes.iter().map(|node| node.gateway().output()).enumerate() {
        for line in log.lines().filter(|line| line.contains("certificate")) {
            let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
            let is_order = match line["message"].as_str() {
                Some("ordering a certificate") => true,
                Some("the gateway serves a new certificate") => false,
                _ => continue,
            };
            let at = line["timestamp"].as_str().and_then(|at| at.parse().ok()).expect("a time");
            let name = line["name"].as_str().expect("a name").to_owned();
            events.entry(name).or_default().push(Event {
                at,
                node,
                is_order,
                is_renewal: line["is_renewal"] == true,
            });
        }
    }
    for events in events.values_mut() {
        events.sort_by_key(|event| event.at);
        let refused = |at: usize| events.get(at + 1).is_some_and(|next| events[at].is_refused_before(next));
        let placed: Vec<bool> = (0..events.len()).map(|at| !refused(at)).collect();
        let mut placed = placed.into_iter();
        events.retain(|_| placed.next().unwrap_or(true));
    }
    events
}
