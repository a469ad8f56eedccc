//! Floor 1: the gateway's own configuration, from flags, environment and file to the effective
//! [`Settings`].
//!
//! A setting has one name in three spellings: `--backend-allow`, `TENANTD_BACKEND_ALLOW`, and
//! `backend_allow:` in `tenantd.yaml`. A flag takes precedence over the environment, the
//! environment over the file, and the file over the default; a list replaces the lower one as a
//! whole. All findings are reported at once, each in the spelling that the operator used. Nothing
//! here opens a socket or creates a folder, and no setting is a secret.

mod acme;
mod admin;
mod admin_tokens;
mod audit_sinks;
mod consistency;
mod environment;
mod file;
mod file_place;
mod key;
mod limits;
mod notify;
mod otlp;
mod parse;
mod reader;
mod reload;
mod section;
mod source;
mod store;
#[cfg(test)]
mod tests;
mod view;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::base::diagnostic::Report;
use crate::base::host_name::host_name;
use crate::routing::GatewayHosts;
use crate::spec::{BackendOnly, HoldChanges, HostName, ListenAddress, TenantListeners};
use crate::telemetry::audit::sinks::SinkConfig;
use crate::telemetry::log::LogFormat;

pub use self::notify::{
    NotifyChannel, NotifyTarget, WebhookAddress, WebhookFormat, WebhookSettings, parse_webhook_url,
};
pub use acme::{AcmeSettings, Ca, ExternalAccount};
pub use admin::{AdminAccess, AdminTls};
pub use admin_tokens::{AdminRole, AdminToken, parse_admin_tokens};
pub use environment::{Environment, config_path};
pub use key::SettingKey;
pub use limits::{Limits, REQUEST_FACTOR};
pub use otlp::OtlpSettings;
pub use reload::{SettingSources, SettingsInForce, WrittenSettings, live_settings};
pub use source::Flags;
pub use store::{StaleStore, StoreSettings};

/// The source of TLS certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Issued by a CA over ACME. The default where there is a public name and the CA's terms are
    /// accepted.
    Acme,
    /// Issued by a local CA, created at first start.
    #[default]
    SelfSigned,
    /// Certificate files in the certs folder, reloaded when they change.
    Manual,
    /// No TLS: plain HTTP.
    Off,
}

/// How changes in the tenants folder are detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchMode {
    /// The system's file notifications; polling where they are unavailable.
    #[default]
    Auto,
    /// Polling only.
    Poll,
}

/// Where the tenants' files come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TenantsFrom {
    /// The tenants folder, into which somebody puts them.
    #[default]
    Folder,
    /// Labelled Secrets of Kubernetes, which the gateway copies into the tenants folder.
    Kubernetes,
}

/// Which clients may call an open tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpenTenants {
    /// Loopback, private networks and `private_networks` only.
    #[default]
    Private,
    /// All clients.
    Public,
    /// None: open tenants are rejected (`--require-auth`).
    Refused,
}

/// Which hosts a vendor's export may claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZipHosts {
    /// Only the gateway's hosts; others come from operators' files.
    #[default]
    Refuse,
    /// Any host.
    Allow,
}

