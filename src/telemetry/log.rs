//! The log: one subscriber for the process, which writes to standard error, and into a file if
//! asked to, without blocking its callers ([`writer`]).
//!
//! Lines that callers, backends or strangers can cause are limited for each kind and tenant
//! ([`RateLimitedFormat`]), so that none of them can fill the disk or hide other events behind a
//! flood.

mod rate_limit;
mod writer;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;
use tracing_subscriber::fmt;

use self::rate_limit::RateLimitedFormat;
pub(super) use self::rate_limit::omitted_counter;
use self::writer::LogQueue;
pub(super) use self::writer::lost_counter;
use super::printable::{is_harmful, printable, printable_json};
use crate::base::clock::Clock;

/// How long the last lines may take to be written when the process ends.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The writer of the process's log, once it is started.
static QUEUE: OnceLock<LogQueue> = OnceLock::new();
/// The name of this gateway as the last field of a JSON line, if there are several.
static NODE_FIELD: OnceLock<String> = OnceLock::new();
/// Replaces the filter of the process's log, once it is started.
static SET_FILTER: OnceLock<Box<dyn Fn(EnvFilter) + Send + Sync>> = OnceLock::new();

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object per line, for log collectors.
    Json,
}

/// Installs the process's subscriber. `TENANTD_LOG_FILTER` (or else `RUST_LOG`) is the filter; the
/// default is `info`.
///
/// A second call changes nothing: tests run several gateways in one process.
///
/// # Errors
/// No thread can be started, or no file descriptor is left.
pub fn init(format: LogFormat, clock: Arc<dyn Clock>) -> io::Result<()> {
    init_with_copy(format, clock, None)
}

/// The same, and writes each line into a file too.
///
/// # Errors
/// As for [`init`].
pub fn init_with_copy(format: LogFormat, clock: Arc<dyn Clock>, copy: Option<File>) -> io::Result<()> {
    let colour =
        std::env::var_os("NO_COLOR").is_none() && std::io::IsTerminal::is_terminal(&std::io::stderr());
    if QUEUE.get().is_some() {
        return Ok(());
    }
    let started = LogQueue::to_stderr(copy)?;
    // Two concurrent calls start two threads; the first one's serves both.
    let queue = QUEUE.get_or_init(|| started);
    let lines = move || SanitizingWriter { out: queue.clone(), format, colour };
    let (filter, not_understood) = filter(None);
    let builder = fmt().with_env_filter(filter).with_writer(lines).log_internal_errors(false);
    // The second initialisation in a process is refused by design; the first one serves all.
    let _already_there = match format {
        LogFormat::Text => {
            let builder = builder.with_ansi(colour).with_target(false);
            let builder = builder.map_event_format(|text| RateLimitedFormat::new(text, format, clock));
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            // It fails only if the subscriber is gone.
            _ = SET_FILTER.set(Box::new(move |filter| drop(handle.reload(filter))));
            builder.try_init()
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_current_span(false);
            let builder = builder.map_event_format(|json| RateLimitedFormat::new(json, format, clock));
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            _ = SET_FILTER.set(Box::new(move |filter| drop(handle.reload(filter))));
            builder.try_init()
        }
    };
    std::panic::set_hook(Box::new(report_panic));
    warn_about(not_understood);
    Ok(())
}

/// Has each line of the JSON format name this gateway.
pub fn name_node(name: &str) {
    // Several gateways of one process are a matter of tests; the first one counts.
    let _named_before = NODE_FIELD.set(format!(",\"node\":{}}}", serde_json::Value::from(name)));
}

/// Replaces the filter; `None` is the one that the process began with.
pub fn set_filter(directives: Option<&str>) {
    let (filter, not_understood) = filter(directives);
    if let Some(set_filter) = SET_FILTER.get() {
        set_filter(filter);
    }
    warn_about(not_understood);
}

fn warn_about(not_understood: Vec<String>) {
    for directive in not_understood {
        tracing::warn!(directive, "a part of the log filter is not valid and is ignored");
    }
}

/// Returns the last lines of the log of this process, without colours; nothing before it is
/// started.
pub fn last_lines() -> String {
    QUEUE.get().map(LogQueue::recent).unwrap_or_default()
}

/// Waits until the last lines are written, for a limited time.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(LAST_LINES);
    }
}

/// Logs a panic. The standard hook would write to standard error itself: it would block, and its
/// lines would not have the log's format.
fn report_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let backtrace = Backtrace::capture();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or_default();
    match backtrace.status() {
        BacktraceStatus::Captured => {
            tracing::error!(fault = "panic", thread, location, %backtrace, "panicked: {message}");
        }
        _ => tracing::error!(fault = "panic", thread, location, "panicked: {message}"),
    }
}

