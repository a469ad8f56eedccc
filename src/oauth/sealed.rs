//! Sealed texts that return to us: client ids, the blob in the consent form, the cookie of a login.
//! Only this gateway can create or read them, and a text of another tenant, another incarnation or
//! another purpose does not open.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::{Incarnation, Keyring, SealContext};

/// The purpose of a text. Each purpose has a key of its own per tenant.
#[derive(Debug, Clone, Copy)]
pub(super) struct SealPurpose(&'static str);

pub(super) const CLIENT_ID: SealPurpose = SealPurpose("client-id");
pub(super) const CONSENT: SealPurpose = SealPurpose("consent");
pub(super) const ACCOUNT: SealPurpose = SealPurpose("account");
pub(super) const ACCOUNT_FORM: SealPurpose = SealPurpose("account-form");
pub(super) const LOGIN: SealPurpose = SealPurpose("login");

/// Seals bytes into a URL-safe text. `row` is an additional value that the text is bound to.
pub(super) fn seal(
    keyring: &Keyring,
    purpose: SealPurpose,
    incarnation: &Incarnation,
    row: &str,
    value: &[u8],
) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(
        keyring.seal(&seal_context(purpose, incarnation, &bind_to_incarnation(incarnation, row)), value),
    )
}

/// Returns the bytes of a text that was sealed with the same purpose, incarnation and row.
pub(super) fn open(
    keyring: &Keyring,
    purpose: SealPurpose,
    incarnation: &Incarnation,
    row: &str,
    text: &str,
) -> Option<Vec<u8>> {
    let sealed = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    keyring.open(&seal_context(purpose, incarnation, &bind_to_incarnation(incarnation, row)), &sealed)
}

/// Seals a value in its JSON form.
pub(super) fn seal_value<T: Serialize>(
    keyring: &Keyring,
    purpose: SealPurpose,
    incarnation: &Incarnation,
    row: &str,
    value: &T,
) -> String {
    let value = serde_json::to_vec(value).expect("plain data can be written");
    seal(keyring, purpose, incarnation, row, &value)
}

/// Opens a value that was sealed in its JSON form.
pub(super) fn open_value<T: DeserializeOwned>(
    keyring: &Keyring,
    purpose: SealPurpose,
    incarnation: &Incarnation,
    row: &str,
    text: &str,
) -> Option<T> {
    serde_json::from_slice(&open(keyring, purpose, incarnation, row, text)?).ok()
}

/// Returns the bytes of a text of an earlier version, in which tenants had no incarnations.
pub(super) fn open_legacy(
    keyring: &Keyring,
    purpose: SealPurpose,
    incarnation: &Incarnation,
    text: &str,
) -> Option<Vec<u8>> {
    let sealed = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    keyring.open(&seal_context(purpose, incarnation, ""), &sealed)
}

/// Returns what a text is bound to besides its tenant and purpose. Earlier versions used no such
/// row.
fn bind_to_incarnation(incarnation: &Incarnation, row: &str) -> String {
    format!("life {} {row}", incarnation.id())
}

fn seal_context<'a>(purpose: SealPurpose, incarnation: &'a Incarnation, row: &'a str) -> SealContext<'a> {
    SealContext { purpose: purpose.0, tenant: incarnation.tenant(), row }
}
