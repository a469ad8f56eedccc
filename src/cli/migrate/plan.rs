//! Decides which tenants an old installation becomes: links proxies' routes to servers, chooses
//! prefixes, hosts and names, and lists the files to write.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use url::Url;

use super::installation::{ExportFile, Installation, OldServer, ProxyRoute, SwitchCommands};
use super::inventory::{Disposition, Inventory, Place};
use super::overlay::Overlay;
use super::values::{MCP_PORT, PATH_PREFIX, PUBLIC_URL, Variable};
use crate::base::disk;
use crate::bundle::notation;
use crate::spec::{HostName, TenantName};

/// A file of a tenant that is to be written.
pub(super) struct PlannedFile {
    pub(super) name: String,
    /// May contain secrets.
    pub(super) bytes: Vec<u8>,
}

/// A tenant that is to be.
pub(super) struct PlannedTenant {
    pub(super) name: String,
    /// What it was.
    pub(super) title: String,
    pub(super) place: Place,
    /// In the order in which they must appear: what guards the tenant before what opens it.
    pub(super) files: Vec<PlannedFile>,
    pub(super) switch: Option<SwitchCommands>,
}

/// What is to be done.
pub(super) struct Plan {
    pub(super) tenants: Vec<PlannedTenant>,
    pub(super) inventory: Inventory,
    /// Hosts that several tenants have, which must therefore be the gateway's.
    pub(super) shared_hosts: BTreeSet<String>,
    /// Rules of proxies that lead to servers which are moved.
    pub(super) rules: Vec<(Place, String)>,
}

/// Where a tenant is to be reachable.
struct TenantAddress {
    /// The prefix under which the old server knows itself; empty for the root.
    inner: String,
    /// The prefix; empty for the root, `None` for the gateway's default.
    prefix: Option<String>,
    public_url: Option<String>,
    /// Hosts besides that of the public URL.
    hosts: Vec<String>,
    /// The port of a listener of its own.
    listen: Option<u16>,
    /// The only networks whose callers the proxy let through.
    networks: Option<Vec<IpNet>>,
}

/// Plans the move.
pub(super) fn plan(installation: Installation) -> Plan {
    let Installation { servers, routes, mut inventory, .. } = installation;
    let make_routes = link(&servers, &routes, &mut inventory);
    let mut locations: Vec<TenantAddress> = Vec::new();
    for (server, routes) in servers.iter().zip(&make_routes) {
        locations.push(locate(server, routes, &mut inventory));
    }
    let roots = crowded_roots(&locations);
    let mut names = BTreeSet::new();
    let mut plan =
        Plan { tenants: Vec::new(), shared_hosts: shared_hosts(&locations), inventory, rules: Vec::new() };
    for (at, (server, mut location)) in servers.into_iter().zip(locations).enumerate() {
        let name = choose_name(&server, &location, &mut names);
        let own_port = server.port.filter(|_| notation::is_field("listen") && make_routes[at].is_empty());
        match own_port {
            Some(port) if roots.contains(&at) => location.listen = Some(port),
            None if roots.contains(&at) => {
                location.prefix = None;
                let note = format!(
                    "several servers had /mcp at the root, each at its port; this one is now at \
                     /{name}/mcp, and clients \
                     must be told"
                );
                plan.inventory.add(server.place.clone(), server.title.clone(), Disposition::ByHand, note);
            }
            _ => {}
        }
        for route in &make_routes[at] {
            let own = location.inner.as_str();
            account_for_route(route, own, &name, &mut plan);
        }
        account_for_port(&server, &make_routes[at], &name, &location, &mut plan.inventory);
        let files = list_files(&server, &location, &name, &mut plan.inventory);
        plan.tenants.push(PlannedTenant {
            name,
            title: server.title,
            place: server.place,
            files,
            switch: server.switch,
        });
    }
    plan
}

/// Returns the routes to each server.
fn link<'a>(
    servers: &[OldServer],
    routes: &'a [ProxyRoute],
    inventory: &mut Inventory,
) -> Vec<Vec<&'a ProxyRoute>> {
    let mut of: Vec<Vec<&ProxyRoute>> = servers.iter().map(|_| Vec::new()).collect();
    for route in routes {
        let at: Vec<_> = (0..servers.len()).filter(|&at| servers[at].is_at(&route.target)).collect();
        match at.as_slice() {
            [at] => of[*at].push(route),
            [] => inventory.add(
                route.place.clone(),
                format!("{} -> {}", route.title, route.target),
                Disposition::ByHand,
                "nothing that was given is there; if it is a server of the vendor's, give its files as \
                 FROM, too; \
                 otherwise it stays with the proxy",
            ),
            several => {
                let titles: Vec<_> = several.iter().map(|&at| servers[at].title.as_str()).collect();
                let note = format!("several servers are there: {}", titles.join(", "));
                let what = format!("{} -> {}", route.title, route.target);
                inventory.add(route.place.clone(), what, Disposition::ByHand, note);
            }
        }
    }
    of
}

