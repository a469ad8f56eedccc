//! The audit log, one JSON object per line: logins, refusals, tokens, revocations, calls, reads,
//! and operators' commands. Never arguments, never a credential.
//!
//! Lines pass through a bounded queue to a dedicated thread, because files block. If the queue or
//! the disk is full, lines are lost and counted (`tenantd_audit_lost`); no caller waits for them.
//! The file is rotated by size. The same lines go to the [`sinks`], with the same `id`.
//!
//! Each tenant has a share of what is written ([`shares`]). Lines beyond it are replaced by lines
//! with their number.

mod operator;
mod query;
mod rotating_file;
mod shares;
pub mod sinks;

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

pub use self::operator::Operator;
pub use self::query::{AuditCursor, AuditFilter, AuditPage};
use self::rotating_file::RotatingFile;
use self::shares::{AdmitDecision, AuditShares, OmittedLines};
use self::sinks::{AuditSinks, DroppedLines, SinkConfig, SinkTrouble};
use super::metrics::Metrics;
use crate::base::clock::Clock;
use crate::base::random;
use crate::base::task::Tasks;

/// A second of calls at a busy gateway; about 3 MB.
const QUEUE: usize = 8192;
/// How long lines are gathered before they are written: waking the thread for each line would make
/// a call a quarter more expensive.
const GATHER: Duration = Duration::from_millis(20);
/// What a line takes without any text: the names of the fields that all have, and the time.
const LEAST_BYTES: usize = r#"{"at":"2026-11-27T10:00:00.000Z","event":"call","outcome":""}"#.len();
/// What a further field takes without its text.
const LEAST_FIELD_BYTES: usize = r#","tool":"""#.len();
/// About what a line's `id` takes.
const ID_BYTES: usize = 26;

/// Where the audit is written, and how much of it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditFileConfig {
    /// The file being written.
    pub path: PathBuf,
    /// The size at which the file is rotated.
    pub max_bytes: u64,
    /// The maximum number of files, including the one being written.
    pub max_files: u32,
}

/// Where the audit goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditConfig {
    /// The file, if one is written.
    pub file: Option<AuditFileConfig>,
    /// The receivers beside the file.
    pub sinks: Vec<SinkConfig>,
    /// The state folder, in which lines wait for the sinks.
    pub state: PathBuf,
    /// The name of this gateway, if its lines carry one.
    pub node: Option<String>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditEvent {
    /// A login, successful or not.
    Login,
    /// A token request, successful or not.
    Token,
    /// The end of a grant or of a client's access.
    Revocation,
    /// A refused request to the MCP endpoint.
    Refusal,
    /// A tool call.
    Call,
    /// A read of a resource, successful or not.
    Read,
    /// An operator ordered something about a tenant.
    Order,
    /// Lines did not reach a sink of the audit.
    Loss,
}

/// The content of one line. Fields that do not apply are omitted.
#[derive(Debug, Clone, Serialize)]
pub struct AuditRecord<'a> {
    /// What happened.
    pub event: AuditEvent,
    /// The tenant's name; empty for orders about the whole gateway.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub tenant: &'a str,
    /// `ok`, or the reason for a failure in a word or two.
    pub outcome: &'a str,
    #[serde(flatten)]
    /// The person, key or machine client that did it.
    pub who: Actor<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The address that the request came from.
    pub client_addr: Option<IpAddr>,
    /// The name that the client gives itself in the request (MCP since 2026-07-28), or else in its
    /// registration; nobody checked it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<&'a str>,
    /// The first product of the request's `User-Agent`, of clients without a `client`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The OAuth client.
    pub client_id: Option<&'a str>,
    /// The id of the grant, which connects a call with its tokens and with what ended them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// The grant type of a token request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The id of the access token (RFC 7519 section 4.1.7).
    pub jti: Option<&'a str>,
    /// What an operator ordered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<&'a str>,
    /// The operator's account on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The name of the operator's token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<&'a str>,
    /// The certificate that an order is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<&'a str>,
    /// The sink of the audit that lost lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The tool called.
    pub tool: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The URI of the resource read.
    pub resource: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The duration of the call or read, in milliseconds.
    pub elapsed_ms: Option<u64>,
    /// The size of the text returned for the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The id of the request, which is also in the log.
    pub request_id: Option<&'a str>,
}

