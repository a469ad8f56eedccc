//! Only the name of its dataset makes a tenant the conformance tenant.

use serde_json::json;

use super::testkit::*;

#[tokio::test]
async fn only_the_reserved_dataset_has_the_fixture() {
    let bed = McpTestkit::new().await;
    assert_eq!(ask(&bed.server(), call("test_simple_text", json!({}))).await.error().1, -32602);
    let mut config = bed.server_config();
    config.dataset = "tenantd-conformance".into();
    let server = build_server(config, fast_timing());
    let (text, is_error) = ask(&server, call("test_simple_text", json!({}))).await.text_and_error_flag();
    assert_eq!((&*text, is_error), ("This is a simple text response for testing.", false));
    let (text, is_error) =
        ask(&server, call("json_schema_2020_12_tool", json!({}))).await.text_and_error_flag();
    assert!(is_error && text.contains("\"email\" is missing"), "{text}");
    let list = ask(&server, modern("tools/list", json!({}))).await;
    assert_eq!(list.result()["tools"].as_array().map(Vec::len), Some(14));
}
