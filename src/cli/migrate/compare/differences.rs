//! How two servers' answers differ, and what of it clients notice. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::questions::Answers;
use crate::base::text::clip;

/// How many characters of a value are shown.
const SHOWN: usize = 90;
/// Members of discovery documents on which registered clients and the app registration rely.
const MEMBERS: [&str; 8] = [
    "authorization_endpoint",
    "authorization_servers",
    "issuer",
    "registration_endpoint",
    "resource",
    "scopes_supported",
    "token_endpoint",
    "token_endpoint_auth_methods_supported",
];

/// Whether a client could notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    Matters,
    Minor,
}

/// One difference.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) weight: Weight,
    pub(super) what: String,
    pub(super) old: String,
    pub(super) new: String,
}

/// All that was compared.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) differences: Vec<Difference>,
    pub(super) notes: Vec<String>,
    pub(super) compared: usize,
    pub(super) changed: usize,
}

impl Comparison {
    fn add(
        &mut self,
        weight: Weight,
        what: impl Into<String>,
        old: impl Into<String>,
        new: impl Into<String>,
    ) {
        self.differences.push(Difference { weight, what: what.into(), old: old.into(), new: new.into() });
    }

    /// Compares one answer, in which `compare` adds the differences.
    fn answer(&mut self, compare: impl FnOnce(&mut Self)) {
        let before = self.differences.len();
        compare(self);
        self.compared += 1;
        self.changed += usize::from(self.differences.len() > before);
    }
}

/// Compares the answers of two servers.
pub(super) fn between(old: &Answers, new: &Answers) -> Comparison {
    let mut found = Comparison::default();
    for (path, old) in &old.discovery {
        // A root has fewer places for documents.
        let Some(new) = new.discovery.get(path) else { continue };
        found.answer(|found| compare_documents(path, old.as_ref(), new.as_ref(), found));
    }
    found.answer(|found| {
        if let (Some(old), Some(new)) = (old.without_token, new.without_token)
            && old != new
        {
            found.add(Weight::Matters, "without a token", old.to_string(), new.to_string());
        }
    });
    if let (Some(old), Some(new)) = (&old.initialize, &new.initialize) {
        found.answer(|found| compare_initialize(old, new, found));
    }
    if let (Some(old), Some(new)) = (&old.tools, &new.tools) {
        found.answer(|found| compare_tools(old, new, found));
    }
    for (which, refusal, flag) in
        [("old", &old.refusal, "--token-file"), ("new", &new.refusal, "--with-token-file")]
    {
        if let Some(why) = refusal {
            found
                .notes
                .push(format!("tools were not compared: the {which} server: {why}; {flag} gives it a token"));
        }
    }
    found
}

fn compare_documents(path: &str, old: Option<&Value>, new: Option<&Value>, found: &mut Comparison) {
    match (old, new) {
        (None, None) => {}
        (Some(_), None) => found.add(Weight::Matters, path, "a document", "none"),
        (None, Some(_)) => found.add(Weight::Minor, path, "none", "a document"),
        (Some(old), Some(new)) => {
            for name in members(old).union(&members(new)) {
                let (old, new) = (old.get(name), new.get(name));
                if !is_same(old, new) {
                    let weight =
                        if MEMBERS.contains(name) && old.is_some() { Weight::Matters } else { Weight::Minor };
                    found.add(weight, format!("{path}: {name}"), show(old), show(new));
                }
            }
        }
    }
}

fn compare_initialize(old: &Value, new: &Value, found: &mut Comparison) {
    let of = |value: &'static str| (old.pointer(value), new.pointer(value));
    for path in ["/serverInfo/name", "/protocolVersion", "/instructions"] {
        let (old, new) = of(path);
        if old != new {
            found.add(
                Weight::Minor,
                format!("initialize: {}", path.trim_start_matches('/')),
                show(old),
                show(new),
            );
        }
    }
    let (old, new) = of("/capabilities");
    let (old, new) = (old.map(members).unwrap_or_default(), new.map(members).unwrap_or_default());
    for name in old.difference(&new) {
        found.add(Weight::Matters, format!("initialize: capability {name}"), "yes", "no");
    }
    for name in new.difference(&old) {
        found.add(Weight::Minor, format!("initialize: capability {name}"), "no", "yes");
    }
}

fn compare_tools(old: &BTreeMap<String, Value>, new: &BTreeMap<String, Value>, found: &mut Comparison) {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        match (old.get(name), new.get(name)) {
            (Some(_), None) => found.add(Weight::Matters, format!("tool {name}"), "yes", "no"),
            (None, Some(_)) => found.add(Weight::Minor, format!("tool {name}"), "no", "yes"),
            (Some(old), Some(new)) => compare_tool(name, old, new, found),
            (None, None) => {}
        }
    }
}

