//! What follows from what jobs report: the state of each certificate, its copy in the folder, and what is
//! shared with other gateways.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::AcmeManager;
use super::failure;
use super::job::{self, JobOutcome, JobReport, StepReport};
use super::shared_state::{SharedState, UNKNOWN_VERSION};
use crate::certs::schedule::RenewalState;

impl AcmeManager {
    /// Records the outcome of a job, and returns whether there is something new to serve. Blocks on
    /// the disk.
    pub(in crate::certs) fn apply_report(&mut self, report: JobReport) -> bool {
        let now = self.now();
        match report {
            JobReport::Step(report) => self.apply_step(*report, now),
            JobReport::Read { asked, found } => self.apply_read(&asked, found, now),
            JobReport::NoLease { name, trouble } => {
                if let Some(managed) = self.certificates.get_mut(&name) {
                    managed.running_step = None;
                }
                self.refuse_requests(&trouble);
                if let Some(reads) = &mut self.shared_reads {
                    reads.fail(trouble, now);
                }
                false
            }
            JobReport::LeftToOthers { name } | JobReport::Shared { name } => {
                if let Some(managed) = self.certificates.get_mut(&name) {
                    managed.running_step = None;
                    // What is known may be old, and is read before the next step.
                    (managed.shared.version, managed.shared.is_read) = (UNKNOWN_VERSION, false);
                }
                self.note_shared_changes(Some(BTreeSet::from([name])));
                false
            }
        }
    }

    fn apply_step(&mut self, report: StepReport, now: Timestamp) -> bool {
        let cas = self.deps.settings.cas.len();
        let StepReport { name, renewal, outcome, lease } = report;
        let Some(managed) = self.certificates.get_mut(&name) else { return false };
        let mut changed = false;
        let lease = lease.map(|(lease, shared)| {
            // The copy in the folder follows with the next certificate.
            changed |= managed.adopt(shared, now).is_some();
            managed.shared.holder = None;
            managed.shared.is_requested &= !matches!(outcome, JobOutcome::Order(_));
            lease
        });
        // A step that is shared ends when what followed from it is.
        managed.running_step = managed.running_step.filter(|_| lease.is_some());
        managed.renewal = renewal;
        let renew_again = std::mem::take(&mut managed.renew_after_running);
        match outcome {
            JobOutcome::Order(Ok(obtained)) => {
                changed = true;
                self.deps.metrics.record_certificate_order("ok");
                managed.install(&name, *obtained, now);
                self.pending_replies.extend(managed.pending_replies.drain(..).map(|reply| (reply, Ok(()))));
                self.placeholder.invalidate();
            }
            JobOutcome::Order(Err(failure)) => {
                self.deps.metrics.record_certificate_order(failure::metric_label(failure.kind));
                self.pending_replies
                    .extend(managed.pending_replies.drain(..).map(|reply| (reply, Err(failure.message()))));
                managed.apply_failure(&name, failure, cas, now);
            }
            JobOutcome::RenewalInfo(answer) => {
                managed.apply_renewal_info(&name, answer, now);
                if renew_again {
                    managed.renewal.request_renewal(now);
                }
            }
        }
        if let Err(error) = self.certs_folder.persist_renewal_state(&name, &managed.renewal) {
            tracing::error!(name, %error, "the renewal state of a certificate cannot be written");
        }
        if let Some(lease) = lease {
            let renewal = managed.renewal.clone();
            self.spawn_reporting("certificate order", job::share(lease, name, renewal));
        }
        changed
    }

    /// Takes over what was read. Returns whether there is something new to serve.
    fn apply_read(
        &mut self,
        asked: &[String],
        found: Result<Vec<SharedState>, String>,
        now: Timestamp,
    ) -> bool {
        let trouble = found.as_ref().err().cloned();
        if let Some(trouble) = &trouble {
            self.refuse_requests(trouble);
        }
        if let Some(reads) = &mut self.shared_reads {
            reads.end(trouble, now);
        }
        let Ok(found) = found else { return false };
        for name in asked {
            if let Some(managed) = self.certificates.get_mut(name) {
                managed.shared.is_read = true;
                // Who has a lease is read each time, so what is not found is over.
                managed.shared.holder = None;
            }
        }
        let mut changed = false;
        for state in found {
            let name = state.name.clone();
            let Some(managed) = self.certificates.get_mut(&name) else { continue };
            if managed.running_step.is_some() {
                continue;
            }
            let pem = managed.adopt(state, now);
            changed |= pem.is_some();
            let renewal = managed.renewal.clone();
            self.keep_copy(&name, pem.as_deref(), &renewal);
        }
        if changed {
            self.placeholder.invalidate();
        }
        changed
    }

    /// Keeps what gateways share in the folder, for a start without the database.
    fn keep_copy(&self, name: &str, pem: Option<&str>, renewal: &RenewalState) {
        if self.unwritable_reason.is_some() {
            return;
        }
        let bundle = pem.map_or(Ok(()), |pem| self.certs_folder.persist_bundle(name, pem));
        if let Err(error) = bundle.and_then(|()| self.certs_folder.persist_renewal_state(name, renewal)) {
            tracing::error!(name, %error, "the certs folder has no copy of a certificate");
        }
    }

    /// Tells operators whose orders have not begun that none can be placed.
    fn refuse_requests(&mut self, trouble: &str) {
        for managed in self.certificates.values_mut().filter(|managed| managed.running_step.is_none()) {
            managed.shared.is_requested = false;
            let refused = managed.pending_replies.drain(..).map(|reply| (reply, Err(trouble.to_owned())));
            self.pending_replies.extend(refused);
        }
    }
}
