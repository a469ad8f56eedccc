//! systemd units that run the vendor's `run.sh` (systemd.service(5), systemd.syntax(7)).

use std::path::{Path, PathBuf};

use super::docker_run;
use super::exports;
use super::installation::{Account, Installation, OldServer, Outcome, Place, SwitchCommands};
use super::source::{Locator, Source, read_env_file};
use super::values::{self, MCP_PORT};
use super::words::{self, JoinedLine};

/// Where the vendor's `run.sh` serves if nothing says otherwise.
pub(super) const DEFAULT_PORT: u16 = 8000;

/// Directives that restrict who may connect, or that do something besides serving.
const NEEDS_A_PERSON: &[(&str, &str)] = &[
    ("IPAddressAllow", "it restricted who may connect; the gateway does not: keep it in your firewall"),
    ("IPAddressDeny", "it restricted who may connect; the gateway does not: keep it in your firewall"),
    ("ExecStartPre", "it ran before the server; find out what it was for"),
    ("ExecStartPost", "it ran after the server's start; find out what it was for"),
    ("LoadCredential", "name the credential's file in the tenant's files (api_key_file)"),
];

/// One `Name=value` of a unit.
struct Assignment {
    name: String,
    value: String,
    line: usize,
}

/// Reads a unit. One that runs something else is left alone.
pub(super) fn read(path: &Path, text: &str, sources: &[Source], locator: &Locator, into: &mut Installation) {
    let assignments = parse(text);
    let find = |name: &str| assignments.iter().rev().find(|assignment| assignment.name == name);
    let Some(start) = find("ExecStart") else { return };
    let place = Place::line(path, start.line);
    let command = match words::split(start.value.trim_start_matches(['-', '@', ':', '+', '!'])) {
        Ok(command) => command,
        Err(why) => return into.account.add(place, "ExecStart", Outcome::ByHand, why),
    };
    let unit = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let is_compose = |word: &String| word == "compose" || word.ends_with("docker-compose");
    if command.iter().any(is_compose) && command.iter().any(|word| word == "up") {
        let note = "the Compose file says the rest; give its folder as FROM, too";
        return into.account.add(place, "ExecStart: docker compose", Outcome::Replaced, note);
    }
    if command.get(1).is_some_and(|word| word == "run") {
        let line = JoinedLine { number: start.line, text: command.join(" ") };
        match docker_run::read_words(path, &line, &command, sources, locator, into) {
            true => set_switch(into, &unit),
            false => into.account.add(place, format!("unit {unit}"), Outcome::Left, "it runs something else"),
        }
        return;
    }
    let Some(at) = command.iter().position(|word| word == "run.sh" || word.ends_with("/run.sh")) else {
        return into.account.add(place, format!("unit {unit}"), Outcome::Left, "it runs something else");
    };
    let mut server = OldServer::new(place.clone(), format!("unit {unit}"), unit.clone());
    let folder =
        find("WorkingDirectory").map(|assignment| PathBuf::from(assignment.value.trim_start_matches('-')));
    read_environment(path, &assignments, locator, &mut server, &mut into.account);
    server.values.set_flags(&command[at + 1..], &place, &mut into.account);
    let script = folder.unwrap_or_default().join(command[at].trim_start_matches("./"));
    let base = path.parent().unwrap_or(Path::new(""));
    let tree = script.parent().and_then(Path::parent).map(|tree| locator.resolve(tree, base));
    attach_tree(&mut server, tree, &place, sources, into);
    let port = server.value(MCP_PORT).and_then(|port| port.parse().ok());
    server.port = Some(port.unwrap_or(DEFAULT_PORT));
    account_for_the_rest(path, &assignments, &mut into.account);
    into.servers.push(server);
    set_switch(into, &unit);
}

fn set_switch(into: &mut Installation, unit: &str) {
    if let Some(server) = into.servers.last_mut() {
        server.switch = Some(SwitchCommands {
            stop: format!("systemctl disable --now {unit}"),
            start: format!("systemctl enable --now {unit}"),
        });
    }
}

fn attach_tree(
    server: &mut OldServer,
    tree: Option<PathBuf>,
    place: &Place,
    sources: &[Source],
    into: &mut Installation,
) {
    let Some(tree) = tree.filter(|tree| tree.is_dir()) else {
        let note = "the unpacked export that it runs is not on this machine; give its folder as FROM, too";
        return into.account.add(place.clone(), "ExecStart: run.sh", Outcome::ByHand, note);
    };
    into.mark_used(&tree);
    match exports::attach(server, &tree, sources) {
        Ok(()) => {
            into.account.add(place.clone(), "ExecStart: run.sh", Outcome::Replaced, "the gateway serves it")
        }
        Err(why) => into.account.add(Place::file(&tree), "export", Outcome::ByHand, why),
    }
}

