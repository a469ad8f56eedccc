//! The protocol's methods, answered from one tenant's surface. What differs between the two eras is decided here.

use std::borrow::Cow;
use std::future::{Future, ready};
use std::sync::Arc;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CustomRequest, CustomResult, DiscoverResult, ErrorCode,
    InitializeRequestParams, InitializeResult, ListResourceTemplatesResult, ListResourcesResult,
    ListToolsResult, PaginatedRequestParams, ProtocolVersion, ReadResourceRequestParams,
    ReadResourceResponse, ReadResourceResult, Resource, ResourceContents, ServerCapabilities, ServerConfig,
    SubscriptionFilter, Tool,
};
use rmcp::service::{NotificationContext, RequestContext, SubscriptionContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};

use super::call::{self, Asked};
#[cfg(feature = "conformance")]
use super::fixture::Fixture;
use super::result::signed;
use super::service::VERSIONS;
use super::shared::{Shared, names_headers};
use super::{context, subscriptions};
use crate::base::panic::caught;

type Context = RequestContext<RoleServer>;

/// Methods that rmcp takes for unknown ones when their parameters have the wrong shape.
const METHODS: [&str; 7] = [
    "tools/call",
    "tools/list",
    "resources/read",
    "resources/list",
    "resources/templates/list",
    "subscriptions/listen",
    "server/discover",
];

/// What rmcp clones for each request.
#[derive(Clone)]
pub(super) struct TenantHandler {
    shared: Arc<Shared>,
}

impl TenantHandler {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn instructions(&self) -> Option<String> {
        let surface = &self.shared.surface;
        let known = surface.backend.known_context();
        context::instructions(
            surface.instructions.as_deref(),
            surface.description.as_deref(),
            known.as_deref(),
        )
    }

    fn discovered(&self) -> DiscoverResult {
        let mut result = DiscoverResult::from_server_info(VERSIONS.to_vec(), self.get_info())
            .with_ttl_ms(self.shared.ttl_ms())
            .with_cache_scope(self.shared.cache_scope());
        result.instructions = self.instructions();
        result
    }

    fn tools(&self, context: &Context) -> ListToolsResult {
        ListToolsResult::with_all_items(self.shared.tools(call::caller(context)))
            .with_ttl_ms(self.shared.ttl_ms())
            .with_cache_scope(self.shared.cache_scope())
    }

    fn resources(&self) -> ListResourcesResult {
        let surface = &self.shared.surface;
        let document = Resource::new(self.shared.context_uri(), "context")
            .with_title(format!("Semantic context of {}", surface.title))
            .with_description(
                "What the dataset holds and can be asked: entities, measures, sample questions.",
            )
            .with_mime_type("application/json");
        let resources = vec![document];
        #[cfg(feature = "conformance")]
        let resources = self.shared.fixture.iter().flat_map(Fixture::resources).chain(resources).collect();
        ListResourcesResult::with_all_items(resources)
            .with_ttl_ms(self.shared.ttl_ms())
            .with_cache_scope(self.shared.cache_scope())
    }

    async fn document(&self, uri: &str, context: &Context) -> Result<ReadResourceResult, ErrorData> {
        #[cfg(feature = "conformance")]
        if let Some(contents) = self.shared.fixture.as_ref().and_then(|fixture| fixture.read(uri)) {
            return Ok(self.read(contents, context));
        }
        if uri != self.shared.context_uri() {
            let data = serde_json::json!({ "uri": uri });
            return Err(ErrorData::resource_not_found("there is no such resource here", Some(data)));
        }
        let asked = Asked::of(context, self.shared.surface.deadline);
        let document = tokio::select! {
            document = asked.context(&self.shared) => document,
            () = context.ct.cancelled() => return Err(ErrorData::internal_error("cancelled", None)),
            () = self.shared.line.closed() => return Err(ErrorData::internal_error("shutting down", None)),
        };
        let document = document.map_err(|error| {
            let sentence = format!("{error}. {}", error.advice());
            ErrorData::internal_error(asked.with_id(&sentence), None)
        })?;
        let contents = ResourceContents::text(document.to_string(), uri).with_mime_type("application/json");
        Ok(self.read(contents, context))
    }

    fn read(&self, contents: ResourceContents, context: &Context) -> ReadResourceResult {
        let mut result = ReadResourceResult::new(vec![contents])
            .with_ttl_ms(self.shared.ttl_ms())
            .with_cache_scope(self.shared.cache_scope());
        result.meta = is_modern(context).then(|| self.shared.result_meta());
        result
    }
}

