//! The OpenTelemetry receiver: the `otlp:` section of the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::base::diagnostic::{Diagnostic, Report};
use crate::telemetry::otlp::{INSTANCE_ID, OtlpConfig, TraceConfig};

/// What is sent to an OpenTelemetry receiver. Without an endpoint, nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpSettings {
    /// The base URL of the receiver, to which `/v1/traces`, `/v1/logs` and `/v1/metrics` are
    /// appended.
    pub endpoint: Option<String>,
    /// The file with headers for the receiver, one `name: value` on a line.
    pub headers_file: Option<PathBuf>,
    /// The share of calls that is traced, from 0 (which sends no traces) to 1.
    pub traces: f64,
    /// Whether the lines of the log are sent.
    pub logs: bool,
    /// Whether the metrics are sent.
    pub metrics: bool,
    /// How often metrics are sent.
    pub metrics_interval_seconds: u64,
    /// Attributes of all that is sent, besides the program's name, version and instance.
    pub resource: BTreeMap<String, String>,
    /// Whether the callers' decision to record a trace counts in place of `traces`.
    pub trust_sampled: bool,
    /// Whether spans name the addresses of clients.
    pub client_address: bool,
}

impl Default for OtlpSettings {
    fn default() -> Self {
        Self {
            endpoint: None,
            headers_file: None,
            traces: 1.0,
            logs: false,
            metrics: false,
            metrics_interval_seconds: 60,
            resource: BTreeMap::new(),
            trust_sampled: false,
            client_address: false,
        }
    }
}

impl OtlpSettings {
    /// Returns the settings of this section by their names in the file, defaults included.
    pub(super) fn written(&self) -> impl Iterator<Item = (String, String)> + use<> {
        let section = serde_json::to_value(self).expect("the section is plain data");
        let section = section.as_object().cloned().unwrap_or_default();
        section.into_iter().map(|(name, value)| (format!("otlp.{name}"), value.to_string()))
    }

    /// Reports what cannot be used, and reads the path as relative to the configuration's folder.
    pub(super) fn validate(mut self, file: Option<&Path>, report: &mut Report) -> Self {
        let is_url = |text: &String| {
            let url = Url::parse(text);
            url.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.query().is_none())
        };
        if self.endpoint.as_ref().is_some_and(|endpoint| !is_url(endpoint)) {
            let message = "`otlp.endpoint` is not an http or https URL without a query";
            let help = "write the base of the receiver's URLs, e.g. http://127.0.0.1:4318";
            report.push(Diagnostic::error("otlp-endpoint", message).help(help));
        }
        if !(0.0..=1.0).contains(&self.traces) {
            let message = format!("`otlp.traces` is {}, which is no share of calls", self.traces);
            report.push(Diagnostic::error("otlp-traces", message).help("write a number from 0 to 1"));
        }
        if self.metrics_interval_seconds == 0 {
            let message = "`otlp.metrics_interval_seconds` is 0";
            let help = "write the seconds between two messages, e.g. 60; `metrics: false` sends none";
            report.push(Diagnostic::error("otlp-interval", message).help(help));
        }
        let folder = file.and_then(Path::parent);
        self.headers_file = self.headers_file.map(|path| folder.map_or(path.clone(), |it| it.join(path)));
        self
    }

    /// Returns what is exported, if anything is, by the gateway of this name, if it has one.
    pub fn to_config(&self, node: Option<String>) -> Option<OtlpConfig> {
        let mut resource = self.resource.clone();
        if let Some(node) = node {
            resource.entry(INSTANCE_ID.to_owned()).or_insert(node);
        }
        let traces = TraceConfig {
            sample_ratio: self.traces,
            trust_sampled: self.trust_sampled,
            client_address: self.client_address,
        };
        let is_traced = self.traces > 0.0 || self.trust_sampled;
        Some(OtlpConfig {
            endpoint: self.endpoint.clone()?,
            headers_file: self.headers_file.clone(),
            resource,
            traces: is_traced.then_some(traces),
            logs: self.logs,
            metrics_interval: self.metrics.then(|| Duration::from_secs(self.metrics_interval_seconds)),
        })
    }
}
