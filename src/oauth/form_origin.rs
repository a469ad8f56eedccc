//! Where a form was submitted from.

use http::{HeaderMap, header};

use crate::spec::PublicUrl;

/// Whether the form was submitted from our page. Browsers send the origin of the page, which is
/// `null` with `no-referrer`. Old browsers send nothing; for them the cookie is the check.
pub(super) fn is_same_origin(ours: &PublicUrl, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let site = text("sec-fetch-site");
    match (site, text(header::ORIGIN.as_str())) {
        (Some(site), _) if site != "same-origin" => false,
        (_, None) => true,
        (_, Some(origin)) => origin == ours.origin() || origin == "null",
    }
}
