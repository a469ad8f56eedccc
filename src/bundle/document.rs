//! The documents of a tenant (export, overlay, `.env`) as written, and the layers they form.
//!
//! Owns precedence (later layers win, key by key inside mappings; a blank value counts as unset),
//! and the check of every name and shape against [`fields`].

use std::cmp::Ordering;
use std::path::PathBuf;

use super::excerpt;
use super::fields::{self, Field, FieldOwner, FieldShape};
use super::yaml::{Position, SyntaxError, ValueStyle, YamlNode, YamlValue};
use crate::base::diagnostic::{Diagnostic, Location, Report};

const MAX_FINDINGS: usize = 50;

/// Where a document comes from; decides how strictly it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DocumentOrigin {
    /// The vendor's YAML. Unknown names are kept and ignored; it may not refer to this machine's
    /// files.
    Export,
    /// The operator's YAML beside an export. Unknown names are errors.
    Overlay,
    /// The operator's YAML alone.
    Standalone,
    /// The `.env`.
    Env,
}

/// A text and its name: enough to point at a place in it.
#[derive(Clone)]
pub(super) struct SourceText {
    pub(super) origin: DocumentOrigin,
    pub(super) file: PathBuf,
    pub(super) entry: Option<String>,
    pub(super) text: String,
}

/// A parsed text.
pub(super) struct ConfigDocument {
    pub(super) source: SourceText,
    pub(super) root: YamlNode,
    /// Whether something in it about who may call is wrong, or may be.
    pub(super) is_access_uncertain: bool,
}

/// A value and the document it is in.
#[derive(Clone, Copy)]
pub(super) struct FoundValue<'a> {
    pub(super) node: &'a YamlNode,
    pub(super) document: &'a ConfigDocument,
}

impl SourceText {
    /// Returns a location with its line, secrets hidden.
    pub(super) fn location_at(&self, mark: Position) -> Location {
        Location {
            line: Some(mark.line),
            column: Some(mark.column),
            excerpt: excerpt::line_excerpt(&self.text, mark.line),
            ..self.location()
        }
    }

    /// Returns the location of the whole text.
    pub(super) fn location(&self) -> Location {
        Location { entry: self.entry.clone(), ..Location::file(&self.file) }
    }

    /// Turns a fault of the text into a finding.
    pub(super) fn to_diagnostic(&self, fault: SyntaxError) -> Diagnostic {
        Diagnostic::error(fault.code, fault.message).help(fault.help).at(self.location_at(fault.at))
    }
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
            YamlValue::List(items) => items.iter().filter_map(YamlNode::text).collect(),
            _ => self.text().unwrap_or_default().split(',').map(str::trim).collect(),
        }
    }
}

impl ConfigDocument {
    /// Creates the document of a parsed text. Reports wrong names and shapes, and drops fields that
    /// this origin may not set.
    pub(super) fn new(source: SourceText, root: YamlNode, report: &mut Report) -> Self {
        let mut document = Self { source, root, is_access_uncertain: false };
        if !matches!(document.root.value, YamlValue::Map(_)) {
            report.push(document.not_a_mapping_error());
            document.root.value = YamlValue::map(Vec::new());
            document.is_access_uncertain = true;
        }
        if document.source.origin == DocumentOrigin::Export {
            document.drop_operator_fields(report);
        }
        let mut shapes = ShapeChecker { source: &document.source, report, findings: 0, guard_findings: 0 };
        document.is_access_uncertain |=
            shapes.has_odd_style(&document.root, FieldShape::Map(fields::TENANT), "this document");
        shapes.check_map(&document.root, fields::TENANT, "");
        document.is_access_uncertain |= shapes.guard_findings > 0;
        document
    }

    fn not_a_mapping_error(&self) -> Diagnostic {
        Diagnostic::error("not-a-mapping", format!("this is {}, not \"name: value\" lines", self.root.kind()))
            .help("write one field a line, for instance search_url: https://…/nlp-search")
            .at(self.source.location_at(self.root.at))
    }

