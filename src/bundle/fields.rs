//! The fields of a configuration, and the shape of their values.

use std::time::Duration;

use crate::base::similarity;

/// The shape of a value.
#[derive(Clone, Copy)]
pub(super) enum FieldShape {
    /// A single value; numbers and booleans are taken as written.
    Text,
    /// Text that is never shown, and that an operator may also give as `x_file` or `${TENANT_…}`.
    Secret,
    Bool,
    Integer {
        min: u64,
        max: u64,
    },
    /// Bytes, as a number or with `KiB`, `MiB`, `GiB`.
    Size {
        min: u64,
        max: u64,
    },
    /// Seconds, or a number with `ms`, `s`, `m`, `h`.
    Duration {
        min: Duration,
        max: Duration,
    },
    /// A list of texts, or one text with commas.
    TextList,
    Map(&'static [Field]),
    /// A mapping whose keys the operator chooses.
    Named(&'static FieldShape),
    List(&'static FieldShape),
    /// Anything; validated elsewhere or never read.
    Free,
}

/// Who may set a field.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldOwner {
    /// The vendor's field: valid in every file.
    Vendor,
    /// Ours, valid in operators' files only.
    Operator,
    /// Ours, valid in operators' files only, and it decides who may call: an export with it is
    /// refused, since to ignore the field would open the tenant.
    Guard,
}

/// How much of a field's value excerpts show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visibility {
    /// Nothing: it is, or may hold, a secret.
    Hidden,
    /// All of it.
    Shown,
    /// A URL without user, query and fragment.
    Url,
    /// A mapping of words and numbers, which may be written on one line: `limits: {max_request:
    /// 1MiB}`.
    Section,
}

/// A field of a configuration.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) shape: FieldShape,
    pub(super) owner: FieldOwner,
    is_for_login: bool,
    visibility: Visibility,
}

impl Field {
    const fn new(name: &'static str, shape: FieldShape, owner: FieldOwner) -> Self {
        Self { name, shape, owner, is_for_login: false, visibility: Visibility::Hidden }
    }

    /// Marks a field that switches a login on or describes its provider: without the field, the
    /// tenant may be open.
    const fn for_login(self) -> Self {
        Self { is_for_login: true, ..self }
    }

    const fn shown(self) -> Self {
        Self { visibility: Visibility::Shown, ..self }
    }

    const fn shown_as_url(self) -> Self {
        Self { visibility: Visibility::Url, ..self }
    }

    const fn shown_as_section(self) -> Self {
        Self { visibility: Visibility::Section, ..self }
    }
}

const fn vendor(name: &'static str, shape: FieldShape) -> Field {
    Field::new(name, shape, FieldOwner::Vendor)
}

const fn ours(name: &'static str, shape: FieldShape) -> Field {
    Field::new(name, shape, FieldOwner::Operator)
}

const fn guard(name: &'static str, shape: FieldShape) -> Field {
    Field::new(name, shape, FieldOwner::Guard)
}

const fn span(min_ms: u64, max_seconds: u64) -> FieldShape {
    FieldShape::Duration { min: Duration::from_millis(min_ms), max: Duration::from_secs(max_seconds) }
}

