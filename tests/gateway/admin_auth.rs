//! Who may use the admin listener: tokens, roles, sessions, and what browsers send for other pages.

mod tls;
mod verbs;

use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tenantd::admin::{RouteInfo, list_routes};
use tenantd::settings::AdminRole;

use crate::harness::{Gateway, Setup, until};

/// Tokens of our form, which no output may contain.
const OPERATOR: &str = "ta_c4naryS3cret00000000000000000000000000000000000000000000000operator";
const READER: &str = "ta_c4naryS3cret000000000000000000000000000000000000000000000000000reader";
const EXPIRED: &str = "ta_c4naryS3cret00000000000000000000000000000000000000000000000000expired";

/// Returns the lines of a token.
fn entry(name: &str, token: &str, role: &str, more: &str) -> String {
    let digest = tenantd::base::digest::Digest::of(token.as_bytes());
    format!("  - {{name: {name}, sha256: \"{digest}\", role: {role}{more}}}\n")
}

fn tokens() -> String {
    let operator = entry("ann", OPERATOR, "operate", "");
    let reader = entry("wall", READER, "read", "");
    format!("tokens:\n{operator}{reader}{}", entry("old", EXPIRED, "read", ", expires: 2020-01-01"))
}

/// A gateway whose admin listener takes tokens, and a client that is not on this machine as far as
/// the gateway knows: a proxy says so.
struct Guarded {
    gateway: Gateway,
    http: reqwest::Client,
}

impl Guarded {
    async fn start() -> Self {
        let setup = Setup::new();
        std::fs::write(setup.path().join("tokens.yaml"), tokens()).expect("written");
        let file = setup.path().join("tokens.yaml").display().to_string();
        Self { gateway: setup.flag("--admin-auth", &file).start().await, http: client() }
    }

    fn base(&self) -> String {
        format!("http://{}", self.gateway.admin_address())
    }

    /// Starts a request as somebody else's.
    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base()));
        request.header("x-forwarded-for", "192.0.2.1")
    }

    /// Starts a request as a page of ours sends it.
    fn ask_from_page(&self, method: Method, path: &str, cookie: &str) -> RequestBuilder {
        let request = self.ask(method, path).header("sec-fetch-site", "same-origin").header("cookie", cookie);
        request.header("origin", self.base()).header("accept", "text/html")
    }

    fn write_tokens(&self, text: &str) {
        let (file, new) = (self.gateway.path().join("tokens.yaml"), self.gateway.path().join("new.yaml"));
        std::fs::write(&new, text).expect("written");
        std::fs::rename(new, file).expect("replaced");
    }

    /// Opens the login page. Returns the browser's cookie and the token of the form.
    async fn open_login(&self) -> (String, String) {
        let page =
            self.ask(Method::GET, "/login").header("sec-fetch-site", "none").header("accept", "text/html");
        let answer = page.send().await.expect("an answer");
        let cookie = cookie(&answer).expect("a cookie");
        (cookie, csrf_token(&answer.text().await.expect("a page")))
    }

    /// Logs in with a token. Returns the cookie of the session.
    async fn log_in(&self, token: &str) -> String {
        let (cookie_before, csrf) = self.open_login().await;
        let form = [("token", token), ("to", "/certificates"), ("csrf_token", &csrf)];
        let answer = self.ask_from_page(Method::POST, "/login", &cookie_before).body(urlencoded(&form));
        let answer = answer.header("content-type", "application/x-www-form-urlencoded").send().await;
        let answer = answer.expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["location"]),
            (303, &"/certificates".parse().expect("a value"))
        );
        let session = cookie(&answer).expect("a cookie");
        assert_ne!(session, cookie_before, "a session has a new cookie");
        session
    }

    /// Returns the token of the forms of a session.
    async fn csrf_of(&self, cookie: &str) -> String {
        let page = self.ask_from_page(Method::GET, "/login", cookie).send().await.expect("an answer");
        csrf_token(&page.text().await.expect("a page"))
    }

    /// Pauses a tenant that there is not; 404 means that the order got through.
    async fn order(&self, request: RequestBuilder) -> u16 {
        request.send().await.expect("an answer").status().as_u16()
    }
}

fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    builder.build().expect("a client")
}