/// The person, key or machine client behind an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Actor<'a> {
    /// The directory of the person's account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tid: Option<&'a str>,
    /// The id of the account in the directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oid: Option<&'a str>,
    /// The user name of the account at that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    /// The operator's label of a key or a machine client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<&'a str>,
}

impl<'a> AuditRecord<'a> {
    /// Builds an entry with the mandatory fields only.
    pub fn new(event: AuditEvent, tenant: &'a str, outcome: &'a str) -> Self {
        Self {
            event,
            tenant,
            outcome,
            who: Actor::default(),
            client_addr: None,
            client: None,
            user_agent: None,
            client_id: None,
            grant: None,
            grant_type: None,
            jti: None,
            order: None,
            uid: None,
            operator: None,
            certificate: None,
            sink: None,
            tool: None,
            resource: None,
            elapsed_ms: None,
            bytes: None,
            request_id: None,
        }
    }

    /// Returns a number of bytes that its line has at least, by which it counts against a share.
    fn least_bytes(&self) -> usize {
        let texts = [self.client, self.user_agent, self.client_id, self.tool, self.resource, self.request_id];
        let texts: usize = texts.into_iter().flatten().map(|text| LEAST_FIELD_BYTES + text.len()).sum();
        LEAST_BYTES + ID_BYTES + self.tenant.len() + self.outcome.len() + texts
    }
}

/// The handle with which lines are written. Cheap to clone.
#[derive(Clone, Default)]
pub struct Audit(Option<Arc<AuditQueue>>);

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Audit").field(&self.0.is_some()).finish()
    }
}

struct AuditQueue {
    path: Option<PathBuf>,
    sinks: AuditSinks,
    lines: SyncSender<WriterMessage>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    shares: Arc<AuditShares>,
}

impl AuditQueue {
    /// Whether lines are written anywhere. Sinks may come while the gateway runs.
    fn is_on(&self) -> bool {
        self.path.is_some() || !self.sinks.is_empty()
    }
}

enum WriterMessage {
    Line(Vec<u8>),
    /// Lines are being counted, so their number will have to be written.
    CountingStarted,
    /// Replied to when everything before it is written.
    Flush(SyncSender<()>),
}

#[derive(Serialize)]
struct AuditLine<'a> {
    #[serde(serialize_with = "serialize_milliseconds")]
    at: Timestamp,
    #[serde(flatten)]
    entry: &'a AuditRecord<'a>,
    /// How many lines of this kind this line stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<u64>,
    /// When the first of them was left out.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_optional_milliseconds")]
    since: Option<Timestamp>,
}

/// Writes a time to the millisecond, so that all lines have the same form.
fn serialize_milliseconds<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{at:.3}"))
}

fn serialize_optional_milliseconds<S: serde::Serializer>(
    at: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serialize_milliseconds(at, serializer),
        None => serializer.serialize_none(),
    }
}

impl Audit {
    /// Returns an audit that discards all lines.
    pub fn disabled() -> Self {
        Self::default()
    }

    /// Opens the file and the spools of the sinks, and starts the thread that writes to them.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread can be started.
    pub fn start(config: AuditConfig, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let AuditConfig { file, sinks, state, node } = config;
        let path = file.as_ref().map(|file| file.path.clone());
        let file = file.map(RotatingFile::open).transpose()?;
        let sinks = AuditSinks::open(sinks, &state, &clock, &metrics);
        let (lines, queue) = sync_channel(QUEUE);
        let shares = Arc::new(AuditShares::default());
        let writer = AuditWriter {
            file,
            sinks: sinks.clone(),
            for_sinks: Vec::new(),
            line_ids: LineIds::new(node.as_deref()),
            failing: false,
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            shares: Arc::clone(&shares),
        };
        let thread = std::thread::Builder::new().name("audit".into());
        // The thread ends with the last handle; `flush` waits for its lines.
        let _detached = thread.spawn(move || writer.run(&queue))?;
        Ok(Self(Some(Arc::new(AuditQueue { path, sinks, lines, clock, metrics, shares }))))
    }

