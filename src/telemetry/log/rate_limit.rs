//! A rate limit for log lines, per kind and tenant. Suppressed lines are counted: the next line of
//! the kind states their number (`left_out`), and `tenantd_log_lines_left_out` counts all of them.
//!
//! A kind is a place in the source. Lines about the operator's doings (files, certificates, the
//! store) are never suppressed, nor are those that an operator enables with a filter finer than
//! `info`.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::LogFormat;
use crate::base::clock::Clock;
use crate::base::sync::lock;
use crate::telemetry::otlp::export_event;

/// The limit of one kind about one tenant: a burst of lines, then one line per period.
const OF_A_TENANT: LineRate = LineRate { at_once: 30, each: Duration::from_secs(1) };
/// The limit of one kind about all tenants.
const OF_ALL: LineRate = LineRate { at_once: 1_000, each: Duration::from_millis(10) };
/// The combinations of kind and tenant that are tracked. Others share what [`OF_ALL`] leaves.
const KEPT: usize = 4_096;

/// The modules whose lines are about the operator's doings and their results.
const OPERATORS: [&str; 8] =
    ["base::task", "bundle", "certs", "cli", "gateway", "settings", "store", "tenants"];

/// The number of lines suppressed by this process.
static LEFT_OUT: LazyLock<Counter> = LazyLock::new(Counter::default);

/// Returns the counter for the metrics.
pub(in crate::telemetry) fn omitted_counter() -> Counter {
    LEFT_OUT.clone()
}

#[derive(Debug, Clone, Copy)]
struct LineRate {
    at_once: u32,
    each: Duration,
}

/// A format whose lines are limited.
pub(super) struct RateLimitedFormat<F> {
    format: F,
    shape: LogFormat,
    clock: Arc<dyn Clock>,
    lines: Mutex<LineBuckets>,
}

impl<F> RateLimitedFormat<F> {
    pub(super) fn new(format: F, shape: LogFormat, clock: Arc<dyn Clock>) -> Self {
        Self { format, shape, clock, lines: Mutex::default() }
    }

    fn judge(&self, event: &Event<'_>) -> LineDecision {
        let about = event.metadata();
        if *about.level() > Level::INFO || is_operators(about.target()) {
            return LineDecision::Write { left_out: 0 };
        }
        let mut tenant = TenantHasher(DefaultHasher::new());
        event.record(&mut tenant);
        // No holder of this lock panics.
        let mut lines = lock(&self.lines);
        lines.judge(about.callsite(), tenant.0.finish(), self.clock.monotonic())
    }
}

impl<S, N, F> FormatEvent<S, N> for RateLimitedFormat<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self.judge(event) {
            LineDecision::Omit => {
                LEFT_OUT.inc();
                Ok(())
            }
            LineDecision::Write { left_out: 0 } => {
                export_event(event, 0);
                self.format.format_event(context, writer, event)
            }
            LineDecision::Write { left_out } => {
                export_event(event, left_out);
                let mut line = String::new();
                self.format.format_event(context, Writer::new(&mut line), event)?;
                writer.write_str(&with_count(&line, self.shape, left_out))
            }
        }
    }
}

/// Appends to a line how many of its kind were suppressed before it.
fn with_count(line: &str, shape: LogFormat, left_out: u64) -> String {
    let line = line.trim_end();
    match (shape, line.strip_suffix('}')) {
        (LogFormat::Json, Some(object)) => format!("{object},\"left_out\":{left_out}}}\n"),
        _ => format!("{line} left_out={left_out}\n"),
    }
}

fn is_operators(target: &str) -> bool {
    let module = target.strip_prefix("tenantd::").unwrap_or_default();
    let is_in =
        |name: &&str| module.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    OPERATORS.iter().any(is_in)
}

/// Hashes the tenant that a line is about; other fields are ignored.
struct TenantHasher(DefaultHasher);

