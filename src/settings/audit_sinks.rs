//! The receivers of the audit beside the file: the `audit_sinks:` section of the file.

use std::net::Ipv6Addr;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};
use serde_saphyr::Spanned;
use url::Url;

use super::file_place::FilePlace;
use super::key::find_closest;
use super::notify::{is_loopback, parse_webhook_url};
use super::parse;
use crate::base::diagnostic::{Diagnostic, Location, Report};
use crate::base::digest::Digest;
use crate::base::tls_client::ClientIdentity;
use crate::telemetry::audit::sinks::{
    ChannelConfig, Facility, HostPort, HttpConfig, SinkConfig, SyslogAddress, SyslogConfig,
};

/// More are a mistake; each has a task and a spool of its own.
const MAX_SINKS: usize = 8;
const DEFAULT_SPOOL_BYTES: u64 = 256 << 20;
const MIN_SPOOL_BYTES: u64 = 1 << 20;
/// The ports of RFC 5426 and RFC 5425.
const UDP_PORT: u16 = 514;
const TLS_PORT: u16 = 6514;
/// The longest APP-NAME (RFC 5424 section 6.2.5).
const MAX_APP_NAME: usize = 48;

/// A sink as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenSink {
    name: Option<String>,
    syslog: Option<String>,
    facility: Option<String>,
    app_name: Option<String>,
    certificate_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    http: Option<String>,
    token_file: Option<PathBuf>,
    secret_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    spool: Option<String>,
}

/// Returns the sinks that are valid; what is wrong with the others goes into the report.
pub(super) fn validate(
    written: Vec<Spanned<WrittenSink>>,
    place: &FilePlace,
    report: &mut Report,
) -> Vec<SinkConfig> {
    let mut sinks: Vec<SinkConfig> = Vec::new();
    for (index, sink) in written.into_iter().enumerate() {
        // The line may hold a URL that is a secret.
        let at = Location { excerpt: None, ..place.locate(sink.referenced) };
        let mut validation = SinkValidation { place, findings: Vec::new() };
        let sink = validation.validate(sink.value, index + 1);
        match sink {
            Some(sink) if sinks.iter().any(|other| other.name == sink.name) => {
                let message = format!("two sinks of `audit_sinks` are called {:?}", sink.name);
                validation.reject::<()>(message, "give each its own `name`");
            }
            Some(sink) => sinks.push(sink),
            None => {}
        }
        validation.findings.into_iter().for_each(|finding| report.push(finding.at(at.clone())));
    }
    if sinks.len() > MAX_SINKS {
        let message = format!("`audit_sinks` has {} sinks; at most {MAX_SINKS} are allowed", sinks.len());
        let help = "have one receiver pass the lines on to the others";
        report.push(Diagnostic::error("audit-sink-invalid", message).help(help));
    }
    sinks
}

/// Returns the section as something to compare, if there is one. It shows nothing of its URLs.
pub(super) fn written(sinks: &[SinkConfig]) -> Option<(String, String)> {
    let text = |sink: &SinkConfig| match &sink.channel {
        ChannelConfig::Http(http) => format!("{sink:?} {}", http.url),
        ChannelConfig::Syslog(_) => format!("{sink:?}"),
    };
    let all: String = sinks.iter().map(text).collect();
    let value = format!("{} sinks ({})", sinks.len(), Digest::of(all.as_bytes()).short());
    (!sinks.is_empty()).then(|| ("audit_sinks".to_owned(), value))
}

/// Returns a sink by the names of the file, without what may be secret in a URL.
pub(super) fn describe(sink: &SinkConfig) -> Value {
    let mut told = json!({ "name": sink.name, "spool_bytes": sink.spool_bytes });
    match &sink.channel {
        ChannelConfig::Syslog(syslog) => {
            told["syslog"] = json!(syslog.address.to_string());
            told["facility"] = json!(syslog.facility.name);
            told["app_name"] = json!(syslog.app_name);
            if let SyslogAddress::Tls { ca_file, identity, .. } = &syslog.address {
                told["ca_file"] = json!(ca_file);
                told["certificate_file"] =
                    json!(identity.as_ref().map(|identity| &identity.certificate_file));
                told["key_file"] = json!(identity.as_ref().map(|identity| &identity.key_file));
            }
        }
        ChannelConfig::Http(http) => {
            // The path may be all that keeps others from using it.
            told["http"] = json!(http.url.origin().ascii_serialization());
            told["token_file"] = json!(http.token_file);
            told["secret_file"] = json!(http.secret_file);
            told["ca_file"] = json!(http.ca_file);
        }
    }
    told
}

/// The validation of one sink.
struct SinkValidation<'a> {
    place: &'a FilePlace,
    findings: Vec<Diagnostic>,
}

