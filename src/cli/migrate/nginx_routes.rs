//! The routes of an NGINX configuration: `server`, `location`, `proxy_pass`, `upstream`, `include`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::installation::{Installation, ProxyRoute, ProxyTarget};
use super::inventory::{Disposition, InventoryRow, Place};
use super::nginx::{self, Directive};
use super::source::{Content, SourceFile};
use crate::base::disk;
use crate::bundle::notation;

const MAX_TEXT: u64 = 4 << 20;
const MAX_INCLUDES: usize = 200;

/// Directives that restricted who may call.
const GUARDS: &[&str] = &[
    "allow",
    "auth_basic",
    "auth_jwt",
    "auth_request",
    "deny",
    "satisfy",
    "ssl_client_certificate",
    "ssl_verify_client",
];
/// Directives that change requests or answers on their way in a manner that the gateway does not.
const CHANGES: &[&str] = &[
    "add_header",
    "if",
    "limit_conn",
    "limit_except",
    "limit_req",
    "mirror",
    "proxy_redirect",
    "return",
    "rewrite",
    "sub_filter",
    "try_files",
];
/// Files with types and parameters, which say nothing of routes.
const PLAIN_INCLUDES: &[&str] =
    &["mime.types", "fastcgi_params", "fastcgi.conf", "proxy_params", "scgi_params", "uwsgi_params"];

/// A directive and the file that it is in.
type Located<'a> = (&'a Path, &'a Directive);

/// A configuration with its includes replaced by what they contain.
struct Flat {
    path: PathBuf,
    name: String,
    args: Vec<String>,
    line: usize,
    children: Vec<Flat>,
}

/// Reads all NGINX configurations of the sources.
pub(super) fn read(sources: &[SourceFile], into: &mut Installation) {
    let mut found: Vec<(&Path, &[Directive])> = Vec::new();
    for source in sources {
        if let Content::Nginx(directives) = &source.content {
            found.push((&source.path, directives));
        }
    }
    // A main configuration first: what it includes is part of it, and not one of its own.
    found.sort_by_key(|(_, directives)| !directives.iter().any(|directive| directive.name == "http"));
    let mut flat = Vec::new();
    for (path, directives) in found {
        if into.is_used(path) {
            continue;
        }
        into.mark_used(path);
        let mut includes = Includes { base: find_base(path), count: 0, into };
        flat.extend(directives.iter().flat_map(|directive| includes.flatten((path, directive), 0)));
    }
    let mut upstreams = BTreeMap::new();
    collect_upstreams(&flat, &mut upstreams);
    for server in blocks(&flat, "server") {
        ServerBlock::new(server, &upstreams).read(into);
    }
}

/// Returns the folder that relative includes are meant to be in: that of `nginx.conf`.
fn find_base(path: &Path) -> PathBuf {
    let folder = path.parent().unwrap_or(Path::new(""));
    let main = folder.ancestors().find(|folder| folder.join("nginx.conf").is_file());
    main.unwrap_or(folder).to_owned()
}

struct Includes<'a> {
    base: PathBuf,
    count: usize,
    into: &'a mut Installation,
}

impl Includes<'_> {
    fn flatten(&mut self, (path, directive): Located<'_>, depth: usize) -> Vec<Flat> {
        if directive.name == "include" && depth < 16 {
            return self.include(path, directive, depth);
        }
        let children =
            directive.children().iter().flat_map(|child| self.flatten((path, child), depth + 1)).collect();
        let (name, args) = (directive.name.clone(), directive.args.clone());
        vec![Flat { path: path.to_owned(), name, args, line: directive.line, children }]
    }

    fn include(&mut self, from: &Path, directive: &Directive, depth: usize) -> Vec<Flat> {
        let pattern = directive.arg(0);
        let mut flat = Vec::new();
        let files = self.files(pattern);
        let name = pattern.rsplit('/').next().unwrap_or_default();
        let is_plain = PLAIN_INCLUDES.contains(&name) || pattern.contains('*');
        if files.is_empty() && !is_plain {
            let note = "this file is not here; give it as FROM, too, if it has routes";
            self.into.inventory.add(
                Place::line(from, directive.line),
                format!("include {pattern}"),
                Disposition::ByHand,
                note,
            );
        }
        for file in files {
            self.count += 1;
            if self.count > MAX_INCLUDES {
                break;
            }
            self.into.mark_used(&file);
            let text = disk::read_text(&file, MAX_TEXT).map_err(|error| (None, error.to_string()));
            let read = text.and_then(|text| {
                nginx::parse(&text).map_err(|error| (Some(error.line), error.what.to_owned()))
            });
            match read {
                Ok(directives) => {
                    flat.extend(directives.iter().flat_map(|one| self.flatten((&file, one), depth + 1)));
                }
                Err((line, what)) => {
                    let what = format!("this is not an NGINX configuration: {what}");
                    self.into.inventory.add(Place { file, line }, "the file", Disposition::ByHand, what);
                }
            }
        }
        flat
    }

    /// Returns the files that a pattern names. If its folder is not on this machine, the folder of
    /// that name beside the main configuration is taken.
    fn files(&self, pattern: &str) -> Vec<PathBuf> {
        let path = self.base.join(pattern);
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        else {
            return Vec::new();
        };
        let beside = folder.file_name().map(|name| self.base.join(name));
        let beside = beside.filter(|beside| beside.is_dir());
        let is_below = folder.starts_with(&self.base);
        let folder = if is_below { folder.to_owned() } else { beside.unwrap_or_else(|| folder.to_owned()) };
        let listed = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_meant = |path: &PathBuf| {
            let found = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            path.is_file() && matches(name, found) && !(name.starts_with('*') && found.starts_with('.'))
        };
        let mut files: Vec<_> = listed.filter(is_meant).collect();
        files.sort();
        files
    }
}