/// Decides where a tenant is reachable, as it was.
fn locate(server: &OldServer, routes: &[&ProxyRoute], inventory: &mut Inventory) -> TenantAddress {
    let public_url = server.value(PUBLIC_URL).map(str::to_owned);
    let parsed = public_url.as_deref().and_then(|url| Url::parse(url).ok());
    let of_url = parsed.as_ref().map(|url| url.path().trim_end_matches('/').to_owned());
    let own = server.value(PATH_PREFIX).map(|prefix| prefix.trim_end_matches('/').to_owned());
    let inner = own.clone().or_else(|| of_url.clone()).unwrap_or_default();
    let seen: Vec<(&ProxyRoute, String)> = routes
        .iter()
        .filter(|route| !route.is_of_login(&inner))
        .filter_map(|route| Some((*route, route.public_prefix(&inner)?)))
        .collect();
    let lost =
        routes.iter().filter(|route| !route.is_of_login(&inner) && route.public_prefix(&inner).is_none());
    for route in lost {
        let note = format!("the server knows itself as {inner}/mcp, which this rule does not reach");
        inventory.add(route.place.clone(), route.title.clone(), Disposition::ByHand, note);
    }
    let routed = seen.first().map(|(_, prefix)| prefix.clone());
    let prefix = match (of_url, own) {
        // A public URL without the prefix is a slip, which `check` reports.
        (Some(url), Some(own)) if url != own && routed.as_ref() != Some(&url) => Some(own),
        (of_url, own) => of_url.or(routed).or(own),
    };
    for (route, other) in seen.iter().filter(|(_, other)| Some(other) != prefix.as_ref()) {
        let note = format!(
            "clients reached it at {other}/mcp, too; a tenant has one prefix, so tell them the other URL"
        );
        inventory.add(route.place.clone(), route.title.clone(), Disposition::ByHand, note);
    }
    let prefix = prefix.or_else(|| (!server.is_bare).then(String::new));
    let on_tls = seen.iter().filter(|(route, _)| route.is_tls).flat_map(|(route, _)| &route.hosts);
    let mut hosts: Vec<String> = seen.iter().flat_map(|(route, _)| route.hosts.clone()).collect();
    let from_route = || {
        let host = on_tls.clone().find(|host| is_name(host))?;
        Some(format!("https://{host}{}", prefix.clone().unwrap_or_default()))
    };
    let public_url = public_url.or_else(from_route);
    let main = public_url.as_deref().and_then(find_host);
    hosts.retain(|host| is_name(host) && Some(host) != main.as_ref());
    hosts.sort();
    hosts.dedup();
    // One rule without a restriction lets everybody in.
    let networks: Option<Vec<_>> = seen.iter().map(|(route, _)| route.networks.clone()).collect();
    let networks = networks.map(|lists| lists.concat()).filter(|list| !list.is_empty());
    for (route, _) in seen.iter().filter(|(route, _)| route.networks.is_some() && networks.is_none()) {
        let note = "it let only some networks through, but another rule lets everybody; decide who may call";
        inventory.add(route.place.clone(), format!("{}: allow", route.title), Disposition::ByHand, note);
    }
    TenantAddress { inner, prefix, public_url, hosts, listen: None, networks }
}

fn is_name(host: &str) -> bool {
    host != "localhost"
        && host.contains('.')
        && host.parse::<std::net::IpAddr>().is_err()
        && HostName::parse(host).is_some()
}

fn find_host(url: &str) -> Option<String> {
    Url::parse(url).ok()?.host_str().map(str::to_owned)
}

/// Returns the servers that would be at the root of the same host; only one tenant can be.
fn crowded_roots(locations: &[TenantAddress]) -> BTreeSet<usize> {
    let mut roots: BTreeMap<Option<String>, Vec<usize>> = BTreeMap::new();
    for (at, location) in locations.iter().enumerate() {
        if location.prefix.as_deref() == Some("") {
            roots.entry(location.public_url.as_deref().and_then(find_host)).or_default().push(at);
        }
    }
    roots.into_values().filter(|at| at.len() > 1).flatten().collect()
}

fn shared_hosts(locations: &[TenantAddress]) -> BTreeSet<String> {
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for location in locations {
        let hosts =
            location.public_url.as_deref().and_then(find_host).into_iter().chain(location.hosts.clone());
        hosts.for_each(|host| *count.entry(host).or_default() += 1);
    }
    count.into_iter().filter(|(_, count)| *count > 1).map(|(host, _)| host).collect()
}

