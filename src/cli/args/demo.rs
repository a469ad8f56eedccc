//! The arguments of `tenantd demo`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueHint};

pub(super) const EXAMPLES: &str = "\
Examples:
  tenantd demo
  tenantd demo --port 9443 --dir ~/tenantd-demo";

/// The arguments of `tenantd demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The port to serve on, on this machine only.
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    pub port: u16,
    /// The folder for everything the demo writes [default: tenantd-demo in the system's temporary
    /// folder].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
    /// The admin address; the system chooses a port for 0.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub admin: SocketAddr,
}