/// Whether a name matches a pattern with `*`.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| matches(after, &rest[at..]))
        }),
    }
}

/// Returns all blocks of a name, at any depth.
fn blocks<'a>(flat: &'a [Flat], name: &str) -> Vec<&'a Flat> {
    let below = |one: &'a Flat| match one.name == name {
        true => vec![one],
        false => blocks(&one.children, name),
    };
    flat.iter().flat_map(below).collect()
}

/// The servers of an upstream that are on this machine or anywhere.
type Upstreams = BTreeMap<String, Vec<ProxyTarget>>;

fn collect_upstreams(flat: &[Flat], upstreams: &mut Upstreams) {
    for upstream in blocks(flat, "upstream") {
        let servers = upstream.children.iter().filter(|one| one.name == "server");
        let targets = servers.filter_map(|server| parse_target(server.args.first()?)).collect();
        upstreams.insert(upstream.args.first().cloned().unwrap_or_default(), targets);
    }
}

fn parse_target(text: &str) -> Option<ProxyTarget> {
    if text.starts_with("unix:") || text.contains('$') {
        return None;
    }
    let behind = if text.starts_with('[') { text.find(']').map_or(text.len(), |at| at + 1) } else { 0 };
    match text[behind..].rsplit_once(':') {
        Some((_, port)) => {
            let host = text[..text.len() - port.len() - 1].to_owned();
            Some(ProxyTarget { host, port: Some(port.parse().ok()?) })
        }
        None => Some(ProxyTarget { host: text.to_owned(), port: None }),
    }
}

/// A `server` block.
struct ServerBlock<'a> {
    block: &'a Flat,
    upstreams: &'a Upstreams,
    hosts: Vec<String>,
    is_tls: bool,
    details: Vec<InventoryRow>,
}

impl<'a> ServerBlock<'a> {
    fn new(block: &'a Flat, upstreams: &'a Upstreams) -> Self {
        let of = |name: &'static str| block.children.iter().filter(move |one| one.name == name);
        let is_name = |name: &&String| !name.is_empty() && *name != "_" && !name.contains(['*', '~', '$']);
        let hosts = of("server_name").flat_map(|one| &one.args).filter(is_name).cloned().collect();
        let is_tls = of("listen")
            .any(|listen| listen.args.iter().any(|arg| arg == "ssl" || arg.ends_with(":443")))
            || of("listen").any(|listen| listen.args.first().is_some_and(|port| port == "443"))
            || of("ssl_certificate").next().is_some();
        let details =
            block.children.iter().filter(|one| one.name != "location").filter_map(detail_of_server).collect();
        Self { block, upstreams, hosts, is_tls, details }
    }

    fn read(&self, into: &mut Installation) {
        self.read_locations(&self.block.children, &[], into);
    }

