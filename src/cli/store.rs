//! `tenantd store`: checks, backs up and restores the store in the state folder.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context;

use super::admin_client::{self, AdminClient};
use super::args::{AdminAccessArgs, StoreAction, StoreArgs, StoreDatabaseArgs, StoreLocationArgs};
use super::{Exit, admin_access, configuration, output};
use crate::base::disk;
use crate::gateway::database_address;
use crate::settings::{Flags, SettingKey, Settings};
use crate::store::{self, AuthCounts, Error, PostgresAddress, SharedTablesReport, Store};

/// What a copy of the file has not.
const LOGINS_ELSEWHERE: &str = "Its logins, signing keys, clients and blocks are in a PostgreSQL database, which \
                                this does not touch: back that up and restore it with pg_dump --schema=tenantd and \
                                pg_restore, or by your provider's snapshots.\n";

/// Runs the command.
pub(super) fn run(args: &StoreArgs) -> anyhow::Result<Exit> {
    match &args.action {
        StoreAction::Check { database, location } => {
            let settings = database_settings(database, location)?;
            let (file, logins) = (check(&settings)?, check_database(&settings)?);
            Ok(if file == Exit::Fine { logins } else { file })
        }
        StoreAction::Copy { to, database, location } => copy_logins(to, database, location),
        StoreAction::Backup { path, admin, access, location } => {
            let first = BackupSource::of(location, admin.as_ref());
            let url = admin.as_deref().filter(|admin| admin_access::is_url(admin));
            let settings = settings(location, admin.as_ref().filter(|_| url.is_none()))?;
            let gateway = StoreOwner { url, access, settings: &settings };
            backup(&settings, &gateway, first, path)
        }
        StoreAction::Restore { path, location } => restore(&settings(location, None)?, path),
    }
}

fn settings(location: &StoreLocationArgs, admin: Option<&String>) -> anyhow::Result<Settings> {
    let flags = location_flags(location).with(SettingKey::ADMIN, admin.cloned());
    configuration::load_quietly(&flags, location.config.as_deref())
}

fn location_flags(location: &StoreLocationArgs) -> Flags {
    Flags::new()
        .with(SettingKey::STATE, &location.state)
        .with(SettingKey::MASTER_KEY_FILE, &location.master_key_file)
}

fn database_settings(database: &StoreDatabaseArgs, location: &StoreLocationArgs) -> anyhow::Result<Settings> {
    let flags = location_flags(location)
        .with(SettingKey::STORE, &database.store)
        .with(SettingKey::STORE_FILE, &database.store_file)
        .with(SettingKey::STORE_PASSWORD_FILE, &database.store_password_file);
    configuration::load_quietly(&flags, location.config.as_deref())
}

/// Checks the database of logins, if the settings name one.
fn check_database(settings: &Settings) -> anyhow::Result<Exit> {
    let Some(address) = database_address(&settings.store)? else { return Ok(Exit::Fine) };
    let shown = address.shown().to_owned();
    let store = Store::open_unmodified(&settings.state, &configuration::key_source(settings)?)?;
    match wait_for(store.check_auth(address))? {
        Ok((_, shared)) if !shared.unreadable.is_empty() || !shared.unknown.is_empty() => {
            output::print_error(format!("{shown}: {}", describe_trouble(&shared)));
            Ok(Exit::Findings)
        }
        Ok((counts, shared)) => {
            let sealed: Vec<_> =
                shared.sealed.iter().map(|(table, count)| format!("{count} values of {table}")).collect();
            let text = format!(
                "no errors in {shown}: {}, {}; the master key decrypts all of them\n",
                describe_counts(&counts),
                sealed.join(", ")
            );
            output::print(&text)?;
            Ok(Exit::Fine)
        }
        Err(error @ (Error::CannotUnseal | Error::Key(_))) => {
            output::print_error(format!("{shown}: {error}"));
            Ok(Exit::Findings)
        }
        Err(error) => Err(error.into()),
    }
}

/// Names what cannot be decrypted, and what could not be looked at.
fn describe_trouble(shared: &SharedTablesReport) -> String {
    let unreadable = shared.unreadable.iter().map(|(column, count)| {
        format!(
            "{count} values of tenantd.{column} cannot be decrypted: they were encrypted with another master key, or \
             changed; give that key as a second line of the master key, or delete these rows"
        )
    });
    let unknown = shared.unknown.iter().map(|table| {
        format!("tenantd.{table} was not checked: a newer tenantd made it; check with that version")
    });
    unreadable.chain(unknown).collect::<Vec<_>>().join("; ")
}

/// Copies the logins to where they are to be kept.
fn copy_logins(to: &str, database: &StoreDatabaseArgs, location: &StoreLocationArgs) -> anyhow::Result<Exit> {
    let (counts, place) = match to {
        "file" => {
            let settings = database_settings(database, location)?;
            let missing = "no database is given; name the one to copy from with --store";
            let address = database_address(&settings.store)?.context(missing)?;
            let counts = wait_for(open(&settings)?.copy_auth_from(address))??;
            (counts, format!("the file in {}; start without --store", settings.state.display()))
        }
        _ => {
            let settings = settings(location, None)?;
            let password_file = database.store_password_file.as_deref().map(Path::new);
            let address = PostgresAddress::parse(to, password_file)?;
            let shown = address.shown().to_owned();
            let counts = wait_for(open(&settings)?.copy_auth_to(address))??;
            (
                counts,
                format!("{shown}; start with --store, and with the same master key from a file or variable"),
            )
        }
    };
    output::print(&format!("copied {}, and the usage ledger, to {place}\n", describe_counts(&counts)))?;
    Ok(Exit::Fine)
}

