//! The log: one subscriber for the process.

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Installs the process's subscriber. `TENANTD_LOG` (else `RUST_LOG`) filters; the default is `info`.
pub fn init(_format: LogFormat) {
    unimplemented!("owner: tenants+admin+telemetry")
}
