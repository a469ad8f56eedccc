//! Every method × every rule: what is listed, called, read and notified is what `Rights` allows.
//!
//! [`SURFACES`] names all methods that are answered. A method that the handler answers and the
//! table lacks fails [`every_answered_method_is_in_the_table_of_surfaces`], and a handler function
//! that the table lacks fails [`every_written_handler_is_in_the_table_of_surfaces`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use rmcp::model::{self, ConstString};
use serde_json::{Value, json};

use super::testkit::*;
use crate::backend::tests::fake::Reply;
use crate::base::json::JsonDocument;
use crate::base::secret::Secret;
use crate::identity::{Account, GroupMembership};
use crate::mcp::{AuthMode, Caller, McpServerConfig};
use crate::oauth::bearer::{MachinePrincipal, Principal, UserPrincipal};
use crate::spec::{
    AccessRules, DirectorySpec, EntraSpec, LoginSpec, MachineClientSpec, ProviderSpec, RegistrationSpec,
    ToolKind,
};
use crate::store::GrantId;

/// A name that only callers who may have the context can read.
const ENTITY: &str = "entity-of-the-context";
const WORDS: &str = "Orders of Acme.";
const URI: &str = "context://acme%20orders";

/// Method, function of the handler, whether it gives anything out.
const SURFACES: &[(&str, &str, bool)] = &[
    ("initialize", "initialize", true),
    ("server/discover", "discover", true),
    ("tools/list", "list_tools", true),
    ("tools/call", "call_tool", true),
    ("resources/list", "list_resources", true),
    ("resources/templates/list", "list_resource_templates", true),
    ("resources/read", "read_resource", true),
    ("subscriptions/listen", "listen", true),
    ("ping", "ping", false),
];

/// Functions of the handler that answer no method.
const NO_METHODS: &[&str] = &[
    "supported_protocol_versions",
    "get_info",
    "get_tool",
    "accepted_subscription_filter",
    "list_prompts",
    "get_prompt",
    "on_custom_request",
    "on_initialized",
];

/// Every method that rmcp knows, and some that it does not.
const METHODS: &[&str] = &[
    model::InitializeResultMethod::VALUE,
    model::DiscoverRequestMethod::VALUE,
    model::PingRequestMethod::VALUE,
    model::ListToolsRequestMethod::VALUE,
    model::CallToolRequestMethod::VALUE,
    model::ListResourcesRequestMethod::VALUE,
    model::ListResourceTemplatesRequestMethod::VALUE,
    model::ReadResourceRequestMethod::VALUE,
    model::SubscriptionsListenRequestMethod::VALUE,
    "resources/subscribe",
    "resources/unsubscribe",
    "resources/directory/read",
    "prompts/list",
    "prompts/get",
    "completion/complete",
    "logging/setLevel",
    "sampling/createMessage",
    "roots/list",
    "elicitation/create",
    "tasks/get",
    "tasks/list",
    "tasks/update",
    "tasks/result",
    "tasks/cancel",
    "skills/list",
    "skills/get",
    "tools/get",
    "resources/get",
    "context/get",
];

/// What a caller should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ExpectedItems {
    words: bool,
    search: bool,
    context: bool,
}

const ALL: ExpectedItems = ExpectedItems { words: true, search: true, context: true };
const NO_CONTEXT: ExpectedItems = ExpectedItems { context: false, ..ALL };
const NO_SEARCH: ExpectedItems = ExpectedItems { search: false, ..ALL };
const NOTHING: ExpectedItems = ExpectedItems { words: false, search: false, context: false };

fn person(change: impl FnOnce(&mut Account)) -> Principal {
    let mut account = Account {
        issuer: "t".into(),
        subject: "o".into(),
        name: None,
        username: Some("ada@contoso.com".into()),
        verified_email: None,
        roles: vec!["Analyst".into()],
        groups: GroupMembership::Known(vec!["g1".into()]),
        is_guest: false,
    };
    change(&mut account);
    let (account, grant) = (Arc::new(account), GrantId::random());
    Principal::User(UserPrincipal {
        account,
        subject: "s".into(),
        client_id: "c".into(),
        client_name: None,
        grant,
    })
}

fn ada() -> Principal {
    person(|_| {})
}

