//! The flags that correspond to settings.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::settings::{Flags, SettingKey};

/// Flags of the running gateway.
#[derive(Debug, Clone, Default, Args)]
pub struct GatewayArgs {
    /// Where the tenants' files come from: folder, or kubernetes (each Secret with the label
    /// tenantd.io/tenant=true is a tenant) [default: folder].
    #[arg(long, value_name = "PLACE", value_parser = ["folder", "kubernetes"])]
    pub tenants_from: Option<String>,
    /// The folder for keys, last good revisions and other persistent state [default: state].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state: Option<String>,
    /// The key that encrypts the secrets in the state folder [default: one created there at first
    /// start].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub master_key_file: Option<String>,
    /// Where logins are kept: file (in the state folder), or a PostgreSQL database as
    /// postgres://USER@HOST/DATABASE [default: file].
    #[arg(long, value_name = "ADDRESS")]
    pub store: Option<String>,
    /// A file that contains only the database's address, which may have a password.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub store_file: Option<String>,
    /// A file that contains only the database's password.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub store_password_file: Option<String>,
    /// What happens to calls of tenants with a login while a gateway among several has heard nothing
    /// of the database for ten seconds: `refuse` or `serve` [default: refuse].
    #[arg(long, value_name = "WHAT")]
    pub store_stale: Option<String>,
    /// The name of this gateway among those that share a database [default: the host's name].
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// The folder of certificates and their keys [default: certs].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub certs: Option<String>,
    /// An address to serve on; repeatable; port 0 is any free port [default: 0.0.0.0:443, or :80
    /// with --tls off]. "ADDR proxy_protocol" wants a PROXY protocol header from a trusted proxy.
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// The address of the admin listener, or off [default: 127.0.0.1:9900].
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// The file with the tokens of the admin listener, which `tenantd admin-token new` makes
    /// [default: none].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub admin_auth: Option<String>,
    /// A host name by which the admin listener is reached, with --admin-auth; repeatable.
    #[arg(long, value_name = "NAME")]
    pub admin_host: Vec<String>,
    /// The admin listener's certificate: gateway (one of the gateway's), off, or twice: the files
    /// of the certificate and of its key.
    #[arg(long, value_name = "MODE|FILE")]
    pub admin_tls: Vec<String>,
    /// An address for plain HTTP, which answers a CA's challenges and redirects everything else to
    /// https; repeatable, or off [default: 0.0.0.0:80 with --tls acme and no --listen].
    #[arg(long, value_name = "ADDR")]
    pub listen_http: Vec<String>,
    /// Agree to the certificate authority's terms of service.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub accept_tos: Option<String>,
    /// A certificate authority's ACME directory; repeatable, asked in order [default: letsencrypt].
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub acme_directory: Vec<String>,
    /// Where to validate a name after a failed validation, before ordering again; repeatable, one
    /// for each directory, - for none [default: Let's Encrypt's staging for letsencrypt].
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub acme_staging: Vec<String>,
    /// A mail address for the certificate authority; repeatable.
    #[arg(long, value_name = "MAIL", value_hint = ValueHint::EmailAddress)]
    pub acme_contact: Vec<String>,
    /// The root certificate of a private certificate authority's own server (PEM).
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub acme_ca_root: Option<String>,
    /// The profile for certificates of host names.
    #[arg(long, value_name = "NAME")]
    pub acme_profile: Option<String>,
    /// The key id of an external account; repeatable, one for each directory.
    #[arg(long, value_name = "ID")]
    pub acme_eab_kid: Vec<String>,
    /// The file with the external account's key; repeatable, one for each directory.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub acme_eab_key_file: Vec<String>,
    /// The login host of Microsoft; another one for sovereign clouds [default:
    /// login.microsoftonline.com].
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub entra_authority: Option<String>,
    /// A network that open tenants answer, like private networks; repeatable.
    #[arg(long, value_name = "CIDR")]
    pub private_networks: Vec<String>,
    /// A proxy, or a network of proxies, whose X-Forwarded-For and Forwarded headers say who calls;
    /// repeatable.
    #[arg(long, value_name = "CIDR")]
    pub trusted_proxies: Vec<String>,
    /// How many proxies a request passes [default: as many as are in --trusted-proxies].
    #[arg(long, value_name = "N")]
    pub trusted_proxy_hops: Option<String>,
    /// How the tenants folder is watched [default: auto].
    #[arg(long, value_name = "MODE", value_parser = ["auto", "poll"])]
    pub watch: Option<String>,
    /// The format of log lines [default: text].
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json"])]
    pub log: Option<String>,
    /// A file to write the bound addresses to (JSON) once the gateway serves.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub ready_file: Option<String>,
}

