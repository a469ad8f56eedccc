//! The nested sections of the file. Each is a type of its own, which only the file can set.

use serde::de::MapAccess;
use serde_saphyr::Spanned;

use super::audit_sinks::WrittenSink;
use super::notify::WrittenTarget;
use super::{Limits, OtlpSettings};

/// What the sections say, as far as their shapes are right.
#[derive(Debug, Default)]
pub(super) struct Sections {
    pub(super) audit_sinks: Vec<Spanned<WrittenSink>>,
    pub(super) limits: Limits,
    pub(super) notify: Vec<Spanned<WrittenTarget>>,
    pub(super) otlp: OtlpSettings,
}

impl Sections {
    /// The names of all sections.
    pub(super) const NAMES: [&'static str; 4] = ["audit_sinks", "limits", "notify", "otlp"];

    /// Reads the value of a section. Returns whether there is a section of this name; an empty one
    /// counts as not written.
    pub(super) fn read<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "audit_sinks" => self.audit_sinks = map.next_value::<Option<_>>()?.unwrap_or_default(),
            "limits" => self.limits = map.next_value::<Option<_>>()?.unwrap_or_default(),
            "notify" => self.notify = map.next_value::<Option<_>>()?.unwrap_or_default(),
            "otlp" => self.otlp = map.next_value::<Option<_>>()?.unwrap_or_default(),
            _ => return Ok(false),
        }
        Ok(true)
    }
}
