//! Reading the settings again while the gateway runs: some take effect at once, the others wait
//! for a restart. Settings that are not valid as a whole change nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::{Environment, Error, Flags, LoadedSettings, Settings};

/// Where the settings of this process come from.
#[derive(Debug, Clone)]
pub struct SettingSources {
    pub(super) flags: Flags,
    pub(super) environment: Environment,
    pub(super) file: Option<PathBuf>,
}

impl SettingSources {
    /// Reads all settings again. Blocks.
    ///
    /// # Errors
    /// Those of [`Settings::load`].
    pub fn read(&self) -> Result<LoadedSettings, Error> {
        Settings::load(&self.flags, &self.environment, self.file.as_deref())
    }
}

/// The settings that some source gives, by their names in the file (`limits.idle_seconds`), as
/// written.
pub type WrittenSettings = BTreeMap<String, String>;

/// The settings in force, and what became of the last attempt to read them again.
#[derive(Debug, Clone)]
pub struct SettingsInForce {
    /// The effective settings.
    pub settings: Settings,
    written: WrittenSettings,
    /// The names of settings that were changed and wait for a restart.
    pub waiting: Vec<String>,
    /// Why the last attempt changed nothing.
    pub refusal: Option<String>,
}

/// Returns the names of the settings that take effect while the gateway runs. All others wait for a
/// restart.
pub fn live_settings() -> impl Iterator<Item = &'static str> {
    LIVE.iter().map(|(name, _)| *name)
}

