//! What needs a person now.

use jiff::Timestamp;

use super::alerts::find_subject_page;
use super::display_state::DisplayState;
use super::findings::first_error;
use super::frame::Visit;
use super::link;
use super::prose::Prose;
use super::relative_time::{Ago, RelativeTime};
use crate::admin::Admin;
use crate::alerts::{Condition, ConditionKey};
use crate::certs::CertificateStatus;
use crate::settings::TlsMode;
use crate::spec::AlertKind;
use crate::store::{ClusterStore, Store};
use crate::telemetry::printable::printable;
use crate::tenants::PublishedEntry;
use crate::tenants::cluster_view::{NodeState, NodeStatus};
use crate::tenants::tenant::Tenant;

/// The maximum number of certificates in the list.
const MAX_CERTIFICATES: usize = 5;
/// The maximum number of alerts in the list; their page has all of them.
const MAX_ALERTS: usize = 5;
/// The maximum number of silent gateways in the list.
const MAX_NODES: usize = 5;

/// One thing that somebody has to do something about.
pub(super) struct Concern {
    /// The name of its sign in the style.
    pub(super) class: &'static str,
    pub(super) word: &'static str,
    pub(super) subject: String,
    /// Where the console says more.
    pub(super) path: Option<String>,
    pub(super) since: Option<RelativeTime>,
    pub(super) reason: Prose,
    pub(super) help: Option<Prose>,
}

impl Concern {
    fn new(subject: &str, class: &'static str, word: &'static str, reason: impl Into<Prose>) -> Self {
        let subject = subject.to_owned();
        Self { class, word, subject, path: None, since: None, reason: reason.into(), help: None }
    }

