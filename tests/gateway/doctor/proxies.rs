//! A proxy in front that breaks things in each way: the first request that is answered otherwise
//! than directly, what did it, and the lines to change. NGINX's are applied as they stand, and then the
//! doctor finds nothing.

use futures_util::{StreamExt, stream};
use serde_json::Value;
use tokio::net::TcpListener;

use super::super::harness::entra::FakeEntra;
use super::super::harness::front::{Front, free_ports};
use super::super::harness::secret::secret;
use super::super::harness::{FakeBackend, Gateway, Setup, Tenant};
use super::nginx_configuration::NginxLines;
use super::{Doctor, Guard, KEY, Said, digest};

/// A proxy that is wrong in one way.
struct Case {
    guard: Guard,
    client: &'static str,
    /// The lines of its `server`. `PREFIX` stands for the tenant's, `PASS` for what forwards to the
    /// gateway, `HEADERS` for that without the address.
    lines: &'static str,
    fault: &'static str,
    step: &'static str,
}

const fn case(
    guard: Guard,
    client: &'static str,
    lines: &'static str,
    fault: &'static str,
    step: &'static str,
) -> Case {
    Case { guard, client, lines, fault, step }
}

/// How many doctors ask one gateway at once.
const AT_ONCE: usize = 4;
/// What every proxy should have.
const GOOD: &str = "location PREFIX/ { PASS } location /.well-known/ { PASS }";

#[rustfmt::skip]
const CASES: [Case; 25] = [
    case(Guard::Login, "claude", "location PREFIX/ { PASS }", "well-known-dropped", "authorization server metadata"),
    case(Guard::Login, "copilot-studio", "location PREFIX/ { PASS }", "well-known-dropped", "authorization server metadata"),
    case(Guard::Login, "vscode", "location / { return 404; }", "path-dropped", "first request"),
    case(Guard::Login, "sdk", "location PREFIX/ { proxy_pass http://UPSTREAM/; HEADERS } location /.well-known/ { PASS }", "path-rewritten", "first request"),
    case(Guard::Login, "sdk", "location / { PASS proxy_set_header Host other.test; }", "host-changed", "first request"),
    case(Guard::Open, "sdk", "location / { proxy_pass http://UPSTREAM; proxy_set_header Host $http_host; }", "caller-hidden", "first request"),
    case(Guard::Key, "cursor", "location / { PASS proxy_set_header Authorization \"\"; }", "authorization-dropped", "initialize"),
    case(Guard::Login, "chatgpt", "location / { PASS proxy_hide_header WWW-Authenticate; }", "challenge-dropped", "first request"),
    case(Guard::Login, "claude", "location / { PASS } location /.well-known/ { default_type application/json; return 200 '{\"issuer\": \"http://localhost\"}'; }", "answer-changed", "authorization server metadata"),
    case(Guard::Login, "claude", "location / { default_type text/html; return 200 '<html>Sign in</html>'; }", "answered-by-proxy", "first request"),
    case(Guard::Login, "teams", "location / { auth_basic x; auth_basic_user_file /dev/null; PASS }", "proxy-authenticates", "first request"),
    case(Guard::Login, "claude", "location / { deny all; PASS }", "proxy-forbids", "first request"),
    case(Guard::Login, "sdk", "location / { if ($request_method = POST) { return 405; } PASS }", "method-refused", "first request"),
    case(Guard::Login, "claude", "limit_req zone=slow; limit_req_status 429; location / { PASS }", "proxy-limits-rate", "resource metadata"),
    case(Guard::Login, "vscode", "rewrite ^/(.*[^/])$ https://$http_host/$1/ permanent; location / { PASS }", "proxy-redirects", "first request"),
    case(Guard::Login, "vscode", "location / { return 301 http://$http_host$request_uri; }", "redirects-to-http", "first request"),
    case(Guard::Login, "sdk", "client_max_body_size 64k; location / { PASS }", "body-limit", "large request"),
    case(Guard::Login, "claude", "connection_pool_size 256; client_header_buffer_size 256; large_client_header_buffers 1 256; location / { PASS }", "header-limit", "consent page"),
    case(Guard::Login, "sdk", "location / { proxy_pass http://SILENT; HEADERS proxy_read_timeout 1s; }", "proxy-timeout", "first request"),
    case(Guard::Login, "sdk", "location / { proxy_pass http://127.0.0.1:1; HEADERS }", "bad-gateway", "first request"),
    case(Guard::Login, "sdk", "location / { return 444; }", "answer-broken-off", "first request"),
    case(Guard::Key, "sdk", "location / { PASS proxy_ignore_headers X-Accel-Buffering; }", "stream-buffered", "stream"),
    case(Guard::Key, "sdk", "location / { PASS proxy_buffering off; proxy_read_timeout 3s; }", "stream-cut", "stream"),
    case(Guard::Key, "sdk", "location / { PASS proxy_set_header Content-Type text/plain; }", "request-changed", "initialize"),
    case(Guard::Login, "sdk", "location PREFIX/ { PASS } location /.well-known/ { return 503; }", "bad-gateway", "resource metadata at the host"),
];

