//! A person whom an operator puts out while something is broken: no node may serve them for long.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tenantd::base::clock::{Clock, SystemClock};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::balancer::Outcome;
use super::cluster::Cluster;
use super::visitor::{Site, Unavailable, Visitor, token_request, tool_call};
use crate::harness::Client;
use crate::harness::login::Form;

/// How soon every node that can ask the database refuses.
const EVERYWHERE_WITHIN: Duration = Duration::from_secs(2);
/// How long a node that cannot ask may go on, with the same again to notice.
const AT_ALL_WITHIN: Duration = Duration::from_secs(12);

/// How an operator or a client ends a login.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Block,
    EndLogins,
    /// The client revokes its token itself (RFC 7009).
    RevokeToken,
}

/// A person who is logged in, and calls at every node all the time.
pub(super) struct Watched {
    site: Arc<Site>,
    person: Visitor,
    calls: Arc<Mutex<Vec<Call>>>,
    callers: JoinSet<()>,
    end: CancellationToken,
    acknowledged: Option<(Order, Instant)>,
}

struct Call {
    node: usize,
    ended: Instant,
    is_served: bool,
}

impl Watched {
    /// Logs the person in, and begins to call.
    pub(super) async fn start(site: &Arc<Site>, nodes: usize, number: u32) -> Result<Self, Unavailable> {
        let mut person = Visitor::new(site, number);
        person.log_in().await?;
        let access = person.tokens.as_ref().expect("it has logged in").access.clone();
        let (calls, end) = (Arc::<Mutex<Vec<Call>>>::default(), CancellationToken::new());
        let mut callers = JoinSet::new();
        for node in 0..nodes {
            let (site, access, calls, end) =
                (Arc::clone(site), access.clone(), Arc::clone(&calls), end.clone());
            callers.spawn(async move {
                while !end.is_cancelled() {
                    let outcome = site.balancer.send_to(node, |client| tool_call(client, &access)).await;
                    let is_served = matches!(outcome, Outcome::Answered(answer) if answer.status == 200);
                    let call = Call { node, ended: SystemClock.monotonic(), is_served };
                    calls.lock().expect("nobody panics with it").push(call);
                    tokio::time::sleep(Duration::from_millis(150)).await;
                }
            });
        }
        Ok(Self { site: Arc::clone(site), person, calls, callers, end, acknowledged: None })
    }

    /// Puts the person out at a node. Says whether that was acknowledged.
    pub(super) async fn put_out(&mut self, order: Order, cluster: &Cluster, node: usize) -> bool {
        let account = self.person.account.clone();
        let is_done = match order {
            Order::RevokeToken => {
                let mut form = self.person.refresh_form();
                form.retain(|(name, _)| *name != "grant_type");
                form.iter_mut()
                    .filter(|(name, _)| *name == "refresh_token")
                    .for_each(|pair| pair.0 = "token");
                let revoke = |client: &Client| {
                    let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
                    client.request(reqwest::Method::POST, "/a/revoke").form_of(&form)
                };
                let outcome = self.site.balancer.send_to(node, revoke).await;
                matches!(outcome, Outcome::Answered(answer) if answer.status == 200)
            }
            Order::Block | Order::EndLogins => {
                let arguments = match order {
                    Order::Block => ["logins", "block", &account, "--all-tenants"],
                    _ => ["logins", "end", "--person", &account],
                };
                let output = cluster.nodes[node].tenantd(&arguments).await;
                output.is_some_and(|output| {
                    output.status.success()
                        && !String::from_utf8_lossy(&output.stdout).contains("0 logins ended")
                })
            }
        };
        self.site
            .report
            .count(format!("{order:?} {}", if is_done { "acknowledged" } else { "not acknowledged" }));
        self.acknowledged = is_done.then(|| (order, SystemClock.monotonic()));
        is_done
    }

    /// Waits until every node had the time to hear of it, ends the calls, and judges them. A node
    /// that `impaired` names could not hear of it between these moments.
    pub(super) async fn judge(
        mut self,
        nodes: usize,
        impaired: impl Fn(usize) -> Option<(Instant, Instant)>,
    ) {
        // What was not acknowledged may have been done, or not: either is right.
        let Some((order, acknowledged)) = self.acknowledged else {
            return self.stop().await;
        };
        let now = SystemClock.monotonic();
        let until = acknowledged.max(now) + EVERYWHERE_WITHIN + Duration::from_millis(500);
        tokio::time::sleep(until - now).await;
        self.stop().await;
        let calls = std::mem::take(&mut *self.calls.lock().expect("nobody panics with it"));
        let report = &self.site.report;
        // It has two seconds from the moment at which it can hear again.
        let is_late = |call: &&Call| {
            let could_hear_since = match impaired(call.node) {
                Some((from, to)) if call.ended > from => to.max(acknowledged),
                _ => acknowledged,
            };
            call.is_served
                && (call.ended > could_hear_since + EVERYWHERE_WITHIN
                    || call.ended > acknowledged + AT_ALL_WITHIN)
        };
        for node in 0..nodes {
            if let Some(last) = calls.iter().rfind(|call| call.node == node && is_late(call)) {
                let after = last.ended - acknowledged;
                report.violation(format!("node {node} served a person {after:?} after they were put out"));
            }
        }
        let of_healthy = calls.iter().filter(|call| call.is_served && impaired(call.node).is_none());
        let last = of_healthy.map(|call| call.ended.saturating_duration_since(acknowledged)).max();
        report.measure_service(&format!("{order:?}"), last);
        let form = self.person.refresh_form();
        let renewed = self.site.balancer.send(|client| token_request(client, &form)).await;
        if matches!(&renewed, Outcome::Answered(answer) if answer.status == 200) {
            report.violation("a person who was put out renewed their token");
        }
    }

    async fn stop(&mut self) {
        self.end.cancel();
        while let Some(ended) = self.callers.join_next().await {
            ended.expect("a caller does not panic");
        }
    }
}
