//! The settings that may change while the gateway runs, as one snapshot.

use super::trusted_proxies::TrustedProxies;
use crate::routing::GatewayHosts;
use crate::settings::{Limits, Settings};

/// What requests and connections look up anew each time.
pub(super) struct LiveSettings {
    pub(super) limits: Limits,
    pub(super) hosts: GatewayHosts,
    /// No name is configured, and all are answered: the page shows the one that was asked for.
    pub(super) has_no_known_name: bool,
    pub(super) trusted_proxies: TrustedProxies,
}

impl LiveSettings {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            limits: settings.limits.clone(),
            hosts: settings.gateway_hosts(),
            has_no_known_name: settings.has_no_known_name(),
            trusted_proxies: TrustedProxies::new(settings),
        }
    }
}
