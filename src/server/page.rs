//! The page for people at `{prefix}/`: the connector URL, and how to add it to each client.
//!
//! Plain HTML without third-party assets; its one script adds the copy buttons. Anyone with the URL
//! can read it, so it shows only what a caller without a credential may see ([`Permissions`]): for
//! a tenant that requires one, its title and how to get access. It names no backend and no key, and
//! gives no counts.

use std::borrow::Cow;
use std::sync::LazyLock;

use askama::Template;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::Server;
use super::html;
use super::precheck;
use super::request::RequestContext;
use super::response::{self, ErrorFormat};
use crate::base::authority;
use crate::base::body::{self, Body};
use crate::base::digest::Digest;
use crate::identity::{self, Brand};
use crate::mcp::{Permissions, ProtectedItem};
use crate::oauth::bearer::Principal;
use crate::settings::OpenTenants;
use crate::spec::{HostName, PublicUrl, ResourceSpelling, TenantSpec};
use crate::tenants::tenant::Tenant;

/// The script of the page. The Content Security Policy allows it by its digest, and no other.
const SCRIPT: &str = include_str!("../../templates/page.js");
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let script = BASE64_STANDARD.encode(Digest::of(SCRIPT.as_bytes()).as_bytes());
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{script}'; img-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("a digest in base64 is ASCII")
});

/// The gateway's icon.
const ICON: &[u8] = include_bytes!("icon.png");
const ICON_CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=86400");

/// Answers with the page, except to callers that an open tenant does not answer at all.
pub(super) fn handle<B>(
    server: &Server,
    context: &RequestContext<'_>,
    tenant: &Tenant,
    request: &Request<B>,
    format: ErrorFormat,
) -> Response<Body> {
    if let Err(denial) = tenant.bearer.check_page_access(context.private_ip()) {
        return response::denial(tenant, denial, format, ResourceSpelling::Connector);
    }
    let render = |url: &PublicUrl| render(&tenant.spec, url, tenant.mcp.permissions(), server.open_tenants);
    let requested = match server.live.load().has_no_known_name {
        true => precheck::find_authority(request).ok(),
        false => None,
    };
    let html = || match requested.and_then(|authority| find_requested_url(&tenant.spec, authority)) {
        // Not kept: callers choose the name.
        Some(url) => render(&url),
        None => tenant.page.get_or_init(|| render(&tenant.spec.public_url)).clone(),
    };
    respond(html, request.method())
}

/// Returns the URL at which a caller reaches a tenant for which no URL and no host is configured.
/// The one of a tenant with login is fixed, because its tokens name it.
fn find_requested_url(spec: &TenantSpec, authority: &str) -> Option<PublicUrl> {
    let has_host = spec.mounts.iter().any(|mount| mount.host.is_some());
    if !spec.public_url.is_assumed() || has_host || spec.access.login.is_some() {
        return None;
    }
    let host = HostName::parse(&authority::host(authority)?)?;
    let (scheme, own_port) = match spec.public_url.origin().starts_with("https://") {
        true => ("https", 443),
        false => ("http", 80),
    };
    let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    Some(spec.public_url.at_origin(&match port.filter(|port| *port != own_port) {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    }))
}

#[derive(Template)]
#[template(path = "page.html")]
struct ConnectorPage<'a> {
    name: &'a str,
    title: &'a str,
    description: Option<&'a str>,
    dataset: Option<&'a str>,
    url: String,
    access: Cow<'static, str>,
    tools: Vec<&'a str>,
    /// The tenant requires an API key.
    keyed: bool,
    /// How people log in, if they do.
    login: Option<PageLogin>,
    /// The tenant answers only private networks.
    local: bool,
    icon: String,
    /// Questions from the export.
    questions: &'a [String],
    /// Adds the server to Cursor, unless it requires a key, for which the link has no field.
    cursor_link: Option<String>,
    vscode_link: String,
    script: &'static str,
    /// The URL is http and not on this machine, which `mcp-remote` accepts only with
    /// `--allow-http`.
    insecure: bool,
}

