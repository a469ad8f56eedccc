//! Whom the gateway tells of trouble: the `notify:` section of the file.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;
use url::{Host, Url};

use super::file_place::FilePlace;
use super::key::find_closest;
use crate::base::diagnostic::{Diagnostic, Location, Report};
use crate::base::digest::Digest;
use crate::spec::AlertKind;

/// More are a mistake; each has a task of its own.
const MAX_TARGETS: usize = 16;

/// Somebody who is told of trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifyTarget {
    /// Its name in metrics, the log and on the command line; no other target has it.
    pub name: String,
    /// The kinds of trouble that it is told of.
    pub kinds: Vec<AlertKind>,
    /// How it is told.
    pub channel: NotifyChannel,
}

/// How a target is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotifyChannel {
    /// A POST to a URL.
    Webhook(WebhookSettings),
    /// A program and its arguments, without a shell.
    Command(Vec<String>),
}

/// A URL that takes events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSettings {
    /// Where it is.
    pub address: WebhookAddress,
    /// The file with the keys that sign events, one a line.
    pub secret_file: Option<PathBuf>,
    /// What is sent.
    pub format: WebhookFormat,
}

/// Where a webhook's URL is written.
#[derive(Clone, PartialEq, Eq)]
pub enum WebhookAddress {
    /// In the settings.
    Url(Url),
    /// In a file, because it is itself a secret.
    File(PathBuf),
}

impl fmt::Debug for WebhookAddress {
    /// Leaves out all of the URL that may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => write!(f, "Url({})", url.origin().ascii_serialization()),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// What a webhook is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookFormat {
    /// The event as JSON.
    #[default]
    Json,
    /// A message, as Slack's incoming webhooks and those of its likes take it.
    Slack,
    /// An Adaptive Card, as a workflow of Teams takes it.
    Teams,
}

/// A target as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenTarget {
    name: Option<String>,
    webhook: Option<String>,
    webhook_file: Option<PathBuf>,
    secret_file: Option<PathBuf>,
    #[serde(default)]
    format: WebhookFormat,
    command: Option<Vec<String>>,
    on: Option<Vec<String>>,
}

/// Returns the targets that are valid; what is wrong with the others goes into the report.
pub(super) fn validate(
    written: Vec<Spanned<WrittenTarget>>,
    place: &FilePlace,
    report: &mut Report,
) -> Vec<NotifyTarget> {
    let mut targets: Vec<NotifyTarget> = Vec::new();
    for (index, target) in written.into_iter().enumerate() {
        // The line may hold a URL that is a secret.
        let at = Location { excerpt: None, ..place.locate(target.referenced) };
        let mut validation = TargetValidation { place, findings: Vec::new() };
        let target = validation.validate(target.value, index + 1);
        let mut findings = validation.findings;
        match target {
            Some(target) if targets.iter().any(|other| other.name == target.name) => {
                let message = format!("two targets of `notify` are called {:?}", target.name);
                findings.push(Diagnostic::error("notify-invalid", message).help("give each its own `name`"));
            }
            Some(target) => targets.push(target),
            None => {}
        }
        findings.into_iter().for_each(|finding| report.push(finding.at(at.clone())));
    }
    if targets.len() > MAX_TARGETS {
        let message = format!("`notify` has {} targets; at most {MAX_TARGETS} are allowed", targets.len());
        let help = "have one target, for instance an alert manager, tell the others";
        report.push(Diagnostic::error("notify-invalid", message).help(help));
    }
    targets
}

/// Returns the section as something to compare, if there is one. It shows nothing of its URLs.
pub(super) fn written(targets: &[NotifyTarget]) -> Option<(String, String)> {
    let text = |target: &NotifyTarget| match &target.channel {
        NotifyChannel::Webhook(WebhookSettings { address: WebhookAddress::Url(url), .. }) => {
            format!("{target:?} {url}")
        }
        _ => format!("{target:?}"),
    };
    let all: String = targets.iter().map(text).collect();
    let value = format!("{} targets ({})", targets.len(), Digest::of(all.as_bytes()).short());
    (!targets.is_empty()).then(|| ("notify".to_owned(), value))
}

/// The validation of one target.
struct TargetValidation<'a> {
    place: &'a FilePlace,
    findings: Vec<Diagnostic>,
}

