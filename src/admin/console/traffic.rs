//! The traffic of the last 24 hours, as figures and as a small chart.

use std::fmt::{self, Write};

use jiff::Timestamp;

use crate::telemetry::printable::printable;
use crate::usage::QuotaStatus;
use crate::usage::traffic::{HourTraffic, TrafficReport};

/// The traffic of a tenant, or of the gateway.
pub(super) struct TrafficView {
    pub(super) calls: u64,
    pub(super) errors: u64,
    pub(super) refused: u64,
    pub(super) in_flight: usize,
    /// The latencies of the last hour that had calls.
    pub(super) latencies: Option<LatencyView>,
    pub(super) chart: Chart,
    pub(super) quotas: Vec<QuotaView>,
}

/// How much of a quota is used.
pub(super) struct QuotaView {
    pub(super) text: String,
    pub(super) is_nearly_used_up: bool,
    pub(super) resets_at: Timestamp,
}

impl From<QuotaStatus> for QuotaView {
    fn from(quota: QuotaStatus) -> Self {
        let QuotaStatus { scope, limit, used, of, .. } = &quota;
        let limit = limit.as_str().replace('_', " ");
        Self {
            text: format!("{}: {used} of {of} {limit}", printable(scope)),
            is_nearly_used_up: quota.is_nearly_used_up(),
            resets_at: quota.resets_at,
        }
    }
}

pub(super) struct LatencyView {
    /// When the hour began: `14:00`.
    pub(super) hour: String,
    pub(super) p50_ms: u64,
    pub(super) p95_ms: u64,
}

impl From<TrafficReport> for TrafficView {
    fn from(report: TrafficReport) -> Self {
        let sum = |field: fn(&HourTraffic) -> u64| report.hours.iter().map(field).sum();
        let latencies = report.hours.iter().rev().find_map(|hour| {
            let hour_name = hour.starts.strftime("%H:%M").to_string();
            Some(LatencyView { hour: hour_name, p50_ms: hour.p50_ms?, p95_ms: hour.p95_ms? })
        });
        Self {
            calls: sum(|hour| hour.calls),
            errors: sum(|hour| hour.errors),
            refused: sum(|hour| hour.refused),
            in_flight: report.in_flight,
            latencies,
            chart: Chart(report.hours),
            quotas: report.quotas.into_iter().map(QuotaView::from).collect(),
        }
    }
}

/// A bar for each hour, with its errors at the foot. It is made of numbers only.
pub(super) struct Chart(Vec<HourTraffic>);

impl askama::filters::HtmlSafe for Chart {}

/// The height of the highest bar.
const HEIGHT: u64 = 40;

impl fmt::Display for Chart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = self.0.iter().map(|hour| hour.calls).max().unwrap_or(0).max(1);
        let mut counts = String::new();
        for hour in &self.0 {
            write!(counts, " {}", hour.calls)?;
        }
        let from = self.0.first().map(|hour| hour.starts.strftime("%H:%M").to_string()).unwrap_or_default();
        write!(
            f,
            "<svg class=\"spark\" viewBox=\"0 0 240 42\" preserveAspectRatio=\"none\" role=\"img\" \
             aria-label=\"Calls in each of the last 24 hours, from {from} UTC on:{counts}\">\
             <path class=\"base\" d=\"M0 41.5H240\"/>"
        )?;
        for (number, hour) in self.0.iter().enumerate().filter(|(_, hour)| hour.calls > 0) {
            bar(f, "calls", number, hour.calls, most)?;
            bar(f, "errors", number, hour.errors, most)?;
        }
        f.write_str("</svg>")
    }
}

/// Draws the bar of an hour; what is not zero can be seen.
fn bar(f: &mut fmt::Formatter<'_>, class: &str, number: usize, count: u64, most: u64) -> fmt::Result {
    if count == 0 {
        return Ok(());
    }
    let height = (count.saturating_mul(HEIGHT) / most).max(1);
    write!(f, "<path class=\"{class}\" d=\"M{} 41h8v-{height}h-8z\"/>", number * 10 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_says_in_words_what_it_shows() {
        let hour = |calls, errors| HourTraffic {
            calls,
            errors,
            p50_ms: Some(3),
            p95_ms: Some(9),
            ..HourTraffic::default()
        };
        let mut hours = vec![HourTraffic::default(); 22];
        hours.extend([hour(400, 1), hour(200, 200)]);
        let view = TrafficView::from(TrafficReport { in_flight: 2, hours, ..TrafficReport::default() });
        assert_eq!((view.calls, view.errors), (600, 201));
        assert_eq!(view.latencies.map(|latencies| latencies.p95_ms), Some(9));
        let chart = view.chart.to_string();
        assert!(chart.contains("from 00:00 UTC on: 0 0") && chart.contains("0 400 200\""), "{chart}");
        // One error of 400 calls is seen, and all errors fill the bar.
        for bar in [
            "class=\"calls\" d=\"M221 41h8v-40h-8z\"",
            "class=\"errors\" d=\"M221 41h8v-1h-8z\"",
            "class=\"errors\" d=\"M231 41h8v-20h-8z\"",
        ] {
            assert!(chart.contains(bar), "{bar}: {chart}");
        }
    }
}
