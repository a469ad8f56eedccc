//! Traefik's rules (``Host(`h`) && PathPrefix(`/p`)``), as IngressRoutes and containers' labels have
//! them.

use std::collections::BTreeMap;

use super::installation::{Place, Route, Target};

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

/// Returns the routes that a container's labels make, which lead to `service`.
pub(super) fn of_labels(labels: &[(String, Option<String>, Place)], service: &str) -> Vec<Route> {
    #[derive(Default)]
    struct Router<'a> {
        is_tls: bool,
        rule: Option<(&'a str, &'a Place)>,
    }
    let mut routers: BTreeMap<&str, Router<'_>> = BTreeMap::new();
    for (name, value, place) in labels {
        let Some((router, key)) =
            name.strip_prefix("traefik.http.routers.").and_then(|rest| rest.split_once('.'))
        else {
            continue;
        };
        let router = routers.entry(router).or_default();
        match (key, value) {
            ("rule", Some(rule)) => router.rule = Some((rule, place)),
            ("entrypoints", Some(points)) => {
                router.is_tls |= points.contains("secure") || points.contains("443")
            }
            (key, _) => router.is_tls |= key.starts_with("tls"),
        }
    }
    let target = Target { host: service.to_owned(), port: None };
    let routes = routers.into_values().filter_map(|router| Some((router.is_tls, router.rule?)));
    let routes = routes.filter_map(|(is_tls, (rule, place))| Some((is_tls, parse(rule).ok()?, place)));
    routes.flat_map(|(is_tls, rule, place)| routes_of(&rule, is_tls, place, &target)).collect()
}

/// Returns one route for each path of a rule.
pub(super) fn routes_of(rule: &Rule, is_tls: bool, place: &Place, target: &Target) -> Vec<Route> {
    let root = [String::new()];
    let paths = if rule.paths.is_empty() { &root[..] } else { &rule.paths };
    let route = |path: &String| Route {
        place: place.clone(),
        title: format!("rule for {}", if path.is_empty() { "/" } else { path }),
        hosts: rule.hosts.clone(),
        is_tls,
        path: path.clone(),
        replaced_by: None,
        target: target.clone(),
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
