//! The revocation endpoint (RFC 7009): revoking any token of a login ends the whole login.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::json;

use super::error::Error;
use crate::base::body::Body;
use crate::oauth::authorization_server::{AuthServer, RequestMeta};
use crate::oauth::client_auth::{ClientAuthError, ClientForm};
use crate::oauth::error::Unavailable;
use crate::oauth::response;
use crate::oauth::tokens::access_token::AccessTokenError;
use crate::store::GrantId;
use crate::telemetry::audit::{AuditEvent, AuditRecord};

/// Answers a request to `{prefix}/revoke`. A token that is unknown, expired or another client's is
/// no error (section 2.2).
pub(super) async fn handle(
    server: &AuthServer,
    request: Request<Bytes>,
    meta: RequestMeta<'_>,
) -> Result<Response<Body>, Error> {
    let form = ClientForm::parse(&request, meta)?;
    let caller = form.authenticate(server).await?;
    let token = form.parameters.require("token")?;
    let grant = find_grant(server, token, &caller.client.id).await.map_err(ClientAuthError::from)?;
    if let Some(grant) = grant {
        server.grants.revoke(grant).await.map_err(ClientAuthError::from)?;
        server.context.audit.record(&AuditRecord {
            client_addr: Some(meta.source),
            client_id: Some(&caller.client.id),
            grant: Some(grant.to_string()),
            ..AuditRecord::new(AuditEvent::Revocation, server.tenant.as_str(), "ok")
        });
    }
    Ok(response::json(StatusCode::OK, &json!({})))
}

/// Returns the grant of a token of this client.
async fn find_grant(
    server: &AuthServer,
    token: &str,
    client_id: &str,
) -> Result<Option<GrantId>, Unavailable> {
    if let Some((grant, owner)) = server.grants.find_refresh_token_client(token).await? {
        return Ok((owner == client_id).then_some(grant));
    }
    match server.issuer.verify(token.as_bytes()).await {
        Ok(token) => Ok((*token.claims.client_id == *client_id).then_some(token.grant_id)),
        Err(AccessTokenError::Invalid) => Ok(None),
        Err(AccessTokenError::Unavailable) => Err(Unavailable),
    }
}
