//! The clients that log in, call and renew all the time, whatever happens to the nodes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::dice::Dice;
use super::visitor::{Site, Visitor};

/// The order to end.
const END: usize = usize::MAX;
/// How long every client has to renew once the nodes are well.
const PROOF_PATIENCE: Duration = Duration::from_secs(60);

/// The clients.
pub(super) struct Crowd {
    site: Arc<Site>,
    size: u32,
    members: JoinSet<()>,
    orders: watch::Sender<usize>,
    proofs: mpsc::UnboundedReceiver<(usize, u32)>,
}

impl Crowd {
    /// Starts `size` clients, each of which does something about every `pace`.
    pub(super) fn start(site: &Arc<Site>, size: u32, pace: Duration) -> Self {
        let (orders, _) = watch::channel(0);
        let (sender, proofs) = mpsc::unbounded_channel();
        let mut members = JoinSet::new();
        for number in 1..=size {
            let member = Member {
                visitor: Visitor::new(site, number),
                number,
                dice: Dice::new(number.into()),
                pace,
                proofs: sender.clone(),
            };
            members.spawn(member.live(orders.subscribe()));
        }
        Self { site: Arc::clone(site), size, members, orders, proofs }
    }

    /// Has every client renew with the token that it got last, and call with what it got. A client
    /// that cannot is a violation.
    pub(super) async fn prove(&mut self, round: usize) {
        self.orders.send_replace(round);
        let mut missing: BTreeSet<u32> = (1..=self.size).collect();
        let all = async {
            while !missing.is_empty() {
                let (proved, number) = self.proofs.recv().await.expect("the members live");
                if proved == round {
                    missing.remove(&number);
                }
            }
        };
        if timeout(PROOF_PATIENCE, all).await.is_err() {
            let count = missing.len();
            self.site
                .report
                .violation(format!("{count} clients cannot renew and call, such as {:?}", missing.first()));
        }
    }

    /// Ends the clients.
    pub(super) async fn end(mut self) {
        self.orders.send_replace(END);
        while let Some(ended) = self.members.join_next().await {
            ended.expect("a member does not panic");
        }
    }
}

struct Member {
    visitor: Visitor,
    number: u32,
    dice: Dice,
    pace: Duration,
    proofs: mpsc::UnboundedSender<(usize, u32)>,
}

impl Member {
    async fn live(mut self, mut orders: watch::Receiver<usize>) {
        let mut done = 0;
        loop {
            let order = *orders.borrow_and_update();
            if order == END {
                return;
            }
            if order != done {
                self.prove().await;
                done = order;
                // Nobody listens any more at the end.
                let _ended = self.proofs.send((order, self.number));
            } else {
                self.act().await;
            }
            let pause = self.pace.mul_f64(0.5 + self.dice.fraction());
            let _is_over = timeout(pause, orders.changed()).await;
        }
    }

    /// Does one thing. What is not available now is tried another time.
    async fn act(&mut self) {
        let chance = self.dice.below(100);
        if self.visitor.tokens.is_none() || chance < 2 {
            let before = (self.visitor.client_id.clone(), self.visitor.tokens.take());
            if chance.is_multiple_of(2) {
                self.visitor.client_id = None;
            }
            if self.visitor.log_in().await.is_err() {
                (self.visitor.client_id, self.visitor.tokens) = before;
            }
            return;
        }
        let _not_available = match chance {
            2..20 => self.visitor.renew().await,
            20..25 => self.visitor.renew_twice_at_once().await,
            _ => self.visitor.call().await,
        };
    }

    async fn prove(&mut self) {
        loop {
            let proved = match self.visitor.tokens {
                Some(_) => self.visitor.renew().await.is_ok() && self.visitor.call().await.is_ok(),
                None => self.visitor.log_in().await.is_ok(),
            };
            if proved {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
