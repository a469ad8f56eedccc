//! In what an answer through the public URL differs from the gateway's own, and what that says of
//! whoever stands between.

use http::{StatusCode, Version, header};
use serde_json::Value;

use super::exchange::{HttpAnswer, NoAnswer};
use super::remedies::Interference;

/// Members of documents that differ from one answer to the next.
const VOLATILE: [&str; 6] = [
    "client_id",
    "client_secret",
    "client_id_issued_at",
    "client_secret_expires_at",
    "request_id",
    "instance",
];

/// What a question is about, as far as proxies treat it differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathKind {
    /// A discovery document of the host.
    WellKnown,
    /// Anything below the tenant's prefix.
    Endpoint,
}

/// The first thing in which two answers differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AnswerDifference {
    pub(super) interference: Interference,
    /// What came through the public URL.
    pub(super) found: String,
}

/// Compares the answer through the public URL with the gateway's own. Where that is not known,
/// `is_expected` decides.
pub(super) fn find(
    kind: PathKind,
    direct: Option<&HttpAnswer>,
    public: &Result<HttpAnswer, NoAnswer>,
    is_expected: impl Fn(&HttpAnswer) -> bool,
) -> Option<AnswerDifference> {
    let public = match public {
        Ok(answer) => answer,
        Err(error) => return Some(judge_no_answer(error)),
    };
    let is_same = match direct {
        Some(direct) => view(direct) == view(public),
        None => is_expected(public),
    };
    let interference = match is_same {
        true if public.version == Version::HTTP_10 => Interference::OldProtocol,
        true => return None,
        false => classify(kind, direct, public),
    };
    Some(AnswerDifference { interference, found: describe(interference, direct, public) })
}

fn judge_no_answer(error: &NoAnswer) -> AnswerDifference {
    let (interference, found) = match error {
        NoAnswer::Unreachable(why) => (Interference::Unreachable, format!("no connection ({why})")),
        NoAnswer::Silence => (Interference::Timeout, "no answer within 8 s".to_owned()),
        NoAnswer::BrokenOff(why) => (Interference::BreaksOff, format!("the answer broke off ({why})")),
    };
    AnswerDifference { interference, found }
}

/// What of an answer has to arrive unchanged.
#[derive(Debug, PartialEq)]
struct AnswerView {
    status: StatusCode,
    media_type: String,
    challenge: Option<String>,
    location: Option<String>,
    document: Option<Value>,
}

fn view(answer: &HttpAnswer) -> AnswerView {
    let text = |name: header::HeaderName| answer.header(name).map(str::to_owned);
    AnswerView {
        status: answer.status,
        media_type: answer.media_type().to_owned(),
        challenge: text(header::WWW_AUTHENTICATE),
        location: text(header::LOCATION),
        document: answer.json().map(without_volatile),
    }
}

fn without_volatile(mut document: Value) -> Value {
    if let Some(members) = document.as_object_mut() {
        members.retain(|name, _| !VOLATILE.contains(&name.as_str()));
    }
    document
}

fn classify(kind: PathKind, direct: Option<&HttpAnswer>, public: &HttpAnswer) -> Interference {
    if public.is_of_gateway() {
        return classify_of_gateway(direct, public);
    }
    let location = public.header(header::LOCATION).unwrap_or_default();
    let body = String::from_utf8_lossy(&public.body);
    match public.status.as_u16() {
        300..=399 if location.starts_with("http://") => Interference::RedirectsToHttp,
        300..=399 => Interference::Redirects,
        413 => Interference::BodyLimit,
        414 | 431 | 494 => Interference::HeaderLimit,
        400 if body.contains("Header") && body.contains("Large") => Interference::HeaderLimit,
        408 | 504 | 524 => Interference::Timeout,
        500 | 502 | 503 | 520..=523 | 525..=530 => Interference::BadGateway,
        404 | 410 if kind == PathKind::WellKnown => Interference::DropsWellKnown,
        404 | 410 => Interference::DropsPath,
        401 | 407 => Interference::Authenticates,
        403 | 406 | 451 | 499 => Interference::Forbids,
        405 | 501 => Interference::RefusesMethod,
        429 => Interference::LimitsRate,
        _ if public.is_html() => Interference::AnswersItself,
        // A cache or a rewriter, which drops our headers.
        _ => classify_of_gateway(direct, public),
    }
}

/// The gateway answered, but to another request than the client's, or its answer was changed.
fn classify_of_gateway(direct: Option<&HttpAnswer>, public: &HttpAnswer) -> Interference {
    let status = direct.map(|direct| direct.status);
    match public.status {
        status_now if status == Some(status_now) => classify_change(direct, public),
        StatusCode::MISDIRECTED_REQUEST => Interference::ChangesHost,
        StatusCode::NOT_FOUND => Interference::RewritesPath,
        StatusCode::FORBIDDEN => Interference::HidesCaller,
        StatusCode::UNAUTHORIZED if public.header(header::WWW_AUTHENTICATE).is_none() => {
            Interference::DropsChallenge
        }
        StatusCode::UNAUTHORIZED => Interference::DropsAuthorization,
        StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::NOT_ACCEPTABLE
        | StatusCode::BAD_REQUEST
        | StatusCode::UNSUPPORTED_MEDIA_TYPE => Interference::ChangesRequest,
        _ => classify_change(direct, public),
    }
}

fn classify_change(direct: Option<&HttpAnswer>, public: &HttpAnswer) -> Interference {
    let challenge = |answer: &HttpAnswer| answer.headers.contains_key(header::WWW_AUTHENTICATE);
    match direct {
        Some(direct) if challenge(direct) && !challenge(public) => Interference::DropsChallenge,
        _ if public.is_html() && direct.is_some_and(|direct| !direct.is_html()) => {
            Interference::AnswersItself
        }
        _ => Interference::ChangesAnswer,
    }
}

