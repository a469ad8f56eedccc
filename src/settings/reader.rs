//! Applies the precedence of sources and converts texts into [`Settings`].

use std::net::SocketAddr;
use std::path::PathBuf;

use super::file::FileSettings;
use super::parse::{self, ParseResult};
use super::source::{Flags, SettingOrigin, SettingValue};
use super::{
    AcmeSettings, AdminAccess, AdminTls, Environment, ExtraHosts, OpenTenants, SettingKey, Settings,
    StoreSettings, TlsMode, acme, default_listen, store,
};
use crate::base::diagnostic::{Diagnostic, Report};
use crate::spec::{BackendOnly, TenantListeners};

/// Looks up each setting in all sources and collects findings.
pub(super) struct SettingsReader<'a> {
    flags: &'a Flags,
    environment: &'a Environment,
    file: &'a FileSettings,
    report: Report,
}

impl<'a> SettingsReader<'a> {
    pub(super) fn new(
        flags: &'a Flags,
        environment: &'a Environment,
        written: &'a FileSettings,
        report: Report,
    ) -> Self {
        Self { flags, environment, file: written, report }
    }

    /// Returns the findings collected so far.
    pub(super) fn into_report(self) -> Report {
        self.report
    }

    /// Reads all settings. The default replaces an invalid value, so that the rest is checked as
    /// well.
    pub(super) fn read_settings(&mut self) -> Settings {
        let default = Settings::default();
        let hosts = self.read_list(SettingKey::HOST, parse::host).unwrap_or_default();
        let acme = self.read_acme();
        let tls = self.read_one(SettingKey::TLS, parse::tls).unwrap_or_else(|| acme.default_mode(&hosts));
        let listen = self.read_list(SettingKey::LISTEN, parse::listen);
        // With ACME on the default port 443, port 80 is opened for challenges too.
        let both_ports = tls == TlsMode::Acme && listen.is_none();
        Settings {
            tenants: self.read_path(SettingKey::TENANTS).unwrap_or(default.tenants),
            tenants_from: self
                .read_one(SettingKey::TENANTS_FROM, parse::tenants_from)
                .unwrap_or(default.tenants_from),
            state: self.read_path(SettingKey::STATE).unwrap_or(default.state),
            certs: self.read_path(SettingKey::CERTS).unwrap_or(default.certs),
            listen: listen.unwrap_or_else(|| vec![default_listen(tls).into()]),
            tenant_listeners: TenantListeners::new(
                self.read_list(SettingKey::TENANT_LISTENERS, parse::tenant_listeners).unwrap_or_default(),
            ),
            listen_http: self.read_listen_http(both_ports),
            admin: self.read_one(SettingKey::ADMIN, parse::socket_or_off).unwrap_or(default.admin),
            admin_access: self.read_admin_access(),
            is_admin_optional: default.is_admin_optional,
            public_base: self.read_public_base(tls),
            hosts,
            tls,
            acme,
            watch: self.read_one(SettingKey::WATCH, parse::watch).unwrap_or(default.watch),
            log: self.read_one(SettingKey::LOG, parse::log).unwrap_or(default.log),
            log_filter: self
                .read_list(SettingKey::LOG_FILTER, |text| Ok(text.to_owned()))
                .map(|all| all.join(",")),
            open_tenants: self.read_open_tenants(),
            private_networks: self
                .read_list(SettingKey::PRIVATE_NETWORKS, parse::private_network)
                .unwrap_or_default(),
            trusted_proxies: self
                .read_list(SettingKey::TRUSTED_PROXIES, parse::trusted_proxies)
                .unwrap_or_default(),
            trusted_proxy_hops: self.read_one(SettingKey::TRUSTED_PROXY_HOPS, parse::hops),
            hold_changes: self
                .read_one(SettingKey::HOLD_CHANGES, parse::hold_changes)
                .unwrap_or(default.hold_changes),
            zip_hosts: self.read_one(SettingKey::ZIP_HOSTS, parse::zip_hosts).unwrap_or(default.zip_hosts),
            backend_allow: self.read_list(SettingKey::BACKEND_ALLOW, parse::network).unwrap_or_default(),
            backend_only: BackendOnly::new(
                self.read_list(SettingKey::BACKEND_ONLY, parse::allowed_backend).unwrap_or_default(),
            ),
            secret_roots: self.read_paths(SettingKey::SECRET_ROOT),
            confine_tenants: self
                .read_one(SettingKey::CONFINE_TENANTS, parse::switch)
                .unwrap_or(default.confine_tenants),
            ready_file: self.read_path(SettingKey::READY_FILE),
            master_key_file: self.read_path(SettingKey::MASTER_KEY_FILE),
            store: StoreSettings {
                address: self.read_store_address(),
                address_file: self.read_path(SettingKey::STORE_FILE),
                password_file: self.read_path(SettingKey::STORE_PASSWORD_FILE),
                stale: self.read_one(SettingKey::STORE_STALE, store::parse_stale).unwrap_or_default(),
            },
            node_name: self.read_one(SettingKey::NODE_NAME, parse::node_name),
            entra_authority: self
                .read_one(SettingKey::ENTRA_AUTHORITY, parse::authority)
                .unwrap_or(default.entra_authority),
            limits: default.limits,
            otlp: default.otlp,
            extra_hosts: self.read_extra_hosts(),
            allowed_origins: self
                .read_list(SettingKey::ALLOWED_ORIGIN, parse::browser_origin)
                .unwrap_or_default(),
            hsts: self.read_one(SettingKey::HSTS, parse::period_or_off).unwrap_or(default.hsts),
            audit: self.read_one(SettingKey::AUDIT, parse::size_or_off).unwrap_or(default.audit),
            audit_files: self.read_one(SettingKey::AUDIT_FILES, parse::files).unwrap_or(default.audit_files),
            audit_sinks: default.audit_sinks,
            notify: default.notify,
        }
    }

