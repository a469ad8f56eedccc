//! The SDKs log in behind the proxies that the vendor's customers have, with the rules that the
//! vendor prints: an NGINX Ingress, Traefik's IngressRoute, and the path table of an Application
//! Gateway.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::cache;
use super::entra::Entra;
use super::library::{LIBRARIES, Library};
use super::script::Script;
use crate::harness::backend::rows;
use crate::harness::login::Browser;
use crate::harness::{Client, Era, FakeBackend, Gateway, Setup, Tenant, until};

/// One client of each SDK.
const CLIENTS: [&str; 4] = ["ts-v1", "ts-v2-auto", "python-v1", "python-v2"];
/// The tenant behind each proxy: its name, and the product whose rules lead there.
const TENANTS: [(&str, Product); 3] = [
    ("tenant-n", Product::Ingress),
    ("tenant-t", Product::Traefik),
    ("tenant-g", Product::ApplicationGateway),
];
/// A caller that is no proxy.
const CALLER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Product {
    Ingress,
    Traefik,
    ApplicationGateway,
}

/// Ports of loopback that are free now: the proxies do not report one that the kernel chose.
fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|listener| listener.local_addr().expect("an address").port())
}

/// Where the proxies listen, and what they lead to.
#[derive(Debug, Clone, Copy)]
struct Ports {
    ingress: u16,
    traefik: u16,
    application_gateway: u16,
    /// Traefik's, for TCP with a PROXY protocol header.
    tcp: u16,
}

impl Ports {
    fn of(&self, product: Product) -> u16 {
        match product {
            Product::Ingress => self.ingress,
            Product::Traefik => self.traefik,
            Product::ApplicationGateway => self.application_gateway,
        }
    }
}

/// NGINX and Traefik in front of one gateway. Dropping it stops them.
struct Proxies {
    folder: TempDir,
    ports: Ports,
    children: Vec<Child>,
}

impl Proxies {
    async fn start(ports: Ports, http: SocketAddr, relayed: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        fs::write(at.join("front.pem"), made.cert.pem()).expect("written");
        fs::write(at.join("front.key"), made.signing_key.serialize_pem()).expect("written");
        fs::write(at.join("nginx.conf"), nginx(at, ports, http)).expect("written");
        fs::write(at.join("routes.yaml"), traefik_routes(at, http, relayed)).expect("written");
        fs::write(at.join("traefik.yaml"), traefik(at, ports)).expect("written");
        let mut commands = [Command::new("nginx"), Command::new(cache::program("python-traefik", "traefik"))];
        commands[0].arg("-c").arg(at.join("nginx.conf"));
        commands[1].arg(format!("--configfile={}", at.join("traefik.yaml").display()));
        let children = commands.into_iter().map(|mut command| {
            let log = File::options().append(true).create(true).open(at.join("proxies.log")).expect("made");
            command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
            command.spawn().expect("nginx (Debian: nginx-light) and traefik are installed")
        });
        let proxies = Self { children: children.collect(), ports, folder };
        for port in [ports.ingress, ports.traefik, ports.application_gateway, ports.tcp] {
            until("a proxy listens", async || TcpStream::connect(("127.0.0.1", port)).await.ok().map(drop))
                .await;
        }
        proxies
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("front.pem")
    }

    fn base(&self, product: Product) -> String {
        format!("https://localhost:{}", self.ports.of(product))
    }

    /// A client of the gateway that goes through a proxy.
    fn client(&self, product: Product) -> Client {
        let address = SocketAddr::from(([127, 0, 0, 1], self.ports.of(product)));
        Client::new(&self.base(product), address, Some(&self.certificate()))
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Both fail only if it has already ended.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("proxies.log")).unwrap_or_default();
            eprintln!("the proxies' output:\n{log}");
        }
    }
}

