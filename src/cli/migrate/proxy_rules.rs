//! Traefik's rules (``Host(`h`) && PathPrefix(`/p`)``), as IngressRoutes and containers' labels
//! have them.

use std::collections::BTreeMap;

use super::installation::{ProxyRoute, ProxyTarget};
use super::inventory::{Disposition, Inventory, Place};

pub(super) const UNKNOWN_MATCHER: &str = "this program does not read such a rule; write the tenant's \
                                          PATH_PREFIX yourself, \
                                          and find out whether the rule restricted who may call";
pub(super) const MIDDLEWARE: &str =
    "it changed or restricted requests; the gateway has no such rule: find out what it was for";

/// What a rule matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) hosts: Vec<String>,
    pub(super) paths: Vec<String>,
}

/// Parses a rule of `Host`, `PathPrefix` and `Path`, joined by `&&`, or by `||` within one kind.
///
/// # Errors
/// The matcher that is none of these.
pub(super) fn parse(rule: &str) -> Result<Rule, String> {
    let (mut read, mut rest) = (Rule::default(), rule);
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || "&|()".contains(c));
        if rest.is_empty() {
            return Ok(read);
        }
        let (name, behind) = rest.split_once('(').ok_or_else(|| rest.to_owned())?;
        let (inside, behind) = behind.split_once(')').ok_or_else(|| rest.to_owned())?;
        let texts = inside.split(',').map(|text| text.trim().trim_matches(['`', '"', '\'']).to_owned());
        match name.trim() {
            "Host" => read.hosts.extend(texts),
            "PathPrefix" | "Path" => {
                read.paths.extend(texts.map(|path| path.trim_end_matches('/').to_owned()))
            }
            other => return Err(other.to_owned()),
        }
        rest = behind;
    }
}

/// A router of a container's labels.
#[derive(Default)]
struct RouterLabels<'a> {
    is_tls: bool,
    rule: Option<(&'a str, &'a Place)>,
    middlewares: Option<&'a Place>,
}

/// Returns the routes that a container's labels make, which lead to `service`.
pub(super) fn routes_of_labels(
    labels: &[(String, Option<String>, Place)],
    service: &str,
    inventory: &mut Inventory,
) -> Vec<ProxyRoute> {
    let mut routers: BTreeMap<&str, RouterLabels<'_>> = BTreeMap::new();
    for (name, value, place) in labels {
        let rest = name.strip_prefix("traefik.http.routers.");
        let Some((router, key)) = rest.and_then(|rest| rest.split_once('.')) else { continue };
        let router = routers.entry(router).or_default();
        match (key, value) {
            ("rule", Some(rule)) => router.rule = Some((rule, place)),
            ("middlewares", _) => router.middlewares = Some(place),
            ("entrypoints", Some(points)) => {
                router.is_tls |= points.contains("secure") || points.contains("443")
            }
            (key, _) => router.is_tls |= key.starts_with("tls"),
        }
    }
    let target = ProxyTarget { host: service.to_owned(), port: None };
    let mut routes = Vec::new();
    for (name, router) in routers {
        let Some((rule, place)) = router.rule else { continue };
        match parse(rule) {
            Ok(rule) => routes.extend(make_routes(&rule, router.is_tls, place, &target)),
            Err(matcher) => {
                let what = format!("rule with {matcher}");
                inventory.add(place.clone(), what, Disposition::ByHand, UNKNOWN_MATCHER);
            }
        }
        if let Some(place) = router.middlewares {
            inventory.add(place.clone(), format!("middlewares of {name}"), Disposition::ByHand, MIDDLEWARE);
        }
    }
    routes
}

/// Returns one route for each path of a rule.
pub(super) fn make_routes(rule: &Rule, is_tls: bool, place: &Place, target: &ProxyTarget) -> Vec<ProxyRoute> {
    let root = [String::new()];
    let paths = if rule.paths.is_empty() { &root[..] } else { &rule.paths };
    let route = |path: &String| ProxyRoute {
        place: place.clone(),
        title: format!("rule for {}", if path.is_empty() { "/" } else { path }),
        hosts: rule.hosts.clone(),
        is_tls,
        path: path.clone(),
        replaced_by: None,
        target: target.clone(),
        networks: None,
        details: Vec::new(),
    };
    paths.iter().map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_hosts_and_paths() {
        let rule = parse("Host(`mcp.test`) && PathPrefix(`/tenant-a/`)").expect("a rule");
        assert_eq!(rule, Rule { hosts: vec!["mcp.test".into()], paths: vec!["/tenant-a".into()] });
        let rule = parse("Host(`a`, `b`) && (PathPrefix(`/x`) || Path(`/y`))").expect("a rule");
        assert_eq!((rule.hosts.len(), rule.paths.len()), (2, 2));
        assert_eq!(parse("Host(`a`) && HeadersRegexp(`x`, `y`)"), Err("HeadersRegexp".to_owned()));
        assert!(parse("Host(`a`").is_err());
    }
}
