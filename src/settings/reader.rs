//! Applies the precedence of sources and converts texts into [`Settings`].

use std::net::SocketAddr;
use std::path::PathBuf;

use super::file::Written;
use super::parse::{self, Parsed};
use super::source::{Flags, Origin, Value};
use super::{Acme, Environment, ExtraHosts, Key, OpenTenants, Settings, TlsMode, acme, default_listen};
use crate::base::diagnostic::{Diagnostic, Report};
use crate::spec::BackendOnly;

/// Looks up each setting in all sources and collects findings.
pub(super) struct Reader<'a> {
    flags: &'a Flags,
    environment: &'a Environment,
    written: &'a Written,
    report: Report,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        flags: &'a Flags,
        environment: &'a Environment,
        written: &'a Written,
        report: Report,
    ) -> Self {
        Self { flags, environment, written, report }
    }

    /// Returns the findings collected so far.
    pub(super) fn finish(self) -> Report {
        self.report
    }

    /// Reads all settings. The default replaces an invalid value, so that the rest is checked as
    /// well.
    pub(super) fn settings(&mut self) -> Settings {
        let default = Settings::default();
        let hosts = self.many(Key::HOST, parse::host).unwrap_or_default();
        let acme = self.acme();
        let tls = self.one(Key::TLS, parse::tls).unwrap_or_else(|| acme.default_mode(&hosts));
        let listen = self.many(Key::LISTEN, parse::socket);
        // With ACME on the default port 443, port 80 is opened for challenges too.
        let both_ports = tls == TlsMode::Acme && listen.is_none();
        Settings {
            tenants: self.path(Key::TENANTS).unwrap_or(default.tenants),
            state: self.path(Key::STATE).unwrap_or(default.state),
            certs: self.path(Key::CERTS).unwrap_or(default.certs),
            listen: listen.unwrap_or_else(|| vec![default_listen(tls)]),
            listen_http: self.listen_http(both_ports),
            admin: self.one(Key::ADMIN, parse::socket_or_off).unwrap_or(default.admin),
            public_base: self.public_base(tls),
            hosts,
            tls,
            acme,
            watch: self.one(Key::WATCH, parse::watch).unwrap_or(default.watch),
            log: self.one(Key::LOG, parse::log).unwrap_or(default.log),
            open_tenants: self.open_tenants(),
            private_networks: self.many(Key::PRIVATE_NETWORKS, parse::private_network).unwrap_or_default(),
            zip_hosts: self.one(Key::ZIP_HOSTS, parse::zip_hosts).unwrap_or(default.zip_hosts),
            backend_allow: self.many(Key::BACKEND_ALLOW, parse::network).unwrap_or_default(),
            backend_only: BackendOnly::new(
                self.many(Key::BACKEND_ONLY, parse::backend_place).unwrap_or_default(),
            ),
            secret_roots: self.paths(Key::SECRET_ROOT),
            confine_tenants: self.one(Key::CONFINE_TENANTS, parse::switch).unwrap_or(default.confine_tenants),
            ready_file: self.path(Key::READY_FILE),
            master_key_file: self.path(Key::MASTER_KEY_FILE),
            entra_authority: self
                .one(Key::ENTRA_AUTHORITY, parse::authority)
                .unwrap_or(default.entra_authority),
            limits: default.limits,
            extra_hosts: self.extra_hosts(),
            allowed_origins: self.many(Key::ALLOWED_ORIGIN, parse::browser_origin).unwrap_or_default(),
            hsts: self.one(Key::HSTS, parse::period_or_off).unwrap_or(default.hsts),
            audit: self.one(Key::AUDIT, parse::size_or_off).unwrap_or(default.audit),
            audit_files: self.one(Key::AUDIT_FILES, parse::files).unwrap_or(default.audit_files),
        }
    }

    fn acme(&mut self) -> Acme {
        let directories = self.many(Key::ACME_DIRECTORY, parse::directory);
        let kids = self.many(Key::ACME_EAB_KID, |text| Ok(text.to_owned())).unwrap_or_default();
        let keys = self.paths(Key::ACME_EAB_KEY_FILE);
        let directories = directories.unwrap_or_else(|| vec![acme::LETS_ENCRYPT.to_owned()]);
        let stagings = self.many(Key::ACME_STAGING, parse::staging).unwrap_or_default();
        let cas = acme::cas(directories, stagings).and_then(|mut cas| {
            acme::bind(&mut cas, kids, keys)?;
            Ok(cas)
        });
        let cas = cas.unwrap_or_else(|finding| {
            self.report.push(*finding);
            Vec::new()
        });
        Acme {
            cas,
            contact: self.many(Key::ACME_CONTACT, parse::mail).unwrap_or_default(),
            ca_root: self.path(Key::ACME_CA_ROOT),
            profile: self.one(Key::ACME_PROFILE, |text| Ok(text.to_owned())),
            accept_tos: self.one(Key::ACCEPT_TOS, parse::switch).unwrap_or(false),
        }
    }

    fn listen_http(&mut self, by_default: bool) -> Vec<SocketAddr> {
        let off = |value: &Value| value.texts == ["off"];
        match self.find(Key::LISTEN_HTTP) {
            Some(value) if off(&value) => Vec::new(),
            Some(_) => self.many(Key::LISTEN_HTTP, parse::socket).unwrap_or_default(),
            None if by_default => vec![default_listen(TlsMode::Off)],
            None => Vec::new(),
        }
    }

    fn public_base(&mut self, tls: TlsMode) -> Option<String> {
        let url = self.one(Key::PUBLIC_BASE, parse::origin)?;
        if url.scheme() == "http" && tls != TlsMode::Off {
            let message =
                "the public base is http, but the listeners speak TLS: connector URLs will not work";
            let help = "write it with https, or use `--tls off` behind a proxy";
            self.warn(Key::PUBLIC_BASE, "public-base-scheme", message, help);
        }
        Some(url.origin().ascii_serialization())
    }

    fn open_tenants(&mut self) -> OpenTenants {
        let rule = self.one(Key::OPEN_TENANTS, parse::open_tenants);
        let require_auth = self.one(Key::REQUIRE_AUTH, parse::switch).unwrap_or(false);
        match rule {
            Some(OpenTenants::Public) if require_auth => {
                let message =
                    "open tenants are to be both refused (`require_auth`) and public (`open_tenants`)";
                let help = "keep one of the two";
                self.report.push(Diagnostic::error("open-tenants-conflict", message).help(help));
                OpenTenants::Refused
            }
            _ if require_auth => OpenTenants::Refused,
            rule => rule.unwrap_or_default(),
        }
    }

    fn extra_hosts(&mut self) -> ExtraHosts {
        let any = |value: &Value| value.texts == ["any"];
        if self.find(Key::EXTRA_HOST).as_ref().is_some_and(any) {
            return ExtraHosts::Any;
        }
        ExtraHosts::These(self.many(Key::EXTRA_HOST, parse::host).unwrap_or_default())
    }

    /// Whether any source gives the setting.
    pub(super) fn has(&self, key: Key) -> bool {
        self.find(key).is_some()
    }

    /// Returns the value from the source of highest precedence: flag, environment, file.
    fn find(&self, key: Key) -> Option<Value> {
        let flag = self.flags.value(key);
        flag.or_else(|| self.environment.value(key)).or_else(|| self.written.value(key))
    }

    fn one<T>(&mut self, key: Key, parse: fn(&str) -> Parsed<T>) -> Option<T> {
        let value = self.find(key)?;
        if let [text] = value.texts.as_slice() {
            return self.judge(&value.origin, text, parse);
        }
        let message = format!("`{}` has {} values and takes one", value.origin.name(), value.texts.len());
        self.report.push(value.origin.locate(Diagnostic::error("setting-not-a-list", message)));
        None
    }

    fn many<T>(&mut self, key: Key, parse: fn(&str) -> Parsed<T>) -> Option<Vec<T>> {
        let value = self.find(key)?;
        let judged: Vec<T> =
            value.texts.iter().filter_map(|text| self.judge(&value.origin, text, parse)).collect();
        (!judged.is_empty()).then_some(judged)
    }

    fn judge<T>(&mut self, origin: &Origin, text: &str, parse: fn(&str) -> Parsed<T>) -> Option<T> {
        let fault = match parse(text) {
            Ok(value) => return Some(value),
            Err(fault) => fault,
        };
        let message = format!("`{}` is {text:?}: {}", origin.name(), fault.what);
        self.report.push(origin.locate(Diagnostic::error("setting-invalid", message).help(fault.help)));
        None
    }

    /// Returns a path. Relative ones in the file are based on the file's folder, others on the
    /// working directory.
    fn path(&mut self, key: Key) -> Option<PathBuf> {
        let text = self.one(key, |text| Ok(text.to_owned()))?;
        self.find(key).map(|value| based(&value.origin, &text))
    }

    fn paths(&mut self, key: Key) -> Vec<PathBuf> {
        let Some(value) = self.find(key) else { return Vec::new() };
        value.texts.iter().map(|text| based(&value.origin, text)).collect()
    }

    fn warn(&mut self, key: Key, code: &'static str, message: &str, help: &str) {
        let finding = Diagnostic::warning(code, message).help(help);
        let located = self.find(key).map(|value| value.origin.locate(finding.clone()));
        self.report.push(located.unwrap_or(finding));
    }
}

fn based(origin: &Origin, text: &str) -> PathBuf {
    match origin {
        Origin::File { base, .. } => base.join(text),
        Origin::Flag(_) | Origin::Variable(_) => text.into(),
    }
}