fn urlencoded(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

/// Returns the cookie that a response sets, as a request sends it back.
fn cookie(answer: &reqwest::Response) -> Option<String> {
    let line = answer.headers().get("set-cookie")?.to_str().expect("ASCII");
    assert!(line.contains("; HttpOnly; SameSite=Strict"), "{line}");
    line.split(';').next().map(str::to_owned)
}

fn csrf_token(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"csrf_token\" value=\"").expect("a form");
    rest.split('"').next().expect("a value").to_owned()
}

const PAUSE: &str = "/api/tenants/nobody/pause";

/// What a caller without, with the lesser and with the greater role gets at a route: whether they
/// get through.
fn expected(route: &RouteInfo) -> [bool; 3] {
    match route.role {
        None => [true, true, true],
        Some(AdminRole::Read) => [false, true, true],
        Some(AdminRole::Operate) => [false, false, true],
    }
}

#[tokio::test]
async fn every_route_asks_for_its_role() {
    let guarded = Guarded::start().await;
    let routes = list_routes();
    assert!(routes.len() > 20, "the table was not understood");
    for route in routes {
        let segments = route.path.split('/').map(|part| if part.starts_with('{') { "nobody" } else { part });
        let path = segments.collect::<Vec<_>>().join("/");
        let mut through = Vec::new();
        for token in [None, Some(READER), Some(OPERATOR)] {
            let request = guarded.ask(route.method.clone(), &path);
            let request = token.into_iter().fold(request, RequestBuilder::bearer_auth);
            let answer = request.send().await.expect("an answer");
            let status = answer.status().as_u16();
            if token.is_none() && status == 401 {
                assert!(answer.headers().contains_key("www-authenticate"), "{} {path}", route.method);
            }
            // A login without a token is one that failed.
            through.push(!matches!(status, 401 | 403) || path == "/login");
        }
        assert_eq!(through, expected(&route), "{} {path}", route.method);
    }
}

#[tokio::test]
async fn every_order_is_in_the_audit_with_the_operators_name_and_address() {
    let guarded = Guarded::start().await;
    let routes = list_routes().into_iter().filter(|route| route.order.is_some());
    let mut expected = Vec::new();
    for route in routes {
        let segments = route.path.split('/').map(|part| if part.starts_with('{') { "nobody" } else { part });
        let path = segments.collect::<Vec<_>>().join("/");
        let request = guarded.ask(route.method.clone(), &path).bearer_auth(OPERATOR);
        let status = request.send().await.expect("an answer").status();
        assert!(status != 401 && status != 403, "{path}");
        expected.push(route.order.expect("an order").to_owned());
    }
    assert!(expected.len() > 15, "the table was not understood");
    let orders = until("all orders are written", async || {
        let audit = std::fs::read_to_string(guarded.gateway.path().join("state/audit.jsonl")).ok()?;
        let lines = audit.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let orders: Vec<_> = lines.filter(|line| line["event"] == "order").collect();
        (orders.len() >= expected.len()).then_some(orders)
    })
    .await;
    let found: Vec<_> = orders.iter().map(|line| line["order"].as_str().expect("a name")).collect();
    assert_eq!(found, expected);
    for line in &orders {
        assert_eq!((&line["operator"], &line["client_addr"]), (&"ann".into(), &"127.0.0.1".into()), "{line}");
    }
}

#[tokio::test]
async fn a_refusal_says_what_is_needed_in_the_page_as_in_the_api() {
    let guarded = Guarded::start().await;
    let refused = guarded.ask(Method::POST, PAUSE).bearer_auth(READER).send().await.expect("an answer");
    assert_eq!(refused.status(), 403);
    let problem: Value = serde_json::from_str(&refused.text().await.expect("a text")).expect("JSON");
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.contains("the role operate") && detail.contains("wall"), "{detail}");
    let session = guarded.log_in(READER).await;
    let csrf = guarded.csrf_of(&session).await;
    let page = guarded.ask_from_page(Method::POST, PAUSE, &session).header("x-csrf-token", csrf).send().await;
    let page = page.expect("an answer").text().await.expect("a page");
    assert!(page.contains("<h1>Forbidden</h1>") && page.contains("the role operate"), "{page}");
    let page = guarded.ask(Method::GET, "/certificates?x=1").header("accept", "text/html").send().await;
    let page = page.expect("an answer");
    assert_eq!(page.headers()["location"], "/login?to=%2Fcertificates%3Fx%3D1");
}

