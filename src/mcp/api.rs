//! The tenant made of an HTTP API: questions to its backend, and the semantic context, as tools
//! and as a resource.
//!
//! [`schema`](super::schema) has checked the arguments. A call goes to
//! [`BackendClient`]; [`result`] cuts the answer and shapes it,
//! with [`render`] for the text and [`rows`] to find its rows; [`context`] condenses the context.

mod context;
mod render;
mod result;
mod rows;

use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rmcp::model::{CallToolResult, Resource, ResourceContents, ResourceTemplate};
use serde_json::Value;
use tokio::sync::watch;

use self::context::DerivedContext;
use self::result::ToolAnswer;
use super::failure::CallFailure;
use super::payload::{self, Payload, ReservedBytes};
use super::permissions::ProtectedItem;
use super::source::{Output, Pending, Source, ToolCall, ToolEntry};
use crate::backend::{self, BackendClient, CallContext, ContextRefresher};
use crate::base::budget::Reservation;
use crate::base::clock::Clock;
use crate::base::json::{JsonDocument, JsonLimits};
use crate::spec::{Degradation, TemplateValues, TenantName, ToolKind, ToolSpec};

/// Escapes everything in a dataset's name but RFC 3986's unreserved characters.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// How long instructions wait for the digest; later they are sent without it.
const DIGEST_TIMEOUT: Duration = Duration::from_secs(2);

/// An HTTP API as a tenant's source.
#[derive(Debug)]
pub(super) struct ApiSource {
    pub(super) tenant: TenantName,
    pub(super) dataset: Arc<str>,
    pub(super) title: Arc<str>,
    pub(super) description: Option<Arc<str>>,
    pub(super) instructions: Option<Arc<str>>,
    /// The listed tools, in the order in which they are listed.
    pub(super) tools: Arc<[ToolSpec]>,
    pub(super) backend: Arc<BackendClient>,
    pub(super) max_result_bytes: usize,
    pub(super) clock: Arc<dyn Clock>,
}

impl Source for ApiSource {
    fn tool_at(&self, index: usize) -> Option<ToolEntry<'_>> {
        self.tools.get(index).map(|tool| ToolEntry {
            name: &tool.name,
            title: Some(&tool.title),
            description: &tool.description,
            input_schema: &tool.input_schema,
            output_schema: Some(&tool.output_schema),
            reads_context: tool.kind == ToolKind::Context,
            is_query: true,
            waits_for: Some("the search service"),
        })
    }

    fn resources(&self) -> Vec<(Resource, ProtectedItem<'static>)> {
        let context = Resource::new(self.context_uri(), "context")
            .with_title(format!("Semantic context of {}", self.title))
            .with_description(
                "What the dataset contains and what you can ask: entities, measures, sample questions.",
            )
            .with_mime_type("application/json");
        vec![(context, ProtectedItem::Context)]
    }

    fn resource_templates(&self) -> Vec<ResourceTemplate> {
        Vec::new()
    }

    fn resource_item(&self, uri: &str) -> Option<ProtectedItem<'static>> {
        (uri == self.context_uri()).then_some(ProtectedItem::Context)
    }

    fn instructions(&self, with_context: bool) -> Pending<'_, Option<String>> {
        Box::pin(async move {
            let digest = if with_context { self.digest().await } else { None };
            let (own, description) = (self.instructions.as_deref(), self.description.as_deref());
            context::compose_instructions(own, description, digest.as_deref())
        })
    }

    fn call<'a>(&'a self, call: ToolCall<'a>) -> Pending<'a, Result<Output<CallToolResult>, CallFailure>> {
        Box::pin(async move {
            let payload = self.answer(call).await?;
            Ok(Output { message: payload::placeholder_result(), payload: Some(payload) })
        })
    }

    fn read<'a>(
        &'a self,
        uri: &'a str,
        request: &'a CallContext,
    ) -> Pending<'a, Result<Output<ResourceContents>, CallFailure>> {
        Box::pin(async move {
            let payload = self.read_context(request).await?;
            Ok(Output { message: payload::placeholder_resource(uri), payload: Some(payload) })
        })
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    fn degradation(&self) -> Option<Degradation> {
        self.backend.degradation()
    }

    fn start_refreshing(&self, refresher: &ContextRefresher) {
        refresher.register(self.tenant.clone(), &self.backend);
    }
}

impl ApiSource {
    /// Returns the URI of the semantic context: `context://<dataset>`.
    fn context_uri(&self) -> String {
        format!("context://{}", utf8_percent_encode(&self.dataset, ESCAPED))
    }

    async fn answer(&self, call: ToolCall<'_>) -> Result<Payload, CallFailure> {
        let ToolCall { tool, arguments, request } = call;
        let tool = self.tools.iter().find(|known| *known.name == *tool);
        let tool = tool.expect("the caller found the tool in the list");
        tool.call.check_arguments(&arguments).map_err(|unfit| CallFailure::Arguments(unfit.to_string()))?;
        match tool.kind {
            ToolKind::Search => self.search(tool, arguments, request.context).await,
            ToolKind::Context => self.answer_context_tool(&arguments, request.context).await,
        }
    }

