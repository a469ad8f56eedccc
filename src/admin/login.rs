//! The login page of the admin listener, and what leads people there and away.

use askama::Template;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, header};

use super::auth::{Refused, browser};
use super::call::Call;
use super::response::{self, page, refusal};
use crate::base::body::{self, Body};
use crate::telemetry::audit::{AuditEvent, AuditRecord, Operator};

/// The longest token that is looked at; ours have 67 characters.
const MAX_TOKEN_CHARS: usize = 200;

#[derive(Template)]
#[template(path = "admin/login.html")]
struct TokenLoginPage<'a> {
    csrf_token: &'a str,
    to: &'a str,
    trouble: Option<&'a str>,
    /// Whether the listener takes tokens at all.
    has_login: bool,
}

#[derive(Template)]
#[template(path = "admin/arrive.html")]
struct ArrivalPage<'a> {
    to: &'a str,
}

/// Shows the form that asks for a token.
pub(super) async fn show(call: Call<'_>) -> Response<Body> {
    let to = call.parameter("to").unwrap_or_default();
    render(&call, StatusCode::OK, &to, None)
}

/// Takes the token, begins a session, and leads to the page that was asked for.
pub(super) async fn log_in(call: Call<'_>) -> Response<Body> {
    let token = call.field("token").unwrap_or_default();
    let to = call.field("to").unwrap_or_default();
    let (auth, text) = (call.admin.auth.clone(), token.trim().to_owned());
    if text.is_empty() || text.len() > MAX_TOKEN_CHARS {
        return render(&call, StatusCode::BAD_REQUEST, &to, Some("paste a token into the field"));
    }
    // The tokens are in a file.
    let found = tokio::task::spawn_blocking(move || auth.find_token(&text)).await;
    match found {
        Ok(Ok(token)) => {
            let id = call.admin.auth.begin_session(&token);
            if let Some(old) = &call.caller.cookie {
                call.admin.auth.sessions.end(&old.value);
            }
            record(&call, Some(token.name.clone()), "login", "ok").await;
            let mut response = see_other(local_path(&to));
            let cookie = browser::set_cookie(&id, call.admin.auth.is_tls);
            set(&mut response, &cookie);
            response
        }
        Ok(Err(refused)) => {
            let refused = call.admin.auth.count_failure(call.caller.ends, refused);
            refuse(&call, &to, refused).await
        }
        Err(_) => render(&call, StatusCode::SERVICE_UNAVAILABLE, &to, Some("the gateway is shutting down")),
    }
}

async fn refuse(call: &Call<'_>, to: &str, refused: Refused) -> Response<Body> {
    match refused {
        Refused::Token { why } => {
            record(call, None, "login", "invalid_token").await;
            render(call, StatusCode::FORBIDDEN, to, Some(why))
        }
        Refused::TooOften => too_often(call.head),
    }
}

/// Ends the session.
pub(super) async fn log_out(call: Call<'_>) -> Response<Body> {
    if let Some(cookie) = &call.caller.cookie {
        call.admin.auth.sessions.end(&cookie.value);
    }
    record(&call, call.caller.operator.clone(), "logout", "ok").await;
    let mut response = see_other("/login");
    let expired = format!("{}; Max-Age=0", browser::set_cookie("", call.admin.auth.is_tls));
    set(&mut response, &expired);
    response
}

/// Leads to the login page, and from there back.
pub(super) fn send_to(head: &Parts) -> Response<Body> {
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let to: String = url::form_urlencoded::byte_serialize(path.as_bytes()).collect();
    see_other(&format!("/login?to={to}"))
}

/// Lets a window that came by a link of another page load again by itself: browsers send our cookie
/// only with what our own pages lead to.
pub(super) fn arrive(head: &Parts) -> Response<Body> {
    let to = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let text = ArrivalPage { to: local_path(to) }.render().expect("the template writes into a String");
    page(StatusCode::OK, text)
}

/// Answers somebody who failed too often.
pub(super) fn too_often(head: &Parts) -> Response<Body> {
    let detail = "too many wrong tokens came from this address; try again in a minute";
    let mut response = refusal(head, StatusCode::TOO_MANY_REQUESTS, detail);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    response
}

fn render(call: &Call<'_>, status: StatusCode, to: &str, trouble: Option<&str>) -> Response<Body> {
    let has_login = call.admin.auth.has_login();
    let login = TokenLoginPage { csrf_token: &call.csrf_token(), to: local_path(to), trouble, has_login };
    page(status, login.render().expect("the template writes into a String"))
}

/// Returns the path if it is one of this listener, else that of the first page.
fn local_path(path: &str) -> &str {
    let is_local = path.starts_with('/')
        && !path.starts_with("//")
        && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if is_local { path } else { "/" }
}

fn see_other(to: &str) -> Response<Body> {
    let mut response = body::empty_response(StatusCode::SEE_OTHER);
    response::protect(response.headers_mut());
    response.headers_mut().insert(header::LOCATION, HeaderValue::try_from(to).expect("a path of ours"));
    response
}

fn set(response: &mut Response<Body>, cookie: &str) {
    let value = HeaderValue::try_from(cookie).expect("it is ASCII");
    response.headers_mut().insert(header::SET_COOKIE, value);
}

/// Records a login. One that failed has a share of the audit, like everything that strangers do.
async fn record(call: &Call<'_>, name: Option<String>, order: &'static str, outcome: &'static str) {
    let event = if outcome == "ok" { AuditEvent::Order } else { AuditEvent::Refusal };
    let operator = Operator { name, ..call.caller.to_operator().await };
    let record = AuditRecord { order: Some(order), ..AuditRecord::new(event, "", outcome) };
    call.admin.audit.record(&operator.sign(record));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leads_to_a_page_of_this_listener_only() {
        for good in ["/", "/api/tenants?x=1", "/tenants/a%20b"] {
            assert_eq!(local_path(good), good);
        }
        for bad in [
            "",
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "/a b",
            "/\r\nx: y",
            "javascript:1",
        ] {
            assert_eq!(local_path(bad), "/", "{bad}");
        }
    }
}
