//! CPU, latency and throughput of `tools/call`, end to end over TLS: the gateway beside a bare
//! reference server.
//!
//! The reference is a lower bound for the same components: rmcp, hyper, rustls and a pooled client,
//! no checks, no tenants. Ratios to it within one run say more than milliseconds, because a shared
//! machine is never quiet. Both servers, and the search API behind them, are processes of their own
//! (this program starts itself again with a role), so that the CPU time of each can be read; the
//! load comes from this process.
//!
//! ```text
//! cargo bench --bench tools_call                                  # both eras, 32 connections
//! cargo bench --bench tools_call -- --rounds 9 --connections 1,32,256 --delay-ms 20
//! cargo bench --bench tools_call -- --tenants 10000               # rotates over all tenants
//! cargo bench --bench tools_call -- --https                       # also with TLS to the API
//! cargo bench --bench tools_call -- --login                       # also with a login
//! cargo bench --bench tools_call -- --store postgres://…          # also one of three gateways on that database
//! cargo bench --bench tools_call -- --flood                       # one tenant while another is flooded
//! cargo bench --bench tools_call -- --metered                     # also without audit, and with all limits
//! cargo bench --bench tools_call -- --beside ../parent/tenantd    # also another build of the gateway
//! cargo bench --bench tools_call --profile dist                   # as shipped (fat LTO)
//! ```
//!
//! Targets take turns within every round, in reversed order every other round; medians over the
//! rounds are shown. Every answer is checked: a fast error is no throughput.
#![expect(clippy::disallowed_methods, reason = "a bench measures real time and owns its runtimes")]

mod backend;
mod flood;
mod load;
mod login;
mod process;
mod reference;
mod report;
mod statistics;
mod usage;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use rustls::pki_types::CertificateDer;
use tokio_rustls::TlsAcceptor;

use load::{Era, Load};
use process::Server;
use report::{Report, Sample};
use usage::Usage;

/// The gateway's allocator, so that the reference has the same advantage.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The gateway, built by cargo in this bench's own profile.
const GATEWAY: &str = env!("CARGO_BIN_EXE_tenantd");

/// The `X-API-Key` that the search API expects.
const API_KEY: &str = "k3-9f2c61d07b5e4a88";

/// Every limit of calls and bytes there is, so high that no call is refused.
const ALL_LIMITS: &str = "\
limits:
  requests_per_minute: 1000000
  calls_per_minute: 1000000
  calls_per_day: 1000000000
  calls_per_month: 1000000000
  bytes_per_day: 1000GiB
  bytes_per_month: 1000GiB
  per_caller: {concurrent_calls: 4096, calls_per_minute: 1000000, calls_per_day: 1000000000, bytes_per_day: 1000GiB}
  tools:
    search: {concurrent_calls: 4096, calls_per_minute: 1000000, calls_per_day: 1000000000, bytes_per_day: 1000GiB}
";

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// Set by `cargo bench`; without it (`cargo test --all-targets`) nothing is measured.
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Calls per target, era and round.
    #[arg(long, default_value_t = 20_000)]
    calls: usize,
    /// The time limit of a measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    #[arg(long, value_delimiter = ',', default_value = "32")]
    connections: Vec<usize>,
    /// The delay of the search API's answers.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Tenants of the gateway; calls rotate over them. The reference has no tenants.
    #[arg(long, default_value_t = 1)]
    tenants: usize,
    /// Also measures a gateway whose tenant requires a login; its callers send an access token.
    #[arg(long)]
    login: bool,
    /// Also measures a gateway with a login on a file, and one of three on this empty PostgreSQL
    /// database.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Measures one tenant alone, and while another one is flooded up to its limits; nothing else.
    #[arg(long)]
    flood: bool,
    /// Also measures a gateway without an audit, and one with every limit of calls and bytes.
    #[arg(long)]
    metered: bool,
    /// Also measures two gateways whose search API speaks TLS, over HTTP/1.1 and over HTTP/2.
    #[arg(long)]
    https: bool,
    /// Measures the reference alone.
    #[arg(long)]
    reference_only: bool,
    /// Also measures another build of the gateway, such as its parent's; may be repeated.
    #[arg(long, value_name = "BINARY")]
    beside: Vec<PathBuf>,
}

