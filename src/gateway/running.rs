//! How a gateway runs: it starts everything that was built, opens its listeners once the tenants are
//! loaded, announces itself, and serves until a signal or a successor ends it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::ending::{Drained, Ending};
use super::settings_reload::SettingsReloader;
use super::signals::{SignalAction, Signals};
use super::state_metrics::{ConnectedState, StateSources};
use super::upgrade::{self, Upgrader};
use super::{
    Addresses, Error, Gateway, alerting, certificate_names, cluster, node_shares, service_manager, succession,
};
use crate::admin::{self, Admin, GatewayInfo, Startup, TenantRules};
use crate::alerts::Alerts;
use crate::oauth::logins::Logins;
use crate::server::{Listeners, Server, ServerDeps};
use crate::settings::{SettingsInForce, TlsMode};
use crate::store::Store;
use crate::tenants::reconcile::ReconcilerConfig;
use crate::tenants::registry::Registry;
use crate::tenants::{ReconcilerHandle, TenantsSource};

/// How long connections wait for the tenants to be read before they are told to try again.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// A gateway that runs.
struct Running {
    addresses: Addresses,
    ready_file: Option<PathBuf>,
    is_single_tenant: bool,
    server: Arc<Server>,
    reloader: SettingsReloader,
    ending: Ending,
    /// Metrics are read through it.
    _state_metrics: ConnectedState,
    /// Closed last.
    _store: Option<Store>,
}

impl Gateway {
    /// Serves until a signal ends it. `on_ready` runs once connections are accepted and the tenants
    /// are loaded.
    ///
    /// # Errors
    /// [`Error::Signals`], [`Error::ReadyFile`], [`Error::Replaced`], or [`Error::TenantUnusable`] if the
    /// only tenant is.
    pub async fn run(self, on_ready: impl AsyncFnOnce(&Addresses)) -> Result<Drained, Error> {
        let mut signals = Signals::listen().map_err(Error::Signals)?;
        let (running, listeners, upgrader) = self.start();
        let mut shutdown = ShutdownSignal { signals: &mut signals, running: &running };
        let started = tokio::select! {
            started = running.open(listeners) => Some(started),
            () = shutdown.wait() => None,
        };
        let is_succeeded = match started {
            Some(started) => {
                started?;
                running.serve(upgrader, shutdown, on_ready).await?
            }
            None => false,
        };
        running.ending.end(&mut signals, is_succeeded).await
    }

    /// Starts everything but the listeners of clients.
    fn start(mut self) -> (Running, Listeners, Upgrader) {
        let reconciler = ReconcilerHandle::start(self.reconciler_config(), &self.tasks);
        let (own_hosts, hosts) = watch::channel(Arc::new(certificate_names::own(&self.settings)));
        certificate_names::follow_tenants(hosts, &self.registry, &self.certificates, &self.tasks);
        let (sources, written) = self.setting_sources.take().unzip();
        let in_force = SettingsInForce::new(self.settings.clone(), written.unwrap_or_default());
        let in_force = Arc::new(ArcSwap::from_pointee(in_force));
        let state_metrics = self.state_sources().connect(&self.tenant_deps.metrics);
        let alerts = alerting::start(&self, node_shares::follow(&self));
        self.serve_admin(reconciler.clone(), Arc::clone(&in_force), Arc::clone(&alerts));
        let server = Server::new(&self.settings, self.server_deps());
        let reloader = SettingsReloader {
            sources,
            in_force: Arc::clone(&in_force),
            server: Arc::clone(&server),
            reconciler,
            alerts,
            audit: self.tenant_deps.audit.clone(),
            pool: self.tenant_deps.pool.clone(),
            context: self.load_context.clone(),
            own_hosts,
        };
        let upgrader = self.upgrader(&server);
        self.tenant_deps.usage.start_writing(&self.tasks);
        self.tenant_deps.audit.start_sinks(&self.tasks);
        if let Some(exporter) = self.exporter.clone() {
            self.tasks.spawn_detached("otlp", async move { exporter.run().await });
        }
        server.serve_http_redirect(self.http_listeners, self.addresses.public_port());
        let followers = cluster::Followers {
            logins: self.tenant_deps.login.as_ref().map(|login| Arc::clone(&login.context)),
            metrics: Arc::clone(&self.tenant_deps.metrics),
            clock: Arc::clone(&self.tenant_deps.clock),
        };
        let cluster = self.store.as_ref().and_then(Store::cluster);
        let replaced = cluster::follow(cluster.clone(), self.joining, followers, &self.tasks);
        let ending = Ending {
            tasks: self.tasks,
            registry: self.registry,
            in_force,
            usage: self.tenant_deps.usage,
            audit: self.tenant_deps.audit,
            exporter: self.exporter,
            cluster,
            replaced,
        };
        let running = Running {
            addresses: self.addresses,
            ready_file: self.settings.ready_file,
            is_single_tenant: matches!(self.source, TenantsSource::Single(_)),
            server,
            reloader,
            ending,
            _state_metrics: state_metrics,
            _store: self.store,
        };
        (running, self.listeners, upgrader)
    }

