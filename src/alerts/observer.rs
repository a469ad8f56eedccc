//! Looks at the tenants, certificates, store, disks and audit, and says what is wrong with them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::condition::{Condition, ConditionKey, Conditions, Subject, SubjectKind};
use super::disk_space::DiskSpace;
use crate::base::clock::Clock;
use crate::certs::{CertificateState, CertificateStatus, Certificates};
use crate::settings::TlsMode;
use crate::spec::AlertKind;
use crate::store::Store;
use crate::telemetry::audit::Audit;
use crate::telemetry::audit::sinks::SinkTrouble;
use crate::telemetry::metrics::Metrics;
use crate::tenants::cluster_view::{ClusterView, Disagreement};
use crate::tenants::registry::{Registry, RoutingTable};
use crate::tenants::status::TenantState;
use crate::tenants::{ExpiringCredential, Expiry, PublishedEntry, expiries};
use crate::usage::QuotaStatus;

/// The days before the end of something of which an operator is told, the first level first; the
/// level after them is its end.
const DAYS_BEFORE_END: [i64; 3] = [30, 7, 1];
/// Failures in a row of renewals that are not news yet while the certificate is valid.
const USUAL_RENEWAL_FAILURES: u32 = 2;
/// How long ago a line of the audit may have been lost.
const AUDIT_MEMORY: Duration = Duration::from_secs(600);

/// What the observer looks at.
pub struct Observed {
    /// The tenants as published.
    pub registry: Registry,
    /// The certificates.
    pub certificates: Arc<Certificates>,
    /// The source of the certificates.
    pub tls: TlsMode,
    /// The store, if there is one.
    pub store: Option<Store>,
    /// The folders whose disks must not fill up.
    pub folders: Vec<PathBuf>,
    /// Knows how many lines of the audit were lost.
    pub metrics: Arc<Metrics>,
    /// Knows which sinks are in trouble.
    pub audit: Audit,
    /// What is known of the other gateways, if this is one of several.
    pub cluster: Option<Arc<ClusterView>>,
    /// The source of the current time.
    pub clock: Arc<dyn Clock>,
}

/// Looks at everything, time and again.
pub(super) struct Observer {
    observed: Arc<Observed>,
    disks: Vec<DiskSpace>,
    lost_lines: u64,
    last_loss: Option<Instant>,
}

impl Observer {
    pub(super) fn new(observed: Arc<Observed>) -> Self {
        let disks = observed.folders.iter().cloned().map(DiskSpace::new).collect();
        Self { observed, disks, lost_lines: 0, last_loss: None }
    }

    /// Returns everything that is wrong now; `None` before the tenants were read for the first
    /// time.
    pub(super) fn observe(&mut self) -> Option<Conditions> {
        let table = self.observed.registry.load_full();
        if !table.is_initial_scan_done {
            return None;
        }
        let now = self.observed.clock.now();
        let mut conditions = tenant_conditions(&table);
        conditions.extend(expiries(&table).filter_map(|expiry| expiry_condition(&expiry, now)));
        conditions
            .extend(table.entries.iter().flat_map(|(entry_id, entry)| quota_conditions(entry_id, entry)));
        let certificates = self.observed.certificates.statuses();
        let is_manual = self.observed.tls == TlsMode::Manual;
        conditions
            .extend(certificates.iter().filter_map(|status| certificate_condition(status, is_manual, now)));
        conditions.extend(self.disagreement_conditions());
        conditions.extend(self.store_condition());
        conditions.extend(self.disks.iter_mut().filter_map(disk_condition));
        conditions.extend(self.audit_condition());
        conditions.extend(self.observed.audit.sink_troubles().iter().map(sink_condition));
        Some(conditions)
    }

    /// Returns the current time.
    pub(super) fn now(&self) -> Instant {
        self.observed.clock.monotonic()
    }

