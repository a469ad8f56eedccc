//! What counting a call costs: its limits and the usage ledger, its metrics, its audit line, and its
//! spans.
//!
//! `cargo bench --bench tools_call` says what a whole call costs; these are parts of it.
//!
//! ```text
//! cargo bench --bench metering
//! ```

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use tenantd::base::clock::{Clock, SystemClock};
use tenantd::base::task::Tasks;
use tenantd::spec::{CallLimits, TenantName, UsageLimits};
use tenantd::store::{KeySource, Store};
use tenantd::telemetry::audit::sinks::{ChannelConfig, Facility, SinkConfig, SyslogAddress, SyslogConfig};
use tenantd::telemetry::audit::{Audit, AuditConfig, AuditEvent, AuditFileConfig, AuditRecord};
use tenantd::telemetry::metrics::{CallOutcome, Metrics};
use tenantd::telemetry::otlp::{Exporter, OtlpConfig, RemoteSpans, TraceConfig, Tracer, in_span};
use tenantd::usage::traffic::CallEnd;
use tenantd::usage::{CallerKey, Usage, UsageCaller, UsageMeter};

criterion_group!(benches, metering, telemetry, audit, tracing);
criterion_main!(benches);

fn metering(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), &KeySource::State).expect("opened");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let start = Usage::start(SystemClock::shared(), Some((&store).into()));
    let usage = runtime.block_on(start).expect("read");
    let name = |text: &str| TenantName::parse(text).expect("a name");
    let plain = usage.meter(&name("plain"), UsageLimits::default());
    let limited = usage.meter(&name("limited"), all_limits());
    let mut group = criterion.benchmark_group("count a call");
    group.bench_function("ledger and traffic", |bencher| bencher.iter(|| call(&plain)));
    group.bench_function("the same with every limit", |bencher| bencher.iter(|| call(&limited)));
    group.finish();
    assert_eq!(limited.traffic().in_flight, 0);
}

/// Limits of the tenant, the caller and the tool that no run reaches.
fn all_limits() -> UsageLimits {
    let many = Some(1 << 50);
    let limits = CallLimits {
        concurrent_calls: Some(4_096),
        calls_per_minute: Some(u32::MAX),
        calls_per_day: many,
        calls_per_month: many,
        bytes_per_day: many,
        bytes_per_month: many,
    };
    UsageLimits { tenant: limits, per_caller: limits, tools: vec![("search".into(), limits)] }
}

fn call(meter: &UsageMeter) {
    let caller = UsageCaller {
        key: CallerKey::User("somebody".into()),
        name: Some("ann@example.com".into()),
        client: None,
    };
    let mut call = meter.begin(SystemClock.monotonic(), black_box(caller), "search".into());
    call.admit().expect("no limit is reached");
    call.finish(CallEnd::Answered, 1_000);
}

fn telemetry(criterion: &mut Criterion) {
    let metrics = Arc::new(Metrics::new());
    metrics.add_tenant("acme");
    let mut group = criterion.benchmark_group("tell of a call");
    group.bench_function("metrics", |bencher| {
        bencher.iter(|| {
            metrics.record_tool_call(black_box("acme"), CallOutcome::Ok, None, Duration::from_millis(20));
            metrics.record_response("mcp", 200, Duration::from_millis(20));
            metrics.record_backend_call("ok", Duration::from_millis(20));
        });
    });
    group.finish();
}

