//! How the gateway scales with the number of tenants: the real binary on scratch folders with one,
//! a thousand and ten thousand tenants, and a small search API on loopback.
//!
//! For each number it measures: cold start to ready, memory after the start and after a call to
//! each tenant, time from renaming a file into place to its first good answer, CPU to add one
//! tenant, CPU and size of a view of the console's overview and of a scrape, and CPU per call. CPU per call is measured in turns with a gateway of one tenant that
//! runs at the same time, so that both see the same machine. Every answer is checked.
#![expect(clippy::disallowed_methods, reason = "a bench measures real time and owns its runtimes")]

mod arrival;
#[path = "../tools_call/backend.rs"]
mod backend;
mod console;
#[path = "../tools_call/load.rs"]
mod load;
mod logins;
#[path = "../tools_call/process.rs"]
mod process;
mod report;
mod site;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

use load::{Era, Load};
use process::Server;
use report::{Row, microseconds, percentile};
use site::{Identity, Site};

/// The gateway's allocator, so that the load's own cost is comparable.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The `X-API-Key` that the search API expects.
const API_KEY: &str = "k3-9f2c61d07b5e4a88";

/// The number of connections for calls.
const CONNECTIONS: usize = 32;
/// The time limit of a round of calls.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// Set by `cargo bench`; without it (`cargo test --all-targets`) nothing is measured.
    #[arg(long, hide = true)]
    bench: bool,
    /// Numbers of tenants in the folder at the start of the gateway.
    #[arg(long, value_delimiter = ',', default_value = "1,1000,10000")]
    tenants: Vec<usize>,
    /// Tenants added one by one while it serves.
    #[arg(long, default_value_t = 40)]
    adds: usize,
    /// Calls per era, gateway and round.
    #[arg(long, default_value_t = 20_000)]
    calls: usize,
    /// Measures only the console's views, with so many logins.
    #[arg(long)]
    logins: Option<usize>,
    /// Rounds of calls; medians are shown.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

#[derive(Subcommand)]
enum Role {
    /// The search API that all tenants call.
    Backend {
        #[arg(long, default_value_t = 0)]
        delay_ms: u64,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.role {
        Some(Role::Backend { delay_ms }) => backend::serve(Duration::from_millis(delay_ms), None),
        None if arguments.bench => measure(&arguments),
        None => {
            println!("nothing is measured without --bench; run `cargo bench --bench scale`");
            Ok(())
        }
    }
}

fn measure(arguments: &Arguments) -> Result<()> {
    let identity = Identity::make()?;
    let backend = Server::this_program(&["backend"])?;
    if let Some(logins) = arguments.logins {
        return measure_views(arguments, logins, backend.address, &identity);
    }
    let alone = Site::start(1, backend.address, &identity)?;
    report::print_head();
    for &count in &arguments.tenants {
        let row = measure_one(arguments, count, backend.address, &identity, &alone)
            .with_context(|| format!("with {count} tenants"))?;
        row.print();
    }
    report::print_foot();
    Ok(())
}

/// Prints the cost of the console's views of gateways whose tenants require logins.
fn measure_views(
    arguments: &Arguments,
    logins: usize,
    backend: SocketAddr,
    identity: &Identity,
) -> Result<()> {
    for &count in &arguments.tenants {
        let site = Site::start_with(count, backend, identity, logins::LINES)?;
        let site = site.restart_after(identity, |state| logins::add(state, logins))?;
        let (overview, search) = console::cost_of_views(&site)?;
        println!(
            "{count} tenants, {logins} logins: overview {:.2} ms CPU, {:.1} KB; search {:.2} ms CPU",
            overview.cpu_ms,
            overview.bytes as f64 / 1e3,
            search.cpu_ms
        );
    }
    report::print_foot();
    Ok(())
}

fn measure_one(
    arguments: &Arguments,
    count: usize,
    backend: SocketAddr,
    identity: &Identity,
    alone: &Site,
) -> Result<Row> {
    let site = Site::start(count, backend, identity)?;
    let started_bytes = site.server.resident_bytes()?;
    let cold_cpu = site.server.cpu()?;
    site.server.settle()?;
    let warm_bytes = site.server.resident_bytes()?;
    load::run(&calls_on(&site, count, Era::Modern, count, identity))?;
    let served_bytes = site.server.resident_bytes()?;
    let (overview, search) = console::cost_of_views(&site)?;
    let scrape = console::cost_of_scrape(&site)?;
    let calls = calls_in_turns(arguments, &site, count, identity, alone)?;
    let arrivals = arrival::first_answers(&site, arguments.adds, identity)?;
    let add_cpu = arrival::cpu_to_add_one(&site, arguments.adds)?;
    Ok(Row {
        tenants: count,
        cold_start: site.cold_start,
        cold_cpu,
        started_bytes,
        warm_bytes,
        served_bytes,
        arrival_p50: percentile(&arrivals, 50),
        arrival_p95: percentile(&arrivals, 95),
        add_cpu,
        overview,
        search,
        scrape,
        call_us: calls.0,
        call_us_alone: calls.1,
    })
}

/// Returns the CPU per call of this gateway and of the gateway with one tenant: medians over rounds
/// taken in turns.
fn calls_in_turns(
    arguments: &Arguments,
    site: &Site,
    count: usize,
    identity: &Identity,
    alone: &Site,
) -> Result<(f64, f64)> {
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for round in 0..arguments.rounds {
        let mut turn = [(site, count, &mut here), (alone, 1, &mut there)];
        if round % 2 == 1 {
            turn.reverse();
        }
        for (site, tenants, costs) in turn {
            for era in Era::BOTH {
                site.server.settle()?;
                let before = site.server.cpu()?;
                let outcome = load::run(&calls_on(site, tenants, era, arguments.calls, identity))?;
                ensure!(outcome.elapsed < PATIENCE, "only {} calls in time", outcome.latencies.len());
                costs.push(microseconds(site.server.cpu()? - before) / outcome.latencies.len() as f64);
            }
        }
    }
    Ok((report::median(here), report::median(there)))
}

fn calls_on<'a>(site: &Site, tenants: usize, era: Era, calls: usize, identity: &'a Identity) -> Load<'a> {
    Load {
        address: site.server.address,
        tenants,
        flooded: None,
        root: &identity.certificate,
        token: None,
        era,
        connections: CONNECTIONS.min(calls),
        calls,
        patience: PATIENCE,
    }
}
