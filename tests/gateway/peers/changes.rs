//! The tenant changes or is removed while clients are connected to it.

use serde_json::json;

use super::library::{LIBRARIES, Library};
use super::script::search;
use super::stage::{each, plain};
use crate::harness::Reply;
use crate::harness::backend::rows;

#[tokio::test]
async fn every_client_goes_on_while_its_tenant_changes() {
    each(LIBRARIES, plain, |stage| async move {
        let mut client = stage.connected().await;
        stage.backend.answer("/nlp-search", Reply::Held(Box::new(Reply::Rows)));
        client.tell(search("q")).await;
        stage.backend.until(|counts| counts.in_flight == 1).await;
        stage.change("description: Second edition").await;
        stage.backend.release();
        assert_eq!(client.answer().await["data"]["data"], rows(), "the call that was under way");
        stage.backend.answer("/nlp-search", Reply::Rows);
        assert_eq!(client.search("q").await["data"]["data"], rows(), "a call after it");
        let listed = client.ask(json!({ "do": "tools" })).await;
        assert!(listed["tools"][0]["description"].to_string().contains("Second edition"), "{listed}");
    })
    .await;
}

#[tokio::test]
async fn who_listens_hears_of_changes_and_of_the_end() {
    each(LIBRARIES.into_iter().filter(Library::listens), plain, |stage| async move {
        let mut client = stage.connected().await;
        assert_eq!(client.ask(json!({ "do": "listen" })).await, json!({ "listening": true }));
        for edition in ["Second", "Third"] {
            stage.change(&format!("description: {edition} edition")).await;
            assert_eq!(client.ask(json!({ "do": "heard" })).await, json!({ "heard": "tools" }));
        }
        stage.remove().await;
        assert_eq!(client.ask(json!({ "do": "heard" })).await, json!({ "heard": "end" }));
    })
    .await;
}

#[tokio::test]
async fn every_client_is_told_that_its_tenant_is_gone() {
    each(LIBRARIES, plain, |stage| async move {
        let mut client = stage.connected().await;
        assert_eq!(client.search("q").await["failed"], false);
        stage.remove().await;
        let answer = client.search("q").await;
        let error = answer["error"].as_str().unwrap_or_else(|| panic!("it was answered: {answer}"));
        // In our words, or in those of mcp 1.x for a 404.
        let said = error.contains("nothing is served") || error.contains("Session terminated");
        assert!(said, "{}: {error}", stage.library.name);
    })
    .await;
}
