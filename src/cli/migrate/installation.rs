//! An old installation as its files describe it: servers, and the proxies' routes to them.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::inventory::{Inventory, InventoryRow, Place};
use super::values::Values;

/// The paths of a tenant's login, below its prefix or at the root.
const LOGIN_PATHS: [&str; 8] =
    ["/.well-known", "/auth", "/authorize", "/consent", "/introspect", "/register", "/revoke", "/token"];

/// Where the export of a server is.
pub(super) enum ExportFile {
    Zip(PathBuf),
    /// A zip inside another file, such as a Secret.
    Packed(Vec<u8>),
    /// The configuration of an unpacked export.
    Config(PathBuf),
}

/// How an old server is stopped, and started again.
pub(super) struct SwitchCommands {
    pub(super) stop: String,
    pub(super) start: String,
}

/// One server of the old installation: a process, a container or a deployment.
pub(super) struct OldServer {
    pub(super) place: Place,
    /// What it is, for people: `service tursio-mcp`.
    pub(super) title: String,
    /// What people named it, to name the tenant after.
    pub(super) label: String,
    /// What its process was given, by flags and variables.
    pub(super) values: Values,
    pub(super) export: Option<ExportFile>,
    /// The datasets of its export, and what the configuration says below `values`.
    pub(super) dataset: Option<String>,
    pub(super) config: Values,
    /// The port on its machine.
    pub(super) port: Option<u16>,
    /// The names under which proxies beside it know it.
    pub(super) names: BTreeSet<String>,
    pub(super) switch: Option<SwitchCommands>,
    /// Whether it is only an export, and nothing tells how it was run.
    pub(super) is_bare: bool,
}

impl OldServer {
    pub(super) fn new(place: Place, title: impl Into<String>, label: impl Into<String>) -> Self {
        Self {
            place,
            title: title.into(),
            label: label.into(),
            values: Values::default(),
            export: None,
            dataset: None,
            config: Values::default(),
            port: None,
            names: BTreeSet::new(),
            switch: None,
            is_bare: false,
        }
    }

    /// Returns a variable of the process, else the value of its configuration.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).or_else(|| self.config.get(name))
    }

    /// Whether a proxy's target is this server.
    pub(super) fn is_at(&self, target: &ProxyTarget) -> bool {
        if self.names.contains(&target.host) {
            return true;
        }
        target.is_this_machine() && self.port.is_some() && self.port == target.port
    }
}

/// Where a proxy sends requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProxyTarget {
    /// A host, or the name of a service: `namespace/name` in Kubernetes.
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

impl ProxyTarget {
    /// Whether it is an address, which is taken for one of the machine that is moved.
    fn is_this_machine(&self) -> bool {
        let host = self.host.trim_matches(['[', ']']);
        host == "localhost" || host == "host.docker.internal" || host.parse::<std::net::IpAddr>().is_ok()
    }
}

impl fmt::Display for ProxyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// A rule of a proxy.
pub(super) struct ProxyRoute {
    pub(super) place: Place,
    /// The rule for people: `location /tenant-a`.
    pub(super) title: String,
    pub(super) hosts: Vec<String>,
    pub(super) is_tls: bool,
    /// The path that it matches, without a slash at its end.
    pub(super) path: String,
    /// The path that replaces it on the way, without a slash at its end.
    pub(super) replaced_by: Option<String>,
    pub(super) target: ProxyTarget,
    /// The networks whose callers it forwards, if it refuses all others.
    pub(super) networks: Option<Vec<IpNet>>,
    /// What else the rule says, which counts if it leads to a server that is moved.
    pub(super) details: Vec<InventoryRow>,
}

impl ProxyRoute {
    /// Whether it only forwards discovery documents or endpoints of a login, of a server that knows
    /// itself under `own`. The gateway answers these for every tenant.
    pub(super) fn is_of_login(&self, own: &str) -> bool {
        let is_below = |path: &str| {
            LOGIN_PATHS.iter().any(|known| {
                path.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        };
        let inner = self.replaced_by.as_deref().unwrap_or(&self.path);
        is_below(&self.path) || inner.strip_prefix(own).is_some_and(is_below)
    }

    /// Returns the prefix under which clients reach a server that knows itself under `own`.
    pub(super) fn public_prefix(&self, own: &str) -> Option<String> {
        let endpoint = format!("{own}/mcp");
        let Some(inner) = &self.replaced_by else {
            let is_below = |path: &str, above: &str| {
                path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            return is_below(&endpoint, &self.path).then(|| own.to_owned());
        };
        let rest = endpoint.strip_prefix(inner.as_str())?;
        let path = format!("{}{rest}", self.path);
        path.strip_suffix("/mcp").map(str::to_owned)
    }
}

/// All that was found.
#[derive(Default)]
pub(super) struct Installation {
    pub(super) servers: Vec<OldServer>,
    pub(super) routes: Vec<ProxyRoute>,
    pub(super) inventory: Inventory,
    /// Files that belong to a server already.
    pub(super) used: BTreeSet<PathBuf>,
}

impl Installation {
    /// Notes that a file belongs to something that was read.
    pub(super) fn mark_used(&mut self, path: &Path) {
        self.used.insert(identity(path));
    }

    pub(super) fn is_used(&self, path: &Path) -> bool {
        self.used.contains(&identity(path))
    }
}

/// Returns the path by which two spellings of one file are the same.
fn identity(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str, replaced_by: Option<&str>) -> ProxyRoute {
        ProxyRoute {
            place: Place::file(Path::new("x")),
            title: String::new(),
            hosts: Vec::new(),
            is_tls: true,
            path: path.to_owned(),
            replaced_by: replaced_by.map(str::to_owned),
            target: ProxyTarget { host: "127.0.0.1".into(), port: Some(8001) },
            networks: None,
            details: Vec::new(),
        }
    }

    #[test]
    fn the_public_prefix_is_what_clients_see() {
        for (path, replaced_by, own, seen) in [
            ("/tenant-a", None, "/tenant-a", Some("/tenant-a")),
            ("/tenant-a/mcp", None, "/tenant-a", Some("/tenant-a")),
            ("", None, "", Some("")),
            ("/tenant-a", None, "/tenant-ab", None),
            ("/tenant-a", None, "", None),
            ("/sales", Some(""), "", Some("/sales")),
            ("/sales/mcp", Some("/mcp"), "", Some("/sales")),
            ("/x", Some("/tenant-a"), "/tenant-a", Some("/x")),
            ("/x", Some("/other"), "/tenant-a", None),
        ] {
            assert_eq!(
                route(path, replaced_by).public_prefix(own).as_deref(),
                seen,
                "{path} {replaced_by:?}"
            );
        }
    }

    #[test]
    fn rules_for_a_login_alone_are_told_from_those_for_the_server() {
        for (path, replaced_by, own, is_of_login) in [
            ("/.well-known/oauth-authorization-server/tenant-a", None, "/tenant-a", true),
            ("/tenant-a/.well-known", None, "/tenant-a", true),
            ("/tenant-a/auth/ms-callback", None, "/tenant-a", true),
            ("/sales/token", Some("/token"), "", true),
            ("/authorize", None, "", true),
            ("/tenant-a", None, "/tenant-a", false),
            ("/authors", None, "", false),
        ] {
            assert_eq!(route(path, replaced_by).is_of_login(own), is_of_login, "{path}");
        }
    }
}
