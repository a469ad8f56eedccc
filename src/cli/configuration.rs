//! Loads the settings for commands and reports their findings to the operator.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::args::AdminAccessArgs;
use super::{admin_access, output, render};
use crate::admin::GatewayInfo;
use crate::base::secret::Secret;
use crate::bundle::LoadContext;
use crate::gateway;
use crate::settings::{Environment, Flags, LoadedSettings, SettingKey, Settings, TlsMode, config_path};
use crate::store::KeySource;

/// The prefix of variables that tenants' files may refer to.
const TENANT_VARIABLES: &str = "TENANT_";
/// The variable of the master key, which is a secret and therefore not a setting.
const MASTER_KEY: &str = "TENANTD_MASTER_KEY";

/// Loads the settings of a gateway and prints warnings to standard error.
///
/// # Errors
/// All findings as one text.
pub(super) fn load(flags: &Flags, config: Option<&Path>) -> anyhow::Result<Settings> {
    let loaded = load_with_warnings(flags, config)?;
    if !loaded.warnings.is_empty() {
        output::print_error_lines(&render::human(&loaded.warnings));
    }
    Ok(loaded.settings)
}

/// The configuration file of packages and of our systemd unit.
const INSTALLED_CONFIG: &str = "/etc/tenantd/tenantd.yaml";

/// The settings for validating tenants offline.
pub(super) struct CheckSettings {
    pub(super) settings: Settings,
    /// Whether no source configures the gateway's host.
    pub(super) is_host_unknown: bool,
}

/// Loads the settings for validating tenants and prints warnings to standard error.
///
/// If neither flags, variables nor a given file configure the gateway's host, the settings of the
/// running gateway are used, else those of the installed configuration.
///
/// # Errors
/// All findings as one text.
pub(super) fn load_for_check(
    flags: Flags,
    config: Option<&Path>,
    access: &AdminAccessArgs,
) -> anyhow::Result<CheckSettings> {
    load_for_check_with(flags, config, access, &Environment::of_process(), Path::new(INSTALLED_CONFIG))
}

/// Like `load_for_check`, with the installed configuration at `installed`.
fn load_for_check_with(
    flags: Flags,
    config: Option<&Path>,
    access: &AdminAccessArgs,
    environment: &Environment,
    installed: &Path,
) -> anyhow::Result<CheckSettings> {
    let has_explicit_file = config_path(config, environment).is_some();
    let file = config_file(config, environment, installed);
    let mut loaded = load_from(&flags, environment, file.as_deref())?;
    if !loaded.warnings.is_empty() {
        output::print_error_lines(&render::human(&loaded.warnings));
    }
    let is_host_explicit = loaded.is_host_given && (has_explicit_file || file.is_none());
    let running = match is_host_explicit {
        true => None,
        false => ask_gateway(&loaded.settings, access)?,
    };
    if let Some((address, info)) = running {
        output::print_error(format!(
            "checked with the settings of the gateway on {address}, whose URLs begin with {}",
            info.public_base
        ));
        loaded = load_from(&with_gateway_info(flags, &info), environment, file.as_deref())?;
        if let Some(rules) = &info.tenant_rules {
            rules.apply_to(&mut loaded.settings);
        }
    } else if !has_explicit_file && let Some(file) = &file {
        output::print_error(format!("checked with the settings in {}", file.display()));
    }
    Ok(CheckSettings { is_host_unknown: !loaded.is_host_given, settings: loaded.settings })
}

/// Returns the self-description of the gateway running on this machine, if there is one.
///
/// # Errors
/// The token or the certificate of the authority cannot be read.
fn ask_gateway(
    settings: &Settings,
    access: &AdminAccessArgs,
) -> anyhow::Result<Option<(SocketAddr, GatewayInfo)>> {
    let client = admin_access::connect(settings, access)?;
    let info = client.and_then(|client| client.gateway_info().ok());
    Ok(settings.admin.zip(info))
}

/// Sets the running gateway's hosts and backend rules as if they were given as flags.
fn with_gateway_info(flags: Flags, info: &GatewayInfo) -> Flags {
    let flags = flags
        .with(SettingKey::HOST, &info.hosts)
        .with(SettingKey::PUBLIC_BASE, [&info.public_base])
        .with(SettingKey::BACKEND_ALLOW, &info.backend_allow)
        .with(SettingKey::BACKEND_ONLY, &info.backend_only);
    // The other modes differ in nothing that tenants are judged by.
    if info.tls == TlsMode::Off { flags.with(SettingKey::TLS, ["off"]) } else { flags }
}

/// Loads the settings of a gateway that runs in another process and has printed its own warnings.
///
/// # Errors
/// All findings as one text.
pub(super) fn load_quietly(flags: &Flags, config: Option<&Path>) -> anyhow::Result<Settings> {
    Ok(load_with_warnings(flags, config)?.settings)
}

