//! The arguments of `tenantd store`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::AdminAccessArgs;

pub(super) const EXAMPLES: &str = "\
Examples:
  tenantd store backup /var/backups/tenantd-2027-01-31.db
  tenantd store check --state /var/lib/tenantd
  tenantd store restore /var/backups/tenantd-2027-01-31.db --state /var/lib/tenantd

You cannot use a copy without the master key (state/master.key): back up the key, too, elsewhere.

Exit codes: 0 success, 1 the store is damaged, 2 the command could not run.";

/// The arguments of `tenantd store`.
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// The command below it.
    #[command(subcommand)]
    pub action: StoreAction,
}

/// The commands below `tenantd store`.
#[derive(Debug, Subcommand)]
pub enum StoreAction {
    /// Check the whole store, and that the master key decrypts it. The gateway must be stopped.
    Check {
        #[command(flatten)]
        database: StoreDatabaseArgs,
        #[command(flatten)]
        location: StoreLocationArgs,
    },
    /// Copy the logins to a PostgreSQL database, or back to the file. They are kept there from then
    /// on. The gateway must be stopped.
    Copy {
        /// The address of an empty database, or file to copy back from the database of --store.
        #[arg(long, value_name = "ADDRESS")]
        to: String,
        #[command(flatten)]
        database: StoreDatabaseArgs,
        #[command(flatten)]
        location: StoreLocationArgs,
    },
    /// Copy the store into a new file, also while the gateway runs. The copy does not contain the
    /// master key.
    Backup {
        /// The file to create.
        #[arg(value_hint = ValueHint::FilePath)]
        path: PathBuf,
        /// The admin address of the gateway that uses the store, or https://NAME:PORT [default:
        /// 127.0.0.1:9900].
        #[arg(long, value_name = "ADDR")]
        admin: Option<String>,
        /// What opens the listener.
        #[command(flatten)]
        access: AdminAccessArgs,
        #[command(flatten)]
        location: StoreLocationArgs,
    },
    /// Replace the store with a copy; the old store is kept beside it. The gateway must be stopped.
    Restore {
        /// The file that `backup` made.
        #[arg(value_hint = ValueHint::FilePath)]
        path: PathBuf,
        #[command(flatten)]
        location: StoreLocationArgs,
    },
}

/// Which database of logins is meant.
#[derive(Debug, Args)]
pub struct StoreDatabaseArgs {
    /// The database that logins are kept in [default: file].
    #[arg(long, value_name = "ADDRESS")]
    pub store: Option<String>,
    /// A file that contains only the database's address, which may have a password.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub store_file: Option<String>,
    /// A file that contains only the database's password.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub store_password_file: Option<String>,
}

/// Which store is meant.
#[derive(Debug, Args)]
pub struct StoreLocationArgs {
    /// The state folder [default: state].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state: Option<String>,
    /// The master key's file [default: master.key in the state folder].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub master_key_file: Option<String>,
    /// The gateway's configuration file, to read these from.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}
