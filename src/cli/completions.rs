//! `tenantd completions`: prints the completion script for a shell.

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use super::args::Arguments;
use super::{Exit, output};

/// Prints the completion script.
pub(super) fn run(shell: Shell) -> anyhow::Result<Exit> {
    output::print(&script(shell))?;
    Ok(Exit::Fine)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    generate(shell, &mut Arguments::command(), "tenantd", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_is_told_every_verb() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for verb in ["serve", "check", "tenants", "apikey", "healthcheck", "demo", "completions"] {
                assert!(script.contains(verb), "{shell}: {verb}");
            }
        }
    }
}
