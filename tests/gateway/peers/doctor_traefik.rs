//! A real Traefik that breaks things in each way it can: `tenantd doctor` names the fault, the lines
//! that it prints for Traefik are applied as they stand, and then it finds nothing.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use futures_util::{StreamExt, stream};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::cache;
use crate::doctor::{Doctor, Guard, KEY, Said, digest};
use crate::harness::entra::FakeEntra;
use crate::harness::front::free_ports;
use crate::harness::secret::secret;
use crate::harness::{FakeBackend, Gateway, Reply, Setup, Tenant, until};

/// How many proxies run at once.
const AT_ONCE: usize = 4;

/// A Traefik that is wrong in one way. `PREFIX`, `UPSTREAM`, `SILENT` and `PAGES` stand for the
/// tenant's prefix, the gateway, a server that never answers and one that answers with pages.
#[derive(Clone, Copy)]
struct Case {
    fault: &'static str,
    guard: Guard,
    client: &'static str,
    /// The rule of the tenant's router.
    rule: &'static str,
    has_well_known: bool,
    /// The middlewares of all routers, by name.
    middlewares: &'static str,
    /// The service of all routers.
    service: &'static str,
    /// What else is in the dynamic configuration's `http`.
    more: &'static str,
    /// What is in the static configuration beside the entry point's address.
    statics: &'static str,
}

impl Case {
    /// A proxy without a fault.
    const fn new(fault: &'static str) -> Self {
        Self {
            fault,
            guard: Guard::Login,
            client: "sdk",
            rule: "Host(`localhost`) && PathPrefix(`PREFIX`)",
            has_well_known: true,
            middlewares: "{}",
            service: "loadBalancer: {servers: [{url: 'http://UPSTREAM'}]}",
            more: "{}",
            statics: "{}",
        }
    }

    const fn middleware(fault: &'static str, middlewares: &'static str) -> Self {
        Self { middlewares, ..Self::new(fault) }
    }

    const fn statics(fault: &'static str, statics: &'static str) -> Self {
        Self { statics, ..Self::new(fault) }
    }

    const fn by(self, client: &'static str) -> Self {
        Self { client, ..self }
    }

    const fn guarded_by(self, guard: Guard) -> Self {
        Self { guard, ..self }
    }
}