/// Names a tenant after its prefix, else as people named its server, else after its dataset.
fn choose_name(server: &OldServer, location: &TenantAddress, taken: &mut BTreeSet<String>) -> String {
    let prefix = location.prefix.as_deref().map(|prefix| prefix.trim_matches('/').replace('/', "-"));
    let label = server.label.strip_prefix("tursio-mcp").unwrap_or(&server.label);
    let label =
        Some(label.trim_matches(['-', '_', '@', ' ']).to_owned()).filter(|label| !says_nothing(label));
    let dataset = server.dataset.clone();
    let host = location.public_url.as_deref().and_then(find_host);
    let candidates =
        [prefix.filter(|prefix| !prefix.is_empty()), label, dataset, host, Some("tenant".to_owned())];
    let name = candidates.into_iter().flatten().find_map(|text| TenantName::from_entry_id(&text));
    let name = name.expect("the last candidate is a name").to_string();
    let numbered = std::iter::once(name.clone()).chain((2..).map(|number| format!("{name}-{number}")));
    let free = numbered.into_iter().find(|name| !taken.contains(name)).expect("there are endless numbers");
    taken.insert(free.clone());
    free
}

/// Whether a label is one that anybody would have.
fn says_nothing(label: &str) -> bool {
    let label = label.to_ascii_lowercase();
    ["", "mcp", "server", "tursio", "mcp_export", "mcp-export", "compose", "docker", "opt", "app"]
        .contains(&label.as_str())
        || label.starts_with("mcp_export")
}

fn account_for_route(route: &ProxyRoute, own: &str, name: &str, plan: &mut Plan) {
    let note = match route.is_of_login(own) {
        true => "the gateway answers it for all tenants".to_owned(),
        false => format!("the gateway answers there with tenant {name}"),
    };
    plan.inventory.add(
        route.place.clone(),
        format!("{} -> {}", route.title, route.target),
        Disposition::Replaced,
        note,
    );
    route.details.iter().cloned().for_each(|row| plan.inventory.push(row));
    let rule = (route.place.clone(), route.title.clone());
    if !plan.rules.contains(&rule) {
        plan.rules.push(rule);
    }
}

fn account_for_port(
    server: &OldServer,
    routes: &[&ProxyRoute],
    name: &str,
    location: &TenantAddress,
    inventory: &mut Inventory,
) {
    let given = server.values.given(MCP_PORT).or_else(|| server.config.given(MCP_PORT));
    let Some(port) = server.port.filter(|_| !server.is_bare) else {
        if let Some(given) = given {
            inventory.add(
                given.place.clone(),
                MCP_PORT,
                Disposition::NotNeeded,
                "all tenants share the gateway's port",
            );
        }
        return;
    };
    let place = given.map_or_else(|| server.place.clone(), |given| given.place.clone());
    if !routes.is_empty() {
        inventory.add(place, format!("port {port}"), Disposition::NotNeeded, "only the proxy used it");
        return;
    }
    if location.listen.is_some() {
        let note = format!(
            "as LISTEN of the tenant; the gateway's settings must allow it (tenant_listeners: \
             [\"0.0.0.0:{port}\"]), and \
             --tls off keeps http:// there"
        );
        inventory.add(place, format!("port {port}"), Disposition::ByHand, note);
        return;
    }
    if let Some(url) = location.public_url.as_deref().filter(|url| url.starts_with("https://")) {
        let note = format!(
            "something that was not given ends TLS for {url} and leads to port {port}: let it lead to the \
             gateway, or \
             the gateway take its place"
        );
        inventory.add(place, format!("port {port}"), Disposition::ByHand, note);
        return;
    }
    let prefix = location.prefix.clone().unwrap_or_else(|| format!("/{name}"));
    let note = format!(
        "port {port} is not kept: clients that use http://…:{port}{prefix}/mcp get a URL of the gateway, \
         or the \
         gateway listens there, for all its tenants (--listen 0.0.0.0:{port} --tls off)"
    );
    inventory.add(place, format!("port {port}"), Disposition::ByHand, note);
}

/// Lists the files of a tenant, and accounts for the values in them.
fn list_files(
    server: &OldServer,
    location: &TenantAddress,
    name: &str,
    inventory: &mut Inventory,
) -> Vec<PlannedFile> {
    let (export, is_zip) = match &server.export {
        Some(ExportFile::Config(path)) => (disk::read(path, notation::MAX_EXPORT), false),
        Some(ExportFile::Zip(path)) => (disk::read(path, notation::MAX_EXPORT), true),
        Some(ExportFile::Packed(bytes)) => (Ok(bytes.clone()), true),
        None => {
            let note = format!(
                "its export is not among what was given: put mcp_export.zip into the folder as {name}.zip, \
                 or give it \
                 as FROM, too"
            );
            inventory.add(server.place.clone(), server.title.clone(), Disposition::ByHand, note);
            return overlay_files(server, location, name, true, inventory);
        }
    };
    let mut files = overlay_files(server, location, name, is_zip, inventory);
    match export {
        Ok(bytes) => {
            let export = format!("{name}.{}", if is_zip { "zip" } else { "yaml" });
            account_for_config(server, &export, is_zip, inventory);
            files.push(PlannedFile { name: export, bytes });
        }
        Err(error) => {
            inventory.add(server.place.clone(), "export", Disposition::ByHand, error.to_string());
        }
    }
    files
}

