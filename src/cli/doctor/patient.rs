//! What is examined: the settings, the gateway if one runs, and its tenants, as they can be found
//! from here.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;
use url::Url;

use super::super::args::{DoctorArgs, RunArgs};
use super::super::run::{self, StartRefusal};
use super::super::{admin_access, check, configuration};
use super::contact::GatewayContact;
use super::verdict::{DoctorVerdict, Examination};
use crate::admin::GatewayInfo;
use crate::base::diagnostic::{Diagnostic, Severity};
use crate::base::disk;
use crate::base::secret::Secret;
use crate::bundle::LoadContext;
use crate::settings::{Flags, Settings, TlsMode};
use crate::spec::TenantSpec;
use crate::tenants::status::TenantStatus;

const MAX_KEY_BYTES: u64 = 64 << 10;

/// Everything that the examinations look at.
pub(super) struct Patient {
    pub(super) settings: Settings,
    pub(super) context: LoadContext,
    pub(super) gateway: GatewayContact,
    /// The tenants in question: the named one, or all.
    pub(super) tenants: Vec<PatientTenant>,
    /// Whether one tenant was named, or there is only one.
    pub(super) is_one_tenant: bool,
    /// The base of the public URLs, without a path.
    pub(super) public: Url,
    /// What was found while the tenants were looked for.
    pub(super) verdicts: Vec<DoctorVerdict>,
    pub(super) key: Option<Secret>,
    /// The path of the only tenant's export, for `tenantd run`.
    pub(super) export: Option<PathBuf>,
}

/// A tenant, as its files and the gateway describe it.
pub(super) struct PatientTenant {
    pub(super) name: String,
    /// From its files; `None` if they cannot be read from here or are refused.
    pub(super) spec: Option<TenantSpec>,
    pub(super) connector: Option<Url>,
    /// What the gateway says of it.
    pub(super) status: Option<TenantStatus>,
    /// What is wrong with its files, if no gateway was asked.
    pub(super) findings: Vec<FoundInFiles>,
}

