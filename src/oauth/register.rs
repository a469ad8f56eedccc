//! Dynamic client registration (RFC 7591): a client sends its redirect URIs and its authentication
//! method, and gets an id. Nothing is stored.
//!
//! A client that does not request `none` gets a real secret, which Microsoft's clients require.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::client::registered::{Issued, Method, Registration};
use super::client::text;
use super::client::{Clients, RedirectUri};
use super::reply;
use super::scope;
use crate::base::body::Body;
use crate::base::headers::media_type;
use jiff::Timestamp;

const MOST_REDIRECT_URIS: usize = 10;
/// The limit on texts that are echoed as received. The gateway never opens their links.
const LONGEST_TEXT: usize = 512;
const ECHOED: [&str; 7] = [
    "client_uri",
    "logo_uri",
    "policy_uri",
    "tos_uri",
    "software_id",
    "software_version",
    "application_type",
];

/// Why a client is not registered (RFC 7591 section 3.2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    RedirectUri(String),
    Metadata(&'static str),
}

/// Answers a registration request.
pub(super) fn answer(clients: &Clients, request: &Request<Bytes>, now: Timestamp) -> Response<Body> {
    if !clients.registers() {
        let closed = "this server takes no registrations; ask its operator for a client id";
        return reply::error(StatusCode::FORBIDDEN, "access_denied", closed);
    }
    match registered(clients, request, now) {
        Ok(answer) => reply::json(StatusCode::CREATED, &answer),
        Err(Fault::RedirectUri(why)) => reply::error(StatusCode::BAD_REQUEST, "invalid_redirect_uri", &why),
        Err(Fault::Metadata(why)) => reply::error(StatusCode::BAD_REQUEST, "invalid_client_metadata", why),
    }
}

fn registered(clients: &Clients, request: &Request<Bytes>, now: Timestamp) -> Result<Value, Fault> {
    let asked = read(request)?;
    let method = method(&asked)?;
    check_grants(&asked)?;
    let name = asked.get("client_name").and_then(Value::as_str).and_then(text::name);
    let registration = Registration {
        issued: now,
        name: name.map(Into::into),
        method,
        redirect_uris: redirect_uris(&asked)?,
    };
    let issued = clients
        .register(&registration)
        .ok_or(Fault::Metadata("the metadata are too long; register fewer or shorter redirect URIs"))?;
    Ok(told(&asked, &registration, &issued))
}

fn read(request: &Request<Bytes>) -> Result<Map<String, Value>, Fault> {
    if !media_type(request.headers()).eq_ignore_ascii_case("application/json") {
        return Err(Fault::Metadata("the body must be application/json"));
    }
    match serde_json::from_slice(request.body()) {
        Ok(Value::Object(asked)) => Ok(asked),
        _ => Err(Fault::Metadata("the body is not a JSON object")),
    }
}

fn method(asked: &Map<String, Value>) -> Result<Method, Fault> {
    match asked.get("token_endpoint_auth_method") {
        None | Some(Value::Null) => Ok(Method::Either),
        Some(method) => match method.as_str() {
            Some("none") => Ok(Method::None),
            Some("client_secret_basic") => Ok(Method::Basic),
            Some("client_secret_post") => Ok(Method::Post),
            _ => Err(Fault::Metadata(
                "token_endpoint_auth_method must be none, client_secret_basic or client_secret_post",
            )),
        },
    }
}

/// Verifies that the code grant is among those requested. Others that clients may not have are
/// ignored.
fn check_grants(asked: &Map<String, Value>) -> Result<(), Fault> {
    let lacks = |name: &str, needed: &str| {
        let list = asked.get(name).and_then(Value::as_array);
        list.is_some_and(|list| !list.is_empty() && !list.iter().any(|value| value == needed))
    };
    match () {
        () if lacks("grant_types", "authorization_code") => {
            Err(Fault::Metadata("grant_types must have authorization_code"))
        }
        () if lacks("response_types", "code") => Err(Fault::Metadata("response_types must have code")),
        () => Ok(()),
    }
}

fn redirect_uris(asked: &Map<String, Value>) -> Result<Vec<RedirectUri>, Fault> {
    let refuse = |why: &str| Err(Fault::RedirectUri(why.to_owned()));
    let Some(listed) = asked.get("redirect_uris").and_then(Value::as_array) else {
        return refuse("redirect_uris must be a list of URIs");
    };
    if listed.is_empty() || listed.len() > MOST_REDIRECT_URIS {
        return refuse("redirect_uris must list between one and ten URIs");
    }
    let for_web = asked.get("application_type").is_some_and(|kind| kind == "web");
    let mut uris: Vec<RedirectUri> = Vec::new();
    for (number, text) in listed.iter().enumerate() {
        let parsed = RedirectUri::parse(text.as_str().unwrap_or_default());
        let uri = parsed.map_err(|fault| Fault::RedirectUri(format!("redirect_uris[{number}]: {fault}")))?;
        if for_web && !uri.is_web() {
            return refuse(
                "a web application must be sent back to https; application_type native may have loopback and schemes of its own",
            );
        }
        if !uris.contains(&uri) {
            uris.push(uri);
        }
    }
    Ok(uris)
}

/// Returns the response with all that was registered (RFC 7591 section 3.2.1).
fn told(asked: &Map<String, Value>, registration: &Registration, issued: &Issued) -> Value {
    let uris: Vec<&str> = registration.redirect_uris.iter().map(RedirectUri::as_str).collect();
    let method = match registration.method {
        Method::None => "none",
        Method::Basic | Method::Either => "client_secret_basic",
        Method::Post => "client_secret_post",
    };
    let mut answer = json!({
        "client_id": issued.id,
        "client_id_issued_at": registration.issued.as_second(),
        "redirect_uris": uris,
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": method,
        "scope": scope::granted(asked.get("scope").and_then(Value::as_str)),
    });
    if let Some(secret) = &issued.secret {
        answer["client_secret"] = secret.expose().into();
        answer["client_secret_expires_at"] = 0.into();
    }
    if let Some(name) = &registration.name {
        answer["client_name"] = (&**name).into();
    }
    for name in ECHOED {
        if let Some(text) = asked.get(name).and_then(Value::as_str).filter(|text| text.len() <= LONGEST_TEXT)
        {
            answer[name] = text.into();
        }
    }
    if let Some(contacts) =
        asked.get("contacts").filter(|contacts| contacts.to_string().len() <= LONGEST_TEXT)
    {
        answer["contacts"] = contacts.clone();
    }
    answer
}
