//! What the requests of one connection do, and whether the client or the server has to act next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::base::evicting_limiter::Evictable;

/// Writes up to this size may be HTTP/2 control frames (a PING has 17 bytes), so they do not show
/// that the client reads a response.
const CONTROL_BYTES: usize = 64;

/// The requests of one connection: how many began, how many are in flight, and whether the client
/// or the server has to act next.
#[derive(Debug, Default)]
pub(in crate::server) struct Activity {
    begun: AtomicU64,
    in_flight: AtomicUsize,
    /// Requests in flight whose next chunk is ready but not taken: an HTTP/2 client may leave its
    /// flow-control window closed.
    offered: AtomicUsize,
    /// Requests in flight whose body is awaited.
    reading: AtomicUsize,
    /// At least one request carried a valid credential.
    has_credential: AtomicBool,
    /// Counts the chunks of responses that were taken.
    taken: AtomicU64,
    /// A request head took too long.
    head_timed_out: AtomicBool,
    /// The bytes read last arrived while nothing was in flight, and do not form a request yet.
    head_begun: AtomicBool,
    /// Written bytes may still be buffered.
    unflushed: AtomicBool,
    /// A request's body was dropped before its end, so the next bytes need not be a head.
    unread: AtomicBool,
}

impl Activity {
    /// Counts a request whose head has arrived.
    pub(super) fn begin_request(self: &Arc<Self>) -> InFlightRequest {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.head_begun.store(false, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlightRequest { activity: Arc::clone(self), offered: false }
    }

    /// Returns how many requests have begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether a request is in flight.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }

    /// Records that a request carried a valid credential.
    pub(super) fn set_credential(&self) {
        self.has_credential.store(true, Ordering::Relaxed);
    }

    /// Records that bytes of the next request's head have arrived.
    pub(super) fn mark_head_begun(&self) {
        self.head_begun.store(true, Ordering::Relaxed);
    }

    /// Records that the connection is cut since a head took too long.
    pub(super) fn mark_head_timed_out(&self) {
        self.head_timed_out.store(true, Ordering::Relaxed);
    }

    /// Whether the connection was cut since a head took too long.
    pub(super) fn is_head_timed_out(&self) -> bool {
        self.head_timed_out.load(Ordering::Relaxed)
    }

    /// Records that what was read last is no request, so what comes next need not be a head.
    pub(super) fn mark_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Whether more may come that belongs to no request that is answered.
    pub(super) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Records whether written bytes may still be buffered.
    pub(super) fn set_unflushed(&self, is_unflushed: bool) {
        self.unflushed.store(is_unflushed, Ordering::Relaxed);
    }

    /// Records that the connection took `bytes`; if they are more than control frames, the client
    /// reads.
    pub(super) fn record_written(&self, bytes: usize) {
        if bytes > CONTROL_BYTES {
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns once a keep-alive connection has been between two requests, with all responses sent,
    /// for `pause` to twice that.
    pub(super) async fn wait_until_parkable(&self, pause: Duration) {
        let mut seen = None;
        loop {
            tokio::time::sleep(pause).await;
            let now = self.is_between_requests().then(|| self.begun());
            if now.is_some() && now == seen {
                return;
            }
            seen = now;
        }
    }

    fn is_between_requests(&self) -> bool {
        let none = |flag: &AtomicBool| !flag.load(Ordering::Relaxed);
        self.begun() > 0
            && !self.is_busy()
            && none(&self.head_begun)
            && none(&self.unflushed)
            && none(&self.unread)
    }

    /// Returns once there was no new request, no work and no chunk taken for `patience`, give or
    /// take an eighth. Returns after an eighth if responses wait to be taken and room for them is
    /// scarce.
    pub(super) async fn wait_until_idle(&self, patience: Duration, is_scarce: impl Fn() -> bool) {
        const PARTS: u32 = 8;
        let (mut seen, mut quiet) = (self.progress(), 0);
        while quiet <= PARTS {
            tokio::time::sleep(patience / PARTS).await;
            let progress = self.progress();
            let is_still = progress == seen;
            if is_still && self.offered.load(Ordering::Relaxed) > 0 && is_scarce() {
                return;
            }
            quiet = if self.is_at_work() || !is_still { 0 } else { quiet + 1 };
            seen = progress;
        }
    }

    /// Returns once a request has begun, or after `patience`.
    pub(super) async fn wait_for_first_request(&self, patience: Duration) {
        const PARTS: u32 = 20;
        for _ in 0..PARTS {
            if self.begun() > 0 {
                return;
            }
            tokio::time::sleep(patience / PARTS).await;
        }
    }

    /// Returns how many requests began and how many chunks were taken.
    fn progress(&self) -> (u64, u64) {
        (self.begun(), self.taken.load(Ordering::Relaxed))
    }

    /// Returns whether the server is working on a response, so that the client is not to blame for
    /// the silence.
    fn is_at_work(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > self.offered.load(Ordering::Relaxed)
    }
}

impl Evictable for Activity {
    fn is_waiting(&self) -> bool {
        let clients = self.offered.load(Ordering::Relaxed) + self.reading.load(Ordering::Relaxed);
        self.in_flight.load(Ordering::Relaxed) <= clients
    }

    fn has_credential(&self) -> bool {
        self.has_credential.load(Ordering::Relaxed)
    }
}

/// A request in flight, until the last byte of its response was handed over.
#[derive(Debug)]
pub(super) struct InFlightRequest {
    activity: Arc<Activity>,
    offered: bool,
}

impl InFlightRequest {
    /// The next chunk is ready for the client to take.
    pub(super) fn mark_chunk_ready(&mut self) {
        if !self.offered {
            self.offered = true;
            self.activity.offered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The client took the chunk; the server has to produce the next one.
    pub(super) fn mark_chunk_taken(&mut self) {
        self.activity.taken.fetch_add(1, Ordering::Relaxed);
        self.withdraw();
    }

    fn withdraw(&mut self) {
        if self.offered {
            self.offered = false;
            self.activity.offered.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        self.withdraw();
        self.activity.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request body being read, until dropped.
#[derive(Debug)]
pub(super) struct BodyReadGuard {
    activity: Arc<Activity>,
    is_waiting: bool,
}

impl BodyReadGuard {
    pub(super) fn new(activity: Arc<Activity>) -> Self {
        Self { activity, is_waiting: false }
    }

    /// Sets whether the next chunk has to come from the client.
    pub(super) fn set_waiting(&mut self, is_waiting: bool) {
        match (std::mem::replace(&mut self.is_waiting, is_waiting), is_waiting) {
            (false, true) => _ = self.activity.reading.fetch_add(1, Ordering::Relaxed),
            (true, false) => _ = self.activity.reading.fetch_sub(1, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Records that the body was dropped before its end.
    pub(super) fn mark_unread(&self) {
        self.activity.mark_unread();
    }
}

impl Drop for BodyReadGuard {
    fn drop(&mut self) {
        self.set_waiting(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn a_connection_is_evictable_while_all_its_requests_wait_for_the_client() {
        let activity = Arc::new(Activity::default());
        assert!(activity.is_waiting());
        let (mut answered, asking) = (activity.begin_request(), activity.begin_request());
        let mut body = BodyReadGuard::new(Arc::clone(&activity));
        assert!(!activity.is_waiting());
        answered.mark_chunk_ready();
        assert!(!activity.is_waiting());
        body.set_waiting(true);
        assert!(activity.is_waiting());
        answered.mark_chunk_taken();
        assert!(!activity.is_waiting());
        drop((body, answered, asking));
        assert!(activity.is_waiting());
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_answer_is_not_idleness() {
        let activity = Arc::new(Activity::default());
        let under_way = activity.begin_request();
        assert!(
            tokio::time::timeout(PATIENCE * 10, activity.wait_until_idle(PATIENCE, || false)).await.is_err()
        );
        drop(under_way);
        assert!(
            tokio::time::timeout(PATIENCE / 2, activity.wait_until_idle(PATIENCE, || false)).await.is_err()
        );
        tokio::time::timeout(PATIENCE * 5 / 4, activity.wait_until_idle(PATIENCE, || false))
            .await
            .expect("idle is noticed");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_offered_and_not_taken_is_idleness() {
        let activity = Arc::new(Activity::default());
        let (mut stuck, working) = (activity.begin_request(), activity.begin_request());
        stuck.mark_chunk_ready();
        assert!(
            tokio::time::timeout(PATIENCE * 10, activity.wait_until_idle(PATIENCE, || false)).await.is_err(),
            "one is worked on"
        );
        drop(working);
        tokio::time::timeout(PATIENCE * 5 / 4, activity.wait_until_idle(PATIENCE, || false))
            .await
            .expect("nothing moves");
        tokio::time::timeout(PATIENCE / 6, activity.wait_until_idle(PATIENCE, || true))
            .await
            .expect("room is scarce");
        stuck.mark_chunk_taken();
        assert!(
            tokio::time::timeout(PATIENCE * 10, activity.wait_until_idle(PATIENCE, || false)).await.is_err(),
            "it is our turn again"
        );
    }
}