impl SinkValidation<'_> {
    fn validate(&mut self, written: WrittenSink, number: usize) -> Option<SinkConfig> {
        let name = match &written.name {
            Some(name) => self.name(name),
            None => Some(format!("sink-{number}")),
        };
        let spool_bytes = self.spool(written.spool.as_deref());
        let channel = match (&written.syslog, &written.http) {
            (Some(address), None) => self.syslog(address, &written).map(ChannelConfig::Syslog),
            (None, Some(url)) => self.http(url, &written).map(ChannelConfig::Http),
            (None, None) => self.reject(
                "a sink of `audit_sinks` has no receiver",
                "write `syslog: tls://siem.example.com:6514` or `http: https://logs.example.com/audit`",
            ),
            (Some(_), Some(_)) => self.reject(
                "a sink of `audit_sinks` has two receivers",
                "write one sink for each of `syslog` and `http`",
            ),
        };
        Some(SinkConfig { name: name?, channel: channel?, spool_bytes: spool_bytes? })
    }

    /// The name is that of a folder, too.
    fn name(&mut self, name: &str) -> Option<String> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if !name.is_empty() && name.len() <= 40 && name.chars().all(is_plain) {
            return Some(name.to_owned());
        }
        self.reject(
            format!("`name` of a sink of `audit_sinks` is {name:?}"),
            "write at most 40 letters, digits, dashes and underscores",
        )
    }

    fn spool(&mut self, written: Option<&str>) -> Option<u64> {
        let Some(text) = written else { return Some(DEFAULT_SPOOL_BYTES) };
        match parse::size_or_off(text) {
            Ok(Some(bytes)) if bytes >= MIN_SPOOL_BYTES => Some(bytes),
            _ => self.reject(
                format!("`spool` of a sink of `audit_sinks` is {text:?}"),
                "write how much may wait on the disk, at least `1MB`, like `256MB` or `2GB`",
            ),
        }
    }

    fn syslog(&mut self, address: &str, written: &WrittenSink) -> Option<SyslogConfig> {
        if written.token_file.is_some() || written.secret_file.is_some() {
            return self.reject(
                "a syslog sink of `audit_sinks` has a field of HTTP sinks",
                "remove `token_file` and `secret_file`: syslog has neither",
            );
        }
        let address = self.syslog_address(address, written)?;
        let is_tls = matches!(address, SyslogAddress::Tls { .. });
        if !is_tls
            && (written.ca_file.is_some() || written.certificate_file.is_some() || written.key_file.is_some())
        {
            return self.reject(
                "a syslog sink of `audit_sinks` has files for TLS, and an address without TLS",
                "write `tls://` in place of `tcp://` or `udp://`, or remove `ca_file`, `certificate_file` and `key_file`",
            );
        }
        self.warn_of_plain(&address);
        let facility = self.facility(written.facility.as_deref())?;
        let app_name = self.app_name(written.app_name.as_deref())?;
        Some(SyslogConfig { address, facility, app_name })
    }

    fn syslog_address(&mut self, text: &str, written: &WrittenSink) -> Option<SyslogAddress> {
        const HELP: &str = "write it like `tls://siem.example.com:6514`, `tcp://127.0.0.1:601`, \
                            `udp://127.0.0.1:514` or `unix:/run/log-receiver.sock`";
        let wrong = format!("`syslog` of a sink of `audit_sinks` is {text:?}");
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
            return match path.is_absolute() {
                true => Some(SyslogAddress::Unix(path)),
                false => self.reject(wrong, HELP),
            };
        }
        let Ok(url) = Url::parse(text) else { return self.reject(wrong, HELP) };
        let is_plain = url.username().is_empty()
            && url.password().is_none()
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none();
        let default_port = match url.scheme() {
            "udp" => Some(UDP_PORT),
            "tls" => Some(TLS_PORT),
            _ => None,
        };
        let (Some(host), Some(port), true) = (find_host(&url), url.port().or(default_port), is_plain) else {
            return self.reject(wrong, HELP);
        };
        let receiver = HostPort { host, port };
        match url.scheme() {
            "udp" => Some(SyslogAddress::Udp(receiver)),
            "tcp" => Some(SyslogAddress::Tcp(receiver)),
            "tls" => {
                let ca_file = self.resolve(written.ca_file.as_ref());
                Some(SyslogAddress::Tls { receiver, ca_file, identity: self.identity(written).ok()? })
            }
            _ => self.reject(wrong, HELP),
        }
    }

    /// Returns what the gateway proves itself by, if anything.
    fn identity(&mut self, written: &WrittenSink) -> Result<Option<ClientIdentity>, ()> {
        let files =
            (self.resolve(written.certificate_file.as_ref()), self.resolve(written.key_file.as_ref()));
        match files {
            (None, None) => Ok(None),
            (Some(certificate_file), Some(key_file)) => {
                Ok(Some(ClientIdentity { certificate_file, key_file }))
            }
            _ => {
                let rejected = self.reject(
                    "a sink of `audit_sinks` has one of `certificate_file` and `key_file`",
                    "write both, or none if the receiver asks for no certificate",
                );
                rejected.ok_or(())
            }
        }
    }

    fn http(&mut self, text: &str, written: &WrittenSink) -> Option<HttpConfig> {
        let is_syslog_field = written.facility.is_some()
            || written.app_name.is_some()
            || written.certificate_file.is_some()
            || written.key_file.is_some();
        if is_syslog_field {
            return self.reject(
                "an HTTP sink of `audit_sinks` has a field of syslog sinks",
                "remove `facility`, `app_name`, `certificate_file` and `key_file`",
            );
        }
        let Some(url) = parse_webhook_url(text) else {
            // The text is not repeated: it may be a secret.
            return self.reject(
                "`http` of a sink of `audit_sinks` is not an http or https URL without a user name",
                "write it like `https://logs.example.com/audit`; a token belongs into a file that `token_file` names",
            );
        };
        if url.scheme() == "http" && !is_loopback(&url) {
            self.warn_plain(
                url.host_str().unwrap_or_default(),
                "write an https URL, if the receiver has one",
            );
        }
        Some(HttpConfig {
            url,
            token_file: self.resolve(written.token_file.as_ref()),
            secret_file: self.resolve(written.secret_file.as_ref()),
            ca_file: self.resolve(written.ca_file.as_ref()),
        })
    }

    fn facility(&mut self, written: Option<&str>) -> Option<Facility> {
        let Some(name) = written else { return Some(Facility::AUTHPRIV) };
        let names = || Facility::ALL.map(|facility| facility.name);
        match Facility::from_name(name) {
            Some(facility) => Some(facility),
            None => self.reject(
                format!("`facility` of a sink of `audit_sinks` is {name:?}"),
                match find_closest(name, names()) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("write one of {}", names().join(", ")),
                },
            ),
        }
    }

    fn app_name(&mut self, written: Option<&str>) -> Option<String> {
        let name = written.unwrap_or("tenantd");
        let is_printable = name.bytes().all(|byte| byte.is_ascii_graphic());
        if is_printable && !name.is_empty() && name.len() <= MAX_APP_NAME {
            return Some(name.to_owned());
        }
        self.reject(
            format!("`app_name` of a sink of `audit_sinks` is {name:?}"),
            "write at most 48 ASCII characters without spaces",
        )
    }

    fn warn_of_plain(&mut self, address: &SyslogAddress) {
        if let SyslogAddress::Udp(receiver) | SyslogAddress::Tcp(receiver) = address {
            let ip = receiver.host.parse::<std::net::IpAddr>();
            if receiver.host != "localhost" && !ip.is_ok_and(|ip| ip.is_loopback()) {
                self.warn_plain(&receiver.host, "write `tls://`, if the receiver speaks TLS (RFC 5425)");
            }
        }
    }

    fn warn_plain(&mut self, host: &str, help: &str) {
        let message = format!("lines of the audit go to {host} unencrypted, with people's names");
        self.findings.push(Diagnostic::warning("audit-sink-plain", message).help(help));
    }

    fn resolve(&self, file: Option<&PathBuf>) -> Option<PathBuf> {
        file.map(|file| self.place.resolve(file))
    }

    fn reject<T>(&mut self, what: impl Into<String>, help: impl Into<String>) -> Option<T> {
        self.findings.push(Diagnostic::error("audit-sink-invalid", what).help(help));
        None
    }
}