fn machine(role: &str) -> Principal {
    Principal::Machine(MachinePrincipal {
        client_id: "m".into(),
        label: "Teams".into(),
        roles: vec![role.into()],
    })
}

fn key() -> Principal {
    Principal::Key { label: "ci".into() }
}

fn rules(change: impl FnOnce(&mut AccessRules)) -> AccessRules {
    let mut rules = AccessRules::default();
    change(&mut rules);
    rules
}

fn roles(role: &str) -> AccessRules {
    rules(|rules| rules.roles = vec![role.into()])
}

/// A login with rules for the given tools.
fn login<const N: usize>(tools: [(&str, AccessRules); N]) -> AuthMode {
    let provider = EntraSpec {
        client_id: "app".into(),
        client_secrets: vec![Secret::new("s")],
        client_secret_expires: None,
        directory: DirectorySpec::One("d".into()),
        allow_guests: false,
        allow_personal_accounts: false,
    };
    let tools: BTreeMap<Arc<str>, AccessRules> =
        tools.into_iter().map(|(tool, rules)| (tool.into(), rules)).collect();
    AuthMode::Login(Arc::new(LoginSpec {
        provider: ProviderSpec::Entra(Arc::new(provider)),
        rules: AccessRules::default(),
        tools,
        machine_clients: Vec::<MachineClientSpec>::new(),
        registration: RegistrationSpec::default(),
        access_token_lifetime: crate::spec::MAX_ACCESS_TOKEN_LIFETIME,
    }))
}

/// Returns a configuration whose context is known from the start, so that its digest can leak.
fn server_config(bed: &McpTestkit, auth_mode: AuthMode, hidden: &[&str]) -> McpServerConfig {
    let document = json!({ "entities": [ENTITY] });
    bed.backend.answer("/nlp-context", Reply::Json(document.clone()));
    let mut config = bed.server_config();
    config.backend.restore_context(JsonDocument::from_value(&document));
    config.tools = config.tools.iter().filter(|tool| !hidden.contains(&&*tool.name)).cloned().collect();
    config.auth_mode = auth_mode;
    config
}

fn cases() -> Vec<(&'static str, AuthMode, &'static [&'static str], Principal, ExpectedItems)> {
    let context = |rules| login([("get_context", rules)]);
    let groups = |group: &str| rules(|rules| rules.groups = vec![group.into()]);
    let users = |user: &str| rules(|rules| rules.users = vec![user.into()]);
    let domain = |domain: &str| rules(|rules| rules.email_domains = vec![domain.into()]);
    let mut cases = vec![
        ("open", AuthMode::Open, &[] as &[&str], Principal::Anonymous, ALL),
        ("keys: holder", AuthMode::Keys, &[], key(), ALL),
        ("keys: nobody", AuthMode::Keys, &[], Principal::Anonymous, NOTHING),
        ("keys: somebody who logged in elsewhere", AuthMode::Keys, &[], ada(), NOTHING),
        ("login: person", login([]), &[], ada(), ALL),
        ("login: program", login([]), &[], machine("Agent"), ALL),
        ("login: nobody", login([]), &[], Principal::Anonymous, NOTHING),
        ("login: a key", login([]), &[], key(), NOTHING),
        ("role: without", context(roles("Modeller")), &[], ada(), NO_CONTEXT),
        ("role: with", context(roles("Analyst")), &[], ada(), ALL),
        ("role: program without", context(roles("Modeller")), &[], machine("Agent"), NO_CONTEXT),
        ("role: program with", context(roles("Agent")), &[], machine("Agent"), ALL),
        ("role: nobody", context(roles("Modeller")), &[], Principal::Anonymous, NOTHING),
        ("group: outside", context(groups("g2")), &[], ada(), NO_CONTEXT),
        ("group: inside", context(groups("g1")), &[], ada(), ALL),
        (
            "group: untold",
            context(groups("g1")),
            &[],
            person(|account| account.groups = GroupMembership::TooMany),
            NO_CONTEXT,
        ),
        ("group: program", context(groups("g1")), &[], machine("Agent"), NO_CONTEXT),
        ("user: another", context(users("x")), &[], ada(), NO_CONTEXT),
        ("user: named", context(users("o")), &[], ada(), ALL),
        ("domain: another", context(domain("example.com")), &[], ada(), NO_CONTEXT),
        ("domain: theirs", context(domain("contoso.com")), &[], ada(), ALL),
        (
            "domain: nameless",
            context(domain("contoso.com")),
            &[],
            person(|account| account.username = None),
            NO_CONTEXT,
        ),
        ("search narrowed: without", login([("search", roles("Boss"))]), &[], ada(), NO_SEARCH),
        ("search narrowed: with", login([("search", roles("Analyst"))]), &[], ada(), ALL),
    ];
    let both = || login([("search", roles("Boss")), ("get_context", roles("Boss"))]);
    cases.push(("both narrowed", both(), &[], ada(), ExpectedItems { words: true, ..NOTHING }));
    for (auth_mode, caller) in
        [(AuthMode::Open, Principal::Anonymous), (AuthMode::Keys, key()), (login([]), ada())]
    {
        cases.push(("context hidden", auth_mode.clone(), &["get_context"], caller.clone(), NO_CONTEXT));
        cases.push(("search hidden", auth_mode, &["search"], caller, NO_SEARCH));
    }
    cases.push(("hidden wins over a rule", context(roles("Analyst")), &["get_context"], ada(), NO_CONTEXT));
    cases
}

fn as_caller(principal: &Principal) -> Caller {
    Caller { principal: principal.clone(), ..caller() }
}

fn initialize() -> Request<Bytes> {
    let client = json!({"name": "test", "version": "1"});
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
    post(&json!({"jsonrpc": "2.0", "id": 7, "method": "initialize", "params": params}))
}

fn old(method: &str, params: Value) -> Request<Bytes> {
    legacy("2025-11-25", method, params)
}

fn names(due: ExpectedItems) -> BTreeSet<&'static str> {
    [("search", due.search), ("get_context", due.context)]
        .into_iter()
        .filter_map(|(name, due)| due.then_some(name))
        .collect()
}

