//! State shared by all requests of one server. Everything that it gives out passes through
//! [`CallerView`], which checks each caller's rights.

mod view;

use std::sync::Arc;
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rmcp::model::{CacheScope, Implementation, MetaObject, Tool, ToolAnnotations};
use serde_json::Value;

use super::McpServerConfig;
use super::context;
#[cfg(feature = "conformance")]
use super::fixture::ConformanceFixture;
use super::permissions::{Permissions, ToolListChange};
use super::schema::Schema;
use super::subscriptions::{Lineage, Subscription};
use super::timing::Timing;
use crate::backend;
use crate::base::budget::Reservation;
use crate::base::diagnostic::{Diagnostic, Report};
use crate::oauth::bearer::Principal;
use crate::spec::ToolSpec;
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Metrics;

pub(super) use view::{AccessError, CallerView, GrantedContext, GrantedTool};

/// Escapes everything in a dataset's name but RFC 3986's unreserved characters.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One server's configuration, its compiled schemas and its place in the line of reloads.
pub(super) struct ServerState {
    /// Private, so that no handler gives anything out without a check.
    surface: McpServerConfig,
    rights: Permissions,
    pub(super) timing: Timing,
    pub(super) lineage: Lineage,
    /// The compiled input schemas, in the order of the tools.
    arguments: Vec<Arc<Schema>>,
    /// Never read; kept so that equal schemas of other tenants need not be compiled again.
    _results: Vec<Arc<Schema>>,
    #[cfg(feature = "conformance")]
    pub(super) fixture: Option<ConformanceFixture>,
}

impl ServerState {
    pub(super) fn new(surface: McpServerConfig, pace: Timing) -> Result<Self, Report> {
        let mut report = Report::new();
        let mut arguments = Vec::with_capacity(surface.tools.len());
        let mut results = Vec::with_capacity(surface.tools.len());
        for tool in surface.tools.iter() {
            keep(&mut arguments, Schema::get_or_compile(&tool.input_schema), tool, "input", &mut report);
            keep(&mut results, Schema::get_or_compile(&tool.output_schema), tool, "output", &mut report);
        }
        if report.has_errors() {
            return Err(report);
        }
        Ok(Self {
            #[cfg(feature = "conformance")]
            fixture: ConformanceFixture::for_dataset(&surface.dataset),
            rights: Permissions::new(surface.auth_mode.clone(), Arc::clone(&surface.tools)),
            surface,
            timing: pace,
            lineage: Lineage::default(),
            arguments,
            _results: results,
        })
    }

    /// Returns the server as a caller sees it.
    pub(super) fn view<'a>(&'a self, caller: &'a Principal) -> CallerView<'a> {
        CallerView::new(self, caller)
    }

    /// Returns the rights at this tenant.
    pub(super) fn permissions(&self) -> &Permissions {
        &self.rights
    }

    pub(super) fn tenant(&self) -> &str {
        self.surface.tenant.as_str()
    }

    pub(super) fn title(&self) -> &str {
        &self.surface.title
    }

    /// Returns the longest time that a call may take.
    pub(super) fn deadline(&self) -> Duration {
        self.surface.deadline
    }

    pub(super) fn max_result_bytes(&self) -> usize {
        self.surface.max_result_bytes
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.surface.metrics
    }

    pub(super) fn audit(&self) -> &Audit {
        &self.surface.audit
    }

