//! What an examination found, and how it is shown.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Serialize;

use crate::telemetry::printable::printable;

/// How a verdict weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum VerdictOutcome {
    Ok,
    /// It could not be examined; the reason is what was found.
    NotChecked,
    /// It works, but probably not for everybody, or not for long.
    Warning,
    /// Something does not work.
    Fault,
}

/// What was examined, from outside in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Examination {
    Gateway,
    Tenant,
    Names,
    Ports,
    Certificate,
    Clock,
    Folders,
    Database,
    Backend,
    Login,
    Client,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct DoctorVerdict {
    /// A stable, searchable name in kebab case.
    pub(super) code: Cow<'static, str>,
    pub(super) examination: Examination,
    pub(super) outcome: VerdictOutcome,
    /// Where it was found: an address, a URL, a path, a tenant.
    pub(super) place: String,
    /// What was found.
    pub(super) found: String,
    /// What it means for those who use the gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) meaning: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
    /// The lines to change, by product.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) changes: Vec<ProxyChange>,
}

/// The lines to change in one product's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ProxyChange {
    pub(super) product: &'static str,
    pub(super) lines: String,
}

impl DoctorVerdict {
    pub(super) fn ok(
        examination: Examination,
        code: &'static str,
        place: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::new(examination, VerdictOutcome::Ok, code.into(), place.into(), found.into())
    }

    pub(super) fn not_checked(
        examination: Examination,
        code: &'static str,
        place: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self::new(examination, VerdictOutcome::NotChecked, code.into(), place.into(), why.into())
    }

    pub(super) fn warning(
        examination: Examination,
        code: impl Into<Cow<'static, str>>,
        place: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::new(examination, VerdictOutcome::Warning, code.into(), place.into(), found.into())
    }

    pub(super) fn fault(
        examination: Examination,
        code: impl Into<Cow<'static, str>>,
        place: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::new(examination, VerdictOutcome::Fault, code.into(), place.into(), found.into())
    }

    fn new(
        examination: Examination,
        outcome: VerdictOutcome,
        code: Cow<'static, str>,
        place: String,
        found: String,
    ) -> Self {
        Self { code, examination, outcome, place, found, meaning: None, advice: None, changes: Vec::new() }
    }

    #[must_use]
    pub(super) fn meaning(mut self, meaning: impl Into<String>) -> Self {
        self.meaning = Some(meaning.into());
        self
    }

    #[must_use]
    pub(super) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    #[must_use]
    pub(super) fn changes(mut self, changes: Vec<ProxyChange>) -> Self {
        self.changes = changes;
        self
    }
}

impl Examination {
    fn title(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Tenant => "tenant",
            Self::Names => "names",
            Self::Ports => "ports",
            Self::Certificate => "certificate",
            Self::Clock => "clock",
            Self::Folders => "folders",
            Self::Database => "database",
            Self::Backend => "backend",
            Self::Login => "login",
            Self::Client => "client",
        }
    }
}

impl VerdictOutcome {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotChecked => "not checked",
            Self::Warning => "WARNING",
            Self::Fault => "FAULT",
        }
    }
}

/// All verdicts, from outside in.
#[derive(Debug, Clone, Serialize)]
pub(in crate::cli) struct Diagnosis {
    /// The weightiest outcome.
    pub(super) outcome: VerdictOutcome,
    pub(super) verdicts: Vec<DoctorVerdict>,
}

impl Diagnosis {
    pub(super) fn new(mut verdicts: Vec<DoctorVerdict>) -> Self {
        verdicts.sort_by_key(|verdict| verdict.examination);
        let weightiest = verdicts.iter().map(|verdict| verdict.outcome).max();
        let outcome =
            weightiest.filter(|outcome| *outcome >= VerdictOutcome::Warning).unwrap_or(VerdictOutcome::Ok);
        Self { outcome, verdicts }
    }

