//! Standard error, written by a dedicated thread.
//!
//! Wherever standard error leads (a full disk, a pipe whose reader is gone or sleeps, a closed
//! terminal), no caller waits for it and the process does not end because of it. Lines wait in a
//! bounded buffer; those that do not fit or cannot be written are lost and counted
//! (`tenantd_log_lines_lost`). The next line that can be written states their number.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

use crate::base::sync::lock;

/// The size of the buffer, in bytes: seconds of a busy gateway's log.
const MAX_QUEUED_BYTES: usize = 4 << 20;
/// The last lines that are kept for people who look for a fault, and their size in bytes.
const MAX_RECENT_LINES: usize = 500;
const MAX_RECENT_BYTES: usize = 256 << 10;
/// A buffer that grew beyond this size is shrunk again.
const MAX_IDLE_CAPACITY: usize = 64 << 10;
/// The pause before a retry on a descriptor that another process made non-blocking.
const RETRY: Duration = Duration::from_millis(10);

/// The number of lines lost by this process.
static LOST: LazyLock<Counter> = LazyLock::new(Counter::default);

/// Returns the counter for the metrics.
pub(in crate::telemetry) fn lost_counter() -> Counter {
    LOST.clone()
}

/// The queue of lines for the thread that writes them. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct LogQueue(Arc<QueueShared>);

#[derive(Debug, Default)]
struct QueueShared {
    state: Mutex<QueueState>,
    /// Signalled when there is something to write.
    lines_queued: Condvar,
    /// Signalled after each batch.
    batch_done: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    /// Whole lines.
    queued: Vec<u8>,
    is_writing: bool,
    /// Lost lines that no line has reported yet.
    unreported: u64,
    recent: RecentLines,
}

/// The last lines of the log, also those that could not be written.
#[derive(Debug, Default)]
struct RecentLines {
    lines: VecDeque<Box<[u8]>>,
    bytes: usize,
}

impl RecentLines {
    fn push(&mut self, line: &[u8]) {
        if line.len() > MAX_RECENT_BYTES {
            return;
        }
        self.bytes += line.len();
        self.lines.push_back(line.into());
        while self.lines.len() > MAX_RECENT_LINES || self.bytes > MAX_RECENT_BYTES {
            let Some(oldest) = self.lines.pop_front() else { return };
            self.bytes -= oldest.len();
        }
    }
}

impl LogQueue {
    /// Starts the thread that writes to standard error, and into `copy` too.
    ///
    /// # Errors
    /// No thread can be started, or no file descriptor is left.
    pub(super) fn to_stderr(copy: Option<File>) -> io::Result<Self> {
        // Use a separate descriptor: a write that hangs must not hold the lock of `io::stderr` when
        // the process ends.
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        Self::start(CopiedOutput { out: stderr, copy, colours: ColourFilter::default() })
    }

    fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Self(Arc::default());
        let writer = queue.clone();
        // The thread ends with the process; `flush` waits for its lines.
        let _detached = std::thread::Builder::new().name("log".into()).spawn(move || writer.serve(out))?;
        Ok(queue)
    }

    /// Queues one whole line, or counts it as lost.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.0.lock();
        state.recent.push(line);
        if state.queued.len() + line.len() > MAX_QUEUED_BYTES {
            state.lose(1);
            return;
        }
        let was_empty = state.queued.is_empty();
        state.queued.extend_from_slice(line);
        drop(state);
        if was_empty {
            self.0.lines_queued.notify_one();
        }
    }

    /// Returns the last lines, without colours.
    pub(super) fn recent(&self) -> String {
        let bytes =
            self.0.lock().recent.lines.iter().flat_map(|line| line.iter().copied()).collect::<Vec<_>>();
        String::from_utf8_lossy(&ColourFilter::default().strip(&bytes)).into_owned()
    }

    /// Waits until all queued lines are written or lost, but no longer than `timeout`.
    pub(super) fn flush(&self, timeout: Duration) {
        let is_busy = |state: &mut QueueState| state.is_writing || !state.queued.is_empty();
        // Late or not, and whatever happened to the thread: the process ends.
        let _in_time = self.0.batch_done.wait_timeout_while(self.0.lock(), timeout, is_busy);
    }

    fn serve(&self, out: impl Write) {
        let mut lines = LineSink { out, is_torn: false };
        let mut batch = Vec::new();
        loop {
            self.take(&mut batch);
            let lost = lines.write(&batch);
            batch.clear();
            batch.shrink_to(MAX_IDLE_CAPACITY);
            let unreported = self.finish_batch(lost);
            if unreported > 0 {
                tracing::warn!(
                    lost = unreported,
                    "standard error could not be written; lines of the log were lost"
                );
            }
        }
    }

    /// Waits for lines and takes all of them.
    fn take(&self, batch: &mut Vec<u8>) {
        let guard = self.0.lock();
        let waited = self.0.lines_queued.wait_while(guard, |state| state.queued.is_empty());
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut state.queued, batch);
        state.is_writing = true;
    }

    /// Returns how many lost lines to report: none while nothing can be written.
    fn finish_batch(&self, lost: u64) -> u64 {
        let mut state = self.0.lock();
        state.lose(lost);
        state.is_writing = false;
        self.0.batch_done.notify_all();
        if lost > 0 { 0 } else { std::mem::take(&mut state.unreported) }
    }
}

