//! What a target is told: one JSON object, or a message for a chat.

mod chat;

use jiff::Timestamp;
use serde::Serialize;

use super::condition::{Condition, ConditionKey, Subject};
use crate::base::random;
use crate::base::text::clip;
use crate::spec::AlertKind;

/// The version of the object. It grows when a member changes its meaning or goes; new members do
/// not count.
const SCHEMA: u32 = 1;
/// Longer texts are cut.
const MAX_TEXT_CHARS: usize = 1_000;
/// The most names in one event.
const MAX_NAMES: usize = 100;

/// Something that a target is told. Its id stays the same when it is sent again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Event {
    schema: u32,
    pub(super) id: String,
    /// When it was found out.
    at: Timestamp,
    /// The public base URL of the gateway.
    gateway: String,
    /// The name of the gateway that found it out, if there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// The kind of trouble, or `test`.
    pub(super) kind: &'static str,
    pub(super) state: EventState,
    pub(super) subject: Subject,
    /// The other subjects, if many things happened at once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    others: Vec<String>,
    /// How many subjects there are in all, those included that have no room in `others`.
    count: usize,
    pub(super) summary: String,
    action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// The page and section of this program's documents about it.
    docs: &'static str,
    /// How many conditions came and went while this target could not be told.
    missed: u64,
}

/// Whether trouble began or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum EventState {
    Raised,
    Resolved,
}

impl EventState {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Resolved => "resolved",
        }
    }
}

/// What all events of one target have in common.
#[derive(Debug, Clone)]
pub(super) struct EventContext {
    pub(super) at: Timestamp,
    pub(super) gateway: String,
    pub(super) node: Option<String>,
    pub(super) missed: u64,
}

impl Event {
    /// Creates the event of conditions of one kind that were raised; there is at least one.
    pub(super) fn raised(
        kind: AlertKind,
        conditions: &[(&ConditionKey, &Condition)],
        context: EventContext,
    ) -> Self {
        let subjects: Vec<&Subject> = conditions.iter().map(|(_, condition)| &condition.subject).collect();
        let mut event = Self::new(kind.as_str(), EventState::Raised, &subjects, docs(kind), context);
        match conditions {
            [(_, only)] => {
                event.summary = clip(&only.summary, MAX_TEXT_CHARS);
                event.action = clip(&only.action, MAX_TEXT_CHARS);
                event.code = only.code.clone();
            }
            several => {
                event.summary = format!("{}, {}", describe_many(kind, several.len()), first_names(&subjects));
                event.action = several.first().map(|(_, first)| first.action.clone()).unwrap_or_default();
            }
        }
        event
    }

    /// Creates the event of conditions of one kind that are over; there is at least one.
    pub(super) fn resolved(kind: AlertKind, subjects: &[&Subject], context: EventContext) -> Self {
        let mut event = Self::new(kind.as_str(), EventState::Resolved, subjects, docs(kind), context);
        event.summary = match subjects {
            [only] => format!("over: {} ({})", describe_one(kind), only.name),
            several => format!("over: {}, {}", describe_many(kind, several.len()), first_names(several)),
        };
        event
    }

    /// Creates an event that says nothing but that it arrives.
    pub(super) fn test(context: EventContext) -> Self {
        let subject = Subject::gateway();
        let mut event =
            Self::new("test", EventState::Raised, &[&subject], "notifications.md#notify-test", context);
        event.summary = "this is a test: nothing is wrong".to_owned();
        event.action = "nothing".to_owned();
        event
    }

    fn new(
        kind: &'static str,
        state: EventState,
        subjects: &[&Subject],
        docs: &'static str,
        context: EventContext,
    ) -> Self {
        let EventContext { at, gateway, node, missed } = context;
        let others = subjects.iter().skip(1).take(MAX_NAMES - 1).map(|subject| subject.name.clone());
        Self {
            schema: SCHEMA,
            id: format!("msg_{}", random::hex::<16>()),
            at,
            gateway,
            node,
            kind,
            state,
            subject: subjects.first().map_or_else(Subject::gateway, |first| (*first).clone()),
            others: others.collect(),
            count: subjects.len(),
            summary: String::new(),
            action: String::new(),
            code: None,
            docs,
            missed,
        }
    }