/// The fields of a tenant.
pub(super) const TENANT: &[Field] = &[
    vendor("search_url", FieldShape::Text).shown_as_url(),
    vendor("context_url", FieldShape::Text).shown_as_url(),
    vendor("api_key", FieldShape::Secret),
    vendor("connection_id", FieldShape::Text).shown(),
    vendor("path_prefix", FieldShape::Text).shown(),
    vendor("public_url", FieldShape::Text).shown_as_url(),
    vendor("oauth_enabled", FieldShape::Bool).for_login().shown(),
    vendor("microsoft_client_id", FieldShape::Text).for_login().shown(),
    vendor("microsoft_client_secret", FieldShape::Secret).for_login(),
    vendor("microsoft_tenant_id", FieldShape::Text).for_login().shown(),
    ours("microsoft_client_secret_next", FieldShape::Secret).for_login(),
    ours("microsoft_client_secret_expires", FieldShape::Text).shown(),
    vendor("port", FieldShape::Free).shown(),
    vendor("mcp_port", FieldShape::Free).shown(),
    vendor("dataset", FieldShape::Text).shown(),
    vendor("display_name", FieldShape::Text).shown(),
    vendor("description", FieldShape::Text).shown(),
    vendor("trained_at", FieldShape::Free).shown(),
    vendor("schema_version", FieldShape::Free).shown(),
    vendor("sample_questions", FieldShape::Free),
    vendor("semantic_model", FieldShape::Free),
    vendor("backend", FieldShape::Map(BACKEND)),
    ours("name", FieldShape::Text).shown(),
    ours("instructions", FieldShape::Text).shown(),
    ours("enabled", FieldShape::Bool).shown(),
    ours("hosts", FieldShape::TextList).shown(),
    ours("listen", FieldShape::Text).shown(),
    ours("share_host", FieldShape::Bool).shown(),
    ours("config", FieldShape::Text).shown(),
    ours("tools", FieldShape::Map(TOOLS)),
    ours("limits", FieldShape::Map(LIMITS)).shown_as_section(),
    ours("usage_file", FieldShape::Bool).shown(),
    ours("cache", FieldShape::Map(CACHE)).shown_as_section(),
    ours("deadline", span(1_000, 3_600)).shown(),
    ours("answers", FieldShape::Text).shown(),
    ours("hold_changes", FieldShape::Text).shown(),
    ours("icon", FieldShape::Text).shown_as_url(),
    ours("public", FieldShape::Bool).shown(),
    ours("open", FieldShape::Bool),
    guard("api_keys", FieldShape::List(&FieldShape::Map(API_KEY))),
    guard("access", FieldShape::Map(ACCESS)).shown_as_section(),
    guard("allow_from", FieldShape::TextList).shown(),
    guard("machine_clients", FieldShape::List(&FieldShape::Map(MACHINE_CLIENT))),
    guard("registration", FieldShape::Map(REGISTRATION)).shown_as_section(),
    guard("access_token_minutes", FieldShape::Integer { min: 5, max: 60 }).shown(),
];

const BACKEND: &[Field] = &[
    ours("auth_header", FieldShape::Text).shown(),
    ours("auth_scheme", FieldShape::Text),
    ours("user_header", FieldShape::Text).shown(),
    ours("http2", FieldShape::Bool).shown(),
    ours("headers", FieldShape::Named(&FieldShape::Secret)),
    ours("search", FieldShape::Map(CALL)),
    ours("context", FieldShape::Map(CALL)),
];

const CALL: &[Field] = &[
    ours("method", FieldShape::Text).shown(),
    ours("url", FieldShape::Text).shown_as_url(),
    ours("headers", FieldShape::Named(&FieldShape::Secret)),
    ours("body", FieldShape::Text),
];

/// The tools that can be changed.
const TOOLS: &[Field] =
    &[ours("search", FieldShape::Map(TOOL)), ours("get_context", FieldShape::Map(CONTEXT_TOOL))];

const TOOL: &[Field] = &[
    ours("name", FieldShape::Text).shown(),
    ours("title", FieldShape::Text).shown(),
    ours("description", FieldShape::Text).shown(),
    ours("hidden", FieldShape::Bool).shown(),
    ours("parameters", FieldShape::Named(&FieldShape::Free)),
];

const CONTEXT_TOOL: &[Field] = &[
    ours("name", FieldShape::Text).shown(),
    ours("title", FieldShape::Text).shown(),
    ours("description", FieldShape::Text).shown(),
    ours("hidden", FieldShape::Bool).shown(),
];

