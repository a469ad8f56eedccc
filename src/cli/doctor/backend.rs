//! The tenants' backends, as `check --live` calls them.

use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::patient::Patient;
use super::verdict::{DoctorVerdict, Examination};
use crate::backend::{self, Pool};
use crate::base::diagnostic::{Diagnostic, Severity};

const BACKEND: Examination = Examination::Backend;
const PATIENCE: Duration = Duration::from_secs(12);
const AT_ONCE: usize = 8;
/// The tenants whose backends are called; `check --live` calls all.
const MAX_TENANTS: usize = 16;

/// Calls the backends.
pub(super) async fn examine(patient: &Patient, pool: &Pool) -> Vec<DoctorVerdict> {
    let known = patient.tenants.iter().filter_map(|tenant| Some((tenant, tenant.spec.as_ref()?)));
    let known: Vec<_> = known.collect();
    let mut verdicts = Vec::new();
    if known.is_empty() {
        let why = "no tenant's files can be read, so its URLs and keys are not known";
        verdicts.push(DoctorVerdict::not_checked(BACKEND, "backend-unknown", "the backend", why));
    }
    if known.len() > MAX_TENANTS {
        let why = format!("{} more backends; `tenantd check --live` calls all", known.len() - MAX_TENANTS);
        verdicts.push(DoctorVerdict::not_checked(BACKEND, "backend-unknown", "other tenants", why));
    }
    let probes = known.into_iter().take(MAX_TENANTS).map(async |(tenant, spec)| {
        let findings = backend::probe(pool, spec, PATIENCE).await;
        findings.iter().map(|finding| judge(&tenant.name, finding)).collect::<Vec<_>>()
    });
    let found: Vec<Vec<DoctorVerdict>> = stream::iter(probes).buffered(AT_ONCE).collect().await;
    verdicts.extend(found.into_iter().flatten());
    verdicts
}

fn judge(tenant: &str, finding: &Diagnostic) -> DoctorVerdict {
    match finding.severity {
        Severity::Error => DoctorVerdict::fault(BACKEND, finding.code, tenant, finding.message.clone())
            .meaning("calls of this tool fail, and clients are told so")
            .advice(finding.help.clone().unwrap_or_default()),
        Severity::Warning | Severity::Notice => {
            DoctorVerdict::ok(BACKEND, finding.code, tenant, finding.message.clone())
        }
    }
}
