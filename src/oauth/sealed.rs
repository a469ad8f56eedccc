//! Sealed texts that return to us: client ids, the blob in the consent form, the cookie of a login.
//! Only this gateway can create or read them, and a text of another tenant, another life or another
//! purpose does not open.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::{Life, Place, Store};

/// The purpose of a text. Each purpose has a key of its own per tenant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Purpose(&'static str);

pub(super) const CLIENT_ID: Purpose = Purpose("client-id");
pub(super) const CONSENT: Purpose = Purpose("consent");
pub(super) const LOGIN: Purpose = Purpose("login");

/// Seals bytes into a URL-safe text. `row` is an additional value that the text is bound to.
pub(super) fn seal(store: &Store, purpose: Purpose, life: &Life, row: &str, value: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(store.seal(&place(purpose, life, &of_life(life, row)), value))
}

/// Returns the bytes of a text that was sealed with the same purpose, life and row.
pub(super) fn open(store: &Store, purpose: Purpose, life: &Life, row: &str, text: &str) -> Option<Vec<u8>> {
    let sealed = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    store.open_sealed(&place(purpose, life, &of_life(life, row)), &sealed)
}

/// Seals a value in its JSON form.
pub(super) fn seal_value<T: Serialize>(
    store: &Store,
    purpose: Purpose,
    life: &Life,
    row: &str,
    value: &T,
) -> String {
    let value = serde_json::to_vec(value).expect("plain data can be written");
    seal(store, purpose, life, row, &value)
}

/// Opens a value that was sealed in its JSON form.
pub(super) fn open_value<T: DeserializeOwned>(
    store: &Store,
    purpose: Purpose,
    life: &Life,
    row: &str,
    text: &str,
) -> Option<T> {
    serde_json::from_slice(&open(store, purpose, life, row, text)?).ok()
}

/// Returns the bytes of a text of an earlier version, in which tenants had no lives.
pub(super) fn open_without_life(store: &Store, purpose: Purpose, life: &Life, text: &str) -> Option<Vec<u8>> {
    let sealed = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    store.open_sealed(&place(purpose, life, ""), &sealed)
}

/// Returns what a text is bound to besides its tenant and purpose. Earlier versions used no such
/// row.
fn of_life(life: &Life, row: &str) -> String {
    format!("life {} {row}", life.id())
}

fn place<'a>(purpose: Purpose, life: &'a Life, row: &'a str) -> Place<'a> {
    Place { purpose: purpose.0, tenant: life.tenant(), row }
}
