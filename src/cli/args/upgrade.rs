//! The arguments of `tenantd upgrade`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

pub(super) const EXAMPLES: &str = "\
The new program gets the arguments and the environment of the running one, checks settings, certificates and the
store's schema, takes the listeners over, reads the tenants and serves. The running one then finishes its calls and
ends. If the new one fails at anything, the running one goes on, and this command says why.

Examples:
  tenantd upgrade
      Go over to the file that the gateway was started from, after a package has replaced it.
  tenantd upgrade --binary /opt/tenantd-0.2/tenantd --state /var/lib/tenantd
      Go over to another file.";

/// The arguments of `tenantd upgrade`.
#[derive(Debug, Args)]
pub struct UpgradeArgs {
    /// The program to start [default: the file that the running gateway was started from].
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
    pub binary: Option<PathBuf>,
    /// The state folder of the running gateway [default: state].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state: Option<PathBuf>,
    /// The gateway's configuration file, to read the state folder from.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}