    fn help(mut self, help: impl Into<Prose>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// A tenant in trouble.
    pub(super) fn from_tenant(entry: &PublishedEntry, state: DisplayState, visit: &Visit<'_>) -> Self {
        let (reason, help) = explain(entry);
        Self {
            class: state.word(),
            word: state.word(),
            subject: printable(entry.name()).into_owned(),
            path: Some(link::tenant(entry.name())),
            since: Some(visit.relative_time(entry.since())),
            reason: reason.unwrap_or_else(|| "its page says more".to_owned()).into(),
            help: help.map(Prose::from),
        }
    }

    fn from_certificate(status: &CertificateStatus, now: Timestamp) -> Self {
        let end = status.not_after.map(|end| Ago(now.as_second() - end.as_second()));
        let reason = status.trouble.clone().unwrap_or_else(|| match &end {
            Some(end) => format!("it ends {end}; nothing renews it but you"),
            None => "there is none yet".to_owned(),
        });
        let word = if end.is_some() { "certificate" } else { "no certificate" };
        let concern = Self::new(&printable(&status.name), "refused", word, printable(&reason));
        Self { path: Some("/certificates".to_owned()), ..concern }
    }
}

/// Returns why a tenant is in trouble, and what to do.
pub(super) fn explain(entry: &PublishedEntry) -> (Option<String>, Option<String>) {
    let closed = if entry.is_closed() { "Callers get 503 until this is repaired: " } else { "" };
    if let Some(error) = first_error(entry.findings()) {
        let place = error.location.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
        let reason = format!("{closed}{place}{}", error.message);
        let help = error.help.as_deref().map(|help| printable(help).into_owned());
        return (Some(printable(&reason).into_owned()), help);
    }
    if let Some(held) = entry.held_finding() {
        let reason = format!("{closed}{}", held.message);
        let help = held.help.as_deref().map(|help| printable(help).into_owned());
        return (Some(printable(&reason).into_owned()), help);
    }
    let degradation = entry.tenant.as_deref().and_then(Tenant::degradation);
    (degradation.map(|degradation| printable(&degradation.reason).into_owned()), None)
}

/// Returns what is wrong with the gateway itself, the gravest first.
pub(super) fn find_gateway_concerns(
    admin: &Admin,
    certificates: &[CertificateStatus],
    now: Timestamp,
) -> Vec<Concern> {
    let mut concerns = Vec::new();
    let health = admin.metrics.health();
    if admin.tasks.shutdown_signal().is_cancelled() {
        concerns.push(Concern::new("The gateway", "loading", "draining", "it is about to end"));
    }
    for (task, health) in admin.tasks.panics().by_task() {
        if health.is_down {
            let reason = format!("the task \"{task}\" failed inside tenantd and is being restarted");
            let concern = Concern::new("The gateway", "error", "task down", reason);
            concerns.push(concern.help("please report the log lines around \"panicked\""));
        }
    }
    if !health.is_store_writable {
        let reason = match admin.store {
            Some(_) => {
                "the last write to the state folder failed: logins and changes may be lost at a restart"
            }
            None => "this gateway runs without a store: there are no logins, and nothing survives a restart",
        };
        let concern = Concern::new("The store", "error", "not writable", reason);
        concerns.push(concern.help(format!("look at space and rights of {}", admin.startup.state.display())));
    }
    let cluster = admin.store.as_ref().and_then(Store::cluster);
    if let Some(why) = cluster.as_ref().and_then(ClusterStore::awaited) {
        let reason = format!("this gateway started without it, so tenants with a login get 503: {why}");
        let concern = Concern::new("The database", "error", "away", reason);
        concerns.push(concern.help("it is used as soon as it answers; nothing has to be restarted here"));
    } else if cluster.is_some_and(|cluster| cluster.freshness().is_stale(admin.clock.monotonic())) {
        let reason = "nothing was heard of the database for ten seconds, so whom other gateways kept out since is \
                      not known here";
        let concern = Concern::new("The database", "error", "not heard of", reason);
        concerns
            .push(concern.help("look at the network and at the database; store_stale says what calls get"));
    }
    if !health.is_last_pass_complete && health.last_completed_at > 0.0 {
        let reason = "the last look at the tenants folder failed, so changes of files are not taken";
        let concern = Concern::new("The tenants folder", "error", "not read", reason);
        concerns.push(concern.help(format!("look at rights of {}", admin.startup.tenants.display())));
    }
    concerns.extend(find_node_concerns(admin));
    concerns.extend(find_settings_concern(admin));
    concerns.extend(find_alert_concerns(admin));
    let is_manual = admin.info.tls == TlsMode::Manual;
    let is_late = |status: &&CertificateStatus| !status.is_healthy() || (is_manual && ends_soon(status, now));
    let late = certificates.iter().filter(is_late).take(MAX_CERTIFICATES);
    concerns.extend(late.map(|status| Concern::from_certificate(status, now)));
    if health.lost_audit_lines > 0 {
        let reason = format!("{} audit lines could not be written", health.lost_audit_lines);
        concerns.push(Concern::new("The audit", "warning", "lines lost", reason));
    }
    concerns
}

/// Returns the gateways of the cluster that are not heard of.
fn find_node_concerns(admin: &Admin) -> Vec<Concern> {
    let Some(cluster) = &admin.cluster else { return Vec::new() };
    let state = cluster.state();
    let silent = state.nodes.iter().filter(|node| node.state == NodeState::Silent && !node.is_this);
    let concern = |node: &NodeStatus| {
        let ago = Ago(node.seen_seconds_ago);
        let reason =
            format!("it was heard of {ago} and did not end in order; the other gateways go on without it");
        let concern = Concern::new(&printable(&node.name), "warning", "silent", reason);
        concern.help("look after it, or end it for good: it is forgotten a day after it was heard of")
    };
    silent.take(MAX_NODES).map(concern).collect()
}

/// Returns what the file of the settings says and the gateway does not do.
fn find_settings_concern(admin: &Admin) -> Option<Concern> {
    let settings = admin.settings.load();
    if let Some(refusal) = &settings.refusal {
        let reason = format!("the changed settings are not in force: {refusal}");
        let concern = Concern::new("The settings", "error", "refused", printable(&reason));
        return Some(concern.help("put the file right and send SIGHUP"));
    }
    let waiting = settings.waiting.join(", ");
    (!waiting.is_empty()).then(|| {
        let reason = format!("changed, and in force after a restart: {waiting}");
        Concern::new("The settings", "notice", "waiting", printable(&reason))
    })
}

/// Returns the alerts that no state of a tenant, certificate or the store shows.
fn find_alert_concerns(admin: &Admin) -> Vec<Concern> {
    let conditions = admin.alerts.conditions();
    let shown = conditions.iter().filter(|(key, _)| is_shown_as_alert(key.kind));
    let concern = |(key, condition): (&ConditionKey, &Condition)| {
        let subject = &condition.subject;
        let concern = Concern::new(
            &printable(&subject.name),
            "warning",
            key.kind.as_str(),
            printable(&condition.summary),
        );
        let path = find_subject_page(subject.kind, &subject.name).unwrap_or_else(|| "/alerts".to_owned());
        Concern { path: Some(path), ..concern.help(printable(&condition.action)) }
    };
    shown.take(MAX_ALERTS).map(concern).collect()
}

fn is_shown_as_alert(kind: AlertKind) -> bool {
    match kind {
        AlertKind::DiskLow
        | AlertKind::LoginRefused
        | AlertKind::ClientSecretExpires
        | AlertKind::ApiKeyExpires
        | AlertKind::TenantsDisagree
        | AlertKind::QuotaNear => true,
        AlertKind::TenantRejected
        | AlertKind::TenantStale
        | AlertKind::TenantDegraded
        | AlertKind::ChangesHeld
        | AlertKind::CertificateNotRenewing
        | AlertKind::StoreUnwritable
        | AlertKind::AuditLosing => false,
    }
}

/// Whether a certificate ends within two weeks.
fn ends_soon(status: &CertificateStatus, now: Timestamp) -> bool {
    status.not_after.is_some_and(|end| end.as_second() - now.as_second() < 14 * 86400)
}
