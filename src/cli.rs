//! Floor 7: the command line, one file per command. Commands print and ask; decisions are made
//! below.
//!
//! A command returns an [`Exit`], which `main` maps to the process's exit code. Requested output
//! goes to standard output, everything else to standard error.

mod admin_access;
mod admin_client;
mod admin_request;
mod admin_token;
mod apikey;
pub mod args;
mod audit;
mod certs;
pub mod check;
mod clients;
mod completions;
mod configuration;
mod container;
mod demo;
mod doctor;
mod entries;
mod healthcheck;
mod keys;
mod logins;
mod man;
mod migrate;
mod nodes;
mod notify;
mod output;
mod port_holder;
pub mod render;
mod run;
mod serve;
mod slim;
mod store;
mod support_bundle;
mod tenants;
mod upgrade;
mod usage;

pub use output::print_fatal;

use std::time::Duration;

use args::{Arguments, CheckArgs, ServeArgs, Verb};

use crate::base::diagnostic::Diagnostic;
use crate::settings::Flags;
use crate::tenants::TenantsSource;

/// The result of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Fine,
    /// The command ran and found something wrong.
    Findings,
    /// The command could not run.
    CouldNotRun,
}

/// Runs a command.
///
/// # Errors
/// The reason why it could not run, in words for people.
pub fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    match arguments.verb {
        Verb::Serve(args) => run_gateway(&args),
        Verb::Run(args) => run::run(&args),
        Verb::Container => container::run(),
        Verb::Check(args) => run_check(&args),
        Verb::Migrate(args) => migrate::run(&args),
        Verb::Slim(args) => slim::run(&args),
        Verb::Tenants(args) => tenants::run(&args),
        Verb::Nodes(args) => nodes::run(&args),
        Verb::Store(args) => store::run(&args),
        Verb::Certs(args) => certs::run(&args),
        Verb::Keys(args) => keys::run(&args),
        Verb::Clients(args) => clients::run(&args),
        Verb::Logins(args) => logins::run(&args),
        Verb::Usage(args) => usage::run(&args),
        Verb::Audit(args) => audit::run(&args),
        Verb::Apikey(args) => apikey::run(&args),
        Verb::Notify(args) => self::notify::run(&args),
        Verb::AdminToken(args) => admin_token::run(&args),
        Verb::Upgrade(args) => upgrade::run(&args),
        Verb::Healthcheck(args) => healthcheck::run(&args),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::SupportBundle(args) => support_bundle::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Completions { shell } => completions::run(shell),
        Verb::Man { folder } => man::run(&folder),
    }
}

fn run_gateway(args: &ServeArgs) -> anyhow::Result<Exit> {
    let flags = args.validation.flags(args.gateway.flags(Flags::new()));
    let mut loaded = configuration::load_with_warnings(&flags, args.validation.config.as_deref())?;
    if let Some(unread) = run::Variables::of_process().unread_by_serve() {
        loaded.warnings.push(Diagnostic::warning("unread-variables", unread));
    }
    serve::run(loaded)
}

fn run_check(args: &CheckArgs) -> anyhow::Result<Exit> {
    let flags = args.validation.flags(Flags::new());
    let configuration::CheckSettings { settings, is_host_unknown } =
        configuration::load_for_check(flags, args.validation.config.as_deref(), &args.access)?;
    let live = args.live.then(|| Duration::from_secs(args.timeout));
    let default = [TenantsSource::from_settings(&settings).path().to_owned()];
    let paths = if args.paths.is_empty() { &default[..] } else { &args.paths };
    let telling = check::CheckOutput { format: args.format, errors_only: args.quiet, is_host_unknown };
    let outcome = check::check(paths, &configuration::load_context(&settings), live, telling);
    Ok(match outcome {
        check::CheckOutcome::Fine => Exit::Fine,
        check::CheckOutcome::Rejected => Exit::Findings,
        check::CheckOutcome::CouldNotRun => Exit::CouldNotRun,
    })
}