#[rustfmt::skip]
const CASES: [Case; 27] = [
    Case { has_well_known: false, ..Case::new("well-known-dropped") }.by("claude"),
    Case { has_well_known: false, ..Case::new("well-known-dropped") }.by("chatgpt"),
    Case { rule: "Host(`localhost`) && PathPrefix(`/elsewhere`)", ..Case::new("path-dropped") },
    Case { rule: "Host(`localhost`) && PathPrefix(`PREFIX`) && Method(`GET`)", ..Case::new("path-dropped") },
    Case::middleware("path-rewritten", "strip: {stripPrefix: {prefixes: [PREFIX]}}"),
    Case::middleware("path-rewritten", "add: {addPrefix: {prefix: /v1}}"),
    Case::middleware("path-rewritten", "replace: {replacePathRegex: {regex: '^PREFIX/(.*)', replacement: '/$1'}}"),
    Case::middleware("host-changed", "host: {headers: {customRequestHeaders: {Host: other.test}}}"),
    Case::statics("caller-hidden", "entryPoints: {websecure: {forwardedHeaders: {notAppendXForwardedFor: true}}}").guarded_by(Guard::Open),
    Case::middleware("authorization-dropped", "lost: {headers: {customRequestHeaders: {Authorization: ''}}}").guarded_by(Guard::Key).by("cursor"),
    Case::middleware("challenge-dropped", "lost: {headers: {customResponseHeaders: {WWW-Authenticate: ''}}}").by("chatgpt"),
    Case::middleware("answer-changed", "kind: {headers: {customResponseHeaders: {Content-Type: text/plain}}}"),
    Case::middleware("request-changed", "kind: {headers: {customRequestHeaders: {Content-Type: text/plain}}}"),
    Case::middleware("request-changed", "accept: {headers: {customRequestHeaders: {Accept: text/html}}}").guarded_by(Guard::Key),
    Case { more: "{routers: {site: {rule: 'Host(`localhost`)', priority: 5000, service: pages, tls: {}}}, services: {pages: {loadBalancer: {servers: [{url: 'http://PAGES'}]}}}}", ..Case::new("answered-by-proxy") }.by("claude"),
    Case::middleware("proxy-authenticates", "auth: {basicAuth: {users: ['ada:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/']}}").by("teams"),
    Case::middleware("proxy-forbids", "allow: {ipAllowList: {sourceRange: [192.0.2.0/24]}}").by("claude"),
    Case::middleware("proxy-limits-rate", "rate: {rateLimit: {average: 1, period: 1h, burst: 1}}").by("vscode"),
    Case::middleware("proxy-redirects", "to: {redirectRegex: {regex: '^https://localhost:([0-9]+)(/[^/]+/mcp)$', replacement: 'https://localhost:${1}${2}/'}}").by("vscode"),
    Case::middleware("redirects-to-http", "to: {redirectScheme: {scheme: http}}"),
    Case::middleware("body-limit", "limit: {buffering: {maxRequestBodyBytes: 65536}}"),
    Case::statics("header-limit", "entryPoints: {websecure: {http: {maxHeaderBytes: 1}}}").by("claude"),
    Case { service: "loadBalancer: {servers: [{url: 'http://SILENT'}], serversTransport: transport}", more: "{serversTransports: {transport: {forwardingTimeouts: {responseHeaderTimeout: 1s}}}}", ..Case::new("proxy-timeout") },
    Case { service: "loadBalancer: {servers: [{url: 'http://127.0.0.1:1'}]}", ..Case::new("bad-gateway") },
    Case { service: "loadBalancer: {servers: [{url: 'https://UPSTREAM'}]}", ..Case::new("bad-gateway") },
    Case::middleware("stream-buffered", "wait: {buffering: {maxResponseBodyBytes: 16777216}}").guarded_by(Guard::Key),
    Case::statics("stream-cut", "entryPoints: {websecure: {transport: {respondingTimeouts: {writeTimeout: 3s}}}}").guarded_by(Guard::Key),
];

/// The two files of a Traefik.
struct Configuration {
    dynamic: Value,
    statics: Value,
}

impl Configuration {
    fn new(case: &Case, fill: &dyn Fn(&str) -> String, port: u16) -> Self {
        let parse = |yaml: &str| -> Value { parse_yaml(&fill(yaml)) };
        let middlewares = parse(case.middlewares);
        let names: Vec<&String> = middlewares.as_object().expect("a mapping").keys().collect();
        let router = |rule: String| {
            let mut router = json!({ "rule": rule, "service": "gateway", "tls": {} });
            if !names.is_empty() {
                router["middlewares"] = json!(names);
            }
            router
        };
        let mut http = json!({
            "routers": { "tenant": router(fill(case.rule)) },
            "services": { "gateway": parse(case.service) },
        });
        if case.has_well_known {
            let rule = "Host(`localhost`) && PathPrefix(`/.well-known/`)";
            http["routers"]["well-known"] = router(rule.to_owned());
        }
        if !names.is_empty() {
            http["middlewares"] = middlewares.clone();
        }
        merge(&mut http, parse(case.more));
        let mut statics = json!({
            "global": { "checkNewVersion": false, "sendAnonymousUsage": false },
            "entryPoints": { "websecure": { "address": format!("127.0.0.1:{port}") } },
        });
        merge(&mut statics, parse(case.statics));
        Self { dynamic: json!({ "http": http }), statics }
    }

    /// Does what the printed lines say, with this configuration's names in place of the capitals.
    fn apply(&mut self, lines: &str) {
        let mut yaml = String::new();
        for line in lines.lines().filter(|line| !line.starts_with('#')) {
            match line.strip_prefix("remove ").and_then(|rest| rest.split_once(" from the ")) {
                Some((items, "router's middlewares")) => {
                    items.split(", ").for_each(|item| self.remove_middleware(item));
                }
                Some((item, "static configuration")) => remove(&mut self.statics, item),
                Some((_, place)) => panic!("{place} is no place"),
                None => yaml += &format!("{line}\n"),
            }
        }
        if yaml.is_empty() {
            return;
        }
        let fragment = parse_yaml(&yaml.replace("SERVICE", "gateway").replace("TRANSPORT", "transport"));
        let Value::Object(parts) = fragment else { panic!("no mapping: {yaml}") };
        for (name, part) in parts {
            let whole = if name == "http" { &mut self.dynamic } else { &mut self.statics };
            merge(whole, json!({ name: part }));
        }
    }

