//! `tenantd.yaml` as written. Every value is kept as text with its place; [`super::reader`] gives it its meaning.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde_saphyr::{Error, Spanned};

use super::key::closest;
use super::source::{Origin, Value};
use super::{Key, Limits};
use crate::base::diagnostic::{Diagnostic, Location, Report};

/// A file of ours is a page or two; more is a wrong path.
const LARGEST_BYTES: u64 = 256 * 1024;

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct Written {
    values: BTreeMap<Key, Value>,
    pub(super) limits: Limits,
}

impl Written {
    pub(super) fn value(&self, key: Key) -> Option<Value> {
        self.values.get(&key).cloned()
    }
}

/// Reads the file; what is wrong with it goes into the report.
pub(super) fn read(path: &Path, report: &mut Report) -> Written {
    match text(path).and_then(|text| parse(path, &text)) {
        Ok(written) => written,
        Err(finding) => {
            report.push(*finding);
            Written::default()
        }
    }
}

fn text(path: &Path) -> Result<String, Box<Diagnostic>> {
    let unreadable = |why: String| {
        let finding =
            Diagnostic::error("config-unreadable", format!("the configuration cannot be read: {why}"));
        Box::new(
            finding.help("check the path given as `--config` or `TENANTD_CONFIG`").at(Location::file(path)),
        )
    };
    let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > LARGEST_BYTES {
        return Err(unreadable(format!("it has {size} bytes, and {LARGEST_BYTES} are the most")));
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))
}

fn parse(path: &Path, text: &str) -> Result<Written, Box<Diagnostic>> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Written::default());
    }
    // `off` is a mode, not a boolean.
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    let document: Document = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| Box::new(refusal(path, text, &error)))?;
    Ok(document.written(path, text))
}

/// The document, key by key. The names are [`Key`]'s; `limits` is the one section.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    tenants: Option<Spanned<Texts>>,
    state: Option<Spanned<Texts>>,
    certs: Option<Spanned<Texts>>,
    listen: Option<Spanned<Texts>>,
    admin: Option<Spanned<Texts>>,
    host: Option<Spanned<Texts>>,
    public_base: Option<Spanned<Texts>>,
    tls: Option<Spanned<Texts>>,
    watch: Option<Spanned<Texts>>,
    log: Option<Spanned<Texts>>,
    require_auth: Option<Spanned<Texts>>,
    open_tenants: Option<Spanned<Texts>>,
    backend_allow: Option<Spanned<Texts>>,
    secret_root: Option<Spanned<Texts>>,
    ready_file: Option<Spanned<Texts>>,
    extra_host: Option<Spanned<Texts>>,
    allowed_origin: Option<Spanned<Texts>>,
    limits: Option<Limits>,
}

impl Document {
    fn written(self, path: &Path, text: &str) -> Written {
        let base = path.parent().map(PathBuf::from).unwrap_or_default();
        let entries = [
            (Key::TENANTS, self.tenants),
            (Key::STATE, self.state),
            (Key::CERTS, self.certs),
            (Key::LISTEN, self.listen),
            (Key::ADMIN, self.admin),
            (Key::HOST, self.host),
            (Key::PUBLIC_BASE, self.public_base),
            (Key::TLS, self.tls),
            (Key::WATCH, self.watch),
            (Key::LOG, self.log),
            (Key::REQUIRE_AUTH, self.require_auth),
            (Key::OPEN_TENANTS, self.open_tenants),
            (Key::BACKEND_ALLOW, self.backend_allow),
            (Key::SECRET_ROOT, self.secret_root),
            (Key::READY_FILE, self.ready_file),
            (Key::EXTRA_HOST, self.extra_host),
            (Key::ALLOWED_ORIGIN, self.allowed_origin),
        ];
        let value = |(key, written): (Key, Option<Spanned<Texts>>)| {
            let written = written.filter(|written| !written.value.0.is_empty())?;
            let location = place(path, text, written.referenced);
            let origin = Origin::File { key, location, base: base.clone() };
            Some((key, Value { texts: written.value.0, origin }))
        };
        Written {
            values: entries.into_iter().filter_map(value).collect(),
            limits: self.limits.unwrap_or_default(),
        }
    }
}

/// One text or a list of them; numbers and booleans count as the text they were written as.
#[derive(Debug)]
struct Texts(Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Texts, E> {
        Ok(Texts(Some(text.trim().to_owned()).filter(|text| !text.is_empty()).into_iter().collect()))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Texts, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Texts, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Texts, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Texts, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_unit<E: de::Error>(self) -> Result<Texts, E> {
        Ok(Texts(Vec::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
        let mut texts = Vec::new();
        while let Some(Texts(one)) = list.next_element()? {
            texts.extend(one);
        }
        Ok(Texts(texts))
    }
}

fn refusal(path: &Path, text: &str, error: &Error) -> Diagnostic {
    let error = error.without_snippet();
    let finding = match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            let finding = Diagnostic::error("unknown-setting", format!("`{field}` is no setting"));
            finding.help(match closest(field, expected.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("the settings here are {}", expected.join(", ")),
            })
        }
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            let finding = Diagnostic::error("config-invalid", format!("`{key}` is written twice"));
            finding.help("keep one of the two; a list is written as `[a, b]`")
        }
        other => Diagnostic::error("config-invalid", plain(&other.render())),
    };
    match error.location() {
        Some(location) => finding.at(place(path, text, location)),
        None => finding.at(Location::file(path)),
    }
}

/// The parser's words without the place, which the finding has already.
fn plain(message: &str) -> String {
    let line = message.lines().next().unwrap_or("not YAML");
    line.split(" at line ").next().unwrap_or(line).to_owned()
}

fn place(path: &Path, text: &str, location: serde_saphyr::Location) -> Location {
    let line = usize::try_from(location.line()).ok().filter(|line| *line > 0);
    Location {
        line,
        column: usize::try_from(location.column()).ok().filter(|column| *column > 0),
        excerpt: line.and_then(|line| text.lines().nth(line - 1)).map(str::to_owned),
        ..Location::file(path)
    }
}
