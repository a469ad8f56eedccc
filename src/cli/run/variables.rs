//! The vendor's flags and variables, and what they come to.
//!
//! A flag wins over a variable. Each variable may also name a file that contains its value, with
//! `_FILE` at its end. A blank variable counts as unset, as Compose files express absence.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::refusal::StartRefusal;
use crate::base::disk;
use crate::base::secret::Secret;
use crate::bundle::GivenValues;
use crate::cli::args::RunArgs;

const DEFAULT_PORT: u16 = 8000;
const PORT: &str = "MCP_PORT";
const PUBLIC: &str = "PUBLIC";
/// The end of a variable that names a file.
const FILE_SUFFIX: &str = "_FILE";
/// The beginning of variables that are the vendor's, known or not.
const MICROSOFT_PREFIX: &str = "MICROSOFT_";
const MAX_FILE_BYTES: u64 = 64 << 10;

/// The variables of the vendor's container, each with the field of the tenant that it sets.
const FIELDS: [(&str, &str); 10] = [
    ("SEARCH_URL", "search_url"),
    ("CONTEXT_URL", "context_url"),
    ("API_KEY", "api_key"),
    ("PATH_PREFIX", "path_prefix"),
    ("PUBLIC_URL", "public_url"),
    ("OAUTH_ENABLED", "oauth_enabled"),
    ("MICROSOFT_CLIENT_ID", "microsoft_client_id"),
    ("MICROSOFT_CLIENT_SECRET", "microsoft_client_secret"),
    ("MICROSOFT_TENANT_ID", "microsoft_tenant_id"),
    (PUBLIC, "public"),
];

/// The variables of a process that are the vendor's, or look like it.
pub(in crate::cli) struct Variables(BTreeMap<String, Secret>);

/// What flags and variables come to.
pub(super) struct Options {
    pub(super) port: u16,
    pub(super) given: Arc<GivenValues>,
    /// The names of the variables that count.
    pub(super) used: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// A value as a flag or variable gives it.
enum OptionSource {
    Text(String, Secret),
    File(String, PathBuf),
}

impl Variables {
    /// Reads the environment of this process.
    pub(in crate::cli) fn of_process() -> Self {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
    }

    /// Whether some variable says that there is one tenant.
    pub(in crate::cli) fn has_tenant(&self) -> bool {
        self.0.keys().any(|name| is_known(name) && base(name) != PUBLIC)
    }

    /// Warns of variables that `serve` does not read although they look like the vendor's.
    pub(in crate::cli) fn unread_by_serve(&self) -> Option<String> {
        let names: Vec<&str> =
            self.0.keys().filter(|name| base(name) != PUBLIC).map(String::as_str).collect();
        (!names.is_empty()).then(|| {
            format!(
                "nothing reads the variables {}: serve takes its tenants from files. For one tenant with these \
                 variables use tenantd run; for several, write them into the tenant's .env",
                names.join(", ")
            )
        })
    }

    /// Warns of variables that nothing knows although they look like the vendor's.
    fn unknown(&self) -> Option<String> {
        let names: Vec<&str> = self.0.keys().filter(|name| !is_known(name)).map(String::as_str).collect();
        let known: Vec<&str> =
            FIELDS.iter().map(|(name, _)| *name).filter(|name| name.starts_with(MICROSOFT_PREFIX)).collect();
        (!names.is_empty()).then(|| {
            format!(
                "nothing reads the variables {}; the known ones are {}",
                names.join(", "),
                known.join(", ")
            )
        })
    }

    /// Returns the value of a variable, or its file.
    fn source(&self, name: &str) -> Result<Option<OptionSource>, StartRefusal> {
        let file = format!("{name}{FILE_SUFFIX}");
        match (self.0.get(name), self.0.get(&file)) {
            (Some(_), Some(_)) => {
                let both = StartRefusal::new(format!("{name} and {file} are both set"));
                Err(both.help(format_args!("keep one of the two; {file} is the path of a file")))
            }
            (Some(value), None) => Ok(Some(OptionSource::Text(format!("variable {name}"), value.clone()))),
            (None, Some(path)) => {
                Ok(Some(OptionSource::File(format!("variable {file}"), path.expose().into())))
            }
            (None, None) => Ok(None),
        }
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Variables {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        let is_ours = |(name, value): &(String, String)| {
            (is_known(name) || name.starts_with(MICROSOFT_PREFIX))
                && !value.trim().is_empty()
                && !(name == PORT && is_service_link(value))
        };
        Self(variables.filter(is_ours).map(|(name, value)| (name, Secret::new(value))).collect())
    }
}

/// Whether it is what Kubernetes sets for a service named `mcp`.
fn is_service_link(port: &str) -> bool {
    port.starts_with("tcp://")
}

/// Returns the name without its end that says that the value is in a file.
fn base(name: &str) -> &str {
    name.strip_suffix(FILE_SUFFIX).unwrap_or(name)
}

fn is_known(name: &str) -> bool {
    base(name) == PORT || FIELDS.iter().any(|(known, _)| *known == base(name))
}

impl Options {
    /// Reads flags and variables.
    pub(super) fn read(args: &RunArgs, variables: &Variables) -> Result<Self, StartRefusal> {
        let mut given = GivenValues::default();
        let mut used = Vec::new();
        for (variable, field) in FIELDS {
            let of_flag = flag(args, field);
            if of_flag.is_none()
                && let Some(source) = variables.source(variable)?
            {
                used.push(source.place().trim_start_matches("variable ").to_owned());
                given = source.give_to(given, field);
            } else if let Some(source) = of_flag {
                given = source.give_to(given, field);
            }
        }
        let (port, is_port_variable) = port(args, variables)?;
        used.extend(is_port_variable.then(|| PORT.to_owned()));
        let secret_in_ps = args.client_secret.is_some().then(|| {
            "--client-secret can be read by every user of this machine (ps); give the secret in a file with \
             --client-secret-file, or as MICROSOFT_CLIENT_SECRET"
                .to_owned()
        });
        let warnings = secret_in_ps.into_iter().chain(variables.unknown()).collect();
        Ok(Self { port, given: Arc::new(given), used, warnings })
    }
}

impl OptionSource {
    fn place(&self) -> &str {
        match self {
            Self::Text(place, _) | Self::File(place, _) => place,
        }
    }