    /// Drops the fields that an export may not set. The vendor adds fields freely, so unknown ones
    /// and those that only operators may set are ignored, except for fields that decide who may
    /// call: to ignore those would open the tenant.
    fn drop_operator_fields(&mut self, report: &mut Report) {
        let YamlValue::Map(pairs) = std::mem::replace(&mut self.root.value, YamlValue::map(Vec::new()))
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
                        Diagnostic::error("export-guards", format!("an export cannot say {}", key.text))
                            .help("put it in the .yaml beside the zip, named like the zip")
                            .at(self.source.location_at(key.at)),
                    );
                }
                Some(FieldOwner::Operator) => report.push(
                    Diagnostic::notice("export-ignored", format!("{} is ignored in an export", key.text))
                        .help("if it is meant, put it in the .yaml beside the zip, named like the zip")
                        .at(self.source.location_at(key.at)),
                ),
                None => {}
            }
        }
        self.root.value = YamlValue::map(kept);
    }

    /// Returns the value at a path of names, unless it is blank.
    pub(super) fn find(&self, path: &[&str]) -> Option<FoundValue<'_>> {
        let node = path.iter().try_fold(&self.root, |node, name| node.member(name).map(|(_, node)| node))?;
        (!node.is_blank()).then_some(FoundValue { node, document: self })
    }
}

/// Whether the vendor uses a known name for something of its own.
fn has_foreign_shape(name: &str, node: &YamlNode) -> bool {
    match name {
        "backend" => !matches!(node.value, YamlValue::Map(_)),
        "dataset" | "display_name" | "description" => node.text().is_none(),
        _ => false,
    }
}

/// All documents of a tenant, lowest precedence first.
pub(super) struct Layers(pub(super) Vec<ConfigDocument>);

impl Layers {
    /// Returns the highest value at a path that is not blank.
    pub(super) fn find(&self, path: &[&str]) -> Option<FoundValue<'_>> {
        self.0.iter().rev().find_map(|document| document.find(path))
    }

    /// Returns the highest value of a secret, given directly or as `x_file`.
    pub(super) fn find_secret(&self, name: &str) -> Option<FoundValue<'_>> {
        let file = format!("{name}_file");
        self.0.iter().rev().find_map(|document| document.find(&[name]).or_else(|| document.find(&[&file])))
    }

    pub(super) fn find_text(&self, path: &[&str]) -> Option<&str> {
        self.find(path).and_then(|found| found.text())
    }

    pub(super) fn find_bool(&self, path: &[&str]) -> Option<bool> {
        self.find_text(path).and_then(fields::flag)
    }

    /// Returns the location for findings about something missing: the first document.
    pub(super) fn location(&self) -> Option<Location> {
        self.0.first().map(|document| document.source.location())
    }

    /// Returns the names in the mappings at a path, lowest first, each once, with its highest value
    /// that is not blank.
    pub(super) fn find_named<'a>(&'a self, path: &[&str]) -> Vec<(&'a str, FoundValue<'a>)> {
        let mut names: Vec<(&str, FoundValue<'_>)> = Vec::new();
        for document in &self.0 {
            let Some(map) = document.find(path) else { continue };
            for (key, node) in map.node.pairs().iter().filter(|(_, node)| !node.is_blank()) {
                let found = FoundValue { node, document };
                match names.iter_mut().find(|(name, _)| *name == &*key.text) {
                    Some(earlier) => earlier.1 = found,
                    None => names.push((&key.text, found)),
                }
            }
        }
        names
    }
}

/// The walk that checks names and shapes.
struct ShapeChecker<'a> {
    source: &'a SourceText,
    report: &'a mut Report,
    findings: usize,
    /// The number of findings that are about who may call.
    guard_findings: usize,
}

