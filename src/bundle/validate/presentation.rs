//! How the tenant presents itself: how clients get slow answers, its icon, and the questions that
//! its connector page suggests.

use std::sync::Arc;

use url::Url;

use super::validation::Validation;
use crate::base::diagnostic::Diagnostic;
use crate::bundle::tree::ConfigValue;
use crate::spec::SlowAnswers;

/// The sample questions that the page shows.
const MAX_QUESTIONS: usize = 5;
/// The longest sample question, in characters. Longer ones are left out.
const MAX_QUESTION: usize = 200;
/// The longest URL of an icon, in bytes.
const MAX_ICON_URL: usize = 512;

/// The validated fields.
#[derive(Default)]
pub(super) struct Presentation {
    pub(super) slow_answers: SlowAnswers,
    pub(super) sample_questions: Arc<[String]>,
    pub(super) icon_url: Option<Arc<str>>,
}

pub(super) fn validate(validation: &mut Validation<'_, '_>) -> Presentation {
    Presentation {
        slow_answers: validate_answers(validation),
        sample_questions: read_questions(validation).into(),
        icon_url: validate_icon(validation),
    }
}

fn validate_answers(validation: &mut Validation<'_, '_>) -> SlowAnswers {
    let Some(found) = validation.layers.find(&["answers"]) else { return SlowAnswers::default() };
    match found.text() {
        Some("auto") => SlowAnswers::Stream,
        Some("json") => SlowAnswers::Json,
        // A value that is not text is reported with its shape.
        None => SlowAnswers::default(),
        Some(_) => {
            let finding = Diagnostic::error("bad-answers", "answers must be auto or json")
                .help("remove the line, or write `answers: json` for clients that read no event streams");
            validation.add_finding(finding, Some(found.location()));
            SlowAnswers::default()
        }
    }
}

fn validate_icon(validation: &mut Validation<'_, '_>) -> Option<Arc<str>> {
    let found = validation.layers.find(&["icon"])?;
    let text = found.text()?;
    let is_fine = text.len() <= MAX_ICON_URL
        && Url::parse(text).is_ok_and(|url| {
            url.scheme() == "https" && url.username().is_empty() && url.password().is_none()
        });
    if is_fine {
        return Some(text.into());
    }
    let finding = Diagnostic::error("bad-icon", "icon must be an https:// URL that every client can load")
        .help(format!(
            "write the URL of a PNG or SVG image (at most {MAX_ICON_URL} bytes, without a user), or remove \
             the line to use the gateway's own icon"
        ));
    validation.add_finding(finding, Some(found.location()));
    None
}

/// Returns the first questions of the export. They only decorate a page, so whatever is not a short
/// text is left out without a finding.
fn read_questions(validation: &Validation<'_, '_>) -> Vec<String> {
    let Some(found) = validation.layers.find(&["sample_questions"]) else { return Vec::new() };
    let ConfigValue::List(items) = &found.node.value else { return Vec::new() };
    let is_short = |text: &&Arc<str>| (1..=MAX_QUESTION).contains(&text.trim().chars().count());
    let texts = items.iter().filter_map(|item| match &item.value {
        ConfigValue::Scalar { text, .. } => Some(text),
        _ => None,
    });
    texts
        .filter(is_short)
        .map(|text| text.trim().chars().filter(|c| !c.is_control()).collect())
        .take(MAX_QUESTIONS)
        .collect()
}
