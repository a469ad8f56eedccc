//! Who may call: people who log in and meet the rules, holders of static keys, or everybody. In
//! doubt the tenant is closed.

use std::sync::Arc;

use super::case::Validation;
use super::{api_keys, fingerprint, login};
use crate::base::diagnostic::{Diagnostic, Severity};
use crate::base::digest::Digest;
use crate::spec::AccessSpec;

/// Returns the access rules, and the digest of everything that decides who may call, unless some of
/// that could not be read with certainty.
pub(super) fn validate(case: &mut Validation<'_, '_>) -> (AccessSpec, Option<Digest>) {
    // Errors in the app's client secrets leave no doubt about who may call, so they are read before
    // the count.
    let secrets = login::secrets(case);
    let before = count_errors(case);
    let declared = api_keys::find_declared(case);
    let api_keys = declared.map(|found| api_keys::validate(case, &found)).unwrap_or_default();
    let login = login::validate(case, secrets, declared.is_some()).map(Arc::new);
    let public = case.layers.find_bool(&["public"]).unwrap_or(false);
    let open_on_purpose = public || case.layers.find_bool(&["open"]).unwrap_or(false);
    let access = AccessSpec { api_keys, login, public, open_on_purpose };
    for lookalike in case.lookalikes {
        // A file with a similar name may be the one that was meant to restrict this tenant.
        lookalike.to_diagnostic(access.is_open()).into_iter().for_each(|found| case.report.push(found));
    }
    let certain =
        count_errors(case) == before && !case.layers.0.iter().any(|document| document.is_access_uncertain);
    let digest = certain.then(|| fingerprint::compute(case, &access));
    let asks_for_nothing = access.is_open() && declared.is_none() && !case.is_login_enabled();
    match asks_for_nothing {
        true => reject_if_auth_is_required(case),
        false => ["public", "open"].into_iter().for_each(|name| report_if_needless(case, name)),
    }
    (access, digest)
}

fn count_errors(case: &Validation<'_, '_>) -> usize {
    case.report.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
}

fn reject_if_auth_is_required(case: &mut Validation<'_, '_>) {
    if !case.context.require_auth {
        return;
    }
    case.add_finding(
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
fn report_if_needless(case: &mut Validation<'_, '_>, name: &'static str) {
    if case.layers.find_bool(&[name]) != Some(true) {
        return;
    }
    let at = case.locate(&[name]);
    let what = format!("{name} has no effect: callers from every network need a credential");
    case.add_finding(Diagnostic::notice("public-needless", what).help("remove the line"), at);
}
