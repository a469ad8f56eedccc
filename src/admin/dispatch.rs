//! What every request to the admin listener goes through before and after its handler.

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::Admin;
use super::account::Ends;
use super::auth::browser::{self, Sender};
use super::auth::caller::AdminCaller;
use super::auth::{AdminAuth, Refused, csrf};
use super::call::{Call, Form, RequestBody};
use super::login;
use super::request::query_parameter;
use super::response::{OrderStatus, OrderTenant, problem, refusal};
use super::routes::{self, Found, Route};
use crate::base::authority;
use crate::base::body::Body;
use crate::spec::HostName;
use crate::telemetry::audit::{AuditEvent, AuditRecord};

/// Answers a request, unless it comes by a name that an attacker may have chosen, or from another
/// page, or from somebody who may not send it. Records changes in the audit.
pub(super) async fn handle(admin: &Admin, request: Request<&mut Incoming>, ends: Ends) -> Response<Body> {
    if !is_own_name(&admin.auth, request.headers()) {
        return problem(
            StatusCode::MISDIRECTED_REQUEST,
            "use an address or localhost to reach the admin listener, or a name that admin_host lists",
        );
    }
    let (head, body) = request.into_parts();
    let sender = browser::find_sender(&head, admin.auth.is_tls);
    if sender == Sender::OtherPage {
        let detail = "other web pages may not do this; use the console, curl or tenantd";
        return problem(StatusCode::FORBIDDEN, detail);
    }
    let found = match routes::find(&head.method, head.uri.path()) {
        Ok(found) => found,
        Err(refusal) => return *refusal,
    };
    if sender == Sender::Link {
        return login::arrive(&head);
    }
    match admin.auth.identify(&head, ends, sender).await {
        Ok(caller) => serve(admin, found, &head, body, &caller).await,
        Err(Refused::Token { why }) => unauthorized(&head, why),
        Err(Refused::TooOften) => login::too_often(&head),
    }
}

/// Answers a request of a known caller.
async fn serve(
    admin: &Admin,
    Found { route, segments }: Found,
    head: &Parts,
    body: &mut Incoming,
    caller: &AdminCaller,
) -> Response<Body> {
    if let Err(refusal) = authorize(admin, route, head, caller) {
        return *refusal;
    }
    let Some(body) = read_form(head, body).await else {
        return refusal(head, StatusCode::PAYLOAD_TOO_LARGE, "the form is too large, or is incomplete");
    };
    if route.method != Method::GET && !has_csrf_token(admin, head, &body, caller) {
        let detail =
            "this page is out of date, or the request comes from another one; load the console again";
        return refusal(head, StatusCode::FORBIDDEN, detail);
    }
    let subject = segments.first().cloned().unwrap_or_default();
    let mut response = (route.handler)(Call { admin, caller, head, segments, body }).await;
    let subject = response.extensions_mut().remove().map_or(subject, |OrderTenant(tenant)| tenant);
    if let Some(order) = route.order {
        let shown = response.extensions_mut().remove();
        let outcome = shown.map_or(response.status(), |OrderStatus(status)| status);
        match route.is_about_a_certificate() {
            true => record(admin, order, ("", Some(&subject)), outcome, caller).await,
            false => record(admin, order, (&subject, None), outcome, caller).await,
        }
    }
    give_cookie(&mut response, admin.auth.is_tls, caller);
    response
}

/// Refuses callers whose role is not the route's.
fn authorize(
    admin: &Admin,
    route: &Route,
    head: &Parts,
    caller: &AdminCaller,
) -> Result<(), Box<Response<Body>>> {
    if route.role <= caller.role {
        return Ok(());
    }
    Err(Box::new(match &caller.operator {
        Some(name) => {
            let detail = format!(
                "this needs a token with the role operate; the role of {name:?} is read, which changes nothing"
            );
            refusal(head, StatusCode::FORBIDDEN, &detail)
        }
        None if admin.auth.has_login() => unauthorized(
            head,
            "log in, or send `Authorization: Bearer TOKEN`; `tenantd admin-token new` makes tokens",
        ),
        None => refusal(
            head,
            StatusCode::FORBIDDEN,
            "the gateway accepts changes from its own machine only; run tenantd there, or set admin_auth",
        ),
    }))
}

