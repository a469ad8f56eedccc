//! Finds the files of an old installation, and recognizes what each is by its contents.
//!
//! Reads only regular files, within limits. Links to files are followed (NGINX's `sites-enabled`),
//! links to folders are not.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::inventory::{Disposition, Inventory, Place};
use super::nginx::{self, Directive};
use super::values;
use crate::base::disk;
use crate::bundle::notation;
use crate::bundle::{self, ConfigNode};

/// The largest text that is read, in bytes: a Kubernetes list may have several Secrets.
const MAX_TEXT: u64 = 16 << 20;
const MAX_FILES: usize = 10_000;
const MAX_DEPTH: usize = 8;

/// What a file or folder is.
pub(super) enum Content {
    /// A vendor's export.
    Zip,
    /// A folder with an unpacked export, and the configurations in it.
    Tree(Vec<PathBuf>),
    /// The configuration of an export.
    Config,
    Env(ConfigNode),
    Compose(ConfigNode),
    Unit(String),
    Manifests(Vec<ConfigNode>),
    Nginx(Vec<Directive>),
    DockerRun(String),
}

/// A file or folder that was recognized.
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    pub(super) content: Content,
}

/// Why a file that looks like one of these could not be read.
struct Fault {
    line: Option<usize>,
    what: String,
}

/// Finds all sources at and below these paths, but not in the folder `except`. What looks like a
/// source and cannot be read is in the inventory.
///
/// # Errors
/// A path does not exist or cannot be read.
pub(super) fn find_sources(
    from: &[PathBuf],
    except: &Path,
    inventory: &mut Inventory,
) -> anyhow::Result<Vec<SourceFile>> {
    // What was seen is not read again.
    let seen = except.canonicalize().into_iter().collect();
    let mut search = Search { inventory, sources: Vec::new(), seen, files: 0 };
    for path in from {
        let read = fs::metadata(path).and_then(|about| match about.is_dir() {
            true => search.folder(path, 0),
            false => {
                search.file(path, true);
                Ok(())
            }
        });
        read.map_err(|error| anyhow::anyhow!("{} cannot be read: {}", path.display(), disk::why(&error)))?;
    }
    Ok(search.sources)
}

struct Search<'a> {
    inventory: &'a mut Inventory,
    sources: Vec<SourceFile>,
    seen: BTreeSet<PathBuf>,
    files: usize,
}

impl Search<'_> {
    fn folder(&mut self, folder: &Path, depth: usize) -> io::Result<()> {
        if !self.seen.insert(folder.canonicalize()?) {
            return Ok(());
        }
        let is_tree = bundle::is_unpacked_export(folder);
        if is_tree {
            let configs = list(&folder.join("mcp/server/configs"))?;
            let configs = configs.into_iter().filter(|path| has_extension(path, &["yaml", "yml"])).collect();
            self.add(folder, Content::Tree(configs));
        }
        if depth == MAX_DEPTH {
            return Ok(());
        }
        for path in list(folder)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_link = fs::symlink_metadata(&path).is_ok_and(|about| about.is_symlink());
            if path.is_dir() {
                let is_skipped =
                    name.starts_with('.') || name == "node_modules" || (is_tree && name == "mcp");
                if !is_skipped && !is_link {
                    self.folder(&path, depth + 1)?;
                }
                continue;
            }
            self.files += 1;
            if self.files > MAX_FILES {
                return Err(io::Error::other("there are more than 10,000 files below it"));
            }
            if !name.starts_with('.') || is_env_name(&name) {
                self.file(&path, false);
            }
        }
        Ok(())
    }

    /// Reads a file. `is_named`: an operator named it, so that something is said of it in any case.
    fn file(&mut self, path: &Path, is_named: bool) {
        if !self.seen.insert(path.canonicalize().unwrap_or_else(|_| path.to_owned())) {
            return;
        }
        match recognize(path, is_named) {
            Ok(Some(content)) => self.add(path, content),
            Ok(None) if is_named => self.inventory.add(
                Place::file(path),
                "the file",
                Disposition::ByHand,
                "it is none of what can be moved: an export, a .env, a Compose file, a systemd unit, \
                 Kubernetes \
                 manifests, an NGINX configuration or a `docker run` line",
            ),
            Ok(None) => {}
            Err(fault) => {
                let place = Place { file: path.to_owned(), line: fault.line };
                self.inventory.add(place, "the file", Disposition::ByHand, fault.what);
            }
        }
    }

    fn add(&mut self, path: &Path, content: Content) {
        self.sources.push(SourceFile { path: path.to_owned(), content });
    }
}

