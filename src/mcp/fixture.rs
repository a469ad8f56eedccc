//! The conformance tenant: what the protocol's conformance suite wants a server to have. Only builds with the feature
//! `conformance` have it, so nothing that ships can be asked for it.
//!
//! A tenant whose dataset is named [`DATASET`] has these tools and resources besides its own. They go the way of all
//! others: the same front, service, schema check and handler; only the answers are made up. What the suite asks of
//! features that tenants don't have (prompts, completion, sampling, elicitation, tasks) is not here: that would test
//! rmcp alone.

mod resources;
mod tools;

use std::sync::{Arc, Mutex, PoisonError};

use rmcp::model::{
    CallToolRequestParams, CallToolResult, Resource, ResourceContents, ResourceTemplate, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use serde_json::{Map, Value};

use super::result::failure;
use super::rights::{Change, Rights};
use super::schema::Schema;
use super::shared::Shared;
use super::subscriptions::{Follower, Line};

/// The dataset that makes a tenant the conformance tenant.
const DATASET: &str = "tenantd-conformance";

/// The made-up tools and resources of one tenant.
pub(super) struct Fixture {
    tools: Vec<(Tool, Arc<Schema>)>,
    /// The end of the line after tool changes that a client has triggered.
    end: Mutex<Option<Line>>,
}

impl Fixture {
    /// The fixture, for the tenant that asks for it.
    pub(super) fn of(dataset: &str) -> Option<Self> {
        let compiled = |tool: Tool| {
            let schema = Schema::compiled(&tool.input_schema).expect("schemas of the fixture are valid");
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

    /// For a new stream: later changes, not those of the past.
    pub(super) fn follower(&self, line: &Line) -> Follower {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        end.as_ref().unwrap_or(line).follower()
    }

    /// Does what a reload with other tools does.
    fn change_tools(&self, line: &Line, rights: &Rights) {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let next = line.continued();
        // Only changes of tools that a caller may have are told, and the fixture's own are not among the tenant's.
        let tools = [Arc::from("search")].into();
        let change = Change { tools, before: rights.clone(), after: rights.clone() };
        end.as_ref().unwrap_or(line).hand_over(Some(change), &next);
        *end = Some(next);
    }
}

/// Answers a call of a tool of the fixture; `None` if it is none.
pub(super) async fn call(
    shared: &Shared,
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Option<Result<CallToolResult, ErrorData>> {
    let fixture = shared.fixture.as_ref()?;
    let (tool, schema) = fixture.tools.iter().find(|(tool, _)| tool.name == request.name)?;
    let arguments = Value::Object(request.arguments.clone().unwrap_or_default());
    if let Err(violation) = schema.check(&arguments) {
        return Some(Ok(failure(violation)));
    }
    if tool.name == tools::TRIGGER_TOOL_CHANGE {
        fixture.change_tools(&shared.line, shared.rights());
    }
    Some(tools::answer(&tool.name, &arguments, context).await)
}
