//! Adding a tenant, or changing one, by a file: it is checked first, the findings are shown, and
//! then somebody accepts it. Until then nothing changes.

use askama::Template;
use futures_util::stream;
use http::{Response, StatusCode, header};
use serde_json::json;

use super::actions::{lead_to, make_notice, read_answer};
use super::drafts::CheckedFile;
use super::findings::{self, FindingView};
use super::frame::{Frame, Section, Visit};
use super::link;
use super::notices::Notice;
use crate::admin::call::Call;
use crate::admin::commands;
use crate::base::body::Body;
use crate::telemetry::printable::printable;
use crate::tenants::reconcile::{CheckedUpload, MAX_UPLOAD_BYTES};

/// What surrounds the file in a form.
const MAX_FORM_OVERHEAD: usize = 16 << 10;

#[derive(Template)]
#[template(path = "admin/add.html")]
struct AddPage {
    frame: Frame,
    csrf_token: String,
    checked: Option<CheckedView>,
}

/// What was found in a file.
struct CheckedView {
    file: String,
    tenant: String,
    exists: bool,
    is_acceptable: bool,
    findings: Vec<FindingView>,
    accept_path: String,
    draft: String,
}

/// Renders the page with the form.
pub(in crate::admin) fn render(call: &Call<'_>) -> String {
    AddPage::render_with(call, None)
}

/// Checks the file of a form, and renders what was found.
///
/// # Errors
/// The redirect that says why the form has no file to check.
pub(in crate::admin) async fn check(call: &mut Call<'_>) -> Result<String, Box<Response<Body>>> {
    let refuse = |call: &Call<'_>, status, text: &str| {
        let notice = Notice { is_refusal: true, text: format!("Refused: {text}."), findings: Vec::new() };
        Err(Box::new(lead_to(call.admin, "/add", status, notice)))
    };
    let Some(bytes) = call.read_body(MAX_UPLOAD_BYTES + MAX_FORM_OVERHEAD).await else {
        return refuse(call, StatusCode::PAYLOAD_TOO_LARGE, "the file is too large, or is incomplete");
    };
    let Some(file) = read_file(call, bytes).await else {
        return refuse(call, StatusCode::BAD_REQUEST, "choose a file");
    };
    let checked = call.admin.reconciler.check_upload(file.name.clone(), file.bytes.to_vec()).await;
    match checked {
        Ok(checked) => {
            let view = CheckedView::new(call, file, &checked);
            Ok(AddPage::render_with(call, Some(view)))
        }
        Err(refusal) => {
            let text = printable(&refusal.to_string()).into_owned();
            refuse(call, StatusCode::BAD_REQUEST, &text)
        }
    }
}

/// Puts a file that was checked into the tenants folder.
pub(in crate::admin) async fn accept(call: Call<'_>) -> Response<Body> {
    let id = call.field("draft").unwrap_or_default();
    let admin = call.admin;
    let Some(file) = admin.console.drafts.take(&id, admin.clock.monotonic()) else {
        let answer = json!({ "detail": "the checked file was not accepted in time; check it again" });
        let notice = make_notice(StatusCode::GONE, &answer, "");
        return lead_to(admin, "/add", StatusCode::GONE, notice);
    };
    let name = file.name.clone();
    let (status, answer) = read_answer(commands::store_file(admin, file.name, file.bytes, true).await).await;
    let tenant = answer["tenant"]["name"].as_str().map(link::tenant);
    let done = format!("{} is in the tenants folder.", printable(&name));
    lead_to(admin, tenant.as_deref().unwrap_or("/add"), status, make_notice(status, &answer, &done))
}

impl AddPage {
    fn render_with(call: &Call<'_>, checked: Option<CheckedView>) -> String {
        let frame = Frame::new("Add a tenant", Section::Add, &Visit::new(call));
        let page = Self { frame, csrf_token: call.csrf_token(), checked };
        page.render().expect("the page is written to a String")
    }
}

impl CheckedView {
    fn new(call: &Call<'_>, file: CheckedFile, checked: &CheckedUpload) -> Self {
        let (accept_path, shown) = (accept_path(&file.name), printable(&file.name).into_owned());
        let draft = match checked.is_acceptable {
            true => call.admin.console.drafts.add(file, call.admin.clock.monotonic()),
            false => String::new(),
        };
        let findings: Vec<_> = checked.report.iter().cloned().collect();
        Self {
            file: shown,
            tenant: printable(&checked.entry_id).into_owned(),
            exists: checked.exists,
            is_acceptable: checked.is_acceptable,
            findings: findings::views(&findings),
            accept_path,
            draft,
        }
    }
}

fn accept_path(file: &str) -> String {
    format!("/add/{}/accept", link::segment(file))
}

/// Returns the first file of a form (`multipart/form-data`, RFC 7578).
async fn read_file(call: &Call<'_>, bytes: bytes::Bytes) -> Option<CheckedFile> {
    let content_type = call.head.headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let boundary = multer::parse_boundary(content_type).ok()?;
    let body = stream::once(async move { Ok::<_, std::convert::Infallible>(bytes) });
    let mut form = multer::Multipart::new(body, boundary);
    while let Ok(Some(field)) = form.next_field().await {
        let name = field.file_name().unwrap_or_default().to_owned();
        if !name.is_empty() {
            return Some(CheckedFile { name, bytes: field.bytes().await.ok()? });
        }
    }
    None
}