    /// Starts to send to the sinks.
    pub fn start_sinks(&self, tasks: &Tasks) {
        self.0.iter().for_each(|queue| queue.sinks.start(self, tasks));
    }

    /// Sends to the sinks what waits for them, for a limited time, and ends that. What is left is
    /// sent after the next start.
    pub async fn finish_sinks(&self, patience: Duration) {
        if let Some(queue) = &self.0 {
            queue.sinks.finish(patience).await;
        }
    }

    /// Replaces the sinks while the gateway runs. Lines written before go to the sinks before.
    /// Blocks.
    pub fn replace_sinks(&self, configs: Vec<SinkConfig>, timeout: Duration) {
        let Some(queue) = &self.0 else {
            if !configs.is_empty() {
                tracing::error!("there is no audit without a state folder, so its sinks get nothing");
            }
            return;
        };
        self.flush(timeout);
        let gone = queue.sinks.replace(configs, self);
        // The writer may be about to append to the sinks before.
        self.flush(timeout);
        gone.iter().for_each(|sink| sink.remove());
    }

    /// Returns the sinks that are in trouble now.
    pub fn sink_troubles(&self) -> Vec<SinkTrouble> {
        self.0.as_ref().map(|queue| queue.sinks.troubles()).unwrap_or_default()
    }

    /// Returns the file being written, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.0.as_ref().and_then(|queue| queue.path.as_deref())
    }

    /// Whether lines are written anywhere.
    pub fn is_on(&self) -> bool {
        self.0.as_ref().is_some_and(|queue| queue.is_on())
    }

    /// Writes a line, or counts it if it exceeds the tenant's share.
    pub fn record(&self, entry: &AuditRecord<'_>) {
        let Some(queue) = self.0.as_ref().filter(|queue| queue.is_on()) else { return };
        let at = queue.clock.now();
        // A flood's lines are not even written to memory.
        let (line, decision) = match queue.shares.count_if_full(entry, entry.least_bytes(), at) {
            Some(decision) => (Vec::new(), decision),
            None => {
                let line = AuditLine { at, entry, left_out: None, since: None }.written();
                let decision = queue.shares.admit(entry, line.len() + ID_BYTES, at);
                (line, decision)
            }
        };
        match decision {
            AdmitDecision::Write => {
                if queue.lines.try_send(WriterMessage::Line(line)).is_err() {
                    queue.metrics.record_lost_audit_line();
                }
            }
            AdmitDecision::Count { first } => {
                queue.metrics.record_omitted_audit_line();
                // If the queue is full the thread is awake anyway, and writes the counts later.
                let _awake = first.then(|| queue.lines.try_send(WriterMessage::CountingStarted));
            }
        }
    }

    /// Writes a line that states how many lines did not reach a sink. Returns whether it will be
    /// written.
    fn record_dropped(&self, sink: &str, dropped: DroppedLines) -> bool {
        let Some(queue) = &self.0 else { return false };
        let entry = AuditRecord { sink: Some(sink), ..AuditRecord::new(AuditEvent::Loss, "", "dropped") };
        let (left_out, since) = (Some(dropped.lines), Some(dropped.since));
        let line = AuditLine { at: queue.clock.now(), entry: &entry, left_out, since }.written();
        queue.lines.try_send(WriterMessage::Line(line)).is_ok()
    }

    /// Waits until all previous lines are written, but no longer than `timeout`. Blocks.
    pub fn flush(&self, timeout: Duration) {
        let Some(queue) = &self.0 else { return };
        let (written, wait) = sync_channel(1);
        if queue.lines.try_send(WriterMessage::Flush(written)).is_ok() {
            // Late or not, the process ends.
            let _in_time = wait.recv_timeout(timeout);
        }
    }
}

