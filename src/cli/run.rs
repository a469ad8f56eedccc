//! `tenantd run`: serves one tenant from its export, as the vendor's run.sh and image do.
//!
//! It is the gateway of `serve` with one entry instead of a folder of them. Flags, the container's
//! variables and the export become its settings and one more document of the tenant. The vendor's
//! start-up lines and error texts are kept letter by letter, because scripts and people wait for
//! them.

mod announcement;
mod export;
mod refusal;
mod start_log;
mod state_folder;
mod tree;
mod variables;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use self::announcement::Announcement;
use self::export::Export;
use self::start_log::StartLog;
use self::state_folder::StateFolder;
use self::variables::Options;
use super::args::RunArgs;
use super::{Exit, configuration, serve};
use crate::base::clock::SystemClock;
use crate::base::diagnostic::Report;
use crate::bundle::{self, LoadContext, LoadOutcome};
use crate::gateway::{self, TenantInputs};
use crate::settings::{Environment, ExtraHosts, Settings, TlsMode, ZipHosts};
use crate::spec::TenantSpec;
use crate::telemetry::log;
use crate::tenants::TenantsSource;

pub(super) use self::export::MOUNTED_ZIP;
pub(super) use self::refusal::StartRefusal;
pub(super) use self::variables::Variables;

/// The finding that says that plain HTTP is served, which is what this command is for.
const PLAIN_HTTP: &str = "plain-http";

/// Serves until a signal stops it. A tenant that cannot be served ends the process.
pub(super) fn run(args: &RunArgs) -> anyhow::Result<Exit> {
    let (mut lines, unwritable) = StartLog::default_for(args);
    let served = start(args, &mut lines, unwritable);
    log::flush();
    Ok(match served {
        Ok(()) => Exit::Fine,
        Err(refusal) => {
            lines.refuse(&refusal);
            Exit::CouldNotRun
        }
    })
}

fn start(args: &RunArgs, lines: &mut StartLog, unwritable: Option<String>) -> Result<(), StartRefusal> {
    let export = Export::find(args.path.as_deref())?;
    let options = Options::read(args, &Variables::of_process())?;
    let (mut settings, warnings, state) = read_settings(args, &export, &options)?;
    log::init_with_copy(settings.log, SystemClock::shared(), lines.file())
        .map_err(|error| StartRefusal::new(format!("the log cannot be started: {error}")))?;
    for warning in unwritable.iter().chain(&options.warnings) {
        tracing::warn!("{warning}");
    }
    warnings.iter().for_each(|warning| tracing::warn!(code = warning.code, "{warning}"));
    if !options.used.is_empty() {
        tracing::info!(variables = options.used.join(" "), "values were read from variables");
    }
    let spec = announce_export(&export, &options, &settings, lines)?;
    let _cleanup = state.prepare(&mut settings, spec.access.login.is_some());
    serve_export(&export, &options, settings, Announcement::new(lines, &export, &spec))
}

/// Reads the export and announces what was found.
fn announce_export(
    export: &Export,
    options: &Options,
    settings: &Settings,
    lines: &mut StartLog,
) -> Result<TenantSpec, StartRefusal> {
    let loaded = load(export, options, settings);
    export.announce(loaded.dataset.as_deref(), lines);
    match loaded.spec {
        Some(spec) => Ok(spec),
        None => Err(StartRefusal::from_report(&loaded.report)),
    }
}

/// Reads the export as the gateway will.
fn load(export: &Export, options: &Options, settings: &Settings) -> LoadOutcome {
    bundle::load(&export.entry, &load_context(options, settings))
}

fn load_context(options: &Options, settings: &Settings) -> LoadContext {
    let given = Some(Arc::clone(&options.given));
    LoadContext { given, ..configuration::load_context(settings) }
}

/// What would be served of an export.
pub(super) struct LoadedExport {
    /// Its absolute path.
    pub(super) path: PathBuf,
    /// The settings that it would be served with.
    pub(super) settings: Settings,
    /// What its files are read with.
    pub(super) context: LoadContext,
    /// What reading them came to.
    pub(super) outcome: LoadOutcome,
}

/// Reads an export as this command does, and serves nothing.
///
/// # Errors
/// Why the command would not start, whatever the export has in it.
pub(super) fn load_export(args: &RunArgs) -> Result<LoadedExport, StartRefusal> {
    let export = Export::find(args.path.as_deref())?;
    let options = Options::read(args, &Variables::of_process())?;
    let (mut settings, _, _) = read_settings(args, &export, &options)?;
    if args.state.is_none() {
        settings.state = export.default_state();
    }
    let context = load_context(&options, &settings);
    let outcome = bundle::load(&export.entry, &context);
    Ok(LoadedExport { path: export.path, settings, context, outcome })
}

fn read_settings(
    args: &RunArgs,
    export: &Export,
    options: &Options,
) -> Result<(Settings, Report, StateFolder), StartRefusal> {
    let environment = Environment::of_process();
    let loaded = Settings::load(&args.flags(), &environment, args.config.as_deref());
    let loaded = loaded.map_err(|error| StartRefusal::from_report(&error.report))?;
    let mut settings = loaded.settings;
    settings.tls = TlsMode::Off;
    settings.listen = vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, options.port)).into()];
    settings.listen_http = Vec::new();
    settings.extra_hosts = ExtraHosts::Any;
    settings.zip_hosts = ZipHosts::Allow;
    // Several servers on one machine each have a port of their own, and only one of them can have
    // the default admin listener.
    settings.is_admin_optional = !loaded.is_admin_given;
    let default = (!loaded.is_state_given).then(|| export.default_state());
    let mut warnings = Report::new();
    let told = loaded.warnings.iter().filter(|warning| warning.code != PLAIN_HTTP);
    told.for_each(|warning| warnings.push(warning.clone()));
    Ok((settings, warnings, StateFolder::new(default)))
}

fn serve_export(
    export: &Export,
    options: &Options,
    settings: Settings,
    announcement: Announcement<'_>,
) -> Result<(), StartRefusal> {
    let inputs = TenantInputs {
        source: TenantsSource::Single(export.path.clone()),
        env: configuration::tenant_variables(),
        given: Some(Arc::clone(&options.given)),
    };
    serve::serve(settings, inputs, announcement).map_err(|error| match error.downcast::<gateway::Error>() {
        Ok(error) => StartRefusal::from_gateway_error(error),
        Err(error) => StartRefusal::new(format!("{error:#}")),
    })
}