#[derive(Subcommand)]
enum Role {
    /// The search API that both servers call.
    Backend {
        #[arg(long)]
        delay_ms: u64,
        /// Key and chain in one PEM file; enables TLS.
        #[arg(long)]
        identity: Option<PathBuf>,
    },
    /// The bare server; any path is its MCP endpoint.
    Reference {
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Key and chain in one PEM file.
        #[arg(long)]
        identity: PathBuf,
        #[arg(long)]
        search_url: String,
        #[arg(long, default_value = API_KEY)]
        api_key: String,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.role {
        Some(Role::Backend { delay_ms, identity }) => {
            let acceptor = identity.as_deref().map(acceptor).transpose()?;
            backend::serve(Duration::from_millis(*delay_ms), acceptor)
        }
        Some(Role::Reference { listen, identity, search_url, api_key }) => {
            reference::serve(*listen, identity, search_url, api_key)
        }
        None if arguments.bench => measure(&arguments),
        None => {
            println!("nothing is measured without --bench; run `cargo bench --bench tools_call`");
            Ok(())
        }
    }
}

/// A server under load.
struct Target {
    name: String,
    server: Server,
    /// The callers' access token.
    token: Option<String>,
    /// Gateways that only share its database.
    _neighbours: Vec<Server>,
}

impl Target {
    fn new(name: impl Into<String>, server: Server) -> Self {
        Self { name: name.into(), server, token: None, _neighbours: Vec::new() }
    }
}

/// The names of targets that are compared round by round.
const UNAUDITED: &str = "tenantd, no audit";
const LIMITED: &str = "tenantd, all limits";
const LOGIN: &str = "tenantd, login";
const SHARED: &str = "tenantd, login, one of three on PostgreSQL";

fn measure(arguments: &Arguments) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let root = write_identity(&folder.path().join("certs"))?;
    let delay_ms = arguments.delay_ms.to_string();
    let backend = Server::this_program(&["backend", "--delay-ms", &delay_ms])?;
    let identity = folder.path().join("certs/localhost.pem").display().to_string();
    let secure = Server::this_program(&["backend", "--delay-ms", &delay_ms, "--identity", &identity])?;
    if arguments.flood {
        return flood::measure(arguments, folder.path(), backend.address, &root);
    }
    let mut targets = start_targets(arguments, folder.path(), backend.address)?;
    if arguments.https {
        let at = format!("https://localhost:{}", secure.address.port());
        for (name, place, lines) in
            [("tenantd, HTTP/1.1", "http1", ""), ("tenantd, HTTP/2", "http2", "backend: {http2: true}\n")]
        {
            let server =
                start_gateway(GATEWAY.as_ref(), &folder.path().join(place), &at, 1, lines).context(name)?;
            targets.push(Target::new(name, server));
        }
    }
    if arguments.metered {
        let at = format!("http://{}", backend.address);
        let gateway = |place, lines, variables| {
            start_gateway_with(GATEWAY.as_ref(), &folder.path().join(place), &at, 1, lines, variables)
        };
        let unaudited = gateway("unaudited", "", &["TENANTD_AUDIT=off"])?;
        targets.push(Target::new(UNAUDITED, unaudited));
        let limited = gateway("limited", ALL_LIMITS, &[])?;
        targets.push(Target::new(LIMITED, limited));
    }
    if arguments.login || arguments.store.is_some() {
        targets.push(start_login(folder.path(), backend.address, &root).context("the gateway with a login")?);
    }
    if let Some(store) = &arguments.store {
        targets.push(start_shared(folder.path(), backend.address, &root, store).context(SHARED)?);
    }

    let mut report = Report::new(targets.iter().map(|target| target.name.clone()).collect());
    for target in &targets {
        // Opens the connection pools and lets the allocator reach its working size.
        for era in Era::BOTH {
            load::run(&load_on(target, era, 8, 1_000, arguments, &root))?;
        }
    }
    for round in 0..arguments.rounds {
        let mut turn: Vec<&Target> = targets.iter().collect();
        if round % 2 == 1 {
            turn.reverse();
        }
        for &connections in &arguments.connections {
            for era in Era::BOTH {
                for &target in &turn {
                    let load = load_on(target, era, connections, arguments.calls, arguments, &root);
                    report.add(&target.name, era, connections, sample(target, &load)?);
                }
            }
        }
    }
    report.print(arguments.rounds, arguments.delay_ms, arguments.tenants);
    if arguments.metered {
        report.compare(LIMITED, UNAUDITED);
    }
    if arguments.store.is_some() {
        report.compare(SHARED, LOGIN);
    }
    Ok(())
}

fn start_targets(arguments: &Arguments, folder: &Path, backend: SocketAddr) -> Result<Vec<Target>> {
    let identity = folder.join("certs/localhost.pem");
    let search_url = format!("http://{backend}/nlp-search");
    let reference = Server::this_program(&[
        "reference",
        "--identity",
        identity.to_str().context("the temporary folder's name is UTF-8")?,
        "--search-url",
        &search_url,
    ])?;
    let mut targets = vec![Target::new("reference", reference)];
    if !arguments.reference_only {
        let builds = std::iter::once(Path::new(GATEWAY)).chain(arguments.beside.iter().map(PathBuf::as_path));
        for (number, binary) in builds.enumerate() {
            let name = match number {
                0 => "tenantd".to_owned(),
                _ => format!("beside {number}: {}", binary.display()),
            };
            let place = folder.join(format!("plain-{number}"));
            let server = start_gateway(binary, &place, &format!("http://{backend}"), arguments.tenants, "")
                .with_context(|| name.clone())?;
            targets.push(Target::new(name, server));
        }
    }
    Ok(targets)
}

