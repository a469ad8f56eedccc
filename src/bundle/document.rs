//! A document of a tenant (export, overlay, `.env`) as written, and the values in it.

use super::fields::{self, FieldOwner};
use super::shape;
use super::source_text::{DocumentOrigin, SourceText};
use super::tree::{ConfigNode, ConfigValue};
use crate::base::diagnostic::{Diagnostic, Location, Report};

/// A parsed text.
pub(super) struct ConfigDocument {
    pub(super) source: SourceText,
    pub(super) root: ConfigNode,
    /// Whether something in it about who may call is wrong, or may be.
    pub(super) is_access_uncertain: bool,
}

/// A value and the document it is in.
#[derive(Clone, Copy)]
pub(super) struct FoundValue<'a> {
    pub(super) node: &'a ConfigNode,
    pub(super) document: &'a ConfigDocument,
}

impl<'a> FoundValue<'a> {
    pub(super) fn location(&self) -> Location {
        self.document.source.location_at(self.node.at)
    }

    /// Returns the text of a scalar.
    pub(super) fn text(&self) -> Option<&'a str> {
        self.node.text()
    }

    /// Returns the texts of a list, or of one text with commas, without blank ones.
    pub(super) fn list_items(&self) -> Vec<&'a str> {
        let mut items = self.list_items_as_written();
        items.retain(|text| !text.is_empty() && !self.node.is_blank());
        items
    }

    /// Returns the texts of a list, or of one text with commas, blank ones too.
    pub(super) fn list_items_as_written(&self) -> Vec<&'a str> {
        match &self.node.value {
            ConfigValue::List(items) => items.iter().filter_map(ConfigNode::text).collect(),
            _ => self.text().unwrap_or_default().split(',').map(str::trim).collect(),
        }
    }
}

impl ConfigDocument {
    /// Creates the document of a parsed text. Reports wrong names and shapes, and drops fields that
    /// this origin may not set.
    pub(super) fn new(source: SourceText, root: ConfigNode, report: &mut Report) -> Self {
        let mut document = Self { source, root, is_access_uncertain: false };
        if !matches!(document.root.value, ConfigValue::Map(_)) {
            report.push(document.not_a_mapping_error());
            document.root.value = ConfigValue::map(Vec::new());
            document.is_access_uncertain = true;
        }
        if document.source.origin == DocumentOrigin::Export {
            document.drop_operator_fields(report);
        }
        document.is_access_uncertain |= shape::check(&document.source, &document.root, report);
        document
    }

    fn not_a_mapping_error(&self) -> Diagnostic {
        Diagnostic::error("not-a-mapping", format!("this is {}, not \"name: value\" lines", self.root.kind()))
            .help("write one field per line, for instance search_url: https://…/nlp-search")
            .at(self.source.location_at(self.root.at))
    }

    /// Drops the fields that an export may not set. The vendor adds fields freely, so unknown ones
    /// and those that only operators may set are ignored, except for fields that decide who may
    /// call: to ignore those would open the tenant.
    fn drop_operator_fields(&mut self, report: &mut Report) {
        let ConfigValue::Map(pairs) = std::mem::replace(&mut self.root.value, ConfigValue::map(Vec::new()))
        else {
            return;
        };
        let mut kept = Vec::new();
        for (key, node) in pairs.iter().cloned() {
            match fields::lookup(fields::TENANT, &key.text).map(|(_, by)| by) {
                Some(FieldOwner::Vendor) if has_foreign_shape(&key.text, &node) => {}
                Some(FieldOwner::Vendor) => kept.push((key, node)),
                Some(FieldOwner::Guard) => {
                    self.is_access_uncertain = true;
                    report.push(
                        Diagnostic::error("export-guards", format!("an export cannot set {}", key.text))
                            .help("write it into the .yaml beside the zip, with the same name as the zip")
                            .at(self.source.location_at(key.at)),
                    );
                }
                Some(FieldOwner::Operator) => report.push(
                    Diagnostic::notice("export-ignored", format!("{} is ignored in an export", key.text))
                        .help(
                            "if you want it, write it into the .yaml beside the zip, with the same name as \
                               the zip",
                        )
                        .at(self.source.location_at(key.at)),
                ),
                None => {}
            }
        }
        self.root.value = ConfigValue::map(kept);
    }

    /// Returns the value at a path of names, unless it is blank.
    pub(super) fn find(&self, path: &[&str]) -> Option<FoundValue<'_>> {
        let node = path.iter().try_fold(&self.root, |node, name| node.member(name).map(|(_, node)| node))?;
        (!node.is_blank()).then_some(FoundValue { node, document: self })
    }
}

/// Whether the vendor uses a known name for something of its own.
fn has_foreign_shape(name: &str, node: &ConfigNode) -> bool {
    match name {
        "backend" => !matches!(node.value, ConfigValue::Map(_)),
        "dataset" | "display_name" | "description" => node.text().is_none(),
        _ => false,
    }
}
