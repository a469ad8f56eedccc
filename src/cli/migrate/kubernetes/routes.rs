//! The routes of a cluster: Ingresses, and Traefik's IngressRoutes.

use ipnet::IpNet;

use super::objects::{Cluster, Object, at, items, target_name, text};
use crate::bundle::{ConfigKey, ConfigNode, notation};
use crate::cli::migrate::installation::{Installation, ProxyRoute, ProxyTarget};
use crate::cli::migrate::inventory::{Disposition, InventoryRow, Place};
use crate::cli::migrate::proxy_rules;

/// How the annotation ends that lists the only networks of callers.
const SOURCE_RANGE: &str = "list-source-range";
/// Annotations that restrict who may call, by a part of their names.
const GUARDS: &[&str] = &["auth-", "whitelist", "allowlist", "denylist", "limit-"];

/// Reads all rules.
pub(super) fn read(cluster: &Cluster, into: &mut Installation) {
    for object in cluster.list_kinds(&["Ingress"]) {
        read_ingress(object, into);
    }
    for object in cluster.list_kinds(&["IngressRoute"]) {
        read_ingress_route(object, into);
    }
}

fn read_ingress(object: &Object, into: &mut Installation) {
    let Some(spec) = at(&object.root, &["spec"]) else { return };
    let details = list_details(object);
    let rewrite = annotation(object, "rewrite-target");
    for rule in items(spec, "rules") {
        let hosts: Vec<String> =
            Some(text(rule, "host")).filter(|host| !host.is_empty()).into_iter().collect();
        for path in at(rule, &["http"]).map(|http| items(http, "paths")).unwrap_or_default() {
            let place = Place::line(&object.place.file, path.at.line);
            let (written, service) = (text(path, "path"), at(path, &["backend", "service"]));
            let Some(service) = service.map(|service| text(service, "name")) else { continue };
            let title = format!("path {written} of Ingress {}", object.name);
            // A pattern with groups rewrites: `/tenant-a(/|$)(.*)` with the target `/$2`.
            let (literal, pattern) = written.split_at(written.find('(').unwrap_or(written.len()));
            if rewrite.is_some()
                && !pattern.is_empty()
                && !rewrite.as_deref().is_some_and(|to| to == "/$2" || to == "/$1")
            {
                let note = "its path is rewritten in a manner that this program does not read; write the \
                            tenant's \
                            PATH_PREFIX yourself";
                into.inventory.add(place, title, Disposition::ByHand, note);
                continue;
            }
            into.routes.push(ProxyRoute {
                place,
                title,
                hosts: hosts.clone(),
                // Whatever ends TLS in front of an Ingress, hosted clients require https.
                is_tls: true,
                path: literal.trim_end_matches('/').to_owned(),
                replaced_by: rewrite.as_ref().map(|to| {
                    to.trim_end_matches("$2").trim_end_matches("$1").trim_end_matches('/').to_owned()
                }),
                target: ProxyTarget { host: target_name(&object.namespace, &service), port: None },
                networks: find_networks(object),
                details: details.clone(),
            });
        }
    }
}

fn read_ingress_route(object: &Object, into: &mut Installation) {
    let Some(spec) = at(&object.root, &["spec"]) else { return };
    let points: Vec<_> =
        items(spec, "entryPoints").iter().filter_map(|point| point.text()).map(str::to_owned).collect();
    let is_tls = spec.member("tls").is_some() || points.iter().any(|point| point.contains("secure"));
    for route in items(spec, "routes") {
        let place = Place::line(&object.place.file, route.at.line);
        let written = text(route, "match");
        let rule = match proxy_rules::parse(&written) {
            Ok(rule) => rule,
            Err(matcher) => {
                into.inventory.add(
                    place,
                    format!("rule with {matcher}"),
                    Disposition::ByHand,
                    proxy_rules::UNKNOWN_MATCHER,
                );
                continue;
            }
        };
        let mut details = list_details(object);
        for middleware in items(route, "middlewares") {
            details.push(InventoryRow::new(
                Place::line(&object.place.file, middleware.at.line),
                format!("middleware {}", text(middleware, "name")),
                Disposition::ByHand,
                proxy_rules::MIDDLEWARE,
            ));
        }
        for service in items(route, "services") {
            let namespace = Some(text(service, "namespace")).filter(|name| !name.is_empty());
            let namespace = namespace.unwrap_or_else(|| object.namespace.clone());
            let target = ProxyTarget { host: target_name(&namespace, &text(service, "name")), port: None };
            let made = proxy_rules::make_routes(&rule, is_tls, &place, &target);
            into.routes
                .extend(made.into_iter().map(|route| ProxyRoute { details: details.clone(), ..route }));
        }
    }
}

fn annotations(object: &Object) -> &[(ConfigKey, ConfigNode)] {
    at(&object.root, &["metadata", "annotations"]).map_or(&[][..], ConfigNode::pairs)
}

fn annotation(object: &Object, ending: &str) -> Option<String> {
    let found = annotations(object).iter().find(|(key, _)| key.text.ends_with(ending));
    found.and_then(|(_, node)| node.text()).map(str::to_owned)
}

/// Returns the networks of `whitelist-source-range`, if tenants' files can say the same.
fn find_networks(object: &Object) -> Option<Vec<IpNet>> {
    let list = annotation(object, SOURCE_RANGE).filter(|_| notation::is_field("allow_from"))?;
    list.split(',').map(|network| network.trim().parse().ok()).collect()
}

fn list_details(object: &Object) -> Vec<InventoryRow> {
    let row = |(key, _): &(ConfigKey, ConfigNode)| {
        let name = key.text.rsplit('/').next().unwrap_or_default();
        let is_guard = GUARDS.iter().any(|guard| name.contains(guard));
        let is_kept = name.ends_with(SOURCE_RANGE) && find_networks(object).is_some();
        let (outcome, note) = match is_guard {
            true if is_kept => (Disposition::Kept, "as ALLOW_FROM of the tenant"),
            true => {
                let note = "it restricted who may call, and the tenant's files do not: keep it in front of \
                            the gateway, or \
                            give the tenant a login or api_keys";
                (Disposition::ByHand, note)
            }
            false => (Disposition::NotNeeded, "the gateway has no proxy in front of it"),
        };
        InventoryRow::new(Place::line(&object.place.file, key.at.line), &*key.text, outcome, note)
    };
    annotations(object).iter().map(row).collect()
}