#[tokio::test]
async fn every_surface_follows_the_permissions() {
    for (what, auth_mode, hidden, principal, due) in cases() {
        let bed = McpTestkit::new().await;
        let server = build_server(server_config(&bed, auth_mode.clone(), hidden), slow_timing());
        let asked = async |request| ask_as(&server, request, as_caller(&principal)).await;

        for request in [modern("tools/list", json!({})), old("tools/list", json!({}))] {
            let tools = asked(request).await.result()["tools"].clone();
            let listed: BTreeSet<_> =
                tools.as_array().expect("tools").iter().filter_map(|tool| tool["name"].as_str()).collect();
            assert_eq!(listed, names(due), "{what}: tools/list");
        }
        for request in [initialize(), modern("server/discover", json!({}))] {
            let told = asked(request).await.result()["instructions"].to_string();
            assert_eq!(
                (told.contains(WORDS), told.contains(ENTITY)),
                (due.words, due.context),
                "{what}: {told}"
            );
        }
        for request in [modern("resources/list", json!({})), old("resources/list", json!({}))] {
            let listed = asked(request).await.result()["resources"].clone();
            assert_eq!(!listed.as_array().expect("a list").is_empty(), due.context, "{what}: {listed}");
        }
        let templates = asked(modern("resources/templates/list", json!({}))).await;
        assert_eq!(templates.result()["resourceTemplates"], json!([]), "{what}");
        let before = bed.backend.counts().requests;
        for (tool, due) in [("search", due.search), ("get_context", due.context)] {
            let arguments = if tool == "search" { json!({"query": "q"}) } else { json!({}) };
            for request in [
                call(tool, arguments.clone()),
                old("tools/call", json!({"name": tool, "arguments": arguments})),
            ] {
                let answer = asked(request).await;
                let given = answer.body["result"]["isError"] == false
                    || answer.body["result"]["structuredContent"].is_object();
                assert_eq!(given, due, "{what}: {tool}: {}", answer.body);
                assert!(due || !answer.body.to_string().contains(ENTITY), "{what}: {}", answer.body);
            }
        }
        for request in
            [modern("resources/read", json!({"uri": URI})), old("resources/read", json!({"uri": URI}))]
        {
            let answer = asked(request).await;
            let told = answer.body.to_string();
            assert_eq!(told.contains(ENTITY), due.context, "{what}: resources/read: {told}");
            assert_eq!(answer.body["error"].is_object(), !due.context, "{what}: {told}");
        }
        let unknown = asked(call("serach", json!({}))).await;
        let there_is = unknown.message().rsplit(": ").next().unwrap_or_default().to_owned();
        let there_is: BTreeSet<_> = there_is.split(", ").filter(|name| !name.is_empty()).collect();
        assert_eq!(there_is, names(due), "{what}: {}", unknown.message());
        if !due.search && !due.context {
            assert_eq!(bed.backend.counts().requests, before, "{what}: the backend was asked");
        }
        let hears = hears_of("get_context", &bed, &principal, hidden, &auth_mode).await;
        assert_eq!(hears, due.context, "{what}: subscriptions/listen");
    }
}

