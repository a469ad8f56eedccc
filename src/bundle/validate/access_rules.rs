//! `access:`: which of the people who log in may call, and which tools.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::access::find_written;
use super::{Validation, login};
use crate::base::diagnostic::Diagnostic;
use crate::bundle::document::FoundValue;
use crate::bundle::placeholder::is_copy_artifact;
use crate::bundle::yaml::YamlValue;
use crate::spec::{AccessRules, HostName};

const MAX_ENTRIES: usize = 200;
const MAX_CHARS: usize = 120;

/// Returns the rules that everybody who logs in must meet.
pub(super) fn validate(case: &mut Validation<'_, '_>) -> AccessRules {
    if let Some(found) = find_written(case, "access").filter(|found| found.node.pairs().is_empty()) {
        empty(case, &found, "access");
    }
    at(case, &["access"])
}

/// Returns the further rules for callers of single tools, by the tools' listed names.
pub(super) fn validate_tools(case: &mut Validation<'_, '_>) -> BTreeMap<Arc<str>, AccessRules> {
    let mut tools = BTreeMap::new();
    for key in ["search", "get_context"] {
        let rules = at(case, &["access", "tools", key]);
        if !rules.is_empty() {
            let name = case.layers.find_text(&["tools", key, "name"]).unwrap_or(key);
            tools.insert(Arc::from(name), rules);
        }
    }
    tools
}

fn at(case: &mut Validation<'_, '_>, path: &[&str]) -> AccessRules {
    let under = |name| [path, &[name]].concat();
    AccessRules {
        roles: texts(case, &under("roles"), "roles", role),
        groups: ids(case, &under("groups"), "groups"),
        users: ids(case, &under("users"), "users"),
        email_domains: texts(case, &under("email_domains"), "email_domains", domain),
    }
}

/// Parses a list of Entra ids.
pub(super) fn ids(case: &mut Validation<'_, '_>, path: &[&str], name: &str) -> Vec<Arc<str>> {
    texts(case, path, name, id)
}

fn role(text: &str) -> Result<Arc<str>, &'static str> {
    match text.chars().count() <= MAX_CHARS && !text.contains(is_copy_artifact) {
        true => Ok(text.into()),
        false => Err(
            "a role is longer than 120 characters or has an invisible character that came along when copying",
        ),
    }
}

fn id(text: &str) -> Result<Arc<str>, &'static str> {
    let why = match text.contains('@') {
        true => "names an account by its address, which can change hands; write its object id",
        false => "has something that is no object id (8-4-4-4-12 hexadecimal digits)",
    };
    login::guid(text).ok_or(why)
}

fn domain(text: &str) -> Result<Arc<str>, &'static str> {
    let name = HostName::parse(text).filter(|name| name.as_str().contains('.') && !text.contains(['[', '*']));
    match name {
        Some(name) => Ok(name.as_str().into()),
        None => Err("has something that is no domain; write what stands behind the @, such as contoso.com"),
    }
}

/// Validates each entry of a list that is present. An empty list admits no account, so it closes
/// the tenant.
pub(super) fn texts(
    case: &mut Validation<'_, '_>,
    path: &[&str],
    name: &str,
    judge: fn(&str) -> Result<Arc<str>, &'static str>,
) -> Vec<Arc<str>> {
    let Some(found) = find_written_at(case, path) else { return Vec::new() };
    let entries = entries(&found);
    if entries.is_empty() || entries.len() > MAX_ENTRIES {
        empty(case, &found, name);
        return Vec::new();
    }
    let mut read = Vec::with_capacity(entries.len());
    let mut refused = None;
    for entry in entries {
        match judge(entry) {
            Ok(entry) if read.contains(&entry) => {}
            Ok(entry) => read.push(entry),
            Err(why) => refused = Some(why),
        }
    }
    if let Some(why) = refused {
        case.add_finding(
            Diagnostic::error("access-invalid", format!("{name} {why}"))
                .help("correct it; until then the tenant stays closed"),
            Some(found.location()),
        );
    }
    read
}

/// Returns the highest value at a path that is present, blank or not.
fn find_written_at<'a>(case: &Validation<'a, '_>, path: &[&str]) -> Option<FoundValue<'a>> {
    case.layers.0.iter().rev().find_map(|document| {
        let member = |node: Option<_>, name: &&str| {
            node.and_then(|node: &'a crate::bundle::yaml::YamlNode| node.member(name)).map(|(_, node)| node)
        };
        let node = path.iter().fold(Some(&document.root), member)?;
        Some(FoundValue { node, document })
    })
}

/// Returns the texts of a list, or of one text with commas.
pub(super) fn entries<'a>(found: &FoundValue<'a>) -> Vec<&'a str> {
    let texts: Vec<&str> = match &found.node.value {
        YamlValue::List(items) => items.iter().filter_map(|item| item.text()).collect(),
        _ if found.node.is_blank() => Vec::new(),
        _ => found.text().unwrap_or_default().split(',').map(str::trim).collect(),
    };
    texts.into_iter().filter(|text| !text.is_empty()).collect()
}

fn empty(case: &mut Validation<'_, '_>, found: &FoundValue<'_>, name: &str) {
    case.add_finding(
        Diagnostic::error(
            "access-empty",
            format!("{name} says nothing, or more than {MAX_ENTRIES} things; the tenant stays closed"),
        )
        .help("fill it in, or remove the line if nobody is to be kept out by it"),
        Some(found.location()),
    );
}
