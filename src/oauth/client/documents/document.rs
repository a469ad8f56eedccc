//! Parses a client id metadata document (Client ID Metadata Document, section 4).

use std::sync::Arc;

use serde_json::Value;

use super::super::text;
use super::super::{Authentication, Client, Keys, Origin, RedirectUri};
use super::address::DocumentUrl;

const MOST_REDIRECT_URIS: usize = 20;

/// Why a document describes no usable client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("it is not a JSON object")]
    NotAnObject,
    #[error("its client_id is not its own address")]
    OtherClient,
    #[error("it holds a secret, or wants to prove itself by one")]
    Secret,
    #[error("it has no usable redirect URI, or too many")]
    RedirectUris,
    #[error("its keys are not on its own host, or are none")]
    Keys,
}

/// Returns the client that a document describes. `pinned` documents are part of this program.
pub(super) fn client(url: &DocumentUrl, document: &Value, pinned: bool) -> Result<Client, Fault> {
    if !document.is_object() {
        return Err(Fault::NotAnObject);
    }
    if document["client_id"] != url.as_str() {
        return Err(Fault::OtherClient);
    }
    let name = document["client_name"].as_str().and_then(text::name);
    Ok(Client {
        id: url.as_str().into(),
        name: name.map(Arc::from),
        origin: Origin::Document { host: url.host().into(), pinned },
        redirect_uris: redirect_uris(document)?,
        authentication: authentication(url, document)?,
    })
}

/// Returns the usable redirect URIs, without those that are not safe to redirect to.
fn redirect_uris(document: &Value) -> Result<Vec<RedirectUri>, Fault> {
    let listed = document["redirect_uris"].as_array().ok_or(Fault::RedirectUris)?;
    if listed.len() > MOST_REDIRECT_URIS {
        return Err(Fault::RedirectUris);
    }
    let uris: Vec<_> = listed.iter().filter_map(|uri| RedirectUri::parse(uri.as_str()?).ok()).collect();
    if uris.is_empty() { Err(Fault::RedirectUris) } else { Ok(uris) }
}

/// Returns the authentication methods. Documents are public, so they must not contain or imply a
/// secret. ChatGPT names a preferred method and a list of methods: an assertion is verified if one
/// is sent.
fn authentication(url: &DocumentUrl, document: &Value) -> Result<Authentication, Fault> {
    if document.get("client_secret").is_some() || document.get("client_secret_expires_at").is_some() {
        return Err(Fault::Secret);
    }
    let method = document["token_endpoint_auth_method"].as_str().unwrap_or("none");
    if method.starts_with("client_secret") {
        return Err(Fault::Secret);
    }
    let listed = document["token_endpoint_auth_methods_supported"].as_array();
    let lists = |name: &str| method == name || listed.is_some_and(|list| list.iter().any(|one| one == name));
    let keys = if lists("private_key_jwt") { Some(keys(url, document)?) } else { None };
    match (lists("none"), &keys) {
        (false, None) => Err(Fault::Keys),
        (none, _) => Ok(Authentication { none, keys, ..Authentication::default() }),
    }
}

fn keys(url: &DocumentUrl, document: &Value) -> Result<Keys, Fault> {
    if document["jwks"]["keys"].is_array() {
        return super::jwks::pruned(&document["jwks"]).map(|set| Keys::Set(Arc::new(set))).ok_or(Fault::Keys);
    }
    let at = document["jwks_uri"].as_str().and_then(|at| DocumentUrl::parse(at).ok()).ok_or(Fault::Keys)?;
    if at.host() == url.host() { Ok(Keys::At(at.as_str().into())) } else { Err(Fault::Keys) }
}