/// Flags that decide how tenants are validated; `serve` and `check` share them.
#[derive(Debug, Clone, Default, Args)]
pub struct ValidationArgs {
    /// The configuration file [default: tenantd.yaml, else /etc/tenantd/tenantd.yaml, if there is
    /// one].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// The folder of the tenants' files [default: tenants.d].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub tenants: Option<String>,
    /// A host name of the gateway; repeatable [default: localhost].
    #[arg(long, value_name = "NAME")]
    pub host: Vec<String>,
    /// The source of certificates [default: acme with --accept-tos and a public --host, else
    /// self-signed].
    #[arg(long, value_name = "MODE", value_parser = ["acme", "self-signed", "manual", "off"])]
    pub tls: Option<String>,
    /// The base of tenants' public URLs [default: the first host, with the port unless it is the
    /// scheme's default].
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub public_base: Option<String>,
    /// Refuse tenants that require no credential from callers.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub require_auth: Option<String>,
    /// Whether an export can claim its own host [default: refuse].
    #[arg(long, value_name = "RULE", value_parser = ["refuse", "allow"])]
    pub zip_hosts: Option<String>,
    /// Addresses that tenants' files may ask for as listeners of their own, such as
    /// 0.0.0.0:8001-8099; repeatable [default: none].
    #[arg(long, value_name = "RANGE")]
    pub tenant_listeners: Vec<String>,
    /// A loopback or link-local network in which backends may be; repeatable.
    #[arg(long, value_name = "CIDR")]
    pub backend_allow: Vec<String>,
    /// A host, `*.domain` or network; backends may be only in the listed ones; repeatable [default:
    /// any].
    #[arg(long, value_name = "PLACE")]
    pub backend_only: Vec<String>,
}

impl GatewayArgs {
    /// Adds what was given.
    pub(in crate::cli) fn flags(&self, flags: Flags) -> Flags {
        flags
            .with(SettingKey::STATE, &self.state)
            .with(SettingKey::CERTS, &self.certs)
            .with(SettingKey::TENANTS_FROM, &self.tenants_from)
            .with(SettingKey::LISTEN, &self.listen)
            .with(SettingKey::ADMIN, &self.admin)
            .with(SettingKey::ADMIN_AUTH, &self.admin_auth)
            .with(SettingKey::ADMIN_HOST, &self.admin_host)
            .with(SettingKey::ADMIN_TLS, &self.admin_tls)
            .with(SettingKey::LISTEN_HTTP, &self.listen_http)
            .with(SettingKey::ACCEPT_TOS, &self.accept_tos)
            .with(SettingKey::ACME_DIRECTORY, &self.acme_directory)
            .with(SettingKey::ACME_STAGING, &self.acme_staging)
            .with(SettingKey::ACME_CONTACT, &self.acme_contact)
            .with(SettingKey::ACME_CA_ROOT, &self.acme_ca_root)
            .with(SettingKey::ACME_PROFILE, &self.acme_profile)
            .with(SettingKey::ACME_EAB_KID, &self.acme_eab_kid)
            .with(SettingKey::ACME_EAB_KEY_FILE, &self.acme_eab_key_file)
            .with(SettingKey::ENTRA_AUTHORITY, &self.entra_authority)
            .with(SettingKey::PRIVATE_NETWORKS, &self.private_networks)
            .with(SettingKey::TRUSTED_PROXIES, &self.trusted_proxies)
            .with(SettingKey::TRUSTED_PROXY_HOPS, &self.trusted_proxy_hops)
            .with(SettingKey::WATCH, &self.watch)
            .with(SettingKey::LOG, &self.log)
            .with(SettingKey::READY_FILE, &self.ready_file)
            .with(SettingKey::MASTER_KEY_FILE, &self.master_key_file)
            .with(SettingKey::STORE, &self.store)
            .with(SettingKey::STORE_FILE, &self.store_file)
            .with(SettingKey::STORE_PASSWORD_FILE, &self.store_password_file)
            .with(SettingKey::STORE_STALE, &self.store_stale)
            .with(SettingKey::NODE_NAME, &self.node_name)
    }
}

impl ValidationArgs {
    /// Adds what was given.
    pub(in crate::cli) fn flags(&self, flags: Flags) -> Flags {
        flags
            .with(SettingKey::TENANTS, &self.tenants)
            .with(SettingKey::HOST, &self.host)
            .with(SettingKey::TLS, &self.tls)
            .with(SettingKey::PUBLIC_BASE, &self.public_base)
            .with(SettingKey::REQUIRE_AUTH, &self.require_auth)
            .with(SettingKey::ZIP_HOSTS, &self.zip_hosts)
            .with(SettingKey::TENANT_LISTENERS, &self.tenant_listeners)
            .with(SettingKey::BACKEND_ALLOW, &self.backend_allow)
            .with(SettingKey::BACKEND_ONLY, &self.backend_only)
    }
}
