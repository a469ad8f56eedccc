//! `tenantd migrate --compare`: asks an old server and a new one the same questions, and shows how
//! their answers differ.

mod differences;
mod questions;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use url::Url;

use super::super::args::{AdminAccessArgs, MigrateArgs};
use super::super::{Exit, configuration, output};
use crate::backend::{AddressRules, Pool};
use crate::base::clock::SystemClock;
use crate::base::disk;
use crate::base::secret::Secret;
use crate::settings::Flags;
use crate::telemetry::metrics::Metrics;
use differences::{Difference, Weight};
use questions::{Answers, Asker};

/// The timeout of each question.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_TOKEN: u64 = 64 << 10;

/// Compares two servers and prints the differences.
pub(super) fn run(old: &str, args: &MigrateArgs) -> anyhow::Result<Exit> {
    let old = connector(old)?;
    let new = match &args.with {
        Some(new) => connector(new)?,
        None => at_gateway(&old, args)?,
    };
    let tokens = [
        args.token_file.as_deref().map(read_token).transpose()?,
        args.with_token_file.as_deref().map(read_token).transpose()?,
    ];
    let (old_answers, new_answers) = ask_both(&old, &new, tokens)?;
    for (url, answers) in [(&old, &old_answers), (&new, &new_answers)] {
        if let Some(why) = &answers.unreachable {
            anyhow::bail!("{url} does not answer: {why}");
        }
    }
    let found = differences::between(&old_answers, &new_answers);
    output::print(&report(&old, &new, &found))?;
    Ok(match found.differences.iter().any(|one| one.weight == Weight::Matters) {
        true => Exit::Findings,
        false => Exit::Fine,
    })
}

/// Parses a connector URL; one without `/mcp` at its end gets it.
fn connector(text: &str) -> anyhow::Result<Url> {
    let wrong =
        || format!("{text} is not a connector URL; write it like https://mcp.example.com/tenant-a/mcp");
    let mut url = Url::parse(text).with_context(wrong)?;
    anyhow::ensure!(matches!(url.scheme(), "http" | "https") && url.has_host(), wrong());
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&if path.ends_with("/mcp") { path } else { format!("{path}/mcp") });
    Ok(url)
}

/// Returns the URL with the same path at the gateway that the settings describe.
fn at_gateway(old: &Url, args: &MigrateArgs) -> anyhow::Result<Url> {
    let flags = args.validation.flags(Flags::new());
    let loaded =
        configuration::load_for_check(flags, args.validation.config.as_deref(), &AdminAccessArgs::default())?;
    let base = loaded.settings.public_base(loaded.settings.listen[0].address);
    connector(&format!("{base}{}", old.path()))
}

fn read_token(path: &Path) -> anyhow::Result<Secret> {
    let text = disk::read_text(path, MAX_TOKEN);
    let text = text.with_context(|| format!("{} cannot be used for a token", path.display()))?;
    Ok(Secret::new(text.trim()))
}

fn ask_both(old: &Url, new: &Url, tokens: [Option<Secret>; 2]) -> anyhow::Result<(Answers, Answers)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let [old_token, new_token] = tokens;
    runtime.context("the runtime cannot be started")?.block_on(async {
        // An operator names both, so they may be anywhere.
        let everywhere = ["0.0.0.0/0", "::/0"].map(|network| network.parse().expect("a network"));
        let rules = AddressRules { allow: everywhere.to_vec(), ..AddressRules::default() };
        let pool = Pool::new(rules, SystemClock::shared(), Arc::new(Metrics::new()));
        let pool = pool.context("the HTTP client cannot be created")?;
        let asker = |url: &Url, token| Asker::new(pool.clone(), url.clone(), token, PATIENCE);
        Ok(tokio::join!(asker(old, old_token).ask(), asker(new, new_token).ask()))
    })
}

fn report(old: &Url, new: &Url, found: &differences::Comparison) -> String {
    let mut text = format!("old: {old}\nnew: {new}\n\n");
    let row = |one: &Difference| {
        let weight = match one.weight {
            Weight::Matters => "DIFFERS",
            Weight::Minor => "minor",
        };
        vec![weight.to_owned(), one.what.clone(), one.old.clone(), one.new.clone()]
    };
    let mut differences: Vec<_> = found.differences.iter().collect();
    differences.sort_by_key(|one| one.weight == Weight::Matters);
    let rows: Vec<_> = differences.into_iter().map(row).collect();
    if !rows.is_empty() {
        text += &output::table(&["", "WHAT", "OLD", "NEW"], &rows);
        text.push('\n');
    }
    found.notes.iter().for_each(|note| text += &format!("{note}\n"));
    text + &format!("{} answers compared, {} the same\n", found.compared, found.compared - found.changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connector_url_ends_in_mcp() {
        let of = |text: &str| connector(text).map(|url| url.to_string()).ok();
        assert_eq!(of("https://h.test/a/").as_deref(), Some("https://h.test/a/mcp"));
        assert_eq!(of("http://h.test:8001/mcp?x#y").as_deref(), Some("http://h.test:8001/mcp"));
        assert_eq!((of("h.test/a"), of("ftp://h.test")), (None, None));
    }
}