#[tokio::test]
async fn tokens_count_while_the_file_says_so_and_a_broken_file_lets_nobody_in() {
    let guarded = Guarded::start().await;
    let order = async |token| guarded.order(guarded.ask(Method::POST, PAUSE).bearer_auth(token)).await;
    assert_eq!((order(OPERATOR).await, order(EXPIRED).await, order("ta_else").await), (404, 401, 401));
    let session = guarded.log_in(OPERATOR).await;
    let overview = async || guarded.order(guarded.ask_from_page(Method::GET, "/api/tenants", &session)).await;
    assert_eq!(overview().await, 200);
    let readiness = async || {
        let (status, text) = guarded.gateway.admin("/readyz").await;
        assert_eq!(status, 200);
        serde_json::from_str::<Value>(&text).expect("JSON")["admin_auth"].clone()
    };
    assert_eq!(readiness().await, "ok");
    guarded.write_tokens("tokens: [{");
    assert_eq!((order(OPERATOR).await, overview().await), (401, 303));
    until("readyz says so", async || (readiness().await == "unusable").then_some(())).await;
    assert!(guarded.gateway.output().contains("the file of admin tokens cannot be used"));
    guarded.write_tokens(&format!("tokens:\n{}", entry("wall", READER, "read", "")));
    assert_eq!((order(OPERATOR).await, overview().await), (401, 303), "it is not in the file");
    guarded.write_tokens(&tokens());
    assert_eq!((order(OPERATOR).await, overview().await), (404, 200), "it is back");
    guarded.write_tokens(&tokens().replace("operate", "read"));
    assert_eq!((order(OPERATOR).await, overview().await), (403, 200), "its role is another");
}

#[tokio::test]
async fn the_gateways_own_account_needs_no_token_unless_a_proxy_passes_it_on() {
    let guarded = Guarded::start().await;
    let near = |path: &str| guarded.http.post(format!("{}{path}", guarded.base()));
    assert_eq!(guarded.order(near(PAUSE)).await, 404);
    for header in ["forwarded", "x-forwarded-for", "x-real-ip", "via"] {
        assert_eq!(guarded.order(near(PAUSE).header(header, "192.0.2.1")).await, 401, "{header}");
    }
    assert_eq!(guarded.order(near(PAUSE).bearer_auth("ta_wrong")).await, 401, "a wrong token is none");
}

#[tokio::test]
async fn a_session_ends_with_the_logout_and_its_audit_says_who() {
    let mut guarded = Guarded::start().await;
    let session = guarded.log_in(OPERATOR).await;
    let csrf = guarded.csrf_of(&session).await;
    let page = |path| guarded.ask_from_page(Method::POST, path, &session).header("x-csrf-token", &csrf);
    assert_eq!(guarded.order(page(PAUSE)).await, 404);
    assert_eq!(guarded.order(page("/logout")).await, 303);
    assert_eq!(guarded.order(page(PAUSE)).await, 401);
    let (browser, form) = guarded.open_login().await;
    let wrong = [("token", "ta_c4naryS3cret_wrong"), ("csrf_token", form.as_str())];
    let wrong = guarded.ask_from_page(Method::POST, "/login", &browser).body(urlencoded(&wrong));
    let wrong = wrong.header("content-type", "application/x-www-form-urlencoded").send().await;
    let wrong = wrong.expect("an answer");
    assert_eq!(wrong.status(), 403);
    let text = wrong.text().await.expect("a page");
    assert!(text.contains("not one of this gateway") && !text.contains("c4nary"), "{text}");
    guarded.gateway.signal("TERM");
    guarded.gateway.until_ended().await;
    let audit = std::fs::read_to_string(guarded.gateway.path().join("state/audit.jsonl")).expect("an audit");
    let lines = audit.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let told: Vec<String> = lines
        .map(|line| {
            ["event", "order", "operator", "outcome"].map(|it| line[it].as_str().unwrap_or("-").to_owned())
        })
        .map(|line| line.join(" "))
        .collect();
    assert_eq!(
        told,
        [
            "order login ann ok",
            "order pause ann not_found",
            "order logout ann ok",
            "refusal login - invalid_token"
        ]
    );
}

#[tokio::test]
async fn another_login_in_the_same_browser_ends_the_session_before_it() {
    let guarded = Guarded::start().await;
    let before = guarded.log_in(READER).await;
    let csrf = guarded.csrf_of(&before).await;
    let form = urlencoded(&[("token", OPERATOR), ("csrf_token", &csrf)]);
    let login = guarded.ask_from_page(Method::POST, "/login", &before).body(form);
    let login = login.header("content-type", "application/x-www-form-urlencoded").send().await;
    let after = cookie(&login.expect("an answer")).expect("a cookie");
    let read = async |session: &str| {
        guarded.order(guarded.ask_from_page(Method::GET, "/api/tenants", session)).await
    };
    assert_eq!((read(&before).await, read(&after).await), (303, 200));
}

