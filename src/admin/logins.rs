//! People's logins and the blocks of people: listed, ended, set and lifted by operators.

use http::{Response, StatusCode};
use serde::Deserialize;

use super::Admin;
use super::call::Call;
use super::response::{self, OrderTenant, Refusal, problem};
use crate::base::body::Body;
use crate::oauth::logins::{BlockError, EndError, Initiator, LoginFilter, MAX_LOGINS, NewBlock, PersonName};
use crate::store::GrantId;
use crate::telemetry::audit::Operator;

/// The largest order.
const MAX_BYTES: usize = 16 << 10;
/// How many logins a page has if the request does not say.
const DEFAULT_PAGE: usize = 1000;

impl Refusal for EndError {
    fn status(&self) -> StatusCode {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

impl Refusal for BlockError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Unknown => StatusCode::NOT_FOUND,
            Self::Unavailable | Self::NotStored | Self::StillBlocked => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooMany | Self::Ambiguous(_) => StatusCode::CONFLICT,
            Self::Place | Self::Nobody | Self::Past(_) | Self::LongReason => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }
}

/// Which logins are to end. At least one field says which; `all` says that no other does.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndOrder {
    id: Option<String>,
    tenant: Option<String>,
    person: Option<String>,
    client: Option<String>,
    #[serde(default)]
    all: bool,
}

/// Lists logins: `?tenant=&person=&client=&limit=&after=`.
pub(super) async fn list(call: Call<'_>) -> Response<Body> {
    let Some(logins) = &call.admin.logins else { return without_store() };
    let given = |name| call.parameter(name).filter(|text| !text.is_empty());
    let filter = LoginFilter {
        tenant: given("tenant").map(Into::into),
        person: given("person").and_then(|person| PersonName::parse(&person)),
        client: given("client"),
        ..LoginFilter::default()
    };
    let limit = given("limit").and_then(|limit| limit.parse().ok()).unwrap_or(DEFAULT_PAGE);
    response::from_result(logins.list(&filter, given("after").as_deref(), limit.clamp(1, MAX_LOGINS)).await)
}

/// Counts logins.
pub(super) async fn summarize(admin: &Admin) -> Response<Body> {
    match &admin.logins {
        Some(logins) => response::from_result(logins.summarize().await),
        None => without_store(),
    }
}

/// Lists the blocks.
pub(super) fn blocks(admin: &Admin) -> Response<Body> {
    match &admin.logins {
        Some(logins) => response::json(StatusCode::OK, &logins.blocks()),
        None => without_store(),
    }
}

/// Ends logins.
pub(super) async fn end(mut call: Call<'_>) -> Response<Body> {
    let Some(logins) = &call.admin.logins else { return without_store() };
    let order = call.read_body(MAX_BYTES).await;
    let order: Option<EndOrder> = order.and_then(|body| serde_json::from_slice(&body).ok());
    let tenant = order.as_ref().and_then(|order| order.tenant.clone());
    let Some(filter) = order.and_then(EndOrder::into_filter) else {
        let detail = "send which logins end as JSON: {\"id\"}, one or more of {\"tenant\", \"person\", \
                      \"client\"}, or {\"all\": true}";
        return about(tenant, problem(StatusCode::BAD_REQUEST, detail));
    };
    let operator = call.caller.to_operator().await;
    let ended = logins.end(&filter, order_by("end_logins", &operator)).await;
    about(tenant, response::from_result(ended))
}

/// Blocks a person.
pub(super) async fn block(mut call: Call<'_>) -> Response<Body> {
    let Some(logins) = &call.admin.logins else { return without_store() };
    let order = call.read_body(MAX_BYTES).await;
    let Some(order) = order.and_then(|body| serde_json::from_slice::<NewBlock>(&body).ok()) else {
        let detail = "send {\"person\": …, \"tenant\": … or \"all_tenants\": true, \"reason\": …, \"until\": …} as \
                      JSON; until is a time such as 2027-01-31T12:00:00Z";
        return problem(StatusCode::BAD_REQUEST, detail);
    };
    if let Some(tenant) = order.tenant.clone().filter(|name| !has_tenant(call.admin, name)) {
        return about(Some(tenant), response::no_tenant());
    }
    let operator = call.caller.to_operator().await;
    let blocked = logins.block(&order, order_by("block", &operator)).await;
    about(order.tenant, response::from_result(blocked))
}

/// Lifts a block.
pub(super) async fn unblock(call: Call<'_>) -> Response<Body> {
    let Some(logins) = &call.admin.logins else { return without_store() };
    let operator = call.caller.to_operator().await;
    let lifted = logins.unblock(call.segment(0), order_by("unblock", &operator)).await;
    let tenant = lifted.as_ref().ok().and_then(Option::as_ref).and_then(|block| block.tenant.as_deref());
    let tenant = tenant.map(str::to_owned);
    about(tenant, response::from_result(lifted.map(|block| serde_json::json!({ "lifted": block }))))
}

fn has_tenant(admin: &Admin, name: &str) -> bool {
    admin.registry.load().find_entry(name).is_some_and(|entry| entry.tenant.is_some())
}

fn order_by<'a>(order: &'static str, operator: &'a Operator) -> Initiator<'a> {
    Initiator::Operator { order, operator }
}

/// Says which tenant an order was about, for the audit; none means the whole gateway.
fn about(tenant: Option<String>, mut response: Response<Body>) -> Response<Body> {
    response.extensions_mut().insert(OrderTenant(tenant.unwrap_or_default()));
    response
}

impl EndOrder {
    /// Returns which logins are meant, if the order says that clearly.
    fn into_filter(self) -> Option<LoginFilter> {
        let Self { id, tenant, person, client, all } = self;
        let names_some = id.is_some() || tenant.is_some() || person.is_some() || client.is_some();
        if all == names_some {
            return None;
        }
        Some(LoginFilter {
            tenant: tenant.map(Into::into),
            person: person.map(|person| PersonName::parse(&person).ok_or(())).transpose().ok()?,
            account: None,
            client,
            id: id.map(|id| GrantId::parse(&id).ok_or(())).transpose().ok()?,
        })
    }
}

fn without_store() -> Response<Body> {
    problem(StatusCode::CONFLICT, "this gateway runs without a store, so nobody can log in")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_to_end_says_which_logins() {
        let filter = |text: &str| serde_json::from_str::<EndOrder>(text).ok().and_then(EndOrder::into_filter);
        for bad in [
            "{}",
            r#"{"all": true, "tenant": "acme"}"#,
            r#"{"all": false}"#,
            r#"{"id": "x"}"#,
            r#"{"person": " "}"#,
            r#"{"persons": "ada"}"#,
        ] {
            assert_eq!(filter(bad), None, "{bad}");
        }
        assert_eq!(filter(r#"{"all": true}"#), Some(LoginFilter::default()));
        let acme = filter(r#"{"tenant": "acme", "client": "Claude"}"#).expect("a filter");
        assert_eq!((acme.tenant.as_deref(), acme.client.as_deref()), (Some("acme"), Some("Claude")));
    }
}
