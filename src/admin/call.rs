//! A request as the handler of its route gets it.

use bytes::Bytes;
use http::request::Parts;
use hyper::body::Incoming;

use super::Admin;
use super::auth::caller::AdminCaller;
use super::request::{query_parameter, read_body};

/// The largest form, files apart.
const MAX_FORM_BYTES: usize = 64 << 10;

/// A request whose caller may send it.
pub(super) struct Call<'a> {
    pub(super) admin: &'a Admin,
    /// Who sent it.
    pub(super) caller: &'a AdminCaller,
    /// Method, path and headers.
    pub(super) head: &'a Parts,
    /// The decoded segments in braces of the route's path.
    pub(super) segments: Vec<String>,
    pub(super) body: RequestBody<'a>,
}

/// The body, which is read at once if it is a form.
pub(super) enum RequestBody<'a> {
    Unread(&'a mut Incoming),
    Form(Form),
    /// What a form of ours stands for, as programs send it.
    Json(Bytes),
}

/// The fields of a form (`application/x-www-form-urlencoded`).
pub(super) struct Form(Bytes);

impl Form {
    /// Reads a form, or returns `None` if it is larger than any of ours or late.
    pub(super) async fn read(body: &mut Incoming) -> Option<Self> {
        read_body(body, MAX_FORM_BYTES).await.map(Self)
    }

    /// Returns the first field of this name.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        let mut fields = url::form_urlencoded::parse(&self.0);
        fields.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

impl Call<'_> {
    /// Returns the request with this body.
    pub(super) fn with_json(self, body: &serde_json::Value) -> Self {
        Self { body: RequestBody::Json(body.to_string().into()), ..self }
    }

    /// Returns a segment that the route's path has in braces, by its number.
    pub(super) fn segment(&self, number: usize) -> &str {
        &self.segments[number]
    }

    /// Returns the first query parameter of this name.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        query_parameter(self.head.uri.query(), name)
    }

    /// Returns the field of this name, if the body is a form.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        match &self.body {
            RequestBody::Form(form) => form.field(name),
            RequestBody::Unread(_) | RequestBody::Json(_) => None,
        }
    }

    /// Reads the body of at most `max_bytes`, or returns `None` if it is larger or late.
    pub(super) async fn read_body(&mut self, max_bytes: usize) -> Option<Bytes> {
        match &mut self.body {
            RequestBody::Unread(body) => read_body(&mut **body, max_bytes).await,
            RequestBody::Json(bytes) => Some(bytes.clone()).filter(|bytes| bytes.len() <= max_bytes),
            RequestBody::Form(form) => Some(form.0.clone()).filter(|bytes| bytes.len() <= max_bytes),
        }
    }

    /// Returns the token that a form of ours must carry in its field `csrf_token`, a script's
    /// request in its header `X-CSRF-Token`. It is empty for programs, which need none.
    pub(super) fn csrf_token(&self) -> String {
        let cookie = self.caller.cookie.as_ref();
        cookie.map(|cookie| self.admin.auth.csrf.token(&cookie.value)).unwrap_or_default()
    }
}