/// Loads the settings of a gateway to run, with their warnings.
///
/// # Errors
/// All findings as one text.
pub(super) fn load_with_warnings(flags: &Flags, config: Option<&Path>) -> anyhow::Result<LoadedSettings> {
    let environment = Environment::of_process();
    load_from(flags, &environment, config_file(config, &environment, Path::new(INSTALLED_CONFIG)).as_deref())
}

/// Returns the configuration file to read: the one that is given or at hand, else the installed
/// one, if there is any.
fn config_file(config: Option<&Path>, environment: &Environment, installed: &Path) -> Option<PathBuf> {
    let installed = || installed.is_file().then(|| installed.to_owned());
    config_path(config, environment).or_else(installed)
}

fn load_from(
    flags: &Flags,
    environment: &Environment,
    file: Option<&Path>,
) -> anyhow::Result<LoadedSettings> {
    let loaded = Settings::load(flags, environment, file);
    loaded.map_err(|error| anyhow::anyhow!("{error}\n\n{}", render::human(&error.report).trim_end()))
}

/// Returns the context for validating tenants offline. No listener is bound, so ports are as
/// configured.
pub(super) fn load_context(settings: &Settings) -> LoadContext {
    let public_base = settings.public_base(settings.listen[0].address);
    let own_addresses = settings.listen.iter().map(|listen| listen.address).chain(settings.admin);
    gateway::load_context(settings, public_base, own_addresses, tenant_variables())
}

/// Returns the source of the master key: its variable, the configured file, or the state folder.
///
/// # Errors
/// Both the variable and the file are given.
pub(super) fn key_source(settings: &Settings) -> anyhow::Result<KeySource> {
    let variable = std::env::var(MASTER_KEY).ok().filter(|text| !text.trim().is_empty()).map(Secret::new);
    match (variable, &settings.master_key_file) {
        (Some(_), Some(file)) => anyhow::bail!(
            "the master key is set twice, in {MASTER_KEY} and in the file {}; keep one of the two",
            file.display()
        ),
        (Some(key), None) => Ok(KeySource::Variable(key)),
        (None, Some(file)) => Ok(KeySource::File(file.clone())),
        (None, None) => Ok(KeySource::State),
    }
}

/// Returns the variables of this process that tenants' files may refer to.
pub(super) fn tenant_variables() -> BTreeMap<String, Secret> {
    let readable = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let tenant_variables = readable.filter(|(name, _)| name.starts_with(TENANT_VARIABLES));
    tenant_variables.map(|(name, value)| (name, Secret::new(value))).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Returns the hosts with which tenants are judged if a package installed the settings
    /// `installed`; `None` if the hosts are unknown.
    fn hosts(installed: Option<&str>, flags: Flags, variables: &[(&str, &str)]) -> Option<Vec<String>> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tenantd.yaml");
        if let Some(text) = installed {
            fs::write(&file, text).expect("written");
        }
        let variables = [("TENANTD_ADMIN", "off")].iter().chain(variables);
        let environment = variables.map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let loaded = load_for_check_with(flags, None, &AdminAccessArgs::default(), &environment, &file)
            .expect("settings");
        let names = loaded.settings.hosts.iter().map(ToString::to_string).collect();
        (!loaded.is_host_unknown).then_some(names)
    }

    #[test]
    fn tenants_are_checked_with_the_installed_file_unless_a_flag_or_variable_names_a_host() {
        let installed = Some("host: installed.example.com\n");
        let named = |name: &str| Some(vec![name.to_owned()]);
        assert_eq!(hosts(None, Flags::default(), &[]), None);
        assert_eq!(hosts(installed, Flags::default(), &[]), named("installed.example.com"));
        let flags = Flags::default().with(SettingKey::HOST, ["flag.example.com"]);
        assert_eq!(hosts(installed, flags, &[]), named("flag.example.com"));
        let variable = [("TENANTD_HOST", "variable.example.com")];
        assert_eq!(hosts(installed, Flags::default(), &variable), named("variable.example.com"));
    }

    #[test]
    fn the_installed_file_counts_where_none_is_at_hand() {
        let folder = tempfile::tempdir().expect("a folder");
        let installed = folder.path().join("tenantd.yaml");
        let file = |config: Option<&Path>, variables: &[(&str, &str)]| {
            config_file(config, &variables.iter().copied().collect(), &installed)
        };
        assert_eq!(file(None, &[]), None, "nothing is installed");
        fs::write(&installed, "").expect("written");
        assert_eq!(file(None, &[]), Some(installed.clone()));
        assert_eq!(file(Some(Path::new("mine.yaml")), &[]), Some("mine.yaml".into()));
        assert_eq!(file(None, &[("TENANTD_CONFIG", "mine.yaml")]), Some("mine.yaml".into()));
    }

    #[test]
    fn a_broken_installed_file_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tenantd.yaml");
        fs::write(&file, "hots: installed.example.com\n").expect("written");
        let judged = load_for_check_with(
            Flags::default(),
            None,
            &AdminAccessArgs::default(),
            &Environment::default(),
            &file,
        );
        let told = judged.err().expect("a fault").to_string();
        assert!(told.contains("hots") && told.contains("tenantd.yaml"), "{told}");
    }
}
