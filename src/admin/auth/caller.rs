//! Who sends a request to the admin listener, and what they may do.

use super::browser::Cookie;
use crate::admin::account::Ends;
use crate::settings::AdminRole;
use crate::telemetry::audit::Operator;

/// The caller of one request.
#[derive(Debug)]
pub(in crate::admin) struct AdminCaller {
    /// The ends of the connection, which tell the account on this machine.
    pub(in crate::admin) ends: Ends,
    /// What they may do; `None` is nothing but what everybody may.
    pub(in crate::admin) role: Option<AdminRole>,
    /// The name of their token.
    pub(in crate::admin) operator: Option<String>,
    /// The cookie of their browser; `None` for programs.
    pub(in crate::admin) cookie: Option<Cookie>,
}

impl AdminCaller {
    /// Returns who this is, for the audit.
    pub(in crate::admin) async fn to_operator(&self) -> Operator {
        let ends = self.ends;
        // The kernel's tables are files.
        let uid = tokio::task::spawn_blocking(move || ends.account()).await.unwrap_or_default();
        Operator { name: self.operator.clone(), uid, address: Some(ends.peer.ip().to_canonical()) }
    }
}
