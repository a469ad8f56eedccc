//! The documents of a tenant (export, overlay, `.env`) as written, and the layers they form.
//!
//! Owns precedence (later layers win, key by key inside mappings; a blank value counts as unset),
//! and the check of every name and shape against [`fields`].

use std::cmp::Ordering;
use std::path::PathBuf;

use super::excerpt;
use super::fields::{self, By, Field, Shape};
use super::yaml::{Fault, Manner, Mark, Node, Value};
use crate::base::diagnostic::{Diagnostic, Location, Report};

const MAX_FINDINGS: usize = 50;

/// Where a document comes from; decides how strictly it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
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
pub(super) struct Source {
    pub(super) origin: Origin,
    pub(super) file: PathBuf,
    pub(super) entry: Option<String>,
    pub(super) text: String,
}

/// A parsed text.
pub(super) struct Document {
    pub(super) source: Source,
    pub(super) root: Node,
    /// Whether something in it about who may call is wrong, or may be.
    pub(super) in_doubt: bool,
}

/// A value and the document it is in.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) node: &'a Node,
    pub(super) document: &'a Document,
}

impl Source {
    /// Returns a location with its line, secrets hidden.
    pub(super) fn at(&self, mark: Mark) -> Location {
        Location {
            line: Some(mark.line),
            column: Some(mark.column),
            excerpt: excerpt::of(&self.text, mark.line),
            ..self.whole()
        }
    }

    /// Returns the location of the whole text.
    pub(super) fn whole(&self) -> Location {
        Location { entry: self.entry.clone(), ..Location::file(&self.file) }
    }

    /// Turns a fault of the text into a finding.
    pub(super) fn finding(&self, fault: Fault) -> Diagnostic {
        Diagnostic::error(fault.code, fault.message).help(fault.help).at(self.at(fault.at))
    }
}

impl<'a> Found<'a> {
    pub(super) fn at(&self) -> Location {
        self.document.source.at(self.node.at)
    }

    /// Returns the text of a scalar.
    pub(super) fn text(&self) -> Option<&'a str> {
        self.node.text()
    }
}

impl Document {
    /// Creates the document of a parsed text. Reports wrong names and shapes, and drops fields that
    /// this origin may not set.
    pub(super) fn new(source: Source, root: Node, report: &mut Report) -> Self {
        let mut document = Self { source, root, in_doubt: false };
        if !matches!(document.root.value, Value::Map(_)) {
            report.push(document.not_a_mapping());
            document.root.value = Value::map(Vec::new());
            document.in_doubt = true;
        }
        if document.source.origin == Origin::Export {
            document.drop_operators_fields(report);
        }
        let mut shapes = Shapes { source: &document.source, report, found: 0, guards_found: 0 };
        document.in_doubt |= shapes.is_amiss(&document.root, Shape::Map(fields::TENANT), "this document");
        shapes.map(&document.root, fields::TENANT, "");
        document.in_doubt |= shapes.guards_found > 0;
        document
    }

    fn not_a_mapping(&self) -> Diagnostic {
        Diagnostic::error("not-a-mapping", format!("this is {}, not \"name: value\" lines", self.root.kind()))
            .help("write one field a line, for instance search_url: https://…/nlp-search")
            .at(self.source.at(self.root.at))
    }

    /// Drops the fields that an export may not set. The vendor adds fields freely, so unknown ones
    /// and those that only operators may set are ignored, except for fields that decide who may
    /// call: to ignore those would open the tenant.
    fn drop_operators_fields(&mut self, report: &mut Report) {
        let Value::Map(pairs) = std::mem::replace(&mut self.root.value, Value::map(Vec::new())) else {
            return;
        };
        let mut kept = Vec::new();
        for (key, node) in pairs.iter().cloned() {
            match fields::lookup(fields::TENANT, &key.text).map(|(_, by)| by) {
                Some(By::Vendor) if means_something_else(&key.text, &node) => {}
                Some(By::Vendor) => kept.push((key, node)),
                Some(By::Guard) => {
                    self.in_doubt = true;
                    report.push(
                        Diagnostic::error("export-guards", format!("an export cannot say {}", key.text))
                            .help("put it in the .yaml beside the zip, named like the zip")
                            .at(self.source.at(key.at)),
                    );
                }
                Some(By::Operator) => report.push(
                    Diagnostic::notice("export-ignored", format!("{} is ignored in an export", key.text))
                        .help("if it is meant, put it in the .yaml beside the zip, named like the zip")
                        .at(self.source.at(key.at)),
                ),
                None => {}
            }
        }
        self.root.value = Value::map(kept);
    }

    /// Returns the value at a path of names, unless it is blank.
    pub(super) fn find(&self, path: &[&str]) -> Option<Found<'_>> {
        let node = path.iter().try_fold(&self.root, |node, name| node.member(name).map(|(_, node)| node))?;
        (!node.is_blank()).then_some(Found { node, document: self })
    }
}

