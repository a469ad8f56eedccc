//! The names of settings in their three spellings.

use std::fmt;

/// A setting's name, as it is written in the file: `backend_allow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(&'static str);

impl Key {
    pub const TENANTS: Key = Key("tenants");
    pub const STATE: Key = Key("state");
    pub const CERTS: Key = Key("certs");
    pub const LISTEN: Key = Key("listen");
    pub const ADMIN: Key = Key("admin");
    pub const HOST: Key = Key("host");
    pub const PUBLIC_BASE: Key = Key("public_base");
    pub const TLS: Key = Key("tls");
    pub const WATCH: Key = Key("watch");
    pub const LOG: Key = Key("log");
    pub const REQUIRE_AUTH: Key = Key("require_auth");
    pub const OPEN_TENANTS: Key = Key("open_tenants");
    pub const PRIVATE_NETWORKS: Key = Key("private_networks");
    pub const BACKEND_ALLOW: Key = Key("backend_allow");
    pub const BACKEND_ONLY: Key = Key("backend_only");
    pub const SECRET_ROOT: Key = Key("secret_root");
    pub const CONFINE_TENANTS: Key = Key("confine_tenants");
    pub const READY_FILE: Key = Key("ready_file");
    pub const EXTRA_HOST: Key = Key("extra_host");
    pub const ALLOWED_ORIGIN: Key = Key("allowed_origin");
    pub const MASTER_KEY_FILE: Key = Key("master_key_file");
    pub const HSTS: Key = Key("hsts");
    pub const LISTEN_HTTP: Key = Key("listen_http");
    pub const ACCEPT_TOS: Key = Key("accept_tos");
    pub const ACME_DIRECTORY: Key = Key("acme_directory");
    pub const ACME_STAGING: Key = Key("acme_staging");
    pub const ACME_CONTACT: Key = Key("acme_contact");
    pub const ACME_CA_ROOT: Key = Key("acme_ca_root");
    pub const ACME_PROFILE: Key = Key("acme_profile");
    pub const ACME_EAB_KID: Key = Key("acme_eab_kid");
    pub const ACME_EAB_KEY_FILE: Key = Key("acme_eab_key_file");
    pub const ENTRA_AUTHORITY: Key = Key("entra_authority");
    pub const AUDIT: Key = Key("audit");
    pub const AUDIT_FILES: Key = Key("audit_files");
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

    /// `--backend-allow`.
    pub fn flag(self) -> String {
        format!("--{}", self.0.replace('_', "-"))
    }

    /// `TENANTD_BACKEND_ALLOW`.
    pub fn variable(self) -> String {
        format!("TENANTD_{}", self.0.to_ascii_uppercase())
    }

    /// `backend_allow`.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The one of `known` that somebody who wrote `text` probably meant.
pub(super) fn closest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |name: &str| strsim::jaro_winkler(text, name);
    known
        .into_iter()
        .map(|name| (likeness(name), name))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
