//! The span of a request, named as OpenTelemetry's conventions for MCP name it.

use http::Version;
use http::request::Parts;
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};

use crate::backend::TraceContext;
use crate::mcp::Caller;
use crate::mcp::failure::CallFailure;
use crate::mcp::server_state::ServerState;
use crate::telemetry::otlp::{RemoteSpans, SpanIds, SpanParent, TraceSpan};

/// The span of a request under way, if it is traced.
pub(super) struct RequestSpan(Option<TraceSpan>);

/// Returns the trace context of the caller. The one in `_meta` is the caller's; that of HTTP may be
/// a proxy's (SEP-414).
pub(super) fn caller_trace(context: &RequestContext<RoleServer>) -> Option<TraceContext> {
    message_trace(context).or_else(|| http_trace(context))
}

fn message_trace(context: &RequestContext<RoleServer>) -> Option<TraceContext> {
    TraceContext::parse(context.meta.get_traceparent(), context.meta.get_tracestate())
}

fn http_trace(context: &RequestContext<RoleServer>) -> Option<TraceContext> {
    let headers = &context.extensions.get::<Parts>()?.headers;
    let header = |name| headers.get(name)?.to_str().ok();
    TraceContext::parse(header("traceparent"), header("tracestate"))
}

/// Returns the caller's span, and the one to link if both contexts name one.
fn remote_spans(context: &RequestContext<RoleServer>) -> RemoteSpans {
    let ids = |trace: Option<TraceContext>| trace.as_ref().and_then(TraceContext::span_ids);
    match (ids(message_trace(context)), ids(http_trace(context))) {
        (Some(parent), link) => RemoteSpans { parent: Some(parent), link },
        (None, parent) => RemoteSpans { parent, link: None },
    }
}

impl RequestSpan {
    /// Starts the span of a request, if requests are traced.
    pub(super) fn start(state: &ServerState, context: &RequestContext<RoleServer>, method: &str) -> Self {
        let tracer = &state.config.tracer;
        if !tracer.is_on() {
            return Self(None);
        }
        let started = Caller::from_context(context)
            .map_or_else(|| state.config.clock.monotonic(), |caller| caller.started);
        let mut span = tracer.start_server_span(remote_spans(context), started);
        if let Some(span) = span.as_mut().filter(|span| span.is_recorded()) {
            span.set_name(method.to_owned());
            span.set("mcp.method.name", method);
            describe(span, state, context);
        }
        Self(span)
    }

    /// Returns the ids of the span.
    pub(super) fn ids(&self) -> Option<SpanIds> {
        self.0.as_ref().map(TraceSpan::ids)
    }

    /// Returns the handle with which spans below this one are started.
    pub(super) fn as_parent(&self) -> Option<SpanParent> {
        self.0.as_ref().map(TraceSpan::as_parent)
    }

    /// Names the tool that is called.
    pub(super) fn set_tool(&mut self, tool: &str) {
        if let Some(span) = self.0.as_mut().filter(|span| span.is_recorded()) {
            span.set("gen_ai.tool.name", tool);
            span.set("gen_ai.operation.name", "execute_tool");
            span.set_name(format!("tools/call {tool}"));
        }
    }

    /// Ends the span, and returns how the request ended.
    pub(super) fn end<T>(&mut self, outcome: Result<T, ErrorData>) -> Result<T, ErrorData> {
        if let Some(span) = self.0.take() {
            match &outcome {
                Ok(_) => span.finish(),
                Err(error) => fail(span, error),
            }
        }
        outcome
    }

    /// Ends the span of a call or a read, which may fail without an error of the protocol.
    pub(super) fn end_call(&mut self, failure: Option<&CallFailure>) {
        let Some(mut span) = self.0.take() else { return };
        match failure {
            None => span.finish(),
            Some(CallFailure::Protocol(error)) => fail(span, error),
            Some(failure) => {
                span.set("tenantd.error.kind", failure.kind());
                span.fail("tool_error");
            }
        }
    }
}

fn fail(mut span: TraceSpan, error: &ErrorData) {
    let code = error.code.0.to_string();
    span.set("rpc.response.status_code", &*code);
    span.fail(&code);
}

/// Adds what is known of every request.
fn describe(span: &mut TraceSpan, state: &ServerState, context: &RequestContext<RoleServer>) {
    span.set("tenantd.tenant", state.tenant());
    span.set("jsonrpc.request.id", context.id.to_string());
    span.set("network.transport", "tcp");
    span.set("network.protocol.name", "http");
    if let Some(version) = context.protocol_version() {
        span.set("mcp.protocol.version", version.as_str());
    }
    if let Some(parts) = context.extensions.get::<Parts>() {
        let is_http2 = parts.version == Version::HTTP_2;
        span.set("network.protocol.version", if is_http2 { "2" } else { "1.1" });
    }
    if let Some(caller) = Caller::from_context(context) {
        span.set("tenantd.request_id", &*caller.request_id);
        if state.config.tracer.names_clients() {
            span.set("client.address", caller.address.to_string());
        }
    }
}
