//! The metadata documents of a tenant's login: of the protected resource (RFC 9728) and of the
//! authorization server (RFC 8414, with the members that OpenID Connect Discovery requires, for
//! clients that parse it as such).
//!
//! Every URL derives from the tenant's public URL, never from a request.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};

use super::error::Error;
use crate::base::body::Body;
use crate::oauth::authorization_server::AuthServer;
use crate::oauth::response;
use crate::oauth::scope::{MCP_SCOPE, OFFLINE_ACCESS_SCOPE};
use crate::routing::DiscoveryDocument;
use crate::spec::{DocumentPolicy, LoginSpec, PublicUrl, ResourceSpelling};

const METADATA_MAX_AGE: Duration = Duration::from_secs(300);
const JWKS_MAX_AGE: Duration = Duration::from_secs(600);

/// Answers a request for one of the documents, the JWK set (RFC 7517) among them.
pub(super) async fn handle(
    server: &AuthServer,
    document: DiscoveryDocument,
    request: Request<Bytes>,
) -> Result<Response<Body>, Error> {
    let (text, max_age) = match document {
        DiscoveryDocument::Resource(spelling) => {
            let metadata = protected_resource(&server.url, &server.title, spelling);
            (metadata.to_string().into(), METADATA_MAX_AGE)
        }
        DiscoveryDocument::AuthorizationServer => {
            (authorization_server(&server.url, &server.login).to_string().into(), METADATA_MAX_AGE)
        }
        DiscoveryDocument::Jwks => (server.issuer.jwks().await?, JWKS_MAX_AGE),
    };
    Ok(response::cacheable_json(text, max_age, request.headers()))
}

/// Returns the resource metadata (RFC 9728 section 2) for the requested spelling of the resource:
/// some clients compare it with the URL as typed.
fn protected_resource(url: &PublicUrl, title: &str, spelling: ResourceSpelling) -> Value {
    json!({
        "resource": url.resource_url(spelling),
        "authorization_servers": [url.as_str()],
        "scopes_supported": [MCP_SCOPE],
        "bearer_methods_supported": ["header"],
        "resource_name": title,
        "resource_documentation": url.join_path("/"),
    })
}

/// Returns the authorization server metadata (RFC 8414 section 2).
fn authorization_server(url: &PublicUrl, login: &LoginSpec) -> Value {
    let mut document = json!({
        "issuer": url.as_str(),
        "authorization_endpoint": url.join_path("/authorize"),
        "token_endpoint": url.join_path("/token"),
        "revocation_endpoint": url.join_path("/revoke"),
        "introspection_endpoint": url.join_path("/introspect"),
        "jwks_uri": url.join_path("/.well-known/jwks.json"),
        "scopes_supported": [MCP_SCOPE, OFFLINE_ACCESS_SCOPE],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post", "private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS256", "PS256", "ES256"],
        "revocation_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post", "private_key_jwt"],
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "protected_resources": [url.resource_url(ResourceSpelling::Connector)],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    let takes_documents = login.registration.documents != DocumentPolicy::Off;
    document["client_id_metadata_document_supported"] = takes_documents.into();
    if login.registration.dynamic {
        document["registration_endpoint"] = url.join_path("/register").into();
    }
    if let (false, Value::Array(grants)) =
        (login.machine_clients.is_empty(), &mut document["grant_types_supported"])
    {
        grants.push("client_credentials".into());
    }
    document
}
