//! Login with Microsoft. An incomplete configuration is neither completed nor ignored: the tenant
//! stays closed.

use std::sync::Arc;

use super::case::Validation;
use super::guid::parse_guid;
use super::{access_rules, machine_clients, registration};
use crate::base::diagnostic::{Diagnostic, Location};
use crate::base::secret::Secret;
use crate::bundle::placeholder::{QUOTED, is_placeholder, is_quoted};
use crate::spec::{Audience, DirectorySpec, HostName, IdentitySpec, LoginSpec};

/// The app registration's fields, all required.
pub(super) const MICROSOFT: &[&str] =
    &["microsoft_client_id", "microsoft_client_secret", "microsoft_tenant_id"];
const NEXT_SECRET: &str = "microsoft_client_secret_next";
/// Fields that have a meaning only with a login.
const OF_LOGINS: [&str; 3] = ["access", "machine_clients", "registration"];
const ENTRA: &str = "copy it from the app registration's overview in Entra";

/// Returns the app's secrets, the current one first.
pub(super) fn secrets(case: &mut Validation<'_, '_>) -> Vec<Secret> {
    ["microsoft_client_secret", NEXT_SECRET].into_iter().filter_map(|name| secret(case, name)).collect()
}

/// Validates everything about logins.
pub(super) fn validate(
    case: &mut Validation<'_, '_>,
    secrets: Vec<Secret>,
    has_keys: bool,
) -> Option<LoginSpec> {
    if !case.is_login_enabled() {
        report_missing_switch(case);
        without_login(case);
        return None;
    }
    name_missing(case);
    reject_api_keys(case, has_keys);
    let client_id = client_id(case);
    let directory = directory(case);
    let rules = access_rules::validate(case);
    let tools = access_rules::validate_tools(case);
    let machine_clients = machine_clients::validate(case);
    let registration = registration::validate(case);
    let identity = IdentitySpec {
        client_id: client_id?,
        client_secrets: secrets,
        directory: directory?,
        allow_guests: case.layers.find_bool(&["access", "guests"]).unwrap_or(false),
        allow_personal_accounts: case.layers.find_bool(&["access", "personal_accounts"]).unwrap_or(false),
    };
    let complete = !identity.client_secrets.is_empty();
    complete.then_some(LoginSpec { identity, rules, tools, machine_clients, registration })
}

fn is_given(case: &Validation<'_, '_>, name: &str) -> bool {
    case.layers.find_secret(name).is_some()
}

fn name_missing(case: &mut Validation<'_, '_>) {
    let missing: Vec<&str> = MICROSOFT.iter().copied().filter(|name| !is_given(case, name)).collect();
    if missing.is_empty() {
        return;
    }
    let variables: Vec<String> = missing.iter().map(|name| name.to_ascii_uppercase()).collect();
    let at = case.layers.find(&["oauth_enabled"]).map(|found| found.location());
    case.add_finding(
        Diagnostic::error("login-incomplete", format!("Missing required env vars {}", variables.join(", ")))
            .help(format!(
                "oauth_enabled needs {} too, from the app registration in Entra; until then the tenant stays closed",
                missing.join(", ")
            )),
        at,
    );
}

/// Refuses static keys beside a login: hosted clients that discover a login use it, and programs
/// have `machine_clients`; two kinds of credentials would need two discoveries.
fn reject_api_keys(case: &mut Validation<'_, '_>, has_keys: bool) {
    if !has_keys {
        return;
    }
    let at = case.find_written(&["api_keys"]).map(|found| found.location());
    case.add_finding(
        Diagnostic::error(
            "api-keys-with-login",
            "a tenant has either a login or api_keys, and this one has both",
        )
        .help("list programs as machine_clients, or give them a tenant of their own with api_keys"),
        at,
    );
}

fn report_missing_switch(case: &mut Validation<'_, '_>) {
    if case.layers.find(&["oauth_enabled"]).is_some() {
        return;
    }
    let all = MICROSOFT.iter().chain([&NEXT_SECRET]);
    let given_names: Vec<&str> = all.copied().filter(|name| is_given(case, name)).collect();
    let Some(at) =
        given_names.first().and_then(|first| case.layers.find_secret(first)).map(|found| found.location())
    else {
        return;
    };
    let names = given_names.join(", ");
    let verb = if given_names.len() == 1 { "is" } else { "are" };
    case.add_finding(
        Diagnostic::error(
            "login-in-doubt",
            format!("{names} {verb} given, but oauth_enabled says neither true nor false"),
        )
        .help(
            "say oauth_enabled: true for people to log in, or false if nobody is to; until then the tenant stays closed",
        ),
        Some(at),
    );
}