    async fn search(
        &self,
        tool: &ToolSpec,
        arguments: TemplateValues,
        request: &CallContext,
    ) -> Result<Payload, CallFailure> {
        let answer = self.backend.call(&tool.call, &arguments, request).await?;
        let limit = arguments.get("limit").and_then(Value::as_u64);
        let answer = ToolAnswer {
            data: Arc::new(answer.document),
            reservation: Some(answer.reservation),
            row_limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            notice: None,
        };
        let (size, max_bytes) = (answer.data.size(), self.max_result_bytes);
        self.offload(size, request, move || answer.into_payload(max_bytes)).await
    }

    async fn answer_context_tool(
        &self,
        arguments: &TemplateValues,
        request: &CallContext,
    ) -> Result<Payload, CallFailure> {
        let context = self.fetch_context(request).await?;
        let topic = arguments.get("topic").and_then(Value::as_str).unwrap_or_default().trim();
        match topic.is_empty() {
            true => self.build_full_result(context, request).await,
            false => self.build_partial_result(context, topic, request).await,
        }
    }

    /// Fetches the context within the request's deadline, even if another request is fetching it.
    async fn fetch_context(&self, request: &CallContext) -> Result<DerivedContext, backend::Error> {
        let fetching = self.backend.context(request);
        let fetched = tokio::time::timeout_at(request.deadline.into(), fetching).await;
        Ok(DerivedContext::new(fetched.unwrap_or(Err(backend::Error::TimedOut))?))
    }

    /// Returns the whole context as a result. It is built once and shared by all callers.
    async fn build_full_result(
        &self,
        context: DerivedContext,
        request: &CallContext,
    ) -> Result<Payload, CallFailure> {
        let (size, max_bytes) = (context.document().size(), self.max_result_bytes);
        if let Some(payload) = context.cached_full_result(max_bytes) {
            return Ok(payload);
        }
        let reservation = self.backend.new_reservation(request);
        let build = move || match context.cached_full_result(max_bytes) {
            Some(payload) => Ok(payload),
            None => {
                let payload = context.to_answer(reservation)?.into_payload(max_bytes)?;
                Ok(context.cache_full_result(max_bytes, payload))
            }
        };
        self.offload(size, request, build).await
    }

    /// Returns the part of the context that matches a topic.
    async fn build_partial_result(
        &self,
        context: DerivedContext,
        topic: &str,
        request: &CallContext,
    ) -> Result<Payload, CallFailure> {
        let (size, max_bytes) = (context.document().size(), self.max_result_bytes);
        let (topic, reservation) = (topic.to_owned(), self.backend.new_reservation(request));
        let build = move || narrow_context(&context, &topic, reservation)?.into_payload(max_bytes);
        // Every word is examined, which costs about twenty times as much as reading the document.
        self.offload(size * 20, request, build).await
    }

    /// Returns the context as the text of a resource.
    async fn read_context(&self, request: &CallContext) -> Result<Payload, CallFailure> {
        let context = self.fetch_context(request).await?;
        let (size, reservation) = (context.document().size(), self.backend.new_reservation(request));
        let build = move || {
            let text = serde_json::to_vec(context.document().as_str()).expect("a string is JSON");
            ReservedBytes::reserve(text, Some(reservation), 0).map(Payload::for_resource)
        };
        self.offload(size, request, build).await
    }

    /// Returns the digest of the current context; `None` if there is none yet or computing it takes
    /// too long.
    async fn digest(&self) -> Option<Arc<str>> {
        let context = DerivedContext::new(self.backend.cached_context()?);
        if let Some(digest) = context.cached_digest() {
            return Some(digest);
        }
        let (size, deadline) = (context.document().size(), self.clock.monotonic() + DIGEST_TIMEOUT);
        self.backend.run_offloaded(size, deadline, move || context.get_or_build_digest()).await.ok()
    }

    /// Runs CPU work on `bytes` bytes, see [`BackendClient::run_offloaded`].
    async fn offload(
        &self,
        bytes: usize,
        request: &CallContext,
        work: impl FnOnce() -> Result<Payload, backend::Error> + Send + 'static,
    ) -> Result<Payload, CallFailure> {
        Ok(self.backend.run_offloaded(bytes, request.deadline, work).await??)
    }
}

/// Returns the part of the context that matches a topic, or the whole context with a notice.
fn narrow_context(
    context: &DerivedContext,
    topic: &str,
    mut reservation: Reservation,
) -> Result<ToolAnswer, backend::Error> {
    let document = context.document();
    // The part is never larger than the whole, and is parsed once more to become a document.
    let limits = JsonLimits { bytes: document.size(), depth: 127, values: usize::MAX };
    reservation.try_grow(document.size() as u64).map_err(backend::Error::BudgetExhausted)?;
    let part = context::narrow_to_topic(document.root(), topic);
    let part = part.and_then(|part| JsonDocument::parse(part.into_bytes(), &limits).ok());
    Ok(match part {
        Some(part) => {
            ToolAnswer { reservation: Some(reservation), ..ToolAnswer::from_document(Arc::new(part)) }
        }
        None => {
            let topic: String = topic.chars().take(100).collect();
            let notice = format!(
                "Nothing in the context mentions {topic:?}, so this is the complete \
                                  context."
            );
            reservation.release();
            ToolAnswer { notice: Some(notice), ..context.to_answer(reservation)? }
        }
    })
}