fn account_for_config(server: &OldServer, export: &str, is_zip: bool, inventory: &mut Inventory) {
    if is_zip {
        return;
    }
    for (variable, given) in server.config.iter().filter(|(variable, _)| variable.name != MCP_PORT) {
        let what = variable.name.to_ascii_lowercase();
        let note = match server.values.given(variable.name) {
            Some(_) => "a flag or variable of the process replaced it".to_owned(),
            None => format!("in {export}"),
        };
        inventory.add(given.place.clone(), what, Disposition::Kept, note);
    }
}

/// Lists the secrets' files and the overlay.
fn overlay_files(
    server: &OldServer,
    location: &TenantAddress,
    name: &str,
    is_zip: bool,
    inventory: &mut Inventory,
) -> Vec<PlannedFile> {
    let overlay_name = format!("{name}.env");
    let (mut overlay, mut files) = (Overlay::new(&server.title), Vec::new());
    for (variable, given) in server.values.iter() {
        if [MCP_PORT, PATH_PREFIX, PUBLIC_URL].contains(&variable.name) {
            continue;
        }
        let file = match variable.secret_file {
            Some(ending) => {
                let file = format!("{name}.{ending}");
                overlay.set(&format!("{}_FILE", variable.name), &file);
                files.push(PlannedFile {
                    name: file.clone(),
                    bytes: format!("{}\n", given.text().trim()).into_bytes(),
                });
                file
            }
            None => {
                overlay.set(variable.name, given.text().trim());
                overlay_name.clone()
            }
        };
        inventory.add(
            given.place.clone(),
            make_title(variable, given.text()),
            Disposition::Kept,
            format!("in {file}"),
        );
    }
    set_location(server, location, is_zip, &mut overlay);
    for name in [PATH_PREFIX, PUBLIC_URL] {
        if let Some(given) = server.values.given(name) {
            let what = format!("{name}={}", given.text());
            let other = location
                .prefix
                .as_deref()
                .filter(|prefix| name == PATH_PREFIX && given.text().trim().trim_end_matches('/') != *prefix);
            match other {
                Some(prefix) => {
                    let note = format!("clients reach it at {prefix}/mcp, which is in {overlay_name}");
                    inventory.add(given.place.clone(), what, Disposition::Replaced, note);
                }
                None => {
                    inventory.add(given.place.clone(), what, Disposition::Kept, format!("in {overlay_name}"))
                }
            }
        }
    }
    match overlay.render() {
        Some(Ok(text)) => files.push(PlannedFile { name: overlay_name, bytes: text.into_bytes() }),
        Some(Err(variable)) => inventory.add(
            server.place.clone(),
            variable,
            Disposition::ByHand,
            format!("its value cannot be written into a .env; write it into {name}.yaml"),
        ),
        None => {}
    }
    files
}

/// Writes where the tenant is, as far as its export does not say it.
fn set_location(server: &OldServer, location: &TenantAddress, is_zip: bool, overlay: &mut Overlay) {
    let prefix = location.prefix.as_deref().map(|prefix| if prefix.is_empty() { "/" } else { prefix });
    let known = server.config.get(PATH_PREFIX).map(|prefix| match prefix.trim_end_matches('/') {
        "" => "/",
        prefix => prefix,
    });
    if let Some(prefix) = prefix.filter(|prefix| Some(*prefix) != known) {
        overlay.set(PATH_PREFIX, prefix);
    }
    // An export may not claim a host; the operator's file may.
    let is_known = !is_zip && server.config.get(PUBLIC_URL) == location.public_url.as_deref();
    if let Some(url) = location.public_url.as_deref().filter(|_| !is_known) {
        overlay.set(PUBLIC_URL, url);
    }
    if !location.hosts.is_empty() {
        overlay.set("HOSTS", &location.hosts.join(","));
    }
    if let Some(port) = location.listen {
        overlay.set("LISTEN", &port.to_string());
    }
    if let Some(networks) = &location.networks {
        let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
        overlay.set("ALLOW_FROM", &networks.join(","));
    }
}

fn make_title(variable: &Variable, text: &str) -> String {
    match variable.is_shown {
        true => format!("{}={}", variable.name, text.trim()),
        false => variable.name.to_owned(),
    }
}
