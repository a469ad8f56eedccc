//! A tenant's HTTP API as data.

use std::sync::Arc;

use http::{HeaderName, Method};

use super::{BodyTemplate, Reaches, UnfitValue, UrlTemplate, Values};
use crate::base::secret::Secret;

/// What all calls of one tenant share.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendSpec {
    pub family: Family,
    pub connection_id: Option<Arc<str>>,
    /// The call that fetches the semantic context.
    pub context: Arc<CallSpec>,
    /// The header that carries the signed-in user, if the operator wants the backend to know.
    pub user_header: Option<HeaderName>,
    /// HTTP/2 over connections of the tenant's own, where the backend offers it; else HTTP/1.1.
    pub http2: bool,
    /// Which data it gives out, to be compared with other tenants'.
    pub reaches: Reaches,
}

/// The vendor's families of endpoints. They differ in their paths only.
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
/// Marks are the tool's arguments by name, and `connection_id`. `headers` hold whole values, secret ones among them. What
/// the calls of a tenant have alike they share, and the vendor's body all tenants.
#[derive(Debug, Clone, PartialEq)]
pub struct CallSpec {
    pub method: Method,
    pub url: UrlTemplate,
    /// Sent as they are; the API key is one of them.
    pub headers: Arc<[(HeaderName, Secret)]>,
    pub body: Option<Arc<BodyTemplate>>,
    pub constants: Constants,
}

impl CallSpec {
    /// Whether a caller's arguments may stand in the URL. Constants were judged when the tenant was read.
    ///
    /// # Errors
    ///
    /// An argument that would change which path is asked.
    pub fn judge(&self, arguments: &Values) -> Result<(), UnfitValue> {
        self.url.judge(arguments, |mark| !Constants::NAMES.contains(&mark))
    }
}

/// Values that stand for marks whatever the caller says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Constants {
    pub dataset: Option<Arc<str>>,
    pub connection_id: Option<Arc<str>>,
}

impl Constants {
    /// The marks that they stand for.
    pub const NAMES: [&str; 2] = ["dataset", "connection_id"];

    /// The arguments with the constants in their places: also one without a value, so that no argument takes its place.
    pub fn over(&self, arguments: &Values) -> Values {
        let mut values = arguments.clone();
        for (name, value) in [("dataset", &self.dataset), ("connection_id", &self.connection_id)] {
            values.insert(name.to_owned(), value.as_deref().into());
        }
        values
    }
}
