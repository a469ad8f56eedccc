//! The introspection endpoint (RFC 7662), for authenticated clients. A client that registered
//! itself gets answers about its own tokens only.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};

use super::error::Error;
use crate::base::body::Body;
use crate::oauth::authorization_server::{AuthServer, RequestMeta};
use crate::oauth::client::ClientOrigin;
use crate::oauth::client_auth::{AuthenticatedClient, ClientAuthError, ClientForm};
use crate::oauth::response;
use crate::oauth::tokens::access_token::{AccessToken, AccessTokenError};

/// Answers a request to `{prefix}/introspect`.
pub(super) async fn handle(
    server: &AuthServer,
    request: Request<Bytes>,
    meta: RequestMeta<'_>,
) -> Result<Response<Body>, Error> {
    let form = ClientForm::parse(&request, meta)?;
    let caller = form.authenticate(server).await?;
    if !caller.is_proven {
        return Err(Error::InvalidClient { basic: false });
    }
    let token = form.parameters.require("token")?;
    let document = match server.grants.verify_access_token(token.as_bytes()).await {
        Ok(token) if is_visible(&token, &caller) && server.grants.check_current_rules(&token).is_ok() => {
            introspection_response(&token)
        }
        Ok(_) | Err(AccessTokenError::Invalid) => json!({ "active": false }),
        Err(AccessTokenError::Unavailable) => return Err(ClientAuthError::Unavailable.into()),
    };
    Ok(response::json(StatusCode::OK, &document))
}

fn is_visible(token: &AccessToken, caller: &AuthenticatedClient) -> bool {
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
    if let Some(name) = token.resource_owner.as_ref().and_then(|holder| holder.account.username.as_deref()) {
        document["username"] = name.into();
    }
    document
}
