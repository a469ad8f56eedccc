//! `tenantd check`: validates tenants offline with the pipeline of a running gateway.
//!
//! It reports every finding of every tenant, and resolves claims to names, paths and hosts across
//! tenants. With `--live` it also calls the backends of the tenants that would be served
//! ([`live`]).

mod live;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::args::Format;
use super::{entries, output, render};
use crate::base::diagnostic::{Diagnostic, Location, Report};
use crate::base::disk::why;
use crate::base::permission;
use crate::bundle::{self, EntryFiles, LoadContext};
use crate::identity;
use crate::spec::{DataFingerprint, TenantName, TenantSpec};
use crate::telemetry::printable::printable;
use crate::tenants::claims::{self, ClaimRequest};

/// The result of the command, which `main` maps to an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckOutcome {
    /// Every tenant would be served.
    Fine,
    /// At least one tenant would be rejected.
    Rejected,
    /// A path could not be read, or contains no tenant.
    CouldNotRun,
}

/// The result for one tenant.
#[derive(Debug, Clone, Serialize)]
pub struct CheckedTenant {
    /// The entry id: the stem that its files share.
    pub stem: String,
    /// The tenant's name, if it is valid.
    pub name: Option<TenantName>,
    /// The URL to paste into an MCP client.
    pub connector: Option<String>,
    /// The redirect URI to register with the app at the provider, for tenants with a login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect_uri: Option<String>,
    /// The digest of the entry, in short form.
    pub digest: String,
    /// Whether the backend answered correctly, if it was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has_answered: Option<bool>,
    /// The findings about the tenant.
    pub findings: Report,
    /// The validated configuration, if the tenant would be served.
    #[serde(skip)]
    pub spec: Option<TenantSpec>,
    /// What its files give to some callers only.
    #[serde(skip)]
    restricted_data: Vec<DataFingerprint>,
}

/// How a verdict is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckOutput {
    /// The output format.
    pub format: Format,
    /// Whether to omit tenants without errors.
    pub errors_only: bool,
    /// Whether the gateway's host is unknown, so that no URL can be shown.
    pub is_host_unknown: bool,
}

/// The result for all tenants.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CheckReport {
    /// Findings about the folders themselves.
    pub findings: Report,
    /// The result for each tenant.
    pub tenants: Vec<CheckedTenant>,
}

/// Checks folders and files, prints the findings, and returns the outcome. With `live`, backends
/// are called, each call within that time.
pub fn check(
    paths: &[PathBuf],
    context: &LoadContext,
    live: Option<Duration>,
    telling: CheckOutput,
) -> CheckOutcome {
    let mut verdict = match validate_paths(paths, context) {
        Ok(verdict) => verdict,
        Err((path, error)) => {
            let help = match error.kind() {
                io::ErrorKind::PermissionDenied => format!(" ({})", permission::read_help(&path, &error)),
                _ => String::new(),
            };
            output::print_error(format!("{} cannot be read: {}{help}", path.display(), why(&error)));
            return CheckOutcome::CouldNotRun;
        }
    };
    if let Some(Err(error)) = live.map(|patience| live::probe(&mut verdict, context, patience)) {
        output::print_error(format!("backends cannot be called: {error:#}"));
        return CheckOutcome::CouldNotRun;
    }
    let outcome = verdict.outcome();
    if telling.is_host_unknown {
        verdict.forget_host(&context.public_base);
    }
    match print(&verdict, telling) {
        Ok(()) => outcome,
        Err(error) => {
            output::print_error(format!("the findings cannot be printed: {error}"));
            CheckOutcome::CouldNotRun
        }
    }
}

/// Validates all tenants at these paths together.
///
/// A path is a folder of tenants, a tenant's own folder, or one of a tenant's files (its siblings
/// are included).
///
/// # Errors
/// The first path that cannot be read, and why.
pub fn validate_paths(paths: &[PathBuf], context: &LoadContext) -> Result<CheckReport, (PathBuf, io::Error)> {
    let mut verdict = CheckReport::default();
    let mut seen = BTreeSet::new();
    for path in paths {
        let (entries, strays) = entries::find_entries(path).map_err(|error| (path.clone(), error))?;
        verdict.findings.extend(strays);
        if entries.is_empty() {
            verdict.findings.push(nothing_to_check(path));
        }
        let new = entries.iter().filter(|entry| seen.insert((entry.files.clone(), entry.id.clone())));
        verdict.tenants.extend(new.map(|entry| one(entry, context)));
    }
    resolve_claims(&mut verdict.tenants);
    Ok(verdict)
}