    fn reconciler_config(&mut self) -> ReconcilerConfig {
        let secrets = self.secrets.take().expect("the reconciler is started once");
        ReconcilerConfig {
            filled: secrets.start(&self.tenant_deps.metrics, &self.tasks),
            source: self.source.clone(),
            watch: self.settings.watch,
            context: Arc::new(self.load_context.clone()),
            tenant_deps: self.tenant_deps.clone(),
            publisher: self.publisher.clone(),
            store: self.store.as_ref().map(|store| store.local().clone()),
            stored_entries: std::mem::take(&mut self.stored_entries),
            cluster: self.store.as_ref().and_then(Store::cluster),
        }
    }

    fn upgrader(&self, server: &Arc<Server>) -> Upgrader {
        Upgrader {
            tasks: self.tasks.clone(),
            server: Arc::clone(server),
            certificates: Arc::clone(&self.certificates),
            usage: Arc::clone(&self.tenant_deps.usage),
            audit: self.tenant_deps.audit.clone(),
            store: self.store.clone(),
            state: self.settings.state.clone(),
            sockets: upgrade::OwnSockets::new(&self.settings, &self.addresses),
        }
    }

    fn state_sources(&self) -> StateSources {
        StateSources {
            registry: self.registry.clone(),
            certificates: Arc::clone(&self.certificates),
            tasks: self.tasks.clone(),
            clock: Arc::clone(&self.tenant_deps.clock),
            exporter: self.exporter.clone(),
            cluster: self.cluster_view.clone(),
        }
    }

    fn server_deps(&self) -> ServerDeps {
        let is_tls = self.settings.tls != TlsMode::Off;
        ServerDeps {
            registry: self.registry.clone(),
            metrics: Arc::clone(&self.tenant_deps.metrics),
            clock: Arc::clone(&self.tenant_deps.clock),
            tasks: self.tasks.clone(),
            audit: self.tenant_deps.audit.clone(),
            tracer: self.tenant_deps.tracer.clone(),
            certificates: is_tls.then(|| Arc::clone(&self.certificates)),
            sockets: Arc::clone(&self.tenant_deps.sockets),
        }
    }

    fn serve_admin(
        &mut self,
        reconciler: ReconcilerHandle,
        in_force: Arc<ArcSwap<SettingsInForce>>,
        alerts: Arc<Alerts>,
    ) {
        let Some(listener) = self.admin.take() else { return };
        let admin = Admin {
            settings: in_force,
            cluster: self.cluster_view.clone(),
            registry: self.registry.clone(),
            reconciler,
            alerts,
            certificates: Arc::clone(&self.certificates),
            metrics: Arc::clone(&self.tenant_deps.metrics),
            audit: self.tenant_deps.audit.clone(),
            usage: Arc::clone(&self.tenant_deps.usage),
            clock: Arc::clone(&self.tenant_deps.clock),
            tasks: self.tasks.clone(),
            store: self.store.clone(),
            logins: self.tenant_deps.login.as_ref().map(|login| Logins::new(Arc::clone(&login.context))),
            tls: self.admin_tls.clone(),
            auth: Arc::new(admin::AdminAuth::new(
                &self.settings.admin_access,
                Arc::clone(&self.tenant_deps.clock),
            )),
            permits: admin::RequestPermits::default(),
            is_single_tenant: matches!(self.source, TenantsSource::Single(_)),
            startup: self.startup(),
            console: admin::ConsoleState::default(),
            info: GatewayInfo {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                public_base: self.addresses.public_base.clone(),
                hosts: self.settings.hosts.iter().map(ToString::to_string).collect(),
                tls: self.settings.tls,
                certs: std::path::absolute(&self.settings.certs).ok(),
                listen: self.addresses.listen.clone(),
                listen_http: self.addresses.listen_http.clone(),
                tenants: std::path::absolute(self.source.path()).ok(),
                is_single_tenant: matches!(self.source, TenantsSource::Single(_)),
                state: std::path::absolute(&self.settings.state).ok(),
                login_authority: Some(self.settings.entra_authority.to_string()),
                backend_allow: self.settings.backend_allow.iter().map(ToString::to_string).collect(),
                backend_only: self.settings.backend_only.items().iter().map(ToString::to_string).collect(),
                tenant_rules: Some(TenantRules::from_settings(&self.settings)),
            },
        };
        admin.serve(listener);
    }