    fn disagreement_conditions(&self) -> Conditions {
        let Some(cluster) = &self.observed.cluster else { return Conditions::new() };
        let state = cluster.state();
        let condition = |disagreement: &Disagreement| {
            let Disagreement { tenant, entry, summary, .. } = disagreement;
            let summary = format!("tenant {tenant} is not the same on all gateways: {summary}");
            let action = format!(
                "see that the files in the tenants folders of these gateways are the same; `tenantd tenants show \
                 {tenant}` has what is in force where"
            );
            let key = ConditionKey { kind: AlertKind::TenantsDisagree, id: entry.clone() };
            (key, Condition::new(Subject::tenant(tenant), summary, action))
        };
        state.disagreements.iter().map(condition).collect()
    }

    fn store_condition(&self) -> Option<(ConditionKey, Condition)> {
        let summary = match &self.observed.store {
            Some(store) if store.is_writable() => return None,
            Some(_) => {
                "the store in the state folder cannot be written: logins, revisions and pauses of \
                        now do not survive a restart"
            }
            None => {
                "the gateway runs without a state folder: nobody can log in, and nothing survives a \
                     restart"
            }
        };
        let action = "free space on the disk of the state folder, or make the folder writable";
        Some(gateway_condition(AlertKind::StoreUnwritable, summary, action))
    }

    fn audit_condition(&mut self) -> Option<(ConditionKey, Condition)> {
        let (lost, now) = (self.observed.metrics.lost_audit_lines(), self.observed.clock.monotonic());
        if lost > self.lost_lines {
            (self.lost_lines, self.last_loss) = (lost, Some(now));
        }
        let last_loss = self.last_loss?;
        if now.saturating_duration_since(last_loss) > AUDIT_MEMORY {
            return None;
        }
        let summary = "lines of the audit are lost: what callers do is not recorded completely";
        let action = "free space on the disk of the state folder, or make audit.jsonl writable";
        Some(gateway_condition(AlertKind::AuditLosing, summary, action))
    }
}

/// Returns what is wrong with a sink of the audit.
fn sink_condition(trouble: &SinkTrouble) -> (ConditionKey, Condition) {
    let SinkTrouble { sink, to, failing, is_dropping } = trouble;
    let failing = match failing {
        Some((since, why)) => format!("takes no lines since {since:.0} ({why})"),
        None => "was too slow or away".to_owned(),
    };
    let dropping = if *is_dropping { "lines were dropped" } else { "they wait in its spool" };
    let summary = format!("the sink {sink} of the audit ({to}) {failing}: {dropping}");
    let action = "have its receiver take lines again, or correct or remove the sink in audit_sinks";
    let key = ConditionKey { kind: AlertKind::AuditLosing, id: format!("sink {sink}") };
    (key, Condition::new(Subject::gateway(), summary, action))
}

fn gateway_condition(kind: AlertKind, summary: &str, action: &str) -> (ConditionKey, Condition) {
    let key = ConditionKey { kind, id: String::new() };
    (key, Condition::new(Subject::gateway(), summary, action))
}

/// Returns what is wrong with the tenants, apart from what expires.
fn tenant_conditions(table: &RoutingTable) -> Conditions {
    let conditions = table.entries.iter().flat_map(|(entry_id, entry)| {
        let key = |kind| ConditionKey { kind, id: entry_id.to_string() };
        entry_conditions(entry).into_iter().map(move |(kind, condition)| (key(kind), condition))
    });
    conditions.collect()
}

fn entry_conditions(entry: &PublishedEntry) -> Vec<(AlertKind, Condition)> {
    match entry.current_state() {
        TenantState::Loading | TenantState::Serving | TenantState::Disabled => Vec::new(),
        TenantState::Rejected => vec![(AlertKind::TenantRejected, rejection(entry))],
        TenantState::Stale => vec![(AlertKind::TenantStale, staleness(entry))],
        TenantState::Held => vec![(AlertKind::ChangesHeld, held_change(entry))],
        TenantState::Degraded => degradations(entry),
    }
}

