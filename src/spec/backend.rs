//! The HTTP API of a tenant, as data.

use std::sync::Arc;

use http::{HeaderName, Method};

use super::{BodyTemplate, DataFingerprints, InvalidMarkValue, TemplateValues, UrlTemplate};
use crate::base::secret::Secret;

/// What all calls of one tenant have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendSpec {
    /// The family of endpoints that the calls use.
    pub family: Family,
    /// The vendor's id of the connection to the dataset.
    pub connection_id: Option<Arc<str>>,
    /// The call that fetches the semantic context: what the backend says its dataset can be asked.
    pub context: Arc<CallSpec>,
    /// The header that carries the signed-in user, if the operator wants the backend to know the
    /// user.
    pub user_header: Option<HeaderName>,
    /// Whether to use HTTP/2, over connections of the tenant's own, where the backend offers it;
    /// otherwise HTTP/1.1.
    pub http2: bool,
    /// Which data it gives out, to be compared with other tenants'.
    pub data: DataFingerprints,
}

/// The vendor's families of endpoints, which differ in their paths only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Nlp,
    Cassandra,
    Dynamodb,
    /// A path that is none of the vendor's.
    Other,
}

/// One HTTP call with marks to fill in.
///
/// Marks are the tool's arguments by name, and `connection_id`. `headers` hold complete values,
/// some of them secret. The calls of a tenant share what they have in common, and all tenants share
/// the vendor's body.
#[derive(Debug, Clone, PartialEq)]
pub struct CallSpec {
    /// The HTTP method.
    pub method: Method,
    /// The URL.
    pub url: UrlTemplate,
    /// Sent as they are; one of them carries the API key.
    pub headers: Arc<[(HeaderName, Secret)]>,
    /// The JSON body, if the call has one.
    pub body: Option<Arc<BodyTemplate>>,
    /// The values that no argument can override.
    pub constants: Constants,
}

impl CallSpec {
    /// Checks that a caller's arguments may stand in the URL. Constants were checked when the
    /// tenant was read.
    ///
    /// # Errors
    /// The first argument that would change the path requested.
    pub fn check_arguments(&self, arguments: &TemplateValues) -> Result<(), InvalidMarkValue> {
        self.url.check_values(arguments, |mark| !Constants::NAMES.contains(&mark))
    }
}

/// Values of marks that do not come from the caller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Constants {
    /// The value of the mark `dataset`.
    pub dataset: Option<Arc<str>>,
    /// The value of the mark `connection_id`.
    pub connection_id: Option<Arc<str>>,
}

impl Constants {
    /// The marks that have constant values.
    pub const NAMES: [&str; 2] = ["dataset", "connection_id"];

    /// Returns the arguments with the constants inserted. A constant without a value is inserted
    /// too, so that no argument takes its place.
    pub fn apply_to(&self, arguments: &TemplateValues) -> TemplateValues {
        let mut values = arguments.clone();
        for (name, value) in [("dataset", &self.dataset), ("connection_id", &self.connection_id)] {
            values.insert(name.to_owned(), value.as_deref().into());
        }
        values
    }
}
