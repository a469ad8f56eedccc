//! The objects of manifests, and how they refer to each other: by kind, namespace and name, and by
//! labels.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::bundle::{ConfigNode, ConfigValue};
use crate::cli::migrate::inventory::Place;

/// Returns the text of a member, else an empty one.
pub(super) fn text(node: &ConfigNode, name: &str) -> String {
    node.member(name).and_then(|(_, node)| node.text()).unwrap_or_default().to_owned()
}

/// Returns the items of a list that is a member.
pub(super) fn items<'a>(node: &'a ConfigNode, name: &str) -> Vec<&'a ConfigNode> {
    match node.member(name).map(|(_, node)| &node.value) {
        Some(ConfigValue::List(items)) => items.iter().collect(),
        _ => Vec::new(),
    }
}

/// Returns what is at a path of members.
pub(super) fn at<'a>(node: &'a ConfigNode, path: &[&str]) -> Option<&'a ConfigNode> {
    path.iter().try_fold(node, |node, name| node.member(name).map(|(_, node)| node))
}

/// An object of a manifest.
pub(super) struct Object {
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) root: ConfigNode,
    pub(super) place: Place,
}

/// A value of a ConfigMap or Secret. Has no `Debug`, since it may be a secret.
pub(super) struct DataValue {
    text: String,
    is_base64: bool,
    pub(super) line: usize,
}

impl DataValue {
    pub(super) fn as_bytes(&self) -> Result<Vec<u8>, String> {
        if !self.is_base64 {
            return Ok(self.text.clone().into_bytes());
        }
        let packed: String = self.text.chars().filter(|c| !c.is_whitespace()).collect();
        STANDARD.decode(packed).map_err(|_| "its value is not base64".to_owned())
    }

    pub(super) fn as_text(&self) -> Result<String, String> {
        String::from_utf8(self.as_bytes()?).map_err(|_| "its value is not text".to_owned())
    }
}

impl Object {
    /// Returns the pod of a workload.
    pub(super) fn pod(&self) -> Option<&ConfigNode> {
        match self.kind.as_str() {
            "Pod" => at(&self.root, &["spec"]),
            _ => at(&self.root, &["spec", "template", "spec"]),
        }
    }

    fn pod_labels(&self) -> Option<&ConfigNode> {
        match self.kind.as_str() {
            "Pod" => at(&self.root, &["metadata", "labels"]),
            _ => at(&self.root, &["spec", "template", "metadata", "labels"]),
        }
    }

    /// Returns the values of a ConfigMap or Secret; what `stringData` says replaces `data`.
    pub(super) fn data(&self) -> Vec<(String, DataValue)> {
        let mut found: Vec<(String, DataValue)> = Vec::new();
        for (name, is_base64) in
            [("data", self.kind == "Secret"), ("binaryData", true), ("stringData", false)]
        {
            for (key, node) in self.root.member(name).map_or(&[][..], |(_, data)| data.pairs()) {
                let text = node.text().unwrap_or_default().to_owned();
                found.retain(|(known, _)| *known != *key.text);
                found.push((key.text.to_string(), DataValue { text, is_base64, line: key.at.line }));
            }
        }
        found
    }
}

/// All objects that were given.
#[derive(Default)]
pub(super) struct Cluster(Vec<Object>);

impl Cluster {
    /// Adds a document; a `List` is its items.
    pub(super) fn add(&mut self, path: &Path, document: &ConfigNode) {
        let kind = text(document, "kind");
        if kind.ends_with("List") || (kind.is_empty() && document.member("items").is_some()) {
            return items(document, "items").into_iter().for_each(|item| self.add(path, item));
        }
        let metadata = document.member("metadata").map(|(_, metadata)| metadata);
        let of = |name: &str| metadata.map(|metadata| text(metadata, name)).unwrap_or_default();
        let line = document.pairs().first().map_or(document.at.line, |(key, _)| key.at.line);
        let namespace = of("namespace");
        self.0.push(Object {
            kind,
            namespace: if namespace.is_empty() { "default".to_owned() } else { namespace },
            name: of("name"),
            root: document.clone(),
            place: Place::line(path, line),
        });
    }

    pub(super) fn objects(&self) -> &[Object] {
        &self.0
    }

    pub(super) fn list_kinds<'a>(&'a self, kinds: &'a [&str]) -> impl Iterator<Item = &'a Object> {
        self.0.iter().filter(|object| kinds.contains(&object.kind.as_str()))
    }

    pub(super) fn find(&self, namespace: &str, kind: &str, name: &str) -> Option<&Object> {
        self.0
            .iter()
            .find(|object| object.kind == kind && object.namespace == namespace && object.name == name)
    }

    /// Returns the names under which Services lead to a workload: `namespace/name`.
    pub(super) fn find_services(&self, workload: &Object) -> Vec<String> {
        let Some(labels) = workload.pod_labels() else { return Vec::new() };
        let selects = |service: &&Object| {
            let selector = at(&service.root, &["spec", "selector"]).map_or(&[][..], ConfigNode::pairs);
            let has = |name: &str, value: &ConfigNode| {
                labels.member(name).is_some_and(|(_, label)| label.text() == value.text())
            };
            !selector.is_empty() && selector.iter().all(|(name, value)| has(&name.text, value))
        };
        let services =
            self.list_kinds(&["Service"]).filter(|service| service.namespace == workload.namespace);
        services.filter(selects).map(|service| target_name(&service.namespace, &service.name)).collect()
    }
}

/// Returns the name of a Service, by which routes and workloads are linked.
pub(super) fn target_name(namespace: &str, service: &str) -> String {
    format!("{namespace}/{service}")
}
