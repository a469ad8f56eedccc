//! CPU and memory of the public edge compared with NGINX: full handshakes, requests over keep-alive
//! connections, idle connections.
//!
//! Both serve the same bytes over TLS 1.3 with the same P-256 certificate, without resumption: the
//! gateway a tenant's page through its whole edge (front check, routing, metrics), NGINX a static
//! file of that size. They take turns within every round, and CPU time is read from `/proc`, so
//! that ratios hold on a machine that is never quiet. NGINX runs as one process without a master.
//! Debian: `apt-get install nginx-light nghttp2-client`; only this bench needs them.
//!
//! ```text
//! cargo bench --bench edge
//! cargo bench --bench edge -- --rounds 9 --idle 5000
//! ```
#![expect(clippy::disallowed_methods, reason = "a bench measures real time and owns its runtimes")]

mod load;
mod nginx;
#[expect(dead_code, reason = "the other bench also starts itself in other roles")]
#[path = "../tools_call/process.rs"]
mod process;
#[path = "../tools_call/statistics.rs"]
mod statistics;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use rustls::NamedGroup;

use load::{Http, Trust};
use process::Server;

/// The gateway, built by cargo in this bench's own profile.
const GATEWAY: &str = env!("CARGO_BIN_EXE_tenantd");

#[derive(Parser)]
struct Arguments {
    /// Set by `cargo bench`; without it (`cargo test --all-targets`) nothing is measured.
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Handshakes per server and round.
    #[arg(long, default_value_t = 3_000)]
    handshakes: usize,
    /// Requests per server, protocol and round.
    #[arg(long, default_value_t = 50_000)]
    requests: usize,
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Idle connections for the memory measurement.
    #[arg(long, default_value_t = 2_000)]
    idle: usize,
}

/// A server, and the path of the page on it.
struct Target {
    name: &'static str,
    server: Server,
    path: &'static str,
}

/// The measured operations; [`FIGURES`] has the highest accepted cost of each relative to NGINX.
#[derive(Clone, Copy)]
enum Figure {
    Handshake(NamedGroup),
    Request(Http),
}

const FIGURES: [(&str, Figure, f64); 4] = [
    ("full handshake, X25519", Figure::Handshake(NamedGroup::X25519), 0.6),
    ("full handshake, X25519MLKEM768 where spoken", Figure::Handshake(NamedGroup::X25519MLKEM768), 0.6),
    ("HTTP/1.1 request, kept connection", Figure::Request(Http::One), 1.5),
    ("HTTP/2 request", Figure::Request(Http::Two), 1.2),
];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if !arguments.bench {
        println!("nothing is measured without --bench; run `cargo bench --bench edge`");
        return Ok(());
    }
    measure(&arguments)
}

fn measure(arguments: &Arguments) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let certificate = write_identity(folder.path())?;
    let gateway = start_gateway(folder.path(), arguments.idle).context("the gateway")?;
    let trust = Trust::new(certificate)?;
    let page = load::page(&trust, gateway.address, "/acme/")?;
    let nginx = nginx::start(folder.path(), &page)?;
    let targets = [
        Target { name: "nginx", server: nginx, path: "/page.html" },
        Target { name: "tenantd", server: gateway, path: "/acme/" },
    ];
    println!(
        "page of {} bytes; {} rounds in turns; load {}",
        page.len(),
        arguments.rounds,
        statistics::load_average()
    );
    measure_memory(arguments, &trust, &targets)?;
    measure_cpu(arguments, &trust, &targets)?;
    println!("load at the end {}", statistics::load_average());
    Ok(())
}

fn measure_memory(arguments: &Arguments, trust: &Trust, targets: &[Target]) -> Result<()> {
    println!(
        "\n| {} idle TLS connections after a request | target | KiB each |\n|---|---|---|",
        arguments.idle
    );
    for http in [Http::One, Http::Two] {
        for target in targets {
            // One-time allocations of the first connections do not count.
            drop(load::idle(trust, target.server.address, target.path, http, 100)?);
            target.server.settle()?;
            let before = target.server.resident_bytes()?;
            let held = load::idle(trust, target.server.address, target.path, http, arguments.idle)?;
            // A server may release a connection's buffers only after it has been idle for a while.
            std::thread::sleep(Duration::from_secs(4));
            target.server.settle()?;
            let grown = target.server.resident_bytes()?.saturating_sub(before);
            println!("| {http} | {} | {:.1} |", target.name, grown as f64 / 1024.0 / arguments.idle as f64);
            drop(held);
        }
    }
    Ok(())
}

