//! `tenantd healthcheck`: the probe for containers, whose images lack curl.

use super::admin_client::{AdminClient, Error};
use super::admin_request::client;
use super::args::HealthArgs;
use super::{Exit, output};

/// Asks whether the gateway is alive, or whether it serves a tenant.
pub(super) fn run(args: &HealthArgs) -> anyhow::Result<Exit> {
    let client = client(&args.admin)?;
    let result = match args.serving {
        true => find_trouble(&client),
        false => client.health().map(|()| None),
    };
    match result {
        Ok(None) => Ok(Exit::Fine),
        Ok(Some(trouble)) => {
            output::print_error(trouble);
            Ok(Exit::Findings)
        }
        Err(error) => {
            output::print_error(error);
            Ok(Exit::Findings)
        }
    }
}

/// Returns why no tenant is served, if none is.
fn find_trouble(client: &AdminClient) -> Result<Option<String>, Error> {
    let tenants = client.tenants()?;
    if tenants.iter().any(|tenant| tenant.is_served()) {
        return Ok(None);
    }
    let states: Vec<String> =
        tenants.iter().map(|tenant| format!("{} is {}", tenant.name, tenant.state.as_str())).collect();
    Ok(Some(match states.is_empty() {
        true => "no tenant is served: there is none".to_owned(),
        false => format!("no tenant is served: {}", states.join(", ")),
    }))
}