/// Sends people to the login page, and tells programs what is missing.
fn unauthorized(head: &Parts, why: &str) -> Response<Body> {
    let is_page = head.method == Method::GET && !head.headers.contains_key(header::AUTHORIZATION);
    if is_page && super::response::wants_page(head) {
        return login::send_to(head);
    }
    let mut response = refusal(head, StatusCode::UNAUTHORIZED, why);
    let challenge = HeaderValue::from_static("Bearer realm=\"tenantd\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// Reads the body if it is a form. Returns `None` if that cannot be read.
async fn read_form<'a>(head: &Parts, body: &'a mut Incoming) -> Option<RequestBody<'a>> {
    let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_form = content_type.is_some_and(|value| {
        value.split(';').next().is_some_and(|kind| kind.trim() == "application/x-www-form-urlencoded")
    });
    // curl calls every body a form, so a large one is read by the handler that knows how large it
    // may be.
    let is_small = head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let is_small =
        is_small.and_then(|length| length.parse::<u64>().ok()).is_some_and(|length| length <= 64 << 10);
    match is_form && is_small {
        true => Form::read(body).await.map(RequestBody::Form),
        false => Some(RequestBody::Unread(body)),
    }
}

/// Whether a change comes from a page of ours; programs need no proof of that.
fn has_csrf_token(admin: &Admin, head: &Parts, body: &RequestBody<'_>, caller: &AdminCaller) -> bool {
    let Some(cookie) = &caller.cookie else { return true };
    let header = head.headers.get(csrf::HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let field = || match body {
        RequestBody::Form(form) => form.field(csrf::FIELD),
        // A form with a file says it in its address, since the file is not read yet.
        RequestBody::Unread(_) | RequestBody::Json(_) => query_parameter(head.uri.query(), csrf::FIELD),
    };
    let token = header.or_else(field);
    token.is_some_and(|token| !cookie.is_new && admin.auth.csrf.is_valid(&cookie.value, &token))
}

/// Gives a browser that gets a page the cookie that the page's forms belong to.
fn give_cookie(response: &mut Response<Body>, is_tls: bool, caller: &AdminCaller) {
    let Some(cookie) = caller.cookie.as_ref().filter(|cookie| cookie.is_new) else { return };
    let headers = response.headers_mut();
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_page = content_type.is_some_and(|value| value.starts_with("text/html"));
    if is_page && !headers.contains_key(header::SET_COOKIE) {
        let value = browser::set_cookie(&cookie.value, is_tls);
        headers.insert(header::SET_COOKIE, HeaderValue::try_from(value).expect("it is ASCII"));
    }
}

/// Writes an audit record about an order on a tenant or a certificate.
pub(super) async fn record(
    admin: &Admin,
    order: &'static str,
    (tenant, certificate): (&str, Option<&str>),
    status: StatusCode,
    caller: &AdminCaller,
) {
    let outcome = match status {
        status if status.is_success() || status.is_redirection() => "ok",
        StatusCode::NOT_FOUND => "not_found",
        _ => "refused",
    };
    let record = AuditRecord {
        order: Some(order),
        certificate,
        ..AuditRecord::new(AuditEvent::Order, tenant, outcome)
    };
    admin.audit.record(&caller.to_operator().await.sign(record));
}

/// Whether the Host header is a name by which the listener is reached.
fn is_own_name(auth: &AdminAuth, headers: &HeaderMap) -> bool {
    let name = authority::only_host(headers).and_then(|host| HostName::parse(&host));
    name.is_some_and(|name| auth.is_own_name(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SystemClock;
    use crate::settings::AdminAccess;

    fn host(auth: &AdminAuth, value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, value.parse().expect("a header value"));
        is_own_name(auth, &headers)
    }

    #[test]
    fn a_name_in_dns_does_not_reach_the_admin_listener_unless_it_is_listed() {
        let hosts = vec![HostName::parse("admin.example.com").expect("a name")];
        let without = AdminAuth::new(&AdminAccess::default(), SystemClock::shared());
        let with = AdminAuth::new(&AdminAccess { hosts, ..AdminAccess::default() }, SystemClock::shared());
        for good in ["127.0.0.1:9900", "localhost:9900", "[::1]:9900", "10.1.2.3"] {
            assert!(host(&without, good) && host(&with, good), "{good}");
        }
        for bad in ["evil.example:9900", "localhost.evil.example", "", "127.0.0.1.nip.example"] {
            assert!(!host(&without, bad) && !host(&with, bad), "{bad}");
        }
        assert!(host(&with, "admin.example.com:9900") && !host(&without, "admin.example.com:9900"));
        assert!(!is_own_name(&with, &HeaderMap::new()));
    }
}
