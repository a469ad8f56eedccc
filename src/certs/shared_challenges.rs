//! The answers to challenges of orders that other gateways have placed: a CA may ask any of them.
//!
//! An answer is looked for in the database only for names that this gateway has certificates for,
//! and by reading all answers at once: requests that come while one read is under way share the
//! next. So a flood of requests causes a few reads a second, and no request is told "no" by a read
//! that began before it came.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use rustls::sign::CertifiedKey;
use tokio::sync::Mutex;

use super::challenge_certificate::{build_challenge_certificate, challenge_sni};
use crate::base::clock::Clock;
use crate::store::{ClusterStore, SharedChallenge, SharedChallengeKind};

/// The least time between two reads.
const READ_INTERVAL: Duration = Duration::from_millis(200);
/// How long a request waits for its answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// The answers of other gateways, as they were read last.
#[derive(Debug)]
pub(super) struct SharedChallenges {
    store: ClusterStore,
    clock: Arc<dyn Clock>,
    /// Host names and addresses that this gateway has certificates for.
    names: RwLock<HashSet<String>>,
    /// When the last read began.
    last_read: Mutex<Option<Instant>>,
    answers: RwLock<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    /// By server name: the digest and its certificate.
    tls: HashMap<String, (Vec<u8>, Arc<CertifiedKey>)>,
    /// By token.
    http: HashMap<String, String>,
}

impl SharedChallenges {
    pub(super) fn new(store: ClusterStore, clock: Arc<dyn Clock>) -> Self {
        let (names, last_read, answers) = (RwLock::default(), Mutex::default(), RwLock::default());
        Self { store, clock, names, last_read, answers }
    }

    /// Sets the names for which answers are looked for.
    pub(super) fn set_names<'n>(&self, names: impl Iterator<Item = &'n String>) {
        let both = names.flat_map(|name| [name.to_ascii_lowercase(), challenge_sni(name)]);
        *self.names.write().expect("no holder of this lock panics") = both.collect();
    }

    /// Reads the answers anew, if one for this host or server name may be among them.
    pub(super) async fn refresh_for(&self, name: &str) {
        let name = name.trim_matches(['[', ']']).to_ascii_lowercase();
        if !self.names.read().expect("no holder of this lock panics").contains(&name) {
            return;
        }
        let arrived_at = self.clock.monotonic();
        // One that gives up finds what was read before.
        _ = tokio::time::timeout(PATIENCE, self.read_after(arrived_at)).await;
    }

    /// Returns once a read has ended that began after `arrived_at`.
    async fn read_after(&self, arrived_at: Instant) {
        let mut last_read = self.last_read.lock().await;
        if let Some(last) = *last_read {
            if last >= arrived_at {
                return;
            }
            let age = self.clock.monotonic().saturating_duration_since(last);
            tokio::time::sleep(READ_INTERVAL.saturating_sub(age)).await;
        }
        *last_read = Some(self.clock.monotonic());
        match Box::pin(self.store.load_challenges()).await {
            Ok(found) => self.replace(found),
            Err(error) => tracing::debug!(%error, "the answers of other gateways cannot be read"),
        }
    }

    fn replace(&self, found: Vec<SharedChallenge>) {
        let mut answers = Answers::default();
        let mut current = self.answers.write().expect("no holder of this lock panics");
        for SharedChallenge { kind, key, answer } in found {
            match kind {
                SharedChallengeKind::Http01 => {
                    answers.http.extend(String::from_utf8(answer).ok().map(|text| (key, text)));
                }
                SharedChallengeKind::TlsAlpn01 => {
                    let known = current.tls.remove(&key).filter(|(digest, _)| *digest == answer);
                    let built = known.or_else(|| {
                        let certificate = build_challenge_certificate(&key, &answer).ok()?;
                        Some((answer, certificate))
                    });
                    answers.tls.extend(built.map(|built| (key, built)));
                }
            }
        }
        *current = answers;
    }

    pub(super) fn http01_response(&self, token: &str) -> Option<String> {
        self.answers.read().expect("no holder of this lock panics").http.get(token).cloned()
    }

    pub(super) fn tls_alpn01_certificate(&self, server_name: &str) -> Option<Arc<CertifiedKey>> {
        let answers = self.answers.read().expect("no holder of this lock panics");
        answers.tls.get(server_name).map(|(_, certificate)| Arc::clone(certificate))
    }
}