    /// Removes the middlewares of a kind, or of those one member: `headers.customRequestHeaders`.
    fn remove_middleware(&mut self, item: &str) {
        let http = self.dynamic["http"].as_object_mut().expect("a mapping");
        let Some(Value::Object(middlewares)) = http.get_mut("middlewares") else { return };
        for body in middlewares.values_mut() {
            remove(body, item);
        }
        middlewares.retain(|_, body| body.as_object().is_some_and(|body| !body.is_empty()));
        let left: Vec<String> = middlewares.keys().cloned().collect();
        if left.is_empty() {
            http.remove("middlewares");
        }
        for router in http["routers"].as_object_mut().expect("a mapping").values_mut() {
            let router = router.as_object_mut().expect("a mapping");
            let Some(Value::Array(names)) = router.get_mut("middlewares") else { continue };
            names.retain(|name| left.iter().any(|left| name == left));
            if names.is_empty() {
                router.remove("middlewares");
            }
        }
    }
}

fn parse_yaml(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}: {yaml}"))
}

/// Puts all of `more` into `whole`; what is no mapping replaces.
fn merge(whole: &mut Value, more: Value) {
    match (whole, more) {
        (Value::Object(whole), Value::Object(more)) => {
            for (name, part) in more {
                merge(whole.entry(name).or_insert_with(|| Value::Object(Map::new())), part);
            }
        }
        (whole, more) => *whole = more,
    }
}

/// Removes what a dotted path names, and the mappings above it that are empty then.
fn remove(whole: &mut Value, path: &str) {
    let Value::Object(members) = whole else { return };
    match path.split_once('.') {
        None => {
            members.remove(path);
        }
        Some((first, rest)) => {
            let Some(part) = members.get_mut(first) else { return };
            remove(part, rest);
            if part.as_object().is_some_and(Map::is_empty) {
                members.remove(first);
            }
        }
    }
}

/// A running Traefik. Dropping it stops it.
struct Traefik {
    folder: TempDir,
    child: Child,
}

