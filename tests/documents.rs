//! Checks that the documents are current: settings, finding codes and command lines match the
//! program, and links resolve.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use tenantd::cli::args::Arguments;
use tenantd::settings::{Environment, Flags, Limits, OpenTenants, SettingKey, Settings};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the files below a folder whose names end in `ending`, except build output and
/// third-party packages.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let skipped = ["target", "node_modules", ".git", ".venv"];
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("an entry")) {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && !skipped.iter().any(|skipped| name == *skipped) {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found
}

/// Returns the texts between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_setting_is_documented_in_its_spellings() {
    let page = read("docs/configuration.md");
    for key in SettingKey::ALL {
        for spelling in [key.as_str().to_owned(), key.variable()] {
            assert!(quoted(&page).any(|quoted| quoted == spelling), "docs/configuration.md lacks {spelling}");
        }
    }
}

/// Variables of this project that are not settings.
const OTHER_VARIABLES: [&str; 5] =
    ["TENANTD_CONFIG", "TENANTD_LOG_FILTER", "TENANTD_MASTER_KEY", "TENANTD_ADMIN_TOKEN", "TENANTD_ADMIN_CA"];

#[test]
fn every_documented_setting_exists() {
    let known: Vec<String> = SettingKey::ALL.iter().map(|key| key.variable()).collect();
    let is_known = |name: &str| known.iter().any(|key| key == name) || OTHER_VARIABLES.contains(&name);
    for page in pages() {
        let text = read(&page);
        let is_word = |c: char| c.is_ascii_uppercase() || c == '_';
        let names = text.match_indices("TENANTD_").map(|(at, _)| {
            let rest = &text[at..];
            &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())]
        });
        for name in names.filter(|name| *name != "TENANTD_") {
            assert!(is_known(name), "{} has {name}, which is no setting", page.display());
        }
    }
    let page = read("docs/configuration.md");
    let rows = page.lines().filter(|line| line.starts_with("| `--") || line.starts_with("| `TENANTD_"));
    for row in rows {
        let column = if row.starts_with("| `--") { 3 } else { 2 };
        let key = row.split('|').nth(column).unwrap_or_default().trim().trim_matches('`');
        let is_key = key.is_empty() || SettingKey::ALL.iter().any(|known| known.as_str() == key);
        assert!(is_key, "docs/configuration.md has the key {key:?}, which is none: {row}");
    }
}

#[test]
fn the_limits_are_documented_with_their_defaults() {
    let page = read("docs/configuration.md");
    let block = page.split("\nlimits:").nth(1).and_then(|rest| rest.split("```").next()).expect("the limits");
    let lines = block.lines().filter_map(|line| line.strip_prefix("  ")?.split_once(':'));
    let value = |text: &str| text.split('#').next().unwrap_or_default().trim().parse::<u64>();
    let documented: serde_json::Map<_, _> =
        lines.map(|(key, text)| (key.to_owned(), value(text).expect("a number").into())).collect();
    let limits = serde_json::to_value(Limits::default()).expect("plain data");
    assert_eq!(serde_json::Value::Object(documented), limits);
}

#[test]
fn the_settings_files_that_are_shipped_are_valid() {
    let shipped = files(&root().join("deploy"), "/tenantd.yaml");
    assert!(shipped.len() >= 3, "{shipped:?}");
    for path in shipped {
        let loaded = Settings::load(&Flags::new(), &Environment::default(), Some(&path));
        let loaded = loaded.unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
        let warnings: Vec<_> =
            loaded.warnings.iter().filter(|finding| finding.code != "plain-http").collect();
        assert!(warnings.is_empty(), "{}: {warnings:?}", path.display());
        // The tenants of a cluster that have neither a login nor keys can be served.
        assert_eq!(loaded.settings.open_tenants, OpenTenants::default(), "{}", path.display());
    }
}

