//! The revocation endpoint (RFC 7009): revoking any token of a login ends the whole login.

use std::net::IpAddr;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde_json::json;

use super::access_token;
use super::client::ClientRegistry;
use super::client_auth::{ClientAuthError, ClientRequest, authenticate};
use super::error::Unavailable;
use super::grants::Grants;
use super::parameters::Parameters;
use super::response;
use crate::base::body::Body;
use crate::store::GrantId;
use crate::telemetry::audit::{AuditEvent, AuditRecord};

/// Answers a request to `{prefix}/revoke`. A token that is unknown, expired or another client's is
/// no error (section 2.2).
pub(super) async fn handle(
    grants: &Grants,
    clients: &ClientRegistry,
    request: &Request<Bytes>,
    source: IpAddr,
) -> Response<Body> {
    if request.method() != Method::POST {
        return response::method_not_allowed("POST");
    }
    match revoke(grants, clients, request, source).await {
        Ok(()) => response::json(StatusCode::OK, &json!({})),
        Err(fault) => fault.into_response(),
    }
}

async fn revoke(
    grants: &Grants,
    clients: &ClientRegistry,
    request: &Request<Bytes>,
    source: IpAddr,
) -> Result<(), ClientAuthError> {
    let parameters = Parameters::from_form(request.headers(), request.body())?;
    let asked = ClientRequest { headers: request.headers(), parameters: &parameters, source };
    let caller = authenticate(&grants.issuer, clients, asked).await?;
    let token = parameters.get("token")?.ok_or(ClientAuthError::Malformed("token is missing"))?;
    let client_id = &*caller.client.id;
    let Some(grant) = find_grant(grants, token, client_id).await? else { return Ok(()) };
    grants.revoke(grant).await?;
    grants.issuer.context.audit.record(&AuditRecord {
        client_id: Some(client_id),
        grant: Some(grant.to_string()),
        ..AuditRecord::new(AuditEvent::Revocation, grants.issuer.tenant.as_str(), "ok")
    });
    Ok(())
}

/// Returns the grant of a token of this client.
async fn find_grant(grants: &Grants, token: &str, client_id: &str) -> Result<Option<GrantId>, Unavailable> {
    if let Some((grant, owner)) = grants.find_refresh_token_client(token).await? {
        return Ok((owner == client_id).then_some(grant));
    }
    match grants.issuer.verify(token.as_bytes()).await {
        Ok(token) => Ok((*token.claims.client_id == *client_id).then_some(token.grant_id)),
        Err(access_token::AccessTokenError::Invalid) => Ok(None),
        Err(access_token::AccessTokenError::Unavailable) => Err(Unavailable),
    }
}
