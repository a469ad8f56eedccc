//! `access:`: which of the people who log in may call, and which tools.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::guid::parse_guid;
use super::validation::Validation;
use crate::base::diagnostic::Diagnostic;
use crate::bundle::document::FoundValue;
use crate::bundle::placeholder::is_copy_artifact;
use crate::spec::{AccessRules, AllowFrom, HostName};

const MAX_ENTRIES: usize = 200;
const MAX_ROLE_CHARS: usize = 120;

/// Returns the rules that everybody who logs in must meet.
pub(super) fn validate(validation: &mut Validation<'_, '_>) -> AccessRules {
    if let Some(found) = validation.find_written(&["access"]).filter(|found| found.node.pairs().is_empty()) {
        reject_length(validation, &found, "access");
    }
    read_rules(validation, &["access"])
}

/// Returns the further rules for callers of single tools, by the tools' listed names.
pub(super) fn validate_tools(validation: &mut Validation<'_, '_>) -> BTreeMap<Arc<str>, AccessRules> {
    let mut tools = BTreeMap::new();
    for key in ["search", "get_context"] {
        let rules = read_rules(validation, &["access", "tools", key]);
        if !rules.is_empty() {
            let name = validation.layers.find_text(&["tools", key, "name"]).unwrap_or(key);
            tools.insert(Arc::from(name), rules);
        }
    }
    tools
}

/// Returns the networks from which the tenant answers. Like the rules, a list that cannot be read
/// closes the tenant.
pub(super) fn read_allow_from(validation: &mut Validation<'_, '_>) -> AllowFrom {
    match validation.find_written(&["allow_from"]) {
        Some(_) => AllowFrom::only(read_list(validation, &["allow_from"], "allow_from", parse_network)),
        None => AllowFrom::default(),
    }
}

fn read_rules(validation: &mut Validation<'_, '_>, path: &[&str]) -> AccessRules {
    let under = |name| [path, &[name]].concat();
    AccessRules {
        roles: read_list(validation, &under("roles"), "roles", parse_role),
        groups: read_guids(validation, &under("groups"), "groups"),
        users: read_guids(validation, &under("users"), "users"),
        email_domains: read_list(validation, &under("email_domains"), "email_domains", parse_domain),
    }
}

/// Returns the ids of Entra in a list.
pub(super) fn read_guids(validation: &mut Validation<'_, '_>, path: &[&str], name: &str) -> Vec<Arc<str>> {
    read_list(validation, path, name, parse_id)
}

fn parse_network(text: &str) -> Result<IpNet, &'static str> {
    let lone = || text.parse::<IpAddr>().map(IpNet::from);
    let network = text.parse::<IpNet>().or_else(|_| lone());
    network.map(|network| network.trunc()).map_err(|_| {
        "has a value that is not a network; write addresses or networks such as 10.0.0.0/8 or 2001:db8::/32"
    })
}

fn parse_role(text: &str) -> Result<Arc<str>, &'static str> {
    match text.chars().count() <= MAX_ROLE_CHARS && !text.contains(is_copy_artifact) {
        true => Ok(text.into()),
        false => Err("a role is longer than 120 characters or has an invisible character from copying"),
    }
}

fn parse_id(text: &str) -> Result<Arc<str>, &'static str> {
    let why = match text.contains('@') {
        true => "names an account by its address, which can be given to another person; write its object id",
        false => "has a value that is not an object id (8-4-4-4-12 hexadecimal digits)",
    };
    parse_guid(text).ok_or(why)
}

fn parse_domain(text: &str) -> Result<Arc<str>, &'static str> {
    let name = HostName::parse(text).filter(|name| name.as_str().contains('.') && !text.contains(['[', '*']));
    match name {
        Some(name) => Ok(name.as_str().into()),
        None => Err("has a value that is not a domain; write the part after the @, such as contoso.com"),
    }
}

/// Returns the valid entries of a list that is present. An empty list admits no account, so it
/// closes the tenant.
fn read_list<T: PartialEq>(
    validation: &mut Validation<'_, '_>,
    path: &[&str],
    name: &str,
    parse: fn(&str) -> Result<T, &'static str>,
) -> Vec<T> {
    let Some(found) = validation.find_written(path) else { return Vec::new() };
    let entries = found.list_items();
    if entries.is_empty() || entries.len() > MAX_ENTRIES {
        reject_length(validation, &found, name);
        return Vec::new();
    }
    let mut read = Vec::with_capacity(entries.len());
    let mut rejection = None;
    for entry in entries {
        match parse(entry) {
            Ok(entry) if read.contains(&entry) => {}
            Ok(entry) => read.push(entry),
            Err(why) => rejection = Some(why),
        }
    }
    if let Some(why) = rejection {
        validation.add_finding(
            Diagnostic::error("access-invalid", format!("{name} {why}"))
                .help("correct it; until then the tenant stays closed"),
            Some(found.location()),
        );
    }
    read
}

fn reject_length(validation: &mut Validation<'_, '_>, found: &FoundValue<'_>, name: &str) {
    validation.add_finding(
        Diagnostic::error(
            "access-empty",
            format!("{name} is empty or has more than {MAX_ENTRIES} items; the tenant stays closed"),
        )
        .help("fill it in, or remove the line if it should not restrict anybody"),
        Some(found.location()),
    );
}
