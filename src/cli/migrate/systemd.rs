//! systemd units that run the vendor's `run.sh` (systemd.service(5), systemd.syntax(7)).

use std::path::{Path, PathBuf};

use super::docker_run;
use super::environment::{set_variable, set_variables};
use super::exports;
use super::installation::{Installation, OldServer, SwitchCommands};
use super::inventory::{Disposition, Inventory, Place};
use super::source::{Locator, SourceFile, has_extension, read_env_file};
use super::values::MCP_PORT;
use super::words::{self, JoinedLine};
use crate::base::disk;

/// Where the vendor's `run.sh` serves if nothing says otherwise.
const DEFAULT_PORT: u16 = 8000;
const MAX_DROP_IN: u64 = 1 << 20;

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
    place: Place,
}

/// Reads a unit. One that runs something else is left alone.
pub(super) fn read(
    path: &Path,
    text: &str,
    sources: &[SourceFile],
    locator: &Locator,
    into: &mut Installation,
) {
    if path.parent().and_then(Path::extension).is_some_and(|extension| extension == "d") {
        // A drop-in is part of its unit.
        return;
    }
    let mut assignments = Vec::new();
    parse(path, text, &mut assignments);
    read_drop_ins(path, &mut assignments, into);
    let find = |name: &str| assignments.iter().rev().find(|assignment| assignment.name == name);
    let Some(start) = find("ExecStart") else { return };
    let place = start.place.clone();
    for assignment in assignments.iter().filter(|assignment| has_specifier(&assignment.value)) {
        let note = "it has a specifier (%), which only systemd knows; write the tenant's value yourself";
        into.inventory.add(assignment.place.clone(), assignment.name.clone(), Disposition::ByHand, note);
    }
    let command = match words::split(start.value.trim_start_matches(['-', '@', ':', '+', '!'])) {
        Ok(command) => command,
        Err(why) => return into.inventory.add(place, "ExecStart", Disposition::ByHand, why),
    };
    let unit = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let is_compose = |word: &String| word == "compose" || word.ends_with("docker-compose");
    if command.iter().any(is_compose) && command.iter().any(|word| word == "up") {
        let note = "the Compose file says the rest; give its folder as FROM, too";
        return into.inventory.add(place, "ExecStart: docker compose", Disposition::Replaced, note);
    }
    if command.get(1).is_some_and(|word| word == "run") {
        let line = JoinedLine { number: place.line.unwrap_or(1), text: command.join(" ") };
        match docker_run::read_words(path, &line, &command, sources, locator, into) {
            true => set_switch(into, &unit),
            false => {
                into.inventory.add(place, format!("unit {unit}"), Disposition::Left, "it runs something else")
            }
        }
        return;
    }
    let Some(at) = command.iter().position(|word| word == "run.sh" || word.ends_with("/run.sh")) else {
        return into.inventory.add(
            place,
            format!("unit {unit}"),
            Disposition::Left,
            "it runs something else",
        );
    };
    let mut server = OldServer::new(place.clone(), format!("unit {unit}"), unit.clone());
    let folder =
        find("WorkingDirectory").map(|assignment| PathBuf::from(assignment.value.trim_start_matches('-')));
    read_environment(path, &assignments, locator, &mut server, &mut into.inventory);
    server.values.set_flags(&command[at + 1..], &place, &mut into.inventory);
    let script = folder.unwrap_or_default().join(command[at].trim_start_matches("./"));
    let base = path.parent().unwrap_or(Path::new(""));
    let tree = script.parent().and_then(Path::parent).map(|tree| locator.resolve(tree, base));
    attach_tree(&mut server, tree, &place, sources, into);
    let port = server.value(MCP_PORT).and_then(|port| port.parse().ok());
    server.port = Some(port.unwrap_or(DEFAULT_PORT));
    account_for_the_rest(&assignments, &mut into.inventory);
    into.servers.push(server);
    set_switch(into, &unit);
}

/// Whether a value contains `%i` or the like; `%%` is a percent sign.
fn has_specifier(value: &str) -> bool {
    let rest = value.replace("%%", "");
    rest.split('%').skip(1).any(|behind| behind.starts_with(|c: char| c.is_ascii_alphabetic()))
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
    sources: &[SourceFile],
    into: &mut Installation,
) {
    let Some(tree) = tree.filter(|tree| tree.is_dir()) else {
        let note = "the unpacked export that it runs is not on this machine; give its folder as FROM, too";
        return into.inventory.add(place.clone(), "ExecStart: run.sh", Disposition::ByHand, note);
    };
    into.mark_used(&tree);
    match exports::attach(server, &tree, sources) {
        Ok(()) => into.inventory.add(
            place.clone(),
            "ExecStart: run.sh",
            Disposition::Replaced,
            "the gateway serves it",
        ),
        Err(why) => into.inventory.add(Place::file(&tree), "export", Disposition::ByHand, why),
    }
}

