//! Login with Microsoft, which this version cannot do: whoever asks for it is refused, never served openly.

use super::Case;
use crate::base::diagnostic::Diagnostic;

/// The app registration's fields.
pub(super) const MICROSOFT: &[&str] =
    &["microsoft_client_id", "microsoft_client_secret", "microsoft_tenant_id"];

/// Refuses tenants that ask for a login, and those whose Microsoft values leave in doubt whether they do.
pub(super) fn refuse(case: &mut Case<'_, '_>) {
    let layers = case.layers;
    let given: Vec<&str> = MICROSOFT.iter().copied().filter(|name| is_given(case, name)).collect();
    match layers.find(&["oauth_enabled"]) {
        Some(found) if found.text().and_then(super::fields::flag) == Some(true) => {
            name_missing(case, &given);
            case.find(
                Diagnostic::error(
                    "login-unavailable",
                    "Microsoft login is not available in this version; the tenant stays closed",
                )
                .help("remove the tenant until it is, or say oauth_enabled: false and list api_keys instead"),
                Some(found.at()),
            );
        }
        Some(_) => {}
        None => switchless(case, &given),
    }
}

fn is_given(case: &Case<'_, '_>, name: &str) -> bool {
    let file = format!("{name}_file");
    case.layers.find(&[name]).is_some() || case.layers.find(&[&file]).is_some()
}

fn name_missing(case: &mut Case<'_, '_>, given: &[&str]) {
    let missing: Vec<&str> = MICROSOFT.iter().copied().filter(|name| !given.contains(name)).collect();
    if missing.is_empty() {
        return;
    }
    let variables: Vec<String> = missing.iter().map(|name| name.to_ascii_uppercase()).collect();
    let at = case.layers.find(&["oauth_enabled"]).map(|found| found.at());
    case.find(
        Diagnostic::error("login-incomplete", format!("Missing required env vars {}", variables.join(", ")))
            .help(format!(
                "oauth_enabled needs {} too, from the app registration in Entra",
                missing.join(", ")
            )),
        at,
    );
}

fn switchless(case: &mut Case<'_, '_>, given: &[&str]) {
    let Some(first) = given.first() else { return };
    let at = case.layers.find(&[first]).map(|found| found.at());
    case.find(
        Diagnostic::error(
            "login-in-doubt",
            format!("{} given, but oauth_enabled says neither true nor false", and_is(given)),
        )
        .help("say oauth_enabled: false if nobody is to log in; until then the tenant stays closed"),
        at,
    );
}

fn and_is(names: &[&str]) -> String {
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}