fn compare_tool(name: &str, old: &Value, new: &Value, found: &mut Comparison) {
    for member in ["title", "description", "outputSchema", "annotations"] {
        let (old, new) = (old.get(member), new.get(member));
        if !is_same(old, new) {
            found.add(Weight::Minor, format!("tool {name}: {member}"), show(old), show(new));
        }
    }
    let inputs = |tool: &Value| {
        tool.pointer("/inputSchema/properties")
            .map(members)
            .unwrap_or_default()
            .into_iter()
            .map(str::to_owned)
            .collect::<BTreeSet<_>>()
    };
    let (old_inputs, new_inputs) = (inputs(old), inputs(new));
    for input in old_inputs.difference(&new_inputs) {
        found.add(Weight::Matters, format!("tool {name}: argument {input}"), "yes", "no");
    }
    for input in new_inputs.difference(&old_inputs) {
        found.add(Weight::Minor, format!("tool {name}: argument {input}"), "no", "yes");
    }
    for input in old_inputs.intersection(&new_inputs) {
        let at = format!("/inputSchema/properties/{}", input.replace('~', "~0").replace('/', "~1"));
        let kind = |tool: &Value| tool.pointer(&at).and_then(|schema| schema.get("type")).cloned();
        if kind(old) != kind(new) {
            let what = format!("tool {name}: type of {input}");
            found.add(Weight::Matters, what, show(kind(old).as_ref()), show(kind(new).as_ref()));
        }
    }
    let (old, new) = (old.pointer("/inputSchema/required"), new.pointer("/inputSchema/required"));
    if !is_same(old, new) {
        found.add(Weight::Matters, format!("tool {name}: required arguments"), show(old), show(new));
    }
}

fn members(value: &Value) -> BTreeSet<&str> {
    value.as_object().into_iter().flat_map(|object| object.keys()).map(String::as_str).collect()
}

/// Whether two values mean the same: the order of a list's texts does not matter.
fn is_same(old: Option<&Value>, new: Option<&Value>) -> bool {
    let sorted = |value: &Value| {
        let mut texts: Vec<_> =
            value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>()?;
        texts.sort();
        Some(texts)
    };
    old == new || matches!((old.and_then(sorted), new.and_then(sorted)), (Some(old), Some(new)) if old == new)
}

fn show(value: Option<&Value>) -> String {
    match value {
        None => "-".to_owned(),
        Some(Value::String(text)) => clip(text, SHOWN),
        Some(other) => clip(&other.to_string(), SHOWN),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answers(issuer: &str, tools: Value) -> Answers {
        let document = json!({"issuer": issuer, "scopes_supported": ["a", "b"]});
        let tools = tools.as_array().expect("a list").iter();
        Answers {
            discovery: BTreeMap::from([("/.well-known/x".to_owned(), Some(document))]),
            initialize: Some(json!({"capabilities": {"tools": {}}, "serverInfo": {"name": "x"}})),
            tools: Some(
                tools.map(|tool| (tool["name"].as_str().expect("a name").to_owned(), tool.clone())).collect(),
            ),
            ..Answers::default()
        }
    }

    fn told(old: &Answers, new: &Answers) -> Vec<(Weight, String)> {
        between(old, new).differences.into_iter().map(|one| (one.weight, one.what)).collect()
    }

    #[test]
    fn equal_servers_differ_in_nothing() {
        let tool = json!([{"name": "search", "inputSchema": {"properties": {"query": {"type": "string"}}}}]);
        let same = between(&answers("i", tool.clone()), &answers("i", tool));
        assert_eq!((same.differences.len(), same.compared, same.changed), (0, 4, 0));
    }

    #[test]
    fn what_clients_rely_on_matters() {
        let schema = |properties: Value| json!({"properties": properties, "required": ["query"]});
        let old = json!([
            {"name": "ask", "inputSchema": {}},
            {"name": "search", "description": "a", "inputSchema": schema(json!({"query": {"type": "string"}, "top": {}}))},
        ]);
        let new = json!([
            {"name": "search", "description": "b", "inputSchema": schema(json!({"query": {"type": "integer"}, "limit": {}}))},
        ]);
        let expected = [
            (Weight::Matters, "/.well-known/x: issuer"),
            (Weight::Matters, "tool ask"),
            (Weight::Minor, "tool search: description"),
            (Weight::Matters, "tool search: argument top"),
            (Weight::Minor, "tool search: argument limit"),
            (Weight::Matters, "tool search: type of query"),
        ];
        let expected = expected.map(|(weight, what)| (weight, what.to_owned()));
        assert_eq!(told(&answers("i", old), &answers("j", new)), expected);
    }

    #[test]
    fn lists_of_texts_have_no_order() {
        let (a, b) = (json!(["x", "y"]), json!(["y", "x"]));
        assert!(
            is_same(Some(&a), Some(&b))
                && !is_same(Some(&a), None)
                && !is_same(Some(&json!([1, 2])), Some(&json!([2, 1])))
        );
    }
}
