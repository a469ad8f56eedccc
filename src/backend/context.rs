//! The semantic context of one tenant: fetched once for all who ask, kept while the backend is down.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::base::digest::Digest;

/// The last good context. Stale is usable; a stampede is not.
#[derive(Debug, Default)]
pub(super) struct ContextCache {
    held: ArcSwapOption<Held>,
    /// Whoever has it is fetching.
    flight: Mutex<()>,
}

#[derive(Debug)]
struct Held {
    value: Arc<Value>,
    /// Of the call that fetched it: another URL, key or connection makes another context.
    source: Digest,
    fetched: Instant,
}

impl ContextCache {
    /// The context as it is, fresh or stale, if it came from `source`.
    pub(super) fn known(&self, source: &Digest) -> Option<Arc<Value>> {
        let held = self.held.load();
        held.as_ref().filter(|held| held.source == *source).map(|held| Arc::clone(&held.value))
    }

    /// The context, fetched with `fetch` when there is none or it is older than `ttl`.
    ///
    /// One caller fetches. While it does, the others get the stale context at once, or wait if there is none. When
    /// fetching fails, the stale one serves on.
    pub(super) async fn get_or_fetch<E, F>(
        &self,
        source: &Digest,
        ttl: Duration,
        now: impl Fn() -> Instant,
        fetch: impl FnOnce() -> F,
    ) -> Result<Arc<Value>, E>
    where
        F: Future<Output = Result<Value, E>>,
    {
        if let Some(fresh) = self.fresh(source, ttl, now()) {
            return Ok(fresh);
        }
        let stale = self.known(source);
        let _flight = match (&stale, self.flight.try_lock()) {
            (_, Ok(flight)) => flight,
            (Some(stale), Err(_)) => return Ok(Arc::clone(stale)),
            (None, Err(_)) => self.flight.lock().await,
        };
        if let Some(fresh) = self.fresh(source, ttl, now()) {
            return Ok(fresh);
        }
        match (fetch().await, stale) {
            (Ok(value), _) => Ok(self.keep(value, *source, now())),
            (Err(_), Some(stale)) => Ok(stale),
            (Err(error), None) => Err(error),
        }
    }

    fn fresh(&self, source: &Digest, ttl: Duration, now: Instant) -> Option<Arc<Value>> {
        let held = self.held.load();
        let fresh = |held: &&Arc<Held>| held.source == *source && now.duration_since(held.fetched) < ttl;
        held.as_ref().filter(fresh).map(|held| Arc::clone(&held.value))
    }

    fn keep(&self, value: Value, source: Digest, fetched: Instant) -> Arc<Value> {
        let value = Arc::new(value);
        self.held.store(Some(Arc::new(Held { value: Arc::clone(&value), source, fetched })));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{Clock, ManualClock};
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const TTL: Duration = Duration::from_secs(60);

    struct Bed {
        cache: ContextCache,
        clock: ManualClock,
        fetched: AtomicUsize,
    }

    impl Bed {
        fn new() -> Self {
            let clock = ManualClock::at(jiff::Timestamp::UNIX_EPOCH);
            Self { cache: ContextCache::default(), clock, fetched: AtomicUsize::new(0) }
        }

        async fn ask(
            &self,
            source: &str,
            answer: Result<Value, &'static str>,
        ) -> Result<Arc<Value>, &'static str> {
            let fetch = || async {
                self.fetched.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                answer
            };
            let source = Digest::of(source.as_bytes());
            self.cache.get_or_fetch(&source, TTL, || self.clock.monotonic(), fetch).await
        }
    }

    #[tokio::test]
    async fn many_callers_make_one_fetch() {
        let bed = Bed::new();
        let (a, b, c) =
            tokio::join!(bed.ask("s", Ok(json!(1))), bed.ask("s", Ok(json!(2))), bed.ask("s", Ok(json!(3))));
        assert_eq!((a, b, c), (Ok(Arc::new(json!(1))), Ok(Arc::new(json!(1))), Ok(Arc::new(json!(1)))));
        assert_eq!(bed.fetched.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_stale_context_serves_while_the_backend_is_down() {
        let bed = Bed::new();
        assert_eq!(bed.ask("s", Ok(json!("old"))).await, Ok(Arc::new(json!("old"))));
        bed.clock.advance(TTL);
        assert_eq!(bed.ask("s", Err("down")).await, Ok(Arc::new(json!("old"))));
        assert_eq!(bed.ask("s", Ok(json!("new"))).await, Ok(Arc::new(json!("new"))));
    }

    #[tokio::test]
    async fn another_source_never_sees_the_old_context() {
        let bed = Bed::new();
        assert!(bed.ask("one", Ok(json!("one"))).await.is_ok());
        assert_eq!(bed.ask("two", Err("down")).await, Err("down"));
        assert_eq!(bed.cache.known(&Digest::of(b"two")), None);
    }
}