/// What ingress-nginx makes of the printed Ingress (`pathType: Prefix`), and the table of an
/// Application Gateway with its exact paths.
fn nginx(at: &Path, ports: Ports, http: SocketAddr) -> String {
    let Ports { ingress, application_gateway, .. } = ports;
    let at = at.display();
    let ingress_headers = "proxy_set_header Host $http_host; proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Scheme $scheme;";
    let gateway_headers = "proxy_set_header Host $http_host; proxy_set_header X-Original-Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr:$remote_port; proxy_set_header X-Forwarded-Proto $scheme;";
    let pass = |headers: &str| {
        format!(
            "{{ proxy_pass http://{http}; proxy_http_version 1.1; proxy_set_header Connection \"\";
      {headers} proxy_read_timeout 3600s; proxy_send_timeout 3600s; }}"
        )
    };
    let (by_ingress, by_gateway) = (pass(ingress_headers), pass(gateway_headers));
    let prefix = |path: &str| format!("location {path}/ {by_ingress} location = {path} {by_ingress}\n");
    let exact = |path: &str| format!("location = {path} {by_gateway}\n");
    let rules = [prefix("/tenant-n"), prefix("/.well-known/oauth-authorization-server/tenant-n")].concat();
    let table = [
        format!("location /tenant-g/ {by_gateway}\n"),
        exact("/.well-known/oauth-authorization-server/tenant-g"),
        exact("/.well-known/openid-configuration/tenant-g"),
        exact("/.well-known/oauth-protected-resource/tenant-g"),
    ]
    .concat();
    let server = |port: u16, rules: &str| {
        format!(
            "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {at}/front.pem; ssl_certificate_key {at}/front.key;
    location / {{ return 404 \"default backend - 404\"; }}
    {rules} }}"
        )
    };
    format!(
        "daemon off; master_process off; pid {at}/nginx.pid; error_log stderr info;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;
  uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
  {}
  {}
}}
",
        server(ingress, &rules),
        server(application_gateway, &table)
    )
}

