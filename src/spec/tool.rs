//! A tool as data: what a model sees, and the call behind it.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::CallSpec;

/// One tool of a tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// The name, of 1 to 128 characters: `A-Z a-z 0-9 _ - .`
    pub name: Arc<str>,
    /// The name shown to people.
    pub title: Arc<str>,
    /// The description for the model.
    pub description: Arc<str>,
    /// The JSON Schema (2020-12) of the arguments, an object schema. Shared between tenants where
    /// equal.
    pub input_schema: Arc<Map<String, Value>>,
    /// The JSON Schema of the structured result.
    pub output_schema: Arc<Map<String, Value>>,
    /// What the tool returns.
    pub kind: ToolKind,
    /// The call that a call of the tool makes.
    pub call: Arc<CallSpec>,
}

/// What a tool returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolKind {
    /// The answer to a question: rows, or whatever the backend returns.
    Search,
    /// The semantic context, which is cached and also available as a resource.
    Context,
}