fn read_environment(
    path: &Path,
    assignments: &[Assignment],
    locator: &Locator,
    server: &mut OldServer,
    account: &mut Account,
) {
    // Files win over lines of the unit, wherever they stand.
    for assignment in assignments.iter().filter(|assignment| assignment.name == "Environment") {
        let place = Place::line(path, assignment.line);
        match words::split(&assignment.value) {
            Ok(pairs) => {
                for (name, value) in pairs.iter().filter_map(|pair| pair.split_once('=')) {
                    set_variable(server, name, value, &place, locator, account);
                }
            }
            Err(why) => account.add(place, "Environment", Outcome::ByHand, why),
        }
    }
    for assignment in assignments.iter().filter(|assignment| assignment.name == "EnvironmentFile") {
        let place = Place::line(path, assignment.line);
        let is_optional = assignment.value.starts_with('-');
        let file = locator.resolve(
            Path::new(assignment.value.trim_start_matches('-')),
            path.parent().unwrap_or(Path::new("")),
        );
        match read_env_file(&file) {
            Ok(env) => {
                for (key, node) in env.pairs() {
                    let place = Place::line(&file, key.at.line);
                    let name = key.text.to_ascii_uppercase();
                    set_variable(server, &name, node.text().unwrap_or_default(), &place, locator, account);
                }
                account.add(place, "EnvironmentFile", Outcome::Replaced, "its variables are taken over");
            }
            Err(_) if is_optional && !file.exists() => {}
            Err(why) => account.add(place, "EnvironmentFile", Outcome::ByHand, why),
        }
    }
}

/// Sets a variable; one that names a file of a secret is set to what is in the file.
pub(super) fn set_variable(
    server: &mut OldServer,
    name: &str,
    value: &str,
    place: &Place,
    locator: &Locator,
    account: &mut Account,
) {
    let Some(variable) = values::find_file_variable(name) else {
        return server.values.set_of_process(name, value, place.clone(), account);
    };
    let file = locator.resolve(Path::new(value), place.file.parent().unwrap_or(Path::new("")));
    match crate::base::disk::read_text(&file, 64 << 10) {
        Ok(text) => drop(server.values.set(variable.name, text.trim(), place.clone())),
        Err(error) => account.add(place.clone(), name, Outcome::ByHand, format!("its file: {error}")),
    }
}

fn account_for_the_rest(path: &Path, assignments: &[Assignment], account: &mut Account) {
    let known = ["ExecStart", "Environment", "EnvironmentFile"];
    for assignment in assignments.iter().filter(|assignment| !known.contains(&assignment.name.as_str())) {
        let place = Place::line(path, assignment.line);
        match NEEDS_A_PERSON.iter().find(|(name, _)| *name == assignment.name) {
            Some((name, note)) => account.add(place, *name, Outcome::ByHand, *note),
            None => account.add(
                place,
                assignment.name.clone(),
                Outcome::NotNeeded,
                "the gateway has a unit of its own",
            ),
        }
    }
}

fn parse(text: &str) -> Vec<Assignment> {
    let lines = words::join_lines(text, &['\\']);
    let mut assignments: Vec<Assignment> = Vec::new();
    for JoinedLine { number, text } in lines {
        let text = text.trim();
        if text.is_empty() || text.starts_with(['#', ';', '[']) {
            continue;
        }
        let Some((name, value)) = text.split_once('=') else { continue };
        let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
        // An empty value takes back what was assigned before.
        match value.is_empty() {
            true => assignments.retain(|earlier| earlier.name != name),
            false => assignments.push(Assignment { name, value, line: number }),
        }
    }
    assignments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_those_of_systemd() {
        let unit = "[Service]\n# c\nEnvironment=A=1\nEnvironment=\nEnvironment=\"B=x y\" C=2\nExecStart=/a/run.sh \\\n  --port 8001\n";
        let read = parse(unit);
        let told: Vec<_> = read.iter().map(|it| (it.name.as_str(), it.value.as_str(), it.line)).collect();
        assert_eq!(told, [("Environment", "\"B=x y\" C=2", 5), ("ExecStart", "/a/run.sh    --port 8001", 6)]);
    }
}
