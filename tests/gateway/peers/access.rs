//! Clients with a valid key, with a wrong one, and without one.

use super::library::LIBRARIES;
use super::stage::each;
use crate::harness::Tenant;
use crate::harness::backend::rows;
use crate::harness::secret::secret;

fn keyed(tenant: Tenant) -> Tenant {
    tenant.with(&format!("api_keys:\n  - label: peers\n    key: {}", secret("caller")))
}

#[tokio::test]
async fn a_key_opens_its_tenant_to_every_client() {
    each(LIBRARIES, keyed, |stage| async move {
        let mut client = stage.connected_with(Some(&secret("caller"))).await;
        assert_eq!(client.search("q").await["data"]["data"], rows());
    })
    .await;
}

#[tokio::test]
async fn a_client_without_the_key_is_refused_in_words() {
    each(LIBRARIES, keyed, |stage| async move {
        for (key, said) in [
            (None, "This server requires an API key"),
            (Some(secret("stranger")), "The API key is unknown or expired"),
        ] {
            let mut client = stage.start(key.as_deref());
            let answer = stage.connect(&mut client).await;
            let error = answer["error"].as_str().unwrap_or_else(|| panic!("it was let in: {answer}"));
            // In our words, or by the status code.
            assert!(error.contains(said) || error.contains("401"), "{}: {error}", stage.library.name);
        }
        assert!(stage.backend.requests().iter().all(|request| request.target != "/nlp-search"));
    })
    .await;
}
