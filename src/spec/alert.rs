//! The kinds of trouble that an operator is told of.

use serde::{Deserialize, Serialize};

/// A kind of trouble that an operator is told of, by its name in settings and events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertKind {
    /// A tenant's files are refused, and nothing of it serves.
    TenantRejected,
    /// A tenant's last change is refused; its last good revision serves, or it is closed.
    TenantStale,
    /// The gateways of a cluster disagree about a tenant: not the same is in force on all of them.
    TenantsDisagree,
    /// A change of a tenant waits for an operator's approval.
    ChangesHeld,
    /// Four fifths of a quota are used, or all of it.
    QuotaNear,
    /// A tenant serves, but its backend, listener or login is down.
    TenantDegraded,
    /// The identity provider refuses a tenant's app, so nobody can log in.
    LoginRefused,
    /// The secret of a tenant's app at the identity provider expires soon, or has expired.
    ClientSecretExpires,
    /// An API key expires soon, or has expired.
    ApiKeyExpires,
    /// A certificate is not renewed, or will not be.
    CertificateNotRenewing,
    /// The store does not take what must survive a restart.
    StoreUnwritable,
    /// A folder's disk is almost full.
    DiskLow,
    /// Lines of the audit are lost.
    AuditLosing,
}

impl AlertKind {
    /// All kinds, in the order in which an operator is told of them.
    pub const ALL: [Self; 13] = [
        Self::StoreUnwritable,
        Self::DiskLow,
        Self::AuditLosing,
        Self::CertificateNotRenewing,
        Self::TenantRejected,
        Self::TenantStale,
        Self::TenantsDisagree,
        Self::TenantDegraded,
        Self::LoginRefused,
        Self::ClientSecretExpires,
        Self::ApiKeyExpires,
        Self::QuotaNear,
        Self::ChangesHeld,
    ];

    /// Returns the name in settings and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TenantRejected => "tenant-rejected",
            Self::TenantStale => "tenant-stale",
            Self::TenantsDisagree => "tenants-disagree",
            Self::ChangesHeld => "changes-held",
            Self::QuotaNear => "quota-near",
            Self::TenantDegraded => "tenant-degraded",
            Self::LoginRefused => "login-refused",
            Self::ClientSecretExpires => "client-secret-expires",
            Self::ApiKeyExpires => "api-key-expires",
            Self::CertificateNotRenewing => "certificate-not-renewing",
            Self::StoreUnwritable => "store-unwritable",
            Self::DiskLow => "disk-low",
            Self::AuditLosing => "audit-losing",
        }
    }

    /// Returns the kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_one_name_everywhere() {
        for kind in AlertKind::ALL {
            assert_eq!(AlertKind::from_name(kind.as_str()), Some(kind));
            assert_eq!(serde_json::to_value(kind).expect("a text"), kind.as_str());
        }
    }
}