fn traefik(at: &Path, ports: Ports) -> String {
    let Ports { traefik, tcp, .. } = ports;
    format!(
        "global: {{checkNewVersion: false, sendAnonymousUsage: false}}
entryPoints:
  websecure: {{address: \"127.0.0.1:{traefik}\"}}
  tcp: {{address: \"127.0.0.1:{tcp}\"}}
providers: {{file: {{filename: {}/routes.yaml, watch: false}}}}
",
        at.display()
    )
}

/// The printed IngressRoute's rules; and TCP with a PROXY protocol header.
fn traefik_routes(at: &Path, http: SocketAddr, relayed: SocketAddr) -> String {
    let at = at.display();
    format!(
        "http:
  routers:
    tenant:
      rule: \"Host(`localhost`) && PathPrefix(`/tenant-t`)\"
      entryPoints: [websecure]
      service: gateway
      tls: {{}}
    metadata:
      rule: \"Host(`localhost`) && PathPrefix(`/.well-known/oauth-authorization-server/tenant-t`)\"
      entryPoints: [websecure]
      service: gateway
      tls: {{}}
  services:
    gateway: {{loadBalancer: {{servers: [{{url: \"http://{http}\"}}]}}}}
tcp:
  routers:
    all: {{rule: \"HostSNI(`*`)\", entryPoints: [tcp], service: gateway}}
  services:
    gateway:
      loadBalancer:
        proxyProtocol: {{version: 2}}
        servers: [{{address: \"{relayed}\"}}]
tls:
  certificates: [{{certFile: {at}/front.pem, keyFile: {at}/front.key}}]
"
    )
}

/// A gateway behind all proxies, with a tenant for each.
struct Stage {
    entra: Mutex<Entra>,
    proxies: Proxies,
    gateway: Gateway,
    _backend: FakeBackend,
}

impl Stage {
    async fn start() -> Self {
        let (mut entra, backend) = (Entra::start().await, FakeBackend::start().await);
        let [ingress, traefik, application_gateway, tcp] = free_ports();
        let ports = Ports { ingress, traefik, application_gateway, tcp };
        let mut setup = Setup::new()
            .flag("--listen", "127.0.0.1:0 proxy_protocol")
            .flag("--tls", "off")
            .flag("--trusted-proxies", "127.0.0.1")
            .flag("--entra-authority", entra.authority())
            .variable("TENANTD_LOG_FILTER", "info,tenantd::server=debug")
            .file("open.yaml", Tenant::new("open", &backend).yaml());
        for (name, product) in TENANTS {
            let url = format!("public_url: https://localhost:{}/{name}", ports.of(product));
            let tenant = Tenant::new(name, &backend).with(&Entra::lines()).with(&url);
            setup = setup.file(&format!("{name}.yaml"), tenant.yaml());
        }
        let gateway = setup.start().await;
        let mut uris = Vec::new();
        for (name, _) in TENANTS {
            let status = gateway.until_state(name, "serving").await;
            uris.push(status["redirect_uri"].as_str().expect("what to register").to_owned());
        }
        entra.register(&uris).await;
        let [http, relayed] = gateway.addresses()[..] else { panic!("two listeners") };
        let proxies = Proxies::start(ports, http, relayed).await;
        Self { entra: Mutex::new(entra), proxies, gateway, _backend: backend }
    }

    /// Connects a client that logs in, and has it search.
    async fn use_client(&self, library: &Library, name: &str, product: Product) {
        let context = format!("{} behind {product:?}", library.name);
        let mut script = Script::start(library, &self.proxies.certificate(), None);
        let mut order = library.connect(&format!("{}/{name}/mcp", self.proxies.base(product)));
        order["login"] = true.into();
        let asked = script.ask(order).await;
        let authorize = asked["authorize"].as_str().unwrap_or_else(|| panic!("{context}: no login: {asked}"));
        let mut browser = Browser::with(self.proxies.client(product));
        let way = browser.consent(authorize).await;
        let callback = self.entra.lock().await.visit(&way).await;
        let back = browser.come_back(&callback).await;
        script.tell(json!({ "callback": back.as_str() })).await;
        let answer = script.answer().await;
        assert_eq!(answer["version"], json!(library.agrees_on), "{context}: {answer}");
        let answer = script.search("q").await;
        assert_eq!(answer["data"]["data"], rows(), "{context}: {answer}");
    }
}

#[tokio::test]
async fn every_sdk_logs_in_behind_the_printed_rules() {
    let stage = Stage::start().await;
    let clients: Vec<Library> = LIBRARIES.into_iter().filter(|it| CLIENTS.contains(&it.name)).collect();
    assert_eq!(clients.len(), CLIENTS.len());
    for (name, product) in TENANTS {
        join_all(clients.iter().map(|library| stage.use_client(library, name, product))).await;
    }
    every_proxy_names_its_caller(&stage).await;
}

/// Each product says in its own way who called.
async fn every_proxy_names_its_caller(stage: &Stage) {
    let from_caller = |base: &str, port: u16| {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Client::built(base, address, Some(&stage.proxies.certificate()), |builder| {
            builder.local_address(IpAddr::V4(CALLER))
        })
    };
    for (name, product) in TENANTS {
        let client = from_caller(&stage.proxies.base(product), stage.proxies.ports.of(product));
        let page = client.get(&format!("/{name}/")).await;
        assert_eq!(page.status, 200, "{product:?}: {page:?}");
        let output = stage.gateway.output();
        let named = |line: &&str| line.contains(r#""client.addr":"127.0.0.9""#) && line.contains(name);
        assert!(output.lines().any(|line| named(&line)), "{product:?} does not name its caller");
        let elsewhere = client.get("/open/").await;
        assert_eq!(elsewhere.status, 404, "{product:?} forwards what its rules name");
    }
    let port = stage.proxies.ports.tcp;
    let client = from_caller(&format!("http://localhost:{port}"), port);
    let answer = client.search(Era::Modern, "/open", "q").await;
    assert_eq!(answer.data(), rows(), "{answer:?}");
    let audit = stage.gateway.path().join("state/audit.jsonl");
    until("the audit names who called Traefik", async || {
        let text = fs::read_to_string(&audit).unwrap_or_default();
        let named =
            |line: &str| line.contains(r#""tenant":"open""#) && line.contains(r#""client_addr":"127.0.0.9""#);
        text.lines().any(named).then_some(())
    })
    .await;
}