const LIMITS: &[Field] = &[
    ours("concurrent_calls", FieldShape::Integer { min: 1, max: 4_096 }).shown(),
    ours("requests_per_minute", FieldShape::Integer { min: 1, max: 1_000_000 }).shown(),
    ours("calls_per_minute", FieldShape::Integer { min: 1, max: 1_000_000 }).shown(),
    ours("calls_per_day", FieldShape::Integer { min: 1, max: MANY }).shown(),
    ours("calls_per_month", FieldShape::Integer { min: 1, max: MANY }).shown(),
    ours("bytes_per_day", FieldShape::Size { min: 1 << 10, max: MANY }).shown(),
    ours("bytes_per_month", FieldShape::Size { min: 1 << 10, max: MANY }).shown(),
    ours("per_caller", FieldShape::Map(CALL_LIMITS)).shown_as_section(),
    ours("tools", FieldShape::Map(TOOL_LIMITS)),
    ours("max_request", FieldShape::Size { min: 1 << 10, max: 16 << 20 }).shown(),
    ours("max_response", FieldShape::Size { min: 1 << 10, max: 256 << 20 }).shown(),
    ours("max_result", FieldShape::Size { min: 1 << 10, max: 16 << 20 }).shown(),
];

/// The most that a day or a month can be limited to; more is no limit.
const MANY: u64 = 1 << 50;

/// The limits of each caller, and those of a tool.
const CALL_LIMITS: &[Field] = &[
    ours("concurrent_calls", FieldShape::Integer { min: 1, max: 4_096 }).shown(),
    ours("calls_per_minute", FieldShape::Integer { min: 1, max: 1_000_000 }).shown(),
    ours("calls_per_day", FieldShape::Integer { min: 1, max: MANY }).shown(),
    ours("calls_per_month", FieldShape::Integer { min: 1, max: MANY }).shown(),
    ours("bytes_per_day", FieldShape::Size { min: 1 << 10, max: MANY }).shown(),
    ours("bytes_per_month", FieldShape::Size { min: 1 << 10, max: MANY }).shown(),
];

const TOOL_LIMITS: &[Field] =
    &[ours("search", FieldShape::Map(CALL_LIMITS)), ours("get_context", FieldShape::Map(CALL_LIMITS))];

const CACHE: &[Field] =
    &[ours("context_ttl", span(1_000, 604_800)).shown(), ours("list_ttl", span(0, 604_800)).shown()];

const API_KEY: &[Field] = &[
    ours("label", FieldShape::Text).shown(),
    ours("sha256", FieldShape::Text),
    ours("key", FieldShape::Secret),
    ours("expires", FieldShape::Text).shown(),
];

const ACCESS: &[Field] = &[
    guard("roles", FieldShape::TextList).shown(),
    guard("groups", FieldShape::TextList).shown(),
    guard("users", FieldShape::TextList).shown(),
    guard("email_domains", FieldShape::TextList).shown(),
    guard("directories", FieldShape::TextList).shown(),
    guard("guests", FieldShape::Bool).shown(),
    guard("personal_accounts", FieldShape::Bool).shown(),
    guard("tools", FieldShape::Map(TOOL_ACCESS)),
];

/// The tools to which access can be restricted.
const TOOL_ACCESS: &[Field] =
    &[guard("search", FieldShape::Map(RULES)), guard("get_context", FieldShape::Map(RULES))];

const RULES: &[Field] = &[
    guard("roles", FieldShape::TextList).shown(),
    guard("groups", FieldShape::TextList).shown(),
    guard("users", FieldShape::TextList).shown(),
    guard("email_domains", FieldShape::TextList).shown(),
];

const MACHINE_CLIENT: &[Field] = &[
    guard("id", FieldShape::Text),
    guard("label", FieldShape::Text).shown(),
    guard("sha256", FieldShape::Text),
    guard("secret", FieldShape::Secret),
    guard("jwks", FieldShape::Map(JWKS)),
    guard("roles", FieldShape::TextList).shown(),
];

const JWKS: &[Field] = &[guard("keys", FieldShape::List(&FieldShape::Named(&FieldShape::Free)))];

const REGISTRATION: &[Field] =
    &[guard("dynamic", FieldShape::Bool).shown(), guard("documents", FieldShape::TextList).shown()];

/// Looks up a field by name; `x_file` is a field wherever `x` is a secret.
pub(super) fn lookup(fields: &'static [Field], name: &str) -> Option<(FieldShape, FieldOwner)> {
    if let Some(field) = fields.iter().find(|field| field.name == name) {
        return Some((field.shape, field.owner));
    }
    let base = name.strip_suffix("_file")?;
    let field = fields.iter().find(|field| field.name == base)?;
    matches!(field.shape, FieldShape::Secret).then_some((FieldShape::Text, field.owner))
}