impl AuditLine<'_> {
    fn written(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("an entry is plain data");
        line.push(b'\n');
        line
    }
}

/// The thread that writes the file and the spools.
struct AuditWriter {
    file: Option<RotatingFile>,
    sinks: AuditSinks,
    /// Lines that the spools get next.
    for_sinks: Vec<Vec<u8>>,
    line_ids: LineIds,
    /// The last line could not be written.
    failing: bool,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    shares: Arc<AuditShares>,
}

impl AuditWriter {
    fn run(mut self, queue: &Receiver<WriterMessage>) {
        loop {
            match self.next(queue) {
                Ok(first) => {
                    std::thread::sleep(GATHER);
                    std::iter::once(first).chain(queue.try_iter()).for_each(|message| self.meet(message));
                    self.fill_spools();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.say_counts();
                    return self.fill_spools();
                }
            }
            if self.shares.due_in_ms(self.clock.now()) == Some(0) {
                self.say_counts();
                self.fill_spools();
            }
        }
    }

    /// Waits for the next message, or until the counts are due.
    fn next(&self, queue: &Receiver<WriterMessage>) -> Result<WriterMessage, RecvTimeoutError> {
        match self.shares.due_in_ms(self.clock.now()) {
            None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(wait) => queue.recv_timeout(Duration::from_millis(wait)),
        }
    }

    fn meet(&mut self, message: WriterMessage) {
        match message {
            WriterMessage::Line(line) => self.keep(line),
            WriterMessage::CountingStarted => {}
            WriterMessage::Flush(written) => {
                self.say_counts();
                self.fill_spools();
                // The caller may have stopped waiting.
                let _asker = written.try_send(());
            }
        }
    }

    fn keep(&mut self, mut line: Vec<u8>) {
        self.line_ids.append(&mut line);
        self.write(&line);
        if !self.sinks.is_empty() {
            self.for_sinks.push(line);
        }
    }

    fn write(&mut self, line: &[u8]) {
        let Some(file) = &mut self.file else { return };
        match file.write(line) {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.metrics.record_lost_audit_line();
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "the audit file cannot be written: lines are lost until it can");
                }
            }
        }
    }

    fn fill_spools(&mut self) {
        self.sinks.append(&std::mem::take(&mut self.for_sinks));
    }

    fn say_counts(&mut self) {
        let at = self.clock.now();
        for (tenant, counted) in self.shares.take_counts() {
            for OmittedLines { event, outcome, actor: by, lines, since } in &counted {
                let who = by.as_ref().map(shares::OwnedActor::as_actor).unwrap_or_default();
                let client_id = by.as_ref().and_then(|by| by.client_id.as_deref());
                let entry = AuditRecord { who, client_id, ..AuditRecord::new(*event, &tenant, outcome) };
                let line = AuditLine { at, entry: &entry, left_out: Some(*lines), since: Some(*since) };
                self.keep(line.written());
            }
        }
    }
}

/// The last fields of each line: `node`, if there is one, and `id`, which no other line has.
struct LineIds {
    /// What stands between a line's other fields and its number.
    fields: String,
    /// The number of the last line.
    number: u64,
}

impl LineIds {
    fn new(node: Option<&str>) -> Self {
        let node = node.map(|name| format!(",\"node\":{}", serde_json::Value::from(name)));
        let (node, run_id) = (node.unwrap_or_default(), random::hex::<6>());
        Self { fields: format!("{node},\"id\":\"{run_id}-"), number: 0 }
    }

    fn append(&mut self, line: &mut Vec<u8>) {
        self.number += 1;
        line.truncate(line.len() - "}\n".len());
        writeln!(line, "{}{}\"}}", self.fields, self.number).expect("writing to a vector cannot fail");
    }
}

#[cfg(test)]
mod tests;
