//! The fields of a login at Microsoft Entra ID: the app registration, and the accounts accepted.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::access_rules;
use super::guid::parse_guid;
use super::moment;
use super::validation::Validation;
use crate::base::clock::{Clock, SystemClock};
use crate::base::diagnostic::{Diagnostic, Location};
use crate::base::secret::Secret;
use crate::bundle::placeholder::{QUOTED, is_placeholder, is_quoted};
use crate::spec::{Audience, DirectorySpec, EntraSpec, HostName};

/// The app registration's fields, all required.
pub(super) const FIELDS: [&str; 3] =
    ["microsoft_client_id", "microsoft_client_secret", "microsoft_tenant_id"];
pub(super) const NEXT_SECRET: &str = "microsoft_client_secret_next";
/// When the secret expires.
const SECRET_END: &str = "microsoft_client_secret_expires";
/// How long before its end a secret is warned of.
const SECRET_WARNING: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How people call the fields' values.
pub(super) const VALUES: &str = "the Microsoft values";
/// Where the fields' values stand.
pub(super) const APP: &str = "the app registration in Entra";
/// Why a machine client may not have the app's id.
pub(super) const ID_IS_TAKEN: &str = "the id is that of the app in Entra; choose another one";
const OVERVIEW: &str = "copy it from the overview of the app registration in Entra";

/// Returns the app's secrets, the current one first.
pub(super) fn secrets(validation: &mut Validation<'_, '_>) -> Vec<Secret> {
    ["microsoft_client_secret", NEXT_SECRET].into_iter().filter_map(|name| secret(validation, name)).collect()
}

/// Validates the app registration and the accounts accepted; `None` if something is missing.
pub(super) fn validate(validation: &mut Validation<'_, '_>, secrets: Vec<Secret>) -> Option<EntraSpec> {
    let client_id = client_id(validation);
    let directory = directory(validation);
    let is_allowed = |name| validation.layers.find_bool(&["access", name]).unwrap_or(false);
    if secrets.is_empty() {
        return None;
    }
    Some(EntraSpec {
        client_id: client_id?,
        client_secrets: secrets,
        client_secret_expires: find_secret_end(validation),
        directory: directory?,
        allow_guests: is_allowed("guests"),
        allow_personal_accounts: is_allowed("personal_accounts"),
    })
}

/// Returns the id of the app, which no other client may have.
pub(super) fn find_client_id(validation: &Validation<'_, '_>) -> Option<Arc<str>> {
    validation.layers.find_text(&["microsoft_client_id"]).and_then(parse_guid)
}

fn secret(validation: &mut Validation<'_, '_>, name: &'static str) -> Option<Secret> {
    let document = validation.layers.find_secret(name).filter(|_| validation.is_login_enabled())?.document;
    let resolved = validation.resolve_member(document, &document.root, name)?;
    let text = resolved.secret.expose();
    let what = match text {
        text if is_placeholder(text) => format!("{name} is still a placeholder"),
        text if is_quoted(text) => format!("{name} {QUOTED}"),
        // Entra shows the id and the value side by side, and only the value works.
        text if parse_guid(text).is_some() => {
            format!("{name} looks like the secret's id, not its value")
        }
        text if text.len() > 512 => format!("{name} is not a client secret"),
        text if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            format!("{name} has a blank, a quote or an invisible character from copying")
        }
        _ => return Some(resolved.secret),
    };
    let help = "in Entra, under Certificates & secrets, create a new secret and copy the column Value";
    reject(validation, &what, help, resolved.at)
}

/// Returns when the app's secret expires, and warns if that is soon. A tenant is not refused for
/// it: those who are logged in go on.
fn find_secret_end(validation: &mut Validation<'_, '_>) -> Option<Timestamp> {
    let found = validation.layers.find(&[SECRET_END])?;
    let (text, at) = (found.text()?, found.location());
    let Some(end) = moment::parse_end(text) else {
        let what = format!("{SECRET_END} must be a date (2027-01-31) or a time (2027-01-31T12:00:00Z)");
        return reject(validation, &what, "copy it from the column Expires in Entra", at);
    };
    let now = SystemClock.now();
    if end.duration_since(now) > SECRET_WARNING {
        return Some(end);
    }
    let verb = if end <= now { "expired" } else { "expires" };
    let what = format!("the app's client secret {verb} at {end}; after that nobody can log in");
    let help = "in Entra, under Certificates & secrets, create a new one, and write it and its end here";
    validation.add_finding(Diagnostic::warning("secret-expires-soon", what).help(help), Some(at));
    Some(end)
}

