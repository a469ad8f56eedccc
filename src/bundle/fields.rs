//! The fields of a configuration, and the shape of their values.

use std::time::Duration;

use crate::base::likeness;

/// The shape of a value.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// A single value; numbers and booleans are taken as written.
    Text,
    /// Text that is never shown, and that an operator may also give as `x_file` or `${TENANT_…}`.
    Secret,
    Flag,
    Whole {
        min: u64,
        max: u64,
    },
    /// Bytes, as a number or with `KiB`, `MiB`.
    Size {
        min: u64,
        max: u64,
    },
    /// Seconds, or a number with `ms`, `s`, `m`, `h`.
    Span {
        min: Duration,
        max: Duration,
    },
    /// A list of texts, or one text with commas.
    Texts,
    Map(&'static [Field]),
    /// A mapping whose keys the operator chooses.
    Named(&'static Shape),
    List(&'static Shape),
    /// Anything; validated elsewhere or never read.
    Free,
}

/// Who may set a field.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// The vendor's field: valid in every file.
    Vendor,
    /// Ours, valid in operators' files only.
    Operator,
    /// Ours, valid in operators' files only, and it decides who may call: an export with it is
    /// refused, since to ignore the field would open the tenant.
    Guard,
}

pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) by: By,
}

const fn vendor(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, by: By::Vendor }
}

const fn ours(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, by: By::Operator }
}

const fn guard(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, by: By::Guard }
}

const fn span(min_ms: u64, max_seconds: u64) -> Shape {
    Shape::Span { min: Duration::from_millis(min_ms), max: Duration::from_secs(max_seconds) }
}

/// The fields of a tenant.
pub(super) const TENANT: &[Field] = &[
    vendor("search_url", Shape::Text),
    vendor("context_url", Shape::Text),
    vendor("api_key", Shape::Secret),
    vendor("connection_id", Shape::Text),
    vendor("path_prefix", Shape::Text),
    vendor("public_url", Shape::Text),
    vendor("oauth_enabled", Shape::Flag),
    vendor("microsoft_client_id", Shape::Text),
    vendor("microsoft_client_secret", Shape::Secret),
    vendor("microsoft_tenant_id", Shape::Text),
    ours("microsoft_client_secret_next", Shape::Secret),
    vendor("port", Shape::Free),
    vendor("mcp_port", Shape::Free),
    vendor("dataset", Shape::Text),
    vendor("display_name", Shape::Text),
    vendor("description", Shape::Text),
    vendor("trained_at", Shape::Free),
    vendor("schema_version", Shape::Free),
    vendor("sample_questions", Shape::Free),
    vendor("semantic_model", Shape::Free),
    vendor("backend", Shape::Map(BACKEND)),
    ours("name", Shape::Text),
    ours("instructions", Shape::Text),
    ours("enabled", Shape::Flag),
    ours("hosts", Shape::Texts),
    ours("share_host", Shape::Flag),
    ours("config", Shape::Text),
    ours("tools", Shape::Map(TOOLS)),
    ours("limits", Shape::Map(LIMITS)),
    ours("cache", Shape::Map(CACHE)),
    ours("deadline", span(1_000, 3_600)),
    ours("public", Shape::Flag),
    ours("open", Shape::Flag),
    guard("api_keys", Shape::List(&Shape::Map(API_KEY))),
    guard("access", Shape::Map(ACCESS)),
    guard("machine_clients", Shape::List(&Shape::Map(MACHINE_CLIENT))),
    guard("registration", Shape::Map(REGISTRATION)),
];

const BACKEND: &[Field] = &[
    ours("auth_header", Shape::Text),
    ours("auth_scheme", Shape::Text),
    ours("user_header", Shape::Text),
    ours("http2", Shape::Flag),
    ours("headers", Shape::Named(&Shape::Secret)),
    ours("search", Shape::Map(CALL)),
    ours("context", Shape::Map(CALL)),
];

const CALL: &[Field] = &[
    ours("method", Shape::Text),
    ours("url", Shape::Text),
    ours("headers", Shape::Named(&Shape::Secret)),
    ours("body", Shape::Text),
];

/// The tools that can be changed.
const TOOLS: &[Field] = &[ours("search", Shape::Map(TOOL)), ours("get_context", Shape::Map(CONTEXT_TOOL))];

const TOOL: &[Field] = &[
    ours("name", Shape::Text),
    ours("title", Shape::Text),
    ours("description", Shape::Text),
    ours("hidden", Shape::Flag),
    ours("parameters", Shape::Named(&Shape::Free)),
];

const CONTEXT_TOOL: &[Field] = &[
    ours("name", Shape::Text),
    ours("title", Shape::Text),
    ours("description", Shape::Text),
    ours("hidden", Shape::Flag),
];

