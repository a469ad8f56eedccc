//! Agent frameworks: the test calls their own tool objects as an agent would, without a model.
//!
//! What they pass to a tool is not exactly what its schema says (some send null for whatever is
//! left out), and they do not show a model all that a result has (some show only the first text).

use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::library::Library;
use super::script::Script;
use super::stage::{each, plain};
use crate::harness::secret::secret;
use crate::harness::{Reply, Tenant};

/// Each framework with the words in which its user learns of a wrong key (docs/clients.md,
/// "Frameworks for agents").
const FRAMEWORKS: [(&str, &str); 9] = [
    ("autogen", "401 Unauthorized"),
    ("crewai", "Couldn't connect to the MCP server after"),
    ("google-adk", OURS),
    ("langchain", "401 Unauthorized"),
    ("llama-index", OURS),
    ("mcp-use", "Server requires authentication (HTTP 401)"),
    ("openai-agents", OURS),
    ("pydantic-ai", OURS),
    ("smolagents", "Couldn't connect to the MCP server after"),
];
const OURS: &str = "The API key is unknown or expired; ask the operator of this server for a new one.";

/// Importing a framework takes seconds of CPU time; all at once would hit their clients' time
/// limits.
static TURNS: Semaphore = Semaphore::const_new(2);

async fn turn() -> SemaphorePermit<'static> {
    TURNS.acquire().await.expect("nobody closes it")
}

fn frameworks() -> impl Iterator<Item = Library> {
    FRAMEWORKS.iter().map(|(name, _)| Library::framework(name))
}

#[tokio::test]
async fn every_framework_lists_the_tools_and_shows_a_model_their_answers() {
    each(frameworks(), plain, |stage| async move {
        let _turn = turn().await;
        let mut client = stage.connected().await;
        let listed = client.ask(json!({ "do": "tools" })).await;
        let tools = listed["tools"].as_array().unwrap_or_else(|| panic!("no list: {listed}"));
        let mut names: Vec<_> = tools.iter().filter_map(|tool| tool["name"].as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["get_context", "search"]);
        assert!(tools.iter().all(|tool| tool["description"].to_string().contains(stage.library.name)));
        for arguments in [json!({ "query": "q" }), json!({ "query": "q", "limit": null })] {
            let text = read(&mut client, "search", arguments).await;
            assert!(text.contains("north") && text.contains("12"), "{text}");
            assert_eq!(stage.backend.requests().last().expect("it was asked").json().get("limit"), None);
        }
        let text = read(&mut client, "search", json!({ "query": "q", "limit": 1 })).await;
        assert!(
            text.contains("north") && text.contains("the result has the first 1, as requested"),
            "{text}"
        );
        for arguments in [json!({}), json!({ "topic": null })] {
            let text = read(&mut client, "get_context", arguments).await;
            assert!(text.contains("orders") && text.contains("revenue"), "{text}");
        }
    })
    .await;
}

#[tokio::test]
async fn every_framework_tells_a_model_in_words_what_failed() {
    each(frameworks(), plain, |stage| async move {
        let _turn = turn().await;
        let mut client = stage.connected().await;
        let wrong = ask(&mut client, "search", json!({ "query": "q", "limit": "many" })).await;
        // The error is ours, or that of the framework's own check before the call.
        assert!(told(&wrong).contains("limit") && told(&wrong).contains("integer"), "{wrong}");
        assert!(stage.backend.requests().iter().all(|request| request.target != "/nlp-search"));
        stage.backend.answer("/nlp-search", Reply::Status(500, json!({ "detail": "a stack trace" })));
        let broken = ask(&mut client, "search", json!({ "query": "q" })).await;
        assert!(told(&broken).contains("search service") && told(&broken).contains("(request "), "{broken}");
        assert!(!told(&broken).contains("stack trace"), "{broken}");
        stage.backend.answer("/nlp-search", Reply::Rows);
        let text = read(&mut client, "search", json!({ "query": "q" })).await;
        assert!(text.contains("north"), "the connection is as good as before: {text}");
    })
    .await;
}

#[tokio::test]
async fn every_framework_comes_in_with_a_key_and_says_of_a_wrong_one_what_the_docs_say() {
    let keyed =
        |tenant: Tenant| tenant.with(&format!("api_keys:\n  - label: peers\n    key: {}", secret("caller")));
    each(frameworks(), keyed, |stage| async move {
        let _turn = turn().await;
        let mut client = stage.connected_with(Some(&secret("caller"))).await;
        let text = read(&mut client, "search", json!({ "query": "q" })).await;
        assert!(text.contains("north"), "{text}");
        drop(client);
        let mut stranger = stage.start(Some(&secret("stranger")));
        let mut order = stage.order_to_connect();
        // Two of the frameworks wait this long for a client of theirs that has ended.
        order["patience"] = json!(5);
        let answer = stranger.ask(order).await;
        let (_, words) =
            FRAMEWORKS.iter().find(|(name, _)| *name == stage.library.name).expect("one of them");
        assert!(answer["error"].to_string().contains(words), "{}: {answer}", stage.library.name);
    })
    .await;
}

/// Calls a tool and returns the text that a model would read, or the error that the framework
/// raises.
async fn ask(client: &mut Script, tool: &str, arguments: Value) -> Value {
    client.ask(json!({ "do": "call", "name": tool, "arguments": arguments })).await
}

fn told(answer: &Value) -> &str {
    answer["text"].as_str().or_else(|| answer["error"].as_str()).unwrap_or_default()
}

/// Returns the text of a successful call: plain text, not a list printed as source code.
async fn read(client: &mut Script, tool: &str, arguments: Value) -> String {
    let answer = ask(client, tool, arguments).await;
    let text = answer["text"].as_str().unwrap_or_else(|| panic!("{tool} failed: {answer}"));
    assert!(!text.starts_with('['), "{text}");
    text.to_owned()
}
