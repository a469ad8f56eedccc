//! Dynamic client registration (RFC 7591): a client sends its redirect URIs and its authentication
//! method, and gets an id. Nothing is stored.
//!
//! A client that does not request `none` gets a real secret, which Microsoft's clients require.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::error::Error;
use crate::base::body::Body;
use crate::base::headers::media_type;
use crate::oauth::authorization_server::{AuthServer, RequestMeta};
use crate::oauth::client::registered::{ClientAuthMethod, ClientRegistration, IssuedClient};
use crate::oauth::client::{ClientRegistry, RedirectUri, display_text};
use crate::oauth::{response, scope};

const MOST_REDIRECT_URIS: usize = 10;
/// The limit on texts that are echoed as received. The gateway never opens their links.
const MAX_ECHOED_BYTES: usize = 512;
const ECHOED_MEMBERS: [&str; 7] = [
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
enum RegistrationError {
    RedirectUri(String),
    Metadata(&'static str),
}

/// Answers a request to `{prefix}/register`.
pub(super) async fn handle(
    server: &AuthServer,
    request: Request<Bytes>,
    meta: RequestMeta<'_>,
) -> Result<Response<Body>, Error> {
    if !server.clients.allows_registration() {
        let closed = "this server accepts no registrations; ask its operator for a client id";
        let status = StatusCode::FORBIDDEN;
        return Err(Error::Rejected { status, code: "access_denied", description: closed.into() });
    }
    let document = register(&server.clients, &request, meta.now)?;
    Ok(response::json(StatusCode::CREATED, &document))
}

impl From<RegistrationError> for Error {
    fn from(error: RegistrationError) -> Self {
        match error {
            RegistrationError::RedirectUri(why) => Self::bad_request("invalid_redirect_uri", why),
            RegistrationError::Metadata(why) => Self::bad_request("invalid_client_metadata", why),
        }
    }
}

fn register(
    clients: &ClientRegistry,
    request: &Request<Bytes>,
    now: Timestamp,
) -> Result<Value, RegistrationError> {
    let asked = parse_metadata(request)?;
    let method = parse_auth_method(&asked)?;
    check_grant_types(&asked)?;
    let name = asked.get("client_name").and_then(Value::as_str).and_then(display_text::sanitize_name);
    let registration = ClientRegistration {
        issued_at: now,
        name: name.map(Into::into),
        method,
        redirect_uris: parse_redirect_uris(&asked)?,
    };
    let issued = clients.register(&registration).ok_or(RegistrationError::Metadata(
        "the metadata is too long; register fewer or shorter redirect URIs",
    ))?;
    Ok(registration_response(&asked, &registration, &issued))
}

fn parse_metadata(request: &Request<Bytes>) -> Result<Map<String, Value>, RegistrationError> {
    if !media_type(request.headers()).eq_ignore_ascii_case("application/json") {
        return Err(RegistrationError::Metadata("the body must be application/json"));
    }
    match serde_json::from_slice(request.body()) {
        Ok(Value::Object(asked)) => Ok(asked),
        _ => Err(RegistrationError::Metadata("the body is not a JSON object")),
    }
}

fn parse_auth_method(asked: &Map<String, Value>) -> Result<ClientAuthMethod, RegistrationError> {
    match asked.get("token_endpoint_auth_method") {
        None | Some(Value::Null) => Ok(ClientAuthMethod::Either),
        Some(method) => match method.as_str() {
            Some("none") => Ok(ClientAuthMethod::None),
            Some("client_secret_basic") => Ok(ClientAuthMethod::Basic),
            Some("client_secret_post") => Ok(ClientAuthMethod::Post),
            _ => Err(RegistrationError::Metadata(
                "token_endpoint_auth_method must be none, client_secret_basic or client_secret_post",
            )),
        },
    }
}

/// Verifies that the code grant is among those requested. Others that clients may not have are
/// ignored.
fn check_grant_types(asked: &Map<String, Value>) -> Result<(), RegistrationError> {
    let lacks = |name: &str, needed: &str| {
        let list = asked.get(name).and_then(Value::as_array);
        list.is_some_and(|list| !list.is_empty() && !list.iter().any(|value| value == needed))
    };
    match () {
        () if lacks("grant_types", "authorization_code") => {
            Err(RegistrationError::Metadata("grant_types must have authorization_code"))
        }
        () if lacks("response_types", "code") => {
            Err(RegistrationError::Metadata("response_types must have code"))
        }
        () => Ok(()),
    }
}

fn parse_redirect_uris(asked: &Map<String, Value>) -> Result<Vec<RedirectUri>, RegistrationError> {
    let refuse = |why: &str| Err(RegistrationError::RedirectUri(why.to_owned()));
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
        let uri = parsed
            .map_err(|fault| RegistrationError::RedirectUri(format!("redirect_uris[{number}]: {fault}")))?;
        if for_web && !uri.is_web() {
            return refuse(
                "a web application must have an https redirect URI; application_type native can have \
                 loopback addresses and its own schemes",
            );
        }
        if !uris.contains(&uri) {
            uris.push(uri);
        }
    }
    Ok(uris)
}

/// Returns the response with all that was registered (RFC 7591 section 3.2.1).
fn registration_response(
    asked: &Map<String, Value>,
    registration: &ClientRegistration,
    issued: &IssuedClient,
) -> Value {
    let uris: Vec<&str> = registration.redirect_uris.iter().map(RedirectUri::as_str).collect();
    let method = match registration.method {
        ClientAuthMethod::None => "none",
        ClientAuthMethod::Basic | ClientAuthMethod::Either => "client_secret_basic",
        ClientAuthMethod::Post => "client_secret_post",
    };
    let mut answer = json!({
        "client_id": issued.id,
        "client_id_issued_at": registration.issued_at.as_second(),
        "redirect_uris": uris,
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": method,
        "scope": scope::select_supported(asked.get("scope").and_then(Value::as_str)),
    });
    if let Some(secret) = &issued.secret {
        answer["client_secret"] = secret.expose().into();
        answer["client_secret_expires_at"] = 0.into();
    }
    if let Some(name) = &registration.name {
        answer["client_name"] = (&**name).into();
    }
    for name in ECHOED_MEMBERS {
        if let Some(text) =
            asked.get(name).and_then(Value::as_str).filter(|text| text.len() <= MAX_ECHOED_BYTES)
        {
            answer[name] = text.into();
        }
    }
    if let Some(contacts) =
        asked.get("contacts").filter(|contacts| contacts.to_string().len() <= MAX_ECHOED_BYTES)
    {
        answer["contacts"] = contacts.clone();
    }
    answer
}
