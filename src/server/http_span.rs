//! The span of a step of a login, named as OpenTelemetry's conventions for HTTP servers name it.

use http::{HeaderMap, Method, Request, StatusCode};

use super::Server;
use super::request::RequestContext;
use crate::backend::TraceContext;
use crate::routing::OAuthEndpoint;
use crate::telemetry::otlp::{RemoteSpans, SpanIds, TraceSpan};
use crate::tenants::tenant::Tenant;

/// The span of a request under way, if it is traced.
pub(super) struct HttpSpan(Option<TraceSpan>);

impl HttpSpan {
    /// Starts the span of a request for an endpoint, if requests are traced. Nothing of the query
    /// is in it, since codes travel there.
    pub(super) fn start<B>(
        server: &Server,
        context: &RequestContext<'_>,
        tenant: &Tenant,
        endpoint: OAuthEndpoint,
        request: &Request<B>,
    ) -> Self {
        if !server.tracer.is_on() {
            return Self(None);
        }
        let remote = RemoteSpans { parent: read_parent(request.headers()), link: None };
        let mut span = server.tracer.start_server_span(remote, context.started);
        if let Some(span) = span.as_mut().filter(|span| span.is_recorded()) {
            let (method, path) = (method_name(request.method()), endpoint.path());
            span.set_name(format!("{method} /{{prefix}}{path}"));
            span.set("http.request.method", method);
            span.set("http.route", format!("/{{prefix}}{path}"));
            span.set("url.scheme", if server.tls.is_some() { "https" } else { "http" });
            span.set("tenantd.tenant", tenant.spec.name.as_str());
            span.set("tenantd.request_id", &*context.request_id);
            if server.tracer.names_clients() {
                span.set("client.address", context.caller.ip().to_string());
            }
        }
        Self(span)
    }

    /// Returns the ids of the span.
    pub(super) fn ids(&self) -> Option<SpanIds> {
        self.0.as_ref().map(TraceSpan::ids)
    }

    /// Ends the span. What a client did wrong is no error of the server's.
    pub(super) fn end(self, status: StatusCode) {
        let Some(mut span) = self.0 else { return };
        span.set("http.response.status_code", status.as_u16());
        match status.is_server_error() {
            true => span.fail(status.as_str()),
            false => span.finish(),
        }
    }
}

fn read_parent(headers: &HeaderMap) -> Option<SpanIds> {
    let traceparent = headers.get("traceparent")?.to_str().ok()?;
    TraceContext::parse(Some(traceparent), None)?.span_ids()
}

/// Returns the method's name, if it is a usual one: names of spans are few, whatever clients send.
fn method_name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "OPTIONS" => "OPTIONS",
        _ => "_OTHER",
    }
}
