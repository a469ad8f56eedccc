//! The files that operators drop: tenant configurations, and the vendor's zips around them.

use tenantd::bundle::sample;

use super::FakeBackend;
use super::secret::secret;

/// A tenant's configuration under construction, with a backend and a marked API key.
pub(crate) struct Tenant {
    name: String,
    lines: String,
}

impl Tenant {
    /// Starts the configuration of a trained nlp dataset with `backend` as its API.
    pub(crate) fn new(name: &str, backend: &FakeBackend) -> Self {
        Self::at(name, &backend.url(""))
    }

    /// The same with an API at any URL.
    pub(crate) fn at(name: &str, base: &str) -> Self {
        let key = secret(name);
        let lines = format!(
            "search_url: {base}/nlp-search\ncontext_url: {base}/nlp-context\napi_key: {key}\n\
             connection_id: conn-{name}\ndataset: {name}\ndisplay_name: The {name} data\n"
        );
        Self { name: name.to_owned(), lines }
    }

    /// Adds lines to the configuration.
    pub(crate) fn with(mut self, lines: &str) -> Self {
        self.lines.push_str(lines);
        self.lines.push('\n');
        self
    }

    /// Returns the configuration as a YAML file.
    pub(crate) fn yaml(&self) -> Vec<u8> {
        self.lines.clone().into_bytes()
    }

    /// Returns the vendor's zip with another key in it.
    pub(crate) fn zip_with_key(&self, key: &str) -> Vec<u8> {
        self.zip_with_yaml(&self.lines.replace(&secret(&self.name), key))
    }

    /// Returns the vendor's zip with another configuration in it.
    pub(crate) fn zip_with_yaml(&self, yaml: &str) -> Vec<u8> {
        sample::build_export(&self.name, yaml)
    }

    /// Returns the configuration as the vendor's zip.
    pub(crate) fn zip(&self) -> Vec<u8> {
        sample::build_export(&self.name, &self.lines)
    }
}