/// Whether the vendor uses a known name for something of its own.
fn means_something_else(name: &str, node: &Node) -> bool {
    match name {
        "backend" => !matches!(node.value, Value::Map(_)),
        "dataset" | "display_name" | "description" => node.text().is_none(),
        _ => false,
    }
}

/// All documents of a tenant, lowest precedence first.
pub(super) struct Layers(pub(super) Vec<Document>);

impl Layers {
    /// Returns the highest value at a path that is not blank.
    pub(super) fn find(&self, path: &[&str]) -> Option<Found<'_>> {
        self.0.iter().rev().find_map(|document| document.find(path))
    }

    /// Returns the highest value of a secret, given directly or as `x_file`.
    pub(super) fn secret(&self, name: &str) -> Option<Found<'_>> {
        let file = format!("{name}_file");
        self.0.iter().rev().find_map(|document| document.find(&[name]).or_else(|| document.find(&[&file])))
    }

    pub(super) fn text(&self, path: &[&str]) -> Option<&str> {
        self.find(path).and_then(|found| found.text())
    }

    pub(super) fn flag(&self, path: &[&str]) -> Option<bool> {
        self.text(path).and_then(fields::flag)
    }

    /// Returns the location for findings about something missing: the first document.
    pub(super) fn whole(&self) -> Option<Location> {
        self.0.first().map(|document| document.source.whole())
    }

    /// Returns the names in the mappings at a path, lowest first, each once, with its highest value
    /// that is not blank.
    pub(super) fn named<'a>(&'a self, path: &[&str]) -> Vec<(&'a str, Found<'a>)> {
        let mut names: Vec<(&str, Found<'_>)> = Vec::new();
        for document in &self.0 {
            let Some(map) = document.find(path) else { continue };
            for (key, node) in map.node.pairs().iter().filter(|(_, node)| !node.is_blank()) {
                let found = Found { node, document };
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
struct Shapes<'a> {
    source: &'a Source,
    report: &'a mut Report,
    found: usize,
    /// The number of findings that are about who may call.
    guards_found: usize,
}

impl Shapes<'_> {
    fn map(&mut self, node: &Node, fields: &'static [Field], path: &str) {
        for (key, value) in node.pairs() {
            let name = format!("{path}{}", key.text);
            let before = self.found;
            match fields::lookup(fields, &key.text) {
                Some((shape, _)) => self.value(value, shape, &name),
                None => self.unknown(fields, path, key),
            }
            if path.is_empty() && fields::nearest(fields, &key.text).is_some_and(fields::guards) {
                self.guards_found += self.found - before;
            }
        }
    }

    fn value(&mut self, node: &Node, shape: Shape, name: &str) {
        if self.is_amiss(node, shape, name) || node.is_blank() {
            return;
        }
        let expected = match (&node.value, shape) {
            (_, Shape::Free) => return self.free(node, name),
            (Value::Map(_), Shape::Map(fields)) => return self.map(node, fields, &format!("{name}.")),
            (Value::Map(pairs), Shape::Named(shape)) => {
                return pairs.iter().for_each(|(key, node)| {
                    self.value(node, *shape, &format!("{name}.{}", shown(&key.text)))
                });
            }
            (Value::List(items), Shape::List(shape)) => {
                return items
                    .iter()
                    .enumerate()
                    .for_each(|(i, item)| self.item(item, *shape, &format!("{name}[{i}]")));
            }
            (Value::List(items), Shape::Texts) if items.iter().all(|item| item.text().is_some()) => {
                let amiss =
                    |(i, item): (usize, &Node)| _ = self.is_amiss(item, Shape::Text, &format!("{name}[{i}]"));
                return items.iter().enumerate().for_each(amiss);
            }
            (Value::Scalar { text, .. }, shape) => match scalar_fault(text.trim(), shape) {
                None => return,
                Some(expected) => expected,
            },
            (_, shape) => expected(shape),
        };
        let message = format!("{name} must be {expected}{}", instead(node));
        self.find(Diagnostic::error("wrong-type", message).help("correct this value"), node.at);
    }

    /// Reports a value whose notation only other tools understand. In an export's free-form fields,
    /// which are never read, this does not matter.
    fn is_amiss(&mut self, node: &Node, shape: Shape, name: &str) -> bool {
        let nobody_reads_it = self.source.origin == Origin::Export && matches!(shape, Shape::Free);
        let found = match node.manner {
            Manner::Usual | Manner::Literal => return false,
            _ if nobody_reads_it => return false,
            Manner::Tagged => {
                let what = format!("{name} has a tag (!…) of another tool, which means nothing here");
                Diagnostic::error("yaml-tag", what).help(
                    "write the value itself, in quotes if it begins with !; a secret can also be given as a file (…_file) or as ${TENANT_…}",
                )
            }
            Manner::Hollow => {
                let what = format!("{name} is empty: what begins with &, ! or # is no value");
                Diagnostic::error("yaml-empty", what).help(
                    "put the value in quotes; or remove what stands behind the colon, if it is to be empty",
                )
            }
        };
        self.find(found, node.at);
        true
    }

    /// Reports tags in a free-form value of an operator's file; its contents are validated
    /// elsewhere.
    fn free(&mut self, node: &Node, name: &str) {
        if self.source.origin == Origin::Export {
            return;
        }
        let inside = match &node.value {
            Value::Scalar { .. } => return,
            Value::List(items) => items.iter().collect::<Vec<_>>(),
            Value::Map(pairs) => pairs.iter().map(|(_, node)| node).collect(),
        };
        for node in inside {
            if !self.is_amiss(node, Shape::Free, name) {
                self.free(node, name);
            }
        }
    }

    /// Adds a finding. From a number on that no reader would work through, adds only that there are
    /// more.
    fn find(&mut self, diagnostic: Diagnostic, at: Mark) {
        self.found += 1;
        match self.found.cmp(&MAX_FINDINGS) {
            Ordering::Less => self.report.push(diagnostic.at(self.source.at(at))),
            Ordering::Equal => self.report.push(
                Diagnostic::error(
                    "more-findings",
                    "there is more like this in the same file; it is left out",
                )
                .help("mend what is named first")
                .at(self.source.whole()),
            ),
            Ordering::Greater => {}
        }
    }

    fn item(&mut self, node: &Node, shape: Shape, name: &str) {
        match node.is_blank() {
            false => self.value(node, shape, name),
            true => self.find(
                Diagnostic::error("wrong-type", format!("{name} is blank"))
                    .help("remove this item or fill it in"),
                node.at,
            ),
        }
    }

    fn unknown(&mut self, fields: &'static [Field], path: &str, key: &super::yaml::Key) {
        let nearest = fields::nearest(fields, &key.text);
        let top = path.is_empty();
        let strict = self.source.origin == Origin::Overlay || !top;
        let name = format!("{path}{}", self.spelled(shown(&key.text)));
        let diagnostic = match nearest {
            // A misspelt guard would otherwise leave the tenant open.
            Some(field) if top && fields::guards(field) => {
                Diagnostic::error("unknown-key", unknown_text(&name))
            }
            _ if strict => Diagnostic::error("unknown-key", unknown_text(&name)),
            _ => Diagnostic::notice("unknown-key", format!("{name} is not a known name; it is ignored")),
        };
        let help = match nearest {
            Some(field) => format!("did you mean {}?", self.spelled(field.name)),
            None if strict => "remove it, or look the name up in the documentation".to_owned(),
            None => "nothing to do, unless it was meant for this gateway".to_owned(),
        };
        self.find(diagnostic.help(help), key.at);
    }

    /// Returns a name in this kind of file's spelling.
    fn spelled(&self, name: &str) -> String {
        match self.source.origin {
            Origin::Env => name.to_ascii_uppercase(),
            _ => name.to_owned(),
        }
    }
}

fn unknown_text(name: &str) -> String {
    format!("{name} is not a known name")
}

/// Returns a name from the file, if it is safe to show.
fn shown(name: &str) -> &str {
    if excerpt::is_name(name) { name } else { "this key" }
}

/// Describes what was found, if that adds something.
fn instead(node: &Node) -> String {
    match node.value {
        Value::Scalar { .. } => String::new(),
        _ => format!(", not {}", node.kind()),
    }
}

/// Returns what was expected, if a scalar does not fit its shape.
fn scalar_fault(text: &str, shape: Shape) -> Option<String> {
    let fits = match shape {
        Shape::Text | Shape::Secret | Shape::Texts | Shape::Free => true,
        Shape::Flag => fields::flag(text).is_some(),
        Shape::Whole { min, max } => text.parse().is_ok_and(|number: u64| (min..=max).contains(&number)),
        Shape::Size { min, max } => fields::size(text).is_some_and(|size| (min..=max).contains(&size)),
        Shape::Span { min, max } => fields::duration(text).is_some_and(|span| (min..=max).contains(&span)),
        Shape::Map(_) | Shape::Named(_) | Shape::List(_) => false,
    };
    (!fits).then(|| expected(shape))
}

fn expected(shape: Shape) -> String {
    match shape {
        Shape::Text | Shape::Secret | Shape::Free => "a single value".into(),
        Shape::Flag => "true or false".into(),
        Shape::Whole { min, max } => format!("a whole number from {min} to {max}"),
        Shape::Size { min, max } => {
            format!("a size from {} KiB to {} MiB, such as 512KiB", min >> 10, max >> 20)
        }
        Shape::Span { min, max } => {
            format!("a duration from {} s to {} s, such as 90s or 5m", min.as_secs(), max.as_secs())
        }
        Shape::Texts => "a list of texts".into(),
        Shape::Map(_) | Shape::Named(_) => "a mapping".into(),
        Shape::List(_) => "a list".into(),
    }
}
