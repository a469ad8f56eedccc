//! Settings in environment variables: `TENANTD_…`, with comma-separated lists.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::SettingKey;
use super::key::find_closest;
use super::source::{SettingOrigin, SettingValue};
use crate::base::diagnostic::{Diagnostic, Report};

const PREFIX: &str = "TENANTD_";
const CONFIG: &str = "TENANTD_CONFIG";
/// The master key itself. It is not a setting, and this module must not keep it.
const MASTER_KEY: &str = "TENANTD_MASTER_KEY";
/// The token of a client of the admin listener; the same holds for it.
const ADMIN_TOKEN: &str = "TENANTD_ADMIN_TOKEN";
/// What this command trusts at an admin listener, which is no setting of a gateway.
const ADMIN_CA: &str = "TENANTD_ADMIN_CA";
const DEFAULT_FILE: &str = "tenantd.yaml";

/// The variables that begin with `TENANTD_`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Reads the environment of this process.
    pub fn of_process() -> Self {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
    }

    /// Returns a setting's value. A blank variable counts as unset, as Compose files express
    /// absence.
    pub(super) fn value(&self, key: SettingKey) -> Option<SettingValue> {
        let text = self.0.get(&key.variable()).filter(|text| !text.trim().is_empty())?;
        let texts = text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty());
        Some(SettingValue { texts: texts.collect(), origin: SettingOrigin::Variable(key) })
    }

    /// Warns about variables that resemble a setting but are none.
    ///
    /// Other names are ignored: Kubernetes sets `TENANTD_SERVICE_HOST` and `TENANTD_PORT` for a
    /// service named `tenantd`.
    pub(super) fn report_misspelt(&self) -> Report {
        let mut known: Vec<String> = SettingKey::ALL.iter().map(|key| key.variable()).collect();
        known.push(CONFIG.to_owned());
        let mut report = Report::new();
        for name in self.0.keys().filter(|name| !known.contains(name)) {
            let after_prefix = known.iter().map(|known| &known[PREFIX.len()..]);
            if let Some(meant) =
                find_closest(&name[PREFIX.len()..], after_prefix).filter(|_| !is_kubernetes(name))
            {
                let message = format!("`{name}` is not a setting and is ignored");
                let help = format!("did you mean `{PREFIX}{meant}`?");
                report.push(Diagnostic::warning("unknown-variable", message).help(help));
            }
        }
        report
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self(
            variables
                .filter(|(name, _)| {
                    name.starts_with(PREFIX) && ![MASTER_KEY, ADMIN_TOKEN, ADMIN_CA].contains(&name.as_str())
                })
                .collect(),
        )
    }
}

/// Returns the configuration file to read: `--config`, else `TENANTD_CONFIG`, else `tenantd.yaml`
/// in the working directory if it exists.
pub fn config_path(flag: Option<&Path>, environment: &Environment) -> Option<PathBuf> {
    if let Some(path) = flag {
        return Some(path.to_owned());
    }
    let variable = environment.0.get(CONFIG).filter(|text| !text.trim().is_empty());
    let default = || Path::new(DEFAULT_FILE).is_file().then(|| DEFAULT_FILE.into());
    variable.map(PathBuf::from).or_else(default)
}

fn is_kubernetes(name: &str) -> bool {
    name.contains("_SERVICE_") || name == "TENANTD_PORT" || name.starts_with("TENANTD_PORT_")
}
