//! The log: one subscriber for the process, on standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Installs the process's subscriber. `TENANTD_LOG_FILTER` (else `RUST_LOG`) filters; the default is `info`.
///
/// A second call changes nothing: tests run several gateways in one process.
pub fn init(format: LogFormat) {
    let builder = fmt().with_env_filter(filter()).with_writer(std::io::stderr);
    // The second initialisation of a process is refused by design; the first one serves all.
    let _already_there = match format {
        LogFormat::Text => {
            let colour = std::env::var_os("NO_COLOR").is_none()
                && std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(colour).with_target(false).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
}

fn filter() -> EnvFilter {
    let directives = ["TENANTD_LOG_FILTER", "RUST_LOG"].into_iter().find_map(|name| std::env::var(name).ok());
    let directives = directives.filter(|directives| !directives.trim().is_empty());
    // The transport's own lines about peers are noise at `info`.
    EnvFilter::new(directives.unwrap_or_else(|| "info,rmcp=warn,hyper=warn,rustls=error".to_owned()))
}
