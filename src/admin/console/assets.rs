//! The files of the console's pages: style, script and icon. They hold nothing of this gateway.

use std::sync::LazyLock;

use http::{HeaderValue, Response, StatusCode, header};

use crate::admin::response;
use crate::base::body::Body;
use crate::base::digest::Digest;

/// The style, with the variables that the tenants' pages have too.
const STYLE: &str = concat!(
    include_str!("../../../templates/variables.css"),
    include_str!("../../../templates/admin/console.css"),
);
const SCRIPT: &str = include_str!("../../../templates/admin/console.js");
const ICON: &[u8] = include_bytes!("../../server/icon.png");
/// Pages name style and script with their stamp, so that a new version is fetched at once.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("private, max-age=86400");

static STAMP: LazyLock<String> = LazyLock::new(|| Digest::of(format!("{STYLE}{SCRIPT}").as_bytes()).short());

/// Returns the stamp of this version's files.
pub(super) fn stamp() -> &'static str {
    &STAMP
}

/// Answers a request for one of the files.
pub(super) fn find(name: &str) -> Option<Response<Body>> {
    let (content_type, bytes) = match name {
        "console.css" => ("text/css; charset=utf-8", STYLE.as_bytes()),
        "console.js" => ("text/javascript; charset=utf-8", SCRIPT.as_bytes()),
        "icon.png" => ("image/png", ICON),
        _ => return None,
    };
    let content_type = HeaderValue::from_static(content_type);
    let mut response = response::with_content(StatusCode::OK, content_type, bytes);
    response.headers_mut().insert(header::CACHE_CONTROL, CACHE_CONTROL);
    Some(response)
}
