//! Compose files with their `.env` (compose-spec: interpolation, `env_file`, `environment`,
//! `ports`, `volumes`, `secrets`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::container;
use super::environment::{set_variable, set_variables};
use super::installation::{Installation, OldServer, SwitchCommands};
use super::inventory::{Disposition, Place};
use super::proxy_rules;
use super::source::{Content, Locator, SourceFile, read_env_file};
use super::values;
use crate::base::shell;
use crate::bundle::notation;
use crate::bundle::{ConfigNode, ConfigValue};

/// Keys of a service that only say how its container was run.
const NOT_NEEDED: &[&str] = &[
    "build",
    "command",
    "container_name",
    "cpus",
    "depends_on",
    "deploy",
    "entrypoint",
    "expose",
    "healthcheck",
    "hostname",
    "image",
    "init",
    "labels",
    "logging",
    "mem_limit",
    "network_mode",
    "networks",
    "platform",
    "profiles",
    "pull_policy",
    "read_only",
    "restart",
    "security_opt",
    "stop_grace_period",
    "tty",
    "user",
];
/// Keys that are read.
const READ: &[&str] = &["environment", "env_file", "ports", "volumes", "secrets"];

/// A Compose file and what its references mean.
struct ComposeFile<'a> {
    path: &'a Path,
    root: &'a ConfigNode,
    folder: &'a Path,
    /// The `.env` beside it.
    env_path: PathBuf,
    env: Option<&'a ConfigNode>,
    variables: HashMap<String, String>,
    sources: &'a [SourceFile],
    locator: &'a Locator,
}

/// Reads a Compose file.
pub(super) fn read(
    path: &Path,
    root: &ConfigNode,
    sources: &[SourceFile],
    locator: &Locator,
    into: &mut Installation,
) {
    let folder = path.parent().unwrap_or(Path::new(""));
    if path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with(".override")) {
        let note = "Compose merges it into the file beside it, which this program does not: give it the \
                    merged one \
                    (docker compose config > merged.yaml)";
        return into.inventory.add(Place::file(path), "the file", Disposition::ByHand, note);
    }
    let env_path = folder.join(".env");
    let env = sources.iter().find_map(|source| match &source.content {
        Content::Env(env) if source.path == env_path => Some(env.clone()),
        _ => None,
    });
    // The Compose file may be given without its folder.
    let env = env.or_else(|| {
        env_path.exists().then(|| read_env_file(&env_path)).transpose().unwrap_or_else(|why| {
            into.inventory.add(Place::file(&env_path), "the file", Disposition::ByHand, why);
            None
        })
    });
    let pairs = env.iter().flat_map(ConfigNode::pairs);
    // Compose knows capitals from small letters; the reader of a `.env` makes them small.
    let variables = pairs
        .map(|(key, node)| (key.text.to_ascii_uppercase(), node.text().unwrap_or_default().to_owned()))
        .collect();
    let env = env.as_ref();
    let file = ComposeFile { path, root, folder, env_path, env, variables, sources, locator };
    for (key, service) in root.member("services").map_or(&[][..], |(_, services)| services.pairs()) {
        file.read_service(&key.text, key.at.line, service, into);
    }
}