/// Returns the known field whose name is most similar to `name`, if one is close.
pub(super) fn find_nearest(fields: &'static [Field], name: &str) -> Option<&'static Field> {
    similarity::closest(name, fields.iter().map(|field| (field.name, field)))
}

/// Returns how much of a field's value excerpts show. Its name alone decides, wherever it stands.
pub(super) fn visibility(name: &str) -> Visibility {
    let found = all_fields(TENANT).into_iter().find(|field| field.name == name);
    found.map_or(Visibility::Hidden, |field| field.visibility)
}

/// Returns these fields and all below them.
fn all_fields(fields: &'static [Field]) -> Vec<&'static Field> {
    fields.iter().flat_map(|field| std::iter::once(field).chain(fields_below(field.shape))).collect()
}

fn fields_below(shape: FieldShape) -> Vec<&'static Field> {
    match shape {
        FieldShape::Map(fields) => all_fields(fields),
        FieldShape::Named(shape) | FieldShape::List(shape) => fields_below(*shape),
        _ => Vec::new(),
    }
}

/// Whether a text looks like the name of a field, so that it may be shown.
pub(super) fn is_field_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 40
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

/// Whether a field decides who may call.
pub(super) fn is_guard(field: &Field) -> bool {
    field.owner == FieldOwner::Guard || field.is_for_login
}

/// Parses `true/false/1/0/yes/no/on/off`, in any case.
pub(super) fn parse_flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Parses `300`, `300s`, `5m`, `1h`, `250ms`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_number_and_unit(text)?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => Some(Duration::from_secs(number)),
        "m" | "min" => Some(Duration::from_secs(number.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(number.checked_mul(3_600)?)),
        _ => None,
    }
}

/// Parses `65536`, `64KiB`, `1 MiB`, `2GiB`.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_number_and_unit(text)?;
    match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Some(number),
        "k" | "kb" | "kib" => number.checked_mul(1 << 10),
        "m" | "mb" | "mib" => number.checked_mul(1 << 20),
        "g" | "gb" | "gib" => number.checked_mul(1 << 30),
        _ => None,
    }
}

fn split_number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found() {
        let near = |name| find_nearest(TENANT, name).map(|field| field.name);
        assert_eq!(near("serach_url"), Some("search_url"));
        assert_eq!(near("API-KEY"), Some("api_key"));
        assert_eq!(near("oauth_enable"), Some("oauth_enabled"));
        assert_eq!(near("zzz"), None);
    }

    #[test]
    fn words_and_units_are_read() {
        assert_eq!(
            (parse_flag("Yes"), parse_flag("off"), parse_flag("maybe")),
            (Some(true), Some(false), None)
        );
        assert_eq!(parse_duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(parse_duration("90"), Some(Duration::from_secs(90)));
        assert_eq!((parse_duration("-1"), parse_duration(""), parse_duration("1d")), (None, None, None));
        assert_eq!(
            (parse_size("64KiB"), parse_size("1 MiB"), parse_size("99999999999999999999")),
            (Some(65536), Some(1 << 20), None)
        );
    }

    #[test]
    fn fields_of_one_name_are_shown_alike_and_secrets_never() {
        let fields = all_fields(TENANT);
        assert!(fields.iter().any(|field| field.name == "max_request"), "nested ones are found");
        for field in fields {
            assert_eq!(visibility(field.name), field.visibility, "{}", field.name);
            let is_secret = matches!(field.shape, FieldShape::Secret);
            assert!(!is_secret || field.visibility == Visibility::Hidden, "{}", field.name);
        }
        assert_eq!(visibility("anything"), Visibility::Hidden);
    }

    #[test]
    fn only_secrets_have_a_file_form() {
        assert!(lookup(TENANT, "api_key_file").is_some());
        assert!(lookup(TENANT, "search_url_file").is_none());
    }
}
