//! `tenantd container`: the entry point of images, which runs one tenant or serves a folder.

use std::path::Path;

use super::args::{RunArgs, ServeArgs};
use super::run::{self, MOUNTED_ZIP, Variables};
use super::{Exit, run_gateway};

/// Runs the only tenant if something says that there is one, else serves the tenants folder.
pub(super) fn run() -> anyhow::Result<Exit> {
    match Path::new(MOUNTED_ZIP).exists() || Variables::of_process().has_tenant() {
        true => run::run(&RunArgs::default()),
        false => run_gateway(&ServeArgs::default()),
    }
}