impl ComposeFile<'_> {
    fn place(&self, line: usize) -> Place {
        Place::line(self.path, line)
    }

    fn read_service(&self, name: &str, line: usize, service: &ConfigNode, into: &mut Installation) {
        let member = |name: &str| service.member(name).map(|(_, node)| node);
        let text = |node: &ConfigNode| node.text().unwrap_or_default().to_owned();
        let environment = member("environment").map(read_pairs).unwrap_or_default();
        let volumes: Vec<_> = member("volumes")
            .map(items)
            .unwrap_or_default()
            .iter()
            .map(|node| match node.value {
                ConfigValue::Map(_) => {
                    let part = |name: &str| node.member(name).map(|(_, node)| text(node)).unwrap_or_default();
                    format!("{}:{}", part("source"), part("target"))
                }
                _ => text(node),
            })
            .collect();
        let names = environment.iter().map(|(name, ..)| name.as_str());
        let has_vendors_env = member("env_file").is_some() && self.env.is_some_and(has_vendors);
        let image = member("image").map(text).unwrap_or_default();
        if !container::is_vendors(&image, names, volumes.iter().map(String::as_str)) && !has_vendors_env {
            let note = "not the vendor's server; it stays in its Compose file";
            return into.inventory.add(self.place(line), format!("service {name}"), Disposition::Left, note);
        }
        let project = self.folder.file_name().map(|name| name.to_string_lossy().into_owned());
        let label = if name == "tursio-mcp" { project.unwrap_or_default() } else { name.to_owned() };
        let mut server =
            OldServer::new(self.place(line), format!("service {name} of {}", self.path.display()), label);
        server.names.insert(name.to_owned());
        server.names.extend(member("container_name").map(text));
        self.read_env_files(member("env_file"), &mut server, into);
        self.read_environment(&environment, service, &mut server, into);
        self.account_for_lost_variables(&server, into);
        for (volume, node) in volumes.iter().zip(member("volumes").map(items).unwrap_or_default()) {
            let place = self.place(node.at.line);
            match notation::interpolate(volume, &self.variables) {
                Ok(volume) => {
                    container::attach_volume(&mut server, &volume, &place, self.sources, self.locator, into);
                }
                Err(why) => into.inventory.add(place, "volume", Disposition::ByHand, why),
            }
        }
        for port in member("ports").map(items).unwrap_or_default() {
            let published = match port.member("published") {
                Some((_, published)) => text(published),
                None => text(port),
            };
            let published = notation::interpolate(&published, &self.variables).unwrap_or_default();
            server.port = server.port.or_else(|| container::host_port(&published));
        }
        let own_port = server.value(values::MCP_PORT).and_then(|port| port.parse().ok());
        server.port = server.port.or(own_port);
        self.account_for_the_rest(service, into);
        let labels = member("labels").map(read_pairs).unwrap_or_default();
        let labels: Vec<_> =
            labels.into_iter().map(|(name, value, line)| (name, value, self.place(line))).collect();
        into.routes.extend(proxy_rules::routes_of_labels(&labels, name, &mut into.inventory));
        let command = format!("docker compose -f {}", shell::quote(&self.path.display().to_string()));
        let name = shell::quote(name);
        server.switch = Some(SwitchCommands {
            stop: format!("{command} stop {name}"),
            start: format!("{command} start {name}"),
        });
        into.inventory.add(
            self.place(line),
            format!("service {name}"),
            Disposition::Replaced,
            "the gateway serves it",
        );
        into.servers.push(server);
        into.mark_used(&self.env_path);
    }

    fn read_env_files(&self, files: Option<&ConfigNode>, server: &mut OldServer, into: &mut Installation) {
        let Some(files) = files else { return };
        let listed = items(files);
        let listed = if listed.is_empty() { vec![files] } else { listed };
        for node in listed {
            let path = node.member("path").map_or(node, |(_, path)| path).text().unwrap_or_default();
            let is_optional = node.member("required").is_some_and(|(_, it)| it.text() == Some("false"));
            let path = self.locator.resolve(Path::new(path), self.folder);
            match read_env_file(&path) {
                Ok(env) => {
                    set_variables(server, &path, &env, self.locator, &mut into.inventory);
                    into.mark_used(&path);
                }
                Err(_) if is_optional && !path.exists() => {}
                Err(why) => into.inventory.add(Place::file(&path), "env_file", Disposition::ByHand, why),
            }
        }
    }

    fn read_environment(
        &self,
        environment: &[(String, Option<String>, usize)],
        service: &ConfigNode,
        server: &mut OldServer,
        into: &mut Installation,
    ) {
        for (name, value, line) in environment {
            let place = self.place(*line);
            let value = match value {
                // A name alone takes the value of the shell or of the `.env`.
                None => self.variables.get(name).cloned().ok_or("it has no value in the .env"),
                Some(value) => notation::interpolate(value, &self.variables),
            };
            match value {
                Ok(value) => {
                    let place = self.origin(name).unwrap_or(place);
                    let value = self.path_of_secret(&value, service).unwrap_or(value);
                    set_variable(server, name, &value, &place, self.locator, &mut into.inventory);
                }
                // Compose takes an unknown variable for an empty one.
                Err(_) if values::find_variable(name).is_some_and(|_| !is_required(name)) => {}
                Err(why) => into.inventory.add(place, name.clone(), Disposition::ByHand, why),
            }
        }
    }

    /// Returns where the `.env` sets a variable.
    fn origin(&self, name: &str) -> Option<Place> {
        let (key, _) = self.env?.member(&name.to_ascii_lowercase())?;
        Some(Place::line(&self.env_path, key.at.line))
    }

    /// Returns the file of a secret that is mounted as `/run/secrets/NAME`.
    fn path_of_secret(&self, value: &str, service: &ConfigNode) -> Option<String> {
        let name = value.strip_prefix("/run/secrets/")?;
        service.member("secrets")?;
        let (_, secrets) = self.root.member("secrets")?;
        let file = secrets.member(name)?.1.member("file")?.1.text()?.to_owned();
        Some(self.folder.join(notation::interpolate(&file, &self.variables).ok()?).display().to_string())
    }

    /// Accounts for variables of the vendor's in the `.env` that the service never got. Somebody
    /// may believe that it requires a login.
    fn account_for_lost_variables(&self, server: &OldServer, into: &mut Installation) {
        for (key, node) in self.env.iter().flat_map(|env| env.pairs()) {
            let name = key.text.to_ascii_uppercase();
            let is_lost = values::find_variable(&name).is_some() && server.values.given(&name).is_none();
            if is_lost && name != values::MCP_PORT && !node.is_blank() {
                into.inventory.add(
                    Place::line(&self.env_path, key.at.line),
                    name,
                    Disposition::ByHand,
                    "the Compose file does not pass it on, so it had no effect, and it is not taken over; \
                     if it \
                     was meant to have one, write it into the tenant's .env",
                );
            }
        }
    }

    fn account_for_the_rest(&self, service: &ConfigNode, into: &mut Installation) {
        for (key, _) in service.pairs().iter().filter(|(key, _)| !READ.contains(&&*key.text)) {
            let place = self.place(key.at.line);
            match NOT_NEEDED.contains(&&*key.text) {
                true => {
                    into.inventory.add(place, &*key.text, Disposition::NotNeeded, "no container is needed")
                }
                false => into.inventory.add(
                    place,
                    &*key.text,
                    Disposition::ByHand,
                    "not a key of the vendor's guide; find out what it was for",
                ),
            }
        }
    }
}

