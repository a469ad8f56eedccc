//! Detects whether a client is sending something that must not take long: a request head, or the
//! HTTP/2 preface.

use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use super::super::activity::Activity;
use super::LazyDeadline;

/// The header timeout of either protocol.
pub(super) enum HeadTimer {
    /// HTTP/1.
    Http1(Http1HeadTimer),
    /// HTTP/2.
    Http2(Http2HeadTimer),
}

impl HeadTimer {
    /// Starts waiting for the first head.
    pub(super) fn http1(after: Duration, activity: Arc<Activity>) -> Self {
        Self::Http1(Http1HeadTimer { after_request: Some(0), deadline: LazyDeadline::after(after), activity })
    }

    /// Starts waiting for the preface.
    pub(super) fn http2(after: Duration) -> Self {
        Self::Http2(Http2HeadTimer::new(after))
    }

    /// Records that these bytes have arrived.
    pub(super) fn on_read(&mut self, bytes: &[u8]) {
        match self {
            Self::Http1(timer) => timer.on_read(),
            Self::Http2(timer) => timer.on_read(bytes),
        }
    }

    /// Returns whether a head took too long; else `context` is woken when it has.
    pub(super) fn poll_expired(&mut self, context: &mut Context<'_>) -> bool {
        match self {
            Self::Http1(timer) => timer.is_overdue(context),
            Self::Http2(timer) => timer.is_due && timer.deadline.has_passed(context),
        }
    }
}

/// HTTP/1: whether a request head is being read, and since when. A head ends when its request
/// begins.
pub(super) struct Http1HeadTimer {
    activity: Arc<Activity>,
    /// A head began after this many requests; it is complete once another request has begun.
    after_request: Option<u64>,
    deadline: LazyDeadline,
}

impl Http1HeadTimer {
    fn on_read(&mut self) {
        if self.activity.is_busy() {
            return;
        }
        self.activity.mark_head_begun();
        let begun = self.activity.begun();
        if self.after_request != Some(begun) {
            self.after_request = Some(begun);
            self.deadline.disarm();
        }
    }

    fn is_overdue(&mut self, context: &mut Context<'_>) -> bool {
        if self.activity.is_busy() || self.after_request != Some(self.activity.begun()) {
            self.after_request = None;
            self.deadline.disarm();
            return false;
        }
        self.deadline.has_passed(context)
    }
}

/// HTTP/2: the preface with its first frame (RFC 9113 section 3.4), and HEADERS up to the
/// CONTINUATION that ends them (section 6.10). This parses only frame headers (section 4.1); hyper
/// validates their content.
pub(super) struct Http2HeadTimer {
    deadline: LazyDeadline,
    /// The preface or a header block is incomplete.
    is_due: bool,
    /// `is_due` after the current payload.
    is_due_after: bool,
    /// Bytes of the current payload still to come.
    payload: usize,
    head: [u8; 9],
    filled: usize,
}

impl Http2HeadTimer {
    const PREFACE: usize = 24;
    const HEADERS: u8 = 1;
    const CONTINUATION: u8 = 9;
    const END_HEADERS: u8 = 4;

    fn new(after: Duration) -> Self {
        Self {
            deadline: LazyDeadline::after(after),
            is_due: true,
            is_due_after: true,
            payload: Self::PREFACE,
            head: [0; 9],
            filled: 0,
        }
    }

    fn on_read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let passing = self.payload.min(bytes.len());
                bytes = &bytes[passing..];
                self.payload -= passing;
            } else {
                let more = (self.head.len() - self.filled).min(bytes.len());
                self.head[self.filled..self.filled + more].copy_from_slice(&bytes[..more]);
                bytes = &bytes[more..];
                self.filled += more;
                if self.filled < self.head.len() {
                    return;
                }
                self.begin_frame();
            }
            if self.payload == 0 {
                self.end_frame();
            }
        }
    }

    fn begin_frame(&mut self) {
        let [a, b, c, kind, flags, ..] = self.head;
        let is_head = kind == Self::HEADERS || kind == Self::CONTINUATION;
        self.is_due |= is_head;
        self.is_due_after = is_head && flags & Self::END_HEADERS == 0;
        self.payload = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.filled = 0;
    }

    fn end_frame(&mut self) {
        self.is_due = self.is_due_after;
        if !self.is_due {
            self.deadline.disarm();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u8::try_from(payload).expect("a short payload");
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.resize(9 + payload, 0);
        frame
    }

    /// Returns `is_due` after these bytes, however they are split.
    fn is_due(bytes: &[u8]) -> bool {
        let mut whole = Http2HeadTimer::new(Duration::ZERO);
        whole.on_read(bytes);
        for size in 1..12 {
            let mut cut = Http2HeadTimer::new(Duration::ZERO);
            bytes.chunks(size).for_each(|chunk| cut.on_read(chunk));
            assert_eq!(cut.is_due, whole.is_due, "in pieces of {size}");
        }
        whole.is_due
    }

    #[test]
    fn the_preface_is_due_until_its_first_frame_is_there() {
        let preface = [0; Http2HeadTimer::PREFACE];
        let settings = frame(4, 0, 6);
        assert!(is_due(&[]) && is_due(&preface) && is_due(&[&preface[..], &settings[..12]].concat()));
        assert!(!is_due(&[&preface[..], &settings].concat()));
        assert!(!is_due(&[&preface[..], &frame(4, 0, 0)].concat()));
    }

    #[test]
    fn a_head_is_due_until_its_last_frame_is_there() {
        let begun = [&[0; Http2HeadTimer::PREFACE][..], &frame(4, 0, 0)].concat();
        let after = |frames: &[&[u8]]| is_due(&[&begun, &frames.concat()[..]].concat());
        let (open, end) = (frame(1, 1, 5), frame(9, 4, 7));
        assert!(after(&[&open]) && after(&[&open, &frame(9, 0, 3)]) && after(&[&open, &end[..15]]));
        assert!(!after(&[&open, &end]) && !after(&[&frame(1, 5, 5)]));
        assert!(after(&[&frame(1, 5, 5)[..13]]), "a frame that is not whole");
        assert!(!after(&[&frame(0, 0, 100)[..20]]), "a body is no head");
    }
}