/// Lists a folder in a stable order.
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths: Vec<_> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.sort();
    Ok(paths)
}

fn recognize(path: &Path, is_named: bool) -> Result<Option<Content>, Fault> {
    if has_extension(path, &["zip"]) {
        return Ok(Some(Content::Zip));
    }
    let is_yaml_name = has_extension(path, &["yaml", "yml", "json"]);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = match disk::read_text(path, MAX_TEXT) {
        Ok(text) => text,
        Err(disk::Error::NotUtf8) if starts_like_zip(path) => return Ok(Some(Content::Zip)),
        Err(_) if !(is_named || is_yaml_name || is_env_name(&name)) => return Ok(None),
        Err(error) => return Err(Fault { line: None, what: error.to_string() }),
    };
    if text.lines().any(|line| matches!(line.trim(), "[Service]" | "[Unit]")) {
        return Ok(Some(Content::Unit(text)));
    }
    if !is_yaml_name && looks_like_nginx(&text) {
        return nginx::parse(&text).map(|read| Some(Content::Nginx(read))).map_err(|error| Fault {
            line: Some(error.line),
            what: format!("this is not an NGINX configuration: {}", error.what),
        });
    }
    if !is_yaml_name && text.lines().any(is_docker_run) {
        return Ok(Some(Content::DockerRun(text)));
    }
    if is_env_name(&name) || (is_named && !is_yaml_name && looks_like_env(&text)) {
        return read_env(&text).map(|read| Some(Content::Env(read)));
    }
    if !is_yaml_name {
        return Ok(None);
    }
    let documents = notation::parse_yaml(&text).map_err(|errors| first_fault(&errors))?;
    Ok(recognize_yaml(documents))
}

fn recognize_yaml(documents: Vec<ConfigNode>) -> Option<Content> {
    let has = |root: &ConfigNode, name: &str| root.member(name).is_some();
    if documents.iter().any(|root| has(root, "apiVersion") && has(root, "kind")) {
        return Some(Content::Manifests(documents));
    }
    let root = documents.into_iter().next()?;
    if root.member("services").is_some_and(|(_, services)| !services.pairs().is_empty()) {
        return Some(Content::Compose(root));
    }
    let known = values::VARIABLES.iter().filter(|known| has(&root, &known.name.to_ascii_lowercase()));
    (known.count() >= 2).then_some(Content::Config)
}

fn read_env(text: &str) -> Result<ConfigNode, Fault> {
    notation::parse_env(text).map_err(|errors| first_fault(&errors))
}

fn first_fault(errors: &[bundle::SyntaxError]) -> Fault {
    let error = errors.first();
    Fault {
        line: error.map(|error| error.at.line),
        what: error.map_or_else(String::new, |error| format!("{}; {}", error.message, error.help)),
    }
}

/// Reads a `.env` that another file names.
///
/// # Errors
/// What is wrong with it, in words for people.
pub(super) fn read_env_file(path: &Path) -> Result<ConfigNode, String> {
    let text = disk::read_text(path, MAX_TEXT).map_err(|error| error.to_string())?;
    read_env(&text).map_err(|fault| match fault.line {
        Some(line) => format!("line {line}: {}", fault.what),
        None => fault.what,
    })
}

fn starts_like_zip(path: &Path) -> bool {
    disk::read(path, notation::MAX_EXPORT).is_ok_and(|bytes| bytes.starts_with(b"PK\x03\x04"))
}

pub(super) fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    extensions.contains(&extension.as_str())
}

/// Whether a file is a `.env` that is in use; `env.example` is a template.
fn is_env_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_template = ["example", "sample", "template", "dist", "bak"].iter().any(|word| name.contains(word));
    !is_template && (name == ".env" || name.ends_with(".env") || name.starts_with(".env."))
}

fn looks_like_env(text: &str) -> bool {
    let mut lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).peekable();
    lines.peek().is_some() && lines.all(|line| line.contains('='))
}

