//! Reads OpenMetrics text, as `prometheus_client` writes it.

/// A metric family with its samples.
#[derive(Debug, Default, PartialEq)]
pub(super) struct MetricFamily<'a> {
    /// The name, without the unit at its end.
    pub(super) name: &'a str,
    pub(super) help: &'a str,
    pub(super) kind: &'a str,
    /// The unit, if it is stated.
    pub(super) unit: &'a str,
    pub(super) samples: Vec<MetricSample<'a>>,
}

/// One sample.
#[derive(Debug, PartialEq)]
pub(super) struct MetricSample<'a> {
    /// What follows the family's name: `_total`, `_bucket` and so on.
    pub(super) suffix: &'a str,
    pub(super) labels: Vec<(&'a str, String)>,
    pub(super) value: &'a str,
}

impl MetricSample<'_> {
    /// Returns the value as a number.
    pub(super) fn number(&self) -> f64 {
        self.value.parse().unwrap_or(f64::NAN)
    }
}

/// Reads all families. What is not understood is left out; the text is this program's own.
pub(super) fn parse(text: &str) -> Vec<MetricFamily<'_>> {
    let mut families: Vec<MetricFamily<'_>> = Vec::new();
    let mut full_name = "";
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# ") {
            let mut words = described.splitn(3, ' ');
            let (Some(what), Some(name), rest) = (words.next(), words.next(), words.next()) else { continue };
            if name != full_name {
                full_name = name;
                families.push(MetricFamily { name, ..MetricFamily::default() });
            }
            let (Some(family), Some(rest)) = (families.last_mut(), rest) else { continue };
            match what {
                "HELP" => family.help = rest.strip_suffix('.').unwrap_or(rest),
                "TYPE" => family.kind = rest,
                "UNIT" => {
                    family.unit = rest;
                    let stem = name.strip_suffix(rest).and_then(|stem| stem.strip_suffix('_'));
                    family.name = stem.unwrap_or(name);
                }
                _ => {}
            }
        } else if let Some(family) = families.last_mut() {
            family.samples.extend(parse_sample(line, full_name));
        }
    }
    families
}

/// Reads a line such as `name_total{label="value"} 1`.
fn parse_sample<'a>(line: &'a str, family: &str) -> Option<MetricSample<'a>> {
    let rest = line.strip_prefix(family)?;
    let (suffix, rest) = rest.split_at(rest.find(['{', ' '])?);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(labels) => parse_labels(labels)?,
        None => (Vec::new(), rest),
    };
    let value = rest.trim_start().split(' ').next()?;
    Some(MetricSample { suffix, labels, value })
}

/// Reads labels up to the closing brace; returns what follows it, too.
fn parse_labels(mut rest: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, after) = unescape(quoted)?;
        labels.push((name, value));
        rest = after.strip_prefix(',').unwrap_or(after);
    }
}

/// Reads a value up to its closing quote; returns what follows it, too.
fn unescape(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_units_labels_and_escapes_are_read() {
        let text = "# HELP calls Calls by tenant.\n# TYPE calls counter\n\
                    calls_total{tenant=\"a\",why=\"\\\"x\\\"},\\n\\\\\"} 7\n\
                    # HELP took_seconds How long.\n# TYPE took_seconds histogram\n# UNIT took_seconds seconds\n\
                    took_seconds_sum 0.5\ntook_seconds_bucket{le=\"+Inf\"} 2\n# EOF\n";
        let families = parse(text);
        let [calls, took] = &families[..] else { panic!("{families:?}") };
        assert_eq!(
            (calls.name, calls.help, calls.kind, calls.unit),
            ("calls", "Calls by tenant", "counter", "")
        );
        let labels = vec![("tenant", "a".to_owned()), ("why", "\"x\"},\n\\".to_owned())];
        assert_eq!(calls.samples, [MetricSample { suffix: "_total", labels, value: "7" }]);
        assert_eq!((took.name, took.unit), ("took", "seconds"));
        assert_eq!(took.samples[0].suffix, "_sum");
        assert_eq!(took.samples[1].labels, [("le", "+Inf".to_owned())]);
    }
}