    fn read_admin_access(&mut self) -> AdminAccess {
        let tls = self.lookup(SettingKey::ADMIN_TLS).map(|value| {
            let paths: Vec<_> = value.texts.iter().map(|text| resolve_path(&value.origin, text)).collect();
            (value.origin, AdminTls::parse(&value.texts, &paths))
        });
        let tls = tls.and_then(|(origin, parsed)| {
            let refuse = |fault: parse::ParseError| {
                let message = format!("`{}`: {}", origin.spelling(), fault.what);
                let finding = Diagnostic::error("setting-invalid", message).help(fault.help);
                self.report.push(origin.add_location(finding));
            };
            parsed.map_err(refuse).ok()
        });
        AdminAccess {
            tokens: self.read_path(SettingKey::ADMIN_AUTH),
            hosts: self.read_list(SettingKey::ADMIN_HOST, parse::host).unwrap_or_default(),
            tls,
        }
    }

    fn read_acme(&mut self) -> AcmeSettings {
        let directories = self.read_list(SettingKey::ACME_DIRECTORY, parse::directory);
        let kids = self.read_list(SettingKey::ACME_EAB_KID, |text| Ok(text.to_owned())).unwrap_or_default();
        let keys = self.read_paths(SettingKey::ACME_EAB_KEY_FILE);
        let directories = directories.unwrap_or_else(|| vec![acme::LETS_ENCRYPT.to_owned()]);
        let stagings = self.read_list(SettingKey::ACME_STAGING, parse::staging).unwrap_or_default();
        let cas = acme::cas(directories, stagings).and_then(|mut cas| {
            acme::bind(&mut cas, kids, keys)?;
            Ok(cas)
        });
        let cas = cas.unwrap_or_else(|finding| {
            self.report.push(*finding);
            Vec::new()
        });
        AcmeSettings {
            cas,
            contact: self.read_list(SettingKey::ACME_CONTACT, parse::mail).unwrap_or_default(),
            ca_root: self.read_path(SettingKey::ACME_CA_ROOT),
            profile: self.read_one(SettingKey::ACME_PROFILE, |text| Ok(text.to_owned())),
            accept_tos: self.read_one(SettingKey::ACCEPT_TOS, parse::switch).unwrap_or(false),
        }
    }

    fn read_listen_http(&mut self, by_default: bool) -> Vec<SocketAddr> {
        let off = |value: &SettingValue| value.texts == ["off"];
        match self.lookup(SettingKey::LISTEN_HTTP) {
            Some(value) if off(&value) => Vec::new(),
            Some(_) => self.read_list(SettingKey::LISTEN_HTTP, parse::socket).unwrap_or_default(),
            None if by_default => vec![default_listen(TlsMode::Off)],
            None => Vec::new(),
        }
    }

    fn read_public_base(&mut self, tls: TlsMode) -> Option<String> {
        let url = self.read_one(SettingKey::PUBLIC_BASE, parse::origin)?;
        if url.scheme() == "http" && tls != TlsMode::Off {
            let message =
                "the public base is http, but the listeners speak TLS: connector URLs will not work";
            let help = "write it with https, or use `--tls off` behind a proxy";
            self.warn(SettingKey::PUBLIC_BASE, "public-base-scheme", message, help);
        }
        Some(url.origin().ascii_serialization())
    }

