//! What every request to the admin listener goes through before and after its handler.

use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::Admin;
use super::account::Ends;
use super::call::Call;
use super::caller::AdminCaller;
use super::response::{OrderTenant, problem};
use super::routes::{self, Found};
use crate::base::authority;
use crate::base::body::Body;
use crate::spec::HostName;
use crate::telemetry::audit::{AuditEvent, AuditRecord};

/// Answers a request, unless it comes by a name that an attacker may have chosen, or from a page, or
/// from somebody who may not send it. Records changes in the audit.
pub(super) async fn handle(admin: &Admin, request: Request<&mut Incoming>, ends: Ends) -> Response<Body> {
    if !is_local_name(request.headers()) {
        return problem(
            StatusCode::MISDIRECTED_REQUEST,
            "use an address or localhost to reach the admin listener",
        );
    }
    let (head, body) = request.into_parts();
    let Found { route, segments } = match routes::find(&head.method, head.uri.path()) {
        Ok(found) => found,
        Err(refusal) => return *refusal,
    };
    if route.method != Method::GET && head.headers.contains_key(header::ORIGIN) {
        return problem(StatusCode::FORBIDDEN, "web pages may not do this; use curl or tenantd");
    }
    let caller = AdminCaller::at(ends);
    if route.role > caller.role {
        let detail = "the gateway accepts changes from its own machine only; run tenantd there";
        return problem(StatusCode::FORBIDDEN, detail);
    }
    let subject = segments.first().cloned().unwrap_or_default();
    let call = Call { admin, head: &head, segments, body, caller: &caller };
    let mut response = (route.handler)(call).await;
    let subject = response.extensions_mut().remove().map_or(subject, |OrderTenant(tenant)| tenant);
    if let Some(order) = route.order {
        let outcome = response.status();
        match route.is_about_a_certificate() {
            true => record(admin, order, ("", Some(&subject)), outcome, &caller).await,
            false => record(admin, order, (&subject, None), outcome, &caller).await,
        }
    }
    response
}

/// Writes an audit record about an order on a tenant or a certificate.
async fn record(
    admin: &Admin,
    order: &'static str,
    (tenant, certificate): (&str, Option<&str>),
    status: StatusCode,
    caller: &AdminCaller,
) {
    let ends = caller.ends;
    // The kernel's tables are files.
    let uid = tokio::task::spawn_blocking(move || ends.account()).await.unwrap_or_default();
    let outcome = match status {
        status if status.is_success() => "ok",
        StatusCode::NOT_FOUND => "not_found",
        _ => "refused",
    };
    admin.audit.record(&AuditRecord {
        order: Some(order),
        uid,
        certificate,
        ..AuditRecord::new(AuditEvent::Order, tenant, outcome)
    });
}

/// Whether the Host header is an IP address or `localhost`. A DNS name could belong to an attacker.
fn is_local_name(headers: &HeaderMap) -> bool {
    let name = authority::only_host(headers).and_then(|host| HostName::parse(&host));
    name.is_some_and(|name| name.as_str() == "localhost" || name.ip_address().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, value.parse().expect("a header value"));
        is_local_name(&headers)
    }

    #[test]
    fn a_name_in_dns_does_not_reach_the_admin_listener() {
        for good in ["127.0.0.1:9900", "localhost:9900", "[::1]:9900", "10.1.2.3"] {
            assert!(host(good), "{good}");
        }
        for bad in ["evil.example:9900", "localhost.evil.example", "", "127.0.0.1.nip.example"] {
            assert!(!host(bad), "{bad}");
        }
        assert!(!is_local_name(&HeaderMap::new()));
    }
}
