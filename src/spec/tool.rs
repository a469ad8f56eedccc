//! A tool as data: what a model sees, and the call behind it.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::CallSpec;

/// One tool of a tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// 1 to 128 of `A-Z a-z 0-9 _ - .`
    pub name: Arc<str>,
    pub title: Arc<str>,
    pub description: Arc<str>,
    /// JSON Schema 2020-12, an object schema. Shared between tenants where equal.
    pub input_schema: Arc<Map<String, Value>>,
    pub output_schema: Arc<Map<String, Value>>,
    pub kind: ToolKind,
    pub call: Arc<CallSpec>,
}

/// What a tool's answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolKind {
    /// An answer to a question: rows, or whatever the backend says.
    Search,
    /// The semantic context: cached, also a resource.
    Context,
}