/// Refuses rules for people who log in where there is no login: ignoring them would open what their
/// author meant to restrict.
fn without_login(case: &mut Validation<'_, '_>) {
    for name in OF_LOGINS {
        let Some(found) = case.find_written(&[name]) else { continue };
        case.add_finding(
            Diagnostic::error(
                "access-without-login",
                format!("{name} counts only where people log in; the tenant stays closed"),
            )
            .help("say oauth_enabled: true with the Microsoft values, or remove it and use api_keys"),
            Some(found.location()),
        );
    }
}

fn secret(case: &mut Validation<'_, '_>, name: &'static str) -> Option<Secret> {
    let document = case.layers.find_secret(name).filter(|_| case.is_login_enabled())?.document;
    let resolved = case.resolve_member(document, &document.root, name)?;
    let text = resolved.secret.expose();
    let what = match text {
        text if is_placeholder(text) => format!("{name} is still a placeholder"),
        text if is_quoted(text) => format!("{name} {QUOTED}"),
        // Entra shows the id and the value side by side, and only the value works.
        text if parse_guid(text).is_some() => {
            format!("{name} looks like the secret's id, not like its value")
        }
        text if text.len() > 512 => format!("{name} is no client secret"),
        text if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            format!("{name} has a blank, a quote or an invisible character that came along when copying")
        }
        _ => return Some(resolved.secret),
    };
    let help = "in Entra, under Certificates & secrets, make a new secret and copy the column Value";
    refuse(case, &what, help, resolved.at)
}

fn client_id(case: &mut Validation<'_, '_>) -> Option<Arc<str>> {
    let found = case.layers.find(&["microsoft_client_id"])?;
    match parse_guid(found.text()?) {
        Some(id) => Some(id),
        None => {
            let what =
                "microsoft_client_id must be the Application (client) ID, 8-4-4-4-12 hexadecimal digits";
            refuse(case, what, ENTRA, found.location())
        }
    }
}

fn directory(case: &mut Validation<'_, '_>) -> Option<DirectorySpec> {
    let found = case.layers.find(&["microsoft_tenant_id"])?;
    let text = found.text()?.to_ascii_lowercase();
    let audience = match text.as_str() {
        "organizations" => Some(Audience::Organizations),
        "common" => Some(Audience::Common),
        _ => None,
    };
    needless_personal(case, audience);
    match audience {
        Some(audience) => several(case, audience, found.location()),
        None => one(case, &text, found.location()),
    }
}

fn several(case: &mut Validation<'_, '_>, audience: Audience, at: Location) -> Option<DirectorySpec> {
    let allowed = access_rules::read_guids(case, &["access", "directories"], "directories");
    if !allowed.is_empty() {
        return Some(DirectorySpec::Several { audience, allowed });
    }
    let name = audience.as_str();
    let what =
        format!("microsoft_tenant_id is {name}, and access.directories does not say which directories count");
    let help =
        "list the ids of the directories whose accounts may log in: access: {directories: [<directory id>]}";
    refuse(case, &what, help, at)
}

fn one(case: &mut Validation<'_, '_>, text: &str, at: Location) -> Option<DirectorySpec> {
    if let Some(found) = case.layers.find(&["access", "directories"]) {
        let what = "access.directories counts only where microsoft_tenant_id is organizations or common";
        refuse::<()>(case, what, "remove one of the two", found.location());
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
        _ => ENTRA,
    };
    refuse(case, what, help, at)
}

fn needless_personal(case: &mut Validation<'_, '_>, audience: Option<Audience>) {
    let path = ["access", "personal_accounts"];
    if audience == Some(Audience::Common) || case.layers.find_bool(&path) != Some(true) {
        return;
    }
    let at = case.layers.find(&path).map(|found| found.location());
    case.add_finding(
        Diagnostic::error(
            "login-invalid",
            "personal accounts log in only where microsoft_tenant_id is common",
        )
        .help("remove personal_accounts, or say common and list access.directories"),
        at,
    );
}

fn refuse<T>(case: &mut Validation<'_, '_>, what: &str, help: &str, at: Location) -> Option<T> {
    case.add_finding(Diagnostic::error("login-invalid", what).help(help), Some(at));
    None
}