fn describe(interference: Interference, direct: Option<&HttpAnswer>, public: &HttpAnswer) -> String {
    let own = direct.map(|direct| format!("; the gateway's own answer is {}", direct.describe()));
    let own = own.unwrap_or_default();
    let detail = public.detail().map(|detail| format!(", {detail:?}")).unwrap_or_default();
    let through = public.describe();
    match interference {
        Interference::Redirects | Interference::RedirectsToHttp => {
            let to = public.header(header::LOCATION).unwrap_or_default();
            format!("{} to {to}{own}", public.status)
        }
        Interference::DropsChallenge => format!("{through} without WWW-Authenticate{own}"),
        Interference::OldProtocol => "the answer comes as HTTP/1.0".to_owned(),
        Interference::ChangesAnswer => {
            let what = direct.and_then(|direct| find_changed_part(direct, public));
            format!("{through}, but {}{own}", what.unwrap_or_else(|| "it is another answer".to_owned()))
        }
        _ => format!("{through}{detail}{own}"),
    }
}

/// Names the part that was changed.
fn find_changed_part(direct: &HttpAnswer, public: &HttpAnswer) -> Option<String> {
    let (own, through) = (view(direct), view(public));
    if own.challenge != through.challenge {
        return Some(format!("WWW-Authenticate is {:?}", through.challenge.unwrap_or_default()));
    }
    if own.media_type != through.media_type {
        return Some(format!("the content type is {:?}", through.media_type));
    }
    let (own, through) = (own.document?, through.document?);
    let (own, through) = (own.as_object()?.clone(), through);
    let changed = own.iter().find(|(name, value)| through.get(name) != Some(value))?.0;
    let value = through.get(changed).map(Value::to_string);
    Some(format!("{changed} is {}", value.unwrap_or_else(|| "missing".to_owned())))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> HttpAnswer {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
                (name, HeaderValue::from_str(value).expect("a value"))
            })
            .collect();
        let status = StatusCode::from_u16(status).expect("a status");
        HttpAnswer { version: Version::HTTP_11, status, headers, body: Bytes::from(body.to_owned()) }
    }

    const OURS: [(&str, &str); 3] =
        [("x-request-id", "1"), ("x-content-type-options", "nosniff"), ("content-type", "application/json")];

    fn ours(status: u16, body: &str) -> HttpAnswer {
        answer(status, &OURS, body)
    }

    fn found(kind: PathKind, direct: &HttpAnswer, public: HttpAnswer) -> Option<Interference> {
        find(kind, Some(direct), &Ok(public), |_| true).map(|difference| difference.interference)
    }

    #[test]
    fn each_interference_is_told_by_its_answer() {
        use Interference as I;
        let html = [("content-type", "text/html")];
        let own = ours(200, r#"{"issuer": "https://h/a", "client_id": "1"}"#);
        let of = |public: HttpAnswer| found(PathKind::Endpoint, &own, public);
        assert_eq!(of(ours(200, r#"{"issuer": "https://h/a", "client_id": "2"}"#)), None);
        assert_eq!(of(ours(200, r#"{"issuer": "http://h/a"}"#)), Some(I::ChangesAnswer));
        assert_eq!(of(ours(404, "{}")), Some(I::RewritesPath));
        assert_eq!(of(ours(421, "{}")), Some(I::ChangesHost));
        assert_eq!(of(ours(403, "{}")), Some(I::HidesCaller));
        assert_eq!(of(ours(401, "{}")), Some(I::DropsChallenge));
        for (status, interference) in [
            (404, I::DropsPath),
            (403, I::Forbids),
            (401, I::Authenticates),
            (405, I::RefusesMethod),
            (413, I::BodyLimit),
            (429, I::LimitsRate),
            (431, I::HeaderLimit),
            (502, I::BadGateway),
            (504, I::Timeout),
            (200, I::AnswersItself),
        ] {
            assert_eq!(of(answer(status, &html, "<html>")), Some(interference), "{status}");
        }
        let page = answer(404, &html, "<html>");
        assert_eq!(found(PathKind::WellKnown, &own, page), Some(I::DropsWellKnown));
        let redirect = |to: &str| answer(301, &[("location", to)], "");
        assert_eq!(of(redirect("http://h/a/mcp")), Some(I::RedirectsToHttp));
        assert_eq!(of(redirect("https://h/a/mcp/")), Some(I::Redirects));
        let old = HttpAnswer { version: Version::HTTP_10, ..own.clone() };
        assert_eq!(of(old), Some(I::OldProtocol));
    }

    #[test]
    fn a_credential_or_challenge_that_is_lost_is_told() {
        let challenge = [&OURS[..], &[("www-authenticate", "Bearer")]].concat();
        let refused = answer(401, &challenge, "{}");
        let admitted = ours(200, "{}");
        assert_eq!(
            found(PathKind::Endpoint, &admitted, refused.clone()),
            Some(Interference::DropsAuthorization)
        );
        assert_eq!(found(PathKind::Endpoint, &refused, ours(401, "{}")), Some(Interference::DropsChallenge));
        assert_eq!(found(PathKind::Endpoint, &refused, refused.clone()), None);
    }

    #[test]
    fn no_answer_is_a_difference() {
        let of = |error| find(PathKind::Endpoint, None, &Err(error), |_| true).map(|it| it.interference);
        assert_eq!(of(NoAnswer::Silence), Some(Interference::Timeout));
        assert_eq!(of(NoAnswer::BrokenOff("x".into())), Some(Interference::BreaksOff));
    }
}
