use serde_json::json;

use super::*;

/// Sends one request over a raw connection. Returns what arrives until the backend closes the
/// connection or `patience` is over.
async fn raw(backend: &FakeBackend, patience: Duration) -> String {
    let mut stream = TcpStream::connect(backend.address()).await.expect("connects");
    let request = b"POST /nlp-search HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}";
    stream.write_all(request).await.expect("writes");
    let mut seen = Vec::new();
    let _ = tokio::time::timeout(patience, stream.read_to_end(&mut seen)).await;
    String::from_utf8_lossy(&seen).into_owned()
}

#[tokio::test]
async fn every_reply_is_what_it_says() {
    let backend = FakeBackend::start().await;
    let expectations = [
        (Reply::Rows, "200", "\"row_count\":2"),
        (Reply::Status(403, json!({"detail": "no"})), "403", "\"no\""),
        (Reply::HangInHeaders, "200", "applic"),
        (Reply::HangInBody, "200", "{\"rows\": ["),
        (Reply::Drip(Box::new(Reply::Json(json!([1])))), "200", "[1]"),
        (Reply::Huge(64), "content-length: 64", "xxx\""),
        (Reply::HugeChunked(64), "chunked", "xxx\""),
        (Reply::Garbage, "200", "{not json"),
        (Reply::Html(502), "502", "<h1>"),
        (Reply::RateLimited("7"), "429", "retry-after: 7"),
        (Reply::TruncatedChunk, "chunked", "{\"rows\": ["),
        (Reply::Redirect(307, "/x".into()), "307", "location: /x"),
        (Reply::WrongContentType, "text/plain", "{\"rows\": []}"),
        (Reply::After(DRIP, Box::new(Reply::Rows)), "200", "row_count"),
    ];
    for (reply, head, body) in expectations {
        backend.answer_next(reply.clone());
        let seen = raw(&backend, Duration::from_millis(400)).await;
        assert!(seen.contains(head) && seen.contains(body), "{reply:?}: {seen}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_is_counted() {
    let address = FakeBackend::start().await.stop().await;
    let backend = FakeBackend::start_at(address).await;
    for reply in [Reply::Close, Reply::Reset] {
        backend.answer_next(reply);
        assert_eq!(raw(&backend, PATIENCE).await, "");
    }
    backend.answer("/nlp-search", Reply::Hang);
    assert_eq!(raw(&backend, DRIP).await, "");
    let counts = backend.until(|counts| counts.cancelled == 1).await;
    assert_eq!((counts.connections, counts.requests, counts.in_flight), (3, 3, 0));
}

#[tokio::test]
async fn a_held_reply_waits_to_be_released() {
    let backend = FakeBackend::start().await;
    backend.answer("/nlp-search", Reply::Held(Box::new(Reply::Close)));
    let release = async {
        backend.until(|counts| counts.in_flight == 1).await;
        tokio::task::yield_now().await;
        backend.release();
    };
    let (seen, ()) = tokio::join!(raw(&backend, PATIENCE), release);
    assert_eq!(seen, "");
    let request = &backend.requests()[0];
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/nlp-search"));
    assert_eq!((request.header("HOST").as_deref(), request.json()), (Some("h"), json!({})));
    assert_eq!(
        (backend.counts().most_in_flight, backend.url("/a").starts_with("http://127.0.0.1:")),
        (1, true)
    );
    assert_eq!(rows()["row_count"], 2);
}
