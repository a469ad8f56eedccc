//! Exports of the old installation: zips, and configurations of unpacked ones.

use std::path::Path;

use super::installation::{ExportFile, Installation, OldServer};
use super::inventory::{Disposition, Place};
use super::source::{Content, SourceFile};
use super::values::Values;
use crate::base::disk;
use crate::bundle::notation;

const MAX_CONFIG: u64 = 256 << 10;

/// Gives a server the export at `path`: a zip, the configuration of an unpacked export, or the
/// folder with one.
///
/// # Errors
/// Why it cannot be used, in words for people.
pub(super) fn attach(server: &mut OldServer, path: &Path, sources: &[SourceFile]) -> Result<(), String> {
    if path.is_dir() {
        let config = only_config(path, sources)?;
        return attach_config(server, &config);
    }
    let bytes = disk::read(path, notation::MAX_EXPORT).map_err(|error| error.to_string())?;
    attach_packed(server, bytes, path)?;
    server.export = Some(ExportFile::Zip(path.to_owned()));
    Ok(())
}

/// Gives a server an export in memory; `origin` is the file that contains it.
///
/// # Errors
/// Why it cannot be used, in words for people.
pub(super) fn attach_packed(server: &mut OldServer, bytes: Vec<u8>, origin: &Path) -> Result<(), String> {
    let configs = notation::read_export(bytes.clone())?;
    match configs.as_slice() {
        [] => return Err("No .yaml config files found in zip".to_owned()),
        [(dataset, text)] => {
            server.dataset = Some(dataset.clone());
            server.config = read_config(text, origin)?;
        }
        several => {
            let names: Vec<_> = several.iter().map(|(dataset, _)| dataset.as_str()).collect();
            return Err(format!(
                "it has several configurations ({}); export each on its own",
                names.join(", ")
            ));
        }
    }
    server.export = Some(ExportFile::Packed(bytes));
    Ok(())
}

fn attach_config(server: &mut OldServer, path: &Path) -> Result<(), String> {
    let text = disk::read_text(path, MAX_CONFIG).map_err(|error| error.to_string())?;
    server.config = read_config(&text, path)?;
    server.dataset = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    server.export = Some(ExportFile::Config(path.to_owned()));
    Ok(())
}

fn read_config(text: &str, file: &Path) -> Result<Values, String> {
    let documents = notation::parse_yaml(text).map_err(|errors| {
        errors.first().map_or_else(String::new, |error| format!("line {}: {}", error.at.line, error.message))
    })?;
    let mut values = Values::default();
    for (key, node) in documents.iter().flat_map(|root| root.pairs()) {
        if let Some(text) = node.text().filter(|_| !node.is_blank()) {
            values.set_of_config(&key.text, text, Place::line(file, key.at.line));
        }
    }
    Ok(values)
}

fn only_config(folder: &Path, sources: &[SourceFile]) -> Result<std::path::PathBuf, String> {
    let configs = sources.iter().find_map(|source| match &source.content {
        Content::Tree(configs) if source.path == folder => Some(configs.clone()),
        _ => None,
    });
    let configs = configs.unwrap_or_else(|| configs_below(folder));
    match configs.as_slice() {
        [config] => Ok(config.clone()),
        [] => Err("No .yaml config files found in mcp/server/configs".to_owned()),
        several => {
            Err(format!("it has {} configurations; give the one that the server used as FROM", several.len()))
        }
    }
}

fn configs_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let listed = std::fs::read_dir(folder.join("mcp/server/configs")).into_iter().flatten().flatten();
    let mut configs: Vec<_> = listed.map(|entry| entry.path()).collect();
    configs.retain(|path| super::source::has_extension(path, &["yaml", "yml"]));
    configs.sort();
    configs
}

/// Finds the servers of the exports that none uses yet. A server that lacks its export gets the
/// only one in its folder, or the only one at all. If no server lacks one, an export is a tenant by
/// itself.
pub(super) fn assign_rest(sources: &[SourceFile], into: &mut Installation) {
    for at in lacking(into) {
        let folder = into.servers[at].place.file.parent().map(Path::to_owned);
        let beside: Vec<_> = unused(sources, into)
            .into_iter()
            .filter(|source| source.path.parent() == folder.as_deref())
            .collect();
        if let [source] = beside.as_slice() {
            assign(at, source, sources, "it is the only one in its folder", into);
        }
    }
    if let ([at], [source]) = (lacking(into).as_slice(), unused(sources, into).as_slice()) {
        assign(*at, source, sources, "it is the only one without", into);
    }
    let is_clear = lacking(into).is_empty();
    for source in unused(sources, into) {
        match is_clear {
            true => add_bare(source, sources, into),
            false => {
                let note = "several servers lack their export, and nothing says whose this is: put it into \
                            the folder \
                            under the tenant's name";
                into.inventory.add(Place::file(&source.path), "export", Disposition::ByHand, note);
            }
        }
        into.mark_used(&source.path);
    }
}

fn lacking(installation: &Installation) -> Vec<usize> {
    (0..installation.servers.len()).filter(|&at| installation.servers[at].export.is_none()).collect()
}

fn unused<'a>(sources: &'a [SourceFile], installation: &Installation) -> Vec<&'a SourceFile> {
    let is_export =
        |source: &&SourceFile| matches!(source.content, Content::Zip | Content::Tree(_) | Content::Config);
    sources.iter().filter(is_export).filter(|source| !installation.is_used(&source.path)).collect()
}

fn assign(at: usize, source: &SourceFile, sources: &[SourceFile], why: &str, into: &mut Installation) {
    let server = &mut into.servers[at];
    let place = Place::file(&source.path);
    match attach_source(server, source, sources) {
        Ok(()) => {
            let note = format!("taken for the export of {}: {why}", server.title);
            into.inventory.add(place, "export", Disposition::Kept, note);
        }
        Err(why) => into.inventory.add(place, "export", Disposition::ByHand, why),
    }
    into.mark_used(&source.path);
}

fn add_bare(source: &SourceFile, sources: &[SourceFile], into: &mut Installation) {
    let stem = source.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut server = OldServer::new(Place::file(&source.path), "export", stem);
    server.is_bare = true;
    match attach_source(&mut server, source, sources) {
        Ok(()) => {
            into.inventory.add(Place::file(&source.path), "export", Disposition::Kept, "a tenant by itself");
            server.port = server.config.get(super::values::MCP_PORT).and_then(|port| port.parse().ok());
            into.servers.push(server);
        }
        Err(why) => into.inventory.add(Place::file(&source.path), "export", Disposition::ByHand, why),
    }
}

fn attach_source(server: &mut OldServer, source: &SourceFile, sources: &[SourceFile]) -> Result<(), String> {
    match &source.content {
        Content::Config => attach_config(server, &source.path),
        _ => attach(server, &source.path, sources),
    }
}