fn rejection(entry: &PublishedEntry) -> Condition {
    refused(entry, format!("tenant {} is rejected", entry.name()))
}

fn staleness(entry: &PublishedEntry) -> Condition {
    let effect = match entry.is_closed() {
        true => "it answers 503, since the change may concern who may call",
        false => "its last good revision serves on",
    };
    refused(entry, format!("the last change of tenant {} is refused, and {effect}", entry.name()))
}

fn held_change(entry: &PublishedEntry) -> Condition {
    let effect = match entry.is_closed() {
        true => "it answers 503, since the change may concern who may call",
        false => "its last revision serves on",
    };
    let finding = entry.held_finding();
    let what = finding.map(|finding| format!(": {}", finding.message)).unwrap_or_default();
    let summary = format!("a change of tenant {} waits for your approval, and {effect}{what}", entry.name());
    let action = format!("`tenantd tenants diff {0}`, then `tenantd tenants approve {0}`", entry.name());
    let code = finding.map(|finding| finding.code.to_owned());
    Condition { code, ..Condition::new(Subject::tenant(entry.name()), summary, action) }
}

/// Describes refused files by their first error.
fn refused(entry: &PublishedEntry, what: String) -> Condition {
    let subject = Subject::tenant(entry.name());
    let show = format!("`tenantd tenants show {}` has all findings", entry.name());
    let Some(error) = entry.first_error() else { return Condition::new(subject, what, show) };
    let place = error.location.as_ref().map(|location| format!("{location}: ")).unwrap_or_default();
    let help = error.help.as_ref().map(|help| format!("{help}; ")).unwrap_or_default();
    Condition {
        code: Some(error.code.to_owned()),
        ..Condition::new(subject, format!("{what}: {place}{}", error.message), format!("{help}{show}"))
    }
}

fn degradations(entry: &PublishedEntry) -> Vec<(AlertKind, Condition)> {
    let Some(tenant) = &entry.tenant else { return Vec::new() };
    let refusal = tenant.login_refusal();
    let outage = tenant.degradation().filter(|outage| Some(outage) != refusal.as_ref());
    let subject = || Subject::tenant(entry.name());
    let refusal = refusal.map(|refusal| {
        let summary = format!("nobody can log in at tenant {}: {}", entry.name(), refusal.reason);
        let action = "create a new client secret for the app and write it into the tenant's file, see \
                      troubleshooting.md";
        (AlertKind::LoginRefused, Condition::new(subject(), summary, action))
    });
    let outage = outage.map(|outage| {
        let summary = format!("tenant {} is degraded: {}", entry.name(), outage.reason);
        let action =
            format!("`tenantd tenants show {}` has the details, see troubleshooting.md", entry.name());
        (AlertKind::TenantDegraded, Condition::new(subject(), summary, action))
    });
    refusal.into_iter().chain(outage).collect()
}

/// Returns which quotas of a tenant are nearly or wholly used.
fn quota_conditions(entry_id: &str, entry: &PublishedEntry) -> Vec<(ConditionKey, Condition)> {
    let Some(tenant) = entry.tenant.as_ref().filter(|tenant| tenant.spec.enabled) else { return Vec::new() };
    let quotas = tenant.usage.quotas().into_iter().filter(QuotaStatus::is_nearly_used_up);
    let condition = |quota: QuotaStatus| {
        let QuotaStatus { scope, limit, used, of, resets_at } = quota;
        let (limit, is_used_up) = (limit.as_str(), used >= of);
        let whose = if scope == "tenant" { String::new() } else { format!(" of its {scope}") };
        // Without the number used, which changes with each call.
        let much = if is_used_up { "is used up" } else { "is used to four fifths" };
        let summary =
            format!("the quota {limit} ({of}){whose} of tenant {} {much}, until {resets_at}", entry.name());
        let action =
            "`tenantd usage` shows who uses it; raise the limit in the tenant's file if that is right";
        let key = ConditionKey { kind: AlertKind::QuotaNear, id: format!("{entry_id}/{scope}/{limit}") };
        (
            key,
            Condition {
                level: is_used_up.into(),
                ..Condition::new(Subject::tenant(entry.name()), summary, action)
            },
        )
    };
    quotas.map(condition).collect()
}