    fn startup(&self) -> Startup {
        Startup {
            at: self.tenant_deps.clock.now(),
            listen: self.addresses.listen.clone(),
            listen_http: self.addresses.listen_http.clone(),
            admin: self.addresses.admin,
            tenants: self.source.folder().to_owned(),
            state: self.settings.state.clone(),
        }
    }
}

impl Running {
    /// Serves connections once the tenants are loaded. Those that come before wait in the kernel, but
    /// not for ever.
    async fn open(&self, listeners: Listeners) -> Result<(), Error> {
        let registry = &self.ending.registry;
        let _late = tokio::time::timeout(START_PATIENCE, wait_for_first_pass(registry)).await;
        self.server.serve(listeners);
        wait_for_first_pass(registry).await;
        if self.is_single_tenant {
            find_single_tenant(registry)?;
        }
        succession::take_over(&self.ending.tasks).await
    }

    /// Announces the gateway, takes orders to upgrade, and waits until it is to end. Returns whether a
    /// successor serves.
    async fn serve(
        &self,
        upgrader: Upgrader,
        mut shutdown: ShutdownSignal<'_>,
        on_ready: impl AsyncFnOnce(&Addresses),
    ) -> Result<bool, Error> {
        self.addresses.announce(self.ready_file.as_deref())?;
        service_manager::ready();
        let Ending { tasks, registry, in_force, .. } = &self.ending;
        service_manager::follow_tenants(registry, in_force, tasks);
        service_manager::feed_watchdog(tasks);
        let announcing = async {
            on_ready(&self.addresses).await;
            std::future::pending::<()>().await;
        };
        let upgrades = upgrader.listen();
        tokio::select! {
            () = shutdown.wait() => {}
            () = upgrades.wait_for_successor() => {}
            () = announcing => {}
        }
        Ok(upgrades.stop().await)
    }
}

/// Waits for the first publication, with tenants or without.
async fn wait_for_first_pass(registry: &Registry) {
    // An error would mean that the registry is gone, but the caller holds it.
    let mut generation = registry.subscribe_generation();
    let _gone = generation.wait_for(|&generation| generation > 0).await.is_err();
}

/// Fails unless the gateway's only tenant is in force, or was stopped by its operator.
fn find_single_tenant(registry: &Registry) -> Result<(), Error> {
    let table = registry.load();
    let entry = table.entries.values().next();
    let unusable = |why: String| Err(Error::TenantUnusable(why));
    match entry {
        Some(entry) if entry.tenant.is_some() => Ok(()),
        Some(entry) => match entry.status() {
            status if status.paused => Ok(()),
            status => unusable(status.first_error().unwrap_or_else(|| "it was refused".to_owned())),
        },
        None => unusable("its files are gone".to_owned()),
    }
}

/// The signals that end serving, and the gateway with this one's node id.
struct ShutdownSignal<'a> {
    signals: &'a mut Signals,
    running: &'a Running,
}

impl ShutdownSignal<'_> {
    /// Waits for a signal to finish; reads the settings and the tenants folder again on each SIGHUP
    /// before that.
    async fn wait(&mut self) {
        while self.running.ending.replaced.run_until_cancelled(self.signals.next()).await
            == Some(SignalAction::Reload)
        {
            tracing::info!("SIGHUP: looking for changes of the settings and the tenants' files");
            service_manager::reloading();
            self.running.reloader.reload().await;
            let (reconciler, stop) = (
                self.running.reloader.reconciler.clone(),
                self.running.ending.tasks.shutdown_signal().clone(),
            );
            // Not waited for: a signal to finish may come meanwhile.
            self.running.ending.tasks.spawn("reload", async move {
                if stop.run_until_cancelled(reconciler.reload()).await.is_some() {
                    service_manager::ready();
                }
            });
        }
    }
}
