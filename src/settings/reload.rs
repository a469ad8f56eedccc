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

/// The setting's name in the file, and what takes its value over.
type LiveSetting = (&'static str, fn(&mut Settings, &Settings));

/// The settings that take effect while the gateway runs.
const LIVE: &[LiveSetting] = &[
    ("extra_host", |own, read| own.extra_hosts.clone_from(&read.extra_hosts)),
    (HOST, |own, read| own.hosts.clone_from(&read.hosts)),
    ("log_filter", |own, read| own.log_filter.clone_from(&read.log_filter)),
    ("notify", |own, read| own.notify.clone_from(&read.notify)),
    ("trusted_proxies", |own, read| own.trusted_proxies.clone_from(&read.trusted_proxies)),
    ("trusted_proxy_hops", |own, read| own.trusted_proxy_hops = read.trusted_proxy_hops),
    ("limits.body_seconds", |own, read| own.limits.body_seconds = read.limits.body_seconds),
    ("limits.connections_per_ip", |own, read| own.limits.connections_per_ip = read.limits.connections_per_ip),
    ("limits.drain_seconds", |own, read| own.limits.drain_seconds = read.limits.drain_seconds),
    ("limits.handshake_seconds", |own, read| own.limits.handshake_seconds = read.limits.handshake_seconds),
    ("limits.header_seconds", |own, read| own.limits.header_seconds = read.limits.header_seconds),
    ("limits.idle_seconds", |own, read| own.limits.idle_seconds = read.limits.idle_seconds),
    ("limits.logins_per_minute", |own, read| own.limits.logins_per_minute = read.limits.logins_per_minute),
    ("limits.registrations_per_minute", |own, read| {
        own.limits.registrations_per_minute = read.limits.registrations_per_minute;
    }),
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

    #[test]
    fn what_may_change_is_taken_over_and_the_rest_waits() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tenantd.yaml");
        let read = |text: &str| {
            fs::write(&file, text).expect("written");
            Settings::load(&Flags::new(), &Environment::default(), Some(&file)).expect("valid")
        };
        let first = read("host: a.example.com\nlimits:\n  idle_seconds: 7\n");
        let mut own = SettingsInForce::new(first.settings, first.written);
        assert!(own.update(&read("host: a.example.com\nlimits:\n  idle_seconds: 7\n")).is_empty());

        let second = "host: [a.example.com, b.example.com]\nlisten: 127.0.0.1:1\nlimits:\n  idle_seconds: 8\n  \
                      connections: 9\n";
        assert_eq!(own.update(&read(second)), ["host", "limits.idle_seconds"]);
        assert_eq!(own.waiting, ["limits.connections", "listen"]);
        assert_eq!((own.settings.hosts.len(), own.settings.limits.idle_seconds), (2, 8));
        assert_ne!(own.settings.limits.connections, 9);
        assert!(own.update(&read(second)).is_empty());
        assert_eq!(own.waiting, ["limits.connections", "listen"], "they wait on");

        assert!(own.update(&read("host: b.example.com\n")).contains(&"limits.idle_seconds"));
        assert_eq!(own.waiting, ["host"], "URLs are made of the first one");
        assert_eq!(own.settings.limits.idle_seconds, 60, "the default is back");
    }

    #[test]
    fn every_live_setting_is_a_setting() {
        let limits = serde_json::to_value(Settings::default().limits).expect("a map");
        for (name, _) in LIVE {
            let is_known = match name.strip_prefix("limits.") {
                Some(limit) => limits.get(limit).is_some(),
                None if *name == "notify" => true,
                None => crate::settings::SettingKey::ALL.iter().any(|key| key.as_str() == *name),
            };
            assert!(is_known, "{name}");
        }
    }
}