fn expiry_condition(expiry: &Expiry, now: Timestamp) -> Option<(ConditionKey, Condition)> {
    let level = expiry_level(expiry.at, now)?;
    let Expiry { tenant, entry_id, credential, at } = expiry;
    let (kind, id, what, action) = match credential {
        ExpiringCredential::ApiKey(label) => (
            AlertKind::ApiKeyExpires,
            format!("{entry_id}/{label}"),
            format!("the API key {label:?} of tenant {tenant}"),
            "`tenantd apikey new` creates another one; list both until its holder has changed over",
        ),
        ExpiringCredential::ClientSecret => (
            AlertKind::ClientSecretExpires,
            entry_id.to_string(),
            format!("the client secret of tenant {tenant} at its identity provider"),
            "create a new client secret and write it and its end into the tenant's file, see login.md",
        ),
    };
    let summary = format!("{what} {}", describe_end(*at, now));
    let condition = Condition { level, ..Condition::new(Subject::tenant(tenant), summary, action) };
    Some((ConditionKey { kind, id }, condition))
}

/// Returns how near an end is: the number of days in [`DAYS_BEFORE_END`] that it is within, less
/// one, or their number if it has passed. `None` if it is further away.
fn expiry_level(at: Timestamp, now: Timestamp) -> Option<u8> {
    if at <= now {
        return u8::try_from(DAYS_BEFORE_END.len()).ok();
    }
    let left = at.duration_since(now);
    let within = DAYS_BEFORE_END.iter().filter(|days| left <= SignedDuration::from_hours(24 * *days)).count();
    u8::try_from(within.checked_sub(1)?).ok()
}

/// Says when something ends, without words that change from hour to hour.
fn describe_end(at: Timestamp, now: Timestamp) -> String {
    if at <= now { format!("expired at {at}") } else { format!("expires at {at}") }
}

fn certificate_condition(
    status: &CertificateStatus,
    is_manual: bool,
    now: Timestamp,
) -> Option<(ConditionKey, Condition)> {
    let name = &status.name;
    let end = status.not_after.map(|at| (expiry_level(at, now), describe_end(at, now)));
    let manual_level = end.as_ref().and_then(|(level, _)| *level).filter(|_| is_manual);
    let is_trouble = match status.state {
        CertificateState::Valid | CertificateState::Ordering => manual_level.is_some(),
        CertificateState::Placeholder => status.failures > 0,
        CertificateState::Backoff => status.not_after.is_none() || status.failures > USUAL_RENEWAL_FAILURES,
        CertificateState::Refused | CertificateState::Degraded | CertificateState::Expired => true,
    };
    if !is_trouble {
        return None;
    }
    let end = end.map_or_else(|| "there is none yet".to_owned(), |(_, end)| format!("it {end}"));
    let why = status.trouble.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let summary = match is_manual {
        true => format!("the certificate for {name} must be replaced: {end}"),
        false => format!("the certificate for {name} is not renewed ({end}){why}"),
    };
    let action = match is_manual {
        true => "put a new certificate into the certs folder (`tenantd certs import`)",
        false => "`tenantd certs doctor` says what prevents it",
    };
    let subject = Subject { kind: SubjectKind::Certificate, name: name.clone() };
    let condition =
        Condition { level: manual_level.unwrap_or(0), ..Condition::new(subject, summary, action) };
    Some((ConditionKey { kind: AlertKind::CertificateNotRenewing, id: name.clone() }, condition))
}