/// What the page says about a login.
struct PageLogin {
    brand: &'static Brand,
    /// The redirect URI that the operator registers with the app at the provider.
    redirect_uri: String,
    /// Where people see and end what they have connected.
    account_url: String,
}

impl<'a> ConnectorPage<'a> {
    fn new(
        spec: &'a TenantSpec,
        public_url: &PublicUrl,
        permissions: &Permissions,
        open: OpenTenants,
    ) -> Self {
        let may = |item| permissions.allows(&Principal::Anonymous, item);
        let may_read_description = may(ProtectedItem::Description);
        let keyed = !spec.access.api_keys.is_empty();
        let login = spec.access.login.as_ref().map(|login| PageLogin {
            brand: identity::find_brand(&login.provider),
            redirect_uri: public_url.callback_url(),
            account_url: public_url.account_url(),
        });
        let url = public_url.connector_url();
        let local = spec.access.is_open() && !spec.access.public && open != OpenTenants::Public;
        Self {
            name: spec.name.as_str(),
            title: &spec.title,
            description: spec.description.as_deref().filter(|_| may_read_description),
            dataset: may_read_description.then_some(&*spec.dataset),
            icon: public_url.icon_url(),
            questions: if may_read_description { &spec.sample_questions } else { &[] },
            cursor_link: (!keyed).then(|| cursor_link(spec.name.as_str(), &url)),
            vscode_link: vscode_link(spec.name.as_str(), &url, keyed),
            script: SCRIPT,
            url,
            access: match (&login, keyed, local) {
                (Some(login), ..) => format!("with your {} account", login.brand.name).into(),
                (_, true, _) => "with an API key".into(),
                (_, _, true) => "open to this machine and private networks, no key needed".into(),
                _ => "open to everybody, no key needed".into(),
            },
            tools: spec
                .tools
                .iter()
                .map(|tool| &*tool.name)
                .filter(|name| may(ProtectedItem::Tool(name)))
                .collect(),
            keyed,
            login,
            local,
            insecure: is_insecure(public_url.origin()),
        }
    }
}

/// Returns the link by which Cursor adds a server.
fn cursor_link(name: &str, url: &str) -> String {
    let config = BASE64_STANDARD.encode(json!({ "url": url }).to_string());
    let config = utf8_percent_encode(&config, NON_ALPHANUMERIC);
    format!("cursor://anysphere.cursor-deeplink/mcp/install?name={name}&config={config}")
}

/// Returns the link by which VS Code adds a server; it asks for the key where one is required.
fn vscode_link(name: &str, url: &str, keyed: bool) -> String {
    let mut server = json!({ "name": name, "type": "http", "url": url });
    if keyed {
        let key = format!("{name}-key");
        server["headers"] = json!({ "Authorization": format!("Bearer ${{input:{key}}}") });
        server["inputs"] = json!([{ "type": "promptString", "id": key, "description": format!("Key for {name}"), "password": true }]);
    }
    format!("vscode:mcp/install?{}", utf8_percent_encode(&server.to_string(), NON_ALPHANUMERIC))
}

fn is_insecure(origin: &str) -> bool {
    let host = origin.strip_prefix("http://");
    let is_near =
        |host: &str| ["localhost", "127.0.0.1"].iter().any(|near| host.split(':').next() == Some(near));
    host.is_some_and(|host| !is_near(host))
}

/// Renders the page of a tenant with its URL.
fn render(spec: &TenantSpec, url: &PublicUrl, permissions: &Permissions, open: OpenTenants) -> Bytes {
    let page = ConnectorPage::new(spec, url, permissions, open);
    page.render().expect("the page is written to a String").into()
}

/// Answers a request for the icon.
pub(super) fn handle_icon(method: &Method) -> Response<Body> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return response::method_not_allowed("GET, HEAD");
    }
    let mut response = body::response(StatusCode::OK, HeaderValue::from_static("image/png"), ICON);
    response.headers_mut().insert(header::CACHE_CONTROL, ICON_CACHE_CONTROL);
    response
}

