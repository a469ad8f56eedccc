//! Parses `tenantd.yaml`. Values are kept as text with their location; [`super::reader`] interprets
//! them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Error, Spanned};

use super::SettingKey;
use super::file_place::{FilePlace, locate};
use super::key::find_closest;
use super::section::Sections;
use super::source::{SettingOrigin, SettingValue};
use crate::base::diagnostic::{Diagnostic, Location, Report};
use crate::base::disk;

/// The maximum file size. A real configuration is a page or two; a larger file is a wrong path.
const LARGEST_BYTES: u64 = 256 * 1024;

/// The contents of the file.
#[derive(Debug, Default)]
pub(super) struct FileSettings {
    values: BTreeMap<SettingKey, SettingValue>,
    pub(super) sections: Sections,
    /// Where the file lies, and its text.
    pub(super) place: FilePlace,
}

impl FileSettings {
    pub(super) fn value(&self, key: SettingKey) -> Option<SettingValue> {
        self.values.get(&key).cloned()
    }
}

/// Reads the file; faults go into the report.
pub(super) fn read(path: &Path, report: &mut Report) -> FileSettings {
    match text(path).and_then(|text| parse(path, &text, report)) {
        Ok(written) => written,
        Err(finding) => {
            report.push(*finding);
            FileSettings::default()
        }
    }
}

fn text(path: &Path) -> Result<String, Box<Diagnostic>> {
    let unreadable = |why: &disk::Error| {
        let finding =
            Diagnostic::error("config-unreadable", format!("the configuration cannot be used: {why}"));
        Box::new(finding.help("check the path in `--config` or `TENANTD_CONFIG`").at(Location::file(path)))
    };
    disk::read_text(path, LARGEST_BYTES).map_err(|error| unreadable(&error))
}

fn parse(path: &Path, text: &str, report: &mut Report) -> Result<FileSettings, Box<Diagnostic>> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(FileSettings::default());
    }
    // `off` is a mode, not a boolean.
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    let document: RawFile = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| Box::new(refusal(path, text, &error)))?;
    Ok(document.written(path, text, report))
}

/// The keys in the order written. Unknown ones are collected, so that all are reported at once.
#[derive(Debug, Default)]
struct RawFile {
    values: Vec<(SettingKey, Spanned<TextList>)>,
    sections: Sections,
    unknown: Vec<Spanned<String>>,
}

impl RawFile {
    fn written(self, path: &Path, text: &str, report: &mut Report) -> FileSettings {
        for key in self.unknown {
            let names = SettingKey::ALL.iter().map(|key| key.as_str()).chain(Sections::NAMES);
            report.push(unknown(&key.value, names).at(locate(path, text, key.referenced)));
        }
        let place = FilePlace::new(path, text);
        let base = place.resolve("");
        let value = |(key, written): (SettingKey, Spanned<TextList>)| {
            let location = place.locate(written.referenced);
            let origin = SettingOrigin::File { key, location, base: base.clone() };
            (key, SettingValue { texts: written.value.0, origin })
        };
        let given = self.values.into_iter().filter(|(_, written)| !written.value.0.is_empty());
        FileSettings { values: given.map(value).collect(), sections: self.sections, place }
    }
}

impl<'de> Deserialize<'de> for RawFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawFileVisitor)
    }
}

struct RawFileVisitor;

impl<'de> Visitor<'de> for RawFileVisitor {
    type Value = RawFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings, one `name: value` per line")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawFile, A::Error> {
        let mut document = RawFile::default();
        while let Some(name) = map.next_key::<Spanned<String>>()? {
            if let Some(key) = SettingKey::ALL.into_iter().find(|key| key.as_str() == name.value) {
                document.values.push((key, map.next_value()?));
            } else if !document.sections.read(&name.value, &mut map)? {
                map.next_value::<IgnoredAny>()?;
                document.unknown.push(name);
            }
        }
        Ok(document)
    }
}

/// A text or a list of texts; numbers and booleans are kept as written.
#[derive(Debug)]
struct TextList(Vec<String>);

impl<'de> Deserialize<'de> for TextList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextListVisitor)
    }
}

struct TextListVisitor;

impl<'de> Visitor<'de> for TextListVisitor {
    type Value = TextList;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<TextList, E> {
        Ok(TextList(Some(text.trim().to_owned()).filter(|text| !text.is_empty()).into_iter().collect()))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<TextList, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<TextList, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<TextList, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<TextList, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_unit<E: de::Error>(self) -> Result<TextList, E> {
        Ok(TextList(Vec::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<TextList, A::Error> {
        let mut texts = Vec::new();
        while let Some(TextList(one)) = list.next_element()? {
            texts.extend(one);
        }
        Ok(TextList(texts))
    }
}

fn refusal(path: &Path, text: &str, error: &Error) -> Diagnostic {
    let error = error.without_snippet();
    let finding = match error {
        Error::SerdeUnknownField { field, expected, .. } => unknown(field, expected.iter().copied()),
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            let finding = Diagnostic::error("config-invalid", format!("`{key}` is set twice"));
            finding.help("keep one of the two; write a list as `[a, b]`")
        }
        other => Diagnostic::error("config-invalid", plain(&other.render())),
    };
    match error.location() {
        Some(location) => finding.at(locate(path, text, location)),
        None => finding.at(Location::file(path)),
    }
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Diagnostic {
    let finding = Diagnostic::error("unknown-setting", format!("`{name}` is not a setting"));
    finding.help(match find_closest(name, known.clone()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("the valid settings are {}", known.collect::<Vec<_>>().join(", ")),
    })
}

/// Returns the parser's message without the location, which the finding already has.
fn plain(message: &str) -> String {
    let line = message.lines().next().unwrap_or("not YAML");
    line.split(" at line ").next().unwrap_or(line).to_owned()
}