fn disk_condition(disk: &mut DiskSpace) -> Option<(ConditionKey, Condition)> {
    let summary = disk.trouble()?;
    let folder = disk.folder().display().to_string();
    let key = ConditionKey { kind: AlertKind::DiskLow, id: folder.clone() };
    let subject = Subject { kind: SubjectKind::Folder, name: folder };
    Some((key, Condition::new(subject, summary, "free space there, or give the folder a larger disk")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SystemClock;
    use crate::base::task::Tasks;
    use crate::settings::Settings;
    use crate::tenants::registry::TablePublisher;

    #[tokio::test]
    async fn nothing_is_known_to_be_well_before_the_first_pass() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings =
            Settings { tls: TlsMode::Off, certs: folder.path().join("certs"), ..Settings::default() };
        let clock = SystemClock::shared();
        let certificates = Certificates::start(
            &settings,
            Vec::new(),
            None,
            Arc::clone(&clock),
            Arc::default(),
            &Tasks::new(),
        );
        let publisher = TablePublisher::default();
        let mut observer = Observer::new(Arc::new(Observed {
            registry: publisher.registry().clone(),
            certificates: certificates.expect("started"),
            tls: TlsMode::Off,
            store: None,
            folders: Vec::new(),
            metrics: Arc::default(),
            audit: Audit::disabled(),
            cluster: None,
            clock,
        }));
        // Whoever was told of a tenant before a restart must not hear that it is well again.
        assert_eq!(observer.observe(), None);
        publisher.publish(RoutingTable { is_initial_scan_done: true, ..RoutingTable::default() });
        let seen = observer.observe().expect("the tenants were read");
        assert_eq!(seen.keys().map(|key| key.kind).collect::<Vec<_>>(), [AlertKind::StoreUnwritable]);
    }

    #[test]
    fn an_end_has_a_level_for_each_threshold() {
        let now = Timestamp::UNIX_EPOCH;
        let after = |hours| expiry_level(now + SignedDuration::from_hours(hours), now);
        let levels = [31 * 24, 30 * 24, 8 * 24, 7 * 24, 25, 24, 1, 0, -5].map(after);
        assert_eq!(levels, [None, Some(0), Some(0), Some(1), Some(1), Some(2), Some(2), Some(3), Some(3)]);
    }

    fn status(state: CertificateState, failures: u32, days_left: i64) -> CertificateStatus {
        CertificateStatus {
            name: "mcp.example.com".to_owned(),
            state,
            not_before: None,
            not_after: Some(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * days_left)),
            issuer: None,
            serial: None,
            ca: None,
            challenge: None,
            renew_at: None,
            next_attempt: None,
            ordered_by: None,
            failures,
            trouble: Some("the CA does not answer".to_owned()),
        }
    }

    #[test]
    fn a_renewal_that_fails_once_is_no_news_and_one_that_keeps_failing_is() {
        use CertificateState::{Backoff, Degraded, Refused, Valid};
        let is_told = |status: &CertificateStatus| {
            certificate_condition(status, false, Timestamp::UNIX_EPOCH).is_some()
        };
        assert!(!is_told(&status(Valid, 0, 5)) && !is_told(&status(Backoff, 1, 40)));
        assert!(is_told(&status(Backoff, 3, 40)) && is_told(&status(Refused, 1, 40)));
        assert!(is_told(&status(Degraded, 0, 2)));
        assert!(is_told(&CertificateStatus { not_after: None, ..status(Backoff, 1, 0) }));
    }

    #[test]
    fn a_certificate_that_nobody_renews_is_told_of_before_its_end() {
        let told = |days| {
            certificate_condition(&status(CertificateState::Valid, 0, days), true, Timestamp::UNIX_EPOCH)
                .map(|(_, condition)| condition.level)
        };
        assert_eq!((told(31), told(30), told(6), told(1)), (None, Some(0), Some(1), Some(2)));
    }
}