    fn read_locations(&self, directives: &'a [Flat], around: &[&'a Flat], into: &mut Installation) {
        for location in directives.iter().filter(|one| one.name == "location") {
            let around: Vec<_> = around.iter().copied().chain([location]).collect();
            let has_inner = location.children.iter().any(|one| one.name == "location");
            match location.children.iter().find(|one| one.name == "proxy_pass") {
                Some(pass) => self.read_route(&around, location, pass, into),
                None if has_inner => {}
                None => {
                    let note = "it leads to no server of the vendor's; it stays with the proxy";
                    let what = format!("location {}", location.args.join(" "));
                    into.inventory.add(
                        Place::line(&location.path, location.line),
                        what,
                        Disposition::Left,
                        note,
                    );
                }
            }
            self.read_locations(&location.children, &around, into);
        }
    }

    fn read_route(&self, around: &[&Flat], location: &Flat, pass: &Flat, into: &mut Installation) {
        let place = Place::line(&location.path, location.line);
        let title = format!("location {}", location.args.join(" "));
        let Some(path) = find_path(&location.args) else {
            let note = "a regular expression that this program does not read; write the tenant's \
                        PATH_PREFIX yourself";
            return into.inventory.add(place, title, Disposition::ByHand, note);
        };
        let Some((targets, uri)) = self.targets(&pass.args) else {
            let note = "its proxy_pass leads to no address that is written down; if a tenant is behind it, \
                        write its \
                        PATH_PREFIX yourself";
            return into.inventory.add(Place::line(&pass.path, pass.line), title, Disposition::ByHand, note);
        };
        let rewritten = find_rewrite(location, &path);
        let networks = self.find_networks(around);
        let mut details = self.details.clone();
        for one in around.iter().flat_map(|block| &block.children) {
            let is_read = ["proxy_pass", "location"].contains(&one.name.as_str())
                || (one.name == "rewrite" && rewritten.is_some());
            if !is_read {
                details.push(detail_of_location(one));
            }
        }
        if networks.is_some() {
            details.iter_mut().filter(|row| is_network_rule(&row.what)).for_each(|row| {
                (row.outcome, row.note) = (Disposition::Kept, "as ALLOW_FROM of the tenant".to_owned());
            });
        }
        for target in targets {
            into.routes.push(ProxyRoute {
                place: place.clone(),
                title: title.clone(),
                hosts: self.hosts.clone(),
                is_tls: self.is_tls,
                path: path.clone(),
                replaced_by: rewritten.clone().or_else(|| uri.clone()),
                target,
                networks: networks.clone(),
                details: details.clone(),
            });
        }
    }

    /// Returns the networks of `allow …; deny all;` in the innermost block that has such rules, if
    /// tenants' files can say the same.
    fn find_networks(&self, around: &[&Flat]) -> Option<Vec<IpNet>> {
        if !notation::is_field("allow_from") {
            return None;
        }
        let is_rule = |one: &&Flat| ["allow", "deny"].contains(&one.name.as_str());
        let blocks = around.iter().rev().copied().chain([self.block]);
        let rules = blocks.map(|block| block.children.iter().filter(is_rule).collect::<Vec<_>>());
        let rules = rules.into_iter().find(|rules| !rules.is_empty())?;
        let (last, allowed) = rules.split_last()?;
        let denies_the_rest = last.name == "deny" && last.args == ["all"];
        let network = |one: &&Flat| {
            let text = one.args.first().filter(|_| one.name == "allow")?;
            text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
        };
        allowed
            .iter()
            .map(network)
            .collect::<Option<Vec<_>>>()
            .filter(|list| denies_the_rest && !list.is_empty())
    }

    /// Returns where `proxy_pass` leads, and the path that replaces the location's.
    fn targets(&self, args: &[String]) -> Option<(Vec<ProxyTarget>, Option<String>)> {
        let url = args.first()?;
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
        let (authority, uri) = match rest.find('/') {
            Some(at) => (&rest[..at], Some(rest[at..].trim_end_matches('/').to_owned())),
            None => (rest, None),
        };
        if rest.contains('$') {
            return None;
        }
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let targets = match self.upstreams.get(authority) {
            Some(targets) => targets.clone(),
            None => vec![parse_target(authority)?],
        };
        (!targets.is_empty()).then_some((targets, uri))
    }
}

/// Returns the path of a location, without a slash at its end. Of a regular expression only a
/// literal beginning is understood: `~ ^/tenant-a(/|$)`.
fn find_path(args: &[String]) -> Option<String> {
    let trimmed = |path: &str| path.trim_end_matches('/').to_owned();
    match args {
        [path] if path.starts_with('/') => Some(trimmed(path)),
        [modifier, path] if modifier == "=" || modifier == "^~" => Some(trimmed(path)),
        [modifier, pattern] if modifier.starts_with('~') => {
            let pattern = pattern.strip_prefix('^')?.replace("\\.", "\u{0}");
            let is_literal = |c: char| c.is_ascii_alphanumeric() || "/_~-\u{0}".contains(c);
            let end = pattern.find(|c| !is_literal(c)).unwrap_or(pattern.len());
            let (literal, rest) = pattern.split_at(end);
            let ends = ["", "$", ".*", "(.*)", "(.*)$", "(/|$)", "(/.*)?$", "($|/)", "(?:/|$)", ".*$"];
            ends.contains(&rest).then(|| trimmed(&literal.replace('\u{0}', ".")))
        }
        _ => None,
    }
}