    /// Returns the event as JSON.
    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an event is plain data")
    }
}

fn first_names(subjects: &[&Subject]) -> String {
    const SHOWN: usize = 5;
    let names: Vec<&str> = subjects.iter().take(SHOWN).map(|subject| subject.name.as_str()).collect();
    match subjects.len().checked_sub(SHOWN) {
        None | Some(0) => format!("namely {}", names.join(", ")),
        Some(more) => format!("among them {} and {more} more", names.join(", ")),
    }
}

fn describe_one(kind: AlertKind) -> &'static str {
    match kind {
        AlertKind::TenantRejected => "the tenant is rejected",
        AlertKind::TenantStale => "the last change of the tenant is refused",
        AlertKind::TenantsDisagree => "the tenant is not the same on all gateways",
        AlertKind::ChangesHeld => "a change of the tenant waits for approval",
        AlertKind::QuotaNear => "a quota of the tenant is nearly used up",
        AlertKind::TenantDegraded => "the tenant is degraded",
        AlertKind::LoginRefused => "nobody can log in at the tenant",
        AlertKind::ClientSecretExpires => "the tenant's client secret expires",
        AlertKind::ApiKeyExpires => "an API key of the tenant expires",
        AlertKind::CertificateNotRenewing => "the certificate is not renewed",
        AlertKind::StoreUnwritable => "the store cannot be written",
        AlertKind::DiskLow => "the disk is almost full",
        AlertKind::AuditLosing => "lines of the audit are lost",
    }
}

fn describe_many(kind: AlertKind, count: usize) -> String {
    let what = match kind {
        AlertKind::TenantRejected => "tenants are rejected",
        AlertKind::TenantStale => "tenants had their last change refused",
        AlertKind::TenantsDisagree => "tenants are not the same on all gateways",
        AlertKind::ChangesHeld => "tenants with changes that wait for approval",
        AlertKind::QuotaNear => "quotas are nearly used up",
        AlertKind::TenantDegraded => "tenants are degraded",
        AlertKind::LoginRefused => "tenants whose people cannot log in",
        AlertKind::ClientSecretExpires => "client secrets expire soon or have expired",
        AlertKind::ApiKeyExpires => "API keys expire soon or have expired",
        AlertKind::CertificateNotRenewing => "certificates are not renewed",
        AlertKind::StoreUnwritable => "stores cannot be written",
        AlertKind::DiskLow => "disks are almost full",
        AlertKind::AuditLosing => "audits lose lines",
    };
    format!("{count} {what}")
}

/// Returns the page and section that says most about a kind.
fn docs(kind: AlertKind) -> &'static str {
    match kind {
        AlertKind::TenantRejected | AlertKind::TenantStale | AlertKind::TenantDegraded => {
            "findings.md#states"
        }
        AlertKind::ChangesHeld | AlertKind::QuotaNear | AlertKind::TenantsDisagree => "tenants.md",
        AlertKind::LoginRefused => "troubleshooting.md",
        AlertKind::ClientSecretExpires => "login.md",
        AlertKind::ApiKeyExpires => "api-keys.md",
        AlertKind::CertificateNotRenewing => "tls.md",
        AlertKind::StoreUnwritable | AlertKind::DiskLow => "state.md",
        AlertKind::AuditLosing => "audit.md",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> EventContext {
        let gateway = "https://mcp.example.com".to_owned();
        EventContext { at: Timestamp::UNIX_EPOCH, gateway, node: None, missed: 0 }
    }

    #[test]
    fn many_conditions_are_one_event_of_bounded_size() {
        let conditions: Vec<_> = (0..10_000)
            .map(|number| {
                let name = format!("tenant-{number}");
                let key = ConditionKey { kind: AlertKind::TenantDegraded, id: name.clone() };
                (key, Condition::new(Subject::tenant(&name), "down", "repair it"))
            })
            .collect();
        let conditions: Vec<_> = conditions.iter().map(|(key, condition)| (key, condition)).collect();
        let event = Event::raised(AlertKind::TenantDegraded, &conditions, context());
        assert_eq!(event.count, 10_000);
        assert!(event.summary.contains("10000 tenants are degraded") && event.summary.contains("9995 more"));
        assert!(event.to_json().len() < 8 << 10, "{}", event.to_json().len());
    }
}
