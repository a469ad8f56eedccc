//! One tool call: finds the tool, validates the arguments, has the source answer, and records how
//! it ended.
//!
//! A failure that the model should read is a tool result with `isError`; a protocol error only
//! means that the request is not a valid call (2026-07-28, "Tools", error handling).

use std::sync::Arc;

use rmcp::model::{CallToolRequestParams, CallToolResult, ContentBlock};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};

use super::payload_slot::PayloadSlot;
use super::progress::ProgressNotifier;
use super::request_info::{ReadTarget, RequestInfo, caller};
use super::request_span::RequestSpan;
use crate::base::panic::catch_panic;
use crate::mcp::failure::CallFailure;
use crate::mcp::payload::Payload;
use crate::mcp::server_state::{AccessError, GrantedTool, ServerState};
use crate::mcp::source::{Output, ToolRequest};
use crate::oauth::bearer::Principal;
use crate::spec::TemplateValues;
use crate::telemetry::metrics::CallOutcome;
use crate::usage::MeteredCall;

type ToolOutput = Output<CallToolResult>;

/// Answers `tools/call`.
///
/// # Errors
/// There is no such tool, or the server failed.
pub(super) async fn call_tool(
    state: &ServerState,
    request: CallToolRequestParams,
    span: RequestSpan,
    context: RequestContext<RoleServer>,
) -> Result<CallToolResult, ErrorData> {
    let caller = caller(&context);
    let mut info = RequestInfo::from_context(&context, state, span);
    let arguments = request.arguments.unwrap_or_default();
    let (name, outcome) = match state.view(caller).tool(&request.name) {
        Err(AccessError::Unknown) => {
            return info.span.end(Err(unknown_tool(state, &request.name, caller)));
        }
        Err(AccessError::NotAllowed(name)) => {
            state.config.usage.record_refusal();
            (name, Err(CallFailure::NotAllowed))
        }
        Ok(tool) => {
            let mut metered = info.begin_metering(state, caller, Arc::clone(tool.name()));
            let outcome = match admit(tool, arguments, &mut metered) {
                Ok(arguments) => call(state, tool, arguments, &info, &context).await,
                Err(failure) => Err(failure),
            };
            info.finish_metering(state, caller, metered, &outcome).await;
            (&**tool.name(), outcome)
        }
    };
    finish(state, name, caller, &info, &outcome);
    info.span.set_tool(name);
    info.span.end_call(outcome.as_ref().err());
    match outcome {
        Ok(Output { message, payload }) => {
            PayloadSlot::from_context(&context).set(payload);
            Ok(message)
        }
        Err(CallFailure::Protocol(error)) => Err(error),
        Err(failure) => Ok(error_result(info.with_request_id(&failure.to_string()))),
    }
}

fn unknown_tool(state: &ServerState, name: &str, caller: &Principal) -> ErrorData {
    let known: Vec<&str> = state.view(caller).tools().map(|tool| &**tool.name).collect();
    let name: String = name.chars().take(128).collect();
    ErrorData::invalid_params(format!("this server has no tool {name:?}; it has: {}", known.join(", ")), None)
}

/// Builds a tool result with an error for the model and its user.
fn error_result(sentence: String) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(sentence)])
}

/// Validates the arguments and asks the limits. A call with wrong arguments uses none of them up.
fn admit(
    tool: GrantedTool<'_>,
    arguments: TemplateValues,
    metered: &mut MeteredCall,
) -> Result<TemplateValues, CallFailure> {
    let arguments = tool.prepare_arguments(arguments)?;
    metered.admit()?;
    Ok(arguments)
}

/// Answers the call; a panic becomes an error of the protocol.
async fn call(
    state: &ServerState,
    tool: GrantedTool<'_>,
    arguments: TemplateValues,
    info: &RequestInfo,
    context: &RequestContext<RoleServer>,
) -> Result<ToolOutput, CallFailure> {
    let request = ToolRequest { context: &info.call, message: context };
    match catch_panic(wait_for_answer(state, tool, arguments, request, info.takes_events)).await {
        Ok(answer) => answer,
        Err(_panicked) => {
            let (tenant, tool, request_id) = (state.tenant(), &**tool.name(), &info.call.request_id);
            let elapsed_ms = info.elapsed(state).as_millis();
            tracing::error!(tenant, tool, request_id, elapsed_ms, "a panic ended a tool call");
            Err(info.panic_failure())
        }
    }
}

/// Waits for the source's answer, sends progress notifications meanwhile, and stops when the client
/// cancels or the server is closed.
async fn wait_for_answer(
    state: &ServerState,
    tool: GrantedTool<'_>,
    arguments: TemplateValues,
    request: ToolRequest<'_>,
    takes_events: bool,
) -> Result<ToolOutput, CallFailure> {
    let message = request.message;
    let token = message.meta.get_progress_token().filter(|_| takes_events);
    let mut progress = token
        .zip(tool.waits_for())
        .map(|(token, what)| ProgressNotifier::new(&message.peer, token, what, &state.config.timing));
    let mut answer = tool.call(arguments, request);
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            () = message.ct.cancelled() => return Err(CallFailure::Cancelled),
            () = state.lineage.closed() => return Err(CallFailure::Closed),
            () = notify(progress.as_mut()) => {}
        }
    }
}

/// Sends the next notification when it is due; waits forever if the client did not ask for any.
async fn notify(progress: Option<&mut ProgressNotifier<'_>>) {
    match progress {
        Some(progress) => progress.notify().await,
        None => std::future::pending().await,
    }
}

/// Counts and logs a call, and writes its audit entry.
fn finish(
    state: &ServerState,
    tool: &str,
    caller: &Principal,
    info: &RequestInfo,
    outcome: &Result<ToolOutput, CallFailure>,
) {
    let failure = outcome.as_ref().err();
    record(state, tool, info, failure);
    let payload = outcome.as_ref().ok().and_then(|output| output.payload.as_ref());
    let readable = payload.map(Payload::readable_bytes);
    let outcome = failure.map_or(CallOutcome::Ok, CallFailure::outcome);
    info.record_audit(state, ReadTarget::Tool(tool), caller, outcome, readable);
}

fn record(state: &ServerState, tool: &str, info: &RequestInfo, failure: Option<&CallFailure>) {
    let (tenant, request_id, elapsed) = (state.tenant(), &info.call.request_id, info.elapsed(state));
    let outcome = failure.map_or(CallOutcome::Ok, CallFailure::outcome);
    state.config.metrics.record_tool_call(tenant, outcome, failure.map(CallFailure::kind), elapsed);
    let elapsed_ms = elapsed.as_millis();
    match failure {
        None => tracing::debug!(tenant, tool, request_id, elapsed_ms, "tool call answered"),
        Some(CallFailure::Backend(error)) => {
            tracing::warn!(tenant, tool, request_id, elapsed_ms, fault = error.class(), "tool call failed");
        }
        Some(_) => {
            tracing::debug!(tenant, tool, request_id, elapsed_ms, ?outcome, "tool call not answered");
        }
    }
}