    /// Runs CPU work on `bytes` bytes, see
    /// [`BackendClient::run_offloaded`](crate::backend::BackendClient::run_offloaded).
    pub(super) async fn run_offloaded<T, F>(
        &self,
        bytes: usize,
        deadline: Instant,
        work: F,
    ) -> Result<T, backend::Error>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.surface.backend.run_offloaded(bytes, deadline, work).await
    }

    /// Room for something made of an answer.
    pub(super) fn new_reservation(&self, call: &backend::CallContext) -> Reservation {
        self.surface.backend.new_reservation(call)
    }

    /// Returns the accepted values of the Host header; `None` accepts any.
    pub(super) fn allowed_hosts(&self) -> Option<&[String]> {
        self.surface.allowed_hosts.as_deref()
    }

    /// Returns the values of the Origin header that may call.
    pub(super) fn allowed_origins(&self) -> &[String] {
        &self.surface.allowed_origins
    }

    /// Returns a tool and the schema of its arguments.
    fn tool(&self, name: &str) -> Option<(&ToolSpec, &Schema)> {
        let tools = self.surface.tools.iter().zip(&self.arguments);
        tools.map(|(tool, schema)| (tool, schema.as_ref())).find(|(tool, _)| *tool.name == *name)
    }

    /// Returns the tools that a caller may have, in the order of the spec.
    pub(super) fn list_tools(&self, caller: &Principal) -> Vec<Tool> {
        let tools = self.view(caller).tools().map(shown);
        #[cfg(feature = "conformance")]
        let tools = tools.chain(self.fixture.iter().flat_map(ConformanceFixture::tools));
        tools.collect()
    }

    /// Returns the uncompiled schema of a tool's arguments.
    pub(super) fn input_schema<'a>(
        &'a self,
        name: &str,
        caller: &'a Principal,
    ) -> Option<&'a Arc<serde_json::Map<String, Value>>> {
        #[cfg(feature = "conformance")]
        if let Some(schema) = self.fixture.as_ref().and_then(|fixture| fixture.input_schema(name)) {
            return Some(schema);
        }
        self.view(caller).tools().find(|tool| *tool.name == *name).map(|tool| &tool.input_schema)
    }

    /// Returns a follower for a stream that is to be notified of reloads.
    pub(super) fn subscribe(&self) -> Subscription {
        #[cfg(feature = "conformance")]
        if let Some(fixture) = &self.fixture {
            return fixture.subscribe(&self.lineage);
        }
        self.lineage.subscribe()
    }

    /// Returns what a reload changes for clients that have listed the tools; `None` if they need
    /// not list them again. Clients do not see which calls the tools make.
    pub(super) fn diff_tools(&self, other: &Self) -> Option<ToolListChange> {
        let (ours, theirs) = (&self.surface.tools, &other.surface.tools);
        if ours.iter().map(seen).eq(theirs.iter().map(seen)) {
            return None;
        }
        let lacks =
            |tools: &[ToolSpec], tool: &ToolSpec| !tools.iter().any(|known| seen(known) == seen(tool));
        let gone = ours.iter().filter(|tool| lacks(theirs, tool));
        let come = theirs.iter().filter(|tool| lacks(ours, tool));
        let tools = gone.chain(come).map(|tool| Arc::clone(&tool.name)).collect();
        Some(ToolListChange { tools, before: self.rights.clone(), after: other.rights.clone() })
    }

    /// Returns the server's name and version.
    pub(super) fn server_info(&self) -> Implementation {
        Implementation::new(self.surface.tenant.as_str(), env!("CARGO_PKG_VERSION"))
            .with_title(&*self.surface.title)
    }

    /// Returns the `_meta` of a result, which names the server (2026-07-28, "Per-response
    /// metadata").
    pub(super) fn result_meta(&self) -> MetaObject {
        let info = serde_json::json!({
            "name": self.surface.tenant.as_str(),
            "title": &*self.surface.title,
            "version": env!("CARGO_PKG_VERSION"),
        });
        let mut meta = MetaObject::new();
        meta.0.insert("io.modelcontextprotocol/serverInfo".to_owned(), info);
        meta
    }

    /// Returns whether shared caches may store a list or document.
    pub(super) fn cache_scope(&self) -> CacheScope {
        if self.rights.vary_by_caller() { CacheScope::Private } else { CacheScope::Public }
    }

    /// Returns how long lists and documents may be cached, in milliseconds.
    pub(super) fn ttl_ms(&self) -> u64 {
        u64::try_from(self.surface.list_ttl.as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns the URI of the semantic context: `context://<dataset>`.
    pub(super) fn context_uri(&self) -> String {
        format!("context://{}", utf8_percent_encode(&self.surface.dataset, SEGMENT))
    }
}

/// Returns what clients see of a tool.
fn seen(tool: &ToolSpec) -> impl PartialEq + '_ {
    (&tool.name, &tool.title, &tool.description, &tool.input_schema, &tool.output_schema)
}

/// Adds a compiled schema to `schemas`, or a finding to the report.
fn keep(
    schemas: &mut Vec<Arc<Schema>>,
    compiled: Result<Arc<Schema>, super::schema::SchemaError>,
    tool: &ToolSpec,
    which: &str,
    report: &mut Report,
) {
    match compiled {
        Ok(schema) => schemas.push(schema),
        Err(fault) => report.push(
            Diagnostic::error(
                "tool-schema",
                format!("the {which} schema of the tool {:?} cannot be used: {fault}", tool.name),
            )
            .help("write it in JSON Schema 2020-12, with \"type\": \"object\" and references within itself only"),
        ),
    }
}

/// Converts a tool to rmcp's type. Its annotations: tools only read; the same call may be repeated;
/// a dataset is a closed world.
fn shown(tool: &ToolSpec) -> Tool {
    let hints = ToolAnnotations::with_title(&*tool.title)
        .read_only(true)
        .destructive(false)
        .idempotent(true)
        .open_world(false);
    Tool::new(tool.name.to_string(), tool.description.to_string(), Arc::clone(&tool.input_schema))
        .with_title(&*tool.title)
        .with_raw_output_schema(Arc::clone(&tool.output_schema))
        .with_annotations(hints)
}

/// Returns whether a schema requires arguments to be repeated in `Mcp-Param-*` headers.
pub(super) fn declares_header_params(schema: &serde_json::Map<String, Value>) -> bool {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.is_some_and(|properties| {
        properties
            .values()
            .filter_map(Value::as_object)
            .any(|property| property.contains_key("x-mcp-header") || declares_header_params(property))
    })
}