/// Returns the pages of this project that people read.
fn pages() -> Vec<PathBuf> {
    let mut pages = files(&root().join("docs"), ".md");
    pages.extend(files(&root().join("deploy"), ""));
    pages.extend(["README.md", "SECURITY.md", "certs/README.md"].map(|page| root().join(page)));
    pages
}

/// Words in the modules below that look like finding codes and are not.
const NO_CODES: [&str; 17] = [
    "accept-encoding",
    "cassandra-context",
    "cassandra-search",
    "content-length",
    "content-type",
    "dynamodb-context",
    "dynamodb-search",
    "instance-data",
    "kebab-case",
    "keep-alive",
    "letsencrypt-staging",
    "nlp-context",
    "nlp-search",
    "self-signed",
    "transfer-encoding",
    "user-agent",
    "x-request-id",
];

/// Returns the finding codes in the source: the arguments of `Diagnostic`, and in modules that pass
/// codes on, every string that looks like one.
fn codes_of_source() -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    let src = root().join("src");
    for path in files(&src, ".rs") {
        let module = path.strip_prefix(&src).expect("below src");
        if module.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs"))) {
            continue;
        }
        let text = read(&path);
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code: String = lines.map(|line| format!("{line}\n")).collect();
        for kind in ["error(", "warning(", "notice(", "new("] {
            let start = format!("Diagnostic::{kind}");
            let calls = code.split(&start).skip(1);
            let given = calls.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
            codes.extend(given.map(str::to_owned));
        }
        if ["bundle", "settings", "backend/probe"].iter().any(|place| module.starts_with(place))
            || module.ends_with("backend/probe.rs")
            || module.ends_with("bundle.rs")
            || module.ends_with("settings.rs")
        {
            let texts = code.split('"').skip(1).step_by(2);
            codes.extend(texts.filter(|text| looks_like_code(text)).map(str::to_owned));
        }
    }
    codes
}

fn looks_like_code(text: &str) -> bool {
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.contains('-') && text.split('-').all(is_word) && !NO_CODES.contains(&text)
}

#[test]
fn findings_and_their_page_have_the_same_codes() {
    let source = codes_of_source();
    let text: String = files(&root().join("src"), ".rs").iter().map(read).collect();
    assert!(source.len() > 100, "the source was not understood: {source:?}");
    let page = read("docs/findings.md");
    let tables = page.split("## Codes").nth(1).expect("the page lists the codes");
    let rows = tables.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let mut documented = BTreeSet::new();
    for code in rows.flat_map(|row| quoted(&format!("`{row}")).map(str::to_owned).collect::<Vec<_>>()) {
        assert!(text.contains(&format!("\"{code}\"")), "docs/findings.md has {code}, the source has not");
        // The page is merged by union, so a row may be duplicated for a while.
        documented.insert(code);
    }
    let undocumented: Vec<_> = source.difference(&documented).collect();
    assert!(
        undocumented.is_empty(),
        "docs/findings.md lacks these, or they are no codes (NO_CODES): {undocumented:?}"
    );
}

/// Words in the doctor's source that look like codes and are not.
const NO_VERDICTS: [&str; 6] = [
    "application-gateway",
    "mcp-method",
    "mcp-protocol-version",
    "www-authenticate",
    "x-content-type-options",
    "x-forwarded-for",
];

/// The doctor's codes that no test makes it say.
const UNTESTED_VERDICTS: [&str; 0] = [];

/// Returns the texts in quotes that look like codes.
fn quoted_codes(code: &str) -> BTreeSet<String> {
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let texts: Vec<&str> = lines.flat_map(|line| line.split('"').skip(1).step_by(2)).collect();
    let is_code = |text: &&str| looks_like_code(text) && !text.starts_with(|c: char| c.is_ascii_digit());
    texts.into_iter().filter(is_code).map(str::to_owned).collect()
}

