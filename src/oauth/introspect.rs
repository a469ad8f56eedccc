//! The introspection endpoint (RFC 7662), for authenticated clients. A client that registered
//! itself gets answers about its own tokens only.

use std::net::IpAddr;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::access_token::{self, AccessToken};
use super::client::{ClientOrigin, ClientRegistry};
use super::client_auth::{AuthenticatedClient, ClientAuthError, ClientRequest, authenticate};
use super::grants::Grants;
use super::parameters::Parameters;
use super::response;
use crate::base::body::Body;

/// Answers a request to `{prefix}/introspect`.
pub(super) async fn handle(
    grants: &Grants,
    clients: &ClientRegistry,
    request: &Request<Bytes>,
    source: IpAddr,
) -> Response<Body> {
    if request.method() != Method::POST {
        return response::method_not_allowed("POST");
    }
    match introspect(grants, clients, request, source).await {
        Ok(document) => response::json(StatusCode::OK, &document),
        Err(fault) => fault.into_response(),
    }
}

async fn introspect(
    grants: &Grants,
    clients: &ClientRegistry,
    request: &Request<Bytes>,
    source: IpAddr,
) -> Result<Value, ClientAuthError> {
    let parameters = Parameters::from_form(request.headers(), request.body())?;
    let asked = ClientRequest { headers: request.headers(), parameters: &parameters, source };
    let caller = authenticate(&grants.issuer, clients, asked).await?;
    if !caller.is_proven {
        return Err(ClientAuthError::Invalid { basic: false });
    }
    let token = parameters.get("token")?.ok_or(ClientAuthError::Malformed("token is missing"))?;
    match grants.verify_access_token(token.as_bytes()).await {
        Ok(token)
            if is_allowed_to_introspect(&caller, &token) && grants.check_current_rules(&token).is_ok() =>
        {
            Ok(introspection_response(&token))
        }
        Ok(_) | Err(access_token::AccessTokenError::Invalid) => Ok(json!({ "active": false })),
        Err(access_token::AccessTokenError::Unavailable) => Err(ClientAuthError::Unavailable),
    }
}

fn is_allowed_to_introspect(caller: &AuthenticatedClient, token: &AccessToken) -> bool {
    match caller.client.origin {
        ClientOrigin::Operator | ClientOrigin::Machine => true,
        ClientOrigin::Registered | ClientOrigin::Document { .. } => {
            token.claims.client_id == caller.client.id
        }
    }
}

fn introspection_response(token: &AccessToken) -> Value {
    let mut document = serde_json::to_value(&token.claims).expect("claims are plain data");
    document["active"] = true.into();
    document["token_type"] = "Bearer".into();
    if let Some(name) = token.resource_owner.as_ref().and_then(|holder| holder.person.username.as_deref()) {
        document["username"] = name.into();
    }
    document
}
