//! A third-party client as its users use it: the MCP SDK for Rust, from the connector URL to an
//! answer.

use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::auth::{AuthClient, AuthorizationManager, AuthorizationRequest, OAuthState};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientLifecycleMode, ClientServiceExt};
use serde_json::json;

use super::super::harness::backend::rows;
use super::super::harness::login::CALLBACK;
use super::*;

/// Logs in at a connector URL, with a person's browser in between.
async fn authorized(gateway: &Gateway, entra: &FakeEntra, connector: &str) -> AuthorizationManager {
    let mut login = OAuthState::new(connector, Some(gateway.client().http())).await.expect("a client");
    let request = AuthorizationRequest::new(CALLBACK).with_client_name("A Rust program");
    login.start_authorization(request).await.expect("it finds the login and registers");
    let authorize = login.get_authorization_url().await.expect("where to send the person");
    let back = Browser::new(gateway).log_in(&authorize, entra).await;
    // The SDK checks state and issuer before it redeems the code.
    login.handle_callback_url(back.as_str()).await.expect("it redeems the code");
    login.into_authorization_manager().expect("it has tokens")
}

#[tokio::test]
async fn the_rust_sdk_logs_in_and_searches() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let gateway = gateway(&entra, &backend, &["a"]).await;
    let connector = format!("{}/a/mcp", gateway.base());
    let manager = authorized(&gateway, &entra, &connector).await;
    let found = ["mcp 401", "discovery 200", "discovery 200", "oauth 201"];
    let logged_in = ["oauth 200", "oauth 200", "oauth 302", "oauth 200"];
    assert_eq!(gateway.steps("a"), [found, logged_in].concat());
    let http = AuthClient::new(gateway.client().http(), manager);
    let modern = ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };
    for (lifecycle, version) in [
        (ClientLifecycleMode::Initialize, ProtocolVersion::V_2025_11_25),
        (modern, ProtocolVersion::V_2026_07_28),
    ] {
        let config = StreamableHttpClientTransportConfig::with_uri(connector.as_str());
        let transport = StreamableHttpClientTransport::with_client(http.clone(), config);
        let client = ().serve_with_lifecycle(transport, lifecycle).await.expect("it connects");
        assert_eq!(client.peer_info().expect("a server").protocol_version, version);
        let answer = client.call_tool(search_for("q")).await.expect("an answer");
        assert_eq!(answer.structured_content.expect("rows")["data"], rows(), "{version}");
        client.cancel().await.expect("an end");
    }
}

fn search_for(query: &str) -> CallToolRequestParams {
    let arguments = json!({ "query": query }).as_object().cloned().expect("an object");
    CallToolRequestParams::new("search").with_arguments(arguments)
}