/// Prints a verdict to standard output.
///
/// # Errors
/// Standard output cannot be written to.
pub fn print(verdict: &CheckReport, telling: CheckOutput) -> io::Result<()> {
    match telling.format {
        Format::Human => output::print(&human(verdict, telling.errors_only)),
        Format::Json => {
            let told = |tenant: &&CheckedTenant| !telling.errors_only || tenant.findings.has_errors();
            let tenants = verdict.tenants.iter().filter(told).cloned().collect();
            let told = CheckReport { findings: verdict.findings.clone(), tenants };
            output::print(&(render::json(&told) + "\n"))
        }
    }
}

impl CheckReport {
    /// Returns the outcome of the check.
    pub fn outcome(&self) -> CheckOutcome {
        match () {
            () if self.tenants.is_empty() => CheckOutcome::CouldNotRun,
            () if self.findings.has_errors() => CheckOutcome::CouldNotRun,
            () if self.tenants.iter().any(|tenant| tenant.findings.has_errors()) => CheckOutcome::Rejected,
            () => CheckOutcome::Fine,
        }
    }

    /// Removes `base` from all URLs. It is a placeholder that an operator might register by
    /// mistake.
    pub(super) fn forget_host(&mut self, base: &str) {
        for tenant in &mut self.tenants {
            for url in [&mut tenant.connector, &mut tenant.redirect_uri].into_iter().flatten() {
                if let Some(path) = url.strip_prefix(base) {
                    *url =
                        format!("{path} (host unknown: give --host NAME, or --config FILE of the gateway)");
                }
            }
        }
    }
}

fn nothing_to_check(path: &Path) -> Diagnostic {
    let message = match path.is_dir() {
        true => "the folder contains no tenant",
        false => "this is not a file of a tenant",
    };
    Diagnostic::error("nothing-to-check", message)
        .help(
            "a tenant is an export (.zip), or a .yaml with or without a .env beside it, or a folder of \
               these files",
        )
        .at(Location::file(path))
}

fn one(entry: &EntryFiles, context: &LoadContext) -> CheckedTenant {
    let loaded = bundle::load(entry, context);
    CheckedTenant {
        stem: entry.id.clone(),
        name: loaded.name,
        connector: loaded.spec.as_ref().map(|spec| spec.public_url.connector_url()),
        redirect_uri: loaded.spec.as_ref().and_then(TenantSpec::redirect_uri),
        digest: loaded.digest.short(),
        has_answered: None,
        findings: loaded.report,
        restricted_data: loaded.restricted_data.map(|guards| guards.all().collect()).unwrap_or_default(),
        spec: loaded.spec,
    }
}

/// Resolves claims to names, paths and hosts, and which tenants may be open, as at a first start:
/// by the order of the entry ids.
fn resolve_claims(tenants: &mut [CheckedTenant]) {
    let mut keys: Vec<_> = (0..tenants.len()).map(|at| (key(tenants, at), at)).collect();
    keys.sort();
    let wants = |at: usize| tenants[at].spec.as_ref().map(TenantSpec::claim);
    let newly_open_data = |at: usize| {
        let spec = tenants[at].spec.as_ref().filter(|spec| spec.enabled);
        spec.map(|spec| spec.implicitly_open_data().to_vec()).unwrap_or_default()
    };
    let applicants = keys.iter().map(|(key, at)| ClaimRequest {
        entry_id: key,
        wanted: wants(*at),
        newly_open_data: newly_open_data(*at),
        restricted_data: tenants[*at].restricted_data.clone(),
        ..ClaimRequest::default()
    });
    let mut refused = claims::resolve(&applicants.collect::<Vec<_>>());
    for (key, at) in keys {
        if let Some(refusal) = refused.remove(&key) {
            let finding = refusal.to_diagnostic(&tenants[at].stem);
            refuse(&mut tenants[at], finding);
        }
    }
}

/// Returns the entry id, numbered if several folders contain the same one.
fn key(tenants: &[CheckedTenant], at: usize) -> String {
    let stem = &tenants[at].stem;
    match tenants[..at].iter().filter(|tenant| tenant.stem == *stem).count() {
        0 => stem.clone(),
        before => format!("{stem} ({})", before + 1),
    }
}

fn refuse(tenant: &mut CheckedTenant, diagnostic: Diagnostic) {
    tenant.findings.push(diagnostic.at(Location::file(&tenant.stem)));
    tenant.spec = None;
    tenant.connector = None;
    tenant.redirect_uri = None;
}

