//! The protocol's methods, answered for one tenant. This is where the two eras differ.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;

use futures_util::FutureExt;
use http::request::Parts;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ClientCapabilities, CustomRequest, CustomResult, DiscoverResult,
    ErrorCode, GetPromptRequestMethod, GetPromptRequestParams, GetPromptResponse, Implementation,
    InitializeRequestParams, InitializeResult, ListPromptsRequestMethod, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, ServerCapabilities,
    ServerConfig, SubscriptionFilter, Tool,
};
use rmcp::service::{NotificationContext, RequestContext, SubscriptionContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde::Deserialize;

use super::call;
use super::current_caller::with_current_caller;
use super::request_info::caller;
use super::request_span::RequestSpan;
use super::version::PROTOCOL_VERSIONS;
use super::{resource, subscriptions};
use crate::base::panic::catch_panic;
use crate::mcp::server_state::{ServerState, declares_header_params};
use crate::telemetry::otlp::in_span;

type HandlerContext = RequestContext<RoleServer>;

/// Methods that rmcp reports as unknown when their parameters have the wrong shape.
const KNOWN_METHODS: [&str; 7] = [
    "tools/call",
    "tools/list",
    "resources/read",
    "resources/list",
    "resources/templates/list",
    "subscriptions/listen",
    "server/discover",
];

/// What the span of an unknown method is called.
const OTHER_METHOD: &str = "_OTHER";

/// The handler, which rmcp clones for each request.
#[derive(Clone)]
pub(in crate::mcp) struct McpHandler {
    state: Arc<ServerState>,
}

impl McpHandler {
    pub(super) fn new(state: Arc<ServerState>) -> Self {
        Self { state }
    }

    /// Starts the span of a request, if requests are traced.
    fn start_span(&self, context: &HandlerContext, method: &str) -> RequestSpan {
        RequestSpan::start(&self.state, context, method)
    }

    async fn instructions(&self, context: &HandlerContext) -> Option<String> {
        self.state.view(caller(context)).instructions().await
    }

    async fn discover_result(&self, context: &HandlerContext) -> DiscoverResult {
        let mut result = DiscoverResult::from_server_info(PROTOCOL_VERSIONS.to_vec(), self.get_info())
            .with_ttl_ms(self.state.ttl_ms())
            .with_cache_scope(self.state.cache_scope());
        result.instructions = self.instructions(context).await;
        result
    }

    /// Answers a handshake whose parameters are incomplete or malformed. Only the version matters;
    /// without one, the newest is used.
    async fn initialize_leniently(
        &self,
        params: Option<serde_json::Value>,
        context: HandlerContext,
    ) -> Result<CustomResult, ErrorData> {
        let unknown_client = Implementation::new("unknown", "unknown");
        let mut request = InitializeRequestParams::new(ClientCapabilities::default(), unknown_client);
        let version = params.as_ref().and_then(|params| params.get("protocolVersion"));
        if let Some(version) = version.and_then(|version| ProtocolVersion::deserialize(version).ok()) {
            request = request.with_protocol_version(version);
        }
        let result = self.initialize(request, context).await?;
        Ok(CustomResult::new(serde_json::to_value(result).expect("a result is JSON")))
    }

    fn list_tools_result(&self, context: &HandlerContext) -> ListToolsResult {
        ListToolsResult::with_all_items(self.state.list_tools(caller(context)))
            .with_ttl_ms(self.state.ttl_ms())
            .with_cache_scope(self.state.cache_scope())
    }

    fn list_resources_result(&self, context: &HandlerContext) -> ListResourcesResult {
        ListResourcesResult::with_all_items(self.state.view(caller(context)).resources())
            .with_ttl_ms(self.state.ttl_ms())
            .with_cache_scope(self.state.cache_scope())
    }

    async fn read_document(
        &self,
        uri: &str,
        span: RequestSpan,
        context: &HandlerContext,
    ) -> Result<ReadResourceResult, ErrorData> {
        let contents = resource::read(&self.state, uri, span, context).await?;
        let mut result = ReadResourceResult::new(vec![contents])
            .with_ttl_ms(self.state.ttl_ms())
            .with_cache_scope(self.state.cache_scope());
        result.meta = is_modern(context).then(|| self.state.result_meta());
        Ok(result)
    }
}

/// Returns whether a request is of 2026-07-28 or later: stateless, with metadata on requests and
/// results.
fn is_modern(context: &HandlerContext) -> bool {
    context.protocol_version().is_some_and(|version| version >= ProtocolVersion::V_2026_07_28)
}

/// Returns the same for a request that may lack its metadata, from its header.
fn declares_modern(context: &HandlerContext) -> bool {
    let parts = context.extensions.get::<Parts>();
    let version = parts.and_then(|parts| parts.headers.get("mcp-protocol-version")?.to_str().ok());
    // Versions are dates, which sort as text.
    is_modern(context) || version.is_some_and(|version| version >= ProtocolVersion::V_2026_07_28.as_str())
}

/// What is missing in the parameters of a known method, or has another shape.
fn explain_invalid_params(method: &str, params: Option<&serde_json::Value>) -> String {
    let member = |name: &str| params.and_then(|params| params.get(name)).filter(|value| !value.is_null());
    let (name, has_expected_type, expected): (_, fn(&serde_json::Value) -> bool, _) = match method {
        "tools/call" => ("name", serde_json::Value::is_string, "a string"),
        "resources/read" => ("uri", serde_json::Value::is_string, "a string"),
        "subscriptions/listen" => ("notifications", serde_json::Value::is_object, "an object"),
        _ => return format!("the parameters of {method} have the wrong structure"),
    };
    match member(name) {
        None => format!("{method} needs params.{name}, {expected}"),
        Some(value) if !has_expected_type(value) => format!("params.{name} of {method} must be {expected}"),
        _ if member("arguments").is_some_and(|arguments| !arguments.is_object()) => {
            format!("params.arguments of {method} must be an object, each argument by its name")
        }
        _ => format!("the parameters of {method} have the wrong structure"),
    }
}

/// Lists have one page, so no cursor is ours.
fn reject_cursor(request: Option<PaginatedRequestParams>) -> Result<(), ErrorData> {
    match request.and_then(|request| request.cursor) {
        None => Ok(()),
        Some(_) => Err(ErrorData::invalid_params("the list has one page; call it without a cursor", None)),
    }
}

/// Runs a handler; a panic in it becomes an internal error that does not reveal its cause.
///
/// Large handlers are boxed, since rmcp moves the largest of all handlers' futures from task to
/// task a dozen times with each request.
fn catch_handler_panic<T>(
    future: impl Future<Output = Result<T, ErrorData>>,
) -> impl Future<Output = Result<T, ErrorData>> {
    catch_panic(future).map(|outcome| {
        outcome.unwrap_or_else(|_panicked| {
            tracing::error!("a panic ended a request");
            Err(ErrorData::internal_error("The server failed.", None))
        })
    })
}

impl ServerHandler for McpHandler {
    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(PROTOCOL_VERSIONS)
    }

    /// Returns the server's capabilities without instructions, since rmcp calls this several times
    /// per request. The instructions come with the handshake and with discovery.
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_resources()
            .build();
        ServerConfig::new(capabilities).with_server_info(self.state.server_info())
    }

    async fn ping(&self, context: HandlerContext) -> Result<(), ErrorData> {
        self.start_span(&context, "ping").end(Ok(()))
    }

    /// Refuses, as the default does: there are no prompts. Some clients ask all the same.
    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        context: HandlerContext,
    ) -> Result<ListPromptsResult, ErrorData> {
        let mut span = self.start_span(&context, "prompts/list");
        span.end(Err(ErrorData::method_not_found::<ListPromptsRequestMethod>()))
    }

    /// Refuses, as the default does.
    async fn get_prompt(
        &self,
        _request: GetPromptRequestParams,
        context: HandlerContext,
    ) -> Result<GetPromptResponse, ErrorData> {
        let mut span = self.start_span(&context, "prompts/get");
        span.end(Err(ErrorData::method_not_found::<GetPromptRequestMethod>()))
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: HandlerContext,
    ) -> Result<InitializeResult, ErrorData> {
        let mut span = self.start_span(&context, "initialize");
        let answering = Box::pin(async {
            let mut info = self.negotiate_initialize(&request)?;
            // Without sessions the server cannot push anything to a client of this era.
            if let Some(tools) = &mut info.capabilities.tools {
                tools.list_changed = None;
            }
            info.instructions = self.instructions(&context).await;
            context.peer.set_peer_info(request);
            Ok(info)
        });
        let outcome = catch_handler_panic(in_span(span.ids(), answering)).await;
        span.end(outcome)
    }

    async fn discover(&self, context: HandlerContext) -> Result<DiscoverResult, ErrorData> {
        let mut span = self.start_span(&context, "server/discover");
        let answering = Box::pin(async { Ok(self.discover_result(&context).await) });
        let outcome = catch_handler_panic(in_span(span.ids(), answering)).await;
        span.end(outcome)
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        context: HandlerContext,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut span = self.start_span(&context, "tools/list");
        span.end(reject_cursor(request).map(|()| {
            let mut result = self.list_tools_result(&context);
            result.meta = is_modern(&context).then(|| self.state.result_meta());
            result
        }))
    }

    /// Returns a tool's schema if it uses `Mcp-Param-*` headers, which few do; rmcp asks before
    /// every call to compare them. A tool that the caller may not see has no schema for them.
    fn get_tool(&self, name: &str) -> Option<Tool> {
        with_current_caller(|caller| {
            let schema = self.state.input_schema(name, caller)?;
            declares_header_params(schema)
                .then(|| Tool::new_with_raw(name.to_owned(), None, Arc::clone(schema)))
        })
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: HandlerContext,
    ) -> Result<CallToolResponse, ErrorData> {
        let meta = is_modern(&context).then(|| self.state.result_meta());
        let span = self.start_span(&context, "tools/call");
        let ids = span.ids();
        let call = Box::pin(call::call_tool(&self.state, request, span, context));
        let mut result = catch_handler_panic(in_span(ids, call)).await?;
        result.meta = meta;
        Ok(CallToolResponse::Complete(result))
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: HandlerContext,
    ) -> Result<ListResourcesResult, ErrorData> {
        let mut span = self.start_span(&context, "resources/list");
        span.end(reject_cursor(request).map(|()| {
            let mut result = self.list_resources_result(&context);
            result.meta = is_modern(&context).then(|| self.state.result_meta());
            result
        }))
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        context: HandlerContext,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let mut span = self.start_span(&context, "resources/templates/list");
        span.end(reject_cursor(request).map(|()| {
            let templates = self.state.view(caller(&context)).resource_templates();
            let mut result = ListResourceTemplatesResult::with_all_items(templates)
                .with_ttl_ms(self.state.ttl_ms())
                .with_cache_scope(self.state.cache_scope());
            result.meta = is_modern(&context).then(|| self.state.result_meta());
            result
        }))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: HandlerContext,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let span = self.start_span(&context, "resources/read");
        let ids = span.ids();
        let read = Box::pin(self.read_document(&request.uri, span, &context));
        catch_handler_panic(in_span(ids, read)).await.map(ReadResourceResponse::from)
    }

    fn accepted_subscription_filter(&self, _requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(SubscriptionFilter::builder().tools_list_changed().build())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let caller = caller(context.request_context());
        catch_handler_panic(Box::pin(subscriptions::listen(self.state.subscribe(), &context, caller))).await
    }

    /// Answers unknown methods, and known methods whose parameters rmcp cannot parse.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: HandlerContext,
    ) -> Result<CustomResult, ErrorData> {
        match request.method.as_str() {
            // Since 2026-07-28 there is no handshake; clients learn that from this error.
            "initialize" if !declares_modern(&context) => {
                Box::pin(self.initialize_leniently(request.params, context)).await
            }
            method if KNOWN_METHODS.contains(&method) => {
                let explanation = explain_invalid_params(method, request.params.as_ref());
                let mut span = self.start_span(&context, method);
                span.end(Err(ErrorData::invalid_params(explanation, None)))
            }
            _ => {
                // Spans have few names, whatever clients send.
                let mut span = self.start_span(&context, OTHER_METHOD);
                span.end(Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, request.method, None)))
            }
        }
    }

    /// Does nothing: the default logs each notification, which carries no information without
    /// sessions.
    async fn on_initialized(&self, _context: NotificationContext<RoleServer>) {}
}
