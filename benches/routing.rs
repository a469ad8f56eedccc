//! Route lookup among 10,000 tenants, which every request pays first.
//!
//! ```text
//! cargo bench --bench routing
//! ```

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tenantd::routing::{DiscoveryDocument, Endpoint, Router, check_path};
use tenantd::spec::{HostName, Mount, Prefix, ResourceSpelling};

const TENANTS: usize = 10_000;
const HOST: &str = "mcp.example.com";

criterion_group!(benches, lookup, path_check);
criterion_main!(benches);

fn lookup(criterion: &mut Criterion) {
    let router = router();
    let cases = [
        ("hit_depth_1", HOST, "/tenant-5000/mcp", Some(Endpoint::Mcp)),
        ("hit_depth_3", HOST, "/emea/sales/tenant-5001/mcp", Some(Endpoint::Mcp)),
        ("hit_own_host", "mcp.tenant-5002.example", "/mcp", Some(Endpoint::Mcp)),
        ("miss", HOST, "/tenant-999999/mcp", None),
        ("miss_by_a_suffix", HOST, "/tenant-5000x/mcp", None),
        (
            "discovery",
            HOST,
            "/.well-known/oauth-protected-resource/tenant-5000/mcp",
            Some(Endpoint::Discovery(DiscoveryDocument::Resource(ResourceSpelling::Connector))),
        ),
    ];
    let mut group = criterion.benchmark_group("route among 10,000 tenants");
    for (name, host, path, expected) in cases {
        let found = router.main().find(host, path).map(|(_, endpoint)| endpoint);
        assert_eq!(found, expected, "{path}");
        group.bench_function(name, |bencher| {
            bencher.iter(|| router.main().find(black_box(host), black_box(path)));
        });
    }
    group.finish();
}

fn path_check(criterion: &mut Criterion) {
    let path = "/emea/sales/tenant-5001/mcp";
    assert_eq!(check_path(path), Ok(()));
    criterion.bench_function("check a path for tricks", |bencher| {
        bencher.iter(|| check_path(black_box(path)));
    });
}

/// Builds a table with a third of the tenants at depth one, a third at depth three, and a third at
/// the root of a host of their own.
fn router() -> Router<usize> {
    let mut router = Router::new();
    for tenant in 0..TENANTS {
        let (host, prefix) = match tenant % 3 {
            2 => (None, format!("/tenant-{tenant}")),
            0 => (None, format!("/emea/sales/tenant-{tenant}")),
            _ => (Some(format!("mcp.tenant-{tenant}.example")), "/".to_owned()),
        };
        let mount = Mount {
            listener: None,
            host: host.map(|host| HostName::parse(&host).expect("a host name")),
            prefix: Prefix::parse(&prefix).expect("a prefix"),
        };
        router.insert(&mount, tenant);
    }
    router
}