/// The effective configuration, immutable for the lifetime of the process.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder of the tenants' files.
    pub tenants: PathBuf,
    /// Where the tenants' files come from.
    pub tenants_from: TenantsFrom,
    /// The folder of persistent state.
    pub state: PathBuf,
    /// The folder of certificates.
    pub certs: PathBuf,
    /// The public listeners, at least one. Port 0 is allowed.
    pub listen: Vec<ListenAddress>,
    /// The listeners that tenants' files may ask for.
    pub tenant_listeners: TenantListeners,
    /// Listeners for plain HTTP, which answer ACME challenges and redirect everything else to
    /// https.
    pub listen_http: Vec<SocketAddr>,
    /// The admin listener, if there is one.
    pub admin: Option<SocketAddr>,
    /// Who may use the admin listener from elsewhere, and how.
    pub admin_access: AdminAccess,
    /// Whether the gateway goes on without the admin listener if its address is taken.
    pub is_admin_optional: bool,
    /// The gateway's host names, at least one (default `localhost`).
    pub hosts: Vec<HostName>,
    /// The base of tenants' public URLs, `https://host[:port]`. `None` derives it from the first
    /// host and the port of the first listener.
    pub public_base: Option<String>,
    /// The source of TLS certificates.
    pub tls: TlsMode,
    /// How certificates are obtained over ACME.
    pub acme: AcmeSettings,
    /// How the tenants folder is watched.
    pub watch: WatchMode,
    /// The log format.
    pub log: LogFormat,
    /// What is logged; `None` for the default.
    pub log_filter: Option<String>,
    /// Which clients may call open tenants.
    pub open_tenants: OpenTenants,
    /// Networks that count as private besides those that are.
    pub private_networks: Vec<IpNet>,
    /// Proxies whose word on their callers counts.
    pub trusted_proxies: Vec<IpNet>,
    /// How many proxies are in front, if callers are found by counting from the last one.
    pub trusted_proxy_hops: Option<NonZeroU8>,
    /// Which changes of tenants wait for an operator's approval, where their own files do not say.
    pub hold_changes: HoldChanges,
    /// Whether a tenant's zip may claim hosts other than the gateway's.
    pub zip_hosts: ZipHosts,
    /// Networks that backends may be in although they are loopback or link-local.
    pub backend_allow: Vec<IpNet>,
    /// Where backends may be at all.
    pub backend_only: BackendOnly,
    /// The folders that files with secrets may be in.
    pub secret_roots: Vec<PathBuf>,
    /// Whether a tenant may use only those secrets outside of its own files that carry its name.
    pub confine_tenants: bool,
    /// The file written once the gateway serves, if any.
    pub ready_file: Option<PathBuf>,
    /// The file of the master key, if that is not in the state folder.
    pub master_key_file: Option<PathBuf>,
    /// The database that logins are kept in, if not in the state folder.
    pub store: StoreSettings,
    /// The name of this gateway, if it is not to be that of its host.
    pub node_name: Option<String>,
    /// Scheme and host of Microsoft's login; differs in sovereign clouds and tests.
    pub entra_authority: Url,
    /// The limits of the public listeners.
    pub limits: Limits,
    /// The receiver of traces.
    pub otlp: OtlpSettings,
    /// Host headers accepted in addition to our own names and addresses.
    pub extra_hosts: ExtraHosts,
    /// Browser origins, besides our own, that may call MCP endpoints.
    pub allowed_origins: Vec<String>,
    /// How long browsers are told to use HTTPS only (RFC 6797); `None` sends no header.
    pub hsts: Option<Duration>,
    /// The size in bytes at which the audit file is rotated; `None` turns the audit off.
    pub audit: Option<u64>,
    /// The number of audit files kept, including the current one.
    pub audit_files: u32,
    /// The receivers of the audit beside the file.
    pub audit_sinks: Vec<SinkConfig>,
    /// Who is told of trouble.
    pub notify: Vec<NotifyTarget>,
}

/// Host headers accepted in addition to our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtraHosts {
    These(Vec<HostName>),
    Any,
}

/// Valid settings and the warnings about them.
#[derive(Debug, Clone)]
pub struct LoadedSettings {
    /// The effective settings.
    pub settings: Settings,
    /// Findings that do not prevent the start.
    pub warnings: Report,
    /// The configuration file, if one was read.
    pub file: Option<PathBuf>,
    /// Whether any source sets the host or the public base; otherwise both are defaults.
    pub is_host_given: bool,
    /// Whether any source sets the state folder.
    pub is_state_given: bool,
    /// Whether any source sets the admin listener.
    pub is_admin_given: bool,
    /// What the sources say.
    pub written: WrittenSettings,
    /// The sources, to read them again.
    pub sources: SettingSources,
}

/// The error of invalid settings; its report lists all findings at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the settings have errors")]
pub struct Error {
    /// All findings, warnings included.
    pub report: Report,
}

impl Default for Settings {
    /// Returns the settings that apply when nothing is configured.
    fn default() -> Self {
        Self {
            tenants: "tenants.d".into(),
            tenants_from: TenantsFrom::default(),
            state: "state".into(),
            certs: "certs".into(),
            listen: vec![default_listen(TlsMode::default()).into()],
            tenant_listeners: TenantListeners::default(),
            listen_http: Vec::new(),
            admin: Some((Ipv4Addr::LOCALHOST, 9900).into()),
            admin_access: AdminAccess::default(),
            is_admin_optional: false,
            hosts: vec![localhost()],
            public_base: None,
            tls: TlsMode::default(),
            acme: AcmeSettings::default(),
            watch: WatchMode::default(),
            log: LogFormat::default(),
            log_filter: None,
            open_tenants: OpenTenants::default(),
            private_networks: Vec::new(),
            trusted_proxies: Vec::new(),
            trusted_proxy_hops: None,
            hold_changes: HoldChanges::default(),
            zip_hosts: ZipHosts::default(),
            backend_allow: Vec::new(),
            backend_only: BackendOnly::default(),
            secret_roots: Vec::new(),
            confine_tenants: false,
            ready_file: None,
            master_key_file: None,
            store: StoreSettings::default(),
            node_name: None,
            entra_authority: default_entra_authority(),
            limits: Limits::default(),
            otlp: OtlpSettings::default(),
            extra_hosts: ExtraHosts::These(Vec::new()),
            allowed_origins: Vec::new(),
            hsts: None,
            audit: Some(64 << 20),
            audit_files: 8,
            audit_sinks: Vec::new(),
            notify: Vec::new(),
        }
    }
}

