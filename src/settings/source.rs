//! A setting as it was written, and where.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Key;
use crate::base::diagnostic::{Diagnostic, Location};

/// What the command line says. Values are texts; this module reads and judges them, so that a flag, a variable and a
/// line of the file are held to the same rules in the same words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags(BTreeMap<Key, Vec<String>>);

impl Flags {
    /// No flag given.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a flag's values; none means that it was not given.
    #[must_use]
    pub fn with<T: Into<String>>(mut self, key: Key, values: impl IntoIterator<Item = T>) -> Self {
        let values: Vec<String> = values.into_iter().map(Into::into).collect();
        if !values.is_empty() {
            self.0.insert(key, values);
        }
        self
    }

    pub(super) fn value(&self, key: Key) -> Option<Value> {
        let texts = self.0.get(&key)?.clone();
        Some(Value { texts, origin: Origin::Flag(key) })
    }
}

/// A setting's texts, and where they stand.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub(super) texts: Vec<String>,
    pub(super) origin: Origin,
}

/// Where a setting was written.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    Flag(Key),
    Variable(Key),
    File { key: Key, location: Location, base: PathBuf },
}

impl Origin {
    /// The name that the operator wrote.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Flag(key) => key.flag(),
            Self::Variable(key) => key.variable(),
            Self::File { key, .. } => key.to_string(),
        }
    }

    /// Puts the place into a finding, for the file.
    pub(super) fn locate(&self, finding: Diagnostic) -> Diagnostic {
        match self {
            Self::File { location, .. } => finding.at(location.clone()),
            Self::Flag(_) | Self::Variable(_) => finding,
        }
    }
}
