//! What all requests of one server share.

use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rmcp::model::{CacheScope, Implementation, MetaObject, Tool, ToolAnnotations};
use serde_json::Value;

use super::Surface;
#[cfg(feature = "conformance")]
use super::fixture::Fixture;
use super::pace::Pace;
use super::schema::Schema;
use super::subscriptions::{Follower, Line};
use crate::base::diagnostic::{Diagnostic, Report};
use crate::oauth::bearer::Principal;
use crate::spec::ToolSpec;

/// What RFC 3986 leaves unreserved stays; all else of a dataset's name is encoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One server's surface, its compiled schemas and its place in the line of reloads.
pub(super) struct Shared {
    pub(super) surface: Surface,
    pub(super) pace: Pace,
    pub(super) line: Line,
    /// In the order of the tools.
    arguments: Vec<Arc<Schema>>,
    /// Never asked; kept so that equal ones of other tenants need not be compiled again.
    _results: Vec<Arc<Schema>>,
    #[cfg(feature = "conformance")]
    pub(super) fixture: Option<Fixture>,
}

impl Shared {
    pub(super) fn new(surface: Surface, pace: Pace) -> Result<Self, Report> {
        let mut report = Report::new();
        let mut arguments = Vec::with_capacity(surface.tools.len());
        let mut results = Vec::with_capacity(surface.tools.len());
        for tool in surface.tools.iter() {
            keep(&mut arguments, Schema::compiled(&tool.input_schema), tool, "input", &mut report);
            keep(&mut results, Schema::compiled(&tool.output_schema), tool, "output", &mut report);
        }
        if report.has_errors() {
            return Err(report);
        }
        Ok(Self {
            #[cfg(feature = "conformance")]
            fixture: Fixture::of(&surface.dataset),
            surface,
            pace,
            line: Line::default(),
            arguments,
            _results: results,
        })
    }

    /// A tool and the schema of its arguments.
    pub(super) fn tool(&self, name: &str) -> Option<(&ToolSpec, &Schema)> {
        let tools = self.surface.tools.iter().zip(&self.arguments);
        tools.map(|(tool, schema)| (tool, schema.as_ref())).find(|(tool, _)| *tool.name == *name)
    }

    /// The tools as a caller sees them, in the order of the spec.
    pub(super) fn tools(&self, caller: &Principal) -> Vec<Tool> {
        let tools = self.surface.tools.iter().filter(|tool| self.surface.lets(caller, &tool.name)).map(shown);
        #[cfg(feature = "conformance")]
        let tools = tools.chain(self.fixture.iter().flat_map(Fixture::tools));
        tools.collect()
    }

    /// The schema of a tool's arguments, as written.
    pub(super) fn input_schema(&self, name: &str) -> Option<&Arc<serde_json::Map<String, Value>>> {
        #[cfg(feature = "conformance")]
        if let Some(schema) = self.fixture.as_ref().and_then(|fixture| fixture.input_schema(name)) {
            return Some(schema);
        }
        self.tool(name).map(|(tool, _)| &tool.input_schema)
    }

    /// For a stream that wants to hear of reloads.
    pub(super) fn follower(&self) -> Follower {
        #[cfg(feature = "conformance")]
        if let Some(fixture) = &self.fixture {
            return fixture.follower(&self.line);
        }
        self.line.follower()
    }

    /// Whether a client that knows our tools has to list them again. What they call is not seen by clients.
    pub(super) fn shows_other_tools_than(&self, other: &Self) -> bool {
        fn seen(tool: &ToolSpec) -> impl PartialEq {
            (
                Arc::clone(&tool.name),
                Arc::clone(&tool.title),
                Arc::clone(&tool.description),
                Arc::clone(&tool.input_schema),
                Arc::clone(&tool.output_schema),
            )
        }
        !self.surface.tools.iter().map(seen).eq(other.surface.tools.iter().map(seen))
    }

    /// Who answers.
    pub(super) fn server_info(&self) -> Implementation {
        Implementation::new(self.surface.tenant.as_str(), env!("CARGO_PKG_VERSION"))
            .with_title(&*self.surface.title)
    }

    /// The `_meta` of a result: who answered (2026-07-28, "Per-response metadata").
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

    /// Who may keep a list or document of ours.
    pub(super) fn cache_scope(&self) -> CacheScope {
        if self.surface.private { CacheScope::Private } else { CacheScope::Public }
    }

    /// How long they may, in milliseconds.
    pub(super) fn ttl_ms(&self) -> u64 {
        u64::try_from(self.surface.list_ttl.as_millis()).unwrap_or(u64::MAX)
    }

    /// The URI of the semantic context: `context://<dataset>`.
    pub(super) fn context_uri(&self) -> String {
        format!("context://{}", utf8_percent_encode(&self.surface.dataset, SEGMENT))
    }
}

fn keep(
    schemas: &mut Vec<Arc<Schema>>,
    compiled: Result<Arc<Schema>, super::schema::Fault>,
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

/// A tool asks and changes nothing; the same question may be asked again; a dataset is a closed world.
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

/// Whether a schema asks for arguments to be repeated in `Mcp-Param-*` headers.
pub(super) fn names_headers(schema: &serde_json::Map<String, Value>) -> bool {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.is_some_and(|properties| {
        properties
            .values()
            .filter_map(Value::as_object)
            .any(|property| property.contains_key("x-mcp-header") || names_headers(property))
    })
}
