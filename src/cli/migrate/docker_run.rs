//! `docker run` lines of the vendor's image, from a script or a unit.

use std::path::Path;

use super::container;
use super::environment::{set_variable, set_variables};
use super::installation::{Installation, OldServer, SwitchCommands};
use super::inventory::{Disposition, Place};
use super::source::{Locator, SourceFile, is_docker_run, read_env_file};
use super::values::MCP_PORT;
use super::words::{self, JoinedLine};
use crate::base::shell;

/// Flags without a value.
const SWITCHES: &[&str] = &[
    "-d",
    "--detach",
    "--rm",
    "-i",
    "--interactive",
    "-t",
    "--tty",
    "-it",
    "-dit",
    "--init",
    "--read-only",
    "--privileged",
];

/// Reads all `docker run` lines of a script.
pub(super) fn read(
    path: &Path,
    text: &str,
    sources: &[SourceFile],
    locator: &Locator,
    into: &mut Installation,
) {
    // PowerShell continues a line with a backtick, and a backslash is a character like any other.
    let is_powershell = text.lines().any(|line| line.trim_end().ends_with('`'));
    for line in words::join_lines(text, &['\\', '`']) {
        if !is_docker_run(&line.text) {
            continue;
        }
        let text = if is_powershell { line.text.replace('\\', "\\\\") } else { line.text.clone() };
        match words::split(&text) {
            Ok(command) => drop(read_words(path, &line, &command, sources, locator, into)),
            Err(why) => {
                into.inventory.add(Place::line(path, line.number), "docker run", Disposition::ByHand, why);
            }
        }
    }
}

/// What a command line says.
#[derive(Default)]
struct RunOptions {
    name: Option<String>,
    variables: Vec<(String, String)>,
    env_files: Vec<String>,
    ports: Vec<String>,
    volumes: Vec<String>,
    image: Option<String>,
}

/// Reads the words of one command. Returns whether it runs the vendor's server.
pub(super) fn read_words(
    path: &Path,
    line: &JoinedLine,
    command: &[String],
    sources: &[SourceFile],
    locator: &Locator,
    into: &mut Installation,
) -> bool {
    let place = Place::line(path, line.number);
    let Some(at) = command.iter().position(|word| word == "run") else { return false };
    let options = parse(&command[at + 1..]);
    let is_ours = container::is_vendors(
        options.image.as_deref().unwrap_or_default(),
        options.variables.iter().map(|(name, _)| name.as_str()),
        options.volumes.iter().map(String::as_str),
    );
    if !is_ours {
        return false;
    }
    let name = options.name.clone().unwrap_or_default();
    let mut server = OldServer::new(place.clone(), format!("container {name}"), name.clone());
    for file in &options.env_files {
        let file = locator.resolve(Path::new(file), path.parent().unwrap_or(Path::new("")));
        into.mark_used(&file);
        match read_env_file(&file) {
            Ok(env) => set_variables(&mut server, &file, &env, locator, &mut into.inventory),
            Err(why) => into.inventory.add(Place::file(&file), "--env-file", Disposition::ByHand, why),
        }
    }
    for (name, value) in &options.variables {
        set_variable(&mut server, name, value, &place, locator, &mut into.inventory);
    }
    for volume in &options.volumes {
        container::attach_volume(&mut server, volume, &place, sources, locator, into);
    }
    let published = options.ports.iter().find_map(|port| container::host_port(port));
    // Without a published port it is on the machine's own network.
    server.port = published.or_else(|| server.value(MCP_PORT).and_then(|port| port.parse().ok()));
    if !name.is_empty() {
        server.names.insert(name.clone());
        let name = shell::quote(&name);
        server.switch = Some(SwitchCommands {
            stop: format!("docker stop {name}"),
            start: format!("docker start {name}"),
        });
    }
    into.inventory.add(place, "docker run", Disposition::Replaced, "the gateway serves it");
    into.servers.push(server);
    true
}

fn parse(words: &[String]) -> RunOptions {
    let (mut options, mut words) = (RunOptions::default(), words.iter());
    while let Some(word) = words.next() {
        if !word.starts_with('-') {
            options.image = Some(word.clone());
            break;
        }
        if SWITCHES.contains(&word.as_str()) {
            continue;
        }
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => (flag, value.to_owned()),
            _ => (word.as_str(), words.next().cloned().unwrap_or_default()),
        };
        match flag {
            "-e" | "--env" => {
                options.variables.extend(value.split_once('=').map(|(name, text)| (name.into(), text.into())))
            }
            "--env-file" => options.env_files.push(value),
            "-p" | "--publish" => options.ports.push(value),
            "-v" | "--volume" => options.volumes.push(value),
            "--mount" => options.volumes.extend(container::volume_of_mount(&value)),
            "--name" => options.name = Some(value),
            _ => {}
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vendors_line_is_read_in_both_shells() {
        for (mark, zip) in [("\\", "/opt/tursio/mcp_export.zip"), ("`", "C:\\tursio\\mcp_export.zip")] {
            let line = format!(
                "docker run -d {mark}\n--name tursio-mcp {mark}\n--restart unless-stopped {mark}\n-p \
                 8001:8000 \
                 {mark}\n-v {zip}:/app/server.zip:ro {mark}\n-e MCP_PORT=8000 {mark}\n-e API_KEY=k {mark}\n\
                 tursio.azurecr.io/tursio-mcp:1.2\n"
            );
            let joined = words::join_lines(&line, &['\\', '`']);
            let options = parse(&words::split(&joined[0].text.replace('\\', "\\\\")).expect("words")[2..]);
            assert_eq!(options.name.as_deref(), Some("tursio-mcp"));
            assert_eq!(options.volumes, [format!("{zip}:/app/server.zip:ro")]);
            assert_eq!(options.ports, ["8001:8000"]);
            assert_eq!(options.variables.len(), 2);
            assert_eq!(options.image.as_deref(), Some("tursio.azurecr.io/tursio-mcp:1.2"));
        }
    }
}