impl QueueShared {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // No holder of this lock panics.
        lock(&self.state)
    }
}

impl QueueState {
    fn lose(&mut self, lines: u64) {
        self.unreported += lines;
        LOST.inc_by(lines);
    }
}

/// The subscriber passes each event as one whole line.
impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An output whose contents go into a file too.
struct CopiedOutput<W> {
    out: W,
    /// `None` once it could not be written.
    copy: Option<File>,
    colours: ColourFilter,
}

/// Removes colours, which lines have for a terminal, also if a line comes in pieces. Lines have no
/// other escape sequences.
#[derive(Debug, Default)]
struct ColourFilter {
    is_inside: bool,
}

impl ColourFilter {
    fn strip(&mut self, bytes: &[u8]) -> Vec<u8> {
        bytes.iter().copied().filter(|byte| self.is_text(*byte)).collect()
    }

    fn is_text(&mut self, byte: u8) -> bool {
        let was_inside = self.is_inside;
        self.is_inside = byte == b'\x1b' || was_inside && byte != b'm';
        !self.is_inside && !was_inside
    }
}

impl<W: Write> Write for CopiedOutput<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes);
        match &written {
            Ok(length) => self.write_copy(&bytes[..*length]),
            // These are written again.
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(_) => self.write_copy(bytes),
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W> CopiedOutput<W> {
    fn write_copy(&mut self, bytes: &[u8]) {
        let Some(copy) = &mut self.copy else { return };
        if let Err(error) = copy.write_all(&self.colours.strip(bytes)) {
            self.copy = None;
            tracing::warn!(%error, "the log file cannot be written any longer; the log goes on here only");
        }
    }
}

/// The destination of lines.
struct LineSink<W> {
    out: W,
    /// The last line was written in part.
    is_torn: bool,
}

impl<W: Write> LineSink<W> {
    /// Writes whole lines and returns how many of them were lost.
    fn write(&mut self, lines: &[u8]) -> u64 {
        if self.is_torn && self.write_all(b"\n").is_err() {
            return count(lines);
        }
        self.is_torn = false;
        let Err(written) = self.write_all(lines) else { return 0 };
        let (before, after) = lines.split_at(written);
        self.is_torn = before.last().is_some_and(|&last| last != b'\n');
        count(after)
    }

    /// Writes all bytes. The error is the number of bytes written before the failure.
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut written = 0;
        while written < bytes.len() {
            match self.out.write(&bytes[written..]) {
                Ok(0) => return Err(written),
                Ok(more) => written += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(RETRY),
                Err(_gone_or_full) => return Err(written),
            }
        }
        Ok(())
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    /// A disk with room for a number of bytes, then for none, then for all again.
    struct FillingDisk {
        room: usize,
        is_cleared: Arc<Mutex<bool>>,
        kept: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for FillingDisk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if *self.is_cleared.lock().expect("no holder of this lock panics") {
                self.room = usize::MAX;
            }
            let fits = bytes.len().min(self.room);
            if fits == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.room -= fits;
            self.kept.lock().expect("no holder of this lock panics").extend_from_slice(&bytes[..fits]);
            Ok(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_copy_has_no_colours() {
        let copy = tempfile::tempfile().expect("a file");
        let mut out = CopiedOutput {
            out: Vec::new(),
            copy: Some(copy.try_clone().expect("a second handle")),
            colours: ColourFilter::default(),
        };
        let line = "\x1b[2m2026\x1b[0m \x1b[32m INFO\x1b[0m möm [1m]\n";
        for byte in line.bytes() {
            out.write_all(&[byte]).expect("written");
        }
        out.write_all(line.as_bytes()).expect("written");
        assert_eq!(out.out, line.repeat(2).as_bytes());
        let mut kept = String::new();
        let mut copy = copy;
        io::Seek::rewind(&mut copy).expect("rewound");
        io::Read::read_to_string(&mut copy, &mut kept).expect("text");
        assert_eq!(kept, "2026  INFO möm [1m]\n".repeat(2));
    }

    /// A pipe whose reader sleeps until the test wakes it.
    struct StalledPipe {
        begun: Sender<()>,
        wake: Receiver<()>,
    }

    impl Write for StalledPipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // If the receiver is gone, the test has ended.
            let _ended = self.begun.send(());
            let _ended = self.wake.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_lost_and_the_next_line_is_whole() {
        let (is_cleared, kept) = (Arc::<Mutex<bool>>::default(), Arc::<Mutex<Vec<u8>>>::default());
        let disk = FillingDisk { room: 10, is_cleared: Arc::clone(&is_cleared), kept: Arc::clone(&kept) };
        let queue = LogQueue::start(disk).expect("a thread");
        for line in ["first\n", "second\n", "third\n"] {
            queue.push(line.as_bytes());
            queue.flush(TIMEOUT);
        }
        assert_eq!(queue.0.lock().unreported, 2);
        *is_cleared.lock().expect("no holder of this lock panics") = true;
        queue.push(b"fourth\n");
        queue.flush(TIMEOUT);
        let text =
            String::from_utf8(kept.lock().expect("no holder of this lock panics").clone()).expect("text");
        assert_eq!(text, "first\nseco\nfourth\n");
        assert_eq!(queue.0.lock().unreported, 0, "it is reported");
    }

    #[test]
    fn a_reader_that_sleeps_keeps_nobody_waiting_and_costs_bounded_memory() {
        let (begun, begins) = channel();
        let (wake, woken) = channel();
        let queue = LogQueue::start(StalledPipe { begun, wake: woken }).expect("a thread");
        queue.push(b"the first one\n");
        begins.recv_timeout(TIMEOUT).expect("it is being written");
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        for _ in 0..3 * MAX_QUEUED_BYTES / line.len() {
            queue.push(&line);
        }
        assert!(queue.0.lock().queued.len() <= MAX_QUEUED_BYTES);
        assert_eq!(queue.0.lock().unreported, 2 * (MAX_QUEUED_BYTES / line.len()) as u64);
        queue.flush(Duration::from_millis(1));
        drop(wake);
        queue.flush(TIMEOUT);
        assert!(queue.0.lock().queued.is_empty());
    }

    #[test]
    fn the_last_lines_are_kept_within_bounds_and_without_colours() {
        let queue = LogQueue::start(io::sink()).expect("a thread");
        (0..600).for_each(|number| queue.push(format!("\x1b[32mline\x1b[0m {number}\n").as_bytes()));
        let recent = queue.recent();
        assert_eq!(recent.lines().count(), MAX_RECENT_LINES);
        assert!(recent.starts_with("line 100\n") && recent.ends_with("line 599\n"), "{recent}");
        (0..40).for_each(|_| queue.push(&[b"x".repeat(10_000), b"\n".to_vec()].concat()));
        assert!(queue.recent().len() <= MAX_RECENT_BYTES);
        queue.push(&b"y".repeat(MAX_RECENT_BYTES + 1));
        assert!(queue.recent().contains('x'), "a giant drops all others");
    }

    #[test]
    fn what_was_pushed_is_written_when_flush_returns() {
        let kept = Arc::<Mutex<Vec<u8>>>::default();
        let disk = FillingDisk { room: usize::MAX, is_cleared: Arc::default(), kept: Arc::clone(&kept) };
        let queue = LogQueue::start(disk).expect("a thread");
        (0..1_000).for_each(|number| queue.push(format!("{number}\n").as_bytes()));
        queue.flush(TIMEOUT);
        assert_eq!(count(&kept.lock().expect("no holder of this lock panics")), 1_000);
    }
}
