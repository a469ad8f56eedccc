//! The values of a statement, with their types, so that the server needs no round trip to prepare
//! it.

use tokio_postgres::types::{ToSql, Type};

/// A value of a statement.
#[derive(Debug)]
pub(in crate::store) enum Value<'a> {
    Text(&'a str),
    MaybeText(Option<&'a str>),
    Bytes(&'a [u8]),
    MaybeBytes(Option<&'a [u8]>),
    Number(i64),
    MaybeNumber(Option<i64>),
    Texts(Vec<&'a str>),
    AnyTexts(Option<Vec<&'a str>>),
    MaybeTexts(Vec<Option<&'a str>>),
    ByteStrings(Vec<&'a [u8]>),
    MaybeByteStrings(Vec<Option<&'a [u8]>>),
    Numbers(Vec<i64>),
}

impl Value<'_> {
    /// Returns what the client library takes.
    pub(super) fn typed(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Self::Text(value) => (value, Type::TEXT),
            Self::MaybeText(value) => (value, Type::TEXT),
            Self::Bytes(value) => (value, Type::BYTEA),
            Self::MaybeBytes(value) => (value, Type::BYTEA),
            Self::Number(value) => (value, Type::INT8),
            Self::MaybeNumber(value) => (value, Type::INT8),
            Self::Texts(values) => (values, Type::TEXT_ARRAY),
            Self::AnyTexts(values) => (values, Type::TEXT_ARRAY),
            Self::MaybeTexts(values) => (values, Type::TEXT_ARRAY),
            Self::ByteStrings(values) => (values, Type::BYTEA_ARRAY),
            Self::MaybeByteStrings(values) => (values, Type::BYTEA_ARRAY),
            Self::Numbers(values) => (values, Type::INT8_ARRAY),
        }
    }
}