/// A finding about a tenant's files.
pub(super) struct FoundInFiles {
    pub(super) code: Cow<'static, str>,
    pub(super) is_error: bool,
    pub(super) is_notice: bool,
    pub(super) place: String,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Patient {
    /// Finds everything that can be found.
    ///
    /// # Errors
    /// The settings cannot be read, or an argument cannot be used.
    pub(super) fn find(args: &DoctorArgs) -> anyhow::Result<Self> {
        let key = args.key_file.as_deref().map(read_key).transpose()?;
        let url = args.url.as_deref().map(parse_base).transpose()?;
        let mut patient = match find_export(args) {
            Some(path) => Self::from_export(args, Some(&path))?,
            None => Self::from_gateway(args)?,
        };
        patient.key = key;
        if let Some(url) = url {
            patient.tenants.iter_mut().for_each(|tenant| tenant.move_to(&url));
            patient.public = url;
        }
        Ok(patient)
    }

    /// The gateway of `serve` and its tenants; or that of `run`, if that is what runs.
    fn from_gateway(args: &DoctorArgs) -> anyhow::Result<Self> {
        let flags = args.settings.validation.flags(args.settings.gateway.flags(Flags::new()));
        let loaded =
            configuration::load_for_check(flags, args.settings.validation.config.as_deref(), &args.access)?;
        let mut settings = loaded.settings;
        let gateway = GatewayContact::find(admin_access::connect(&settings, &args.access)?);
        if let Some(info) = gateway.info() {
            if info.is_single_tenant {
                return Self::from_export(args, info.tenants.as_deref());
            }
            adopt(&mut settings, info, args);
        }
        let context = configuration::load_context(&settings);
        let mut verdicts = Vec::new();
        let tenants = find_tenants(&settings, &context, &gateway, args.tenant.as_deref(), &mut verdicts);
        let base = gateway.info().map(|info| info.public_base.clone());
        let base = base.unwrap_or_else(|| settings.public_base(settings.listen[0].address));
        Ok(Self::new(settings, context, gateway, tenants, verdicts, &base, args.tenant.is_some()))
    }

    /// The export of `run`, whether it runs or not.
    fn from_export(args: &DoctorArgs, path: Option<&Path>) -> anyhow::Result<Self> {
        let flags = &args.settings;
        let run_args = RunArgs {
            path: path.map(Path::to_owned),
            state: flags.gateway.state.clone(),
            admin: flags.gateway.admin.clone(),
            entra_authority: flags.gateway.entra_authority.clone(),
            backend_allow: flags.validation.backend_allow.clone(),
            config: flags.validation.config.clone(),
            ..RunArgs::default()
        };
        let loaded = match run::load_export(&run_args) {
            Ok(loaded) => loaded,
            Err(refusal) => return Self::from_refused_export(args, path, &refusal),
        };
        let mut settings = loaded.settings;
        let gateway =
            GatewayContact::find(admin_access::connect(&settings, &args.access)?).only_with(&loaded.path);
        if let Some(info) = gateway.info() {
            adopt(&mut settings, info, args);
        }
        let outcome = loaded.outcome;
        let findings = outcome.report.iter().map(FoundInFiles::from).collect();
        let name = outcome.name.as_ref().map(ToString::to_string);
        let mut tenant =
            PatientTenant::new(name.unwrap_or_else(|| "the export".into()), outcome.spec, findings);
        tenant.status = gateway.statuses().into_iter().next();
        let base = tenant.connector.as_ref().map(Url::to_string);
        let base = base.unwrap_or_else(|| settings.public_base(settings.listen[0].address));
        let context = loaded.context;
        let mut patient = Self::new(settings, context, gateway, vec![tenant], Vec::new(), &base, true);
        patient.export = Some(loaded.path);
        Ok(patient)
    }

    /// What can be said where there is no export, or one that `run` would not start with.
    fn from_refused_export(
        args: &DoctorArgs,
        path: Option<&Path>,
        refusal: &StartRefusal,
    ) -> anyhow::Result<Self> {
        let flags = Flags::new().with(crate::settings::SettingKey::ADMIN, &args.settings.gateway.admin);
        let settings = configuration::load_quietly(&flags, args.settings.validation.config.as_deref())?;
        let place = path.map_or("the export".to_owned(), |path| path.display().to_string());
        let verdict = |reason: &String| {
            DoctorVerdict::fault(Examination::Tenant, "export-refused", place.clone(), reason.clone())
                .meaning("`tenantd run` ends with this message and does not start")
                .advice(refusal.advice())
        };
        let verdicts = refusal.reasons().iter().map(verdict).collect();
        let context = configuration::load_context(&settings);
        let base = settings.public_base(settings.listen[0].address);
        let gateway =
            GatewayContact::Silent { why: "there is nothing that it could serve".into(), was_asked: false };
        Ok(Self::new(settings, context, gateway, Vec::new(), verdicts, &base, true))
    }

    fn new(
        settings: Settings,
        context: LoadContext,
        gateway: GatewayContact,
        tenants: Vec<PatientTenant>,
        verdicts: Vec<DoctorVerdict>,
        base: &str,
        is_named: bool,
    ) -> Self {
        let own = tenants.first().filter(|_| tenants.len() == 1).and_then(|tenant| tenant.connector.clone());
        let mut public = own.or_else(|| Url::parse(base).ok()).unwrap_or_else(localhost);
        public.set_path("/");
        let is_one_tenant = is_named || tenants.len() == 1;
        Self { settings, context, gateway, tenants, is_one_tenant, public, verdicts, key: None, export: None }
    }

    /// Returns the only tenant in question.
    pub(super) fn tenant(&self) -> Option<&PatientTenant> {
        self.tenants.first().filter(|_| self.is_one_tenant && self.tenants.len() == 1)
    }

    /// Returns the host of the public URL, without brackets.
    pub(super) fn host(&self) -> &str {
        self.public.host_str().unwrap_or_default().trim_matches(['[', ']'])
    }

    /// Returns the port of the public URL.
    pub(super) fn port(&self) -> u16 {
        self.public.port_or_known_default().unwrap_or(443)
    }

    /// Whether the public URL is https.
    pub(super) fn is_https(&self) -> bool {
        self.public.scheme() == "https"
    }

    /// Returns the addresses at which the gateway itself listens, as this machine reaches them.
    pub(super) fn direct_addresses(&self) -> Vec<SocketAddr> {
        let configured = || self.settings.listen.iter().map(|listen| listen.address).collect();
        let listen = match &self.gateway {
            GatewayContact::Running { info, .. } if !info.listen.is_empty() => info.listen.clone(),
            _ => configured(),
        };
        let reachable = |address: SocketAddr| match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
            IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::from((Ipv6Addr::LOCALHOST, address.port())),
            _ => address,
        };
        listen.into_iter().map(reachable).filter(|address| address.port() != 0).collect()
    }

