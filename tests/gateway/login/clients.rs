//! How real clients register and return, replayed from their vendors' documentation and from
//! captured traffic: registration, redirect URIs, scopes, resource, client authentication.

use reqwest::Method;
use serde_json::{Value, json};
use url::Url;

use super::super::harness::client::{Answer, read};
use super::super::harness::login::{App, Browser, Form, VERIFIER, parameter, register, way};
use super::*;

/// The client authentication method at the token endpoint.
#[derive(Clone, Copy)]
enum Proof {
    None,
    Basic,
    Post,
}

/// The behaviour of a client.
struct Script {
    name: &'static str,
    /// The registration request, or the URL of the client's metadata document.
    introduction: Result<Value, &'static str>,
    redirect_uri: &'static str,
    scope: &'static str,
    granted: &'static str,
    /// The `resource` parameter, as a suffix to the connector URL.
    resource: Option<&'static str>,
    proof: Proof,
    /// Texts on the consent page.
    shown: &'static [&'static str],
}

fn scripts() -> Vec<Script> {
    vec![
        Script {
            name: "Claude (web, Desktop, mobile)",
            introduction: Err("https://claude.ai/oauth/mcp-oauth-client-metadata"),
            redirect_uri: "https://claude.ai/api/mcp/auth_callback",
            scope: "mcp:use offline_access",
            granted: "mcp:use offline_access",
            resource: Some(""),
            proof: Proof::None,
            shown: &["Claude", "described by claude.ai"],
        },
        Script {
            name: "Claude at its other address",
            introduction: Err("https://claude.ai/oauth/mcp-oauth-client-metadata"),
            redirect_uri: "https://claude.com/api/mcp/auth_callback",
            scope: "",
            granted: "mcp:use",
            resource: Some(""),
            proof: Proof::None,
            shown: &["claude.com"],
        },
        Script {
            name: "Claude Code on any port",
            introduction: Err("https://claude.ai/oauth/claude-code-client-metadata"),
            redirect_uri: "http://localhost:61234/callback",
            scope: "mcp:use offline_access",
            granted: "mcp:use offline_access",
            resource: Some(""),
            proof: Proof::None,
            shown: &["Claude Code", "this computer"],
        },
        Script {
            name: "ChatGPT without an assertion",
            introduction: Err("https://chatgpt.com/oauth/client.json"),
            redirect_uri: "https://chatgpt.com/connector_platform_oauth_redirect",
            scope: "openid email mcp:use",
            granted: "mcp:use",
            resource: Some("?connector=1"),
            proof: Proof::None,
            shown: &["ChatGPT", "described by chatgpt.com"],
        },
        Script {
            name: "Codex",
            introduction: Err("https://chatgpt.com/oauth/codex/client.json"),
            redirect_uri: "http://127.0.0.1:1455/callback",
            scope: "",
            granted: "mcp:use",
            resource: Some(""),
            proof: Proof::None,
            shown: &["Codex"],
        },
        Script {
            name: "Cursor with its own scheme",
            introduction: Ok(json!({
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
            redirect_uri: "cursor://anysphere.cursor-mcp/oauth/callback",
            scope: "mcp:use offline_access",
            granted: "mcp:use offline_access",
            resource: Some(""),
            proof: Proof::None,
            shown: &[
                "Cursor",
                "nobody has checked the name",
                "<strong>an application on this device that handles cursor: links</strong>",
            ],
        },
        Script {
            name: "VS Code on any port",
            introduction: Ok(json!({
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
            redirect_uri: "http://127.0.0.1:51515/",
            scope: "mcp:use",
            granted: "mcp:use",
            resource: Some(""),
            proof: Proof::None,
            shown: &["Visual Studio Code"],
        },
        Script {
            name: "Copilot Studio, secret in the body",
            introduction: Ok(json!({
                "client_name": "Microsoft Copilot Studio",
                "redirect_uris": ["https://global.consent.azure-apim.net/redirect/cr123-acme-5f2a"],
                "grant_types": ["authorization_code", "refresh_token"],
                "response_types": ["code"],
            })),
            redirect_uri: "https://global.consent.azure-apim.net/redirect/cr123-acme-5f2a",
            scope: "",
            granted: "mcp:use",
            resource: None,
            proof: Proof::Post,
            shown: &["Microsoft Copilot Studio", "global.consent.azure-apim.net"],
        },
        Script {
            name: "Teams and Microsoft 365 Copilot, secret by Basic",
            introduction: Ok(json!({
                "client_name": "Microsoft 365 Copilot",
                "redirect_uris": ["https://teams.microsoft.com/api/platform/v1.0/oAuthRedirect"],
                "grant_types": ["authorization_code", "refresh_token"],
                "response_types": ["code"],
                "token_endpoint_auth_method": "client_secret_basic",
            })),
            redirect_uri: "https://teams.microsoft.com/api/platform/v1.0/oAuthRedirect",
            scope: "",
            granted: "mcp:use",
            resource: None,
            proof: Proof::Basic,
            shown: &["teams.microsoft.com"],
        },
        Script {
            name: "an SDK that says nothing of methods",
            introduction: Ok(
                json!({ "client_name": "inspector", "redirect_uris": ["http://localhost:6274/oauth/callback"] }),
            ),
            redirect_uri: "http://localhost:6274/oauth/callback",
            scope: "openid email profile",
            granted: "mcp:use",
            resource: Some(""),
            proof: Proof::Basic,
            shown: &["this computer"],
        },
    ]
}

/// A client that is registered.
struct Known<'a> {
    app: App<'a>,
    secret: Option<String>,
    proof: Proof,
}

impl Known<'_> {
    async fn token(&self, form: &[(&str, &str)]) -> Answer {
        let mut form = form.to_vec();
        let (id, secret) = (self.app.client_id.as_str(), self.secret.as_deref().unwrap_or_default());
        match self.proof {
            Proof::None => form.push(("client_id", id)),
            Proof::Post => form.extend([("client_id", id), ("client_secret", secret)]),
            Proof::Basic => {}
        }
        let path = format!("{}/token", self.app.prefix);
        let request = self.app.gateway.client().request(Method::POST, &path).form_of(&form);
        let request = match self.proof {
            Proof::Basic => request.basic_auth(id, Some(secret)),
            Proof::None | Proof::Post => request,
        };
        read(request.send().await.expect("an answer")).await
    }
}

async fn introduced<'a>(gateway: &'a Gateway, script: &Script) -> Known<'a> {
    let (client_id, secret) = match &script.introduction {
        Err(document) => ((*document).to_owned(), None),
        Ok(body) => {
            let told = register(gateway, "/a", body).await;
            assert_eq!(told.status, 201, "{}: {told:?}", script.name);
            let told = told.json();
            assert_eq!(told["redirect_uris"], body["redirect_uris"], "{}", script.name);
            assert_eq!(told["client_name"], body["client_name"], "{}", script.name);
            let secret = told["client_secret"].as_str().map(str::to_owned);
            assert_eq!(
                secret.is_none(),
                told["token_endpoint_auth_method"] == "none",
                "{}: {told}",
                script.name
            );
            (told["client_id"].as_str().expect("an id").to_owned(), secret)
        }
    };
    let app = App { gateway, prefix: "/a", client_id, redirect_uri: script.redirect_uri.to_owned() };
    Known { app, secret, proof: script.proof }
}

#[tokio::test]
async fn every_known_client_logs_in_its_own_way() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let gateway = gateway(&entra, &backend, &["a"]).await;
    let connector = format!("{}/a/mcp", gateway.client().base());
    for script in scripts() {
        let known = introduced(&gateway, &script).await;
        let resource = script.resource.map(|more| format!("{connector}{more}")).unwrap_or_default();
        let mut browser = Browser::new(&gateway);
        let path = known.app.authorize_path(&[("scope", script.scope), ("resource", &resource)]);
        let page = browser.get(&path).await;
        assert_eq!(page.status, 200, "{}: {page:?}", script.name);
        for text in script.shown {
            assert!(page.text.contains(text), "{}: no {text:?} in {}", script.name, page.text);
        }
        let callback = known.app.consent_and_visit(&mut browser, &page, &entra).await;
        let done = browser.get(&callback).await;
        // A program on the device is opened by a link, which the person follows.
        let by_link = script.redirect_uri.starts_with("cursor:");
        assert_eq!(done.status, if by_link { 200 } else { 302 }, "{}: {done:?}", script.name);
        let to = if by_link { way(&done.text) } else { done.header("location").to_owned() };
        assert!(!done.text.contains("http-equiv"), "{}", script.name);
        let back = Url::parse(&to).expect("a URL");
        assert!(back.as_str().starts_with(script.redirect_uri), "{}: {back}", script.name);

        let code = parameter(&back, "code").expect("a code");
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", script.redirect_uri),
            ("code_verifier", VERIFIER),
        ];
        if !resource.is_empty() {
            form.push(("resource", &resource));
        }
        let sold = known.token(&form).await;
        assert_eq!(sold.status, 200, "{}: {sold:?}", script.name);
        let sold = sold.json();
        assert_eq!(sold["scope"], script.granted, "{}", script.name);
        let access = sold["access_token"].as_str().expect("a token");
        let answer = gateway.client().bearer(access).search(Era::Modern, "/a", script.name).await;
        assert_eq!(answer.data()["row_count"], 2, "{}", script.name);
        let refresh = sold["refresh_token"].as_str().expect("a refresh token");
        let renewed = known.token(&[("grant_type", "refresh_token"), ("refresh_token", refresh)]).await;
        assert_eq!(renewed.status, 200, "{}: {renewed:?}", script.name);
    }
}

#[tokio::test]
async fn a_secret_must_be_shown_where_one_was_given() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let gateway = gateway(&entra, &backend, &["a"]).await;
    let told = register(&gateway, "/a", &json!({ "redirect_uris": ["https://app.example/cb"] })).await.json();
    let client_id = told["client_id"].as_str().expect("an id").to_owned();
    let app =
        App { gateway: &gateway, prefix: "/a", client_id, redirect_uri: "https://app.example/cb".to_owned() };
    let known = Known { app, secret: Some("wrong".to_owned()), proof: Proof::None };
    for proof in [Proof::None, Proof::Post, Proof::Basic] {
        let known = Known {
            proof,
            app: App {
                client_id: known.app.client_id.clone(),
                redirect_uri: known.app.redirect_uri.clone(),
                ..known.app
            },
            secret: known.secret.clone(),
        };
        let refused = known.token(&[("grant_type", "refresh_token"), ("refresh_token", "x")]).await;
        assert_eq!(
            (refused.status, &refused.json()["error"]),
            (401, &json!("invalid_client")),
            "{refused:?}"
        );
    }
}
