//! Attributes of spans, log records, data points and the resource.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};

use crate::telemetry::printable::printable;

/// The longest text of an attribute, in characters.
const MAX_TEXT: usize = 256;

/// The value of an attribute.
#[derive(Debug)]
pub struct AttributeValue(Value);

impl AttributeValue {
    /// Takes a text of up to `max` characters, without characters that a terminal obeys.
    pub(super) fn text(text: &str, max: usize) -> Self {
        let text = printable(text);
        Self(Value::StringValue(text.chars().take(max).collect()))
    }

    pub(super) fn into_any(self) -> AnyValue {
        AnyValue { value: Some(self.0) }
    }
}

impl From<&str> for AttributeValue {
    /// Takes a text, without characters that a terminal obeys and not all of a long one.
    fn from(text: &str) -> Self {
        Self::text(text, MAX_TEXT)
    }
}

impl From<String> for AttributeValue {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<i64> for AttributeValue {
    fn from(number: i64) -> Self {
        Self(Value::IntValue(number))
    }
}

impl From<u16> for AttributeValue {
    fn from(number: u16) -> Self {
        i64::from(number).into()
    }
}

impl From<f64> for AttributeValue {
    fn from(number: f64) -> Self {
        Self(Value::DoubleValue(number))
    }
}

impl From<bool> for AttributeValue {
    fn from(flag: bool) -> Self {
        Self(Value::BoolValue(flag))
    }
}

pub(super) fn key_value(key: impl Into<String>, value: impl Into<AttributeValue>) -> KeyValue {
    KeyValue { key: key.into(), value: Some(value.into().into_any()), ..KeyValue::default() }
}