    /// Whether the gateway itself speaks TLS.
    pub(super) fn is_direct_tls(&self) -> bool {
        self.gateway.info().map_or(self.settings.tls, |info| info.tls) != TlsMode::Off
    }
}

fn localhost() -> Url {
    Url::parse("https://localhost").expect("it is a URL")
}

/// Takes over what a running gateway knows better than the settings of this command.
pub(in crate::cli) fn adopt(settings: &mut Settings, info: &GatewayInfo, args: &DoctorArgs) {
    let given = &args.settings;
    if let Some(tenants) = info.tenants.clone().filter(|_| given.validation.tenants.is_none()) {
        settings.tenants = tenants;
    }
    if let Some(state) = info.state.clone().filter(|_| given.gateway.state.is_none()) {
        settings.state = state;
    }
    if let Some(certs) = info.certs.clone().filter(|_| given.gateway.certs.is_none()) {
        settings.certs = certs;
    }
    let authority = info.login_authority.as_deref().and_then(|authority| Url::parse(authority).ok());
    if let Some(authority) = authority.filter(|_| given.gateway.entra_authority.is_none()) {
        settings.entra_authority = authority;
    }
    settings.tls = info.tls;
}

/// Returns the path of an export, if that is what was named.
fn find_export(args: &DoctorArgs) -> Option<PathBuf> {
    let named = args.tenant.as_deref()?;
    let path = Path::new(named);
    (named.contains('/') || path.exists()).then(|| path.to_owned())
}

fn find_tenants(
    settings: &Settings,
    context: &LoadContext,
    gateway: &GatewayContact,
    named: Option<&str>,
    verdicts: &mut Vec<DoctorVerdict>,
) -> Vec<PatientTenant> {
    let is_meant = |name: &str, stem: &str| named.is_none_or(|named| named == name || named == stem);
    let mut tenants = Vec::new();
    match check::validate_paths(std::slice::from_ref(&settings.tenants), context) {
        Ok(report) => {
            for checked in report.tenants {
                let name = checked.name.as_ref().map_or(checked.stem.clone(), ToString::to_string);
                if !is_meant(&name, &checked.stem) {
                    continue;
                }
                let findings = checked.findings.iter().map(FoundInFiles::from).collect();
                tenants.push(PatientTenant::new(name, checked.spec, findings));
            }
        }
        Err((path, error)) => verdicts.push(
            DoctorVerdict::not_checked(
                Examination::Tenant,
                "files-unreadable",
                path.display().to_string(),
                format!("the tenants' files cannot be read from here: {}", disk::why(&error)),
            )
            .advice("run the doctor as the gateway's user or as root; give the folder with --tenants"),
        ),
    }
    for status in gateway.statuses() {
        if !is_meant(&status.name, &status.stem) {
            continue;
        }
        match tenants.iter_mut().find(|tenant| tenant.name == status.name || tenant.name == status.stem) {
            Some(tenant) => tenant.take_status(status),
            None => {
                let mut tenant = PatientTenant::new(status.name.clone(), None, Vec::new());
                tenant.take_status(status);
                tenants.push(tenant);
            }
        }
    }
    if let Some(named) = named.filter(|_| tenants.is_empty()) {
        verdicts.push(
            DoctorVerdict::fault(
                Examination::Tenant,
                "tenant-unknown",
                named,
                "there is no tenant with this name",
            )
            .meaning("every request for it is answered 404")
            .advice(format!(
                "`tenantd tenants list` shows all names; the tenants folder is {}",
                settings.tenants.display()
            )),
        );
    }
    tenants
}

