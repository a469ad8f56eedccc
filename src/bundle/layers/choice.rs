//! Selects the configuration of an export.

use crate::base::diagnostic::Diagnostic;
use crate::bundle::BoxedDiagnostic;

const MAX_LISTED: usize = 10;

/// Returns the index of the only configuration, or of the one that `config:` names.
pub(super) fn choose(
    datasets: &[&str],
    wanted: Option<&str>,
    holds_a_zip: bool,
) -> Result<usize, BoxedDiagnostic> {
    if datasets.is_empty() {
        return Err(missing_error(holds_a_zip));
    }
    let wanted = wanted.map(strip_extension);
    let fitting =
        |(index, dataset): (usize, &&str)| wanted.is_none_or(|wanted| wanted == *dataset).then_some(index);
    let fitting: Vec<usize> = datasets.iter().enumerate().filter_map(fitting).collect();
    match fitting.as_slice() {
        [one] => Ok(*one),
        [] => Err(unknown_error(datasets)),
        _ => Err(ambiguous_error(datasets)),
    }
}

fn strip_extension(name: &str) -> &str {
    name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml")).unwrap_or(name)
}

fn missing_error(holds_a_zip: bool) -> BoxedDiagnostic {
    let help = match holds_a_zip {
        true => "it contains another zip: unpack it once and use the inner mcp_export.zip",
        false => {
            "it should be at mcp/server/configs/<dataset>.yaml; export mcp_export.zip again from the portal"
        }
    };
    Box::new(Diagnostic::error("config-missing", "No .yaml config files found in zip").help(help))
}

fn unknown_error(datasets: &[&str]) -> BoxedDiagnostic {
    let refusal =
        Diagnostic::error("config-unknown", "the export has no configuration with the name in config:");
    Box::new(refusal.help(format!("it has {}", format_names(datasets))))
}

fn ambiguous_error(datasets: &[&str]) -> BoxedDiagnostic {
    let message = format!("the export has several configurations: {}", format_names(datasets));
    let help = "choose one with \"config: <name>\" in the .yaml beside the zip, with the same name as the \
                zip";
    Box::new(Diagnostic::error("config-ambiguous", message).help(help))
}

fn format_names(datasets: &[&str]) -> String {
    let printable = |text: &&str| text.chars().filter(|c| !c.is_control()).take(60).collect::<String>();
    let mut names: Vec<String> = datasets.iter().take(MAX_LISTED).map(printable).collect();
    if datasets.len() > MAX_LISTED {
        names.push(format!("and {} more", datasets.len() - MAX_LISTED));
    }
    names.join(", ")
}
