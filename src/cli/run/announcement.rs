//! What the vendor's server prints from its start until it serves.

use std::net::SocketAddr;
use std::time::Duration;

use super::export::Export;
use super::start_log::StartLog;
use crate::cli::serve::Announcer;
use crate::gateway::{Addresses, Gateway, StartProgress, WarmUp};
use crate::spec::TenantSpec;

/// How long the last lines wait for the backend's context. The tenant serves meanwhile.
const WARM_UP_PATIENCE: Duration = Duration::from_secs(10);

/// The announcement of one start.
pub(super) struct Announcement<'a> {
    lines: &'a mut StartLog,
    is_zip: bool,
    config: String,
    has_login: bool,
    progress: Option<StartProgress>,
}

impl<'a> Announcement<'a> {
    pub(super) fn new(lines: &'a mut StartLog, export: &Export, spec: &TenantSpec) -> Self {
        Self {
            lines,
            is_zip: export.is_zip(),
            config: export.config_name(Some(&spec.dataset)),
            has_login: spec.access.login.is_some(),
            progress: None,
        }
    }

    fn print(&mut self, line: &str) {
        self.lines.print(line);
    }
}

impl Announcer for Announcement<'_> {
    fn on_bound(&mut self, gateway: &mut Gateway) {
        self.progress = Some(gateway.progress());
        let port = gateway.addresses().listen.first().map_or(0, SocketAddr::port);
        let login = if self.has_login { "with" } else { "without" };
        if self.is_zip {
            return self.print(&format!("Starting server {login} OAuth on port {port}..."));
        }
        self.print(&format!("Starting server {login} OAuth..."));
        self.print(&format!("Config: {}", self.config));
        self.print(&format!("Port: {port}"));
    }

    async fn on_ready(mut self, addresses: &Addresses) {
        if let Some(progress) = self.progress.take().filter(StartProgress::serves) {
            self.print("INFO:root:Starting semantic context warmup");
            match progress.warmed_up(WARM_UP_PATIENCE).await {
                WarmUp::Completed | WarmUp::Unneeded => {
                    self.print("INFO:root:Semantic context warmup completed");
                }
                WarmUp::Failed(why) => self.print(&format!(
                    "WARNING:root:Semantic context warmup failed: {why}; the server serves, and tries again"
                )),
                WarmUp::Pending => {
                    self.print("WARNING:root:Semantic context warmup takes long; the server serves meanwhile")
                }
            }
        }
        self.print(&format!("INFO:     Started server process [{}]", std::process::id()));
        self.print("INFO:     Waiting for application startup.");
        self.print("INFO:     Application startup complete.");
        for address in &addresses.listen {
            self.print(&format!("INFO:     Uvicorn running on http://{address} (Press CTRL+C to quit)"));
        }
    }
}