#[tokio::test]
async fn a_change_from_a_page_needs_the_token_of_that_browser() {
    let guarded = Guarded::start().await;
    let (mine, other) = (guarded.log_in(OPERATOR).await, guarded.log_in(OPERATOR).await);
    let (token, foreign) = (guarded.csrf_of(&mine).await, guarded.csrf_of(&other).await);
    let ask = || guarded.ask_from_page(Method::POST, PAUSE, &mine);
    let form = |token: &str| {
        let body = ask().header("content-type", "application/x-www-form-urlencoded; charset=utf-8");
        body.body(urlencoded(&[("csrf_token", token)]))
    };
    assert_eq!(guarded.order(ask()).await, 403, "without one");
    assert_eq!(guarded.order(form(&foreign)).await, 403, "that of another session");
    assert_eq!(guarded.order(ask().header("x-csrf-token", &foreign)).await, 403);
    assert_eq!(guarded.order(form(&token)).await, 404);
    assert_eq!(guarded.order(ask().header("x-csrf-token", &token)).await, 404);
    let upload = format!("{PAUSE}?csrf_token={token}");
    let multipart = guarded.ask_from_page(Method::POST, &upload, &mine);
    assert_eq!(guarded.order(multipart.header("content-type", "multipart/form-data; boundary=x")).await, 404);
    let csrf = guarded.csrf_of(&mine).await;
    let old = guarded.ask_from_page(Method::POST, "/logout", &mine).header("x-csrf-token", csrf);
    assert_eq!(guarded.order(old).await, 303);
    let replayed = guarded.ask_from_page(Method::POST, PAUSE, &other).header("x-csrf-token", &token);
    assert_eq!(guarded.order(replayed).await, 403, "replayed from another session");
}

/// What browsers send for pages that are not ours, with a session and without.
#[tokio::test]
async fn requests_of_other_pages_are_refused_whatever_they_ask_for() {
    let guarded = Guarded::start().await;
    let session = guarded.log_in(OPERATOR).await;
    let csrf = guarded.csrf_of(&session).await;
    let port = guarded.gateway.admin_address().port();
    let near = format!("http://localhost:{port}");
    for origin in ["https://evil.example", "null", "http://127.0.0.1", "http://127.0.0.1:1", &near] {
        for (method, path) in [(Method::GET, "/api/tenants"), (Method::POST, PAUSE), (Method::GET, "/events")]
        {
            for kind in ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"]
            {
                let request = guarded.ask(method.clone(), path).header("origin", origin);
                let request = request.header("content-type", kind).header("x-csrf-token", &csrf);
                assert_eq!(
                    guarded.order(request.header("cookie", &session)).await,
                    403,
                    "{origin} {method} {path} {kind}"
                );
            }
        }
    }
    for (site, mode, dest) in [
        ("cross-site", "no-cors", "image"),
        ("cross-site", "no-cors", "script"),
        ("same-site", "cors", "empty"),
        ("cross-site", "navigate", "iframe"),
        ("cross-site", "websocket", "websocket"),
    ] {
        let request = guarded.ask(Method::GET, "/").header("sec-fetch-site", site).header("cookie", &session);
        let request = request.header("sec-fetch-mode", mode).header("sec-fetch-dest", dest);
        assert_eq!(guarded.order(request).await, 403, "{site} {mode} {dest}");
    }
}

#[tokio::test]
async fn a_link_leads_to_the_console_and_changes_no_session() {
    let guarded = Guarded::start().await;
    let link = guarded.ask(Method::GET, "/tenants/a?b=%22%3E").header("sec-fetch-site", "cross-site");
    let link = link.header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "document").send().await;
    let link = link.expect("an answer");
    assert!(link.headers().get("set-cookie").is_none());
    assert_eq!(
        link.headers()["content-security-policy"]
            .to_str()
            .ok()
            .map(|it| it.contains("frame-ancestors 'none'")),
        Some(true)
    );
    let page = link.text().await.expect("a page");
    assert!(page.contains("url=/tenants/a?b=%22%3E"), "{page}");
}

