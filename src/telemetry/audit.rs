//! Who did what, one JSON object a line: logins, refusals, tokens, revocations, calls, reads. Never arguments, never a credential.
//!
//! Lines go through a bounded queue to a thread of their own, because files block. Where the queue is full or the disk is, lines are
//! lost and counted (`tenantd_audit_lost`); nobody waits for them. The file is rotated by size.

mod file;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use self::file::File;
use super::metrics::Metrics;

/// A second of a busy gateway's calls; about 3 MB.
const QUEUE: usize = 8192;
/// How long lines are gathered before they are written: to wake the thread for each would cost a call a quarter more.
const GATHER: Duration = Duration::from_millis(20);
/// More in a second are not kept: whoever knocks without end must not push out what matters.
const REFUSALS_A_SECOND: u32 = 20;

/// Where lines go, and how much of them is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeping {
    pub file: PathBuf,
    /// From this size on the file is moved aside.
    pub bytes: u64,
    /// How many files there are at most, the one that is written included.
    pub files: u32,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Somebody logged in, or would have.
    Login,
    /// A token was issued, or asked for in vain.
    Token,
    /// A grant or a client's access was ended.
    Revocation,
    /// A request to the MCP endpoint was turned away.
    Refusal,
    /// A tool call.
    Call,
    /// A resource was read, or asked for in vain.
    Read,
}

/// One line. What does not apply is left out.
#[derive(Debug, Clone, Serialize)]
pub struct Entry<'a> {
    pub event: Event,
    pub tenant: &'a str,
    /// `ok`, or why not, in a word or two.
    pub outcome: &'a str,
    #[serde(flatten)]
    pub who: Who<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<&'a str>,
    /// Which login: ties a call to its tokens and to what ended them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// How a token was bought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed_ms: Option<u64>,
    /// Of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<&'a str>,
}

/// Who did it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Who<'a> {
    /// The directory of a person's account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tid: Option<&'a str>,
    /// The account in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oid: Option<&'a str>,
    /// What the account was called then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    /// What the operator calls a key or a machine client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<&'a str>,
}

impl<'a> Entry<'a> {
    /// A line with nothing but the necessary.
    pub fn new(event: Event, tenant: &'a str, outcome: &'a str) -> Self {
        Self {
            event,
            tenant,
            outcome,
            who: Who::default(),
            client_id: None,
            grant: None,
            grant_type: None,
            jti: None,
            tool: None,
            resource: None,
            elapsed_ms: None,
            bytes: None,
            request_id: None,
        }
    }
}

/// The wall clock. A function, since this floor is below the clock's.
pub type Now = Box<dyn Fn() -> Timestamp + Send + Sync>;

/// Takes lines. Cheap to clone.
#[derive(Clone, Default)]
pub struct Audit(Option<Arc<Queue>>);

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Audit").field(&self.0.is_some()).finish()
    }
}

struct Queue {
    lines: SyncSender<Message>,
    now: Now,
    metrics: Arc<Metrics>,
    /// The second of the last refusal, and how many there were in it.
    refusals: Mutex<(i64, u32)>,
}

enum Message {
    Line(Vec<u8>),
    /// Answered when all before it is written.
    Flush(SyncSender<()>),
}

#[derive(Serialize)]
struct Line<'a> {
    at: Timestamp,
    #[serde(flatten)]
    entry: &'a Entry<'a>,
}

impl Audit {
    /// Keeps nothing.
    pub fn off() -> Self {
        Self::default()
    }

    /// Opens the file, so that one that cannot be written is told at the start.
    pub fn start(keeping: Keeping, now: Now, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let file = File::open(keeping)?;
        let (lines, queue) = sync_channel(QUEUE);
        let counted = Arc::clone(&metrics);
        let thread = std::thread::Builder::new().name("audit".into());
        // It ends with the last handle; `flush` is what waits for it.
        let _detached = thread.spawn(move || write(file, &queue, &counted))?;
        Ok(Self(Some(Arc::new(Queue { lines, now, metrics, refusals: Mutex::default() }))))
    }

    /// Keeps a line, unless there are too many.
    pub fn note(&self, entry: &Entry<'_>) {
        let Some(queue) = &self.0 else { return };
        let at = (queue.now)();
        if entry.event == Event::Refusal && !queue.has_room_for_refusal(at) {
            return queue.metrics.audit_lost();
        }
        let line = Line { at, entry };
        let mut line = serde_json::to_vec(&line).expect("an entry is plain data");
        line.push(b'\n');
        if queue.lines.try_send(Message::Line(line)).is_err() {
            queue.metrics.audit_lost();
        }
    }

    /// Waits until what was noted is written, but not for ever. Blocks.
    pub fn flush(&self, patience: Duration) {
        let Some(queue) = &self.0 else { return };
        let (written, wait) = sync_channel(1);
        if queue.lines.try_send(Message::Flush(written)).is_ok() {
            // Late or not, the process ends.
            let _in_time = wait.recv_timeout(patience);
        }
    }
}

impl Queue {
    fn has_room_for_refusal(&self, at: Timestamp) -> bool {
        let mut refusals = self.refusals.lock().expect("no holder of this lock panics");
        if refusals.0 != at.as_second() {
            *refusals = (at.as_second(), 0);
        }
        refusals.1 += 1;
        refusals.1 <= REFUSALS_A_SECOND
    }
}

fn write(mut file: File, queue: &Receiver<Message>, metrics: &Metrics) {
    let mut failing = false;
    while let Ok(first) = queue.recv() {
        std::thread::sleep(GATHER);
        for message in std::iter::once(first).chain(queue.try_iter()) {
            let line = match message {
                Message::Line(line) => line,
                Message::Flush(written) => {
                    // Whoever asked may have left.
                    let _asker = written.try_send(());
                    continue;
                }
            };
            match file.write(&line) {
                Ok(()) => failing = false,
                Err(error) => {
                    metrics.audit_lost();
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(%error, "the audit file cannot be written: lines are lost until it can");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
