//! What state the tenants are in, and what is wrong with their files.

use super::patient::{FoundInFiles, Patient, PatientTenant};
use super::verdict::{DoctorVerdict, Examination};
use crate::tenants::status::{TenantState, TenantStatus};

const TENANT: Examination = Examination::Tenant;
/// The tenants whose troubles are told one by one.
const MAX_TENANTS: usize = 20;

/// Examines files and states.
pub(super) fn examine(patient: &Patient) -> Vec<DoctorVerdict> {
    let mut verdicts = Vec::new();
    let mut troubled = 0;
    for tenant in &patient.tenants {
        let found = examine_tenant(tenant);
        let is_told = patient.is_one_tenant || (!found.is_empty() && troubled < MAX_TENANTS);
        troubled += usize::from(!found.is_empty());
        if is_told {
            verdicts.extend(match found.is_empty() {
                true => vec![DoctorVerdict::ok(TENANT, "tenant-good", &tenant.name, describe_good(tenant))],
                false => found,
            });
        }
    }
    if !patient.is_one_tenant {
        let (all, more) = (patient.tenants.len(), troubled.saturating_sub(MAX_TENANTS));
        let more = if more > 0 { format!("; {more} of them are not listed here") } else { String::new() };
        let found = format!("{all} tenants, {troubled} with something to say{more}");
        verdicts.push(DoctorVerdict::ok(TENANT, "tenants-counted", "all tenants", found));
    }
    verdicts.extend(patient.export.as_deref().and_then(examine_script));
    verdicts
}

fn describe_good(tenant: &PatientTenant) -> String {
    let url = tenant.connector.as_ref().map(|url| format!(", {url}")).unwrap_or_default();
    match &tenant.status {
        Some(status) => format!("{}{url}", status.state.as_str()),
        None => format!("its files would be served{url}"),
    }
}

fn examine_tenant(tenant: &PatientTenant) -> Vec<DoctorVerdict> {
    let of_state = tenant.status.as_ref().and_then(|status| judge_state(&tenant.name, status));
    of_state
        .into_iter()
        .chain(tenant.findings.iter().filter_map(|found| judge_finding(tenant, found)))
        .collect()
}

fn judge_state(name: &str, status: &TenantStatus) -> Option<DoctorVerdict> {
    let verdict = match status.state {
        _ if status.closed => {
            DoctorVerdict::fault(TENANT, "tenant-closed", name, "it is closed: its last change was refused")
                .meaning("every call gets 503, since the change may concern who may call")
                .advice("repair the file named below; it opens by itself")
        }
        TenantState::Rejected => {
            DoctorVerdict::fault(TENANT, "tenant-rejected", name, "its files are refused")
                .meaning("clients get 404")
                .advice("repair what is named below; it is read again by itself")
        }
        TenantState::Disabled if status.paused => {
            DoctorVerdict::fault(TENANT, "tenant-paused", name, "an operator paused it")
                .meaning("clients get 404")
                .advice(format!("tenantd tenants resume {name}"))
        }
        TenantState::Disabled => {
            DoctorVerdict::fault(TENANT, "tenant-disabled", name, "its file says `enabled: false`")
                .meaning("clients get 404")
                .advice("write `enabled: true`, or remove the line")
        }
        TenantState::Stale => {
            DoctorVerdict::warning(TENANT, "tenant-stale", name, "its last change was refused")
                .meaning("the last good version goes on serving, and the edit changes nothing")
                .advice("repair what is named below")
        }
        TenantState::Held => {
            DoctorVerdict::warning(TENANT, "tenant-held", name, "a change of its tools waits for you")
                .meaning("the last approved version goes on serving")
                .advice(format!(
                    "read `tenantd tenants diff {name}`, then run `tenantd tenants approve {name}`"
                ))
        }
        TenantState::Degraded => {
            let trouble = status.trouble.as_deref().unwrap_or("its backend or its login does not work");
            DoctorVerdict::warning(TENANT, "tenant-degraded", name, trouble)
                .meaning("it serves, but calls or logins fail")
                .advice("see backend and login below")
        }
        TenantState::Loading => {
            DoctorVerdict::warning(TENANT, "tenant-loading", name, "it has not been read yet")
                .advice("ask again in a moment")
        }
        TenantState::Serving => return None,
    };
    Some(verdict)
}

fn judge_finding(tenant: &PatientTenant, finding: &FoundInFiles) -> Option<DoctorVerdict> {
    if finding.is_notice {
        return None;
    }
    let place = match finding.place.is_empty() {
        true => tenant.name.clone(),
        false => finding.place.clone(),
    };
    let verdict = match finding.is_error {
        true => DoctorVerdict::fault(TENANT, finding.code.clone(), place, finding.message.clone()),
        false => DoctorVerdict::warning(TENANT, finding.code.clone(), place, finding.message.clone()),
    };
    Some(match &finding.help {
        Some(help) => verdict.advice(help.clone()),
        None => verdict,
    })
}

/// The vendor's start script, which nothing here needs.
fn examine_script(export: &std::path::Path) -> Option<DoctorVerdict> {
    use std::os::unix::fs::PermissionsExt as _;
    let script = export.join("mcp/run.sh");
    let mode = std::fs::metadata(&script).ok()?.permissions().mode();
    (mode & 0o111 == 0).then(|| {
        DoctorVerdict::warning(
            TENANT,
            "script-not-executable",
            script.display().to_string(),
            "the script may not be executed",
        )
        .meaning("`./mcp/run.sh` says \"Permission denied\"")
        .advice(format!("nothing here needs it: `tenantd run {}` serves the export", export.display()))
    })
}