#[tokio::test]
async fn wrong_tokens_are_answered_shortly_after_a_few_and_a_good_one_still_counts() {
    let guarded = Guarded::start().await;
    let order = async |token| guarded.order(guarded.ask(Method::POST, PAUSE).bearer_auth(token)).await;
    let mut answers = Vec::new();
    for _ in 0..12 {
        answers.push(order("ta_guess").await);
    }
    assert_eq!(answers, [[401; 10].as_slice(), &[429; 2]].concat());
    assert_eq!(order(OPERATOR).await, 404);
}

#[tokio::test]
async fn without_tokens_the_machine_operates_and_its_browser_needs_the_pages_token() {
    let gateway = Setup::new().start().await;
    let (http, base) = (client(), format!("http://{}", gateway.admin_address()));
    let status = async |request: RequestBuilder| request.send().await.expect("an answer").status().as_u16();
    assert_eq!(status(http.post(format!("{base}{PAUSE}"))).await, 404);
    let page = |url: String| http.post(url).header("origin", &base);
    assert_eq!(status(page(format!("{base}{PAUSE}"))).await, 403, "a page without a token");
    let far = http.post(format!("{base}{PAUSE}")).header("x-forwarded-for", "192.0.2.1");
    assert_eq!(status(far).await, 403, "from elsewhere");
    let login = http.get(format!("{base}/")).header("sec-fetch-site", "none").header("accept", "text/html");
    assert!(cookie(&login.send().await.expect("an answer")).is_some(), "a page brings a cookie");
}

#[tokio::test]
async fn the_command_line_speaks_tls_and_sends_its_token() {
    let setup = Setup::new();
    let file = setup.path().join("tokens.yaml").display().to_string();
    std::fs::write(&file, tokens()).expect("written");
    let token_file = setup.path().join("token");
    std::fs::write(&token_file, format!("{OPERATOR}\n")).expect("written");
    let setup = setup.flag("--admin-auth", &file).flag("--admin-tls", "gateway");
    let gateway = setup.flag("--admin-host", "localhost").start().await;
    let url = format!("https://localhost:{}", gateway.admin_address().port());
    let ca = gateway.ca().expect("a local authority").display().to_string();
    let run = |more: &[&str]| {
        let mut command = std::process::Command::new(crate::harness::gateway::BINARY);
        command.args(["tenants", "pause", "nobody", "--admin", &url]).args(more).env_clear();
        let output = command.current_dir(gateway.path()).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let given = token_file.display().to_string();
    let (code, said) = run(&["--admin-ca", &ca, "--admin-token-file", &given]);
    assert!(code == Some(1) && said.contains("no tenant"), "{said}");
    std::fs::write(&token_file, "ta_wrong").expect("written");
    let (code, said) = run(&["--admin-ca", &ca, "--admin-token-file", &given]);
    assert!(code == Some(1) && said.contains("not one of this gateway"), "{said}");
    let (code, said) = run(&[]);
    assert!(
        code == Some(2) && said.contains("TLS with the gateway"),
        "an authority that nobody trusts: {said}"
    );
    // A session of a listener with TLS has a cookie that only TLS carries.
    let pem = reqwest::Certificate::from_pem(&std::fs::read(&ca).expect("a certificate")).expect("PEM");
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([pem]).build().expect("a client");
    let page =
        http.get(format!("{url}/login")).header("sec-fetch-site", "none").send().await.expect("an answer");
    let line = page.headers()["set-cookie"].to_str().expect("ASCII").to_owned();
    assert!(line.starts_with("__Host-tenantd-admin=") && line.ends_with("; Secure"), "{line}");
    let plain = reqwest::get(url.replace("https", "http")).await;
    assert!(plain.is_err(), "there is no plain HTTP");
}

#[tokio::test]
async fn settings_that_would_send_tokens_in_the_clear_are_refused() {
    for (lines, said) in [
        ("admin_auth: tokens.yaml\nadmin: 0.0.0.0:0\n", "admin-without-tls"),
        ("admin_host: admin.example.com\n", "admin-host-without-auth"),
        ("tls: off\nadmin_auth: tokens.yaml\nadmin_tls: gateway\n", "admin-tls-without-certificates"),
        ("admin_tls: [a, b, c]\n", "two files"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("tenantd.yaml"), lines).expect("written");
        let mut command = std::process::Command::new(crate::harness::gateway::BINARY);
        command.arg("serve").env_clear().current_dir(folder.path());
        let output = command.output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{lines}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(said), "{lines}: {text}");
    }
}
