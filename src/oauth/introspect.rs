//! The introspection endpoint (RFC 7662), for authenticated clients. A client that registered
//! itself gets answers about its own tokens only.

use std::net::IpAddr;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::access_token::{self, Token};
use super::authentication::{Asked, Authenticated, Fault, authenticate};
use super::client::{Clients, Origin};
use super::grants::Grants;
use super::parameters::Parameters;
use super::reply;
use crate::base::body::Body;

/// Answers a request to `{prefix}/introspect`.
pub(super) async fn answer(
    grants: &Grants,
    clients: &Clients,
    request: &Request<Bytes>,
    source: IpAddr,
) -> Response<Body> {
    if request.method() != Method::POST {
        return reply::method_not_allowed("POST");
    }
    match introspect(grants, clients, request, source).await {
        Ok(document) => reply::json(StatusCode::OK, &document),
        Err(fault) => fault.answer(),
    }
}

async fn introspect(
    grants: &Grants,
    clients: &Clients,
    request: &Request<Bytes>,
    source: IpAddr,
) -> Result<Value, Fault> {
    let parameters = Parameters::of_form(request.headers(), request.body())?;
    let asked = Asked { headers: request.headers(), parameters: &parameters, source };
    let caller = authenticate(&grants.issuer, clients, asked).await?;
    if !caller.proven {
        return Err(Fault::Invalid { basic: false });
    }
    let token = parameters.one("token")?.ok_or(Fault::Malformed("token is missing"))?;
    match grants.recognise(token.as_bytes()).await {
        Ok(token) if may_ask(&caller, &token) && grants.stands(&token).is_ok() => Ok(told(&token)),
        Ok(_) | Err(access_token::Fault::Invalid) => Ok(json!({ "active": false })),
        Err(access_token::Fault::Unavailable) => Err(Fault::Unavailable),
    }
}

fn may_ask(caller: &Authenticated, token: &Token) -> bool {
    match caller.client.origin {
        Origin::Operator | Origin::Machine => true,
        Origin::Registered | Origin::Document { .. } => token.claims.client_id == caller.client.id,
    }
}

fn told(token: &Token) -> Value {
    let mut document = serde_json::to_value(&token.claims).expect("claims are plain data");
    document["active"] = true.into();
    document["token_type"] = "Bearer".into();
    if let Some(name) = token.holder.as_ref().and_then(|holder| holder.person.username.as_deref()) {
        document["username"] = name.into();
    }
    document
}
