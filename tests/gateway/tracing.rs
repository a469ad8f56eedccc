//! Traces over OTLP: what a receiver gets of a call, and that a dead one costs nothing.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;

use super::harness::{Era, FakeBackend, Reply, Setup, Tenant, until};

const CALLERS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

fn spans(receiver: &FakeBackend) -> Vec<Span> {
    let batches = receiver.requests().into_iter().filter(|request| request.target == "/v1/traces");
    let batches = batches.map(|it| ExportTraceServiceRequest::decode(&*it.body).expect("a batch"));
    let resources = batches.flat_map(|batch| batch.resource_spans);
    resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_call_has_a_span_and_so_has_its_backends_and_neither_has_arguments() {
    let (backend, receiver) = (FakeBackend::start().await, FakeBackend::start().await);
    receiver.answer("/v1/traces", Reply::Json(json!({})));
    let config = format!("otlp:\n  endpoint: {}\n", receiver.url(""));
    let setup = Setup::new().settings(&config).file("a.yaml", Tenant::new("a", &backend).yaml());
    let gateway = setup.start().await;
    let client = gateway.client().with("traceparent", CALLERS);
    client.search(Era::Modern, "/a", "a-question-that-nobody-else-asks").await.data();
    let (server, call) = until("both spans have arrived", async || {
        let spans = spans(&receiver);
        let server = spans.iter().find(|span| span.kind == 2)?.clone();
        let call = spans.iter().find(|span| span.kind == 3 && span.parent_span_id == server.span_id)?;
        Some((server, call.clone()))
    })
    .await;
    assert_eq!(server.name, "tools/call search");
    assert_eq!(hex(&server.trace_id), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(hex(&server.parent_span_id), "00f067aa0ba902b7");
    for (key, value) in [
        ("mcp.method.name", "tools/call"),
        ("gen_ai.tool.name", "search"),
        ("gen_ai.operation.name", "execute_tool"),
        ("tenantd.tenant", "a"),
    ] {
        assert_eq!(attribute(&server, key).as_deref(), Some(value), "{server:?}");
    }
    assert_eq!(attribute(&server, "client.address"), None);
    assert_eq!(attribute(&call, "http.request.method").as_deref(), Some("POST"));
    let asked = backend.requests().into_iter().find(|request| request.target.starts_with("/nlp-search"));
    let sent_on = asked.expect("the search").header("traceparent").expect("a traceparent");
    assert_eq!(sent_on, format!("00-{}-{}-01", hex(&call.trace_id), hex(&call.span_id)));
    let all = format!("{:?}", spans(&receiver));
    assert!(!all.contains("a-question-that-nobody-else-asks"), "{all}");
}