/// A gateway with a tenant behind each proxy.
struct World {
    gateway: Gateway,
    /// The port of each proxy, and the lines of its `server`.
    servers: Vec<(u16, String)>,
    front: Front,
    key_file: tempfile::NamedTempFile,
    _entra: FakeEntra,
    _backend: FakeBackend,
    _silent: TcpListener,
}

impl World {
    async fn start(servers: &[(Guard, &str)]) -> Self {
        let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let ports = free_ports(servers.len());
        let mut setup = Setup::new()
            .flag("--tls", "off")
            .flag("--trusted-proxies", "127.0.0.1")
            .flag("--entra-authority", &entra.authority());
        for (number, ((guard, _), port)) in servers.iter().zip(&ports).enumerate() {
            let name = name(number);
            let tenant =
                Tenant::new(&name, &backend).with(&format!("public_url: https://localhost:{port}/{name}"));
            let tenant = match guard {
                Guard::Login => tenant.with(&entra.lines()),
                Guard::Key => tenant.with(&format!("api_keys: [{{label: c, sha256: {}}}]", digest(KEY))),
                Guard::Open => tenant,
            };
            setup = setup.file(&format!("{name}.yaml"), tenant.yaml());
        }
        let gateway = setup.start().await;
        for number in 0..servers.len() {
            gateway.until_state(&name(number), "serving").await;
        }
        let headers = "proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_set_header \
                       X-Forwarded-For $remote_addr;";
        let pass = format!("proxy_pass http://{}; {headers}", gateway.address());
        let fill = |(number, ((_, lines), port)): (usize, (&(Guard, &str), &u16))| {
            let silent = silent.local_addr().expect("an address").to_string();
            // A later `proxy_set_header` of the same name replaces an earlier one.
            let pass = match lines.contains("proxy_set_header Host other") {
                true => pass.replace("proxy_set_header Host $http_host;", ""),
                false => pass.clone(),
            };
            let lines = lines
                .replace("PREFIX", &format!("/{}", name(number)))
                .replace("PASS", &pass)
                .replace("HEADERS", headers)
                .replace("UPSTREAM", &gateway.address().to_string())
                .replace("SILENT", &silent);
            (*port, lines)
        };
        let configured: Vec<(u16, String)> = servers.iter().zip(&ports).enumerate().map(fill).collect();
        let front = Front::start(&configured).await;
        let key_file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(key_file.path(), KEY).expect("written");
        Self {
            gateway,
            servers: configured,
            front,
            key_file,
            _entra: entra,
            _backend: backend,
            _silent: silent,
        }
    }

    /// Starts the proxies again with what was changed.
    async fn restart_front(mut self) -> Self {
        drop(self.front);
        self.front = Front::start(&self.servers).await;
        self
    }

    async fn examine(&self, number: usize, guard: Guard, client: &str) -> Said {
        let (name, key) = (name(number), self.key_file.path().display().to_string());
        let mut arguments = vec![name.as_str(), "--as", client];
        if guard == Guard::Key {
            arguments.extend(["--key-file", &key]);
        }
        Doctor::beside(&self.gateway, &arguments).trusting(&self.front.certificate()).ask().await
    }
}

fn name(number: usize) -> String {
    format!("t{number}")
}

