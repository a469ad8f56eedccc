//! The revocation endpoint (RFC 7009): revoking any token of a login ends the whole login.

use std::net::IpAddr;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde_json::json;

use super::access_token;
use super::authentication::{Asked, Fault, authenticate};
use super::client::Clients;
use super::error::Unavailable;
use super::grants::Grants;
use super::parameters::Parameters;
use super::reply;
use crate::base::body::Body;
use crate::store::GrantId;
use crate::telemetry::audit::{Entry, Event};

/// Answers a request to `{prefix}/revoke`. A token that is unknown, expired or another client's is
/// no error (section 2.2).
pub(super) async fn answer(
    grants: &Grants,
    clients: &Clients,
    request: &Request<Bytes>,
    source: IpAddr,
) -> Response<Body> {
    if request.method() != Method::POST {
        return reply::method_not_allowed("POST");
    }
    match revoke(grants, clients, request, source).await {
        Ok(()) => reply::json(StatusCode::OK, &json!({})),
        Err(fault) => fault.answer(),
    }
}

async fn revoke(
    grants: &Grants,
    clients: &Clients,
    request: &Request<Bytes>,
    source: IpAddr,
) -> Result<(), Fault> {
    let parameters = Parameters::of_form(request.headers(), request.body())?;
    let asked = Asked { headers: request.headers(), parameters: &parameters, source };
    let caller = authenticate(&grants.issuer, clients, asked).await?;
    let token = parameters.one("token")?.ok_or(Fault::Malformed("token is missing"))?;
    let client_id = &*caller.client.id;
    let Some(grant) = meant(grants, token, client_id).await? else { return Ok(()) };
    grants.revoke(grant).await?;
    grants.issuer.ledger.audit.note(&Entry {
        client_id: Some(client_id),
        grant: Some(grant.to_string()),
        ..Entry::new(Event::Revocation, grants.issuer.tenant.as_str(), "ok")
    });
    Ok(())
}

/// Returns the grant of a token of this client.
async fn meant(grants: &Grants, token: &str, client_id: &str) -> Result<Option<GrantId>, Unavailable> {
    if let Some((grant, owner)) = grants.owner(token).await? {
        return Ok((owner == client_id).then_some(grant));
    }
    match grants.issuer.verify(token.as_bytes()).await {
        Ok(token) => Ok((*token.claims.client_id == *client_id).then_some(token.grant)),
        Err(access_token::Fault::Invalid) => Ok(None),
        Err(access_token::Fault::Unavailable) => Err(Unavailable),
    }
}
