//! Who did what, one JSON object a line: logins, refusals, tokens, revocations, calls, reads, and what operators
//! order. Never arguments, never a credential.
//!
//! Lines go through a bounded queue to a thread of their own, because files block. Where the queue is full or the disk is, lines are
//! lost and counted (`tenantd_audit_lost`); nobody waits for them. The file is rotated by size.
//!
//! Each tenant has a share of what is written ([`shares`]): what is beyond it becomes lines that say how many there were.

mod file;
mod shares;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use self::file::File;
use self::shares::{Counted, Shares, Verdict};
use super::metrics::Metrics;

/// A second of a busy gateway's calls; about 3 MB.
const QUEUE: usize = 8192;
/// How long lines are gathered before they are written: to wake the thread for each would cost a call a quarter more.
const GATHER: Duration = Duration::from_millis(20);

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
    /// An operator ordered something about a tenant.
    Order,
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
    /// What an operator ordered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<&'a str>,
    /// The operator's account on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
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
            order: None,
            uid: None,
            tool: None,
            resource: None,
            elapsed_ms: None,
            bytes: None,
            request_id: None,
        }
    }
}

/// The wall clock. A function, since this floor is below the clock's.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

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
    shares: Arc<Shares>,
}

enum Message {
    Line(Vec<u8>),
    /// Lines begin to be counted: there will be something to say.
    Counting,
    /// Answered when all before it is written.
    Flush(SyncSender<()>),
}

#[derive(Serialize)]
struct Line<'a> {
    at: Timestamp,
    #[serde(flatten)]
    entry: &'a Entry<'a>,
    /// So many lines of this kind stand in no line of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<u64>,
    /// From then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
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
        let shares = Arc::new(Shares::default());
        let writer = Writer {
            file,
            failing: false,
            now: Arc::clone(&now),
            metrics: Arc::clone(&metrics),
            shares: Arc::clone(&shares),
        };
        let thread = std::thread::Builder::new().name("audit".into());
        // It ends with the last handle; `flush` is what waits for it.
        let _detached = thread.spawn(move || writer.run(&queue))?;
        Ok(Self(Some(Arc::new(Queue { lines, now, metrics, shares }))))
    }

    /// Keeps a line; beyond the tenant's share it is counted instead.
    pub fn note(&self, entry: &Entry<'_>) {
        let Some(queue) = &self.0 else { return };
        let at = (queue.now)();
        let line = Line { at, entry, left_out: None, since: None }.written();
        match queue.shares.judge(entry, line.len(), at) {
            Verdict::Keep => {
                if queue.lines.try_send(Message::Line(line)).is_err() {
                    queue.metrics.audit_lost();
                }
            }
            Verdict::Count { first } => {
                queue.metrics.audit_counted();
                // A full queue is written now, and what is counted is said after.
                let _awake = first.then(|| queue.lines.try_send(Message::Counting));
            }
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

impl Line<'_> {
    fn written(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("an entry is plain data");
        line.push(b'\n');
        line
    }
}

/// The thread of its own.
struct Writer {
    file: File,
    /// The last line could not be written.
    failing: bool,
    now: Now,
    metrics: Arc<Metrics>,
    shares: Arc<Shares>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Message>) {
        loop {
            match self.next(queue) {
                Ok(first) => {
                    std::thread::sleep(GATHER);
                    std::iter::once(first).chain(queue.try_iter()).for_each(|message| self.meet(message));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.say_counts(),
            }
            if self.shares.due_in_ms((self.now)()) == Some(0) {
                self.say_counts();
            }
        }
    }

    /// The next message, or the time to say what was counted.
    fn next(&self, queue: &Receiver<Message>) -> Result<Message, RecvTimeoutError> {
        match self.shares.due_in_ms((self.now)()) {
            None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(wait) => queue.recv_timeout(Duration::from_millis(wait)),
        }
    }

    fn meet(&mut self, message: Message) {
        match message {
            Message::Line(line) => self.keep(&line),
            Message::Counting => {}
            Message::Flush(written) => {
                self.say_counts();
                // Whoever asked may have left.
                let _asker = written.try_send(());
            }
        }
    }

    fn keep(&mut self, line: &[u8]) {
        match self.file.write(line) {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.metrics.audit_lost();
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "the audit file cannot be written: lines are lost until it can");
                }
            }
        }
    }

    fn say_counts(&mut self) {
        let at = (self.now)();
        for (tenant, counted) in self.shares.counted() {
            for Counted { event, outcome, by, lines, since } in &counted {
                let who = by.as_ref().map(shares::By::who).unwrap_or_default();
                let client_id = by.as_ref().and_then(|by| by.client_id.as_deref());
                let entry = Entry { who, client_id, ..Entry::new(*event, &tenant, outcome) };
                let line = Line { at, entry: &entry, left_out: Some(*lines), since: Some(*since) };
                self.keep(&line.written());
            }
        }
    }
}

#[cfg(test)]
mod tests;
