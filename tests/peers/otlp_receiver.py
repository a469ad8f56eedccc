"""An OpenTelemetry receiver (OTLP over HTTP, protobuf), which decodes with the official classes.

Orders and answers are in README.md. What it answers is chosen for each signal, so that it can be a
receiver that is busy, refuses, takes a part, or hangs.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces


def value(any_value):
    kind = any_value.WhichOneof("value")
    return None if kind is None else getattr(any_value, kind)


def attributes(pairs):
    found = {pair.key: value(pair.value) for pair in pairs}
    assert len(found) == len(pairs), f"a key occurs twice: {pairs}"
    return found


def read_spans(message):
    for group in message.resource_spans:
        for scope in group.scope_spans:
            for span in scope.spans:
                yield {
                    "resource": attributes(group.resource.attributes),
                    "scope": scope.scope.name,
                    "name": span.name,
                    "kind": span.kind,
                    "trace": span.trace_id.hex(),
                    "span": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "flags": span.flags,
                    "start": span.start_time_unix_nano,
                    "end": span.end_time_unix_nano,
                    "attributes": attributes(span.attributes),
                    "links": [{"trace": link.trace_id.hex(), "span": link.span_id.hex()} for link in span.links],
                    "status": span.status.code,
                }


def read_logs(message):
    for group in message.resource_logs:
        for scope in group.scope_logs:
            for record in scope.log_records:
                yield {
                    "resource": attributes(group.resource.attributes),
                    "scope": scope.scope.name,
                    "time": record.time_unix_nano,
                    "severity": record.severity_number,
                    "severity_text": record.severity_text,
                    "body": value(record.body),
                    "attributes": attributes(record.attributes),
                    "trace": record.trace_id.hex(),
                    "span": record.span_id.hex(),
                }


def read_point(point, kind):
    read = {
        "attributes": attributes(point.attributes),
        "start": point.start_time_unix_nano,
        "time": point.time_unix_nano,
    }
    if kind == "histogram":
        read |= {
            "count": point.count,
            "sum": point.sum,
            "buckets": list(point.bucket_counts),
            "bounds": list(point.explicit_bounds),
        }
    else:
        read["value"] = getattr(point, point.WhichOneof("value"))
    return read


def read_metrics(message):
    for group in message.resource_metrics:
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                data = getattr(metric, kind)
                yield {
                    "resource": attributes(group.resource.attributes),
                    "scope": scope.scope.name,
                    "name": metric.name,
                    "unit": metric.unit,
                    "kind": kind,
                    "temporality": getattr(data, "aggregation_temporality", 0),
                    "monotonic": getattr(data, "is_monotonic", False),
                    "points": [read_point(point, kind) for point in data.data_points],
                }


SIGNALS = {
    "/v1/traces": (
        "traces",
        traces.ExportTraceServiceRequest,
        lambda count, reason: traces.ExportTraceServiceResponse(
            partial_success=traces.ExportTracePartialSuccess(rejected_spans=count, error_message=reason)
        ),
        read_spans,
    ),
    "/v1/logs": (
        "logs",
        logs.ExportLogsServiceRequest,
        lambda count, reason: logs.ExportLogsServiceResponse(
            partial_success=logs.ExportLogsPartialSuccess(rejected_log_records=count, error_message=reason)
        ),
        read_logs,
    ),
    "/v1/metrics": (
        "metrics",
        metrics.ExportMetricsServiceRequest,
        lambda count, reason: metrics.ExportMetricsServiceResponse(
            partial_success=metrics.ExportMetricsPartialSuccess(rejected_data_points=count, error_message=reason)
        ),
        read_metrics,
    ),
}


LOCK = threading.Lock()
# By signal: the items of the requests that were answered with 200, all requests, and what is answered.
TAKEN = {"traces": [], "logs": [], "metrics": []}
REQUESTS = {"traces": [], "logs": [], "metrics": []}
ANSWERS = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name, message_type, response_type, read = SIGNALS[self.path]
        message = message_type()
        message.ParseFromString(body)
        items = list(read(message))
        with LOCK:
            answer = ANSWERS.get(name, {})
            status = answer.get("status", 200)
            REQUESTS[name].append({"status": status, "items": len(items), "token": self.headers.get("x-token")})
            if status == 200 and not answer.get("hangs"):
                TAKEN[name].extend(items)
        if answer.get("hangs"):
            threading.Event().wait()
        response = b""
        if status == 200:
            response = response_type(answer.get("rejected", 0), answer.get("reason", "")).SerializeToString()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(response)))
        for header, text in answer.get("headers", {}).items():
            self.send_header(header, text)
        self.end_headers()
        self.wfile.write(response)

    def log_message(self, *_):
        pass


def follow(order):
    match order["do"]:
        case "start":
            server = ThreadingHTTPServer(("127.0.0.1", order.get("port", 0)), Handler)
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            return {"url": f"http://127.0.0.1:{server.server_port}"}
        case "answer":
            with LOCK:
                ANSWERS[order["signal"]] = order["answer"]
            return {"answers": True}
        case "taken":
            with LOCK:
                return {"items": TAKEN[order["signal"]]}
        case "requests":
            with LOCK:
                return {"requests": REQUESTS[order["signal"]]}
        case other:
            return {"error": f"there is no order {other}"}


for line in sys.stdin:
    try:
        answer = follow(json.loads(line))
    except Exception as error:
        answer = {"error": repr(error)}
    print(json.dumps(answer), flush=True)