/// Returns whether a stream of the caller is notified when a tool's description changes.
async fn hears_of(
    tool: &str,
    bed: &McpTestkit,
    principal: &Principal,
    hidden: &[&str],
    auth_mode: &AuthMode,
) -> bool {
    let before = build_server(server_config(bed, auth_mode.clone(), hidden), slow_timing());
    let mut changed = server_config(bed, auth_mode.clone(), hidden);
    changed.tools = changed
        .tools
        .iter()
        .cloned()
        .map(|mut known| {
            if *known.name == *tool {
                known.description = "Another text.".into();
            }
            known
        })
        .collect();
    let after = build_server(changed, slow_timing());
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let mut stream = open_as(&before, modern("subscriptions/listen", wanted), as_caller(principal)).await;
    stream.message().await.expect("an acknowledgement");
    before.hand_over_to(&after);
    after.close();
    let told = stream.rest().await;
    told.iter().any(|message| message["method"] == "notifications/tools/list_changed")
}

#[tokio::test]
async fn streams_are_notified_of_permitted_tools_only() {
    let bed = McpTestkit::new().await;
    let auth_mode = login([("get_context", roles("Modeller"))]);
    assert!(hears_of("search", &bed, &ada(), &[], &auth_mode).await);
    assert!(!hears_of("get_context", &bed, &ada(), &[], &auth_mode).await);
}

#[tokio::test]
async fn streams_are_notified_of_added_and_removed_tools_by_permission() {
    let bed = McpTestkit::new().await;
    for (rule, hears) in [("Analyst", true), ("Modeller", false)] {
        let auth_mode = || login([("get_context", roles(rule))]);
        for (before, after) in [(&["get_context"] as &[&str], &[] as &[&str]), (&[], &["get_context"])] {
            let [before, after] = [before, after]
                .map(|hidden| build_server(server_config(&bed, auth_mode(), hidden), slow_timing()));
            let wanted = json!({"notifications": {"toolsListChanged": true}});
            let listen = modern("subscriptions/listen", wanted);
            let mut stream = open_as(&before, listen, as_caller(&ada())).await;
            stream.message().await.expect("an acknowledgement");
            before.hand_over_to(&after);
            after.close();
            let told = stream.rest().await.iter().any(|message| message["method"].is_string());
            assert_eq!(told, hears, "{rule}");
        }
    }
}

#[tokio::test]
async fn results_that_depend_on_the_caller_are_not_shared_by_caches() {
    for (auth_mode, principal, scope) in [
        (AuthMode::Open, Principal::Anonymous, "public"),
        (AuthMode::Keys, key(), "private"),
        (login([]), ada(), "private"),
    ] {
        let bed = McpTestkit::new().await;
        let server = build_server(server_config(&bed, auth_mode, &[]), slow_timing());
        for (method, params) in [
            ("tools/list", json!({})),
            ("resources/list", json!({})),
            ("resources/templates/list", json!({})),
            ("resources/read", json!({"uri": URI})),
            ("server/discover", json!({})),
        ] {
            let answer = ask_as(&server, modern(method, params), as_caller(&principal)).await;
            assert_eq!(answer.result()["cacheScope"], scope, "{method}");
        }
    }
}

