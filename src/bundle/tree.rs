//! The tree that a document is parsed into: values with their positions.
//!
//! Findings need the position of every key and value, and the text of a scalar as written (`0123`,
//! `yes`). `yaml` and `dotenv` are two parsers of it.

use std::sync::Arc;

use serde_json::{Number, Value as Json};

/// The largest text that is parsed, in bytes.
pub(super) const MAX_BYTES: usize = 256 << 10;

/// A position in a text, counted from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// A value and its position. Has no `Debug`, since it may hold secrets. Clones share their
/// contents, so an alias costs no memory.
#[derive(Clone)]
pub struct ConfigNode {
    /// Where it is.
    pub at: Position,
    /// Its contents.
    pub value: ConfigValue,
    /// Whether its notation is unusual.
    pub style: ValueStyle,
}

/// Whether the notation of a value is unusual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueStyle {
    /// It is not.
    Normal,
    /// It has a tag that means something to other tools.
    Tagged,
    /// Its line contains something but no value: an anchor, a tag, a comment sign without a space.
    Valueless,
    /// It contains no reference: a dollar sign stands for itself.
    Literal,
}

/// The contents of a node.
#[derive(Clone)]
pub enum ConfigValue {
    /// `plain`: written without quotes, so it may be meant as a number, a boolean or null.
    Scalar {
        /// The text without its quotes.
        text: Arc<str>,
        /// Whether it has no quotes.
        plain: bool,
    },
    /// A list.
    List(Arc<Vec<ConfigNode>>),
    /// A mapping in the order of the text.
    Map(Arc<Vec<(ConfigKey, ConfigNode)>>),
}

/// A key of a mapping.
#[derive(Clone)]
pub struct ConfigKey {
    /// Where it is.
    pub at: Position,
    /// Its name.
    pub text: Arc<str>,
}

/// Why a text is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// The code of the finding.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: &'static str,
    /// Where it is.
    pub at: Position,
}

impl ConfigNode {
    pub(super) fn usual(at: Position, value: ConfigValue) -> Self {
        Self { at, value, style: ValueStyle::Normal }
    }

    /// Whether the value is unset: `~`, `null` or blank text.
    pub fn is_blank(&self) -> bool {
        match &self.value {
            ConfigValue::Scalar { text, plain } => {
                text.trim().is_empty() || (*plain && matches!(&**text, "~" | "null" | "Null" | "NULL"))
            }
            ConfigValue::List(_) | ConfigValue::Map(_) => false,
        }
    }

    /// Returns the text of a scalar as written, trimmed.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            ConfigValue::Scalar { text, .. } => Some(text.trim()),
            _ => None,
        }
    }

    /// Returns the pairs of a mapping; none for any other node.
    pub fn pairs(&self) -> &[(ConfigKey, ConfigNode)] {
        match &self.value {
            ConfigValue::Map(pairs) => pairs,
            _ => &[],
        }
    }

    /// Returns the value of a key, with the key.
    pub fn member(&self, name: &str) -> Option<&(ConfigKey, ConfigNode)> {
        self.pairs().iter().find(|(key, _)| *key.text == *name)
    }

    /// Describes the kind of the node, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            ConfigValue::Scalar { .. } => "a single value",
            ConfigValue::List(_) => "a list",
            ConfigValue::Map(_) => "a mapping",
        }
    }

    /// Converts the node to JSON (core schema): plain scalars may be numbers, booleans or null.
    pub fn to_json(&self) -> Json {
        match &self.value {
            ConfigValue::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            ConfigValue::Map(pairs) => {
                Json::Object(pairs.iter().map(|(key, node)| (key.text.to_string(), node.to_json())).collect())
            }
            ConfigValue::Scalar { text, plain: false } => Json::String(text.to_string()),
            ConfigValue::Scalar { .. } if self.is_blank() => Json::Null,
            ConfigValue::Scalar { text, .. } => plain_to_json(text),
        }
    }
}

impl ConfigValue {
    /// Creates a mapping.
    pub(super) fn map(pairs: Vec<(ConfigKey, ConfigNode)>) -> Self {
        Self::Map(Arc::new(pairs))
    }
}

fn plain_to_json(text: &str) -> Json {
    if let Ok(number) = text.parse::<i64>() {
        return Json::from(number);
    }
    let is_numeric = text.contains(|c: char| c.is_ascii_digit());
    let number = text.parse::<f64>().ok().filter(|_| is_numeric).and_then(Number::from_f64);
    match text {
        "true" | "True" | "TRUE" => Json::Bool(true),
        "false" | "False" | "FALSE" => Json::Bool(false),
        _ => number.map_or_else(|| Json::String(text.to_owned()), Json::Number),
    }
}
