//! The notations of the vendor's deployments for readers other than the loader (`tenantd migrate`):
//! YAML of several documents, `.env` files, the references in Compose files, and exports.
//!
//! Only reads. What the values mean is left to the caller, and to the loader once they are a
//! tenant's files.

use std::collections::HashMap;

use super::archive::{Archive, MAX_ARCHIVE};
use super::tree::{ConfigNode, SyntaxError};
use super::{dotenv, fields, yaml};

/// The largest export, in bytes.
pub const MAX_EXPORT: u64 = MAX_ARCHIVE;

/// Parses all documents of a YAML file; empty ones are left out.
///
/// # Errors
/// Everything that is wrong with the text.
pub fn parse_yaml(text: &str) -> Result<Vec<ConfigNode>, Vec<SyntaxError>> {
    yaml::parse_documents(text)
}

/// Parses a `.env` as Compose does. The keys of the mapping are the names in lower case.
///
/// # Errors
/// Everything that is wrong with the text.
pub fn parse_env(text: &str) -> Result<ConfigNode, Vec<SyntaxError>> {
    dotenv::parse(text).root
}

/// Replaces `$NAME`, `${NAME:-default}` and the like in a value of a Compose file.
///
/// # Errors
/// What is wrong with a reference, such as a variable that has no value.
pub fn interpolate(text: &str, values: &HashMap<String, String>) -> Result<String, &'static str> {
    dotenv::interpolate(text, values)
}

/// Returns the datasets of an export, each with its configuration. An archive without any has an
/// empty list.
///
/// # Errors
/// Why the archive is refused, in words for people.
pub fn read_export(bytes: Vec<u8>) -> Result<Vec<(String, String)>, String> {
    let mut archive = Archive::open(bytes).map_err(|error| error.to_string())?;
    let mut configs = Vec::new();
    for which in 0..archive.configs.len() {
        let text = archive.text(which).map_err(|error| error.to_string())?;
        configs.push((archive.configs[which].dataset.clone(), text));
    }
    Ok(configs)
}

/// Whether a tenant's files may have a field of this name.
pub fn is_field(name: &str) -> bool {
    fields::lookup(fields::TENANT, name).is_some()
}
