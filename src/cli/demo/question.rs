//! Parses a question in plain language. There is no model: the parser knows the dataset's words and
//! a few of English, which is enough to answer honestly or to say that it did not understand.

use super::dataset::{Column, ColumnKind, Dataset};
use super::words::Words;

/// A parsed question.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ParsedQuestion {
    pub(super) filters: Vec<Filter>,
    pub(super) kind: QuestionKind,
    /// The maximum number of rows, and from which end.
    pub(super) top: Option<Top>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum QuestionKind {
    /// The rows themselves, ordered by the column `by` if `top` is set.
    Rows { by: usize },
    /// One figure, or one for each group.
    Figure { figure: Aggregate, group: Option<GroupBy> },
}

/// A figure over rows; the number is the column's position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Aggregate {
    Count,
    Sum(usize),
    Average(usize),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum GroupBy {
    Column(usize),
    /// The month of the date in this column.
    Month(usize),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Filter {
    /// The column's text is one of these.
    OneOf(usize, Vec<&'static str>),
    /// The date begins with one of these (`2026-03`).
    Months(usize, Vec<String>),
    /// The number is above or equal to a bound.
    AtLeast(usize, f64),
    AtMost(usize, f64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Top {
    pub(super) count: usize,
    pub(super) largest: bool,
}

impl ParsedQuestion {
    /// Parses a question. `None` if it says nothing about the dataset.
    pub(super) fn read(text: &str, dataset: &Dataset) -> Option<Self> {
        let mut words = Words::of(text);
        let about = MeasureHint::read(&words, dataset);
        let mut filters = values(&mut words, dataset);
        filters.extend(months(&mut words, dataset));
        filters.extend(bounds(&mut words, about.measure));
        let group = group(&words, dataset);
        let top = top(&words);
        let figure = about.figure(&words, top.is_some(), group.is_some());
        let ask = match figure {
            Some(figure) => QuestionKind::Figure { figure, group },
            None => QuestionKind::Rows { by: about.measure },
        };
        let understood = !filters.is_empty() || figure.is_some() || top.is_some() || lists(&words, dataset);
        (understood && !Words::of(text).is_empty()).then_some(Self { filters, kind: ask, top })
    }
}

/// The number column that a question is about, and whether the question names it.
struct MeasureHint {
    measure: usize,
    named: bool,
}

impl MeasureHint {
    fn read(words: &Words, dataset: &Dataset) -> Self {
        let named = columns(dataset, ColumnKind::Number).find(|(_, column)| mentions(words, column));
        let default =
            || dataset.position(dataset.measure).expect("a dataset's measure is one of its columns");
        Self { measure: named.map_or_else(default, |(at, _)| at), named: named.is_some() }
    }

    fn figure(&self, words: &Words, top: bool, grouped: bool) -> Option<Aggregate> {
        if words.has_any(&["average", "avg", "mean"]) {
            return Some(Aggregate::Average(self.measure));
        }
        let counts = words.has_any(&["how many", "count", "number of"]);
        if counts && !self.named {
            return Some(Aggregate::Count);
        }
        let sums = counts || words.has_any(&["total", "sum", "how much", "overall"]);
        if sums {
            return Some(Aggregate::Sum(self.measure));
        }
        match (grouped, self.named, top) {
            (true, true, _) if rates(words) => Some(Aggregate::Average(self.measure)),
            (true, true, _) => Some(Aggregate::Sum(self.measure)),
            (true, false, _) => Some(Aggregate::Count),
            (false, ..) => None,
        }
    }
}

/// Returns whether the question is about ratings or prices, which are averaged, not summed.
fn rates(words: &Words) -> bool {
    words.has_any(&["satisfaction", "rating", "score", "unit cost", "cost", "price"])
}

fn lists(words: &Words, dataset: &Dataset) -> bool {
    words.has_any(&["list", "show", "all", "latest", "newest"]) && words.has(dataset.noun[0])
}

/// Returns filters for the texts of the table that the question names, such as a region.
fn values(words: &mut Words, dataset: &Dataset) -> Vec<Filter> {
    let rows = dataset.rows();
    let of = |(at, _): (usize, _)| rows.iter().map(move |row| (row[at], at));
    let mut known: Vec<(&'static str, usize)> = columns(dataset, ColumnKind::Text).flat_map(of).collect();
    known.sort_unstable();
    known.dedup();
    let mut filters: Vec<Filter> = Vec::new();
    for (text, at) in known.into_iter().filter(|(text, _)| words.take(text)) {
        let same = |filter: &&mut Filter| matches!(filter, Filter::OneOf(column, _) if *column == at);
        match filters.iter_mut().find(same) {
            Some(Filter::OneOf(_, texts)) => texts.push(text),
            _ => filters.push(Filter::OneOf(at, vec![text])),
        }
    }
    filters
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

fn months(words: &mut Words, dataset: &Dataset) -> Option<Filter> {
    let (at, _) = columns(dataset, ColumnKind::Date).next()?;
    let last = || dataset.rows().last().map(|row| row[at][..7].to_owned());
    if words.take("last month") || words.take("latest month") {
        return Some(Filter::Months(at, vec![last()?]));
    }
    let mut chosen = Vec::new();
    for (number, name) in (1..).zip(MONTHS) {
        // "may" is mostly a verb.
        let named =
            if name == "may" { words.take("in may") || words.take("of may") } else { words.take(name) };
        if named || words.take(&name[..3]) && name != "may" {
            chosen.push(number);
        }
    }
    for quarter in 1..=4 {
        if words.take(&format!("q{quarter}")) {
            chosen.extend(quarter * 3 - 2..=quarter * 3);
        }
    }
    let year = last()?[..4].to_owned();
    let months: Vec<String> = chosen.into_iter().map(|month| format!("{year}-{month:02}")).collect();
    (!months.is_empty()).then_some(Filter::Months(at, months))
}

fn bounds(words: &mut Words, measure: usize) -> Vec<Filter> {
    const ABOVE: [&str; 5] = ["over", "above", "more than", "at least", "greater than"];
    const BELOW: [&str; 5] = ["under", "below", "less than", "at most", "fewer than"];
    let number = |phrases: &[&str]| words.after(phrases).and_then(|word| word.parse::<f64>().ok());
    let above = number(&ABOVE).map(|bound| Filter::AtLeast(measure, bound));
    let below = number(&BELOW).map(|bound| Filter::AtMost(measure, bound));
    above.into_iter().chain(below).collect()
}

fn group(words: &Words, dataset: &Dataset) -> Option<GroupBy> {
    const LEADS: [&str; 8] = ["per", "by", "for each", "each", "between", "across", "which", "what"];
    let led = LEADS.iter().filter_map(|lead| words.tail(lead)).find_map(|tail| named_first(tail, dataset));
    led.or_else(|| {
        let tail = TOPS.iter().find_map(|(top, _)| words.tail(top))?;
        named_first(tail.split_once(' ').map_or(tail, |(_, rest)| rest), dataset)
    })
}

/// Returns the group that a text begins with.
fn named_first(tail: &str, dataset: &Dataset) -> Option<GroupBy> {
    let begins = |word: &str| {
        let word = word.to_lowercase();
        let forms = super::words::plurals(&word);
        std::iter::once(&word)
            .chain(&forms)
            .any(|form| tail.strip_prefix(form.as_str()).is_some_and(|rest| rest.starts_with(' ')))
    };
    let date = columns(dataset, ColumnKind::Date).next();
    if begins("month") {
        return date.map(|(at, _)| GroupBy::Month(at));
    }
    let named = |column: &Column| begins(column.name) || column.synonyms.iter().any(|word| begins(word));
    let found = columns(dataset, ColumnKind::Text).find(|(_, column)| named(column));
    found.map(|(at, _)| GroupBy::Column(at))
}

const TOPS: [(&str, bool); 3] = [("top", true), ("bottom", false), ("worst", false)];
const LARGEST: [&str; 7] = ["highest", "largest", "biggest", "most", "best", "maximum", "longest"];
const SMALLEST: [&str; 7] = ["lowest", "smallest", "least", "cheapest", "minimum", "shortest", "fewest"];

fn top(words: &Words) -> Option<Top> {
    for (word, largest) in TOPS {
        if words.has(word) {
            let count = words.after(&[word]).and_then(number).unwrap_or(5);
            return Some(Top { count, largest });
        }
    }
    let one = |largest| Some(Top { count: 1, largest });
    match () {
        () if words.has_any(&LARGEST) && !words.has("at most") => one(true),
        () if words.has_any(&SMALLEST) && !words.has("at least") => one(false),
        () => None,
    }
}

fn number(word: &str) -> Option<usize> {
    const NUMBERS: [&str; 10] =
        ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
    let spelt = || NUMBERS.iter().position(|number| *number == word).map(|at| at + 1);
    word.parse().ok().or_else(spelt).filter(|count| *count > 0)
}

fn columns(
    dataset: &Dataset,
    kind: ColumnKind,
) -> impl Iterator<Item = (usize, &'static Column)> + Clone + use<> {
    dataset.columns.iter().enumerate().filter(move |(_, column)| column.kind == kind)
}

fn mentions(words: &Words, column: &Column) -> bool {
    words.has(column.name) || words.has_any(column.synonyms)
}
