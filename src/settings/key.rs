//! The names of settings in their three spellings.

use std::fmt;

/// The name of a setting, as spelled in the file: `backend_allow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(&'static str);

impl Key {
    /// The folder of the tenants' files.
    pub const TENANTS: Key = Key("tenants");
    /// The folder of persistent state.
    pub const STATE: Key = Key("state");
    /// The folder of certificates.
    pub const CERTS: Key = Key("certs");
    /// The public listeners.
    pub const LISTEN: Key = Key("listen");
    /// The admin listener, or `off`.
    pub const ADMIN: Key = Key("admin");
    /// The gateway's host names.
    pub const HOST: Key = Key("host");
    /// The base of tenants' public URLs.
    pub const PUBLIC_BASE: Key = Key("public_base");
    /// The source of TLS certificates.
    pub const TLS: Key = Key("tls");
    /// How the tenants folder is watched.
    pub const WATCH: Key = Key("watch");
    /// The log format.
    pub const LOG: Key = Key("log");
    /// Whether open tenants are rejected.
    pub const REQUIRE_AUTH: Key = Key("require_auth");
    /// Which clients may call open tenants.
    pub const OPEN_TENANTS: Key = Key("open_tenants");
    pub const PRIVATE_NETWORKS: Key = Key("private_networks");
    pub const BACKEND_ALLOW: Key = Key("backend_allow");
    pub const BACKEND_ONLY: Key = Key("backend_only");
    pub const SECRET_ROOT: Key = Key("secret_root");
    /// Whether a tenant's outside secrets must carry its name.
    pub const CONFINE_TENANTS: Key = Key("confine_tenants");
    /// The file written once the gateway serves.
    pub const READY_FILE: Key = Key("ready_file");
    /// Additional Host headers to accept, or `any`.
    pub const EXTRA_HOST: Key = Key("extra_host");
    /// Browser origins that may call MCP endpoints.
    pub const ALLOWED_ORIGIN: Key = Key("allowed_origin");
    /// The file of the master key.
    pub const MASTER_KEY_FILE: Key = Key("master_key_file");
    /// The period of Strict-Transport-Security, or `off`.
    pub const HSTS: Key = Key("hsts");
    /// The listeners for plain HTTP, or `off`.
    pub const LISTEN_HTTP: Key = Key("listen_http");
    /// Whether the operator accepts the CAs' terms of service.
    pub const ACCEPT_TOS: Key = Key("accept_tos");
    /// The ACME directories, in order.
    pub const ACME_DIRECTORY: Key = Key("acme_directory");
    /// The staging directories of the CAs, in order.
    pub const ACME_STAGING: Key = Key("acme_staging");
    /// Mail addresses for the CA accounts.
    pub const ACME_CONTACT: Key = Key("acme_contact");
    /// CA certificates to trust for connections to the CAs.
    pub const ACME_CA_ROOT: Key = Key("acme_ca_root");
    /// The ACME profile.
    pub const ACME_PROFILE: Key = Key("acme_profile");
    /// The key ids of external accounts, in the order of the CAs.
    pub const ACME_EAB_KID: Key = Key("acme_eab_kid");
    /// The key files of external accounts, in the order of the CAs.
    pub const ACME_EAB_KEY_FILE: Key = Key("acme_eab_key_file");
    /// Scheme and host of Microsoft's login.
    pub const ENTRA_AUTHORITY: Key = Key("entra_authority");
    /// The size at which the audit file is rotated, or `off`.
    pub const AUDIT: Key = Key("audit");
    /// The number of audit files kept.
    pub const AUDIT_FILES: Key = Key("audit_files");
    /// Which hosts exports may claim.
    pub const ZIP_HOSTS: Key = Key("zip_hosts");

    /// Every setting that all three places know.
    pub const ALL: [Key; 35] = [
        Self::TENANTS,
        Self::STATE,
        Self::CERTS,
        Self::LISTEN,
        Self::ADMIN,
        Self::HOST,
        Self::PUBLIC_BASE,
        Self::TLS,
        Self::WATCH,
        Self::LOG,
        Self::REQUIRE_AUTH,
        Self::OPEN_TENANTS,
        Self::PRIVATE_NETWORKS,
        Self::BACKEND_ALLOW,
        Self::BACKEND_ONLY,
        Self::SECRET_ROOT,
        Self::CONFINE_TENANTS,
        Self::READY_FILE,
        Self::EXTRA_HOST,
        Self::ALLOWED_ORIGIN,
        Self::MASTER_KEY_FILE,
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

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Returns the name in `known` that a misspelled `text` probably meant.
pub(super) fn closest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |name: &str| strsim::jaro_winkler(text, name);
    known
        .into_iter()
        .map(|name| (likeness(name), name))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
