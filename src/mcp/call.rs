//! One tool call: finds the tool, validates the arguments, calls the backend, builds the result.
//!
//! A failure that the model should read is a tool result with `isError`; a protocol error only
//! means that the request is not a valid call (2026-07-28, "Tools", error handling).

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use rmcp::model::{CallToolRequestParams, CallToolResult, ProgressNotificationParam, ProgressToken};
use rmcp::service::{Peer, RequestContext};
use rmcp::{ErrorData, RoleServer};
use serde_json::Value;
use tokio::time::Interval;

use super::Caller;
use super::context::{self, DerivedContext};
use super::message::ClientAccept;
use super::payload::{Payload, PayloadSlot, placeholder_result};
use super::result::{ReservedBytes, ToolAnswer, error_result};
use super::server_state::{AccessError, GrantedContext, GrantedTool, ServerState};
use super::timing::Timing;
use crate::backend::{self, TraceContext};
use crate::base::budget::Reservation;
use crate::base::clock::{Clock, SystemClock};
use crate::base::json::{JsonDocument, JsonLimits};
use crate::base::panic::catch_panic;
use crate::oauth::bearer::Principal;
use crate::spec::TemplateValues;
use crate::telemetry::audit::{AuditEvent, AuditRecord};
use crate::telemetry::metrics::CallOutcome;

/// Answers `tools/call`.
pub(super) async fn call_tool(
    shared: &ServerState,
    request: CallToolRequestParams,
    context: RequestContext<RoleServer>,
) -> Result<CallToolResult, ErrorData> {
    #[cfg(feature = "conformance")]
    if let Some(answer) = super::fixture::call_tool(shared, &request, &context).await {
        return answer;
    }
    let caller = caller(&context);
    let asked = RequestInfo::from_context(&context, shared.deadline());
    let arguments = request.arguments.unwrap_or_default();
    let (name, outcome) = match shared.view(caller).tool(&request.name) {
        Err(AccessError::Unknown) => return Err(unknown_tool(shared, &request.name, caller)),
        Err(AccessError::NotAllowed(name)) => (name, Err(CallFailure::NotAllowed)),
        Ok(tool) => (tool.name(), asked.checked(shared, tool, arguments, &context).await),
    };
    asked.record(shared, name, outcome.as_ref().err());
    let kept = outcome.as_ref().err().map(CallFailure::outcome);
    let readable = outcome.as_ref().ok().map(Payload::readable_bytes);
    let result = match outcome {
        Ok(payload) => {
            // The bytes bypass rmcp's types, see `payload`.
            PayloadSlot::from_context(&context).set(payload);
            Ok(placeholder_result())
        }
        Err(CallFailure::Internal) => {
            Err(ErrorData::internal_error(asked.with_request_id("The server failed."), None))
        }
        Err(error) => Ok(error_result(asked.with_request_id(&error.to_string()))),
    };
    asked.record_audit(shared, ReadTarget::Tool(name), caller, kept.unwrap_or(CallOutcome::Ok), readable);
    result
}

/// Returns the caller. Requests without one occur only in tests, which bypass `McpServer::handle`.
pub(super) fn caller(context: &RequestContext<RoleServer>) -> &Principal {
    let parts = context.extensions.get::<Parts>();
    let caller = parts.and_then(|parts| parts.extensions.get::<Caller>());
    caller.map_or(&Principal::Anonymous, |caller| &caller.principal)
}

/// Why a call has no answer. `Display` is the text for the model.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallFailure {
    #[error(
        "Your account may not use this tool. Ask the operator of this server to let you; calling again changes nothing."
    )]
    NotAllowed,
    #[error("The arguments do not fit, so nothing was asked: {0}. Correct them and call again.")]
    Arguments(String),
    #[error("{}. {}", capitalised(.0), .0.advice())]
    Backend(#[from] backend::Error),
    #[error("The call was cancelled.")]
    Cancelled,
    #[error("This server was changed or is shutting down. Call again.")]
    Closed,
    #[error("The server failed.")]
    Internal,
}

impl CallFailure {
    pub(super) fn outcome(&self) -> CallOutcome {
        match self {
            Self::NotAllowed => CallOutcome::NotAllowed,
            Self::Arguments(_) => CallOutcome::BadArguments,
            Self::Backend(
                backend::Error::Busy | backend::Error::GatewayBusy | backend::Error::BudgetExhausted(_),
            ) => CallOutcome::Busy,
            Self::Backend(_) => CallOutcome::BackendError,
            Self::Cancelled | Self::Closed => CallOutcome::Cancelled,
            Self::Internal => CallOutcome::Internal,
        }
    }
}

