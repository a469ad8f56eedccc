//! State shared by all requests of one server. Everything that it gives out passes through
//! [`CallerView`], which checks each caller's permissions.

mod view;

use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{CacheScope, Icon, Implementation, MetaObject, Tool, ToolAnnotations};
use serde_json::{Map, Value};

use super::lineage::{Lineage, SourceChanges, Subscription};
use super::permissions::{AuthMode, Permissions, ToolListChange, ToolRight};
use super::schema::{Schema, SchemaError};
use super::source::{Source, ToolEntry};
use super::timing::Timing;
use crate::backend::ContextRefresher;
use crate::base::clock::Clock;
use crate::base::diagnostic::{Diagnostic, Report};
use crate::oauth::bearer::Principal;
use crate::spec::{Degradation, SlowAnswers, TenantName};
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otlp::Tracer;
use crate::usage::UsageMeter;

pub(super) use view::{AccessError, CallerView, GrantedResource, GrantedTool};

/// What a server has besides its source.
#[derive(Debug)]
pub(super) struct ServerConfig {
    /// The tenant; also the name in `serverInfo`.
    pub(super) tenant: TenantName,
    /// The title shown to people.
    pub(super) title: Arc<str>,
    /// How long a call may take, from the arrival of its request.
    pub(super) call_timeout: Duration,
    /// How clients get an answer that is not ready soon.
    pub(super) slow_answers: SlowAnswers,
    /// The URL of the icon in `serverInfo`.
    pub(super) icon_url: Arc<str>,
    /// `ttlMs` of lists and resources.
    pub(super) list_ttl: Duration,
    /// Accepted values of the Host header; `None` accepts any.
    pub(super) allowed_hosts: Option<Arc<[String]>>,
    /// Values of the Origin header that may call.
    pub(super) allowed_origins: Arc<[String]>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tracer: Tracer,
    pub(super) audit: Audit,
    pub(super) usage: UsageMeter,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) timing: Timing,
}

/// One server's configuration, its source, and its place in the line of reloads.
pub(super) struct ServerState {
    pub(super) config: ServerConfig,
    pub(super) lineage: Lineage,
    /// Private, so that no handler gives anything out without a check.
    source: Arc<dyn Source>,
    permissions: Permissions,
    /// The compiled input schemas, in the order of the tools.
    input_schemas: Box<[Arc<Schema>]>,
    /// Never read; kept so that equal schemas of other tenants need not be compiled again.
    _output_schemas: Box<[Arc<Schema>]>,
}

impl ServerState {
    /// Compiles the schemas of the source's tools.
    ///
    /// # Errors
    /// A report with one finding for each schema that cannot be used.
    pub(super) fn new(
        config: ServerConfig,
        source: Arc<dyn Source>,
        auth_mode: AuthMode,
    ) -> Result<Self, Report> {
        let mut report = Report::new();
        let (mut input_schemas, mut output_schemas) = (Vec::new(), Vec::new());
        for tool in tools(&*source) {
            push_or_report(
                &mut input_schemas,
                Schema::get_or_compile(tool.input_schema),
                tool,
                "input",
                &mut report,
            );
            if let Some(schema) = tool.output_schema {
                push_or_report(
                    &mut output_schemas,
                    Schema::get_or_compile(schema),
                    tool,
                    "output",
                    &mut report,
                );
            }
        }
        if report.has_errors() {
            return Err(report);
        }
        let permissions = Permissions::new(auth_mode, tools(&*source).map(ToolRight::from));
        let (input_schemas, output_schemas) = (input_schemas.into(), output_schemas.into());
        Ok(Self {
            config,
            lineage: Lineage::default(),
            source,
            permissions,
            input_schemas,
            _output_schemas: output_schemas,
        })
    }

    /// Returns the server as a caller sees it.
    pub(super) fn view<'a>(&'a self, caller: &'a Principal) -> CallerView<'a> {
        CallerView::new(self, caller)
    }

    /// Returns the permissions at this tenant.
    pub(super) fn permissions(&self) -> &Permissions {
        &self.permissions
    }

    pub(super) fn tenant(&self) -> &str {
        self.config.tenant.as_str()
    }

    /// Returns why the source degrades its tenant, if it does.
    pub(super) fn degradation(&self) -> Option<Degradation> {
        self.source.degradation()
    }

    /// Has the source fetch in advance what callers will need.
    pub(super) fn start_refreshing(&self, refresher: &ContextRefresher) {
        self.source.start_refreshing(refresher);
    }

    /// Returns a tool and the schema of its arguments.
    fn tool(&self, name: &str) -> Option<(ToolEntry<'_>, &Schema)> {
        let tools = tools(&*self.source).zip(&self.input_schemas);
        tools.map(|(tool, schema)| (tool, schema.as_ref())).find(|(tool, _)| **tool.name == *name)
    }

