//! The search API behind both servers: 2 KiB of JSON per question, and a required key.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::{API_KEY, process};

/// A document in every answer, by which a reader recognises this backend.
pub(crate) const FIRST_ROW: &str = "doc-0000";

struct Answers {
    search: Bytes,
    context: Bytes,
    delay: Duration,
}

/// Serves on a free loopback port until killed.
pub(crate) fn serve(delay: Duration, acceptor: Option<TlsAcceptor>) -> Result<()> {
    let answers =
        Arc::new(Answers { search: search_answer().into(), context: context_answer().into(), delay });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        process::announce(listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let answers = answers.clone();
            let service = service_fn(move |request| answer(answers.clone(), request));
            let Some(acceptor) = acceptor.clone() else {
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
                continue;
            };
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let server = auto::Builder::new(TokioExecutor::new());
                // Connections end when the load does.
                let _ended = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

async fn answer(
    answers: Arc<Answers>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    // The body of a refused request is read too, or the connection could not be reused.
    let _ = body.collect().await;
    if parts.headers.get("x-api-key").is_none_or(|key| key != API_KEY) {
        return Ok(json(StatusCode::UNAUTHORIZED, Bytes::from_static(b"{\"error\":\"api key\"}")));
    }
    if !answers.delay.is_zero() {
        tokio::time::sleep(answers.delay).await;
    }
    Ok(match parts.uri.path() {
        "/nlp-search" => json(StatusCode::OK, answers.search.clone()),
        "/nlp-context" => json(StatusCode::OK, answers.context.clone()),
        _ => json(StatusCode::NOT_FOUND, Bytes::from_static(b"{\"error\":\"not found\"}")),
    })
}

fn json(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

/// Returns fifteen rows, about 2 KiB.
fn search_answer() -> String {
    let mut rows = String::new();
    for row in 0..15 {
        let comma = if row == 0 { "" } else { "," };
        write!(
            rows,
            r#"{comma}{{"id":"doc-{row:04}","score":0.{:03},"region":"Region {row}","summary":"Net revenue by product line, fiscal quarter {row}.","revenue":{}}}"#,
            997 - row,
            120_000 + 731 * row
        )
        .expect("writing to a String cannot fail");
    }
    format!(r#"{{"total":15,"took_ms":1,"results":[{rows}]}}"#)
}

fn context_answer() -> String {
    r#"{"version":"2026-11","entities":["customer","order","invoice"],"measures":["revenue","margin"],
        "sample_questions":["What was the revenue by region last quarter?"]}"#
        .to_owned()
}