/// Returns the host of a URL without the brackets of IPv6.
fn find_host(url: &Url) -> Option<String> {
    let host = url.host_str().filter(|host| !host.is_empty())?;
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(|ip| ip.to_string()),
        None => Some(host.to_ascii_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::settings::{Environment, Flags, Settings};

    /// Reads settings; returns the sinks, or all messages.
    fn read(text: &str) -> Result<Vec<SinkConfig>, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tenantd.yaml");
        std::fs::write(&file, text).expect("written");
        let loaded = Settings::load(&Flags::new(), &Environment::default(), Some(&file));
        loaded
            .map(|loaded| loaded.settings.audit_sinks)
            .map_err(|error| error.report.iter().map(ToString::to_string).collect())
    }

    fn address(text: &str) -> Result<String, String> {
        let sinks = read(&format!("audit_sinks: [{{syslog: '{text}'}}]\n"))?;
        Ok(sinks[0].channel.to_string())
    }

    #[test]
    fn receivers_are_addresses_with_the_ports_of_the_rfcs() {
        for (written, meant) in [
            ("udp://log.example.com", "udp://log.example.com:514"),
            ("udp://[::1]:10514", "udp://[::1]:10514"),
            ("tcp://127.0.0.1:601", "tcp://127.0.0.1:601"),
            ("tls://Siem.example.com", "tls://siem.example.com:6514"),
            ("unix:/dev/log", "unix:/dev/log"),
            ("unix:///dev/log", "unix:/dev/log"),
        ] {
            assert_eq!(address(written).as_deref(), Ok(meant), "{written}");
        }
        for bad in
            ["tcp://127.0.0.1", "unix:log", "log.example.com", "http://x", "tls://", "udp://x/y", "tls://a@x"]
        {
            let message = address(bad).expect_err(bad);
            assert!(message.contains("`syslog` of a sink"), "{bad}: {message}");
        }
    }

    #[test]
    fn a_sink_has_defaults_and_paths_start_at_the_file() {
        let text = "audit_sinks:\n  - name: siem\n    syslog: tls://siem.example.com\n    ca_file: ca.pem\n    \
                    certificate_file: own.pem\n    key_file: own.key\n    facility: local4\n  - http: \
                    https://logs.example.com/x\n    token_file: token\n    spool: 2MB\n";
        let sinks = read(text).expect("valid");
        assert_eq!((&*sinks[0].name, &*sinks[1].name), ("siem", "sink-2"));
        assert_eq!((sinks[0].spool_bytes, sinks[1].spool_bytes), (DEFAULT_SPOOL_BYTES, 2 << 20));
        let ChannelConfig::Syslog(syslog) = &sinks[0].channel else { panic!("syslog") };
        assert_eq!((syslog.facility.number, &*syslog.app_name), (20, "tenantd"));
        let SyslogAddress::Tls { ca_file: Some(ca), identity: Some(identity), .. } = &syslog.address else {
            panic!("TLS with both")
        };
        assert!(ca.is_absolute() && identity.key_file.ends_with("own.key"));
        let told = describe(&sinks[1]);
        assert_eq!(
            (&told["http"], &told["spool_bytes"]),
            (&"https://logs.example.com".into(), &(2 << 20).into())
        );
        let ChannelConfig::Http(http) = &sinks[1].channel else { panic!("HTTP") };
        assert!(http.token_file.as_deref().is_some_and(Path::is_absolute));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_to_write() {
        for (written, said) in [
            ("{name: a}", "has no receiver"),
            ("{syslog: 'udp://127.0.0.1', http: 'http://127.0.0.1/'}", "has two receivers"),
            ("{syslog: 'udp://127.0.0.1', token_file: t}", "field of HTTP sinks"),
            ("{syslog: 'tcp://127.0.0.1:1', ca_file: t}", "address without TLS"),
            ("{syslog: 'tls://x', key_file: t}", "write both"),
            ("{syslog: 'udp://127.0.0.1', facility: local9}", "did you mean"),
            ("{syslog: 'udp://127.0.0.1', app_name: 'a b'}", "without spaces"),
            ("{syslog: 'udp://127.0.0.1', spool: 1KB}", "at least `1MB`"),
            ("{syslog: 'udp://127.0.0.1', spool: 'off'}", "at least `1MB`"),
            ("{syslog: 'udp://127.0.0.1', name: '../x'}", "dashes and underscores"),
            ("{http: 'ftp://x'}", "not an http or https URL"),
            ("{http: 'http://127.0.0.1/', facility: user}", "field of syslog sinks"),
            ("{syslog: 'udp://127.0.0.1', spol: 1MB}", "spol"),
            ("{name: a, syslog: 'udp://127.0.0.1'}, {name: a, syslog: 'udp://127.0.0.1'}", "are called"),
        ] {
            let message = read(&format!("audit_sinks: [{written}]\n")).expect_err(written);
            assert!(message.contains(said), "{written}: {message}");
        }
        let secret = read("audit_sinks: [{http: 'ftp://x/s3cret-path'}]\n").expect_err("refused");
        assert!(!secret.contains("s3cret"), "{secret}");
    }

    #[test]
    fn lines_that_leave_the_machine_unencrypted_are_warned_of() {
        let warnings = |text: &str| {
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join("tenantd.yaml");
            std::fs::write(&file, text).expect("written");
            let loaded = Settings::load(&Flags::new(), &Environment::default(), Some(&file)).expect("valid");
            loaded.warnings.iter().filter(|finding| finding.code == "audit-sink-plain").count()
        };
        assert_eq!(
            warnings("audit_sinks: [{syslog: 'udp://log.example'}, {http: 'http://log.example/'}]\n"),
            2
        );
        assert_eq!(
            warnings("audit_sinks: [{syslog: 'tls://log.example'}, {http: 'http://127.0.0.1/'}]\n"),
            0
        );
    }
}