/// 2026-07-28 and later: stateless, with metadata on requests and results.
fn is_modern(context: &Context) -> bool {
    context.protocol_version().is_some_and(|version| version >= ProtocolVersion::V_2026_07_28)
}

/// Lists have one page, so no cursor is ours.
fn first_page(request: Option<PaginatedRequestParams>) -> Result<(), ErrorData> {
    match request.and_then(|request| request.cursor) {
        None => Ok(()),
        Some(_) => Err(ErrorData::invalid_params("the list has one page; call it without a cursor", None)),
    }
}

/// Runs a handler's own code; a panic in it is told as ours, without what caused it.
async fn guarded<T>(future: impl Future<Output = Result<T, ErrorData>>) -> Result<T, ErrorData> {
    caught(future).await.unwrap_or_else(|_panicked| {
        tracing::error!("a panic ended a request");
        Err(ErrorData::internal_error("The server failed.", None))
    })
}

impl ServerHandler for TenantHandler {
    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(VERSIONS)
    }

    /// Asked for several times a request, so without instructions; those come with the handshake and with discovery.
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_resources()
            .build();
        ServerConfig::new(capabilities).with_server_info(self.shared.server_info())
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: Context,
    ) -> Result<InitializeResult, ErrorData> {
        guarded(async {
            let mut info = self.negotiate_initialize(&request)?;
            // Without sessions nothing can be pushed to a client of this era.
            if let Some(tools) = &mut info.capabilities.tools {
                tools.list_changed = None;
            }
            info.instructions = self.instructions();
            context.peer.set_peer_info(request);
            Ok(info)
        })
        .await
    }

    async fn discover(&self, _context: Context) -> Result<DiscoverResult, ErrorData> {
        guarded(async { Ok(self.discovered()) }).await
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        context: Context,
    ) -> Result<ListToolsResult, ErrorData> {
        first_page(request)?;
        let mut result = self.tools(&context);
        result.meta = is_modern(&context).then(|| self.shared.result_meta());
        Ok(result)
    }

    /// rmcp wants a tool's schema with every call, to compare `Mcp-Param-*` headers. Most tools have none.
    fn get_tool(&self, name: &str) -> Option<Tool> {
        let schema = self.shared.input_schema(name)?;
        names_headers(schema).then(|| Tool::new_with_raw(name.to_owned(), None, Arc::clone(schema)))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: Context,
    ) -> Result<CallToolResponse, ErrorData> {
        let meta = is_modern(&context).then(|| self.shared.result_meta());
        let result = guarded(Box::pin(call::call(&self.shared, request, context))).await?;
        Ok(CallToolResponse::Complete(signed(result, meta)))
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: Context,
    ) -> Result<ListResourcesResult, ErrorData> {
        first_page(request)?;
        let mut result = self.resources();
        result.meta = is_modern(&context).then(|| self.shared.result_meta());
        Ok(result)
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        context: Context,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        first_page(request)?;
        let templates = vec![];
        #[cfg(feature = "conformance")]
        let templates = self.shared.fixture.iter().flat_map(Fixture::templates).chain(templates).collect();
        let mut result = ListResourceTemplatesResult::with_all_items(templates)
            .with_ttl_ms(self.shared.ttl_ms())
            .with_cache_scope(self.shared.cache_scope());
        result.meta = is_modern(&context).then(|| self.shared.result_meta());
        Ok(result)
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: Context,
    ) -> Result<ReadResourceResponse, ErrorData> {
        guarded(self.document(&request.uri, &context)).await.map(ReadResourceResponse::from)
    }

    fn accepted_subscription_filter(&self, _requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(SubscriptionFilter::builder().tools_list_changed().build())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        guarded(subscriptions::listen(self.shared.follower(), &context)).await
    }

    /// Also reached by known methods whose parameters nothing can be made of.
    fn on_custom_request(
        &self,
        request: CustomRequest,
        _context: Context,
    ) -> impl Future<Output = Result<CustomResult, ErrorData>> + Send + '_ {
        let error = if METHODS.contains(&request.method.as_str()) {
            ErrorData::invalid_params(
                format!("the parameters of {} have the wrong shape", request.method),
                None,
            )
        } else {
            ErrorData::new(ErrorCode::METHOD_NOT_FOUND, request.method, None)
        };
        ready(Err(error))
    }

    /// The default logs each one; without sessions it says nothing.
    async fn on_initialized(&self, _context: NotificationContext<RoleServer>) {}
}
