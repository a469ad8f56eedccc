//! The steps of MCP itself: the first request, the handshake, the tools, a stream, and a large
//! request.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::super::verdict::DoctorVerdict;
use super::clients::Opening;
use super::differences::PathKind;
use super::exchange::{HttpAnswer, Question};
use super::remedies::Interference;
use super::{CLIENT, Necessity, Sequence, Step};

/// How long a stream is watched: until the gateway's first keep-alive, which comes after fifteen
/// seconds, since some proxies notice only then that its time is over.
const WATCH: Duration = Duration::from_secs(17);
/// When the first event of a stream is late. The gateway sends it at once.
const LATE: Duration = Duration::from_secs(5);
/// Room for what stands around the padding of a large request.
const AROUND_PADDING: usize = 4096;
/// Many proxies stop at one mebibyte.
const MAX_PADDING: usize = 8 << 20;
const MODERN: &str = "2026-07-28";

impl Sequence<'_> {
    /// The first request, without a credential: the answer says what the client needs.
    pub(super) async fn ask_first(&mut self) -> Option<HttpAnswer> {
        let question = match self.profile.opening {
            Opening::Discover => self.modern_message("server/discover", 1, json!({}), false),
            _ => self.message("initialize", Some(1), self.hello(), false),
        };
        let is_known =
            |answer: &HttpAnswer| matches!(answer.status, StatusCode::OK | StatusCode::UNAUTHORIZED);
        match self.step("first request", PathKind::Endpoint, &question, Necessity::Needed, is_known).await {
            Step::Done(answer) => Some(*answer),
            Step::Ended => None,
        }
    }

    /// The handshake, the tools, and a stream.
    pub(super) async fn call(&mut self) -> Option<()> {
        let has_result = |answer: &HttpAnswer| {
            answer.status == StatusCode::OK && answer.json().is_some_and(|json| json.get("result").is_some())
        };
        let list = match self.profile.opening {
            Opening::Discover => {
                let discover = self.modern_message("server/discover", 1, json!({}), true);
                self.done("server/discover", &discover, has_result).await?;
                self.modern_message("tools/list", 2, json!({}), true)
            }
            _ => {
                let initialize = self.message("initialize", Some(1), self.hello(), true);
                self.done("initialize", &initialize, has_result).await?;
                let initialized = self.message("notifications/initialized", None, json!({}), true);
                let is_accepted = |answer: &HttpAnswer| answer.status == StatusCode::ACCEPTED;
                self.done("initialized", &initialized, is_accepted).await?;
                self.message("tools/list", Some(2), json!({}), true)
            }
        };
        self.done("tools/list", &list, has_result).await?;
        self.watch_stream().await;
        Some(())
    }

    async fn done(
        &mut self,
        name: &'static str,
        question: &Question,
        is_expected: impl Fn(&HttpAnswer) -> bool,
    ) -> Option<()> {
        match self.step(name, PathKind::Endpoint, question, Necessity::Needed, is_expected).await {
            Step::Done(_) => Some(()),
            Step::Ended => None,
        }
    }

    /// Opens a stream through the public URL. Its first event comes at once, and it stays open.
    async fn watch_stream(&mut self) {
        let question = self.listen();
        // A proxy that keeps everything back keeps the head back, too.
        let Ok(view) = self.public.watch(&question, WATCH).await else {
            return self.say_stream(&question, Interference::Buffers, "no answer within 17 s");
        };
        if view.answer.status != StatusCode::OK || view.answer.media_type() != "text/event-stream" {
            // Clients of earlier protocol versions open none.
            self.verdicts.push(DoctorVerdict::not_checked(
                CLIENT,
                "stream-not-opened",
                self.place(&question),
                format!("the gateway opened no stream: {}", view.answer.describe()),
            ));
            return;
        }
        match (view.first_bytes_after, view.ended_after) {
            (None, None) => self.say_stream(
                &question,
                Interference::Buffers,
                "no event within 17 s, although one was sent at once",
            ),
            (Some(first), _) if first > LATE => {
                let found = format!("the first event came after {} s", first.as_secs());
                self.say_stream(&question, Interference::Buffers, &found);
            }
            (_, Some(ended)) => {
                let found = format!("it ended after {} s, while nothing happened", ended.as_secs());
                self.say_stream(&question, Interference::CutsStreams, &found);
            }
            (Some(_), None) => self.agreed.push("stream"),
        }
    }

    fn say_stream(&mut self, question: &Question, interference: Interference, found: &str) {
        let found = format!("step \"stream\": {found}");
        let changes = self.changes(interference, None);
        self.verdicts.push(
            DoctorVerdict::fault(CLIENT, interference.code(), self.place(question), found)
                .meaning(interference.meaning())
                .advice(interference.advice())
                .changes(changes),
        );
    }

    /// A request as large as the tenant takes.
    pub(super) async fn send_much(&mut self) -> Option<()> {
        let limit = self.tenant.spec.as_ref().map(|spec| spec.limits.max_request_bytes);
        let size = limit.unwrap_or(256 << 10).saturating_sub(AROUND_PADDING).min(MAX_PADDING);
        let mut hello = self.hello();
        hello["_meta"] = json!({ "tenantd.doctor/padding": "x".repeat(size) });
        let question = self.message("initialize", Some(3), hello, true);
        let is_known = |answer: &HttpAnswer| answer.status != StatusCode::PAYLOAD_TOO_LARGE;
        self.done("large request", &question, is_known).await
    }

    fn hello(&self) -> Value {
        json!({
            "protocolVersion": self.profile.opening.version(),
            "capabilities": {},
            "clientInfo": { "name": "tenantd doctor", "version": env!("CARGO_PKG_VERSION") },
        })
    }

    /// Builds a JSON-RPC message as the client sends it.
    fn message(&self, method: &str, id: Option<u64>, params: Value, has_key: bool) -> Question {
        let mut message = json!({ "jsonrpc": "2.0", "method": method, "params": params });
        if let Some(id) = id {
            message["id"] = json!(id);
        }
        let question = self.post(message, has_key);
        match self.profile.opening {
            Opening::Initialize(version) if method != "initialize" => {
                question.with("mcp-protocol-version", version)
            }
            _ => question,
        }
    }

    /// A stream of the protocol version that has one without a call.
    fn listen(&self) -> Question {
        let params = json!({ "notifications": { "toolsListChanged": true } });
        self.modern_message("subscriptions/listen", 4, params, true)
    }

    /// Builds a message of the version that has no handshake.
    fn modern_message(&self, method: &'static str, id: u64, mut params: Value, has_key: bool) -> Question {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": { "name": "tenantd doctor", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let question = self.post(message, has_key).with("mcp-protocol-version", MODERN);
        question.with("mcp-method", method)
    }

    fn post(&self, message: Value, has_key: bool) -> Question {
        let question = Question::post(self.connector.path(), "application/json", message.to_string())
            .with("accept", "application/json, text/event-stream")
            .with("user-agent", self.profile.user_agent);
        match self.key.filter(|_| has_key) {
            Some(key) => question.with("authorization", format!("Bearer {}", key.expose())),
            None => question,
        }
    }
}
