//! What one request passes on to the source: its caller, its deadline and its trace.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header;
use http::request::Parts;
use rmcp::RoleServer;
use rmcp::service::RequestContext;

use super::accept::ClientAccept;
use super::request_span::{RequestSpan, caller_trace};
use crate::backend::CallContext;
use crate::base::net::client_network;
use crate::mcp::Caller;
use crate::mcp::failure::CallFailure;
use crate::mcp::payload::Payload;
use crate::mcp::server_state::ServerState;
use crate::mcp::source::Output;
use crate::oauth::bearer::Principal;
use crate::telemetry::audit::{Audit, AuditEvent, AuditRecord};
use crate::telemetry::metrics::CallOutcome;
use crate::telemetry::printable::is_harmful;
use crate::usage::MeteredCall;

/// What is known of a request besides its message.
pub(super) struct RequestInfo {
    pub(super) call: CallContext,
    pub(super) span: RequestSpan,
    address: Option<IpAddr>,
    client: ClientNames,
    started: Instant,
    pub(super) takes_events: bool,
}

/// What was read, for the audit entry.
#[derive(Debug, Clone, Copy)]
pub(super) enum ReadTarget<'a> {
    /// A tool's result, by its listed name.
    Tool(&'a str),
    /// A resource, by its URI.
    Resource(&'a str),
}

/// The most characters of a client's name that are recorded.
const MAX_CLIENT_NAME: usize = 64;

/// What a request says of its client, for the audit.
#[derive(Default)]
struct ClientNames {
    /// The name that it gives itself (MCP 2026-07-28, `_meta`). Earlier revisions name the client
    /// once, in `initialize`, and there are no sessions: then the name that it registered for its
    /// tokens.
    client: Option<String>,
    /// The first product of `User-Agent` (RFC 9110 section 10.1.5), if there is no name.
    user_agent: Option<String>,
}

impl ClientNames {
    /// Reads nothing if no audit wants it.
    fn read(context: &RequestContext<RoleServer>, audit: &Audit) -> Self {
        if !audit.is_on() {
            return Self::default();
        }
        let info = context.meta.get("io.modelcontextprotocol/clientInfo");
        if let Some(name) = info.and_then(|info| info.get("name")?.as_str()) {
            return Self { client: Some(shorten(name)), user_agent: None };
        }
        if let Some(name) = caller(context).client_name() {
            return Self { client: Some(shorten(name)), user_agent: None };
        }
        let parts = context.extensions.get::<Parts>();
        let agent = parts.and_then(|parts| parts.headers.get(header::USER_AGENT)?.to_str().ok());
        let product = agent.and_then(|agent| agent.split_whitespace().next());
        Self { client: None, user_agent: product.map(shorten) }
    }
}

/// Cuts a client's text to a bounded length, without control characters.
fn shorten(text: &str) -> String {
    text.chars().filter(|c| !is_harmful(*c)).take(MAX_CLIENT_NAME).collect()
}

/// Returns the caller. Requests without one occur only in tests, which bypass `McpServer::handle`.
pub(super) fn caller(context: &RequestContext<RoleServer>) -> &Principal {
    Caller::from_context(context).map_or(&Principal::Anonymous, |caller| &caller.principal)
}

impl RequestInfo {
    /// Reads the request's extensions and its `_meta`.
    pub(super) fn from_context(
        context: &RequestContext<RoleServer>,
        state: &ServerState,
        span: RequestSpan,
    ) -> Self {
        let parts = context.extensions.get::<Parts>();
        let caller = Caller::from_context(context);
        let reader = parts.and_then(|parts| parts.extensions.get::<ClientAccept>());
        let started = caller.map_or_else(|| state.config.clock.monotonic(), |caller| caller.started);
        let call = CallContext {
            request_id: caller.map(|caller| caller.request_id.clone()).unwrap_or_default(),
            deadline: started + state.config.call_timeout,
            user: caller.and_then(|caller| user_header_value(&caller.principal)),
            trace: caller_trace(context),
            span: span.as_parent(),
            has_credential: caller.is_some_and(|caller| !matches!(caller.principal, Principal::Anonymous)),
            network: caller.map(|caller| client_network(caller.address)),
        };
        let address = caller.map(|caller| caller.address);
        Self {
            call,
            span,
            address,
            client: ClientNames::read(context, &state.config.audit),
            started,
            takes_events: reader.is_some_and(|reader| reader.accepts_event_stream),
        }
    }

    /// Begins to count the request as a call of its tenant.
    pub(super) fn begin_metering(
        &self,
        state: &ServerState,
        caller: &Principal,
        tool: Arc<str>,
    ) -> MeteredCall {
        state.config.usage.begin(self.started, caller.usage_caller(self.caller_address()), tool)
    }

    fn caller_address(&self) -> IpAddr {
        // Only tests have requests without an address.
        self.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }

    /// Ends counting a request that has been answered, or has failed. One that a limit refused then
    /// waits for its answer, if its caller was refused often.
    pub(super) async fn finish_metering<T>(
        &self,
        state: &ServerState,
        caller: &Principal,
        metered: MeteredCall,
        outcome: &Result<Output<T>, CallFailure>,
    ) {
        let end = outcome.as_ref().err().map_or(CallOutcome::Ok, CallFailure::outcome).into();
        let payload = outcome.as_ref().ok().and_then(|output| output.payload.as_ref());
        metered.finish(end, payload.map_or(0, Payload::total_bytes) as u64);
        if let Err(CallFailure::Limit(_)) = outcome {
            state.config.usage.pace_refusal(caller.usage_key(self.caller_address())).await;
        }
    }

    /// Appends the request id, under which the log has more.
    pub(super) fn with_request_id(&self, sentence: &str) -> String {
        format!("{sentence} (request {})", self.call.request_id)
    }

    /// Returns the failure of a request whose handler panicked.
    pub(super) fn panic_failure(&self) -> CallFailure {
        let sentence = self.with_request_id("The server failed.");
        CallFailure::Protocol(rmcp::ErrorData::internal_error(sentence, None))
    }

    /// Returns the time since the request came in.
    pub(super) fn elapsed(&self, state: &ServerState) -> Duration {
        state.config.clock.monotonic().saturating_duration_since(self.started)
    }

    /// Writes an audit entry: who read what, and with which outcome; never the arguments.
    pub(super) fn record_audit(
        &self,
        state: &ServerState,
        read: ReadTarget<'_>,
        caller: &Principal,
        outcome: CallOutcome,
        bytes: Option<usize>,
    ) {
        let (event, tool, resource) = match read {
            ReadTarget::Tool(name) => (AuditEvent::Call, Some(name), None),
            ReadTarget::Resource(uri) => (AuditEvent::Read, None, Some(uri)),
        };
        let grant = match caller {
            Principal::User(user) => Some(user.grant.to_string()),
            _ => None,
        };
        state.config.audit.record(&AuditRecord {
            who: caller.audit_identity(),
            client_addr: self.address,
            client: self.client.client.as_deref(),
            user_agent: self.client.user_agent.as_deref(),
            client_id: caller.client_id(),
            grant,
            tool,
            resource,
            elapsed_ms: u64::try_from(self.elapsed(state).as_millis()).ok(),
            bytes,
            request_id: Some(&self.call.request_id),
            ..AuditRecord::new(event, state.tenant(), outcome.label())
        });
    }
}

/// Returns the caller's name for the backend's user header.
fn user_header_value(principal: &Principal) -> Option<String> {
    let identity = principal.audit_identity();
    identity.user.filter(|name| is_one_name(name)).or(identity.oid).or(identity.label).map(str::to_owned)
}

/// Returns whether every parser of a header with this value sees one user. Directories choose the
/// names of their accounts, and a comma or quote in one could make it look like a list, or like
/// another user; the object id is sent instead.
fn is_one_name(name: &str) -> bool {
    let is_separator = |c: char| c.is_control() || c.is_whitespace() || ",;\"\\<>=".contains(c);
    !name.is_empty() && !name.contains(is_separator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Account, GroupMembership};
    use crate::oauth::bearer::UserPrincipal;
    use crate::store::GrantId;

    fn user_named(name: Option<&str>) -> Principal {
        let account = Account {
            issuer: "t".into(),
            subject: "the-object-id".into(),
            name: None,
            username: name.map(Into::into),
            verified_email: None,
            roles: Vec::new(),
            groups: GroupMembership::Known(Vec::new()),
            is_guest: false,
        };
        let (account, grant) = (Arc::new(account), GrantId::random());
        Principal::User(UserPrincipal {
            account,
            subject: "s".into(),
            client_id: "c".into(),
            client_name: None,
            grant,
        })
    }

    #[test]
    fn the_user_header_names_exactly_one_user() {
        for name in [
            "ann@example.com",
            "o'neill@example.com",
            "ann_fabrikam.com#EXT#@contoso.onmicrosoft.com",
            "jörg@example.com",
        ] {
            assert_eq!(user_header_value(&user_named(Some(name))).as_deref(), Some(name));
        }
        for name in [
            "",
            "ann@x, admin@x",
            "ann;admin",
            "\"admin\"",
            "Admin <admin@x>",
            "a b",
            "a\r\nx-role: admin",
            "a\0",
        ] {
            assert_eq!(
                user_header_value(&user_named(Some(name))).as_deref(),
                Some("the-object-id"),
                "{name:?}"
            );
        }
        assert_eq!(user_header_value(&user_named(None)).as_deref(), Some("the-object-id"));
        assert_eq!(user_header_value(&Principal::Key { label: "ci".into() }).as_deref(), Some("ci"));
        assert_eq!(user_header_value(&Principal::Anonymous), None);
    }
}
