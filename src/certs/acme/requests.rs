//! What operators ask for: a renewal now, or only whether one would succeed.

use tokio::sync::oneshot;

use super::AcmeManager;
use super::job;
use super::order_attempt::{OrderAttempt, OrderPurpose};

/// Receives the outcome of an order that an operator asked for; an error is worded for people.
pub(in crate::certs) type RenewalReply = oneshot::Sender<Result<(), String>>;

/// A request of an operator.
#[derive(Debug)]
pub(in crate::certs) struct RenewalRequest {
    pub(in crate::certs) name: String,
    /// Only tests whether an order would succeed: at the CA's staging directory if it has one, and
    /// without storing anything.
    pub(in crate::certs) is_dry_run: bool,
    pub(in crate::certs) reply: RenewalReply,
}

impl AcmeManager {
    /// Schedules a renewal for an operator, or answers why there is none.
    pub(in crate::certs) fn handle_renewal_request(
        &mut self,
        RenewalRequest { name, is_dry_run, reply }: RenewalRequest,
    ) {
        let now = self.now();
        let unusable = match &self.shared_reads {
            Some(reads) => reads.trouble.as_ref(),
            None => self.unwritable_reason.as_ref(),
        };
        if is_dry_run && unusable.is_none() && self.certificates.contains_key(&name) {
            return self.spawn_dry_run(name, reply);
        }
        let refusal = match (self.certificates.get_mut(&name), unusable) {
            (None, _) => {
                format!(
                    "this gateway obtains no certificate for {name}; `tenantd certs list` lists all of \
                         them"
                )
            }
            (_, Some(why)) => why.clone(),
            (Some(managed), None) if !managed.renewal.is_order_allowed(now) => {
                format!("too many orders for {name} failed; the next one is at {}", managed.next_step(now).at)
            }
            (Some(managed), None) => {
                managed.renewal.request_renewal(now);
                managed.renew_after_running = managed.running_step.is_some();
                managed.shared.is_requested = true;
                return managed.pending_replies.push(reply);
            }
        };
        // The operator may have gone.
        _ = reply.send(Err(refusal));
    }

    fn spawn_dry_run(&self, name: String, reply: RenewalReply) {
        let Some(ca) = self.deps.settings.cas.first() else { return };
        let attempt =
            OrderAttempt { purpose: OrderPurpose::DryRun, ..self.new_attempt(name, ca.to_staging()) };
        self.deps.tasks.spawn("certificate dry run", async move {
            // The operator may have gone.
            _ = reply.send(job::dry_run(attempt).await);
        });
    }

    /// Reports finished orders to the operators who asked for them.
    pub(in crate::certs) fn send_replies(&mut self) {
        for (reply, outcome) in self.pending_replies.drain(..) {
            // The operator may have gone.
            _ = reply.send(outcome);
        }
    }
}
