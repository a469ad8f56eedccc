//! What the vendor's container is like, however it is run: its image, where its export is mounted,
//! its ports.

use std::path::Path;

use super::exports;
use super::installation::{Installation, OldServer};
use super::inventory::{Disposition, Place};
use super::source::{Locator, SourceFile};
use super::values;

/// Where the container expects its export.
pub(super) const EXPORT: &str = "/app/server.zip";

/// Whether a container is the vendor's server: by its image, its variables or its export.
pub(super) fn is_vendors<'a>(
    image: &str,
    mut variables: impl Iterator<Item = &'a str>,
    mut volumes: impl Iterator<Item = &'a str>,
) -> bool {
    image.contains("tursio-mcp")
        || volumes.any(|volume| volume.contains(EXPORT))
        || variables.any(|name| values::find_variable(name).is_some())
}

/// Gives a server the export of a volume `FILE:/app/server.zip[:ro]`.
pub(super) fn attach_volume(
    server: &mut OldServer,
    volume: &str,
    place: &Place,
    sources: &[SourceFile],
    locator: &Locator,
    into: &mut Installation,
) {
    let Some((file, _)) = volume.split_once(&format!(":{EXPORT}")) else {
        let target = volume.rsplit(':').find(|part| part.starts_with('/')).unwrap_or(volume);
        let note = "not a volume of the vendor's guide; find out what was in it";
        return into.inventory.add(place.clone(), format!("volume {target}"), Disposition::ByHand, note);
    };
    let base = place.file.parent().unwrap_or(Path::new(""));
    let path = locator.resolve(Path::new(&file.replace('\\', "/")), base);
    into.mark_used(&path);
    match exports::attach(server, &path, sources) {
        Ok(()) => {
            into.inventory.add(place.clone(), "export", Disposition::Kept, format!("from {}", path.display()))
        }
        Err(why) => {
            let note = format!("No server.zip found at {}: {why}", path.display());
            into.inventory.add(place.clone(), "export", Disposition::ByHand, note);
        }
    }
}

/// Returns the port on the machine of `[ADDRESS:]PORT:PORT[/tcp]`.
pub(super) fn host_port(published: &str) -> Option<u16> {
    let published = published.split('/').next().unwrap_or_default();
    let mut parts = published.rsplit(':');
    let container = parts.next()?;
    parts.next().unwrap_or(container).parse().ok()
}

/// Turns `type=bind,source=X,target=Y` into `X:Y`.
pub(super) fn volume_of_mount(mount: &str) -> Option<String> {
    let find = |names: &[&str]| {
        let pairs = mount.split(',').filter_map(|part| part.split_once('='));
        pairs.filter(|(name, _)| names.contains(name)).map(|(_, value)| value.to_owned()).next()
    };
    Some(format!("{}:{}", find(&["source", "src"])?, find(&["target", "dst", "destination"])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_the_machine_is_the_one_that_counts() {
        for (published, port) in [
            ("8001:8000", Some(8001)),
            ("127.0.0.1:8002:8000", Some(8002)),
            ("[::1]:8003:8000/tcp", Some(8003)),
            ("8000", Some(8000)),
            ("8000-8010:8000-8010", None),
        ] {
            assert_eq!(host_port(published), port, "{published}");
        }
        assert_eq!(
            volume_of_mount("type=bind,source=/a.zip,target=/app/server.zip").as_deref(),
            Some("/a.zip:/app/server.zip")
        );
    }
}
