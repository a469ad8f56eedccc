//! The names of settings in their three spellings.

use std::fmt;

/// The name of a setting, as spelled in the file: `backend_allow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SettingKey(&'static str);

impl SettingKey {
    /// The folder of the tenants' files.
    pub const TENANTS: SettingKey = SettingKey("tenants");
    /// Where the tenants' files come from.
    pub const TENANTS_FROM: SettingKey = SettingKey("tenants_from");
    /// The folder of persistent state.
    pub const STATE: SettingKey = SettingKey("state");
    /// The folder of certificates.
    pub const CERTS: SettingKey = SettingKey("certs");
    /// The public listeners.
    pub const LISTEN: SettingKey = SettingKey("listen");
    /// The listeners that tenants may have for themselves.
    pub const TENANT_LISTENERS: SettingKey = SettingKey("tenant_listeners");
    /// The admin listener, or `off`.
    pub const ADMIN: SettingKey = SettingKey("admin");
    /// The file of the admin listener's tokens.
    pub const ADMIN_AUTH: SettingKey = SettingKey("admin_auth");
    /// Host names by which the admin listener is reached.
    pub const ADMIN_HOST: SettingKey = SettingKey("admin_host");
    /// The certificate of the admin listener.
    pub const ADMIN_TLS: SettingKey = SettingKey("admin_tls");
    /// The gateway's host names.
    pub const HOST: SettingKey = SettingKey("host");
    /// The base of tenants' public URLs.
    pub const PUBLIC_BASE: SettingKey = SettingKey("public_base");
    /// The source of TLS certificates.
    pub const TLS: SettingKey = SettingKey("tls");
    /// How the tenants folder is watched.
    pub const WATCH: SettingKey = SettingKey("watch");
    /// The log format.
    pub const LOG: SettingKey = SettingKey("log");
    /// What is logged.
    pub const LOG_FILTER: SettingKey = SettingKey("log_filter");
    /// Whether open tenants are rejected.
    pub const REQUIRE_AUTH: SettingKey = SettingKey("require_auth");
    /// Which clients may call open tenants.
    pub const OPEN_TENANTS: SettingKey = SettingKey("open_tenants");
    /// Networks that count as private.
    pub const PRIVATE_NETWORKS: SettingKey = SettingKey("private_networks");
    /// Proxies whose word on their callers counts.
    pub const TRUSTED_PROXIES: SettingKey = SettingKey("trusted_proxies");
    /// How many proxies are in front.
    pub const TRUSTED_PROXY_HOPS: SettingKey = SettingKey("trusted_proxy_hops");
    /// Loopback and link-local networks that backends may be in.
    pub const BACKEND_ALLOW: SettingKey = SettingKey("backend_allow");
    /// The only hosts, domains and networks that backends may be in.
    pub const BACKEND_ONLY: SettingKey = SettingKey("backend_only");
    /// Folders that files with secrets may be in.
    pub const SECRET_ROOT: SettingKey = SettingKey("secret_root");
    /// Whether a tenant's outside secrets must carry its name.
    pub const CONFINE_TENANTS: SettingKey = SettingKey("confine_tenants");
    /// The file written once the gateway serves.
    pub const READY_FILE: SettingKey = SettingKey("ready_file");
    /// Additional Host headers to accept, or `any`.
    pub const EXTRA_HOST: SettingKey = SettingKey("extra_host");
    /// Browser origins that may call MCP endpoints.
    pub const ALLOWED_ORIGIN: SettingKey = SettingKey("allowed_origin");
    /// The file of the master key.
    pub const MASTER_KEY_FILE: SettingKey = SettingKey("master_key_file");
    /// The database of logins, or `file`.
    pub const STORE: SettingKey = SettingKey("store");
    /// The file with the address of the database of logins.
    pub const STORE_FILE: SettingKey = SettingKey("store_file");
    /// The file with the password of the database of logins.
    pub const STORE_PASSWORD_FILE: SettingKey = SettingKey("store_password_file");
    /// What happens to calls while the database of logins is not heard of.
    pub const STORE_STALE: SettingKey = SettingKey("store_stale");
    /// The name of this gateway among those that share a database.
    pub const NODE_NAME: SettingKey = SettingKey("node_name");
    /// The period of Strict-Transport-Security, or `off`.
    pub const HSTS: SettingKey = SettingKey("hsts");
    /// The listeners for plain HTTP, or `off`.
    pub const LISTEN_HTTP: SettingKey = SettingKey("listen_http");
    /// Whether the operator accepts the CAs' terms of service.
    pub const ACCEPT_TOS: SettingKey = SettingKey("accept_tos");
    /// The ACME directories, in order.
    pub const ACME_DIRECTORY: SettingKey = SettingKey("acme_directory");
    /// The staging directories of the CAs, in order.
    pub const ACME_STAGING: SettingKey = SettingKey("acme_staging");
    /// Mail addresses for the CA accounts.
    pub const ACME_CONTACT: SettingKey = SettingKey("acme_contact");
    /// CA certificates to trust for connections to the CAs.
    pub const ACME_CA_ROOT: SettingKey = SettingKey("acme_ca_root");
    /// The ACME profile.
    pub const ACME_PROFILE: SettingKey = SettingKey("acme_profile");
    /// The key ids of external accounts, in the order of the CAs.
    pub const ACME_EAB_KID: SettingKey = SettingKey("acme_eab_kid");
    /// The key files of external accounts, in the order of the CAs.
    pub const ACME_EAB_KEY_FILE: SettingKey = SettingKey("acme_eab_key_file");
    /// Scheme and host of Microsoft's login.
    pub const ENTRA_AUTHORITY: SettingKey = SettingKey("entra_authority");
    /// The size at which the audit file is rotated, or `off`.
    pub const AUDIT: SettingKey = SettingKey("audit");
    /// The number of audit files kept.
    pub const AUDIT_FILES: SettingKey = SettingKey("audit_files");
    /// Which changes of tenants wait for approval.
    pub const HOLD_CHANGES: SettingKey = SettingKey("hold_changes");
    /// Which hosts exports may claim.
    pub const ZIP_HOSTS: SettingKey = SettingKey("zip_hosts");

