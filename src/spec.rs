//! Floor ½: plain data that all floors may use. The specification of a tenant: validated,
//! comparable, and without handles.
//!
//! `bundle` builds a [`TenantSpec`] from an operator's files, `tenants` builds a live tenant from
//! it, and `mcp`, `oauth` and `backend` each get their part.

mod access;
mod address;
mod alert;
mod allow_from;
mod backend;
mod backend_only;
mod claim;
mod data_fingerprint;
mod degradation;
mod limits;
mod listener;
mod login;
mod name;
mod template;
mod tenant;
mod tool;

pub use access::{AccessSpec, ApiKeySpec};
pub use address::{HostName, Mount, Prefix, PrefixError, PublicUrl, ResourceSpelling};
pub use alert::AlertKind;
pub use allow_from::AllowFrom;
pub use backend::{BackendSpec, CallSpec, Constants, Family};
pub use backend_only::{AllowedBackend, BackendOnly, HostMatch};
pub use claim::{HeldClaim, TenantClaim};
pub use data_fingerprint::{DataFingerprint, DataFingerprints};
pub use degradation::Degradation;
pub use limits::{CallLimits, LimitsSpec, UsageLimits};
pub use listener::{ListenAddress, ListenerRange, TenantListeners};
pub use login::{
    AccessRules, Audience, DirectorySpec, DocumentPolicy, EntraSpec, LoginSpec, MAX_ACCESS_TOKEN_LIFETIME,
    MachineClientSpec, ProviderSpec, RegistrationSpec,
};
pub use name::TenantName;
pub use template::{BodyTemplate, InvalidMarkValue, TemplateError, TemplateValues, UrlTemplate};
pub use tenant::{CacheSpec, HoldChanges, SlowAnswers, TenantSpec};
pub use tool::{ToolKind, ToolSpec};