impl ShapeChecker<'_> {
    fn check_map(&mut self, node: &YamlNode, fields: &'static [Field], path: &str) {
        for (key, value) in node.pairs() {
            let name = format!("{path}{}", key.text);
            let before = self.findings;
            match fields::lookup(fields, &key.text) {
                Some((shape, _)) => self.check_value(value, shape, &name),
                None => self.report_unknown_key(fields, path, key),
            }
            if path.is_empty() && fields::nearest(fields, &key.text).is_some_and(fields::is_guard) {
                self.guard_findings += self.findings - before;
            }
        }
    }

    fn check_value(&mut self, node: &YamlNode, shape: FieldShape, name: &str) {
        if self.has_odd_style(node, shape, name) || node.is_blank() {
            return;
        }
        let expected = match (&node.value, shape) {
            (_, FieldShape::Free) => return self.check_free(node, name),
            (YamlValue::Map(_), FieldShape::Map(fields)) => {
                return self.check_map(node, fields, &format!("{name}."));
            }
            (YamlValue::Map(pairs), FieldShape::Named(shape)) => {
                return pairs.iter().for_each(|(key, node)| {
                    self.check_value(node, *shape, &format!("{name}.{}", displayable_name(&key.text)))
                });
            }
            (YamlValue::List(items), FieldShape::List(shape)) => {
                return items
                    .iter()
                    .enumerate()
                    .for_each(|(i, item)| self.check_item(item, *shape, &format!("{name}[{i}]")));
            }
            (YamlValue::List(items), FieldShape::TextList)
                if items.iter().all(|item| item.text().is_some()) =>
            {
                let amiss = |(i, item): (usize, &YamlNode)| {
                    _ = self.has_odd_style(item, FieldShape::Text, &format!("{name}[{i}]"))
                };
                return items.iter().enumerate().for_each(amiss);
            }
            (YamlValue::Scalar { text, .. }, shape) => match check_scalar(text.trim(), shape) {
                None => return,
                Some(expected) => expected,
            },
            (_, shape) => describe_expected(shape),
        };
        let message = format!("{name} must be {expected}{}", describe_actual(node));
        self.add_finding(Diagnostic::error("wrong-type", message).help("correct this value"), node.at);
    }

    /// Reports a value whose notation only other tools understand. In an export's free-form fields,
    /// which are never read, this does not matter.
    fn has_odd_style(&mut self, node: &YamlNode, shape: FieldShape, name: &str) -> bool {
        let nobody_reads_it =
            self.source.origin == DocumentOrigin::Export && matches!(shape, FieldShape::Free);
        let found = match node.style {
            ValueStyle::Normal | ValueStyle::Literal => return false,
            _ if nobody_reads_it => return false,
            ValueStyle::Tagged => {
                let what = format!("{name} has a tag (!…) of another tool, which means nothing here");
                Diagnostic::error("yaml-tag", what).help(
                    "write the value itself, in quotes if it begins with !; a secret can also be given as a file (…_file) or as ${TENANT_…}",
                )
            }
            ValueStyle::Valueless => {
                let what = format!("{name} is empty: what begins with &, ! or # is no value");
                Diagnostic::error("yaml-empty", what).help(
                    "put the value in quotes; or remove what stands behind the colon, if it is to be empty",
                )
            }
        };
        self.add_finding(found, node.at);
        true
    }

    /// Reports tags in a free-form value of an operator's file; its contents are validated
    /// elsewhere.
    fn check_free(&mut self, node: &YamlNode, name: &str) {
        if self.source.origin == DocumentOrigin::Export {
            return;
        }
        let inside = match &node.value {
            YamlValue::Scalar { .. } => return,
            YamlValue::List(items) => items.iter().collect::<Vec<_>>(),
            YamlValue::Map(pairs) => pairs.iter().map(|(_, node)| node).collect(),
        };
        for node in inside {
            if !self.has_odd_style(node, FieldShape::Free, name) {
                self.check_free(node, name);
            }
        }
    }

    /// Adds a finding. From a number on that no reader would work through, adds only that there are
    /// more.
    fn add_finding(&mut self, diagnostic: Diagnostic, at: Position) {
        self.findings += 1;
        match self.findings.cmp(&MAX_FINDINGS) {
            Ordering::Less => self.report.push(diagnostic.at(self.source.location_at(at))),
            Ordering::Equal => self.report.push(
                Diagnostic::error(
                    "more-findings",
                    "there is more like this in the same file; it is left out",
                )
                .help("mend what is named first")
                .at(self.source.location()),
            ),
            Ordering::Greater => {}
        }
    }

    fn check_item(&mut self, node: &YamlNode, shape: FieldShape, name: &str) {
        match node.is_blank() {
            false => self.check_value(node, shape, name),
            true => self.add_finding(
                Diagnostic::error("wrong-type", format!("{name} is blank"))
                    .help("remove this item or fill it in"),
                node.at,
            ),
        }
    }

    fn report_unknown_key(&mut self, fields: &'static [Field], path: &str, key: &super::yaml::YamlKey) {
        let nearest = fields::nearest(fields, &key.text);
        let top = path.is_empty();
        let strict = self.source.origin == DocumentOrigin::Overlay || !top;
        let name = format!("{path}{}", self.spell_name(displayable_name(&key.text)));
        let diagnostic = match nearest {
            // A misspelt guard would otherwise leave the tenant open.
            Some(field) if top && fields::is_guard(field) => {
                Diagnostic::error("unknown-key", unknown_key_message(&name))
            }
            _ if strict => Diagnostic::error("unknown-key", unknown_key_message(&name)),
            _ => Diagnostic::notice("unknown-key", format!("{name} is not a known name; it is ignored")),
        };
        let help = match nearest {
            Some(field) => format!("did you mean {}?", self.spell_name(field.name)),
            None if strict => "remove it, or look the name up in the documentation".to_owned(),
            None => "nothing to do, unless it was meant for this gateway".to_owned(),
        };
        self.add_finding(diagnostic.help(help), key.at);
    }

    /// Returns a name in this kind of file's spelling.
    fn spell_name(&self, name: &str) -> String {
        match self.source.origin {
            DocumentOrigin::Env => name.to_ascii_uppercase(),
            _ => name.to_owned(),
        }
    }
}