/// Reads a `.env` without a Compose file: the vendor's variables, and `ZIP_PATH`.
pub(super) fn read_lone_env(
    path: &Path,
    env: &ConfigNode,
    sources: &[SourceFile],
    locator: &Locator,
    into: &mut Installation,
) {
    if !has_vendors(env) {
        return;
    }
    let folder = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let mut server =
        OldServer::new(Place::file(path), format!("the .env {}", path.display()), folder.unwrap_or_default());
    set_variables(&mut server, path, env, locator, &mut into.inventory);
    if let Some((key, node)) = env.member("zip_path") {
        let volume = format!("{}:{}", node.text().unwrap_or_default(), container::EXPORT);
        let place = Place::line(path, key.at.line);
        container::attach_volume(&mut server, &volume, &place, sources, locator, into);
    }
    server.port = server.value(values::MCP_PORT).and_then(|port| port.parse().ok());
    into.servers.push(server);
    into.mark_used(path);
}

fn has_vendors(env: &ConfigNode) -> bool {
    let known = |name: &str| values::find_variable(&name.to_ascii_uppercase()).is_some();
    env.pairs().iter().any(|(key, _)| known(&key.text))
}

/// Whether a tenant cannot do without a variable, so that a missing value is worth a word.
fn is_required(name: &str) -> bool {
    [values::API_KEY, "SEARCH_URL", "CONTEXT_URL"].contains(&name)
}

fn items(node: &ConfigNode) -> Vec<&ConfigNode> {
    match &node.value {
        ConfigValue::List(items) => items.iter().collect(),
        _ => Vec::new(),
    }
}

/// Returns the pairs of a mapping, or of a list of `NAME=value`, each with its line.
fn read_pairs(node: &ConfigNode) -> Vec<(String, Option<String>, usize)> {
    if let ConfigValue::List(items) = &node.value {
        let pairs = items.iter().filter_map(|item| Some((item.text()?, item.at.line)));
        return pairs
            .map(|(text, line)| match text.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned()), line),
                None => (text.to_owned(), None, line),
            })
            .collect();
    }
    let pairs = node.pairs().iter();
    pairs
        .map(|(key, node)| {
            let value = if node.is_blank() { None } else { node.text().map(str::to_owned) };
            (key.text.to_string(), value, key.at.line)
        })
        .collect()
}