/// Returns the codes of the doctor's verdicts in its source, and its tests' texts.
fn verdicts_and_their_tests() -> (BTreeSet<String>, String) {
    let (mut source, mut tests) = (String::new(), String::new());
    let folder = files(&root().join("src/cli/doctor"), ".rs");
    for file in folder.into_iter().chain([root().join("src/cli/doctor.rs")]) {
        let text = read(&file);
        let (code, own_tests) = text.split_once("#[cfg(test)]\nmod tests {").unwrap_or((&text, ""));
        source += code;
        tests += own_tests;
    }
    source += read("src/backend/probe.rs").split("#[cfg(test)]").next().unwrap_or_default();
    let own = ["doctor.rs", "peers/doctor_traefik.rs", "postgres.rs"];
    let own = own.map(|file| read(format!("tests/gateway/{file}"))).concat();
    tests += &own;
    tests.extend(files(&root().join("tests/gateway/doctor"), ".rs").iter().map(read));
    let codes = quoted_codes(&source);
    (codes.into_iter().filter(|code| !NO_VERDICTS.contains(&code.as_str())).collect(), tests)
}

/// Returns the codes that a part of a page names.
fn named_codes(part: &str) -> BTreeSet<String> {
    quoted(part).filter(|text| looks_like_code(text)).map(str::to_owned).collect()
}

#[test]
fn each_verdict_of_the_doctor_is_on_its_page_and_has_a_test() {
    let (codes, tests) = verdicts_and_their_tests();
    assert!(codes.len() > 90, "the source was not understood: {codes:?}");
    let page = read("docs/doctor.md");
    let (_, tables) = page.split_once("## Verdicts").expect("the page lists them");
    let (tables, _) = tables.split_once("## The support bundle").expect("another part follows");
    let documented = named_codes(tables);
    let missing: Vec<_> = codes.difference(&documented).collect();
    assert!(
        missing.is_empty(),
        "docs/doctor.md lacks these, or they are no codes (NO_VERDICTS): {missing:?}"
    );
    let unknown: Vec<_> = documented.difference(&codes).collect();
    assert!(unknown.is_empty(), "no verdict has these codes of docs/doctor.md: {unknown:?}");
    let is_tested = |code: &&String| tests.contains(&format!("\"{code}\""));
    let untested: Vec<_> = codes.iter().filter(|code| !is_tested(code)).map(String::as_str).collect();
    assert_eq!(untested, UNTESTED_VERDICTS, "each verdict has a test that breaks the world and reads it");
}

#[test]
fn each_trouble_that_the_doctor_names_is_in_the_table_of_symptoms() {
    let (codes, _) = verdicts_and_their_tests();
    let page = read("docs/doctor.md");
    let (_, harmless) = page.split_once("### Not checked").expect("the page says what is no fault");
    let (harmless, _) = harmless.split_once("## The support bundle").expect("another part follows");
    let harmless = named_codes(harmless);
    let page = read("docs/troubleshooting.md");
    let (_, symptoms) = page.split_once("## Each symptom").expect("the page has the table");
    let (symptoms, _) = symptoms.split_once("## Exports").expect("another part follows");
    let rows = symptoms.lines().filter(|line| line.starts_with("| "));
    let cells = rows.map(|row| row.split(" | ").take(2).collect::<Vec<_>>().join(" "));
    let named: BTreeSet<String> = cells.flat_map(|cells| named_codes(&cells)).collect();
    let findings = codes_of_source();
    let unknown: Vec<_> =
        named.iter().filter(|code| !codes.contains(*code) && !findings.contains(*code)).collect();
    assert!(unknown.is_empty(), "these codes of docs/troubleshooting.md do not exist: {unknown:?}");
    let missing: Vec<_> =
        codes.iter().filter(|code| !named.contains(*code) && !harmless.contains(*code)).collect();
    assert!(missing.is_empty(), "docs/troubleshooting.md has no row for these: {missing:?}");
}

