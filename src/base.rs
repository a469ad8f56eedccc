//! Floor 0: what every other floor stands on. Clock, randomness, secrets, findings, error chains,
//! tasks, locks, sockets, inherited or not, accept loops, handovers between processes, files,
//! authorities, headers, bodies, budgets, lingering, JSON, DNS, networks and shells.

pub mod accept;
pub mod authority;
pub mod backoff;
pub mod body;
pub mod budget;
pub mod clock;
pub mod descriptor_channel;
pub mod diagnostic;
pub mod digest;
pub mod disk;
pub mod dns;
pub mod error_chain;
pub mod evicting_limiter;
pub mod filesystem;
pub mod handover;
pub mod headers;
pub mod heartbeat;
pub mod hex;
pub mod host_name;
pub mod http_client;
pub mod inherited_sockets;
pub mod interner;
pub mod json;
pub mod linger;
pub mod live_nodes;
pub mod log_limiter;
pub mod net;
pub mod panic;
pub mod permission;
pub mod process_lock;
pub mod process_resolver;
pub mod random;
pub mod secret;
pub mod shell;
pub mod similarity;
pub mod sockets;
pub mod sync;
pub mod task;
pub mod text;
pub mod tls_client;
pub mod webhook_signature;
