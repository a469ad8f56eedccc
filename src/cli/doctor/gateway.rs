//! Whether a gateway runs and is ready.

use serde_json::Value;

use super::super::port_holder;
use super::contact::GatewayContact;
use super::patient::{Patient, PatientTenant};
use super::verdict::{DoctorVerdict, Examination};
use crate::telemetry::printable::printable;

const GATEWAY: Examination = Examination::Gateway;

/// Examines the process.
pub(super) fn examine(patient: &Patient) -> Vec<DoctorVerdict> {
    match &patient.gateway {
        GatewayContact::Running { admin, info } => {
            let place = format!("the gateway at {}", info.public_base);
            let version = env!("CARGO_PKG_VERSION");
            let mut verdicts = vec![match info.version == version {
                true => DoctorVerdict::ok(
                    GATEWAY,
                    "gateway-answers",
                    &place,
                    format!("tenantd {version} answers"),
                ),
                false => DoctorVerdict::warning(
                    GATEWAY,
                    "version-differs",
                    &place,
                    format!("tenantd {} answers, and this program is {version}", printable(&info.version)),
                )
                .meaning("the new program was installed, and the old one still runs")
                .advice("restart the gateway"),
            }];
            verdicts.extend(admin.readiness().ok().and_then(|detail| judge_readiness(&place, &detail)));
            verdicts.extend(admin.certificates().unwrap_or_default().iter().filter_map(|status| {
                let trouble = status.trouble.as_ref().filter(|_| !status.is_healthy())?;
                let found = format!("{} ({})", trouble, status.state);
                let verdict = DoctorVerdict::warning(
                    Examination::Certificate,
                    "certificate-trouble",
                    &status.name,
                    found,
                );
                Some(verdict.advice("`tenantd certs doctor` examines what prevents it"))
            }));
            verdicts
        }
        GatewayContact::Silent { why, was_asked } => vec![judge_silence(patient, why, *was_asked)],
    }
}

fn judge_readiness(place: &str, detail: &Value) -> Option<DoctorVerdict> {
    if detail.get("ready").and_then(Value::as_bool) != Some(false) {
        return None;
    }
    let is = |name: &str| detail.get(name).and_then(Value::as_bool).unwrap_or_default();
    let why = match () {
        () if is("draining") => "it is being stopped",
        () if !is("tenants_read") => "it has not read its tenants yet",
        () => "a part of it does not run, or its only tenant is not served",
    };
    let verdict =
        DoctorVerdict::fault(GATEWAY, "gateway-not-ready", place, format!("it is not ready: {why}"));
    Some(verdict.meaning("load balancers send it nobody").advice("read its log; see the tenants below"))
}

fn judge_silence(patient: &Patient, why: &str, was_asked: bool) -> DoctorVerdict {
    let ports: Vec<u16> = patient.direct_addresses().iter().map(|address| address.port()).collect();
    let taken = ports.iter().find(|port| port_holder::is_taken(**port));
    let place = "the gateway";
    match taken {
        // Who has the port is said with the ports.
        Some(_) => DoctorVerdict::not_checked(GATEWAY, "gateway-silent", place, why),
        // Why it would not start is said with its files.
        None if patient.is_one_tenant && patient.tenants.iter().any(PatientTenant::is_refused) => {
            let why = "it does not run, and would not start with what is said of its files";
            DoctorVerdict::not_checked(GATEWAY, "gateway-silent", place, why)
        }
        None if !was_asked => DoctorVerdict::not_checked(GATEWAY, "gateway-silent", place, why),
        None => {
            let listed = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
            DoctorVerdict::fault(
                GATEWAY,
                "gateway-not-running",
                place,
                format!("{why}; and nobody listens on its port {listed} of this machine"),
            )
            .meaning(
                "no client is served. It was not started, it ended with the terminal or the machine, or it \
                 refused to start",
            )
            .advice(
                "start it as a service, which outlives the terminal and a reboot (`systemctl enable --now`, \
                 `docker compose up -d`, `kubectl rollout status`), and read why it ended (`journalctl -u \
                 tenantd`, `docker logs`, `kubectl logs --previous`)",
            )
        }
    }
}