impl PatientTenant {
    fn new(name: String, spec: Option<TenantSpec>, findings: Vec<FoundInFiles>) -> Self {
        let connector = spec.as_ref().and_then(|spec| Url::parse(&spec.public_url.connector_url()).ok());
        Self { name, spec, connector, status: None, findings }
    }

    /// Takes what the gateway says: it knows its own ports, and what it made of the files.
    fn take_status(&mut self, status: TenantStatus) {
        let connector = status.connector_url.as_deref().and_then(|url| Url::parse(url).ok());
        self.connector = connector.or(self.connector.take());
        let list = status.findings.as_array().cloned().unwrap_or_default();
        self.findings = list.iter().map(FoundInFiles::from_json).collect();
        self.status = Some(status);
    }

    /// Whether its files have errors.
    pub(super) fn is_refused(&self) -> bool {
        self.findings.iter().any(|finding| finding.is_error)
    }

    /// Asks for the tenant at another base.
    fn move_to(&mut self, base: &Url) {
        if let Some(connector) = &mut self.connector {
            let mut moved = base.clone();
            moved.set_path(connector.path());
            *connector = moved;
        }
    }

    /// Returns the prefix of its paths: the connector URL's path without `/mcp`.
    pub(super) fn prefix(&self) -> &str {
        let path = self.connector.as_ref().map_or("", Url::path);
        path.strip_suffix("/mcp").unwrap_or(path)
    }
}

impl From<&Diagnostic> for FoundInFiles {
    fn from(finding: &Diagnostic) -> Self {
        Self {
            code: finding.code.into(),
            is_error: finding.severity == Severity::Error,
            is_notice: finding.severity == Severity::Notice,
            place: finding.location.as_ref().map(ToString::to_string).unwrap_or_default(),
            message: finding.message.clone(),
            help: finding.help.clone(),
        }
    }
}

impl FoundInFiles {
    /// Reads a finding as the gateway sends it.
    fn from_json(finding: &Value) -> Self {
        let text = |name: &str| finding.get(name).and_then(Value::as_str).map(str::to_owned);
        let place = finding.get("location").map(|location| {
            let file = location.get("file").and_then(Value::as_str).unwrap_or_default();
            match location.get("line").and_then(Value::as_u64) {
                Some(line) => format!("{file}:{line}"),
                None => file.to_owned(),
            }
        });
        Self {
            code: text("code").unwrap_or_default().into(),
            is_error: text("severity").as_deref() == Some("error"),
            is_notice: text("severity").as_deref() == Some("notice"),
            place: place.unwrap_or_default(),
            message: text("message").unwrap_or_default(),
            help: text("help"),
        }
    }
}

fn parse_base(text: &str) -> anyhow::Result<Url> {
    let wrong = || format!("{text} is not the base of public URLs; write it like https://mcp.example.com");
    let mut url = Url::parse(text).with_context(wrong)?;
    anyhow::ensure!(matches!(url.scheme(), "http" | "https") && url.has_host(), wrong());
    url.set_path("/");
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

fn read_key(path: &Path) -> anyhow::Result<Secret> {
    let text = disk::read_text(path, MAX_KEY_BYTES);
    let text = text.with_context(|| format!("{} cannot be used for a key", path.display()))?;
    Ok(Secret::new(text.trim()))
}
