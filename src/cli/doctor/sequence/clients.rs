//! What each client sends: how it opens, how it finds its way to a login, and how it introduces
//! itself. The sources stand beside the values; what no source tells is in docs/doctor.md.
//!
//! In `clientInfo` the doctor gives its own name, so that no audit takes it for a client.

use serde::Serialize;

use super::super::super::args::ClientKind;

/// The user agent where no source tells the client's.
const OWN_AGENT: &str = concat!("tenantd-doctor/", env!("CARGO_PKG_VERSION"));

/// The requests of one client.
pub(super) struct ClientProfile {
    pub(super) opening: Opening,
    /// The user agent of its calls.
    pub(super) user_agent: &'static str,
    /// The user agent of its requests for documents and tokens; `None` if it sends none.
    pub(super) metadata_agent: Option<&'static str>,
    /// How it becomes known to a tenant with a login.
    pub(super) introduction: Introduction,
    pub(super) redirect_uri: &'static str,
    /// Whether it sends the connector URL as `resource` (RFC 8707).
    pub(super) sends_resource: bool,
    /// Whether it looks at the first place of the authorization server's metadata only.
    pub(super) knows_one_place: bool,
}

/// The first message of a client, and with it the protocol version that it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// `initialize` with this version, and the version in a header from then on.
    Initialize(&'static str),
    /// `initialize` of the version 2024-11-05, which has no such header.
    InitializeWithoutHeader,
    /// `server/discover` of the version 2026-07-28.
    Discover,
}

impl Opening {
    /// Returns the version that `initialize` names.
    pub(super) fn version(self) -> &'static str {
        match self {
            Self::Initialize(version) => version,
            Self::InitializeWithoutHeader => "2024-11-05",
            Self::Discover => "2025-11-25",
        }
    }
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

/// The agent of calls: a firewall's log in anthropics/claude-ai-mcp#49 and #1061. Documents and
/// tokens are fetched by another program: #299, #680. Version: servers' logs of 2026.
const CLAUDE: ClientProfile = ClientProfile {
    opening: Opening::Initialize("2025-11-25"),
    user_agent: "Claude-User",
    metadata_agent: Some("python-httpx/0.28.1"),
    introduction: Introduction::Document("https://claude.ai/oauth/mcp-oauth-client-metadata"),
    redirect_uri: "https://claude.ai/api/mcp/auth_callback",
    sends_resource: true,
    knows_one_place: true,
};

/// The agent and `server/discover`: servers that tell clients apart by it, and their published
/// compatibility tables of 2026. Older servers saw `initialize` with 2025-11-25, which it still
/// falls back to.
const CHATGPT: ClientProfile = ClientProfile {
    opening: Opening::Discover,
    user_agent: "openai-mcp/1.0.0",
    metadata_agent: Some("openai-mcp/1.0.0"),
    introduction: Introduction::Document("https://chatgpt.com/oauth/client.json"),
    redirect_uri: "https://chatgpt.com/connector_platform_oauth_redirect",
    sends_resource: true,
    knows_one_place: true,
};

/// The three redirect URIs in one registration, without `application_type`:
/// soflyy/agent-connector-for-wp#111, better-auth/better-auth#10956. No source has its user agent.
const CURSOR: ClientProfile = ClientProfile {
    opening: Opening::Initialize("2025-11-25"),
    user_agent: OWN_AGENT,
    metadata_agent: Some(OWN_AGENT),
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

/// The agent and the version: a trace in microsoft/vscode#319528. The registration:
/// `src/vs/base/common/oauth.ts` of microsoft/vscode, which its releases from 1.106 on replace by
/// their document where a server takes documents; the doctor tries the older way, for both kinds.
const VSCODE: ClientProfile = ClientProfile {
    opening: Opening::Initialize("2025-11-25"),
    user_agent: "Visual Studio Code/1.124.0",
    metadata_agent: Some("Visual Studio Code/1.124.0"),
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

/// The agent, the version and the missing header: one server's published table of 2026-10, which
/// saw calls only. The redirect URI: SmartBear/smartbear-mcp#463, Teamwork/mcp#67. What it sends
/// for documents and tokens is in no source.
const COPILOT_STUDIO: ClientProfile = ClientProfile {
    opening: Opening::InitializeWithoutHeader,
    user_agent: "MicrosoftCopilotStudio-AgenticLoop/1.0",
    metadata_agent: Some(OWN_AGENT),
    introduction: Introduction::Registration(RegistrationBody::new(
        "Copilot Studio",
        &["https://global.consent.azure-apim.net/redirect/doctor"],
    )),
    redirect_uri: "https://global.consent.azure-apim.net/redirect/doctor",
    sends_resource: false,
    knows_one_place: true,
};

/// The redirect URI: Microsoft's pages on OAuth of agents' plugins,
/// MicrosoftDocs/msteams-docs#14587. No source has its user agent, its version or the body of its
/// registration.
const TEAMS: ClientProfile = ClientProfile {
    opening: Opening::InitializeWithoutHeader,
    user_agent: OWN_AGENT,
    metadata_agent: Some(OWN_AGENT),
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

/// The TypeScript SDK on Node.js, as it was run against this gateway; Python's sends no agent for
/// documents.
const SDK: ClientProfile = ClientProfile {
    opening: Opening::Initialize("2025-11-25"),
    user_agent: "node",
    metadata_agent: Some("node"),
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