fn client_id(validation: &mut Validation<'_, '_>) -> Option<Arc<str>> {
    let found = validation.layers.find(&["microsoft_client_id"])?;
    let text = found.text()?;
    if is_placeholder(text) {
        let what = "microsoft_client_id is still a placeholder";
        return reject(validation, what, OVERVIEW, found.location());
    }
    match parse_guid(text) {
        Some(id) => Some(id),
        None => {
            let what =
                "microsoft_client_id must be the Application (client) ID, 8-4-4-4-12 hexadecimal digits";
            reject(validation, what, OVERVIEW, found.location())
        }
    }
}

fn directory(validation: &mut Validation<'_, '_>) -> Option<DirectorySpec> {
    let found = validation.layers.find(&["microsoft_tenant_id"])?;
    let text = found.text()?.to_ascii_lowercase();
    let audience = match text.as_str() {
        "organizations" => Some(Audience::Organizations),
        "common" => Some(Audience::Common),
        _ => None,
    };
    reject_needless_personal_accounts(validation, audience);
    match audience {
        Some(audience) => validate_several_directories(validation, audience, found.location()),
        None => validate_one_directory(validation, &text, found.location()),
    }
}

fn validate_several_directories(
    validation: &mut Validation<'_, '_>,
    audience: Audience,
    at: Location,
) -> Option<DirectorySpec> {
    let allowed = access_rules::read_guids(validation, &["access", "directories"], "directories");
    if !allowed.is_empty() {
        return Some(DirectorySpec::Several { audience, allowed });
    }
    let name = audience.as_str();
    let what = format!(
        "microsoft_tenant_id is {name}, but access.directories does not list the accepted \
                 directories"
    );
    let help =
        "list the ids of the directories whose accounts may log in: access: {directories: [<directory id>]}";
    reject(validation, &what, help, at)
}

fn validate_one_directory(
    validation: &mut Validation<'_, '_>,
    text: &str,
    at: Location,
) -> Option<DirectorySpec> {
    if let Some(found) = validation.layers.find(&["access", "directories"]) {
        let what = "access.directories is allowed only if microsoft_tenant_id is organizations or common";
        report_error(validation, what, "remove one of the two", found.location());
    }
    let domain = text.contains('.') && HostName::parse(text).is_some_and(|name| name.as_str() == text);
    let domain = domain.then(|| Arc::from(text)).filter(|_| text.parse::<std::net::IpAddr>().is_err());
    if let Some(directory) = parse_guid(text).or(domain) {
        return Some(DirectorySpec::One(directory));
    }
    let what = "microsoft_tenant_id must be the Directory (tenant) ID or one of the directory's domains";
    let help = match text {
        "consumers" => {
            "for personal accounts: common, with access: {personal_accounts: true, directories: […]}"
        }
        _ => OVERVIEW,
    };
    reject(validation, what, help, at)
}

fn reject_needless_personal_accounts(validation: &mut Validation<'_, '_>, audience: Option<Audience>) {
    let path = ["access", "personal_accounts"];
    if audience == Some(Audience::Common) || validation.layers.find_bool(&path) != Some(true) {
        return;
    }
    let at = validation.layers.find(&path).map(|found| found.location());
    validation.add_finding(
        Diagnostic::error(
            "login-invalid",
            "personal accounts can log in only if microsoft_tenant_id is common",
        )
        .help("remove personal_accounts, or write common and list access.directories"),
        at,
    );
}

fn report_error(validation: &mut Validation<'_, '_>, what: &str, help: &str, at: Location) {
    validation.add_finding(Diagnostic::error("login-invalid", what).help(help), Some(at));
}

fn reject<T>(validation: &mut Validation<'_, '_>, what: &str, help: &str, at: Location) -> Option<T> {
    report_error(validation, what, help, at);
    None
}
