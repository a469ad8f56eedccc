//! Floor ½: plain data that crosses floors. What a tenant is *meant* to be: validated, comparable, without handles.
//!
//! `bundle` makes a [`TenantSpec`] from what an operator dropped; `tenants` builds a live tenant from it; `mcp`, `oauth`
//! and `backend` are each given their part.

mod access;
mod address;
mod backend;
mod backend_only;
mod holding;
mod limits;
mod login;
mod name;
mod reach;
mod template;
mod tenant;
mod tool;

pub use access::{AccessSpec, ApiKeySpec};
pub use address::{HostName, Mount, Prefix, PrefixFault, PublicUrl, Resource};
pub use backend::{BackendSpec, CallSpec, Constants, Family};
pub use backend_only::{BackendOnly, BackendPlace, Standing};
pub use holding::{Holding, Stake};
pub use limits::LimitsSpec;
pub use login::{
    AccessRules, Audience, DirectorySpec, DocumentPolicy, IdentitySpec, LoginSpec, MachineClientSpec,
    RegistrationSpec,
};
pub use name::TenantName;
pub use reach::{Reach, Reaches};
pub use template::{BodyTemplate, TemplateFault, UnfitValue, UrlTemplate, Values};
pub use tenant::{CacheSpec, TenantSpec};
pub use tool::{ToolKind, ToolSpec};
