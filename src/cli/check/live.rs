//! `check --live`: calls the backend of every tenant that would be served, as `serve` would, and
//! adds the results as findings.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::{StreamExt, stream};
use tokio::runtime;

use super::{CheckReport, CheckedTenant};
use crate::backend::{self, AddressRules, Pool};
use crate::base::clock::SystemClock;
use crate::base::diagnostic::Severity;
use crate::bundle::LoadContext;
use crate::telemetry::metrics::Metrics;

/// The number of backends called concurrently.
const AT_ONCE: usize = 8;

/// Calls the backends, each call within `timeout`.
///
/// # Errors
/// The runtime or the HTTP client cannot be created.
pub(super) fn probe(
    verdict: &mut CheckReport,
    context: &LoadContext,
    timeout: Duration,
) -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    runtime.block_on(async {
        let pool = pool(context)?;
        let good = verdict.tenants.iter_mut().filter(|tenant| tenant.spec.is_some());
        let probes = good.map(|tenant| one(&pool, tenant, timeout));
        stream::iter(probes).for_each_concurrent(AT_ONCE, |probe| probe).await;
        Ok(())
    })
}

/// Creates the pool that `serve` uses: the same addresses are forbidden, the same CAs trusted.
fn pool(context: &LoadContext) -> anyhow::Result<Pool> {
    let pool =
        Pool::new(AddressRules::from_context(context), SystemClock::shared(), Arc::new(Metrics::new()));
    pool.context("the client for tenants' backends cannot be created")
}

async fn one(pool: &Pool, tenant: &mut CheckedTenant, timeout: Duration) {
    let Some(spec) = &tenant.spec else { return };
    let seen = backend::probe(pool, spec, timeout).await;
    tenant.has_answered = Some(seen.iter().all(|finding| finding.severity != Severity::Error));
    seen.into_iter().for_each(|finding| tenant.findings.push(finding));
}