/// Formats the verdict. Tenants without errors come first, since the last lines are read first on a
/// terminal.
fn human(verdict: &CheckReport, errors_only: bool) -> String {
    let mut out = render::human(&verdict.findings);
    let (bad, good): (Vec<_>, Vec<_>) =
        verdict.tenants.iter().partition(|tenant| tenant.findings.has_errors());
    for tenant in good.into_iter().filter(|_| !errors_only).chain(bad) {
        if !out.is_empty() {
            out.push('\n');
        }
        let name = tenant.name.as_ref().map_or(tenant.stem.as_str(), TenantName::as_str);
        let state = match (&tenant.connector, tenant.has_answered) {
            (None, _) => "refused".to_owned(),
            (Some(url), Some(false)) => {
                format!("would be served, but its backend does not answer correctly: {url}")
            }
            (Some(url), _) => format!("ok, {url}"),
        };
        out.push_str(&format!("{}: {state}\n", printable(name)));
        let login = tenant.spec.as_ref().and_then(|spec| spec.access.login.as_ref());
        let app_registration = login.map(|login| identity::find_brand(&login.provider).redirect_uris);
        if let Some((uri, app_registration)) = tenant.redirect_uri.as_ref().zip(app_registration) {
            out.push_str(&format!("  redirect URI to register in {app_registration}: {uri}\n"));
        }
        out.push_str(&render::human(&tenant.findings));
    }
    let count = |is: fn(&CheckedTenant) -> bool| verdict.tenants.iter().filter(|tenant| is(tenant)).count();
    let refused = count(|tenant| tenant.connector.is_none());
    let unanswered = match count(|tenant| tenant.has_answered == Some(false)) {
        0 => String::new(),
        count => format!(", {count} without a correct answer from the backend"),
    };
    out.push_str(&format!("\n{} checked, {refused} refused{unanswered}\n", verdict.tenants.len()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::sample::sample_context;

    fn tenants(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, lines) in files {
            let yaml = format!(
                "search_url: https://p.test/nlp-search\ncontext_url: https://p.test/nlp-context\nconnection_id: c\n{lines}"
            );
            std::fs::write(folder.path().join(name), yaml).expect("written");
        }
        folder
    }

    fn judged(folder: &tempfile::TempDir) -> CheckReport {
        validate_paths(&[folder.path().to_owned()], &sample_context()).expect("judged")
    }

    fn codes(verdict: &CheckReport) -> Vec<(&str, Vec<&str>)> {
        let codes =
            |tenant: &CheckedTenant| tenant.findings.iter().map(|diagnostic| diagnostic.code).collect();
        verdict.tenants.iter().map(|tenant| (tenant.stem.as_str(), codes(tenant))).collect()
    }

    #[test]
    fn a_path_is_one_tenants() {
        let folder =
            tenants(&[("a.yaml", "api_key: key-0001\n"), ("b.yaml", "api_key: key-0002\npath_prefix: /a\n")]);
        let verdict = judged(&folder);
        assert_eq!(codes(&verdict), [("a", vec![]), ("b", vec!["claim-taken"])]);
        assert_eq!(verdict.outcome(), CheckOutcome::Rejected);
    }

    #[test]
    fn a_name_is_one_tenants() {
        let folder = tenants(&[
            ("a b.yaml", "api_key: key-0001\n"),
            ("a-b.yaml", "api_key: key-0002\npath_prefix: /x\n"),
        ]);
        assert_eq!(codes(&judged(&folder)), [("a b", vec![]), ("a-b", vec!["claim-taken"])]);
    }

    #[test]
    fn a_copy_of_a_guarded_tenant_is_refused_as_a_running_gateway_refuses_it() {
        let keys = "api_keys: [{label: a, sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae}]\n";
        let key = "api_key: key-0001\n";
        let folder = tenants(&[
            ("aa.yaml", key),
            ("acme.yaml", &format!("{key}{keys}")),
            ("meant.yaml", &format!("{key}open: true\n")),
            ("off.yaml", &format!("{key}enabled: false\n")),
            ("other.yaml", "api_key: key-0002\n"),
        ]);
        let verdict = judged(&folder);
        let refused = ("aa", vec!["backend-guarded"]);
        assert_eq!(
            codes(&verdict),
            [refused, ("acme", vec![]), ("meant", vec![]), ("off", vec![]), ("other", vec![])]
        );
        let told = human(&verdict, true);
        assert!(told.contains("\"acme\" requires a credential") && told.contains("open: true"), "{told}");
        assert!(!told.contains("key-0001"), "{told}");
    }

    #[test]
    fn one_file_is_checked_with_its_siblings() {
        let folder = tenants(&[("a.yaml", ""), ("b.yaml", "")]);
        std::fs::write(folder.path().join("a.env"), "API_KEY=key-0001\n").expect("written");
        let verdict = validate_paths(&[folder.path().join("a.yaml")], &sample_context()).expect("judged");
        assert_eq!(codes(&verdict), [("a", vec![])]);
        assert_eq!(verdict.outcome(), CheckOutcome::Fine);
    }

    #[test]
    fn a_login_is_told_with_what_to_register() {
        let login = "oauth_enabled: true\nmicrosoft_client_id: 6731de76-14a6-49ae-97bc-6eba6914391e\n\
            microsoft_client_secret: canary\nmicrosoft_tenant_id: contoso.com\napi_key: key-0001\n";
        let verdict = judged(&tenants(&[("a.yaml", login)]));
        let told =
            "  redirect URI to register in Entra (platform Web): https://mcp.test/a/auth/ms-callback\n";
        assert!(human(&verdict, false).contains(told), "{}", human(&verdict, false));
        assert!(render::json(&verdict).contains("/a/auth/ms-callback"));
    }

    #[test]
    fn where_the_host_is_unknown_no_url_is_told() {
        let login = "oauth_enabled: true\nmicrosoft_client_id: 6731de76-14a6-49ae-97bc-6eba6914391e\n\
            microsoft_client_secret: canary\nmicrosoft_tenant_id: contoso.com\napi_key: key-0001\n";
        let folder = tenants(&[("a.yaml", login)]);
        let own = format!("{login}public_url: https://own.test/b\n");
        let yaml = std::fs::read_to_string(folder.path().join("a.yaml")).expect("there").replace(login, &own);
        std::fs::write(folder.path().join("b.yaml"), yaml).expect("written");
        let mut verdict = judged(&folder);
        verdict.forget_host("https://mcp.test");
        let told = human(&verdict, false);
        assert!(told.contains(": /a/auth/ms-callback (host unknown: give --host NAME"), "{told}");
        assert!(!told.contains("mcp.test") && told.contains("https://own.test/b/auth/ms-callback"), "{told}");
    }

    #[test]
    fn errors_are_told_last_or_alone() {
        let folder = tenants(&[("a.yaml", "api_key: your-api-key\n"), ("b.yaml", "api_key: key-0001\n")]);
        let verdict = judged(&folder);
        let order = |text: String| ["a: refused", "b: ok"].map(|line| text.find(line));
        let [bad, good] = order(human(&verdict, false));
        assert!(bad > good && good.is_some());
        let [bad, good] = order(human(&verdict, true));
        assert!(bad.is_some() && good.is_none());
        assert!(human(&verdict, true).contains("2 checked, 1 refused"));
    }

    #[test]
    fn where_nothing_is_to_be_checked_it_is_said() {
        let folder = tenants(&[]);
        std::fs::write(folder.path().join("notes.txt"), "x").expect("written");
        let said = |path: &Path| {
            let verdict = validate_paths(&[path.to_owned()], &sample_context()).expect("judged");
            assert_eq!(verdict.outcome(), CheckOutcome::CouldNotRun);
            human(&verdict, true)
        };
        assert!(said(folder.path()).contains("the folder contains no tenant"));
        assert!(said(&folder.path().join("notes.txt")).contains("this is not a file of a tenant"));
    }

    #[test]
    fn what_is_not_there_cannot_be_checked() {
        let folder = tenants(&[]);
        assert_eq!(judged(&folder).outcome(), CheckOutcome::CouldNotRun);
        assert_eq!(
            check(&[folder.path().join("x.zip")], &sample_context(), None, CheckOutput::default()),
            CheckOutcome::CouldNotRun
        );
    }

    #[test]
    fn people_and_machines_are_told_the_same() {
        let folder = tenants(&[
            ("a.yaml", "api_key: key-0001\n"),
            ("b.yaml", "api_key: your-api-key\n"),
            ("c.json", ""),
        ]);
        let verdict = judged(&folder);
        let root = format!("{}/", folder.path().display());
        insta::assert_snapshot!("human", human(&verdict, false).replace(&root, ""));
        insta::assert_snapshot!("json", render::json(&verdict).replace(&root, ""));
    }
}