/// Returns the `tenantd` command lines in the code of a page, each up to the end of the command.
fn commands(page: &str) -> Vec<Vec<String>> {
    let mut code: Vec<String> = Vec::new();
    let mut is_fenced = false;
    let joined = page.replace("\\\n", " ");
    for line in joined.lines() {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        } else if is_fenced || line.starts_with("    ") {
            code.push(line.to_owned());
        } else {
            code.extend(quoted(line).filter(|text| text.starts_with("tenantd ")).map(str::to_owned));
        }
    }
    code.iter().flat_map(|line| commands_of(line)).collect()
}

/// Splits a shell line as far as our examples need it.
fn commands_of(line: &str) -> Vec<Vec<String>> {
    let line = line.split(" #").next().unwrap_or_default();
    let mut found = Vec::new();
    let mut command: Option<Vec<String>> = None;
    let mut before = String::new();
    for word in words(line) {
        let ends = ["&&", "|", "||", ";", "&", ">", "2>", ">>", "2>&1"].contains(&word.as_str());
        match &mut command {
            Some(_) if ends => found.extend(command.take()),
            // A service named `tenantd`, in which the program is run.
            Some(arguments) if word == "tenantd" && arguments.len() == 1 => {}
            Some(arguments) => arguments.push(word.clone()),
            None if is_program(&word) && may_come_before(&before) => {
                command = Some(vec!["tenantd".to_owned()]);
            }
            None => {}
        }
        before = word;
    }
    found.extend(command);
    found
}

fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if open == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, ' ' | '\t') => words.push(String::new()),
            _ => words.last_mut().expect("there is one").push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn is_program(word: &str) -> bool {
    word == "tenantd" || word.ends_with("/tenantd")
}

/// Returns whether a word may precede the program. After other words `tenantd` names a folder, a
/// user or a service.
fn may_come_before(word: &str) -> bool {
    ["", "$", "sudo", "nohup", "--", "exec", "&&", ";", "|", "run"].contains(&word) || word.contains('=')
}

/// Expands `list|show` into two commands, and cuts at `…`, which stands for any further arguments.
fn spelled_out(command: &[String]) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    for word in command.iter().take_while(|word| !word.starts_with('…') && *word != "...") {
        let ways: Vec<&str> = if word.starts_with("http") { vec![word] } else { word.split('|').collect() };
        all = all
            .iter()
            .flat_map(|so_far: &Vec<String>| {
                ways.iter().map(move |way| [so_far.clone(), vec![(*way).to_owned()]].concat())
            })
            .collect();
    }
    all
}

#[test]
fn every_command_that_is_shown_is_understood() {
    use clap::error::ErrorKind;
    let mut seen = 0;
    for page in pages() {
        let text = read(&page);
        for command in commands(&text).iter().flat_map(|command| spelled_out(command)) {
            seen += 1;
            let Err(error) = Arguments::try_parse_from(&command) else { continue };
            // In running text a verb stands without its arguments.
            let is_part = matches!(
                error.kind(),
                ErrorKind::DisplayHelp
                    | ErrorKind::DisplayVersion
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                    | ErrorKind::MissingRequiredArgument
                    | ErrorKind::MissingSubcommand
            );
            assert!(is_part, "{} shows {command:?}:\n{error}", page.display());
        }
    }
    assert!(seen > 60, "the pages were not understood: {seen} commands");
}

#[test]
fn the_sentences_of_troubleshooting_are_those_of_the_program() {
    let page = read("docs/troubleshooting.md");
    let section = page.split("## Answers of the tool").nth(1).and_then(|rest| rest.split("\n## ").next());
    let rows = section
        .expect("the answers")
        .lines()
        .filter_map(|line| line.strip_prefix("| the ")?.split(" |").next());
    let source = read("src/backend/error.rs");
    let mut seen = 0;
    for sentence in rows {
        let said = format!("the {}", sentence.split(" …").next().unwrap_or_default());
        assert!(source.contains(&said), "docs/troubleshooting.md has a sentence that is not said: {said}");
        seen += 1;
    }
    assert!(seen > 10, "the page was not understood");
}

