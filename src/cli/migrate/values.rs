//! The vendor's variables, and what a server was given for them.

use std::collections::BTreeMap;

use super::inventory::{Disposition, Inventory, Place};
use crate::base::secret::Secret;

/// A variable of the vendor's server.
pub(super) struct Variable {
    pub(super) name: &'static str,
    /// How the file beside the tenant's files ends that holds it, if it is a secret.
    pub(super) secret_file: Option<&'static str>,
    /// Whether the inventory may show its value.
    pub(super) is_shown: bool,
}

const fn plain(name: &'static str) -> Variable {
    Variable { name, secret_file: None, is_shown: false }
}

const fn shown(name: &'static str) -> Variable {
    Variable { name, secret_file: None, is_shown: true }
}

const fn secret(name: &'static str, file: &'static str) -> Variable {
    Variable { name, secret_file: Some(file), is_shown: false }
}

pub(super) const API_KEY: &str = "API_KEY";
pub(super) const PATH_PREFIX: &str = "PATH_PREFIX";
pub(super) const PUBLIC_URL: &str = "PUBLIC_URL";
pub(super) const MCP_PORT: &str = "MCP_PORT";
pub(super) const OAUTH_ENABLED: &str = "OAUTH_ENABLED";

/// The variables in the order in which they are written.
pub(super) const VARIABLES: &[Variable] = &[
    plain("SEARCH_URL"),
    plain("CONTEXT_URL"),
    secret(API_KEY, "key"),
    plain("CONNECTION_ID"),
    shown(PATH_PREFIX),
    shown(PUBLIC_URL),
    shown(OAUTH_ENABLED),
    plain("MICROSOFT_CLIENT_ID"),
    secret("MICROSOFT_CLIENT_SECRET", "secret"),
    plain("MICROSOFT_TENANT_ID"),
    shown(MCP_PORT),
];

/// The flags of `run.sh`, each with its variable; `--oauth` has no value.
const FLAGS: &[(&str, &str)] = &[
    ("--port", MCP_PORT),
    ("--oauth", OAUTH_ENABLED),
    ("--url", PUBLIC_URL),
    ("--client-id", "MICROSOFT_CLIENT_ID"),
    ("--client-secret", "MICROSOFT_CLIENT_SECRET"),
    ("--tenant-id", "MICROSOFT_TENANT_ID"),
];

/// Variables that the old runtime needed, or that only Compose reads.
const RUNTIME: &[&str] = &[
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "USER",
    "SHELL",
    "TERM",
    "HOSTNAME",
    "PWD",
    "IMAGE",
    "IMAGE_NAME",
    "IMAGE_TAG",
    "TAG",
    "VERSION",
    "ZIP_PATH",
    "VIRTUAL_ENV",
];

/// A value and where it was given. Has no `Debug`, since it may be a secret.
#[derive(Clone)]
pub(super) struct Given {
    text: Secret,
    pub(super) place: Place,
}

impl Given {
    pub(super) fn text(&self) -> &str {
        self.text.expose()
    }
}

/// What a server was given.
#[derive(Clone, Default)]
pub(super) struct Values(BTreeMap<&'static str, Given>);

impl Values {
    /// Returns a value that is not blank.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(Given::text).map(str::trim).filter(|text| !text.is_empty())
    }

    pub(super) fn given(&self, name: &str) -> Option<&Given> {
        self.0.get(name).filter(|given| !given.text().trim().is_empty())
    }

    /// Returns the values in the order in which they are written.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static Variable, &Given)> {
        VARIABLES.iter().filter_map(|variable| Some((variable, self.given(variable.name)?)))
    }

    /// Sets a variable of the vendor's; a later value replaces an earlier one. Returns whether it
    /// is one.
    pub(super) fn set(&mut self, name: &str, text: &str, place: Place) -> bool {
        let Some(variable) = find_variable(name) else { return false };
        self.0.insert(variable.name, Given { text: Secret::new(text), place });
        true
    }

    /// Sets a variable of a process, or accounts for one that is not the vendor's.
    pub(super) fn set_of_process(&mut self, name: &str, text: &str, place: Place, inventory: &mut Inventory) {
        if self.set(name, text, place.clone()) {
            return;
        }
        match is_runtime(name) {
            true => {
                inventory.add(place, name, Disposition::NotNeeded, "only the old server's runtime used it")
            }
            false => inventory.add(
                place,
                name,
                Disposition::ByHand,
                "not a variable of the vendor's guide; find out what it was for",
            ),
        }
    }

    /// Takes the fields of a configuration, which have the variables' names in lower case.
    pub(super) fn set_of_config(&mut self, name: &str, text: &str, place: Place) {
        let name = if name == "port" { MCP_PORT.to_owned() } else { name.to_ascii_uppercase() };
        self.set(&name, text, place);
    }

    /// Takes the flags of `run.sh`.
    pub(super) fn set_flags(&mut self, words: &[String], place: &Place, inventory: &mut Inventory) {
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let (flag, inline) = match word.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let Some((_, name)) = FLAGS.iter().find(|(known, _)| *known == flag) else {
                let what = if flag.starts_with('-') { flag } else { "an argument" };
                inventory.add(
                    place.clone(),
                    format!("run.sh {what}"),
                    Disposition::ByHand,
                    "not a flag of the vendor's guide; find out what it was for",
                );
                continue;
            };
            let value = match *name {
                OAUTH_ENABLED => Some(inline.unwrap_or_else(|| "true".to_owned())),
                _ => inline.or_else(|| words.next().cloned()),
            };
            match value {
                Some(value) => drop(self.set(name, &value, place.clone())),
                None => inventory.add(place.clone(), flag, Disposition::ByHand, "the flag has no value"),
            }
        }
    }
}

pub(super) fn find_variable(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}

/// Returns the variable whose value is in a file that another variable names: `API_KEY_FILE`.
pub(super) fn find_file_variable(name: &str) -> Option<&'static Variable> {
    name.strip_suffix("_FILE").and_then(find_variable)
}

fn is_runtime(name: &str) -> bool {
    RUNTIME.contains(&name)
        || ["PYTHON", "COMPOSE_", "PIP_", "UVICORN_"].iter().any(|with| name.starts_with(with))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn flags_of_run_sh_are_variables() {
        let (mut values, mut inventory) = (Values::default(), Inventory::default());
        let line =
            "--port 8001 --oauth --url=https://mcp.test/a --client-secret canary --verbose --tenant-id";
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        values.set_flags(&words, &Place::line(Path::new("x.service"), 7), &mut inventory);
        assert_eq!(values.get("MCP_PORT"), Some("8001"));
        assert_eq!(values.get("OAUTH_ENABLED"), Some("true"));
        assert_eq!(values.get("PUBLIC_URL"), Some("https://mcp.test/a"));
        assert_eq!(values.get("MICROSOFT_CLIENT_SECRET"), Some("canary"));
        let told: Vec<_> = inventory.rows().iter().map(|row| row.what.as_str()).collect();
        assert_eq!(told, ["run.sh --verbose", "--tenant-id"]);
    }
}
