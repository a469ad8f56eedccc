//! What is wrong at present, as an operator is told of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::spec::AlertKind;

/// All conditions of one moment.
pub type Conditions = BTreeMap<ConditionKey, Condition>;

/// What a condition is about, and its kind. There is one condition of a kind about a subject.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConditionKey {
    /// Its kind.
    pub kind: AlertKind,
    /// Identifies the subject among those of this kind.
    pub id: String,
}

/// What a condition is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: SubjectKind,
    /// Its name, as people know it.
    pub name: String,
}

/// What a condition can be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectKind {
    Tenant,
    Certificate,
    Folder,
    Gateway,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// What it is about.
    pub subject: Subject,
    /// How bad it is, among conditions of its kind; an operator is told again when it gets worse.
    pub level: u8,
    /// What is wrong, in a sentence for people.
    pub summary: String,
    /// What to do about it.
    pub action: String,
    /// The code of the finding, if one caused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

impl Subject {
    /// Creates the subject of a tenant.
    pub(super) fn tenant(name: &str) -> Self {
        Self { kind: SubjectKind::Tenant, name: name.to_owned() }
    }

    /// Creates the subject of the whole gateway.
    pub(super) fn gateway() -> Self {
        Self { kind: SubjectKind::Gateway, name: "gateway".to_owned() }
    }
}

impl Condition {
    /// Creates a condition of the lowest level.
    pub(super) fn new(subject: Subject, summary: impl Into<String>, action: impl Into<String>) -> Self {
        Self { subject, level: 0, summary: summary.into(), action: action.into(), code: None }
    }
}