fn unknown_key_message(name: &str) -> String {
    format!("{name} is not a known name")
}

/// Returns a name from the file, if it is safe to show.
fn displayable_name(name: &str) -> &str {
    if fields::is_field_name(name) { name } else { "this key" }
}

/// Describes what was found, if that adds something.
fn describe_actual(node: &YamlNode) -> String {
    match node.value {
        YamlValue::Scalar { .. } => String::new(),
        _ => format!(", not {}", node.kind()),
    }
}

/// Returns what was expected, if a scalar does not fit its shape.
fn check_scalar(text: &str, shape: FieldShape) -> Option<String> {
    let fits = match shape {
        FieldShape::Text | FieldShape::Secret | FieldShape::TextList | FieldShape::Free => true,
        FieldShape::Bool => fields::flag(text).is_some(),
        FieldShape::Integer { min, max } => {
            text.parse().is_ok_and(|number: u64| (min..=max).contains(&number))
        }
        FieldShape::Size { min, max } => fields::size(text).is_some_and(|size| (min..=max).contains(&size)),
        FieldShape::Duration { min, max } => {
            fields::duration(text).is_some_and(|span| (min..=max).contains(&span))
        }
        FieldShape::Map(_) | FieldShape::Named(_) | FieldShape::List(_) => false,
    };
    (!fits).then(|| describe_expected(shape))
}

fn describe_expected(shape: FieldShape) -> String {
    match shape {
        FieldShape::Text | FieldShape::Secret | FieldShape::Free => "a single value".into(),
        FieldShape::Bool => "true or false".into(),
        FieldShape::Integer { min, max } => format!("a whole number from {min} to {max}"),
        FieldShape::Size { min, max } => {
            format!("a size from {} KiB to {} MiB, such as 512KiB", min >> 10, max >> 20)
        }
        FieldShape::Duration { min, max } => {
            format!("a duration from {} s to {} s, such as 90s or 5m", min.as_secs(), max.as_secs())
        }
        FieldShape::TextList => "a list of texts".into(),
        FieldShape::Map(_) | FieldShape::Named(_) => "a mapping".into(),
        FieldShape::List(_) => "a list".into(),
    }
}
