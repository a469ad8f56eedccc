//! Parses a client id metadata document (Client ID Metadata Document, section 4).

use std::sync::Arc;

use serde_json::Value;

use super::super::display_text;
use super::super::{ClientAuthMethods, ClientKeys, ClientOrigin, OAuthClient, RedirectUri};
use super::document_url::DocumentUrl;

const MOST_REDIRECT_URIS: usize = 20;

/// Why a document describes no usable client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum DocumentError {
    #[error("it is not a JSON object")]
    NotAnObject,
    #[error("its client_id is not its own URL")]
    OtherClient,
    #[error("it contains a secret, or requires authentication with one")]
    Secret,
    #[error("it has no usable redirect URI, or too many")]
    RedirectUris,
    #[error("its keys are not on its own host, or there are none")]
    Keys,
}

/// Returns the client that a document describes. `pinned` documents are part of this program.
pub(super) fn parse_client(
    url: &DocumentUrl,
    document: &Value,
    pinned: bool,
) -> Result<OAuthClient, DocumentError> {
    if !document.is_object() {
        return Err(DocumentError::NotAnObject);
    }
    if document["client_id"] != url.as_str() {
        return Err(DocumentError::OtherClient);
    }
    let name = document["client_name"].as_str().and_then(display_text::sanitize_name);
    Ok(OAuthClient {
        id: url.as_str().into(),
        name: name.map(Arc::from),
        origin: ClientOrigin::Document { host: url.host().into(), pinned },
        redirect_uris: parse_redirect_uris(document)?,
        authentication: parse_auth_methods(url, document)?,
    })
}

/// Returns the usable redirect URIs, without those that are not safe to redirect to.
fn parse_redirect_uris(document: &Value) -> Result<Vec<RedirectUri>, DocumentError> {
    let listed = document["redirect_uris"].as_array().ok_or(DocumentError::RedirectUris)?;
    if listed.len() > MOST_REDIRECT_URIS {
        return Err(DocumentError::RedirectUris);
    }
    let uris: Vec<_> = listed.iter().filter_map(|uri| RedirectUri::parse(uri.as_str()?).ok()).collect();
    if uris.is_empty() { Err(DocumentError::RedirectUris) } else { Ok(uris) }
}

/// Returns the authentication methods. Documents are public, so they must not contain or imply a
/// secret. ChatGPT names a preferred method and a list of methods: an assertion is verified if one
/// is sent.
fn parse_auth_methods(url: &DocumentUrl, document: &Value) -> Result<ClientAuthMethods, DocumentError> {
    if document.get("client_secret").is_some() || document.get("client_secret_expires_at").is_some() {
        return Err(DocumentError::Secret);
    }
    let method = document["token_endpoint_auth_method"].as_str().unwrap_or("none");
    if method.starts_with("client_secret") {
        return Err(DocumentError::Secret);
    }
    let listed = document["token_endpoint_auth_methods_supported"].as_array();
    let lists = |name: &str| method == name || listed.is_some_and(|list| list.iter().any(|one| one == name));
    let keys = if lists("private_key_jwt") { Some(parse_keys(url, document)?) } else { None };
    match (lists("none"), &keys) {
        (false, None) => Err(DocumentError::Keys),
        (none, _) => Ok(ClientAuthMethods { none, keys, ..ClientAuthMethods::default() }),
    }
}

fn parse_keys(url: &DocumentUrl, document: &Value) -> Result<ClientKeys, DocumentError> {
    if document["jwks"]["keys"].is_array() {
        return super::jwks::prune(&document["jwks"])
            .map(|set| ClientKeys::Inline(Arc::new(set)))
            .ok_or(DocumentError::Keys);
    }
    let at = document["jwks_uri"]
        .as_str()
        .and_then(|at| DocumentUrl::parse(at).ok())
        .ok_or(DocumentError::Keys)?;
    if at.host() == url.host() { Ok(ClientKeys::Url(at.as_str().into())) } else { Err(DocumentError::Keys) }
}