/// The cost of a line for the call that writes it: on its own, and with a sink whose receiver is
/// there, and with one whose receiver is not.
fn audit(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let _context = runtime.enter();
    let receiver = std::os::unix::net::UnixDatagram::bind(folder.path().join("receiver")).expect("bound");
    std::thread::spawn(move || while receiver.recv(&mut [0; 2048]).is_ok() {});
    let mut group = criterion.benchmark_group("write an audit line");
    for (name, socket) in
        [("file only", None), ("and a sink", Some("receiver")), ("and a dead sink", Some("nobody"))]
    {
        let audit = start_audit(&folder.path().join(name), socket.map(|name| folder.path().join(name)));
        // Orders have no share, so each is a line.
        let order = AuditRecord {
            tool: Some("search"),
            elapsed_ms: Some(20),
            bytes: Some(1_000),
            request_id: Some("0123456789abcdef"),
            ..AuditRecord::new(AuditEvent::Order, "acme", "ok")
        };
        group.bench_function(name, |bencher| bencher.iter(|| audit.record(black_box(&order))));
        // A tenant's share of calls is soon used up; the others are counted.
        let call = AuditRecord { event: AuditEvent::Call, ..order.clone() };
        group.bench_function(format!("{name}, beyond the share"), |bencher| {
            bencher.iter(|| audit.record(black_box(&call)));
        });
    }
    group.finish();
}

fn start_audit(state: &std::path::Path, socket: Option<std::path::PathBuf>) -> Audit {
    std::fs::create_dir(state).expect("created");
    let sink = |socket| {
        let address = SyslogAddress::Unix(socket);
        let syslog = SyslogConfig { address, facility: Facility::AUTHPRIV, app_name: "tenantd".into() };
        SinkConfig { name: "siem".into(), channel: ChannelConfig::Syslog(syslog), spool_bytes: 64 << 20 }
    };
    let config = AuditConfig {
        file: Some(AuditFileConfig { path: state.join("audit.jsonl"), max_bytes: 64 << 20, max_files: 2 }),
        sinks: socket.map(sink).into_iter().collect(),
        state: state.to_owned(),
        node: None,
    };
    let audit = Audit::start(config, SystemClock::shared(), Arc::new(Metrics::new())).expect("started");
    audit.start_sinks(&Tasks::new());
    audit
}

/// The spans of a call and of its backend's, without a receiver, with one that samples nothing, and
/// recorded. Nothing takes them, so the queue is full soon; sending is not in it.
fn tracing(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut group = criterion.benchmark_group("trace a call");
    for (name, tracer) in
        [("off", Tracer::default()), ("not sampled", tracer(0.0)), ("recorded", tracer(1.0))]
    {
        group.bench_function(name, |bencher| bencher.iter(|| runtime.block_on(trace(black_box(&tracer)))));
    }
    group.finish();
}

fn tracer(sample_ratio: f64) -> Tracer {
    let config = OtlpConfig {
        endpoint: "http://127.0.0.1:9".to_owned(),
        headers_file: None,
        resource: Default::default(),
        traces: Some(TraceConfig { sample_ratio, trust_sampled: false, client_address: false }),
        logs: false,
        metrics_interval: None,
    };
    Exporter::new(&config, &SystemClock::shared(), Arc::new(String::new)).expect("a client").tracer()
}

/// Does what a tool call does for its spans.
async fn trace(tracer: &Tracer) {
    let mut span = tracer.start_server_span(RemoteSpans::default(), SystemClock.monotonic());
    if let Some(span) = span.as_mut().filter(|span| span.is_recorded()) {
        span.set_name("tools/call");
        for key in ["mcp.method.name", "tenantd.tenant", "network.transport", "network.protocol.name"] {
            span.set(key, "search");
        }
        span.set("jsonrpc.request.id", black_box(7).to_string());
    }
    let parent = span.as_ref().map(|span| span.as_parent());
    in_span(span.as_ref().map(|span| span.ids()), Box::pin(async { black_box(()) })).await;
    if let Some(parent) = parent {
        let mut call = parent.start_client_span("POST", SystemClock.monotonic());
        call.set("http.request.method", "POST");
        call.finish();
    }
    if let Some(mut span) = span {
        span.set("gen_ai.tool.name", "search");
        span.set_name(format!("tools/call {}", black_box("search")));
        span.finish();
    }
}
