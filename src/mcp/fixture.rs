//! The conformance tenant: what the protocol's conformance suite expects of a server. It exists
//! only in builds with the feature `conformance`, so a release cannot serve it.
//!
//! A tenant whose dataset is named [`DATASET`] has these tools and resources besides its own. They
//! pass the same front, service, schema validation and handler as all others; only the responses
//! are made up. The suite's tests of features that tenants don't have (prompts, completion,
//! sampling, elicitation, tasks) have no counterpart here: they would test rmcp alone.

mod resources;
mod tools;

use std::sync::{Arc, Mutex, PoisonError};

use rmcp::model::{
    CallToolRequestParams, CallToolResult, Resource, ResourceContents, ResourceTemplate, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use serde_json::{Map, Value};

use super::permissions::{Permissions, ToolListChange};
use super::result::error_result;
use super::schema::Schema;
use super::server_state::ServerState;
use super::subscriptions::{Lineage, Subscription};

/// The name of the dataset that makes a tenant the conformance tenant.
const DATASET: &str = "tenantd-conformance";

/// The made-up tools and resources of one tenant.
pub(super) struct ConformanceFixture {
    tools: Vec<(Tool, Arc<Schema>)>,
    /// The last server of the line after tool changes that a client triggered.
    end: Mutex<Option<Lineage>>,
}

impl ConformanceFixture {
    /// Returns the fixture if the dataset is that of the conformance tenant.
    pub(super) fn for_dataset(dataset: &str) -> Option<Self> {
        let compiled = |tool: Tool| {
            let schema =
                Schema::get_or_compile(&tool.input_schema).expect("schemas of the fixture are valid");
            (tool, schema)
        };
        let fixture = || Self { tools: tools::all().map(compiled).collect(), end: Mutex::default() };
        (dataset == DATASET).then(fixture)
    }

    pub(super) fn tools(&self) -> impl Iterator<Item = Tool> {
        self.tools.iter().map(|(tool, _)| tool.clone())
    }

    pub(super) fn input_schema(&self, name: &str) -> Option<&Arc<Map<String, Value>>> {
        self.tools.iter().map(|(tool, _)| tool).find(|tool| tool.name == name).map(|tool| &tool.input_schema)
    }

    pub(super) fn resources(&self) -> impl Iterator<Item = Resource> {
        resources::all()
    }

    pub(super) fn templates(&self) -> impl Iterator<Item = ResourceTemplate> {
        std::iter::once(resources::template())
    }

    pub(super) fn read(&self, uri: &str) -> Option<ResourceContents> {
        resources::read(uri)
    }

    /// Returns a follower for a new stream, which sees later changes only.
    pub(super) fn subscribe(&self, line: &Lineage) -> Subscription {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        end.as_ref().unwrap_or(line).subscribe()
    }

    /// Does what a reload with other tools does.
    fn change_tools(&self, line: &Lineage, rights: &Permissions) {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let next = line.extend();
        // Callers are only notified of tools that they may have, and the fixture's own are not
        // among the tenant's.
        let tools = [Arc::from("search")].into();
        let change = ToolListChange { tools, before: rights.clone(), after: rights.clone() };
        end.as_ref().unwrap_or(line).hand_over(Some(change), &next);
        *end = Some(next);
    }
}

/// Answers a call of one of the fixture's tools; returns `None` for any other tool.
pub(super) async fn call_tool(
    shared: &ServerState,
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Option<Result<CallToolResult, ErrorData>> {
    let fixture = shared.fixture.as_ref()?;
    let (tool, schema) = fixture.tools.iter().find(|(tool, _)| tool.name == request.name)?;
    let arguments = Value::Object(request.arguments.clone().unwrap_or_default());
    if let Err(violation) = schema.check(&arguments) {
        return Some(Ok(error_result(violation)));
    }
    if tool.name == tools::TRIGGER_TOOL_CHANGE {
        fixture.change_tools(&shared.lineage, shared.permissions());
    }
    Some(tools::call_tool(&tool.name, &arguments, context).await)
}