/// Flags of other programs.
const OTHER_FLAGS: [&str; 5] = ["--cacert", "--release", "--resolve", "--strict", "--ulimit"];

#[test]
fn every_flag_that_is_named_exists() {
    let known = flags_of(&Arguments::command());
    let is_flag = |c: char| c.is_ascii_lowercase() || c == '-';
    for page in pages().into_iter().filter(|page| page.extension().is_some_and(|it| it == "md")) {
        let text = read(&page);
        let spans = text.match_indices("`--").map(|(at, _)| &text[at + 1..]);
        for flag in spans.map(|rest| &rest[..rest.find(|c| !is_flag(c)).unwrap_or(rest.len())]) {
            let is_known = known.contains(flag) || OTHER_FLAGS.contains(&flag);
            assert!(is_known, "{} names {flag}, which no verb has", page.display());
        }
    }
}

fn flags_of(command: &clap::Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(|argument| argument.get_long());
    let own = own.chain(["help", "version"]).map(|long| format!("--{long}"));
    own.chain(command.get_subcommands().flat_map(flags_of)).collect()
}

#[test]
fn a_command_that_is_not_is_found() {
    let found =
        |text: &str| commands(text).iter().flat_map(|command| spelled_out(command)).collect::<Vec<_>>();
    let page = "Run `tenantd check --alive` or\n\n    sudo /usr/local/bin/tenantd serve \\\n        --host 'a b' && ls   # yes\n";
    let shown = found(page);
    assert_eq!(shown[0], ["tenantd", "check", "--alive"]);
    assert_eq!(shown[1], ["tenantd", "serve", "--host", "a b"]);
    assert_eq!(shown.len(), 2);
    assert!(Arguments::try_parse_from(&shown[0]).is_err() && Arguments::try_parse_from(&shown[1]).is_ok());
    assert_eq!(found("`tenantd certs list|show …`").len(), 2);
}

#[test]
fn every_file_that_architecture_names_exists() {
    let text = read("ARCHITECTURE.md");
    let named: Vec<_> = quoted(&text).filter(|name| name.ends_with(".rs") && !name.contains(' ')).collect();
    assert!(named.len() > 50, "the page was not understood: {named:?}");
    for name in named {
        let is_there = |folder: &str| root().join(folder).join(name).exists();
        // A bare name is a file of the folder that its line speaks of.
        let is_relative = !name.contains('/');
        assert!(
            is_relative || is_there("src") || is_there(""),
            "ARCHITECTURE.md names {name}, which is not there"
        );
    }
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let folders = ["src", "tests"].map(|folder| files(&root().join(folder), ".rs"));
    let source: String = folders.iter().flatten().map(read).collect();
    let page = read("docs/threat-model.md");
    // A test's name is a sentence; names of settings and fields are shorter.
    let names: Vec<_> = quoted(&page)
        .filter(|name| {
            name.matches('_').count() >= 4 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        })
        .collect();
    assert!(names.len() > 50, "the page was not understood: {names:?}");
    for name in names {
        assert!(
            source.contains(&format!("fn {name}(")),
            "docs/threat-model.md names {name}, which is no test"
        );
    }
}

#[test]
fn no_cell_of_the_neighbour_matrix_is_empty() {
    let page = read("docs/threat-model.md");
    let matrix = page.split("## The neighbour matrix").nth(1).and_then(|rest| rest.split("\n## ").next());
    let rows: Vec<Vec<_>> = matrix
        .expect("the page has the matrix")
        .lines()
        .filter(|line| line.starts_with("| **"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() >= 15, "the matrix was not understood: {rows:?}");
    for row in rows {
        assert_eq!(row.len(), 5, "a resource and four attackers: {row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "an empty cell: {row:?}");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for page in files(root(), ".md") {
        let text = read(&page);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let path = target.split('#').next().unwrap_or_default();
            let folder = page.parent().expect("a file has a folder");
            assert!(folder.join(path).exists(), "{} links to {target}", page.display());
        }
    }
}
