//! The arguments of `tenantd serve`, and examples of `tenantd container`.

use clap::Args;

use super::{GatewayArgs, ValidationArgs};

pub(super) const EXAMPLES: &str = "\
Each flag can also be set as a variable (--backend-allow: TENANTD_BACKEND_ALLOW, lists with
commas) or in tenantd.yaml (backend_allow:). A flag overrides the variable, and the variable
overrides the file. Only variables and the file know open_tenants, secret_root, confine_tenants,
extra_host, allowed_origin, hold_changes, hsts, log_filter, audit and audit_files; only the file
knows limits and notify. log_filter sets how much is logged (debug).

Examples:
  tenantd serve --host mcp.example.com --accept-tos      with certificates from Let's Encrypt
  tenantd serve --host mcp.example.com
  tenantd serve --listen 127.0.0.1:8080 --tls off --public-base https://mcp.example.com
  tenantd serve --listen 0.0.0.0:443 --listen '[::]:443' --tls manual --certs /etc/tenantd/certs";

pub(super) const CONTAINER_EXAMPLES: &str = "\
If there is /app/server.zip or one of the variables of run is set (PUBLIC alone does not count),
this is tenantd run, else tenantd serve. Settings come from TENANTD_… variables.

Examples:
  docker run -p 8000:8000 -v /opt/tursio/mcp_export.zip:/app/server.zip:ro -e API_KEY=… tenantd
  docker run -p 443:8443 -v /srv/tenants.d:/data/tenants.d tenantd";

/// The arguments of `tenantd serve`.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeArgs {
    /// The settings that decide how tenants are validated.
    #[command(flatten)]
    pub validation: ValidationArgs,
    /// The settings of a running gateway.
    #[command(flatten)]
    pub gateway: GatewayArgs,
}