/// Starts a gateway with one tenant that requires a login, and requests a token for it.
fn start_login(folder: &Path, backend: SocketAddr, root: &CertificateDer<'static>) -> Result<Target> {
    let server = start_gateway(
        GATEWAY.as_ref(),
        &folder.join("login"),
        &format!("http://{backend}"),
        1,
        login::LINES,
    )?;
    let token = login::buy(server.address, root)?;
    Ok(Target { token: Some(token), ..Target::new(LOGIN, server) })
}

/// Starts three gateways on one database. The first one is measured.
fn start_shared(
    folder: &Path,
    backend: SocketAddr,
    root: &CertificateDer<'static>,
    store: &str,
) -> Result<Target> {
    let key = folder.join("master.key");
    fs::write(&key, "ab".repeat(32))?;
    process::make_private(&key)?;
    let mut servers = Vec::new();
    for name in ["gateway-1", "gateway-2", "gateway-3"] {
        let variables = [
            format!("TENANTD_STORE={store}"),
            format!("TENANTD_MASTER_KEY_FILE={}", key.display()),
            format!("TENANTD_NODE_NAME={name}"),
        ];
        let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
        let (place, at) = (folder.join(name), format!("http://{backend}"));
        servers.push(start_gateway_with(GATEWAY.as_ref(), &place, &at, 1, login::LINES, &variables)?);
    }
    let server = servers.remove(0);
    let token = login::buy(server.address, root)?;
    Ok(Target { token: Some(token), _neighbours: servers, ..Target::new(SHARED, server) })
}

fn start_gateway(binary: &Path, folder: &Path, backend: &str, count: usize, lines: &str) -> Result<Server> {
    start_gateway_with(binary, folder, backend, count, lines, &[])
}

/// Starts the real binary with real tenants, all its checks, and no flag that a deployment would
/// not have. `variables` are of its environment.
fn start_gateway_with(
    binary: &Path,
    folder: &Path,
    backend: &str,
    count: usize,
    lines: &str,
    variables: &[&str],
) -> Result<Server> {
    let tenants = folder.join("tenants.d");
    let certs = folder.with_file_name("certs").display().to_string();
    fs::create_dir_all(&tenants)?;
    let tenant = format!(
        "search_url: {backend}/nlp-search\n\
         context_url: {backend}/nlp-context\n\
         api_key: {API_KEY}\n\
         connection_id: bench\n{lines}"
    );
    for number in 0..count {
        fs::write(tenants.join(format!("tenant-{number}.yaml")), &tenant)?;
    }
    let ready = folder.join("ready.json");
    let in_folder = |name: &str| folder.join(name).display().to_string();
    // The search API's certificate is the gateway's own, so the gateway must trust it.
    let trusted = format!("SSL_CERT_FILE={certs}/localhost.pem");
    let binary = binary.to_str().context("the gateway's path is UTF-8")?;
    #[rustfmt::skip]
    let arguments = [
        binary, "serve",
        "--tenants", &in_folder("tenants.d"), "--state", &in_folder("state"), "--certs", &certs,
        "--listen", "127.0.0.1:0", "--admin", "off", "--host", "localhost", "--tls", "manual",
        "--backend-allow", "127.0.0.0/8", "--ready-file", &in_folder("ready.json"),
    ];
    let arguments: Vec<&str> = variables.iter().copied().chain([&*trusted]).chain(arguments).collect();
    Server::gateway("env", &arguments, &ready, &folder.join("gateway.log"))
}

fn load_on<'a>(
    target: &'a Target,
    era: Era,
    connections: usize,
    calls: usize,
    arguments: &Arguments,
    root: &'a CertificateDer<'static>,
) -> Load<'a> {
    let patience = Duration::from_secs(arguments.seconds);
    let token = target.token.as_deref();
    let (address, tenants) = (target.server.address, if token.is_some() { 1 } else { arguments.tenants });
    Load { address, tenants, flooded: None, root, token, era, connections, calls, patience }
}

fn sample(target: &Target, load: &Load) -> Result<Sample> {
    target.server.settle()?;
    let before = Usage::read(&target.server)?;
    let outcome = load::run(load).with_context(|| format!("{} ({})", target.name, load.era))?;
    let used = Usage::read(&target.server)?.since(before);
    Ok(Sample::new(outcome, used, target.server.resident_bytes()?))
}

/// Returns an acceptor for TLS with HTTP/2 and HTTP/1.1, for the search API.
fn acceptor(identity: &Path) -> Result<TlsAcceptor> {
    let mut config = reference::tls(identity)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config).into())
}

/// Writes one P-256 certificate for both servers, so that neither has the cheaper handshake.
/// Returns it as the trusted root.
fn write_identity(folder: &Path) -> Result<CertificateDer<'static>> {
    fs::create_dir(folder)?;
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let pem = format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem());
    let file = folder.join("localhost.pem");
    fs::write(&file, pem)?;
    process::make_private(&file)?;
    Ok(made.cert.der().clone())
}
