//! Compares the pinned documents with what the vendors publish.

use std::net::Ipv4Addr;

use serde_json::Value;

use super::address::DocumentUrl;
use super::cache::Party;
use super::fetch::Fetcher;
use super::{LARGEST_DOCUMENT, PINNED};

/// The members of a document that have an effect here.
const DECISIVE: [&str; 6] = [
    "redirect_uris",
    "token_endpoint_auth_method",
    "token_endpoint_auth_methods_supported",
    "jwks_uri",
    "jwks",
    "client_name",
];

/// How a pinned document relates to the published one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    Same,
    /// The members that have an effect, as JSON.
    Differs {
        shipped: String,
        published: String,
    },
    /// Why the published document cannot be fetched.
    Unknown(String),
}

/// Fetches the published document of each pinned one and compares them.
pub async fn compare_with_vendors() -> Vec<(String, Comparison)> {
    let fetcher = Fetcher::new();
    let operator = Party { tenant: "operator".into(), network: Ipv4Addr::LOCALHOST.into(), is_known: true };
    let shipped: Vec<Value> = serde_json::from_str(PINNED).expect("the shipped documents are JSON");
    let mut compared = Vec::new();
    for document in &shipped {
        let id = document["client_id"].as_str().unwrap_or_default();
        let comparison = match DocumentUrl::parse(id) {
            Ok(url) => match fetcher.get(&url, LARGEST_DOCUMENT, &operator).await {
                Ok(published) => compare(document, &published.value),
                Err(fault) => Comparison::Unknown(fault.to_string()),
            },
            Err(fault) => Comparison::Unknown(fault.to_string()),
        };
        compared.push((id.to_owned(), comparison));
    }
    compared
}

fn compare(shipped: &Value, published: &Value) -> Comparison {
    let (shipped, published) = (decisive(shipped), decisive(published));
    match shipped == published {
        true => Comparison::Same,
        false => Comparison::Differs { shipped: shipped.to_string(), published: published.to_string() },
    }
}

fn decisive(document: &Value) -> Value {
    let present = DECISIVE.iter().filter_map(|name| Some(((*name).to_owned(), document.get(*name)?.clone())));
    Value::Object(present.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_decides_counts() {
        let shipped = json!({ "redirect_uris": ["https://a.example/cb"], "client_name": "A" });
        let mut published =
            json!({ "client_name": "A", "redirect_uris": ["https://a.example/cb"], "logo_uri": "x" });
        assert_eq!(compare(&shipped, &published), Comparison::Same);
        published["redirect_uris"] = json!(["https://b.example/cb"]);
        assert!(matches!(compare(&shipped, &published), Comparison::Differs { .. }));
    }
}
