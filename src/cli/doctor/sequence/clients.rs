//! What each client sends: how it finds its way to a login, and how it introduces itself. The
//! bodies are those of the clients' vendors' documents and of captured traffic.

use serde_json::{Value, json};

use super::super::super::args::ClientKind;

/// The requests of one client.
pub(super) struct ClientProfile {
    /// The protocol version that it begins with.
    pub(super) protocol: &'static str,
    pub(super) user_agent: &'static str,
    /// How it becomes known to a tenant with a login.
    pub(super) introduction: Introduction,
    pub(super) redirect_uri: &'static str,
    /// Whether it sends the connector URL as `resource` (RFC 8707).
    pub(super) sends_resource: bool,
    /// Whether it looks at the first place of the authorization server's metadata only.
    pub(super) knows_one_place: bool,
}

/// How a client becomes known.
pub(super) enum Introduction {
    /// Its id is the URL of its metadata document.
    Document(&'static str),
    /// It registers itself (RFC 7591).
    Registration(Value),
}

impl ClientProfile {
    pub(super) fn find(client: ClientKind) -> Self {
        match client {
            ClientKind::Claude => Self {
                protocol: "2025-11-25",
                user_agent: "Claude-User",
                introduction: Introduction::Document("https://claude.ai/oauth/mcp-oauth-client-metadata"),
                redirect_uri: "https://claude.ai/api/mcp/auth_callback",
                sends_resource: true,
                knows_one_place: true,
            },
            ClientKind::Chatgpt => Self {
                protocol: "2025-11-25",
                user_agent: "openai-mcp/1.0.0",
                introduction: Introduction::Document("https://chatgpt.com/oauth/client.json"),
                redirect_uri: "https://chatgpt.com/connector_platform_oauth_redirect",
                sends_resource: true,
                knows_one_place: true,
            },
            ClientKind::Cursor => Self {
                protocol: "2025-11-25",
                user_agent: "Cursor",
                introduction: Introduction::Registration(json!({
                    "client_name": "Cursor",
                    "redirect_uris": [
                        "http://localhost:8787/callback",
                        "https://www.cursor.com/agents/mcp/oauth/callback",
                        "cursor://anysphere.cursor-mcp/oauth/callback",
                    ],
                    "grant_types": ["authorization_code", "refresh_token"],
                    "response_types": ["code"],
                    "token_endpoint_auth_method": "none",
                })),
                redirect_uri: "http://localhost:8787/callback",
                sends_resource: true,
                knows_one_place: false,
            },
            ClientKind::Vscode => Self {
                protocol: "2025-11-25",
                user_agent: "node",
                introduction: Introduction::Registration(json!({
                    "client_name": "Visual Studio Code",
                    "client_uri": "https://code.visualstudio.com",
                    "application_type": "native",
                    "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
                    "response_types": ["code"],
                    "redirect_uris": [
                        "https://insiders.vscode.dev/redirect",
                        "https://vscode.dev/redirect",
                        "http://127.0.0.1/",
                        "http://127.0.0.1:33418/",
                    ],
                    "scope": "mcp:use",
                    "token_endpoint_auth_method": "none",
                })),
                redirect_uri: "http://127.0.0.1:33418/",
                sends_resource: true,
                knows_one_place: false,
            },
            ClientKind::CopilotStudio => Self {
                protocol: "2025-06-18",
                user_agent: "azure-logic-apps/1.0",
                introduction: Introduction::Registration(json!({
                    "client_name": "Copilot Studio",
                    "redirect_uris": ["https://global.consent.azure-apim.net/redirect/doctor"],
                    "grant_types": ["authorization_code", "refresh_token"],
                    "response_types": ["code"],
                })),
                redirect_uri: "https://global.consent.azure-apim.net/redirect/doctor",
                sends_resource: false,
                knows_one_place: true,
            },
            ClientKind::Teams => Self {
                protocol: "2025-06-18",
                user_agent: "azure-logic-apps/1.0",
                introduction: Introduction::Registration(json!({
                    "client_name": "365 Copilot",
                    "redirect_uris": ["https://teams.microsoft.com/api/platform/v1.0/oAuthRedirect"],
                    "grant_types": ["authorization_code", "refresh_token"],
                    "response_types": ["code"],
                    "token_endpoint_auth_method": "client_secret_basic",
                })),
                redirect_uri: "https://teams.microsoft.com/api/platform/v1.0/oAuthRedirect",
                sends_resource: false,
                knows_one_place: true,
            },
            ClientKind::Sdk => Self {
                protocol: "2025-11-25",
                user_agent: "node",
                introduction: Introduction::Registration(json!({
                    "client_name": "tenantd doctor",
                    "redirect_uris": ["http://localhost:6274/oauth/callback"],
                    "grant_types": ["authorization_code", "refresh_token"],
                    "response_types": ["code"],
                    "token_endpoint_auth_method": "none",
                })),
                redirect_uri: "http://localhost:6274/oauth/callback",
                sends_resource: true,
                knows_one_place: false,
            },
        }
    }

    /// Whether the tenant's own rules let it read what it is told only with a key in a header.
    pub(super) fn has_key_field(client: ClientKind) -> bool {
        !matches!(client, ClientKind::Claude | ClientKind::Chatgpt)
    }
}
