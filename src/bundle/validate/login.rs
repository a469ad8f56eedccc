//! Login of people. An incomplete configuration is neither completed nor ignored: the tenant stays
//! closed. The fields of the provider are in `entra`, the only one there is.

use std::sync::Arc;
use std::time::Duration;

use super::machine_clients::{self, ReservedId};
use super::validation::Validation;
use super::{access_rules, entra, registration};
use crate::base::diagnostic::Diagnostic;
use crate::base::secret::Secret;
use crate::spec::{LoginSpec, MAX_ACCESS_TOKEN_LIFETIME, ProviderSpec};

/// The fields of the provider's app, all required.
pub(super) const PROVIDER_FIELDS: [&str; 3] = entra::FIELDS;
/// Fields that have a meaning only with a login.
const LOGIN_ONLY_FIELDS: [&str; 4] = ["access", "machine_clients", "registration", "access_token_minutes"];

/// Returns the secrets of the provider's app, the current one first.
pub(super) fn secrets(validation: &mut Validation<'_, '_>) -> Vec<Secret> {
    entra::secrets(validation)
}

/// Validates everything about logins.
pub(super) fn validate(
    validation: &mut Validation<'_, '_>,
    secrets: Vec<Secret>,
    has_keys: bool,
) -> Option<LoginSpec> {
    if !validation.is_login_enabled() {
        report_missing_switch(validation);
        reject_login_only_fields(validation);
        return None;
    }
    report_missing_fields(validation);
    reject_api_keys(validation, has_keys);
    let provider = entra::validate(validation, secrets);
    let rules = access_rules::validate(validation);
    let tools = access_rules::validate_tools(validation);
    let reserved = ReservedId { id: entra::find_client_id(validation), why: entra::ID_IS_TAKEN };
    let machine_clients = machine_clients::validate(validation, &reserved);
    let registration = registration::validate(validation);
    let access_token_lifetime = read_access_token_lifetime(validation);
    let provider = ProviderSpec::Entra(Arc::new(provider?));
    Some(LoginSpec { provider, rules, tools, machine_clients, registration, access_token_lifetime })
}

/// Returns the lifetime of access tokens. A number out of bounds is a finding already.
fn read_access_token_lifetime(validation: &Validation<'_, '_>) -> Duration {
    let minutes = validation.layers.find_text(&["access_token_minutes"]);
    let minutes: Option<u64> = minutes.and_then(|text| text.parse().ok());
    let lifetime = minutes.map(|minutes| Duration::from_secs(minutes.saturating_mul(60)));
    lifetime.map_or(MAX_ACCESS_TOKEN_LIFETIME, |lifetime| lifetime.min(MAX_ACCESS_TOKEN_LIFETIME))
}

fn is_given(validation: &Validation<'_, '_>, name: &str) -> bool {
    validation.layers.find_secret(name).is_some()
}

fn report_missing_fields(validation: &mut Validation<'_, '_>) {
    let missing: Vec<&str> = PROVIDER_FIELDS.into_iter().filter(|name| !is_given(validation, name)).collect();
    if missing.is_empty() {
        return;
    }
    let variables: Vec<String> = missing.iter().map(|name| name.to_ascii_uppercase()).collect();
    let at = validation.layers.find(&["oauth_enabled"]).map(|found| found.location());
    // The vendor's own sentence.
    validation.add_finding(
        Diagnostic::error("login-incomplete", format!("Missing required env vars {}", variables.join(", ")))
            .help(format!(
                "oauth_enabled needs {} too, from {}; until then the tenant stays closed",
                missing.join(", "),
                entra::APP
            )),
        at,
    );
}

/// Refuses static keys beside a login: hosted clients that discover a login use it, and programs
/// have `machine_clients`; two kinds of credentials would need two discoveries.
fn reject_api_keys(validation: &mut Validation<'_, '_>, has_keys: bool) {
    if !has_keys {
        return;
    }
    let at = validation.find_written(&["api_keys"]).map(|found| found.location());
    validation.add_finding(
        Diagnostic::error(
            "api-keys-with-login",
            "a tenant has either a login or api_keys, and this one has both",
        )
        .help("list programs as machine_clients, or create another tenant with api_keys for them"),
        at,
    );
}

fn report_missing_switch(validation: &mut Validation<'_, '_>) {
    if validation.layers.find(&["oauth_enabled"]).is_some() {
        return;
    }
    let all = PROVIDER_FIELDS.into_iter().chain([entra::NEXT_SECRET]);
    let given_names: Vec<&str> = all.filter(|name| is_given(validation, name)).collect();
    let Some(at) = given_names
        .first()
        .and_then(|first| validation.layers.find_secret(first))
        .map(|found| found.location())
    else {
        return;
    };
    let names = given_names.join(", ");
    let verb = if given_names.len() == 1 { "is" } else { "are" };
    validation.add_finding(
        Diagnostic::error(
            "login-in-doubt",
            format!("{names} {verb} set, but oauth_enabled is neither true nor false"),
        )
        .help(
            "write oauth_enabled: true if people should log in, or false if not; until then the tenant stays \
             closed",
        ),
        Some(at),
    );
}

/// Refuses rules for people who log in where there is no login: ignoring them would open what their
/// author meant to restrict.
fn reject_login_only_fields(validation: &mut Validation<'_, '_>) {
    for name in LOGIN_ONLY_FIELDS {
        let Some(found) = validation.find_written(&[name]) else { continue };
        validation.add_finding(
            Diagnostic::error(
                "access-without-login",
                format!("{name} needs a login; the tenant stays closed"),
            )
            .help(format!("write oauth_enabled: true with {}, or remove it and use api_keys", entra::VALUES)),
            Some(found.location()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::fields;

    #[test]
    fn every_field_of_a_login_is_a_guard() {
        for name in PROVIDER_FIELDS.into_iter().chain(["oauth_enabled", entra::NEXT_SECRET]) {
            let field = fields::TENANT.iter().find(|field| field.name == name).expect("a field");
            assert!(fields::is_guard(field), "{name} lacks .for_login() in fields.rs");
        }
    }
}
