//! The tools and resources that the suite of the protocol expects of every server. It exists only
//! in builds with the feature `conformance`, so a release cannot serve it.
//!
//! A tenant whose dataset is named [`DATASET`] has these tools and resources besides its own. They
//! pass the same front, service, schema validation, rights, audit and handler as all others; only
//! the responses are made up. The suite's tests of features that tenants don't have (prompts,
//! completion, sampling, elicitation, tasks) have no counterpart here: they would test rmcp alone.

mod resources;
mod tools;

use std::sync::Arc;

use rmcp::model::{CallToolResult, Resource, ResourceContents, ResourceTemplate};
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::api::ApiSource;
use super::failure::CallFailure;
use super::permissions::ProtectedItem;
use super::source::{Output, Pending, Source, ToolCall, ToolEntry};
use crate::backend::{CallContext, ContextRefresher};
use crate::spec::Degradation;

/// The name of the dataset that makes a tenant the conformance tenant.
const DATASET: &str = "tenantd-conformance";

/// A source with the suite's tools and resources besides its own.
struct FixtureSource {
    own: Arc<ApiSource>,
    tools: Vec<FixtureTool>,
    changes: watch::Sender<u64>,
}

/// One of the suite's tools.
struct FixtureTool {
    name: Arc<str>,
    description: &'static str,
    input_schema: Arc<Map<String, Value>>,
}

/// Adds what the suite expects to a tenant's source if its dataset is that of the conformance
/// tenant.
pub(super) fn extend(own: Arc<ApiSource>) -> Arc<dyn Source> {
    if *own.dataset != *DATASET {
        return own;
    }
    Arc::new(FixtureSource { own, tools: tools::all().collect(), changes: watch::Sender::default() })
}

impl FixtureSource {
    fn has(&self, tool: &str) -> bool {
        self.tools.iter().any(|known| *known.name == *tool)
    }

    fn own_tool_count(&self) -> usize {
        (0..).map_while(|place| self.own.tool_at(place)).count()
    }
}

impl Source for FixtureSource {
    fn tool_at(&self, place: usize) -> Option<ToolEntry<'_>> {
        if let Some(tool) = self.own.tool_at(place) {
            return Some(tool);
        }
        self.tools.get(place - self.own_tool_count()).map(|tool| ToolEntry {
            name: &tool.name,
            title: None,
            description: tool.description,
            input_schema: &tool.input_schema,
            output_schema: None,
            reads_context: false,
            is_query: false,
            waits_for: None,
        })
    }

    fn resources(&self) -> Vec<(Resource, ProtectedItem<'static>)> {
        let suites = resources::all().map(|resource| (resource, ProtectedItem::Description));
        suites.chain(self.own.resources()).collect()
    }

    fn resource_templates(&self) -> Vec<ResourceTemplate> {
        std::iter::once(resources::template()).chain(self.own.resource_templates()).collect()
    }

    fn resource_item(&self, uri: &str) -> Option<ProtectedItem<'static>> {
        let suites = resources::read(uri).map(|_| ProtectedItem::Description);
        suites.or_else(|| self.own.resource_item(uri))
    }

    fn instructions(&self, with_context: bool) -> Pending<'_, Option<String>> {
        self.own.instructions(with_context)
    }

    fn call<'a>(&'a self, call: ToolCall<'a>) -> Pending<'a, Result<Output<CallToolResult>, CallFailure>> {
        if !self.has(call.tool) {
            return self.own.call(call);
        }
        Box::pin(async move {
            if call.tool == tools::TRIGGER_TOOL_CHANGE {
                self.changes.send_modify(|count| *count += 1);
            }
            let message =
                tools::call_tool(call.tool, &Value::Object(call.arguments), call.request.message).await;
            Ok(Output { message: message.map_err(CallFailure::Protocol)?, payload: None })
        })
    }

    fn read<'a>(
        &'a self,
        uri: &'a str,
        request: &'a CallContext,
    ) -> Pending<'a, Result<Output<ResourceContents>, CallFailure>> {
        match resources::read(uri) {
            Some(message) => Box::pin(async { Ok(Output { message, payload: None }) }),
            None => self.own.read(uri, request),
        }
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.changes.subscribe())
    }

    fn degradation(&self) -> Option<Degradation> {
        self.own.degradation()
    }

    fn start_refreshing(&self, refresher: &ContextRefresher) {
        self.own.start_refreshing(refresher);
    }
}
