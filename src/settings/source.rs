//! A setting as it was written, and where.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::SettingKey;
use crate::base::diagnostic::{Diagnostic, Location};

/// The settings given as flags. Their values are unparsed texts, so that flags, variables and lines
/// of the file are validated by the same rules, with the same messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags(BTreeMap<SettingKey, Vec<String>>);

impl Flags {
    /// Creates an empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the values of a flag; no values mean that it was not given.
    #[must_use]
    pub fn with<T: Into<String>>(mut self, key: SettingKey, values: impl IntoIterator<Item = T>) -> Self {
        let values: Vec<String> = values.into_iter().map(Into::into).collect();
        if !values.is_empty() {
            self.0.insert(key, values);
        }
        self
    }

    pub(super) fn value(&self, key: SettingKey) -> Option<SettingValue> {
        let texts = self.0.get(&key)?.clone();
        Some(SettingValue { texts, origin: SettingOrigin::Flag(key) })
    }
}

/// The unparsed values of a setting, and their source.
#[derive(Debug, Clone)]
pub(super) struct SettingValue {
    pub(super) texts: Vec<String>,
    pub(super) origin: SettingOrigin,
}

/// The source of a setting.
#[derive(Debug, Clone)]
pub(super) enum SettingOrigin {
    Flag(SettingKey),
    Variable(SettingKey),
    File { key: SettingKey, location: Location, base: PathBuf },
}

impl SettingOrigin {
    /// Returns the name in the spelling that the operator used.
    pub(super) fn spelling(&self) -> String {
        match self {
            Self::Flag(key) => key.flag(),
            Self::Variable(key) => key.variable(),
            Self::File { key, .. } => key.to_string(),
        }
    }

    /// Adds the location to a finding, if the setting is from the file.
    pub(super) fn add_location(&self, finding: Diagnostic) -> Diagnostic {
        match self {
            Self::File { location, .. } => finding.at(location.clone()),
            Self::Flag(_) | Self::Variable(_) => finding,
        }
    }
}
