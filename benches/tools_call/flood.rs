//! One tenant's latency alone, and while another tenant is flooded up to its limits.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use rustls::pki_types::CertificateDer;

use crate::load::{self, Era, Load};
use crate::{API_KEY, Arguments, GATEWAY, start_gateway};

/// The limits of the flooded tenant: fewer calls than its callers make.
const LIMITS: &str = "limits: {concurrent_calls: 16, calls_per_minute: 6000}";
/// The connections that flood, and those that are measured.
const FLOOD_CONNECTIONS: usize = 32;
const CONNECTIONS: usize = 4;

/// Prints the percentiles of each round, and the medians of the ratios.
pub(crate) fn measure(
    arguments: &Arguments,
    folder: &Path,
    backend: SocketAddr,
    root: &CertificateDer<'static>,
) -> Result<()> {
    let place = folder.join("flood");
    fs::create_dir_all(place.join("tenants.d"))?;
    let at = format!("http://{backend}");
    let flooded = format!(
        "search_url: {at}/nlp-search\ncontext_url: {at}/nlp-context\napi_key: {API_KEY}\nconnection_id: bench\n{LIMITS}\n"
    );
    fs::write(place.join("tenants.d/flooded.yaml"), flooded)?;
    let server = start_gateway(GATEWAY.as_ref(), &place, &at, 1, "")?;
    let quiet = |patience, connections, flooded| Load {
        address: server.address,
        tenants: 1,
        flooded,
        root,
        token: None,
        era: Era::Modern,
        connections,
        calls: if flooded.is_some() { 1_000_000 } else { arguments.calls },
        patience,
    };
    let patience = Duration::from_secs(arguments.seconds);
    let mut ratios = Vec::new();
    for round in 1..=arguments.rounds {
        let alone = load::run(&quiet(patience, CONNECTIONS, None))?;
        let (beside, flood) = std::thread::scope(|scope| {
            let flood = quiet(alone.elapsed, FLOOD_CONNECTIONS, Some("/flooded/mcp"));
            let flooding = scope.spawn(move || load::run(&flood));
            let beside = load::run(&quiet(alone.elapsed, CONNECTIONS, None));
            (beside, flooding.join().expect("the flood does not panic"))
        });
        let (beside, flood) = (beside?, flood?);
        let p99 = |outcome: &load::Outcome| outcome.latencies[outcome.latencies.len() * 99 / 100];
        let p50 = |outcome: &load::Outcome| outcome.latencies[outcome.latencies.len() / 2];
        ratios.push(p99(&beside).as_secs_f64() / p99(&alone).as_secs_f64());
        println!(
            "round {round}: alone p50 {:?} p99 {:?}; beside {} answers/s of the flood p50 {:?} p99 {:?}",
            p50(&alone),
            p99(&alone),
            (flood.latencies.len() as f64 / flood.elapsed.as_secs_f64()) as u64,
            p50(&beside),
            p99(&beside),
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!("p99 beside a flood: {:.2} times that alone (median)", ratios[ratios.len() / 2]);
    Ok(())
}
