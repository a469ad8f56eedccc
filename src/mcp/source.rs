//! What a tenant's server gives out, whatever it is made of.
//!
//! A [`Source`] has tools, resources and instructions, and answers calls and reads of them.
//! Everything that is the same for all sources stands around it: [`super::permissions`] decides
//! who may have what, [`super::server_state`] validates arguments, and [`super::protocol`] adds
//! progress, cancellation, metrics, the audit, and the methods of MCP. A source is therefore asked
//! only for what its caller may have.
//!
//! Two sources exist: an HTTP API ([`super::api`]), and in builds for the conformance suite one
//! with the suite's own tools.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use rmcp::RoleServer;
use rmcp::model::{CallToolResult, Resource, ResourceContents, ResourceTemplate};
use rmcp::service::RequestContext;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::failure::CallFailure;
use super::payload::Payload;
use super::permissions::{ProtectedItem, ToolRight};
use crate::backend::{CallContext, ContextRefresher};
use crate::spec::{Degradation, TemplateValues};

/// A future of a source. It ends by the deadline of its request, and may be dropped before.
pub(super) type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a tenant's server gives out.
pub(super) trait Source: Send + Sync {
    /// Returns the tool at a place of the list; `None` behind the last one.
    fn tool_at(&self, place: usize) -> Option<ToolEntry<'_>>;

    /// Returns the resources, each with the item that a caller must have the right to.
    fn resources(&self) -> Vec<(Resource, ProtectedItem<'static>)>;

    /// Returns the templates of further resources.
    fn resource_templates(&self) -> Vec<ResourceTemplate>;

    /// Returns what a caller must have the right to in order to read a URI; `None` if there is
    /// nothing under it.
    fn resource_item(&self, uri: &str) -> Option<ProtectedItem<'static>>;

    /// Returns the instructions for a model, with what they say of the context only if the caller
    /// may have it.
    fn instructions(&self, with_context: bool) -> Pending<'_, Option<String>>;

    /// Answers a call of one of the tools. The arguments match the tool's schema.
    fn call<'a>(&'a self, call: ToolCall<'a>) -> Pending<'a, Result<Output<CallToolResult>, CallFailure>>;

    /// Reads a resource for which [`resource_item`](Self::resource_item) names an item.
    fn read<'a>(
        &'a self,
        uri: &'a str,
        request: &'a CallContext,
    ) -> Pending<'a, Result<Output<ResourceContents>, CallFailure>>;

    /// Returns a receiver that changes when the tools do; `None` if they change only by a reload.
    fn changes(&self) -> Option<watch::Receiver<u64>>;

    /// Returns why the source degrades its tenant, if its last call failed because of it.
    fn degradation(&self) -> Option<Degradation>;

    /// Fetches in advance what callers will need, and again whenever it is stale.
    fn start_refreshing(&self, refresher: &ContextRefresher);
}

/// A tool as clients see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ToolEntry<'a> {
    pub(super) name: &'a Arc<str>,
    /// The name shown to people.
    pub(super) title: Option<&'a str>,
    pub(super) description: &'a str,
    pub(super) input_schema: &'a Arc<Map<String, Value>>,
    pub(super) output_schema: Option<&'a Arc<Map<String, Value>>>,
    /// Whether callers of the tool may read the semantic context.
    pub(super) reads_context: bool,
    /// Whether the tool only reads, repeatably, from one dataset.
    pub(super) is_query: bool,
    /// What a waiting client reads that it waits for; `None` if the tool reports its progress.
    pub(super) waits_for: Option<&'static str>,
}

impl PartialEq for ToolEntry<'_> {
    /// Whether clients see the same tool.
    fn eq(&self, other: &Self) -> bool {
        (self.name, self.title, self.description, self.input_schema, self.output_schema)
            == (other.name, other.title, other.description, other.input_schema, other.output_schema)
    }
}

impl From<ToolEntry<'_>> for ToolRight {
    fn from(tool: ToolEntry<'_>) -> Self {
        Self { name: Arc::clone(tool.name), reads_context: tool.reads_context }
    }
}

/// A call of a tool.
pub(super) struct ToolCall<'a> {
    pub(super) tool: &'a str,
    pub(super) arguments: TemplateValues,
    pub(super) request: ToolRequest<'a>,
}

/// The request that calls a tool.
#[derive(Clone, Copy)]
pub(super) struct ToolRequest<'a> {
    /// The caller, the deadline, and what is passed on.
    pub(super) context: &'a CallContext,
    /// The client's message, and the way to notify the client.
    pub(super) message: &'a RequestContext<RoleServer>,
}

/// The answer of a source: a message, and the bytes that are written into it.
#[derive(Debug)]
pub(super) struct Output<T> {
    pub(super) message: T,
    pub(super) payload: Option<Payload>,
}