impl Settings {
    /// Reads and validates all three sources. `file`, if given, must exist; see [`config_path`].
    ///
    /// # Errors
    /// [`Error`] with all findings if any of them is an error.
    pub fn load(
        flags: &Flags,
        environment: &Environment,
        file: Option<&Path>,
    ) -> Result<LoadedSettings, Error> {
        let mut report = environment.report_misspelt();
        let mut written = file.map(|path| file::read(path, &mut report)).unwrap_or_default();
        let section::Sections { audit_sinks, limits, notify, otlp } = std::mem::take(&mut written.sections);
        let mut reader = reader::SettingsReader::new(flags, environment, &written, report);
        let mut settings = reader.read_settings();
        let is_host_given = reader.is_given(SettingKey::HOST) || reader.is_given(SettingKey::PUBLIC_BASE);
        let is_state_given = reader.is_given(SettingKey::STATE);
        let is_admin_given = reader.is_given(SettingKey::ADMIN);
        let given = reader.written().chain(limits.written()).chain(otlp.written());
        let mut given: WrittenSettings = given.collect();
        let mut report = reader.into_report();
        settings.limits = limits.validate(&mut report);
        settings.notify = self::notify::validate(notify, &written.place, &mut report);
        given.extend(self::notify::written(&settings.notify));
        settings.audit_sinks = self::audit_sinks::validate(audit_sinks, &written.place, &mut report);
        given.extend(self::audit_sinks::written(&settings.audit_sinks));
        settings.otlp = otlp.validate(file, &mut report);
        consistency::check(&mut settings, &mut report);
        match report.has_errors() {
            true => Err(Error { report }),
            false => Ok(LoadedSettings {
                settings,
                warnings: report,
                file: file.map(Path::to_path_buf),
                is_host_given,
                is_state_given,
                is_admin_given,
                written: given,
                sources: SettingSources {
                    flags: flags.clone(),
                    environment: environment.clone(),
                    file: file.map(Path::to_path_buf),
                },
            }),
        }
    }

    /// Returns the name of this gateway among others.
    pub fn node_name(&self) -> String {
        let host = || host_name().chars().take(parse::MAX_NODE_NAME_CHARS).collect();
        self.node_name.clone().unwrap_or_else(host)
    }

    /// Returns the name that audit and log lines carry: none if there is no other gateway to tell
    /// this one from.
    pub fn shown_node_name(&self) -> Option<String> {
        let is_one_of_several = self.store.is_database() || self.node_name.is_some();
        is_one_of_several.then(|| self.node_name())
    }

    /// Returns the hosts under which the gateway itself is addressed.
    pub fn gateway_hosts(&self) -> GatewayHosts {
        match &self.extra_hosts {
            ExtraHosts::Any => GatewayHosts::from_names(self.hosts.iter().cloned()).allow_any(),
            ExtraHosts::These(extra) => GatewayHosts::from_names(self.hosts.iter().chain(extra).cloned()),
        }
    }

    /// Returns whether the gateway answers at any name and does not know by which one it is
    /// reached.
    pub fn has_no_known_name(&self) -> bool {
        let is_default = self.hosts.iter().all(|host| host.as_str() == "localhost");
        self.extra_hosts == ExtraHosts::Any && self.public_base.is_none() && is_default
    }

    /// Returns the base of every tenant's public URL, without a trailing slash.
    ///
    /// That is the configured one, else the first host with the port of `bound` (the first listener
    /// as it was bound), omitted if it is the scheme's default.
    pub fn public_base(&self, bound: SocketAddr) -> String {
        if let Some(base) = &self.public_base {
            return base.clone();
        }
        let (scheme, own_port) = match self.tls {
            TlsMode::Off => ("http", 80),
            TlsMode::Acme | TlsMode::SelfSigned | TlsMode::Manual => ("https", 443),
        };
        let host = self.hosts.first().map_or("localhost", HostName::as_str);
        match bound.port() {
            port if port == own_port => format!("{scheme}://{host}"),
            port => format!("{scheme}://{host}:{port}"),
        }
    }
}

/// Returns all IPv4 addresses on the scheme's port. IPv6 is opt-in (`--listen [::]:443`), since the
/// kernel may lack it.
fn default_listen(tls: TlsMode) -> SocketAddr {
    let port = if tls == TlsMode::Off { 80 } else { 443 };
    (Ipv4Addr::UNSPECIFIED, port).into()
}

fn default_entra_authority() -> Url {
    Url::parse("https://login.microsoftonline.com").expect("it is a URL")
}

fn localhost() -> HostName {
    HostName::parse("localhost").expect("localhost is a host name")
}