/// Answers a request for the page with its HTML.
fn respond(html: impl FnOnce() -> Bytes, method: &Method) -> Response<Body> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return response::method_not_allowed("GET, HEAD");
    }
    let response = html::to_response(StatusCode::OK, &POLICY, html());
    match *method {
        Method::HEAD => response::strip_body(response),
        _ => response,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http_body_util::BodyExt;

    use super::*;
    use crate::mcp::{AuthMode, ToolRight};
    use crate::spec::*;

    pub(in crate::server) fn spec(api_keys: Vec<ApiKeySpec>) -> TenantSpec {
        let prefix = Prefix::parse("/acme").expect("a prefix");
        let context = CallSpec {
            method: Method::GET,
            url: UrlTemplate::parse("https://backend.internal/context").expect("a template"),
            headers: Arc::default(),
            body: None,
            constants: Default::default(),
        };
        let backend = BackendSpec {
            family: Family::Nlp,
            connection_id: None,
            context: Arc::new(context),
            user_header: None,
            http2: false,
            data: Default::default(),
        };
        TenantSpec {
            name: TenantName::parse("acme").expect("a name"),
            dataset: "sales".into(),
            title: "Acme <script>".into(),
            description: Some("What we sold & when".into()),
            instructions: None,
            enabled: true,
            public_url: PublicUrl::new("https://mcp.example.com", &prefix),
            mounts: vec![Mount { listener: None, host: None, prefix }],
            shares_hosts: false,
            tools: Arc::default(),
            backend,
            access: AccessSpec { api_keys, ..AccessSpec::default() },
            limits: LimitsSpec::default(),
            cache: CacheSpec::default(),
            call_timeout: Duration::from_secs(300),
            slow_answers: Default::default(),
            sample_questions: Arc::default(),
            icon_url: None,
            hold_changes: crate::spec::HoldChanges::default(),
            usage_file: false,
        }
    }

    fn key() -> ApiKeySpec {
        ApiKeySpec { label: "ci-label".to_owned(), digest: Digest::of(b"key"), expires: None }
    }

    fn rights(spec: &TenantSpec) -> Permissions {
        Permissions::new(AuthMode::from(&spec.access), spec.tools.iter().map(ToolRight::from))
    }

    async fn html(spec: &TenantSpec, open: OpenTenants) -> String {
        let body = respond(|| render(spec, &spec.public_url, &rights(spec), open), &Method::GET).into_body();
        let bytes = body.collect().await.expect("a body cannot fail").to_bytes();
        String::from_utf8(bytes.to_vec()).expect("HTML is UTF-8")
    }

    #[tokio::test]
    async fn it_says_the_connector_url_to_every_client_and_nothing_inward() {
        let html = html(&spec(vec![key()]), OpenTenants::Private).await;
        assert!(html.matches("https://mcp.example.com/acme/mcp").count() >= 5);
        assert!(
            html.contains("claude mcp add --transport http acme https://mcp.example.com/acme/mcp --header")
        );
        assert!(html.contains("Acme &#60;script&#62;"));
        let scripts: Vec<_> = html.split("<script>").skip(1).collect();
        assert!(scripts.len() == 1 && scripts[0].starts_with(SCRIPT), "only the page's own script");
        for inward in ["backend.internal", "ci-label", &Digest::of(b"key").short()] {
            assert!(!html.contains(inward), "{inward}");
        }
    }

    /// Returns the decoded payload of the link that begins with `start`.
    fn link(html: &str, start: &str) -> Option<String> {
        let rest = &html[html.find(start)? + start.len()..];
        let payload = rest.split('"').next().expect("an end");
        Some(percent_encoding::percent_decode_str(payload).decode_utf8().expect("UTF-8").into_owned())
    }

    #[tokio::test]
    async fn one_click_adds_the_server() {
        let url = "https://mcp.example.com/acme/mcp";
        let open = html(&spec(vec![]), OpenTenants::Public).await;
        let config = link(&open, "cursor://anysphere.cursor-deeplink/mcp/install?name=acme&#38;config=")
            .expect("a link to Cursor");
        let config = BASE64_STANDARD.decode(config).expect("base64");
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&config).expect("JSON"),
            json!({ "url": url })
        );
        let server = link(&open, "vscode:mcp/install?").expect("a link to VS Code");
        let server: serde_json::Value = serde_json::from_str(&server).expect("JSON");
        assert_eq!(server, json!({ "name": "acme", "type": "http", "url": url }));

        let keyed = html(&spec(vec![key()]), OpenTenants::Public).await;
        assert_eq!(link(&keyed, "cursor://"), None, "the link has no field for a key");
        let server = link(&keyed, "vscode:mcp/install?").expect("a link to VS Code");
        let server: serde_json::Value = serde_json::from_str(&server).expect("JSON");
        assert_eq!(server["headers"]["Authorization"], "Bearer ${input:acme-key}");
        assert_eq!(
            (&server["inputs"][0]["id"], &server["inputs"][0]["password"]),
            (&json!("acme-key"), &json!(true))
        );
    }

    #[tokio::test]
    async fn it_suggests_questions_to_those_who_may_read_about_the_data() {
        let suggesting =
            |keys| TenantSpec { sample_questions: Arc::new(["How <many>?".to_owned()]), ..spec(keys) };
        assert!(
            html(&suggesting(vec![]), OpenTenants::Public).await.contains("<li>How &#60;many&#62;?</li>")
        );
        let keyed = html(&suggesting(vec![key()]), OpenTenants::Public).await;
        assert!(!keyed.contains("How ") && !keyed.contains("Questions to begin with"));
    }

    #[tokio::test]
    async fn it_asks_for_a_key_only_where_one_is_needed() {
        assert!(html(&spec(vec![key()]), OpenTenants::Private).await.contains("YOUR_KEY"));
        let open = html(&spec(vec![]), OpenTenants::Private).await;
        assert!(!open.contains("YOUR_KEY") && open.contains("private networks, no key needed"));
        assert!(html(&spec(vec![]), OpenTenants::Public).await.contains("open to everybody"));
    }

    fn login() -> TenantSpec {
        let provider = EntraSpec {
            client_id: "app".into(),
            client_secrets: vec![crate::base::secret::Secret::new("canary")],
            client_secret_expires: None,
            directory: DirectorySpec::One("directory".into()),
            allow_guests: false,
            allow_personal_accounts: false,
        };
        let login = LoginSpec {
            provider: ProviderSpec::Entra(Arc::new(provider)),
            rules: AccessRules::default(),
            tools: Default::default(),
            machine_clients: Vec::new(),
            registration: RegistrationSpec::default(),
            access_token_lifetime: crate::spec::MAX_ACCESS_TOKEN_LIFETIME,
        };
        let access = AccessSpec { login: Some(Arc::new(login)), ..AccessSpec::default() };
        TenantSpec { access, ..spec(vec![]) }
    }

    #[tokio::test]
    async fn it_says_who_logs_in_and_what_to_register() {
        let html = html(&login(), OpenTenants::Public).await;
        assert!(html.contains("with your Microsoft account") && !html.contains("YOUR_KEY"));
        assert!(html.contains("https://mcp.example.com/acme/auth/ms-callback"));
        assert!(html.contains("Dynamic discovery") && !html.contains("No authentication"));
        for inward in ["canary", "directory"] {
            assert!(!html.contains(inward), "{inward}");
        }
    }

    #[tokio::test]
    async fn snippets_are_json() {
        for spec in [spec(vec![]), spec(vec![key()]), login()] {
            let html = html(&spec, OpenTenants::Private).await.replace("&#34;", "\"");
            let snippets =
                html.split("<code>{").skip(1).map(|rest| rest.split("</code>").next().expect("an end"));
            let snippets: Vec<String> = snippets.map(|inner| format!("{{{inner}")).collect();
            assert_eq!(snippets.len(), 3);
            for snippet in snippets {
                let parsed: Result<serde_json::Value, _> = serde_json::from_str(&snippet);
                assert!(parsed.is_ok(), "{snippet}");
            }
        }
    }

    #[tokio::test]
    async fn the_bridge_gets_a_flag_for_plain_http() {
        let prefix = Prefix::parse("/acme").expect("a prefix");
        for (origin, expected) in [
            ("http://10.0.0.5:8000", true),
            ("http://mcp.internal", true),
            ("https://mcp.example.com", false),
            ("http://localhost:8000", false),
            ("http://127.0.0.1:8000", false),
        ] {
            for keys in [vec![], vec![key()]] {
                let spec = TenantSpec { public_url: PublicUrl::new(origin, &prefix), ..spec(keys) };
                let html = html(&spec, OpenTenants::Private).await;
                assert_eq!(
                    html.contains("&#34;--allow-http&#34;") || html.contains("\"--allow-http\""),
                    expected,
                    "{origin}"
                );
            }
        }
    }

    #[test]
    fn a_tenant_without_a_configured_url_is_where_the_caller_found_it() {
        let at = |origin| {
            let prefix = Prefix::parse("/acme").expect("a prefix");
            TenantSpec { public_url: PublicUrl::new(origin, &prefix).assumed(), ..spec(vec![]) }
        };
        let find =
            |spec: &TenantSpec, authority| find_requested_url(spec, authority).map(|url| url.connector_url());
        let near = at("http://localhost:8000");
        for (authority, expected) in [
            ("192.0.2.2:8000", Some("http://192.0.2.2:8000/acme/mcp")),
            ("MCP.example.com", Some("http://mcp.example.com/acme/mcp")),
            ("mcp.example.com:80", Some("http://mcp.example.com/acme/mcp")),
            ("mcp.example.com.:", Some("http://mcp.example.com/acme/mcp")),
            ("[2001:db8::1]:8000", Some("http://[2001:db8::1]:8000/acme/mcp")),
            ("[2001:db8::1]", Some("http://[2001:db8::1]/acme/mcp")),
            ("a'$(x)\"<b>", None),
            ("..", None),
        ] {
            assert_eq!(find(&near, authority).as_deref(), expected, "{authority}");
        }
        let secure = find(&at("https://localhost"), "mcp.internal:443");
        assert_eq!(secure.as_deref(), Some("https://mcp.internal/acme/mcp"));

        assert_eq!(find(&spec(vec![]), "evil.example"), None, "its public URL is given");
        let mut hosted = at("http://localhost:8000");
        hosted.mounts[0].host = HostName::parse("own.example");
        assert_eq!(find(&hosted, "evil.example"), None, "it has a host of its own");
        let login = TenantSpec { access: login().access, ..at("http://localhost:8000") };
        assert_eq!(find(&login, "evil.example"), None, "its tokens name its URL");

        let url = find_requested_url(&near, "192.0.2.2:8000").expect("a URL");
        let html = render(&near, &url, &rights(&near), OpenTenants::Private);
        let html = std::str::from_utf8(&html).expect("UTF-8");
        assert!(!html.contains("localhost") && html.contains("--allow-http"), "{html}");
    }

    #[test]
    fn it_is_read_only_and_cannot_be_framed() {
        let spec = spec(vec![]);
        let html = || render(&spec, &spec.public_url, &rights(&spec), OpenTenants::Private);
        let page = |method| respond(html, &method);
        let head = page(Method::HEAD);
        assert!(
            http_body::Body::is_end_stream(head.body())
                && head.headers().contains_key(header::CONTENT_LENGTH)
        );
        assert_eq!(head.headers()[header::X_FRAME_OPTIONS], "DENY");
        let refused = page(Method::POST);
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()[header::ALLOW]),
            (405, &HeaderValue::from_static("GET, HEAD"))
        );
    }
}
