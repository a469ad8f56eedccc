//! Who may call: people who log in and meet the rules, holders of static keys, or everybody. In
//! doubt the tenant is closed.

use std::sync::Arc;

use super::validation::Validation;
use super::{access_rules, api_keys, fingerprint, login};
use crate::base::diagnostic::{Diagnostic, Severity};
use crate::base::digest::Digest;
use crate::spec::AccessSpec;

/// Returns the access rules, and the digest of everything that decides who may call, unless some of
/// that could not be read with certainty.
pub(super) fn validate(validation: &mut Validation<'_, '_>) -> (AccessSpec, Option<Digest>) {
    // Errors in the app's client secrets leave no doubt about who may call, so they are read before
    // the count.
    let secrets = login::secrets(validation);
    let before = count_errors(validation);
    let declared = api_keys::find_declared(validation);
    let api_keys = declared.map(|found| api_keys::validate(validation, &found)).unwrap_or_default();
    let login = login::validate(validation, secrets, declared.is_some()).map(Arc::new);
    let public = validation.layers.find_bool(&["public"]).unwrap_or(false);
    let open_on_purpose = public || validation.layers.find_bool(&["open"]).unwrap_or(false);
    let allow_from = access_rules::read_allow_from(validation);
    let access = AccessSpec { api_keys, login, public, open_on_purpose, allow_from };
    for lookalike in validation.lookalikes {
        // A file with a similar name may be the one that was meant to restrict this tenant.
        lookalike.to_diagnostic(access.is_open()).into_iter().for_each(|found| validation.report.push(found));
    }
    let certain = count_errors(validation) == before
        && !validation.layers.0.iter().any(|document| document.is_access_uncertain);
    let digest = certain.then(|| fingerprint::compute(validation, &access));
    let asks_for_nothing = access.is_open() && declared.is_none() && !validation.is_login_enabled();
    match asks_for_nothing {
        true => reject_if_auth_is_required(validation),
        false => ["public", "open"].into_iter().for_each(|name| report_if_needless(validation, name)),
    }
    (access, digest)
}

fn count_errors(validation: &Validation<'_, '_>) -> usize {
    validation.report.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
}

fn reject_if_auth_is_required(validation: &mut Validation<'_, '_>) {
    if !validation.context.require_auth {
        return;
    }
    validation.add_finding(
        Diagnostic::error(
            "open-tenant",
            "the tenant requires no credential, and this gateway refuses open tenants",
        )
        .help(
            "turn on login (oauth_enabled: true), or list api_keys in its .yaml (tenantd apikey new creates \
             one), or run without --require-auth",
        ),
        None,
    );
}

/// Reports a field that opens a tenant beside what closes it.
fn report_if_needless(validation: &mut Validation<'_, '_>, name: &'static str) {
    if validation.layers.find_bool(&[name]) != Some(true) {
        return;
    }
    let at = validation.locate(&[name]);
    let what = format!("{name} has no effect: callers from every network need a credential");
    validation.add_finding(Diagnostic::notice("public-needless", what).help("remove the line"), at);
}
