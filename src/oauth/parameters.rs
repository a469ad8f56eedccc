//! The parameters of a request: of a query, or of a form (`application/x-www-form-urlencoded`).
//!
//! None may be repeated (RFC 6749 section 3.1), except `resource` (RFC 8707). Unknown parameters
//! are ignored, and empty ones treated as absent.

use std::borrow::Cow;

use http::{HeaderMap, Uri};
use percent_encoding::percent_decode;

use crate::base::headers::media_type;

/// No legitimate request has more.
const MOST: usize = 64;

/// Why parameters cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    #[error("a parameter is badly encoded")]
    Encoding,
    #[error("there are more than {MOST} parameters")]
    TooMany,
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} is present more than once")]
    Repeated(&'static str),
    #[error("the body must be application/x-www-form-urlencoded")]
    NotAForm,
}

/// Parameters in the order received, decoded.
pub struct Parameters<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Parameters<'a> {
    /// Parses a query or the body of a form.
    ///
    /// # Errors
    /// Fails if there are too many parameters or one is not encoded UTF-8.
    pub fn parse(text: &'a [u8]) -> Result<Self, ParameterError> {
        let mut all = Vec::new();
        for pair in text.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()) {
            if all.len() == MOST {
                return Err(ParameterError::TooMany);
            }
            let at = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
            let value = pair.get(at + 1..).unwrap_or_default();
            all.push((decode_component(&pair[..at])?, decode_component(value)?));
        }
        Ok(Self(all))
    }

    /// Parses the query of a URL.
    ///
    /// # Errors
    /// Fails as `parse` does.
    pub fn from_query(url: &'a Uri) -> Result<Self, ParameterError> {
        Self::parse(url.query().unwrap_or_default().as_bytes())
    }

    /// Parses the body of a request whose content type is a form.
    ///
    /// # Errors
    /// Fails if the content type is another one, or as `parse` does.
    pub fn from_form(headers: &HeaderMap, body: &'a [u8]) -> Result<Self, ParameterError> {
        match media_type(headers).eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            true => Self::parse(body),
            false => Err(ParameterError::NotAForm),
        }
    }

    /// Returns the value of a parameter; `None` if it is absent or empty.
    ///
    /// # Errors
    /// Fails if the parameter is repeated.
    pub fn get(&self, name: &'static str) -> Result<Option<&str>, ParameterError> {
        let mut values = self.values(name);
        match (values.next(), values.next()) {
            (first, None) => Ok(first.filter(|value| !value.is_empty())),
            _ => Err(ParameterError::Repeated(name)),
        }
    }

    /// Returns the value of a parameter that must be there.
    ///
    /// # Errors
    /// Fails if the parameter is absent, empty or repeated.
    pub fn require(&self, name: &'static str) -> Result<&str, ParameterError> {
        self.get(name)?.ok_or(ParameterError::Missing(name))
    }

    /// Returns all non-empty values of a parameter that may be repeated.
    pub fn get_all(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.values(name).filter(|value| !value.is_empty())
    }

    fn values(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| &**value)
    }
}

/// Decodes a name or value, with `+` as a space. Refuses invalid UTF-8, which could not be returned
/// unchanged.
pub(super) fn decode_component(text: &[u8]) -> Result<Cow<'_, str>, ParameterError> {
    if !text.contains(&b'+') {
        return percent_decode(text).decode_utf8().map_err(|_| ParameterError::Encoding);
    }
    let spaced: Vec<u8> = text.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
    let decoded = percent_decode(&spaced).decode_utf8().map_err(|_| ParameterError::Encoding)?;
    Ok(Cow::Owned(decoded.into_owned()))
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;

    #[test]
    fn parameters_are_decoded_and_given_back_whole() {
        let read =
            Parameters::parse(b"a=1&b=x%2By+z&c&d=&resource=1&resource=2&resource=&%65=5&&").expect("read");
        assert_eq!(read.get("a"), Ok(Some("1")));
        assert_eq!(read.get("b"), Ok(Some("x+y z")));
        assert_eq!((read.get("c"), read.get("d"), read.get("z")), (Ok(None), Ok(None), Ok(None)));
        assert_eq!(read.get("e"), Ok(Some("5")));
        assert_eq!(read.get_all("resource").collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn repeated_or_undecodable_parameters_are_refused() {
        let read = Parameters::parse(b"a=1&a=1").expect("read");
        assert_eq!(read.get("a"), Err(ParameterError::Repeated("a")));
        assert!(matches!(Parameters::parse(b"a=%ff"), Err(ParameterError::Encoding)));
        assert!(matches!(Parameters::parse("a&".repeat(65).as_bytes()), Err(ParameterError::TooMany)));
    }

    #[test]
    fn a_body_needs_the_form_content_type() {
        let of = |kind: &'static str| {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
            Parameters::from_form(&headers, b"a=1").is_ok()
        };
        assert!(
            of("application/x-www-form-urlencoded") && of("Application/x-www-form-urlencoded; charset=utf-8")
        );
        assert!(!of("application/json") && !of("text/plain") && !of(""));
        assert!(Parameters::from_form(&HeaderMap::new(), b"a=1").is_err());
    }
}