#[tokio::test]
async fn each_way_of_a_proxy_to_break_things_is_named_with_the_lines_to_change() {
    let servers: Vec<(Guard, &str)> = CASES.iter().map(|case| (case.guard, case.lines)).collect();
    let world = World::start(&servers).await;
    let examined = CASES
        .iter()
        .enumerate()
        .map(async |(number, case)| (case, world.examine(number, case.guard, case.client).await));
    let mut wrong = String::new();
    let examined: Vec<_> = stream::iter(examined).buffered(AT_ONCE).collect().await;
    for (case, said) in examined {
        if let Err(why) = judge(case, &said) {
            let own = said.verdicts().iter().filter(|verdict| verdict["examination"] == "client");
            wrong += &format!(
                "{} for {} with {}: {why}: {:#?}\n",
                case.fault,
                case.client,
                case.lines,
                own.collect::<Vec<_>>()
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The faults of which NGINX's lines only say how to find the reason.
const NOT_APPLIED: [&str; 1] = ["answer-broken-off"];

#[tokio::test]
async fn nginx_is_well_again_with_the_lines_that_are_printed_for_it() {
    let cases: Vec<&Case> = CASES.iter().filter(|case| !NOT_APPLIED.contains(&case.fault)).collect();
    let servers: Vec<(Guard, &str)> = cases.iter().map(|case| (case.guard, case.lines)).collect();
    let mut world = World::start(&servers).await;
    let examine = async |world: &World| {
        let each = cases.iter().enumerate();
        let examined = each.map(async |(number, case)| world.examine(number, case.guard, case.client).await);
        stream::iter(examined).buffered(AT_ONCE).collect::<Vec<_>>().await
    };
    for (number, (case, said)) in cases.iter().zip(examine(&world).await).enumerate() {
        let found = said.verdicts().iter().find(|verdict| verdict["code"] == case.fault);
        let changes = found.and_then(|found| found["changes"].as_array()).expect("the fault has changes");
        let change = changes.iter().find(|change| change["product"] == "NGINX").expect("NGINX's");
        let lines = &mut world.servers[number].1;
        let mut changed = NginxLines::parse(lines);
        changed.apply(change["lines"].as_str().expect("a text"));
        *lines = changed.to_string();
    }
    let world = world.restart_front().await;
    let mut wrong = String::new();
    for ((case, (_, lines)), said) in cases.iter().zip(&world.servers).zip(examine(&world).await) {
        let own: Vec<_> =
            said.verdicts().iter().filter(|verdict| verdict["examination"] == "client").collect();
        let is_bad = |outcome: &Value| outcome == "fault" || outcome == "warning";
        let is_well = own.iter().any(|verdict| verdict["code"] == "sequence-good")
            && !own.iter().any(|verdict| is_bad(&verdict["outcome"]));
        if !is_well {
            wrong += &format!("{} with {lines}: {own:#?}\n", case.fault);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Whether the fault is told at its step, with the lines to change, and alone.
fn judge(case: &Case, said: &Said) -> Result<(), &'static str> {
    let step = format!("step \"{}\"", case.step);
    let own: Vec<_> = said.verdicts().iter().filter(|verdict| verdict["examination"] == "client").collect();
    let at_step = |text: &Value| text.as_str().is_some_and(|text| text.contains(&step));
    let found = own.iter().find(|verdict| verdict["code"] == case.fault && at_step(&verdict["found"]));
    let found = found.ok_or("it is not told at its step")?;
    let changes = found["changes"].as_array().map_or(0, Vec::len);
    let faults = own.iter().filter(|verdict| verdict["outcome"] == "fault").count();
    match () {
        () if changes != 3 => Err("a product's lines are missing"),
        () if faults > 1 => Err("more than the first fault is told"),
        // A client that has another way gets through.
        () if found["outcome"] == "fault" && own.iter().any(|verdict| verdict["code"] == "sequence-good") => {
            Err("all is called good")
        }
        () => Ok(()),
    }
}

#[tokio::test]
async fn a_good_proxy_has_no_fault_whichever_client_comes() {
    let clients = ["claude", "chatgpt", "cursor", "vscode", "copilot-studio", "teams", "sdk"];
    let servers: Vec<(Guard, &str)> = clients
        .iter()
        .map(|_| (Guard::Login, GOOD))
        .chain([(Guard::Key, GOOD), (Guard::Open, GOOD)])
        .collect();
    let world = World::start(&servers).await;
    let all = clients.iter().copied().chain(["sdk", "sdk"]).zip(&servers).enumerate();
    let examined = all.map(async |(number, (client, (guard, _)))| {
        (client, *guard, world.examine(number, *guard, client).await)
    });
    let examined: Vec<_> = stream::iter(examined).buffered(AT_ONCE).collect().await;
    for (client, guard, said) in examined {
        let good = said.verdict("sequence-good")["found"].as_str().expect("a text");
        let steps = match guard {
            Guard::Login => ["first request", "consent page", "token endpoint", "large request"],
            Guard::Key | Guard::Open => ["initialize", "tools/list", "stream", "large request"],
        };
        assert!(steps.iter().all(|step| good.contains(step)), "{client}: {good}");
        // A hosted client does not reach loopback, which is no proxy's fault.
        let faults: Vec<_> = said.faults().into_iter().filter(|code| *code != "not-public").collect();
        assert!(faults.is_empty(), "{client}: {:#}", said.report);
        assert!(said.codes("warning").is_empty(), "{client}: {:#}", said.report);
    }
}