impl Traefik {
    async fn start(configuration: &Configuration, certificate: &Path, key: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        let api = free_ports(1)[0];
        let mut dynamic = configuration.dynamic.clone();
        dynamic["tls"] = json!({ "certificates": [{ "certFile": certificate, "keyFile": key }] });
        let mut statics = configuration.statics.clone();
        statics["entryPoints"]["traefik"] = json!({ "address": format!("127.0.0.1:{api}") });
        statics["api"] = json!({ "insecure": true });
        statics["providers"] = json!({ "file": { "filename": at.join("dynamic.yaml"), "watch": false } });
        // JSON is YAML.
        fs::write(at.join("dynamic.yaml"), dynamic.to_string()).expect("written");
        fs::write(at.join("traefik.yaml"), statics.to_string()).expect("written");
        let log = File::create(at.join("log")).expect("made");
        let child = Command::new(cache::program("python-traefik", "traefik"))
            .arg(format!("--configfile={}", at.join("traefik.yaml").display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("traefik starts");
        let mut traefik = Self { folder, child };
        let routers = format!("http://127.0.0.1:{api}/api/http/routers");
        until("traefik has read its routers", async || {
            let ended = traefik.child.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "traefik ended: {}\n{statics}\n{dynamic}", traefik.log());
            let listed = reqwest::get(&routers).await.ok()?.text().await.ok()?;
            listed.contains("tenant@file").then_some(())
        })
        .await;
        traefik
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Traefik {
    fn drop(&mut self) {
        // Both fail only if it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A gateway with a tenant for each case, and the servers that proxies lead to by mistake.
struct Stage {
    gateway: Gateway,
    ports: Vec<u16>,
    folder: TempDir,
    silent: TcpListener,
    pages: FakeBackend,
    _entra: FakeEntra,
    _backend: FakeBackend,
}

impl Stage {
    async fn start() -> Self {
        let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
        let ports = free_ports(CASES.len());
        let mut setup = Setup::new()
            .flag("--tls", "off")
            .flag("--trusted-proxies", "127.0.0.1")
            .flag("--entra-authority", &entra.authority());
        for (number, (case, port)) in CASES.iter().zip(&ports).enumerate() {
            let name = name(number);
            let url = format!("public_url: https://localhost:{port}/{name}");
            let tenant = Tenant::new(&name, &backend).with(&url);
            let tenant = match case.guard {
                Guard::Login => tenant.with(&entra.lines()),
                Guard::Key => tenant.with(&format!("api_keys: [{{label: c, sha256: {}}}]", digest(KEY))),
                Guard::Open => tenant,
            };
            setup = setup.file(&format!("{name}.yaml"), tenant.yaml());
        }
        let gateway = setup.start().await;
        for number in 0..CASES.len() {
            gateway.until_state(&name(number), "serving").await;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        fs::write(folder.path().join("front.pem"), made.cert.pem()).expect("written");
        fs::write(folder.path().join("front.key"), made.signing_key.serialize_pem()).expect("written");
        fs::write(folder.path().join("key"), KEY).expect("written");
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let pages = FakeBackend::start().await;
        (0..CASES.len()).for_each(|number| {
            pages.answer(&format!("/{}/mcp", name(number)), Reply::Html(200));
        });
        Self { gateway, ports, folder, silent, pages, _entra: entra, _backend: backend }
    }

    /// Lets the proxy stand in front, asks the doctor, and does what it says; returns both answers.
    async fn examine(&self, number: usize, case: &Case) -> (Said, Option<Said>) {
        let fill = |yaml: &str| {
            yaml.replace("PREFIX", &format!("/{}", name(number)))
                .replace("UPSTREAM", &self.gateway.address().to_string())
                .replace("SILENT", &self.silent.local_addr().expect("an address").to_string())
                .replace("PAGES", &self.pages.address().to_string())
        };
        let mut configuration = Configuration::new(case, &fill, self.ports[number]);
        let before = self.ask(&configuration, number, case).await;
        let found = before.verdicts().iter().find(|verdict| verdict["code"] == case.fault);
        let changes = found.and_then(|found| found["changes"].as_array().cloned()).unwrap_or_default();
        let Some(change) = changes.iter().find(|change| change["product"] == "Traefik") else {
            return (before, None);
        };
        configuration.apply(change["lines"].as_str().expect("a text"));
        let after = self.ask(&configuration, number, case).await;
        (before, Some(after))
    }

    async fn ask(&self, configuration: &Configuration, number: usize, case: &Case) -> Said {
        let at = |file: &str| self.folder.path().join(file);
        let _traefik = Traefik::start(configuration, &at("front.pem"), &at("front.key")).await;
        let (name, key) = (name(number), at("key").display().to_string());
        let mut arguments = vec![name.as_str(), "--as", case.client];
        if case.guard == Guard::Key {
            arguments.extend(["--key-file", &key]);
        }
        Doctor::beside(&self.gateway, &arguments).trusting(&at("front.pem")).ask().await
    }
}

fn name(number: usize) -> String {
    format!("t{number}")
}

/// The verdicts on the client's requests.
fn on_client(said: &Said) -> Vec<&Value> {
    said.verdicts().iter().filter(|verdict| verdict["examination"] == "client").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn traefik_is_well_again_with_the_lines_that_are_printed_for_it() {
    let stage = Stage::start().await;
    let examined = CASES
        .iter()
        .enumerate()
        .map(async |(number, case)| (number, case, stage.examine(number, case).await));
    let examined: Vec<_> = stream::iter(examined).buffered(AT_ONCE).collect().await;
    let mut wrong = String::new();
    for (number, case, (before, after)) in examined {
        let is_named = before.faults().contains(&case.fault);
        let is_well = after.as_ref().is_some_and(|after| {
            let own = on_client(after);
            own.iter().any(|verdict| verdict["code"] == "sequence-good")
                && own.iter().all(|verdict| verdict["outcome"] != "fault" && verdict["outcome"] != "warning")
        });
        if !is_named || !is_well {
            wrong += &format!(
                "{number}: {} (named {is_named}, well then {is_well})\nbefore: {:#?}\nafter: {:#?}\n",
                case.fault,
                on_client(&before),
                after.as_ref().map(on_client)
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
