//! What each client sends: how it finds its way to a login, and how it introduces itself. The
//! bodies are those of the clients' vendors' documents and of captured traffic.

use serde::Serialize;

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
    Registration(RegistrationBody),
}

/// What a client says of itself when it registers (RFC 7591, section 2).
#[derive(Serialize)]
pub(super) struct RegistrationBody {
    client_name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_uri: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    application_type: Option<&'static str>,
    redirect_uris: &'static [&'static str],
    grant_types: &'static [&'static str],
    response_types: &'static [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_endpoint_auth_method: Option<&'static str>,
}

impl RegistrationBody {
    /// The body of a client that says the least.
    const fn new(client_name: &'static str, redirect_uris: &'static [&'static str]) -> Self {
        Self {
            client_name,
            client_uri: None,
            application_type: None,
            redirect_uris,
            grant_types: &["authorization_code", "refresh_token"],
            response_types: &["code"],
            scope: None,
            token_endpoint_auth_method: None,
        }
    }
}

const CLAUDE: ClientProfile = ClientProfile {
    protocol: "2025-11-25",
    user_agent: "Claude-User",
    introduction: Introduction::Document("https://claude.ai/oauth/mcp-oauth-client-metadata"),
    redirect_uri: "https://claude.ai/api/mcp/auth_callback",
    sends_resource: true,
    knows_one_place: true,
};

const CHATGPT: ClientProfile = ClientProfile {
    protocol: "2025-11-25",
    user_agent: "openai-mcp/1.0.0",
    introduction: Introduction::Document("https://chatgpt.com/oauth/client.json"),
    redirect_uri: "https://chatgpt.com/connector_platform_oauth_redirect",
    sends_resource: true,
    knows_one_place: true,
};

const CURSOR: ClientProfile = ClientProfile {
    protocol: "2025-11-25",
    user_agent: "Cursor",
    introduction: Introduction::Registration(RegistrationBody {
        token_endpoint_auth_method: Some("none"),
        ..RegistrationBody::new(
            "Cursor",
            &[
                "http://localhost:8787/callback",
                "https://www.cursor.com/agents/mcp/oauth/callback",
                "cursor://anysphere.cursor-mcp/oauth/callback",
            ],
        )
    }),
    redirect_uri: "http://localhost:8787/callback",
    sends_resource: true,
    knows_one_place: false,
};

const VSCODE: ClientProfile = ClientProfile {
    protocol: "2025-11-25",
    user_agent: "node",
    introduction: Introduction::Registration(RegistrationBody {
        client_uri: Some("https://code.visualstudio.com"),
        application_type: Some("native"),
        grant_types: &["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
        scope: Some("mcp:use"),
        token_endpoint_auth_method: Some("none"),
        ..RegistrationBody::new(
            "Visual Studio Code",
            &[
                "https://insiders.vscode.dev/redirect",
                "https://vscode.dev/redirect",
                "http://127.0.0.1/",
                "http://127.0.0.1:33418/",
            ],
        )
    }),
    redirect_uri: "http://127.0.0.1:33418/",
    sends_resource: true,
    knows_one_place: false,
};

const COPILOT_STUDIO: ClientProfile = ClientProfile {
    protocol: "2025-06-18",
    user_agent: "azure-logic-apps/1.0",
    introduction: Introduction::Registration(RegistrationBody::new(
        "Copilot Studio",
        &["https://global.consent.azure-apim.net/redirect/doctor"],
    )),
    redirect_uri: "https://global.consent.azure-apim.net/redirect/doctor",
    sends_resource: false,
    knows_one_place: true,
};

const TEAMS: ClientProfile = ClientProfile {
    protocol: "2025-06-18",
    user_agent: "azure-logic-apps/1.0",
    introduction: Introduction::Registration(RegistrationBody {
        token_endpoint_auth_method: Some("client_secret_basic"),
        ..RegistrationBody::new(
            "365 Copilot",
            &["https://teams.microsoft.com/api/platform/v1.0/oAuthRedirect"],
        )
    }),
    redirect_uri: "https://teams.microsoft.com/api/platform/v1.0/oAuthRedirect",
    sends_resource: false,
    knows_one_place: true,
};

const SDK: ClientProfile = ClientProfile {
    protocol: "2025-11-25",
    user_agent: "node",
    introduction: Introduction::Registration(RegistrationBody {
        token_endpoint_auth_method: Some("none"),
        ..RegistrationBody::new("tenantd doctor", &["http://localhost:6274/oauth/callback"])
    }),
    redirect_uri: "http://localhost:6274/oauth/callback",
    sends_resource: true,
    knows_one_place: false,
};

impl ClientProfile {
    pub(super) fn find(client: ClientKind) -> Self {
        match client {
            ClientKind::Claude => CLAUDE,
            ClientKind::Chatgpt => CHATGPT,
            ClientKind::Cursor => CURSOR,
            ClientKind::Vscode => VSCODE,
            ClientKind::CopilotStudio => COPILOT_STUDIO,
            ClientKind::Teams => TEAMS,
            ClientKind::Sdk => SDK,
        }
    }

    /// Whether people can give it a key for a header.
    pub(super) fn has_key_field(client: ClientKind) -> bool {
        !matches!(client, ClientKind::Claude | ClientKind::Chatgpt)
    }
}
