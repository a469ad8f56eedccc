//! The values that flags and variables give to the only tenant of a gateway.
//!
//! They make one more document of the tenant, above its files. Nothing of them lies on the disk.
//! Findings name the flag or the variable and show no excerpt.

use std::path::{Path, PathBuf};

use super::document::ConfigDocument;
use super::fields::{self, FieldShape};
use super::layers::LayerReader;
use super::snapshot::GivenRecord;
use super::source_text::{DocumentOrigin, SourceText};
use super::tree::{ConfigKey, ConfigNode, ConfigValue, MAX_BYTES, Position, ValueStyle};
use crate::base::diagnostic::{Diagnostic, Location};
use crate::base::disk;
use crate::base::secret::Secret;

/// What findings call the document as a whole.
const DOCUMENT: &str = "the flags and variables";

/// The values that flags and variables give to a tenant, each for one field.
#[derive(Debug, Clone, Default)]
pub struct GivenValues(Vec<GivenValue>);

/// One value.
#[derive(Debug, Clone)]
struct GivenValue {
    field: &'static str,
    /// Where it comes from, for findings: `variable API_KEY`.
    place: String,
    content: GivenContent,
}

/// The value itself, or the file that contains it.
#[derive(Debug, Clone)]
enum GivenContent {
    Text(Secret),
    File(PathBuf),
}

impl GivenValues {
    /// Adds the value of a field.
    #[must_use]
    pub fn with(self, field: &'static str, place: impl Into<String>, value: Secret) -> Self {
        self.push(field, place.into(), GivenContent::Text(value))
    }

    /// Adds a field whose value is in a file, which is read with the tenant's files, whenever it
    /// changes.
    #[must_use]
    pub fn with_file(self, field: &'static str, place: impl Into<String>, file: PathBuf) -> Self {
        self.push(field, place.into(), GivenContent::File(file))
    }

    fn push(mut self, field: &'static str, place: String, content: GivenContent) -> Self {
        self.0.push(GivenValue { field, place, content });
        self
    }
}

impl LayerReader<'_, '_> {
    /// Returns the document of the given values, from the context or the snapshot.
    pub(super) fn read_given(&mut self) -> Option<ConfigDocument> {
        let records = match self.state.source.is_snapshot() {
            true => self.state.source.stored_given(),
            false => self.given_records(),
        };
        if records.is_empty() {
            return None;
        }
        let mut pairs = Vec::new();
        for (line, record) in records.iter().enumerate() {
            self.update_digest(&record.field);
            self.update_digest(&record.text);
            pairs.push(record.to_pair(Position { line: line + 1, column: 1 }));
        }
        let places: Vec<&str> = records.iter().map(|record| record.place.as_str()).collect();
        let source = SourceText {
            origin: DocumentOrigin::Given,
            file: DOCUMENT.into(),
            entry: None,
            text: places.join("\n"),
        };
        records.iter().for_each(|record| self.state.source.record_given(record));
        self.finish_document(
            source,
            Ok(ConfigNode::usual(Position { line: 1, column: 1 }, ConfigValue::map(pairs))),
        )
    }

    /// Reads the given values. One whose file cannot be read is reported and left out.
    fn given_records(&mut self) -> Vec<GivenRecord> {
        let Some(given) = self.state.context.given.clone() else { return Vec::new() };
        given.0.iter().filter_map(|value| self.given_record(value)).collect()
    }

    fn given_record(&mut self, value: &GivenValue) -> Option<GivenRecord> {
        let record = |field: &str, text: &str| {
            Some(GivenRecord { field: field.to_owned(), place: value.place.clone(), text: text.to_owned() })
        };
        match &value.content {
            GivenContent::Text(text) => record(value.field, text.expose()),
            // A secret is resolved like every other one, by its name.
            GivenContent::File(file) if is_secret(value.field) => {
                record(&format!("{}_file", value.field), &file.to_string_lossy())
            }
            GivenContent::File(file) => {
                self.state.record_secret_file(file);
                match read_text(file) {
                    Ok(text) => record(value.field, text.trim()),
                    Err(error) => self.reject_given_file(value, file, &error),
                }
            }
        }
    }

    fn reject_given_file(
        &mut self,
        value: &GivenValue,
        file: &Path,
        error: &disk::Error,
    ) -> Option<GivenRecord> {
        let message = format!("{} cannot be read: {error}", file.display());
        self.mark_incomplete(&message);
        self.report.push(
            Diagnostic::error("given-file", message)
                .help("mount the file, or correct its path")
                .at(Location::file(&value.place)),
        );
        None
    }
}

fn read_text(file: &Path) -> Result<String, disk::Error> {
    String::from_utf8(disk::read(file, MAX_BYTES as u64)?).map_err(|_| disk::Error::NotUtf8)
}

fn is_secret(field: &str) -> bool {
    fields::lookup(fields::TENANT, field).is_some_and(|(shape, _)| matches!(shape, FieldShape::Secret))
}

impl GivenRecord {
    fn to_pair(&self, at: Position) -> (ConfigKey, ConfigNode) {
        let value = ConfigValue::Scalar { text: self.text.as_str().into(), plain: false };
        let node = ConfigNode { at, value, style: ValueStyle::Literal };
        (ConfigKey { at, text: self.field.as_str().into() }, node)
    }
}
