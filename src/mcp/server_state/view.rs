//! One caller's view of one server: the only way from a handler to its source.
//!
//! Only this module creates [`GrantedTool`] and [`GrantedResource`], after `Permissions::allows`
//! allowed it; their fields are private, and so is the source behind [`ServerState`]. A handler
//! that forgets the check has nothing to give out.

use std::sync::Arc;

use rmcp::model::{CallToolResult, Resource, ResourceContents, ResourceTemplate};
use serde_json::Value;

use super::{ServerState, tools};
use crate::backend::CallContext;
use crate::mcp::failure::CallFailure;
use crate::mcp::permissions::ProtectedItem;
use crate::mcp::schema::Schema;
use crate::mcp::source::{Output, Pending, Source, ToolCall, ToolEntry, ToolRequest};
use crate::oauth::bearer::Principal;
use crate::spec::TemplateValues;

/// A server as one caller sees it.
#[derive(Clone, Copy)]
pub(in crate::mcp) struct CallerView<'a> {
    state: &'a ServerState,
    caller: &'a Principal,
}

/// Why a caller does not get the item that it named.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::mcp) enum AccessError<'a> {
    /// It does not exist.
    Unknown,
    /// It exists under this name, but the caller may not have it.
    NotAllowed(&'a str),
}

/// A tool that the caller may call.
#[derive(Clone, Copy)]
pub(in crate::mcp) struct GrantedTool<'a> {
    tool: ToolEntry<'a>,
    schema: &'a Schema,
    source: &'a dyn Source,
}

/// A resource that the caller may read.
#[derive(Clone, Copy)]
pub(in crate::mcp) struct GrantedResource<'a> {
    uri: &'a str,
    source: &'a dyn Source,
}

impl<'a> CallerView<'a> {
    pub(super) fn new(state: &'a ServerState, caller: &'a Principal) -> Self {
        Self { state, caller }
    }

    fn may(&self, item: ProtectedItem<'_>) -> bool {
        self.state.permissions.allows(self.caller, item)
    }

    fn source(&self) -> &'a dyn Source {
        &*self.state.source
    }

    /// Returns the tools that are listed for the caller, in the order of the source.
    pub(in crate::mcp) fn tools(self) -> impl Iterator<Item = ToolEntry<'a>> {
        tools(self.source()).filter(move |tool| self.may(ProtectedItem::Tool(tool.name)))
    }

    /// Returns a tool by the name that the caller gave.
    pub(in crate::mcp) fn tool(self, name: &str) -> Result<GrantedTool<'a>, AccessError<'a>> {
        let (tool, schema) = self.state.tool(name).ok_or(AccessError::Unknown)?;
        match self.may(ProtectedItem::Tool(tool.name)) {
            true => Ok(GrantedTool { tool, schema, source: self.source() }),
            false => Err(AccessError::NotAllowed(tool.name)),
        }
    }

    /// Returns the resources that are listed for the caller.
    pub(in crate::mcp) fn resources(self) -> Vec<Resource> {
        let resources = self.source().resources().into_iter();
        resources.filter(|(_, item)| self.may(*item)).map(|(resource, _)| resource).collect()
    }

    /// Returns the templates of further resources. They give nothing away.
    pub(in crate::mcp) fn resource_templates(self) -> Vec<ResourceTemplate> {
        self.source().resource_templates()
    }

    /// Returns a resource by the URI that the caller gave.
    pub(in crate::mcp) fn resource(self, uri: &'a str) -> Result<GrantedResource<'a>, AccessError<'a>> {
        let item = self.source().resource_item(uri).ok_or(AccessError::Unknown)?;
        match self.may(item) {
            true => Ok(GrantedResource { uri, source: self.source() }),
            // What belongs to a hidden tool is granted to no caller, so it is not there.
            false if !self.state.permissions.is_offered(item) => Err(AccessError::Unknown),
            false => Err(AccessError::NotAllowed(uri)),
        }
    }

    /// Returns the instructions for a model: the operator's words, then what they say of the
    /// context if the caller may read it.
    pub(in crate::mcp) async fn instructions(self) -> Option<String> {
        if !self.may(ProtectedItem::Description) {
            return None;
        }
        self.source().instructions(self.may(ProtectedItem::Context)).await
    }
}

impl<'a> GrantedTool<'a> {
    pub(in crate::mcp) fn name(self) -> &'a Arc<str> {
        self.tool.name
    }

    /// Returns what a waiting client reads that it waits for, if the tool does not report its
    /// progress itself.
    pub(in crate::mcp) fn waits_for(self) -> Option<&'static str> {
        self.tool.waits_for
    }

    /// Returns the arguments in the form that the tool takes.
    ///
    /// # Errors
    /// [`CallFailure::Arguments`] with a sentence for the model if they are invalid.
    pub(in crate::mcp) fn prepare_arguments(
        self,
        arguments: TemplateValues,
    ) -> Result<TemplateValues, CallFailure> {
        let arguments = Value::Object(self.schema.normalize_arguments(arguments));
        self.schema.check(&arguments).map_err(CallFailure::Arguments)?;
        let Value::Object(arguments) = arguments else { return Ok(TemplateValues::new()) };
        Ok(arguments)
    }

    /// Calls the tool with arguments that [`prepare_arguments`](Self::prepare_arguments) returned.
    pub(in crate::mcp) fn call(
        self,
        arguments: TemplateValues,
        request: ToolRequest<'a>,
    ) -> Pending<'a, Result<Output<CallToolResult>, CallFailure>> {
        self.source.call(ToolCall { tool: self.tool.name, arguments, request })
    }
}

impl<'a> GrantedResource<'a> {
    /// Reads the resource.
    pub(in crate::mcp) fn read(
        self,
        request: &'a CallContext,
    ) -> Pending<'a, Result<Output<ResourceContents>, CallFailure>> {
        self.source.read(self.uri, request)
    }
}