    fn give_to(self, given: GivenValues, field: &'static str) -> GivenValues {
        match self {
            Self::Text(place, value) => given.with(field, place, value),
            Self::File(place, file) => given.with_file(field, place, file),
        }
    }

    /// Returns the text, which may be in a file.
    fn read(&self) -> Result<String, StartRefusal> {
        match self {
            Self::Text(_, value) => Ok(value.expose().trim().to_owned()),
            Self::File(place, file) => read_file(place, file),
        }
    }
}

fn read_file(place: &str, file: &Path) -> Result<String, StartRefusal> {
    let unreadable = |why: &dyn std::fmt::Display| {
        StartRefusal::new(format!("the file of {place}, {}, cannot be used: {why}", file.display()))
            .help("mount the file, or correct its path")
    };
    let bytes = disk::read(file, MAX_FILE_BYTES).map_err(|error| unreadable(&error))?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable(&"it is not text"))?;
    Ok(text.trim().to_owned())
}

/// Returns what a flag gives for a field.
fn flag(args: &RunArgs, field: &str) -> Option<OptionSource> {
    let text = |flag: &str, value: &Option<String>| {
        let value = value.as_ref().filter(|value| !value.trim().is_empty())?;
        Some(OptionSource::Text(flag.to_owned(), Secret::new(value.as_str())))
    };
    let switch =
        |flag: &str, is_on: bool| is_on.then(|| OptionSource::Text(flag.to_owned(), Secret::new("true")));
    match field {
        "public_url" => text("--url", &args.url),
        "oauth_enabled" => switch("--oauth", args.oauth),
        "microsoft_client_id" => text("--client-id", &args.client_id),
        "microsoft_client_secret" => {
            let file = args.client_secret_file.clone();
            let file = file.map(|file| OptionSource::File("--client-secret-file".to_owned(), file));
            file.or_else(|| text("--client-secret", &args.client_secret))
        }
        "microsoft_tenant_id" => text("--tenant-id", &args.tenant_id),
        "public" => switch("--public", args.public),
        _ => None,
    }
}

/// Returns the port, and whether a variable gave it.
fn port(args: &RunArgs, variables: &Variables) -> Result<(u16, bool), StartRefusal> {
    let of_flag =
        args.port.as_ref().map(|port| OptionSource::Text("--port".to_owned(), Secret::new(port.as_str())));
    let is_variable = of_flag.is_none();
    let Some(source) = of_flag.map_or_else(|| variables.source(PORT), |flag| Ok(Some(flag)))? else {
        return Ok((DEFAULT_PORT, false));
    };
    let text = source.read()?;
    let port = text.parse().map_err(|_| {
        let what = format!("{} is {text:?}, which is not a port", source.place());
        StartRefusal::new(what).help("give a number from 1 to 65535, such as 8000")
    });
    Ok((port?, is_variable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_say_nothing_choose_nothing() {
        let has_tenant =
            |variables: &[(&str, &str)]| variables.iter().copied().collect::<Variables>().has_tenant();
        assert!(has_tenant(&[("API_KEY", "x")]) && has_tenant(&[("API_KEY_FILE", "/run/key")]));
        assert!(has_tenant(&[("MCP_PORT", "8000")]));
        for nothing in [
            ("API_KEY", ""),
            ("SEARCH_URL", "  "),
            ("PUBLIC", "true"),
            ("MICROSOFT_CLIENT", "x"),
            ("MCP_PORT", "tcp://10.0.0.1:8000"),
            ("PATH", "/bin"),
        ] {
            assert!(!has_tenant(&[nothing]), "{nothing:?}");
        }
    }

    #[test]
    fn flags_win_and_unknown_names_are_told() {
        let variables: Variables = [
            ("MCP_PORT", "8001"),
            ("PUBLIC_URL", "https://a.example.com"),
            ("MICROSOFT_TENENT_ID", "x"),
            ("API_KEY", "key-1"),
        ]
        .into_iter()
        .collect();
        let args = RunArgs { url: Some("https://b.example.com".into()), ..RunArgs::default() };
        let options = Options::read(&args, &variables).expect("fine");
        assert_eq!((options.port, options.used), (8001, vec!["API_KEY".to_owned(), "MCP_PORT".to_owned()]));
        assert!(options.warnings[0].contains("MICROSOFT_TENENT_ID"), "{:?}", options.warnings);
        let args = RunArgs { port: Some("9000".into()), ..RunArgs::default() };
        assert_eq!(Options::read(&args, &variables).expect("fine").port, 9000);
    }

    #[test]
    fn a_value_is_given_in_one_way() {
        let both: Variables = [("API_KEY", "x"), ("API_KEY_FILE", "/run/key")].into_iter().collect();
        let refusal = Options::read(&RunArgs::default(), &both).err().expect("refused").to_lines();
        assert!(refusal.starts_with("ERROR: API_KEY and API_KEY_FILE are both set"), "{refusal}");
        let odd: Variables = [("MCP_PORT", "eight")].into_iter().collect();
        let refusal = Options::read(&RunArgs::default(), &odd).err().expect("refused").to_lines();
        assert!(refusal.starts_with("ERROR: variable MCP_PORT is \"eight\""), "{refusal}");
    }
}
