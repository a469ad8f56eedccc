//! From flags, variables and file to settings, with whatever is wrong said to the operator.

use std::collections::BTreeMap;
use std::path::Path;

use super::{output, render};
use crate::base::secret::Secret;
use crate::bundle;
use crate::settings::{Environment, Flags, Loaded, OpenTenants, Settings, ZipHosts, config_path};
use crate::store::KeySource;

/// Variables that a tenant's files may name.
const TENANT_VARIABLES: &str = "TENANT_";
/// A secret, so no setting.
const MASTER_KEY: &str = "TENANTD_MASTER_KEY";

/// Loads the settings by which tenants are judged; warnings go to standard error.
///
/// # Errors
/// All findings as one text.
pub(super) fn load(flags: &Flags, config: Option<&Path>) -> anyhow::Result<Settings> {
    let loaded = read(flags, config)?;
    if !loaded.warnings.is_empty() {
        output::complain_in_lines(&render::human(&loaded.warnings));
    }
    Ok(loaded.settings)
}

/// Loads the settings of a gateway that runs elsewhere, and has said its warnings there.
///
/// # Errors
/// All findings as one text.
pub(super) fn load_quietly(flags: &Flags, config: Option<&Path>) -> anyhow::Result<Settings> {
    Ok(read(flags, config)?.settings)
}

/// Loads the settings of a gateway to be run, and what there is to warn of.
///
/// # Errors
/// All findings as one text.
pub(super) fn read(flags: &Flags, config: Option<&Path>) -> anyhow::Result<Loaded> {
    let environment = Environment::of_process();
    let file = config_path(config, &environment);
    let loaded = Settings::load(flags, &environment, file.as_deref());
    loaded.map_err(|error| anyhow::anyhow!("{error}\n\n{}", render::human(&error.report).trim_end()))
}

/// What offline checks of tenants need to know. No listener is bound, so the ports are those configured.
pub(super) fn bundle_context(settings: &Settings) -> bundle::Context {
    bundle::Context {
        public_base: settings.public_base(settings.listen[0]),
        hosts: settings.gateway_hosts(),
        zip_hosts_allowed: settings.zip_hosts == ZipHosts::Allow,
        backend_allow: settings.backend_allow.clone(),
        own_addresses: settings.listen.iter().copied().chain(settings.admin).collect(),
        require_auth: settings.open_tenants == OpenTenants::Refused,
        secret_roots: settings.secret_roots.clone(),
        confine_tenants: settings.confine_tenants,
        largest_request: settings.limits.largest_request(),
        env: tenant_variables(),
    }
}

/// Where the master key comes from: the variable that holds it, the file that is named, or the state folder.
pub(super) fn key_source(settings: &Settings) -> anyhow::Result<KeySource> {
    let variable = std::env::var(MASTER_KEY).ok().filter(|text| !text.trim().is_empty()).map(Secret::new);
    match (variable, &settings.master_key_file) {
        (Some(_), Some(file)) => anyhow::bail!(
            "the master key is given twice, in {MASTER_KEY} and as the file {}; keep one of the two",
            file.display()
        ),
        (Some(key), None) => Ok(KeySource::Variable(key)),
        (None, Some(file)) => Ok(KeySource::File(file.clone())),
        (None, None) => Ok(KeySource::State),
    }
}

pub(super) fn tenant_variables() -> BTreeMap<String, Secret> {
    let readable = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let ours = readable.filter(|(name, _)| name.starts_with(TENANT_VARIABLES));
    ours.map(|(name, value)| (name, Secret::new(value))).collect()
}