    /// Every setting that the file, flags and variables know.
    pub const ALL: [SettingKey; 49] = [
        Self::TENANTS,
        Self::TENANTS_FROM,
        Self::STATE,
        Self::CERTS,
        Self::LISTEN,
        Self::TENANT_LISTENERS,
        Self::ADMIN,
        Self::ADMIN_AUTH,
        Self::ADMIN_HOST,
        Self::ADMIN_TLS,
        Self::HOST,
        Self::PUBLIC_BASE,
        Self::TLS,
        Self::WATCH,
        Self::LOG,
        Self::LOG_FILTER,
        Self::REQUIRE_AUTH,
        Self::OPEN_TENANTS,
        Self::PRIVATE_NETWORKS,
        Self::TRUSTED_PROXIES,
        Self::TRUSTED_PROXY_HOPS,
        Self::BACKEND_ALLOW,
        Self::BACKEND_ONLY,
        Self::SECRET_ROOT,
        Self::CONFINE_TENANTS,
        Self::READY_FILE,
        Self::EXTRA_HOST,
        Self::ALLOWED_ORIGIN,
        Self::MASTER_KEY_FILE,
        Self::STORE,
        Self::STORE_FILE,
        Self::STORE_PASSWORD_FILE,
        Self::STORE_STALE,
        Self::NODE_NAME,
        Self::HSTS,
        Self::LISTEN_HTTP,
        Self::ACCEPT_TOS,
        Self::ACME_DIRECTORY,
        Self::ACME_STAGING,
        Self::ACME_CONTACT,
        Self::ACME_CA_ROOT,
        Self::ACME_PROFILE,
        Self::ACME_EAB_KID,
        Self::ACME_EAB_KEY_FILE,
        Self::ENTRA_AUTHORITY,
        Self::AUDIT,
        Self::AUDIT_FILES,
        Self::ZIP_HOSTS,
        Self::HOLD_CHANGES,
    ];

    /// Returns the spelling as a flag: `--backend-allow`.
    pub fn flag(self) -> String {
        format!("--{}", self.0.replace('_', "-"))
    }

    /// Returns the spelling as an environment variable: `TENANTD_BACKEND_ALLOW`.
    pub fn variable(self) -> String {
        format!("TENANTD_{}", self.0.to_ascii_uppercase())
    }

    /// Returns the spelling in the file: `backend_allow`.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for SettingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Returns the name in `known` that a misspelled `text` probably meant.
pub(super) fn find_closest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |name: &str| strsim::jaro_winkler(text, name);
    known
        .into_iter()
        .map(|name| (likeness(name), name))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