    fn read_open_tenants(&mut self) -> OpenTenants {
        let rule = self.read_one(SettingKey::OPEN_TENANTS, parse::open_tenants);
        let require_auth = self.read_one(SettingKey::REQUIRE_AUTH, parse::switch).unwrap_or(false);
        match rule {
            Some(OpenTenants::Public) if require_auth => {
                let message = "open tenants are both refused (`require_auth`) and public (`open_tenants`)";
                let help = "keep one of the two";
                self.report.push(Diagnostic::error("open-tenants-conflict", message).help(help));
                OpenTenants::Refused
            }
            _ if require_auth => OpenTenants::Refused,
            rule => rule.unwrap_or_default(),
        }
    }

    fn read_extra_hosts(&mut self) -> ExtraHosts {
        let any = |value: &SettingValue| value.texts == ["any"];
        if self.lookup(SettingKey::EXTRA_HOST).as_ref().is_some_and(any) {
            return ExtraHosts::Any;
        }
        ExtraHosts::These(self.read_list(SettingKey::EXTRA_HOST, parse::host).unwrap_or_default())
    }

    /// Returns the settings that some source gives, by name, as written.
    pub(super) fn written(&self) -> impl Iterator<Item = (String, String)> {
        let written = |key: &SettingKey| Some((key.to_string(), self.lookup(*key)?.texts.join(", ")));
        SettingKey::ALL.iter().filter_map(written)
    }

    /// Whether any source gives the setting.
    pub(super) fn is_given(&self, key: SettingKey) -> bool {
        self.lookup(key).is_some()
    }

    /// Returns the value from the source of highest precedence: flag, environment, file.
    fn lookup(&self, key: SettingKey) -> Option<SettingValue> {
        let flag = self.flags.value(key);
        flag.or_else(|| self.environment.value(key)).or_else(|| self.file.value(key))
    }

    fn read_one<T>(&mut self, key: SettingKey, parse: fn(&str) -> ParseResult<T>) -> Option<T> {
        let value = self.lookup(key)?;
        if let [text] = value.texts.as_slice() {
            return self.parse_value(&value.origin, text, parse);
        }
        let message = format!(
            "`{}` has {} values, but only one is allowed",
            value.origin.spelling(),
            value.texts.len()
        );
        self.report.push(value.origin.add_location(Diagnostic::error("setting-not-a-list", message)));
        None
    }

    fn read_list<T>(&mut self, key: SettingKey, parse: fn(&str) -> ParseResult<T>) -> Option<Vec<T>> {
        let value = self.lookup(key)?;
        let values: Vec<T> =
            value.texts.iter().filter_map(|text| self.parse_value(&value.origin, text, parse)).collect();
        (!values.is_empty()).then_some(values)
    }

    fn parse_value<T>(
        &mut self,
        origin: &SettingOrigin,
        text: &str,
        parse: fn(&str) -> ParseResult<T>,
    ) -> Option<T> {
        let fault = match parse(text) {
            Ok(value) => return Some(value),
            Err(fault) => fault,
        };
        let message = format!("`{}` is {text:?}: {}", origin.spelling(), fault.what);
        self.report.push(origin.add_location(Diagnostic::error("setting-invalid", message).help(fault.help)));
        None
    }

    /// Returns the address of the database of logins. A refusal does not repeat it: it may have a
    /// password.
    fn read_store_address(&mut self) -> Option<String> {
        let text = self.read_one(SettingKey::STORE, |text| Ok(text.to_owned()))?;
        let fault = match store::parse(&text) {
            Ok(address) => return address,
            Err(fault) => fault,
        };
        let origin = self.lookup(SettingKey::STORE)?.origin;
        let message = format!("`{}` is {}", origin.spelling(), fault.what);
        self.report.push(origin.add_location(Diagnostic::error("setting-invalid", message).help(fault.help)));
        None
    }

    /// Returns a path. Relative ones in the file are based on the file's folder, others on the
    /// working directory.
    fn read_path(&mut self, key: SettingKey) -> Option<PathBuf> {
        let text = self.read_one(key, |text| Ok(text.to_owned()))?;
        self.lookup(key).map(|value| resolve_path(&value.origin, &text))
    }

    fn read_paths(&mut self, key: SettingKey) -> Vec<PathBuf> {
        let Some(value) = self.lookup(key) else { return Vec::new() };
        value.texts.iter().map(|text| resolve_path(&value.origin, text)).collect()
    }

    fn warn(&mut self, key: SettingKey, code: &'static str, message: &str, help: &str) {
        let finding = Diagnostic::warning(code, message).help(help);
        let located = self.lookup(key).map(|value| value.origin.add_location(finding.clone()));
        self.report.push(located.unwrap_or(finding));
    }
}

fn resolve_path(origin: &SettingOrigin, text: &str) -> PathBuf {
    match origin {
        SettingOrigin::File { base, .. } => base.join(text),
        SettingOrigin::Flag(_) | SettingOrigin::Variable(_) => text.into(),
    }
}