fn read_environment(
    path: &Path,
    assignments: &[Assignment],
    locator: &Locator,
    server: &mut OldServer,
    inventory: &mut Inventory,
) {
    // Files win over lines of the unit, wherever they stand.
    for assignment in assignments.iter().filter(|assignment| assignment.name == "Environment") {
        let place = assignment.place.clone();
        match words::split(&assignment.value) {
            Ok(pairs) => {
                for (name, value) in pairs.iter().filter_map(|pair| pair.split_once('=')) {
                    set_variable(server, name, value, &place, locator, inventory);
                }
            }
            Err(why) => inventory.add(place, "Environment", Disposition::ByHand, why),
        }
    }
    for assignment in assignments.iter().filter(|assignment| assignment.name == "EnvironmentFile") {
        let place = assignment.place.clone();
        let is_optional = assignment.value.starts_with('-');
        let file = locator.resolve(
            Path::new(assignment.value.trim_start_matches('-')),
            path.parent().unwrap_or(Path::new("")),
        );
        match read_env_file(&file) {
            Ok(env) => {
                set_variables(server, &file, &env, locator, inventory);
                inventory.add(
                    place,
                    "EnvironmentFile",
                    Disposition::Replaced,
                    "its variables are taken over",
                );
            }
            Err(_) if is_optional && !file.exists() => {}
            Err(why) => inventory.add(place, "EnvironmentFile", Disposition::ByHand, why),
        }
    }
}

fn account_for_the_rest(assignments: &[Assignment], inventory: &mut Inventory) {
    let known = ["ExecStart", "Environment", "EnvironmentFile"];
    for assignment in assignments.iter().filter(|assignment| !known.contains(&assignment.name.as_str())) {
        let place = assignment.place.clone();
        match NEEDS_A_PERSON.iter().find(|(name, _)| *name == assignment.name) {
            Some((name, note)) => inventory.add(place, *name, Disposition::ByHand, *note),
            None => inventory.add(
                place,
                assignment.name.clone(),
                Disposition::NotNeeded,
                "the gateway has a unit of its own",
            ),
        }
    }
}

/// Reads `tursio-mcp.service.d/*.conf`, which systemd reads after the unit.
fn read_drop_ins(path: &Path, assignments: &mut Vec<Assignment>, into: &mut Installation) {
    let mut folder = path.as_os_str().to_owned();
    folder.push(".d");
    let listed = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = listed.map(|entry| entry.path()).collect();
    files.retain(|path| has_extension(path, &["conf"]));
    files.sort();
    for file in files {
        match disk::read_text(&file, MAX_DROP_IN) {
            Ok(text) => parse(&file, &text, assignments),
            Err(error) => {
                into.inventory.add(Place::file(&file), "the file", Disposition::ByHand, error.to_string())
            }
        }
    }
}

fn parse(file: &Path, text: &str, assignments: &mut Vec<Assignment>) {
    for JoinedLine { number, text } in words::join_lines(text, &['\\']) {
        let text = text.trim();
        if text.is_empty() || text.starts_with(['#', ';', '[']) {
            continue;
        }
        let Some((name, value)) = text.split_once('=') else { continue };
        let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
        // An empty value takes back what was assigned before.
        match value.is_empty() {
            true => assignments.retain(|earlier| earlier.name != name),
            false => assignments.push(Assignment { name, value, place: Place::line(file, number) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_those_of_systemd() {
        let unit = "[Service]\n# c\nEnvironment=A=1\nEnvironment=\nEnvironment=\"B=x y\" \
                    C=2\nExecStart=/a/run.sh \\\n  --port 8001\n";
        let mut read = Vec::new();
        parse(Path::new("x"), unit, &mut read);
        let told: Vec<_> = read
            .iter()
            .map(|it| (it.name.as_str(), it.value.as_str(), it.place.line.expect("a line")))
            .collect();
        assert_eq!(told, [("Environment", "\"B=x y\" C=2", 5), ("ExecStart", "/a/run.sh    --port 8001", 6)]);
    }
}