/// Returns the filter from what is given, else from variables, and the parts of it that cannot be
/// parsed. (The library would print those itself.)
fn filter(given: Option<&str>) -> (EnvFilter, Vec<String>) {
    let variables = ["TENANTD_LOG_FILTER", "RUST_LOG"].into_iter().find_map(|name| std::env::var(name).ok());
    let directives = given.map(str::to_owned).or(variables);
    let directives = directives.filter(|directives| !directives.trim().is_empty());
    // The libraries' lines about peers are noise at `info`.
    let directives = directives.unwrap_or_else(|| "info,rmcp=warn,hyper=warn,rustls=error".to_owned());
    let parts = directives.split(',').filter(|part| !part.is_empty());
    let (good, bad): (Vec<_>, Vec<_>) = parts.partition(|part| part.parse::<Directive>().is_ok());
    // It logs answers that it does not understand, and those are Secrets.
    let good = good.into_iter().chain(["kube_client=off", "kube_client::client=off"]).collect::<Vec<_>>();
    (EnvFilter::new(good.join(",")), bad.into_iter().map(str::to_owned).collect())
}

/// Writes each event as one line without characters that a terminal obeys, whatever its values
/// contain: names of files and text from peers are among them. The subscriber passes each event in
/// one piece.
struct SanitizingWriter<W> {
    out: W,
    format: LogFormat,
    colour: bool,
}

impl<W: Write> Write for SanitizingWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = match self.format {
            LogFormat::Json => name_node_in(printable_json(line)),
            LogFormat::Text if self.colour => coloured(line),
            LogFormat::Text => printable(line),
        };
        self.out.write_all(format!("{line}\n").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Adds the name of this gateway to a JSON line, if there is one.
fn name_node_in(line: Cow<'_, str>) -> Cow<'_, str> {
    match (NODE_FIELD.get(), line.strip_suffix('}')) {
        (Some(field), Some(rest)) => format!("{rest}{field}").into(),
        _ => line,
    }
}

/// Replaces harmful characters, but keeps colours. Those are the subscriber's own, because it
/// writes the escape character of values as a word.
fn coloured(line: &str) -> Cow<'_, str> {
    if !line.contains(is_harmful) {
        return Cow::Borrowed(line);
    }
    let mut parts = line.split('\u{1b}');
    let mut out = printable(parts.next().unwrap_or_default()).into_owned();
    for part in parts {
        let numbers = part
            .strip_prefix('[')
            .map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';'));
        out.push(if numbers.is_some_and(|rest| rest.starts_with('m')) { '\u{1b}' } else { '\u{fffd}' });
        out.push_str(&printable(part));
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct CapturedOutput(Arc<Mutex<Vec<u8>>>);

    impl Write for CapturedOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no holder of this lock panics").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns the line of an event with unusual values.
    fn logged(format: LogFormat, colour: bool) -> String {
        let kept = CapturedOutput::default();
        let out = kept.clone();
        let builder = fmt()
            .with_writer(move || SanitizingWriter { out: out.clone(), format, colour })
            .with_ansi(colour);
        let event = || {
            let file = "evil\n2026-11-26T00:00:00Z  INFO tenant loaded tenant=admin\u{1b}]0;x\u{7}\u{9b}\u{202e}.yaml";
            tracing::info!(file, shown = %file, "found {file}");
        };
        match format {
            LogFormat::Text => tracing::subscriber::with_default(builder.finish(), event),
            LogFormat::Json => tracing::subscriber::with_default(builder.json().finish(), event),
        }
        String::from_utf8(kept.0.lock().expect("no holder of this lock panics").clone()).expect("text")
    }

    #[test]
    fn no_value_begins_a_line_or_is_obeyed() {
        for (format, colour) in [(LogFormat::Text, false), (LogFormat::Text, true), (LogFormat::Json, false)]
        {
            let text = logged(format, colour);
            assert_eq!(text.lines().count(), 1, "{text:?}");
            let line = text.strip_suffix('\n').expect("a whole line");
            let colours = ["\u{1b}[0m", "\u{1b}[2m", "\u{1b}[3m", "\u{1b}[32m"];
            let plain = colours.iter().fold(line.to_owned(), |line, colour| line.replace(colour, ""));
            assert!(!plain.contains(is_harmful), "{format:?} {colour}: {plain:?}");
            assert_eq!(line.contains('\u{1b}'), colour, "{line:?}");
            assert!(line.contains("tenant=admin"));
        }
    }
}
