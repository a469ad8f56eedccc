//! The variables of an old server's process, wherever they were written.

use std::path::Path;

use super::installation::OldServer;
use super::inventory::{Disposition, Inventory, Place};
use super::source::Locator;
use super::values;
use crate::base::disk;
use crate::bundle::ConfigNode;

const MAX_SECRET: u64 = 64 << 10;

/// Sets a variable; one that names a file of a secret (`API_KEY_FILE`) is set to what is in the
/// file.
pub(super) fn set_variable(
    server: &mut OldServer,
    name: &str,
    value: &str,
    place: &Place,
    locator: &Locator,
    inventory: &mut Inventory,
) {
    let Some(variable) = values::find_file_variable(name) else {
        return server.values.set_of_process(name, value, place.clone(), inventory);
    };
    let file = locator.resolve(Path::new(value), place.file.parent().unwrap_or(Path::new("")));
    match disk::read_text(&file, MAX_SECRET) {
        Ok(text) => drop(server.values.set(variable.name, text.trim(), place.clone())),
        Err(error) => inventory.add(place.clone(), name, Disposition::ByHand, format!("its file: {error}")),
    }
}

/// Sets all variables of a `.env`.
pub(super) fn set_variables(
    server: &mut OldServer,
    file: &Path,
    env: &ConfigNode,
    locator: &Locator,
    inventory: &mut Inventory,
) {
    for (key, node) in env.pairs() {
        let place = Place::line(file, key.at.line);
        // The reader of a `.env` makes names small.
        let name = key.text.to_ascii_uppercase();
        set_variable(server, &name, node.text().unwrap_or_default(), &place, locator, inventory);
    }
}
