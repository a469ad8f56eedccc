//! The demo's search API, in the role of a vendor's portal, on loopback.
//!
//! `POST /nlp-search` with `{"query", "connection_id", "limit"?}` and `GET
//! /nlp-context?connection_id=…`, each with the dataset's key as `X-API-Key`. It runs on a thread
//! of its own, so that it shares nothing with the gateway.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::answer::answer;
use super::dataset::{ALL, ColumnKind, Dataset};
use crate::base::body::{self, Body};
use crate::base::task::Tasks;

const MAX_BYTES: usize = 64 * 1024;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Starts the API on a free port. It runs for as long as the process does.
pub(super) fn start() -> io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("sample-api".into()).spawn(move || runtime.block_on(serve(listener)))?;
    Ok(address)
}

async fn serve(listener: std::net::TcpListener) {
    let listener = TcpListener::from_std(listener).expect("a bound listener that does not block");
    let tasks = Tasks::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tasks.spawn("sample-api", connection(stream))),
            // Most likely the process is out of file descriptors, which become free again.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn connection(stream: TcpStream) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(TIMEOUT);
    // The gateway sees connection errors itself.
    let _ended = server.serve_connection(TokioIo::new(stream), service_fn(handle)).await;
}

async fn handle(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let key = head.headers.get("x-api-key").and_then(|key| key.to_str().ok()).unwrap_or_default().to_owned();
    let body = tokio::time::timeout(TIMEOUT, Limited::new(body, MAX_BYTES).collect()).await;
    let (status, value) = match body {
        Ok(Ok(body)) => respond(&head.method, head.uri.path(), head.uri.query(), &key, &body.to_bytes()),
        _ => (StatusCode::PAYLOAD_TOO_LARGE, json!({"error": "the body is too large or too slow"})),
    };
    Ok(body::response(status, HeaderValue::from_static("application/json"), value.to_string()))
}

#[derive(Deserialize)]
struct SearchRequest {
    query: String,
    connection_id: Option<String>,
    limit: Option<usize>,
}

fn respond(method: &Method, path: &str, query: Option<&str>, key: &str, body: &[u8]) -> (StatusCode, Value) {
    let error = |status, text: &str| (status, json!({ "error": text }));
    let Some(dataset) = ALL.into_iter().find(|dataset| dataset.api_key() == key) else {
        return error(StatusCode::UNAUTHORIZED, "X-API-Key is missing or unknown");
    };
    let is_other_connection = |id: &str| id != dataset.connection_id();
    match (method.as_str(), path) {
        ("POST", "/nlp-search") => match serde_json::from_slice::<SearchRequest>(body) {
            Ok(search) if search.connection_id.as_deref().is_some_and(is_other_connection) => {
                error(StatusCode::NOT_FOUND, "no such connection")
            }
            Ok(search) => (StatusCode::OK, answer(&search.query, search.limit, dataset)),
            Err(_) => error(StatusCode::BAD_REQUEST, "the body must be JSON with a text as \"query\""),
        },
        ("GET", "/nlp-context") => match connection_id(query) {
            Some(id) if is_other_connection(&id) => error(StatusCode::NOT_FOUND, "no such connection"),
            _ => (StatusCode::OK, context(dataset)),
        },
        _ => error(StatusCode::NOT_FOUND, "there are POST /nlp-search and GET /nlp-context"),
    }
}

fn connection_id(query: Option<&str>) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(query?.as_bytes());
    pairs.find(|(name, _)| name == "connection_id").map(|(_, value)| value.into_owned())
}

/// Returns what a model should know before it calls the tool.
fn context(dataset: &Dataset) -> Value {
    let columns_of = |kind| dataset.columns.iter().filter(move |column| column.kind == kind);
    let measures: Vec<Value> = columns_of(ColumnKind::Number)
        .map(|column| json!({"name": column.name, "synonyms": column.synonyms, "aggregations": ["sum", "average"]}))
        .collect();
    let attributes: Vec<&str> = dataset.columns.iter().map(|column| column.name).collect();
    let dimensions: Vec<Value> = columns_of(ColumnKind::Text)
        .map(|column| json!({"name": column.name, "synonyms": column.synonyms, "values": distinct_values(column.name, dataset)}))
        .collect();
    json!({
        "dataset": dataset.name,
        "description": dataset.description,
        "entities": [{"name": dataset.noun[1], "attributes": attributes}],
        "dimensions": dimensions,
        "measures": measures,
        "sample_questions": dataset.samples,
    })
}

fn distinct_values(column: &str, dataset: &Dataset) -> Vec<&'static str> {
    let at = dataset.position(column).expect("a column of this dataset");
    let mut values: Vec<&str> = dataset.rows().iter().map(|row| row[at]).collect();
    values.sort_unstable();
    values.dedup();
    values
}

#[cfg(test)]
mod tests {
    use super::super::dataset::{SALES, SUPPORT};
    use super::*;

    fn search(key: &str, body: &Value) -> (StatusCode, Value) {
        respond(&Method::POST, "/nlp-search", None, key, body.to_string().as_bytes())
    }

    #[test]
    fn a_search_is_answered_with_rows_of_the_keys_dataset() {
        let body = json!({"query": "how many tickets", "connection_id": "conn-support-01"});
        let (status, answer) = search(&SUPPORT.api_key(), &body);
        assert_eq!((status, &answer["rows"]), (StatusCode::OK, &json!([{"tickets": 40}])));
    }

    #[test]
    fn a_wrong_key_connection_or_body_is_refused() {
        let body = json!({"query": "how many orders", "connection_id": "conn-support-01"});
        assert_eq!(search("wrong", &body).0, StatusCode::UNAUTHORIZED);
        assert_eq!(search(&SALES.api_key(), &body).0, StatusCode::NOT_FOUND);
        assert_eq!(search(&SALES.api_key(), &json!({"q": 1})).0, StatusCode::BAD_REQUEST);
        assert_eq!(
            respond(&Method::GET, "/nlp-search", None, &SALES.api_key(), b"").0,
            StatusCode::NOT_FOUND
        );
    }

    #[test]
    fn the_context_names_what_can_be_asked() {
        let ask = |query| respond(&Method::GET, "/nlp-context", query, &SALES.api_key(), b"");
        let (status, context) = ask(Some("connection_id=conn-sales-01"));
        assert_eq!(status, StatusCode::OK);
        insta::assert_snapshot!(format!("{context:#}"));
        assert_eq!(ask(Some("connection_id=x")).0, StatusCode::NOT_FOUND);
    }

    #[test]
    fn it_answers_over_a_socket() {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(start().expect("started")).expect("connected");
        let key = SALES.api_key();
        let body = r#"{"query":"how many orders"}"#;
        let length = body.len();
        write!(
            stream,
            "POST /nlp-search HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-api-key: {key}\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(r#"{"orders":60}"#), "{answer}");
    }
}
