//! The check of request paths before routing.

/// Why a request path was refused before routing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path is not in origin form")]
    NotOriginForm,
    #[error("the path has a character that must be percent-encoded")]
    Character,
    #[error("the path has an encoded slash, dot, backslash, percent sign or NUL")]
    Encoded,
    #[error("the path has a dot segment")]
    DotSegment,
    #[error("the path has an empty segment")]
    EmptySegment,
}

/// Refuses spellings that another party might read as another path. The query is not checked.
///
/// Accepted paths are RFC 3986's `path-absolute` without dot segments and without escapes that hide
/// structure. They are compared as they are: `/%61cme` and `/acme;v=1` are accepted here and belong
/// to no tenant.
///
/// # Errors
/// The first rule that the path breaks.
pub fn check_path(path: &str) -> Result<(), PathError> {
    let Some(segments) = path.strip_prefix('/') else { return Err(PathError::NotOriginForm) };
    check_bytes(segments.as_bytes())?;
    let mut segments = segments.split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err(PathError::EmptySegment);
        }
        if is_dot_segment(segment) {
            return Err(PathError::DotSegment);
        }
    }
    Ok(())
}

/// Some servers drop `;parameters` before they interpret a segment, so `..;x` counts as `..`.
fn is_dot_segment(segment: &str) -> bool {
    let name = segment.split_once(';').map_or(segment, |(name, _)| name);
    matches!(name, "." | "..")
}

fn check_bytes(path: &[u8]) -> Result<(), PathError> {
    let mut bytes = path.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'%' => check_escape(bytes.next(), bytes.next())?,
            _ if is_path_character(byte) => {}
            _ => return Err(PathError::Character),
        }
    }
    Ok(())
}

fn check_escape(high: Option<&u8>, low: Option<&u8>) -> Result<(), PathError> {
    let digit = |byte: Option<&u8>| byte.and_then(|&byte| char::from(byte).to_digit(16));
    match (digit(high), digit(low)) {
        (Some(high), Some(low)) => match char::from((high << 4 | low) as u8) {
            '/' | '\\' | '.' | '%' | '\0' => Err(PathError::Encoded),
            _ => Ok(()),
        },
        _ => Err(PathError::Character),
    }
}

/// `pchar` of RFC 3986 without escapes, and the slash.
fn is_path_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte)
}
