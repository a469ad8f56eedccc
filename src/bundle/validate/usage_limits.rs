//! How much callers may use a tenant: the limits of calls and bytes in `limits:`.

use std::sync::Arc;

use super::validation::Validation;
use crate::base::diagnostic::Diagnostic;
use crate::bundle::fields;
use crate::bundle::layers::Layers;
use crate::spec::{CallLimits, ToolKind, ToolSpec, UsageLimits};

/// The tools as `limits.tools` names them.
const TOOLS: [(&str, ToolKind); 2] = [("search", ToolKind::Search), ("get_context", ToolKind::Context)];

/// Returns the limits. Those of a tool that is not listed limit nothing.
pub(super) fn validate(validation: &mut Validation<'_, '_>, tools: &[ToolSpec]) -> UsageLimits {
    let layers = validation.layers;
    // Calls at once of all callers together are limited at the backend.
    let tenant = CallLimits { concurrent_calls: None, ..read(layers, &["limits"]) };
    let per_caller = read(layers, &["limits", "per_caller"]);
    let listed = |kind| tools.iter().find(|tool| tool.kind == kind).map(|tool| Arc::clone(&tool.name));
    let tool_limits = TOOLS.into_iter().filter_map(|(key, kind)| {
        let limits = read(layers, &["limits", "tools", key]);
        Some((listed(kind)?, limits)).filter(|_| !limits.is_empty())
    });
    let limits = UsageLimits { tenant, per_caller, tools: tool_limits.collect() };
    warn_of_useless_limits(validation, &limits);
    limits
}

fn read(layers: &Layers, path: &[&str]) -> CallLimits {
    let text = |name| layers.find_text(&[path, &[name]].concat());
    let number = |name| text(name).and_then(|text| text.parse().ok());
    let rate = |name| text(name).and_then(|text| text.parse().ok());
    let size = |name| text(name).and_then(fields::parse_size);
    CallLimits {
        concurrent_calls: rate("concurrent_calls"),
        calls_per_minute: rate("calls_per_minute"),
        calls_per_day: number("calls_per_day"),
        calls_per_month: number("calls_per_month"),
        bytes_per_day: size("bytes_per_day"),
        bytes_per_month: size("bytes_per_month"),
    }
}

/// Warns of a month that allows no more than a day of it: one of the two is a mistake.
fn warn_of_useless_limits(validation: &mut Validation<'_, '_>, limits: &UsageLimits) {
    let is_useless = |limits: &CallLimits| {
        let exceeds =
            |day: Option<u64>, month: Option<u64>| day.zip(month).is_some_and(|(day, month)| day > month);
        exceeds(limits.calls_per_day, limits.calls_per_month)
            || exceeds(limits.bytes_per_day, limits.bytes_per_month)
    };
    let all = [&limits.tenant, &limits.per_caller].into_iter().chain(limits.tools.iter().map(|(_, it)| it));
    if !all.into_iter().any(is_useless) {
        return;
    }
    let found = "a limit of a day in limits: is higher than that of the month, so it limits nothing";
    let location = validation.locate(&["limits"]);
    let help = "lower the limit of the day, or raise that of the month";
    validation.add_finding(Diagnostic::warning("limit-without-effect", found).help(help), location);
}