fn measure_cpu(arguments: &Arguments, trust: &Trust, targets: &[Target]) -> Result<()> {
    let mut costs = vec![vec![Vec::new(); targets.len()]; FIGURES.len()];
    for round in 0..=arguments.rounds {
        for (figure, (_, what, _)) in FIGURES.iter().enumerate() {
            let mut turn: Vec<usize> = (0..targets.len()).collect();
            if round % 2 == 1 {
                turn.reverse();
            }
            for target in turn {
                let cost = cost(arguments, trust, &targets[target], *what)?;
                // The first round warms caches and pools.
                if round > 0 {
                    costs[figure][target].push(cost);
                }
            }
        }
    }
    print(targets, &costs);
    Ok(())
}

/// Returns the server's CPU time per operation in microseconds.
fn cost(arguments: &Arguments, trust: &Trust, target: &Target, figure: Figure) -> Result<f64> {
    target.server.settle()?;
    let before = target.server.cpu()?;
    let operations = match figure {
        Figure::Handshake(group) => {
            load::handshakes(trust, target.server.address, group, arguments.handshakes)?;
            arguments.handshakes
        }
        Figure::Request(http) => {
            load::requests(
                target.server.address,
                target.path,
                http,
                arguments.requests,
                arguments.connections,
            )
            .with_context(|| format!("{} ({http})", target.name))?;
            arguments.requests
        }
    };
    // Work after the last response belongs to this measurement.
    std::thread::sleep(Duration::from_millis(50));
    Ok((target.server.cpu()? - before).as_secs_f64() * 1e6 / operations as f64)
}

fn print(targets: &[Target], costs: &[Vec<Vec<f64>>]) {
    println!("\n| | target | CPU us each | spread | x nginx | at most |\n|---|---|---|---|---|---|");
    for ((name, _, most), costs) in FIGURES.iter().zip(costs) {
        for (target, own) in targets.iter().zip(costs) {
            let median = statistics::median(own.iter().copied());
            let ratio = median / statistics::median(costs[0].iter().copied());
            let (least, worst) =
                (own.iter().copied().fold(f64::INFINITY, f64::min), own.iter().copied().fold(0.0, f64::max));
            println!(
                "| {name} | {} | {median:.1} | {least:.0}-{worst:.0} | {ratio:.2} | {most} |",
                target.name
            );
        }
    }
}

/// Starts the real binary with one open tenant; a page needs no backend.
fn start_gateway(folder: &Path, idle: usize) -> Result<Server> {
    fs::create_dir(folder.join("tenants.d"))?;
    let tenant = "search_url: http://127.0.0.1:9/nlp-search\ncontext_url: http://127.0.0.1:9/nlp-context\n\
                  api_key: k3-9f2c61d07b5e4a88\nconnection_id: bench\n";
    fs::write(folder.join("tenants.d/acme.yaml"), tenant)?;
    // All connections come from one address.
    fs::write(
        folder.join("tenantd.yaml"),
        format!("limits:\n  connections_per_ip: {}\n  idle_seconds: 600\n", idle * 2 + 1_000),
    )?;
    let in_folder = |name: &str| folder.join(name).display().to_string();
    #[rustfmt::skip]
    let arguments = [
        "serve", "--config", &in_folder("tenantd.yaml"),
        "--tenants", &in_folder("tenants.d"), "--state", &in_folder("state"), "--certs", &in_folder("certs"),
        "--listen", "127.0.0.1:0", "--admin", "off", "--host", "localhost", "--tls", "manual",
        "--backend-allow", "127.0.0.0/8", "--ready-file", &in_folder("ready.json"),
    ];
    Server::gateway(GATEWAY, &arguments, &folder.join("ready.json"), &folder.join("gateway.log"))
}

/// Writes one P-256 certificate for both servers, so that neither has the cheaper handshake.
/// Returns it as the trusted root.
fn write_identity(folder: &Path) -> Result<rustls::pki_types::CertificateDer<'static>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let file = folder.join("certs/localhost.pem");
    fs::create_dir(folder.join("certs"))?;
    fs::write(&file, format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem()))?;
    process::make_private(&file)?;
    Ok(made.cert.der().clone())
}