/// Returns the path that `rewrite ^/tenant-a/(.*)$ /$1 break` puts in the place of the location's.
fn find_rewrite(location: &Flat, path: &str) -> Option<String> {
    let rewrite = location.children.iter().find(|one| one.name == "rewrite")?;
    let (from, to) = (rewrite.args.first()?, rewrite.args.get(1)?);
    let from = from.trim_start_matches('^').replace("\\.", ".");
    let rest = from.strip_prefix(path)?;
    let is_all = ["/(.*)$", "/(.*)", "/?(.*)$", "/?(.*)", "(/.*)$", "(/.*)", "(/|$)(.*)"].contains(&rest);
    let replaced = to.trim_end_matches("$1").trim_end_matches("$2").trim_end_matches('/');
    (is_all && !replaced.contains('$')).then(|| replaced.to_owned())
}

fn is_network_rule(what: &str) -> bool {
    what.starts_with("allow ") || what.starts_with("deny ")
}

fn detail_of_server(one: &Flat) -> Option<InventoryRow> {
    let row = |outcome, note: &str| {
        Some(InventoryRow::new(Place::line(&one.path, one.line), make_title(one), outcome, note))
    };
    match one.name.as_str() {
        "server_name" => row(Disposition::Kept, "the hosts of its tenants"),
        "ssl_certificate" | "ssl_certificate_key" => row(
            Disposition::Replaced,
            "the gateway gets certificates itself (--tls acme), or `tenantd certs import` takes this one",
        ),
        "set_real_ip_from" | "real_ip_header" => {
            row(Disposition::NotNeeded, "the gateway sees its clients itself")
        }
        _ => Some(detail_of_location(one)),
    }
}

fn detail_of_location(one: &Flat) -> InventoryRow {
    let name = one.name.as_str();
    let (outcome, note) = if GUARDS.contains(&name) {
        let note = "it restricted who may call, and the tenant's files do not: keep it in front of the \
                    gateway, or \
                    give the tenant a login or api_keys";
        (Disposition::ByHand, note)
    } else if name == "return" && one.args.first().is_some_and(|code| code.starts_with("30")) {
        (Disposition::Replaced, "the gateway redirects plain HTTP itself (--listen-http)")
    } else if CHANGES.contains(&name) {
        (Disposition::ByHand, "the gateway has no such rule; find out what it was for")
    } else {
        (Disposition::NotNeeded, "the gateway has no proxy in front of it")
    };
    InventoryRow::new(Place::line(&one.path, one.line), make_title(one), outcome, note)
}

fn make_title(one: &Flat) -> String {
    let is_told =
        GUARDS.contains(&one.name.as_str()) || ["server_name", "rewrite"].contains(&one.name.as_str());
    match is_told {
        true => format!("{} {}", one.name, one.args.join(" ")).trim_end().to_owned(),
        false => one.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(text: &str) -> Installation {
        let mut installation = Installation::default();
        let directives = nginx::parse(text).expect("a configuration");
        let source = SourceFile { path: "/none/x.conf".into(), content: Content::Nginx(directives) };
        read(&[source], &mut installation);
        installation
    }

    #[test]
    fn locations_lead_to_ports() {
        let read = routes(
            "upstream b { server 127.0.0.1:8002; }\nserver {\n listen 443 ssl;\n server_name mcp.test \
             www.mcp.test;\n\
             location /tenant-a { proxy_pass http://127.0.0.1:8001; }\n\
             location ^~ /tenant-b/ { proxy_pass http://b/; proxy_buffering off; }\n\
             location ~ ^/c\\.d(/|$) { proxy_pass http://[::1]:8003; }\n\
             location /e { rewrite ^/e/(.*)$ /$1 break; proxy_pass http://localhost:8004; }\n\
             location ~ \\.php$ { proxy_pass http://127.0.0.1:9000; }\n}\n",
        );
        let told: Vec<_> = read
            .routes
            .iter()
            .map(|route| {
                let by = route.replaced_by.as_deref();
                (route.path.as_str(), by, route.target.to_string(), route.is_tls, route.hosts.len())
            })
            .collect();
        assert_eq!(
            told,
            [
                ("/tenant-a", None, "127.0.0.1:8001".to_owned(), true, 2),
                ("/tenant-b", Some(""), "127.0.0.1:8002".to_owned(), true, 2),
                ("/c.d", None, "[::1]:8003".to_owned(), true, 2),
                ("/e", Some(""), "localhost:8004".to_owned(), true, 2),
            ]
        );
        assert_eq!(read.inventory.rows().len(), 1, "{:?}", read.inventory);
    }

    #[test]
    fn patterns_of_includes_match_names() {
        assert!(matches("*.conf", "a.conf") && matches("*", "a") && matches("a*b*c", "a-b-c"));
        assert!(!matches("*.conf", "a.conf.bak") && !matches("a", "ab"));
    }
}