    /// Returns the tools that a caller may have, in the order of the source.
    pub(super) fn list_tools(&self, caller: &Principal) -> Vec<Tool> {
        self.view(caller).tools().map(to_tool).collect()
    }

    /// Returns the uncompiled schema of a tool's arguments.
    pub(super) fn input_schema<'a>(
        &'a self,
        name: &str,
        caller: &'a Principal,
    ) -> Option<&'a Arc<Map<String, Value>>> {
        self.view(caller).tools().find(|tool| **tool.name == *name).map(|tool| tool.input_schema)
    }

    /// Returns a follower for a stream that is to be notified of changes of the tools.
    pub(super) fn subscribe(&self) -> Subscription {
        let changes = self.source.changes().map(|changes| {
            let tools = tools(&*self.source).map(|tool| Arc::clone(tool.name)).collect();
            let (before, after) = (self.permissions.clone(), self.permissions.clone());
            SourceChanges { receiver: changes, change: ToolListChange { tools, before, after } }
        });
        self.lineage.subscribe(changes)
    }

    /// Hands the followers over to the successor.
    pub(super) fn hand_over_to(&self, successor: &Self) {
        self.lineage.hand_over(self.diff_tools(successor), successor.subscribe());
    }

    /// Returns what a reload changes for clients that have listed the tools; `None` if they need
    /// not list them again.
    fn diff_tools(&self, other: &Self) -> Option<ToolListChange> {
        if tools(&*self.source).eq(tools(&*other.source)) {
            return None;
        }
        let is_missing_in =
            |source: &dyn Source, tool: &ToolEntry<'_>| !tools(source).any(|known| known == *tool);
        let removed = tools(&*self.source).filter(|tool| is_missing_in(&*other.source, tool));
        let added = tools(&*other.source).filter(|tool| is_missing_in(&*self.source, tool));
        let tools = removed.chain(added).map(|tool| Arc::clone(tool.name)).collect();
        Some(ToolListChange { tools, before: self.permissions.clone(), after: other.permissions.clone() })
    }

    /// Returns the server's name and version.
    pub(super) fn server_info(&self) -> Implementation {
        let icon = Icon::new(&*self.config.icon_url);
        Implementation::new(self.tenant(), env!("CARGO_PKG_VERSION"))
            .with_title(&*self.config.title)
            .with_icons(vec![icon])
    }

    /// Returns the `_meta` of a result, which names the server (2026-07-28, "Per-response
    /// metadata").
    pub(super) fn result_meta(&self) -> MetaObject {
        let info = serde_json::json!({
            "name": self.tenant(),
            "title": &*self.config.title,
            "version": env!("CARGO_PKG_VERSION"),
        });
        let mut meta = MetaObject::new();
        meta.0.insert("io.modelcontextprotocol/serverInfo".to_owned(), info);
        meta
    }

    /// Returns whether shared caches may store a list or document.
    pub(super) fn cache_scope(&self) -> CacheScope {
        if self.permissions.vary_by_caller() { CacheScope::Private } else { CacheScope::Public }
    }

    /// Returns how long lists and documents may be cached, in milliseconds.
    pub(super) fn ttl_ms(&self) -> u64 {
        u64::try_from(self.config.list_ttl.as_millis()).unwrap_or(u64::MAX)
    }
}

fn tools(source: &dyn Source) -> impl Iterator<Item = ToolEntry<'_>> {
    (0..).map_while(|place| source.tool_at(place))
}

/// Adds a compiled schema to `schemas`, or a finding to the report.
fn push_or_report(
    schemas: &mut Vec<Arc<Schema>>,
    compiled: Result<Arc<Schema>, SchemaError>,
    tool: ToolEntry<'_>,
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
            .help(
                "write it in JSON Schema 2020-12, with \"type\": \"object\" and only references within the \
                   schema",
            ),
        ),
    }
}

/// Converts a tool to rmcp's type. The annotations of a query: it only reads; the same call may be
/// repeated; a dataset is a closed world.
fn to_tool(tool: ToolEntry<'_>) -> Tool {
    let mut listed =
        Tool::new(tool.name.to_string(), tool.description.to_string(), Arc::clone(tool.input_schema));
    if let Some(title) = tool.title {
        listed = listed.with_title(title);
    }
    if let Some(schema) = tool.output_schema {
        listed = listed.with_raw_output_schema(Arc::clone(schema));
    }
    if tool.is_query {
        let hints = ToolAnnotations::with_title(tool.title.unwrap_or(tool.name));
        let hints = hints.read_only(true).destructive(false).idempotent(true).open_world(false);
        listed = listed.with_annotations(hints);
    }
    listed
}

/// Returns whether a schema requires arguments to be repeated in `Mcp-Param-*` headers.
pub(super) fn declares_header_params(schema: &Map<String, Value>) -> bool {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.is_some_and(|properties| {
        properties
            .values()
            .filter_map(Value::as_object)
            .any(|property| property.contains_key("x-mcp-header") || declares_header_params(property))
    })
}