#[tokio::test]
async fn a_forbidden_item_is_distinguished_from_an_unknown_one() {
    for hidden in [&[] as &[&str], &["get_context"]] {
        let bed = McpTestkit::new().await;
        let server = build_server(
            server_config(&bed, login([("get_context", roles("Modeller"))]), hidden),
            slow_timing(),
        );
        let asked = async |request| ask_as(&server, request, as_caller(&ada())).await;
        let read = asked(modern("resources/read", json!({"uri": URI}))).await;
        let called = asked(call("get_context", json!({"nonsense": 1}))).await;
        if hidden.is_empty() {
            assert!(read.message().contains("may not read this"), "{read:?}");
            let (told, failed) = called.text_and_error_flag();
            assert!(failed && told.contains("may not use this tool") && !told.contains("nonsense"), "{told}");
        } else {
            assert!(read.message().contains("no such resource"), "{read:?}");
            assert_eq!(called.error().1, -32602, "{called:?}");
        }
        let other = asked(modern("resources/read", json!({"uri": "context://other"}))).await;
        assert!(other.message().contains("no such resource"), "{other:?}");
    }
}

#[tokio::test]
async fn header_parameters_of_a_tool_are_visible_to_permitted_callers_only() {
    let bed = McpTestkit::new().await;
    let mut config = server_config(&bed, login([("regional", roles("Boss"))]), &[]);
    let mut tool = bed.tool("regional", ToolKind::Search, "/nlp-search");
    let schema =
        json!({"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}});
    tool.input_schema = Arc::new(schema.as_object().expect("an object").clone());
    config.tools = config.tools.iter().cloned().chain([tool]).collect();
    let server = build_server(config, slow_timing());
    let asked = async |principal| {
        let request = call("regional", json!({"region": "north"}));
        ask_as(&server, request, as_caller(&principal)).await
    };
    let (told, failed) = asked(ada()).await.text_and_error_flag();
    assert!(failed && told.contains("may not use this tool"), "{told}");
    let boss = person(|account| account.roles = vec!["Boss".into()]);
    let mismatch = asked(boss).await;
    assert_eq!(mismatch.error(), (400, -32020), "{mismatch:?}");
}

#[tokio::test]
async fn every_answered_method_is_in_the_table_of_surfaces() {
    let bed = McpTestkit::new().await;
    let server = build_server(server_config(&bed, AuthMode::Open, &[]), fast_timing());
    // Valid for each method: malformed parameters are answered like an unknown method.
    let parameters = json!({
        "name": "search", "arguments": {"query": "q"}, "uri": URI, "notifications": {}, "level": "info",
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"},
        "ref": {"type": "ref/prompt", "name": "search"}, "argument": {"name": "query", "value": "q"},
        "taskId": "1",
    });
    for method in METHODS {
        let requests = [modern(method, parameters.clone()), old(method, parameters.clone())];
        let mut answered = false;
        for request in requests {
            let response = in_time(server.handle(request, caller())).await;
            let bytes = in_time(first_bytes(response)).await;
            let text = String::from_utf8_lossy(&bytes);
            // A header that contradicts the body is refused before the method is examined.
            answered |= !text.contains("-32601") && !text.contains("-32020");
        }
        let known = SURFACES.iter().any(|(config, _, _)| config == method);
        assert_eq!(answered, known, "{method}: add it to SURFACES, and to the test of every surface");
    }
    server.close();
}

/// Returns the whole of a short response, or the beginning of a stream.
async fn first_bytes(response: http::Response<crate::base::body::Body>) -> Bytes {
    use http_body_util::BodyExt;
    let mut body = response.into_body();
    loop {
        let Some(frame) = body.frame().await else { return Bytes::new() };
        let data = frame.expect("infallible").into_data().unwrap_or_default();
        if data.len() > 20 {
            return data;
        }
    }
}

#[test]
fn every_written_handler_is_in_the_table_of_surfaces() {
    let source = include_str!("../protocol/handler.rs");
    let (_, handler) = source.split_once("impl ServerHandler for McpHandler {").expect("the handler");
    let functions: BTreeSet<&str> = handler
        .lines()
        .filter_map(|line| line.strip_prefix("    ")?.trim_start_matches("async ").strip_prefix("fn "))
        .filter_map(|rest| rest.split(['(', '<']).next())
        .collect();
    let known = SURFACES.iter().map(|(_, function, _)| *function).filter(|function| !function.is_empty());
    let known: BTreeSet<&str> = known.chain(NO_METHODS.iter().copied()).collect();
    assert_eq!(functions, known, "what a new function gives out belongs into the test of every surface");
}