/// The setting's name in the file, and what takes its value over.
type LiveSetting = (&'static str, fn(&mut Settings, &Settings));

/// The settings that take effect while the gateway runs.
const LIVE: &[LiveSetting] = &[
    ("audit_sinks", |own, read| own.audit_sinks.clone_from(&read.audit_sinks)),
    ("extra_host", |own, read| own.extra_hosts.clone_from(&read.extra_hosts)),
    (HOST, |own, read| own.hosts.clone_from(&read.hosts)),
    ("log_filter", |own, read| own.log_filter.clone_from(&read.log_filter)),
    ("notify", |own, read| own.notify.clone_from(&read.notify)),
    ("trusted_proxies", |own, read| own.trusted_proxies.clone_from(&read.trusted_proxies)),
    ("trusted_proxy_hops", |own, read| own.trusted_proxy_hops = read.trusted_proxy_hops),
    ("limits.answer_memory_mib", |own, read| own.limits.answer_memory_mib = read.limits.answer_memory_mib),
    ("limits.backend_memory_mib", |own, read| own.limits.backend_memory_mib = read.limits.backend_memory_mib),
    ("limits.body_seconds", |own, read| own.limits.body_seconds = read.limits.body_seconds),
    ("limits.call_memory_mib", |own, read| own.limits.call_memory_mib = read.limits.call_memory_mib),
    ("limits.connections", |own, read| own.limits.connections = read.limits.connections),
    ("limits.connections_per_ip", |own, read| own.limits.connections_per_ip = read.limits.connections_per_ip),
    ("limits.context_memory_mib", |own, read| own.limits.context_memory_mib = read.limits.context_memory_mib),
    ("limits.drain_seconds", |own, read| own.limits.drain_seconds = read.limits.drain_seconds),
    ("limits.handshake_seconds", |own, read| own.limits.handshake_seconds = read.limits.handshake_seconds),
    ("limits.header_seconds", |own, read| own.limits.header_seconds = read.limits.header_seconds),
    ("limits.idle_seconds", |own, read| own.limits.idle_seconds = read.limits.idle_seconds),
    ("limits.logins_per_minute", |own, read| own.limits.logins_per_minute = read.limits.logins_per_minute),
    ("limits.notify_hold_seconds", |own, read| {
        own.limits.notify_hold_seconds = read.limits.notify_hold_seconds;
    }),
    ("limits.registrations_per_minute", |own, read| {
        own.limits.registrations_per_minute = read.limits.registrations_per_minute;
    }),
    ("limits.request_memory_mib", |own, read| own.limits.request_memory_mib = read.limits.request_memory_mib),
    ("limits.tokens_per_minute", |own, read| own.limits.tokens_per_minute = read.limits.tokens_per_minute),
];
const HOST: &str = "host";

impl SettingsInForce {
    /// Returns the settings with which the gateway started.
    pub fn new(settings: Settings, written: WrittenSettings) -> Self {
        Self { settings, written, waiting: Vec::new(), refusal: None }
    }

    /// Takes over what may change while the gateway runs. Returns the names of those settings.
    pub fn update(&mut self, read: &LoadedSettings) -> Vec<&'static str> {
        self.refusal = None;
        let names: BTreeSet<String> = self.written.keys().chain(read.written.keys()).cloned().collect();
        let differs = |name: &String| self.written.get(name) != read.written.get(name);
        let (mut taken, mut waiting) = (Vec::new(), Vec::new());
        for name in names.into_iter().filter(differs) {
            match LIVE.iter().find(|(live, _)| *live == name) {
                Some(setting) if *setting.0 != *HOST || !self.moves_urls(&read.settings) => {
                    taken.push(setting)
                }
                _ => waiting.push(name),
            }
        }
        for (name, take_over) in &taken {
            take_over(&mut self.settings, &read.settings);
            match read.written.get(*name) {
                Some(value) => self.written.insert((*name).to_owned(), value.clone()),
                None => self.written.remove(*name),
            };
        }
        self.waiting = waiting;
        taken.iter().map(|(name, _)| *name).collect()
    }

    /// Whether other hosts would change the public URLs of tenants, which are made once.
    fn moves_urls(&self, read: &Settings) -> bool {
        self.settings.public_base != read.public_base
            || self.settings.public_base.is_none() && self.settings.hosts.first() != read.hosts.first()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::settings::SettingKey;
    use crate::settings::section::Sections;

    /// Reads a file.
    fn load(text: &str) -> LoadedSettings {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tenantd.yaml");
        fs::write(&file, text).expect("written");
        Settings::load(&Flags::new(), &Environment::default(), Some(&file)).expect("valid")
    }

    /// Returns the settings of a gateway that started with a file.
    fn started(text: &str) -> SettingsInForce {
        let LoadedSettings { settings, written, .. } = load(text);
        SettingsInForce::new(settings, written)
    }

    #[test]
    fn what_may_change_is_taken_over_and_the_rest_waits() {
        let mut own = started("host: a.example.com\nlimits:\n  idle_seconds: 7\n");
        assert!(own.update(&load("host: a.example.com\nlimits:\n  idle_seconds: 7\n")).is_empty());

        let second = "host: [a.example.com, b.example.com]\nlisten: 127.0.0.1:1\nlimits:\n  idle_seconds: 8\naudit_files: \
                      9\n";
        assert_eq!(own.update(&load(second)), ["host", "limits.idle_seconds"]);
        assert_eq!(own.waiting, ["audit_files", "listen"]);
        assert_eq!((own.settings.hosts.len(), own.settings.limits.idle_seconds), (2, 8));
        assert_ne!(own.settings.audit_files, 9);
        assert!(own.update(&load(second)).is_empty());
        assert_eq!(own.waiting, ["audit_files", "listen"], "they wait on");

        assert!(own.update(&load("host: b.example.com\n")).contains(&"limits.idle_seconds"));
        assert_eq!(own.waiting, ["host"], "URLs are made of the first one");
        assert_eq!(own.settings.limits.idle_seconds, 60, "the default is back");
    }

    /// Returns the names of all settings; of sections other than `limits`, the section's name.
    fn all_names() -> BTreeSet<String> {
        let keys = SettingKey::ALL.iter().map(|key| key.as_str().to_owned());
        let limits = Settings::default().limits.written().map(|(name, _)| name);
        let sections = Sections::NAMES.into_iter().filter(|name| *name != "limits").map(str::to_owned);
        keys.chain(limits).chain(sections).collect()
    }

    /// Returns the names in the first column of the table of live settings in the documents.
    fn documented_names() -> BTreeSet<String> {
        let page = include_str!("../../docs/configuration.md");
        let (_, table) = page.split_once("These settings take effect at once:\n").expect("the table");
        let rows = table.trim_start().lines().take_while(|line| line.starts_with('|')).skip(2);
        let first_column = rows.filter_map(|row| row.split('|').nth(1));
        first_column.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
    }

    #[test]
    fn every_setting_is_live_or_waits_as_the_documents_say() {
        let live: BTreeSet<String> = live_settings().map(str::to_owned).collect();
        assert_eq!(documented_names(), live);
        assert_eq!(live.len(), LIVE.len(), "each stands there once");
        let all = all_names();
        assert!(live.is_subset(&all), "{:?}", live.difference(&all));
        let waiting: Vec<&str> = all.difference(&live).map(String::as_str).collect();
        // A new setting has to be put here, or among those that are live.
        let expected = [
            "accept_tos",
            "acme_ca_root",
            "acme_contact",
            "acme_directory",
            "acme_eab_key_file",
            "acme_eab_kid",
            "acme_profile",
            "acme_staging",
            "admin",
            "admin_auth",
            "admin_host",
            "admin_tls",
            "allowed_origin",
            "audit",
            "audit_files",
            "backend_allow",
            "backend_only",
            "certs",
            "confine_tenants",
            "entra_authority",
            "hold_changes",
            "hsts",
            "listen",
            "listen_http",
            "log",
            "master_key_file",
            "node_name",
            "open_tenants",
            "otlp",
            "private_networks",
            "public_base",
            "ready_file",
            "require_auth",
            "secret_root",
            "state",
            "store",
            "store_file",
            "store_password_file",
            "store_stale",
            "tenant_listeners",
            "tenants",
            "tenants_from",
            "tls",
            "watch",
            "zip_hosts",
        ];
        assert_eq!(waiting, expected);
    }

    #[test]
    fn hosts_wait_for_a_restart_with_the_public_url() {
        let mut own = started("host: a.example.com\npublic_base: https://a.example.com\n");
        let moved = load("host: [a.example.com, b.example.com]\npublic_base: https://b.example.com\n");
        assert!(own.update(&moved).is_empty());
        assert_eq!(own.waiting, ["host", "public_base"]);
    }

    #[test]
    fn every_limit_is_taken_over() {
        let limits = Settings::default().limits.written().map(|(name, _)| name);
        for name in limits {
            let limit = name.strip_prefix("limits.").expect("a limit");
            let (mut own, read) = (started(""), load(&format!("limits:\n  {limit}: 77\n")));
            assert_eq!(own.update(&read), [name.as_str()], "limits are live");
            assert_eq!(own.settings.limits, read.settings.limits, "{name}");
            assert_ne!(own.settings.limits, Settings::default().limits, "{name}");
        }
    }
}