impl TargetValidation<'_> {
    fn validate(&mut self, written: WrittenTarget, number: usize) -> Option<NotifyTarget> {
        let kinds = self.kinds(written.on.as_deref());
        let name = match &written.name {
            Some(name) => self.name(name),
            None => Some(format!("target-{number}")),
        };
        let channel = self.channel(written);
        Some(NotifyTarget { name: name?, kinds: kinds?, channel: channel? })
    }

    fn name(&mut self, name: &str) -> Option<String> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !name.is_empty() && name.len() <= 40 && name.chars().all(is_plain) {
            return Some(name.to_owned());
        }
        self.reject(
            format!("`name` of a target of `notify` is {name:?}"),
            "write at most 40 letters, digits, dots, dashes and underscores",
        )
    }

    fn kinds(&mut self, written: Option<&[String]>) -> Option<Vec<AlertKind>> {
        let Some(written) = written else { return Some(AlertKind::ALL.to_vec()) };
        let names = || AlertKind::ALL.map(AlertKind::as_str);
        let unknown = written.iter().find(|name| AlertKind::from_name(name).is_none());
        match unknown {
            Some(name) => {
                let help = match find_closest(name, names()) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("write some of {}", names().join(", ")),
                };
                self.reject(format!("`on` of a target of `notify` names {name:?}, which is no kind"), help)
            }
            None if written.is_empty() => self.reject(
                "`on` of a target of `notify` is empty, so it would be told nothing",
                "remove the line for all kinds, or remove the target",
            ),
            None => Some(written.iter().filter_map(|name| AlertKind::from_name(name)).collect()),
        }
    }

    fn channel(&mut self, written: WrittenTarget) -> Option<NotifyChannel> {
        const ONE_OF: &str = "write exactly one of `webhook`, `webhook_file` and `command`";
        let is_webhook_field = written.secret_file.is_some() || written.format != WebhookFormat::Json;
        let address = match (written.webhook, written.webhook_file, written.command) {
            (Some(url), None, None) => WebhookAddress::Url(self.url(&url)?),
            (None, Some(file), None) => WebhookAddress::File(self.place.resolve(file)),
            (None, None, Some(command)) => {
                if is_webhook_field {
                    let what = "a target of `notify` has a command, and a field of webhooks";
                    return self.reject(what, "remove `secret_file` and `format`: a command needs neither");
                }
                return self.command(command).map(NotifyChannel::Command);
            }
            (None, None, None) => return self.reject("a target of `notify` has no place to go", ONE_OF),
            _ => return self.reject("a target of `notify` has two places to go", ONE_OF),
        };
        let secret_file = written.secret_file.map(|file| self.place.resolve(file));
        if secret_file.is_none() && written.format == WebhookFormat::Json {
            let message = "a webhook of `notify` has no `secret_file`, so its receiver cannot tell the \
                           gateway's events from anybody else's";
            let help =
                "write a random text into a file, name it here, and have the receiver verify signatures";
            self.findings.push(Diagnostic::warning("notify-unsigned", message).help(help));
        }
        Some(NotifyChannel::Webhook(WebhookSettings { address, secret_file, format: written.format }))
    }

    fn url(&mut self, text: &str) -> Option<Url> {
        let Some(url) = parse_webhook_url(text) else {
            // The text is not repeated: it may be a secret.
            return self.reject(
                "`webhook` of a target of `notify` is not an http or https URL without a user name",
                "write it like `https://alerts.example.com/hook`; a URL that is itself a secret belongs into \
                 a file that `webhook_file` names",
            );
        };
        if url.scheme() == "http" && !is_loopback(&url) {
            let host = url.host_str().unwrap_or_default();
            let message = format!("events to the webhook on {host} are sent unencrypted");
            let finding = Diagnostic::warning("notify-plain-http", message);
            self.findings.push(finding.help("write an https URL, if the receiver has one"));
        }
        Some(url)
    }

    fn command(&mut self, command: Vec<String>) -> Option<Vec<String>> {
        if command.first().is_some_and(|program| !program.is_empty()) {
            return Some(command);
        }
        self.reject(
            "`command` of a target of `notify` is empty",
            "write the program and its arguments: `[/usr/local/bin/page-somebody, --urgent]`",
        )
    }

    fn reject<T>(&mut self, what: impl Into<String>, help: impl Into<String>) -> Option<T> {
        self.findings.push(Diagnostic::error("notify-invalid", what).help(help));
        None
    }
}

/// Returns a webhook's URL, unless it cannot be one.
pub fn parse_webhook_url(text: &str) -> Option<Url> {
    let url = Url::parse(text.trim()).ok()?;
    let is_plain = url.username().is_empty() && url.password().is_none() && url.host_str().is_some();
    (matches!(url.scheme(), "http" | "https") && is_plain).then_some(url)
}

/// Whether a URL leads to this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