fn looks_like_nginx(text: &str) -> bool {
    let begins = |line: &str| {
        let first = line.split([' ', '\t', '{']).next().unwrap_or_default();
        match first {
            "server" | "http" => line.trim_end().ends_with('{') || line.contains("{ "),
            "location" | "upstream" => line.contains('{'),
            "proxy_pass" => line.contains(';'),
            _ => false,
        }
    };
    text.lines().any(|line| begins(line.trim_start()))
}

/// Whether a line of a script starts a container.
pub(super) fn is_docker_run(line: &str) -> bool {
    let line = line.trim_start();
    let line = line.strip_prefix("sudo ").unwrap_or(line).trim_start();
    ["docker run ", "docker container run ", "podman run "].iter().any(|run| line.starts_with(run))
}

/// Finds files that others name.
pub(super) struct Locator {
    found: Vec<PathBuf>,
}

impl Locator {
    pub(super) fn new(sources: &[SourceFile]) -> Self {
        Self { found: sources.iter().map(|source| source.path.clone()).collect() }
    }

    /// Returns the path that `path` means in a file of the folder `base`. If it does not exist on
    /// this machine, a source whose path ends alike is taken: files of another machine may have
    /// been copied here.
    pub(super) fn resolve(&self, path: &Path, base: &Path) -> PathBuf {
        let place = base.join(path.strip_prefix("./").unwrap_or(path));
        if place.exists() {
            return place;
        }
        let alike = |found: &&PathBuf| {
            let pairs = found.components().rev().zip(place.components().rev());
            pairs.take_while(|(a, b)| a == b).count()
        };
        let best = self.found.iter().max_by_key(alike).filter(|found| alike(found) > 0);
        best.filter(|best| self.found.iter().filter(|found| alike(found) == alike(best)).count() == 1)
            .cloned()
            .unwrap_or(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_recognized_by_what_is_in_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let what = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("written");
            match recognize(&path, true) {
                Ok(Some(content)) => match content {
                    Content::Zip => "zip",
                    Content::Tree(_) => "tree",
                    Content::Config => "config",
                    Content::Env(_) => "env",
                    Content::Compose(_) => "compose",
                    Content::Unit(_) => "unit",
                    Content::Manifests(_) => "manifests",
                    Content::Nginx(_) => "nginx",
                    Content::DockerRun(_) => "docker run",
                },
                Ok(None) => "nothing",
                Err(_) => "fault",
            }
        };
        assert_eq!(what("a", "PK\u{3}\u{4}"), "nothing");
        assert_eq!(what("b.zip", ""), "zip");
        assert_eq!(what("c", "[Service]\nExecStart=x\n"), "unit");
        assert_eq!(what("d", "server {\n listen 80;\n}\n"), "nginx");
        assert_eq!(what("e.conf", "server {\n listen 80;\n"), "fault");
        assert_eq!(what("f.yaml", "services:\n  x: {image: y}\n"), "compose");
        assert_eq!(what("g.yml", "---\napiVersion: v1\nkind: Secret\n"), "manifests");
        assert_eq!(what("h.yaml", "search_url: x\napi_key: y\n"), "config");
        assert_eq!(what("i.yaml", "server: [\n"), "fault");
        assert_eq!(what("j.sh", "#!/bin/sh\nsudo docker run -d x\n"), "docker run");
        assert_eq!(what(".env", "A=1\n"), "env");
        assert_eq!(what("k", "A=1\n# c\nB=2\n"), "env");
        assert_eq!(what("l.txt", "hello\n"), "nothing");
        assert!(!is_env_name("env.example") && !is_env_name(".env.example") && is_env_name("prod.env"));
    }

    #[test]
    fn a_path_of_another_machine_is_found_among_the_copies() {
        let source = |path: &str| SourceFile { path: path.into(), content: Content::Zip };
        let locator = Locator::new(&[source("/copy/opt/a"), source("/copy/opt/b"), source("/copy/x/b")]);
        let found = |path: &str| locator.resolve(Path::new(path), Path::new("/none"));
        assert_eq!(found("/opt/b"), Path::new("/copy/opt/b"));
        assert_eq!(found("/srv/b"), Path::new("/srv/b"), "two end alike");
        assert_eq!(found("./c"), Path::new("/none/c"));
    }
}