const LIMITS: &[Field] = &[
    ours("concurrent_calls", Shape::Whole { min: 1, max: 4_096 }),
    ours("requests_per_minute", Shape::Whole { min: 1, max: 1_000_000 }),
    ours("max_request", Shape::Size { min: 1 << 10, max: 16 << 20 }),
    ours("max_response", Shape::Size { min: 1 << 10, max: 256 << 20 }),
    ours("max_result", Shape::Size { min: 1 << 10, max: 16 << 20 }),
];

const CACHE: &[Field] = &[ours("context_ttl", span(1_000, 604_800)), ours("list_ttl", span(0, 604_800))];

const API_KEY: &[Field] = &[
    ours("label", Shape::Text),
    ours("sha256", Shape::Text),
    ours("key", Shape::Secret),
    ours("expires", Shape::Text),
];

const ACCESS: &[Field] = &[
    guard("roles", Shape::Texts),
    guard("groups", Shape::Texts),
    guard("users", Shape::Texts),
    guard("email_domains", Shape::Texts),
    guard("directories", Shape::Texts),
    guard("guests", Shape::Flag),
    guard("personal_accounts", Shape::Flag),
    guard("tools", Shape::Map(TOOL_ACCESS)),
];

/// The tools to which access can be restricted.
const TOOL_ACCESS: &[Field] = &[guard("search", Shape::Map(RULES)), guard("get_context", Shape::Map(RULES))];

const RULES: &[Field] = &[
    guard("roles", Shape::Texts),
    guard("groups", Shape::Texts),
    guard("users", Shape::Texts),
    guard("email_domains", Shape::Texts),
];

const MACHINE_CLIENT: &[Field] = &[
    guard("id", Shape::Text),
    guard("label", Shape::Text),
    guard("sha256", Shape::Text),
    guard("secret", Shape::Secret),
    guard("jwks", Shape::Map(JWKS)),
    guard("roles", Shape::Texts),
];

const JWKS: &[Field] = &[guard("keys", Shape::List(&Shape::Named(&Shape::Free)))];

const REGISTRATION: &[Field] = &[guard("dynamic", Shape::Flag), guard("documents", Shape::Texts)];

/// Looks up a field by name; `x_file` is a field wherever `x` is a secret.
pub(super) fn lookup(fields: &'static [Field], name: &str) -> Option<(Shape, By)> {
    if let Some(field) = fields.iter().find(|field| field.name == name) {
        return Some((field.shape, field.by));
    }
    let base = name.strip_suffix("_file")?;
    let field = fields.iter().find(|field| field.name == base)?;
    matches!(field.shape, Shape::Secret).then_some((Shape::Text, field.by))
}

/// Returns the known field whose name is most similar to `name`, if one is close.
pub(super) fn nearest(fields: &'static [Field], name: &str) -> Option<&'static Field> {
    likeness::nearest(name, fields.iter().map(|field| (field.name, field)))
}

/// Whether a field decides who may call.
pub(super) fn guards(field: &Field) -> bool {
    field.by == By::Guard || field.name == "oauth_enabled" || field.name.starts_with("microsoft_")
}

/// Parses `true/false/1/0/yes/no/on/off`, in any case.
pub(super) fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Parses `300`, `300s`, `5m`, `1h`, `250ms`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => Some(Duration::from_secs(number)),
        "m" | "min" => Some(Duration::from_secs(number.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(number.checked_mul(3_600)?)),
        _ => None,
    }
}

/// Parses `65536`, `64KiB`, `1 MiB`.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Some(number),
        "k" | "kb" | "kib" => number.checked_mul(1 << 10),
        "m" | "mb" | "mib" => number.checked_mul(1 << 20),
        _ => None,
    }
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found() {
        let near = |name| nearest(TENANT, name).map(|field| field.name);
        assert_eq!(near("serach_url"), Some("search_url"));
        assert_eq!(near("API-KEY"), Some("api_key"));
        assert_eq!(near("oauth_enable"), Some("oauth_enabled"));
        assert_eq!(near("zzz"), None);
    }

    #[test]
    fn words_and_units_are_read() {
        assert_eq!((flag("Yes"), flag("off"), flag("maybe")), (Some(true), Some(false), None));
        assert_eq!(duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(duration("90"), Some(Duration::from_secs(90)));
        assert_eq!((duration("-1"), duration(""), duration("1d")), (None, None, None));
        assert_eq!(
            (size("64KiB"), size("1 MiB"), size("99999999999999999999")),
            (Some(65536), Some(1 << 20), None)
        );
    }

    #[test]
    fn only_secrets_have_a_file_form() {
        assert!(lookup(TENANT, "api_key_file").is_some());
        assert!(lookup(TENANT, "search_url_file").is_none());
    }
}
