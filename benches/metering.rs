//! What counting a call costs: its limits and the usage ledger, its metrics, and its audit line.
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
use tenantd::spec::{CallLimits, TenantName, UsageLimits};
use tenantd::store::{KeySource, Store};
use tenantd::telemetry::audit::{Audit, AuditEvent, AuditFileConfig, AuditRecord};
use tenantd::telemetry::metrics::{CallOutcome, Metrics};
use tenantd::usage::traffic::CallEnd;
use tenantd::usage::{CallerKey, Usage, UsageCaller, UsageMeter};

criterion_group!(benches, metering, telemetry);
criterion_main!(benches);

fn metering(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), &KeySource::State).expect("opened");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let start = Usage::start(SystemClock::shared(), Some(store.local().clone()));
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
    let folder = tempfile::tempdir().expect("a folder");
    let config =
        AuditFileConfig { path: folder.path().join("audit.jsonl"), max_bytes: 64 << 20, max_files: 2 };
    let audit = Audit::start(config, SystemClock::shared(), Arc::clone(&metrics)).expect("started");
    let mut group = criterion.benchmark_group("tell of a call");
    group.bench_function("metrics", |bencher| {
        bencher.iter(|| {
            metrics.record_tool_call(black_box("acme"), CallOutcome::Ok, None, Duration::from_millis(20));
            metrics.record_response("mcp", 200, Duration::from_millis(20));
            metrics.record_backend_call("ok", Duration::from_millis(20));
        });
    });
    let record = AuditRecord {
        tool: Some("search"),
        elapsed_ms: Some(20),
        bytes: Some(1_000),
        request_id: Some("0123456789abcdef"),
        ..AuditRecord::new(AuditEvent::Call, "acme", "ok")
    };
    // A tenant's share of lines is soon used up; the others are counted.
    group.bench_function("audit", |bencher| bencher.iter(|| audit.record(black_box(&record))));
    group.finish();
}
