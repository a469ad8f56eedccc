//! The exchanges of one tenant with its provider: their deadline, their count, and whether every
//! login fails at present.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::brand::Brand;
use super::error::Error;
use super::meaning::LoginErrorKind;
use super::oidc::transport::ProviderTransport;
use super::provider_login::ProviderLogin;
use crate::base::sync::lock_unpoisoned;

/// The deadline of a login or renewal, lookups included.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An outage without a failed exchange for this long is taken to be over.
const OUTAGE_MEMORY: Duration = Duration::from_secs(600);

/// A failure that prevents every login of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderProblem {
    /// The provider does not respond.
    Down,
    /// The app's credentials are refused, or the app is unknown. The class of the error.
    Misconfigured(&'static str),
}

/// What the last exchange of a tenant came to.
#[derive(Debug)]
pub(super) struct ExchangeMonitor {
    brand: &'static Brand,
    /// The app's id, for the log.
    app: Arc<str>,
    /// The failure of the last exchange, if it failed.
    problem: Mutex<Option<ProblemRecord>>,
}

/// How the last exchange failed.
#[derive(Debug, Clone, Copy)]
struct ProblemRecord {
    problem: ProviderProblem,
    last_seen: Instant,
    /// When the first of the consecutive failures happened.
    since: Timestamp,
}

impl ProviderProblem {
    fn from_error(error: &Error) -> Option<Self> {
        match error.kind() {
            LoginErrorKind::Down => Some(Self::Down),
            // The other classes may concern a single login, which anyone can provoke.
            LoginErrorKind::Misconfigured if error.blocks_all_logins() => {
                Some(Self::Misconfigured(error.class()))
            }
            LoginErrorKind::Misconfigured | LoginErrorKind::Refused | LoginErrorKind::Ended => None,
        }
    }

    /// Describes the problem for people.
    pub fn describe(self, brand: &Brand) -> String {
        let name = brand.name;
        match self {
            Self::Down => format!("{name}'s login does not answer"),
            Self::Misconfigured(class) => {
                format!("{name} refuses the app's credentials or does not know it: {class}")
            }
        }
    }
}

impl ExchangeMonitor {
    pub(super) fn new(brand: &'static Brand, app: Arc<str>) -> Self {
        Self { brand, app, problem: Mutex::default() }
    }

    /// Runs an exchange with a deadline, records its outcome and counts it.
    pub(super) async fn run(
        &self,
        transport: &ProviderTransport,
        exchange: impl Future<Output = Result<ProviderLogin, Error>>,
    ) -> Result<ProviderLogin, Error> {
        let begun = transport.clock.monotonic();
        let outcome = tokio::time::timeout(TIMEOUT, exchange).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Error::provider_down("no answer in time")));
        let error = outcome.as_ref().err();
        self.update_problem(transport, error.and_then(ProviderProblem::from_error));
        let label = error.map_or("ok", |error| error.kind().metric_label());
        transport.metrics.record_identity_call(label, transport.elapsed_since(begun));
        outcome
    }

    /// Logs when a problem begins and when it ends, not at each exchange.
    fn update_problem(&self, transport: &ProviderTransport, problem: Option<ProviderProblem>) {
        let last_seen = transport.clock.monotonic();
        let before = {
            let mut record = self.lock();
            let since = record.map_or_else(|| transport.clock.now(), |record| record.since);
            let new = problem.map(|problem| ProblemRecord { problem, last_seen, since });
            std::mem::replace(&mut *record, new)
        };
        let app = &self.app;
        match (before.map(|before| before.problem), problem) {
            (before, now) if before == now => {}
            (_, Some(problem)) => {
                tracing::warn!(%app, "nobody can log in: {}", problem.describe(self.brand));
            }
            (_, None) => tracing::info!(%app, "people can log in again"),
        }
    }

    /// Returns what prevents every login, according to the last exchange, and since when.
    pub(super) fn problem(&self, transport: &ProviderTransport) -> Option<(ProviderProblem, Timestamp)> {
        let record = (*self.lock())?;
        let is_forgotten = record.problem == ProviderProblem::Down
            && transport.elapsed_since(record.last_seen) > OUTAGE_MEMORY;
        (!is_forgotten).then_some((record.problem, record.since))
    }

    fn lock(&self) -> MutexGuard<'_, Option<ProblemRecord>> {
        lock_unpoisoned(&self.problem)
    }
}