    /// Formats the diagnosis for people: the first fault on top, then everything in order.
    pub(super) fn to_text(&self) -> String {
        let mut text = self.summarize();
        let mut title = None;
        for verdict in &self.verdicts {
            if title != Some(verdict.examination) {
                title = Some(verdict.examination);
                let _ = writeln!(text, "\n{}", verdict.examination.title());
            }
            verdict.write_to(&mut text);
        }
        text
    }

    fn summarize(&self) -> String {
        let count = |outcome| self.verdicts.iter().filter(|verdict| verdict.outcome == outcome).count();
        let plural = |count: usize, word: &str| match count {
            1 => format!("1 {word}"),
            _ => format!("{count} {word}s"),
        };
        let mut text = format!(
            "{}, {}, {} ok, {} not checked\n",
            plural(count(VerdictOutcome::Fault), "fault"),
            plural(count(VerdictOutcome::Warning), "warning"),
            count(VerdictOutcome::Ok),
            count(VerdictOutcome::NotChecked)
        );
        let first = |outcome| self.verdicts.iter().find(|verdict| verdict.outcome == outcome);
        if let Some(first) = first(VerdictOutcome::Fault).or_else(|| first(VerdictOutcome::Warning)) {
            let word = if first.outcome == VerdictOutcome::Fault { "fault" } else { "warning" };
            let _ = writeln!(text, "First {word}: {} ({})", printable(&first.found), first.code);
            if let Some(advice) = &first.advice {
                let _ = writeln!(text, "  do: {}", printable(advice));
            }
        }
        text
    }
}

impl DoctorVerdict {
    fn write_to(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "  {:<11}  {}: {}{}",
            self.outcome.word(),
            printable(&self.place),
            printable(&self.found),
            if self.outcome >= VerdictOutcome::Warning { format!(" [{}]", self.code) } else { String::new() }
        );
        for (word, part) in [("means", &self.meaning), ("do", &self.advice)] {
            if let Some(part) = part {
                let _ = writeln!(text, "               {word}: {}", printable(part));
            }
        }
        for change in &self.changes {
            let _ = writeln!(text, "               {}:", change.product);
            for line in change.lines.lines() {
                let _ = writeln!(text, "                   {}", printable(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_is_on_top_and_all_are_in_order() {
        let diagnosis = Diagnosis::new(vec![
            DoctorVerdict::fault(Examination::Login, "secret-wrong", "acme", "the secret is refused")
                .advice("renew it"),
            DoctorVerdict::fault(Examination::Ports, "port-refused", "h:443", "nobody listens")
                .meaning("no client connects")
                .advice("open it")
                .changes(vec![ProxyChange { product: "NGINX", lines: "a;\nb;".into() }]),
            DoctorVerdict::ok(Examination::Names, "name", "h", "is this machine"),
            DoctorVerdict::not_checked(Examination::Clock, "clock", "clock", "nobody to compare with"),
        ]);
        assert_eq!(diagnosis.outcome, VerdictOutcome::Fault);
        assert_eq!(
            diagnosis.to_text(),
            "2 faults, 0 warnings, 1 ok, 1 not checked\n\
             First fault: nobody listens (port-refused)\n  do: open it\n\n\
             names\n  ok           h: is this machine\n\n\
             ports\n  FAULT        h:443: nobody listens [port-refused]\n               \
             means: no client connects\n               do: open it\n               NGINX:\n                   \
             a;\n                   b;\n\n\
             clock\n  not checked  clock: nobody to compare with\n\n\
             login\n  FAULT        acme: the secret is refused [secret-wrong]\n               do: renew it\n"
        );
    }

    #[test]
    fn what_was_not_checked_is_no_fault() {
        let verdict =
            DoctorVerdict::not_checked(Examination::Clock, "clock", "clock", "nobody to compare with");
        assert_eq!(Diagnosis::new(vec![verdict]).outcome, VerdictOutcome::Ok);
    }
}
