//! Compares the pinned documents with what the vendors publish.

use std::net::Ipv4Addr;

use serde_json::Value;

use super::document_cache::Requester;
use super::document_url::DocumentUrl;
use super::fetcher::DocumentFetcher;
use super::{MAX_DOCUMENT_BYTES, PINNED};

/// The members of a document that have an effect here.
const COMPARED_MEMBERS: [&str; 6] = [
    "redirect_uris",
    "token_endpoint_auth_method",
    "token_endpoint_auth_methods_supported",
    "jwks_uri",
    "jwks",
    "client_name",
];

/// How a pinned document relates to the published one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentComparison {
    Same,
    /// The members that have an effect, as JSON.
    Differs {
        shipped: String,
        published: String,
    },
    /// Why the published document cannot be fetched.
    Unreadable(String),
}

/// Fetches the published document of each pinned one and compares them.
pub async fn compare_with_vendors() -> Vec<(String, DocumentComparison)> {
    let fetcher = DocumentFetcher::new();
    let operator =
        Requester { tenant: "operator".into(), network: Ipv4Addr::LOCALHOST.into(), is_vouched_for: true };
    let shipped: Vec<Value> = serde_json::from_str(PINNED).expect("the shipped documents are JSON");
    let mut compared = Vec::new();
    for document in &shipped {
        let id = document["client_id"].as_str().unwrap_or_default();
        let comparison = match DocumentUrl::parse(id) {
            Ok(url) => match fetcher.get(&url, MAX_DOCUMENT_BYTES, &operator).await {
                Ok(published) => compare(document, &published.value),
                Err(fault) => DocumentComparison::Unreadable(fault.to_string()),
            },
            Err(fault) => DocumentComparison::Unreadable(fault.to_string()),
        };
        compared.push((id.to_owned(), comparison));
    }
    compared
}

fn compare(shipped: &Value, published: &Value) -> DocumentComparison {
    let (shipped, published) = (select_compared_members(shipped), select_compared_members(published));
    match shipped == published {
        true => DocumentComparison::Same,
        false => {
            DocumentComparison::Differs { shipped: shipped.to_string(), published: published.to_string() }
        }
    }
}

fn select_compared_members(document: &Value) -> Value {
    let present =
        COMPARED_MEMBERS.iter().filter_map(|name| Some(((*name).to_owned(), document.get(*name)?.clone())));
    Value::Object(present.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_members_that_the_gateway_uses_are_compared() {
        let shipped = json!({ "redirect_uris": ["https://a.example/cb"], "client_name": "A" });
        let mut published =
            json!({ "client_name": "A", "redirect_uris": ["https://a.example/cb"], "logo_uri": "x" });
        assert_eq!(compare(&shipped, &published), DocumentComparison::Same);
        published["redirect_uris"] = json!(["https://b.example/cb"]);
        assert!(matches!(compare(&shipped, &published), DocumentComparison::Differs { .. }));
    }
}
