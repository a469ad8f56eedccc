//! Checks the names and shapes in a document against [`fields`].

use std::cmp::Ordering;

use super::fields::{self, Field, FieldShape, is_field_name};
use super::source_text::{DocumentOrigin, SourceText};
use super::tree::{ConfigKey, ConfigNode, ConfigValue, Position, ValueStyle};
use crate::base::diagnostic::{Diagnostic, Report};

const MAX_FINDINGS: usize = 50;

/// The walk that checks names and shapes.
struct ShapeChecker<'a> {
    source: &'a SourceText,
    report: &'a mut Report,
    findings: usize,
    /// The number of findings that are about who may call.
    guard_findings: usize,
}

/// Checks all names and shapes of a document. Returns whether something about who may call is
/// wrong, or may be.
pub(super) fn check(source: &SourceText, root: &ConfigNode, report: &mut Report) -> bool {
    let mut checker = ShapeChecker { source, report, findings: 0, guard_findings: 0 };
    let has_odd_root = checker.has_odd_style(root, FieldShape::Map(fields::TENANT), "this document");
    checker.check_map(root, fields::TENANT, "");
    has_odd_root || checker.guard_findings > 0
}

impl ShapeChecker<'_> {
    fn check_map(&mut self, node: &ConfigNode, fields: &'static [Field], path: &str) {
        for (key, value) in node.pairs() {
            let name = format!("{path}{}", key.text);
            let before = self.findings;
            match fields::lookup(fields, &key.text) {
                Some((shape, _)) => self.check_value(value, shape, &name),
                None => self.report_unknown_key(fields, path, key),
            }
            if path.is_empty() && fields::find_nearest(fields, &key.text).is_some_and(fields::is_guard) {
                self.guard_findings += self.findings - before;
            }
        }
    }

    fn check_value(&mut self, node: &ConfigNode, shape: FieldShape, name: &str) {
        if self.has_odd_style(node, shape, name) || node.is_blank() {
            return;
        }
        let expected = match (&node.value, shape) {
            (_, FieldShape::Free) => return self.check_free(node, name),
            (ConfigValue::Map(_), FieldShape::Map(fields)) => {
                return self.check_map(node, fields, &format!("{name}."));
            }
            (ConfigValue::Map(pairs), FieldShape::Named(shape)) => {
                return pairs.iter().for_each(|(key, node)| {
                    self.check_value(node, *shape, &format!("{name}.{}", displayable_name(&key.text)))
                });
            }
            (ConfigValue::List(items), FieldShape::List(shape)) => {
                return items
                    .iter()
                    .enumerate()
                    .for_each(|(i, item)| self.check_item(item, *shape, &format!("{name}[{i}]")));
            }
            (ConfigValue::List(items), FieldShape::TextList)
                if items.iter().all(|item| item.text().is_some()) =>
            {
                let check = |(i, item): (usize, &ConfigNode)| {
                    _ = self.has_odd_style(item, FieldShape::Text, &format!("{name}[{i}]"))
                };
                return items.iter().enumerate().for_each(check);
            }
            (ConfigValue::Scalar { text, .. }, shape) => match check_scalar(text.trim(), shape) {
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
    fn has_odd_style(&mut self, node: &ConfigNode, shape: FieldShape, name: &str) -> bool {
        let is_never_read = self.source.origin == DocumentOrigin::Export && matches!(shape, FieldShape::Free);
        let found = match node.style {
            ValueStyle::Normal | ValueStyle::Literal => return false,
            _ if is_never_read => return false,
            ValueStyle::Tagged => {
                let what = format!("{name} has a tag (!…) of another tool, which has no meaning here");
                Diagnostic::error("yaml-tag", what).help(
                    "write the value itself, in quotes if it begins with !; a secret can also be in a file \
                     (…_file) or in a variable ${TENANT_…}",
                )
            }
            ValueStyle::Valueless => {
                let what = format!("{name} is empty: text that begins with &, ! or # is not a value in YAML");
                Diagnostic::error("yaml-empty", what).help(
                    "put the value in quotes; or remove everything after the colon if the value should be \
                     empty",
                )
            }
        };
        self.add_finding(found, node.at);
        true
    }

    /// Reports tags in a free-form value of an operator's file; its contents are validated
    /// elsewhere.
    fn check_free(&mut self, node: &ConfigNode, name: &str) {
        if self.source.origin == DocumentOrigin::Export {
            return;
        }
        let inside = match &node.value {
            ConfigValue::Scalar { .. } => return,
            ConfigValue::List(items) => items.iter().collect::<Vec<_>>(),
            ConfigValue::Map(pairs) => pairs.iter().map(|(_, node)| node).collect(),
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
                    "there are more findings like this in the same file; they are not shown",
                )
                .help("fix the reported findings first")
                .at(self.source.location()),
            ),
            Ordering::Greater => {}
        }
    }

    fn check_item(&mut self, node: &ConfigNode, shape: FieldShape, name: &str) {
        match node.is_blank() {
            false => self.check_value(node, shape, name),
            true => self.add_finding(
                Diagnostic::error("wrong-type", format!("{name} is blank"))
                    .help("remove this item or fill it in"),
                node.at,
            ),
        }
    }

    fn report_unknown_key(&mut self, fields: &'static [Field], path: &str, key: &ConfigKey) {
        let nearest = fields::find_nearest(fields, &key.text);
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
            None if strict => "remove it, or look up the name in the documentation".to_owned(),
            None => "nothing to do, unless you want this gateway to use it".to_owned(),
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
    if is_field_name(name) { name } else { "this key" }
}

/// Describes what was found, if that adds something.
fn describe_actual(node: &ConfigNode) -> String {
    match node.value {
        ConfigValue::Scalar { .. } => String::new(),
        _ => format!(", not {}", node.kind()),
    }
}

/// Returns what was expected, if a scalar does not fit its shape.
fn check_scalar(text: &str, shape: FieldShape) -> Option<String> {
    let fits = match shape {
        FieldShape::Text | FieldShape::Secret | FieldShape::TextList | FieldShape::Free => true,
        FieldShape::Bool => fields::parse_flag(text).is_some(),
        FieldShape::Integer { min, max } => {
            text.parse().is_ok_and(|number: u64| (min..=max).contains(&number))
        }
        FieldShape::Size { min, max } => {
            fields::parse_size(text).is_some_and(|size| (min..=max).contains(&size))
        }
        FieldShape::Duration { min, max } => {
            fields::parse_duration(text).is_some_and(|span| (min..=max).contains(&span))
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