impl Visit for TenantHasher {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "tenant" {
            value.hash(&mut self.0);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "tenant" {
            format!("{value:?}").hash(&mut self.0);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineDecision {
    /// Write the line. `left_out` lines of its kind were suppressed before it.
    Write {
        left_out: u64,
    },
    Omit,
}

/// The state of each kind of line, per tenant and in total.
#[derive(Default)]
struct LineBuckets {
    of_tenants: HashMap<(Identifier, u64), LineBucket>,
    of_all: HashMap<Identifier, LineBucket>,
    swept: Option<Instant>,
}

struct LineBucket {
    /// When the whole burst is available again.
    full_at: Instant,
    left_out: u64,
}

impl LineBuckets {
    fn judge(&mut self, kind: Identifier, tenant: u64, now: Instant) -> LineDecision {
        self.sweep(now);
        let key = (kind.clone(), tenant);
        // Beyond the tracked combinations only the limit of all tenants applies.
        let has_room = self.of_tenants.len() < KEPT || self.of_tenants.contains_key(&key);
        let own = has_room.then(|| self.of_tenants.entry(key).or_insert(LineBucket::new(now)));
        let all = self.of_all.entry(kind).or_insert(LineBucket::new(now));
        let fits = own.as_ref().is_none_or(|own| own.has_room(OF_A_TENANT, now)) && all.has_room(OF_ALL, now);
        let counted = match own {
            Some(own) => {
                if fits {
                    all.take(OF_ALL, now);
                    own.take(OF_A_TENANT, now);
                }
                own
            }
            None => {
                if fits {
                    all.take(OF_ALL, now);
                }
                all
            }
        };
        match fits {
            true => LineDecision::Write { left_out: std::mem::take(&mut counted.left_out) },
            false => {
                counted.left_out += 1;
                LineDecision::Omit
            }
        }
    }

    /// Drops the combinations whose whole burst is available, once there are many; at most once a
    /// second.
    fn sweep(&mut self, now: Instant) {
        let is_due = self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= OF_A_TENANT.each);
        if self.of_tenants.len() >= KEPT && is_due {
            self.swept = Some(now);
            self.of_tenants.retain(|_, kind| kind.full_at > now);
        }
    }
}

impl LineBucket {
    fn new(now: Instant) -> Self {
        Self { full_at: now, left_out: 0 }
    }

    fn has_room(&self, rate: LineRate, now: Instant) -> bool {
        self.full_at.saturating_duration_since(now) + rate.each <= rate.each * rate.at_once
    }

    fn take(&mut self, rate: LineRate, now: Instant) {
        self.full_at = self.full_at.max(now) + rate.each;
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;
    use crate::base::clock::{ManualClock, SystemClock};

    #[derive(Clone, Default)]
    struct CapturedLog(Arc<Mutex<Vec<u8>>>);

    impl io::Write for CapturedLog {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no holder of this lock panics").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for CapturedLog {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn warn(tenant: &str) {
        tracing::warn!(target: "tenantd::mcp::call", tenant, "tool call failed");
    }

    #[test]
    fn a_flood_about_one_tenant_is_a_few_lines_and_hides_nothing_of_others() {
        let written = CapturedLog::default();
        let clock = Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        let shared = Arc::clone(&clock) as Arc<dyn Clock>;
        let builder = tracing_subscriber::fmt().json().flatten_event(true).with_writer(written.clone());
        let subscriber =
            builder.map_event_format(|json| RateLimitedFormat::new(json, LogFormat::Json, shared)).finish();
        tracing::subscriber::with_default(subscriber, || {
            (0..1_000).for_each(|_| warn("a"));
            warn("b");
            clock.advance(Duration::from_secs(2));
            warn("a");
            for number in 0..100 {
                tracing::info!(target: "tenantd::tenants::announce", number, "tenant loaded");
            }
        });
        let text = String::from_utf8(written.0.lock().expect("no holder of this lock panics").clone())
            .expect("text");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let about = |tenant: &str| lines.iter().filter(|line| line["tenant"] == tenant).count();
        assert_eq!((about("a"), about("b")), (31, 1), "{text}");
        let counted = lines.iter().filter_map(|line| line["left_out"].as_u64()).sum::<u64>();
        assert_eq!(counted, 970);
        assert_eq!(lines.len(), 132, "operators read all that is about what they did");
    }

    #[test]
    fn the_count_stands_at_the_end_of_the_line() {
        assert_eq!(with_count("{\"a\":1}\n", LogFormat::Json, 3), "{\"a\":1,\"left_out\":3}\n");
        assert_eq!(with_count("WARN a\n", LogFormat::Text, 3), "WARN a left_out=3\n");
    }

    #[test]
    fn lines_of_operators_are_told_by_their_module() {
        for target in ["tenantd::tenants", "tenantd::certs::acme::order", "tenantd::gateway"] {
            assert!(is_operators(target), "{target}");
        }
        for target in ["tenantd::mcp::call", "rmcp::service", "tenantd::tenantsx", "certs", "tenantd"] {
            assert!(!is_operators(target), "{target}");
        }
    }

    #[test]
    fn however_many_tenants_there_are_little_is_remembered() {
        let mut lines = LineBuckets::default();
        let kind = || tracing::callsite::Identifier(&CALLSITE);
        let now = SystemClock.monotonic();
        for tenant in 0..100_000 {
            lines.judge(kind(), tenant, now);
        }
        assert!(lines.of_tenants.len() <= KEPT);
        let more = (0..2_000).filter(|n| lines.judge(kind(), 100_000 + n, now) != LineDecision::Omit);
        assert_eq!(more.count(), 0, "all of this kind have had theirs");
    }

    struct Callsite;
    static CALLSITE: Callsite = Callsite;

    impl tracing::Callsite for Callsite {
        fn set_interest(&self, _: tracing::subscriber::Interest) {}

        fn metadata(&self) -> &tracing::Metadata<'_> {
            unimplemented!("nobody asks")
        }
    }
}