fn open(settings: &Settings) -> anyhow::Result<Store> {
    Ok(Store::open(&settings.state, &configuration::key_source(settings)?)?)
}

fn describe_counts(counts: &AuthCounts) -> String {
    format!(
        "{} grants, {} revocations, {} signing keys, {} clients, {} removed clients, {} blocks",
        counts.grants,
        counts.revocations,
        counts.signing_keys,
        counts.clients,
        counts.removed_clients,
        counts.blocks
    )
}

fn wait_for<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.context("the runtime cannot be started")?.block_on(work))
}

fn check(settings: &Settings) -> anyhow::Result<Exit> {
    match store::check(&settings.state, &configuration::key_source(settings)?) {
        Ok(sound) => {
            let older = match sound.schema == sound.known {
                true => String::new(),
                false => format!(" (tenantd serve upgrades it to {})", sound.known),
            };
            let text = format!(
                "no errors: schema {}{older}, {} entries, {} revisions, {} grants, {} signing keys, {} clients, {} blocks; the master key decrypts all of them\n",
                sound.schema,
                sound.entries,
                sound.revisions,
                sound.grants,
                sound.signing_keys,
                sound.clients,
                sound.blocks
            );
            output::print(&text)?;
            Ok(Exit::Fine)
        }
        Err(error @ (Error::Damaged { .. } | Error::CannotUnseal | Error::Key(_))) => {
            output::print_error(error);
            Ok(Exit::Findings)
        }
        Err(error) => Err(error.into()),
    }
}

/// Which source a backup tries first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BackupSource {
    /// The gateway, since its address is given; its store may be anywhere.
    Gateway,
    /// The state folder, since it or nothing is given.
    Folder { is_named: bool },
}

impl BackupSource {
    fn of(location: &StoreLocationArgs, admin: Option<&String>) -> Self {
        match admin {
            Some(_) => Self::Gateway,
            None => Self::Folder { is_named: location.state.is_some() },
        }
    }
}

/// The gateway that has the store open.
struct StoreOwner<'a> {
    /// Its admin listener, if that is given as a URL.
    url: Option<&'a str>,
    access: &'a AdminAccessArgs,
    settings: &'a Settings,
}

impl StoreOwner<'_> {
    /// Creates the client of its admin listener.
    fn connect(&self) -> anyhow::Result<AdminClient> {
        let off = "a gateway uses the state folder, and its admin listener is off in these settings; give its \
                   address with --admin, or stop the gateway";
        match self.url {
            Some(url) => admin_access::connect_to(url, self.access),
            None => admin_access::connect(self.settings, self.access)?.context(off),
        }
    }
}

fn backup(
    settings: &Settings,
    gateway: &StoreOwner<'_>,
    first: BackupSource,
    path: &Path,
) -> anyhow::Result<Exit> {
    let file = settings.state.join("tenantd.db");
    match first {
        BackupSource::Gateway => match ask_gateway(gateway, path) {
            // The gateway has stopped: fall back to the folder, if it is here.
            Err(error) if is_unreachable(&error) && file.exists() => copy(settings, gateway, path)?,
            asked => asked?,
        },
        BackupSource::Folder { .. } if file.exists() => copy(settings, gateway, path)?,
        BackupSource::Folder { is_named: true } => {
            anyhow::bail!("there is no store at {}; give its folder with --state", file.display())
        }
        BackupSource::Folder { is_named: false } => ask_gateway(gateway, path).with_context(|| {
            format!(
                "there is no store at {} (give its folder with --state), so the command asked a gateway",
                file.display()
            )
        })?,
    }
    output::print(&format!(
        "copied to {}. The copy does not contain the master key; without that key you cannot use it.\n",
        path.display()
    ))?;
    if store::has_logins_elsewhere(path)? {
        output::print(LOGINS_ELSEWHERE)?;
    }
    Ok(Exit::Fine)
}

/// Copies the store of the folder, or asks the gateway that has it open.
fn copy(settings: &Settings, gateway: &StoreOwner<'_>, path: &Path) -> anyhow::Result<()> {
    match Store::open_unmodified(&settings.state, &configuration::key_source(settings)?) {
        Ok(store) => Ok(store.backup(path)?),
        Err(Error::InUse { .. }) => ask_gateway(gateway, path),
        Err(error) => Err(error.into()),
    }
}

fn is_unreachable(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(admin_client::Error::Unreachable(..)))
}

/// Asks the gateway to copy its store, and moves the copy to `path`.
fn ask_gateway(gateway: &StoreOwner<'_>, path: &Path) -> anyhow::Result<()> {
    let copy = gateway.connect()?.back_up()?;
    let moved = take(&copy, path).with_context(|| format!("{} cannot be created", path.display()));
    let removed = fs::remove_file(&copy);
    moved?;
    removed.with_context(|| format!("the gateway's own copy {} cannot be removed", copy.display()))
}

fn take(copy: &Path, path: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let (mut from, _) = disk::open(copy).map_err(disk::Error::into_io)?;
    let mut to = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::copy(&mut from, &mut to)?;
    to.sync_all()
}

fn restore(settings: &Settings, path: &Path) -> anyhow::Result<Exit> {
    let aside = store::restore(&settings.state, path)?;
    let kept =
        aside.map(|aside| format!("; the replaced store is now {}", aside.display())).unwrap_or_default();
    output::print(&format!("restored{kept}\n"))?;
    if store::has_logins_elsewhere(&settings.state.join("tenantd.db"))? {
        output::print(LOGINS_ELSEWHERE)?;
    }
    Ok(Exit::Fine)
}