fn capitalised(error: &backend::Error) -> String {
    let mut text = error.to_string();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

fn unknown_tool(shared: &ServerState, name: &str, caller: &Principal) -> ErrorData {
    let known: Vec<&str> = shared.view(caller).tools().map(|tool| &*tool.name).collect();
    let name: String = name.chars().take(128).collect();
    ErrorData::invalid_params(format!("there is no tool {name:?} here; there is: {}", known.join(", ")), None)
}

/// What one request passes on to the backend: its caller, its deadline and its trace.
pub(super) struct RequestInfo {
    call: backend::CallContext,
    started: Instant,
    takes_events: bool,
}

impl RequestInfo {
    /// Reads the request's extensions and its `_meta`.
    pub(super) fn from_context(context: &RequestContext<RoleServer>, deadline: Duration) -> Self {
        let parts = context.extensions.get::<Parts>();
        let caller = parts.and_then(|parts| parts.extensions.get::<Caller>());
        let reader = parts.and_then(|parts| parts.extensions.get::<ClientAccept>());
        let header = |name| parts?.headers.get(name)?.to_str().ok();
        let meta = TraceContext::parse(context.meta.get_traceparent(), context.meta.get_tracestate());
        let trace = meta.or_else(|| TraceContext::parse(header("traceparent"), header("tracestate")));
        let started = caller.map_or_else(|| SystemClock.monotonic(), |caller| caller.started);
        let call = backend::CallContext {
            request_id: caller.map(|caller| caller.request_id.clone()).unwrap_or_default(),
            deadline: started + deadline,
            user: caller.and_then(|caller| user(&caller.principal)),
            trace,
            has_credential: caller.is_some_and(|caller| !matches!(caller.principal, Principal::Anonymous)),
            network: caller.map(|caller| caller.network),
        };
        Self { call, started, takes_events: reader.is_some_and(|reader| reader.accepts_event_stream) }
    }

    /// Appends the request id, under which the log has more.
    pub(super) fn with_request_id(&self, sentence: &str) -> String {
        format!("{sentence} (request {})", self.call.request_id)
    }

    /// Validates the arguments and answers the call; a panic becomes `CallFailure::Internal`.
    async fn checked(
        &self,
        shared: &ServerState,
        tool: GrantedTool<'_>,
        arguments: TemplateValues,
        context: &RequestContext<RoleServer>,
    ) -> Result<Payload, CallFailure> {
        let arguments = tool.prepare_arguments(arguments).map_err(CallFailure::Arguments)?;
        let answer = catch_panic(self.answer(shared, tool, arguments, context)).await;
        answer.unwrap_or(Err(CallFailure::Internal))
    }

    /// Answers the call, sends progress notifications while it waits, and stops when the client
    /// cancels or the server is closed.
    async fn answer(
        &self,
        shared: &ServerState,
        tool: GrantedTool<'_>,
        arguments: TemplateValues,
        context: &RequestContext<RoleServer>,
    ) -> Result<Payload, CallFailure> {
        let token = context.meta.get_progress_token().filter(|_| self.takes_events);
        let mut progress = token.map(|token| ProgressNotifier::new(&context.peer, token, &shared.timing));
        let mut asking = std::pin::pin!(self.ask(shared, tool, arguments));
        loop {
            tokio::select! {
                biased;
                answer = &mut asking => return answer,
                () = context.ct.cancelled() => return Err(CallFailure::Cancelled),
                () = shared.lineage.closed() => return Err(CallFailure::Closed),
                () = told(progress.as_mut()) => {}
            }
        }
    }

    async fn ask(
        &self,
        shared: &ServerState,
        tool: GrantedTool<'_>,
        arguments: TemplateValues,
    ) -> Result<Payload, CallFailure> {
        match tool.context() {
            None => {
                let answer = tool.call_backend(&arguments, &self.call).await?;
                let limit = arguments.get("limit").and_then(Value::as_u64);
                let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
                let data = Arc::new(answer.document);
                self.made(
                    shared,
                    ToolAnswer {
                        data,
                        reservation: Some(answer.reservation),
                        row_limit: limit,
                        notice: None,
                    },
                )
                .await
            }
            Some(document) => {
                let context = document.fetch(&self.call).await?;
                let topic = arguments.get("topic").and_then(Value::as_str).unwrap_or_default().trim();
                match topic.is_empty() {
                    true => self.whole_context(shared, context).await,
                    false => self.part_of_context(shared, context, topic).await,
                }
            }
        }
    }

    /// Builds the result of an answer.
    async fn made(&self, shared: &ServerState, answer: ToolAnswer) -> Result<Payload, CallFailure> {
        let (size, max_bytes) = (answer.data.size(), shared.max_result_bytes());
        self.work(shared, size, move || answer.into_payload(max_bytes)).await
    }

    /// Returns the whole context as a result. It is built once and shared by all callers.
    async fn whole_context(
        &self,
        shared: &ServerState,
        context: DerivedContext,
    ) -> Result<Payload, CallFailure> {
        let (size, max_bytes) = (context.document().size(), shared.max_result_bytes());
        if let Some(payload) = context.cached_full_result(max_bytes) {
            return Ok(payload);
        }
        let hold = shared.new_reservation(&self.call);
        let making = move || match context.cached_full_result(max_bytes) {
            Some(payload) => Ok(payload),
            None => {
                let payload = context.to_answer(hold)?.into_payload(max_bytes)?;
                Ok(context.cache_full_result(max_bytes, payload))
            }
        };
        self.work(shared, size, making).await
    }

    /// Returns the part of the context that matches a topic.
    async fn part_of_context(
        &self,
        shared: &ServerState,
        context: DerivedContext,
        topic: &str,
    ) -> Result<Payload, CallFailure> {
        let (size, max_bytes) = (context.document().size(), shared.max_result_bytes());
        let (topic, hold) = (topic.to_owned(), shared.new_reservation(&self.call));
        let making = move || about(&context, &topic, hold)?.into_payload(max_bytes);
        // Every word is examined, which costs about twenty times as much as reading the document.
        self.work(shared, size * 20, making).await
    }

    /// Returns the context as the text of a resource.
    pub(super) async fn context_resource(
        &self,
        shared: &ServerState,
        document: GrantedContext<'_>,
    ) -> Result<Payload, CallFailure> {
        let context = document.fetch(&self.call).await?;
        let (size, hold) = (context.document().size(), shared.new_reservation(&self.call));
        let making = move || {
            let text = serde_json::to_vec(context.document().as_str()).expect("a string is JSON");
            ReservedBytes::reserve(text, Some(hold), 0).map(Payload::for_resource)
        };
        self.work(shared, size, making).await
    }

    async fn work(
        &self,
        shared: &ServerState,
        bytes: usize,
        work: impl FnOnce() -> Result<Payload, backend::Error> + Send + 'static,
    ) -> Result<Payload, CallFailure> {
        Ok(shared.run_offloaded(bytes, self.call.deadline, work).await??)
    }

    /// Writes an audit entry: who read what, and with which outcome; never the arguments.
    pub(super) fn record_audit(
        &self,
        shared: &ServerState,
        read: ReadTarget<'_>,
        caller: &Principal,
        outcome: CallOutcome,
        bytes: Option<usize>,
    ) {
        let (event, tool, resource) = match read {
            ReadTarget::Tool(name) => (AuditEvent::Call, Some(name), None),
            ReadTarget::Resource(uri) => (AuditEvent::Read, None, Some(uri)),
        };
        let elapsed = SystemClock.monotonic().saturating_duration_since(self.started);
        let grant = match caller {
            Principal::User(user) => Some(user.grant.to_string()),
            _ => None,
        };
        shared.audit().record(&AuditRecord {
            who: caller.audit_identity(),
            client_id: caller.client_id(),
            grant,
            tool,
            resource,
            elapsed_ms: u64::try_from(elapsed.as_millis()).ok(),
            bytes,
            request_id: Some(&self.call.request_id),
            ..AuditRecord::new(event, shared.tenant(), outcome.label())
        });
    }

    /// Counts and logs the outcome of a call.
    fn record(&self, shared: &ServerState, tool: &str, failure: Option<&CallFailure>) {
        let tenant = shared.tenant();
        let request_id = &self.call.request_id;
        let elapsed = SystemClock.monotonic().saturating_duration_since(self.started);
        let outcome = failure.map_or(CallOutcome::Ok, CallFailure::outcome);
        shared.metrics().record_tool_call(tenant, outcome, elapsed);
        let elapsed_ms = elapsed.as_millis();
        match failure {
            None => tracing::debug!(tenant, tool, request_id, elapsed_ms, "tool call answered"),
            Some(CallFailure::Backend(error)) => {
                tracing::warn!(
                    tenant,
                    tool,
                    request_id,
                    elapsed_ms,
                    fault = error.class(),
                    "tool call failed"
                );
            }
            Some(CallFailure::Internal) => {
                tracing::error!(tenant, tool, request_id, elapsed_ms, "a panic ended a tool call");
            }
            Some(_) => {
                tracing::debug!(tenant, tool, request_id, elapsed_ms, ?outcome, "tool call not answered")
            }
        }
    }
}

/// What was read, for the audit entry.
#[derive(Debug, Clone, Copy)]
pub(super) enum ReadTarget<'a> {
    /// A tool's result, by its listed name.
    Tool(&'a str),
    /// A resource, by its URI.
    Resource(&'a str),
}

/// Returns the caller's name for the backend's user header.
fn user(principal: &Principal) -> Option<String> {
    let who = principal.audit_identity();
    who.user.filter(|name| is_one_name(name)).or(who.oid).or(who.label).map(str::to_owned)
}

/// Returns whether every parser of a header with this value sees one user. Directories choose the
/// names of their accounts, and a comma or quote in one could make it look like a list, or like
/// another user; the object id is sent instead.
fn is_one_name(name: &str) -> bool {
    let splits = |c: char| c.is_control() || c.is_whitespace() || ",;\"\\<>=".contains(c);
    !name.is_empty() && !name.contains(splits)
}

/// Returns the part of the context that matches a topic, or the whole context with a notice.
fn about(context: &DerivedContext, topic: &str, mut hold: Reservation) -> Result<ToolAnswer, backend::Error> {
    let document = context.document();
    // The part is never larger than the whole, and is parsed once more to become a document.
    let limits = JsonLimits { bytes: document.size(), depth: 127, values: usize::MAX };
    hold.try_grow(document.size() as u64).map_err(backend::Error::BudgetExhausted)?;
    let part = context::narrow_to_topic(document.root(), topic);
    let part = part.and_then(|part| JsonDocument::parse(part.into_bytes(), &limits).ok());
    Ok(match part {
        Some(part) => ToolAnswer { reservation: Some(hold), ..ToolAnswer::from_document(Arc::new(part)) },
        None => {
            let topic: String = topic.chars().take(100).collect();
            let notice = format!("Nothing in the context mentions {topic:?}, so all of it is given.");
            hold.release();
            ToolAnswer { notice: Some(notice), ..context.to_answer(hold)? }
        }
    })
}

/// Sends progress notifications to a client that asked for them.
struct ProgressNotifier<'a> {
    peer: &'a Peer<RoleServer>,
    token: ProgressToken,
    beat: Interval,
    every: Duration,
    beats: u32,
}

impl<'a> ProgressNotifier<'a> {
    fn new(peer: &'a Peer<RoleServer>, token: ProgressToken, pace: &Timing) -> Self {
        Self {
            peer,
            token,
            beat: tokio::time::interval(pace.progress_interval),
            every: pace.progress_interval,
            beats: 0,
        }
    }

    /// Sends the next notification when it is due, the first one at once. Progress is measured in
    /// seconds, without a total.
    async fn tell(&mut self) {
        self.beat.tick().await;
        let waited = (self.every * self.beats).as_secs_f64();
        let message = match self.beats {
            0 => "asking the search service".to_owned(),
            _ => format!("waiting for the search service, {waited:.0} s"),
        };
        self.beats += 1;
        let note = ProgressNotificationParam::new(self.token.clone(), waited).with_message(message);
        // Sending fails when the client has disconnected, which the cancellation reports as well.
        let _gone = self.peer.notify_progress(note).await;
    }
}

/// Waits for the next notification; forever, if the client did not ask for any.
async fn told(progress: Option<&mut ProgressNotifier<'_>>) {
    match progress {
        Some(progress) => progress.tell().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Account, GroupMembership};
    use crate::oauth::bearer::UserPrincipal;
    use crate::store::GrantId;

    fn named(name: Option<&str>) -> Principal {
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
        Principal::User(UserPrincipal { account, subject: "s".into(), client_id: "c".into(), grant })
    }

    #[test]
    fn the_backend_is_told_one_user_and_no_other() {
        for name in [
            "ann@example.com",
            "o'neill@example.com",
            "ann_fabrikam.com#EXT#@contoso.onmicrosoft.com",
            "jörg@example.com",
        ] {
            assert_eq!(user(&named(Some(name))).as_deref(), Some(name));
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
            assert_eq!(user(&named(Some(name))).as_deref(), Some("the-object-id"), "{name:?}");
        }
        assert_eq!(user(&named(None)).as_deref(), Some("the-object-id"));
        assert_eq!(user(&Principal::Key { label: "ci".into() }).as_deref(), Some("ci"));
        assert_eq!(user(&Principal::Anonymous), None);
    }
}
