//! Whether a gateway runs, and what it says of itself.

use std::path::Path;

use super::super::admin_client::{AdminClient, Error};
use crate::admin::GatewayInfo;
use crate::tenants::status::TenantStatus;

/// Whether a gateway runs.
pub(super) enum GatewayContact {
    Running {
        admin: AdminClient,
        info: Box<GatewayInfo>,
    },
    /// Nobody answered; why.
    Silent {
        why: String,
        was_asked: bool,
    },
}

impl GatewayContact {
    /// Asks the admin listener, if there is one.
    pub(super) fn find(admin: Option<AdminClient>) -> Self {
        let Some(admin) = admin else {
            let why = "its admin listener is off in these settings; give its address with --admin".to_owned();
            return Self::Silent { why, was_asked: false };
        };
        match admin.gateway_info() {
            Ok(info) => Self::Running { admin, info: Box::new(info) },
            Err(error @ (Error::Rejected(..) | Error::Status(..))) => {
                let why = format!(
                    "its admin listener refuses ({error}); if it asks for a token, give one with \
                     --admin-token-file or TENANTD_ADMIN_TOKEN"
                );
                Self::Silent { why, was_asked: true }
            }
            Err(error) => Self::Silent { why: error.to_string(), was_asked: true },
        }
    }

    /// Several gateways of one tenant may run here; only the one with this export counts.
    pub(super) fn only_with(self, export: &Path) -> Self {
        match &self {
            Self::Running { info, .. } if info.tenants.as_deref().is_some_and(|path| path != export) => {
                let why = "the gateway that answers on the admin address serves something else".to_owned();
                Self::Silent { why, was_asked: false }
            }
            _ => self,
        }
    }

    /// Returns what a running gateway says of itself.
    pub(super) fn info(&self) -> Option<&GatewayInfo> {
        match self {
            Self::Running { info, .. } => Some(info),
            Self::Silent { .. } => None,
        }
    }

    /// Returns what a running gateway says of its tenants.
    pub(super) fn statuses(&self) -> Vec<TenantStatus> {
        match self {
            Self::Running { admin, .. } => admin.tenants().unwrap_or_default(),
            Self::Silent { .. } => Vec::new(),
        }
    }
}
