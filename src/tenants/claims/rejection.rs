//! Why a claim is rejected, and in which words its operator learns of it.

use crate::base::diagnostic::Diagnostic;
use crate::base::shell;
use crate::routing::{ConflictKind, MountConflict};
use crate::spec::{Mount, TenantName};

const CODE: &str = "backend-guarded";
const HELP: &str = "remove it if it is a copy, or give it api_keys or a login; if everybody may call \
                            it, write open: true into the .yaml beside it";

/// Why a candidate may not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimRejection {
    /// Another entry holds the name.
    NameTaken { name: TenantName, holder: String },
    /// Another tenant holds the mount, or its host.
    MountTaken(MountConflict),
    /// It would give to everybody what another entry gives to authorized callers only.
    DataRestricted { by: String },
    /// The claim was rejected before; no entry holds any of it now.
    NeedsAcceptance { name: TenantName, mounts: Vec<Mount> },
}

impl ClaimRejection {
    /// Turns the rejection into a finding about the entry with this id.
    pub fn to_diagnostic(&self, entry_id: &str) -> Diagnostic {
        match self {
            Self::NameTaken { name, holder } => {
                let message = format!("the name \"{name}\" is taken by the entry \"{holder}\"");
                Diagnostic::error("claim-taken", message)
                    .help("rename this file, or write name: into its overlay")
            }
            Self::MountTaken(conflict) => {
                let help = match conflict.kind {
                    ConflictKind::Host => {
                        "choose another host, or write share_host: true into your files of both tenants"
                    }
                    _ => "write another path_prefix into the overlay beside it",
                };
                Diagnostic::error("claim-taken", describe_conflict(conflict)).help(help)
            }
            Self::DataRestricted { by } => open_data_error(by),
            Self::NeedsAcceptance { name, mounts } => {
                let mounts: Vec<_> = mounts.iter().map(format_mount).collect();
                let mounts = mounts.join(", ");
                let message = format!(
                    "the name \"{name}\" and {mounts} are free now, but this claim was refused before, \
                     because another tenant had one of them or protected the same backend; the claim does \
                     not take effect by itself"
                );
                let help = format!(
                    "to accept the claim, run `tenantd tenants accept {}`; or change its files",
                    shell::quote(entry_id)
                );
                Diagnostic::error("claim-free", message).help(help)
            }
        }
    }
}

fn format_mount(mount: &Mount) -> String {
    let listener = format_listener(mount);
    match &mount.host {
        Some(host) => format!("{host}{}{listener}", mount.prefix),
        None => format!("{}{listener}", mount.prefix),
    }
}

fn format_listener(mount: &Mount) -> String {
    mount.listener.map(|listener| format!(" on listener {listener}")).unwrap_or_default()
}

fn describe_conflict(conflict: &MountConflict) -> String {
    let MountConflict { holder, mount, kind, .. } = conflict;
    let host = mount.host.as_ref().map(|host| format!(" on {host}")).unwrap_or_default();
    let host = format!("{host}{}", format_listener(mount));
    let prefix = &mount.prefix;
    match kind {
        ConflictKind::Same => format!("the prefix {prefix}{host} is held by tenant \"{holder}\""),
        ConflictKind::CaseOnly => {
            format!("the prefix {prefix}{host} differs only in case from one held by tenant \"{holder}\"")
        }
        ConflictKind::TakesEndpoint => {
            format!("the prefix {prefix}{host} would take a path that belongs to tenant \"{holder}\"")
        }
        ConflictKind::Host => {
            let host = mount.host.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("the host {host} belongs to tenant \"{holder}\"")
        }
    }
}

/// Returns the finding for an entry that would open what the entry `by` guards.
fn open_data_error(by: &str) -> Diagnostic {
    let message = format!(
        "\"{by}\" requires a credential from its callers and has the same backend, key and connection; this \
         tenant would give the same data to everybody, so it is not opened"
    );
    Diagnostic::error(CODE, message).help(HELP)
}

/// Returns the finding for an entry that was open before the entry `by` began to guard the same
/// data.
pub(crate) fn open_data_warning(by: &str) -> Diagnostic {
    let message = format!(
        "\"{by}\" requires a credential from its callers and has the same backend, key and connection; this \
         tenant gives the same data to everybody. It was open before, so it stays open"
    );
    Diagnostic::warning(CODE, message).help(HELP)
}
