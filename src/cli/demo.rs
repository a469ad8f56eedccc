//! `tenantd demo`.
use super::Exit;
use super::args::DemoArgs;

pub(super) fn run(_args: &DemoArgs) -> anyhow::Result<Exit> {
    anyhow::bail!("soon")
}
