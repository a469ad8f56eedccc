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
        let message = format!("the value's file {} cannot be used: {error}", file.display());
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bundle::{LoadContext, LoadOutcome, list_single, load, load_snapshot, sample};
    use crate::spec::Prefix;

    const KEY: &str = "key-0123456789";

    fn context(given: GivenValues) -> LoadContext {
        LoadContext { given: Some(Arc::new(given)), ..sample::sample_context() }
    }

    fn export(folder: &Path) -> PathBuf {
        let yaml = "search_url: https://old.test/nlp-search\ncontext_url: https://p.test/nlp-context\n\
                    connection_id: c\napi_key: paste-your-api-key-here\n";
        let zip = folder.join("server.zip");
        std::fs::write(&zip, sample::build_export("sales", yaml)).expect("written");
        zip
    }

    fn loaded(zip: &Path, given: GivenValues) -> LoadOutcome {
        load(&list_single(zip).entries[0], &context(given))
    }

    #[test]
    fn given_values_win_and_come_back_without_flags_and_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let (zip, key) = (export(folder.path()), folder.path().join("anywhere.txt"));
        std::fs::write(&key, format!("{KEY}\n")).expect("written");
        let url = Secret::new("https://new.test/nlp-search");
        let given = GivenValues::default().with("search_url", "variable SEARCH_URL", url);
        let given = given.with_file("api_key", "variable API_KEY_FILE", key.clone());
        let before = loaded(&zip, given);
        let spec = before.spec.clone().unwrap_or_else(|| panic!("{:?}", before.report));
        assert!(format!("{:?}", spec.tools).contains("new.test"));
        assert_eq!((spec.name.as_str(), spec.mounts[0].prefix.as_str()), ("sales", Prefix::root().as_str()));
        assert_eq!(before.secret_files[0].path, key, "a change of it would not be noticed");
        std::fs::remove_file(&key).expect("removed");
        let snapshot = before.snapshot.expect("a snapshot");
        let after = load_snapshot(&snapshot, Path::new("/nowhere"), &context(GivenValues::default()));
        assert_eq!((after.digest, after.spec), (before.digest, Some(spec)), "{:?}", after.report);
    }

    #[test]
    fn findings_name_the_variable_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let zip = export(folder.path());
        let given = GivenValues::default()
            .with("api_key", "variable API_KEY", Secret::new("\"quoted-canary\""))
            .with("oauth_enabled", "--oauth", Secret::new("perhaps"))
            .with_file("path_prefix", "variable PATH_PREFIX_FILE", "/nowhere/prefix".into());
        let report = loaded(&zip, given).report;
        let text = format!("{report:?}");
        assert!(!text.contains("canary"), "{text}");
        let places: Vec<_> = report.iter().filter_map(|finding| finding.location.as_ref()).collect();
        for place in ["--oauth", "variable PATH_PREFIX_FILE"] {
            assert!(places.iter().any(|found| found.to_string() == place), "{place}: {text}");
        }
    }

    #[test]
    fn a_dollar_sign_in_a_variable_stands_for_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let given = GivenValues::default();
        let given = given.with("api_key", "variable API_KEY", Secret::new("key-${TENANT_X}-0123456789"));
        let outcome = loaded(&export(folder.path()), given);
        assert!(outcome.spec.is_some(), "{:?}", outcome.report);
    }
}
